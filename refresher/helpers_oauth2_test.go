package refresher_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

const (
	oauthURL    = "https://issuer.example/token"
	oauthSecret = "the-secret-of-the-app"
)

// An oauthSend is a token request as the server has it.
type oauthSend struct {
	form   url.Values
	header http.Header
	at     time.Time
}

// An oauthServer is a token endpoint: a Base without a network for bubbles, a
// handler elsewhere. It keeps what it was sent.
type oauthServer struct {
	answer func(n int, req *http.Request, form url.Values) (*http.Response, error) // n from 1; nil: oauthToken(n)

	mu    sync.Mutex
	sends []oauthSend
}

func (s *oauthServer) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	_ = req.Body.Close()
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.sends = append(s.sends, oauthSend{form, req.Header.Clone(), time.Now()})
	n := len(s.sends)
	s.mu.Unlock()
	if s.answer == nil {
		return oauthToken(n), nil
	}
	return s.answer(n, req, form)
}

// ServeHTTP responds as RoundTrip does; an error cuts the connection.
func (s *oauthServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	resp, err := s.RoundTrip(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// seen returns what it was sent so far.
func (s *oauthServer) seen() []oauthSend {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]oauthSend(nil), s.sends...)
}

// only returns the one request that it was sent.
func (s *oauthServer) only(t testing.TB) oauthSend {
	t.Helper()
	sends := s.seen()
	require.Len(t, sends, 1, "sends")
	return sends[0]
}

// times returns when it was sent requests, since the first of them.
func (s *oauthServer) times() []time.Duration {
	var all []time.Duration
	for _, send := range s.seen() {
		all = append(all, send.at.Sub(s.sends[0].at))
	}
	return all
}

// oauthAnswer returns a response. Headers are given as pairs.
func oauthAnswer(status int, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{
		Status: fmt.Sprint(status, " ", http.StatusText(status)), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// oauthToken answers with the tokens Tn and Rn, good for an hour.
func oauthToken(n int) *http.Response {
	return oauthAnswer(200, fmt.Sprintf(`{"access_token":"T%d","token_type":"Bearer","expires_in":3600,"refresh_token":"R%d"}`, n, n))
}

// oauthError answers with an error code.
func oauthError(status int, code string, header ...string) *http.Response {
	return oauthAnswer(status, fmt.Sprintf(`{"error":%q}`, code), header...)
}

// oauthApp is a client with a secret.
func oauthApp(base http.RoundTripper) *refresher.OAuth2 {
	return &refresher.OAuth2{
		Config: oauth2.Config{
			ClientID:     "app",
			ClientSecret: oauthSecret,
			Endpoint:     oauth2.Endpoint{TokenURL: oauthURL, DeviceAuthURL: "https://issuer.example/device"},
		},
		Base: base,
	}
}

// oauthHeld is a token that a login has brought.
func oauthHeld() reauth.Stale {
	return reauth.Stale{Token: reauth.Token{AccessToken: "T0", RefreshToken: "R0"}}
}

// oauthRejected is a token that a server has rejected with a challenge.
func oauthRejected(params ...string) reauth.Stale {
	c := reauth.Challenge{Scheme: "Bearer", Params: map[string]string{}}
	for i := 0; i+1 < len(params); i += 2 {
		c.Params[params[i]] = params[i+1]
	}
	stale := oauthHeld()
	stale.Rejection = reauth.Rejection{Reason: reauth.ReasonInvalidToken, StatusCode: 401, Challenges: []reauth.Challenge{c}}
	return stale
}

// oauthCredential returns a Credential that holds the refresh token R0 and no
// access token.
func oauthCredential(t testing.TB, r reauth.Refresher) *reauth.Credential {
	t.Helper()
	cred := &reauth.Credential{Refresher: r, Logger: slog.New(slog.DiscardHandler)}
	require.NoError(t, cred.Set(context.Background(), reauth.Token{RefreshToken: "R0"}))
	return cred
}

// An oauthGrant is one of the grants, to be used alike.
type oauthGrant struct {
	name string
	get  func(o *refresher.OAuth2) reauth.Refresher
}

// oauthRefresh is the one whose credential must not be sent twice.
var oauthRefresh = oauthGrant{"refresh token", func(o *refresher.OAuth2) reauth.Refresher { return o }}

// oauthGrants returns those that may be repeated. The key is made here, since that
// takes a while.
func oauthGrants() []oauthGrant {
	key := oauthKey()
	return []oauthGrant{
		{"client credentials", func(o *refresher.OAuth2) reauth.Refresher { return o.ClientCredentials() }},
		{"JWT bearer", func(o *refresher.OAuth2) reauth.Refresher {
			return o.JWTBearer(&jwt.Config{Email: "app@example.com", PrivateKey: key})
		}},
		{"assertion", func(o *refresher.OAuth2) reauth.Refresher {
			return o.Assertion(func(context.Context) (string, error) { return "an-assertion-from-elsewhere", nil })
		}},
		{"token exchange", func(o *refresher.OAuth2) reauth.Refresher {
			return o.TokenExchange(refresher.TokenExchange{Subject: oauthFixed("the-token-of-the-subject")})
		}},
	}
}

// oauthFixed returns always the same token.
func oauthFixed(access string) reauth.RefresherFunc {
	return func(context.Context, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{AccessToken: access}, nil
	}
}

// oauthKey is an RSA key in PEM.
var oauthKey = sync.OnceValue(func() []byte {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
})

// oauthJWT returns a JWT that ends at exp.
func oauthJWT(exp time.Time) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none"}`)) + "." + enc(fmt.Appendf(nil, `{"exp":%d}`, exp.Unix())) + ".c2ln"
}

// oauthClaims returns what the payload of a JWT says.
func oauthClaims(t testing.TB, assertion string) map[string]any {
	t.Helper()
	parts := strings.Split(assertion, ".")
	require.Len(t, parts, 3)
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	var claims map[string]any
	require.NoError(t, json.Unmarshal(payload, &claims))
	return claims
}

// oauthPipe serves h to the returned Transport without a socket, for bubbles. The
// Transport is a real one, which tells what it has written.
func oauthPipe(t testing.TB, h http.Handler) *http.Transport {
	l := &oauthListener{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = srv.Serve(l) }()
	base := &http.Transport{DialContext: l.dial}
	t.Cleanup(func() {
		base.CloseIdleConnections()
		_ = srv.Close()
	})
	return base
}

type oauthListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *oauthListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *oauthListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *oauthListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oauthListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// oauthListen serves h on a socket, and returns a client of it whose Base is a
// Transport of its own.
func oauthListen(t testing.TB, h http.Handler) (*refresher.OAuth2, *http.Transport) {
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Start()
	t.Cleanup(srv.Close)
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	o := oauthApp(base)
	o.Config.Endpoint.TokenURL = srv.URL + "/token"
	o.Config.Endpoint.DeviceAuthURL = srv.URL + "/device"
	return o, base
}

// oauthListenTLS does the same with TLS and HTTP/2.
func oauthListenTLS(t testing.TB, h http.Handler) (*refresher.OAuth2, *http.Transport) {
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	base := srv.Client().Transport.(*http.Transport).Clone()
	t.Cleanup(base.CloseIdleConnections)
	o := oauthApp(base)
	o.Config.Endpoint.TokenURL = srv.URL + "/token"
	return o, base
}

// oauthConns accepts connections on a socket, for servers that do what http.Server
// does not, and returns its address. Certificates turn on TLS with HTTP/2.
func oauthConns(t testing.TB, certs []tls.Certificate, serve func(n int, c net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	if certs != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: certs, NextProtos: []string{"h2"}})
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	all.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				serve(n, c)
			})
		}
	})
	return l.Addr().String()
}

// oauthWithin fails the test if f takes longer than d of real time.
func oauthWithin(t testing.TB, d time.Duration, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("still not done after %v", d)
	}
}

// oauthRead reads a request whole.
func oauthRead(c net.Conn) (*http.Request, error) {
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(req.Body)
	req.Body = io.NopCloser(bytes.NewReader(body))
	return req, err
}

// oauthReadStream reads the frames of HTTP/2 up to the end of the first stream,
// and reports whether there was one.
func oauthReadStream(c net.Conn) bool {
	if _, err := io.ReadFull(c, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return false
	}
	oauthFrame(c, 4, 0, 0, nil) // SETTINGS
	for {
		var h [9]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			return false
		}
		if _, err := io.CopyN(io.Discard, c, int64(h[0])<<16|int64(h[1])<<8|int64(h[2])); err != nil {
			return false
		}
		if kind, flags := h[3], h[4]; kind <= 1 && flags&1 != 0 { // DATA or HEADERS, END_STREAM
			return true
		}
	}
}

// oauthFrame writes a frame of HTTP/2.
func oauthFrame(w io.Writer, kind, flags, stream byte, payload []byte) {
	n := len(payload)
	_, _ = w.Write(append([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, 0, 0, 0, stream}, payload...))
}

// oauthReadHello reads the first record of a TLS handshake whole: what is left
// unread would turn a close into a reset.
func oauthReadHello(c net.Conn) {
	var h [5]byte
	if _, err := io.ReadFull(c, h[:]); err == nil {
		_, _ = io.CopyN(io.Discard, c, int64(h[3])<<8|int64(h[4]))
	}
}
