package reauth

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// A Reason says why a response is a rejection, and so what may cure it.
type Reason string

// The reasons that a fresh token may cure.
const (
	ReasonInvalidToken Reason = "invalid_token" // the token is not (or no longer) known
	ReasonExpired      Reason = "expired"       // the token's time is over
	ReasonRevoked      Reason = "revoked"       // the token was revoked, disabled or deleted
	ReasonMissing      Reason = "missing"       // no token was seen: stripped on the way, or wanted elsewhere
	ReasonUnspecified  Reason = "unspecified"   // a 401 that does not say why
	ReasonClaims       Reason = "claims"        // the token lacks claims; the challenge names them for the Refresher
)

// The reasons that a fresh token of the same identity does not cure. The
// response is the caller's to deal with.
const (
	ReasonInsufficientScope Reason = "insufficient_scope" // ask for the scope at the next login
	ReasonStepUp            Reason = "step_up"            // the user has to authenticate again (RFC 9470)
	ReasonNonce             Reason = "nonce"              // the proof of possession wants a nonce (RFC 9449)
	ReasonOtherScheme       Reason = "other_scheme"       // the server wants another authentication scheme
	ReasonDenied            Reason = "denied"             // the account, address or key may not do this
	ReasonQuota             Reason = "quota"              // the balance or quota behind the token is used up
)

// Refreshable reports whether a fresh token may cure the rejection. Reasons
// that are not listed above, and the empty one, are not refreshable.
func (r Reason) Refreshable() bool {
	switch r {
	case ReasonInvalidToken, ReasonExpired, ReasonRevoked, ReasonMissing, ReasonUnspecified, ReasonClaims:
		return true
	}
	return false
}

// A Rejection is a response that turns the request's credentials down. The zero
// Rejection is none.
type Rejection struct {
	Reason     Reason
	StatusCode int
	Code       string      // the server's own error code, bounded and printable; may be empty
	Message    string      // the server's own words, likewise
	RequestID  string      // the id to give to the server's support desk; may be empty
	Challenges []Challenge // all of WWW-Authenticate
	Date       time.Time   // the server's clock, from the Date header; zero if it sent none
}

// claims returns the claims that a challenge asks for, or "".
func (r Rejection) claims() string {
	if r.Reason != ReasonClaims {
		return ""
	}
	for _, c := range r.Challenges {
		if v := c.Params["claims"]; v != "" {
			return v
		}
	}
	return "unnamed"
}

// A Classifier decides what a response says about the token that its request
// carried. It must be safe for concurrent use.
//
// Classify returns the zero Rejection for a response that does not reject the
// token. Of a Rejection only the Reason is needed: the Transport fills in what
// else is zero. body reads the first 64 KiB of the body, within one second, and
// only when it is called, so that no stream is held up by a Classifier that
// looks at nothing but the status; the caller still reads the body from its
// beginning. resp.Request is the request as it was sent, its token redacted.
// Classify must neither read nor close resp.Body, nor keep what body returns.
type Classifier interface {
	Classify(resp *http.Response, body func() []byte) Rejection
}

// A ClassifierFunc is a function that is a Classifier.
type ClassifierFunc func(resp *http.Response, body func() []byte) Rejection

// Classify calls f.
func (f ClassifierFunc) Classify(resp *http.Response, body func() []byte) Rejection {
	return f(resp, body)
}

// classifyUnauthorized is the built-in Classifier. It knows the 401 only; each
// has a Reason.
func classifyUnauthorized(resp *http.Response, body func() []byte) Rejection {
	if resp.StatusCode != http.StatusUnauthorized {
		return Rejection{}
	}
	rej := Rejection{StatusCode: resp.StatusCode, Challenges: ParseChallenges(resp.Header)}
	text := decoded(resp.Header, body())
	rej.Code, rej.Message = codeAndMessage(text)
	rej.RequestID = requestID(resp.Header, text, nil)

	said := reasonOfChallenges(rej.Challenges, sentScheme(resp.Request))
	told := reasonOfText(rej.Code + " " + rej.Message)
	switch {
	case said != "" && !said.Refreshable() && said != ReasonOtherScheme:
		rej.Reason = said
	case told != "" && !told.Refreshable():
		rej.Reason = told
	case told != "":
		rej.Reason = told
	case said != "":
		rej.Reason = said
	default:
		rej.Reason = ReasonUnspecified
	}
	if said == ReasonClaims {
		rej.Reason = said
	}
	return rej
}

// sentScheme returns the authentication scheme that req carried, or "".
func sentScheme(req *http.Request) string {
	if req == nil {
		return ""
	}
	scheme, _, found := strings.Cut(req.Header.Get("Authorization"), " ")
	if !found {
		return ""
	}
	return scheme
}

// reasonOfChallenges returns what WWW-Authenticate says, or "" for nothing.
func reasonOfChallenges(challenges []Challenge, sent string) Reason {
	var found Reason
	ours := len(challenges) == 0 || sent == ""
	for _, c := range challenges {
		ours = ours || strings.EqualFold(c.Scheme, sent) || strings.EqualFold(c.Scheme, "Bearer")
		switch strings.ToLower(c.Params["error"]) {
		case "invalid_token":
			found, ours = ReasonInvalidToken, true
		case "insufficient_scope":
			return ReasonInsufficientScope
		case "insufficient_user_authentication":
			return ReasonStepUp
		case "insufficient_claims":
			return ReasonClaims
		case "use_dpop_nonce":
			return ReasonNonce
		}
	}
	if !ours {
		return ReasonOtherScheme
	}
	return found
}

var (
	wordsOfQuota   = regexp.MustCompile(`(?i)\bquota|额度|額度|余额|餘額|\b(balance|billing)\b|insufficient_(funds|credit)`)
	wordsOfURL     = regexp.MustCompile(`https?://[^\s*"']+`)
	wordsOfDenial  = regexp.MustCompile(`(?i)https://\*|(user|account)[^.]{0,20} (is )?(banned|disabled|suspended|blocked)|\bip\b.{0,30}(not allowed|whitelist|allowlist)|封禁`)
	wordsOfExpiry  = regexp.MustCompile(`(?i)\bexpired\b|过期|過期`)
	wordsOfRevoked = regexp.MustCompile(`(?i)\brevoked\b|状态不可用`)
	wordsOfMissing = regexp.MustCompile(`(?i)未提供令牌|\bmissing\b|\bno (token|credentials)\b`)
	wordsOfInvalid = regexp.MustCompile(`(?i)invalid[ _-](access[ _-]|api[ _-])?(token|key)|(token|key) (is )?(not valid|invalid)|无效的令牌|無效的令牌`)
)

// reasonOfText returns what the server's own words say, or "" for nothing.
func reasonOfText(text string) Reason {
	text = wordsOfURL.ReplaceAllString(text, "")
	switch {
	case wordsOfQuota.MatchString(text):
		return ReasonQuota
	case wordsOfDenial.MatchString(text):
		return ReasonDenied
	case wordsOfExpiry.MatchString(text):
		return ReasonExpired
	case wordsOfRevoked.MatchString(text):
		return ReasonRevoked
	case wordsOfInvalid.MatchString(text):
		return ReasonInvalidToken
	case wordsOfMissing.MatchString(text):
		return ReasonMissing
	}
	return ""
}

// decoded returns the body's text: unzipped where it is gzip-coded, within the
// same bound, and without a byte order mark.
func decoded(h http.Header, body []byte) []byte {
	if strings.EqualFold(h.Get("Content-Encoding"), "gzip") {
		zr, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil
		}
		body, _ = io.ReadAll(io.LimitReader(zr, peekBytes)) // cut off is no error
	}
	return bytes.TrimPrefix(body, []byte("\uFEFF"))
}

// codeAndMessage returns the error code and message of a JSON body, or the text
// of another.
func codeAndMessage(body []byte) (code, message string) {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return "", bounded(string(body), 500)
	}
	top, _ := v.(map[string]any)
	if inner, ok := top["error"].(map[string]any); ok {
		top = inner
	}
	text := func(keys ...string) string {
		for _, k := range keys {
			if s, ok := top[k].(string); ok && s != "" {
				return bounded(s, 500)
			}
		}
		return ""
	}
	return text("code", "error"), text("message", "error_description", "detail", "error")
}

// bounded is printable, for text that may be long.
func bounded(s string, max int) string {
	return printable(s[:min(len(s), max*utf8.UTFMax)], max)
}

// requestIDHeaders are looked at in this order: the first was made for the
// support desk, the last are traces.
var requestIDHeaders = []string{
	"X-Oneapi-Request-Id", "X-Request-Id", "Request-Id", "X-Amzn-Requestid", "X-Amz-Request-Id",
	"X-Ms-Request-Id", "X-Github-Request-Id", "Audit-Id", "X-Kong-Request-Id", "X-Correlation-Id",
	"X-Trace-Id", "Cf-Ray", "Traceparent",
}

var requestIDText = regexp.MustCompile(`(?i)[(（]\s*(?:request[ _-]?id|请求\s*ID|請求\s*ID)\s*[:：]\s*([^\s)）]+)`)

// maxRequestID bounds what is taken for a request id.
const maxRequestID = 128

// RequestID returns the id by which the server knows the request, to be given
// to its support desk: from resp's headers, or from the body of a rejection
// that a Transport has read. It is printable and has at most 128 characters;
// it is empty where there is none.
func RequestID(resp *http.Response) string {
	if resp == nil {
		return ""
	}
	if id := requestID(resp.Header, nil, nil); id != "" {
		return id
	}
	if o, ok := OutcomeOf(resp); ok {
		return o.RequestID()
	}
	return ""
}

// requestID looks at the caller's headers, the known ones, and the body's text.
func requestID(h http.Header, body []byte, own []string) string {
	for _, keys := range [][]string{own, requestIDHeaders} {
		for _, key := range keys {
			for _, v := range headerValues(h, http.CanonicalHeaderKey(key)) {
				if id := bounded(v, maxRequestID); id != "" {
					return id
				}
			}
		}
	}
	if m := requestIDText.FindSubmatch(body); m != nil {
		return bounded(string(m[1]), maxRequestID)
	}
	return ""
}
