package reauth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/reauth-go/reauth/internal/mask"
)

// tell makes the outcome of a request known: to who asks OutcomeOf for its
// response, to WithOutcome, to OnOutcome, and to the log.
func (t *Transport) tell(req *http.Request, resp *http.Response, o *Outcome) {
	ctx := req.Context()
	if resp != nil && resp.Request != nil {
		resp.Request = resp.Request.WithContext(withMark(resp.Request.Context(), func(m *mark) { m.answered = o }))
	}
	markOf(ctx).record(*o)
	t.log(ctx, req, o)
	if t.OnOutcome != nil {
		t.OnOutcome(ctx, *o)
	}
}

// log writes the one record of a request that was rejected.
func (t *Transport) log(ctx context.Context, req *http.Request, o *Outcome) {
	l := logger(t.Logger)
	if o.Withheld == withheldOwn && o.Rejection.Reason != "" {
		if !t.warned.Swap(true) { // not a sync.Once, which would be locked while the log is written
			l.LogAttrs(ctx, slog.LevelWarn, "reauth: a request that brings its own credential was rejected, and is left alone",
				append(t.attrs(req, o), slog.String("hint", "remove "+t.key+" from the request, or the key from the SDK's options and environment; or give the SDK reauth.Placeholder; or set Transport.Override"))...)
		}
		return
	}
	switch {
	case o.Rejection.Reason == "":
		l.LogAttrs(ctx, slog.LevelDebug, "reauth: token withheld", slog.String("why", o.Withheld), slog.String("host", bounded(req.URL.Host, 255)))
	case o.Cured():
		l.LogAttrs(ctx, slog.LevelInfo, "reauth: rejected, and cured by a fresh token", t.attrs(req, o)...)
	default:
		l.LogAttrs(ctx, slog.LevelWarn, "reauth: rejected, and not cured", append(t.attrs(req, o), slog.String("hint", o.hint()))...)
	}
}

func (t *Transport) attrs(req *http.Request, o *Outcome) []slog.Attr {
	status, tok := o.Retry.StatusCode, o.Retry.Token
	if status == 0 {
		status, tok = o.First.StatusCode, o.First.Token
	}
	attrs := []slog.Attr{
		slog.String("method", bounded(req.Method, 20)),
		slog.String("host", bounded(req.URL.Host, 255)),
		slog.Int("status", status),
		slog.String("reason", string(o.Rejection.Reason)),
		slog.String("request_id", o.RequestID()),
	}
	if o.Retry.StatusCode != 0 {
		attrs = append(attrs, slog.String("first_request_id", o.First.RequestID))
	}
	if tok != "" {
		attrs = append(attrs, slog.String("token", tok))
	}
	if o.Took > 0 {
		attrs = append(attrs, slog.Duration("took", o.Took))
	}
	if o.NoRetry != "" {
		attrs = append(attrs, slog.String("why", o.NoRetry))
	}
	if o.Err != nil {
		attrs = append(attrs, slog.String("error", mask.Text(o.Err.Error(), 1000)))
	}
	var failure *RefreshError
	if errors.As(o.Err, &failure) && !failure.Permanent() {
		attrs = append(attrs, slog.Duration("retry_in", max(0, time.Until(failure.RetryAt))))
	}
	if m := o.Rejection.Message; m != "" {
		attrs = append(attrs, slog.String("message", m))
	}
	return attrs
}

// hint says what to do about a request that was not cured.
func (o *Outcome) hint() string {
	var failure *RefreshError
	switch {
	case o.Took > 0 && o.NoRetry == "" && o.Retry.StatusCode == 0 && o.Withheld == "":
		return "the connection broke on the retry: the server may have acted on it, so send it again only if that does no harm"
	case o.Retry.StatusCode != 0:
		return "the server refuses fresh tokens too: give its support both request ids, and see whether issuer, audience and scopes are those it expects"
	case errors.As(o.Err, &failure) && failure.Permanent():
		return "log in again and hand the token to Credential.Set"
	case failure != nil:
		return "the first request after retry_in asks the Refresher again; the error says what it met"
	case errors.Is(o.Err, ErrLoggedOut):
		return "send the request again if it is to go out under the new login"
	case errors.Is(o.Err, ErrClosed):
		return "do not use the client after closing its Credential"
	case o.NoRetry == bodyLost, o.NoRetry == bodyFailed:
		return "send the request again: the next one carries the fresh token"
	case o.NoRetry == noPatience:
		return "send the request again when the server's Retry-After has passed"
	case o.NoRetry == noTime:
		return "give the request more time: a retry needs the refresh, the wait and a round trip"
	case o.Withheld == withheldOrigin:
		return "if this host is to have the token, add its origin to Transport.Origins"
	case o.Withheld == withheldRedirect:
		return "request the final URL directly, or list both origins in Transport.Origins"
	case o.Err != nil:
		return "send the request again"
	}
	switch o.Rejection.Reason {
	case ReasonInsufficientScope:
		return "log in with the scope that the server asks for"
	case ReasonStepUp:
		return "have the user authenticate again, as the challenge asks"
	case ReasonDPoPNonce:
		return "the server wants a proof of possession with its nonce, which a bearer token has not"
	case ReasonOtherScheme:
		return "the server wants another authentication scheme: see WWW-Authenticate and Transport.Scheme"
	case ReasonAudience:
		return "have the issuer make tokens for this server: audience or issuer are not those it expects"
	case ReasonRequestSignature:
		return "check the signature of the request, and this machine's clock"
	case ReasonCSRF:
		return "send the anti-forgery token that the server wants, or use an endpoint that is not for browsers"
	case ReasonLoginRequired:
		return "log in again and hand the token to Credential.Set"
	case ReasonUpstream:
		return "tell the gateway's owner: its own key was refused, the one that was sent is fine"
	case ReasonOther:
		return "read the server's message: it is about something else than the token"
	case ReasonQuota:
		return "top up the balance or quota behind the token"
	case ReasonDenied:
		return "ask the server's owner to enable the account, key or address"
	}
	return "send the request again"
}

// secrets returns what a server may repeat and nobody should read: the tokens
// that were sent, what refreshes them, and what the caller brought himself.
func (t *Transport) secrets(req *http.Request, sent ...*held) []string {
	var all []string
	for _, h := range sent {
		if h != nil {
			all = append(all, h.AccessToken, h.RefreshToken)
		}
	}
	for _, v := range headerValues(req.Header, t.key) {
		if v = bare(v); len(v) >= mask.Overlap {
			all = append(all, v)
		}
	}
	return all
}

// requestID returns the request id of the response's headers, unless it is one
// of the secrets.
func (t *Transport) requestID(resp *http.Response, secrets []string) string {
	return safeID(requestID(resp.Header, t.RequestIDHeaders), secrets)
}

func safeID(id string, secrets []string) string {
	if id = bounded(id, maxRequestID); mask.Shares(id, secrets) {
		return ""
	}
	return id
}

// attempt describes a send. h is what it carried; nil for no token of ours.
func attempt(resp *http.Response, h *held, requestID string) Attempt {
	a := Attempt{StatusCode: resp.StatusCode, RequestID: requestID}
	if h != nil {
		a.Token = fingerprint(h.sum)
	}
	return a
}

// redact makes what a server said fit for a log, also where it repeats a secret.
func (r *Rejection) redact(secrets []string) {
	r.Code = mask.Text(r.Code, 200, secrets...)
	r.Message = mask.Text(r.Message, 500, secrets...)
	r.RequestID = safeID(r.RequestID, secrets)
	folded := make([]string, len(secrets)) // names of parameters are in lower case
	for i, s := range secrets {
		folded[i] = strings.ToLower(s)
	}
	for i := range r.Challenges {
		c := &r.Challenges[i]
		for _, field := range []*string{&c.Scheme, &c.Token68} {
			if mask.Shares(*field, secrets) {
				*field = mask.Text(*field, 500, secrets...)
			}
		}
		for name, v := range c.Params {
			if mask.Shares(name, folded) {
				delete(c.Params, name)
			} else if name == "claims" && !slices.ContainsFunc(secrets, func(s string) bool { return s != "" && strings.Contains(v, s) }) {
				// Base64 of JSON, as JWTs are: they share words that are no
				// secret, and the Refresher needs it whole.
			} else if mask.Shares(v, secrets) {
				c.Params[name] = mask.Text(v, 500, secrets...)
			}
		}
	}
}
