package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reauth-go/reauth"
)

// The simulation runs in fake time. A send takes 5 ms and a refresh 50 ms, unless a
// scenario says otherwise, and callers wait 100 ms between their requests.
const (
	simSend    = 5 * time.Millisecond
	simRefresh = 50 * time.Millisecond
	simPause   = 100 * time.Millisecond
	simRuns    = 5 // of which the median counts
)

// A scenario measures how a Credential behaves when something goes wrong.
type scenario struct {
	name   string
	unit   string
	bounds []float64 // of what run returns
	run    func(t *testing.T) []float64
}

// An outcome is the median of the runs of a scenario.
type outcome struct {
	scenario
	values []float64
}

func (o outcome) holds() bool {
	for i, bound := range o.bounds {
		if o.values[i] > bound {
			return false
		}
	}
	return true
}

// simulate prints the table of all scenarios and exits, with status 1 if a bound does not
// hold. Fake time is for tests alone, so it runs as one.
func simulate(out io.Writer) {
	f := func(t *testing.T) {
		fmt.Fprintf(out, "| scenario | measured | median of %d runs | bound | |\n|---|---|---|---|---|\n", simRuns)
		for _, o := range simulateAll(t, simRuns) {
			verdict := "holds"
			if !o.holds() {
				verdict = "exceeded"
				t.Fail()
			}
			fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", o.name, o.unit, figures(o.values), figures(o.bounds), verdict)
		}
	}
	all := func(string, string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "Sim", F: f}}, nil, nil)
}

func figures(values []float64) string {
	var all []string
	for _, v := range values {
		s := fmt.Sprintf("%.2f", v)
		all = append(all, strings.TrimSuffix(strings.TrimRight(s, "0"), "."))
	}
	return strings.Join(all, "; ")
}

// simulateAll runs each scenario several times.
func simulateAll(t *testing.T, runs int) []outcome {
	var mu sync.Mutex
	outcomes := make([]outcome, len(scenarios))
	t.Run("scenarios", func(t *testing.T) {
		for i, s := range scenarios {
			name := regexp.MustCompile(`[^a-zA-Z0-9]+`).ReplaceAllString(s.name, "_")
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var all [][]float64
				for range runs {
					synctest.Test(t, func(t *testing.T) { all = append(all, s.run(t)) })
				}
				o := outcome{scenario: s}
				for j := range s.bounds {
					o.values = append(o.values, median(all, func(v []float64) float64 { return v[j] }))
				}
				mu.Lock()
				defer mu.Unlock()
				outcomes[i] = o
			})
		}
	})
	return outcomes
}

// A world has an issuer and servers that accept its tokens.
type world struct {
	start    time.Time
	lifetime time.Duration    // until servers take a token for expired
	expiry   func() time.Time // what the issuer says of it; nil: nothing
	down     func() bool      // the issuer fails
	oneToken bool             // only the newest token is valid
	claims   func(s reauth.Stale) string

	mu      sync.Mutex
	issued  map[string]time.Time
	revoked map[string]bool
	calls   []time.Duration // of the issuer, since start
}

func newWorld() *world {
	return &world{start: time.Now(), lifetime: 1000 * time.Hour, issued: map[string]time.Time{}, revoked: map[string]bool{}}
}

// Refresh implements reauth.Refresher.
func (w *world) Refresh(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
	time.Sleep(simRefresh)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, time.Since(w.start))
	if w.down != nil && w.down() {
		return reauth.Token{}, errors.New("the issuer is down")
	}
	tok := reauth.Token{AccessToken: fmt.Sprint("T", len(w.issued)+1)}
	if w.claims != nil {
		tok.AccessToken += w.claims(stale)
	}
	if w.oneToken {
		for t := range w.issued {
			w.revoked[t] = true
		}
	}
	w.issued[tok.AccessToken] = time.Now()
	if w.expiry != nil {
		tok.Expiry = w.expiry()
	}
	return tok, nil
}

// valid reports whether a server that learns of tokens after lag accepts the request.
func (w *world) valid(req *http.Request, lag time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, issued := w.issued[token(req)]
	age := time.Since(at)
	return issued && !w.revoked[token(req)] && age >= lag && age < w.lifetime
}

func token(req *http.Request) string {
	return strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
}

// revoke revokes all tokens.
func (w *world) revoke() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for t := range w.issued {
		w.revoked[t] = true
	}
}

// refreshes returns how many there were in a span since the start.
func (w *world) refreshes(from, to time.Duration) float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0.0
	for _, at := range w.calls {
		if at >= from && at < to {
			n++
		}
	}
	return n
}

// transport returns a Transport whose server accepts a request if accepts does; else it
// answers 401 with the challenge, which may be nil.
func (w *world) transport(accepts func(*http.Request) bool, challenge func(*http.Request) string) *reauth.Transport {
	quiet := slog.New(slog.DiscardHandler)
	return &reauth.Transport{
		Logger:     quiet,
		Credential: &reauth.Credential{Refresher: w, Logger: quiet},
		Base: roundTripper(func(req *http.Request) (*http.Response, error) {
			time.Sleep(simSend)
			resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: req}
			if !accepts(req) {
				resp.StatusCode = http.StatusUnauthorized
				resp.Header.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
				if challenge != nil {
					resp.Header.Set("WWW-Authenticate", challenge(req))
				}
			}
			return resp, nil
		}),
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// get reports whether a GET succeeds.
func get(rt http.RoundTripper, url string) bool {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// A tally counts requests.
type tally struct {
	start          time.Time
	sent, failed   atomic.Int64
	lastFailure    atomic.Int64 // since start
	failureSince   atomic.Int64 // when a revocation was, since start; 0: none
	slowestFailure atomic.Int64 // until a request succeeded after it
}

func (c *tally) note(ok bool) {
	c.sent.Add(1)
	now := int64(time.Since(c.start))
	if !ok {
		c.failed.Add(1)
		c.lastFailure.Store(now)
		return
	}
	if since := c.failureSince.Swap(0); since > 0 {
		c.slowestFailure.Store(max(c.slowestFailure.Load(), now-since))
	}
}

func (c *tally) percent() float64 { return 100 * float64(c.failed.Load()) / float64(c.sent.Load()) }

// sendFrom sends requests from n goroutines until the time is over.
func sendFrom(n int, d, pause time.Duration, c *tally, send func(caller, request int) bool) {
	start := time.Now()
	if c.start.IsZero() {
		c.start = start
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for k := 0; time.Since(start) < d; k++ {
				c.note(send(i, k))
				time.Sleep(pause)
			}
		})
	}
	all.Wait()
}

func seconds(d time.Duration) float64 { return d.Seconds() }

var lags = []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// scenarios are the rows of the table.
var scenarios = slices.Concat(
	[]scenario{
		{"a path that always says 401 beside a healthy one, same origin", "healthy failed %; slowest recovery s", []float64{2, 7}, badPath(0, "https://api.test/bad")},
		{"the same, servers learn of a token 2 s late", "healthy failed %; slowest recovery s", []float64{4, 9}, badPath(2*time.Second, "https://api.test/bad")},
		{"a host that always says 401 beside a healthy one", "healthy failed %; slowest recovery s", []float64{0, 1}, badPath(0, "https://bad.test/bad")},
		{"one sick replica in ten, 50 callers", "refreshes in the first minute; then each minute; failed %", []float64{30, 10, 2}, sickReplica},
	},
	perLag("routine refresh, servers learn of it %v late", "failed", func(time.Duration) float64 { return 0 }, func(lag time.Duration) func(*testing.T) []float64 { return routine(lag, false) }),
	perLag("routine refresh, four replicas learn of it one by one within %v", "failed", func(time.Duration) float64 { return 0 }, func(lag time.Duration) func(*testing.T) []float64 { return routine(lag, true) }),
	perLag("revoked, servers learn of the new token %v late", "last failure s", lagAndHalf, func(lag time.Duration) func(*testing.T) []float64 { return revocation(lag, false) }),
	perLag("revoked, four replicas learn one by one within %v", "last failure s", lagAndHalf, func(lag time.Duration) func(*testing.T) []float64 { return revocation(lag, true) }),
	[]scenario{
		{"revoked every 2 s, beyond the budget", "failed %", []float64{100}, revokedEvery(2 * time.Second)},
		{"revoked every 5 s", "failed %", []float64{2}, revokedEvery(5 * time.Second)},
		{"revoked every 10 s", "failed %", []float64{0}, revokedEvery(10 * time.Second)},
		{"revoked every minute", "failed %", []float64{0}, revokedEvery(time.Minute)},
		{"issuer down for an hour, token revoked", "calls; last failure s after its return", []float64{100, 60}, issuerDown},
		{"local clock 2 h fast", "failed; refreshes a minute", []float64{0, 1}, clock(-2 * time.Hour)},
		{"local clock 2 h slow", "failed; refreshes a minute", []float64{0, 1}, clock(2 * time.Hour)},
		{"local clock fast by 59:55 of 60 min", "failed; refreshes a minute", []float64{0, 15}, clock(-59*time.Minute - 55*time.Second)},
		{"200 rejections at once, each asking for other claims", "refreshes; failed", []float64{1, 0}, manyClaims},
		{"two endpoints that want two claims by turns, 10 min", "refreshes; failed", []float64{5, 0}, twoClaims},
		{"five resources with five scopes, in parallel", "refreshes; failed", []float64{5, 0}, resources("scope", 5)},
		{"five resources with five scopes, by turns", "refreshes; failed", []float64{5, 0}, resources("scope", 1)},
		{"five resources with five claims, in parallel", "refreshes; failed", []float64{5, 0}, resources("claims", 5)},
		{"five resources with five claims, by turns", "refreshes; failed", []float64{5, 0}, resources("claims", 1)},
		{"ten origins, 2 s late, one revocation", "refreshes; failed", []float64{1, 200}, tenOrigins},
		{"two processes, an issuer of one valid token", "refreshes of both in the first minute; then each minute", []float64{60, 20}, twoProcesses},
	},
)

func lagAndHalf(lag time.Duration) float64 { return seconds(lag) + 0.5 }

func perLag(name, unit string, bound func(time.Duration) float64, run func(time.Duration) func(*testing.T) []float64) []scenario {
	var all []scenario
	for _, lag := range lags {
		all = append(all, scenario{fmt.Sprintf(name, lag), unit, []float64{bound(lag)}, run(lag)})
	}
	return all
}

// badPath: a caller asks a URL that always answers 401, another one a healthy URL. All
// tokens are revoked every 187 s, for half an hour.
func badPath(lag time.Duration, bad string) func(*testing.T) []float64 {
	return func(*testing.T) []float64 {
		const good = "https://api.test/healthy"
		w := newWorld()
		rt := w.transport(func(req *http.Request) bool { return req.URL.Path == "/healthy" && w.valid(req, lag) }, nil)
		get(rt, good)
		time.Sleep(lag + 6*time.Second)
		const length = 30 * time.Minute
		healthy := &tally{start: time.Now()}
		var all sync.WaitGroup
		all.Go(func() { sendFrom(1, length, simPause, &tally{}, func(int, int) bool { return get(rt, bad) }) })
		all.Go(func() { sendFrom(1, length, simPause, healthy, func(int, int) bool { return get(rt, good) }) })
		all.Go(func() {
			for start := time.Now(); time.Since(start) < length; {
				time.Sleep(3*time.Minute + 7*time.Second)
				w.revoke()
				healthy.failureSince.Store(int64(time.Since(healthy.start)))
			}
		})
		all.Wait()
		return []float64{healthy.percent(), seconds(time.Duration(healthy.slowestFailure.Load()))}
	}
}

// sickReplica: one answer in ten comes from a replica that accepts no token.
func sickReplica(*testing.T) []float64 {
	w := newWorld()
	rt := w.transport(func(req *http.Request) bool { return rand.IntN(10) > 0 && w.valid(req, 0) }, nil)
	c := &tally{}
	sendFrom(50, 10*time.Minute, simPause, c, func(int, int) bool { return get(rt, "https://api.test/") })
	return []float64{w.refreshes(0, time.Minute), w.refreshes(time.Minute, 10*time.Minute) / 9, c.percent()}
}

// learns returns a server that learns of a token after lag, or one of four replicas
// that learn of it one by one.
func (w *world) learns(lag time.Duration, replicas bool) func(*http.Request) bool {
	return func(req *http.Request) bool {
		if replicas {
			return w.valid(req, lag*time.Duration(1+rand.IntN(4))/4)
		}
		return w.valid(req, lag)
	}
}

// routine: five callers send for 70 minutes, with tokens that expire after an hour.
func routine(lag time.Duration, replicas bool) func(*testing.T) []float64 {
	return func(*testing.T) []float64 {
		w := newWorld()
		w.lifetime = time.Hour
		w.expiry = func() time.Time { return time.Now().Add(time.Hour) }
		rt := w.transport(w.learns(lag, replicas), nil)
		get(rt, "https://api.test/")
		time.Sleep(lag + 10*time.Second)
		c := &tally{}
		sendFrom(5, 70*time.Minute, simPause, c, func(int, int) bool { return get(rt, "https://api.test/") })
		return []float64{float64(c.failed.Load())}
	}
}

// revocation: five callers send for five minutes after all tokens were revoked.
func revocation(lag time.Duration, replicas bool) func(*testing.T) []float64 {
	return func(*testing.T) []float64 {
		w := newWorld()
		rt := w.transport(w.learns(lag, replicas), nil)
		get(rt, "https://api.test/")
		time.Sleep(lag + 10*time.Second)
		for !get(rt, "https://api.test/") {
			time.Sleep(simPause)
		}
		time.Sleep(time.Minute)
		w.revoke()
		c := &tally{start: time.Now()}
		sendFrom(5, 5*time.Minute, simPause, c, func(int, int) bool { return get(rt, "https://api.test/") })
		return []float64{seconds(time.Duration(c.lastFailure.Load()))}
	}
}

// revokedEvery: ten callers send for ten minutes.
func revokedEvery(d time.Duration) func(*testing.T) []float64 {
	return func(*testing.T) []float64 {
		const length = 10 * time.Minute
		w := newWorld()
		rt := w.transport(func(req *http.Request) bool { return w.valid(req, 0) }, nil)
		c := &tally{}
		var all sync.WaitGroup
		all.Go(func() {
			for time.Since(w.start) < length {
				time.Sleep(d)
				w.revoke()
			}
		})
		sendFrom(10, length, simPause, c, func(int, int) bool { return get(rt, "https://api.test/") })
		all.Wait()
		return []float64{c.percent()}
	}
}

// issuerDown: the issuer is down from the first to the second hour. Four minutes later
// the token is revoked.
func issuerDown(*testing.T) []float64 {
	w := newWorld()
	w.expiry = func() time.Time { return time.Now().Add(10 * time.Hour) }
	w.down = func() bool { d := time.Since(w.start); return d > time.Hour && d < 2*time.Hour }
	rt := w.transport(func(req *http.Request) bool { return w.valid(req, 0) }, nil)
	time.AfterFunc(64*time.Minute, w.revoke)
	c := &tally{}
	sendFrom(1, 150*time.Minute, simPause, c, func(int, int) bool { return get(rt, "https://api.test/") })
	return []float64{w.refreshes(time.Hour, 2*time.Hour), seconds(time.Duration(c.lastFailure.Load()) - 2*time.Hour)}
}

// clock: the issuer's expiry is off by d, as the local clock is by the opposite.
func clock(d time.Duration) func(*testing.T) []float64 {
	return func(*testing.T) []float64 {
		w := newWorld()
		w.lifetime = time.Hour
		w.expiry = func() time.Time { return time.Now().Add(d + time.Hour).Round(0) }
		rt := w.transport(func(req *http.Request) bool { return w.valid(req, 0) }, nil)
		c := &tally{}
		sendFrom(1, 2*time.Hour, simPause, c, func(int, int) bool { return get(rt, "https://api.test/") })
		return []float64{float64(c.failed.Load()), w.refreshes(0, 3*time.Hour) / 120}
	}
}

// manyClaims: 200 requests with one token are rejected, each for other claims.
func manyClaims(t *testing.T) []float64 {
	w := newWorld()
	var n atomic.Int32
	rt := w.transport(func(req *http.Request) bool {
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		return token(req) != "T1"
	}, func(*http.Request) string {
		return fmt.Sprintf(`Bearer error="insufficient_claims", claims="c%d"`, n.Add(1))
	})
	if _, err := rt.Credential.Token(t.Context()); err != nil {
		t.Error(err)
	}
	c := &tally{}
	sendFrom(200, time.Millisecond, simPause, c, func(int, int) bool { return get(rt, "https://api.test/") })
	return []float64{w.refreshes(0, time.Hour) - 1, float64(c.failed.Load())}
}

// twoClaims: each endpoint accepts a token that was fetched with its claims last.
func twoClaims(*testing.T) []float64 {
	w := newWorld()
	w.claims = func(s reauth.Stale) (text string) {
		for _, ch := range s.Rejection.Challenges {
			text += "-" + ch.Params["claims"]
		}
		return text
	}
	wants := func(req *http.Request) string { return strings.Trim(req.URL.Path, "/") }
	rt := w.transport(func(req *http.Request) bool { return strings.HasSuffix(token(req), "-"+wants(req)) },
		func(req *http.Request) string {
			return fmt.Sprintf(`Bearer error="insufficient_claims", claims="%s"`, wants(req))
		})
	c := &tally{}
	urls := []string{"https://api.test/a", "https://api.test/b"}
	sendFrom(1, 10*time.Minute, simPause, c, func(_, k int) bool { return get(rt, urls[k%2]) })
	return []float64{w.refreshes(0, time.Hour), float64(c.failed.Load())}
}

// resources: five resources of one server each ask for a scope, or for claims, of their
// own; callers share them.
func resources(param string, n int) func(*testing.T) []float64 {
	return func(*testing.T) []float64 {
		w := newWorld()
		w.claims = func(s reauth.Stale) (text string) {
			for _, ch := range s.Rejection.Challenges {
				for v := range strings.FieldsSeq(ch.Params[param]) {
					text += "-" + v + "-"
				}
			}
			return text
		}
		wants := func(req *http.Request) string { return strings.Trim(req.URL.Path, "/") }
		rt := w.transport(func(req *http.Request) bool {
			return wants(req) == "" || strings.Contains(token(req), "-"+wants(req)+"-")
		},
			func(req *http.Request) string {
				if param == "claims" {
					return fmt.Sprintf(`Bearer error="insufficient_claims", claims="%s"`, wants(req))
				}
				return fmt.Sprintf(`Bearer error="invalid_token", scope="%s"`, wants(req))
			})
		get(rt, "https://api.test/") // any token will do
		before := w.refreshes(0, time.Hour)
		c := &tally{}
		sendFrom(n, 10*time.Second/time.Duration(n), simPause, c, func(i, k int) bool {
			return get(rt, fmt.Sprintf("https://api.test/r%d", (i+k)%5))
		})
		return []float64{w.refreshes(0, time.Hour) - before, float64(c.failed.Load())}
	}
}

// tenOrigins: all tokens are revoked after five of ten minutes.
func tenOrigins(*testing.T) []float64 {
	w := newWorld()
	rt := w.transport(func(req *http.Request) bool { return w.valid(req, 2*time.Second) }, nil)
	time.AfterFunc(5*time.Minute, w.revoke)
	var failed atomic.Int64
	sendFrom(10, 10*time.Minute, simPause, &tally{}, func(i, _ int) bool {
		ok := get(rt, fmt.Sprintf("https://api%d.test/", i))
		if !ok && time.Since(w.start) > 5*time.Minute {
			failed.Add(1)
		}
		return ok
	})
	return []float64{w.refreshes(5*time.Minute, time.Hour), float64(failed.Load())}
}

// twoProcesses: each refresh of the one revokes the token of the other. Ten callers each.
func twoProcesses(*testing.T) []float64 {
	w := newWorld()
	w.oneToken = true
	accepts := func(req *http.Request) bool { return w.valid(req, 0) }
	processes := []*reauth.Transport{w.transport(accepts, nil), w.transport(accepts, nil)}
	sendFrom(20, 10*time.Minute, 5*simPause, &tally{}, func(i, _ int) bool { return get(processes[i%2], "https://api.test/") })
	return []float64{w.refreshes(0, time.Minute), w.refreshes(time.Minute, 10*time.Minute) / 9}
}
