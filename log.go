package reauth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"

	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/mask"
	"github.com/reauth-go/reauth/internal/origin"
)

// finish makes the Outcome of a request known to OutcomeOf, to WithOutcome, to
// OnOutcome, and to the log.
func (t *Transport) finish(req *http.Request, resp *http.Response, o *Outcome) {
	ctx := req.Context()
	o.Origin = originText(req)
	o.Advice = o.advise()
	if resp != nil && resp.Request != nil {
		resp.Request = resp.Request.WithContext(withValue(resp.Request.Context(), func(v *contextValue) { v.answered = o }))
	}
	contextOf(ctx).record(*o)
	t.log(ctx, req, o)
	if t.OnOutcome != nil {
		t.OnOutcome(ctx, *o)
	}
}

// maxOrigin bounds an origin in an Outcome: the scheme, the 253 characters of a name (RFC
// 1035 §2.3.4), and the port.
const maxOrigin = 300

// originText returns Outcome.Origin.
func originText(req *http.Request) string {
	if req.URL == nil || req.URL.Host == "" {
		return ""
	}
	return bounded(origin.Of(req.URL).String(), maxOrigin)
}

// log writes the one record of a request that was rejected or had its token withheld.
func (t *Transport) log(ctx context.Context, req *http.Request, o *Outcome) {
	l := logger(t.Logger)
	if !l.Enabled(ctx, o.level()) {
		return
	}
	switch {
	case o.Withheld == WithheldOwnCredential && o.Rejection.Reason != "":
		if !t.warnedOwn.Swap(true) { // not a sync.Once, which would be locked while the record is written
			l.LogAttrs(ctx, slog.LevelWarn, "reauth: a request with a credential of its own was rejected, and is not retried",
				append(t.attrs(req, o), slog.String("hint", "remove "+t.credentialName()+" from the request, or the key from the options and the environment of the SDK; or give the SDK reauth.Placeholder; or set Transport.Override"))...)
		}
	case o.level() == slog.LevelDebug:
		attrs := []slog.Attr{slog.String("why", o.Withheld.Text()), slog.String("host", bounded(req.URL.Host, 255))}
		if o.Advice != "" {
			attrs = append(attrs, slog.String("hint", o.hint()))
		}
		l.LogAttrs(ctx, slog.LevelDebug, "reauth: token withheld", attrs...)
	case o.level() == slog.LevelInfo:
		l.LogAttrs(ctx, slog.LevelInfo, "reauth: token rejected, retry succeeded", t.attrs(req, o)...)
	case o.Retry.StatusCode != 0:
		l.LogAttrs(ctx, slog.LevelWarn, "reauth: token rejected, retry rejected too", append(t.attrs(req, o), slog.String("hint", o.hint()))...)
	default:
		l.LogAttrs(ctx, slog.LevelWarn, "reauth: token rejected, not retried", append(t.attrs(req, o), slog.String("hint", o.hint()))...)
	}
}

// level returns the level of the record.
func (o *Outcome) level() slog.Level {
	switch {
	case o.Rejection.Reason == "":
		return slog.LevelDebug
	case o.Recovered():
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// attrs returns the attributes of the record of a request.
func (t *Transport) attrs(req *http.Request, o *Outcome) []slog.Attr {
	latest := o.Retry
	if latest.StatusCode == 0 {
		latest = o.First
	}
	attrs := []slog.Attr{
		slog.String("method", bounded(req.Method, 20)),
		slog.String("host", bounded(req.URL.Host, 255)),
		slog.Int("status", latest.StatusCode),
		slog.String("reason", string(o.Rejection.Reason)),
		slog.String("request_id", o.RequestID()),
	}
	if o.Retry.StatusCode != 0 {
		attrs = append(attrs, slog.String("first_request_id", o.First.RequestID))
	}
	if latest.Token != "" {
		attrs = append(attrs, slog.String("token", latest.Token))
	}
	if o.Predecessor {
		attrs = append(attrs, slog.Bool("predecessor", true))
	}
	if o.Elapsed > 0 {
		attrs = append(attrs, slog.Duration("elapsed", o.Elapsed))
	}
	if o.NotRetried != "" {
		attrs = append(attrs, slog.String("not_retried", string(o.NotRetried)), slog.String("why", o.why()))
	}
	if o.Err != nil {
		attrs = append(attrs, slog.String("error", mask.Text(o.Err.Error(), 1000)))
	}
	var failure *RefreshError
	if errors.As(o.Err, &failure) && !failure.Permanent() {
		attrs = append(attrs, slog.Duration("retry_in", failure.RetryAfter()))
	}
	if c := o.Rejection.Unread; c != "" {
		attrs = append(attrs, slog.String("unread", c))
	}
	if m := o.Rejection.Message; m != "" {
		attrs = append(attrs, slog.String("message", m))
	}
	return attrs
}

// why returns the sentence that says why there was no retry.
func (o *Outcome) why() string {
	switch o.NotRetried {
	case NotRetriedReason:
		return o.NotRetried.Text() + " against " + string(o.Rejection.Reason)
	case NotRetriedWithheld:
		return o.Withheld.Text()
	}
	return o.NotRetried.Text()
}

// hint returns what to do about a request that was rejected and not recovered. It is
// the Advice, in terms of this package's API if the program must change.
func (o *Outcome) hint() string {
	switch {
	case o.Retry.StatusCode != 0 && o.Predecessor:
		return "the server rejects the new token and the token before it: the next request refreshes, as far as the limits of the Credential allow"
	case o.Advice == AdviceRemoveCredential && o.overwritten:
		return "Base sends another credential than the token of this Transport: remove what sets the header from Base"
	case o.NotRetried == NotRetriedTooYoung:
		return "wait until the servers know the new token; if they never do, check that they accept tokens of this issuer"
	case o.NotRetried == NotRetriedRetryAfter:
		return "send the request again after the server's Retry-After"
	case errors.Is(o.Err, ErrLoggedOut):
		return "send the request again to use the new login"
	case o.NotRetried == NotRetriedBodyFailed:
		return "send the request again, with the new token; error says why GetBody failed"
	}
	if h, ok := hints[o.Advice]; ok {
		return h
	}
	return o.Advice.Text()
}

// hints are the Advices in terms of this package's API.
var hints = map[Advice]string{
	AdviceLogIn:          "call Credential.Set with a new token, as after a login",
	AdviceShareLogin:     budgetCauses + ": share one login with a Store or give each process its own, or do not send the token to that path; or lower Credential.RefreshEvery",
	AdviceCheckRefresher: "the next request after retry_in calls the Refresher; error says what failed",
	AdviceNewClient:      "do not use the client after Credential.Shutdown",
	AdviceResend:         "send the request again, with the new token: set GetBody, raise MaxReplayBytes, or send Expect: 100-continue",
	AdviceListOrigin:     "to send the token to this host, add its origin to Transport.Origins",
	AdviceFinalURL:       "request the final URL directly, or list both origins in Transport.Origins",
	AdviceCheckHost:      "leave Request.Host empty, or list the origin of that host in Transport.Origins",
	AdviceOtherScheme:    "the server asks for another authentication scheme: see WWW-Authenticate and Transport.Scheme",
}

// secrets returns what a server may echo and a log must not repeat: the tokens that
// were sent, their refresh tokens, and the request's own credential.
func (t *Transport) secrets(req *http.Request, sent ...*tokenState) *mask.Secrets {
	all := make([]string, 0, 2*len(sent)+1)
	for _, s := range sent {
		if s != nil {
			all = append(all, s.AccessToken, s.RefreshToken)
		}
	}
	for _, v := range t.ownCredentials(req) {
		if v = withoutScheme(v); len(v) >= mask.Overlap {
			all = append(all, v)
		}
	}
	return mask.NewSecrets(all...)
}

// requestID returns the request id of the response's headers, unless it repeats one of
// the secrets.
func (t *Transport) requestID(resp *http.Response, secrets *mask.Secrets) string {
	return safeID(requestID(resp.Header, t.RequestIDHeaders), secrets)
}

func safeID(id string, secrets *mask.Secrets) string {
	if id = bounded(id, maxRequestID); secrets.In(id) {
		return ""
	}
	return id
}

// attempt describes a send. s is the token that it carried; nil or empty if none.
func attempt(resp *http.Response, s *tokenState, requestID string) Attempt {
	return Attempt{StatusCode: resp.StatusCode, RequestID: requestID, Token: s.fingerprint()}
}

// Bounds of the texts of a server, in characters.
const (
	maxCode      = 200
	maxMessage   = 500
	maxParameter = 500
)

// masked returns r as it may be logged: bounded, printable, and without the secrets
// that the server repeated.
func (r Rejection) masked(secrets *mask.Secrets) Rejection {
	r.Code = secrets.Text(r.Code, maxCode)
	r.Message = secrets.Text(r.Message, maxMessage)
	r.RequestID = safeID(r.RequestID, secrets)
	r.Challenges = slices.Clone(r.Challenges)
	for i := range r.Challenges {
		ch := &r.Challenges[i]
		ch.Scheme, ch.Token68 = maskedParam(ch.Scheme, secrets), maskedParam(ch.Token68, secrets)
		for name, v := range ch.Params {
			if secrets.In(name) || bounded(name, maxCode) != name || maskedParam(v, secrets) != v {
				ch.Params = maskedParams(ch.Params, secrets)
				break
			}
		}
	}
	return r
}

// maskedParams returns the parameters of a challenge as they may be logged.
func maskedParams(params map[string]string, secrets *mask.Secrets) map[string]string {
	masked := make(map[string]string, len(params))
	for name, v := range params {
		if !secrets.In(name) {
			masked[bounded(name, maxCode)] = maskedParam(v, secrets)
		}
	}
	return masked
}

// maskedParam returns a value of a challenge as it may be logged. A value without a
// secret is only bounded and made printable.
func maskedParam(v string, secrets *mask.Secrets) string {
	v = v[:min(len(v), 4*maxParameter)] // bounds the work below
	if secrets.In(v) {
		return secrets.Text(v, maxParameter)
	}
	return bounded(v, maxParameter)
}

// logger returns l, or the default if l is unusable.
func logger(l *slog.Logger) *slog.Logger {
	if l == nil || httpx.IsNil(l.Handler()) {
		return slog.Default()
	}
	return l
}

func logPanic(ctx context.Context, log *slog.Logger, msg string, v any) {
	defer func() { _ = recover() }() // the logger may have panicked
	log.LogAttrs(ctx, slog.LevelError, msg, slog.String("error", (&panicError{value: v}).Error()), slog.String("stack", string(debug.Stack())))
}
