package retry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/mask"
	"github.com/reauth-go/reauth/internal/retryafter"
)

// A Transport is an http.RoundTripper that repeats requests through Base. The
// zero value is ready to use.
//
// Its fields are not changed after first use. It is safe for concurrent use and
// shares its Base with as many others as one likes.
type Transport struct {
	// Base sends the requests, usually a *reauth.Transport. Nil means
	// http.DefaultTransport.
	Base http.RoundTripper

	// MaxRetries is how often a request is repeated. Zero means 3 times; negative means
	// not at all.
	MaxRetries int

	// MinWait is the time before the first repeat. It doubles with each that
	// follows, and is jittered by half. A Retry-After takes its place; as much as
	// MinWait is added to that at random, so that not all who were told the same
	// come back at once. Zero means 500 ms; negative means none, but what
	// Retry-After says.
	MinWait time.Duration

	// MaxWait is the longest wait. A response that asks for a longer one is
	// returned, as is what is in hand when the request's deadline is nearer than
	// the end of the wait. Zero means 30 seconds; negative means no limit.
	MaxWait time.Duration

	// Repeatable reports whether it does no harm to apply a request twice. It must be
	// safe for concurrent use. Nil means Idempotent. A POST that asks a language model
	// for a completion costs twice at worst, and is worth it after a 502, 503 or 529:
	//
	//	Repeatable: func(req *http.Request) bool {
	//		return retry.Idempotent(req) || strings.HasSuffix(req.URL.Path, "/chat/completions")
	//	}
	Repeatable func(*http.Request) bool

	// Logger gets a Debug record for each repeat. Nil means slog.Default().
	Logger *slog.Logger
}

const (
	defaultMax     = 3
	defaultWait    = 500 * time.Millisecond
	defaultMaxWait = 30 * time.Second
	noLimit        = time.Duration(1 << 62) // leaves room to add a jitter
)

// How much of a response that is not returned is read, and for how long, so that
// its connection can be used again.
const (
	drainBytes = 64 << 10
	drainTime  = time.Second
)

// NewClient returns an http.Client with a Transport above that of
// reauth.NewClient, all else at its defaults.
func NewClient(r reauth.Refresher, origins ...string) *http.Client {
	client := reauth.NewClient(r, origins...)
	client.Transport = &Transport{Base: client.Transport}
	return client
}

// RoundTrip implements http.RoundTripper.
//
// It returns the last response or error of Base as it is. Only if the request's
// context ends while it waits for a repeat, that is the cause of the context.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	limit := orDefault(t.MaxRetries, defaultMax)
	if limit < 0 || !replayable(req) {
		return t.base().RoundTrip(req)
	}
	x := &exchange{t: t, max: limit, req: req, next: req}
	loop := retryablehttp.Client{
		HTTPClient:   &http.Client{Transport: x},
		RetryMax:     limit,
		CheckRetry:   x.repeat,
		Backoff:      x.settle,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	_, _ = loop.Do(&retryablehttp.Request{Request: standIn.WithContext(req.Context())})
	if x.resp == nil && x.err == nil { // it was settled, and not sent again
		httpx.CloseBody(x.next.Body)
		return nil, context.Cause(req.Context())
	}
	return x.resp, x.err
}

// CloseIdleConnections calls that of Base, which http.Client.CloseIdleConnections
// expects. Transports that share the Base lose their idle connections too.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (t *Transport) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}

// replayable reports whether req can be sent more than once, if it can be sent
// at all.
func replayable(req *http.Request) bool {
	return req.URL != nil && req.URL.Host != "" && (req.Body == nil || req.Body == http.NoBody || req.GetBody != nil)
}

// standIn goes through the loop in place of the caller's request: the
// http.Client in there would change that, and refuse one that a ReverseProxy
// made.
var standIn = &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "http", Host: "caller.invalid"}}

// An exchange is one request on its way through the loop, of which it is the
// sender. It shows the loop no more than statuses and errors: so there is
// neither a redirect to follow nor a body to wait for, and no connection of
// Base to close.
type exchange struct {
	t    *Transport
	req  *http.Request // the caller's
	next *http.Request // what is sent next: req, or a copy with a body of its own
	n    int           // how many repeats there were, of max
	max  int
	at   time.Time // when the next is due
	resp *http.Response
	err  error
}

// RoundTrip sends the next request, whatever the loop has for one.
func (x *exchange) RoundTrip(*http.Request) (*http.Response, error) {
	x.resp, x.err = x.t.base().RoundTrip(x.next)
	if x.resp != nil {
		x.resp.Request = httpx.Shown(x.req, x.resp.Request, x.next)
	} else if x.err == nil {
		x.err = fmt.Errorf("retry: Base (%T) returned neither a response nor an error", x.t.base())
	}
	if x.err != nil {
		return nil, x.err
	}
	return &http.Response{Status: x.resp.Status, StatusCode: x.resp.StatusCode, Body: http.NoBody}, nil
}

// repeat reports whether the request is to be sent again, and prepares that:
// from here on nothing but the end of its context keeps it from being sent.
func (x *exchange) repeat(ctx context.Context, seen *http.Response, err error) (bool, error) {
	if x.n == x.max {
		return false, nil
	}
	after, asked := retryafter.Of(x.resp)
	if !x.worthwhile(ctx, seen, err, asked) || !x.bearable(ctx, after, asked) || !x.rewind() {
		return false, nil
	}
	x.n++
	return true, nil
}

// worthwhile reports whether another try may do better, and does no harm. What
// cannot be cured the loop's own policy knows: it wants the error as its
// http.Client returns it.
func (x *exchange) worthwhile(ctx context.Context, seen *http.Response, err error, asked bool) bool {
	repeatable := Idempotent
	if x.t.Repeatable != nil {
		repeatable = x.t.Repeatable
	}
	hopeful, _ := retryablehttp.DefaultRetryPolicy(ctx, seen, err)
	if x.err != nil {
		return hopeful && !final(x.err) && (repeatable(x.req) || unsent(x.err))
	}
	switch x.resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return hopeful && (asked || repeatable(x.req))
	case http.StatusRequestTimeout, http.StatusTooEarly: // RFC 9110 §15.5.9, RFC 8470 §5.2
		return ctx.Err() == nil && repeatable(x.req)
	}
	return hopeful && repeatable(x.req)
}

// Idempotent reports whether req is idempotent (RFC 9110 §9.2.2), or its caller has made
// it so by an Idempotency-Key or X-Idempotency-Key header.
func Idempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	// An empty list counts, as in net/http: it marks the request, and is not sent.
	_, ok := req.Header["Idempotency-Key"]
	_, x := req.Header["X-Idempotency-Key"]
	return ok || x
}

// final reports whether err says something that another try will not change.
func final(err error) bool {
	var refresh *reauth.RefreshError
	var untrusted *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	return errors.As(err, &refresh) || errors.As(err, &untrusted) || errors.As(err, &noTLS) ||
		errors.Is(err, reauth.ErrInsecure) || errors.Is(err, reauth.ErrLoggedOut) || errors.Is(err, reauth.ErrClosed) ||
		errors.Is(err, context.Canceled) || // somebody below us was; a deadline there is that of a single try
		strings.HasPrefix(err.Error(), "reauth: ") // its own, as of its configuration; those of its Base it passes on
}

// unsent reports whether err says that there was no connection to send anything
// through.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect" || op.Op == "socks connect")
}

// bearable reports whether there is time for the wait before the next send, and
// notes when it ends.
func (x *exchange) bearable(ctx context.Context, after time.Duration, asked bool) bool {
	most := orDefault(x.t.MaxWait, defaultMaxWait)
	if most < 0 || most > noLimit {
		most = noLimit
	}
	first := min(max(orDefault(x.t.MinWait, defaultWait), 0), noLimit)
	var wait time.Duration
	if asked {
		if after > most {
			return false
		}
		wait = after + jitter(first)
	} else {
		wait = retryablehttp.DefaultBackoff(first, most-most/3, x.n, nil) // leaves room for the jitter
		wait = wait/2 + jitter(wait)
	}
	x.at = time.Now().Add(wait)
	end, ok := ctx.Deadline()
	return !ok || x.at.Before(end)
}

func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// rewind makes the next request, while there still is a response to return if
// that fails.
func (x *exchange) rewind() bool {
	if x.req.Body == nil || x.req.Body == http.NoBody {
		return true
	}
	body, err := x.req.GetBody()
	if err != nil || body == nil {
		return false
	}
	x.next = x.req.WithContext(x.req.Context())
	x.next.Body = body
	return true
}

// settle closes what was answered, and returns how long is left to wait. The loop
// calls it when it is sure to go on.
func (x *exchange) settle(_, _ time.Duration, _ int, _ *http.Response) time.Duration {
	x.tell()
	if x.resp != nil {
		httpx.Drain(x.req.Context(), x.resp.Body, drainBytes, drainTime)
	}
	x.resp, x.err = nil, nil
	return time.Until(x.at)
}

func (x *exchange) tell() {
	ctx, l := x.req.Context(), x.t.Logger
	if l == nil {
		l = slog.Default()
	}
	if !l.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", mask.Printable(x.req.Method, 20)),
		slog.String("host", mask.Printable(x.req.URL.Host, 255)),
		slog.Int("repeat", x.n),
		slog.Duration("retry_in", max(0, time.Until(x.at))),
	}
	secrets := secrets(x.req)
	if x.resp != nil {
		attrs = append(attrs, slog.Int("status", x.resp.StatusCode), slog.String("request_id", mask.Text(reauth.RequestID(x.resp), 128, secrets...)))
	}
	if x.err != nil {
		attrs = append(attrs, slog.String("error", mask.ErrorText(x.err, secrets...)))
	}
	l.LogAttrs(ctx, slog.LevelDebug, "retry: to be sent again", attrs...)
}

// secrets returns what an error or a server may repeat and nobody should read.
// Some APIs have their key in the path.
func secrets(req *http.Request) []string {
	all := []string{req.URL.Path, req.URL.EscapedPath(), req.URL.RawQuery}
	for _, key := range []string{"Authorization", "Cookie", "X-Api-Key", "Api-Key", "X-Goog-Api-Key"} {
		all = append(all, httpx.Values(req.Header, key)...)
	}
	return slices.DeleteFunc(all, func(s string) bool { return len(s) < mask.Overlap })
}

// orDefault returns v, or d where it is zero.
func orDefault[T int | time.Duration](v, d T) T {
	if v == 0 {
		return d
	}
	return v
}
