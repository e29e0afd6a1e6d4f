package reauth

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/mask"
	"github.com/reauth-go/reauth/internal/peek"
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
	ReasonDPoPNonce         Reason = "dpop_nonce"         // the proof of possession wants a nonce (RFC 9449)
	ReasonOtherScheme       Reason = "other_scheme"       // the server wants another authentication scheme
	ReasonAudience          Reason = "audience"           // the token was issued for, or by, another: configure the issuer
	ReasonRequestSignature  Reason = "request_signature"  // the request's own signature or timestamp is wrong: see the clock
	ReasonCSRF              Reason = "csrf"               // an anti-forgery token is missing, which a browser would have
	ReasonLoginRequired     Reason = "login_required"     // the refresh token is dead: log in again
	ReasonUpstream          Reason = "upstream"           // the gateway's own key was refused by its upstream: tell its owner
	ReasonDenied            Reason = "denied"             // the account, address or key may not do this
	ReasonQuota             Reason = "quota"              // the balance or quota behind the token is used up
	ReasonOther             Reason = "other"              // the 401 is about something else than the token
)

// reasonRefused is a refusal in general terms, until something more is heard: then
// it is ReasonDenied.
const reasonRefused Reason = "refused"

// rank orders the reasons where a response gives several: what a refresh cannot
// cure before what it can, the specific before the generic. A refusal in general
// terms gives way to a token that is said to have expired.
func (r Reason) rank() int {
	switch r {
	case "":
		return 0
	case ReasonUnspecified:
		return 1
	case ReasonMissing:
		return 2
	case ReasonInvalidToken:
		return 3
	case reasonRefused:
		return 4
	case ReasonExpired, ReasonRevoked:
		return 5
	case ReasonOther, ReasonOtherScheme:
		return 6
	case ReasonInsufficientScope, ReasonRequestSignature, ReasonLoginRequired, ReasonDenied:
		return 7
	}
	return 8
}

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
	Code       string      // the server's own error code, bounded, printable, secrets masked; may be empty
	Message    string      // the server's own words, likewise
	RequestID  string      // the id to give to the server's support desk; may be empty
	Challenges []Challenge // all of WWW-Authenticate
	Date       time.Time   // the server's clock, from the Date header; zero if it sent none
}

// A Classifier decides what a response says about the token that its request
// carried. It must be safe for concurrent use.
//
// Classify returns the zero Rejection for a response that does not reject the
// token. Of a Rejection only the Reason is needed: the Transport fills in what
// else is zero. body reads the first 64 KiB of the body, within one second, and
// only when it is called, so that no stream is held up by a Classifier that
// looks at nothing but the status; the caller still reads the body from its
// beginning. resp.Request is the request as it was sent, the token or the caller's
// own credential redacted.
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

// DefaultClassifier returns the built-in Classifier, to be joined with others.
//
// It looks at a 401 only, and gives each a Reason: by the challenges, by what the
// first 64 KiB of the body say in codes and in words, and by the scheme that was
// sent. Where these disagree, what a fresh token cannot cure outranks what it
// can, and the specific the generic. A 401 that says nothing is Unspecified.
func DefaultClassifier() Classifier { return ClassifierFunc(classifyUnauthorized) }

func classifyUnauthorized(resp *http.Response, body func() []byte) Rejection {
	if resp.StatusCode != http.StatusUnauthorized {
		return Rejection{}
	}
	return understand(resp, body)
}

// understand returns what a response that is a rejection says.
func understand(resp *http.Response, body func() []byte) Rejection {
	rej := Rejection{StatusCode: resp.StatusCode, Challenges: ParseChallenges(resp.Header)}
	e := explain(resp.Header, body())
	rej.Code, rej.Message = bounded(e.code, 200), bounded(e.message, 500)
	id, rank := headerRequestID(resp.Header)
	if e.idRank > rank {
		id = e.requestID
	}
	rej.RequestID = bounded(id, maxRequestID)
	said, ours, unknown := challenged(rej.Challenges, sentScheme(resp.Request))
	reason := e.reason
	if rej.Code == "token_not_valid" && !e.messages {
		// Django's Simple JWT of a token in the request's body, which is there
		// to be refreshed; of the one in its header it says more.
		reason = ReasonLoginRequired
	}
	switch {
	case said == ReasonClaims:
		rej.Reason = said
	case e.upstream:
		rej.Reason = ReasonUpstream
	case !ours && said.rank() <= ReasonUnspecified.rank() &&
		(reason.rank() <= ReasonMissing.rank() || reason == ReasonDenied || reason == reasonRefused || reason == ReasonInvalidToken && !e.listener.token && !e.listener.signed):
		rej.Reason = ReasonOtherScheme // and no news of a token: "invalid credentials" are none
	case unknown && reason == ReasonMissing && said == "":
		rej.Reason = ReasonOtherScheme // the server looked for its own, and did not see it
	case reason.rank() > said.rank():
		rej.Reason = reason
	case said != "":
		rej.Reason = said
	case e.elsewhere:
		rej.Reason = ReasonOther
	default:
		rej.Reason = ReasonUnspecified
	}
	if rej.Reason == reasonRefused {
		rej.Reason = ReasonDenied
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

// challenged returns what the challenges say, or "" for nothing; whether one of
// them is, or may be, for a token such as was sent; and whether that is only
// because nobody knows what its scheme is for.
func challenged(challenges []Challenge, sent string) (said Reason, ours, unknown bool) {
	ours = len(challenges) == 0
	note := func(r Reason) {
		if r.rank() > said.rank() {
			said = r
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
			note(ReasonInvalidToken)
			ours = true
		case "insufficient_scope":
			note(ReasonInsufficientScope)
		case "insufficient_user_authentication":
			note(ReasonStepUp)
		case "insufficient_claims":
			return ReasonClaims, true, false
		case "use_dpop_nonce":
			note(ReasonDPoPNonce)
		case "invalid_dpop_proof":
			note(ReasonRequestSignature)
		}
		if d := c.Params["error_description"]; d != "" {
			var l listener
			l.hear(d)
			note(l.reason)
		}
	}
	return said, ours, unknown
}

// bounded is printable, for text that may be long.
func bounded(s string, max int) string {
	return mask.Printable(s[:min(len(s), max*utf8.UTFMax)], max)
}

// maxRequestID bounds what is taken for a request id.
const maxRequestID = 128

// RequestID returns the id by which the server knows the request, to be given to
// its support desk; "" if there is none. It is printable and has at most 128
// characters. Of several, in headers and body, it is the one that was made for
// that purpose.
//
// It asks OutcomeOf first. Of an error, or of a text that is no event stream, it
// reads the first 64 KiB of the body, within one second; the body can be read
// from its beginning all the same.
func RequestID(resp *http.Response) string {
	if resp == nil {
		return ""
	}
	if o, ok := OutcomeOf(resp); ok && o.RequestID() != "" {
		return o.RequestID()
	}
	id, rank := headerRequestID(resp.Header)
	if resp.StatusCode >= 400 || isText(resp.Header.Get("Content-Type")) {
		ctx := context.Background()
		if resp.Request != nil {
			ctx = resp.Request.Context()
		}
		ahead, ok := resp.Body.(*peek.Body)
		if !ok {
			ahead = peek.New(ctx, resp)
		}
		if e := explain(resp.Header, ahead.Bytes()); e.idRank > rank {
			id = e.requestID
		}
	}
	return bounded(id, maxRequestID)
}

// isText reports whether a body of the type may hold an error in words.
func isText(contentType string) bool {
	t := strings.ToLower(contentType)
	return t == "" || strings.Contains(t, "json") || strings.Contains(t, "xml") || strings.HasPrefix(t, "text/") && !strings.HasPrefix(t, "text/event-stream")
}

// requestID returns the request id of the headers: of the caller's own, else of
// those that are known by their names.
func requestID(h http.Header, own []string) string {
	if id := ownRequestID(h, own); id != "" {
		return id
	}
	id, _ := headerRequestID(h)
	return id
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

// headerRequestID returns the request id of the header whose name promises most,
// and how much that is.
func headerRequestID(h http.Header) (id string, best int) {
	found := ""
	for k, vv := range h {
		rank := requestIDRank(k)
		if rank == 0 || rank < best || rank == best && k > found { // of two alike, always the same
			continue
		}
		for _, v := range vv {
			if strings.HasPrefix(v, "{") { // X-Gitlab-Meta
				e := &explanation{}
				e.json(v)
				v = e.requestID
			}
			if v = bounded(v, maxRequestID); v != "" {
				id, best, found = v, rank, k
				break
			}
		}
	}
	return id, best
}

// promising reports whether a header's name has a pair of letters that every
// name with a rank has: of id, trace or ray, meta, correlation. Most have none.
func promising(name string) bool {
	for i := 1; i < len(name); i++ {
		switch uint16(name[i-1]|0x20)<<8 | uint16(name[i]|0x20) {
		case 'i'<<8 | 'd', 'r'<<8 | 'a', 'm'<<8 | 'e', 'r'<<8 | 'e':
			return true
		}
	}
	return false
}

// requestIDRank returns what a header's name promises: the higher, the more the
// id was made for the support desk; 0 for none. A vendor's own request id comes
// first, then the customary ones, then those of logs and errors, and last what
// belongs to a proxy, a trace or the client.
func requestIDRank(name string) int {
	var room [48]byte
	if len(name) > len(room) || !promising(name) {
		return 0
	}
	n := room[:0]
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case 'A' <= c && c <= 'Z':
			n = append(n, c|0x20)
		case c != '-' && c != '_':
			n = append(n, c)
		}
	}
	has := func(s string) bool { return bytes.Contains(n, []byte(s)) }
	switch string(n) {
	case "xrequestid":
		return 80
	case "requestid":
		return 79
	case "xgitlabmeta":
		return 85
	case "auditid", "apnsid", "intuittid", "cfray", "xvercelid", "xazureref":
		return 60
	case "xamzcfid":
		return 55
	case "traceparent":
		return 10
	case "xcloudtracecontext", "xamzntraceid":
		return 20
	}
	switch {
	case has("client"), has("parent"), has("span"):
		return 0
	case has("correlation"), has("activityid"), has("operationid"):
		return 50
	case has("requestid"), has("reqid"):
		return 90
	case has("queryid"), has("debugid"), has("trackingid"), has("logid"), has("errorid"), has("incidentid"), has("supportid"), has("tracetoken"), has("transactionid"):
		return 70
	case has("traceid"):
		return 40
	}
	return 0
}
