// Package recognize reads what a response says about the credentials of its request:
// codes, words and request ids.
package recognize

import (
	"context"
	"net/http"
	"strings"

	"github.com/reauth-go/reauth/internal/challenge"
	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/mask"
)

// A Reason says why a response rejects a request.
type Reason string

// The reasons, as package reauth documents them.
const (
	InvalidToken      Reason = "invalid_token"
	Expired           Reason = "expired"
	Revoked           Reason = "revoked"
	Missing           Reason = "missing"
	Unspecified       Reason = "unspecified"
	Claims            Reason = "claims"
	InsufficientScope Reason = "insufficient_scope"
	StepUp            Reason = "step_up"
	DPoPNonce         Reason = "dpop_nonce"
	OtherScheme       Reason = "other_scheme"
	Audience          Reason = "audience"
	RequestSignature  Reason = "request_signature"
	CSRF              Reason = "csrf"
	LoginRequired     Reason = "login_required"
	Upstream          Reason = "upstream"
	Denied            Reason = "denied"
	Quota             Reason = "quota"
	Other             Reason = "other"
)

// Bounds of what is kept of a server's words, in characters.
const (
	maxCode      = 200
	maxMessage   = 500
	MaxRequestID = 128
)

// A Result is what a response says. Its texts are printable and bounded. They may
// repeat a secret of the request.
type Result struct {
	Reason     Reason
	Code       string // the server's own error code
	Message    string // the server's own words
	RequestID  string
	Unread     string // the content coding of a body that could not be read, else empty
	Challenges []challenge.Challenge
}

// refreshable reports whether a new token may resolve r.
func (r Reason) refreshable() bool {
	switch r {
	case InvalidToken, Expired, Revoked, Missing, Unspecified, Claims:
		return true
	}
	return false
}

// Response returns what a response that rejects its request says, whatever its status.
// body is the beginning of its body. resp.Request, if not nil, shows the scheme of the
// credentials that were sent, and its context whether the server takes them; see
// WithAccepted.
func Response(resp *http.Response, body []byte) Result {
	rej := Result{Challenges: challenge.Parse(resp.Header)}
	e := explain(resp.Header, body)
	rej.Code, rej.Message, rej.Unread = mask.Bounded(e.code, maxCode), mask.Bounded(e.message, maxMessage), mask.Bounded(e.unread, maxCode)
	id, rank := headerRequestID(resp.Header)
	if e.idRank > rank {
		id = e.requestID
	}
	rej.RequestID = mask.Bounded(id, MaxRequestID)
	challenged := readChallenges(rej.Challenges, resp.Request)
	rej.Reason = e.reason(challenged)
	return rej
}

// reason returns the reason that challenges and body give together. A structured sign
// outranks what a page says, which is the same on many servers.
func (e *explanation) reason(c challenged) Reason {
	body := e.found
	if e.code == "token_not_valid" && !e.messages && !strings.HasPrefix(e.message, "Given") {
		// Django's Simple JWT of a token in the request's body, which is there
		// to be refreshed; of the one in its header it says more.
		body = finding{Reason: LoginRequired}
	}
	if e.words.page && c.says.Reason != "" {
		body = finding{}
	}
	if c.taken && body == (finding{OtherScheme, true}) {
		body = finding{} // "login failed" is said of its tokens too
	}
	switch {
	case c.says.Reason == Claims:
		return Claims
	case e.upstream:
		return Upstream
	case !c.ours && c.says.rank() < rankInvalid && (body.rank() < rankInvalid || body.Reason == Denied || body.Reason == InvalidToken && !e.words.token && !e.words.signed):
		return OtherScheme // and no news of a token: "invalid credentials" are none
	case c.unknown && body.Reason == Missing && c.says.Reason == "":
		return OtherScheme // the server looked for its own, and did not see it
	case body.rank() > c.says.rank():
		return body.Reason
	case c.says.Reason != "":
		return c.says.Reason
	case e.otherCode, e.aside():
		return Other
	}
	return Unspecified
}

type acceptedKey struct{}

// WithAccepted returns a context that says that the server has accepted a token of this
// kind before: it does not want another scheme because it offers others too.
func WithAccepted(ctx context.Context) context.Context {
	return context.WithValue(ctx, acceptedKey{}, true)
}

// sentScheme returns the authentication scheme that req carried, or "".
func sentScheme(req *http.Request) string {
	if req == nil {
		return ""
	}
	scheme, _, found := strings.Cut(httpx.First(req.Header, "Authorization"), " ")
	if !found {
		return ""
	}
	return scheme
}

// challenged is what the challenges of a response say.
type challenged struct {
	says    finding
	ours    bool // one is, or may be, for credentials such as were sent
	unknown bool // that is only because its scheme is unknown
	taken   bool // the server has accepted such credentials before
}

// foreign are the schemes that take no token of an issuer's.
var foreign = map[string]bool{
	"basic": true, "digest": true, "negotiate": true, "ntlm": true, "kerberos": true, "hoba": true, "mutual": true, "signature": true,
	"hawk": true, "mac": true, "oauth": true, "vapid": true, "sharedkey": true, "sharedkeylite": true, "wsse": true, "xbasic": true, "x-basic": true,
	"privatekey": true, "passport1.4": true, "gnap": true, "concealed": true, "tls": true, "mtls": true, "certificate": true, "form": true, "formbased": true, "cookie": true, "login": true,
}

// isForeign reports whether a scheme is one of those, in a family that grows:
// SCRAM-SHA-256, HMAC-SHA512, AWS4-HMAC-SHA256.
func isForeign(scheme string) bool {
	return foreign[scheme] || strings.HasPrefix(scheme, "scram-") || strings.Contains(scheme, "hmac") || strings.HasPrefix(scheme, "aws4-") || strings.HasSuffix(scheme, "digest")
}

// readChallenges returns what the challenges say to the request.
func readChallenges(challenges []challenge.Challenge, req *http.Request) challenged {
	sent := sentScheme(req)
	taken := req != nil && req.Context().Value(acceptedKey{}) != nil
	c := challenged{ours: len(challenges) == 0 || taken, taken: taken}
	for _, ch := range challenges {
		switch scheme := strings.ToLower(ch.Scheme); {
		case sent != "" && strings.EqualFold(scheme, sent), scheme == "bearer", scheme == "token", scheme == "dpop", scheme == "":
			c.ours, c.unknown = true, false
		case isForeign(scheme):
		default:
			c.unknown = c.unknown || !c.ours && sent != ""
			c.ours = true
		}
		c.read(ch)
	}
	return c
}

// read takes note of what one challenge says.
func (c *challenged) read(ch challenge.Challenge) {
	note := func(f finding) {
		if f.rank() > c.says.rank() {
			c.says = f
		}
	}
	switch code := strings.ToLower(ch.Params["error"]); code {
	case "invalid_token", "token_expired", "expired_token":
		note(finding{Reason: InvalidToken})
		c.ours = true
	case "insufficient_scope":
		note(finding{Reason: InsufficientScope})
	case "insufficient_user_authentication":
		note(finding{Reason: StepUp})
	case "insufficient_claims":
		c.says = finding{Reason: Claims}
		return
	case "use_dpop_nonce":
		note(finding{Reason: DPoPNonce})
	case "invalid_dpop_proof":
		note(finding{Reason: RequestSignature})
	}
	if d := ch.Params["error_description"]; d != "" {
		var l sentenceReader
		l.read(d)
		note(l.found)
	}
}
