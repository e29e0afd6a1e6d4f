// Package recognize reads what a response says about the credentials of its request:
// codes, words and request ids.
package recognize

import (
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
	Challenges []challenge.Challenge
}

// refused is a refusal in general terms. Where nothing else is known, it is Denied.
const refused Reason = "refused"

// rank orders the reasons of a response that gives several: what a new token does not
// resolve before what it does, the specific before the generic. A refusal in general
// terms ranks below a token that has expired.
func (r Reason) rank() int {
	switch r {
	case "":
		return 0
	case Unspecified:
		return 1
	case Missing:
		return 2
	case InvalidToken:
		return 3
	case refused:
		return 4
	case Expired, Revoked:
		return 5
	case Other, OtherScheme:
		return 6
	case InsufficientScope, RequestSignature, LoginRequired, Denied:
		return 7
	}
	return 8
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
// credentials that were sent.
func Response(resp *http.Response, body []byte) Result {
	rej := Result{Challenges: challenge.Parse(resp.Header)}
	e := explain(resp.Header, body)
	rej.Code, rej.Message = mask.Bounded(e.code, maxCode), mask.Bounded(e.message, maxMessage)
	id, rank := headerRequestID(resp.Header)
	if e.idRank > rank {
		id = e.requestID
	}
	rej.RequestID = mask.Bounded(id, MaxRequestID)
	says, ours, unknown := challenged(rej.Challenges, sentScheme(resp.Request))
	reason := e.reason
	if rej.Code == "token_not_valid" && !e.messages {
		// Django's Simple JWT of a token in the request's body, which is there
		// to be refreshed; of the one in its header it says more.
		reason = LoginRequired
	}
	switch {
	case says == Claims:
		rej.Reason = says
	case e.upstream:
		rej.Reason = Upstream
	case !ours && says.rank() <= Unspecified.rank() &&
		(reason.rank() <= Missing.rank() || reason == Denied || reason == refused || reason == InvalidToken && !e.words.token && !e.words.signed):
		rej.Reason = OtherScheme // and no news of a token: "invalid credentials" are none
	case unknown && reason == Missing && says == "":
		rej.Reason = OtherScheme // the server looked for its own, and did not see it
	case reason.rank() > says.rank():
		rej.Reason = reason
	case says != "":
		rej.Reason = says
	case e.otherCode:
		rej.Reason = Other
	default:
		rej.Reason = Unspecified
	}
	if rej.Reason == refused {
		rej.Reason = Denied
	}
	return rej
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

// challenged returns what the challenges say, or "" for nothing; whether a challenge is,
// or may be, for a token such as was sent; and whether that is only because its scheme
// is unknown.
func challenged(challenges []challenge.Challenge, sent string) (says Reason, ours, unknown bool) {
	ours = len(challenges) == 0
	note := func(r Reason) {
		if r.rank() > says.rank() {
			says = r
		}
	}
	for _, c := range challenges {
		switch strings.ToLower(c.Scheme) {
		case "basic", "digest", "negotiate", "ntlm", "kerberos", "hoba", "mutual", "scram-sha-256", "signature", "aws4-hmac-sha256":
			ours = ours || sent != "" && strings.EqualFold(c.Scheme, sent)
			continue
		case "bearer", "token", "dpop", "":
			ours, unknown = true, false
		default:
			unknown = unknown || !ours && sent != "" && !strings.EqualFold(c.Scheme, sent)
			ours = true
		}
		switch strings.ToLower(c.Params["error"]) {
		case "invalid_token", "token_expired", "expired_token":
			note(InvalidToken)
			ours = true
		case "insufficient_scope":
			note(InsufficientScope)
		case "insufficient_user_authentication":
			note(StepUp)
		case "insufficient_claims":
			return Claims, true, false
		case "use_dpop_nonce":
			note(DPoPNonce)
		case "invalid_dpop_proof":
			note(RequestSignature)
		}
		if d := c.Params["error_description"]; d != "" {
			var l sentenceReader
			l.read(d)
			note(l.reason)
		}
	}
	return says, ours, unknown
}
