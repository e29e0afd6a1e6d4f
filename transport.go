package reauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/origin"
	"github.com/reauth-go/reauth/internal/recognize"
	"github.com/reauth-go/reauth/internal/replay"
)

// A Transport is an http.RoundTripper that attaches the token of a Credential to
// requests. If a server rejects the token, it has the Credential refresh it, waits a
// moment, and sends the request once more. It sends no request more than twice.
//
// A Transport is safe for concurrent use by multiple goroutines. It must not be copied,
// and its fields must not be modified, after first use. Several Transports may share a
// Base and a Credential.
//
// A Base of package net/http may itself resend an idempotent request if a connection
// that it reused breaks before the first byte of the response.
type Transport struct {
	// Base is the RoundTripper that sends the requests. If nil,
	// http.DefaultTransport is used.
	Base http.RoundTripper

	// Credential holds the token. It is required unless CredentialFor is set.
	Credential *Credential

	// CredentialFor optionally specifies a function that returns the Credential for a
	// request, such as that of one of many tenants. If not nil, it is used in place of
	// Credential. It is called once for each request that may carry a token. It must
	// not modify the request or read its body. If it returns an error or a nil
	// Credential, the request fails; see also WithoutToken.
	CredentialFor func(*http.Request) (*Credential, error)

	// Origins lists where the token may be sent: "https://api.example.com",
	// "https://*.example.com" for all subdomains, "http://gateway.lan:3000". A request
	// to another origin is sent without a token. If nil, the token is sent to every
	// https origin, and over plain http to loopback. A request over plain http to
	// another machine then fails with ErrInsecure. If empty but not nil, no origin is
	// listed.
	//
	// The token does not follow a redirect to another origin that is not listed, nor a
	// redirect back from there. It is not sent if Request.Host differs from the host of
	// the URL and is not listed.
	Origins []string

	// Header is the header that carries the token. If empty, Authorization is used.
	Header string

	// Scheme is the authentication scheme before the token. If empty, Bearer is used in
	// Authorization, and no scheme in another Header. NoScheme specifies that there is
	// no scheme.
	Scheme string

	// Query is the query parameter that carries the token, such as access_token for
	// WeChat. If empty, Header carries the token. The token does not appear in the URLs
	// of responses, in errors, or in the requests that a Classifier gets.
	Query string

	// Override specifies whether to replace a credential already set in Header or
	// Query. If false, such a request is sent unchanged. Placeholder, and a token that
	// the Credential holds or held, are always replaced.
	Override bool

	// Anonymous specifies whether to send requests without a token while the Credential
	// has none: before the first rejection, and after Clear. If such a request is
	// rejected, the Refresher is called with a Stale that has the server's challenges.
	// If false, the Refresher is called before the first request.
	Anonymous bool

	// Classifier decides which responses reject the token. If nil, DefaultClassifier is
	// used, for which only a 401 is a rejection. A request is retried only if
	// Reason.Refreshable reports true.
	Classifier Classifier

	// RetryWait is the delay between obtaining the new token and retrying, randomized
	// by ±50%. If zero, 100 ms is used. If negative, there is no delay. A Retry-After
	// of the rejection replaces it. If that is longer than 5 seconds, or the request's
	// deadline is nearer, there is no retry.
	RetryWait time.Duration

	// MaxReplayBytes is the maximum number of bytes to keep of a request body that can
	// be read only once. Such a body has no GetBody, and is neither in memory nor a
	// file. If more of the body was sent, the request is not retried. If the body may
	// be larger, and a refresh is replacing a rejected token, the request waits for it.
	// If zero, 1 MiB is used. If negative, nothing is kept.
	//
	// The body that GetBody returns is not compared with the body that was sent before.
	// If its length is not ContentLength, there is no retry.
	MaxReplayBytes int64

	// RequestIDHeaders lists response headers with the server's request id. They take
	// precedence over the well-known ones.
	RequestIDHeaders []string

	// Logger specifies an optional logger. Each request that was rejected has one
	// record, with level Info if the retry succeeded and Warn if not. Each request
	// whose token was withheld has one with level Debug. A rejected request with a
	// credential of its own is logged only once per Transport. If nil, slog.Default is
	// used.
	Logger *slog.Logger

	// OnOutcome, if not nil, is called once for each request that was rejected or had
	// its token withheld, with the context of the request, before RoundTrip returns. It
	// is not called for requests made with WithoutToken or by a Refresher. It is not
	// called if the first send got no response.
	OnOutcome func(context.Context, Outcome)

	once        sync.Once
	config                  // set by once
	warnedOwn   atomic.Bool // that a request has a credential of its own
	warnedQuery atomic.Bool // that a request has Placeholder in its query
}

// NoScheme is the value of Transport.Scheme for servers that expect the token alone in
// Authorization, such as etcd.
const NoScheme = "-"

const defaultMaxReplayBytes = 1 << 20

// NewClient returns an http.Client whose Transport attaches tokens from r. The origins
// are used as Transport.Origins. If there are none, Transport.Origins is nil.
func NewClient(r Refresher, origins ...string) *http.Client {
	return &http.Client{Transport: &Transport{Credential: &Credential{Refresher: r}, Origins: origins}}
}

// RoundTrip implements http.RoundTripper.
//
// If a rejected request is not retried, RoundTrip returns the rejection and a nil
// error. OutcomeOf and the log then say why there was no retry. If the request's
// context has ended, RoundTrip returns its cause instead. The other errors are a
// *RefreshError if there is no usable token, ErrInsecure, ErrLoggedOut, ErrClosed, and
// the error of Base.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.once.Do(t.configure)
	ctxValue := contextOf(req.Context())
	own, clonable := inspectHeader(req.Header, t.key)
	if t.Query != "" {
		own = queryValues(req.URL, t.Query)
	}
	cred, withheld, err := t.permit(req, ctxValue, own)
	if err != nil {
		return nil, fail(req, ctxValue, err)
	}
	if withheld != "" {
		return t.sendWithout(req, ctxValue, withheld)
	}
	body := replay.New(req, t.keep)
	tok, err := t.token(req, cred, &body)
	if err != nil {
		return nil, fail(req, ctxValue, err)
	}
	t.warnPlaceholder(req)
	resp, overwritten, err := t.send(req, tok, body.First(), clonable)
	rej, head := t.classify(req, resp, tok, nil)
	if rej == nil {
		body.Release()
		t.answered(req, resp, err, ctxValue, cred, tok)
		return resp, err
	}
	r := &rejectedRequest{t: t, req: req, clonable: clonable, resp: resp, head: head, body: body, cred: cred, why: *rej, began: time.Now()}
	r.Rejection, r.First = rej.Rejection, attempt(resp, tok, rej.RequestID)
	r.overwritten = overwritten
	if r.refresh() && r.wait() && r.rewind() {
		return r.retry()
	}
	return r.giveBack()
}

// token returns what the request carries.
func (t *Transport) token(req *http.Request, cred *Credential, body *replay.Body) (*tokenState, error) {
	if t.Anonymous {
		if s := cred.anonymous(); s != nil {
			return s, nil
		}
	}
	if body.Once() {
		return cred.waitForRefresh(req.Context(), canceled(req), originOf(req))
	}
	return cred.token(req.Context(), canceled(req))
}

// canceled returns Request.Cancel, which net/http still honors.
func canceled(req *http.Request) <-chan struct{} {
	return req.Cancel //lint:ignore SA1019 callers may use it
}

// fail ends a request that was not sent.
func fail(req *http.Request, v *contextValue, err error) error {
	httpx.CloseBody(req.Body)
	v.record(Outcome{Origin: originText(req), Err: err})
	return err
}

// CloseIdleConnections calls the CloseIdleConnections method of Base, if there is one.
// http.Client.CloseIdleConnections calls it. It affects all Transports that share the
// Base.
func (t *Transport) CloseIdleConnections() {
	t.once.Do(t.configure)
	if t.err != nil { // Base may be this Transport
		return
	}
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Format implements fmt.Formatter. It prints no field, as fields may hold secrets.
func (t *Transport) Format(f fmt.State, _ rune) {
	if t == nil {
		_, _ = io.WriteString(f, "Transport(nil)")
		return
	}
	_, _ = fmt.Fprintf(f, "Transport(%v)", t.Credential)
}

// A config is derived from the fields of a Transport.
type config struct {
	err        error
	base       http.RoundTripper
	key        string // of the header, canonical
	scheme     string
	prefix     string // scheme and a blank
	origins    []origin.Origin
	asListed   []requestOrigin // origins as most requests have them
	classifier Classifier
	keep       int64

	// The requests that the built-in Classifier sees: see Transport.seen.
	sent, sentAccepted *http.Request
}

// configure sets config.
func (t *Transport) configure() {
	t.base, t.key, t.scheme, t.classifier, t.keep = t.Base, t.Header, t.Scheme, t.Classifier, max(t.MaxReplayBytes, 0)
	if t.Base == nil {
		t.base = http.DefaultTransport
	}
	if t.Header == "" {
		t.key = "Authorization"
	}
	t.key = http.CanonicalHeaderKey(t.key)
	if t.Scheme == "" && t.key == "Authorization" {
		t.scheme = "Bearer"
	}
	if t.Scheme == NoScheme {
		t.scheme = ""
	}
	if t.scheme != "" {
		t.prefix = t.scheme + " "
	}
	if t.MaxReplayBytes == 0 {
		t.keep = defaultMaxReplayBytes
	}
	if t.Classifier == nil {
		t.classifier = DefaultClassifier()
	}
	t.sent = &http.Request{Header: http.Header{t.key: {t.prefix + redacted}}}
	t.sentAccepted = t.sent.WithContext(recognize.WithAccepted(context.Background()))
	t.origins, t.err = parseOrigins(t.Origins)
	for _, o := range t.origins {
		u := o.String()
		scheme, host, _ := strings.Cut(u, "://")
		if !strings.HasPrefix(host, "*") {
			t.asListed = append(t.asListed, requestOrigin{scheme, host})
		}
	}
	t.validate()
}

// validate sets err if the fields do not fit together.
func (t *Transport) validate() {
	switch {
	case t.err != nil:
		t.err = fmt.Errorf("reauth: Transport.%w", t.err)
	case t.sendsToItself():
		t.err = errors.New("reauth: the Transport is its own Base: if it replaces http.DefaultTransport, set Base to what that was before")
	case httpx.IsNil(t.base):
		t.err = fmt.Errorf("reauth: Transport.Base is a nil %T", t.base)
	case httpx.IsNil(t.classifier):
		t.err = fmt.Errorf("reauth: Transport.Classifier is a nil %T", t.classifier)
	case t.Credential == nil && t.CredentialFor == nil:
		t.err = errors.New("reauth: the Transport has no Credential: set Credential or CredentialFor")
	case !isToken(t.key):
		t.err = fmt.Errorf("reauth: Transport.Header %q is not the name of a header", bounded(t.Header, 100))
	case t.scheme != "" && !isToken(t.scheme):
		t.err = fmt.Errorf("reauth: Transport.Scheme %q is not an authentication scheme", bounded(t.Scheme, 100))
	}
}

// sendsToItself reports whether t is its own Base, as if it replaces
// http.DefaultTransport and its Base is nil, or through other Transports.
func (t *Transport) sendsToItself() bool {
	base := t.base
	for range 100 {
		next, ok := base.(*Transport)
		switch {
		case !ok || next == nil:
			return false
		case next == t:
			return true
		}
		if base = next.Base; base == nil {
			base = http.DefaultTransport
		}
	}
	return true
}

// isToken reports whether s is a token of RFC 9110 §5.6.2, as the names of headers and
// schemes are.
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}
