package reauth

import "errors"

// An Advice says what to do about a request that was rejected and not recovered, or
// that was sent without a token. If empty, there is nothing to do. A program may act on
// an Advice. It may also present the Advice in its own words, or in another language,
// in place of Text.
type Advice string

const (
	AdviceSendAgain        Advice = "send_again"        // no problem is known to remain
	AdviceResume           Advice = "resume"            // the server may have applied the request: send it again only if that does no harm
	AdviceWait             Advice = "wait"              // send the request again later, as the server or the issuer asks
	AdviceMoreTime         Advice = "more_time"         // give the request more time
	AdviceResend           Advice = "resend"            // send the request again from its source: its body was not kept
	AdviceLogIn            Advice = "log_in"            // log in again
	AdviceStepUp           Advice = "step_up"           // have the user authenticate again, as the challenge asks
	AdviceRequestScope     Advice = "request_scope"     // log in with the scope or permission that the server asks for
	AdviceCheckIssuer      Advice = "check_issuer"      // the server rejects new tokens too
	AdviceCheckAudience    Advice = "check_audience"    // the server expects another audience, issuer or environment
	AdviceCheckRefresher   Advice = "check_refresher"   // the last refresh failed, as the error says
	AdviceShareLogin       Advice = "share_login"       // several processes, or a path that rejects all tokens, use up the refreshes
	AdviceOtherScheme      Advice = "other_scheme"      // the server asks for another authentication scheme
	AdviceProveKey         Advice = "prove_key"         // the server asks for a proof of possession (RFC 9449)
	AdviceCheckSignature   Advice = "check_signature"   // the request's own signature or this machine's clock is wrong
	AdviceSendCSRFToken    Advice = "send_csrf_token"   // the server asks for an anti-forgery token
	AdviceTopUp            Advice = "top_up"            // the balance or quota is used up
	AdviceAskOwner         Advice = "ask_owner"         // the owner of the server must admit the account, the key or the address
	AdviceTellGateway      Advice = "tell_gateway"      // the gateway's own key was rejected
	AdviceReadMessage      Advice = "read_message"      // the response is not about the token
	AdviceRemoveCredential Advice = "remove_credential" // something else sets the credential of the request
	AdviceListOrigin       Advice = "list_origin"       // Transport.Origins does not list the origin of the request
	AdviceFinalURL         Advice = "final_url"         // request the URL that the redirect leads to
	AdviceCheckHost        Advice = "check_host"        // the request's Host differs from its URL
	AdviceNewClient        Advice = "new_client"        // the client was shut down
)

// Text returns the sentence for a, or "" if a is empty or unknown.
func (a Advice) Text() string { return adviceText[a] }

var adviceText = map[Advice]string{
	AdviceSendAgain:        "send the request again",
	AdviceResume:           "the connection broke during the retry: the server may have applied the request, so send it again only if that does no harm",
	AdviceWait:             "wait, and send the request again later",
	AdviceMoreTime:         "give the request more time: a retry needs the refresh, the wait and a round trip",
	AdviceResend:           "send the request again from the start, with the new token",
	AdviceLogIn:            "log in again",
	AdviceStepUp:           "authenticate again, with what the server asks for: a second factor, a new password, a recent login",
	AdviceRequestScope:     "log in with the scope or the permission that the server asks for",
	AdviceCheckIssuer:      "the server rejects new tokens too: give both request ids to its support, and check that it expects tokens of this issuer, with this audience and scope",
	AdviceCheckAudience:    "have the issuer make tokens for this server: it expects another audience, issuer or environment",
	AdviceCheckRefresher:   "see why there was no new token; the next request tries again",
	AdviceShareLogin:       "share one login, or give each process its own; or do not send the token to the path that rejects every token",
	AdviceOtherScheme:      "use the authentication scheme that the server asks for",
	AdviceProveKey:         "the server asks for a proof of possession with its nonce, which bearer tokens do not have",
	AdviceCheckSignature:   "check the signature of the request, and this machine's clock",
	AdviceSendCSRFToken:    "send the anti-forgery token that the server asks for, or use an endpoint that is not for browsers",
	AdviceTopUp:            "top up the balance or the quota of the token",
	AdviceAskOwner:         "ask the owner of the server to enable the account, the key or the address",
	AdviceTellGateway:      "tell the owner of the gateway: its own key was rejected, and the token was not",
	AdviceReadMessage:      "read the server's message: it is not about the token",
	AdviceRemoveCredential: "remove the other credential that is set for the request",
	AdviceListOrigin:       "use the token for the servers that it was made for, or allow it for this one",
	AdviceFinalURL:         "request the address that the redirect leads to",
	AdviceCheckHost:        "set the Host of the request to that of its URL",
	AdviceNewClient:        "use a client that was not shut down",
}

// Advice returns what to do about a rejection with this reason. It is "" for a Reason
// that a new token may resolve, and for the empty Reason.
func (r Reason) Advice() Advice { return reasonAdvice[r] }

var reasonAdvice = map[Reason]Advice{
	ReasonInsufficientScope: AdviceRequestScope,
	ReasonStepUp:            AdviceStepUp,
	ReasonDPoPNonce:         AdviceProveKey,
	ReasonOtherScheme:       AdviceOtherScheme,
	ReasonAudience:          AdviceCheckAudience,
	ReasonRequestSignature:  AdviceCheckSignature,
	ReasonCSRF:              AdviceSendCSRFToken,
	ReasonLoginRequired:     AdviceLogIn,
	ReasonUpstream:          AdviceTellGateway,
	ReasonDenied:            AdviceAskOwner,
	ReasonQuota:             AdviceTopUp,
	ReasonOther:             AdviceReadMessage,
}

// Advice returns what to do about n. It is "" for NotRetriedReason and
// NotRetriedWithheld: see Reason.Advice and Withheld.Advice.
func (n NotRetried) Advice() Advice { return notRetriedAdvice[n] }

var notRetriedAdvice = map[NotRetried]Advice{
	NotRetriedNoToken:      AdviceCheckRefresher,
	NotRetriedTooYoung:     AdviceWait,
	NotRetriedBudget:       AdviceShareLogin,
	NotRetriedDeadline:     AdviceMoreTime,
	NotRetriedRetryAfter:   AdviceWait,
	NotRetriedCanceled:     AdviceSendAgain,
	NotRetriedLoggedOut:    AdviceSendAgain,
	NotRetriedTokenExpired: AdviceSendAgain,
	NotRetriedBodyTooLarge: AdviceResend,
	NotRetriedBodyFailed:   AdviceResend,
}

// Advice returns what to do so that the request carries the token. It is "" if the
// request is meant to carry none.
func (w Withheld) Advice() Advice { return withheldAdvice[w] }

var withheldAdvice = map[Withheld]Advice{
	WithheldOrigin:        AdviceListOrigin,
	WithheldRedirect:      AdviceFinalURL,
	WithheldHost:          AdviceCheckHost,
	WithheldOwnCredential: AdviceRemoveCredential,
}

// advise returns the Advice of the Outcome. The latest event takes precedence.
func (o *Outcome) advise() Advice {
	var failure *RefreshError
	switch {
	case o.Rejection.Reason == "":
		return o.Withheld.Advice()
	case o.Recovered():
		return ""
	case o.overwritten:
		return AdviceRemoveCredential
	case o.broke():
		return AdviceResume
	case o.Retry.StatusCode != 0 && o.Predecessor:
		return AdviceSendAgain
	case o.Retry.StatusCode != 0:
		return AdviceCheckIssuer
	case o.NotRetried == NotRetriedTooYoung, o.NotRetried == NotRetriedBudget:
		return o.NotRetried.Advice()
	case errors.As(o.Err, &failure) && failure.Permanent():
		return AdviceLogIn
	case failure != nil:
		return AdviceCheckRefresher
	case errors.Is(o.Err, ErrClosed):
		return AdviceNewClient
	}
	for _, a := range []Advice{o.NotRetried.Advice(), o.Withheld.Advice(), o.Rejection.Reason.Advice()} {
		if a != "" {
			return a
		}
	}
	return AdviceSendAgain
}

// broke reports whether the retry was sent, and no response came.
func (o *Outcome) broke() bool {
	return o.Elapsed > 0 && o.NotRetried == "" && o.Retry.StatusCode == 0 && o.Withheld == ""
}
