package refresher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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
	patience      = time.Minute // for an answer that may bring the next refresh token
)

// call has do get a token from the endpoint at address, with an HTTP client made
// for that.
func (o *OAuth2) call(ctx context.Context, address string, g grant, secrets []string, do func(context.Context) (*oauth2.Token, error)) (reauth.Token, error) {
	if err := secure(address); err != nil {
		return reauth.Token{}, reauth.Permanent(err)
	}
	e := &endpoint{outer: ctx, base: o.base(ctx), once: g.once}
	var stop func()
	e.ctx, stop = e.patient()
	defer stop()
	t, err := do(context.WithValue(e.ctx, oauth2.HTTPClient, e.client()))
	if err != nil {
		return reauth.Token{}, e.explain(err, g, secrets)
	}
	if t == nil { // the device's code was asked for
		return reauth.Token{}, nil
	}
	tok := Token(t)
	tok.Expiry = e.expiry
	if id, _ := t.Extra("id_token").(string); id == tok.AccessToken { // jwt.Config.UseIDToken
		tok.Expiry = time.Time{}
	}
	if !g.once && !g.login {
		tok.RefreshToken = ""
	}
	if tok, err = checked(tok); err != nil {
		return reauth.Token{}, fmt.Errorf("the token endpoint's answer: %w", err)
	}
	return tok, nil
}

// secure returns an error unless requests to address are encrypted or stay on this
// machine.
func secure(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return fmt.Errorf("the endpoint %q is no URL: set OAuth2.Config.Endpoint", shownURL(address))
	}
	if at := origin.Of(u); at.Scheme != "https" && (at.Scheme != "http" || !at.Loopback()) {
		return mask.WithText(fmt.Sprintf("the endpoint %s is not https, and would show the client's secret and the tokens to the network", at), reauth.ErrInsecure)
	}
	return nil
}

// shownURL returns a URL for an error, which may be none: without a password or a
// query.
func shownURL(address string) string {
	address, _, _ = strings.Cut(address, "?")
	if scheme, rest, ok := strings.Cut(address, "//"); ok {
		address = scheme + "//" + rest[strings.LastIndex(rest, "@")+1:]
	}
	return mask.Text(address, 200)
}

// base returns what sends the requests.
func (o *OAuth2) base(ctx context.Context) http.RoundTripper {
	if o.Base != nil {
		return o.Base
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

// An endpoint is one request and its repetitions.
type endpoint struct {
	outer context.Context // the refresh's
	ctx   context.Context // the request's, which may last longer
	base  http.RoundTripper
	once  bool

	out    atomic.Bool   // the server may have the request, and we have not its answer
	lost   bool          // so it stays
	expiry time.Time     // by the answer's expires_in
	tries  int           // so far
	wait   time.Duration // before the next
}

// client returns an HTTP client for x/oauth2, of which some parts forget the
// context.
func (e *endpoint) client() *http.Client {
	retrying := &retryablehttp.RoundTripper{Client: &retryablehttp.Client{
		HTTPClient:   &http.Client{Transport: e, CheckRedirect: noRedirect},
		RetryMax:     maxRepeats,
		CheckRetry:   e.again,
		Backoff:      func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return e.wait },
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}}
	return &http.Client{CheckRedirect: noRedirect, Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.Context().Done() == nil { // else it is made of e.ctx, and may end before
			req = req.WithContext(e.ctx)
		}
		return retrying.RoundTrip(req)
	})}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// noRedirect lets no grant follow a redirect to where the answer is made up.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// patient returns the context of the request: the refresh's, but that its deadline
// leaves time for the answer to a refresh token that the server has already.
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

// RoundTrip sends the request once and reads the answer whole, since one that is
// cut off is no answer.
func (e *endpoint) RoundTrip(req *http.Request) (*http.Response, error) {
	e.out.Store(true) // as long as base does not say otherwise
	defer e.out.Store(false)
	sent := time.Now()
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GetConn:      func(string) { e.out.Store(false) },
		WroteHeaders: func() { e.out.Store(true) },
	})
	resp, err := e.base.RoundTrip(req.WithContext(ctx))
	var body []byte
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		_ = resp.Body.Close()
	}
	if e.lost = err != nil && e.out.Load() && !isDial(err); err != nil {
		return nil, err
	}
	if len(body) > maxAnswer {
		return nil, errTooLarge
	}
	body = e.tame(resp, body, sent)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, nil
}

// isDial reports whether there was no connection to send anything on.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// tame notes the answer's lifetime, which counts from before the request, and
// returns the answer in a form that x/oauth2 reads: it takes no expires_in but a
// whole number, and JSON only where the Content-Type says so.
func (e *endpoint) tame(resp *http.Response, body []byte, sent time.Time) []byte {
	e.expiry = time.Time{}
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) == nil {
		if members == nil { // null, at which x/oauth2 panics
			members = map[string]json.RawMessage{}
		}
		if resp.Header == nil {
			resp.Header = http.Header{}
		}
		resp.Header.Set("Content-Type", "application/json")
		life, ok := seconds(members["expires_in"])
		maps.DeleteFunc(members, func(name string, _ json.RawMessage) bool {
			return strings.EqualFold(name, "expires_in") // as a struct would take it
		})
		if ok {
			e.expiry = sent.Add(life)
			members["expires_in"] = json.RawMessage(fmt.Sprint(int64(life / time.Second)))
		}
		if plain, err := json.Marshal(members); err == nil {
			return plain
		}
		return body
	}
	if form, err := url.ParseQuery(string(body)); err == nil {
		if life, ok := seconds(json.RawMessage(form.Get("expires_in"))); ok {
			e.expiry = sent.Add(life)
		}
	}
	return body
}

// again decides whether the request is sent once more.
func (e *endpoint) again(_ context.Context, resp *http.Response, err error) (bool, error) {
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
	repeat, _ := retryablehttp.DefaultRetryPolicy(e.outer, resp, err)
	return repeat, nil
}

// backoff returns how long to wait before the next try: as the server asks, or a
// time that doubles, jittered by half.
func backoff(n int, resp *http.Response) time.Duration {
	if wait, ok := retryafter.Of(resp); ok {
		return wait
	}
	wait := retryablehttp.DefaultBackoff(minBackoff, maxBackoff, n, nil)
	return wait/2 + rand.N(wait/2+1)
}

// explain says what went wrong, so that the Credential does the right thing.
func (e *endpoint) explain(err error, g grant, secrets []string) error {
	var refused *oauth2.RetrieveError
	switch told := explain(err, g, secrets); {
	case errors.As(err, &refused):
		return told
	case e.ctx.Err() != nil:
		cause := context.Cause(e.ctx)
		told := error(mask.WithText("the token endpoint has not answered: "+mask.ErrorText(cause), cause))
		if e.lost && g.once {
			return reauth.AnswerLost(told)
		}
		return told
	case e.lost && g.once:
		return reauth.AnswerLost(told)
	default:
		return told
	}
}

// hopeless has the error codes after which the same request fares no better later
// (RFC 6749 §5.2, RFC 8628 §3.5, RFC 8693 §2.2.2, OpenID Connect and some servers'
// own), and whether one may that is made of something new each time.
var hopeless = map[string]bool{
	"invalid_grant":                true,
	"invalid_request":              true,
	"invalid_target":               true,
	"access_denied":                true,
	"invalid_client":               false,
	"unauthorized_client":          false,
	"unsupported_grant_type":       false,
	"invalid_scope":                false,
	"expired_token":                false,
	"interaction_required":         false,
	"login_required":               false,
	"consent_required":             false,
	"account_selection_required":   false,
	"bad_refresh_token":            false, // GitHub
	"incorrect_client_credentials": false, // GitHub
	"invalid_refresh_token":        false, // Slack
	"invalid_client_id":            false, // Slack
	"bad_client_secret":            false, // Slack
	"deleted_client":               false, // Google
}

// explain says what went wrong without the answer's body, and whether to try again.
func explain(err error, g grant, secrets []string) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil {
		return mask.Err("no token from the token endpoint: ", err, secrets...)
	}
	if refused.ErrorCode == "" { // x/oauth2/jwt does not look
		var body struct {
			Code        string `json:"error"`
			Description string `json:"error_description"`
		}
		_ = json.Unmarshal(refused.Body, &body)
		refused.ErrorCode, refused.ErrorDescription = body.Code, body.Description
	}
	status, code := refused.Response.StatusCode, refused.ErrorCode
	var b strings.Builder
	fmt.Fprintf(&b, "the token endpoint answered %d", status)
	if code != "" {
		b.WriteString(" " + mask.Text(code, 60, secrets...))
	}
	if d := mask.Text(refused.ErrorDescription, 150, secrets...); d != "" {
		b.WriteString(" (" + d + ")")
	}
	switch {
	case status >= 300 && status < 400:
		b.WriteString(", a redirect to " + shownURL(refused.Response.Header.Get("Location")) + " that is not followed: set TokenURL to where it leads")
	case code == "invalid_client" || code == "unauthorized_client":
		b.WriteString(": check ClientID, ClientSecret, and whether the server wants them in the body (AuthStyle)")
	case code == "invalid_grant" && g.once:
		b.WriteString(": the refresh token has expired, was revoked, or was used by another")
	}
	told := error(mask.WithText(b.String(), err))
	renewable, known := hopeless[code]
	if known && !(renewable && g.fresh) && status < 500 && status != http.StatusTooManyRequests {
		if code == "invalid_grant" && g.once { // RFC 6749 §5.2
			return reauth.LoginEnded(told)
		}
		return reauth.Permanent(told)
	}
	if wait, ok := retryafter.Of(refused.Response); ok && wait > 0 {
		return again{told, wait}
	}
	return told
}
