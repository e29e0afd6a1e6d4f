package reauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// fuzzPort returns the port that a client would dial.
func fuzzPort(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"https": "443", "http": "80"}[strings.ToLower(u.Scheme)]
}

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

// Net/http itself copies Authorization to another port, another scheme
// and a subdomain, so these are the hops where others leak.
func TestTokenNeverSentToAnotherOrigin(t *testing.T) {
	const T, F = true, false
	for _, tt := range []struct {
		name    string
		origins []string
		hops    []string
		want    []bool // whether the token arrives there
	}{
		{"another host", nil, []string{"http://localhost", "http://127.0.0.1"}, []bool{T, F}},
		{"another port", nil, []string{"http://localhost", "http://localhost:8080"}, []bool{T, F}},
		{"another port with TLS", nil, []string{"https://example.com", "https://example.com:8443"}, []bool{T, F}},
		{"down to http", nil, []string{"https://example.com", "http://example.com"}, []bool{T, F}},
		{"down to http on loopback", nil, []string{"https://127.0.0.1", "http://127.0.0.1"}, []bool{T, F}},
		{"up to https", nil, []string{"http://127.0.0.1", "https://127.0.0.1"}, []bool{T, F}},
		{"a subdomain", nil, []string{"https://example.com", "https://api.example.com"}, []bool{T, F}},
		{"the parent domain", nil, []string{"https://api.example.com", "https://example.com"}, []bool{T, F}},
		{"another IPv6 address", nil, []string{"http://[::1]", "http://127.0.0.1"}, []bool{T, F}},
		{"our host as the user name", nil, []string{"http://localhost", "http://localhost@127.0.0.1"}, []bool{T, F}},
		{"there and back", nil, []string{"http://localhost", "http://127.0.0.1", "http://localhost"}, []bool{T, F, F}},
		{"there, back, and on at home", nil, []string{"http://localhost", "http://127.0.0.1", "http://localhost", "http://localhost"}, []bool{T, F, F, F}},
		{"back by a detour", nil, []string{"http://localhost", "http://127.0.0.1", "http://[::1]", "http://localhost"}, []bool{T, F, F, F}},
		{"at home first", nil, []string{"http://localhost", "http://localhost", "http://127.0.0.1"}, []bool{T, T, F}},
		{"listed, to unlisted", []string{"http://a.test"}, []string{"http://a.test", "http://b.test"}, []bool{T, F}},
		{"listed, there and back", []string{"http://a.test"}, []string{"http://a.test", "http://b.test", "http://a.test"}, []bool{T, F, F}},
		{"unlisted, to listed", []string{"http://a.test"}, []string{"http://b.test", "http://a.test"}, []bool{F, F}},
		{"listed, both", []string{"http://a.test", "http://b.test:8080"}, []string{"http://a.test", "http://b.test:8080", "http://a.test"}, []bool{T, T, T}},
		{"listed, one of three is not", []string{"http://a.test", "http://b.test"}, []string{"http://a.test", "http://b.test", "http://c.test", "http://b.test"}, []bool{T, T, F, F}},
		{"listed, a longer name", []string{"http://a.test"}, []string{"http://a.test", "http://a.test.evil.test"}, []bool{T, F}},
		{"wildcard, among its names", []string{"http://*.w.test"}, []string{"http://a.w.test", "http://b.w.test"}, []bool{T, T}},
		{"wildcard, to the apex", []string{"http://*.w.test"}, []string{"http://a.w.test", "http://w.test"}, []bool{T, F}},
		{"wildcard, to a lookalike", []string{"http://*.w.test"}, []string{"http://a.w.test", "http://evilw.test"}, []bool{T, F}},
		{"no origin at all", []string{}, []string{"https://example.com"}, []bool{F}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := secServe(t)
			cred, iss := secCredential(t)
			var outcomes []reauth.Outcome
			client := &http.Client{Transport: &reauth.Transport{
				Base: n.base, Credential: cred, Origins: tt.origins, RetryWait: -1, Logger: discard,
				OnOutcome: func(_ context.Context, o reauth.Outcome) { outcomes = append(outcomes, o) },
			}}
			resp, err := client.Get(secChain(tt.hops...))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())

			assert.Equal(t, tt.want, n.tokens(), "which hops saw the token")
			assert.Zero(t, iss.calls.Load(), "the 401 of a place where the token must not go says nothing about it")
			withheld := 0
			for _, o := range outcomes {
				if assert.NotEmpty(t, o.Withheld) {
					withheld++
				}
			}
			assert.Equal(t, strings.Count(fmt.Sprint(tt.want), "false"), withheld)
			if last := tt.want[len(tt.want)-1]; last {
				assert.Equal(t, http.StatusOK, resp.StatusCode)
			} else {
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				o, ok := reauth.OutcomeOf(resp)
				assert.True(t, ok)
				assert.NotEmpty(t, o.NotRetried)
			}
		})
	}
}

// A header that net/http does not know to be a credential is copied to
// every host, if only it stands on the caller's request.
func TestTokenNeverSentToAnotherOriginInAnotherHeader(t *testing.T) {
	n := secServe(t)
	cred, iss := secCredential(t)
	client := &http.Client{Transport: &reauth.Transport{Base: n.base, Credential: cred, Header: "X-Api-Key", Logger: discard}}
	resp, err := client.Get(secChain("http://localhost", "http://127.0.0.1", "http://localhost"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, []bool{true, false, false}, n.tokens())
	assert.Zero(t, iss.calls.Load())
}

func TestTokenSentAlongASameOriginRedirect(t *testing.T) {
	for _, tt := range []struct {
		name     string
		from, to string
	}{
		{"the same", "http://localhost", "http://localhost"},
		{"case of the host", "http://localhost", "http://LocalHost"},
		{"case of the scheme", "http://localhost", "HTTP://localhost"},
		{"default port", "http://localhost", "http://localhost:80"},
		{"default port first", "http://localhost:80", "http://localhost"},
		{"default port of https", "https://example.com", "https://example.com:443"},
		{"another port, the same", "http://localhost:8080", "http://localhost:8080"},
		{"empty port", "http://localhost", "http://localhost:"},
		{"trailing dot", "http://localhost", "http://localhost."},
		{"trailing dot first, and a port", "http://localhost.:80", "http://LOCALHOST"},
		{"IPv6 in full", "http://[::1]", "http://[0:0:0:0:0:0:0:1]"},
		{"IPv6 in capitals", "http://[::ffff:7f00:1]", "http://[::FFFF:7F00:1]"},
		{"IPv4-mapped", "http://127.0.0.1", "http://[::ffff:127.0.0.1]"},
		{"userinfo", "http://localhost", "http://user:word@localhost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := secServe(t)
			cred, _ := secCredential(t)
			// Override, because http.Client makes a Basic credential of a userinfo.
			client := &http.Client{Transport: &reauth.Transport{Base: n.base, Credential: cred, Override: true, Logger: discard}}
			resp, err := client.Get(secChain(tt.from, tt.to))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, []bool{true, true}, n.tokens())
			assert.Equal(t, http.StatusOK, resp.StatusCode)
		})
	}
}

// Req.Response leads through the chain; a chain that is broken, or goes in a
// ring, may have led anywhere.
func TestTokenNeverSentAfterABrokenChainOfRedirects(t *testing.T) {
	const here = "https://api.example.com/"
	follow := func(first *http.Request, more int) *http.Request {
		for range more {
			next := secRequest(t, http.MethodGet, here)
			next.Response = &http.Response{Request: first}
			first = next
		}
		return first
	}
	for _, tt := range []struct {
		name string
		req  func() *http.Request
		want bool
	}{
		{"whole", func() *http.Request { return follow(secRequest(t, http.MethodGet, here), 9) }, true},
		{"a response without a request", func() *http.Request {
			req := secRequest(t, http.MethodGet, here)
			req.Response = &http.Response{}
			return req
		}, false},
		{"the same, further back", func() *http.Request {
			req := secRequest(t, http.MethodGet, here)
			req.Response = &http.Response{}
			return follow(req, 3)
		}, false},
		{"a request without a URL", func() *http.Request { return follow(&http.Request{}, 1) }, false},
		{"a ring of one", func() *http.Request {
			req := secRequest(t, http.MethodGet, here)
			req.Response = &http.Response{Request: req}
			return req
		}, false},
		{"a ring of two", func() *http.Request {
			req := secRequest(t, http.MethodGet, here)
			last := follow(req, 1)
			req.Response = &http.Response{Request: last}
			return last
		}, false},
		{"foreign far back", func() *http.Request {
			return follow(secRequest(t, http.MethodGet, "https://evil.example.com/"), 9)
		}, false},
	} {
		for name, origins := range map[string][]string{"nil": nil, "listed": {"https://api.example.com"}} {
			t.Run(tt.name+", Origins "+name, func(t *testing.T) {
				cred, iss := secCredential(t)
				wire := &secWire{}
				tr := &reauth.Transport{Base: wire, Credential: cred, Origins: origins, Logger: discard}
				within(t, 5*time.Second, func() {
					resp, err := tr.RoundTrip(tt.req())
					if assert.NoError(t, err) {
						assert.NoError(t, resp.Body.Close())
					}
				})
				if assert.Len(t, wire.sent, 1) {
					assert.Equal(t, tt.want, wire.sent[0].Get("Authorization") != "")
				}
				assert.Zero(t, iss.calls.Load())
			})
		}
	}
}

// A Base that builds requests of its own loses the chain, which must not
// look like one that begins at home.
func TestTokenNeverSentBackWhereBaseLosesTheChain(t *testing.T) {
	n := secServe(t)
	cred, _ := secCredential(t)
	client := &http.Client{Transport: &reauth.Transport{
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			own := secRequest(t, req.Method, req.URL.String())
			own.Header = req.Header.Clone()
			return n.base.RoundTrip(own)
		}),
		Credential: cred, Logger: discard,
	}}
	resp, err := client.Get(secChain("http://localhost", "http://127.0.0.1", "http://localhost", "http://localhost"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, []bool{true, false, false, false}, n.tokens())
}

// A value that equals the held token is ours, also where the token
// must not go. net/http copies a request's Authorization to another port, and
// client-go's wrapper puts the token of the same file on every hop.
func TestTokenOfTheRequestNeverSentToAnotherOrigin(t *testing.T) {
	for _, tt := range []struct {
		name    string
		header  string
		origins []string
		hops    []string
		want    []bool
	}{
		{"Authorization, to another port", "", nil, []string{"http://localhost", "http://localhost:8080"}, []bool{true, false}},
		{"Authorization, down to http", "", nil, []string{"https://127.0.0.1", "http://127.0.0.1"}, []bool{true, false}},
		{"Authorization, to a port that is not listed", "", []string{"http://a.test"}, []string{"http://a.test", "http://a.test:8080"}, []bool{true, false}},
		{"another header, to another host", "X-Api-Key", nil, []string{"http://localhost", "http://127.0.0.1"}, []bool{true, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := secServe(t)
			cred, _ := secCredential(t)
			client := &http.Client{Transport: &reauth.Transport{Base: n.base, Credential: cred, Header: tt.header, Origins: tt.origins, Logger: discard}}
			req := secRequest(t, http.MethodGet, secChain(tt.hops...))
			if tt.header == "" {
				req.Header.Set("Authorization", "Bearer "+secToken)
			} else {
				req.Header.Set(tt.header, secToken)
			}
			resp, err := client.Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, tt.want, n.tokens())
		})
	}
	t.Run("a wrapper that sets it on every hop", func(t *testing.T) {
		n := secServe(t)
		cred, _ := secCredential(t)
		tr := &reauth.Transport{Base: n.base, Credential: cred, Logger: discard}
		client := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			req = req.Clone(req.Context())
			req.Header.Set("Authorization", "Bearer "+secToken)
			return tr.RoundTrip(req)
		})}
		resp, err := client.Get(secChain("http://localhost", "http://127.0.0.1"))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, []bool{true, false}, n.tokens())
	})
}

// A TRACE is echoed.
func TestTokenNeverSentWithTRACE(t *testing.T) {
	for _, brought := range []string{"", "Bearer " + secToken, "Bearer " + reauth.Placeholder} {
		cred, iss := secCredential(t)
		wire := &secWire{}
		tr := &reauth.Transport{Base: wire, Credential: cred, Override: true, Logger: discard}
		req := secRequest(t, http.MethodTrace, "https://api.example.com/")
		if brought != "" {
			req.Header.Set("Authorization", brought)
		}
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Len(t, wire.sent, 1)
		assert.Empty(t, wire.sent[0], "brought %q", brought)
		assert.Zero(t, iss.calls.Load())
	}
}

// Net/http copies a header of the SDK's own to every host that a redirect
// leads to, and what is withheld takes another path than what carries the token.
func TestPlaceholderNeverOnTheWire(t *testing.T) {
	forms := map[string]func(http.Header){
		"bearer":            func(h http.Header) { h.Set("Authorization", "Bearer "+reauth.Placeholder) },
		"lower case":        func(h http.Header) { h.Set("Authorization", "bearer "+reauth.Placeholder) },
		"another scheme":    func(h http.Header) { h.Set("Authorization", "ApiKey "+reauth.Placeholder) },
		"bare":              func(h http.Header) { h.Set("Authorization", reauth.Placeholder) },
		"blanks around":     func(h http.Header) { h["Authorization"] = []string{"  Bearer   " + reauth.Placeholder + "  "} },
		"behind a tab":      func(h http.Header) { h["Authorization"] = []string{"Bearer\t" + reauth.Placeholder} },
		"key in lower case": func(h http.Header) { h["authorization"] = []string{"Bearer " + reauth.Placeholder} },
		"key in both": func(h http.Header) {
			h["authorization"], h["Authorization"] = []string{reauth.Placeholder}, []string{reauth.Placeholder}
		},
		"another header":        func(h http.Header) { h.Set("X-Api-Key", reauth.Placeholder) },
		"another, lower case":   func(h http.Header) { h["x-api-key"] = []string{"Token " + reauth.Placeholder} },
		"one value of three":    func(h http.Header) { h["X-Keys"] = []string{"a", reauth.Placeholder, "b"} },
		"several headers":       func(h http.Header) { h.Set("Authorization", reauth.Placeholder); h.Set("Api-Key", reauth.Placeholder) },
		"beside one of his own": func(h http.Header) { h.Set("Authorization", "Bearer "+secOwn); h.Set("X-Api-Key", reauth.Placeholder) },
		"behind one of his own": func(h http.Header) { h["Authorization"] = []string{secOwn, "Bearer " + reauth.Placeholder} },
	}
	ways := []struct {
		name    string
		origins []string
		ctx     context.Context
		hops    []string
	}{
		{"home", nil, t.Context(), []string{"http://localhost"}},
		{"to another host and back", nil, t.Context(), []string{"http://localhost", "http://127.0.0.1", "http://localhost"}},
		{"to an unlisted origin", []string{"https://api.example.com"}, t.Context(), []string{"http://elsewhere.test"}},
		{"without a token", nil, reauth.WithoutToken(t.Context()), []string{"http://localhost"}},
	}
	n := secServe(t)
	for form, set := range forms {
		for _, way := range ways {
			t.Run(form+", "+way.name, func(t *testing.T) {
				cred, _ := secCredential(t)
				client := &http.Client{Transport: &reauth.Transport{Base: n.base, Credential: cred, Origins: way.origins, Logger: discard}}
				req := secRequest(t, http.MethodGet, secChain(way.hops...)).WithContext(way.ctx)
				set(req.Header)
				req.Header.Set("X-Other", "kept")
				before := req.Header.Clone()
				resp, err := client.Do(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				seen := n.headers()
				assert.Len(t, seen, len(way.hops))
				for _, h := range seen {
					assert.NotContains(t, fmt.Sprint(h), reauth.Placeholder)
					assert.Equal(t, "kept", h.Get("X-Other"))
					if _, ok := before["X-Keys"]; ok {
						assert.Equal(t, []string{"a", "b"}, h["X-Keys"], "the values beside it are the caller's")
					}
				}
				assert.Equal(t, before, req.Header, "the caller's request is not touched")
			})
		}
	}
}

// In the Transport's own header it is where the token goes.
func TestPlaceholderReplacedByTheToken(t *testing.T) {
	for _, tt := range []struct{ header, key, value, want string }{
		{"", "Authorization", "Bearer " + reauth.Placeholder, "Bearer " + secToken},
		{"", "authorization", reauth.Placeholder, "Bearer " + secToken},
		{"", "Authorization", "Bearer ", "Bearer " + secToken}, // what an SDK makes of an empty key
		{"", "Authorization", "bearer", "Bearer " + secToken},
		{"", "Authorization", "", "Bearer " + secToken},
		{"X-Api-Key", "X-Api-Key", reauth.Placeholder, secToken},
		{"x-api-key", "x-api-key", reauth.Placeholder, secToken},
	} {
		cred, _ := secCredential(t)
		wire := &secWire{}
		req := secRequest(t, http.MethodGet, "https://api.example.com/")
		req.Header[tt.key] = []string{tt.value}
		resp, err := (&reauth.Transport{Base: wire, Credential: cred, Header: tt.header, Logger: discard}).RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Len(t, wire.sent, 1)
		assert.Equal(t, http.Header{http.CanonicalHeaderKey(tt.key): {tt.want}}, wire.sent[0], "%s: %s", tt.key, tt.value)
	}
}

// An SDK's key from the environment makes reauth inert. That is the
// caller's right, and said once.
func TestOwnCredentialSentUnchanged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header string // the Transport's
		own    http.Header
	}{
		{"bearer", "", http.Header{"Authorization": {"Bearer " + secOwn}}},
		{"basic", "", http.Header{"Authorization": {"Basic dXNlcjpwYXNzd29yZA=="}}},
		{"bare", "", http.Header{"Authorization": {secOwn}}},
		{"key in lower case", "", http.Header{"authorization": {"Bearer " + secOwn}}},
		{"key in lower case, and nothing under the right one", "", http.Header{"Authorization": nil, "authorization": {"Bearer " + secOwn}}},
		{"the second value", "", http.Header{"Authorization": {"Bearer " + secToken, "Bearer " + secOwn}}},
		{"behind one held before", "", http.Header{"Authorization": {"Bearer " + secOlder, "Bearer " + secOwn}}},
		{"the token and more", "", http.Header{"Authorization": {"Bearer " + secToken + "x"}}},
		{"another header", "x-api-key", http.Header{"X-Api-Key": {secOwn}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cred, iss := secCredential(t)
			logs := &journal{}
			var sent []http.Header
			var outcomes []reauth.Outcome
			tr := &reauth.Transport{
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					sent = append(sent, req.Header.Clone())
					return answer(req, http.StatusUnauthorized, "wrong key"), nil
				}),
				Credential: cred, Header: tt.header, Logger: logs.logger(), RetryWait: -1,
				OnOutcome: func(_ context.Context, o reauth.Outcome) { outcomes = append(outcomes, o) },
			}
			for range 3 {
				req := secRequest(t, http.MethodGet, "https://api.example.com/")
				maps.Copy(req.Header, tt.own)
				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				assert.Equal(t, "wrong key", string(body))
				assert.Equal(t, tt.own, resp.Request.Header)
			}
			assert.Equal(t, []http.Header{tt.own, tt.own, tt.own}, sent, "as it came, and only once")
			assert.Zero(t, iss.calls.Load())
			warnings := logs.records(t, slog.LevelWarn)
			if assert.Len(t, warnings, 1) {
				assert.Contains(t, warnings[0]["hint"], "Override")
			}
			assert.Len(t, outcomes, 3)
			for _, v := range []string{secOwn, "dXNlcjpwYXNzd29yZA", secToken} {
				assert.NotContains(t, logs.text()+fmt.Sprintf("%+v", outcomes), v)
			}
		})
	}
}

// A request's own credential that is accepted is not a mistake.
func TestOwnCredentialAcceptedIsNoWarning(t *testing.T) {
	cred, _ := secCredential(t)
	logs := &journal{}
	tr := &reauth.Transport{
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			assert.Equal(t, "Bearer "+secOwn, req.Header.Get("Authorization"))
			return answer(req, http.StatusOK, ""), nil
		}),
		Credential: cred, Logger: logs.logger(),
	}
	req := secRequest(t, http.MethodGet, "https://api.example.com/")
	req.Header.Set("Authorization", "Bearer "+secOwn)
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Empty(t, logs.records(t, slog.LevelInfo))
}

// Gateways repeat the key that they refuse.
func TestOwnCredentialNeverInTheLog(t *testing.T) {
	cred, _ := secCredential(t)
	logs := &journal{}
	var outcome reauth.Outcome
	tr := &reauth.Transport{
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return answer(req, http.StatusUnauthorized,
				`{"error":{"code":"`+secOwn+`","message":"Incorrect API key provided: `+secOwn+`. (request id: `+secOwn+`)"}}`,
				"WWW-Authenticate", `Bearer error="invalid_token", error_description="`+secOwn+`"`), nil
		}),
		Credential: cred, Logger: logs.logger(),
		OnOutcome: func(_ context.Context, o reauth.Outcome) { outcome = o },
	}
	req := secRequest(t, http.MethodGet, "https://api.example.com/")
	req.Header.Set("Authorization", "Bearer "+secOwn)
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.NotEmpty(t, logs.text())
	assert.NotContains(t, logs.text(), secOwn)
	require.NotEmpty(t, outcome.Rejection.Reason)
	assert.NotContains(t, fmt.Sprintf("%+v", outcome), secOwn)
}

// Client-go's wrapper reads the same file, a little later or earlier.
func TestOwnCredentialThatTheCredentialHeld(t *testing.T) {
	for _, tt := range []struct {
		name, brings, want string
	}{
		{"the held one", "Bearer " + secToken, "Bearer " + secToken},
		{"one held before", "Bearer " + secOlder, "Bearer " + secToken},
		{"without its scheme", secOlder, "Bearer " + secToken},
		{"with another scheme", "Token " + secOlder, "Bearer " + secToken},
		{"one never held", "Bearer " + secOlder + "x", "Bearer " + secOlder + "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cred, _ := secCredential(t)
			wire := &secWire{}
			req := secRequest(t, http.MethodGet, "https://api.example.com/")
			req.Header.Set("Authorization", tt.brings)
			resp, err := (&reauth.Transport{Base: wire, Credential: cred, Logger: discard}).RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Len(t, wire.sent, 1)
			assert.Equal(t, http.Header{"Authorization": {tt.want}}, wire.sent[0])
			assert.Equal(t, tt.brings, req.Header.Get("Authorization"), "the caller's request is not touched")
		})
	}
	t.Run("and is refreshed after its 401", func(t *testing.T) {
		cred, iss := secCredential(t)
		req := secRequest(t, http.MethodGet, "https://api.example.com/")
		req.Header.Set("Authorization", "Bearer "+secToken)
		resp, err := (&reauth.Transport{Base: accepting("T1"), Credential: cred, RetryWait: -1, Logger: discard}).RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		assert.EqualValues(t, 1, iss.calls.Load())
	})
	t.Run("and not asked for by a Credential that has had none yet", func(t *testing.T) {
		is := &issuer{}
		cred := &reauth.Credential{Refresher: is, Logger: discard}
		req := secRequest(t, http.MethodGet, "https://api.example.com/")
		req.Header.Set("Authorization", "Bearer T1")
		resp, err := (&reauth.Transport{Base: accepting("T1"), Credential: cred, RetryWait: -1, Logger: discard}).RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		assert.Zero(t, is.calls.Load(), "a request with a credential of its own waits for no issuer")
	})
	t.Run("and left alone if that cannot be found out", func(t *testing.T) {
		cred := &reauth.Credential{Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, errors.New("no")
		}), Logger: discard}
		req := secRequest(t, http.MethodGet, "https://api.example.com/")
		req.Header.Set("Authorization", "Bearer T1")
		resp, err := (&reauth.Transport{Base: accepting("T1"), Credential: cred, Logger: discard}).RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, http.StatusOK, resp.StatusCode)
	})
	// It stands for the identity that has logged out, and must not turn
	// into the next one's.
	t.Run("but not after a logout", func(t *testing.T) {
		cred := holding(t, &issuer{}, reauth.Token{AccessToken: secOlder})
		require.NoError(t, cred.Clear(t.Context()))
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: secToken}))
		wire := &secWire{}
		req := secRequest(t, http.MethodGet, "https://api.example.com/")
		req.Header.Set("Authorization", "Bearer "+secOlder)
		resp, err := (&reauth.Transport{Base: wire, Credential: cred, Logger: discard}).RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.NotContains(t, fmt.Sprint(wire.sent), secToken)
	})
}

func TestOverrideReplacesTheOwnCredential(t *testing.T) {
	for _, own := range []http.Header{
		{"Authorization": {"Bearer " + secOwn}},
		{"authorization": {"Bearer " + secOwn}},
		{"Authorization": {"Basic dXNlcjpw", secOwn}, "AUTHORIZATION": {secOwn}},
	} {
		cred, _ := secCredential(t)
		wire := &secWire{}
		req := secRequest(t, http.MethodGet, "https://api.example.com/")
		maps.Copy(req.Header, own)
		req.Header.Set("X-Other", "kept")
		resp, err := (&reauth.Transport{Base: wire, Credential: cred, Override: true, Logger: discard}).RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, []http.Header{{"Authorization": {"Bearer " + secToken}, "X-Other": {"kept"}}}, wire.sent)
	}
}

func TestCredentialForKeepsTenantsApart(t *testing.T) {
	issuers := map[string]*issuer{}
	tenants := map[string]*reauth.Credential{}
	for _, name := range []string{"a", "b"} {
		issuers[name] = &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{AccessToken: "fresh-" + name}, nil
		}}
		tenants[name] = holding(t, issuers[name], reauth.Token{AccessToken: "stale-" + name})
	}
	asked := 0
	var sent []string
	tr := &reauth.Transport{
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sent = append(sent, req.Header.Get("X-Tenant")+" "+req.Header.Get("Authorization"))
			if req.Header.Get("Authorization") == "Bearer stale-b" {
				return answer(req, http.StatusUnauthorized, ""), nil
			}
			return answer(req, http.StatusOK, ""), nil
		}),
		Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "not-this-one"}), // CredentialFor wins
		CredentialFor: func(req *http.Request) (*reauth.Credential, error) {
			asked++
			return tenants[req.Header.Get("X-Tenant")], nil
		},
		Origins: []string{"https://api.example.com"}, RetryWait: -1, Logger: discard,
	}
	for _, to := range []struct{ tenant, url string }{
		{"a", "https://api.example.com/"}, {"b", "https://api.example.com/"}, {"a", "https://elsewhere.example.com/"},
	} {
		req := secRequest(t, http.MethodGet, to.url)
		req.Header.Set("X-Tenant", to.tenant)
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	assert.Equal(t, []string{"a Bearer stale-a", "b Bearer stale-b", "b Bearer fresh-b", "a "}, sent)
	assert.Equal(t, 2, asked, "once per request that may carry a token, its retry included")
	assert.Zero(t, issuers["a"].calls.Load())
	assert.EqualValues(t, 1, issuers["b"].calls.Load())
}

func TestCredentialForFails(t *testing.T) {
	errTenant := errors.New("no such tenant: https://admin:hunter2@vault.test/?key=hunter2")
	for _, tt := range []struct {
		name string
		cred *reauth.Credential
		err  error
		want string
	}{
		{"an error", nil, errTenant, "CredentialFor: no such tenant"},
		{"an error and a Credential", &reauth.Credential{}, errTenant, "CredentialFor: no such tenant"},
		{"neither", nil, nil, "CredentialFor returned no Credential"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wire := &secWire{}
			body := &secBody{Reader: strings.NewReader("x")}
			tr := &reauth.Transport{
				Base: wire, Logger: discard,
				CredentialFor: func(*http.Request) (*reauth.Credential, error) { return tt.cred, tt.err },
			}
			req, err := http.NewRequest(http.MethodPost, "https://api.example.com/", body)
			require.NoError(t, err)
			resp, err := tr.RoundTrip(req)
			assert.Nil(t, resp)
			require.ErrorContains(t, err, tt.want)
			if tt.err != nil {
				assert.ErrorIs(t, err, errTenant)
			}
			assert.True(t, strings.HasPrefix(err.Error(), "reauth: "), err.Error())
			assert.NotContains(t, fmt.Sprintf("%v %+v %#v %s %q", err, err, err, err, err), "hunter2")
			assert.Equal(t, 1, body.closed)
			assert.Empty(t, wire.sent)
		})
	}
}

func TestOrigins(t *testing.T) {
	const sent, withheld, insecure = "sent", "withheld", "insecure"
	for _, tt := range []struct {
		name    string
		origins []string
		url     string
		want    string
	}{
		{"nil: https", nil, "https://api.example.com/", sent},
		{"nil: https on any port", nil, "https://api.example.com:8443/", sent},
		{"nil: scheme in capitals", nil, "HTTPS://api.example.com/", sent},
		{"nil: http", nil, "http://api.example.com/", insecure},
		{"nil: http by address", nil, "http://192.168.0.1:3000/", insecure},
		{"nil: http by IPv6", nil, "http://[fe80::1]/", insecure},
		{"nil: http to all interfaces", nil, "http://0.0.0.0/", insecure},
		{"nil: localhost", nil, "http://localhost:3000/", sent},
		{"nil: localhost in capitals", nil, "http://LOCALHOST/", sent},
		{"nil: localhost with a dot", nil, "http://localhost./", sent},
		{"nil: IPv4 loopback", nil, "http://127.8.9.10/", sent},
		{"nil: IPv6 loopback", nil, "http://[::1]:8080/", sent},
		{"nil: IPv4-mapped loopback", nil, "http://[::ffff:127.0.0.1]/", sent},
		{"nil: IPv4-mapped", nil, "http://[::ffff:10.0.0.1]/", insecure},
		{"nil: begins with localhost", nil, "http://localhost.evil.example/", insecure},
		{"nil: ends with localhost", nil, "http://evillocalhost/", insecure},
		{"nil: begins with 127.", nil, "http://127.0.0.1.evil.example/", insecure},
		{"nil: localhost as the user", nil, "http://localhost@evil.example/", insecure},
		{"nil: another scheme", nil, "ftp://api.example.com/", withheld},
		{"empty: https", []string{}, "https://api.example.com/", withheld},
		{"empty: http", []string{}, "http://api.example.com/", withheld},
		{"empty: loopback", []string{}, "http://localhost/", withheld},
		{"listed", []string{"https://api.example.com"}, "https://api.example.com/v1", sent},
		{"listed second", []string{"https://a.test", "https://api.example.com"}, "https://api.example.com/v1", sent},
		{"another host", []string{"https://api.example.com"}, "https://other.example.com/", withheld},
		{"another port", []string{"https://api.example.com"}, "https://api.example.com:8443/", withheld},
		{"another scheme", []string{"https://api.example.com"}, "http://api.example.com/", withheld},
		{"another scheme, its port", []string{"https://api.example.com"}, "http://api.example.com:443/", withheld},
		{"loopback is not listed", []string{"https://api.example.com"}, "http://localhost/", withheld},
		{"a suffix of it", []string{"https://api.example.com"}, "https://evilapi.example.com/", withheld},
		{"a prefix of it", []string{"https://api.example.com"}, "https://api.example.com.evil.example/", withheld},
		{"it is the user name", []string{"https://api.example.com"}, "https://api.example.com@evil.example/", withheld},
		{"it has a user name", []string{"https://api.example.com"}, "https://user:word@api.example.com/", sent},
		{"case", []string{"HTTPS://API.Example.COM"}, "https://api.EXAMPLE.com/", sent},
		{"default port listed", []string{"https://api.example.com:443"}, "https://api.example.com/", sent},
		{"default port asked", []string{"https://api.example.com"}, "https://api.example.com:443/", sent},
		{"the other's default port", []string{"http://api.example.com:443"}, "http://api.example.com/", withheld},
		{"trailing dot listed", []string{"https://api.example.com."}, "https://api.example.com/", sent},
		{"trailing dot asked", []string{"https://api.example.com"}, "https://api.example.com./", sent},
		{"trailing slash listed", []string{"https://api.example.com/"}, "https://api.example.com/", sent},
		{"plain http, on purpose", []string{"http://gateway.lan:3000"}, "http://gateway.lan:3000/v1", sent},
		{"plain http, another port", []string{"http://gateway.lan:3000"}, "http://gateway.lan/v1", withheld},
		{"IPv6", []string{"https://[2001:db8::1]:8443"}, "https://[2001:DB8:0:0::1]:8443/", sent},
		{"another IPv6", []string{"https://[2001:db8::1]"}, "https://[2001:db8::2]/", withheld},
		{"IPv4-mapped asked", []string{"https://192.0.2.1"}, "https://[::ffff:192.0.2.1]/", sent},
		{"IPv4-mapped listed", []string{"https://[::ffff:c000:201]"}, "https://192.0.2.1/", sent},
		{"wildcard", []string{"https://*.example.com"}, "https://api.example.com/", sent},
		{"wildcard, deeper", []string{"https://*.example.com"}, "https://a.b.EXAMPLE.com./", sent},
		{"wildcard, apex", []string{"https://*.example.com"}, "https://example.com/", withheld},
		{"wildcard, lookalike", []string{"https://*.example.com"}, "https://evilexample.com/", withheld},
		{"wildcard, in front", []string{"https://*.example.com"}, "https://api.example.com.evil.example/", withheld},
		{"wildcard, another port", []string{"https://*.example.com"}, "https://api.example.com:8443/", withheld},
		{"wildcard with a port", []string{"https://*.example.com:8443"}, "https://api.example.com:8443/", sent},
		{"wildcard, http", []string{"https://*.example.com"}, "http://api.example.com/", withheld},
		{"wildcard, itself", []string{"https://*.example.com"}, "https://*.example.com/", sent},
		{"internationalised", []string{"https://bücher.example"}, "https://bücher.example/", sent},
		{"internationalised, encoded", []string{"https://xn--bcher-kva.example"}, "https://xn--bcher-kva.example/", sent},
		{"internationalised wildcard", []string{"https://*.bücher.example"}, "https://api.bücher.example/", sent},
		{"Cyrillic a", []string{"https://api.example.com"}, "https://аpi.example.com/", withheld},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cred, iss := secCredential(t)
			wire := &secWire{}
			body := &secBody{Reader: strings.NewReader("x")}
			tr := &reauth.Transport{Base: wire, Credential: cred, Origins: tt.origins, Logger: discard}
			req, err := http.NewRequest(http.MethodPost, tt.url, body)
			require.NoError(t, err)
			resp, err := tr.RoundTrip(req)
			got := withheld
			if err != nil {
				require.ErrorIs(t, err, reauth.ErrInsecure)
				assert.Empty(t, wire.sent)
				got = insecure
			} else {
				require.NoError(t, resp.Body.Close())
				require.Len(t, wire.sent, 1)
				if wire.sent[0].Get("Authorization") == "Bearer "+secToken {
					got = sent
				} else if tt.origins != nil {
					o, _ := reauth.OutcomeOf(resp)
					assert.Equal(t, reauth.AdviceListOrigin, o.Advice, "what to do")
				}
			}
			assert.Equal(t, tt.want, got)
			assert.Equal(t, 1, body.closed)
			assert.Zero(t, iss.calls.Load())
		})
	}
}

// Net/http encodes a name by IDNA, in which capitals of other alphabets do
// not become what strings.ToLower makes of them. İ there is an i, here another
// domain, which anyone can register.
func TestTokenNeverSentToAnInternationalizedLookalike(t *testing.T) {
	for _, tt := range []struct {
		name    string
		origins []string
		hops    []string
	}{
		{"listed", []string{"http://api.test"}, []string{"http://apİ.test"}},
		{"wildcard", []string{"http://*.api.test"}, []string{"http://x.apİ.test"}},
		{"percent-encoded", []string{"http://api.test"}, []string{"http://ap%C4%B0.test"}},
		{"internationalised itself", []string{"http://straße.test"}, []string{"http://straẞe.test"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := secServe(t)
			cred, _ := secCredential(t)
			client := &http.Client{Transport: &reauth.Transport{Base: n.base, Credential: cred, Origins: tt.origins, Logger: discard}}
			resp, err := client.Get(secChain(tt.hops...))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, []bool{false}, n.tokens(), "dialed %q", n.dialed)
		})
	}
	t.Run("by a redirect", func(t *testing.T) {
		// Without TLS for these names: no list, and so a Base that only looks.
		cred, _ := secCredential(t)
		wire := &secWire{}
		req := secRequest(t, http.MethodGet, "https://apİ.example.com/")
		req.Response = &http.Response{Request: secRequest(t, http.MethodGet, "https://api.example.com/")}
		resp, err := (&reauth.Transport{Base: wire, Credential: cred, Logger: discard}).RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, []http.Header{{}}, wire.sent)
	})
}

// One that is not understood is not taken for none, nor for any.
func TestOriginsMalformed(t *testing.T) {
	for _, entry := range []string{
		"", " ", "api.example.com", "api.example.com:443", "*.example.com", "//api.example.com", "*", "null",
		"https://", "https:///path", "https:api.example.com", "ftp://api.example.com", "wss://api.example.com",
		"https://api.example.com/v1", "https://api.example.com/?key=hunter2", "https://api.example.com?", "https://api.example.com/#top",
		"https://api.example.com:", "https://api.example.com:0", "https://api.example.com:65536", "https://api.example.com:x", "https://api.example.com:-1",
		"https://*", "https://*.", "https://*example.com", "https://api.*.com", "https://*.*.example.com", "https://**.example.com", "https://.", "https://.example.com",
		"https://a.test,https://b.test", "https://a.test,b.test", "https://a.test https://b.test", "https://[::1", "https://::1", "https://[*.::1]",
		"https://user:hunter2@api.example.com", "https://user:hunter2@[::1", "https://user:hunter2@api.example.com/\x00", "https://user:hunter2@api.example.com:port",
		"https://api.example.com\n", "https://api%2eexample.com",
	} {
		t.Run(entry, func(t *testing.T) {
			cred, _ := secCredential(t)
			wire := &secWire{}
			tr := &reauth.Transport{Base: wire, Credential: cred, Origins: []string{"https://good.example.com", entry}, Logger: discard}
			for _, to := range []string{"https://good.example.com/", "https://api.example.com/"} {
				body := &secBody{Reader: strings.NewReader("x")}
				req, err := http.NewRequest(http.MethodPost, to, body)
				require.NoError(t, err)
				resp, err := tr.RoundTrip(req)
				assert.Nil(t, resp)
				require.ErrorContains(t, err, "reauth: Transport.Origins[1]")
				assert.NotContains(t, err.Error(), "hunter2")
				assert.NotContains(t, err.Error(), "\n")
				assert.Equal(t, 1, body.closed)
			}
			assert.Empty(t, wire.sent)
		})
	}
}

// The error is the documentation that is read.
func TestErrInsecureNamesTheOrigin(t *testing.T) {
	line := regexp.MustCompile(`Origins: \[\]string\{("[^"]+")\}`)
	for _, rawURL := range []string{
		"http://gateway.lan:3000/v1?key=hunter2", "http://Gateway.LAN.:80/", "http://user:hunter2@10.0.0.1/", "http://[fe80::1]:3000/",
	} {
		cred, _ := secCredential(t)
		wire := &secWire{}
		body := &secBody{Reader: strings.NewReader("x")}
		req, err := http.NewRequest(http.MethodPost, rawURL, body)
		require.NoError(t, err)
		_, err = (&reauth.Transport{Base: wire, Credential: cred, Logger: discard}).RoundTrip(req)
		require.ErrorIs(t, err, reauth.ErrInsecure)
		assert.NotContains(t, err.Error(), "hunter2")
		assert.Equal(t, 1, body.closed)
		assert.Empty(t, wire.sent, "refused before sending")

		m := line.FindStringSubmatch(err.Error())
		require.NotNil(t, m, err.Error())
		var entry string
		require.NoError(t, json.Unmarshal([]byte(m[1]), &entry))
		get(t, &reauth.Transport{Base: wire, Credential: cred, Origins: []string{entry}, Logger: discard}, rawURL)
		assert.Equal(t, []http.Header{{"Authorization": {"Bearer " + secToken}}}, wire.sent, entry)
	}
}

// querySite has a Transport that sends the token in a query parameter, and the URLs that
// were sent.
func querySite(t *testing.T) (*site, *[]string) {
	s := newSite()
	var urls []string
	require.NoError(t, s.cred.Set(t.Context(), reauth.Token{AccessToken: "to/k en&1"}))
	s.rt.Query = "access_token"
	s.rt.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		urls = append(urls, req.URL.String())
		assert.Empty(t, req.Header["Authorization"])
		if !s.accepts(req, req.URL.Query().Get("access_token")) {
			return answer(req, http.StatusUnauthorized, ""), nil
		}
		return answer(req, http.StatusOK, ""), nil
	})
	return s, &urls
}

func TestQueryCarriesTheToken(t *testing.T) {
	for name, tt := range map[string]struct{ url, want string }{
		"no query":          {"https://a.test/x", "https://a.test/x?access_token=to%2Fk+en%261"},
		"a query":           {"https://a.test/x?b=%7e&a=1&&c", "https://a.test/x?b=%7e&a=1&&c&access_token=to%2Fk+en%261"},
		"Placeholder":       {"https://a.test/x?access_token=reauth-placeholder&b=2", "https://a.test/x?b=2&access_token=to%2Fk+en%261"},
		"our own token":     {"https://a.test/x?access_token=to%2fk%20en%261", "https://a.test/x?access_token=to%2Fk+en%261"},
		"another parameter": {"https://a.test/x?access_token2=v", "https://a.test/x?access_token2=v&access_token=to%2Fk+en%261"},
		"own credential":    {"https://a.test/x?access_token=mine&b=2", "https://a.test/x?access_token=mine&b=2"},
		"empty":             {"https://a.test/x?access_token=", "https://a.test/x?access_token=to%2Fk+en%261"},
	} {
		t.Run(name, func(t *testing.T) {
			s, urls := querySite(t)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tt.url, nil)
			require.NoError(t, err)
			resp, err := s.rt.RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, []string{tt.want}, *urls)
			assert.Equal(t, tt.url, req.URL.String(), "the caller's request is not touched")
			assert.Equal(t, tt.url, resp.Request.URL.String())
		})
	}
}

func TestQueryRetryCarriesTheNewToken(t *testing.T) {
	s, urls := querySite(t)
	s.accepts = func(_ *http.Request, token string) bool { return token == "T1" }
	s.rt.Classifier = reauth.ClassifierFunc(func(resp *http.Response, _ func() []byte) reauth.Rejection {
		assert.NotContains(t, resp.Request.URL.String(), "to%2Fk")
		assert.NotContains(t, resp.Request.URL.String(), "T1")
		if resp.StatusCode != http.StatusUnauthorized {
			return reauth.Rejection{}
		}
		return reauth.Rejection{Reason: reauth.ReasonExpired}
	})
	status, o := s.get(t, "https://a.test/?q=1")
	assert.Equal(t, http.StatusOK, status)
	assert.True(t, o.Recovered())
	assert.Equal(t, []string{"https://a.test/?q=1&access_token=to%2Fk+en%261", "https://a.test/?q=1&access_token=T1"}, *urls)
}

func TestQueryOverrideReplacesTheOwnCredential(t *testing.T) {
	s, urls := querySite(t)
	s.rt.Override = true
	s.get(t, "https://a.test/?access_token=mine")
	assert.Equal(t, []string{"https://a.test/?access_token=to%2Fk+en%261"}, *urls)
}

// A server echoes the token in the Location of a redirect to another origin.
func TestQueryTokenNeverSentToAnotherOrigin(t *testing.T) {
	s, urls := querySite(t)
	s.rt.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		*urls = append(*urls, req.URL.String())
		if req.URL.Host == "a.test" {
			return answer(req, http.StatusFound, "", "Location", "https://b.test/?access_token="+url.QueryEscape("to/k en&1")+"&b=2"), nil
		}
		return answer(req, http.StatusOK, ""), nil
	})
	resp, err := (&http.Client{Transport: s.rt}).Get("https://a.test/")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, []string{"https://a.test/?access_token=to%2Fk+en%261", "https://b.test/?b=2"}, *urls)
}

func TestQueryTokenNeverInTheErrorOfBase(t *testing.T) {
	for name, text := range map[string]string{
		"escaped": "Get https://a.test/?access_token=to%2Fk+en%261: refused",
		"plain":   "token to/k en&1 is refused",
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := querySite(t)
			cause := errors.New(text)
			s.rt.Base = roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, cause })
			req, err := http.NewRequest(http.MethodGet, apiURL, nil)
			require.NoError(t, err)
			_, err = s.rt.RoundTrip(req)
			assert.ErrorIs(t, err, cause)
			assert.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "to/k")
			assert.NotContains(t, err.Error(), "to%2Fk")
			assert.Contains(t, err.Error(), "refused")
		})
	}
	s, _ := querySite(t)
	cause := errors.New("refused")
	s.rt.Base = roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, cause })
	req, err := http.NewRequest(http.MethodGet, apiURL, nil)
	require.NoError(t, err)
	_, err = s.rt.RoundTrip(req)
	assert.Equal(t, cause, err, "not wrapped without need")
}

func TestPlaceholderInAQueryIsNamedOnce(t *testing.T) {
	s := newSite()
	var j journal
	s.rt.Logger = j.logger()
	for range 3 {
		s.get(t, "https://a.test/?key="+reauth.Placeholder)
	}
	records := j.records(t, slog.LevelWarn)
	require.Len(t, records, 1)
	assert.Contains(t, records[0]["hint"], "Transport.Query")
}

func TestAnonymous(t *testing.T) {
	t.Run("no token is needed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.rt.Anonymous = true
			for range 3 {
				status, o := s.get(t, apiURL)
				assert.Equal(t, http.StatusOK, status)
				assert.Empty(t, o.Withheld)
			}
			assert.Zero(t, s.refreshes())
			assert.Equal(t, []string{"a.test/ ", "a.test/ ", "a.test/ "}, s.sent)
		})
	})
	t.Run("the first 401 has the challenge", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.rt.Anonymous = true
			s.accepts = func(_ *http.Request, token string) bool { return token == "T1" }
			s.challenge = func(*http.Request) string {
				return `Bearer realm="https://issuer.test/token",scope="repository:a:pull"`
			}
			s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
				time.Sleep(time.Second)
				return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
			}
			for range 10 {
				go func() {
					status, o := s.get(t, apiURL)
					assert.Equal(t, http.StatusOK, status)
					assert.True(t, o.Recovered())
					assert.Empty(t, o.First.Token)
				}()
			}
			time.Sleep(time.Minute)
			require.Equal(t, 1, s.refreshes())
			assert.Equal(t, reauth.Token{}, s.stale[0].Token)
			assert.Equal(t, "https://issuer.test/token", s.stale[0].Rejection.Challenges[0].Params["realm"])
			assert.True(t, s.stale[0].Rejection.Reason.Refreshable())
			s.sent = nil
			s.get(t, apiURL)
			assert.Equal(t, []string{"a.test/ T1"}, s.sent)
		})
	})
	t.Run("its success is no acceptance", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.rt.Anonymous = true
			s.get(t, apiURL)
			s.accepts = func(*http.Request, string) bool { return false }
			s.get(t, apiURL)
			_, o := s.get(t, apiURL)
			assert.Equal(t, reauth.NotRetriedTooYoung, o.NotRetried)
		})
	})
	t.Run("the Refresher fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.rt.Anonymous = true
			s.accepts = func(*http.Request, string) bool { return false }
			s.refresh = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, errors.New("down") }
			status, o := s.get(t, apiURL)
			assert.Equal(t, http.StatusUnauthorized, status)
			assert.Equal(t, reauth.NotRetriedNoToken, o.NotRetried)
		})
	})
	t.Run("after Clear", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.rt.Anonymous = true
			require.NoError(t, s.cred.Set(t.Context(), reauth.Token{AccessToken: "S"}))
			s.get(t, apiURL)
			require.NoError(t, s.cred.Clear(t.Context()))
			s.get(t, apiURL)
			assert.Equal(t, []string{"a.test/ S", "a.test/ "}, s.sent)
		})
	})
	t.Run("Clear during the request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.rt.Anonymous = true
			s.accepts = func(*http.Request, string) bool { _ = s.cred.Clear(context.Background()); return false }
			_, o := s.get(t, apiURL)
			assert.Equal(t, reauth.NotRetriedLoggedOut, o.NotRetried)
			assert.Zero(t, s.refreshes())
		})
	})
	t.Run("plain http", func(t *testing.T) {
		s := newSite()
		s.rt.Anonymous = true
		req, err := http.NewRequest(http.MethodGet, "http://a.test/", nil)
		require.NoError(t, err)
		_, err = s.rt.RoundTrip(req)
		assert.ErrorIs(t, err, reauth.ErrInsecure)
		assert.Empty(t, s.sent)
	})
}

func TestTokenNeverSentForAnotherHost(t *testing.T) {
	for name, tt := range map[string]struct {
		origins []string
		host    string
		want    reauth.Withheld
	}{
		"none":                     {nil, "", ""},
		"the same":                 {nil, "a.test", ""},
		"the same, canonical":      {nil, "A.TEST.:443", ""},
		"another":                  {nil, "b.test", reauth.WithheldHost},
		"another port":             {nil, "a.test:444", reauth.WithheldHost},
		"another, listed":          {[]string{"https://a.test", "https://b.test"}, "b.test", ""},
		"another, not listed":      {[]string{"https://a.test"}, "b.test", reauth.WithheldHost},
		"only the other is listed": {[]string{"https://b.test"}, "b.test", reauth.WithheldOrigin},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite()
			s.rt.Origins = tt.origins
			s.accepts = func(*http.Request, string) bool { return false }
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, apiURL, nil)
			require.NoError(t, err)
			req.Host = tt.host
			resp, err := s.rt.RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			o, _ := reauth.OutcomeOf(resp)
			assert.Equal(t, tt.want, o.Withheld)
			if tt.want != "" {
				assert.Equal(t, []string{"a.test/ "}, s.sent, "neither refreshed nor retried")
				assert.Zero(t, s.refreshes())
			}
		})
	}
}

func TestNewClientOrigins(t *testing.T) {
	r := reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) { return reauth.Token{AccessToken: "T1"}, nil })
	assert.Nil(t, reauth.NewClient(r).Transport.(*reauth.Transport).Origins)
	assert.Equal(t, []string{"https://a.test"}, reauth.NewClient(r, "https://a.test").Transport.(*reauth.Transport).Origins)
}

// The issuer hangs.
func TestOwnCredentialWaitsForNoIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.refresh = func(int, reauth.Stale) (reauth.Token, error) {
			time.Sleep(time.Hour)
			return reauth.Token{}, errors.New("down")
		}
		go func() { _, _ = s.cred.Token(context.Background()) }()
		synctest.Wait()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, apiURL, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer mine")
		start := time.Now()
		resp, err := s.rt.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Zero(t, time.Since(start))
		assert.Equal(t, []string{"a.test/ mine"}, s.sent)
		time.Sleep(2 * time.Hour)
	})
}
