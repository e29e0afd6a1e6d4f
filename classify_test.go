package reauth_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

func (s *fuzzSlow) Read(p []byte) (int, error) {
	if !s.waited {
		s.waited = true
		time.Sleep(5 * time.Second) // in a bubble
	}
	return s.r.Read(p[:min(len(p), 2<<10)])
}

// A fuzzSlow is a body that hangs for longer than reauth waits for one.
type fuzzSlow struct {
	r      io.Reader
	waited bool
}

func corpusScores(t *testing.T, rows []corpusRow, leastRecall, mostNeedless, leastIDs float64) {
	t.Helper()
	var recall, needless, others, ids, claims [2]score
	for _, r := range rows {
		i := 0
		if !r.clear() {
			i = 1
		}
		resp, body := r.response(t)
		rej := reauth.DefaultClassifier().Classify(resp, func() []byte { return body[:min(len(body), 64<<10)] })
		refreshes := rej.Reason.Refreshable()
		switch {
		case r.Status != http.StatusUnauthorized:
			others[i].note(refreshes)
		case rej.Reason == reauth.ReasonClaims:
			claims[i].note(true)
		case r.MayHelp:
			recall[i].note(refreshes)
			if !refreshes {
				t.Logf("missed: %s (%s) %q", r.ID, rej.Reason, rej.Message)
			}
		case r.Label != "missing":
			needless[i].note(refreshes)
			if refreshes {
				t.Logf("needless: %s (%s) %q", r.ID, rej.Reason, rej.Message)
			}
		}
		if r.RequestID != "" {
			id := reauth.RequestID(resp)
			if ids[i].note(id == r.RequestID); id != r.RequestID {
				t.Logf("request id: %s: %q, not %q", r.ID, id, r.RequestID)
			}
		}
	}
	for i, name := range []string{"clear", "ambiguous or recalled"} {
		t.Logf("%s rows: recall of curable 401s %.1f %% of %d; needless refreshes %.1f %% of %d; on other statuses %d of %d; claims %d; request ids %.1f %% of %d",
			name, recall[i].percent(), recall[i].of, needless[i].percent(), needless[i].of, others[i].hits, others[i].of, claims[i].of, ids[i].percent(), ids[i].of)
	}
	assert.GreaterOrEqual(t, recall[0].percent(), leastRecall)
	assert.LessOrEqual(t, needless[0].percent(), mostNeedless)
	assert.Zero(t, others[0].hits+others[1].hits)
	assert.GreaterOrEqual(t, ids[0].percent(), leastIDs)
}

func (r wordsUnread) Read([]byte) (int, error) {
	r.t.Error("the stream was read")
	return 0, io.EOF
}

type wordsUnread struct{ t *testing.T }

// wordsZip is gzip-coded.
func wordsZip(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

// wordsNotRefreshable are words and codes of rejections that a new token does not resolve.
var wordsNotRefreshable = []struct {
	reason      reauth.Reason
	code, prose string
}{
	{reauth.ReasonQuota, "insufficient_quota", "You exceeded your current quota"},
	{reauth.ReasonQuota, "QUOTA_EXCEEDED", "The balance of this key is used up"},
	{reauth.ReasonQuota, "insufficient_user_quota", "该令牌额度已用尽"},
	{reauth.ReasonDenied, "account_disabled", "This user account has been disabled"},
	{reauth.ReasonDenied, "USER_SUSPENDED", "Your account was suspended"},
	{reauth.ReasonDenied, "user_banned", "用户已被封禁"},
	{reauth.ReasonAudience, "invalid_audience", "The audience is invalid"},
	{reauth.ReasonAudience, "wrong_issuer", "The token's issuer is not known here"},
	{reauth.ReasonStepUp, "mfa_required", "Multi-factor authentication required"},
	{reauth.ReasonStepUp, "otp_missing", "A one-time passcode is needed"},
	{reauth.ReasonStepUp, "insufficient_user_authentication", "需要二次验证"},
	{reauth.ReasonCSRF, "invalid_csrf_token", "Cross-site request forgery check failed"},
	{reauth.ReasonRequestSignature, "SignatureDoesNotMatch", "The request signature does not match"},
	{reauth.ReasonRequestSignature, "request_timestamp_expired", "The request timestamp is too old"},
	{reauth.ReasonDPoPNonce, "use_dpop_nonce", "A nonce is required in the proof"},
	{reauth.ReasonInsufficientScope, "insufficient_scope", "The required scopes are not granted"},
	{reauth.ReasonInsufficientScope, "insufficient_permissions", "权限不足"},
	{reauth.ReasonOtherScheme, "invalid_password", "The password is incorrect"},
	{reauth.ReasonLoginRequired, "invalid_grant", "The refresh token has expired"},
	{reauth.ReasonLoginRequired, "refresh_token_revoked", "刷新令牌已过期"},
	{reauth.ReasonUpstream, "invalid_api_key", "Incorrect API key provided: sk-up***. You can find it at https://***.com/***/***"},
}

func wordsChallenge(lines ...string) (header []string) {
	for _, l := range lines {
		header = append(header, "WWW-Authenticate", l)
	}
	return header
}

// wordsSent sends the case through a Transport, and holds it to what its reason
// promises: a refresh and one retry, or the response as it came.
func wordsSent(t *testing.T, tt classifyCase) reauth.Rejection {
	t.Helper()
	resp, body, sends, refreshes, was := classifyRun(t, tt, nil)
	o, ok := reauth.OutcomeOf(resp)
	assert.Equal(t, tt.reason != "", ok, "an outcome")
	assert.Equal(t, tt.reason, o.Rejection.Reason)
	if tt.reason.Refreshable() {
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		assert.EqualValues(t, 2, sends)
		assert.EqualValues(t, 1, refreshes)
		assert.Equal(t, tt.reason, was.Reason, "the Refresher is told")
		return was
	}
	assert.Equal(t, tt.status, resp.StatusCode)
	assert.Equal(t, tt.body, body, "byte for byte")
	assert.EqualValues(t, 1, sends)
	assert.Zero(t, refreshes)
	return o.Rejection
}

// wordsRejection is what the built-in Classifier says of a 401.
func wordsRejection(body string, header ...string) reauth.Rejection {
	b := []byte(body)
	return reauth.DefaultClassifier().Classify(wordsResponse(401, body, header...), func() []byte { return b[:min(len(b), 64<<10)] })
}

func wordsClassify(resp *http.Response, body []byte) reauth.Rejection {
	return reauth.DefaultClassifier().Classify(resp, func() []byte { return body })
}

// wordsScan is what every reader of a body has to pay: a look at each byte, at
// its characters, and once more for where they end.
func wordsScan(body []byte) {
	wordsSink += bytes.IndexByte(body, 0) + bytes.Count(body, []byte{'\n'})
	if utf8.Valid(body) {
		wordsSink++
	}
}

// wordsEasilyMisread are those that are easily misread.
func wordsEasilyMisread() map[string][]byte {
	worst := map[string][]byte{}
	for _, s := range []string{
		"request id:", "请求 ID：", "请求 id", ":", " : ", "id:", "request id: \n", "token ", "refresh token ", "invalid ", "or ", "a.", "A", "aA", "令牌", "令", "http://", "http://a ", "\xff", "é", "&amp;", "& ",
		"<", "<a", "<a>", "<a>x", "</", "<!--", "<!-->", "<script>", "<script></script>", "<style>x</style>", ">",
		`"`, `\`, `\"`, `"a":`, `"a":"b",`, `"message":"token expired",`, `"request_id":"a",`, `"{\"`, `"\u00`, `{"a":`, "[", "]", "{", "}", "1", "1,", "0e", "data:", "data:{\n", "data: \"\n", "event:\n",
	} {
		for _, head := range []string{"", `{"message":"`, `{"a":`, `[`, `"`, "<p>", "<html>", "<script>", "data: ", "data: \"", "event: x\n", `{"message":"{\"`, "x "} {
			worst[fmt.Sprintf("%q after %q", s, head)] = []byte(head + strings.Repeat(s, (64<<10)/len(s)))
		}
	}
	return worst
}

// wordsLarge are bodies of 64 KiB: of ordinary things, and of the worst.
func wordsLarge() map[string][]byte {
	full := func(head, s, tail string) []byte {
		n := (64<<10 - len(head) - len(tail)) / len(s)
		return []byte(head + strings.Repeat(s, n) + tail)
	}
	return map[string][]byte{
		"JSON": full(`{"error":{"code":"","message":"无效的令牌","details":[`, `{"field":"name","value":[1,2.5,true,null],"issue":"some text of some words"},`, `0]}}`),
		"HTML": full("<!DOCTYPE html><html><head><title>401 Unauthorized</title></head><body>", `<div class="row"><a href="/x">Somewhere</a> over the rainbow</div>`+"\n", "</body></html>"),
		"text": full("Unauthorized\n", "The quick brown fox jumps over the lazy dog. ", "\n"),
	}
}

// wordsSeed is the 401 that began it all, as new-api sends it.
func wordsSeed() (*http.Response, []byte) {
	body := classifyGateway("无效的令牌")
	return wordsResponse(401, body, "Content-Type", "application/json; charset=utf-8", "X-New-Api-Version", "v0.0.0", "X-Oneapi-Request-Id", classifyID,
		"Date", "Sun, 22 Nov 2026 19:32:38 GMT", "Content-Length", fmt.Sprint(len(body))), []byte(body)
}

// The seed's 401 costs at most twice what json.Unmarshal of its body does, and
// eight allocations more. The guard is wider than that, for busy machines: the
// log has the ratio.
func TestClassifyCostOfASmallBody(t *testing.T) {
	resp, body := wordsSeed()
	rej := wordsClassify(resp, body)
	require.Equal(t, reauth.ReasonInvalidToken, rej.Reason)
	require.Equal(t, classifyID, rej.RequestID)
	classify := func() { wordsClassify(resp, body) }
	unmarshal := func() {
		var v any
		_ = json.Unmarshal(body, &v)
	}
	allocs, base := testing.AllocsPerRun(200, classify), testing.AllocsPerRun(200, unmarshal)
	t.Logf("allocations: classify %.0f, json.Unmarshal %.0f", allocs, base)
	assert.LessOrEqual(t, allocs, base+8)
	if raceEnabled {
		return // it slows the one down and not the other
	}
	// Side by side, so that both are held up alike.
	least := [2]time.Duration{time.Hour, time.Hour}
	for range 300 {
		for i, f := range []func(){classify, unmarshal} {
			began := time.Now()
			for range 20 {
				f()
			}
			least[i] = min(least[i], time.Since(began)/20)
		}
	}
	ratio := float64(least[0]) / float64(least[1])
	t.Logf("time: classify %v, json.Unmarshal %v, %.2f times as long", least[0], least[1], ratio)
	assert.Less(t, ratio, 3.0)
}

// 64 KiB, whatever they hold, cost less than nine times what json.Unmarshal
// takes for as much: they are not read over and over.
func TestClassifyCostOfALargeBody(t *testing.T) {
	resp, _ := wordsSeed()
	large := wordsLarge()
	// Long enough to be held up like what is measured.
	ten := func() time.Duration {
		began := time.Now()
		for range 10 {
			var v any
			_ = json.Unmarshal(large["JSON"], &v)
		}
		return time.Since(began)
	}
	least := ten()
	for range 9 {
		least = min(least, ten())
	}
	slowest, name := 0.0, ""
	rows := []map[string][]byte{large, wordsEasilyMisread()}
	if raceEnabled {
		rows = rows[:1]
	}
	for _, bodies := range rows {
		for what, body := range bodies {
			body = body[:min(len(body), 64<<10)]
			best := 1e9 // of several rounds, as the machine may be busy
			for range 30 {
				began := time.Now()
				wordsClassify(resp, body)
				took := time.Since(began)
				if best = min(best, float64(took)/float64(least)); best < 0.9 {
					break
				}
				best = min(best, float64(took)/float64(ten()))
			}
			assert.Less(t, best, 0.9, "64 KiB of %s", what)
			if best > slowest {
				slowest, name = best, what
			}
		}
	}
	t.Logf("json.Unmarshal %v, slowest %.1f times as long (%s)", least/10, 10*slowest, name)
}

// BenchmarkClassify has the Classifier in a row with what else could be done
// with the same bytes.
func BenchmarkClassify(b *testing.B) {
	row := func(name string, body []byte, f func()) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
	resp, seed := wordsSeed()
	bodies := wordsLarge()
	bodies["seed"] = seed
	for _, name := range []string{"seed", "JSON", "HTML", "text"} {
		body := bodies[name]
		row(name+"/scan", body, func() { wordsScan(body) })
		if name == "seed" || name == "JSON" {
			row(name+"/unmarshal", body, func() {
				var v any
				_ = json.Unmarshal(body, &v)
			})
		}
		row(name+"/reauth", body, func() { wordsClassify(resp, body) })
	}
}

// Each of these says that the token is no longer valid, or leaves it open.
func TestClassifyRefreshable(t *testing.T) {
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

// A fresh token cures none of these, and none of them is touched.
func TestClassifyNotRefreshable(t *testing.T) {
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

// A caller that knows the API may say so.
func TestClassifierDecides(t *testing.T) {
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

// A 407 is the proxy's, and about another credential: it never refreshes,
// whatever a Classifier that goes by the hundreds may say.
func TestClassifyProxyAuthenticationRequired(t *testing.T) {
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

func TestClassifyOtherScheme(t *testing.T) {
	for _, tt := range []classifyCase{
		{"Basic", 401, wordsChallenge(`Basic realm="x"`), "", reauth.ReasonOtherScheme},
		{"Basic, in words that say nothing", 401, wordsChallenge(`Basic realm="x"`), `{"error":"Unauthorized"}`, reauth.ReasonOtherScheme},
		{"Basic, and no token was seen", 401, wordsChallenge(`Basic realm="OpenAI API"`), `{"error":{"message":"You didn't provide an API key."}}`, reauth.ReasonOtherScheme},
		{"Basic, on a page", 401, wordsChallenge(`Basic realm="x"`), `<html><head><title>401 Authorization Required</title></head></html>`, reauth.ReasonOtherScheme},
		{"Digest", 401, wordsChallenge(`Digest realm="x", nonce="abc", qop="auth"`), "", reauth.ReasonOtherScheme},
		{"Negotiate and NTLM", 401, wordsChallenge("Negotiate", "NTLM"), "", reauth.ReasonOtherScheme},
		{"Kerberos by token68", 401, wordsChallenge("Negotiate oYG2MIGz=="), "", reauth.ReasonOtherScheme},
		{"HTTP signatures", 401, wordsChallenge(`Signature realm="x", headers="(request-target) date"`), "", reauth.ReasonOtherScheme},
		{"AWS signatures", 401, wordsChallenge("AWS4-HMAC-SHA256"), "", reauth.ReasonOtherScheme},
		{"lower case", 401, wordsChallenge(`basic realm=x, digest nonce=y`), "", reauth.ReasonOtherScheme},
		{"Bearer in a realm is none", 401, wordsChallenge(`Basic realm="Bearer error=\"invalid_token\""`), "", reauth.ReasonOtherScheme},

		{"InfluxDB offers Basic, and its token expired", 401, wordsChallenge(`Basic realm="InfluxDB"`), `{"error":"token is expired"}`, reauth.ReasonExpired},
		{"Basic, and the key was revoked", 401, wordsChallenge(`Basic realm="x"`), `{"message":"This API key has been revoked"}`, reauth.ReasonRevoked},
		{"Basic, and the token is invalid", 401, wordsChallenge(`Basic realm="x"`), "无效的令牌", reauth.ReasonInvalidToken},
		{"gin-jwt offers JWT", 401, wordsChallenge("JWT realm=test zone"), `{"code":401,"message":"Token is expired"}`, reauth.ReasonExpired},
		{"gin-jwt says nothing", 401, wordsChallenge("JWT realm=test zone"), "", reauth.ReasonUnspecified},
		{"tymon/jwt-auth", 401, wordsChallenge("jwt-auth"), `{"message":"Token has expired"}`, reauth.ReasonExpired},
		{"Bearer beside Basic", 401, wordsChallenge(`Basic realm="x", Bearer realm="x"`), "", reauth.ReasonUnspecified},
		{"Bearer behind Basic", 401, wordsChallenge(`Basic realm="x"`, `Negotiate`, `Bearer`), "", reauth.ReasonUnspecified},
		{"no challenge at all", 401, nil, "", reauth.ReasonUnspecified},
		{"a challenge that is none", 401, wordsChallenge(`, ,"`), "", reauth.ReasonUnspecified},
	} {
		t.Run(tt.name, func(t *testing.T) { wordsSent(t, tt) })
	}
}

func TestClassifyStepUp(t *testing.T) {
	const stepUp = `Bearer error="insufficient_user_authentication", error_description="A different authentication level is required", acr_values="myACR", max_age="5"`
	for _, tt := range []classifyCase{
		{"RFC 9470", 401, wordsChallenge(stepUp), "", reauth.ReasonStepUp},
		{"beside another scheme", 401, wordsChallenge(`Basic realm=x`, stepUp), "", reauth.ReasonStepUp},
		{"over an invalid token", 401, wordsChallenge(stepUp), `{"error":"invalid_token","error_description":"The access token expired"}`, reauth.ReasonStepUp},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rej := wordsSent(t, tt)
			if assert.NotEmpty(t, rej.Challenges) {
				c := rej.Challenges[len(rej.Challenges)-1]
				assert.Equal(t, "myACR", c.Params["acr_values"], "the caller needs it to log in")
				assert.Equal(t, "5", c.Params["max_age"])
			}
		})
	}
	const cae = `Bearer realm="", authorization_uri="https://login.example.com/", error="insufficient_claims", claims="eyJhIjp7fX0="`
	for _, tt := range []classifyCase{
		{"CAE", 401, wordsChallenge(cae), "", reauth.ReasonClaims},
		{"CAE, beside another scheme", 401, wordsChallenge(`Basic realm=x`, cae), "", reauth.ReasonClaims},
		{"CAE, and interaction is required", 401, wordsChallenge(cae), `{"error":{"code":"InvalidAuthenticationToken","message":"Continuous access evaluation resulted in challenge with result: InteractionRequired"}}`, reauth.ReasonClaims},
	} {
		t.Run(tt.name, func(t *testing.T) {
			was := wordsSent(t, tt)
			if assert.NotEmpty(t, was.Challenges, "the Refresher needs them") {
				assert.Equal(t, "eyJhIjp7fX0=", was.Challenges[len(was.Challenges)-1].Params["claims"])
			}
		})
	}
}

func TestClassifyDPoPNonce(t *testing.T) {
	for _, tt := range []classifyCase{
		{"RFC 9449", 401, append(wordsChallenge(`DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof"`), "DPoP-Nonce", "eyJ7S_zG"), "", reauth.ReasonDPoPNonce},
		{"Bearer offered too", 401, wordsChallenge(`DPoP error="use_dpop_nonce", Bearer realm="x"`), "", reauth.ReasonDPoPNonce},
		{"Bearer offered too, and refused", 401, wordsChallenge(`Bearer error="invalid_token"`, `DPoP error="use_dpop_nonce"`), "", reauth.ReasonDPoPNonce},
		{"in the body", 401, wordsChallenge(`DPoP algs="ES256"`), `{"error":"use_dpop_nonce"}`, reauth.ReasonDPoPNonce},
		{"in upper case", 401, wordsChallenge(`DPOP ERROR="USE_DPOP_NONCE"`), "", reauth.ReasonDPoPNonce},
		{"a token endpoint's 400", 400, nil, `{"error":"use_dpop_nonce"}`, ""},
		{"DPoP, and the token is dead", 401, wordsChallenge(`DPoP error="invalid_token", error_description="Access token expired"`), "", reauth.ReasonExpired},
	} {
		t.Run(tt.name, func(t *testing.T) { wordsSent(t, tt) })
	}
}

// The word token, where it is not about the request's.
func TestClassifyWordTokenElsewhere(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		reason     reauth.Reason // on a 401
	}{
		{"Rails", `{"status":401,"error":"Invalid authenticity token"}`, reauth.ReasonCSRF},
		{"CSRF", `{"error":"CSRF token missing or incorrect"}`, reauth.ReasonCSRF},
		{"CSRF as a code", `{"code":"INVALID_CSRF_TOKEN","message":"The token is invalid"}`, reauth.ReasonCSRF},
		{"XSRF in camel case", `{"code":"invalidXsrfToken"}`, reauth.ReasonCSRF},
		{"CSRF on a page", `<html><body><h1>Forbidden</h1><p>CSRF verification failed. The token is missing or invalid.</p></body></html>`, reauth.ReasonCSRF},
		{"max_tokens", `{"error":{"message":"max_tokens is too large: 9999. The limit is invalid","param":"max_tokens"}}`, reauth.ReasonQuota},
		{"tokens per minute", `{"error":{"message":"Rate limit reached on tokens per min (TPM): Limit 10000, Used 9999. Invalid request"}}`, reauth.ReasonQuota},
		{"tokens per minute in full", `Limit exceeded: 30000 input tokens per minute`, reauth.ReasonQuota},
		{"a parser", `{"error":"Unexpected token < in JSON at position 0: invalid"}`, reauth.ReasonOther},
		{"a parser's class", `SyntaxError: Unexpected token } in JSON`, reauth.ReasonOther},
		{"a mail's link", `{"message":"This reset token has expired"}`, reauth.ReasonOther},
		{"an invitation", `{"message":"Invalid invitation token"}`, reauth.ReasonOther},
		{"a phone", `{"error":"Invalid device token"}`, reauth.ReasonOther},
		{"a captcha", `{"error":"invalid captcha token"}`, reauth.ReasonOther},
		{"a password", `{"message":"Invalid username or password"}`, reauth.ReasonOtherScheme},
		{"a verification code", `{"code":401,"msg":"验证码已过期"}`, reauth.ReasonStepUp},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wordsSent(t, classifyCase{status: 401, body: tt.body, reason: tt.reason})
			assert.False(t, tt.reason.Refreshable())
			wordsSent(t, classifyCase{status: 400, body: tt.body})
			wordsSent(t, classifyCase{status: 429, body: tt.body})
		})
	}
}

// What another status says of tokens is for Classifiers that one opts into.
func TestClassifyOtherStatuses(t *testing.T) {
	for _, body := range []string{"invalid token", `{"error":"invalid_token","error_description":"The access token expired"}`, "无效的令牌", `<Error><Code>ExpiredToken</Code></Error>`} {
		for _, status := range []int{200, 201, 204, 206, 302, 400, 402, 403, 404, 407, 409, 419, 422, 429, 440, 498, 499, 500, 502, 503, 511, 600} {
			t.Run(fmt.Sprint(status, " ", body), func(t *testing.T) {
				wordsSent(t, classifyCase{status: status, body: body})
				wordsSent(t, classifyCase{status: status, body: body, header: wordsChallenge(`Bearer error="invalid_token"`)})
			})
		}
	}
	for _, status := range []int{0, -1, 101, 200, 400, 403, 500} {
		assert.Zero(t, reauth.DefaultClassifier().Classify(wordsResponse(status, "", wordsChallenge(`Bearer error="invalid_token"`)...), func() []byte {
			t.Errorf("the body of a %d was read", status)
			return nil
		}))
	}
}

// A refusal that gives the token as its cause is about the token.
func TestClassifyRefusalWithACause(t *testing.T) {
	for _, tt := range []classifyCase{
		{body: "Forbidden: invalid token", reason: reauth.ReasonInvalidToken},
		{body: `{"message":"Permission denied: invalid API key"}`, reason: reauth.ReasonInvalidToken},
		{body: `{"message":"You are not allowed to access this resource: token expired"}`, reason: reauth.ReasonExpired},
		{body: "Access denied. Invalid token.", reason: reauth.ReasonInvalidToken},
		{body: "Access denied. No token provided.", reason: reauth.ReasonMissing},
		{body: `{"message":"Permission denied"}`, reason: reauth.ReasonDenied},
		{body: `{"message":"This key is not allowed here"}`, reason: reauth.ReasonDenied},
	} {
		tt.status = http.StatusUnauthorized
		t.Run(tt.body, func(t *testing.T) { wordsSent(t, tt) })
	}
}

// Precedence: a reason that a refresh does not resolve outranks a statement that the
// token is no longer valid. Without that statement the reason is the same.
func TestClassifyNotRefreshableOutranks(t *testing.T) {
	for _, c := range wordsNotRefreshable {
		ways := map[string]struct {
			body   string
			header []string
		}{
			"prose alone":                 {`{"message":"` + c.prose + `"}`, nil},
			"prose alone, as text":        {c.prose, nil},
			"prose of a problem":          {`{"type":"about:blank","title":"Unauthorized","status":401,"detail":"` + c.prose + `"}`, []string{"Content-Type", "application/problem+json"}},
			"prose behind invalid token":  {`{"message":"Invalid token. ` + c.prose + `."}`, nil},
			"prose before invalid token":  {`{"message":"` + c.prose + `. Invalid token."}`, nil},
			"prose beside a code":         {`{"error":{"code":"invalid_token","message":"` + c.prose + `"}}`, nil},
			"prose in the description":    {`{"error":"invalid_token","error_description":"` + c.prose + `"}`, nil},
			"prose beside missing":        {`{"code":"missing_token","detail":"` + c.prose + `"}`, nil},
			"prose beside 无效的令牌":          {`{"errors":[{"message":"无效的令牌"},{"message":"` + c.prose + `"}]}`, nil},
			"prose under a challenge":     {`{"message":"` + c.prose + `"}`, wordsChallenge(`Bearer error="invalid_token"`)},
			"prose under a bare one":      {`{"message":"` + c.prose + `"}`, wordsChallenge(`Bearer realm="api"`)},
			"prose in XML":                {`<?xml version="1.0"?><Error><Code>InvalidToken</Code><Message>` + c.prose + `</Message></Error>`, nil},
			"prose on a page":             {`<html><body><h1>401 Unauthorized</h1><p>` + c.prose + `</p></body></html>`, nil},
			"prose behind 2 KiB of words": {`{"message":"` + strings.Repeat("Something happened. ", 100) + c.prose + `"}`, nil},
		}
		if c.reason != reauth.ReasonUpstream { // its code is that of a bad key: the links tell
			ways["code alone"] = struct {
				body   string
				header []string
			}{`{"code":"` + c.code + `"}`, nil}
			ways["code beside prose"] = struct {
				body   string
				header []string
			}{`{"error":{"code":"` + c.code + `","message":"Invalid token"}}`, nil}
			ways["code under a challenge"] = struct {
				body   string
				header []string
			}{`{"error":"` + c.code + `"}`, wordsChallenge(`Bearer error="invalid_token"`)}
			ways["description of a challenge"] = struct {
				body   string
				header []string
			}{"", wordsChallenge(`Bearer error="invalid_token", error_description="` + c.prose + `"`)}
		}
		for way, w := range ways {
			rej := wordsRejection(w.body, w.header...)
			assert.Equal(t, c.reason, rej.Reason, "%s: %s %s", way, w.header, w.body)
			assert.False(t, rej.Reason.Refreshable())
		}
	}
}

// Order of authority: the specific over the generic, in either order and place.
func TestClassifySpecificOutranksGeneric(t *testing.T) {
	specific := map[string]reauth.Reason{
		"The access token expired": reauth.ReasonExpired, "令牌已过期": reauth.ReasonExpired, "token_expired": reauth.ReasonExpired,
		"This API key was revoked": reauth.ReasonRevoked, "该令牌状态不可用": reauth.ReasonRevoked, "TOKEN_REVOKED": reauth.ReasonRevoked,
	}
	generic := []string{"Invalid token", "invalid_token", "无效的令牌", "Unauthorized", "missing_token", "Authentication failed"}
	for s, want := range specific {
		for _, g := range generic {
			for _, body := range []string{
				`{"error":"` + s + `","message":"` + g + `"}`, `{"error":"` + g + `","message":"` + s + `"}`,
				`[{"code":"` + g + `"},{"code":"` + s + `"}]`, `{"message":"` + g + `. ` + s + `"}`, g + "\n" + s + "\n",
			} {
				assert.Equal(t, want, wordsRejection(body).Reason, body)
			}
			assert.Equal(t, want, wordsRejection(`{"message":"`+s+`"}`, wordsChallenge(`Bearer error="invalid_token"`)...).Reason)
		}
	}
	for _, g := range []string{"Invalid token", "无效的令牌", "invalid_token"} { // over what says less
		for _, less := range []string{"Unauthorized", "missing_token", "No token provided"} {
			assert.Equal(t, reauth.ReasonInvalidToken, wordsRejection(`{"error":"`+less+`","message":"`+g+`"}`).Reason, "%s, %s", less, g)
		}
	}
}

// The words, in the languages that servers speak.
func TestClassifyLanguages(t *testing.T) {
	for prose, want := range map[string]reauth.Reason{
		// English
		"The access token expired": reauth.ReasonExpired, "Token is expired": reauth.ReasonExpired, "jwt expired": reauth.ReasonExpired,
		"Your session has expired. Please log in again.": reauth.ReasonExpired, "Credentials are no longer valid": reauth.ReasonExpired,
		"invalid token": reauth.ReasonInvalidToken, "The token isn't valid": reauth.ReasonInvalidToken, "Malformed JWT": reauth.ReasonInvalidToken,
		"Incorrect API key provided": reauth.ReasonInvalidToken, "Bad credentials": reauth.ReasonInvalidToken, "API key not found": reauth.ReasonInvalidToken,
		"signature is invalid": reauth.ReasonInvalidToken, "Invalid signature of the token": reauth.ReasonInvalidToken,
		"Token has been revoked": reauth.ReasonRevoked, "The API key is disabled": reauth.ReasonRevoked, "This access token was deleted": reauth.ReasonRevoked,
		"No token provided": reauth.ReasonMissing, "Missing bearer token": reauth.ReasonMissing, "You didn't provide an API key": reauth.ReasonMissing,
		"Unauthorized": reauth.ReasonUnspecified, "Authentication failed": reauth.ReasonUnspecified,
		// Chinese, simplified
		"无效的令牌": reauth.ReasonInvalidToken, "令牌无效": reauth.ReasonInvalidToken, "token无效": reauth.ReasonInvalidToken, "密钥错误": reauth.ReasonInvalidToken, "不合法的access_token": reauth.ReasonInvalidToken,
		"该令牌已过期": reauth.ReasonExpired, "登录状态已失效": reauth.ReasonExpired, "access_token已过期": reauth.ReasonExpired,
		"令牌已被吊销": reauth.ReasonRevoked, "该令牌状态不可用": reauth.ReasonRevoked, "密钥已被删除": reauth.ReasonRevoked,
		"未提供令牌": reauth.ReasonMissing, "缺少token": reauth.ReasonMissing,
		"该令牌额度已用尽": reauth.ReasonQuota, "余额不足，请充值": reauth.ReasonQuota, "账号已被封禁": reauth.ReasonDenied, "签名错误": reauth.ReasonRequestSignature,
		// Chinese, traditional
		"無效的令牌": reauth.ReasonInvalidToken, "憑證無效": reauth.ReasonInvalidToken, "權杖已過期": reauth.ReasonExpired, "令牌已過期": reauth.ReasonExpired,
		"金鑰已撤銷": reauth.ReasonRevoked, "該令牌額度已用盡": reauth.ReasonQuota, "餘額不足": reauth.ReasonQuota, "帳號已凍結": reauth.ReasonDenied,
		// Japanese
		"アクセストークンの有効期限が切れています。": reauth.ReasonExpired, "トークンが期限切れです": reauth.ReasonExpired, "無効なトークンです": reauth.ReasonInvalidToken,
		"トークンが取り消されました": reauth.ReasonRevoked,
		// Korean
		"토큰이 만료되었습니다.": reauth.ReasonExpired, "유효하지 않은 토큰입니다.": reauth.ReasonInvalidToken, "잘못된 토큰": reauth.ReasonInvalidToken,
		// German
		"Das Zugriffstoken ist abgelaufen.": reauth.ReasonExpired, "Ungültiges Token": reauth.ReasonInvalidToken, "Das Token wurde widerrufen": reauth.ReasonRevoked, "Token fehlt": reauth.ReasonMissing,
		// French
		"Le jeton a expiré": reauth.ReasonExpired, "Jeton d'accès invalide": reauth.ReasonInvalidToken, "Clé API invalide": reauth.ReasonInvalidToken, "Le jeton a été révoqué": reauth.ReasonRevoked,
		// Spanish
		"El token ha expirado": reauth.ReasonExpired, "Token inválido": reauth.ReasonInvalidToken, "El token no es válido": reauth.ReasonInvalidToken, "La clave ha caducado": reauth.ReasonExpired, "El token ha sido revocado": reauth.ReasonRevoked,
		// Portuguese
		"O token expirou": reauth.ReasonExpired, "Token expirado": reauth.ReasonExpired, "Chave inválida": reauth.ReasonInvalidToken, "O token foi revogado": reauth.ReasonRevoked,
		// Russian
		"Срок действия токена истек": reauth.ReasonExpired, "Срок действия токена истёк": reauth.ReasonExpired, "Недействительный токен": reauth.ReasonInvalidToken, "Неверный токен": reauth.ReasonInvalidToken, "Токен отозван": reauth.ReasonRevoked,
	} {
		assert.Equal(t, want, wordsRejection(prose).Reason, prose)
		assert.Equal(t, want, wordsRejection(`{"code":401,"message":"`+prose+`"}`).Reason, "in JSON: %s", prose)
		if !strings.Contains(prose, "'") {
			assert.Equal(t, want, wordsRejection("\uFEFF<error><message>"+prose+"</message></error>").Reason, "in XML: %s", prose)
		}
		assert.Equal(t, want, wordsRejection(strings.ToUpper(prose)).Reason, "shouted: %s", prose)
	}
}

// And the shapes of bodies: each says that the token expired, gives its id
// where it has one, and the words where it has words.
func TestClassifyFormsOfBodies(t *testing.T) {
	const id = "20260219100814161456584b503l5fK"
	seed := classifyGateway("该令牌已过期")
	far := strings.Repeat(`{"field":"x","value":[1,2.5,true,null]},`, 1500)
	for _, tt := range []struct {
		name, body string
		header     []string
		want       reauth.Rejection
	}{
		{"an error as a string", `{"error":"token_expired"}`, nil, reauth.Rejection{Code: "token_expired", Message: "token_expired"}},
		{"an error as an object", `{"error":{"code":"token_expired","message":"Token expired","requestId":"r-1"}}`, nil, reauth.Rejection{Code: "token_expired", Message: "Token expired", RequestID: "r-1"}},
		{"OAuth", `{"error":"invalid_token","error_description":"The access token expired"}`, nil, reauth.Rejection{Code: "invalid_token", Message: "The access token expired"}},
		{"errors", `{"errors":[{"status":"401","code":"EXPIRED_TOKEN","title":"Unauthorized","detail":"The token has expired"}]}`, nil, reauth.Rejection{Code: "EXPIRED_TOKEN", Message: "The token has expired"}},
		{"errors as strings", `{"errors":["Token has expired"]}`, nil, reauth.Rejection{Message: "Token has expired"}},
		{"errors by field", `{"errors":{"token":["has expired","token expired"]}}`, nil, reauth.Rejection{Message: "has expired"}},
		{"an array", `[{"errorCode":"SESSION_EXPIRED","message":"Session expired"}]`, nil, reauth.Rejection{Code: "SESSION_EXPIRED", Message: "Session expired"}},
		{"a bare string", `"Token expired"`, nil, reauth.Rejection{Message: "Token expired"}},
		{"details", `{"error":{"code":401,"status":"UNAUTHENTICATED","message":"Request failed","details":[{"@type":"type.example.com/ErrorInfo","reason":"ACCESS_TOKEN_EXPIRED"}]}}`, nil, reauth.Rejection{Code: "ACCESS_TOKEN_EXPIRED", Message: "Request failed"}},
		{"errcode", `{"errcode":42001,"errmsg":"access_token expired","request_id":77}`, nil, reauth.Rejection{Code: "42001", Message: "access_token expired", RequestID: "77"}},
		{"msg", `{"success":false,"msg":"令牌已过期"}`, nil, reauth.Rejection{Message: "令牌已过期"}},
		{"nested", `{"data":{"response":{"errors":[{"extensions":{"code":"TOKEN_EXPIRED"}}]}}}`, nil, reauth.Rejection{Code: "TOKEN_EXPIRED"}},
		{"JSON in a string", `{"message":"{\"error\":{\"code\":\"token_expired\",\"message\":\"Token expired\"}}"}`, nil, reauth.Rejection{Code: "token_expired", Message: "Token expired"}},
		{"JSON in a string, with blanks", `{"message":" {\"code\": \"token_expired\"}"}`, nil, reauth.Rejection{Message: `{"code": "token_expired"}`}},
		{"an array in a string", `{"message":"[{\"code\":\"token_expired\"}]"}`, nil, reauth.Rejection{Code: "token_expired"}},
		{"a problem", `{"type":"https://example.com/problems/expired","title":"Unauthorized","status":401,"detail":"The token has expired","instance":"/v1/things"}`, []string{"Content-Type", "application/problem+json"}, reauth.Rejection{Code: "https://example.com/problems/expired", Message: "The token has expired"}},
		{"XML", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>", []string{"Content-Type", "application/xml"}, reauth.Rejection{Code: "ExpiredToken", Message: "The provided token has expired.", RequestID: "4442587FB7D0A2F9"}},
		{"XML with namespaces", `<s:Fault xmlns:s="x"><s:code>Session.Expired</s:code><s:message>Session &quot;a&quot; expired</s:message></s:Fault>`, nil, reauth.Rejection{Code: "Session.Expired", Message: `Session "a" expired`}},
		{"HTML", "<!DOCTYPE html>\n<html><head><title>401</title><style>p{color:red}</style><script>var x = 'invalid audience';</script></head><body><!-- quota --><h1>Unauthorized</h1><p>Token &quot;a&quot; expired</p></body></html>", []string{"Content-Type", "text/html"}, reauth.Rejection{Message: `Token "a" expired`}},
		{"plain text", "Token expired (request id: " + id + ")\n", []string{"Content-Type", "text/plain"}, reauth.Rejection{Message: "Token expired (request id: " + id + ")", RequestID: id}},
		{"Python's words", `Error code: 401 - {'error': {'code': '', 'message': '该令牌已过期 (request id: ` + id + `)', 'type': 'new_api_error'}}`, nil, reauth.Rejection{Message: `Error code: 401 - {'error': {'code': '', 'message': '该令牌已过期 (request id: ` + id + `)', 'type': 'new_api_error'}}`, RequestID: id}},
		{"ndjson", "{\"status\":\"error\"}\n{\"error\":{\"code\":\"token_expired\",\"message\":\"Token expired\"}}\n", []string{"Content-Type", "application/x-ndjson"}, reauth.Rejection{Code: "token_expired", Message: "Token expired"}},
		{"SSE", "event: error\ndata: {\"error\":{\"code\":\"token_expired\",\"message\":\"Token expired\",\"request_id\":\"r-2\"}}\n\n", []string{"Content-Type", "text/event-stream"}, reauth.Rejection{Code: "token_expired", Message: "Token expired", RequestID: "r-2"}},
		{"SSE with CRLF", "data: {\"code\":\"token_expired\"}\r\n\r\ndata: [DONE]\r\n\r\n", nil, reauth.Rejection{Code: "token_expired"}},
		{"SSE, a comment first", ": ping\n\ndata: {\"code\":\"token_expired\"}\n\n", []string{"Content-Type", "text/event-stream; charset=utf-8"}, reauth.Rejection{Code: "token_expired"}},
		{"the seed", seed, []string{"Content-Type", "application/json; charset=utf-8"}, reauth.Rejection{Code: "new_api_error", Message: "该令牌已过期 (request id: " + classifyID + ")", RequestID: classifyID}},
		{"a BOM", "\uFEFF" + seed, nil, reauth.Rejection{Code: "new_api_error", Message: "该令牌已过期 (request id: " + classifyID + ")", RequestID: classifyID}},
		{"white space", "\r\n\t " + seed, nil, reauth.Rejection{Code: "new_api_error", Message: "该令牌已过期 (request id: " + classifyID + ")", RequestID: classifyID}},
		{"gzip", wordsZip(seed), []string{"Content-Encoding", "gzip"}, reauth.Rejection{Code: "new_api_error", Message: "该令牌已过期 (request id: " + classifyID + ")", RequestID: classifyID}},
		{"gzip and a BOM", wordsZip("\uFEFF" + seed), []string{"Content-Encoding", "GZIP"}, reauth.Rejection{Code: "new_api_error", Message: "该令牌已过期 (request id: " + classifyID + ")", RequestID: classifyID}},
		{"x-gzip", wordsZip(seed), []string{"Content-Encoding", "x-gzip"}, reauth.Rejection{Code: "new_api_error", Message: "该令牌已过期 (request id: " + classifyID + ")", RequestID: classifyID}},
		{"gzip, cut off", wordsZip(`{"code":"token_expired","more":[` + far)[:200], []string{"Content-Encoding", "gzip"}, reauth.Rejection{Code: "token_expired"}},
		{"escapes", `{"message":"\u4ee4\u724c\u5df2\u8fc7\u671f\n\"x\" \\ \/"}`, nil, reauth.Rejection{Message: `令牌已过期 "x" \ /`}},
		{"JSON cut off at 64 KiB", `{"code":"token_expired","message":"Token expired","more":[` + far + far, nil, reauth.Rejection{Code: "token_expired", Message: "Token expired"}},
		{"JSON cut off in a string", `{"code":"token_expired","message":"Token ex`, nil, reauth.Rejection{Code: "token_expired", Message: "Token ex"}},
		{"JSON cut off in an escape", `{"code":"token_expired","x":"\`, nil, reauth.Rejection{Code: "token_expired"}},
		{"JSON cut off in a key", `{"code":"token_expired","x`, nil, reauth.Rejection{Code: "token_expired"}},
		{"after 60 KiB", `{"more":[` + far + `0],"code":"token_expired","message":"Token expired"}`, nil, reauth.Rejection{Code: "token_expired", Message: "Token expired"}},
		{"deep", strings.Repeat(`{"a":[`, 10000) + `{"code":"token_expired"}` + strings.Repeat("]}", 100), nil, reauth.Rejection{Code: "token_expired"}},
		{"behind what is deep", `{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `,"code":"token_expired"}`, nil, reauth.Rejection{Code: "token_expired"}},
		{"huge keys", `{"` + strings.Repeat("code", 5000) + `":"nothing","code":"token_expired"}`, nil, reauth.Rejection{Code: "token_expired"}},
		{"invalid UTF-8", "{\"message\":\"Token \xff\xfeexpired\",\"code\":\"token_expired\"}", nil, reauth.Rejection{Code: "token_expired", Message: "Token expired"}},
		{"NUL", "{\"message\":\"Token\x00expired\"}", nil, reauth.Rejection{Message: "Token expired"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Reason, tt.want.StatusCode = reauth.ReasonExpired, http.StatusUnauthorized
			assert.Equal(t, tt.want, wordsRejection(tt.body, tt.header...))
		})
	}
}

// What cannot be read says nothing, and does no harm.
func TestClassifyUnreadableBody(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		header     []string
	}{
		{"nothing", "", nil},
		{"white space", " \r\n\t ", nil},
		{"a BOM", "\uFEFF", nil},
		{"no gzip", `{"message":"quota"}`, []string{"Content-Encoding", "gzip"}},
		{"gzip without an end", wordsZip("quota")[:12], []string{"Content-Encoding", "gzip"}},
		{"another coding", "\x1b\x05quota", []string{"Content-Encoding", "br"}},
		{"null", "null", nil}, {"true", "true", nil}, {"a number", "401", nil}, {"brackets", "{}[]", nil},
		{"what is cut off at once", `{"`, nil}, {"a quote", `"`, nil}, {"a tag", `<`, nil}, {"a comment", `<!-- quota`, nil},
		{"binary", "\x00\x01\x02\xff\xfe", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rej := wordsRejection(tt.body, tt.header...)
			assert.Equal(t, reauth.ReasonUnspecified, rej.Reason)
			wordsSent(t, classifyCase{status: 401, header: tt.header, body: tt.body, reason: reauth.ReasonUnspecified})
		})
	}
}

// Keys that give an address, a hint or a trace are not about the token.
func TestClassifyDocumentation(t *testing.T) {
	for _, more := range []string{
		`"documentation_url":"https://example.com/quota-exceeded"`, `"help":"See scopes and quotas"`, `"path":"/v1/billing/quota"`,
		`"instance":"/accounts/disabled"`, `"links":{"about":"https://example.com/csrf"}`, `"hint":"Check the audience"`, `"stack":"at quota.go:12"`, `"timestamp":"2026-01-01T00:00:00Z"`,
	} {
		assert.Equal(t, reauth.ReasonExpired, wordsRejection(`{"message":"Token expired",`+more+`}`).Reason, more)
		assert.Equal(t, reauth.ReasonExpired, wordsRejection(`{`+more+`,"message":"Token expired"}`).Reason, more)
	}
	assert.Equal(t, reauth.ReasonInvalidToken, wordsRejection("Invalid API key. See https://example.com/account/quota?scope=mfa for more.").Reason)
}

// The id for the support desk, by what its name promises.
func TestRequestIDOfSeveral(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		header     []string
		want       string
	}{
		{"none", `{"message":"Invalid token"}`, nil, ""},
		{"new-api", "", []string{"X-Oneapi-Request-Id", classifyID}, classifyID},
		{"new-api, in both", classifyGateway("Invalid token"), []string{"X-Oneapi-Request-Id", classifyID}, classifyID},
		{"new-api, in the text", classifyGateway("Invalid token"), nil, classifyID},
		{"one-api, in the text", `{"error":{"message":"无效的令牌 (request id: 2026112219454019421305889986373)","type":"one_api_error"}}`, nil, "2026112219454019421305889986373"},
		{"a fork", `{"error":{"message":"无效的令牌（请求 ID：` + classifyID + `）"}}`, nil, classifyID},
		{"a fork, without a blank", `无效的令牌（请求ID：` + classifyID + `）。`, nil, classifyID},
		{"traditional", `{"message":"無效的令牌（請求 ID：` + classifyID + `）"}`, nil, classifyID},
		{"ASCII and full width", `无效的令牌(请求 id: ` + classifyID + `)`, nil, classifyID},
		{"on the line behind", "Access denied\nRequest ID:\n" + classifyID + "\n", nil, classifyID},
		{"on the line behind, CRLF", "Access denied\r\nRequest ID:\r\n  " + classifyID + "\r\nTime: 12:00", nil, classifyID},
		{"on a page", `<html><body><p>Unauthorized</p><p>Request ID: ` + classifyID + `</p></body></html>`, nil, classifyID},
		{"in quotes", `request_id: "abc-123"`, nil, "abc-123"},
		{"at the end of a sentence", `Bad key. Request-Id: abc-123.`, nil, "abc-123"},
		{"upper case", `{"message":"BAD KEY (REQUEST ID: abc-123)"}`, nil, "abc-123"},
		{"a number", `{"request_id":1234567890123}`, nil, "1234567890123"},
		{"a big number", `{"requestId":12345678901234567890123}`, nil, "12345678901234567890123"},
		{"camel case", `{"requestId":"r1"}`, nil, "r1"}, {"no case", `{"requestid":"r1"}`, nil, "r1"}, {"Pascal case", `{"RequestId":"r1"}`, nil, "r1"},
		{"log_id", `{"error":{"log_id":"l1"}}`, nil, "l1"}, {"fbtrace_id", `{"error":{"fbtrace_id":"f1"}}`, nil, "f1"},
		{"correlationId", `{"correlationId":"c1"}`, nil, "c1"}, {"trackingId", `{"trackingId":"t1"}`, nil, "t1"}, {"errorId", `{"errorId":"e1"}`, nil, "e1"}, {"trace_id", `{"trace_id":"t1"}`, nil, "t1"},
		{"XML", `<Error><RequestId>x1</RequestId></Error>`, nil, "x1"},
		{"null and empty", `{"request_id":null,"requestId":"","trace_id":"t1"}`, nil, "t1"},
		{"an empty header", `{"request_id":"r1"}`, []string{"X-Request-Id", " "}, "r1"},
		{"GitLab", "", []string{"X-Gitlab-Meta", `{"correlation_id":"01H","version":"1"}`, "CF-Ray", "abc-LHR"}, "01H"},

		{"a vendor's over the customary", "", []string{"X-Request-Id", "proxy", "X-Oneapi-Request-Id", "own"}, "own"},
		{"the customary over a proxy's", "", []string{"CF-Ray", "ray", "X-Request-Id", "own", "Traceparent", "00-1-2-01"}, "own"},
		{"a proxy's over a trace", "", []string{"Traceparent", "00-1-2-01", "CF-Ray", "ray"}, "ray"},
		{"a trace over nothing", "", []string{"Traceparent", "00-1-2-01"}, "00-1-2-01"},
		{"Graph's own over the client's", "", []string{"Client-Request-Id", "mine", "Request-Id", "own"}, "own"},
		{"Amazon's", "", []string{"X-Amz-Cf-Id", "edge", "X-Amzn-Requestid", "own", "X-Amzn-Trace-Id", "Root=1"}, "own"},
		{"the header's over a trace in the body", `{"trace_id":"t1"}`, []string{"X-Request-Id", "own"}, "own"},
		{"the body's over a proxy's", `{"request_id":"own"}`, []string{"CF-Ray", "ray", "Traceparent", "00-1-2-01"}, "own"},
		{"an error's own over a request's", `{"errorId":"own"}`, []string{"X-Request-Id", "r1"}, "own"},

		{"ANSI and line breaks", "", []string{"X-Request-Id", "\x1b[31mab\r\nc\x00d\x7f"}, "[31mab c d"},
		{"line breaks in the body", `{"request_id":"ab\r\nX-Evil: 1\u001b[0m\u202e"}`, nil, "ab X-Evil: 1 [0m"},
		{"128 of 10 KiB", "", []string{"X-Request-Id", strings.Repeat("x", 10<<10)}, strings.Repeat("x", 127) + "…"},
		{"128 of 10 KiB, in the body", `{"request_id":"` + strings.Repeat("请", 10<<10) + `"}`, nil, strings.Repeat("请", 127) + "…"},
		{"128 of 10 KiB, a number", `{"request_id":` + strings.Repeat("7", 10<<10) + `}`, nil, strings.Repeat("7", 127) + "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, wordsRejection(tt.body, tt.header...).RequestID, "of the Rejection")
			for _, status := range []int{401, 403, 500} {
				resp := wordsResponse(status, tt.body, tt.header...)
				assert.Equal(t, tt.want, reauth.RequestID(resp), "of a %d", status)
				assert.Equal(t, tt.want, reauth.RequestID(resp), "of a %d, asked twice", status)
				rest, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				assert.Equal(t, tt.body, string(rest), "of a %d: the body from its beginning", status)
				assert.NoError(t, resp.Body.Close())
			}
		})
	}
	assert.Empty(t, reauth.RequestID(nil))
	assert.Empty(t, reauth.RequestID(&http.Response{StatusCode: 500}), "no body")
	assert.Equal(t, "r1", reauth.RequestID(&http.Response{StatusCode: 500, Header: http.Header{"x-request-id": {"r1"}}}))
}

// Of a stream that works, nothing is read ahead.
func TestRequestIDOfAStream(t *testing.T) {
	resp := wordsResponse(200, "", "Content-Type", "text/event-stream", "X-Request-Id", "r1")
	resp.Body = io.NopCloser(wordsUnread{t})
	assert.Equal(t, "r1", reauth.RequestID(resp))
	resp = wordsResponse(200, "", "Content-Type", "application/octet-stream")
	resp.Body = io.NopCloser(wordsUnread{t})
	assert.Empty(t, reauth.RequestID(resp))
	// A 200 that holds an error in words is looked at.
	resp = wordsResponse(200, `{"code":0,"request_id":"r1"}`, "Content-Type", "application/json")
	assert.Equal(t, "r1", reauth.RequestID(resp))
}

// The server's words: its code, its message, of several the telling one, and
// fit for a log.
func TestClassifyTextsArePrintable(t *testing.T) {
	for _, tt := range []struct {
		name, body, code, message string
	}{
		{"a number as code", `{"errcode":40014,"errmsg":"invalid access token"}`, "40014", "invalid access token"},
		{"a big number as code", `{"code":99991663,"msg":"Invalid access token"}`, "99991663", "Invalid access token"},
		{"the status is no code", `{"code":401,"error":"invalid_token"}`, "invalid_token", "invalid_token"},
		{"the status as a string is no code", `{"code":"401","message":"Invalid token"}`, "", "Invalid token"},
		{"a code over a type", `{"error":{"type":"auth_error","code":"bad_key","message":"Bad key"}}`, "bad_key", "Bad key"},
		{"a type if there is no code", `{"error":{"type":"auth_error","code":"","message":"Bad key"}}`, "auth_error", "Bad key"},
		{"a message over a title", `{"title":"Not so good","detail":"Bad key"}`, "", "Bad key"},
		{"a description over an error", `{"error":"Bad key","error_description":"The key is bad"}`, "", "The key is bad"},
		{"line breaks and ANSI", `{"code":"a\u001b[1mb","message":"Bad\r\nkey\u001b[31m \u0000\u007f\u202e!"}`, "a [1mb", "Bad key [31m !"},
		{"bounded", `{"code":"` + strings.Repeat("c", 10<<10) + `","message":"` + strings.Repeat("m ", 10<<10) + `"}`, strings.Repeat("c", 199) + "…", strings.TrimSuffix(strings.Repeat("m ", 250), " ") + "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rej := wordsRejection(tt.body)
			assert.Equal(t, tt.code, rej.Code)
			assert.Equal(t, tt.message, rej.Message)
		})
	}
	// Some servers echo the key.
	for _, body := range []string{
		`{"error":{"code":"invalid_api_key","message":"Incorrect API key provided: sk-proj-abcdefghijklmnop1234"}}`,
		`{"message":"Invalid token: eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"}`,
		`{"message":"Invalid Authorization: Bearer sk-proj-abcdefghijklmnop1234"}`,
	} {
		rej := wordsSent(t, classifyCase{status: 401, body: body, reason: reauth.ReasonInvalidToken})
		assert.NotContains(t, rej.Message, "abcdefghijkl")
		assert.NotContains(t, rej.Message, "c2lnbmF0")
		assert.Contains(t, rej.Message, "[redacted]")
	}
}

func FuzzDefaultClassifier(f *testing.F) {
	for _, r := range corpus(f, "responses.jsonl") {
		resp, body := r.response(f)
		var challenge string
		for k, vv := range r.Headers {
			if strings.EqualFold(k, "WWW-Authenticate") {
				challenge = strings.Join(vv, "\n")
			}
		}
		f.Add(challenge, resp.Header.Get("Content-Type"), resp.Header.Get("Content-Encoding"), "X-Request-Id", resp.Header.Get("X-Request-Id"), body)
	}
	for _, body := range []string{
		classifyGateway("无效的令牌"), `"{\"a\":\"{\\\"b\\\":1}\"}`, "data: {\ndata:\n", "<a><!--", "<script>", strings.Repeat("[", 100), `{"a":"\ud800"}`, "请求 ID：", "request id:", "1" + strings.Repeat("0", 300),
	} {
		f.Add("Bearer", "", "", "X-Gitlab-Meta", `{"correlation_id":"\n"}`, []byte(body))
		f.Add("", "text/plain", "gzip", "Request-Id", "\x1b", []byte(wordsZip(body)))
	}
	f.Fuzz(func(t *testing.T, challenge, contentType, encoding, name, value string, body []byte) {
		header := []string{"Content-Type", contentType, "Content-Encoding", encoding, name, value}
		if challenge != "" {
			header = append(header, wordsChallenge(strings.Split(challenge, "\n")...)...)
		}
		before := wordsResponse(401, "", header...).Header
		resp := wordsResponse(401, string(body), header...)
		var rej reauth.Rejection
		ahead := body[:min(len(body), 64<<10)]
		// Not once too slow, but always: the machine may be busy.
		took := fastest(4, 100*time.Millisecond, func() {
			rej = reauth.DefaultClassifier().Classify(resp, func() []byte { return ahead })
		})
		assert.Less(t, took, 500*time.Millisecond)
		assert.NotEmpty(t, rej.Reason)
		assert.Equal(t, http.StatusUnauthorized, rej.StatusCode)
		assert.Equal(t, before, resp.Header, "the header was changed")
		for what, max := range map[string]int{rej.Code: 200, rej.Message: 500, rej.RequestID: 128} {
			assert.True(t, logPrintable(what), "%q", what)
			assert.LessOrEqual(t, utf8.RuneCountInString(what), max)
		}
		assert.Equal(t, rej, reauth.DefaultClassifier().Classify(resp, func() []byte { return ahead }), "not the same twice")
		id := reauth.RequestID(resp)
		if len(body) <= 64<<10 {
			assert.Equal(t, rej.RequestID, id, "the two ways to ask for it")
		}
		rest, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(body, rest), "the body was changed")
	})
}

// What a sentence mentions in passing is not what it is about.
func TestClassifyAside(t *testing.T) {
	for _, message := range []string{
		"Invalid API key. Visit your dashboard to manage keys and billing.",
		"The token was issued before the password change and is no longer valid",
		"The session for this user timed out",
		"用户未登录或登录已失效",
		"The authorization token has expired; request a new one with your client credentials",
		"Access token expired. Refresh it using your refresh token.",
	} {
		got := reauth.DefaultClassifier().Classify(&http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{}},
			func() []byte { return []byte(message) })
		assert.True(t, got.Reason.Refreshable(), "%s: %s", message, got.Reason)
	}
}

// The whole corpus, with its scores: rows whose bytes are sent for other causes
// too, and rows from memory, do not count.
func TestClassifyCorpus(t *testing.T) {
	var rows []corpusRow
	for _, name := range []string{"responses.jsonl", "responses2.jsonl", "servers.jsonl", "more.jsonl"} {
		rows = append(rows, corpus(t, name)...)
	}
	corpusScores(t, rows, 99.5, 5, 99)
}

// Rows that were collected last. Half of them were not looked at while the words were
// chosen: README.md has the scores of the time.
func TestClassifyCollected(t *testing.T) {
	corpusScores(t, corpus(t, "collected.jsonl"), 99.5, 15, 80)
}

// Eight libraries' words for a JWT that has expired, or is not theirs.
func TestClassifyJWTLibraries(t *testing.T) {
	for _, r := range corpusOf[struct{ Lib, C, Code, Message string }](t, "jwt-messages.jsonl") {
		quoted, err := json.Marshal(r.Message)
		require.NoError(t, err)
		for _, body := range []string{r.Message, "Unauthorized: " + r.Message, `{"message":` + string(quoted) + `}`, fmt.Sprintf(`{"code":%q,"message":%s}`, r.Code, quoted)} {
			rej := wordsRejection(body)
			if strings.Contains(r.C, "audience") {
				assert.Equal(t, reauth.ReasonAudience, rej.Reason, "%s: %s", r.Lib, body)
				continue
			}
			assert.True(t, rej.Reason.Refreshable(), "%s: %s %s", r.Lib, rej.Reason, body)
			assert.NotEqual(t, reauth.ReasonUnspecified, rej.Reason, "%s: %s", r.Lib, body)
		}
	}
}

func FuzzResponse(f *testing.F) {
	const held, fresh = "Kq7Zk2mVx9LrT4wNcQ8vB", "Wn1Lr8sXc5Bd6Ge0Yx7uP"
	for _, seed := range []struct {
		status int
		name   string
		value  string
		body   string
	}{
		{401, "WWW-Authenticate", `Bearer error="invalid_token"`, ""},
		{401, "X-Request-Id", "abc\x1b[31m", `{"error":{"code":"","message":"无效的令牌 (request id: 20260219100814161456584b503l5fK)","type":"new_api_error"}}`},
		{401, "Content-Encoding", "gzip", "\x1f\x8b\x08\x00"},
		{401, "Retry-After", "3", "null"},
		{401, "Retry-After", "99999999999999999999", `{"error":"quota"}`},
		{401, "Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT", `[1,2`},
		{401, "Date", "Thu, 01 Jan 1970 00:00:00 GMT", `{"error":{"message":["a"]}}`},
		{401, "WWW-Authenticate", `Basic realm="` + held + `"`, `{"error":"` + held + `"}`},
		{401, "X-Request-Id", held, "your token " + held + " is unknown"},
		{401, "WWW-Authenticate", `Bearer error="insufficient_claims", claims="e30="`, "\xEF\xBB\xBF{}"},
		{407, "Proxy-Authenticate", "Bearer", "proxy"},
		{403, "WWW-Authenticate", `Bearer error="insufficient_scope"`, "invalid_token"},
		{500, "X-Request-Id", strings.Repeat("x", 200), "invalid token"},
		{101, "Upgrade", "h2c", ""},
		{200, "Transfer-Encoding", "chunked", strings.Repeat("y", 70<<10)},
		{401, "X-Request-Id", "\xff\xfe", strings.Repeat("z", 70<<10)},
		{-1, "", "", ""},
	} {
		f.Add(seed.status, seed.name, seed.value, []byte(seed.body), false, false)
		f.Add(seed.status, seed.name, seed.value, []byte(seed.body), true, false)
		f.Add(seed.status, seed.name, seed.value, []byte(seed.body), false, true)
	}
	f.Fuzz(func(t *testing.T, status int, name, value string, body []byte, down, slow bool) {
		synctest.Test(t, func(t *testing.T) {
			j := &journal{}
			var sends []string
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sends = append(sends, req.Header.Get("Authorization"))
				resp := answer(req, status, string(body), name, value)
				if slow { // two bytes at a time, the last of them after a while
					resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:len(body)/2]), &fuzzSlow{r: bytes.NewReader(body[len(body)/2:])}))
				}
				return resp, nil
			})
			source := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
				if down {
					return reauth.Token{}, io.EOF
				}
				return reauth.Token{AccessToken: fresh}, nil
			}}
			outcomes := 0
			rt := &reauth.Transport{
				Base: base, Credential: holding(t, source, reauth.Token{AccessToken: held}), Logger: j.logger(),
				OnOutcome: func(context.Context, reauth.Outcome) { outcomes++ },
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com/", nil)
			require.NoError(t, err)
			resp, err := rt.RoundTrip(req)
			require.NoError(t, err, "a response in hand is returned")
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())

			assert.LessOrEqual(t, len(sends), 2)
			assert.True(t, bytes.Equal(body, got), "the body was changed: %d bytes are %d", len(body), len(got))
			assert.Equal(t, status, resp.StatusCode)
			if status != http.StatusUnauthorized || down {
				assert.Equal(t, 1, len(sends))
			}
			o, told := reauth.OutcomeOf(resp)
			assert.Equal(t, status == http.StatusUnauthorized, told)
			records := j.records(t, slog.LevelDebug)
			if !told {
				assert.Zero(t, outcomes)
				assert.Empty(t, records)
				return
			}
			assert.Equal(t, 1, outcomes)
			assert.Equal(t, len(sends) == 2, o.NotRetried == "")
			assert.Len(t, records, 1)
			for _, s := range []string{o.Rejection.Code, o.Rejection.Message, o.Rejection.RequestID, o.First.RequestID, o.Retry.RequestID} {
				assert.True(t, logPrintable(s), "%q", s)
				assert.LessOrEqual(t, utf8.RuneCountInString(s), 510)
			}
			tokLeaks(t, "the log", j.text(), held, fresh)
			tokLeaks(t, "the outcome", fmt.Sprintf("%+v", o), held, fresh)
		})
	})
}
