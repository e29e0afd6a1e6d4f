package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// A proxyRig is a caller, a ReverseProxy that has a token of its own, and the API
// behind it.
type proxyRig struct {
	issuer *reauthtest.Issuer
	api    *reauthtest.API
	cred   *reauth.Credential
	front  *httptest.Server
	log    *journal
}

// newProxyRig starts a rig over HTTP/1.1 or HTTP/2. change may change the proxy and
// its Transport.
func newProxyRig(t *testing.T, http2 bool, handler http.Handler, change ...func(*httputil.ReverseProxy, *reauth.Transport)) *proxyRig {
	t.Helper()
	rig := &proxyRig{issuer: reauthtest.NewIssuer(), log: &journal{}}
	t.Cleanup(rig.issuer.Close)
	rig.api = reauthtest.NewAPI(rig.issuer, handler)
	if http2 {
		rig.api = reauthtest.NewTLSAPI(rig.issuer, handler)
	}
	t.Cleanup(rig.api.Close)
	rig.cred = &reauth.Credential{Refresher: rig.issuer, Logger: rig.log.logger()}
	tr := &reauth.Transport{
		Base: rig.api.Base(), Credential: rig.cred, Origins: []string{rig.api.URL()},
		Override: true, RetryWait: time.Millisecond, Logger: rig.log.logger(),
	}
	target, err := url.Parse(rig.api.URL())
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(pr *httputil.ProxyRequest) { pr.SetURL(target) },
		Transport: tr,
		ErrorLog:  slog.NewLogLogger(rig.log.logger().Handler(), slog.LevelError),
	}
	for _, c := range change {
		c(proxy, tr)
	}
	rig.front = httptest.NewUnstartedServer(proxy)
	if rig.front.EnableHTTP2 = http2; http2 {
		rig.front.StartTLS()
	} else {
		rig.front.Start()
	}
	t.Cleanup(rig.front.Close)
	return rig
}

// protocols runs a test over both.
func protocols(t *testing.T, f func(t *testing.T, http2 bool)) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, http2)
		})
	}
}

const callersOwn = "Bearer the-caller's-own-secret"

// send sends what a caller of the proxy does, who has a credential for the proxy.
func (rig *proxyRig) send(t *testing.T, method, body string) (*http.Response, string, int) {
	t.Helper()
	before := rig.api.Sends()
	req, err := http.NewRequestWithContext(t.Context(), method, rig.front.URL+"/v1/thing?q=1", strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", callersOwn)
	resp, err := rig.front.Client().Do(req)
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp, string(got), rig.api.Sends() - before
}

// 1 send, 2 if the token was refused or expired early, 1 for
// a 500; and a body of the proxy's caller has no GetBody.
func TestTheProxysCallerNeverNoticesTheProxysToken(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, http2 bool) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			rig := newProxyRig(t, http2, nil)
			body := ""
			if method == http.MethodPost {
				body = strings.Repeat("so it goes\n", 50_000)
			}
			for _, step := range []struct {
				name   string
				spoil  func()
				sends  int
				status int
			}{
				{"good", func() {}, 1, http.StatusOK},
				{"revoked", rig.issuer.Revoke, 2, http.StatusOK},
				{"expired earlier than it said", rig.issuer.Expire, 2, http.StatusOK},
				{"expired when it said", func() {
					rig.issuer.SetLifetime(20 * time.Millisecond)
					tok := mustRefresh(t, rig.issuer)
					require.NoError(t, rig.cred.Set(t.Context(), tok))
					expired(t, tok)
					rig.issuer.SetLifetime(time.Hour)
				}, 1, http.StatusOK},
				{"refused before the body was read", func() { rig.api.Next(reauthtest.RejectEarly()) }, 2, http.StatusOK},
				{"500", func() { rig.api.Next(reauthtest.Status(http.StatusInternalServerError)) }, 1, http.StatusInternalServerError},
				{"refused for good", func() { rig.issuer.Refuse(true); rig.issuer.Revoke() }, 2, http.StatusUnauthorized},
			} {
				step.spoil()
				resp, got, sends := rig.send(t, method, body)
				assert.Equal(t, step.status, resp.StatusCode, "%s, %s", method, step.name)
				assert.Equal(t, step.sends, sends, "%s, %s", method, step.name)
				if step.status == http.StatusOK {
					assert.True(t, body == got, "%s, %s: %d bytes for %d", method, step.name, len(got), len(body))
				}
				assert.NotEmpty(t, resp.Header.Get("X-Request-Id"), "of the last answer")
			}
			for _, r := range rig.api.Requests() {
				assert.Regexp(t, "^Bearer access-", r.Header.Get("Authorization"))
				assert.Len(t, r.Header.Values("Authorization"), 1)
				assert.NotContains(t, fmt.Sprint(r.Header), "caller's-own")
			}
			assert.NotContains(t, rig.log.text(), "caller's-own")
			assert.NotContains(t, rig.log.text(), "access-")
		}
	})
}

// Without Override a caller's credential goes on, and its 401 comes back: 1
// send, no refresh, and a warning that names Override.
func TestWithoutOverrideTheProxysTokenNeverHidesTheCallersOwn(t *testing.T) {
	t.Parallel()
	rig := newProxyRig(t, false, nil, func(_ *httputil.ReverseProxy, tr *reauth.Transport) { tr.Override = false })
	require.NoError(t, rig.cred.Set(t.Context(), mustRefresh(t, rig.issuer)))
	for range 3 {
		resp, _, sends := rig.send(t, http.MethodPost, "hello")
		assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		assert.Equal(t, 1, sends)
	}
	for _, r := range rig.api.Requests() {
		assert.Equal(t, callersOwn, r.Header.Get("Authorization"))
	}
	assert.Equal(t, 1, rig.issuer.Refreshes(), "the one of Set")
	assert.Equal(t, 1, strings.Count(rig.log.text(), "Override"))
}

// Without a token there is no answer to pass on: 0 sends, and a 502 that
// says nothing of why.
func TestAProxyWithoutATokenNeverSendsTheCallersInstead(t *testing.T) {
	t.Parallel()
	rig := newProxyRig(t, false, nil)
	rig.issuer.Down(true)
	resp, got, sends := rig.send(t, http.MethodPost, "hello")
	assert.Equal(t, http.StatusBadGateway, resp.StatusCode)
	assert.Empty(t, got)
	assert.Zero(t, sends)
	assert.Contains(t, rig.log.text(), "http: proxy error: reauth: refresh failed", "in the proxy's own log")
}

// What the proxy can tell of an answer before it passes it on.
func TestAProxysModifyResponseIsNotWithoutTheOutcome(t *testing.T) {
	t.Parallel()
	outcomes := make(chan reauth.Outcome, 10)
	rig := newProxyRig(t, false, nil, func(p *httputil.ReverseProxy, _ *reauth.Transport) {
		p.ModifyResponse = func(resp *http.Response) error {
			if o, ok := reauth.OutcomeOf(resp); ok {
				outcomes <- o
			}
			return nil
		}
	})
	rig.send(t, http.MethodGet, "")
	assert.Empty(t, outcomes, "nothing to tell")
	rig.issuer.Revoke()
	resp, _, _ := rig.send(t, http.MethodGet, "")
	o := received(t, outcomes)
	assert.True(t, o.Recovered())
	assert.Equal(t, resp.Header.Get("X-Request-Id"), o.RequestID())
	assert.NotEmpty(t, o.First.RequestID)
	assert.NotEqual(t, o.First.RequestID, o.RequestID())
}

// 2 sends, and then each event comes when it is sent, and the trailer after
// them.
func TestNoEventWaitsInTheProxy(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, http2 bool) {
		more := make(chan struct{})
		rig := newProxyRig(t, http2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			for i := range 5 {
				if i > 0 {
					select {
					case <-more:
					case <-r.Context().Done():
						return
					}
				}
				sendEvent(w, "", fmt.Sprint(i))
			}
			w.Header().Set("X-Sum", "10")
		}))
		require.NoError(t, rig.cred.Set(t.Context(), mustRefresh(t, rig.issuer)))
		rig.issuer.Revoke()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, rig.front.URL, nil)
		require.NoError(t, err)
		resp, err := rig.front.Client().Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for i := range 5 {
			for lines.Scan() && lines.Text() == "" {
			}
			require.Equal(t, fmt.Sprintf("data: %d", i), lines.Text())
			if i == 4 {
				break
			}
			select {
			case more <- struct{}{}: // the next is not sent before this one was read
			case <-ctx.Done():
			}
		}
		for lines.Scan() {
			assert.Empty(t, lines.Text())
		}
		require.NoError(t, lines.Err())
		assert.Equal(t, "10", resp.Trailer.Get("X-Sum"))
		assert.Equal(t, 2, rig.api.Sends())
	})
}

// An upload is passed on as it comes; one that is refused in its middle
// goes on from its beginning: 2 sends.
func TestNoChunkOfAnUploadWaitsInTheProxyOrIsLost(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, http2 bool) {
		for _, refused := range []bool{false, true} {
			t.Run(fmt.Sprintf("refused %v", refused), func(t *testing.T) {
				t.Parallel()
				got := make(chan string)
				rig := newProxyRig(t, http2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					chunk := make([]byte, 6)
					for {
						if _, err := io.ReadFull(r.Body, chunk); err != nil {
							_, _ = io.WriteString(w, err.Error())
							return
						}
						select {
						case got <- string(chunk):
						case <-r.Context().Done():
							return
						}
					}
				}))
				require.NoError(t, rig.cred.Set(t.Context(), mustRefresh(t, rig.issuer)))
				want := 1
				if refused {
					rig.api.Next(reauthtest.RejectEarly())
					want = 2
				}
				body, w := io.Pipe()
				defer w.Close()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, rig.front.URL, body)
				require.NoError(t, err)
				ended := make(chan string, 1)
				go func() {
					resp, err := rig.front.Client().Do(req)
					if err != nil {
						ended <- err.Error()
						return
					}
					defer resp.Body.Close()
					said, _ := io.ReadAll(resp.Body)
					ended <- resp.Status + " " + string(said)
				}()
				for i := range 5 {
					chunk := fmt.Sprintf("part %d", i)
					_, err := io.WriteString(w, chunk)
					require.NoError(t, err)
					assert.Equal(t, chunk, received(t, got), "before the next is sent")
				}
				require.NoError(t, w.Close())
				assert.Equal(t, "200 OK EOF", received(t, ended))
				assert.Equal(t, want, rig.api.Sends())
			})
		}
	})
}

// Of an upload of which more was sent than is kept, the caller has the 401, with
// 1 send; his next request is good.
func TestAProxyNeverKeepsMoreOfAnUploadThanItIsTold(t *testing.T) {
	t.Parallel()
	rig := newProxyRig(t, false, nil, func(_ *httputil.ReverseProxy, tr *reauth.Transport) { tr.MaxReplayBytes = 1000 })
	require.NoError(t, rig.cred.Set(t.Context(), mustRefresh(t, rig.issuer)))
	rig.issuer.Revoke()
	resp, _, sends := rig.send(t, http.MethodPost, strings.Repeat("x", 100_000))
	assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	assert.Equal(t, 1, sends)
	resp, _, sends = rig.send(t, http.MethodPost, strings.Repeat("x", 100_000))
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Equal(t, 1, sends)
}

// 2 sends, and then both sides talk through the connection; refused for good,
// the caller has the 401 instead: 2 sends.
func TestAnUpgradeNeitherFailsNorHangsForADeadToken(t *testing.T) {
	t.Parallel()
	rig := newProxyRig(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "echo" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = rw.WriteString("you said " + line)
			_ = rw.Flush()
		}
	}))
	require.NoError(t, rig.cred.Set(t.Context(), mustRefresh(t, rig.issuer)))
	upgrade := func() (net.Conn, *bufio.Reader, *http.Response) {
		conn, err := net.Dial("tcp", rig.front.Listener.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: front\r\nConnection: Upgrade\r\nUpgrade: echo\r\nAuthorization: "+callersOwn+"\r\n\r\n")
		require.NoError(t, err)
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		return conn, r, resp
	}
	rig.issuer.Revoke()
	conn, r, resp := upgrade()
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	assert.Equal(t, "echo", resp.Header.Get("Upgrade"))
	for i := range 3 {
		_, err := fmt.Fprintf(conn, "%d\n", i)
		require.NoError(t, err)
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("you said %d\n", i), line)
	}
	assert.Equal(t, 2, rig.api.Sends())

	rig.issuer.Refuse(true)
	rig.issuer.Revoke()
	_, _, resp = upgrade()
	assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	assert.Equal(t, 4, rig.api.Sends())
	_, err := fmt.Fprintln(conn, "still there?")
	require.NoError(t, err)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "you said still there?\n", line, "the token of a connection that stands is looked at no more")
	assert.NotContains(t, rig.log.text(), "caller's-own")
}
