package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reauth-go/reauth"
)

// scenarios are the rows of the table, in groups.
var scenarios = [][]scenario{
	{
		besideRejecting("a path that always says 401 beside a healthy one, same origin", "https://api.test/rejected", 0, 2, 7),
		besideRejecting("a path that always says 401, and servers that learn of a token 2 s late", "https://api.test/rejected", 2*time.Second, 4, 9),
		besideRejecting("a host that always says 401 beside a healthy one", "https://rejecting.test/", 0, 0, 1),
		faultyReplica(),
	},
	forLags("routine refresh, servers learn of it %v s late", func(lag time.Duration) scenario { return routineRefresh(lag) }),
	forLags("a revocation, servers learn of a token %v s late", func(lag time.Duration) scenario { return revocation(lag, sameLag(lag)) }),
	forLags("a revocation, four replicas learn of a token one by one, the last %v s late", func(lag time.Duration) scenario { return revocation(lag, oneByOne(lag)) }),
	{
		revokedEvery(2*time.Second, unlimited),
		revokedEvery(5*time.Second, 2),
		revokedEvery(10*time.Second, 0),
		revokedEvery(time.Minute, 0),
		issuerDown(),
	},
	clocks(),
	{
		claimsAtOnce(),
		claimsByTurns(),
		tenOrigins(),
	},
	challenges("scopes", "scope", `Bearer realm="https://login.test/token", service="api", error="invalid_token", scope="%s"`),
	challenges("claims", "claims", `Bearer error="insufficient_claims", claims="%s"`),
	{twoProcesses()},
}

const apiURL = "https://api.test/"

// forLags returns a scenario for each of the times after which servers learn of
// a token.
func forLags(name string, of func(lag time.Duration) scenario) []scenario {
	var all []scenario
	for _, lag := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second} {
		s := of(lag)
		s.name = fmt.Sprintf(name, lag.Seconds())
		all = append(all, s)
	}
	return all
}

// sameLag is the lag of one server. oneByOne is that of four replicas behind one
// name, which learn of a token after a quarter, a half, three quarters and all
// of the lag; each request goes to any of them.
func sameLag(lag time.Duration) func() time.Duration {
	return func() time.Duration { return lag }
}

func oneByOne(lag time.Duration) func() time.Duration {
	return func() time.Duration { return lag * time.Duration(1+rand.IntN(4)) / 4 }
}

// besideRejecting has one caller for a healthy path, and one for a URL that
// answers each request with a 401. Both send for 30 minutes. All tokens are
// revoked every 3 minutes and 7 seconds. It measures how many requests to the
// healthy path fail, and the longest time from a revocation to the first success
// there.
func besideRejecting(name, rejecting string, lag time.Duration, percent, seconds float64) scenario {
	return scenario{name, []bound{{"failed", " %", percent}, {"for the slowest recovery", " s", seconds}}, func() []float64 {
		const healthy, duration, interval = "https://api.test/healthy", 30 * time.Minute, 3*time.Minute + 7*time.Second
		issuer := newSimIssuer()
		client := newSimClient(issuer, simServer(func(req *http.Request) string {
			return unless(req.URL.Path == "/healthy" && issuer.accepts(req, lag))
		}))
		client.get(healthy)
		time.Sleep(lag + 6*time.Second)
		rejected := &simClient{rt: client.rt} // counts for itself
		client.reset()
		var revokedAt atomic.Pointer[time.Time]
		var slowest latest
		var all sync.WaitGroup
		all.Go(func() {
			repeat(issuer.started, duration, simPause, func() { rejected.get(rejecting) })
		})
		all.Go(func() {
			repeat(issuer.started, duration, simPause, func() {
				if !client.get(healthy) {
					return
				}
				if at := revokedAt.Swap(nil); at != nil {
					slowest.note(time.Since(*at))
				}
			})
		})
		all.Go(func() {
			time.Sleep(interval)
			repeat(issuer.started, duration, interval, func() {
				now := time.Now()
				issuer.revokeAll()
				revokedAt.CompareAndSwap(nil, &now)
			})
		})
		all.Wait()
		if at := revokedAt.Load(); at != nil { // it never recovered
			slowest.note(time.Since(*at))
		}
		return []float64{client.failedPercent(), slowest.seconds()}
	}}
}

// faultyReplica has 50 callers for 10 minutes. One request in ten is answered by
// a replica that rejects all tokens.
func faultyReplica() scenario {
	const budget, perMinute, minutes = 20, 10, 10
	return scenario{"one replica in ten rejects all tokens, 50 callers", []bound{
		{"refreshes in the first minute", "", budget + perMinute},
		{"in ten minutes", "", budget + minutes*perMinute},
		{"failed", " %", 2},
	}, func() []float64 {
		issuer := newSimIssuer()
		client := newSimClient(issuer, simServer(func(req *http.Request) string {
			return unless(rand.IntN(10) > 0 && issuer.accepts(req, 0))
		}))
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				repeat(issuer.started, minutes*time.Minute, simPause, func() { client.get(apiURL) })
			})
		}
		all.Wait()
		return []float64{
			issuer.refreshesForRejections(0, time.Minute),
			issuer.refreshesForRejections(0, minutes*time.Minute),
			client.failedPercent(),
		}
	}}
}

// routineRefresh has five callers for 70 minutes. Tokens are good for an hour,
// and say so. Servers accept a token only when it is as old as the lag.
func routineRefresh(lag time.Duration) scenario {
	return scenario{bounds: []bound{{"failed", "", 0}}, run: func() []float64 {
		issuer := newSimIssuer()
		issuer.lifetime = time.Hour
		issuer.expiry = func() time.Time { return time.Now().Add(time.Hour) }
		client := newSimClient(issuer, simServer(func(req *http.Request) string {
			return unless(issuer.accepts(req, lag))
		}))
		client.get(apiURL)
		time.Sleep(lag + 10*time.Second)
		client.reset()
		start := time.Now()
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				repeat(start, 70*time.Minute, simPause, func() { client.get(apiURL) })
			})
		}
		all.Wait()
		return []float64{client.failures()}
	}}
}

// revocation has a token accepted, waits a minute, revokes it, and has five
// callers for 5 minutes. Tokens say nothing of their expiry. Each request meets
// a server that accepts a token only when it is as old as serverLag returns. It
// measures the time from the revocation to the last failure.
func revocation(lag time.Duration, serverLag func() time.Duration) scenario {
	return scenario{bounds: []bound{{"to the last failure", " s", lag.Seconds() + 0.5}}, run: func() []float64 {
		issuer := newSimIssuer()
		issuer.lifetime = time.Hour
		client := newSimClient(issuer, simServer(func(req *http.Request) string {
			return unless(issuer.accepts(req, serverLag()))
		}))
		client.get(apiURL)
		time.Sleep(lag + 10*time.Second)
		for !client.get(apiURL) {
			time.Sleep(simPause)
		}
		time.Sleep(time.Minute)
		issuer.revokeAll()
		start := time.Now()
		var last latest
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				repeat(start, 5*time.Minute, simPause, func() {
					if !client.get(apiURL) {
						last.note(time.Since(start))
					}
				})
			})
		}
		all.Wait()
		return []float64{last.seconds()}
	}}
}

// revokedEvery has ten callers for 10 minutes. All tokens are revoked in regular
// intervals.
func revokedEvery(interval time.Duration, percent float64) scenario {
	return scenario{fmt.Sprintf("revoked every %v s", interval.Seconds()), []bound{{"failed", " %", percent}}, func() []float64 {
		const duration = 10 * time.Minute
		issuer := newSimIssuer()
		client := newSimClient(issuer, simServer(func(req *http.Request) string {
			return unless(issuer.accepts(req, 0))
		}))
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				repeat(issuer.started, duration, simPause, func() { client.get(apiURL) })
			})
		}
		all.Go(func() {
			time.Sleep(interval)
			repeat(issuer.started, duration, interval, issuer.revokeAll)
		})
		all.Wait()
		return []float64{client.failedPercent()}
	}}
}

// issuerDown has one caller for 150 minutes. The issuer fails for an hour after
// the first, and all tokens are revoked 4 minutes after it began to. A send
// takes no time. It measures the calls of the Refresher in that hour, and the
// time from the issuer's return to the last failed request.
func issuerDown() scenario {
	const longestBackoff = 60
	return scenario{"issuer down for an hour, token revoked", []bound{
		{"calls", "", 100}, {"from its return to the last failure", " s", longestBackoff},
	}, func() []float64 {
		issuer := newSimIssuer()
		issuer.lifetime = 10 * time.Hour
		issuer.expiry = func() time.Time { return time.Now().Add(10 * time.Hour) }
		issuer.down = func() bool { d := issuer.elapsed(); return d > time.Hour && d < 2*time.Hour }
		client := newSimClient(issuer, instantly(func(req *http.Request) string {
			return unless(issuer.accepts(req, 0))
		}))
		var last time.Duration
		revoked := false
		repeat(issuer.started, 150*time.Minute, simPause, func() {
			if !revoked && issuer.elapsed() > 64*time.Minute {
				issuer.revokeAll()
				revoked = true
			}
			if !client.get(apiURL) {
				last = issuer.elapsed()
			}
		})
		return []float64{issuer.refreshes(time.Hour, 2*time.Hour), (last - 2*time.Hour).Seconds()}
	}}
}

// instantly is a server that takes no time to answer.
type instantly func(*http.Request) (challenge string)

// RoundTrip implements http.RoundTripper.
func (s instantly) RoundTrip(req *http.Request) (*http.Response, error) {
	return simResponse(req, s(req)), nil
}

// clocks has one caller for 2 hours whose clock differs from that of the issuer
// and the server. Tokens are good for an hour, and their Expiry is a time of the
// issuer's clock. Responses have a Date of that clock, or none. A send takes no
// time.
func clocks() []scenario {
	failed := bound{"failed", "", 0}
	calls := bound{"refreshes a minute", "", unlimited}
	fewCalls := bound{calls.what, "", 15}
	almost := 59*time.Minute + 55*time.Second
	var all []scenario
	for _, date := range []bool{false, true} {
		suffix := ", responses without Date"
		if date {
			suffix = ", responses with Date"
		}
		all = append(all,
			clock("local clock 2 h fast"+suffix, 2*time.Hour, date, failed, calls),
			clock("local clock 2 h slow"+suffix, -2*time.Hour, date, failed, calls),
			clock("local clock fast by 59:55 of 60 min"+suffix, almost, date, failed, fewCalls),
		)
	}
	return all
}

func clock(name string, fast time.Duration, date bool, bounds ...bound) scenario {
	return scenario{name, bounds, func() []float64 {
		const duration = 2 * time.Hour
		issuer := newSimIssuer()
		issuer.lifetime = time.Hour
		issuer.expiry = func() time.Time { return time.Now().Add(time.Hour - fast).Round(0) }
		client := newSimClient(issuer, roundTripper(func(req *http.Request) (*http.Response, error) {
			resp := simResponse(req, unless(issuer.accepts(req, 0)))
			if date {
				resp.Header.Set("Date", time.Now().Add(-fast).UTC().Format(http.TimeFormat))
			}
			return resp, nil
		}))
		repeat(issuer.started, duration, simPause, func() { client.get(apiURL) })
		return []float64{client.failures(), issuer.refreshes(0, duration) / duration.Minutes()}
	}}
}

// A roundTripper is a function as an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// claimsAtOnce has 200 callers send one request each with the first token. Each
// is challenged for claims of its own, after 5 to 105 ms. Any later token is
// accepted.
func claimsAtOnce() scenario {
	return scenario{"200 claims at once", []bound{{"refreshes", "", 1}, {"failed", "", 0}}, func() []float64 {
		issuer := newSimIssuer()
		var challenged atomic.Int64
		var first string
		client := newSimClient(issuer, roundTripper(func(req *http.Request) (*http.Response, error) {
			time.Sleep(simSend + rand.N(100*time.Millisecond))
			challenge := ""
			if bearer(req) == first {
				challenge = fmt.Sprintf(`Bearer error="insufficient_claims", claims="c%d"`, challenged.Add(1))
			}
			return simResponse(req, challenge), nil
		}))
		tok, err := client.cred.Token(context.Background())
		if err != nil {
			panic(err)
		}
		first = tok.AccessToken
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() { client.get(apiURL) })
		}
		all.Wait()
		return []float64{issuer.refreshes(0, time.Hour) - 1, client.failures()}
	}}
}

// claimsByTurns has one caller send to two paths by turns for 10 minutes. A path
// accepts a token only if the last claims that it was fetched with are its own.
func claimsByTurns() scenario {
	return scenario{"two endpoints that want two claims by turns, 10 min", []bound{
		{"refreshes", "", 5}, {"failed", "", 0},
	}, func() []float64 {
		issuer := newSimIssuer()
		refresher := reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
			tok, err := issuer.Refresh(ctx, stale)
			for _, c := range stale.Rejection.Challenges {
				tok.AccessToken += "-" + c.Params["claims"]
			}
			return tok, err
		})
		client := newSimClient(refresher, simServer(func(req *http.Request) string {
			want := strings.Trim(req.URL.Path, "/")
			if strings.HasSuffix(bearer(req), "-"+want) {
				return ""
			}
			return fmt.Sprintf(`Bearer error="insufficient_claims", claims="%s"`, want)
		}))
		n := 0
		repeat(issuer.started, 10*time.Minute, simPause, func() {
			n++
			client.get(apiURL + []string{"a", "b"}[n%2])
		})
		return []float64{issuer.refreshes(0, time.Hour), client.failures()}
	}}
}

// tenOrigins has one caller for each of ten origins, for 10 minutes. Servers
// learn of a token 2 s late. All tokens are revoked once, after 5 minutes. It
// measures refreshes and failures after that.
func tenOrigins() scenario {
	return scenario{"ten origins, 2 s late, one revocation", []bound{
		{"refreshes", "", 1}, {"failed", "", 200},
	}, func() []float64 {
		const half = 5 * time.Minute
		issuer := newSimIssuer()
		client := newSimClient(issuer, simServer(func(req *http.Request) string {
			return unless(issuer.accepts(req, 2*time.Second))
		}))
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				url := fmt.Sprintf("https://api%d.test/", i)
				repeat(issuer.started, 2*half, simPause, func() { client.get(url) })
			})
		}
		time.Sleep(half)
		issuer.revokeAll()
		client.reset()
		all.Wait()
		return []float64{issuer.refreshes(half, time.Hour), client.failures()}
	}}
}

// challenges has five resources of one server. Each accepts a token only if it
// was fetched for what its challenge asks for. The first token was fetched for
// none. 50 requests go to them: from five callers at once, one for each resource,
// or from one caller by turns.
func challenges(what, param, challenge string) []scenario {
	const resources, each = 5, 10
	bounds := []bound{{"refreshes", "", 5}, {"failed", "", 0}}
	get := func(client *simClient, resource int) {
		client.get(fmt.Sprint(apiURL, "resource", resource))
		time.Sleep(simPause)
	}
	return []scenario{
		{"five resources that want five " + what + ", in parallel", bounds, func() []float64 {
			issuer, client := challengingServer(param, challenge)
			var all sync.WaitGroup
			for i := range resources {
				all.Go(func() {
					for range each {
						get(client, i)
					}
				})
			}
			all.Wait()
			return []float64{issuer.refreshes(0, time.Hour) - 1, client.failures()}
		}},
		{"five resources that want five " + what + ", by turns", bounds, func() []float64 {
			issuer, client := challengingServer(param, challenge)
			for n := range resources * each {
				get(client, n%resources)
			}
			return []float64{issuer.refreshes(0, time.Hour) - 1, client.failures()}
		}},
	}
}

// challengingServer returns the client of a server whose paths each challenge for
// their own name, in the parameter of the challenge. The client has a first
// token.
func challengingServer(param, challenge string) (*simIssuer, *simClient) {
	issuer := newSimIssuer()
	var granted sync.Map // from a token to the names that it was fetched for
	refresher := reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		tok, err := issuer.Refresh(ctx, stale)
		var asked []string
		for _, c := range stale.Rejection.Challenges {
			asked = append(asked, strings.Fields(c.Params[param])...)
		}
		granted.Store(tok.AccessToken, asked)
		return tok, err
	})
	client := newSimClient(refresher, simServer(func(req *http.Request) string {
		want := strings.Trim(req.URL.Path, "/")
		got, _ := granted.Load(bearer(req))
		if names, _ := got.([]string); slices.Contains(names, want) {
			return ""
		}
		return fmt.Sprintf(challenge, want)
	}))
	if _, err := client.cred.Token(context.Background()); err != nil {
		panic(err)
	}
	return issuer, client
}

// twoProcesses has two Credentials with the same login, at an issuer that
// revokes all older tokens when it issues one. Each has ten callers that send
// every 500 ms for 10 minutes. It measures the refreshes of the busier one in
// the first minute.
func twoProcesses() scenario {
	const budget, perMinute = 20, 10
	return scenario{"two processes at an issuer of one token", []bound{
		{"refreshes by one in the first minute", "", budget + perMinute},
		{"failed", " %", unlimited},
	}, func() []float64 {
		issuer := newSimIssuer()
		server := simServer(func(req *http.Request) string { return unless(issuer.accepts(req, 0)) })
		var clients [2]*simClient
		var refreshes [2]atomic.Int64
		var all sync.WaitGroup
		for i := range clients {
			clients[i] = newSimClient(reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
				time.Sleep(rand.N(20 * time.Millisecond))
				tok, err := issuer.Refresh(ctx, stale)
				issuer.revokeOlder(tok.AccessToken)
				if stale.Rejection.Reason != "" && issuer.elapsed() < time.Minute {
					refreshes[i].Add(1)
				}
				return tok, err
			}), server)
			for range 10 {
				all.Go(func() {
					repeat(issuer.started, 10*time.Minute, 500*time.Millisecond, func() { clients[i].get(apiURL) })
				})
			}
		}
		all.Wait()
		failed := clients[0].failures() + clients[1].failures()
		sent := clients[0].sent.Load() + clients[1].sent.Load()
		return []float64{
			float64(max(refreshes[0].Load(), refreshes[1].Load())),
			100 * failed / float64(sent),
		}
	}}
}
