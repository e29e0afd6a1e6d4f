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

// A Reason says why a response is a rejection, and so what may resolve it.
type Reason string

// The reasons that a new token may resolve.
const (
	ReasonInvalidToken Reason = "invalid_token" // the token is not (or no longer) known
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
	ReasonStepUp            Reason = "step_up"            // the user has to authenticate again (RFC 9470)
	ReasonDPoPNonce         Reason = "dpop_nonce"         // the server asks for a proof of possession with its nonce (RFC 9449)
	ReasonOtherScheme       Reason = "other_scheme"       // the server asks for another authentication scheme
	ReasonAudience          Reason = "audience"           // the token was issued for, or by, another: configure the issuer
	ReasonRequestSignature  Reason = "request_signature"  // the request's own signature or timestamp is wrong: see the clock
	ReasonCSRF              Reason = "csrf"               // an anti-forgery token is missing, which a browser would have
	ReasonLoginRequired     Reason = "login_required"     // the refresh token is no longer valid: log in again
	ReasonUpstream          Reason = "upstream"           // the gateway's own key was refused by its upstream: tell its owner
	ReasonDenied            Reason = "denied"             // the account, address or key may not do this
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
// zero Rejection is none.
type Rejection struct {
	Reason     Reason
	StatusCode int
	Code       string      // the server's own error code, bounded, printable, secrets masked; may be empty
	Message    string      // the server's own words, likewise
	RequestID  string      // the id to give to the server's support desk; may be empty
	Unread     string      // the Content-Encoding of a body that cannot be read here, of which nothing was concluded; else empty
	Challenges []Challenge // all of WWW-Authenticate
	Date       time.Time   // the server's clock, from the Date header; zero if it sent none
}

// A Classifier decides whether a response rejects the token of its request, and why. It
// must be safe for concurrent use.
//
// Classify returns the zero Rejection for a response that does not. Of a Rejection only
// the Reason is needed: the Transport fills in what else is zero. body returns the first
// 64 KiB of the body, which it reads within one second when it is called first: a stream
// is not held up by a Classifier that looks at nothing but the status. The caller still
// reads the body from its beginning. resp.Request is the request as it was sent, with the
// token or the caller's own credential redacted. Classify must neither read nor close
// resp.Body, nor keep what body returns.
type Classifier interface {
	Classify(resp *http.Response, body func() []byte) Rejection
}

// A ClassifierFunc is a function that is a Classifier.
type ClassifierFunc func(resp *http.Response, body func() []byte) Rejection

// Classify calls f.
func (f ClassifierFunc) Classify(resp *http.Response, body func() []byte) Rejection {
	return f(resp, body)
}

// DefaultClassifier returns the built-in Classifier, to be combined with others.
//
// It gives each 401 a Reason: by its challenges, by the codes and words of the first
// 64 KiB of its body, by the scheme that was sent, and by whether the origin has accepted
// a token before. If these disagree, a code outranks words, and words in JSON those on a
// page; a specific reason that a new token does not resolve outranks news of the token,
// and that what is said in general terms. A 401 without a reason is ReasonUnspecified.
// Other statuses are no rejections.
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

// Inspect returns what a response says about the credentials of its request, whatever its
// status, for tools that have no Transport. body is the beginning of its body, of which
// the first 64 KiB are read; resp.Body is not. resp.Request may be nil; if it is not,
// its Authorization header shows the scheme that was sent.
//
// The Reason of a response with another status than 401 is empty unless the response
// gives one; the other fields are set all the same. Texts are bounded and printable, and
// secrets masked: those of resp.Request, and what has the form of a secret.
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

// credentialsOf returns the credentials of a request whose header they are in is not
// known: the values of all headers with a telling name.
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
	Params  map[string]string // by lower-case name; a name that is repeated is left out, as neither value can be trusted
}

// ParseChallenges returns the challenges of all WWW-Authenticate lines of h, in their
// order. It accepts what RFC 9110 §11 allows and what servers send besides: unquoted
// values, quotes inside of quotes, missing and superfluous commas. It skips what it
// cannot read. It never fails, and takes time in proportion to the header, of which it
// reads 64 KiB.
func ParseChallenges(h http.Header) []Challenge {
	var all []Challenge
	for _, c := range challenge.Parse(h) {
		all = append(all, Challenge(c))
	}
	return all
}

// maxRequestID bounds a request id, in characters.
const maxRequestID = recognize.MaxRequestID

// RequestID returns the server's id of the request, for its support desk; "" if there
// is none. It is printable and has at most 128 characters. If headers and body have
// several, it is the one that was made for that purpose.
//
// RequestID first looks for the Outcome of the request. It reads the first 64 KiB of
// the body of an error, or of a text that is no event stream, within one second; the
// body can still be read from its beginning.
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

// requestID returns the request id of the headers: of the caller's own, else of those
// that are known by their names.
func requestID(h http.Header, own []string) string {
	if id := ownRequestID(h, own); id != "" {
		return id
	}
	return recognize.RequestID(h, nil)
}

// ownRequestID returns the request id of the caller's own headers.
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

// bounded returns text of a server's as it may be logged.
func bounded(s string, max int) string { return mask.Bounded(s, max) }
