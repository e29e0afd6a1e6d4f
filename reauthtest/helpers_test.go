package reauthtest_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// A world is an issuer, an API, and a client that reauth keeps authenticated.
type world struct {
	issuer *reauthtest.Issuer
	api    *reauthtest.API
	cred   *reauth.Credential
	client *http.Client
	bare   *http.Client // without reauth
}

// over runs a test over HTTP/1.1 and over HTTP/2.
func over(t *testing.T, handler http.Handler, test func(t *testing.T, w *world)) {
	t.Run("HTTP/1.1", func(t *testing.T) { test(t, newWorld(t, handler, reauthtest.NewAPI)) })
	t.Run("HTTP/2", func(t *testing.T) { test(t, newWorld(t, handler, reauthtest.NewTLSAPI)) })
}

func newWorld(t *testing.T, handler http.Handler, newAPI func(*reauthtest.Issuer, http.Handler) *reauthtest.API) *world {
	t.Helper()
	w := &world{issuer: newIssuer(t)}
	w.api = newAPI(w.issuer, handler)
	t.Cleanup(w.api.Close)
	w.cred = &reauth.Credential{Refresher: w.issuer, Logger: discard}
	w.client = &http.Client{Transport: &reauth.Transport{
		Base: w.api.Base(), Credential: w.cred, RetryWait: -1, Logger: discard,
	}}
	w.bare = &http.Client{Transport: w.api.Base()}
	return w
}

func newIssuer(t *testing.T) *reauthtest.Issuer {
	t.Helper()
	i := reauthtest.NewIssuer()
	t.Cleanup(i.Close)
	return i
}

var discard = slog.New(slog.DiscardHandler)

// post sends a body that can be sent again, and returns the answer and its body.
func (w *world) post(t *testing.T, body string) (*http.Response, string) {
	t.Helper()
	resp, err := w.client.Post(w.api.URL(), "text/plain", strings.NewReader(body))
	require.NoError(t, err)
	return resp, read(t, resp)
}

// get sends a GET, and returns the answer and its body.
func (w *world) get(t *testing.T) (*http.Response, string) {
	t.Helper()
	resp, err := w.client.Get(w.api.URL())
	require.NoError(t, err)
	return resp, read(t, resp)
}

func read(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

// token returns a token of the issuer's.
func token(t *testing.T, i *reauthtest.Issuer) reauth.Token {
	t.Helper()
	tok, err := i.Refresh(context.Background(), reauth.Stale{})
	require.NoError(t, err)
	return tok
}

// within fails the test if f takes longer than d of real time.
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
