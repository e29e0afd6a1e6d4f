package reauth_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// W9
func FuzzParseChallenges(f *testing.F) {
	for _, seed := range []string{
		"bearer", `ERROR="invalid_token"`, "Negotiate abc==, Bearer error=invalid_token",
		`Basic realm="Bearer error=\"invalid_token\""`,
		`Bearer error_description="error=invalid_token is not set"`,
		`Bearer , ,error="invalid_token",`, `BearerX error="invalid_token"`,
		`DPoP error="use_dpop_nonce", Bearer realm="x"`, "Bearer realm=\"never closed, error=invalid_token",
		"Bearer realm=\"a\x00b\"", `Bearer error="a", error="b", error="c"`, "Basic\nBearer error=invalid_token\nNegotiate",
		`Bearer  error  =  "invalid_token"  `, `Bearer realm="a" error="b"`, "= = =\"\"\",,;;", "A=B=C=D", "a\\\"b", "\xff\xfe \xff=\xff",
		`a="b,`, strings.Repeat("Basic,", 200), strings.Repeat("Basic,", 63) + "\n" + strings.Repeat("Basic,", 64), strings.Repeat("a=\"", 200), strings.Repeat(`\"`, 200), "Bearer " + strings.Repeat("=", 200),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, lines string) {
		h := http.Header{"Www-Authenticate": strings.Split(lines, "\n")}
		before := h.Clone()
		all := reauth.ParseChallenges(h)
		assert.Equal(t, before, h, "the header was changed")
		assert.Equal(t, all, reauth.ParseChallenges(h), "not the same twice")
		assert.LessOrEqual(t, len(all), 64, "challenges")

		size := 0
		for _, c := range all {
			size += len(c.Scheme) + len(c.Token68)
			assert.NotEmpty(t, c.Scheme)
			assert.False(t, strings.ContainsAny(c.Scheme, " \t\r,;=\""), "scheme %q", c.Scheme)
			assert.True(t, strings.Contains(lines, c.Scheme), "scheme %q is not in the header", c.Scheme)
			assert.True(t, strings.Contains(lines, c.Token68), "token68 %q is not in the header", c.Token68)
			for name, v := range c.Params {
				size += len(v)
				assert.Equal(t, strings.ToLower(name), name)
				assert.NotEmpty(t, name)
				assert.True(t, strings.Contains(strings.ToLower(lines), name) || !utf8.ValidString(lines), "parameter %q is not in the header", name)
			}
		}
		assert.LessOrEqual(t, size, len(lines), "more came out than went in")

		// A line of 64 KiB made of this must not take longer than its length.
		if lines != "" {
			line := strings.Repeat(strings.ReplaceAll(lines, "\n", " "), 64<<10/len(lines)+1)
			best := time.Minute // of three, as the machine may be busy
			for range 3 {
				began := time.Now()
				reauth.ParseChallenges(http.Header{"Www-Authenticate": {line}})
				if best = min(best, time.Since(began)); best < 100*time.Millisecond {
					break
				}
			}
			assert.Less(t, best, 250*time.Millisecond, "64 KiB of it")
		}
	})
}

// W2, W11, W12, F10, S5, S7
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

// A fuzzSlow is a body that hangs for longer than reauth waits for one.
type fuzzSlow struct {
	r      io.Reader
	waited bool
}

func (s *fuzzSlow) Read(p []byte) (int, error) {
	if !s.waited {
		s.waited = true
		time.Sleep(5 * time.Second) // in a bubble
	}
	return s.r.Read(p[:min(len(p), 2<<10)])
}

// logPrintable reports whether s stands in a log as one line of what can be seen.
func logPrintable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) < 0
}

// S1, S2, S3
func FuzzOrigins(f *testing.F) {
	for _, seed := range [][2]string{
		{"https://api.example.com", "https://api.example.com/v1"},
		{"https://api.example.com", "https://api.example.com.evil.test/v1"},
		{"https://api.example.com", "https://api.example.com@evil.test/"},
		{"https://api.example.com", "HTTPS://API.EXAMPLE.COM.:443/"},
		{"https://api.example.com:8443", "https://api.example.com/"},
		{"https://*.example.com", "https://a.b.example.com/"},
		{"https://*.example.com", "https://example.com/"},
		{"https://*.example.com", "https://evilexample.com/"},
		{"https://*.example.com", "https://.example.com/"},
		{"https://*", "https://evil.test/"},
		{"https://*.", "https://evil.test/"},
		{"*", "https://evil.test/"},
		{"https://[::1]:8443", "https://[0:0:0:0:0:0:0:1]:8443/"},
		{"http://gateway.lan:3000", "http://gateway.lan:3000/"},
		{"http://gateway.lan:80", "http://gateway.lan/"},
		{"https://user:hunter2hunter2@api.example.com", "https://api.example.com/"},
		{"https://api.example.com/v1", "https://api.example.com/v1"},
		{"https://api.example.com:", "https://api.example.com/"},
		{"https://api.example.com:99999", "https://api.example.com/"},
		{"https://bücher.example", "https://bücher.example/"},
		{"", "http://localhost:8080/"}, {"", "http://127.0.0.1/"}, {"", "http://[::ffff:127.0.0.1]/"},
		{"", "http://127.0.0.1.evil.test/"}, {"", "http://localhost.evil.test/"}, {"", "ftp://localhost/"}, {"", "//nowhere"}, {"", ""},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, entry, target string) {
		u, err := url.Parse(target)
		if err != nil {
			return
		}
		sent := false
		rt := &reauth.Transport{
			Credential: holding(t, &issuer{}, reauth.Token{AccessToken: tokAccess}), Logger: discard,
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sent = sent || len(req.Header) > 0
				return answer(req, http.StatusOK, ""), nil
			}),
		}
		if entry != "" {
			rt.Origins = []string{entry}
		}
		req := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}
		resp, err := rt.RoundTrip(req)
		assert.True(t, (resp == nil) == (err != nil), "%v, %v", resp, err)
		if err != nil {
			assert.False(t, sent, "sent all the same")
			tokLeaks(t, "the error", err.Error(), tokAccess)
			if e, perr := url.Parse(entry); perr == nil && e.User != nil {
				if password, _ := e.User.Password(); len(password) >= 10 && !strings.Contains(strings.ToLower(target), strings.ToLower(password)) {
					tokLeaks(t, "the error", err.Error(), password)
				}
			}
			return
		}
		if !sent {
			return
		}
		// The same question answered another way: from the parsed URL alone.
		host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
		if entry == "" {
			ip := net.ParseIP(host)
			assert.True(t, strings.EqualFold(u.Scheme, "https") || strings.EqualFold(u.Scheme, "http") && (host == "localhost" || ip != nil && ip.IsLoopback()), "sent to %q", target)
			return
		}
		e, err := url.Parse(entry)
		require.NoError(t, err, "an entry that is no URL lets the token out")
		listed := strings.ToLower(strings.TrimSuffix(e.Hostname(), "."))
		assert.True(t, strings.EqualFold(e.Scheme, u.Scheme), "%q let it go to %q", entry, target)
		assert.Equal(t, fuzzPort(e), fuzzPort(u), "%q let it go to %q", entry, target)
		if domain, ok := strings.CutPrefix(listed, "*."); ok {
			assert.True(t, domain != "" && strings.HasSuffix(host, "."+domain), "%q let it go to %q", entry, target)
		} else if a, b := net.ParseIP(listed), net.ParseIP(host); a != nil && b != nil {
			assert.True(t, a.Equal(b), "%q let it go to %q", entry, target)
		} else {
			assert.Equal(t, listed, host, "%q let it go to %q", entry, target)
		}
	})
}

// fuzzPort returns the port that a client would dial.
func fuzzPort(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"https": "443", "http": "80"}[strings.ToLower(u.Scheme)]
}

// W8
func FuzzValidate(f *testing.F) {
	for _, seed := range []string{
		"", " ", "a", "T1", "sk-1234", "1|abc", "eyJhbGciOiJub25lIn0.e30.", "a\r\nX-Admin: 1", "a\nb", "a\x00b", "a\x7fb", "\tx",
		"Bearer", "Bearer x", "bearer\tx", `"quoted"`, "${VAR}", "%VAR%", "<token>", "your_token_here", "ü", "\xff", "a b",
		"!#$&'*+.^_`|~", "=:,;@()[]{}<>?/\\", reauth.Placeholder, strings.Repeat("a", 70<<10),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		tok := reauth.Token{AccessToken: token}
		if err := tok.Validate(); err != nil {
			for problem := range maps.Values(tokProblems) {
				if problem.MatchString(err.Error()) {
					return
				}
			}
			t.Fatalf("an error of no known words, which may be the token's: %s", err)
		}
		// Through net/http as it is, onto a wire, and read back by its server half.
		client, server := net.Pipe()
		seen := make(chan []string, 1)
		go func() {
			defer server.Close()
			req, err := http.ReadRequest(bufio.NewReader(server))
			if err != nil {
				seen <- []string{"the server cannot read it: " + err.Error()}
				return
			}
			seen <- req.Header["Authorization"]
			_, _ = io.WriteString(server, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		}()
		wire := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return client, nil }}
		defer wire.CloseIdleConnections()
		rt := &reauth.Transport{Base: wire, Logger: discard, Credential: holding(t, &issuer{}, tok)}
		req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1/", nil)
		require.NoError(t, err)
		resp, err := rt.RoundTrip(req)
		if !assert.NoError(t, err, "net/http refuses what Validate lets pass") {
			_ = client.Close()
			return
		}
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, []string{"Bearer " + token}, <-seen)
	})
}
