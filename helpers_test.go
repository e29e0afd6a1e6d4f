package reauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// An issuer is a Refresher that hands out T1, T2, T3 … and counts.
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
