package reauth_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// A roundTripFunc is a Base without a network, for tests of time and
// concurrency.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answer does what every Base has to: it reads and closes the body of the
// request. Headers are given as pairs.
func answer(req *http.Request, status int, body string, header ...string) *http.Response {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	return &http.Response{
		Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}
}

// An api is a Base that accepts the tokens for which valid says so, and answers
// the others as RFC 6750 has it. It counts.
type api struct {
	valid func(token string) bool
	sends atomic.Int32
}

func (a *api) RoundTrip(req *http.Request) (*http.Response, error) {
	a.sends.Add(1)
	if !a.valid(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")) {
		return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
	}
	return answer(req, http.StatusOK, "fine"), nil
}

// accepting returns an api that accepts just these tokens.
func accepting(tokens ...string) *api {
	return &api{valid: func(tok string) bool {
		for _, t := range tokens {
			if t == tok {
				return true
			}
		}
		return false
	}}
}

// An issuer is a Refresher that returns T1, T2, T3 … and counts.
type issuer struct {
	calls atomic.Int32
	do    func(ctx context.Context, n int, stale reauth.Stale) (reauth.Token, error) // nil: Tn without an expiry
}

func (i *issuer) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	n := int(i.calls.Add(1))
	if i.do == nil {
		return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
	}
	return i.do(ctx, n, stale)
}

// holding returns a Credential that holds tok and refreshes from r.
func holding(t testing.TB, r reauth.Refresher, tok reauth.Token) *reauth.Credential {
	t.Helper()
	c := &reauth.Credential{Refresher: r, Logger: discard}
	require.NoError(t, c.Set(context.Background(), tok))
	return c
}

// discard is for tests that do not look at the log.
var discard = slog.New(slog.DiscardHandler)

// get sends a GET through rt and returns the response, its body closed.
func get(t testing.TB, rt http.RoundTripper, url string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := rt.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp
}

// A journal is a slog handler that keeps its records, to be read as text or as
// one map a record.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// records returns the records of at least the level.
func (j *journal) records(t testing.TB, least slog.Level) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(j.text()) {
		var r map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		var level slog.Level
		require.NoError(t, level.UnmarshalText([]byte(r["level"].(string))))
		if level >= least {
			all = append(all, r)
		}
	}
	return all
}

// within fails the test if f takes longer than d of real time: only for tests on
// real sockets, where a hang would otherwise last until go test gives up.
func within(t testing.TB, d time.Duration, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("still not done after %v", d)
	}
}

// bodyPatience is for what ought to come at once, on a machine that is busy.
const bodyPatience = 20 * time.Second

var errBodyBroken = errors.New("the disk is gone")

// A bodyProbe is a request body that notes what must not be done to it.
type bodyProbe struct {
	r      io.Reader
	close  func() error  // nil: nothing
	closed chan struct{} // closed by the first Close

	reading, closes, overlaps, late atomic.Int32
}

func bodyProbing(r io.Reader) *bodyProbe {
	b := &bodyProbe{r: r, closed: make(chan struct{})}
	if c, ok := r.(io.Closer); ok {
		b.close = c.Close
	}
	return b
}

func (b *bodyProbe) Read(p []byte) (int, error) {
	if b.reading.Add(1) > 1 {
		b.overlaps.Add(1)
	}
	defer b.reading.Add(-1)
	if b.closes.Load() > 0 {
		b.late.Add(1)
	}
	return b.r.Read(p)
}

func (b *bodyProbe) Close() (err error) {
	first := b.closes.Add(1) == 1
	if b.close != nil {
		err = b.close()
	}
	if first {
		close(b.closed)
	}
	return err
}

// check waits for the body's end and looks at its notes.
func (b *bodyProbe) check(t testing.TB) {
	t.Helper()
	bodyAwait(t, b.closed, "the body was not closed")
	assert.EqualValues(t, 1, b.closes.Load(), "closes")
	assert.Zero(t, b.overlaps.Load(), "Reads while another was under way")
	assert.Zero(t, b.late.Load(), "Reads after Close")
}

// bodyAwait waits for what another goroutine is about to do.
func bodyAwait(t testing.TB, done <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(bodyPatience):
		t.Fatal(otherwise)
	}
}

// bodyBytes returns n bytes without repeated sequences.
func bodyBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// A bodyStream is a long body that is made as it is read.
type bodyStream struct{ pos, size int64 }

// bodyBlock has a length that no buffer's is a multiple of.
var bodyBlock = bodyBytes(65521)

func (b *bodyStream) Read(p []byte) (int, error) {
	if b.pos == b.size {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), b.size-b.pos)], bodyBlock[b.pos%int64(len(bodyBlock)):])
	b.pos += int64(n)
	return n, nil
}

// A bodyWire is a server on a socket and the Base that leads to it.
type bodyWire struct {
	url   string
	base  *http.Transport
	dials atomic.Int32
}

// bodyServe starts a server that speaks just the one protocol.
func bodyServe(t testing.TB, proto string, h http.HandlerFunc) *bodyWire {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, proto, r.Proto)
		h(w, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	w := &bodyWire{}
	if proto == "HTTP/2.0" {
		srv.EnableHTTP2 = true
		srv.StartTLS()
		w.base = srv.Client().Transport.(*http.Transport)
	} else {
		srv.Start()
		w.base = &http.Transport{}
	}
	w.url = srv.URL
	w.base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		w.dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	t.Cleanup(func() {
		w.base.CloseIdleConnections()
		srv.CloseClientConnections()
		srv.Close()
	})
	return w
}

// bodyEachProtocol runs the test over HTTP/1 and over HTTP/2.
func bodyEachProtocol(t *testing.T, test func(t *testing.T, proto string)) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) { test(t, proto) })
	}
}

// bodyTransport returns a Transport that holds T0 and gets T1 next.
func bodyTransport(t testing.TB, base http.RoundTripper) *reauth.Transport {
	return &reauth.Transport{
		Base:       base,
		Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"}),
		RetryWait:  -1,
		Logger:     discard,
	}
}

func bodyToken(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

const bodyOf401 = `{"error":"invalid_token"}`

func bodyReject(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = io.WriteString(w, bodyOf401)
}

// bodyRejectNow sends the 401 at once. Over HTTP/1 a server otherwise reads on,
// for 256 KiB, before it answers; and has to say that it will hang up.
func bodyRejectNow(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex() // not there over HTTP/2, nor needed
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	bodyReject(w)
	_ = http.NewResponseController(w).Flush()
}

// bodyDo sends the request, and fails the test if it hangs.
func bodyDo(t testing.TB, rt http.RoundTripper, req *http.Request) (resp *http.Response, err error) {
	t.Helper()
	within(t, bodyPatience, func() { resp, err = rt.RoundTrip(req) })
	return resp, err
}

// bodyRead reads the response's body to its end and closes it.
func bodyRead(t testing.TB, resp *http.Response) string {
	t.Helper()
	var all []byte
	within(t, bodyPatience, func() {
		var err error
		all, err = io.ReadAll(resp.Body)
		assert.NoError(t, err)
		assert.NoError(t, resp.Body.Close())
	})
	return string(all)
}

func bodyPost(t testing.TB, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, body)
	require.NoError(t, err)
	return req
}

var wordsSink int

const classifyID = "20261122193238719930601ZPfswuxh"

// classifyGateway is the body of new-api and one-api, as seen on the wire.
func classifyGateway(text string) string {
	return `{"error":{"code":"","message":"` + text + ` (request id: ` + classifyID + `)","type":"new_api_error"}}`
}

// A classifyCase is a response to the token T0.
type classifyCase struct {
	name   string
	status int
	header []string // pairs
	body   string
	reason reauth.Reason
}

// classifyRun sends a request with T0, which is answered so; T1 is accepted.
func classifyRun(t *testing.T, tt classifyCase, c reauth.Classifier) (resp *http.Response, body string, sends, refreshes int32, was reauth.Rejection) {
	t.Helper()
	var iss issuer
	var n atomic.Int32
	var seen reauth.Rejection
	cred := holding(t, reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		seen = stale.Rejection
		return iss.Refresh(ctx, stale)
	}), reauth.Token{AccessToken: "T0"})
	rt := &reauth.Transport{Credential: cred, Classifier: c, RetryWait: -1, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		n.Add(1)
		if req.Header.Get("Authorization") == "Bearer T1" {
			return answer(req, http.StatusOK, "fine"), nil
		}
		return answer(req, tt.status, tt.body, tt.header...), nil
	})}
	req, err := http.NewRequest(http.MethodPost, "https://api.test/v1/chat/completions", strings.NewReader("{}"))
	require.NoError(t, err)
	resp, err = rt.RoundTrip(req)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp, string(b), n.Load(), iss.calls.Load(), seen
}

// wordsResponse is a response to a request that carried a Bearer token.
func wordsResponse(status int, body string, header ...string) *http.Response {
	sent := &http.Request{Header: http.Header{"Authorization": {"Bearer [redacted]"}}}
	return answer(sent, status, body, header...)
}

// A corpusRow is what a server answered: see testdata/corpus/README.md.
type corpusRow struct {
	ID           string
	Status       int
	Headers      map[string][]string
	Body         string
	BodyEncoding string `json:"body_encoding"`
	Label        string
	MayHelp      bool `json:"refresh_may_help"`
	Ambiguous    bool
	Confidence   string
	RequestID    string `json:"request_id"`
}

// clear reports whether the row's verdict counts.
func (r corpusRow) clear() bool { return !r.Ambiguous && r.Confidence != "recalled" }

func (r corpusRow) response(t testing.TB) (*http.Response, []byte) {
	t.Helper()
	body := []byte(r.Body)
	if r.BodyEncoding == "base64" {
		var err error
		body, err = base64.StdEncoding.DecodeString(r.Body)
		require.NoError(t, err)
	}
	h := http.Header{}
	for k, vv := range r.Headers {
		for _, v := range vv {
			h.Add(k, v)
		}
	}
	req, err := http.NewRequest(http.MethodGet, "https://api.example.com/v1/things", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer [redacted]")
	return &http.Response{StatusCode: r.Status, Header: h, Body: io.NopCloser(bytes.NewReader(body)), Request: req}, body
}

func corpus(t testing.TB, name string) []corpusRow {
	t.Helper()
	return corpusOf[corpusRow](t, name)
}

// corpusOf returns the lines of a file of the corpus.
func corpusOf[T any](t testing.TB, name string) (rows []T) {
	t.Helper()
	f, err := os.Open("testdata/corpus/" + name)
	require.NoError(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var r T
		require.NoError(t, json.Unmarshal(lines.Bytes(), &r))
		rows = append(rows, r)
	}
	require.NoError(t, lines.Err())
	return rows
}

// A score counts how often something was so, of how many.
type score struct{ hits, of int }

func (s *score) note(hit bool) {
	s.of++
	if hit {
		s.hits++
	}
}

func (s score) percent() float64 { return 100 * float64(s.hits) / float64(max(s.of, 1)) }

// logPrintable reports whether s stands in a log as one line of what can be seen.
func logPrintable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) < 0
}

const logURL = "https://api.example.com/v1"

// logReply is what a server says to one send.
type logReply struct {
	status int
	body   string
	header []string
}

// logServer gives its replies one after another, the last of them for ever.
func logServer(sends *int, replies ...logReply) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		r := replies[min(*sends, len(replies)-1)]
		*sends++
		return answer(req, r.status, r.body, r.header...), nil
	})
}

func fingerprintOf(access string) string { return reauth.Token{AccessToken: access}.Fingerprint() }

// A logWitness sees all that reauth says to anybody: two log handlers at Debug,
// hooks, outcomes, errors, and what a Credential tells.
type logWitness struct {
	json   journal
	text   journal
	events []any
	cred   *reauth.Credential
}

func (w *logWitness) logger() *slog.Logger {
	return slog.New(slog.NewMultiHandler(w.json.logger().Handler(), slog.NewTextHandler(&w.text, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true})))
}

func (w *logWitness) neverTells(t *testing.T, secrets ...string) {
	t.Helper()
	if tokLeaks(t, "the JSON log", w.json.text(), secrets...) {
		return
	}
	tokLeaks(t, "the text log", w.text.text(), secrets...)
	var js bytes.Buffer
	l := slog.New(slog.NewJSONHandler(&js, nil))
	for _, e := range w.events {
		if e == nil {
			continue
		}
		for _, verb := range []string{"%+v", "%#v", "%d", "%q", "%x"} { // all of them: see token_test.go
			if tokLeaks(t, fmt.Sprintf("%T by %s", e, verb), fmt.Sprintf(verb, e), secrets...) {
				return
			}
		}
		if b, err := json.Marshal(e); err == nil {
			tokLeaks(t, fmt.Sprintf("%T as JSON", e), string(b), secrets...)
		}
		l.Info("", "event", e)
	}
	tokLeaks(t, "the log of events", js.String(), secrets...)
}

const flightURL = "https://api.example.com/v1/models"

// flightTransport is a Transport that logs nothing.
func flightTransport(cred *reauth.Credential, base http.RoundTripper) *reauth.Transport {
	return &reauth.Transport{Credential: cred, Base: base, Logger: discard}
}

// flightSend sends a GET through rt. It may be called from any goroutine.
func flightSend(ctx context.Context, rt http.RoundTripper) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, flightURL, nil)
	if err != nil {
		return 0, err
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// A flightResult is what a caller got, and after what time.
type flightResult struct {
	status int
	err    error
	took   time.Duration
}

// flightAll lets n callers go at once and returns what each of them got.
func flightAll(n int, send func(i int) (int, error)) []flightResult {
	all := make([]flightResult, n)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range n {
		wg.Go(func() {
			status, err := send(i)
			all[i] = flightResult{status, err, time.Since(begin)}
		})
	}
	wg.Wait()
	return all
}

// flightSlowest returns the longest time, and requires that all got a 200.
func flightSlowest(t *testing.T, all []flightResult) (slowest time.Duration) {
	t.Helper()
	for i, r := range all {
		require.NoError(t, r.err, "caller %d", i)
		require.Equal(t, http.StatusOK, r.status, "caller %d", i)
		slowest = max(slowest, r.took)
	}
	return slowest
}

// flightAhead returns a Credential whose token T0 is in the time in which it is
// replaced ahead of its expiry, which is another 10 minutes away.
func flightAhead(t *testing.T, is *issuer) *reauth.Credential {
	t.Helper()
	cred := &reauth.Credential{Refresher: is, Logger: discard, RefreshBefore: 30 * time.Minute, MinBackoff: time.Hour}
	require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0", Expiry: time.Now().Add(time.Hour)}))
	time.Sleep(50 * time.Minute)
	return cred
}

// A flightServer accepts the token that was issued last, until it is revoked at
// random. It does so only when all who are under way began with that token, so
// that two sends are enough for everybody.
type flightServer struct {
	mu      sync.Mutex
	issued  int
	dead    bool        // the token issued last
	epoch   int         // the newest token of whose acceptance a caller knows
	active  map[int]int // who is under way, by the epoch in which he began
	revoked int
	rejects int
}

func (s *flightServer) begin() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[s.epoch]++
	return s.epoch
}

// end ends a request that began in the epoch; the token of its response was accepted, or
// is zero.
func (s *flightServer) end(epoch, accepted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[epoch]--
	s.epoch = max(s.epoch, accepted)
}

func (s *flightServer) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for epoch, n := range s.active {
		if n > 0 && epoch < s.epoch {
			return
		}
	}
	if !s.dead && s.epoch == s.issued {
		s.dead = true
		s.revoked++
	}
}

func (s *flightServer) revocations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked
}

func (s *flightServer) Refresh(context.Context, reauth.Stale) (reauth.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued++
	s.dead = false
	return reauth.Token{AccessToken: fmt.Sprint("T", s.issued)}, nil
}

func (s *flightServer) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || req.Header.Get("Authorization") != fmt.Sprint("Bearer T", s.issued) {
		s.rejects++
		return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
	}
	return answer(req, http.StatusOK, "", "Issued", fmt.Sprint(s.issued)), nil
}

// respFailing is a Refresher that has no token.
func respFailing() reauth.Refresher {
	return &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{}, errors.New("the issuer is down")
	}}
}

// respByHeader is a Classifier that does not look at the body.
var respByHeader = reauth.ClassifierFunc(func(resp *http.Response, _ func() []byte) reauth.Rejection {
	if resp.StatusCode == http.StatusUnauthorized {
		return reauth.Rejection{Reason: reauth.ReasonInvalidToken}
	}
	return reauth.Rejection{}
})

// respByBody is a Classifier that looks at every body.
var respByBody = reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
	if body(); resp.StatusCode == http.StatusUnauthorized {
		return reauth.Rejection{Reason: reauth.ReasonInvalidToken}
	}
	return reauth.Rejection{}
})

func respGet(t testing.TB, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(t, err)
	return req
}

// respWith returns a response of a Base without a network, with this body.
func respWith(req *http.Request, status int, body io.ReadCloser) *http.Response {
	resp := answer(req, status, "")
	resp.Body, resp.ContentLength = body, -1
	return resp
}

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

var sessionRejected = reauth.Rejection{Reason: reauth.ReasonInvalidToken}

// sessionPeek returns what is held, by its two parts.
func sessionPeek(cred *reauth.Credential) [2]string {
	tok, _ := cred.Current()
	return [2]string{tok.AccessToken, tok.RefreshToken}
}

// A sessionBusy is an error of an issuer that asks for time.
type sessionBusy struct{ error }

func (sessionBusy) RetryAfter() time.Duration { return 3 * time.Hour }

// Markers share no run of letters with each other, nor with any word: a leak of
// one is not hidden by the masking of another.
const (
	tokAccess  = "Kq7Zk2mVx9LrT4wNcQ8vB"
	tokRefresh = "Jf5Hd0sYp3GtE6uWbM1aX"
)

var tokMarked = reauth.Token{AccessToken: tokAccess, RefreshToken: tokRefresh, TokenType: "Bearer", Expiry: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}

// tokLeaks fails the test where text has a dozen bytes in a row of a secret, in
// whatever case, plain or in hex.
func tokLeaks(t testing.TB, what, text string, secrets ...string) bool {
	t.Helper()
	low := strings.ToLower(text)
	for _, s := range secrets {
		s = strings.ToLower(s)
		for i := 0; i+10 <= len(s); i += 3 {
			if piece := s[i : i+10]; strings.Contains(low, piece) || strings.Contains(low, hex.EncodeToString([]byte(piece))) {
				t.Errorf("%s leaks a secret: %.600s", what, text)
				return true
			}
		}
	}
	return false
}

// tokVerbs lacks %p only: fmt prints what is no pointer past all methods, and
// vet says so.
var tokVerbs = []string{"%v", "%+v", "%#v", "%s", "%d", "%q", "%+q", "%#q", "%x", "%X", "%o", "%t", "%c", "%U", "%g", "%60v", "%-9.30s", "%T"}

// tokPrint returns the value as every verb and handler prints it.
func tokPrint(v any) map[string]string {
	printed := map[string]string{"Sprint": fmt.Sprint(v), "Sprintln": fmt.Sprintln(v)}
	for _, verb := range tokVerbs {
		printed["Sprintf "+verb] = fmt.Sprintf(verb, v)
	}
	var text, js bytes.Buffer
	opts := &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}
	for _, h := range []slog.Handler{slog.NewTextHandler(&text, opts), slog.NewJSONHandler(&js, opts)} {
		l := slog.New(h)
		l.Info("any", "v", v)
		l.Info("group", slog.Group("g", "v", v))
		l.With("with", v).WithGroup("g").Info("with")
	}
	printed["slog text"], printed["slog JSON"] = text.String(), js.String()
	for _, verb := range []string{"% x", "%#x", "%# X"} {
		printed["Sprintf "+verb] = strings.NewReplacer(" ", "", "0x", "", "0X", "").Replace(fmt.Sprintf(verb, v))
	}
	if b, err := json.Marshal(v); err != nil {
		printed["the error of json.Marshal"] = err.Error()
	} else {
		printed["json.Marshal"] = string(b)
	}
	return printed
}

// tokNeverPrinted fails the test where a value is printed with a secret.
func tokNeverPrinted(t testing.TB, what string, v any, secrets ...string) {
	t.Helper()
	printed := tokPrint(v)
	for _, how := range slices.Sorted(maps.Keys(printed)) {
		if tokLeaks(t, what+" by "+how, printed[how], secrets...) {
			return // one way says it
		}
	}
}

// tokValueError is an error whose value, not its pointer, holds what went wrong:
// fmt walks into it.
type tokValueError struct{ Body string }

func (e tokValueError) Error() string { return "issuer: " + e.Body }

// fastest returns the least time that f took, of some rounds, or of few if
// that is soon below enough.
func fastest(rounds int, enough time.Duration, f func()) time.Duration {
	best := time.Hour
	for range rounds {
		began := time.Now()
		f()
		if best = min(best, time.Since(began)); best < enough {
			break
		}
	}
	return best
}

// A site has servers that accept and reject tokens, and an issuer whose tokens are T1,
// T2, T3 … . In it a send takes no time unless the test says so.
type site struct {
	accepts   func(req *http.Request, token string) bool // the response is 200, else 401
	answers   func(req *http.Request, token string) int  // instead of accepts
	challenge func(req *http.Request) string             // of a 401; nil: invalid_token
	refresh   func(n int, stale reauth.Stale) (reauth.Token, error)

	cred *reauth.Credential
	rt   *reauth.Transport
	logs journal

	mu    sync.Mutex
	sent  []string // host, path and token of each send
	calls []time.Time
	stale []reauth.Stale
}

// newSite returns a site whose servers accept all tokens, and whose tokens do not expire.
func newSite() *site {
	s := &site{accepts: func(*http.Request, string) bool { return true }}
	s.cred = &reauth.Credential{Refresher: s, Logger: s.logs.logger()}
	s.rt = &reauth.Transport{Base: roundTripFunc(s.serve), Credential: s.cred, Logger: discard, RetryWait: -1}
	return s
}

func (s *site) Refresh(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
	s.mu.Lock()
	s.calls, s.stale = append(s.calls, time.Now()), append(s.stale, stale)
	n, refresh := len(s.calls), s.refresh
	s.mu.Unlock()
	if refresh != nil {
		return refresh(n, stale)
	}
	return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
}

func (s *site) serve(req *http.Request) (*http.Response, error) {
	token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	s.sent = append(s.sent, req.URL.Host+req.URL.Path+" "+token)
	s.mu.Unlock()
	status := http.StatusOK
	if s.answers != nil {
		status = s.answers(req, token)
	} else if !s.accepts(req, token) {
		status = http.StatusUnauthorized
	}
	if status != http.StatusUnauthorized {
		return answer(req, status, ""), nil
	}
	challenge := `Bearer error="invalid_token"`
	if s.challenge != nil {
		challenge = s.challenge(req)
	}
	return answer(req, status, "", "WWW-Authenticate", challenge), nil
}

// get sends a GET and returns its status and its Outcome.
func (s *site) get(t testing.TB, url string) (int, reauth.Outcome) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := s.rt.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	o, _ := reauth.OutcomeOf(resp)
	return resp.StatusCode, o
}

func (s *site) refreshes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// gaps returns the times between the calls of the issuer.
func (s *site) gaps() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []time.Duration
	for i := 1; i < len(s.calls); i++ {
		all = append(all, s.calls[i].Sub(s.calls[i-1]))
	}
	return all
}

// during calls f each 100 ms for d.
func during(d time.Duration, f func()) {
	for start := time.Now(); time.Since(start) < d; time.Sleep(100 * time.Millisecond) {
		f()
	}
}

const apiURL = "https://a.test/"

// A fixture is a Transport with an issuer and servers in memory, for tests in fake
// time. The issuer returns T1, T2, T3 …, and each server accepts the tokens that were
// issued and not revoked.
type fixture struct {
	t    testing.TB
	rt   *reauth.Transport
	cred *reauth.Credential
	log  *journal // of the Transport and the Credential

	mu      sync.Mutex                                                  // guards all below
	life    time.Duration                                               // from the issue to Expiry; zero: no Expiry
	takes   time.Duration                                               // how long the issuer takes
	lag     time.Duration                                               // how late servers learn of a token
	issue   func(n int, stale reauth.Stale) (reauth.Token, error)       // nil: Tn
	serve   func(req *http.Request, token string) (resp *http.Response) // nil, or a nil response: as said above
	calls   []issuerCall
	sent    []string // host and path, a blank, the token
	issued  map[string]time.Time
	revoked map[string]bool
}

type issuerCall struct {
	at    time.Time
	stale reauth.Stale
}

// newFixture returns a fixture whose Credential holds no token. There is no delay
// before a retry.
func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, log: &journal{}, issued: map[string]time.Time{}, revoked: map[string]bool{}}
	f.cred = &reauth.Credential{Refresher: f, Logger: f.log.logger()}
	f.rt = &reauth.Transport{Base: roundTripFunc(f.roundTrip), Credential: f.cred, RetryWait: -1, Logger: f.log.logger()}
	return f
}

// Refresh is the issuer.
func (f *fixture) Refresh(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
	f.mu.Lock()
	f.calls = append(f.calls, issuerCall{time.Now(), stale})
	n, issue, takes, life := len(f.calls), f.issue, f.takes, f.life
	f.mu.Unlock()
	time.Sleep(takes)
	tok := reauth.Token{AccessToken: fmt.Sprint("T", n)}
	if life != 0 {
		tok.Expiry = time.Now().Add(life)
	}
	var err error
	if issue != nil {
		tok, err = issue(n, stale)
	}
	if err == nil {
		f.know(tok.AccessToken)
	}
	return tok, err
}

// know has the servers accept a token.
func (f *fixture) know(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.issued[token]; !ok {
		f.issued[token] = time.Now()
	}
}

// set calls Set with a token that the servers know.
func (f *fixture) set(tok reauth.Token) {
	f.t.Helper()
	f.know(tok.AccessToken)
	require.NoError(f.t, f.cred.Set(context.Background(), tok))
}

// change changes fields.
func (f *fixture) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// revoke has the servers reject all tokens that were issued.
func (f *fixture) revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for token := range f.issued {
		f.revoked[token] = true
	}
}

// valid reports whether a server accepts the token.
func (f *fixture) valid(token string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.issued[token]
	return ok && !f.revoked[token] && time.Since(at) >= f.lag
}

func (f *fixture) roundTrip(req *http.Request) (*http.Response, error) {
	token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	f.mu.Lock()
	f.sent = append(f.sent, req.URL.Host+strings.TrimSuffix(req.URL.Path, "/")+" "+token)
	serve := f.serve
	f.mu.Unlock()
	if serve != nil {
		if resp := serve(req, token); resp != nil {
			return resp, nil
		}
	}
	if !f.valid(token) {
		return invalidToken(req), nil
	}
	return answer(req, http.StatusOK, "fine"), nil
}

// invalidToken is the 401 of RFC 6750.
func invalidToken(req *http.Request) *http.Response {
	return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer error="invalid_token"`)
}

// A reply is what became of a request.
type reply struct {
	status  int
	took    time.Duration
	outcome reauth.Outcome
	err     error
}

// refreshError returns why there was no retry or no response.
func (r reply) refreshError(t testing.TB) *reauth.RefreshError {
	t.Helper()
	var failure *reauth.RefreshError
	if !errors.As(r.outcome.Err, &failure) {
		t.Fatalf("want a *RefreshError, got %v", r.outcome.Err)
	}
	return failure
}

// get sends a GET. It is safe for concurrent use.
func (f *fixture) get(url string) reply {
	f.t.Helper()
	return f.send(context.Background(), http.MethodGet, url, nil)
}

func (f *fixture) send(ctx context.Context, method, url string, body io.Reader) reply {
	f.t.Helper()
	ctx, outcome := reauth.WithOutcome(ctx)
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		f.t.Error(err)
		return reply{err: err}
	}
	at := time.Now()
	resp, err := f.rt.RoundTrip(req)
	r := reply{took: time.Since(at), outcome: outcome(), err: err}
	if err == nil {
		r.status = resp.StatusCode
		_ = resp.Body.Close()
	}
	return r
}

// refreshes returns how often the issuer was called.
func (f *fixture) refreshes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

// refreshesSince returns how often the issuer was called from a time on.
func (f *fixture) refreshesSince(t time.Time) (n int) {
	for _, at := range f.refreshTimes() {
		if !at.Before(t) {
			n++
		}
	}
	return n
}

func (f *fixture) refreshTimes() (all []time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, call := range f.calls {
		all = append(all, call.at)
	}
	return all
}

// stale returns what the latest call of the issuer was given.
func (f *fixture) stale() reauth.Stale {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	require.NotEmpty(f.t, f.calls)
	return f.calls[len(f.calls)-1].stale
}

// sends returns what was sent since it was called last.
func (f *fixture) sends() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.sent
	f.sent = nil
	return all
}

// warnings returns the records of level Warn with the message, as maps.
func (f *fixture) warnings(msg string) (all []map[string]any) {
	f.t.Helper()
	for _, r := range f.log.records(f.t, slog.LevelWarn) {
		if r["msg"] == msg {
			all = append(all, r)
		}
	}
	return all
}

// busiest returns how many of the times fall into the busiest span d.
func busiest(times []time.Time, d time.Duration) (most int) {
	for i := range times {
		n := 0
		for _, at := range times[i:] {
			if at.Sub(times[i]) < d {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}
