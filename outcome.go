package reauth

import (
	"net/http"
	"time"
)

// An Outcome describes what became of a request: its first send and its retry. It
// contains no secret.
type Outcome struct {
	Origin      string        // where the request went, in lower case and without a default port: "https://api.example.com"
	First       Attempt       // the first send
	Retry       Attempt       // the retry; zero if there was none
	Predecessor bool          // the retry carried the token before the current one, without a refresh
	Rejection   Rejection     // of the first send; zero if it was not rejected
	Withheld    Withheld      // why the request was sent without a token; "" if it carried one
	NotRetried  NotRetried    // why a rejected request was not sent again; "" if it was
	Advice      Advice        // what to do, if the request was rejected and not recovered; "" if nothing
	Err         error         // why there was no retry, no response or no recovery, such as a *RefreshError or ErrLoggedOut; else nil
	Elapsed     time.Duration // from the rejection to the last response

	overwritten bool // Base sent another credential than this package's
}

// An Attempt is one send of a request.
type Attempt struct {
	StatusCode int    // zero if there was no response
	RequestID  string // the server's id of the request; may be empty
	Token      string // fingerprint of the token that the request carried
}

// Recovered reports whether the request was rejected, and its retry was not.
func (o Outcome) Recovered() bool {
	return o.Rejection.Reason != "" && o.Retry.StatusCode != 0 && o.Err == nil
}

// RequestID returns the request id of the last response. It may be empty.
func (o Outcome) RequestID() string {
	if o.Retry.StatusCode != 0 {
		return o.Retry.RequestID
	}
	return o.First.RequestID
}

// OutcomeOf returns the Outcome of the request that resp is the response to. It reports
// false if the request was not rejected and its token was not withheld. It also reports
// false if the request was made with WithoutToken or by a Refresher. If the caller does
// not have the response, see WithOutcome.
func OutcomeOf(resp *http.Response) (Outcome, bool) {
	if resp == nil || resp.Request == nil {
		return Outcome{}, false
	}
	v := contextOf(resp.Request.Context())
	if v == nil || v.answered == nil {
		return Outcome{}, false
	}
	return *v.answered, true
}

// Withheld says why a request was sent without a token.
type Withheld string

const (
	WithheldAsked         Withheld = "asked"      // the context is that of WithoutToken
	WithheldRefresh       Withheld = "refresh"    // the request is part of a refresh of the same Credential
	WithheldTrace         Withheld = "trace"      // a TRACE request must not carry credentials (RFC 9110 §9.3.8)
	WithheldOrigin        Withheld = "origin"     // Transport.Origins does not list the origin
	WithheldRedirect      Withheld = "redirect"   // the request was redirected from, or through, another origin
	WithheldHost          Withheld = "host"       // the request's Host is another host than its URL's
	WithheldScheme        Withheld = "scheme"     // the URL's scheme is neither https nor http, or the URL has no host
	WithheldOwnCredential Withheld = "credential" // the request has a credential of its own
)

// Text returns the sentence for w, or "" if w is empty or unknown.
func (w Withheld) Text() string { return withheldText[w] }

var withheldText = map[Withheld]string{
	WithheldAsked:         "the caller asked for no token",
	WithheldRefresh:       "the request is part of getting a new token",
	WithheldTrace:         "a TRACE request must not carry credentials",
	WithheldOrigin:        "the origin is not one that the token is for",
	WithheldRedirect:      "the request was redirected from, or through, another origin",
	WithheldHost:          "the Host of the request is another host than its URL's",
	WithheldScheme:        "the URL has no host, or a scheme other than https and http",
	WithheldOwnCredential: "the request has a credential of its own",
}

// NotRetried says why a rejected request was not sent again.
type NotRetried string

const (
	NotRetriedReason       NotRetried = "reason"         // a new token does not help, as the Reason of the Rejection says
	NotRetriedWithheld     NotRetried = "withheld"       // the request carried no token of the Credential
	NotRetriedNoToken      NotRetried = "no_token"       // the refresh failed, or its backoff lasts
	NotRetriedTooYoung     NotRetried = "too_young"      // the token is new, and this origin has not accepted it
	NotRetriedBudget       NotRetried = "budget"         // the budget of Credential.RefreshEvery is used up
	NotRetriedDeadline     NotRetried = "deadline"       // the request's deadline is nearer than the retry
	NotRetriedRetryAfter   NotRetried = "retry_after"    // the server's Retry-After is longer than 5 seconds
	NotRetriedCanceled     NotRetried = "canceled"       // the request's context ended
	NotRetriedLoggedOut    NotRetried = "logged_out"     // Credential.Clear was called
	NotRetriedTokenExpired NotRetried = "token_expired"  // the new token expired before the retry
	NotRetriedBodyTooLarge NotRetried = "body_too_large" // more of the body was sent than Transport.MaxReplayBytes
	NotRetriedBodyFailed   NotRetried = "body_failed"    // GetBody failed, or returned a body of another length
)

// Text returns the sentence for n, or "" if n is empty or unknown.
func (n NotRetried) Text() string { return notRetriedText[n] }

var notRetriedText = map[NotRetried]string{
	NotRetriedReason:       "a new token does not help",
	NotRetriedWithheld:     "the request carried no token",
	NotRetriedNoToken:      "there is no new token",
	NotRetriedTooYoung:     "the token is new, and this origin has not accepted it",
	NotRetriedBudget:       "the budget of refreshes is used up",
	NotRetriedDeadline:     "the deadline of the request is nearer than the retry",
	NotRetriedRetryAfter:   "the server asks to wait for more than 5 seconds",
	NotRetriedCanceled:     "the context of the request ended",
	NotRetriedLoggedOut:    "the request belongs to a login that has ended",
	NotRetriedTokenExpired: "the new token expired before the retry",
	NotRetriedBodyTooLarge: "more of the body was sent than is kept",
	NotRetriedBodyFailed:   "the body cannot be sent again",
}
