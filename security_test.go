package reauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

const (
	secOlder = "an-older-token-55555"          // what it held before
	secToken = "held-token-0123456789"         // what the Credential holds
	secOwn   = "callers-own-credential-987654" // what a request brings along
)

// A secNet is two servers on loopback, one of them with TLS, that go by every
// name: a redirect may lead to any origin, and what arrives there is written
// down. Ports 443 and 8443 are those of TLS.
type secNet struct {
	base *http.Transport

	mu     sync.Mutex
	dialed []string      // host:port, as net/http understood the URL
	seen   []http.Header // of each request
	hosts  []string
}

func secServe(t testing.TB) *secNet {
	t.Helper()
	n := &secNet{}
	plain, tls := httptest.NewServer(n), httptest.NewTLSServer(n)
	t.Cleanup(plain.Close)
	t.Cleanup(tls.Close)
	n.base = tls.Client().Transport.(*http.Transport).Clone()
	n.base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.mu.Lock()
		n.dialed = append(n.dialed, addr)
		n.mu.Unlock()
		srv := plain
		if strings.HasSuffix(addr, "443") {
			srv = tls
		}
		return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
	}
	t.Cleanup(n.base.CloseIdleConnections)
	return n
}

// ServeHTTP redirects along the query's next, and answers 401 at the end to all
// but the right token.
func (n *secNet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	n.seen = append(n.seen, r.Header)
	n.hosts = append(n.hosts, r.Host)
	n.mu.Unlock()
	if next := r.URL.Query()["next"]; len(next) > 0 {
		http.SetCookie(w, &http.Cookie{Name: "jar", Value: "full"})
		w.Header().Set("Location", secChain(next...))
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+secToken {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// secChain returns the first URL, which redirects to the second, and so on.
func secChain(urls ...string) string {
	return urls[0] + "/?" + url.Values{"next": urls[1:]}.Encode()
}

// headers returns what arrived since it was last called.
func (n *secNet) headers() []http.Header {
	n.mu.Lock()
	defer n.mu.Unlock()
	seen := n.seen
	n.seen = nil
	return seen
}

// tokens reports for each request that arrived whether any header showed the
// token.
func (n *secNet) tokens() []bool {
	var all []bool
	for _, h := range n.headers() {
		all = append(all, strings.Contains(fmt.Sprint(h), secToken))
	}
	return all
}

// A secWire is a Base that answers 200 to whatever carries the held token, else
// 401, and keeps the headers that it got.
type secWire struct{ sent []http.Header }

func (w *secWire) RoundTrip(req *http.Request) (*http.Response, error) {
	w.sent = append(w.sent, req.Header.Clone())
	if strings.Contains(fmt.Sprint(req.Header), secToken) {
		return answer(req, http.StatusOK, "fine"), nil
	}
	return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
}

// A secBody counts how often it was closed.
type secBody struct {
	io.Reader
	closed int
}

func (b *secBody) Close() error { b.closed++; return nil }

// secCredential returns a Credential that holds secToken, held secOlder before,
// and its issuer.
func secCredential(t testing.TB) (*reauth.Credential, *issuer) {
	t.Helper()
	iss := &issuer{}
	cred := holding(t, iss, reauth.Token{AccessToken: secOlder})
	require.NoError(t, cred.Set(context.Background(), reauth.Token{AccessToken: secToken}))
	return cred, iss
}

func secRequest(t testing.TB, method, rawURL string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, rawURL, nil)
	require.NoError(t, err)
	return req
}

// S1, S2: net/http itself copies Authorization to another port, another scheme
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

// S1: a header that net/http does not know to be a credential is copied to
// every host, if only it stands on the caller's request.
func TestTokenInAnotherHeaderNeverSentToAnotherOrigin(t *testing.T) {
	n := secServe(t)
	cred, iss := secCredential(t)
	client := &http.Client{Transport: &reauth.Transport{Base: n.base, Credential: cred, Header: "X-Api-Key", Logger: discard}}
	resp, err := client.Get(secChain("http://localhost", "http://127.0.0.1", "http://localhost"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, []bool{true, false, false}, n.tokens())
	assert.Zero(t, iss.calls.Load())
}

// S3
func TestSameOriginRedirectKeepsTheToken(t *testing.T) {
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

// S1: req.Response leads through the chain; a chain that is broken, or goes in a
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

// S1, S6: a Base that builds requests of its own loses the chain, which must not
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

// S1, S2b, S4: a value that equals the held token is ours, also where the token
// must not go. net/http copies a request's Authorization to another port, and
// client-go's wrapper puts the token of the same file on every hop.
func TestTokenBroughtByTheRequestNeverSentToAnotherOrigin(t *testing.T) {
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

// S4: a TRACE is echoed.
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

// S2a: net/http copies a header of the SDK's own to every host that a redirect
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

// S2a: in the Transport's own header it is where the token goes.
func TestPlaceholderIsReplacedByTheToken(t *testing.T) {
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

// S2a, S2b: an SDK's key from the environment makes reauth inert. That is the
// caller's right, and said once.
func TestCallersOwnCredentialIsLeftAlone(t *testing.T) {
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

// S2a: an own credential that works is nobody's mistake.
func TestCallersOwnCredentialThatWorksIsNoWarning(t *testing.T) {
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

// S5 (rule 8): gateways repeat the key that they refuse.
func TestCallersOwnCredentialNeverInTheLog(t *testing.T) {
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

// S2b: client-go's wrapper reads the same file, a little later or earlier.
func TestTokenThatWasHeldBeforeIsOurs(t *testing.T) {
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
	// L3: it stands for the identity that has logged out, and must not turn
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

// S2b
func TestOverrideReplacesTheCallersCredential(t *testing.T) {
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

// S2
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

// S2, S5
func TestCredentialForThatFailsSendsNothing(t *testing.T) {
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

// S2: etcd wants the token bare, gateways want it in another header.
func TestHeaderAndSchemeOfTheToken(t *testing.T) {
	for _, tt := range []struct {
		header, scheme string
		want           http.Header
	}{
		{"", "", http.Header{"Authorization": {"Bearer " + secToken}}},
		{"Authorization", "", http.Header{"Authorization": {"Bearer " + secToken}}},
		{"authorization", "Token", http.Header{"Authorization": {"Token " + secToken}}},
		{"", reauth.NoScheme, http.Header{"Authorization": {secToken}}},
		{"x-api-key", "", http.Header{"X-Api-Key": {secToken}}},
		{"X-Api-Key", reauth.NoScheme, http.Header{"X-Api-Key": {secToken}}},
		{"X-Auth", "Key", http.Header{"X-Auth": {"Key " + secToken}}},
		{"X-Auth", "Bearer", http.Header{"X-Auth": {"Bearer " + secToken}}},
	} {
		cred, _ := secCredential(t)
		wire := &secWire{}
		resp := get(t, &reauth.Transport{Base: wire, Credential: cred, Header: tt.header, Scheme: tt.scheme, Logger: discard}, "https://api.example.com/")
		assert.Equal(t, []http.Header{tt.want}, wire.sent, "Header %q, Scheme %q", tt.header, tt.scheme)
		assert.Empty(t, resp.Request.Header)
	}
}

// S2, S3
func TestOriginsDecideWhereTheTokenGoes(t *testing.T) {
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
					assert.Contains(t, o.Withheld.Text(), "Transport.Origins", "where to look")
				}
			}
			assert.Equal(t, tt.want, got)
			assert.Equal(t, 1, body.closed)
			assert.Zero(t, iss.calls.Load())
		})
	}
}

// S3: net/http encodes a name by IDNA, in which capitals of other alphabets do
// not become what strings.ToLower makes of them. İ there is an i, here another
// domain, which anyone can register.
func TestTokenNeverSentToAnInternationalisedLookalike(t *testing.T) {
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

// S2, S5: one that is not understood is not taken for none, nor for any.
func TestMalformedOriginsFailTheFirstRequest(t *testing.T) {
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

// S2: the error is the documentation that is read.
func TestInsecureErrorNamesTheLineThatAllowsIt(t *testing.T) {
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

// S6: a Base may hand back the request that it was given, a copy, or none.
func TestResponseRequestNeverCarriesTheToken(t *testing.T) {
	for name, request := range map[string]func(*http.Request) *http.Request{
		"the one it was given": func(r *http.Request) *http.Request { return r },
		"none":                 func(*http.Request) *http.Request { return nil },
		"a shallow copy":       func(r *http.Request) *http.Request { return r.WithContext(r.Context()) },
		"a deep copy":          func(r *http.Request) *http.Request { return r.Clone(r.Context()) },
		"a new one":            func(r *http.Request) *http.Request { return &http.Request{URL: r.URL, Header: r.Header.Clone()} },
		"a copy that has moved the token": func(r *http.Request) *http.Request {
			c := r.Clone(r.Context())
			c.Header.Set("X-Upstream-Key", c.Header.Get("Authorization")+c.Header.Get("X-Api-Key"))
			return c
		},
	} {
		for _, status := range []int{http.StatusOK, http.StatusUnauthorized, http.StatusForbidden} {
			for _, header := range []string{"", "X-Api-Key"} {
				t.Run(fmt.Sprint(name, status, header), func(t *testing.T) {
					cred, _ := secCredential(t)
					var given []*http.Request
					tr := &reauth.Transport{
						Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
							resp := answer(req, status, "")
							resp.Request = request(req)
							given = append(given, req)
							return resp, nil
						}),
						Credential: cred, Header: header, RetryWait: -1, Logger: discard,
					}
					req := secRequest(t, http.MethodGet, "https://api.example.com/path?q=1")
					req.Header.Set("X-Other", "kept")
					resp, err := tr.RoundTrip(req)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					require.NotNil(t, resp.Request)
					assert.Equal(t, http.Header{"X-Other": {"kept"}}, resp.Request.Header)
					assert.Equal(t, http.Header{"X-Other": {"kept"}}, req.Header)
					assert.Equal(t, req.URL, resp.Request.URL)
					for _, r := range given {
						assert.NotEmpty(t, r.Header.Get("Authorization")+r.Header.Get("X-Api-Key"), "what Base keeps for itself stays whole")
					}
				})
			}
		}
	}
}

// S6: an SDK that signs in with the same token reads its own header again.
func TestResponseRequestKeepsWhatTheCallerSet(t *testing.T) {
	for name, copied := range map[string]bool{"the one it was given": false, "a deep copy": true} {
		t.Run(name, func(t *testing.T) {
			cred, _ := secCredential(t)
			tr := &reauth.Transport{
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					resp := answer(req, http.StatusOK, "")
					if copied {
						resp.Request = req.Clone(req.Context())
					}
					return resp, nil
				}),
				Credential: cred, Logger: discard,
			}
			req := secRequest(t, http.MethodGet, "https://api.example.com/")
			req.Header.Set("Authorization", "Bearer "+reauth.Placeholder)
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, http.Header{"Authorization": {"Bearer " + reauth.Placeholder}}, resp.Request.Header)
		})
	}
}

// S6: what http.Client, its CheckRedirect and its cookie jar see is as without
// reauth, less the token.
func TestRedirectsCookiesAndRefererWorkWithoutShowingTheToken(t *testing.T) {
	n := secServe(t)
	cred, _ := secCredential(t)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	var showed []string
	client := &http.Client{
		Jar:       jar,
		Transport: &reauth.Transport{Base: n.base, Credential: cred, Logger: discard},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			for _, r := range append(via, req, req.Response.Request) {
				showed = append(showed, fmt.Sprint(r.Header))
			}
			return nil
		},
	}
	first := secChain("http://localhost", "http://localhost", "http://127.0.0.1")
	resp, err := client.Get(first)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	seen := n.headers()
	require.Len(t, seen, 3)
	assert.Equal(t, first, seen[1].Get("Referer"))
	assert.Equal(t, "jar=full", seen[1].Get("Cookie"))
	assert.Empty(t, seen[2].Get("Cookie"), "another host")
	assert.Equal(t, "127.0.0.1", resp.Request.URL.Host)
	require.NotEmpty(t, showed)
	assert.NotContains(t, fmt.Sprint(showed), secToken)
	for r := resp.Request; r != nil; {
		assert.NotContains(t, fmt.Sprint(r.Header), secToken)
		if r.Response == nil {
			break
		}
		r = r.Response.Request
	}
}

// secNilTransport and secNilClassifier are for pointers that are nil.
type (
	secNilTransport  struct{ base http.RoundTripper }
	secNilClassifier struct{ reason reauth.Reason }
	secNilRefresher  struct{ tok reauth.Token }
)

func (n *secNilTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return n.base.RoundTrip(r)
}
func (n *secNilTransport) CloseIdleConnections() { n.base = nil }
func (n *secNilClassifier) Classify(*http.Response, func() []byte) reauth.Rejection {
	return reauth.Rejection{Reason: n.reason}
}
func (n *secNilRefresher) Refresh(context.Context, reauth.Stale) (reauth.Token, error) {
	return n.tok, nil
}

// F2, W8 and "Bad input" of the contract: an error that says what is missing,
// before anything is sent, and the body closed.
func TestTransportThatIsNotWholeFailsWithAClearError(t *testing.T) {
	cred, _ := secCredential(t)
	wire := &secWire{}
	good := "https://api.example.com/"
	for _, tt := range []struct {
		name string
		tr   *reauth.Transport
		want string
	}{
		{"no Credential", &reauth.Transport{Base: wire}, "Credential"},
		{"typed nil Credential", &reauth.Transport{Base: wire, Credential: (*reauth.Credential)(nil)}, "Credential"},
		{"Credential without Refresher and token", &reauth.Transport{Base: wire, Credential: &reauth.Credential{Logger: discard}}, "Credential.Refresher"},
		{"typed nil Refresher", &reauth.Transport{Base: wire, Credential: &reauth.Credential{Refresher: (*secNilRefresher)(nil), Logger: discard}}, "Credential.Refresher"},
		{"nil RefresherFunc", &reauth.Transport{Base: wire, Credential: &reauth.Credential{Refresher: reauth.RefresherFunc(nil), Logger: discard}}, "Credential.Refresher"},
		{"typed nil Base", &reauth.Transport{Base: (*secNilTransport)(nil), Credential: cred}, "Base is a nil"},
		{"nil *http.Transport", &reauth.Transport{Base: (*http.Transport)(nil), Credential: cred}, "Base is a nil"},
		{"nil func Base", &reauth.Transport{Base: roundTripFunc(nil), Credential: cred}, "Base is a nil"},
		{"typed nil Classifier", &reauth.Transport{Base: wire, Credential: cred, Classifier: (*secNilClassifier)(nil)}, "Classifier is a nil"},
		{"nil ClassifierFunc", &reauth.Transport{Base: wire, Credential: cred, Classifier: reauth.ClassifierFunc(nil)}, "Classifier is a nil"},
		{"Header with a blank", &reauth.Transport{Base: wire, Credential: cred, Header: "X Api Key"}, "Transport.Header"},
		{"Header with a line break", &reauth.Transport{Base: wire, Credential: cred, Header: "X-Api-Key\r\nX"}, "Transport.Header"},
		{"Header with a colon", &reauth.Transport{Base: wire, Credential: cred, Header: "X-Api-Key:"}, "Transport.Header"},
		{"Scheme with a line break", &reauth.Transport{Base: wire, Credential: cred, Scheme: "Bearer\n"}, "Transport.Scheme"},
		{"Scheme with a blank", &reauth.Transport{Base: wire, Credential: cred, Scheme: "Bearer "}, "Transport.Scheme"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.tr.Logger = discard
			for range 2 { // not only the first time
				body := &secBody{Reader: strings.NewReader("x")}
				req, err := http.NewRequest(http.MethodPost, good, body)
				require.NoError(t, err)
				resp, err := tt.tr.RoundTrip(req)
				assert.Nil(t, resp)
				require.ErrorContains(t, err, tt.want)
				assert.True(t, strings.HasPrefix(err.Error(), "reauth: "), err.Error())
				assert.NotContains(t, err.Error(), "\n")
				assert.Equal(t, 1, body.closed)
			}
			assert.Empty(t, wire.sent)
			assert.NotPanics(t, tt.tr.CloseIdleConnections)
		})
	}
}

// Bad input of the contract: a nil Refresher matters only once it is asked.
func TestTokenWithoutARefresherIsUsedUntilItIsRejected(t *testing.T) {
	for _, r := range []reauth.Refresher{nil, (*secNilRefresher)(nil), reauth.RefresherFunc(nil)} {
		cred := holding(t, r, reauth.Token{AccessToken: secToken})
		assert.Equal(t, http.StatusOK, get(t, &reauth.Transport{Base: &secWire{}, Credential: cred, Logger: discard}, "https://api.example.com/").StatusCode)
		resp := get(t, &reauth.Transport{Base: accepting(), Credential: cred, Logger: discard}, "https://api.example.com/")
		assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		o, _ := reauth.OutcomeOf(resp)
		assert.ErrorContains(t, o.Err, "Credential.Refresher")
	}
}

// Bad input of the contract: no Logger, or one that goes nowhere, costs nobody
// his answer.
func TestLoggerThatIsNilCostsNoAnswer(t *testing.T) {
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

// Bad input of the contract: requests that a caller has put together by hand.
func TestRequestMadeByHandNeitherPanicsNorLosesItsBody(t *testing.T) {
	at := func(rawURL string) *url.URL {
		u, err := url.Parse(rawURL)
		require.NoError(t, err)
		return u
	}
	for _, tt := range []struct {
		name    string
		origins []string
		req     *http.Request
		want    string // of the error; "" if the request is to be sent
		token   bool
	}{
		{"no URL", nil, &http.Request{Header: http.Header{}}, "no URL", false},
		{"no URL, origins listed", []string{"https://api.example.com"}, &http.Request{Header: http.Header{}}, "no URL", false},
		{"no URL, without a token", nil, (&http.Request{}).WithContext(reauth.WithoutToken(t.Context())), "no URL", false},
		{"empty URL", nil, &http.Request{URL: &url.URL{}}, "", false},
		{"no host", nil, &http.Request{URL: at("http:///path")}, "", false},
		{"only opaque", nil, &http.Request{URL: &url.URL{Scheme: "http", Opaque: "//evil.example/"}}, "", false},
		{"nil Header", nil, &http.Request{URL: at("https://api.example.com/")}, "", true},
		{"nil Header, and withheld", []string{}, &http.Request{URL: at("https://api.example.com/")}, "", false},
		{"nil values", nil, &http.Request{URL: at("https://api.example.com/"), Header: http.Header{"Authorization": nil, "X-Empty": {}}}, "", true},
		{"empty key", nil, &http.Request{URL: at("https://api.example.com/"), Header: http.Header{"": {"x"}}}, "", true},
		{"bad method", nil, &http.Request{Method: "\n", URL: at("https://api.example.com/")}, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, status := range []int{http.StatusOK, http.StatusUnauthorized} {
				cred, _ := secCredential(t)
				body := &secBody{Reader: strings.NewReader("x")}
				var tokens []bool
				tr := &reauth.Transport{
					Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
						tokens = append(tokens, req.Header.Get("Authorization") != "")
						resp := answer(req, status, "")
						resp.Header = nil // a Base may be as careless
						return resp, nil
					}),
					Credential: cred, Origins: tt.origins, RetryWait: -1, Logger: discard,
				}
				req := tt.req.WithContext(tt.req.Context())
				req.Body = body
				var resp *http.Response
				var err error
				require.NotPanics(t, func() { resp, err = tr.RoundTrip(req) })
				assert.Equal(t, 1, body.closed)
				if tt.want != "" {
					assert.ErrorContains(t, err, tt.want)
					assert.Empty(t, tokens)
					continue
				}
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.NotEmpty(t, tokens)
				assert.Equal(t, tt.token, tokens[0])
				assert.Equal(t, status, resp.StatusCode)
			}
		})
	}
}

// Bad input of the contract: a Base that breaks its own.
func TestBaseThatReturnsNothingIsAClearError(t *testing.T) {
	cred, _ := secCredential(t)
	for _, tt := range []struct {
		name    string
		origins []string
	}{{"with the token", nil}, {"withheld", []string{}}} {
		t.Run(tt.name, func(t *testing.T) {
			base := roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, nil })
			tr := &reauth.Transport{Base: base, Credential: cred, Origins: tt.origins, Logger: discard}
			resp, err := tr.RoundTrip(secRequest(t, http.MethodGet, "https://api.example.com/"))
			assert.Nil(t, resp)
			assert.ErrorContains(t, err, "neither a response nor an error")
		})
	}
	t.Run("a 401 without a body", func(t *testing.T) {
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusUnauthorized, Request: req}, nil
		})
		tr := &reauth.Transport{Base: base, Credential: cred, RetryWait: -1, Logger: discard}
		resp, err := tr.RoundTrip(secRequest(t, http.MethodGet, "https://api.example.com/"))
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	})
}
