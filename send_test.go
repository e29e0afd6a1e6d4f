package reauth_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// A Base that sends a copy, as most middleware does, shows it without the token.
func TestResponseRequestOfACopyNeverCarriesTheToken(t *testing.T) {
	for _, tt := range []struct{ header, scheme string }{{"", ""}, {"X-Api-Key", ""}, {"authorization", "Token"}} {
		for _, tokens := range [][]string{{"T0"}, {"T1"}, nil} { // that the server accepts
			t.Run(fmt.Sprint(tt, tokens), func(t *testing.T) {
				var sent []*http.Request
				rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					out := req.Clone(req.Context())
					out.Header.Set("X-Trace", "7")
					sent = append(sent, out)
					v := out.Header.Get(tt.header) + out.Header.Get("Authorization")
					for _, tok := range tokens {
						if strings.HasSuffix(v, tok) {
							return answer(out, 200, ""), nil
						}
					}
					return answer(out, 401, ""), nil
				}))
				rt.Header, rt.Scheme = tt.header, tt.scheme
				req := respGet(t, "https://api.example.com/")
				req.Header.Set("X-Own", "1")
				resp, err := rt.RoundTrip(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				assert.Equal(t, http.Header{"X-Own": {"1"}}, resp.Request.Header, "it is the caller's request")
				for _, out := range sent {
					assert.Len(t, out.Header, 3, "what Base keeps is as it was sent")
				}
			})
		}
	}
}

// Etcd wants the token bare, gateways want it in another header.
func TestHeaderAndScheme(t *testing.T) {
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

// A Base may hand back the request that it was given, a copy, or none.
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

// An SDK that signs in with the same token reads its own header again.
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

// What http.Client, its CheckRedirect and its cookie jar see is as without
// reauth, less the token.
func TestResponseRequestInARedirect(t *testing.T) {
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

// Bad input of the contract: a Base that breaks its own.
func TestBaseReturnsNothing(t *testing.T) {
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

// A Base that follows redirects by itself.
func TestResponseRequestShowsTheURLThatWasReached(t *testing.T) {
	for _, query := range []string{"", "access_token"} {
		cred := holding(t, &issuer{}, reauth.Token{AccessToken: "T0-secret"})
		rt := &reauth.Transport{Credential: cred, Query: query, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			moved := req.Clone(req.Context())
			moved.URL.Path, moved.Method = "/moved", http.MethodGet
			moved.Response = answer(req, http.StatusFound, "")
			return answer(moved, http.StatusOK, ""), nil
		})}
		req, err := http.NewRequest(http.MethodPost, "https://a.test/x?q=1", nil)
		require.NoError(t, err)
		resp, err := rt.RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, "https://a.test/moved?q=1", resp.Request.URL.String())
		assert.Equal(t, http.MethodGet, resp.Request.Method)
		assert.Nil(t, resp.Request.Response)
		assert.Empty(t, resp.Request.Header)
		assert.NotContains(t, fmt.Sprintf("%+v", resp.Request), "T0-secret")
	}
}

// A Base that sets another credential makes reauth useless. Where its response shows it,
// the hint says so.
func TestBaseOverwritesTheCredential(t *testing.T) {
	for name, base := range map[string]roundTripFunc{
		"in a copy": func(req *http.Request) (*http.Response, error) {
			c := req.Clone(req.Context())
			c.Header.Set("Authorization", "Bearer other")
			return answer(c, http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
		},
		"in place": func(req *http.Request) (*http.Response, error) {
			req.Header.Set("Authorization", "Bearer other")
			return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			var j journal
			rt := &reauth.Transport{Base: base, Logger: j.logger(), RetryWait: -1, Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"})}
			get(t, rt, apiURL)
			records := j.records(t, slog.LevelWarn)
			require.Len(t, records, 1)
			assert.Contains(t, records[0]["hint"], "Base sends another credential")
		})
	}
	var j journal
	rt := &reauth.Transport{Base: accepting(), Logger: j.logger(), RetryWait: -1, Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"})}
	get(t, rt, apiURL)
	assert.NotContains(t, j.records(t, slog.LevelWarn)[0]["hint"], "Base")
}
