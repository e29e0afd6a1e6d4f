package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reauth-go/reauth"
)

// How long things take in the simulation.
const (
	simSend    = 5 * time.Millisecond
	simRefresh = 50 * time.Millisecond
	simPause   = 100 * time.Millisecond // of a caller, after each request
)

// A simIssuer issues tokens and knows which of them are good. It is a
// reauth.Refresher.
type simIssuer struct {
	started  time.Time
	lifetime time.Duration    // zero: forever
	expiry   func() time.Time // what a token's Expiry says; nil: nothing
	down     func() bool      // nil: never

	mu     sync.Mutex
	tokens map[string]simToken
	calls  []simCall
	good   int // the serial number of the oldest token that is not revoked
}

// A simToken is what the issuer knows of a token.
type simToken struct {
	serial int
	issued time.Time
}

// A simCall is a call of the Refresher.
type simCall struct {
	at       time.Duration // since the start
	rejected bool          // for a rejection, not for a first token or an expiry
}

func newSimIssuer() *simIssuer {
	return &simIssuer{started: time.Now(), tokens: map[string]simToken{}}
}

// Refresh returns a new token after the time that a refresh takes.
func (i *simIssuer) Refresh(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
	time.Sleep(simRefresh)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.calls = append(i.calls, simCall{i.elapsed(), stale.Rejection.Reason != ""})
	if i.down != nil && i.down() {
		return reauth.Token{}, errors.New("the issuer is down")
	}
	serial := len(i.tokens)
	tok := reauth.Token{AccessToken: fmt.Sprint("T", serial)}
	if i.expiry != nil {
		tok.Expiry = i.expiry()
	}
	i.tokens[tok.AccessToken] = simToken{serial, time.Now()}
	return tok, nil
}

// elapsed returns the time since the start.
func (i *simIssuer) elapsed() time.Duration { return time.Since(i.started) }

// revokeAll revokes all tokens that exist.
func (i *simIssuer) revokeAll() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.good = len(i.tokens)
}

// revokeOlder revokes all tokens but this one and those that are newer.
func (i *simIssuer) revokeOlder(token string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.good = max(i.good, i.tokens[token].serial)
}

// accepts reports whether a server accepts the request that learns of a token
// so long after its issue.
func (i *simIssuer) accepts(req *http.Request, lag time.Duration) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	tok, known := i.tokens[bearer(req)]
	age := time.Since(tok.issued)
	return known && tok.serial >= i.good && age >= lag && (i.lifetime == 0 || age < i.lifetime)
}

// refreshes returns the number of calls between two times since the start.
func (i *simIssuer) refreshes(from, to time.Duration) float64 {
	return i.count(func(c simCall) bool { return c.at >= from && c.at < to })
}

// refreshesForRejections is refreshes without those for a first token or an
// expiry.
func (i *simIssuer) refreshesForRejections(from, to time.Duration) float64 {
	return i.count(func(c simCall) bool { return c.rejected && c.at >= from && c.at < to })
}

func (i *simIssuer) count(counts func(simCall) bool) float64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := 0
	for _, c := range i.calls {
		if counts(c) {
			n++
		}
	}
	return float64(n)
}

// bearer returns the token that the request carries.
func bearer(req *http.Request) string {
	return strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
}

// A simServer answers requests, and takes the time of a send for each. It
// returns "" if it accepts a request, and the challenge of its 401 if not.
type simServer func(*http.Request) (challenge string)

// RoundTrip implements http.RoundTripper.
func (s simServer) RoundTrip(req *http.Request) (*http.Response, error) {
	time.Sleep(simSend)
	return simResponse(req, s(req)), nil
}

func simResponse(req *http.Request, challenge string) *http.Response {
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: req}
	if challenge != "" {
		resp.StatusCode = http.StatusUnauthorized
		resp.Header.Set("WWW-Authenticate", challenge)
		resp.Body = io.NopCloser(strings.NewReader(""))
	}
	return resp
}

const invalidToken = `Bearer error="invalid_token"`

// unless returns the challenge for an invalid token if accepted is false.
func unless(accepted bool) string {
	if accepted {
		return ""
	}
	return invalidToken
}

// A simClient sends requests with the tokens of one Credential and counts those
// that fail.
type simClient struct {
	cred         *reauth.Credential
	rt           http.RoundTripper
	sent, failed atomic.Int64
}

func newSimClient(r reauth.Refresher, server http.RoundTripper) *simClient {
	silent := slog.New(slog.DiscardHandler)
	cred := &reauth.Credential{Refresher: r, Logger: silent}
	return &simClient{cred: cred, rt: &reauth.Transport{Base: server, Credential: cred, Logger: silent}}
}

// get sends a request and reports whether its status is 200.
func (c *simClient) get(url string) bool {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		panic(err)
	}
	ok := false
	if resp, err := c.rt.RoundTrip(req); err == nil {
		_ = resp.Body.Close()
		ok = resp.StatusCode == http.StatusOK
	}
	c.sent.Add(1)
	if !ok {
		c.failed.Add(1)
	}
	return ok
}

// reset makes the counts begin anew.
func (c *simClient) reset() {
	c.sent.Store(0)
	c.failed.Store(0)
}

// failures returns how many requests failed.
func (c *simClient) failures() float64 { return float64(c.failed.Load()) }

// failedPercent returns how many requests failed, of 100.
func (c *simClient) failedPercent() float64 {
	return 100 * float64(c.failed.Load()) / float64(c.sent.Load())
}

// repeat calls f until the time is over, with a pause after each call.
func repeat(start time.Time, duration, pause time.Duration, f func()) {
	for time.Since(start) < duration {
		f()
		time.Sleep(pause)
	}
}

// A latest is the latest of several times.
type latest struct{ at atomic.Int64 }

func (l *latest) note(d time.Duration) {
	for old := l.at.Load(); int64(d) > old && !l.at.CompareAndSwap(old, int64(d)); old = l.at.Load() {
	}
}

func (l *latest) seconds() float64 { return time.Duration(l.at.Load()).Seconds() }
