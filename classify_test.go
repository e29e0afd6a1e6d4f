package reauth_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

const classifyID = "20261122193238719930601ZPfswuxh"

// classifyGateway is the body of new-api and one-api, as seen on the wire.
func classifyGateway(text string) string {
	return `{"error":{"code":"","message":"` + text + ` (request id: ` + classifyID + `)","type":"new_api_error"}}`
}

// A classifyCase is a response to the token T0.
type classifyCase struct {
	name   string
	status int
	header []string // pairs
	body   string
	reason reauth.Reason
}

// classifyRun sends a request with T0, which is answered so; T1 is accepted.
func classifyRun(t *testing.T, tt classifyCase, c reauth.Classifier) (resp *http.Response, body string, sends, refreshes int32, was reauth.Rejection) {
	t.Helper()
	var iss issuer
	var n atomic.Int32
	var seen reauth.Rejection
	cred := holding(t, reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		seen = stale.Rejection
		return iss.Refresh(ctx, stale)
	}), reauth.Token{AccessToken: "T0"})
	rt := &reauth.Transport{Credential: cred, Classifier: c, RetryWait: -1, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		n.Add(1)
		if req.Header.Get("Authorization") == "Bearer T1" {
			return answer(req, http.StatusOK, "fine"), nil
		}
		return answer(req, tt.status, tt.body, tt.header...), nil
	})}
	req, err := http.NewRequest(http.MethodPost, "https://api.test/v1/chat/completions", strings.NewReader("{}"))
	require.NoError(t, err)
	resp, err = rt.RoundTrip(req)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp, string(b), n.Load(), iss.calls.Load(), seen
}

// W1: each of these says that the token is dead, or leaves it open.
func TestDeadTokenIsNotLeftInPlace(t *testing.T) {
	bearer := func(params string) []string { return []string{"WWW-Authenticate", "Bearer " + params} }
	for _, tt := range []classifyCase{
		{"RFC 6750", 401, bearer(`error="invalid_token"`), "", reauth.ReasonInvalidToken},
		{"RFC 6750 with a realm and a text", 401, bearer(`realm="api", error="invalid_token", error_description="The access token is unknown"`), "", reauth.ReasonInvalidToken},
		{"RFC 6750, upper case", 401, []string{"WWW-Authenticate", `BEARER ERROR="INVALID_TOKEN"`}, "", reauth.ReasonInvalidToken},
		{"RFC 6750, on the second line", 401, []string{"WWW-Authenticate", `Basic realm="x"`, "WWW-Authenticate", `Bearer error="invalid_token"`}, "", reauth.ReasonInvalidToken},
		{"RFC 6750, expired", 401, bearer(`error="invalid_token"`), `{"error":"invalid_token","error_description":"The access token expired"}`, reauth.ReasonExpired},
		{"a bare challenge", 401, bearer(`realm="api"`), "", reauth.ReasonUnspecified},
		{"a bare 401", 401, nil, "", reauth.ReasonUnspecified},
		{"a 401 in plain words", 401, []string{"Content-Type", "text/plain"}, "Unauthorized\n", reauth.ReasonUnspecified},
		{"a 401 as a page", 401, []string{"Content-Type", "text/html"}, "<html><h1>401 Authorization Required</h1></html>", reauth.ReasonUnspecified},
		{"a 401 of broken JSON", 401, []string{"Content-Type", "application/json"}, `{"error":`, reauth.ReasonUnspecified},
		{"the seed", 401, []string{"X-Oneapi-Request-Id", classifyID}, classifyGateway("无效的令牌"), reauth.ReasonInvalidToken},
		{"one-api, which has no code", 401, nil, `{"error":{"message":"无效的令牌","type":"one_api_error"}}`, reauth.ReasonInvalidToken},
		{"zh-TW", 401, nil, classifyGateway("無效的令牌"), reauth.ReasonInvalidToken},
		{"English", 401, nil, classifyGateway("Invalid token"), reauth.ReasonInvalidToken},
		{"expired", 401, nil, classifyGateway("该令牌已过期"), reauth.ReasonExpired},
		{"disabled token", 401, nil, classifyGateway("该令牌状态不可用"), reauth.ReasonRevoked},
		{"none sent", 401, nil, classifyGateway("未提供令牌"), reauth.ReasonMissing},
		{"management API", 401, []string{"X-Oneapi-Request-Id", classifyID}, `{"success":false,"message":"无效的令牌"}`, reauth.ReasonInvalidToken},
		{"OpenAI", 401, nil, `{"error":{"message":"Incorrect API key provided: sk-ab***yz. You can find your API key at https://platform.openai.com/account/api-keys.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`, reauth.ReasonInvalidToken},
		// The header is RFC 6750 to the letter; that an audience or a proxy has a
		// telling name changes nothing.
		{"RFC 6750, of a billing API", 401, bearer(`error="invalid_token"`), `{"error":"invalid_token","error_description":"The token for https://billing.example.com was issued to another client"}`, reauth.ReasonInvalidToken},
		{"RFC 6750, by a load balancer", 401, bearer(`error="invalid_token"`), "401 from load balancer 7", reauth.ReasonInvalidToken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body, sends, refreshes, was := classifyRun(t, tt, nil)
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			assert.Equal(t, "fine", body)
			assert.EqualValues(t, 2, sends, "refresh and retry once")
			assert.EqualValues(t, 1, refreshes)
			o, ok := reauth.OutcomeOf(resp)
			require.True(t, ok)
			assert.True(t, o.Recovered())
			assert.Equal(t, tt.reason, o.Rejection.Reason)
			assert.Equal(t, tt.reason, was.Reason, "the Refresher is told")
			assert.Equal(t, http.StatusUnauthorized, was.StatusCode)
			if strings.Contains(strings.Join(tt.header, " ")+tt.body, classifyID) {
				assert.Equal(t, classifyID, o.First.RequestID)
			}
		})
	}
}

// W2: a fresh token cures none of these, and none of them is touched.
func TestFreshTokenIsNotWastedOnWhatItCannotCure(t *testing.T) {
	json := []string{"Content-Type", "application/json; charset=utf-8", "X-Oneapi-Request-Id", classifyID}
	for _, tt := range []classifyCase{
		{"insufficient_scope", 401, []string{"WWW-Authenticate", `Bearer error="insufficient_scope", scope="admin"`}, "scope", reauth.ReasonInsufficientScope},
		{"insufficient_scope, though the text says invalid token", 401, []string{"WWW-Authenticate", `Bearer error="insufficient_scope"`}, `{"message":"invalid token"}`, reauth.ReasonInsufficientScope},
		{"quota", 401, json, classifyGateway("该令牌额度已用尽 TokenStatusExhausted[sk-a***z]"), reauth.ReasonQuota},
		{"quota, zh-TW", 401, json, classifyGateway("該令牌額度已用盡"), reauth.ReasonQuota},
		{"quota, OpenAI", 401, json, `{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","code":"insufficient_quota"}}`, reauth.ReasonQuota},
		{"disabled account", 401, json, `{"error":{"message":"Your account is disabled, please contact support","code":"account_disabled"}}`, reauth.ReasonDenied},
		{"banned user", 401, json, classifyGateway("用户已被封禁"), reauth.ReasonDenied},
		{"a disabled user's expired token", 401, json, `{"code":"token_expired","message":"Your account has been disabled"}`, reauth.ReasonDenied},
		{"IP not allowed", 401, json, `{"error":{"message":"Your IP 203.0.113.7 is not allowed to use this key"}}`, reauth.ReasonDenied},
		{"the gateway's own key upstream", 401, json, `{"error":{"message":"Incorrect API key provided: sk-up***. You can find your API key at https://***.com/***/***","type":"invalid_request_error","code":"invalid_api_key"}}`, reauth.ReasonUpstream},
		{"only Basic", 401, []string{"WWW-Authenticate", `Basic realm="x"`}, "", reauth.ReasonOtherScheme},
		{"403 invalid_token", 403, []string{"WWW-Authenticate", `Bearer error="invalid_token"`}, "", ""},
		{"403 in the gateway's words", 403, json, classifyGateway("无效的令牌"), ""},
		{"407", 407, []string{"Proxy-Authenticate", `Bearer error="invalid_token"`, "WWW-Authenticate", `Bearer error="invalid_token"`}, "Invalid token", ""},
		{"400", 400, json, `{"error":{"message":"invalid token","code":"invalid_api_key"}}`, ""},
		{"500 that speaks of tokens", 500, json, classifyGateway("invalid token"), ""},
		{"503 no channel", 503, json, classifyGateway("无可用渠道"), ""},
		{"200 that speaks of tokens", 200, json, classifyGateway("无效的令牌"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.header = append(tt.header, "X-Twice", "1", "X-Twice", "2")
			want := answer(&http.Request{}, tt.status, tt.body, tt.header...)
			resp, body, sends, refreshes, _ := classifyRun(t, tt, nil)
			assert.EqualValues(t, 1, sends)
			assert.Zero(t, refreshes)
			assert.Equal(t, tt.body, body, "byte for byte")
			assert.Equal(t, want.Header, resp.Header)
			assert.Equal(t, want.StatusCode, resp.StatusCode)
			assert.Equal(t, want.Status, resp.Status)
			assert.Equal(t, want.ContentLength, resp.ContentLength)
			o, ok := reauth.OutcomeOf(resp)
			assert.Equal(t, tt.reason != "", ok)
			assert.Equal(t, tt.reason, o.Rejection.Reason)
			if ok {
				assert.Equal(t, reauth.NotRetriedReason, o.NotRetried)
				assert.False(t, o.Recovered())
			}
		})
	}
}

// W2: a caller who knows his API may say so.
func TestClassifierIsNotIgnored(t *testing.T) {
	always := reauth.ClassifierFunc(func(resp *http.Response, _ func() []byte) reauth.Rejection {
		if resp.StatusCode < 400 {
			return reauth.Rejection{}
		}
		return reauth.Rejection{Reason: reauth.ReasonInvalidToken}
	})
	never := reauth.ClassifierFunc(func(*http.Response, func() []byte) reauth.Rejection { return reauth.Rejection{} })

	resp, body, sends, refreshes, was := classifyRun(t, classifyCase{status: 403, body: "no"}, always)
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Equal(t, "fine", body)
	assert.EqualValues(t, 2, sends)
	assert.EqualValues(t, 1, refreshes)
	assert.Equal(t, http.StatusForbidden, was.StatusCode)

	resp, body, sends, refreshes, _ = classifyRun(t, classifyCase{status: 401, body: "no"}, never)
	assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	assert.Equal(t, "no", body)
	assert.EqualValues(t, 1, sends)
	assert.Zero(t, refreshes)
}

// W2: a 407 is the proxy's, and about another credential: it never refreshes,
// whatever a Classifier that goes by the hundreds may say.
func TestProxysRejectionNeverRefreshes(t *testing.T) {
	all := reauth.ClassifierFunc(func(resp *http.Response, _ func() []byte) reauth.Rejection {
		if resp.StatusCode/100 == 4 {
			return reauth.Rejection{Reason: reauth.ReasonInvalidToken}
		}
		return reauth.Rejection{}
	})
	resp, body, sends, refreshes, _ := classifyRun(t, classifyCase{status: 407, body: "proxy"}, all)
	assert.Equal(t, http.StatusProxyAuthRequired, resp.StatusCode)
	assert.Equal(t, "proxy", body)
	assert.EqualValues(t, 1, sends)
	assert.Zero(t, refreshes)
}
