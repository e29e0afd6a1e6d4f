package reauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// What only the Refresher's error knows.
const (
	logSecret   = "Uh4Tz8Rj1Oc6Ie3Sk9PvN"
	logPassword = "Ba5Yf0Gm7Dx2Xw4Hl8EqC"
)

// logWitnessed sends one request and returns the witness.
func logWitnessed(t *testing.T, tok reauth.Token, from reauth.Refresher, base http.RoundTripper, edit func(*reauth.Transport, *http.Request)) *logWitness {
	t.Helper()
	w := &logWitness{}
	w.cred = &reauth.Credential{Refresher: from, Logger: w.logger(), RefreshTimeout: 10 * time.Second,
		OnRefresh: func(_ context.Context, r reauth.RefreshInfo) { w.events = append(w.events, r) }}
	if tok.AccessToken != "" || tok.RefreshToken != "" {
		require.NoError(t, w.cred.Set(t.Context(), tok))
	}
	rt := &reauth.Transport{Base: base, Credential: w.cred, Logger: w.logger(),
		OnOutcome: func(_ context.Context, o reauth.Outcome) { w.events = append(w.events, &o, o.Err) }}
	ctx, outcome := reauth.WithOutcome(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, logURL, nil)
	require.NoError(t, err)
	if edit != nil {
		edit(rt, req)
	}
	resp, err := rt.RoundTrip(req)
	if resp != nil {
		o, _ := reauth.OutcomeOf(resp)
		w.events = append(w.events, o)
		require.NoError(t, resp.Body.Close())
	}
	w.events = append(w.events, err, outcome(), rt, w.cred)
	synctest.Wait()
	_, err = w.cred.Token(t.Context()) // what the next one is told
	w.events = append(w.events, err)
	_, err = w.cred.Current()
	w.events = append(w.events, err)
	return w
}

// logKeys are all that a record of a request may have.
var logKeys = []string{
	"time", "level", "msg", "method", "host", "status", "reason", "request_id", "first_request_id", "token", "elapsed", "duration", "not_retried", "predecessor",
	"retry_in", "why", "error", "message", "hint",
}

func TestLogOneRecordForEachRejection(t *testing.T) {
	t.Parallel()
	fine := logReply{200, "fine", []string{"X-Request-Id", "second"}}
	dead := logReply{401, "", []string{"WWW-Authenticate", `Bearer error="invalid_token"`, "X-Request-Id", "first"}}
	gateway := func(text, id string) logReply {
		return logReply{401, `{"error":{"code":"","message":"` + text + ` (request id: ` + id + `)","type":"new_api_error"}}`, nil}
	}
	never := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{}, errors.New("the issuer is down")
	}}
	gone := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{}, reauth.Permanent(errors.New("invalid_grant"))
	}}
	with := func(key, value string) logReply {
		r := dead
		r.header = append([]string{key, value}, r.header...)
		return r
	}
	for _, tc := range []struct {
		name    string
		replies []logReply
		from    *issuer
		edit    func(*reauth.Transport, *http.Request)
		level   slog.Level
		want    map[string]any // "" : the key is absent
		hint    string
	}{
		{name: "cured, ids in headers", replies: []logReply{dead, fine}, level: slog.LevelInfo,
			want: map[string]any{"status": 200., "reason": "invalid_token", "request_id": "second", "first_request_id": "first", "token": fingerprintOf("T1"), "why": "", "error": "", "retry_in": "", "method": "GET", "host": "api.example.com"}},
		{name: "cured, ids in body and header", replies: []logReply{gateway("无效的令牌", "20260219100814161456584b503l5fK"), fine}, level: slog.LevelInfo,
			want: map[string]any{"reason": "invalid_token", "request_id": "second", "first_request_id": "20260219100814161456584b503l5fK", "message": "无效的令牌 (request id: 20260219100814161456584b503l5fK)"}},
		{name: "refused again, both ids in bodies", replies: []logReply{gateway("该令牌已过期", "one"), gateway("无效的令牌", "two")}, level: slog.LevelWarn,
			want: map[string]any{"status": 401., "reason": "expired", "request_id": "two", "first_request_id": "one", "token": fingerprintOf("T1"), "error": "reauth: the retry was rejected too (invalid_token)"}, hint: "both request ids"},
		{name: "cured of the 401, then a 500", replies: []logReply{dead, {500, "", []string{"X-Request-Id", "crash"}}}, level: slog.LevelInfo,
			want: map[string]any{"status": 500., "request_id": "crash", "first_request_id": "first"}},
		{name: "a bare 401 without any id", replies: []logReply{{401, "", nil}, {200, "", nil}}, level: slog.LevelInfo,
			want: map[string]any{"reason": "unspecified", "request_id": nil, "first_request_id": nil}},
		{name: "insufficient scope", replies: []logReply{{401, "", []string{"WWW-Authenticate", `Bearer error="insufficient_scope"`, "X-Request-Id", "first"}}}, level: slog.LevelWarn,
			want: map[string]any{"status": 401., "reason": "insufficient_scope", "request_id": "first", "first_request_id": "", "token": fingerprintOf("T0")}, hint: "scope"},
		{name: "quota", replies: []logReply{gateway("用户额度不足", "q")}, level: slog.LevelWarn,
			want: map[string]any{"reason": "quota", "request_id": "q", "first_request_id": ""}, hint: "top up"},
		{name: "disabled", replies: []logReply{gateway("user is banned", "d")}, level: slog.LevelWarn,
			want: map[string]any{"reason": "denied", "request_id": "d"}, hint: "enable the account"},
		{name: "step up", replies: []logReply{{401, "", []string{"WWW-Authenticate", `Bearer error="insufficient_user_authentication"`}}}, level: slog.LevelWarn,
			want: map[string]any{"reason": "step_up"}, hint: "authenticate again"},
		{name: "dpop_nonce", replies: []logReply{{401, "", []string{"WWW-Authenticate", `DPoP error="use_dpop_nonce"`}}}, level: slog.LevelWarn,
			want: map[string]any{"reason": "dpop_nonce"}, hint: "nonce"},
		{name: "another scheme", replies: []logReply{{401, "", []string{"WWW-Authenticate", `Basic realm="x"`}}}, level: slog.LevelWarn,
			want: map[string]any{"reason": "other_scheme"}, hint: "Transport.Scheme"},
		{name: "the issuer is down", replies: []logReply{dead}, from: never, level: slog.LevelWarn,
			want: map[string]any{"status": 401., "reason": "invalid_token", "request_id": "first", "first_request_id": "", "why": "there is no new token", "retry_in": nil, "token": fingerprintOf("T0")}, hint: "after retry_in"},
		{name: "the login is gone", replies: []logReply{dead}, from: gone, level: slog.LevelWarn,
			want: map[string]any{"request_id": "first", "retry_in": ""}, hint: "Credential.Set"},
		{name: "too large to replay", replies: []logReply{dead}, level: slog.LevelWarn,
			edit: func(rt *reauth.Transport, req *http.Request) {
				rt.MaxReplayBytes = -1
				req.Body = io.NopCloser(io.MultiReader(strings.NewReader("upload")))
			},
			want: map[string]any{"request_id": "first"}, hint: "send the request again"},
		{name: "GetBody fails", replies: []logReply{dead}, level: slog.LevelWarn,
			edit: func(_ *reauth.Transport, req *http.Request) {
				req.Body = io.NopCloser(strings.NewReader("upload"))
				req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("the file is gone") }
			},
			want: map[string]any{"why": "the body cannot be sent again", "error": "reauth: GetBody: the file is gone"}, hint: "send the request again"},
		{name: "asked to wait for long", replies: []logReply{with("Retry-After", "60")}, level: slog.LevelWarn,
			want: map[string]any{"why": "the server asks to wait for more than 5 seconds"}, hint: "send the request again"},
		{name: "the deadline is near", replies: []logReply{with("Retry-After", "4")}, level: slog.LevelWarn,
			edit: func(_ *reauth.Transport, req *http.Request) {
				ctx, cancel := context.WithTimeout(req.Context(), 2*time.Second)
				context.AfterFunc(ctx, cancel)
				*req = *req.WithContext(ctx)
			},
			want: map[string]any{"why": "the deadline of the request is nearer than the retry"}, hint: "more time"},
		{name: "a foreign origin's 401", replies: []logReply{dead}, level: slog.LevelWarn,
			edit: func(rt *reauth.Transport, _ *http.Request) { rt.Origins = []string{"https://other.example.com"} },
			want: map[string]any{"request_id": "first", "token": "", "first_request_id": ""}, hint: "Transport.Origins"},
		{name: "a Classifier's 403", replies: []logReply{{403, "", []string{"X-Request-Id", "first"}}, fine}, level: slog.LevelInfo,
			edit: func(rt *reauth.Transport, _ *http.Request) {
				rt.Classifier = reauth.ClassifierFunc(func(resp *http.Response, _ func() []byte) reauth.Rejection {
					if resp.StatusCode == http.StatusForbidden {
						return reauth.Rejection{Reason: reauth.ReasonRevoked}
					}
					return reauth.Rejection{}
				})
			},
			want: map[string]any{"reason": "revoked", "request_id": "second", "first_request_id": "first"}},
		{name: "a header of one's own", replies: []logReply{with("X-Support", "one"), {200, "", []string{"X-Support", "two", "X-Request-Id", "no"}}}, level: slog.LevelInfo,
			edit: func(rt *reauth.Transport, _ *http.Request) {
				rt.RequestIDHeaders = []string{"X-Missing", "x-support"}
			},
			want: map[string]any{"request_id": "two", "first_request_id": "one"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				from, j, sends, hooks := tc.from, &journal{}, 0, 0
				if from == nil {
					from = &issuer{}
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, logURL, nil)
				require.NoError(t, err)
				rt := &reauth.Transport{
					Base: logServer(&sends, tc.replies...), Logger: j.logger(), Credential: holding(t, from, reauth.Token{AccessToken: "T0"}),
					OnOutcome: func(context.Context, reauth.Outcome) {
						hooks++
						assert.Len(t, j.records(t, slog.LevelDebug), 1, "the hook comes with the record")
					},
				}
				if tc.edit != nil {
					tc.edit(rt, req)
				}
				resp, err := rt.RoundTrip(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())

				records := j.records(t, slog.LevelDebug)
				require.Len(t, records, 1)
				r := records[0]
				assert.Equal(t, tc.level.String(), r["level"])
				assert.Equal(t, 1, hooks, "OnOutcome")
				for key := range r {
					assert.Contains(t, logKeys, key)
				}
				for key, want := range tc.want {
					got, ok := r[key]
					switch want {
					case "":
						assert.False(t, ok, "%s is %v", key, got)
					case nil:
						assert.True(t, ok, "%s is missing", key)
					default:
						assert.Equal(t, want, got, key)
					}
				}
				if tc.level == slog.LevelInfo {
					assert.NotContains(t, r, "hint")
				} else {
					assert.Contains(t, r["hint"], tc.hint)
				}
				o, ok := reauth.OutcomeOf(resp)
				require.True(t, ok)
				assert.Equal(t, tc.level == slog.LevelWarn, o.Advice != "", "advice: %q", o.Advice)
				assert.Equal(t, tc.level == slog.LevelInfo, o.Recovered())
				assert.Equal(t, r["request_id"], o.RequestID())
				if o.RequestID() != "" && len(rt.RequestIDHeaders) == 0 {
					assert.Equal(t, o.RequestID(), reauth.RequestID(resp))
				}
			})
		})
	}
}

func TestLogNothingForAnAcceptedRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		cred := &reauth.Credential{Refresher: &issuer{}, Logger: j.logger(), OnRefresh: func(context.Context, reauth.RefreshInfo) { t.Error("a refresh") }}
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0"}))
		for _, status := range []int{200, 204, 302, 304, 400, 403, 404, 407, 429, 500, 503, 0} {
			rt := &reauth.Transport{Credential: cred, Logger: j.logger(), OnOutcome: func(context.Context, reauth.Outcome) { t.Error(status) },
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if status == 0 {
						return nil, io.ErrUnexpectedEOF
					}
					return answer(req, status, "invalid token", "X-Request-Id", "id", "WWW-Authenticate", "Bearer"), nil
				})}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, logURL, nil)
			require.NoError(t, err)
			resp, err := rt.RoundTrip(req)
			assert.Equal(t, status == 0, err != nil)
			_, told := reauth.OutcomeOf(resp)
			assert.False(t, told, "%d", status)
			if resp != nil {
				assert.Equal(t, "id", reauth.RequestID(resp))
			}
		}
		synctest.Wait()
		assert.Empty(t, j.text())
	})
}

// A failed refresh is logged once, with when it is repeated.
func TestLogFailedRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		var events []reauth.RefreshInfo
		cred := &reauth.Credential{
			Logger: j.logger(), OnRefresh: func(_ context.Context, r reauth.RefreshInfo) { events = append(events, r) },
			MinBackoff: 7 * time.Second,
			Refresher: &issuer{do: func(_ context.Context, n int, _ reauth.Stale) (reauth.Token, error) {
				time.Sleep(time.Second)
				switch n {
				case 1:
					return reauth.Token{}, errors.New("the issuer is down")
				case 2:
					return reauth.Token{AccessToken: "T2"}, nil
				}
				return reauth.Token{}, reauth.Permanent(errors.New("invalid_grant"))
			}},
		}
		for range 3 { // within the pause: told once
			_, err := cred.Token(t.Context())
			require.Error(t, err)
		}
		warned := j.records(t, slog.LevelWarn)
		require.Len(t, warned, 1)
		assert.Equal(t, "WARN", warned[0]["level"])
		assert.Equal(t, "missing", warned[0]["reason"])
		assert.InDelta(t, 9*time.Second, warned[0]["retry_in"], float64(2*time.Second))
		assert.InDelta(t, time.Second, warned[0]["duration"], float64(time.Millisecond))
		assert.Contains(t, warned[0]["error"], "the issuer is down")

		time.Sleep(11 * time.Second)
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		all := j.records(t, slog.LevelDebug)
		require.Len(t, all, 2)
		assert.Equal(t, "DEBUG", all[1]["level"], "a success is nobody's alarm")
		assert.Equal(t, tok.Fingerprint(), all[1]["token"])

		time.Sleep(time.Hour)
		_, err = cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
		require.Error(t, err)
		warned = j.records(t, slog.LevelWarn)
		require.Len(t, warned, 2)
		assert.NotContains(t, warned[1], "retry_in", "it is not tried again")
		assert.Contains(t, warned[1]["error"], "not called until Credential.Set")
		assert.Equal(t, "revoked", warned[1]["reason"])
		assert.Equal(t, tok.Fingerprint(), warned[1]["token"])

		require.Len(t, events, 3)
		assert.Equal(t, reauth.ReasonMissing, events[0].Reason)
		assert.Equal(t, time.Second, events[0].Duration)
		assert.Equal(t, 1, events[0].Waiters)
		assert.Equal(t, tok.Fingerprint(), events[1].Token)
		assert.Equal(t, tok.Fingerprint(), events[2].Stale)
	})
}

// An SDK's key from the environment makes reauth inert. Said once, or a log
// of nothing else.
func TestLogOwnCredentialOnce(t *testing.T) {
	t.Parallel()
	j := &journal{}
	sends, hooks := 0, 0
	rt := &reauth.Transport{Logger: j.logger(), Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"}),
		Base: logServer(&sends, logReply{401, "", []string{"X-Request-Id", "first"}}), OnOutcome: func(context.Context, reauth.Outcome) { hooks++ }}
	for range 3 {
		req, err := http.NewRequest(http.MethodGet, logURL, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer from-the-environment")
		resp, err := rt.RoundTrip(req)
		require.NoError(t, err)
		o, ok := reauth.OutcomeOf(resp)
		require.True(t, ok)
		assert.NotEmpty(t, o.Withheld)
		assert.Empty(t, o.First.Token, "it carried none of ours")
	}
	assert.Equal(t, 3, sends)
	assert.Equal(t, 3, hooks)
	records := j.records(t, slog.LevelDebug)
	require.Len(t, records, 1)
	assert.Equal(t, "WARN", records[0]["level"])
	assert.Contains(t, records[0]["hint"], "Transport.Override")
	assert.Contains(t, records[0]["hint"], "Authorization")
	assert.Equal(t, "first", records[0]["request_id"])
}

// An unlisted origin is no news, only a way to find out.
func TestLogWithheldToken(t *testing.T) {
	t.Parallel()
	j := &journal{}
	sends := 0
	var got []reauth.Outcome
	rt := &reauth.Transport{Logger: j.logger(), Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"}), Origins: []string{},
		Base: logServer(&sends, logReply{200, "", []string{"X-Request-Id", "only"}}), OnOutcome: func(_ context.Context, o reauth.Outcome) { got = append(got, o) }}
	resp := get(t, rt, "https://user:hunter2hunter2@api.example.com/?key=hunter2hunter2")
	require.Len(t, got, 1)
	assert.NotEmpty(t, got[0].Withheld)
	assert.Zero(t, got[0].Rejection)
	assert.Equal(t, "only", got[0].RequestID())
	o, ok := reauth.OutcomeOf(resp)
	assert.True(t, ok)
	assert.Equal(t, got[0], o)
	records := j.records(t, slog.LevelDebug)
	require.Len(t, records, 1)
	assert.Equal(t, "DEBUG", records[0]["level"])
	tokLeaks(t, "the log", j.text(), "hunter2hunter2")
}

func TestLogHostileServer(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x ", 5<<10)
	for name, evil := range map[string]string{
		"newline":         "a\nlevel=ERROR msg=forged",
		"carriage return": "a\r\nb",
		"ANSI":            "\x1b[2J\x1b[31mred\x1b]0;title\a",
		"C1":              "a\u009b31mb",
		"10 KB":           long,
		"10 KB, no blank": strings.Repeat("y", 10<<10),
		"10 KB of runes":  strings.Repeat("令", 10<<10),
		"invalid UTF-8":   "a\xff\xfe\xc3(b",
		"all invalid":     strings.Repeat("\xff", 300),
		"NUL":             "a\x00b",
		"bidi":            "a\u202egnp.exe\u202c",
		"zero width":      "a\u200b\u2060\ufeffb",
		"line separator":  "a\u2028b\u2029c",
		"private use":     "a\ue000b",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				text, err := json.Marshal(map[string]any{"error": map[string]any{"code": evil, "message": evil}})
				require.NoError(t, err)
				for where, reply := range map[string]logReply{
					"request id":      {401, "", []string{"X-Request-Id", evil}},
					"traceparent":     {401, "", []string{"Traceparent", evil}},
					"id in the body":  {401, "(request id: " + evil + ")", nil},
					"JSON":            {401, string(text), nil},
					"text":            {401, evil, nil},
					"no token at all": {403, evil, []string{"X-Request-Id", evil}},
				} {
					j := &journal{}
					var buf bytes.Buffer // the text handler of a terminal
					sends := 0
					var o reauth.Outcome
					rt := &reauth.Transport{Base: logServer(&sends, reply), Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"}),
						Logger:    slog.New(slog.NewMultiHandler(j.logger().Handler(), slog.NewTextHandler(&buf, nil))),
						OnOutcome: func(_ context.Context, out reauth.Outcome) { o = out }}
					ctx, outcome := reauth.WithOutcome(t.Context())
					req, err := http.NewRequestWithContext(ctx, http.MethodGet, logURL, nil)
					require.NoError(t, err)
					req.Method = "GET" + strings.Repeat("T", 100)
					resp, err := rt.RoundTrip(req)
					require.NoError(t, err)
					if reply.status == 401 {
						require.Len(t, j.records(t, slog.LevelDebug), 1)
						assert.Equal(t, 1, strings.Count(buf.String(), "\n"), where)
						assert.Less(t, buf.Len(), 6<<10, where)
					}
					ids := []string{o.First.RequestID, o.Retry.RequestID, o.Rejection.RequestID, outcome().RequestID(), reauth.RequestID(resp)}
					for _, id := range ids {
						assert.True(t, logPrintable(id), "%s: %q", where, id)
						assert.LessOrEqual(t, utf8.RuneCountInString(id), 128, "%s", where)
					}
					for _, s := range []string{o.Rejection.Code, o.Rejection.Message} {
						assert.True(t, logPrintable(s), "%s: %q", where, s)
						assert.LessOrEqual(t, utf8.RuneCountInString(s), 502, "%s", where)
					}
					for _, r := range j.records(t, slog.LevelDebug) {
						for key, v := range r {
							if s, ok := v.(string); ok {
								assert.True(t, logPrintable(s), "%s: %s=%q", where, key, s)
							}
						}
					}
				}
			})
		})
	}
}

// What can be read is kept.
func TestLogHonestServer(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"20260219100814161456584b503l5fK", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "123e4567-e89b-12d3-a456-426614174000", "C0DE:1A2B:3C4D"} {
		resp := &http.Response{Header: http.Header{"X-Request-Id": {id}}}
		assert.Equal(t, id, reauth.RequestID(resp))
		resp = &http.Response{Header: http.Header{"x-request-id": {" ", id}}}
		assert.Equal(t, id, reauth.RequestID(resp), "a header that was set by hand, and an empty value before it")
	}
	assert.Equal(t, "support", reauth.RequestID(&http.Response{Header: http.Header{"Traceparent": {"trace"}, "X-Oneapi-Request-Id": {"support"}}}))
	assert.Empty(t, reauth.RequestID(&http.Response{Header: http.Header{"X-Other": {"x"}}}))

	sends := 0
	rt := &reauth.Transport{Logger: discard, Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"}), RetryWait: -1,
		Base: logServer(&sends, logReply{401, `{"error":{"code":"invalid_api_key","message":"无效的令牌，请检查 API key"}}`, nil})}
	o, ok := reauth.OutcomeOf(get(t, rt, logURL))
	require.True(t, ok)
	assert.Equal(t, "invalid_api_key", o.Rejection.Code)
	assert.Equal(t, "无效的令牌，请检查 API key", o.Rejection.Message)
}

func TestSecretNeverInTheErrorOfARefresher(t *testing.T) {
	t.Parallel()
	quoted := fmt.Sprintf("%q", `{"access_token":"`+logSecret+`","expires_in":3600}`)
	for name, refresh := range map[string]func(stale reauth.Stale) (reauth.Token, error){
		"the old tokens": func(stale reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, fmt.Errorf("invalid_grant: %s is revoked, as is %s", stale.Token.RefreshToken, stale.Token.AccessToken)
		},
		"a piece of the old token": func(stale reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, errors.New("no such token: " + stale.Token.RefreshToken[:12] + "...")
		},
		"the old token, percent-encoded": func(stale reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, errors.New("bad form: a=" + url.QueryEscape("|"+stale.Token.RefreshToken))
		},
		"a new token that comes with an error": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{AccessToken: logSecret, RefreshToken: logPassword}, errors.New("cannot save " + logSecret + " and " + logPassword)
		},
		"url.Error": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, &url.Error{Op: "Post", URL: "https://client:" + logPassword + "@id.example.com/token?code=" + logSecret + "&x=" + logPassword, Err: errors.New("dial tcp: i/o timeout")}
		},
		"wrapped and joined url.Error": func(reauth.Stale) (reauth.Token, error) {
			e := &url.Error{Op: "Get", URL: "https://" + logPassword + "@id.example.com/?" + logSecret, Err: io.EOF}
			return reauth.Token{}, fmt.Errorf("login: %w", errors.Join(e, e))
		},
		"an answer in an error, as x/oauth2 has it": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, fmt.Errorf("oauth2: cannot fetch token: 400 Bad Request\nResponse: {\"error\":\"invalid_grant\", \"access_token\" : \"%s\",\n\"id_token\":\"%s\"}", logSecret, logPassword)
		},
		"JSON": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, errors.New(`unexpected: {"access_token":"` + logSecret + `","refresh_token":"` + logPassword + `"}`)
		},
		"JSON cut off": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, errors.New(`unexpected: {"access_token":"` + logSecret)
		},
		"JSON in a quoted string": func(reauth.Stale) (reauth.Token, error) { return reauth.Token{}, errors.New("unexpected: " + quoted) },
		"JSON twice quoted": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, fmt.Errorf("unexpected: %q", quoted)
		},
		"a printed map": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, fmt.Errorf("unexpected: %v", map[string]any{"access_token": logSecret, "expires_in": "x"})
		},
		"a printed struct": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, fmt.Errorf("unexpected: %+v", struct{ AccessToken, RefreshToken string }{logSecret, logPassword})
		},
		"a printed struct in Go syntax": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, fmt.Errorf("unexpected: %#v", struct{ AccessToken, RefreshToken string }{logSecret, logPassword})
		},
		"a form": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, errors.New("sent grant_type=refresh_token&refresh_token=" + logSecret + "&client_secret=" + logPassword)
		},
		"a dumped request": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, errors.New("POST /token HTTP/1.1\r\nHost: id.example.com\r\nAuthorization: Basic " + logSecret + "\r\n\r\npassword=" + logPassword)
		},
		"a dumped request with a key": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, errors.New("POST /token HTTP/1.1\r\nX-Api-Key: " + logSecret + "\r\nAuthorization: token " + logPassword + "\r\n\r\n")
		},
		"a permanent error": func(stale reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, reauth.Permanent(fmt.Errorf("invalid_grant: %q; sent client_secret=%s", stale.Token.RefreshToken, logSecret))
		},
		"an error with a value": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, tokValueError{`{"access_token":"` + logSecret + `"}`}
		},
		"a panic with a string":  func(reauth.Stale) (reauth.Token, error) { panic(logSecret) },
		"a panic with an error":  func(reauth.Stale) (reauth.Token, error) { panic(errors.New(logSecret)) },
		"a panic with a value":   func(reauth.Stale) (reauth.Token, error) { panic(tokValueError{logSecret}) },
		"a panic with a token":   func(reauth.Stale) (reauth.Token, error) { panic(reauth.Token{AccessToken: logSecret}) },
		"a panic with the stale": func(stale reauth.Stale) (reauth.Token, error) { panic(stale) },
		"a panic of the runtime": func(stale reauth.Stale) (reauth.Token, error) {
			var v any = stale.Token.AccessToken
			return v.(reauth.Token), nil
		},
		"a token with a line break":       func(reauth.Stale) (reauth.Token, error) { return reauth.Token{AccessToken: logSecret + "\n"}, nil },
		"a token with its scheme":         func(reauth.Stale) (reauth.Token, error) { return reauth.Token{AccessToken: "Bearer " + logSecret}, nil },
		"a token in quotes":               func(reauth.Stale) (reauth.Token, error) { return reauth.Token{AccessToken: `"` + logSecret + `"`}, nil },
		"a token in place of a variable":  func(reauth.Stale) (reauth.Token, error) { return reauth.Token{AccessToken: "<" + logSecret + ">"}, nil },
		"a refresh token without a token": func(reauth.Stale) (reauth.Token, error) { return reauth.Token{RefreshToken: logSecret}, nil },
		"the rejected token again":        func(stale reauth.Stale) (reauth.Token, error) { return stale.Token, nil },
		"an expired token": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{AccessToken: logSecret, Expiry: time.Now().Add(-time.Hour)}, nil
		},
		"nothing within its time": func(reauth.Stale) (reauth.Token, error) {
			time.Sleep(time.Minute)
			return reauth.Token{AccessToken: logSecret, RefreshToken: logPassword}, nil
		},
		"a token whose type is the secret": func(reauth.Stale) (reauth.Token, error) {
			return reauth.Token{AccessToken: "T1", TokenType: logSecret}, nil
		},
	} {
		for when, tok := range map[string]reauth.Token{
			"after a 401":        {AccessToken: tokAccess, RefreshToken: tokRefresh},
			"for the first time": {RefreshToken: tokRefresh, AccessToken: ""},
		} {
			if tok.AccessToken == "" && name == "a token whose type is the secret" {
				continue // the one that does not fail
			}
			t.Run(name+" "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					from := reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) { return refresh(stale) })
					w := logWitnessed(t, tok, from, accepting(), nil)
					assert.NotEmpty(t, w.json.records(t, slog.LevelWarn), "nothing was told at all")
					time.Sleep(time.Hour) // what is late tells something too
					synctest.Wait()
					w.neverTells(t, tokAccess, tokRefresh, logSecret, logPassword)
				})
			})
		}
	}
}

func TestSecretNeverInAnEchoOfTheServer(t *testing.T) {
	t.Parallel()
	// Behind 4 KiB of claims, the part that matters: its signature.
	large := strings.Repeat("0123456789", 600) + logSecret
	for name, tc := range map[string]struct {
		token string
		says  func(token string) logReply
	}{
		"message": {tokAccess, func(tok string) logReply {
			return logReply{401, `{"error":{"message":"no such key: ` + tok + `"}}`, nil}
		}},
		"code":               {tokAccess, func(tok string) logReply { return logReply{401, `{"error":{"code":"` + tok + `"}}`, nil} }},
		"text":               {tokAccess, func(tok string) logReply { return logReply{401, "<h1>" + tok + " is unknown</h1>", nil} }},
		"half of it":         {tokAccess, func(tok string) logReply { return logReply{401, "unknown: " + tok[:12] + "...", nil} }},
		"request id":         {tokAccess, func(tok string) logReply { return logReply{401, "", []string{"X-Request-Id", tok}} }},
		"part of request id": {tokAccess, func(tok string) logReply { return logReply{401, "", []string{"X-Request-Id", "req-" + tok[3:18]}} }},
		"id in the body":     {tokAccess, func(tok string) logReply { return logReply{401, "(request id: " + tok + ")", nil} }},
		"realm": {tokAccess, func(tok string) logReply {
			return logReply{401, "", []string{"WWW-Authenticate", `Bearer realm="` + tok + `"`}}
		}},
		"error_description": {tokAccess, func(tok string) logReply {
			return logReply{401, "", []string{"WWW-Authenticate", `Bearer error="invalid_token", error_description="the token ` + tok + ` is dead"`}}
		}},
		"token68": {tokAccess, func(tok string) logReply { return logReply{401, "", []string{"WWW-Authenticate", "Bearer " + tok}} }},
		"scheme":  {tokAccess, func(tok string) logReply { return logReply{401, "", []string{"WWW-Authenticate", "Bearer, " + tok}} }},
		"parameter": {tokAccess, func(tok string) logReply {
			return logReply{401, "", []string{"WWW-Authenticate", "Bearer " + tok + "=1"}}
		}},
		"a large token":   {large, func(string) logReply { return logReply{401, "bad signature: " + logSecret, nil} }},
		"a forbidden one": {tokAccess, func(tok string) logReply { return logReply{403, tok, []string{"X-Request-Id", tok}} }},
	} {
		for _, ends := range []string{"cured", "refused", "no fresh token"} {
			t.Run(name+", "+ends, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const fresh = "Wn1Lr8sXc5Bd6Ge0Yx7uP"
					from := reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
						if ends == "no fresh token" {
							return reauth.Token{}, errors.New("the issuer is down")
						}
						return reauth.Token{AccessToken: fresh}, nil
					})
					base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
						tok := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
						reply := tc.says(tok)
						if tok == fresh && ends == "cured" {
							reply.status = http.StatusOK
						}
						return answer(req, reply.status, reply.body, reply.header...), nil
					})
					logWitnessed(t, reauth.Token{AccessToken: tc.token, RefreshToken: tokRefresh}, from, base, nil).
						neverTells(t, tokAccess, tokRefresh, fresh, logSecret)
				})
			})
		}
	}
}

// The retry's server may know the token before it, and the refresh token.
func TestSecretNeverInAnEchoOfTheOtherToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from := reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{AccessToken: "Wn1Lr8sXc5Bd6Ge0Yx7uP"}, nil
		})
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return answer(req, 401, "superseded: "+tokAccess+" of family "+tokRefresh, "X-Request-Id", tokAccess), nil
		})
		logWitnessed(t, reauth.Token{AccessToken: tokAccess, RefreshToken: tokRefresh}, from, base, nil).neverTells(t, tokAccess, tokRefresh)
	})
}

// A credential header, not only a token.
func TestSecretNeverOfTheCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return answer(req, 401, "unknown key: "+logSecret, "X-Request-Id", logSecret, "WWW-Authenticate", `Bearer realm="`+logSecret+`"`), nil
		})
		logWitnessed(t, tokMarked, &issuer{}, base, func(_ *reauth.Transport, req *http.Request) {
			req.Header.Set("Authorization", "Bearer "+logSecret)
		}).neverTells(t, logSecret, tokAccess, tokRefresh)
	})
}

func TestSecretNeverInTheErrorOfACallersFunction(t *testing.T) {
	t.Parallel()
	dead := roundTripFunc(func(req *http.Request) (*http.Response, error) { return answer(req, 401, ""), nil })
	fromURL := &url.Error{Op: "Get", URL: "https://u:" + logPassword + "@files.example.com/?sig=" + logSecret, Err: io.EOF}
	body := func(err error) func(*reauth.Transport, *http.Request) {
		return func(_ *reauth.Transport, req *http.Request) {
			req.Body = io.NopCloser(strings.NewReader("upload"))
			req.GetBody = func() (io.ReadCloser, error) { return nil, err }
		}
	}
	choose := func(err error) func(*reauth.Transport, *http.Request) {
		return func(rt *reauth.Transport, _ *http.Request) {
			rt.CredentialFor = func(*http.Request) (*reauth.Credential, error) { return nil, err }
		}
	}
	for name, tc := range map[string]struct {
		base http.RoundTripper
		edit func(*reauth.Transport, *http.Request)
	}{
		"GetBody, a URL":          {dead, body(fromURL)},
		"GetBody, the token":      {dead, body(errors.New("cannot sign again with " + tokAccess))},
		"GetBody, a value":        {dead, body(tokValueError{`{"access_token":"` + logSecret + `"}`})},
		"CredentialFor, a URL":    {dead, choose(fromURL)},
		"CredentialFor, JSON":     {dead, choose(errors.New(`vault: {"token":"` + logSecret + `"}`))},
		"CredentialFor, a header": {dead, choose(fmt.Errorf("vault: Authorization: Bearer %s: %w", logSecret, fromURL))},
		"CredentialFor, a value":  {dead, choose(tokValueError{`password="` + logPassword + `"`})},
		"Origins with a password": {dead, func(rt *reauth.Transport, _ *http.Request) {
			rt.Origins = []string{"https://u:" + logPassword + "@h/?" + logSecret}
		}},
		"plain http, a password": {dead, func(_ *reauth.Transport, req *http.Request) {
			req.URL, _ = url.Parse("http://u:" + logPassword + "@far.example.com/?k=" + logSecret)
		}},
		"a 401 of URL with secret": {dead, func(_ *reauth.Transport, req *http.Request) {
			req.URL, _ = url.Parse("https://u:" + logPassword + "@far.example.com/?k=" + logSecret)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logWitnessed(t, tokMarked, &issuer{}, tc.base, tc.edit).neverTells(t, tokAccess, tokRefresh, logSecret, logPassword)
			})
		})
	}
}

// Base's error on the retry is the caller's answer as it is; the log has it
// without the tokens.
func TestSecretNeverInTheErrorOfTheRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sends, j := 0, &journal{}
		var got reauth.Outcome
		broken := fmt.Errorf("proxy: cannot pass on Bearer %s nor x=%s", "Wn1Lr8sXc5Bd6Ge0Yx7uP", tokAccess)
		rt := &reauth.Transport{Logger: j.logger(), OnOutcome: func(_ context.Context, o reauth.Outcome) { got = o },
			Credential: holding(t, reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				return reauth.Token{AccessToken: "Wn1Lr8sXc5Bd6Ge0Yx7uP"}, nil
			}), tokMarked),
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if sends++; sends == 2 {
					return nil, broken
				}
				return answer(req, 401, "", "X-Request-Id", "first"), nil
			})}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, logURL, nil)
		require.NoError(t, err)
		_, err = rt.RoundTrip(req)
		assert.Equal(t, broken, err)
		records := j.records(t, slog.LevelDebug)
		require.Len(t, records, 1)
		assert.Equal(t, "WARN", records[0]["level"])
		assert.Equal(t, "first", records[0]["request_id"])
		assert.Contains(t, records[0]["error"], "the retry failed")
		tokLeaks(t, "the log", j.text(), "Wn1Lr8sXc5Bd6Ge0Yx7uP", tokAccess, tokRefresh)
		tokNeverPrinted(t, "the outcome", got, "Wn1Lr8sXc5Bd6Ge0Yx7uP", tokAccess, tokRefresh)
	})
}

// A caller's Classifier copies what the server said.
func TestSecretNeverInTheWordsOfAClassifier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) { return answer(req, 401, ""), nil })
		raw := "\x1b[31m" + tokAccess + "\n" + strings.Repeat("x", 10<<10)
		w := logWitnessed(t, tokMarked, &issuer{}, base, func(rt *reauth.Transport, _ *http.Request) {
			rt.Classifier = reauth.ClassifierFunc(func(resp *http.Response, _ func() []byte) reauth.Rejection {
				assert.NotContains(t, fmt.Sprint(resp.Request.Header), tokAccess)
				assert.Equal(t, "Bearer [redacted]", resp.Request.Header.Get("Authorization"))
				return reauth.Rejection{Reason: reauth.ReasonDenied, Code: raw, Message: raw, RequestID: raw}
			})
		})
		w.neverTells(t, tokAccess, tokRefresh)
		r := w.json.records(t, slog.LevelWarn)
		require.Len(t, r, 1)
		for key, v := range r[0] {
			if s, ok := v.(string); ok {
				assert.True(t, logPrintable(s), "%s=%q", key, s)
				assert.LessOrEqual(t, utf8.RuneCountInString(s), 510, key)
			}
		}
	})
}

// Bad input of the contract: no Logger, or one that goes nowhere, costs nobody
// his answer.
func TestLoggerUnusable(t *testing.T) {
	for name, l := range map[string]*slog.Logger{
		"nil":               nil,
		"zero":              new(slog.Logger),
		"typed nil handler": slog.New((*slog.JSONHandler)(nil)),
	} {
		t.Run(name, func(t *testing.T) {
			logs := &journal{}
			old, out, flags := slog.Default(), log.Writer(), log.Flags()
			slog.SetDefault(logs.logger())
			defer func() {
				slog.SetDefault(old)
				log.SetOutput(out) // SetDefault has redirected it
				log.SetFlags(flags)
			}()
			cred := &reauth.Credential{Refresher: &issuer{}, Logger: l}
			require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: secToken}))
			tr := &reauth.Transport{Base: accepting("T1"), Credential: cred, RetryWait: -1, Logger: l}
			within(t, 5*time.Second, func() {
				assert.NotPanics(t, func() { assert.Equal(t, http.StatusOK, get(t, tr, "https://api.example.com/").StatusCode) })
			})
			assert.Contains(t, logs.text(), "retry succeeded", "it went to slog.Default()")
		})
	}
}
