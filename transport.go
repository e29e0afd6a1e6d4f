package reauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/reauth-go/reauth/internal/mask"
	"github.com/reauth-go/reauth/internal/retryafter"
)

// ErrInsecure is the answer to a request that would carry the token over plain
// http to another machine.
var ErrInsecure = errors.New("reauth: a token does not go over plain http")

// NoScheme is the Transport.Scheme of servers that want the bare token in
// Authorization (etcd).
const NoScheme = "-"

// A Transport is an http.RoundTripper that attaches a Credential's token to
// requests. When a server rejects the token, it has the Credential renew it,
// waits a moment, and sends the request once more.
//
// Its fields are not changed after first use. It must not be copied, is safe for
// concurrent use, and shares its Base and its Credential with as many others as
// one likes. It never sends a request more than twice.
type Transport struct {
	// Base sends the requests. Nil means http.DefaultTransport.
	Base http.RoundTripper

	// Credential holds the token. Either it or CredentialFor is required; the
	// latter wins.
	Credential *Credential

	// CredentialFor chooses the Credential by the request, as for one of many
	// tenants. It is called once per request that may carry a token, and must
	// neither change the request nor read its body. The request fails with its
	// error; a nil Credential is an error too, see WithoutToken.
	CredentialFor func(*http.Request) (*Credential, error)

	// Origins are where the token may go: "https://api.example.com",
	// "https://*.example.com" for all below it, "http://gateway.lan:3000". Nil
	// means every https origin, and plain http to loopback; plain http to
	// another machine is ErrInsecure. If Origins is not nil, requests to other
	// origins go out without a token; an empty list has none.
	//
	// In either case the token does not follow a redirect to another origin that
	// is not listed, nor back from there.
	Origins []string

	// Header is the header that carries the token. "" means Authorization.
	Header string

	// Scheme stands in front of the token. "" means Bearer in Authorization and
	// nothing in another Header. NoScheme means nothing.
	Scheme string

	// Override replaces a credential that a request brings along in Header.
	// Without it such a request is left alone, unless what it brings is
	// Placeholder, or a token that the Credential holds or held.
	Override bool

	// Classifier decides which responses reject the token. Nil means the
	// built-in one: only a 401, and only one that a fresh token may cure.
	Classifier Classifier

	// RetryWait is the time between the rejection's cure and the retry, jittered
	// by half. Zero means 100 ms; negative means none. A Retry-After of up to 5
	// seconds that comes with the rejection takes its place. Where that is
	// longer, or the request's deadline nearer, there is no retry.
	RetryWait time.Duration

	// MaxReplayBytes is how much is kept of a request body that has no GetBody,
	// as it is sent, to be sent again. A request of whose body more was sent is
	// not retried. Zero means 1 MiB; negative means nothing.
	MaxReplayBytes int64

	// RequestIDHeaders are response headers with the server's request id, to be
	// looked at before the built-in ones.
	RequestIDHeaders []string

	// Logger gets one record for each request that met a rejection: Info if it
	// was cured, Warn if not. Nil means slog.Default().
	Logger *slog.Logger

	// OnOutcome is called once for each request that was rejected or had the
	// token withheld, before RoundTrip returns, with the request's context. It is
	// not called for requests made with WithoutToken or by a Refresher, nor for
	// those without an answer to their first send.
	OnOutcome func(context.Context, Outcome)

	once   sync.Once
	config             // what the fields come to; set by once
	warned atomic.Bool // that a request's own credential makes this inert
}

const (
	defaultRetryWait = 100 * time.Millisecond
	defaultReplay    = 1 << 20
	maxRetryAfter    = 5 * time.Second
)

// NewClient returns an http.Client with a Transport and a Credential around the
// Refresher, all else at its defaults.
func NewClient(r Refresher) *http.Client {
	return &http.Client{Transport: &Transport{Credential: &Credential{Refresher: r}}}
}

// RoundTrip implements http.RoundTripper.
//
// After a rejection its error is nil whatever keeps it from the retry: the
// response in hand is returned, and OutcomeOf and the log say why. Without a
// response, it fails with a *RefreshError if there is no usable token, with
// ErrInsecure, ErrLoggedOut or ErrClosed, with the cause of the request's
// context, or with the error of Base.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.once.Do(t.configure)
	m := markOf(req.Context())
	own, plain := survey(req.Header, t.key)
	cred, withheld, err := t.permit(req, m, own) // 1
	if err != nil {
		return nil, refuse(req, err)
	}
	if withheld != "" {
		return t.sendWithout(req, m, withheld)
	}
	h, err := cred.hold(req.Context()) // 2
	if err != nil {
		return nil, refuse(req, err)
	}
	body := newReplay(req, t.keep)
	resp, err := t.send(req, h, body.first(req), plain) // 3
	rej, ahead := t.classify(req, resp, h, nil)         // 4
	if rej == nil {
		body.pass()
		t.accepted(req, resp, err, m, cred, h)
		return resp, err
	}
	x := &exchange{t: t, req: req, plain: plain, resp: resp, ahead: ahead, body: body, cred: cred, held: h, began: time.Now()}
	x.Rejection, x.First = *rej, attempt(resp, h, rej.RequestID)
	if x.renew() && x.wait() && x.rewind() { // 5, 6, 7
		return x.retry()
	}
	return x.handBack()
}

// CloseIdleConnections calls that of Base, which http.Client.CloseIdleConnections
// expects. Transports that share the Base lose their idle connections too.
func (t *Transport) CloseIdleConnections() {
	t.once.Do(t.configure)
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok && !isNil(c) {
		c.CloseIdleConnections()
	}
}

// Format implements fmt.Formatter: it prints no field, as they may hold secrets.
func (t *Transport) Format(f fmt.State, _ rune) {
	if t == nil {
		_, _ = io.WriteString(f, "Transport(nil)")
		return
	}
	_, _ = fmt.Fprintf(f, "Transport(%v)", t.Credential)
}

// Why a request goes out without a token. The caller asked for the first two,
// so nobody is told of them.
const (
	withheldAsked    = "the caller asked for no token"
	withheldRefresh  = "the request is part of a refresh of the same Credential"
	withheldTrace    = "a TRACE request must not carry credentials (RFC 9110 §9.3.8)"
	withheldOrigin   = "the origin is not listed in Transport.Origins"
	withheldRedirect = "the request was redirected from or across another origin"
	withheldOwn      = "the request brought a credential of its own"
)

// permit returns the Credential whose token the request may carry, or why it
// goes out without one (step 1).
func (t *Transport) permit(req *http.Request, m *mark, own []string) (*Credential, string, error) {
	switch {
	case t.err != nil:
		return nil, "", t.err
	case req.URL == nil:
		return nil, "", errors.New("reauth: the request has no URL")
	case m != nil && m.withoutToken:
		return nil, withheldAsked, nil
	case req.Method == http.MethodTrace:
		return nil, withheldTrace, nil
	}
	cred := t.Credential
	if t.CredentialFor == nil && m.within(cred) {
		return nil, withheldRefresh, nil
	}
	withheld, insecure := t.destination(req)
	if withheld != "" {
		return nil, withheld, nil
	}
	if t.CredentialFor != nil {
		var err error
		if cred, err = t.CredentialFor(req); err != nil {
			return nil, "", mask.Err("reauth: CredentialFor: ", err)
		} else if cred == nil {
			return nil, "", errors.New("reauth: CredentialFor returned no Credential for the request: see WithoutToken for one that needs none")
		} else if m.within(cred) {
			return nil, withheldRefresh, nil
		}
	}
	if !t.Override && t.foreign(req.Context(), own, cred) {
		return nil, withheldOwn, nil
	}
	return cred, "", insecure
}

// foreign reports whether there is a credential among the values that is not one
// of cred's (step 1). A Credential that has not had a token yet has to get one
// before it can tell: client-go reads the same file, and is the first to.
func (t *Transport) foreign(ctx context.Context, own []string, cred *Credential) bool {
	for _, v := range own {
		if v = bare(v); v == "" || v == Placeholder || t.scheme != "" && strings.EqualFold(v, t.scheme) {
			continue
		}
		if cred.held.Load() == nil {
			_, _ = cred.hold(ctx)
		}
		if !cred.knows(v) {
			return true
		}
	}
	return false
}

// ours reports whether there is a token of Credential's among the values. With
// CredentialFor it cannot be known: whose request it is may not be asked of one
// that carries no token.
func (t *Transport) ours(own []string) bool {
	for _, v := range own {
		if t.CredentialFor == nil && t.Credential.knows(bare(v)) {
			return true
		}
	}
	return false
}

// An outgoing request is the caller's with a header of its own, in which all but
// one value are the caller's too.
type outgoing struct {
	http.Request
	value [1]string
}

// send sends the request with the token through Base (step 3, and 7). plain is
// what survey says of its headers.
func (t *Transport) send(req *http.Request, h *held, body io.ReadCloser, plain bool) (*http.Response, error) {
	out := &outgoing{Request: *req, value: [1]string{t.value(h)}}
	out.Body = body
	if plain {
		out.Header = maps.Clone(req.Header) // copies memory, and hashes nothing
	} else {
		out.Header = make(http.Header, len(req.Header)+1)
		copyHeader(out.Header, req.Header, t.key)
	}
	out.Header[t.key] = out.value[:]
	resp, err := t.base.RoundTrip(&out.Request)
	if resp == nil {
		if err == nil {
			err = errNoResponse(t.base)
		}
		return nil, err
	}
	resp.Request = shown(req, resp.Request, &out.Request)
	return resp, err
}

func errNoResponse(base http.RoundTripper) error {
	return fmt.Errorf("reauth: Base (%T) returned neither a response nor an error", base)
}

// shown returns the request that a response shows: the caller's, so that it has
// no token and the redirects that led to it, with the context of the copy that
// Base made, if it made one.
func shown(req, got, sent *http.Request) *http.Request {
	if got == nil || got == sent || got == req {
		return req
	}
	return req.WithContext(got.Context())
}

// value returns the header's value.
func (t *Transport) value(h *held) string {
	switch t.prefix {
	case "Bearer ":
		return h.bearer
	case "":
		return h.AccessToken
	}
	return t.prefix + h.AccessToken
}

// sendWithout sends the request as it is, less a Placeholder, and less a token of
// ours that it brings along to where that must not go.
func (t *Transport) sendWithout(req *http.Request, m *mark, why string) (*http.Response, error) {
	out := req
	drop := ""
	if why == withheldOrigin || why == withheldRedirect || why == withheldTrace {
		if t.ours(headerValues(req.Header, t.key)) {
			drop = t.key
		}
	}
	if drop != "" || hasPlaceholder(req.Header) {
		c := *req
		c.Header = make(http.Header, len(req.Header))
		copyHeader(c.Header, req.Header, drop)
		out = &c
	}
	resp, err := t.base.RoundTrip(out)
	if resp == nil {
		if err == nil {
			err = errNoResponse(t.base)
		}
		m.record(Outcome{Withheld: why, Err: mask.Err("reauth: Base: ", err, t.secrets(req)...)})
		return nil, err
	}
	resp.Request = shown(req, resp.Request, out)
	o := Outcome{First: attempt(resp, nil, t.requestID(resp, t.secrets(req))), Withheld: why}
	if why == withheldAsked || why == withheldRefresh {
		m.forget(resp)
		m.record(o)
		return resp, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		if rej, _ := t.classify(req, resp, nil, nil); rej != nil {
			o.Rejection, o.First.RequestID = *rej, rej.RequestID
		}
		o.NoRetry = why
	}
	t.tell(req, resp, &o)
	return resp, err
}

// classify returns the Rejection that resp is, if it is one, and the body that
// was read ahead for it (step 4). h is what was sent, nil if that was no token of
// ours; before is what was sent before that.
func (t *Transport) classify(req *http.Request, resp *http.Response, h, before *held) (*Rejection, *peek) {
	if resp == nil || t.Classifier == nil && resp.StatusCode != http.StatusUnauthorized {
		return nil, nil
	}
	if resp.StatusCode == http.StatusProxyAuthRequired { // of the proxy's credentials, not ours
		return nil, nil
	}
	body := resp.Body
	ahead := peekable(resp, req.Context())
	seen := *resp
	seen.Request, seen.Body = t.redacted(req, h), http.NoBody // it is to be read through ahead
	r := t.classifier.Classify(&seen, ahead.bytes)
	rej := &r
	if rej.Reason == "" {
		if ahead != nil && !ahead.begun {
			resp.Body = body // no one looked
		}
		return nil, nil
	}
	if rej.StatusCode == 0 {
		rej.StatusCode = resp.StatusCode
	}
	if rej.Challenges == nil {
		rej.Challenges = ParseChallenges(resp.Header)
	}
	if rej.Date.IsZero() {
		rej.Date, _ = http.ParseTime(resp.Header.Get("Date"))
	}
	secrets := t.secrets(req, h, before)
	rej.redact(secrets)
	if id := safeID(ownRequestID(resp.Header, t.RequestIDHeaders), secrets); id != "" {
		rej.RequestID = id
	} else if rej.RequestID == "" {
		rej.RequestID = t.requestID(resp, secrets)
	}
	return rej, ahead
}

// redacted returns the request as it was sent, the token taken out.
func (t *Transport) redacted(req *http.Request, h *held) *http.Request {
	c := *req
	c.Body, c.GetBody = nil, nil
	c.Header = make(http.Header, len(req.Header)+1)
	copyHeader(c.Header, req.Header, t.key)
	c.Header = c.Header.Clone()
	if h != nil {
		c.Header[t.key] = []string{t.prefix + "[redacted]"}
	} else if own := headerValues(req.Header, t.key); len(own) > 0 {
		scheme, _, _ := strings.Cut(strings.TrimSpace(own[0]), " ")
		c.Header[t.key] = []string{scheme + " [redacted]"}
		if scheme == bare(own[0]) { // no scheme, but the credential itself
			c.Header[t.key] = []string{"[redacted]"}
		}
	}
	return &c
}

// accepted takes note of a request that was not rejected.
func (t *Transport) accepted(req *http.Request, resp *http.Response, err error, m *mark, cred *Credential, h *held) {
	if resp == nil {
		if m.recording() {
			m.record(Outcome{Err: mask.Err("reauth: Base: ", err, t.secrets(req, h)...)})
		}
		return
	}
	m.forget(resp)
	t.prove(resp, cred, h, false)
	if m.recording() {
		m.record(Outcome{First: attempt(resp, h, t.requestID(resp, t.secrets(req, h)))})
	}
}

// prove tells the Credential of a token that a server has accepted. An error of
// the server's own says nothing about the token.
func (t *Transport) prove(resp *http.Response, cred *Credential, h *held, retry bool) {
	if resp.StatusCode < 400 && h.learns(retry) {
		date, _ := http.ParseTime(resp.Header.Get("Date"))
		cred.accepted(h, retry, date)
	}
}

// An exchange is a request that was rejected, on its way to the retry.
type exchange struct {
	t     *Transport
	req   *http.Request
	plain bool           // what survey says of its headers
	resp  *http.Response // the rejection
	ahead *peek          // its body
	body  *replay        // of the request; nil if it needs none
	cred  *Credential
	held  *held         // what was rejected
	next  *held         // what replaces it
	again io.ReadCloser // the body of the retry
	began time.Time     // when the rejection came
	delay time.Duration // before the retry: jittered, or Retry-After
	Outcome
}

// Why there is no retry, besides what a Rejection says.
const (
	noToken      = "there is no fresh token"
	noTime       = "the request's deadline is nearer than the retry"
	noPatience   = "the server asks for more than 5s until the next try"
	callerGone   = "the request's context ended"
	endedSession = "the request belongs to a session that has ended"
	tokenGone    = "the fresh token expired before the retry"
	bodyLost     = "more of the body was sent than is kept: set GetBody, raise MaxReplayBytes, or send Expect: 100-continue"
	bodyFailed   = "the body cannot be sent again"
)

// giveUp notes why there is no retry.
func (x *exchange) giveUp(why string, err error) bool {
	x.NoRetry, x.Err = why, err
	return false
}

// renew has the token replaced (step 5). The rejection is read to its end
// before: held open, it could keep the connection that the refresh needs.
func (x *exchange) renew() bool {
	if r := x.Rejection.Reason; !r.Refreshable() {
		return x.giveUp("a fresh token does not cure "+string(r), nil)
	}
	x.ahead.bytes()
	x.delay = retryWait(x.t.RetryWait)
	after, asked := x.retryAfter()
	if asked {
		x.delay = after
	}
	// The default wait is short beside a refresh, so for that the deadline is
	// looked at when the token is there.
	if (asked || x.t.RetryWait > 0) && !x.bearable(x.delay) {
		x.cred.renewSoon(x.req.Context(), x.held.Token, x.Rejection) // for the next request
		return false
	}
	next, err := x.cred.renew(x.req.Context(), x.held.Token, x.Rejection)
	if err != nil {
		return x.giveUp(noToken, err)
	}
	x.next = next
	return true
}

// bearable reports whether there is time to wait so long before the retry, and
// notes why not.
func (x *exchange) bearable(wait time.Duration) bool {
	if _, ok := x.retryAfter(); ok && wait > maxRetryAfter {
		return x.giveUp(noPatience, nil)
	}
	if end, ok := x.req.Context().Deadline(); ok && time.Until(end) <= wait {
		return x.giveUp(noTime, nil)
	}
	return true
}

// wait waits before the retry (step 6), if the caller can. Then it looks again
// for the newest token.
func (x *exchange) wait() bool {
	ctx := x.req.Context()
	wait := x.delay
	if _, ok := x.retryAfter(); ok {
		wait = max(0, wait-time.Since(x.began))
	}
	if !x.bearable(wait) {
		return false
	}
	if x.body.isLost() { // it will not come back while we wait
		return x.giveUp(bodyLost, nil)
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return x.giveUp(callerGone, context.Cause(ctx))
		}
	}
	if x.cred.ended(x.held.Token) || x.cred.ended(x.next.Token) {
		return x.giveUp(endedSession, ErrLoggedOut)
	}
	newest, err := x.cred.hold(ctx)
	switch {
	case err != nil:
		return x.giveUp(tokenGone, err)
	case newest.session != x.held.session:
		return x.giveUp(endedSession, ErrLoggedOut)
	case newest.AccessToken == x.held.AccessToken:
		return true // somebody Set the rejected token again: the fresh one is better
	case x.next.claims != "" && x.next.claims != newest.claims && x.next.usable(time.Now()):
		return true // the newest may lack them
	}
	x.next = newest
	return true
}

// retryWait returns the default wait, or w, jittered by half.
func retryWait(w time.Duration) time.Duration {
	switch {
	case w < 0:
		return 0
	case w == 0:
		w = defaultRetryWait
	}
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(min(w, maxPause)),
		backoff.WithRandomizationFactor(0.5),
		backoff.WithMaxElapsedTime(0),
	).NextBackOff()
}

// retryAfter returns the Retry-After of the rejection. A date is held against the
// server's clock where that is known.
func (x *exchange) retryAfter() (time.Duration, bool) {
	now := x.Rejection.Date
	if now.IsZero() {
		now = x.began
	}
	return retryafter.Parse(x.resp.Header, now)
}

// rewind prepares the body of the retry (step 7).
func (x *exchange) rewind() bool {
	switch body := x.req.Body; {
	case body == nil || body == http.NoBody:
		x.again = body
	case x.req.GetBody != nil:
		again, err := x.req.GetBody()
		if err == nil && again == nil {
			err = errors.New("it returned no body")
		}
		if err != nil {
			return x.giveUp(bodyFailed, mask.Err("reauth: GetBody: ", err, x.t.secrets(x.req, x.held, x.next)...))
		}
		x.again = again
	default:
		var ok bool
		if x.again, ok = x.body.supersede(); !ok {
			return x.giveUp(bodyLost, nil)
		}
	}
	return true
}

// retry sends the request for the second and last time (step 7).
func (x *exchange) retry() (*http.Response, error) {
	closeBody(x.resp.Body)
	resp, err := x.t.send(x.req, x.next, x.again, x.plain)
	x.Took = time.Since(x.began)
	if resp == nil {
		x.Err = mask.Err("reauth: the retry failed: ", err, x.t.secrets(x.req, x.held, x.next)...)
		x.t.tell(x.req, nil, &x.Outcome)
		return nil, err
	}
	if rej, _ := x.t.classify(x.req, resp, x.next, x.held); rej == nil {
		secrets := x.t.secrets(x.req, x.held, x.next)
		id := x.t.requestID(resp, secrets)
		if id == "" && resp.StatusCode >= 400 { // an error, and no stream
			id = safeID(RequestID(resp), secrets)
		}
		x.Retry = attempt(resp, x.next, id)
		x.t.prove(resp, x.cred, x.next, true)
	} else {
		x.Retry = attempt(resp, x.next, rej.RequestID)
		x.Err = fmt.Errorf("reauth: the fresh token was rejected too (%s)", rej.Reason)
		x.cred.refused(x.next, true, *rej)
	}
	x.t.tell(x.req, resp, &x.Outcome)
	return resp, err
}

// handBack returns the rejection, as if no one had looked at it; or, if the
// caller has gone, the cause of that.
func (x *exchange) handBack() (*http.Response, error) {
	x.body.pass()
	x.Took = time.Since(x.began)
	ctx := x.req.Context()
	if x.Rejection.Reason.Refreshable() && ctx.Err() != nil {
		x.Err = context.Cause(ctx)
		closeBody(x.resp.Body)
		x.t.tell(x.req, nil, &x.Outcome)
		return nil, x.Err
	}
	x.t.tell(x.req, x.resp, &x.Outcome)
	return x.resp, nil
}

// refuse fails a request that was not sent.
func refuse(req *http.Request, err error) error {
	closeBody(req.Body)
	markOf(req.Context()).record(Outcome{Err: err})
	return err
}

func closeBody(body io.Closer) {
	if body != nil {
		_ = body.Close()
	}
}
