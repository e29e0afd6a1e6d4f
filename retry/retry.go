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

// A Transport is an http.RoundTripper that sends requests through Base, and retries
// them. The zero value is ready to use.
//
// A Transport is safe for concurrent use by multiple goroutines. Its fields must not be
// modified after first use. Several Transports may share a Base.
type Transport struct {
	// Base is the RoundTripper that sends the requests, usually a *reauth.Transport. If
	// nil, http.DefaultTransport is used.
	Base http.RoundTripper

	// MaxRetries is the maximum number of retries of a request. If zero, 3 is used. If
	// negative, requests are not retried.
	MaxRetries int

	// MinWait is the delay before the first retry. It doubles with each further retry,
	// and is randomized by ±50%. A Retry-After replaces it, with up to MinWait added at
	// random, so that clients do not retry at the same time. If zero, 500 ms is used.
	// If negative, there is no delay but that of Retry-After.
	MinWait time.Duration

	// MaxWait is the longest delay. If a response asks for a longer one, it is
	// returned. If the request's deadline is nearer than the end of the delay, the last
	// response or error is returned. If zero, 30 seconds is used. If negative, there is
	// no limit.
	MaxWait time.Duration

	// Repeatable reports whether a server may apply a request twice. It must be safe
	// for concurrent use by multiple goroutines. If nil, Idempotent is used. A POST
	// that asks a language model for a completion may be repeatable, as at worst it
	// costs twice:
	//
	//	Repeatable: func(req *http.Request) bool {
	//		return retry.Idempotent(req) || strings.HasSuffix(req.URL.Path, "/chat/completions")
	//	}
	Repeatable func(*http.Request) bool

	// Logger specifies an optional logger for a record with level Debug about each
	// retry. If nil, slog.Default is used.
	Logger *slog.Logger
}

const (
	defaultMax     = 3
	defaultWait    = 500 * time.Millisecond
	defaultMaxWait = 30 * time.Second
	noLimit        = time.Duration(1 << 62) // leaves room to add a jitter
)

// Bounds of reading a response that is not returned, so that its connection can be
// reused.
const (
	drainBytes = 64 << 10
	drainTime  = time.Second
)

// NewClient returns an http.Client like reauth.NewClient, with a Transport above the
// reauth.Transport.
func NewClient(r reauth.Refresher, origins ...string) *http.Client {
	client := reauth.NewClient(r, origins...)
	client.Transport = &Transport{Base: client.Transport}
	return client
}

// RoundTrip implements http.RoundTripper.
//
// It returns the last response or error of Base. If the request's context ends during
// the delay before a retry, it returns the cause of the context.
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

// CloseIdleConnections calls the CloseIdleConnections method of Base, if there is one.
// http.Client.CloseIdleConnections calls it. It affects all Transports that share the
// Base.
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

// replayable reports whether req can be sent more than once.
func replayable(req *http.Request) bool {
	return req.URL != nil && req.URL.Host != "" && (req.Body == nil || req.Body == http.NoBody || req.GetBody != nil)
}

// standIn goes through the loop in place of the caller's request. The http.Client in
// the loop would change the request, and reject one that a ReverseProxy made.
var standIn = &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "http", Host: "caller.invalid"}}

// An exchange is one request in the loop, for which it is the RoundTripper. The loop
// sees statuses and errors only. It therefore follows no redirect, waits for no body,
// and closes no connection of Base.
type exchange struct {
	t    *Transport
	req  *http.Request // the caller's
	next *http.Request // what is sent next: req, or a copy with a body of its own
	n    int           // how many retries there were, of max
	max  int
	at   time.Time // when the next is due
	resp *http.Response
	err  error
}

// RoundTrip sends the next request, in place of the request of the loop.
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

// repeat reports whether to send the request again, and prepares that. If it reports
// true, only the end of the context prevents the retry.
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

// worthwhile reports whether a retry may succeed, and does no harm. The policy of the
// loop recognizes errors that are permanent; it needs err as its http.Client returns
// it.
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

// final reports whether err would be the same after a retry.
func final(err error) bool {
	var refresh *reauth.RefreshError
	var untrusted *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	return errors.As(err, &refresh) || errors.As(err, &untrusted) || errors.As(err, &noTLS) ||
		errors.Is(err, reauth.ErrInsecure) || errors.Is(err, reauth.ErrLoggedOut) || errors.Is(err, reauth.ErrClosed) ||
		errors.Is(err, context.Canceled) || // a context below was; a deadline there may be that of a single attempt
		strings.HasPrefix(err.Error(), "reauth: ") // an error of the reauth.Transport, such as of its configuration; those of its Base have no prefix
}

// unsent reports whether err says that no connection could be made.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect" || op.Op == "socks connect")
}

// bearable reports whether there is time for the delay before the retry, and sets when
// it ends.
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

// rewind prepares the next request. The last response can still be returned if that
// fails.
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

// settle closes the last response, and returns the rest of the delay. The loop calls it
// after it has decided to retry.
func (x *exchange) settle(_, _ time.Duration, _ int, _ *http.Response) time.Duration {
	x.log()
	if x.resp != nil {
		httpx.Drain(x.req.Context(), x.resp.Body, drainBytes, drainTime)
	}
	x.resp, x.err = nil, nil
	return time.Until(x.at)
}

func (x *exchange) log() {
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

// secrets returns what an error or a server may repeat, and a log must not contain.
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
