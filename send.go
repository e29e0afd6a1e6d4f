package reauth

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/mask"
	"github.com/reauth-go/reauth/internal/peek"
	"github.com/reauth-go/reauth/internal/recognize"
)

// An outgoing request is a copy of the caller's, with a header of its own.
type outgoing struct {
	http.Request
	value [1]string // of the credential's header
}

// send sends the request with the token through Base; without one if s is anonymous.
// clonable is what inspectHeader returned. overwritten reports whether the response to a
// rejected request shows that Base sent another credential.
func (t *Transport) send(req *http.Request, s *tokenState, body io.ReadCloser, clonable bool) (resp *http.Response, overwritten bool, err error) {
	out := &outgoing{Request: *req}
	out.Body = body
	if clonable && t.Query == "" {
		out.Header = maps.Clone(req.Header) // copies memory, and hashes nothing
	} else {
		out.Header = make(http.Header, len(req.Header)+1)
		copyHeader(out.Header, req.Header, t.key)
	}
	switch {
	case t.Query != "":
		out.URL = withoutQuery(req.URL, t.Query, anyValue)
		if s.AccessToken != "" {
			out.URL = withQuery(out.URL, t.Query, s.AccessToken)
		}
	case s.AccessToken == "":
		delete(out.Header, t.key)
	default:
		out.value[0] = t.value(s)
		out.Header[t.key] = out.value[:]
	}
	resp, err = t.base.RoundTrip(&out.Request)
	if resp == nil {
		return nil, false, t.baseError(err, s)
	}
	overwritten = resp.StatusCode >= 400 && t.overwrites(resp.Request, s)
	resp.Request = t.shown(req, resp.Request, &out.Request)
	return resp, overwritten, err
}

// baseError returns the error of a Base that returned no response. If its text has the
// token, as a query parameter may get there, it is wrapped with another text.
func (t *Transport) baseError(err error, s *tokenState) error {
	if err == nil {
		return fmt.Errorf("reauth: Base (%T) returned neither a response nor an error", t.base)
	}
	if t.Query == "" || s.AccessToken == "" {
		return err
	}
	text, escaped := err.Error(), url.QueryEscape(s.AccessToken)
	if !strings.Contains(text, s.AccessToken) && !strings.Contains(text, escaped) {
		return err
	}
	return mask.WithText(strings.NewReplacer(escaped, "[redacted]", s.AccessToken, "[redacted]").Replace(text), err)
}

// shown returns the request that a response shows. It is the caller's request, which
// has no token, and which has the redirects that led to it. If Base followed a
// redirect, it has the final URL. Its context is that of the request that Base shows.
func (t *Transport) shown(req, got, sent *http.Request) *http.Request {
	c := httpx.Shown(req, got, sent)
	if c != req && got.URL != nil && got.URL != sent.URL && got.URL.String() != sent.URL.String() {
		c.URL, c.Method, c.Host = got.URL, got.Method, got.Host
		if t.Query != "" {
			c.URL = withoutQuery(got.URL, t.Query, anyValue)
		}
	}
	return c
}

// overwrites reports whether got, the request that Base shows, has a credential other
// than s.
func (t *Transport) overwrites(got *http.Request, s *tokenState) bool {
	if t.Query != "" || got == nil || s.AccessToken == "" {
		return false
	}
	sent := httpx.Values(got.Header, t.key)
	return len(sent) > 0 && !slices.Equal(sent, []string{t.value(s)})
}

// value returns the value of the header.
func (t *Transport) value(s *tokenState) string {
	switch t.prefix {
	case "Bearer ":
		return s.bearer
	case "":
		return s.AccessToken
	}
	return t.prefix + s.AccessToken
}

// sendWithout sends the request as it is, without Placeholder. If the token must not go
// there, a token of the Credential that the request has is removed too.
func (t *Transport) sendWithout(req *http.Request, v *contextValue, why Withheld) (*http.Response, error) {
	out := t.withoutOurs(req, why)
	t.warnPlaceholder(req)
	resp, err := t.base.RoundTrip(out)
	if resp == nil {
		if err == nil {
			err = t.baseError(nil, nil)
		}
		v.record(Outcome{Origin: originText(req), Withheld: why, Err: t.secrets(req).Err("reauth: Base: ", err)})
		return nil, err
	}
	resp.Request = t.shown(req, resp.Request, out)
	o := Outcome{Origin: originText(req), First: attempt(resp, nil, t.requestID(resp, t.secrets(req))), Withheld: why}
	if why == WithheldAsked || why == WithheldRefresh {
		v.withoutAnswered(resp)
		v.record(o)
		return resp, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		if rej, _ := t.classify(req, resp, nil, nil); rej != nil {
			o.Rejection, o.First.RequestID = rej.Rejection, rej.RequestID
		}
		o.NotRetried = NotRetriedWithheld
	}
	t.finish(req, resp, &o)
	return resp, err
}

// withoutOurs returns the request as it is sent without a token.
func (t *Transport) withoutOurs(req *http.Request, why Withheld) *http.Request {
	forbidden := why != WithheldAsked && why != WithheldRefresh && why != WithheldOwnCredential
	remove := forbidden && t.hasOurs(t.ownCredentials(req))
	u := req.URL
	if t.Query != "" && u != nil {
		u = withoutQuery(u, t.Query, func(v string) bool { return v == Placeholder || remove && t.isOurs(v) })
	}
	key := ""
	if remove {
		key = t.key
	}
	if key == "" && u == req.URL && !hasPlaceholder(req.Header) {
		return req
	}
	c := *req
	c.URL = u
	c.Header = make(http.Header, len(req.Header))
	copyHeader(c.Header, req.Header, key)
	return &c
}

// warnPlaceholder warns once of a Placeholder in the query, where it is sent.
func (t *Transport) warnPlaceholder(req *http.Request) {
	if req.URL == nil || req.URL.RawQuery == "" || !strings.Contains(req.URL.RawQuery, Placeholder) {
		return
	}
	if t.Query != "" && slices.Contains(queryValues(req.URL, t.Query), Placeholder) {
		return
	}
	if !t.warnedQuery.Swap(true) {
		logger(t.Logger).LogAttrs(req.Context(), slog.LevelWarn, "reauth: Placeholder is in the query of a request",
			slog.String("host", bounded(req.URL.Host, 255)),
			slog.String("hint", "set Transport.Query to the name of the parameter, so that the token replaces it"))
	}
}

// classify returns the rejection that resp is, or nil, and the beginning of its body. s
// is the token that was sent, or nil if it was not the Credential's; before is the
// token of the send before.
func (t *Transport) classify(req *http.Request, resp *http.Response, s, before *tokenState) (*rejection, *peek.Body) {
	if resp == nil || t.Classifier == nil && resp.StatusCode != http.StatusUnauthorized {
		return nil, nil
	}
	if resp.StatusCode == http.StatusProxyAuthRequired { // of the proxy's credentials
		return nil, nil
	}
	original := resp.Body
	head := peek.New(req.Context(), resp)
	o := originOf(req)
	seen := *resp
	seen.Request, seen.Body = t.seen(req, s, o), http.NoBody // the body is read through head
	rej := t.classifier.Classify(&seen, head.Bytes)
	if rej.Reason == "" {
		if !head.Begun() {
			resp.Body = original
		}
		return nil, nil
	}
	if rej.StatusCode == 0 {
		rej.StatusCode = resp.StatusCode
	}
	if rej.Challenges == nil {
		rej.Challenges = ParseChallenges(resp.Header)
	}
	if date := httpx.First(resp.Header, "Date"); rej.Date.IsZero() && date != "" {
		rej.Date, _ = http.ParseTime(date)
	}
	secrets := t.secrets(req, s, before)
	r := &rejection{Rejection: rej.masked(secrets), written: rej.Challenges, rejected: s, origin: o}
	if id := safeID(ownRequestID(resp.Header, t.RequestIDHeaders), secrets); id != "" {
		r.RequestID = id
	} else if r.RequestID == "" {
		r.RequestID = t.requestID(resp, secrets)
	}
	return r, head
}

// seen returns the request as the Classifier sees it. The built-in one looks at nothing
// but the scheme that was sent, and whether the origin has accepted such a token.
func (t *Transport) seen(req *http.Request, s *tokenState, o requestOrigin) *http.Request {
	accepted := s != nil && s.verdicts.takes(o)
	if t.Classifier == nil && t.Query == "" && s != nil && s.AccessToken != "" {
		if accepted {
			return t.sentAccepted
		}
		return t.sent
	}
	seen := t.redacted(req, s)
	if accepted {
		seen = seen.WithContext(recognize.WithAccepted(seen.Context()))
	}
	return seen
}

// redacted replaces a credential.
const redacted = "[redacted]"

// redacted returns the request as it was sent, its credential redacted.
func (t *Transport) redacted(req *http.Request, s *tokenState) *http.Request {
	c := *req
	c.Body, c.GetBody = nil, nil
	c.Header = make(http.Header, len(req.Header)+1)
	copyHeader(c.Header, req.Header, t.key)
	c.Header = c.Header.Clone()
	own := t.ownCredentials(req)
	switch ours := s != nil && s.AccessToken != ""; {
	case t.Query != "":
		if len(own) > 0 || ours {
			c.URL = withQuery(withoutQuery(req.URL, t.Query, anyValue), t.Query, redacted)
		}
	case ours:
		c.Header[t.key] = []string{t.prefix + redacted}
	case len(own) > 0 && !isPlaceholder(own[0]):
		scheme, _, _ := strings.Cut(strings.TrimSpace(own[0]), " ")
		if scheme == withoutScheme(own[0]) { // no scheme, but the credential itself
			scheme = ""
		}
		c.Header[t.key] = []string{strings.TrimSpace(scheme + " " + redacted)}
	}
	return &c
}

// accepts reports whether a response that is not a rejection shows that the server
// accepted the token.
func accepts(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusTooManyRequests:
		return false
	}
	return status < 500
}

// answered notes the response to a request that was not rejected.
func (t *Transport) answered(req *http.Request, resp *http.Response, err error, v *contextValue, cred *Credential, s *tokenState) {
	if resp == nil {
		if v.recording() {
			v.record(Outcome{Origin: originText(req), Err: t.secrets(req, s).Err("reauth: Base: ", err)})
		}
		return
	}
	v.withoutAnswered(resp)
	t.noteAccepted(req, resp, cred, s)
	if v.recording() {
		v.record(Outcome{Origin: originText(req), First: attempt(resp, s, t.requestID(resp, t.secrets(req, s)))})
	}
}

// noteAccepted notes that the origin has accepted the token, if the response shows it.
func (t *Transport) noteAccepted(req *http.Request, resp *http.Response, cred *Credential, s *tokenState) {
	if s.AccessToken != "" && accepts(resp.StatusCode) {
		cred.accepted(s, originOf(req))
	}
}
