package refresher

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
	"github.com/reauth-go/reauth/internal/origin"
	"github.com/reauth-go/reauth/internal/retryafter"
)

const (
	maxRepeats    = 7
	minBackoff    = 100 * time.Millisecond
	maxBackoff    = 2 * time.Second
	maxRetryAfter = 5 * time.Second
	patience      = time.Minute // how long to wait for an answer that may have the next refresh token
)

// secure returns an error unless requests to address are encrypted, or do not leave
// this machine.
func secure(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return fmt.Errorf("the endpoint %q is not a URL: set OAuth2.Config.Endpoint", shownURL(address))
	}
	if at := origin.Of(u); at.Scheme != "https" && (at.Scheme != "http" || !at.Loopback()) {
		return mask.WithText(fmt.Sprintf("the endpoint %s is not https, and would show the client's secret and the tokens to the network", at), reauth.ErrInsecure)
	}
	return nil
}

// shownURL returns an address for an error, without a password or a query. The address
// need not be a URL.
func shownURL(address string) string {
	address, _, _ = strings.Cut(address, "?")
	if scheme, rest, ok := strings.Cut(address, "//"); ok {
		address = scheme + "//" + rest[strings.LastIndex(rest, "@")+1:]
	}
	return mask.Text(address, 200)
}

// baseOf returns the RoundTripper that sends the requests.
func baseOf(ctx context.Context, base http.RoundTripper) http.RoundTripper {
	if base != nil {
		return base
	}
	if client, _ := ctx.Value(oauth2.HTTPClient).(*http.Client); client != nil && client.Transport != nil {
		return client.Transport
	}
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t = t.Clone()
		t.DisableKeepAlives = true
		return t
	}
	return http.DefaultTransport
}

// An endpoint sends one request, and repeats it.
type endpoint struct {
	outer context.Context // the refresh's
	ctx   context.Context // the request's, which may last longer
	stop  func()          // releases ctx
	base  http.RoundTripper
	once  bool // the server must not see the request twice

	repeats int // at most

	out    atomic.Bool   // the server may have the request, and there is no answer yet
	lost   bool          // the answer was lost: out is still true at the end
	answer *answer       // the latest
	tries  int           // so far
	wait   time.Duration // before the next
}

// newEndpoint returns an endpoint whose stop has to be called.
func newEndpoint(ctx context.Context, base http.RoundTripper, once bool) *endpoint {
	e := &endpoint{outer: ctx, base: baseOf(ctx, base), once: once, repeats: maxRepeats}
	e.ctx, e.stop = e.patient()
	return e
}

// send sends the request until there is an answer for which it is not repeated.
func (e *endpoint) send(req *http.Request) (*answer, error) {
	e.lost, e.answer, e.tries = false, nil, 0
	client := &retryablehttp.Client{
		HTTPClient:   &http.Client{Transport: e, CheckRedirect: noRedirect},
		RetryMax:     e.repeats,
		CheckRetry:   e.checkRetry,
		Backoff:      func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return e.wait },
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	retryable, err := retryablehttp.FromRequest(req.WithContext(e.ctx))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(retryable)
	var about *url.Error
	if errors.As(err, &about) { // the URL is known, and may have a query
		err = about.Err
	}
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	return e.answer, nil
}

// noRedirect prevents a grant from being sent to another server.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// patient returns the context of the request. It is the context of the refresh, except
// that after its deadline there is more time for the answer to a refresh token that the
// server already has.
func (e *endpoint) patient() (context.Context, func()) {
	if !e.once {
		return e.outer, func() {}
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(e.outer))
	stop := context.AfterFunc(e.outer, func() {
		if errors.Is(e.outer.Err(), context.DeadlineExceeded) && e.out.Load() {
			late := time.AfterFunc(patience, func() { cancel(context.Cause(e.outer)) })
			context.AfterFunc(ctx, func() { late.Stop() })
			return
		}
		cancel(context.Cause(e.outer))
	})
	return ctx, func() { stop(); cancel(nil) }
}

// RoundTrip sends the request once and reads the whole answer. A truncated answer is an
// error.
func (e *endpoint) RoundTrip(req *http.Request) (*http.Response, error) {
	e.out.Store(true) // unless base reports otherwise
	defer e.out.Store(false)
	var traced atomic.Bool
	sent := time.Now()
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GetConn:      func(string) { traced.Store(true); e.out.Store(false) },
		WroteHeaders: func() { e.out.Store(true) },
	})
	if e.once && req.Body != nil {
		req.Body = &timelyBody{req.Body, e.outer}
	}
	resp, err := e.base.RoundTrip(req.WithContext(ctx))
	var body []byte
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		_ = resp.Body.Close()
	}
	if e.lost = err != nil && e.out.Load() && (traced.Load() || !isUnsent(err)) && !errors.Is(err, errTooLate); err != nil {
		return nil, err
	}
	if len(body) > maxAnswer {
		e.lost = true
		return nil, errTooLarge
	}
	resp.Body, resp.ContentLength = http.NoBody, 0
	e.answer = newAnswer(resp, body, sent)
	shown := *resp // without a Location: http.Client would fail if it cannot parse it
	shown.Header = resp.Header.Clone()
	shown.Header.Del("Location")
	return &shown, nil
}

var errTooLate = errors.New("the time for this refresh is over: this process was stopped, or waited, for too long, and another may have refreshed meanwhile")

// A timelyBody is the body of a request with a refresh token. It is not read, and so
// not sent, after the deadline of the refresh: the process may have been suspended
// before.
type timelyBody struct {
	io.ReadCloser
	ctx context.Context
}

func (b *timelyBody) Read(p []byte) (int, error) {
	if end, ok := b.ctx.Deadline(); ok && !time.Now().Before(end) {
		return 0, errTooLate
	}
	return b.ReadCloser.Read(p)
}

// isUnsent reports whether there was no connection to send the request on: a dial or a
// handshake failed.
func isUnsent(err error) bool {
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") ||
		errors.As(err, &certificate) || errors.As(err, &header) || strings.Contains(err.Error(), "handshake")
}

// checkRetry decides whether the request is sent once more.
func (e *endpoint) checkRetry(_ context.Context, resp *http.Response, err error) (bool, error) {
	if e.outer.Err() != nil || errors.Is(err, errTooLarge) {
		return false, nil
	}
	e.wait = backoff(e.tries, resp)
	e.tries++
	if end, ok := e.outer.Deadline(); e.wait > maxRetryAfter || ok && time.Until(end) < e.wait {
		return false, nil
	}
	if e.once && (e.lost || resp != nil && resp.StatusCode != http.StatusServiceUnavailable) {
		return false, nil
	}
	if err == nil && busyCodes[folded(e.answer.code)] {
		return true, nil
	}
	repeat, _ := retryablehttp.DefaultRetryPolicy(e.outer, resp, err)
	return repeat, nil
}

// backoff returns how long to wait before the request is repeated: as the server asks,
// or a time that doubles, randomized between its half and itself.
func backoff(n int, resp *http.Response) time.Duration {
	if wait, ok := retryafter.Of(resp); ok {
		return wait
	}
	wait := retryablehttp.DefaultBackoff(minBackoff, maxBackoff, n, nil)
	return wait/2 + rand.N(wait/2+1)
}

// failed returns the error if there is no answer.
func (e *endpoint) failed(err error, g grant, secrets []string) error {
	failure := error(mask.Err("no token from the "+or(g.endpoint, "token endpoint")+": ", err, secrets...))
	if e.ctx.Err() != nil {
		cause := context.Cause(e.ctx)
		failure = mask.WithText("the "+or(g.endpoint, "token endpoint")+" has not answered: "+mask.ErrorText(cause), cause)
	}
	if e.lost && g.once {
		return reauth.AnswerLost(failure)
	}
	return failure
}
