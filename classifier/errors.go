package classifier

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/httpx"
)

// AWS returns a Classifier for the 400s and 403s of AWS, in which the session
// token or key of the request is rejected. It knows the codes
//
//	ExpiredToken, ExpiredTokenException, TokenRefreshRequired    expired
//	InvalidClientTokenId, UnrecognizedClientException,
//	InvalidToken, InvalidAccessKeyId                             invalid_token
//	NotAuthorizedException with "Access Token has expired",
//	"… has been revoked" or "Invalid Access Token" (Cognito)     expired, revoked, invalid_token
//
// in the header x-amzn-ErrorType, in JSON (__type, code) and in XML (Code), and
// without a code the sentence "The security token included in the request is
// expired" (or "invalid"). No new token helps against RequestExpired and
// RequestTimeTooSkewed (the clock is wrong), SignatureDoesNotMatch, AccessDenied,
// and MissingAuthenticationToken (a wrong path, mostly): these are no rejections.
//
// Requests to AWS are signed over their headers. The RoundTripper that signs them must be
// the Base of the Transport.
//
// Sources: "Common Errors" of each service's API reference, such as
// https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html; for S3
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; where the
// code stands, https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html.
func AWS() reauth.Classifier {
	reasons := map[string]reauth.Reason{
		"ExpiredToken":                reauth.ReasonExpired,
		"ExpiredTokenException":       reauth.ReasonExpired,
		"TokenRefreshRequired":        reauth.ReasonExpired,
		"InvalidClientTokenId":        reauth.ReasonInvalidToken,
		"UnrecognizedClientException": reauth.ReasonInvalidToken,
		"InvalidToken":                reauth.ReasonInvalidToken,
		"InvalidAccessKeyId":          reauth.ReasonInvalidToken,
	}
	phrases := []phrase{
		{"security token included in the request is expired", reauth.ReasonExpired},
		{"security token included in the request is invalid", reauth.ReasonInvalidToken},
	}
	cognito := []phrase{
		{"access token has expired", reauth.ReasonExpired},
		{"access token has been revoked", reauth.ReasonRevoked},
		{"invalid access token", reauth.ReasonInvalidToken},
	}
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusForbidden {
			return reauth.Rejection{}
		}
		code, message := awsError(resp, body)
		reason := reasons[code]
		switch code {
		case "":
			reason = spoken(phrases, message)
		case "NotAuthorizedException":
			reason = spoken(cognito, message)
		}
		return rejected(resp, body, reason, code)
	})
}

// awsError returns the code and message of an error in any of AWS's protocols.
func awsError(resp *http.Response, body func() []byte) (code, message string) {
	code = httpx.First(resp.Header, "X-Amzn-Errortype")
	if doc := bytes.TrimSpace(text(resp, body)); bytes.HasPrefix(doc, []byte("<")) {
		if code == "" {
			code = element(doc, "Code")
		}
		message = element(doc, "Message")
	} else {
		var e struct {
			Type    scalar `json:"__type"`
			Code    scalar `json:"code"`
			Message scalar `json:"message"`
		}
		decode(resp, body, &e)
		for _, c := range []scalar{e.Type, e.Code} {
			if code == "" {
				code = string(c)
			}
		}
		message = string(e.Message)
	}
	// com.amazon.coral.service#ExpiredTokenException:http://…
	code, _, _ = strings.Cut(code, ":")
	return strings.TrimSpace(code[strings.LastIndexByte(code, '#')+1:]), message
}

// A phrase is what a message says, in lower case.
type phrase struct {
	text   string
	reason reauth.Reason
}

// spoken returns the reason of the first phrase that message contains.
func spoken(phrases []phrase, message string) reauth.Reason {
	message = strings.ToLower(message)
	for _, p := range phrases {
		if strings.Contains(message, p.text) {
			return p.reason
		}
	}
	return ""
}

// Vault returns a Classifier for HashiCorp Vault (and OpenBao), which never sends
// a 401. A 403 "invalid token" is invalid_token: the token has expired, was revoked,
// or never existed. A 403 "permission denied" is unspecified, and refreshable. A newer
// Vault sends it if the token's policies forbid the request. An older Vault sends it
// for an expired token as well. A request that a policy forbids therefore costs a
// refresh, and the Credential limits how often.
//
// Set Header of the Transport to X-Vault-Token.
//
// Sources: https://developer.hashicorp.com/vault/docs/concepts/tokens (error
// responses) and https://developer.hashicorp.com/vault/api-docs (403: "your
// authentication details are incorrect, you don't have access").
func Vault() reauth.Classifier {
	phrases := []phrase{
		{"invalid token", reauth.ReasonInvalidToken},
		{"bad token", reauth.ReasonInvalidToken},
		{"permission denied", reauth.ReasonUnspecified},
	}
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		if resp.StatusCode != http.StatusForbidden {
			return reauth.Rejection{}
		}
		var e struct {
			Errors []scalar `json:"errors"`
		}
		if !decode(resp, body, &e) {
			return reauth.Rejection{}
		}
		var all strings.Builder
		for _, s := range e.Errors {
			all.WriteString(string(s) + "\n")
		}
		return rejected(resp, body, spoken(phrases, all.String()), "")
	})
}

// Consul returns a Classifier for HashiCorp Consul, which answers 403 in plain text:
//
//	ACL not found, token does not exist: ACL not found   invalid_token: it is unknown, was
//	                                                     deleted or has expired
//	Permission denied: anonymous token lacks …           missing
//
// "rpc error making call:" may stand before each. Any other "Permission denied" is about
// the policies of the token, and no rejection. "Requested token does not exist: ACL not
// found" is about another token, and no rejection. An older Consul says "ACL not found" of
// another token as well: such a request costs a refresh, and the Credential limits how often. A
// 401 "ACL support disabled" is other: it is not about the token.
//
// Consul takes the token from Authorization, where a Transport puts it, or from
// X-Consul-Token.
//
// Sources: acl/errors.go and agent/http.go of https://github.com/hashicorp/consul, and
// https://github.com/hashicorp/consul/issues/8428.
func Consul() reauth.Classifier {
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusUnauthorized {
			return reauth.Rejection{}
		}
		message := strings.TrimSpace(string(text(resp, body)))
		for rest, found := message, true; found; { // each server on its way adds one
			message = rest
			rest, found = strings.CutPrefix(message, "rpc error making call: ")
		}
		var reason reauth.Reason
		switch {
		case resp.StatusCode == http.StatusUnauthorized:
			if message == "ACL support disabled" {
				reason = reauth.ReasonOther
			}
		case message == "ACL not found", message == "token does not exist: ACL not found":
			reason = reauth.ReasonInvalidToken
		case strings.HasPrefix(message, "Permission denied: anonymous token "):
			reason = reauth.ReasonMissing
		}
		return rejected(resp, body, reason, "")
	})
}

// FacebookGraph returns a Classifier for the Graph APIs of Meta (Facebook,
// Instagram, WhatsApp, Marketing): a 400 or 401 with an OAuthException of code 190
// (or 102). The error_subcode says more:
//
//	none, 467 and others   invalid_token
//	463, 468               expired
//	458, 460, 461, 466     revoked: by the user, a new password, a logout
//	459, 490               step_up: the user has to pass a checkpoint at facebook.com
//	464, 492               denied: an unconfirmed user, or one without a role on the page
//
// No new token helps with the last two rows. Other codes (4 and 17 for limits, 10 and 200 to
// 299 for permissions, 368 for a block) are no rejections.
//
// Sources: https://developers.facebook.com/docs/graph-api/guides/error-handling;
// 461, 466 and 468 are of an older page, quoted in
// https://github.com/facebook-csharp-sdk/facebook-csharp-sdk/issues/186.
func FacebookGraph() reauth.Classifier {
	subcodes := map[scalar]reauth.Reason{
		"463": reauth.ReasonExpired,
		"468": reauth.ReasonExpired,
		"458": reauth.ReasonRevoked,
		"460": reauth.ReasonRevoked,
		"461": reauth.ReasonRevoked,
		"466": reauth.ReasonRevoked,
		"459": reauth.ReasonStepUp,
		"490": reauth.ReasonStepUp,
		"464": reauth.ReasonDenied,
		"492": reauth.ReasonDenied,
	}
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUnauthorized {
			return reauth.Rejection{}
		}
		var e struct {
			Error struct {
				Type    scalar `json:"type"`
				Code    scalar `json:"code"`
				Subcode scalar `json:"error_subcode"`
			} `json:"error"`
		}
		if !decode(resp, body, &e) || e.Error.Type != "OAuthException" || e.Error.Code != "190" && e.Error.Code != "102" {
			return reauth.Rejection{}
		}
		reason := subcodes[e.Error.Subcode]
		if reason == "" {
			reason = reauth.ReasonInvalidToken // by the code alone
		}
		return rejected(resp, body, reason, string(e.Error.Code))
	})
}

// Salesforce returns a Classifier for the APIs of Salesforce: INVALID_SESSION_ID
// of the REST API (401), the fault sf:INVALID_SESSION_ID of the SOAP APIs (500)
// and InvalidSessionId of the Bulk API (400). All are invalid_token: Salesforce
// does not say whether the session expired or was ended. A session that is "not
// valid for use with" an API is insufficient_scope: it was issued without the scope
// for the API, and so is a new one. Other faults and errors are no rejections.
//
// SOAP takes the session id from its envelope, and Bulk from X-SFDC-Session. The Base
// of the Transport must put it there.
//
// Sources: https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm,
// https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_concepts_core_data_objects.htm
// and the Bulk API's https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/asynch_api_reference_errors.htm.
func Salesforce() reauth.Classifier {
	const rest, bulk = "INVALID_SESSION_ID", "InvalidSessionId"
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		switch resp.StatusCode {
		case http.StatusUnauthorized, http.StatusBadRequest, http.StatusInternalServerError:
		default:
			return reauth.Rejection{}
		}
		code, message := salesforceError(resp, body)
		if code != rest && code != bulk {
			return reauth.Rejection{}
		}
		if strings.Contains(message, "not valid for use with") {
			return rejected(resp, body, reauth.ReasonInsufficientScope, code)
		}
		return rejected(resp, body, reauth.ReasonInvalidToken, code)
	})
}

// salesforceError returns the code and message of a REST, SOAP or Bulk error.
func salesforceError(resp *http.Response, body func() []byte) (code, message string) {
	doc := bytes.TrimSpace(text(resp, body))
	switch {
	case bytes.HasPrefix(doc, []byte("<")):
		if fault := element(doc, "faultcode"); fault != "" {
			return strings.TrimPrefix(fault, "sf:"), element(doc, "faultstring")
		}
		return element(doc, "exceptionCode"), element(doc, "exceptionMessage")
	case bytes.HasPrefix(doc, []byte("[")):
		var list []struct {
			Code    scalar `json:"errorCode"`
			Message scalar `json:"message"`
		}
		if decode(resp, body, &list) && len(list) > 0 {
			return string(list[0].Code), string(list[0].Message)
		}
	default:
		var e struct {
			Code    scalar `json:"exceptionCode"`
			Message scalar `json:"exceptionMessage"`
		}
		decode(resp, body, &e)
		return string(e.Code), string(e.Message)
	}
	return "", ""
}
