package reauth_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

func (p *respPool) CloseIdleConnections() {
	if p != nil {
		p.closed++
	}
}

func (p *respPool) RoundTrip(req *http.Request) (*http.Response, error) {
	status := p.next[0]
	if p.next = p.next[1:]; status == 0 {
		return nil, errBodyBroken
	}
	return answer(req, status, ""), nil
}

// A respPool is a Base that has idle connections, and a status for each request.
type respPool struct {
	next   []int
	closed int
}

// A conversation in both directions goes on as it does without reauth, also
// one that had to be begun twice.
func TestRoundTripConversation(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			if bodyToken(r) == "T0" {
				bodyRejectNow(w, r)
				return
			}
			c := http.NewResponseController(w)
			_ = c.EnableFullDuplex()
			_ = c.Flush()
			line := make([]byte, 5)
			for {
				if _, err := io.ReadFull(r.Body, line); err != nil {
					return
				}
				_, _ = w.Write(line)
				_ = c.Flush()
			}
		})
		pr, pw := io.Pipe()
		resp, err := bodyDo(t, bodyTransport(t, w.base), bodyPost(t, w.url, pr))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		within(t, bodyPatience, func() {
			for i := range 20 {
				line := fmt.Sprintf("%04d\n", i)
				_, err := io.WriteString(pw, line)
				assert.NoError(t, err)
				echo := make([]byte, 5)
				_, err = io.ReadFull(resp.Body, echo)
				assert.NoError(t, err)
				assert.Equal(t, line, string(echo))
			}
			assert.NoError(t, pw.Close())
		})
		assert.Empty(t, bodyRead(t, resp))
	})
}

// A response that is not a rejection is what Base returned.
func TestRoundTripOtherResponsesUnchanged(t *testing.T) {
	for _, c := range []reauth.Classifier{nil, respByHeader} {
		for _, status := range []int{200, 204, 301, 403, 407, 500} {
			t.Run(fmt.Sprintf("%T, %d", c, status), func(t *testing.T) {
				var want *http.Response
				body := bodyProbing(iotest.ErrReader(errBodyBroken))
				rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					want = respWith(req, status, body)
					return want, nil
				}))
				rt.Classifier = c
				req := respGet(t, "https://api.example.com/")
				resp, err := rt.RoundTrip(req)
				require.NoError(t, err)
				assert.Same(t, want, resp)
				assert.Same(t, body, resp.Body)
				assert.Same(t, req, resp.Request)
				assert.Zero(t, body.closes.Load())
			})
		}
	}
}

// 101 keeps its io.Writer, also after a retry, also where a Classifier looks at every
// body.
func TestRoundTripUpgrade(t *testing.T) {
	for _, c := range []reauth.Classifier{nil, respByHeader, respByBody} {
		t.Run(fmt.Sprintf("%T", c), func(t *testing.T) {
			w := bodyServe(t, "HTTP/1.1", func(w http.ResponseWriter, r *http.Request) {
				if bodyToken(r) == "T0" {
					bodyReject(w)
					return
				}
				w.Header().Set("Connection", "Upgrade")
				w.Header().Set("Upgrade", "echo")
				w.WriteHeader(http.StatusSwitchingProtocols)
				conn, rw, err := http.NewResponseController(w).Hijack()
				if !assert.NoError(t, err) {
					return
				}
				defer conn.Close()
				line, _ := rw.ReadString('\n')
				_, _ = conn.Write([]byte(line))
			})
			rt := bodyTransport(t, w.base)
			rt.Classifier = c
			req := respGet(t, w.url)
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "echo")
			resp, err := bodyDo(t, rt, req)
			require.NoError(t, err)
			require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
			rw, ok := resp.Body.(io.ReadWriteCloser)
			require.True(t, ok, "%T is no io.Writer", resp.Body)
			_, err = io.WriteString(rw, "hello\n")
			assert.NoError(t, err)
			assert.Equal(t, "hello\n", bodyRead(t, resp))
		})
	}
}

// An event is there when it was sent, before the next one is.
func TestRoundTripEventStream(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, c := range []reauth.Classifier{nil, respByHeader, respByBody} {
			t.Run(fmt.Sprintf("%T", c), func(t *testing.T) {
				seen := make(chan struct{}, 1)
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					if bodyToken(r) == "T0" {
						bodyReject(w)
						return
					}
					w.Header().Set("Content-Type", "text/event-stream")
					for i := range 5 {
						_, _ = fmt.Fprintf(w, "data: %d\n", i)
						_ = http.NewResponseController(w).Flush()
						select {
						case <-seen:
						case <-r.Context().Done():
							return
						}
					}
				})
				rt := bodyTransport(t, w.base)
				rt.Classifier = c
				resp, err := bodyDo(t, rt, respGet(t, w.url))
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, resp.StatusCode)
				lines := bufio.NewReader(resp.Body)
				within(t, bodyPatience, func() {
					for i := range 5 {
						line, err := lines.ReadString('\n')
						assert.NoError(t, err)
						assert.Equal(t, fmt.Sprintf("data: %d\n", i), line)
						seen <- struct{}{}
					}
					_, err := lines.ReadByte()
					assert.Equal(t, io.EOF, err)
				})
				assert.NoError(t, resp.Body.Close())
			})
		}
	})
}

// Trailers of the response to a retry; those of a 401 are above.
func TestRoundTripResponseTrailer(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			if bodyToken(r) == "T0" {
				bodyReject(w)
				return
			}
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "summed")
			_ = http.NewResponseController(w).Flush()
			w.Header().Set("X-Sum", "42")
		})
		resp, err := bodyDo(t, bodyTransport(t, w.base), respGet(t, w.url))
		require.NoError(t, err)
		assert.Contains(t, resp.Trailer, "X-Sum")
		assert.Equal(t, "summed", bodyRead(t, resp))
		assert.Equal(t, "42", resp.Trailer.Get("X-Sum"))
	})
}

// Bad input: a Base that does not keep the contract of http.RoundTripper.
func TestRoundTripCarelessBase(t *testing.T) {
	tests := []struct {
		name   string
		base   func(req *http.Request, resp *http.Response) (*http.Response, error)
		first  int
		second int // 0: an error
	}{
		{"neither response nor error", func(*http.Request, *http.Response) (*http.Response, error) { return nil, nil }, 200, 0},
		{"neither response nor error on the retry", func(req *http.Request, resp *http.Response) (*http.Response, error) {
			if bodyToken(req) != "T0" {
				return nil, nil
			}
			return resp, nil
		}, 401, 0},
		{"no Request", func(_ *http.Request, resp *http.Response) (*http.Response, error) {
			resp.Request = nil
			return resp, nil
		}, 200, 200},
		{"no Request on a 401", func(_ *http.Request, resp *http.Response) (*http.Response, error) {
			resp.Request = nil
			return resp, nil
		}, 401, 200},
		{"no Body", func(_ *http.Request, resp *http.Response) (*http.Response, error) { resp.Body = nil; return resp, nil }, 200, 200},
		{"no Body on a 401", func(_ *http.Request, resp *http.Response) (*http.Response, error) { resp.Body = nil; return resp, nil }, 401, 200},
		{"no Header on a 401", func(_ *http.Request, resp *http.Response) (*http.Response, error) {
			resp.Header = nil
			return resp, nil
		}, 401, 200},
		{"nothing but a status", func(_ *http.Request, resp *http.Response) (*http.Response, error) {
			return &http.Response{StatusCode: resp.StatusCode}, nil
		}, 401, 200},
		{"a Request without Header", func(req *http.Request, resp *http.Response) (*http.Response, error) {
			resp.Request = &http.Request{URL: req.URL}
			return resp, nil
		}, 401, 200},
	}
	for _, tt := range tests {
		for _, fails := range []bool{false, true} { // the refresh, so that the 401 is handed on
			t.Run(fmt.Sprintf("%s, refresh fails %t", tt.name, fails), func(t *testing.T) {
				rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if bodyToken(req) == "T0" {
						return tt.base(req, answer(req, tt.first, ""))
					}
					return tt.base(req, answer(req, 200, ""))
				}))
				want := tt.second
				if fails {
					rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
					if tt.first == 401 {
						want = 401
					}
				}
				resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/v1"))
				if want == 0 {
					assert.Nil(t, resp)
					assert.ErrorContains(t, err, "roundTripFunc", "it names the Base")
					return
				}
				require.NoError(t, err)
				assert.Equal(t, want, resp.StatusCode)
				require.NotNil(t, resp.Request)
				assert.Equal(t, "https://api.example.com/v1", resp.Request.URL.String())
				assert.Empty(t, resp.Request.Header)
			})
		}
	}
}

func TestCloseIdleConnectionsNotCalledUnasked(t *testing.T) {
	base := &respPool{}
	rt := bodyTransport(t, base)
	client := &http.Client{Transport: rt}
	for _, status := range [][]int{{200}, {401, 200}, {401, 401}, {401, 500}, {0}, {401, 0}} {
		require.NoError(t, rt.Credential.Set(context.Background(), reauth.Token{AccessToken: "T0"}))
		base.next = status
		if resp, err := client.Get("https://api.example.com/"); err == nil {
			require.NoError(t, resp.Body.Close())
		}
		require.Empty(t, base.next)
	}
	require.NoError(t, rt.Credential.Shutdown(context.Background()))
	assert.Zero(t, base.closed)
	client.CloseIdleConnections()
	assert.Equal(t, 1, base.closed)

	assert.NotPanics(t, (&reauth.Transport{Base: roundTripFunc(nil)}).CloseIdleConnections)
	assert.NotPanics(t, (&reauth.Transport{Base: (*respPool)(nil)}).CloseIdleConnections, "a nil Base is the request's error")
}

// On a socket: the idle connection is gone, and not before.
func TestCloseIdleConnectionsReachesBase(t *testing.T) {
	w := bodyServe(t, "HTTP/1.1", func(http.ResponseWriter, *http.Request) {})
	client := &http.Client{Transport: bodyTransport(t, w.base)}
	for i, want := range []int32{1, 1, 2} {
		if i == 2 {
			client.CloseIdleConnections()
		}
		resp, err := client.Get(w.url)
		require.NoError(t, err)
		bodyRead(t, resp)
		assert.Equal(t, want, w.dials.Load(), "dials")
	}
}

// A real client with all that reads resp.Request.
func TestRoundTripRedirectsCookiesReferer(t *testing.T) {
	type seen struct{ method, path, token, cookie, referer, body string }
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, code := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
			for _, dead := range []string{"/start", "/next", "neither"} { // where T0 is found to be dead
				t.Run(fmt.Sprintf("%d, 401 at %s", code, dead), func(t *testing.T) {
					var got []seen
					w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
						all, _ := io.ReadAll(r.Body)
						got = append(got, seen{r.Method, r.URL.Path, bodyToken(r), r.Header.Get("Cookie"), r.Header.Get("Referer"), string(all)})
						if bodyToken(r) == "T0" && r.URL.Path == dead {
							bodyReject(w)
							return
						}
						http.SetCookie(w, &http.Cookie{Name: strings.TrimPrefix(r.URL.Path, "/"), Value: "1"})
						if r.URL.Path == "/start" {
							http.Redirect(w, r, "next", code)
						}
					})
					jar, err := cookiejar.New(nil)
					require.NoError(t, err)
					var via []*http.Request
					client := &http.Client{Transport: bodyTransport(t, w.base), Jar: jar, CheckRedirect: func(req *http.Request, before []*http.Request) error {
						via = append(append(via, before...), req)
						return nil
					}}
					req := bodyPost(t, w.url+"/start", strings.NewReader("form"))
					resp, err := client.Do(req)
					require.NoError(t, err)
					bodyRead(t, resp)
					assert.Equal(t, http.StatusOK, resp.StatusCode)

					method, body := "GET", ""
					if code == http.StatusTemporaryRedirect {
						method, body = "POST", "form"
					}
					var want []seen
					token := "T0"
					for _, s := range []seen{{"POST", "/start", "", "", "", "form"}, {method, "/next", "", "start=1", w.url + "/start", body}} {
						if s.token = token; s.path == dead {
							want = append(want, s)
							token, s.token = "T1", "T1"
						}
						want = append(want, s)
					}
					assert.Equal(t, want, got)
					assert.Len(t, jar.Cookies(req.URL), 2)

					assert.Equal(t, "/next", resp.Request.URL.Path)
					assert.Equal(t, method, resp.Request.Method)
					require.NotNil(t, resp.Request.Response)
					assert.Equal(t, code, resp.Request.Response.StatusCode)
					assert.Equal(t, "/start", resp.Request.Response.Request.URL.Path)
					require.Len(t, via, 2)
					assert.Same(t, req, via[0])
					for _, r := range append(via, resp.Request, resp.Request.Response.Request) {
						assert.NotContains(t, r.Header, "Authorization")
					}
				})
			}
		}
	})
}

// Who follows redirects himself finds where they lead.
func TestRoundTripRelativeLocation(t *testing.T) {
	w := bodyServe(t, "HTTP/1.1", func(w http.ResponseWriter, r *http.Request) {
		if bodyToken(r) == "T0" {
			bodyReject(w)
			return
		}
		w.Header().Set("Location", "../next?x=1")
		w.WriteHeader(http.StatusFound)
	})
	req := respGet(t, w.url+"/a/b")
	req.Header.Set("X-Own", "1")
	type key struct{}
	req = req.WithContext(context.WithValue(req.Context(), key{}, "mine"))
	resp, err := bodyDo(t, bodyTransport(t, w.base), req)
	require.NoError(t, err)
	bodyRead(t, resp)
	at, err := resp.Location()
	require.NoError(t, err)
	assert.Equal(t, w.url+"/next?x=1", at.String())
	assert.Equal(t, "mine", resp.Request.Context().Value(key{}), "the caller's context")
	assert.Equal(t, http.Header{"X-Own": {"1"}}, resp.Request.Header)
	assert.Equal(t, http.Header{"X-Own": {"1"}}, req.Header, "the caller's own")
}

// And "Bad input" of the contract: an error that says what is missing,
// before anything is sent, and the body closed.
func TestTransportMisconfigured(t *testing.T) {
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

// Bad input of the contract: requests that a caller has put together by hand.
func TestRoundTripRequestMadeByHand(t *testing.T) {
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

func TestTransportThatIsItsOwnBase(t *testing.T) {
	cred := holding(t, &issuer{}, reauth.Token{AccessToken: "T0"})
	check := func(t *testing.T, rt *reauth.Transport) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, apiURL, nil)
		require.NoError(t, err)
		_, err = rt.RoundTrip(req)
		assert.ErrorContains(t, err, "its own Base")
		rt.CloseIdleConnections()
	}
	t.Run("http.DefaultTransport", func(t *testing.T) {
		old := http.DefaultTransport
		defer func() { http.DefaultTransport = old }()
		rt := &reauth.Transport{Credential: cred}
		http.DefaultTransport = rt
		check(t, rt)
	})
	t.Run("through another", func(t *testing.T) {
		rt := &reauth.Transport{Credential: cred}
		rt.Base = &reauth.Transport{Base: rt, Credential: cred}
		check(t, rt)
	})
	t.Run("closed by the other first", func(t *testing.T) {
		old := http.DefaultTransport
		defer func() { http.DefaultTransport = old }()
		rt := &reauth.Transport{Credential: cred}
		http.DefaultTransport = rt
		rt.CloseIdleConnections()
		check(t, rt)
	})
}

// What net/http says of a URL without a host, or with another scheme.
func TestRoundTripErrorsOfNetHTTP(t *testing.T) {
	for rawURL, want := range map[string]string{"http:///path": "no Host in request URL", "https:///path": "no Host", "ftp://a.test/": "unsupported protocol scheme"} {
		rt := &reauth.Transport{Credential: &reauth.Credential{Refresher: &issuer{}, Logger: discard}, Logger: discard}
		req, err := http.NewRequest(http.MethodGet, rawURL, nil)
		require.NoError(t, err)
		_, err = rt.RoundTrip(req)
		assert.ErrorContains(t, err, want, rawURL)
		assert.NotErrorIs(t, err, reauth.ErrInsecure)
	}
}

// A header whose name has another spelling, as a Base may leave it, is the same header.
func TestRoundTripHeadersInAnySpelling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		require.NoError(t, s.cred.Set(t.Context(), reauth.Token{AccessToken: "T0"}))
		lower := func(req *http.Request, status int, header map[string]string) *http.Response {
			resp := answer(req, status, "")
			resp.Header = http.Header{}
			for k, v := range header {
				resp.Header[k] = []string{v}
			}
			return resp
		}
		s.rt.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Authorization") == "Bearer T1" {
				return lower(req, http.StatusOK, map[string]string{"x-request-id": "second"}), nil
			}
			return lower(req, http.StatusUnauthorized, map[string]string{
				"www-authenticate": `Bearer error="insufficient_claims", claims="c"`, "x-request-id": "first",
				"retry-after": "2", "date": time.Now().UTC().Format(http.TimeFormat),
			}), nil
		})
		start := time.Now()
		status, o := s.get(t, apiURL)
		assert.Equal(t, http.StatusOK, status)
		assert.Equal(t, reauth.ReasonClaims, o.Rejection.Reason)
		assert.Equal(t, "c", s.stale[0].Rejection.Challenges[0].Params["claims"])
		assert.Equal(t, "first", o.First.RequestID)
		assert.Equal(t, "second", o.Retry.RequestID)
		assert.Equal(t, start.Truncate(time.Second).UTC(), o.Rejection.Date.UTC())
		assert.Equal(t, 2*time.Second, time.Since(start))

		req, err := http.NewRequest(http.MethodGet, apiURL, nil)
		require.NoError(t, err)
		req.Header = http.Header{"authorization": {"Bearer mine"}}
		resp, err := s.rt.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		o, _ = reauth.OutcomeOf(resp)
		assert.Equal(t, reauth.WithheldOwnCredential, o.Withheld)
	})
}
