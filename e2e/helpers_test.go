package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// The SDKs take keys, hosts and headers from the environment. What a developer has
// there is not for these tests, and would change them.
func init() {
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "OPENAI_") || strings.HasPrefix(name, "ANTHROPIC_") {
			_ = os.Unsetenv(name)
		}
	}
}

// discard is for tests that do not look at the log.
var discard = slog.New(slog.DiscardHandler)

// A journal is a slog handler that keeps its records.
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

// within fails the test if f takes longer than d, where it would otherwise hang
// until go test gives up.
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

// An sdkRig is the server of an SDK, simulated: a handler that speaks its language
// behind a reauthtest.API. And it is a client that the SDK is given.
type sdkRig struct {
	issuer    *reauthtest.Issuer
	api       *reauthtest.API
	wire      *sdkWire
	cred      *reauth.Credential
	transport *reauth.Transport
	client    *http.Client
	log       *journal
}

// newSDKRig starts a server and makes a client for it. change may change the
// Transport and its Credential before their first use.
func newSDKRig(t testing.TB, handler http.Handler, change ...func(*sdkRig)) *sdkRig {
	t.Helper()
	rig := &sdkRig{issuer: reauthtest.NewIssuer(), log: &journal{}}
	t.Cleanup(rig.issuer.Close)
	rig.serve(t, reauthtest.NewAPI(rig.issuer, handler))
	for _, c := range change {
		c(rig)
	}
	return rig
}

// newSDKRigOverTLS is newSDKRig with TLS and HTTP/2.
func newSDKRigOverTLS(t testing.TB, handler http.Handler, change ...func(*sdkRig)) *sdkRig {
	t.Helper()
	rig := &sdkRig{issuer: reauthtest.NewIssuer(), log: &journal{}}
	t.Cleanup(rig.issuer.Close)
	rig.serve(t, reauthtest.NewTLSAPI(rig.issuer, handler))
	for _, c := range change {
		c(rig)
	}
	return rig
}

func (rig *sdkRig) serve(t testing.TB, api *reauthtest.API) {
	t.Cleanup(api.Close)
	rig.api = api
	rig.wire = &sdkWire{base: api.Base()}
	rig.cred = &reauth.Credential{Refresher: rig.issuer, Logger: rig.log.logger()}
	rig.transport = &reauth.Transport{
		Base:           rig.wire,
		Credential:     rig.cred,
		Origins:        []string{api.URL()},
		RetryWait:      time.Millisecond,
		MaxReplayBytes: 64 << 10,
		Logger:         rig.log.logger(),
	}
	rig.client = &http.Client{Transport: rig.transport}
}

// An sdkWire is a Base that keeps the request ids of the answers, in their order.
type sdkWire struct {
	base http.RoundTripper
	name string // the header in which the real server has its request id; "" for X-Request-Id

	mu  sync.Mutex
	ids []string
}

func (w *sdkWire) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	id := resp.Header.Get("X-Request-Id")
	if w.name != "" {
		resp.Header.Del("X-Request-Id")
		resp.Header.Set(w.name, id)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids = append(w.ids, id)
	return resp, nil
}

// last returns the ids of the last n answers.
func (w *sdkWire) last(n int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ids[len(w.ids)-n:])
}

// An sdk is what the tests that hold for every SDK have to know of one.
type sdk struct {
	serve   func() http.Handler // its server, simulated
	change  func(*sdkRig)       // what the SDK wants of the Transport; may be nil
	idName  string              // the header of its server's request ids
	calls   func(*testing.T, *sdkRig) []sdkCall
	outcome func(t *testing.T, err error, last func() reauth.Outcome) (status int, o reauth.Outcome) // by which the caller gets at the request ids
}

// An sdkCall is a call of an SDK, and what it returns if all is well.
type sdkCall struct {
	name string
	do   func(context.Context) (string, error)
	want string
}

func (s sdk) rig(t *testing.T, protocol string) *sdkRig {
	start := newSDKRig
	if protocol == "HTTP/2" {
		start = newSDKRigOverTLS
	}
	return start(t, s.serve(), func(rig *sdkRig) {
		rig.wire.name = s.idName
		if s.change != nil {
			s.change(rig)
		}
	})
}

// holds runs each call of the SDK through all that befalls tokens, over both
// protocols.
func (s sdk) holds(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			for i, call := range s.calls(t, s.rig(t, protocol)) {
				t.Run(call.name, func(t *testing.T) {
					t.Parallel()
					s.holdsFor(t, protocol, i)
				})
			}
			t.Run("all at once", func(t *testing.T) {
				t.Parallel()
				s.holdsAtOnce(t, s.rig(t, protocol))
			})
		})
	}
	t.Run("no token to be had", func(t *testing.T) {
		t.Parallel()
		s.holdsWithoutToken(t, s.rig(t, "HTTP/1.1"))
	})
}

// holdsBriefly is holds with the first call only, for other ways to set the same
// SDK up.
func (s sdk) holdsBriefly(t *testing.T) { s.holdsFor(t, "HTTP/1.1", 0) }

// holdsFor runs the call with that index through what befalls tokens one after
// another.
func (s sdk) holdsFor(t *testing.T, protocol string, index int) {
	start := func(t *testing.T) (*sdkRig, sdkCall) {
		rig := s.rig(t, protocol)
		return rig, s.calls(t, rig)[index]
	}
	for _, tt := range []struct {
		name                         string
		befalls                      func(*testing.T, *sdkRig)
		sends, rejections, refreshes int
	}{
		{"refused", func(_ *testing.T, rig *sdkRig) { rig.issuer.Revoke() }, 2, 1, 1},
		{"refused before the body was there", func(_ *testing.T, rig *sdkRig) { rig.api.Next(reauthtest.RejectEarly()) }, 2, 1, 1},
		{"expired earlier than it said", func(_ *testing.T, rig *sdkRig) { rig.issuer.Expire() }, 2, 1, 1},
		{"expired when it said", expireAsAnnounced, 1, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rig, call := start(t)
			got, err := call.do(t.Context())
			require.NoError(t, err)
			require.Equal(t, call.want, got)
			tt.befalls(t, rig)
			sends, rejections, refreshes := rig.api.Sends(), rig.api.Rejections(), rig.issuer.Refreshes()

			got, err = call.do(t.Context())
			require.NoError(t, err)
			assert.Equal(t, call.want, got)
			assert.Equal(t, tt.sends, rig.api.Sends()-sends)
			assert.Equal(t, tt.rejections, rig.api.Rejections()-rejections)
			assert.Equal(t, tt.refreshes, rig.issuer.Refreshes()-refreshes)
			assert.Empty(t, rig.log.records(t, slog.LevelWarn))
			rig.carriesOnlyTokens(t)
		})
	}

	t.Run("refused for good", func(t *testing.T) {
		t.Parallel()
		rig, call := start(t)
		_, err := call.do(t.Context())
		require.NoError(t, err)
		sends, refreshes := rig.api.Sends(), rig.issuer.Refreshes()
		rig.issuer.Revoke()
		rig.issuer.Refuse(true)

		ctx, last := reauth.WithOutcome(t.Context())
		_, err = call.do(ctx)
		status, o := s.outcome(t, err, last)
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.Equal(t, 2, rig.api.Sends()-sends, "whatever loop of retries the SDK has on top")
		assert.Equal(t, 1, rig.issuer.Refreshes()-refreshes)
		assert.Equal(t, rig.wire.last(2), []string{o.First.RequestID, o.Retry.RequestID})
		assert.NotContains(t, err.Error(), "access-")
		warnings := rig.log.records(t, slog.LevelWarn)
		require.NotEmpty(t, warnings)
		assert.Equal(t, o.First.RequestID, warnings[len(warnings)-1]["first_request_id"])
		assert.Equal(t, o.Retry.RequestID, warnings[len(warnings)-1]["request_id"])
		rig.carriesOnlyTokens(t)

		rig.issuer.Refuse(false)
		require.NoError(t, rig.cred.Set(t.Context(), mustRefresh(t, rig.issuer)))
		got, err := call.do(t.Context())
		require.NoError(t, err, "a login cures it")
		assert.Equal(t, call.want, got)
	})
}

// holdsWithoutToken has the SDK meet an error in place of a response, which it
// takes for a broken connection.
func (s sdk) holdsWithoutToken(t *testing.T, rig *sdkRig) {
	call := s.calls(t, rig)[0]
	asked := 0
	rig.cred.Refresher = reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		asked++
		return reauth.Token{}, reauth.Permanent(errors.New("invalid_grant"))
	})
	_, err := call.do(t.Context())
	var failure *reauth.RefreshError
	require.ErrorAs(t, err, &failure)
	assert.Zero(t, rig.api.Sends())
	assert.Equal(t, 1, asked, "however often the SDK tries")

	require.NoError(t, rig.cred.Set(t.Context(), mustRefresh(t, rig.issuer)))
	got, err := call.do(t.Context())
	require.NoError(t, err, "a login cures it")
	assert.Equal(t, call.want, got)
}

// holdsAtOnce has many callers find out about a dead token together.
func (s sdk) holdsAtOnce(t *testing.T, rig *sdkRig) {
	const callers, rounds = 12, 3
	calls := s.calls(t, rig)
	for round := range rounds {
		var wg sync.WaitGroup
		for i := range callers {
			call := calls[i%len(calls)]
			wg.Go(func() {
				got, err := call.do(t.Context())
				if assert.NoError(t, err, call.name) {
					assert.Equal(t, call.want, got, call.name)
				}
			})
		}
		within(t, time.Minute, wg.Wait)
		assert.Equal(t, round+1, rig.issuer.Refreshes(), "one for each token that died")
		if round%2 == 0 {
			rig.issuer.Revoke()
		} else {
			rig.issuer.Expire()
		}
	}
	assert.Equal(t, callers*rounds, rig.api.Sends()-rig.api.Rejections(), "each was served once")
	assert.NotZero(t, rig.api.Rejections())
	rig.carriesOnlyTokens(t)
}

// expireAsAnnounced puts a token in force that expires when it says, and waits
// until it has.
func expireAsAnnounced(t *testing.T, rig *sdkRig) {
	rig.issuer.SetLifetime(20 * time.Millisecond)
	tok := mustRefresh(t, rig.issuer)
	tok.Expiry = time.Now().Add(20 * time.Millisecond) // expires_in has whole seconds
	require.NoError(t, rig.cred.Set(t.Context(), tok))
	rig.issuer.SetLifetime(time.Hour)
	require.Eventually(t, func() bool {
		return !rig.issuer.Valid(tok.AccessToken) && time.Now().After(tok.Expiry)
	}, 10*time.Second, time.Millisecond)
}

func mustRefresh(t *testing.T, r reauth.Refresher) reauth.Token {
	t.Helper()
	tok, err := r.Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	return tok
}

// carriesOnlyTokens holds the headers of all requests, and the log, against what
// may stand there.
func (rig *sdkRig) carriesOnlyTokens(t *testing.T) {
	t.Helper()
	ours := rig.transport.Header
	if ours == "" {
		ours = "Authorization"
	}
	for _, req := range rig.api.Requests() {
		for name, values := range req.Header {
			value := strings.Join(values, ",")
			switch name {
			case http.CanonicalHeaderKey(ours):
				assert.Regexp(t, `^(Bearer )?access-[A-Z0-9]+$`, value)
			case "Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Cookie":
				assert.Failf(t, "another credential goes out beside ours", "%s: %s", name, value)
			default:
				assert.NotContains(t, value, reauth.Placeholder, name)
				assert.NotContains(t, value, "access-", name)
			}
		}
	}
	assert.NotContains(t, rig.log.text(), "access-")
}

// digest names what was uploaded by its content, so that no byte of it can be lost
// on the way.
func digest(r io.Reader) (string, int64) {
	h := sha256.New()
	n, _ := io.Copy(h, r)
	return "file-" + hex.EncodeToString(h.Sum(nil)), n
}

// sdkUpload is larger than what is kept of a body without GetBody, and than what
// net/http reads on after an early answer (256 KiB).
var sdkUpload = bytes.Repeat([]byte("so it goes\n"), 40_000)

func sdkUploadID() string {
	id, _ := digest(bytes.NewReader(sdkUpload))
	return id
}

// A gate holds up a stream between its events, as a model that thinks does.
type gate struct {
	shut atomic.Bool
	next chan struct{} // one for each event that may go, but the first
}

// pass waits until the next event may go.
func (g *gate) pass(r *http.Request) {
	if !g.shut.Load() {
		return
	}
	select {
	case <-g.next:
	case <-r.Context().Done():
	}
}

// respond writes JSON.
func respond(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// sendEvent writes one server-sent event, at once.
func sendEvent(w http.ResponseWriter, name, data string) {
	w.Header().Set("Content-Type", "text/event-stream")
	if name != "" {
		_, _ = io.WriteString(w, "event: "+name+"\n")
	}
	_, _ = io.WriteString(w, "data: "+data+"\n\n")
	_ = http.NewResponseController(w).Flush()
}
