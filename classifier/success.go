package classifier

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/reauth-go/reauth"
)

// Slack returns a Classifier for the Web API of Slack, which answers 200 and
// {"ok":false,"error":…}:
//
//	token_expired      expired: of an app that rotates its tokens
//	token_revoked      revoked
//	invalid_auth       invalid_token
//	account_inactive   denied: the user or workspace is gone, and no token helps
//
// Other errors, such as missing_scope, ratelimited and not_authed (no token was
// sent), are no rejections.
//
// A response of unknown length is read only if it was compressed, as it may be a
// stream otherwise: what a chunked one says of the token is left out.
//
// Sources: the errors of each method, such as https://api.slack.com/methods/auth.test,
// and https://api.slack.com/authentication/rotation.
func Slack() reauth.Classifier {
	reasons := map[scalar]reauth.Reason{
		"token_expired":    reauth.ReasonExpired,
		"token_revoked":    reauth.ReasonRevoked,
		"invalid_auth":     reauth.ReasonInvalidToken,
		"account_inactive": reauth.ReasonDenied,
	}
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		var e struct {
			OK    json.RawMessage `json:"ok"`
			Error scalar          `json:"error"`
		}
		if resp.StatusCode != http.StatusOK || !isDocument(resp) || !decode(resp, body, &e) || string(e.OK) != "false" {
			return reauth.Rejection{}
		}
		return rejected(resp, body, reasons[e.Error], string(e.Error))
	})
}

// WeChat returns a Classifier for the APIs of WeChat (微信) and WeCom (企业微信),
// which answer 200 and {"errcode":…,"errmsg":…}:
//
//	42001   expired: the access_token; 42009: WeCom's suite_access_token
//	40014   invalid_token; 40082: WeCom's suite_access_token or provider_access_token
//	40001   invalid_token: also of one that a later one has replaced ("not latest");
//	        but none where errmsg speaks of the secret, where no token helps
//
// Other codes are no rejections, 41001 (no access_token was sent) among them.
//
// Some of these APIs send their JSON as text/plain; it is read as well, where its
// length is known. They want the token in the query: Transport.Query puts it there, as
// access_token.
//
// A response of unknown length is read only if it was compressed, as it may be a
// stream otherwise: what a chunked one says of the token is left out.
//
// Sources: https://developers.weixin.qq.com/doc/offiaccount/en/Getting_Started/Global_Return_Code.html
// and https://developer.work.weixin.qq.com/document/path/90313.
func WeChat() reauth.Classifier {
	reasons := map[scalar]reauth.Reason{
		"42001": reauth.ReasonExpired,
		"42009": reauth.ReasonExpired,
		"40014": reauth.ReasonInvalidToken,
		"40082": reauth.ReasonInvalidToken,
		"40001": reauth.ReasonInvalidToken,
	}
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		var e struct {
			Code    scalar `json:"errcode"`
			Message scalar `json:"errmsg"`
		}
		readable := isDocument(resp) || mediaType(resp) == "text/plain" && lengthKnown(resp)
		if resp.StatusCode != http.StatusOK || !readable || !decode(resp, body, &e) {
			return reauth.Rejection{}
		}
		message := strings.ToLower(string(e.Message))
		if e.Code == "40001" && strings.Contains(message, "secret") && !strings.Contains(message, "access_token") {
			return reauth.Rejection{}
		}
		return rejected(resp, body, reasons[e.Code], string(e.Code))
	})
}

// Feishu returns a Classifier for the open platform of Feishu (飞书) and Lark,
// which answers 200 or 400 and {"code":…,"msg":…}:
//
//	99991677                      expired
//	99991663, 99991664, 99991668  invalid_token: of the tenant, the app, the user
//	99991671                      invalid_token: it does not look like one
//	99991661                      missing
//	99991669                      login_required: the user's refresh token is no longer valid
//
// All but the last are refreshable. Other codes are no rejections: 99991672,
// 99991676 and 99991679 are about scopes, 99991400 is about the rate.
//
// A response of unknown length is read only if it was compressed, as it may be a
// stream otherwise: what a chunked one says of the token is left out.
//
// Sources: https://open.feishu.cn/document/server-docs/api-call-guide/generic-error-code,
// and larksuite/oapi-sdk-go, which fetches another token for 63, 64 and 71.
func Feishu() reauth.Classifier {
	reasons := map[scalar]reauth.Reason{
		"99991677": reauth.ReasonExpired,
		"99991663": reauth.ReasonInvalidToken,
		"99991664": reauth.ReasonInvalidToken,
		"99991668": reauth.ReasonInvalidToken,
		"99991671": reauth.ReasonInvalidToken,
		"99991661": reauth.ReasonMissing,
		"99991669": reauth.ReasonLoginRequired,
	}
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		var e struct {
			Code scalar `json:"code"`
		}
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusBadRequest {
			return reauth.Rejection{}
		}
		if !isDocument(resp) || !decode(resp, body, &e) {
			return reauth.Rejection{}
		}
		return rejected(resp, body, reasons[e.Code], string(e.Code))
	})
}

// NewAPI returns a Classifier for the management API of new-api and one-api, such as
// /api/user/self. It answers 200 and {"success":false,"message":…} to an access token that
// it does not know:
//
//	无权进行此操作，access token 无效   invalid_token
//	用户已被封禁                      denied: the user is banned
//
// The words are known in simplified and traditional characters and in English
// ("Unauthorized, invalid access token"). The message must have no others: if a test of a
// channel fails, such a 200 repeats the words of the upstream. Other messages are no
// rejections.
//
// A newer new-api answers 401 with a code such as AUTH_TOKEN_EXPIRED.
// reauth.DefaultClassifier understands that, and the errors of the gateway for a key
// (sk-…).
//
// A 200 whose length is not known is read only if it was compressed; see [GraphQL].
//
// Sources: middleware/auth.go and i18n/locales of https://github.com/QuantumNous/new-api, and
// middleware/auth.go of https://github.com/songquanpeng/one-api.
func NewAPI() reauth.Classifier {
	reasons := map[string]reauth.Reason{
		"无权进行此操作，access token 无效":            reauth.ReasonInvalidToken,
		"無權進行此操作，access token 無效":            reauth.ReasonInvalidToken,
		"unauthorized, invalid access token": reauth.ReasonInvalidToken,
		"用户已被封禁":                             reauth.ReasonDenied,
		"使用者已被封禁":                            reauth.ReasonDenied,
		"user has been banned":               reauth.ReasonDenied,
	}
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		var e struct {
			Success json.RawMessage `json:"success"`
			Message scalar          `json:"message"`
		}
		if resp.StatusCode != http.StatusOK || !isDocument(resp) || !decode(resp, body, &e) || string(e.Success) != "false" {
			return reauth.Rejection{}
		}
		return rejected(resp, body, reasons[strings.ToLower(strings.TrimSpace(string(e.Message)))], "")
	})
}

// GraphQL returns a Classifier for GraphQL servers, which answer 200 (or 400) and
// {"errors":[{"message":…,"extensions":{"code":…}}]}: UNAUTHENTICATED of Apollo
// Server and those that follow it, and invalid-jwt of Hasura. The reason is what
// the error's message says ("Token expired"), else unspecified for the one and
// invalid_token for the other. FORBIDDEN, access-denied and other
// codes are no rejections.
//
// An answer with data is none either, even if some of it failed: sent again, a
// mutation might be carried out twice. Only one whose data is missing, null, or
// holds nothing but nulls is a rejection.
//
// A 200 whose length is not known, because it is chunked and not compressed,
// is not read, as it may be a stream. If your server sends such, let it compress.
//
// Sources: https://www.apollographql.com/docs/apollo-server/data/errors,
// https://hasura.io/docs/2.0/auth/authentication/jwt and
// https://github.com/hasura/graphql-engine/issues/8659.
func GraphQL() reauth.Classifier {
	reasons := map[scalar]reauth.Reason{
		"UNAUTHENTICATED": reauth.ReasonUnspecified,
		"invalid-jwt":     reauth.ReasonInvalidToken,
	}
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusBadRequest || !isDocument(resp) {
			return reauth.Rejection{}
		}
		var answer struct {
			Errors []json.RawMessage `json:"errors"`
			Data   json.RawMessage   `json:"data"`
		}
		if !decode(resp, body, &answer) || !empty(answer.Data) {
			return reauth.Rejection{}
		}
		for _, raw := range answer.Errors {
			var e struct {
				Extensions struct {
					Code scalar `json:"code"`
				} `json:"extensions"`
			}
			_ = json.Unmarshal(raw, &e) // another shape has no such code
			reason := reasons[e.Extensions.Code]
			if reason == "" {
				continue
			}
			// The words count of this error alone, not of others or of the data.
			rej := understood(resp, func() []byte { return raw })
			if rej.Reason == reauth.ReasonUnspecified {
				rej.Reason = reason
			}
			rej.Code = string(e.Extensions.Code)
			return rej
		}
		return reauth.Rejection{}
	})
}

// empty reports whether GraphQL data is missing, null, or an object of nulls.
func empty(data json.RawMessage) bool {
	if len(data) == 0 {
		return true
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
		return false
	}
	for _, v := range fields {
		if !bytes.Equal(v, []byte("null")) {
			return false
		}
	}
	return true
}
