package refresher_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// As it asks, up to five seconds.
func TestBusyTokenEndpointIsNotGivenUpOn(t *testing.T) {
	for _, grant := range oauthGrants() {
		for _, status := range []int{429, 500, 502, 503, 504} {
			t.Run(fmt.Sprint(grant.name, " ", status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
						if n < 3 {
							return oauthError(status, "temporarily_unavailable", "Retry-After", "2"), nil
						}
						return oauthToken(n), nil
					}}
					tok, err := grant.get(oauthApp(server)).Refresh(t.Context(), reauth.Stale{})
					require.NoError(t, err)
					assert.Equal(t, "T3", tok.AccessToken)
					assert.Equal(t, []time.Duration{0, 2 * time.Second, 4 * time.Second}, server.times())
					for _, send := range server.seen() {
						assert.Equal(t, server.seen()[0].form, send.form, "a repetition is the same request")
					}
				})
			})
		}
	}
}

func TestRetryAfterOfTheTokenEndpointIsNeitherIgnoredNorObeyedBeyondReason(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // as bubbles have it
	date := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, c := range []struct {
		name     string
		header   []string
		deadline time.Duration
		sends    int
		asks     time.Duration // RetryAfter() of the error
	}{
		{name: "five seconds", header: []string{"Retry-After", "5"}, sends: 2},
		{name: "six seconds", header: []string{"Retry-After", "6"}, sends: 1, asks: 6 * time.Second},
		{name: "an hour", header: []string{"Retry-After", "3600"}, sends: 1, asks: time.Hour},
		{name: "a date", header: []string{"Retry-After", date(4 * time.Second)}, sends: 2},
		{name: "a date by the server's clock", header: []string{"Retry-After", date(time.Hour + 4*time.Second), "Date", date(time.Hour)}, sends: 2},
		{name: "a far date", header: []string{"Retry-After", date(time.Hour)}, sends: 1, asks: time.Hour},
		{name: "a past date", header: []string{"Retry-After", date(-time.Hour)}, sends: 2},
		{name: "zero", header: []string{"Retry-After", "0"}, sends: 2},
		{name: "negative", header: []string{"Retry-After", "-5"}, sends: 2},
		{name: "nonsense", header: []string{"Retry-After", "soon"}, sends: 2},
		{name: "more than any number holds", header: []string{"Retry-After", "1000000000000000000000"}, sends: 1, asks: 1e6 * time.Second},
		{name: "past the deadline", header: []string{"Retry-After", "3"}, deadline: 2 * time.Second, sends: 1, asks: 3 * time.Second},
		{name: "just before the deadline", deadline: 10 * time.Millisecond, sends: 1},
		{name: "before the deadline", header: []string{"Retry-After", "3"}, deadline: 4 * time.Second, sends: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
					if n == 1 {
						return oauthError(429, "slow_down", c.header...), nil
					}
					return oauthToken(n), nil
				}}
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				start := time.Now()
				_, err := oauthApp(server).ClientCredentials().Refresh(ctx, reauth.Stale{})
				require.Len(t, server.seen(), c.sends)
				if c.sends > 1 {
					require.NoError(t, err)
					return
				}
				assert.Zero(t, time.Since(start), "the answer in hand is returned at once")
				var refused *oauth2.RetrieveError
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, 429, refused.Response.StatusCode)
				assert.False(t, reauth.IsPermanent(err))
				var asks interface{ RetryAfter() time.Duration }
				require.Equal(t, c.asks > 0, errors.As(err, &asks))
				if asks != nil {
					assert.Equal(t, c.asks, asks.RetryAfter())
				}
			})
		})
	}
}

// And the Credential waits as long.
func TestCredentialDoesNotAskAgainBeforeRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
			if n == 1 {
				return oauthError(503, "temporarily_unavailable", "Retry-After", "40"), nil
			}
			return oauthToken(n), nil
		}}
		cred := oauthCredential(t, oauthApp(server))
		for range 39 {
			_, err := cred.Token(t.Context())
			require.Error(t, err)
			time.Sleep(time.Second)
		}
		require.Len(t, server.seen(), 1)
		time.Sleep(2 * time.Second)
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "T2", tok.AccessToken)
	})
}

func TestTokenEndpointIsNeverAskedMoreThanEightTimes(t *testing.T) {
	for _, c := range []struct {
		name   string
		grant  oauthGrant
		answer func() (*http.Response, error)
		status int
	}{
		{"503 to client credentials", oauthGrants()[0], func() (*http.Response, error) { return oauthAnswer(503, "busy"), nil }, 503},
		{"429 to client credentials", oauthGrants()[0], func() (*http.Response, error) { return oauthAnswer(429, ""), nil }, 429},
		{"503 to a refresh token", oauthRefresh, func() (*http.Response, error) { return oauthAnswer(503, "busy"), nil }, 503},
		{"connections cut for client credentials", oauthGrants()[0], func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) { return c.answer() }}
				_, err := c.grant.get(oauthApp(server)).Refresh(t.Context(), oauthHeld())
				require.Error(t, err)
				assert.False(t, reauth.IsPermanent(err), err)
				times := server.times()
				require.Len(t, times, 8)
				for i := 1; i < len(times); i++ {
					gap := times[i] - times[i-1]
					assert.GreaterOrEqual(t, gap, 50*time.Millisecond)
					assert.LessOrEqual(t, gap, 2*time.Second)
				}
				var refused *oauth2.RetrieveError
				if c.status == 0 {
					assert.False(t, errors.As(err, &refused))
					return
				}
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, c.status, refused.Response.StatusCode)
			})
		})
	}
}

func TestRefusalOfTheTokenEndpointIsNotAskedAgain(t *testing.T) {
	for _, grant := range append(oauthGrants(), oauthRefresh) {
		for _, status := range []int{400, 401, 403, 404, 405, 501} {
			t.Run(fmt.Sprint(grant.name, " ", status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
						return oauthError(status, "invalid_request"), nil
					}}
					_, err := grant.get(oauthApp(server)).Refresh(t.Context(), oauthHeld())
					require.Error(t, err)
					assert.Len(t, server.seen(), 1)
				})
			})
		}
	}
}

// Also where a 4xx or a gateway's 5xx asks for it.
func TestRefreshTokenIsNeverSentAgainAfterAnAnswer(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 408, 409, 425, 429, 500, 501, 502, 504, 520, 524} {
		for _, header := range [][]string{nil, {"Retry-After", "1"}, {"Retry-After", "0"}} {
			t.Run(fmt.Sprint(status, header), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
						if n == 1 || status == http.StatusUnauthorized {
							return oauthAnswer(status, "", header...), nil
						}
						return oauthToken(n), nil
					}}
					_, err := oauthApp(server).Refresh(t.Context(), oauthHeld())
					require.ErrorContains(t, err, fmt.Sprint(status))
					assert.False(t, reauth.IsPermanent(err), "an answer without a code says nothing for good")
					want := 1
					if status == http.StatusUnauthorized {
						want = 2 // the client is refused, and authenticates in the other style
					}
					assert.Len(t, server.seen(), want)
				})
			})
		}
	}
}

// A scope that the challenge asks for is not even in that request.
func TestRefreshTokenIsNeverSentAgainForAScope(t *testing.T) {
	server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
		return oauthError(400, "invalid_scope"), nil
	}}
	_, err := oauthApp(server).Refresh(t.Context(), oauthRejected("scope", "mail.read"))
	require.ErrorContains(t, err, "invalid_scope")
	assert.Len(t, server.seen(), 1)
}

func TestBusyServerDoesNotCostALoginWhenItSentTheRefreshTokenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
			if n < 4 {
				return oauthAnswer(503, "", "Retry-After", "3"), nil
			}
			return oauthToken(n), nil
		}}
		tok, err := oauthApp(server).Refresh(t.Context(), oauthHeld())
		require.NoError(t, err)
		assert.Equal(t, "T4", tok.AccessToken)
		assert.Equal(t, "R4", tok.RefreshToken)
		assert.Equal(t, []time.Duration{0, 3 * time.Second, 6 * time.Second, 9 * time.Second}, server.times())
	})
}

// oauthCuts are ways to lose the answer to a request that was read whole.
var oauthCuts = []struct {
	name string
	cut  func(c net.Conn) // of an HTTP/1 connection
}{
	{"nothing", func(net.Conn) {}},
	{"reset", func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }},
	{"half a status line", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 2") }},
	{"half a header", func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Le")
	}},
	{"no byte of the body", func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n")
	}},
	{"half the body", func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"access_token\":\"T1\",")
	}},
	{"half a chunk", func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{\"access_token\":\"T1\"")
	}},
	{"no last chunk", func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n{\"access_token\":\"T1\"}\r\n")
	}},
	{"half the body, then a reset", func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"access_token\":\"T1\",")
		_ = c.(*net.TCPConn).SetLinger(0)
	}},
	{"half a 503", func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nbu")
	}},
	{"no HTTP", func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n") }},
}

// oauthCutting is a server that reads the first requests whole, loses the answers
// as cut has it, and answers the later ones.
func oauthCutting(t *testing.T, first int, cut func(net.Conn)) (address string, server *oauthServer) {
	server = &oauthServer{}
	return oauthConns(t, nil, func(n int, c net.Conn) {
		req, err := oauthRead(c)
		if err != nil {
			return
		}
		resp, _ := server.RoundTrip(req)
		if n <= first {
			cut(c)
			return
		}
		_ = resp.Write(c)
	}), server
}

// The server may have used the refresh token up (RFC 9700 §4.14.2).
func TestOAuth2AnswerLost(t *testing.T) {
	for _, c := range oauthCuts {
		t.Run(c.name, func(t *testing.T) {
			address, server := oauthCutting(t, 1, c.cut)
			o := oauthApp(nil)
			o.Config.Endpoint.TokenURL = "http://" + address + "/token"
			oauthAnswerIsLost(t, o, server)
		})
	}
}

// oauthAnswerIsLost asserts that the refresh token was sent once, that its answer counts
// as lost and the login as not ended, and that the next refresh presents it again.
func oauthAnswerIsLost(t *testing.T, o *refresher.OAuth2, server *oauthServer) {
	t.Helper()
	cred := oauthCredential(t, o)
	cred.MinBackoff = -1
	_, err := cred.Token(t.Context())
	var failed *reauth.RefreshError
	require.ErrorAs(t, err, &failed)
	assert.False(t, failed.Permanent(), err)
	assert.True(t, reauth.IsAnswerLost(err), err)
	assert.Equal(t, "R0", server.only(t).form.Get("refresh_token"))
	_, err = cred.Token(t.Context())
	require.NoError(t, err, "without an access token the login is lost for certain if it is not presented again")
	assert.Equal(t, "R0", server.seen()[1].form.Get("refresh_token"))
}

// The same holds for a Base that does not report what it has written.
func TestOAuth2AnswerLostThroughAnotherTransport(t *testing.T) {
	for _, c := range oauthCuts {
		t.Run(c.name, func(t *testing.T) {
			address, server := oauthCutting(t, 1, c.cut)
			transport := &http.Transport{DisableKeepAlives: true}
			o := oauthApp(&oauthServerOver{transport})
			o.Config.Endpoint.TokenURL = "http://" + address + "/token"
			oauthAnswerIsLost(t, o, server)
		})
	}
}

// An oauthServerOver is a RoundTripper of another type, such as a log has.
type oauthServerOver struct{ http.RoundTripper }

// Does not hold for what may be sent twice.
func TestLostAnswerDoesNotFailAGrantThatMayBeRepeated(t *testing.T) {
	for _, grant := range oauthGrants() {
		for _, c := range oauthCuts {
			t.Run(grant.name+", "+c.name, func(t *testing.T) {
				address, server := oauthCutting(t, 1, c.cut)
				o := oauthApp(nil)
				o.Config.Endpoint.TokenURL = "http://" + address + "/token"
				tok, err := grant.get(o).Refresh(t.Context(), reauth.Stale{})
				require.NoError(t, err)
				assert.Equal(t, "T2", tok.AccessToken)
				assert.Len(t, server.seen(), 2)
			})
		}
	}
}

// The same over HTTP/2.
func TestOAuth2AnswerLostByAStreamReset(t *testing.T) {
	var proto atomic.Value
	server := &oauthServer{}
	server.answer = func(n int, req *http.Request, _ url.Values) (*http.Response, error) {
		proto.Store(req.Proto)
		if n == 1 {
			return nil, errors.New("cut")
		}
		return oauthToken(n), nil
	}
	o, _ := oauthListenTLS(t, server)
	oauthAnswerIsLost(t, o, server)
	assert.Equal(t, "HTTP/2.0", proto.Load())
}

// Over HTTP/2, the body is whole, its end is missing.
func TestOAuth2AnswerLostByAStreamResetInTheBody(t *testing.T) {
	server := &oauthServer{}
	o, _ := oauthListenTLS(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		resp, _ := server.RoundTrip(req)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.Copy(w, resp.Body)
		if len(server.seen()) == 1 {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	oauthAnswerIsLost(t, o, server)
}

// Over HTTP/2, the connection goes away with the stream among those that the
// server has seen, and without another word.
func TestOAuth2AnswerLostByGoAway(t *testing.T) {
	for _, c := range []struct {
		name   string
		frames func(w io.Writer)
	}{
		{"GOAWAY", func(w io.Writer) { oauthFrame(w, 7, 0, 0, []byte{0, 0, 0, 1, 0, 0, 0, 2}) }},
		{"graceful GOAWAY", func(w io.Writer) { oauthFrame(w, 7, 0, 0, []byte{0, 0, 0, 1, 0, 0, 0, 0}) }},
		{"the connection closed", func(io.Writer) {}},
		{"a broken frame", func(w io.Writer) { oauthFrame(w, 1, 4, 1, []byte{0xff, 0xff, 0xff}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			issuer := httptest.NewTLSServer(nil)
			defer issuer.Close()
			var asked atomic.Int32
			address := oauthConns(t, issuer.TLS.Certificates, func(_ int, conn net.Conn) {
				if oauthReadStream(conn) {
					asked.Add(1)
					c.frames(conn)
				}
			})
			base := issuer.Client().Transport.(*http.Transport).Clone()
			base.ForceAttemptHTTP2 = true
			base.TLSClientConfig.NextProtos = nil
			defer base.CloseIdleConnections()
			o := oauthApp(base)
			o.Config.Endpoint.TokenURL = "https://" + address + "/token"
			cred := oauthCredential(t, o)
			_, err := cred.Token(t.Context())
			var failed *reauth.RefreshError
			require.ErrorAs(t, err, &failed)
			assert.False(t, failed.Permanent(), err)
			assert.True(t, reauth.IsAnswerLost(err), err)
			assert.EqualValues(t, 1, asked.Load())
			assert.EqualValues(t, 1, asked.Load(), "streams with the refresh token")
		})
	}
}

// What was not sent may be sent.
func TestRefreshTokenThatWasNeverSentDoesNotCostALogin(t *testing.T) {
	issuer := oauthCertificates(t)
	for _, c := range []struct {
		name string
		dial func(server net.Conn) error // what becomes of the first connections
	}{
		{"refused", func(net.Conn) error {
			return &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
		}},
		{"unknown host", func(net.Conn) error {
			return &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "issuer.example", IsNotFound: true}}
		}},
		{"TLS closed", func(c net.Conn) error { return c.Close() }},
		{"TLS closed after the hello", func(c net.Conn) error {
			go func() {
				oauthReadHello(c)
				_ = c.Close()
			}()
			return nil
		}},
		{"TLS closed in the middle", func(c net.Conn) error {
			go func() {
				oauthReadHello(c)
				_, _ = c.Write([]byte{22, 3, 3, 0, 80, 2})
				_ = c.Close()
			}()
			return nil
		}},
		{"TLS alert", func(c net.Conn) error {
			go func() {
				oauthReadHello(c)
				_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, 80})
				_ = c.Close()
			}()
			return nil
		}},
		{"no TLS", func(c net.Conn) error {
			go func() {
				go func() { _, _ = io.Copy(io.Discard, c) }()
				_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
				_ = c.Close()
			}()
			return nil
		}},
	} {
		for _, first := range []int{2, 1000} {
			t.Run(fmt.Sprint(c.name, " ", first), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &oauthServer{}
					base, dials := oauthPipeTLS(t, server, issuer, first, c.dial)
					cred := oauthCredential(t, oauthApp(base))
					tok, err := cred.Token(t.Context())
					if first == 2 {
						require.NoError(t, err)
						assert.Equal(t, "T1", tok.AccessToken)
						assert.EqualValues(t, 3, dials.Load())
						assert.Equal(t, "R0", server.only(t).form.Get("refresh_token"))
						return
					}
					var failed *reauth.RefreshError
					require.ErrorAs(t, err, &failed)
					assert.False(t, failed.Permanent(), err)
					assert.EqualValues(t, 8, dials.Load())
					assert.Empty(t, server.seen())
				})
			})
		}
	}
}

// On a socket, where a handshake that is reset looks like an answer that is.
func TestBrokenHandshakeDoesNotCostALogin(t *testing.T) {
	for name, end := range map[string]func(c net.Conn){
		"reset":  func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) },
		"closed": func(net.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			var conns atomic.Int32
			address := oauthConns(t, nil, func(_ int, c net.Conn) {
				conns.Add(1)
				oauthReadHello(c)
				end(c)
			})
			o := oauthApp(nil)
			o.Config.Endpoint.TokenURL = "https://" + address + "/token"
			cred := oauthCredential(t, o)
			cred.RefreshTimeout = 2 * time.Second // which leaves time for a few tries
			_, err := cred.Token(t.Context())
			var failed *reauth.RefreshError
			require.ErrorAs(t, err, &failed)
			assert.False(t, failed.Permanent(), err)
			assert.Greater(t, conns.Load(), int32(1))
		})
	}
}

func TestForgedCertificateIsNeitherTrustedNorAskedAgain(t *testing.T) {
	server := &oauthServer{}
	o, _ := oauthListenTLS(t, server)
	var dials atomic.Int32
	base := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	t.Cleanup(base.CloseIdleConnections)
	o.Base = base
	cred := oauthCredential(t, o)
	_, err := cred.Token(t.Context())
	var failed *reauth.RefreshError
	require.ErrorAs(t, err, &failed)
	assert.False(t, failed.Permanent(), err)
	assert.ErrorContains(t, err, "certificate")
	assert.EqualValues(t, 1, dials.Load())
	assert.Empty(t, server.seen())
}

// An oauthRotating is a server with rotation and reuse detection: it takes each
// refresh token once, and a second time revokes them all (RFC 9700 §4.14.2).
type oauthRotating struct {
	mu      sync.Mutex
	live    string
	n       int
	revoked bool
}

func (s *oauthRotating) take(refreshToken string) *http.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	if refreshToken != s.live {
		s.revoked = true
	}
	if s.revoked {
		return oauthError(400, "invalid_grant")
	}
	s.n++
	s.live = fmt.Sprint("R", s.n)
	return oauthToken(s.n)
}

// The answer comes later than RefreshTimeout.
func TestRotatedRefreshTokenIsNotLostToATimeout(t *testing.T) {
	for _, c := range []struct {
		name string
		base func(t *testing.T, server *oauthServer) http.RoundTripper
	}{
		{"a Transport of net/http", func(t *testing.T, server *oauthServer) http.RoundTripper { return oauthPipe(t, server) }},
		{"another", func(t *testing.T, server *oauthServer) http.RoundTripper {
			return &oauthServerOver{oauthPipe(t, server)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rotating := &oauthRotating{live: "R0"}
				server := &oauthServer{answer: func(n int, _ *http.Request, form url.Values) (*http.Response, error) {
					resp := rotating.take(form.Get("refresh_token"))
					if n == 1 {
						time.Sleep(50 * time.Second)
					}
					return resp, nil
				}}
				o := oauthApp(c.base(t, server))
				o.Config.Endpoint.TokenURL = "http://127.0.0.1/token"
				cred := oauthCredential(t, o)

				start := time.Now()
				_, err := cred.Token(t.Context())
				var failed *reauth.RefreshError
				require.ErrorAs(t, err, &failed)
				assert.False(t, failed.Permanent(), err)
				assert.Equal(t, 30*time.Second, time.Since(start), "nobody waits longer than RefreshTimeout")
				for time.Since(start) < 50*time.Second {
					_, err := cred.Token(t.Context())
					require.Error(t, err)
					time.Sleep(time.Second)
				}
				synctest.Wait()
				require.Len(t, server.seen(), 1, "the refresh token was out")

				tok, err := cred.Token(t.Context())
				require.NoError(t, err)
				assert.Equal(t, "T1", tok.AccessToken)
				assert.Equal(t, "R1", tok.RefreshToken)
				time.Sleep(2 * time.Hour)
				tok, err = cred.Token(t.Context())
				require.NoError(t, err)
				assert.Equal(t, "T2", tok.AccessToken)
				assert.False(t, rotating.revoked)
			})
		})
	}
}

// An oauthDeadline is a context whose deadline passes when the test says so.
type oauthDeadline struct {
	context.Context
	passed chan struct{}
}

func (d oauthDeadline) Done() <-chan struct{} { return d.passed }

func (d oauthDeadline) Err() error {
	select {
	case <-d.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// On a socket.
func TestRotatedRefreshTokenIsNotLostToATimeoutOnASocket(t *testing.T) {
	for name, listen := range map[string]func(testing.TB, http.Handler) (*refresher.OAuth2, *http.Transport){"HTTP/1": oauthListen, "HTTP/2": oauthListenTLS} {
		t.Run(name, func(t *testing.T) {
			arrived, release := make(chan struct{}), make(chan struct{})
			rotating := &oauthRotating{live: "R0"}
			server := &oauthServer{answer: func(n int, _ *http.Request, form url.Values) (*http.Response, error) {
				resp := rotating.take(form.Get("refresh_token"))
				if n == 1 {
					close(arrived)
					<-release
				}
				return resp, nil
			}}
			o, _ := listen(t, server)
			told := make(chan reauth.RefreshInfo, 3)
			deadline := oauthDeadline{t.Context(), make(chan struct{})}
			cred := oauthCredential(t, o)
			cred.BaseContext = func() context.Context { return deadline }
			cred.OnRefresh = func(_ context.Context, r reauth.RefreshInfo) { told <- r }

			go func() {
				<-arrived
				close(deadline.passed)
			}()
			_, err := cred.Token(t.Context())
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Error(t, (<-told).Err)
			for range 10 {
				_, err := cred.Token(t.Context())
				require.Error(t, err)
			}
			close(release)
			oauthWithin(t, 10*time.Second, func() { require.NoError(t, (<-told).Err) })
			tok, err := cred.Token(t.Context())
			require.NoError(t, err)
			assert.Equal(t, "R1", tok.RefreshToken)
			assert.Equal(t, "R0", server.only(t).form.Get("refresh_token"))

			deadline.passed = make(chan struct{})
			tok, err = cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
			require.NoError(t, err)
			assert.Equal(t, "T2", tok.AccessToken)
			assert.False(t, rotating.revoked)
		})
	}
}

// A minute past the deadline the answer counts as lost.
func TestOAuth2AnswerLostByATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		server := &oauthServer{answer: func(n int, _ *http.Request, form url.Values) (*http.Response, error) {
			if form.Get("refresh_token") == "R0" {
				<-hang
			}
			return oauthToken(n), nil
		}}
		o := oauthApp(oauthPipe(t, server))
		o.Config.Endpoint.TokenURL = "http://127.0.0.1/token"
		start := time.Now()
		var ended atomic.Int64
		cred := oauthCredential(t, reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
			defer func() { ended.Store(int64(time.Since(start))) }()
			return o.Refresh(ctx, stale)
		}))
		_, err := cred.Token(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Hour)
		assert.Equal(t, 90*time.Second, time.Duration(ended.Load()))
		_, err = cred.Current()
		assert.False(t, reauth.IsPermanent(err), err)
		_, err = cred.Token(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Hour)
		assert.Len(t, server.seen(), 2, "presented again when nothing else is left")
	})
}

// A deadline that passes with nothing on its way costs neither time nor a login.
func TestTimeoutDoesNotCostALoginWhenNothingWasSent(t *testing.T) {
	for _, dials := range []bool{false, true} {
		t.Run(fmt.Sprint("while dialling: ", dials), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var well atomic.Bool
				server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
					if !well.Load() {
						time.Sleep(30*time.Second - time.Millisecond)
						return oauthAnswer(503, ""), nil
					}
					return oauthToken(n), nil
				}}
				pipe := oauthPipe(t, server)
				dial := pipe.DialContext
				pipe.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if dials && !well.Load() {
						<-ctx.Done()
						return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
					}
					return dial(ctx, network, addr)
				}
				o := oauthApp(pipe)
				o.Config.Endpoint.TokenURL = "http://127.0.0.1/token"
				start := time.Now()
				cred := oauthCredential(t, o)
				_, err := cred.Token(t.Context())
				var failed *reauth.RefreshError
				require.ErrorAs(t, err, &failed)
				assert.False(t, failed.Permanent(), err)
				assert.LessOrEqual(t, time.Since(start), 30*time.Second)

				well.Store(true)
				time.Sleep(time.Second)
				_, err = cred.Token(t.Context())
				require.NoError(t, err)
				for _, send := range server.seen() {
					assert.Equal(t, "R0", send.form.Get("refresh_token"))
				}
				if dials {
					assert.Len(t, server.seen(), 1)
				}
			})
		})
	}
}

func TestCancelledRefreshDoesNotGoOn(t *testing.T) {
	for _, grant := range append(oauthGrants(), oauthRefresh) {
		for _, c := range []struct {
			name   string
			answer func(n int, req *http.Request, _ url.Values) (*http.Response, error)
		}{
			{"before the answer", func(_ int, req *http.Request, _ url.Values) (*http.Response, error) {
				<-req.Context().Done()
				return nil, context.Cause(req.Context())
			}},
			{"between two tries", func(int, *http.Request, url.Values) (*http.Response, error) {
				return oauthAnswer(503, "", "Retry-After", "5"), nil
			}},
		} {
			t.Run(grant.name+", "+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &oauthServer{answer: c.answer}
					gone := errors.New("the process ends")
					ctx, cancel := context.WithCancelCause(t.Context())
					time.AfterFunc(time.Second, func() { cancel(gone) })
					start := time.Now()
					_, err := grant.get(oauthApp(server)).Refresh(ctx, oauthHeld())
					require.ErrorIs(t, err, gone)
					assert.Equal(t, time.Second, time.Since(start))
					assert.Len(t, server.seen(), 1)
				})
			})
		}
	}
}

// After a cancellation it is not known whether the server has acted.
func TestOAuth2AnswerLostByACancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{answer: func(n int, req *http.Request, _ url.Values) (*http.Response, error) {
			if n == 1 {
				<-req.Context().Done()
				return nil, context.Cause(req.Context())
			}
			return oauthToken(n), nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		cred := oauthCredential(t, oauthApp(server))
		cred.BaseContext = func() context.Context { return ctx }
		time.AfterFunc(time.Second, cancel)
		_, err := cred.Token(t.Context())
		require.ErrorIs(t, err, context.Canceled)
		cred.BaseContext = nil
		time.Sleep(time.Hour)
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "T2", tok.AccessToken)
		assert.Len(t, server.seen(), 2)
	})
}

// Neither the client's secret nor the refresh token goes there.
func TestGrantNeverFollowsARedirect(t *testing.T) {
	var elsewhere oauthServer
	other := httptest.NewServer(&elsewhere)
	defer other.Close()
	for _, grant := range append(oauthGrants(), oauthRefresh) {
		for _, status := range []int{301, 302, 303, 307, 308} {
			t.Run(fmt.Sprint(grant.name, " ", status), func(t *testing.T) {
				server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
					return oauthAnswer(status, "", "Location", other.URL+"/token?code=of-no-concern"), nil
				}}
				o, _ := oauthListen(t, server)
				_, err := grant.get(o).Refresh(t.Context(), oauthHeld())
				var refused *oauth2.RetrieveError
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, status, refused.Response.StatusCode)
				assert.ErrorContains(t, err, other.URL+"/token")
				assert.NotContains(t, err.Error(), "of-no-concern")
				assert.False(t, reauth.IsPermanent(err))
				assert.Len(t, server.seen(), 1)
				assert.Empty(t, elsewhere.seen())
			})
		}
	}
}

func TestDeviceLoginNeverFollowsARedirect(t *testing.T) {
	var elsewhere oauthServer
	other := httptest.NewServer(&elsewhere)
	defer other.Close()
	o, _ := oauthListen(t, http.RedirectHandler(other.URL+"/device", http.StatusTemporaryRedirect))
	_, err := o.DeviceLogin(t.Context(), func(*oauth2.DeviceAuthResponse) error { return errors.New("shown") })
	require.ErrorContains(t, err, other.URL)
	assert.NotContains(t, err.Error(), "shown")
	assert.Empty(t, elsewhere.seen())
}

func TestGrantNeverGoesOverPlainHTTP(t *testing.T) {
	for _, grant := range append(oauthGrants(), oauthRefresh) {
		for _, c := range []struct {
			address string
			ok      bool
		}{
			{"https://issuer.example/token", true},
			{"http://127.0.0.1:8080/token", true},
			{"http://localhost/token", true},
			{"http://[::1]:9000/token", true},
			{"http://issuer.example/token", false},
			{"http://10.0.0.1/token", false},
			{"http://localhost.example/token", false},
			{"http://127.0.0.1.example/token", false},
			{"HTTP://issuer.example/token", false},
			{"ftp://issuer.example/token", false},
			{"http://0.0.0.0/token", false},
		} {
			t.Run(grant.name+", "+c.address, func(t *testing.T) {
				server := &oauthServer{}
				o := oauthApp(server)
				o.Config.Endpoint.TokenURL = c.address
				_, err := grant.get(o).Refresh(t.Context(), oauthHeld())
				if c.ok {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, reauth.ErrInsecure)
				assert.True(t, reauth.IsPermanent(err))
				assert.ErrorContains(t, err, "https")
				assert.Empty(t, server.seen())
			})
		}
	}
}

func TestMissingEndpointIsNotARiddle(t *testing.T) {
	for _, address := range []string{"", "issuer.example/token", "://", "https://", "/token"} {
		server := &oauthServer{}
		o := oauthApp(server)
		o.Config.Endpoint.TokenURL = address
		_, err := o.Refresh(t.Context(), oauthHeld())
		require.ErrorContains(t, err, "OAuth2.Config.Endpoint", address)
		assert.True(t, reauth.IsPermanent(err))
		assert.Empty(t, server.seen())
	}
}

// The answer is bounded.
func TestEndlessAnswerNeitherHangsNorFillsTheMemory(t *testing.T) {
	for _, grant := range append(oauthGrants()[:1], oauthRefresh) {
		for _, status := range []int{200, 400, 503} {
			t.Run(fmt.Sprint(grant.name, " ", status), func(t *testing.T) {
				var sends atomic.Int32
				o, _ := oauthListen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					sends.Add(1)
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(status)
					chunk := []byte(strings.Repeat(" ", 64<<10))
					for {
						if _, err := w.Write(chunk); err != nil {
							return
						}
					}
				}))
				oauthWithin(t, 30*time.Second, func() {
					_, err := grant.get(o).Refresh(t.Context(), oauthHeld())
					assert.ErrorContains(t, err, "1 MiB")
					assert.False(t, reauth.IsPermanent(err))
				})
				assert.EqualValues(t, 1, sends.Load())
			})
		}
	}
}

func TestLongAnswerIsNotRefused(t *testing.T) {
	server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
		body := `{"access_token":"T1","id_token":"`
		return oauthAnswer(200, body+strings.Repeat("x", 1<<20-len(body)-2)+`"}`), nil
	}}
	tok, err := oauthApp(server).Refresh(t.Context(), oauthHeld())
	require.NoError(t, err)
	assert.Equal(t, "T1", tok.AccessToken)
}

func TestErrorCodeIsNeitherForgottenNorTakenTooSeriously(t *testing.T) {
	const once, never = "with a refresh token", "never"
	for _, c := range []struct {
		name      string
		status    int
		header    []string
		body      string
		permanent string
		says      string
	}{
		{name: "invalid_grant", status: 400, body: `{"error":"invalid_grant"}`, permanent: once},
		{name: "invalid_grant with 401", status: 401, body: `{"error":"invalid_grant"}`, permanent: once},
		{name: "invalid_request", status: 400, body: `{"error":"invalid_request"}`, permanent: once},
		{name: "invalid_target", status: 400, body: `{"error":"invalid_target"}`, permanent: once},
		{name: "access_denied", status: 403, body: `{"error":"access_denied"}`, permanent: once},
		{name: "invalid_client", status: 401, body: `{"error":"invalid_client"}`, permanent: once, says: "AuthStyle"},
		{name: "unauthorized_client", status: 400, body: `{"error":"unauthorized_client"}`, permanent: once, says: "ClientID"},
		{name: "unsupported_grant_type", status: 400, body: `{"error":"unsupported_grant_type"}`, permanent: once},
		{name: "invalid_scope", status: 400, body: `{"error":"invalid_scope"}`, permanent: once},
		{name: "expired_token", status: 400, body: `{"error":"expired_token"}`, permanent: once},
		{name: "interaction_required", status: 400, body: `{"error":"interaction_required"}`, permanent: once},
		{name: "GitHub", status: 200, body: `{"error":"bad_refresh_token","error_description":"The refresh token passed is incorrect or expired."}`, permanent: once, says: "incorrect or expired"},
		{name: "GitHub as a form", status: 200, header: []string{"Content-Type", "application/x-www-form-urlencoded"}, body: `error=incorrect_client_credentials&error_description=no`, permanent: once},
		{name: "Slack", status: 200, body: `{"ok":false,"error":"invalid_refresh_token"}`, permanent: once},
		{name: "JSON that says it is text", status: 400, header: []string{"Content-Type", "text/plain"}, body: `{"error":"invalid_grant"}`, permanent: once},
		{name: "JSON that does not say what it is", status: 400, header: []string{"Content-Type", ""}, body: `{"error":"invalid_grant"}`, permanent: once},
		{name: "invalid_grant within a 500", status: 500, body: `{"error":"invalid_grant"}`, permanent: never},
		{name: "invalid_grant within a 503", status: 503, header: []string{"Retry-After", "9"}, body: `{"error":"invalid_grant"}`, permanent: never},
		{name: "invalid_client within a 429", status: 429, header: []string{"Retry-After", "9"}, body: `{"error":"invalid_client"}`, permanent: never},
		{name: "invalid_client within a 429 without more", status: 429, body: `{"error":"invalid_client"}`, permanent: never},
		{name: "server_error", status: 400, body: `{"error":"server_error"}`, permanent: never},
		{name: "temporarily_unavailable", status: 400, body: `{"error":"temporarily_unavailable"}`, permanent: never},
		{name: "slow_down", status: 400, body: `{"error":"slow_down"}`, permanent: never},
		{name: "authorization_pending", status: 400, body: `{"error":"authorization_pending"}`, permanent: never},
		{name: "an unknown code", status: 400, body: `{"error":"moon_phase"}`, permanent: never},
		{name: "INVALID_GRANT", status: 400, body: `{"error":"INVALID_GRANT"}`, permanent: once},
		{name: "an error object", status: 400, body: `{"error":{"code":"invalid_grant"}}`, permanent: once},
		{name: "HTML", status: 400, header: []string{"Content-Type", "text/html"}, body: `<html><h1>invalid_grant: a page of the firewall</h1></html>`, permanent: never},
		{name: "HTML as a 200", status: 200, header: []string{"Content-Type", "text/html"}, body: `<html>Accept the terms of this hotel</html>`, permanent: never},
		{name: "an empty 200", status: 200, permanent: never},
		{name: "an empty 400", status: 400, permanent: never},
		{name: "an empty 204", status: 204, permanent: never},
		{name: "null", status: 200, body: `null`, permanent: never},
		{name: "an array", status: 200, body: `[]`, permanent: never},
		{name: "no token", status: 200, body: `{"token_type":"Bearer"}`, permanent: never},
		{name: "a token that is null", status: 200, body: `{"access_token":null}`, permanent: never},
		{name: "a token that is none", status: 200, body: `{"access_token":"to\u0000ken"}`, permanent: never},
		{name: "a token with a line break", status: 200, body: `{"access_token":"T1\n"}`, permanent: never, says: "line break"},
	} {
		for _, grant := range append(oauthGrants(), oauthRefresh) {
			t.Run(c.name+", "+grant.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
						return oauthAnswer(c.status, c.body, c.header...), nil
					}}
					_, err := grant.get(oauthApp(server)).Refresh(t.Context(), oauthHeld())
					require.Error(t, err)
					assert.Equal(t, c.permanent == once && grant.name == oauthRefresh.name, reauth.IsPermanent(err), err)
					assert.ErrorContains(t, err, c.says)
					var refused *oauth2.RetrieveError
					if c.permanent != never {
						require.ErrorAs(t, err, &refused)
						assert.Contains(t, err.Error(), refused.ErrorCode)
						assert.NotEmpty(t, refused.ErrorCode)
					}
				})
			})
		}
	}
}

// No expiry means that the token is used until a server rejects it.
var oauthLifetimes = []struct {
	json string // "" is a member that is missing
	want time.Duration
}{
	{"", 0},
	{`3600`, time.Hour},
	{`"3600"`, time.Hour},
	{`3599.9`, 3599900 * time.Millisecond},
	{`"3600.0"`, time.Hour},
	{`" 3600 "`, time.Hour},
	{`3.6e3`, time.Hour},
	{`1`, time.Second},
	{`0.5`, 500 * time.Millisecond},
	{`null`, 0},
	{`0`, 0},
	{`"0"`, 0},
	{`-1`, 0},
	{`"-1"`, 0},
	{`-1e400`, 0},
	{`""`, 0},
	{`"abc"`, 0},
	{`"NaN"`, 0},
	{`{}`, 0},
	{`[]`, 0},
	{`[3600]`, 0},
	{`true`, 0},
	{`false`, 0},
	{`4294967296`, oauthCentury},
	{`9223372036854775807`, oauthCentury},
	{`9223372036854775808`, oauthCentury},
	{`1e30`, oauthCentury},
	{`1e400`, oauthCentury},
	{`"1e400"`, oauthCentury},
}

const oauthCentury = 100 * 365 * 24 * time.Hour

// Counted from before the request, which takes ten seconds here.
func TestNoLifetimeIsMisread(t *testing.T) {
	type form struct {
		name   string
		answer func(lifetime string) *http.Response
	}
	asJSON := func(contentType string) func(lifetime string) *http.Response {
		return func(lifetime string) *http.Response {
			body := `{"access_token":"T1","token_type":"Bearer"}`
			if lifetime != "" {
				body = `{"access_token":"T1","expires_in":` + lifetime + `,"token_type":"Bearer"}`
			}
			return oauthAnswer(200, body, "Content-Type", contentType)
		}
	}
	asForm := func(contentType string) func(lifetime string) *http.Response {
		return func(lifetime string) *http.Response {
			body := "access_token=T1&token_type=bearer"
			if lifetime != "" {
				body += "&expires_in=" + url.QueryEscape(strings.Trim(lifetime, `"`))
			}
			return oauthAnswer(200, body, "Content-Type", contentType)
		}
	}
	forms := []form{
		{"JSON", asJSON("application/json")},
		{"JSON with a charset", asJSON("application/json; charset=utf-8")},
		{"JSON as text", asJSON("text/plain")},
		{"JSON as a form", asJSON("application/x-www-form-urlencoded")},
		{"JSON without a type", asJSON("")},
		{"form", asForm("application/x-www-form-urlencoded")},
		{"form as text", asForm("text/plain; charset=utf-8")},
	}
	for _, f := range forms {
		for _, grant := range append(oauthGrants(), oauthRefresh) {
			if strings.HasPrefix(f.name, "form") && grant.name == "JWT bearer" {
				continue // x/oauth2/jwt reads JSON alone
			}
			for _, c := range oauthLifetimes {
				t.Run(fmt.Sprintf("%s, %s, %s", f.name, grant.name, c.json), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
							time.Sleep(10 * time.Second)
							return f.answer(c.json), nil
						}}
						start := time.Now()
						tok, err := grant.get(oauthApp(server)).Refresh(t.Context(), oauthHeld())
						require.NoError(t, err)
						require.Equal(t, "T1", tok.AccessToken)
						if c.want == 0 {
							assert.Zero(t, tok.Expiry)
							return
						}
						assert.Equal(t, c.want, tok.Expiry.Sub(start).Round(time.Microsecond))
					})
				})
			}
		}
	}
}

// Of the answer that counts, not of those before it.
func TestLifetimeIsNotThatOfAnEarlierTry(t *testing.T) {
	for life, want := range map[string]time.Duration{`,"expires_in":60`: 65 * time.Second, "": 0} {
		synctest.Test(t, func(t *testing.T) {
			server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
				if n == 1 {
					return oauthAnswer(503, `{"error":"busy","expires_in":7}`, "Retry-After", "5"), nil
				}
				return oauthAnswer(200, `{"access_token":"T2"`+life+`}`), nil
			}}
			start := time.Now()
			tok, err := oauthApp(server).Refresh(t.Context(), oauthHeld())
			require.NoError(t, err)
			if want == 0 {
				assert.Zero(t, tok.Expiry)
				return
			}
			assert.Equal(t, want, tok.Expiry.Sub(start))
		})
	}
}

// A JWT says itself when it ends.
func TestDeadJWTIsNotTakenForAFreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for _, c := range []struct {
			name string
			exp  time.Time
			life string
			want time.Time
		}{
			{"passed", now.Add(-time.Minute), "", now.Add(-time.Minute)},
			{"passed, whatever expires_in says", now.Add(-time.Minute), `,"expires_in":3600`, now.Add(-time.Minute)},
			{"to come", now.Add(time.Minute), "", now.Add(time.Minute)},
			{"to come, and expires_in says another time", now.Add(time.Minute), `,"expires_in":30`, now.Add(30 * time.Second)},
		} {
			for _, grant := range append(oauthGrants(), oauthRefresh) {
				server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
					return oauthAnswer(200, `{"access_token":"`+oauthJWT(c.exp)+`"`+c.life+`}`), nil
				}}
				tok, err := grant.get(oauthApp(server)).Refresh(t.Context(), oauthHeld())
				require.NoError(t, err)
				assert.True(t, c.want.Equal(tok.Expiry), "%s, %s: %v", c.name, grant.name, tok.Expiry)
			}
		}
	})
}

// X/oauth2 would take Expires_In for expires_in, and refuse it.
func TestAnswersOtherMembersAreNotChanged(t *testing.T) {
	server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
		return oauthAnswer(200, `{"access_token":"T1","expires_in":"60","Expires_In":"soon","token_type":"MAC","refresh_token":"<&>","scope":"a b","n":12345678901234567890}`), nil
	}}
	tok, err := oauthApp(server).Refresh(t.Context(), oauthHeld())
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(time.Minute), tok.Expiry, 10*time.Second)
	assert.Equal(t, "MAC", tok.TokenType)
	assert.Equal(t, "<&>", tok.RefreshToken)
}

// A test double often has no header.
func TestAnswerWithoutAHeaderDoesNotPanic(t *testing.T) {
	server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(`{"access_token":"T1"}`))}, nil
	}}
	tok, err := oauthApp(server).Refresh(t.Context(), oauthHeld())
	require.NoError(t, err)
	assert.Equal(t, "T1", tok.AccessToken)
}

func TestAnswersBodyIsNeverLeftOpen(t *testing.T) {
	for _, status := range []int{200, 302, 400, 503} {
		var open atomic.Int32
		server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
			resp := oauthAnswer(status, `{"access_token":"T1"}`, "Retry-After", "60")
			open.Add(1)
			resp.Body = oauthCloser{resp.Body, &open}
			return resp, nil
		}}
		_, _ = oauthApp(server).Refresh(t.Context(), oauthHeld())
		assert.Zero(t, open.Load(), status)
		assert.Len(t, server.seen(), 1)
	}
}

type oauthCloser struct {
	io.Reader
	open *atomic.Int32
}

func (c oauthCloser) Close() error { c.open.Add(-1); return nil }

// On a connection that the server is just closing the answer would be lost.
func TestConnectionIsNeitherReusedNorKept(t *testing.T) {
	var conns atomic.Int32
	server := &oauthServer{}
	srv := httptest.NewUnstartedServer(server)
	closed := make(chan struct{}, 10)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed:
			closed <- struct{}{}
		}
	}
	srv.Start()
	defer srv.Close()
	o := oauthApp(nil)
	o.Config.Endpoint.TokenURL = srv.URL
	for range 3 {
		_, err := o.Refresh(t.Context(), oauthHeld())
		require.NoError(t, err)
		oauthWithin(t, 10*time.Second, func() { <-closed })
	}
	assert.EqualValues(t, 3, conns.Load())
}

// Of x/oauth2's users: their context brings its own client.
func TestClientOfTheContextIsNotIgnored(t *testing.T) {
	inContext, inBase := &oauthServer{}, &oauthServer{}
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: inContext})
	_, err := oauthApp(nil).Refresh(ctx, oauthHeld())
	require.NoError(t, err)
	assert.Len(t, inContext.seen(), 1)
	_, err = oauthApp(inBase).Refresh(ctx, oauthHeld())
	require.NoError(t, err)
	assert.Len(t, inBase.seen(), 1, "Base comes first")
	assert.Len(t, inContext.seen(), 1)
}

func TestPoolOfBaseIsNeverEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &oauthPool{oauthServer: &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
			return oauthAnswer(503, ""), nil
		}}}
		_, err := oauthApp(base).Refresh(t.Context(), oauthHeld())
		require.Error(t, err)
		assert.Zero(t, base.emptied.Load())
	})
}

type oauthPool struct {
	*oauthServer
	emptied atomic.Int32
}

func (p *oauthPool) CloseIdleConnections() { p.emptied.Add(1) }

// oauthCertificates returns a test server for its certificates. It is made outside of
// bubbles.
func oauthCertificates(t *testing.T) *httptest.Server {
	srv := httptest.NewTLSServer(nil)
	t.Cleanup(srv.Close)
	return srv
}

// oauthPipeTLS serves h over TLS without a socket. What becomes of the first
// connections is told by dial.
func oauthPipeTLS(t *testing.T, h http.Handler, issuer *httptest.Server, first int, dial func(net.Conn) error) (*http.Transport, *atomic.Int32) {
	dials := new(atomic.Int32)
	base := oauthPipe(t, h)
	pipe := base.DialContext
	base.TLSClientConfig = issuer.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	base.TLSClientConfig.ServerName = "example.com"
	base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		if dials.Add(1) <= int32(first) {
			if err := dial(theirs); err != nil {
				return nil, err
			}
			return ours, nil
		}
		// Behind TLS stands the plain server of the pipe.
		plain, err := pipe(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		secure := tls.Server(theirs, &tls.Config{Certificates: issuer.TLS.Certificates})
		go func() { _, _ = io.Copy(plain, secure); _ = plain.Close() }()
		go func() { _, _ = io.Copy(secure, plain); _ = secure.Close() }()
		return ours, nil
	}
	return base, dials
}

// What a proxy adds to an invalid_grant does not change its meaning.
func TestDeadGrantIsNotRevivedByARetryAfter(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
	}))
	defer s.Close()
	issuer := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Endpoint: oauth2.Endpoint{TokenURL: s.URL}}}
	_, err := issuer.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{RefreshToken: "r"}})
	assert.True(t, reauth.IsPermanent(err), "%v", err)
}

// RFC 8628 §3.5: a server that is busy for a moment does not end the login.
func TestDeviceLoginSurvivesABusyServer(t *testing.T) {
	polls := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/device" {
			_, _ = io.WriteString(w, `{"device_code":"d","user_code":"u","verification_uri":"https://example.com","interval":1,"expires_in":60}`)
			return
		}
		if polls++; polls == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"a","refresh_token":"r"}`)
	}))
	defer s.Close()
	issuer := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Endpoint: oauth2.Endpoint{
		TokenURL: s.URL + "/token", DeviceAuthURL: s.URL + "/device",
	}}}
	tok, err := issuer.DeviceLogin(t.Context(), func(*oauth2.DeviceAuthResponse) error { return nil })
	require.NoError(t, err)
	assert.Equal(t, "r", tok.RefreshToken)
}

// While the access token is still of use, a refresh token in doubt is not presented.
func TestOAuth2AnswerLostAheadOfExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{answer: func(n int, req *http.Request, _ url.Values) (*http.Response, error) {
			if n == 2 {
				return nil, io.ErrUnexpectedEOF
			}
			return oauthToken(n), nil
		}}
		cred := oauthCredential(t, oauthApp(server))
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		time.Sleep(58 * time.Minute)
		for time.Until(tok.Expiry) > time.Second {
			got, err := cred.Token(t.Context())
			require.NoError(t, err)
			assert.Equal(t, tok.AccessToken, got.AccessToken)
			time.Sleep(time.Second)
		}
		assert.Len(t, server.seen(), 2, "presented once, and its answer was lost")
		time.Sleep(2 * time.Second)
		got, err := cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "T3", got.AccessToken)
		assert.Equal(t, server.seen()[1].form.Get("refresh_token"), server.seen()[2].form.Get("refresh_token"))
	})
}

// A rejection ends the wait.
func TestOAuth2AnswerLostAheadOfARejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{answer: func(n int, req *http.Request, _ url.Values) (*http.Response, error) {
			if n == 2 {
				return nil, io.ErrUnexpectedEOF
			}
			return oauthToken(n), nil
		}}
		cred := oauthCredential(t, oauthApp(server))
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		time.Sleep(58 * time.Minute)
		for range 3 {
			_, err = cred.Token(t.Context())
			require.NoError(t, err)
			time.Sleep(10 * time.Second)
		}
		require.Len(t, server.seen(), 2)
		got, err := cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
		require.NoError(t, err)
		assert.Equal(t, "T3", got.AccessToken)
	})
}
