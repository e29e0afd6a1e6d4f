package reauth_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

func TestInspectAnyStatus(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		want   reauth.Reason
	}{
		{401, "", reauth.ReasonUnspecified},
		{401, `{"error":"invalid_token"}`, reauth.ReasonInvalidToken},
		{400, `{"error":{"code":"ExpiredToken","message":"The provided token has expired."}}`, reauth.ReasonExpired},
		{200, `{"errcode":42001,"errmsg":"access_token expired"}`, reauth.ReasonExpired},
		{403, `{"message":"API rate limit exceeded"}`, reauth.ReasonQuota},
		{200, `{"data":[1,2,3]}`, ""},
		{404, `{"message":"Not Found"}`, ""},
		{500, "", ""},
	} {
		resp := wordsResponse(tt.status, tt.body, "X-Request-Id", "abc", "Date", "Sun, 22 Nov 2026 19:32:38 GMT")
		rej := reauth.Inspect(resp, []byte(tt.body))
		assert.Equal(t, tt.want, rej.Reason, "%d %s", tt.status, tt.body)
		assert.Equal(t, tt.status, rej.StatusCode)
		assert.Equal(t, "abc", rej.RequestID)
		assert.Equal(t, time.Date(2026, 11, 22, 19, 32, 38, 0, time.UTC), rej.Date.UTC())
	}
	assert.Zero(t, reauth.Inspect(nil, nil))
}

// A server repeats what it was sent, in capitals too.
func TestInspectMasks(t *testing.T) {
	const token = "opaque-1234567890-value"
	resp := wordsResponse(401, "", "WWW-Authenticate", `Bearer error="invalid_token", error_description="`+token+` is unknown"`)
	resp.Request = &http.Request{Header: http.Header{"X-Api-Key": {token}}}
	rej := reauth.Inspect(resp, []byte(`{"message":"unknown key `+strings.ToUpper(token)+`"}`))
	assert.Equal(t, reauth.ReasonInvalidToken, rej.Reason)
	text := strings.ToLower(fmt.Sprintf("%+v", rej))
	assert.NotContains(t, text, token)
	assert.Contains(t, rej.Message, "unknown key")
}

func TestInspectCodings(t *testing.T) {
	const body = `{"message":"Your account was suspended"}`
	packed := func(w io.WriteCloser, b *bytes.Buffer) string {
		_, err := io.WriteString(w, body)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.String()
	}
	var zipped, zlibbed, deflated bytes.Buffer
	raw, err := flate.NewWriter(&deflated, flate.BestSpeed)
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		coding, body string
		unread       string
		reason       reauth.Reason
	}{
		"gzip":              {"gzip", packed(gzip.NewWriter(&zipped), &zipped), "", reauth.ReasonDenied},
		"deflate":           {"deflate", packed(zlib.NewWriter(&zlibbed), &zlibbed), "", reauth.ReasonDenied},
		"deflate, unframed": {"deflate", packed(raw, &deflated), "", reauth.ReasonDenied},
		"brotli":            {"br", body, "br", reauth.ReasonUnspecified},
		"no gzip":           {"gzip", body, "gzip", reauth.ReasonUnspecified},
		"none":              {"identity", body, "", reauth.ReasonDenied},
	} {
		rej := reauth.Inspect(wordsResponse(401, tt.body, "Content-Encoding", tt.coding), []byte(tt.body))
		assert.Equal(t, tt.reason, rej.Reason, name)
		assert.Equal(t, tt.unread, rej.Unread, name)
	}
}

// What a page says is the same on many servers: Apache's speaks of a bad password.
func TestClassifyStructuredSignOutranksAPage(t *testing.T) {
	const page = `<!DOCTYPE HTML PUBLIC "-//IETF//DTD HTML 2.0//EN"><html><head><title>401 Unauthorized</title></head><body><h1>Unauthorized</h1>
<p>This server could not verify that you are authorized to access the document requested.  Either you supplied the wrong
credentials (e.g., bad password), or your browser doesn't understand how to supply the credentials required.</p></body></html>`
	for _, challenge := range []string{`Bearer error="invalid_token"`, `Bearer realm="x", error="invalid_token", error_description="the token is unknown"`} {
		assert.Equal(t, reauth.ReasonInvalidToken, wordsRejection(page, "WWW-Authenticate", challenge).Reason)
	}
	assert.Equal(t, reauth.ReasonUnspecified, wordsRejection(page).Reason, "and alone it says nothing")
}

// A gateway passes on what its upstream said of the gateway's own key.
func TestClassifyPassedOn(t *testing.T) {
	for body, want := range map[string]reauth.Reason{
		`{"error":{"message":"invalid x-api-key","type":"authentication_error"}}`:                                            reauth.ReasonUpstream,
		`{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`:                             reauth.ReasonUpstream,
		`{"error":{"message":"Your account has been deactivated","type":"invalid_request_error","code":"account_inactive"}}`: reauth.ReasonUpstream,
		`{"error":{"message":"无效的令牌","type":"new_api_error"}}`:                                                               reauth.ReasonInvalidToken,
		`{"error":{"message":"无效的令牌","type":"one_api_error"}}`:                                                               reauth.ReasonInvalidToken,
		`{"message":"Unauthorized, invalid access token","success":false}`:                                                   reauth.ReasonInvalidToken,
	} {
		assert.Equal(t, want, wordsRejection(body, "X-Oneapi-Request-Id", classifyID).Reason, body)
	}
	assert.Equal(t, reauth.ReasonInvalidToken, wordsRejection(`{"error":{"message":"invalid x-api-key","type":"authentication_error"}}`).Reason, "from itself")
}

func TestClassifyCodeIsOfTheError(t *testing.T) {
	assert.Equal(t, "authentication_error", wordsRejection(`{"type":"error","error":{"type":"authentication_error"}}`).Code)
}

// RabbitMQ offers Basic with each 401, and takes JWTs.
func TestClassifyOriginThatTakesTokensWantsNoOtherScheme(t *testing.T) {
	for _, body := range []string{`{"error":"not_authorised","reason":"Login failed"}`, ""} {
		issued := 0
		cred := &reauth.Credential{Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			issued++
			return reauth.Token{AccessToken: fmt.Sprintf("T%d", issued)}, nil
		})}
		accepted := "Bearer T1"
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Authorization") == accepted {
				return wordsResponse(200, ""), nil
			}
			return wordsResponse(401, body, "WWW-Authenticate", `Basic realm="RabbitMQ Management"`), nil
		})
		client := &http.Client{Transport: &reauth.Transport{Credential: cred, Base: base, RetryWait: -1, Logger: slog.New(slog.DiscardHandler)}}
		send := func() int {
			resp, err := client.Get("https://rabbit.example.com/api/overview")
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			return resp.StatusCode
		}
		require.Equal(t, http.StatusOK, send())
		for _, accepted = range []string{"Bearer T2", "Bearer T3"} {
			assert.Equal(t, http.StatusOK, send(), "%s after an acceptance", accepted)
		}
		accepted = "none"
		assert.Equal(t, http.StatusUnauthorized, send())
	}
}

// Each of these once took seconds.
func TestClassifyWorstCases(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector slows it down")
	}
	const most = 5 * time.Millisecond
	took := func(name string, f func()) {
		best := time.Hour
		for range 20 { // of a busy machine, the best
			began := time.Now()
			f()
			if best = min(best, time.Since(began)); best < most {
				break
			}
		}
		t.Logf("%s: %v", name, best)
		assert.Less(t, best, most, name)
	}
	bomb := wordsZip(strings.Repeat(" ", 1<<20))
	resp := wordsResponse(401, bomb, "Content-Encoding", "gzip")
	took(fmt.Sprintf("%d bytes of gzip", len(bomb)), func() { reauth.Inspect(resp, []byte(bomb)) })
	for _, s := range []string{"rid:", "request id:", "request_id=", "error id: ", "x-request-id=a "} {
		body := []byte(strings.Repeat(s, (64<<10)/len(s)))
		took("64 KiB of "+s, func() { reauth.Inspect(wordsResponse(401, ""), body) })
	}
	token := strings.Repeat("aB3-x_Zq.0123456", 1<<10)
	for name, challenge := range map[string]string{
		"one value":        `Bearer error_description="` + strings.Repeat("aB3-x_Zr", 8<<10-10) + `"`,
		"many values":      "Bearer " + strings.Repeat(`a="aB3-x_Zq0", `, 4<<10) + `b="c"`,
		"many names":       "Bearer " + strings.Repeat("aB3-x_Zq0=1, ", 4<<10) + `b="c"`,
		"its own, at last": `Bearer error_description="` + strings.Repeat("aB3-x_Zq.012345 ", 4<<10-10) + `"`,
	} {
		resp := wordsResponse(401, "", "WWW-Authenticate", challenge)
		resp.Request = (&http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}}).WithContext(context.Background())
		took("a token of 16 KiB and a challenge of 64: "+name, func() { reauth.Inspect(resp, nil) })
	}
}

// Whatever a server sends, it is read in time linear to its length.
func FuzzInspect(f *testing.F) {
	f.Add("WWW-Authenticate", `Bearer error="invalid_token"`, []byte(`{"message":"rid: request id: x"}`), "aB3-x_Zq.0123456")
	f.Add("Content-Encoding", "gzip", []byte(wordsZip(strings.Repeat("token ", 1000))), "")
	f.Add("X-Error-Message", "expired", []byte("<html><p>401</p>"), "Kq7Zk2mVx9LrT4wNcQ8vB")
	f.Fuzz(func(t *testing.T, name, value string, body []byte, token string) {
		const most = 50 * time.Millisecond
		token = strings.Map(func(r rune) rune {
			if r <= ' ' || r > '~' {
				return -1 // a token has visible characters only
			}
			return r
		}, token)
		resp := wordsResponse(401, "")
		resp.Header = http.Header{http.CanonicalHeaderKey(name): {strings.Repeat(value, min(16, 1+(64<<10)/(1+len(value))))}}
		resp.Request = &http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}}
		body = bytes.Repeat(body, min(64, 1+(64<<10)/(1+len(body))))
		best := time.Hour
		for range 10 { // of a busy machine, the best
			began := time.Now()
			rej := reauth.Inspect(resp, body)
			best = min(best, time.Since(began))
			if len(token) >= 8 && strings.Contains(fmt.Sprint(rej), token) {
				t.Fatalf("the token is in %+v", rej)
			}
			if best < most {
				return
			}
		}
		t.Fatalf("it took %v", best)
	})
}
