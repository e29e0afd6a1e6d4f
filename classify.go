package reauth

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/reauth-go/reauth/internal/challenge"
	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/mask"
	"github.com/reauth-go/reauth/internal/peek"
	"github.com/reauth-go/reauth/internal/recognize"
)

// A Reason says why a response is a rejection.
type Reason string

// The reasons that a new token may resolve.
const (
	ReasonInvalidToken Reason = "invalid_token" // the server does not know the token, or no longer does
	ReasonExpired      Reason = "expired"       // the token has expired
	ReasonRevoked      Reason = "revoked"       // the token was revoked, disabled or deleted
	ReasonMissing      Reason = "missing"       // the server saw no token: a proxy removed it, or it belongs elsewhere
	ReasonUnspecified  Reason = "unspecified"   // a 401 that does not say why
	ReasonClaims       Reason = "claims"        // the token lacks claims; the challenge names them for the Refresher
)

// The reasons that a new token of the same identity does not resolve. The response is
// returned to the caller as it is.
const (
	ReasonInsufficientScope Reason = "insufficient_scope" // ask for the scope at the next login
	ReasonStepUp            Reason = "step_up"            // the user must authenticate again (RFC 9470)
	ReasonDPoPNonce         Reason = "dpop_nonce"         // the server asks for a proof of possession with its nonce (RFC 9449)
	ReasonOtherScheme       Reason = "other_scheme"       // the server asks for another authentication scheme
	ReasonAudience          Reason = "audience"           // the token has another audience or issuer: configure the issuer
	ReasonRequestSignature  Reason = "request_signature"  // the request's own signature or timestamp is wrong: check the clock
	ReasonCSRF              Reason = "csrf"               // the request lacks the anti-forgery token that a browser would send
	ReasonLoginRequired     Reason = "login_required"     // the refresh token is no longer valid: log in again
	ReasonUpstream          Reason = "upstream"           // the upstream rejected the gateway's own key: tell the gateway's owner
	ReasonDenied            Reason = "denied"             // the account, the address or the key is not permitted to do this
	ReasonQuota             Reason = "quota"              // the balance or quota behind the token is used up
	ReasonOther             Reason = "other"              // the 401 is not about the token
)

// Refreshable reports whether a new token may resolve the rejection. Reasons that are
// not listed here, and the empty one, are not refreshable.
func (r Reason) Refreshable() bool {
	switch r {
	case ReasonInvalidToken, ReasonExpired, ReasonRevoked, ReasonMissing, ReasonUnspecified, ReasonClaims:
		return true
	}
	return false
}

// A Rejection describes a response that rejects the credentials of its request. The
// zero Rejection means that there was no rejection.
type Rejection struct {
	Reason     Reason
	StatusCode int
	Code       string      // the server's own error code, bounded, printable, secrets masked; may be empty
	Message    string      // the server's own message, bounded, printable, secrets masked; may be empty
	RequestID  string      // the id to give to the server's support desk; may be empty
	Unread     string      // the Content-Encoding of a body that cannot be decoded, and so did not contribute to the Reason; else empty
	Challenges []Challenge // all of WWW-Authenticate
	Date       time.Time   // the server's clock, from the Date header; zero if it sent none
}

// A Classifier decides whether a response rejects the token of its request, and why. It
// must be safe for concurrent use by multiple goroutines.
//
// Classify returns the zero Rejection if the response does not reject the token.
// Otherwise it must set the Reason; the Transport sets the other fields that are zero.
// body returns up to 64 KiB from the beginning of the response body. Its first call
// reads them, for at most one second. A Classifier that looks only at the status does
// not delay a stream. The caller of RoundTrip still reads the body from its beginning.
// resp.Request is the request as it was sent, with the token or the caller's own
// credential redacted. Classify must not read or close resp.Body, and must not retain
// the result of body.
type Classifier interface {
	Classify(resp *http.Response, body func() []byte) Rejection
}

// The ClassifierFunc type is an adapter to allow the use of ordinary functions as
// Classifiers.
type ClassifierFunc func(resp *http.Response, body func() []byte) Rejection

// Classify calls f(resp, body).
func (f ClassifierFunc) Classify(resp *http.Response, body func() []byte) Rejection {
	return f(resp, body)
}

// DefaultClassifier returns the built-in Classifier, to be combined with others.
//
// It gives each 401 a Reason. It considers the challenges, and the codes and words in
// the first 64 KiB of the body. It also considers the scheme that was sent, and whether
// the origin has accepted a token before. If these disagree, a code takes precedence
// over words, and words in JSON over words on a page. A specific reason that a new
// token does not resolve takes precedence over a statement about the token. That takes
// precedence over a general statement. A 401 that does not say why is
// ReasonUnspecified. A response with another status is not a rejection.
func DefaultClassifier() Classifier { return ClassifierFunc(classifyUnauthorized) }

func classifyUnauthorized(resp *http.Response, body func() []byte) Rejection {
	if resp.StatusCode != http.StatusUnauthorized {
		return Rejection{}
	}
	return recognized(resp, body())
}

// recognized returns what the response says, whatever its status.
func recognized(resp *http.Response, body []byte) Rejection {
	r := recognize.Response(resp, body)
	rej := Rejection{
		Reason:     Reason(r.Reason),
		StatusCode: resp.StatusCode,
		Code:       r.Code,
		Message:    r.Message,
		RequestID:  r.RequestID,
		Unread:     r.Unread,
	}
	for _, c := range r.Challenges {
		rej.Challenges = append(rej.Challenges, Challenge(c))
	}
	return rej
}

// Inspect returns what a response says about the credentials of its request, whatever
// its status. It is for tools that have no Transport. body is the beginning of the
// response body; Inspect uses at most 64 KiB of it. Inspect does not read resp.Body.
// resp.Request may be nil. If not nil, its Authorization header shows the scheme that
// was sent.
//
// If the status is not 401, the Reason is empty unless the response gives one. The
// other fields are set in any case. Texts are bounded and printable. The credentials of
// resp.Request, and texts that have the form of a secret, are masked.
func Inspect(resp *http.Response, body []byte) Rejection {
	if resp == nil {
		return Rejection{}
	}
	rej := recognized(resp, body[:min(len(body), maxInspected)])
	if resp.StatusCode != http.StatusUnauthorized && (rej.Reason == ReasonUnspecified || rej.Reason == ReasonOther) {
		rej.Reason = ""
	}
	rej.Date, _ = http.ParseTime(httpx.First(resp.Header, "Date"))
	return rej.masked(mask.NewSecrets(credentialsOf(resp.Request)...))
}

// maxInspected is how much of a body is read.
const maxInspected = 64 << 10

// credentialsOf returns the values of all headers whose names suggest a credential. It
// is for a request whose credential may be in any header.
func credentialsOf(req *http.Request) []string {
	if req == nil {
		return nil
	}
	var all []string
	for k, vv := range req.Header {
		k = strings.ToLower(k)
		if !strings.Contains(k, "auth") && !strings.Contains(k, "token") && !strings.Contains(k, "key") && !strings.Contains(k, "secret") && k != "cookie" {
			continue
		}
		for _, v := range vv {
			if v = withoutScheme(v); len(v) >= mask.Overlap {
				all = append(all, v)
			}
		}
	}
	return all
}

// A Challenge is one challenge of a WWW-Authenticate header (RFC 9110 §11.6.1).
type Challenge struct {
	Scheme  string            // as the server wrote it; compare with strings.EqualFold
	Token68 string            // the value of "Negotiate abc=="; else empty
	Params  map[string]string // by lower-case name; a repeated name is omitted, as neither value can be trusted
}

// ParseChallenges returns the challenges of all WWW-Authenticate lines of h, in their
// order. It accepts what RFC 9110 §11 allows. It also accepts common mistakes of
// servers: unquoted values, quotes inside of quotes, missing and superfluous commas. It
// skips what it cannot parse. It never fails. It reads at most 64 KiB, in linear time.
func ParseChallenges(h http.Header) []Challenge {
	var all []Challenge
	for _, c := range challenge.Parse(h) {
		all = append(all, Challenge(c))
	}
	return all
}

// maxRequestID bounds a request id, in characters.
const maxRequestID = recognize.MaxRequestID

// RequestID returns the server's id of the request, for the server's support desk. It
// returns "" if there is none. The id is printable and has at most 128 characters. If
// there are several ids, RequestID prefers one that is meant as a request id.
//
// RequestID uses the Outcome of the request if there is one. Otherwise it may read up
// to 64 KiB of the body, for at most one second. It does so if the response is an
// error, or a text other than an event stream. The caller can still read the body from
// its beginning.
func RequestID(resp *http.Response) string {
	if resp == nil {
		return ""
	}
	if o, ok := OutcomeOf(resp); ok && o.RequestID() != "" {
		return o.RequestID()
	}
	var body []byte
	if resp.StatusCode >= 400 || recognize.IsText(resp.Header) {
		ctx := context.Background()
		if resp.Request != nil {
			ctx = resp.Request.Context()
		}
		head, ok := resp.Body.(*peek.Body)
		if !ok {
			head = peek.New(ctx, resp)
		}
		body = head.Bytes()
	}
	return recognize.RequestID(resp.Header, body)
}

// requestID returns the request id in the headers. The headers that the caller lists
// precede the well-known ones.
func requestID(h http.Header, own []string) string {
	if id := ownRequestID(h, own); id != "" {
		return id
	}
	return recognize.RequestID(h, nil)
}

// ownRequestID returns the request id in the headers that the caller lists.
func ownRequestID(h http.Header, own []string) string {
	for _, key := range own {
		for _, v := range httpx.Values(h, http.CanonicalHeaderKey(key)) {
			if id := bounded(v, maxRequestID); id != "" {
				return id
			}
		}
	}
	return ""
}

// bounded returns a text of the server as it may be logged.
func bounded(s string, max int) string { return mask.Bounded(s, max) }
