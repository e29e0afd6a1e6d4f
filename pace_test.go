package reauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// A paceIssuer is a Refresher that remembers when it was asked.
type paceIssuer struct {
	do func(n int, stale reauth.Stale) (reauth.Token, error) // nil: Tn without an expiry

	mu    sync.Mutex
	asked []time.Time // guarded by mu
}

func (p *paceIssuer) Refresh(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
	p.mu.Lock()
	p.asked = append(p.asked, time.Now())
	n := len(p.asked)
	p.mu.Unlock()
	if p.do == nil {
		return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
	}
	return p.do(n, stale)
}

func (p *paceIssuer) times() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]time.Time(nil), p.asked...)
}

func (p *paceIssuer) count() int { return len(p.times()) }

// since returns how often it was asked from a moment on.
func (p *paceIssuer) since(t time.Time) int {
	n := 0
	for _, at := range p.times() {
		if !at.Before(t) {
			n++
		}
	}
	return n
}

// paceBusiest returns how many of the times fall into the busiest span d.
func paceBusiest(times []time.Time, d time.Duration) int {
	most := 0
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

// The default Pace at its fastest (each step at half its length) begins ten
// refreshes in its first minute, and four in a later one.
const (
	paceFirstMinute = 10
	paceLaterMinute = 4
	paceLongestStep = time.Minute
)

var errPaceDown = errors.New("issuer: 503 Service Unavailable")

// paceServer is a Base: a request is refused unless ok says otherwise.
func paceServer(sends *atomic.Int32, ok func(path, token string) bool) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sends.Add(1)
		if !ok(req.URL.Path, strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")) {
			return answer(req, http.StatusUnauthorized, "no", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
		}
		return answer(req, http.StatusOK, "fine"), nil
	})
}

func paceGet(t *testing.T, rt http.RoundTripper, path string) int {
	t.Helper()
	return get(t, rt, "https://api.test"+path).StatusCode
}

// A paceLog is a Pace that notes what it is asked, and always answers wait.
type paceLog struct {
	wait time.Duration
	mu   sync.Mutex
	seen []int // guarded by mu
}

func (l *paceLog) pace(failures int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, failures)
	return l.wait
}

func (l *paceLog) steps() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]int(nil), l.seen...)
}

// F1, F10, rule 4: a refresh that fails opens a pause that grows.
func TestIssuerThatIsDownIsNotHammered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
			if !up.Load() {
				return reauth.Token{}, errPaceDown
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
		}}
		var sends atomic.Int32
		rt := &reauth.Transport{
			Base:       paceServer(&sends, func(string, string) bool { return true }),
			Credential: &reauth.Credential{Refresher: iss, Logger: discard},
			Logger:     discard,
		}
		req, err := http.NewRequest(http.MethodGet, "https://api.test/", nil)
		require.NoError(t, err)

		const tick = 10 * time.Millisecond // 100 requests a second
		begin := time.Now()
		for time.Since(begin) < time.Hour {
			at := time.Now()
			resp, err := rt.RoundTrip(req)
			require.Nil(t, resp)
			var failure *reauth.RefreshError
			require.ErrorAs(t, err, &failure)
			require.ErrorIs(t, err, errPaceDown)
			require.Zero(t, time.Since(at), "callers get the last answer at once")
			require.False(t, failure.Permanent(), "a 503 is not for ever")
			if time.Since(begin)%time.Minute == 0 {
				require.Less(t, iss.count(), 1000)
			}
			time.Sleep(tick)
		}
		assert.Zero(t, sends.Load(), "nothing goes out without a token")

		times := iss.times()
		gaps := map[time.Duration]bool{}
		step := 250 * time.Millisecond
		for i := 1; i < len(times); i++ {
			gap := times[i].Sub(times[i-1])
			assert.GreaterOrEqual(t, gap, step/2, "gap %d", i)
			assert.LessOrEqual(t, gap, step*3/2+tick, "gap %d", i)
			step = min(2*step, 40*time.Second)
			gaps[gap] = true
		}
		assert.Greater(t, len(gaps), len(times)/2, "the gaps are jittered, or all the clients of an issuer come back at once")
		assert.LessOrEqual(t, len(times), paceFirstMinute+59*paceLaterMinute)
		assert.LessOrEqual(t, paceBusiest(times, time.Minute), paceFirstMinute)

		up.Store(true)
		back := time.Now()
		for {
			resp, err := rt.RoundTrip(req)
			if err == nil {
				assert.Equal(t, http.StatusOK, resp.StatusCode)
				break
			}
			require.Less(t, time.Since(back), paceLongestStep+tick, "all is well within one step of the issuer's return")
			time.Sleep(tick)
		}
	})
}

// F1: a token that is still valid is not given up because its replacement
// cannot be had.
func TestRequestsDoNotFailWhileTheTokenIsValidAndTheIssuerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var up atomic.Bool
		iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
			if n > 1 && !up.Load() {
				return reauth.Token{}, errPaceDown
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: time.Now().Add(4 * time.Hour)}, nil
		}}
		var sends atomic.Int32
		rt := &reauth.Transport{
			Base:       paceServer(&sends, func(_, tok string) bool { return tok != "" }),
			Credential: &reauth.Credential{Refresher: iss, RefreshBefore: 2 * time.Hour, Logger: discard},
			Logger:     discard,
		}
		require.Equal(t, http.StatusOK, paceGet(t, rt, "/"))
		time.Sleep(3 * time.Hour) // past the latest moment to look for another
		down := time.Now()
		for time.Since(down) < 55*time.Minute {
			at := time.Now()
			require.Equal(t, http.StatusOK, paceGet(t, rt, "/"))
			require.Zero(t, time.Since(at), "nobody waits for the refresh")
			time.Sleep(100 * time.Millisecond)
		}
		assert.Greater(t, iss.since(down), 20, "it is tried again and again")
		assert.LessOrEqual(t, paceBusiest(iss.times(), time.Minute), paceFirstMinute)
		assert.LessOrEqual(t, iss.since(down), paceFirstMinute+54*paceLaterMinute)

		up.Store(true)
		before := iss.count()
		for range 100 {
			require.Equal(t, http.StatusOK, paceGet(t, rt, "/"))
			time.Sleep(time.Second)
		}
		assert.Equal(t, before+1, iss.count(), "one refresh, within a step of the issuer's return")
		assert.Less(t, time.Since(begin), 4*time.Hour)
	})
}

// W6, F10: a second 401 is the caller's.
func TestNoRequestIsEverSentThreeTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var iss issuer
		base := accepting() // none
		rt := &reauth.Transport{Base: base, Credential: holding(t, &iss, reauth.Token{AccessToken: "T0"}), Logger: discard}
		resp := get(t, rt, "https://api.test/")
		assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		assert.EqualValues(t, 2, base.sends.Load())
		assert.EqualValues(t, 1, iss.calls.Load())
		o, ok := reauth.OutcomeOf(resp)
		require.True(t, ok)
		assert.False(t, o.Cured())
		assert.Equal(t, http.StatusUnauthorized, o.Retry.StatusCode)
		assert.NotEqual(t, o.First.Token, o.Retry.Token)
		assert.ErrorContains(t, o.Err, "rejected too")
	})
}

// W7, F10, rule 4: a token that is refused on the retry it was fetched for opens
// a pause that grows.
func TestServerThatRefusesEveryTokenDoesNotCostARefreshPerRequest(t *testing.T) {
	for _, life := range []time.Duration{0, time.Hour} {
		t.Run(fmt.Sprint("lifetime ", life), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var works atomic.Value // the one token that works
				works.Store("none")
				iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
					tok := reauth.Token{AccessToken: fmt.Sprint("T", n)}
					if life != 0 {
						tok.Expiry = time.Now().Add(life)
					}
					if works.Load() != "none" {
						works.Store(tok.AccessToken)
					}
					return tok, nil
				}}
				var sends atomic.Int32
				rt := &reauth.Transport{
					Base:       paceServer(&sends, func(_, tok string) bool { return tok == works.Load() }),
					Credential: &reauth.Credential{Refresher: iss, Logger: discard},
					Logger:     discard,
				}
				begin := time.Now()
				for range 1000 {
					before := sends.Load()
					require.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
					require.LessOrEqual(t, sends.Load()-before, int32(2))
					time.Sleep(100 * time.Millisecond)
				}
				minutes := int(time.Since(begin)/time.Minute) + 1
				assert.Greater(t, iss.count(), 5, "it is tried again and again")
				assert.LessOrEqual(t, paceBusiest(iss.times(), time.Minute), 1+paceFirstMinute, "the first token, and what the pace allows")
				assert.LessOrEqual(t, iss.count(), 1+paceFirstMinute+(minutes-1)*paceLaterMinute)

				works.Store("the next one")
				back := time.Now()
				for paceGet(t, rt, "/") != http.StatusOK {
					require.Less(t, time.Since(back), paceLongestStep+time.Second, "it recovers within one step")
					time.Sleep(100 * time.Millisecond)
				}
				// go-appkit's fixed throttle holds up this one for 15 minutes.
				for range 3 {
					works.Store("the next one")
					at := time.Now()
					assert.Equal(t, http.StatusOK, paceGet(t, rt, "/"), "a legitimate revocation right after is cured")
					assert.Less(t, time.Since(at), time.Second)
				}
			})
		})
	}
}

// W7: the tokens were good all the time, and the server comes to its senses.
func TestServerThatAcceptsTokensAgainIsNoticedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var works atomic.Bool
		iss := &paceIssuer{}
		var sends atomic.Int32
		rt := &reauth.Transport{
			Base:       paceServer(&sends, func(string, string) bool { return works.Load() }),
			Credential: &reauth.Credential{Refresher: iss, Logger: discard},
			Logger:     discard,
		}
		for range 300 { // five minutes: the pause is at its longest
			require.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
			time.Sleep(time.Second)
		}
		works.Store(true)
		before := iss.count()
		for range 300 {
			require.Equal(t, http.StatusOK, paceGet(t, rt, "/"), "the token in hand is still sent")
			time.Sleep(time.Second)
		}
		assert.Equal(t, before, iss.count())
	})
}

// W7: a thousand callers at once, each refused twice.
func TestCrowdThatIsRefusedCostsOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
			time.Sleep(time.Second)
			return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
		}}
		var sends atomic.Int32
		rt := &reauth.Transport{
			Base:       paceServer(&sends, func(string, string) bool { return false }),
			Credential: holding(t, iss, reauth.Token{AccessToken: "T0"}),
			Logger:     discard,
		}
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { assert.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/")) })
		}
		wg.Wait()
		assert.Equal(t, 1, iss.count())
		assert.EqualValues(t, 2000, sends.Load())
	})
}

// W7, rule 4: an API that always says 401 beside a healthy one. What the healthy
// one accepts must not prove the tokens that were fetched for the other.
func TestBrokenAPIBesideAHealthyOneDoesNotCostARefreshPerRequest(t *testing.T) {
	for _, tt := range []struct {
		name    string
		life    time.Duration
		revokes bool // a refresh revokes the token before: the healthy API sees 401s and retries too
		stream  bool // the broken API is sent what cannot be replayed, so there are no retries to refuse
	}{
		{name: "tokens without expiry"},
		{name: "tokens of an hour", life: time.Hour},
		{name: "tokens of three minutes", life: 3 * time.Minute},
		{name: "a refresh revokes the token before, tokens of an hour", revokes: true, life: time.Hour},
		{name: "no replay", stream: true},
		{name: "no replay, tokens of an hour", stream: true, life: time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var newest atomic.Value
				newest.Store("")
				iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
					tok := reauth.Token{AccessToken: fmt.Sprint("T", n)}
					if tt.life != 0 {
						tok.Expiry = time.Now().Add(tt.life)
					}
					newest.Store(tok.AccessToken)
					return tok, nil
				}}
				var sends atomic.Int32
				rt := &reauth.Transport{
					Base: paceServer(&sends, func(path, tok string) bool {
						return path == "/healthz" && (!tt.revokes || tok == newest.Load())
					}),
					Credential:     &reauth.Credential{Refresher: iss, Logger: discard},
					MaxReplayBytes: -1,
					Logger:         discard,
				}
				const length = 3 * time.Minute
				begin := time.Now()
				var wg sync.WaitGroup
				for _, path := range []string{"/healthz", "/api", "/healthz"} {
					wg.Go(func() {
						for time.Since(begin) < length {
							if path == "/healthz" {
								assert.Equal(t, http.StatusOK, paceGet(t, rt, path))
							} else {
								var body io.Reader
								if tt.stream {
									body = io.MultiReader(strings.NewReader("a stream"))
								}
								req, err := http.NewRequest(http.MethodPost, "https://api.test/api", body)
								if !assert.NoError(t, err) {
									return
								}
								resp, err := rt.RoundTrip(req)
								if assert.NoError(t, err) {
									assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
									assert.NoError(t, resp.Body.Close())
								}
							}
							time.Sleep(250*time.Millisecond + rand.N(250*time.Millisecond))
						}
					})
				}
				wg.Wait()
				// Each life of a token may begin the steps anew.
				lives := 1
				if tt.life != 0 {
					lives += int(length / (tt.life / 2))
				}
				assert.Greater(t, iss.count(), 5, "it is tried again and again")
				assert.LessOrEqual(t, paceBusiest(iss.times(), time.Minute), 2+paceFirstMinute)
				assert.LessOrEqual(t, iss.count(), lives*(1+paceFirstMinute)+int(length/time.Minute)*paceLaterMinute)
			})
		})
	}
}

// W7, rule 4: each step is longer than the one before, as Pace has it, for
// refused retries as for refreshes that fail.
func TestPauseDoesNotStopGrowing(t *testing.T) {
	for name, do := range map[string]func(int, reauth.Stale) (reauth.Token, error){
		"refused":      nil,
		"failed":       func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, errPaceDown },
		"by turns":     func(n int, _ reauth.Stale) (reauth.Token, error) { return paceByTurns(n) },
		"with expiry":  func(n int, _ reauth.Stale) (reauth.Token, error) { return paceExpiring(n) },
		"wrong answer": func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &paceLog{wait: 30 * time.Second}
				iss := &paceIssuer{do: do}
				cred := holding(t, iss, reauth.Token{AccessToken: "T0"})
				cred.Pace = log.pace
				var sends atomic.Int32
				rt := &reauth.Transport{
					Base: paceServer(&sends, func(string, string) bool { return false }), Credential: cred, RetryWait: -1, Logger: discard,
				}
				for range 4 {
					for range 3 {
						require.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
						time.Sleep(10 * time.Second)
					}
				}
				assert.Equal(t, []int{1, 2, 3, 4}, log.steps())
				assert.Equal(t, 4, iss.count())
			})
		})
	}
}

func paceByTurns(n int) (reauth.Token, error) {
	if n%2 == 0 {
		return reauth.Token{}, errPaceDown
	}
	return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
}

func paceExpiring(n int) (reauth.Token, error) {
	return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: time.Now().Add(time.Hour)}, nil
}

// Rule 4: a pause of minutes is not a time without failures.
func TestPauseOfMinutesDoesNotForgetItsOwnStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var steps []int
		iss := &paceIssuer{do: func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, errPaceDown }}
		cred := &reauth.Credential{Refresher: iss, Logger: discard, Pace: func(failures int) time.Duration {
			steps = append(steps, failures)
			return time.Duration(failures) * 2 * time.Minute
		}}
		begin := time.Now()
		for time.Since(begin) < time.Hour {
			_, err := cred.Token(t.Context())
			require.Error(t, err)
			time.Sleep(time.Second)
		}
		assert.Equal(t, []int{1, 2, 3, 4, 5, 6, 7, 8}, steps, "2, 4, 6 … minutes")
	})
}

// Rule 4: a token fetched for a retry is proven by that retry, which ends the
// pause and all that led to it.
func TestCureIsNotFollowedByAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &paceLog{wait: time.Second}
		var works atomic.Bool
		iss := &paceIssuer{}
		cred := holding(t, iss, reauth.Token{AccessToken: "T0"})
		cred.Pace = log.pace
		var sends atomic.Int32
		var dead sync.Map
		dead.Store("T0", true)
		rt := &reauth.Transport{Base: paceServer(&sends, func(_, tok string) bool {
			_, isDead := dead.Load(tok)
			return works.Load() && !isDead
		}), Credential: cred, RetryWait: -1, Logger: discard}

		for range 3 {
			require.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
			time.Sleep(1100 * time.Millisecond)
		}
		require.Equal(t, []int{1, 2, 3}, log.steps())

		works.Store(true)
		for i := 1; i <= 3; i++ {
			dead.Store(fmt.Sprint("T", i), true)
		}
		require.Equal(t, http.StatusOK, paceGet(t, rt, "/")) // T4 is proven by its retry
		tok, err := cred.Peek()
		assert.NoError(t, err)
		assert.Equal(t, "T4", tok.AccessToken)

		dead.Store("T4", true)
		assert.Equal(t, http.StatusOK, paceGet(t, rt, "/"), "its revocation is cured at once")
		works.Store(false)
		assert.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
		assert.Equal(t, []int{1, 2, 3, 1}, log.steps(), "the steps begin anew")
	})
}

// Rule 4: a refused retry takes the proof away for good, and with it the steps
// come back that the proof had ended.
func TestTokenRefusedOnARetryIsNeverProvenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &paceLog{wait: 20 * time.Second}
		iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
			time.Sleep(time.Second)
			if n <= 2 {
				return reauth.Token{}, errPaceDown
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
		}}
		cred := holding(t, iss, reauth.Token{AccessToken: "T0"})
		cred.Pace = log.pace
		rt := &reauth.Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			old := strings.HasSuffix(req.Header.Get("Authorization"), " T0")
			switch req.URL.Path {
			case "/bad":
				time.Sleep(time.Second) // so that the retry at /ok is accepted before
				old = true
			case "/poll":
				if old {
					time.Sleep(10 * time.Second)
				}
			}
			if old {
				return answer(req, http.StatusUnauthorized, ""), nil
			}
			return answer(req, http.StatusOK, "fine"), nil
		}), Credential: cred, RetryWait: -1, Logger: discard}

		for range 2 {
			require.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/ok"))
			time.Sleep(21 * time.Second)
		}
		require.Equal(t, []int{1, 2}, log.steps())

		want := map[string]int{"/ok": http.StatusOK, "/bad": http.StatusUnauthorized, "/poll": http.StatusOK}
		var wg sync.WaitGroup
		for path, status := range want {
			wg.Go(func() { assert.Equal(t, status, paceGet(t, rt, path)) })
		}
		time.Sleep(5 * time.Second)
		require.Equal(t, 3, iss.count())
		assert.Equal(t, []int{1, 2, 3}, log.steps(), "T3 was proven at /ok and then refused at /bad: the steps go on")
		wg.Wait() // the retry at /poll is accepted

		_, err := cred.Peek()
		assert.ErrorContains(t, err, "rejected too", "no success ends the pause")
		for range 5 {
			assert.Equal(t, http.StatusOK, paceGet(t, rt, "/ok"), "it is not the healthy API's business")
			assert.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/bad"))
		}
		assert.Equal(t, 3, iss.count())
	})
}

// Rule 4: a token that was not fetched for a retry is proven by any success,
// which ends the steps before it.
func TestTokenThatWorksIsNotHeldUpByOldFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &paceLog{wait: time.Second}
		iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
			if n <= 2 {
				return reauth.Token{}, errPaceDown
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
		}}
		cred := &reauth.Credential{Refresher: iss, Pace: log.pace, Logger: discard}
		var sends atomic.Int32
		rt := &reauth.Transport{
			Base:       paceServer(&sends, func(path, _ string) bool { return path == "/healthz" }),
			Credential: cred, RetryWait: -1, Logger: discard,
		}
		for range 2 {
			_, err := cred.Token(t.Context())
			require.Error(t, err)
			time.Sleep(1100 * time.Millisecond)
		}
		require.Equal(t, http.StatusOK, paceGet(t, rt, "/healthz"))       // T3
		require.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/api")) // T3, T4
		assert.Equal(t, 4, iss.count())
		assert.Equal(t, []int{1, 2, 1}, log.steps())
	})
}

// Rule 4: a step that a proof had ended is forgotten in time like any other.
func TestOldStepsDoNotComeBackAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &paceLog{wait: time.Second}
		iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
			if n <= 4 {
				return reauth.Token{}, errPaceDown
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
		}}
		cred := holding(t, iss, reauth.Token{AccessToken: "T0"})
		cred.Pace = log.pace
		rt := &reauth.Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			old := strings.HasSuffix(req.Header.Get("Authorization"), " T0")
			if req.URL.Path == "/poll" && old {
				time.Sleep(time.Hour) // a long poll with the first token
			}
			if req.URL.Path == "/poll" || old {
				return answer(req, http.StatusUnauthorized, ""), nil
			}
			return answer(req, http.StatusOK, "fine"), nil
		}), Credential: cred, RetryWait: -1, Logger: discard}

		var wg sync.WaitGroup
		wg.Go(func() { assert.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/poll")) })
		synctest.Wait()
		for range 4 {
			require.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/ok"))
			time.Sleep(1100 * time.Millisecond)
		}
		require.Equal(t, http.StatusOK, paceGet(t, rt, "/ok")) // T5 is proven, four steps are ended
		wg.Wait()                                              // an hour later its retry with T5 is refused
		assert.Equal(t, []int{1, 2, 3, 4, 1}, log.steps())
	})
}

// Rule 4: a success on another request proves a token that was not fetched for a
// retry, and no other.
func TestSuccessElsewhereDoesNotProveATokenFetchedForARetry(t *testing.T) {
	for _, tt := range []struct {
		name     string
		forRetry bool
		want     int // refreshes after the next 401
	}{
		{"fetched for a retry that could not be sent", true, 0},
		{"fetched as the first", false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &paceLog{wait: time.Minute}
				iss := &paceIssuer{}
				cred := &reauth.Credential{Refresher: iss, Pace: log.pace, Logger: discard}
				var sends atomic.Int32
				rt := &reauth.Transport{
					Base:       paceServer(&sends, func(path, tok string) bool { return path == "/healthz" }),
					Credential: cred, MaxReplayBytes: -1, RetryWait: -1, Logger: discard,
				}
				api := func() {
					t.Helper()
					req, err := http.NewRequest(http.MethodPost, "https://api.test/api", io.MultiReader(strings.NewReader("x")))
					require.NoError(t, err)
					resp, err := rt.RoundTrip(req)
					require.NoError(t, err)
					require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
					require.NoError(t, resp.Body.Close())
				}
				if tt.forRetry {
					require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0"}))
					api()
				}
				require.Equal(t, http.StatusOK, paceGet(t, rt, "/healthz"))
				before := iss.count()
				require.Equal(t, 1, before)
				for range 10 {
					api()
					require.Equal(t, http.StatusOK, paceGet(t, rt, "/healthz"))
				}
				assert.Equal(t, before+tt.want, iss.count())
			})
		})
	}
}

// Rule 4: a retry proves its token also where another request had it rejected
// before, as by a replica that has not heard of it yet. That one was no retry.
func TestRejectionBeforeTheRetryDoesNotSpoilTheProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &paceLog{wait: time.Minute}
		var known atomic.Value // the token that all replicas know
		known.Store("none")
		iss := &paceIssuer{}
		cred := holding(t, iss, reauth.Token{AccessToken: "T0"})
		cred.Pace = log.pace
		var sends atomic.Int32
		rt := &reauth.Transport{
			Base:       paceServer(&sends, func(_, tok string) bool { return tok == known.Load() }),
			Credential: cred, RetryWait: time.Second, Logger: discard,
		}
		var wg sync.WaitGroup
		wg.Go(func() { assert.Equal(t, http.StatusOK, paceGet(t, rt, "/"), "its retry comes after a moment") })
		synctest.Wait()
		paceGet(t, rt, "/") // too early
		known.Store("T1")
		wg.Wait()
		require.Equal(t, 1, iss.count())
		_, err := cred.Peek()
		assert.NoError(t, err, "the retry ended the pause")

		known.Store("T2")
		assert.Equal(t, http.StatusOK, paceGet(t, rt, "/"), "T1 was proven: its revocation is cured at once")
	})
}

// Rule 4: a step is forgotten after a minute without refusal.
func TestFailuresAreNotHeldAgainstTheIssuerForEver(t *testing.T) {
	for _, tt := range []struct {
		quiet time.Duration
		want  int
	}{
		{50 * time.Second, 5},
		{61 * time.Second, 4},
		{121 * time.Second, 3},
		{time.Hour, 1},
	} {
		t.Run(tt.quiet.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &paceLog{wait: 100 * time.Millisecond}
				iss := &paceIssuer{do: func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, errPaceDown }}
				cred := &reauth.Credential{Refresher: iss, Pace: log.pace, Logger: discard}
				for range 4 {
					_, err := cred.Token(t.Context())
					require.Error(t, err)
					time.Sleep(200 * time.Millisecond)
				}
				time.Sleep(tt.quiet)
				_, err := cred.Token(t.Context())
				require.Error(t, err)
				assert.Equal(t, []int{1, 2, 3, 4, tt.want}, log.steps())
			})
		})
	}
}

// Rule 4: go-appkit lets 15 minutes pass before it cures a second revocation.
func TestRevocationsOfAProvenTokenAreNeverPaced(t *testing.T) {
	for _, life := range []time.Duration{0, time.Hour} {
		t.Run(fmt.Sprint("lifetime ", life), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var valid atomic.Value
				valid.Store("T0")
				iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
					tok := reauth.Token{AccessToken: fmt.Sprint("T", n)}
					if life != 0 {
						tok.Expiry = time.Now().Add(life)
					}
					valid.Store(tok.AccessToken)
					return tok, nil
				}}
				var sends atomic.Int32
				rt := &reauth.Transport{
					Base:       paceServer(&sends, func(_, tok string) bool { return tok == valid.Load() }),
					Credential: holding(t, iss, reauth.Token{AccessToken: "T0"}),
					Logger:     discard,
				}
				begin := time.Now()
				for i := range 50 {
					valid.Store("revoked")
					require.Equal(t, http.StatusOK, paceGet(t, rt, "/"), "revocation %d", i)
				}
				assert.Equal(t, 50, iss.count())
				assert.Less(t, time.Since(begin), 50*150*time.Millisecond, "nothing but RetryWait")
			})
		})
	}
}

// W8: what a refresh brings and cannot be used is an error that says so, and the
// caller has the 401.
func TestUselessTokenIsNeverSent(t *testing.T) {
	const secret = "sk-0123456789abcdef"
	for _, tt := range []struct {
		name string
		tok  reauth.Token
		want string
	}{
		{"the rejected one again", reauth.Token{AccessToken: secret}, "the rejected token again"},
		{"the rejected one with a new expiry", reauth.Token{AccessToken: secret, Expiry: time.Now().AddDate(1000, 0, 0)}, "the rejected token again"},
		{"empty", reauth.Token{}, "empty"},
		{"only a refresh token", reauth.Token{RefreshToken: "R-" + secret}, "empty"},
		{"blank", reauth.Token{AccessToken: "  "}, "blank"},
		{"a line break", reauth.Token{AccessToken: secret + "X\n"}, "line break"},
		{"two lines", reauth.Token{AccessToken: secret + "\r\nX-Evil: 1"}, "control character"},
		{"a NUL", reauth.Token{AccessToken: secret + "\x00"}, "control character"},
		{"with its scheme", reauth.Token{AccessToken: "Bearer X" + secret}, "Bearer"},
		{"in quotes", reauth.Token{AccessToken: `"X` + secret + `"`}, "quotes"},
		{"not ASCII", reauth.Token{AccessToken: "令牌" + secret}, "ASCII"},
		{"too long", reauth.Token{AccessToken: strings.Repeat(secret, 10_000)}, "bytes"},
		{"Placeholder", reauth.Token{AccessToken: reauth.Placeholder}, "that is for the SDK"},
		{"a variable", reauth.Token{AccessToken: "${API_KEY}"}, "variable"},
		{"expired", reauth.Token{AccessToken: "X" + secret, Expiry: time.Unix(1, 0)}, "expired at 1970"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &journal{}
				iss := &paceIssuer{do: func(int, reauth.Stale) (reauth.Token, error) { return tt.tok, nil }}
				cred := holding(t, iss, reauth.Token{AccessToken: secret})
				cred.Logger = log.logger()
				base := accepting()
				rt := &reauth.Transport{Base: base, Credential: cred, Logger: log.logger()}

				resp := get(t, rt, "https://api.test/")
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				assert.EqualValues(t, 1, base.sends.Load(), "nothing is sent again")
				o, ok := reauth.OutcomeOf(resp)
				require.True(t, ok)
				var failure *reauth.RefreshError
				require.ErrorAs(t, o.Err, &failure)
				assert.ErrorContains(t, failure, tt.want)
				assert.False(t, failure.Permanent())
				assert.NotContains(t, fmt.Sprintf("%v %+v %#v %s", failure, o, o.Err, o.NoRetry), secret)

				for range 10 { // 100 ms: less than the first step
					get(t, rt, "https://api.test/")
					time.Sleep(10 * time.Millisecond)
				}
				assert.Equal(t, 1, iss.count(), "it is paced, not asked in a loop")
				assert.EqualValues(t, 11, base.sends.Load())
				assert.NotContains(t, log.text(), secret)

				iss.mu.Lock()
				iss.do = nil
				iss.mu.Unlock()
				base.valid = func(tok string) bool { return tok[0] == 'T' }
				time.Sleep(time.Second)
				assert.Equal(t, http.StatusOK, paceGet(t, rt, "/"), "and the next good token is used")
			})
		})
	}
}

// F2, rule 4: what only a person can cure is asked for once.
func TestPermanentErrorIsNotAskedAgain(t *testing.T) {
	grant := errors.New("invalid_grant")
	cures := map[string]func(*testing.T, *reauth.Credential){
		"Set": func(t *testing.T, c *reauth.Credential) {
			require.NoError(t, c.Set(t.Context(), reauth.Token{RefreshToken: "R1"}))
		},
		"Clear": func(t *testing.T, c *reauth.Credential) { require.NoError(t, c.Clear(t.Context())) },
	}
	for name, err := range map[string]error{
		"Permanent":             reauth.Permanent(grant),
		"backoff.Permanent":     backoff.Permanent(grant),
		"wrapped":               fmt.Errorf("login: %w", reauth.Permanent(grant)),
		"backoff, wrapped":      fmt.Errorf("login: %w", backoff.Permanent(grant)),
		"joined":                errors.Join(errors.New("first"), reauth.Permanent(grant)),
		"in spite of its wait":  reauth.Permanent(&paceRetryAfter{time.Second}),
		"around a RefreshError": reauth.Permanent(&reauth.RefreshError{RetryAt: time.Now()}),
	} {
		for cure, apply := range cures {
			t.Run(name+", until "+cure, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var well atomic.Bool
					iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
						if !well.Load() {
							return reauth.Token{}, err
						}
						return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
					}}
					cred := holding(t, iss, reauth.Token{AccessToken: "T0"})
					var sends atomic.Int32
					rt := &reauth.Transport{
						Base:       paceServer(&sends, func(_, tok string) bool { return tok != "T0" }),
						Credential: cred, Logger: discard,
					}
					for range 20 {
						at := time.Now()
						resp := get(t, rt, "https://api.test/")
						require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
						require.Zero(t, time.Since(at), "it fails at once")
						o, _ := reauth.OutcomeOf(resp)
						var failure *reauth.RefreshError
						require.ErrorAs(t, o.Err, &failure)
						require.True(t, failure.Permanent())
						require.ErrorIs(t, failure, err)
						time.Sleep(13 * time.Minute)
					}
					well.Store(true) // no one can know
					time.Sleep(48 * time.Hour)
					require.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
					assert.Equal(t, 1, iss.count())
					_, perr := cred.Peek()
					assert.ErrorIs(t, perr, err)

					apply(t, cred)
					_, perr = cred.Peek()
					assert.NotErrorIs(t, perr, err)
					assert.Equal(t, http.StatusOK, paceGet(t, rt, "/"))
					assert.Equal(t, 2, iss.count())
				})
			})
		}
	}
}

// F2, rule 4: with the old token still good, its next success is no reason to
// ask again.
func TestPermanentErrorIsNotForgottenWhenTheOldTokenWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := &paceIssuer{do: func(int, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, reauth.Permanent(errors.New("invalid_grant"))
		}}
		cred := holding(t, iss, reauth.Token{AccessToken: "T0", Expiry: time.Now().Add(10 * time.Minute)})
		rt := &reauth.Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			time.Sleep(50 * time.Millisecond) // the refresh fails meanwhile
			return answer(req, http.StatusOK, "fine"), nil
		}), Credential: cred, Logger: discard}
		time.Sleep(8 * time.Minute) // the first request comes when it is time to refresh
		for range 10 {
			require.Equal(t, http.StatusOK, paceGet(t, rt, "/"))
		}
		require.Equal(t, 1, iss.count())
		_, err := cred.Peek()
		assert.ErrorContains(t, err, "invalid_grant")

		time.Sleep(3 * time.Minute)
		_, err = cred.Token(t.Context())
		assert.ErrorContains(t, err, "invalid_grant")
		assert.Equal(t, 1, iss.count(), "the refresh token is dead, and nobody has logged in")
	})
}

// F2: what passes by itself is tried again.
func TestPassingErrorIsNotTakenForPermanent(t *testing.T) {
	dns := &url.Error{Op: "Post", URL: "https://issuer.test/token", Err: &net.OpError{
		Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "issuer.test", IsNotFound: true},
	}}
	for name, fail := range map[string]func() (reauth.Token, error){
		"500":             func() (reauth.Token, error) { return reauth.Token{}, errors.New("500 Internal Server Error") },
		"429":             func() (reauth.Token, error) { return reauth.Token{}, errors.New("429 Too Many Requests") },
		"DNS":             func() (reauth.Token, error) { return reauth.Token{}, dns },
		"empty 200":       func() (reauth.Token, error) { return reauth.Token{}, nil },
		"empty body":      func() (reauth.Token, error) { return reauth.Token{}, io.EOF },
		"Permanent(nil)":  func() (reauth.Token, error) { return reauth.Token{}, reauth.Permanent(nil) },
		"a token besides": func() (reauth.Token, error) { return reauth.Token{AccessToken: "X"}, errPaceDown },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
					if n == 1 {
						return fail()
					}
					return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
				}}
				cred := holding(t, iss, reauth.Token{RefreshToken: "R0"})
				_, err := cred.Token(t.Context())
				var failure *reauth.RefreshError
				require.ErrorAs(t, err, &failure)
				require.False(t, failure.Permanent())
				assert.Greater(t, time.Until(failure.RetryAt), time.Duration(0))
				assert.LessOrEqual(t, time.Until(failure.RetryAt), 375*time.Millisecond)

				time.Sleep(time.Until(failure.RetryAt) - 1)
				_, err = cred.Token(t.Context())
				assert.Same(t, failure, err, "the last answer")
				time.Sleep(time.Nanosecond)
				tok, err := cred.Token(t.Context())
				assert.NoError(t, err, "RetryAt is kept")
				assert.Equal(t, "T2", tok.AccessToken)
			})
		})
	}
}

type paceRetryAfter struct{ d time.Duration }

func (e *paceRetryAfter) Error() string             { return "429 Too Many Requests" }
func (e *paceRetryAfter) RetryAfter() time.Duration { return e.d }

// F2: an issuer that says when to come back is not asked before.
func TestRetryAfterOfARefreshIsNotIgnored(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want time.Duration // zero: the default Pace
	}{
		{"seconds", &paceRetryAfter{7 * time.Second}, 7 * time.Second},
		{"wrapped", fmt.Errorf("token endpoint: %w", &paceRetryAfter{7 * time.Second}), 7 * time.Second},
		{"shorter than the pace", &paceRetryAfter{time.Millisecond}, time.Millisecond},
		{"two hours", &paceRetryAfter{2 * time.Hour}, 2 * time.Hour},
		{"292 years", &paceRetryAfter{math.MaxInt64}, 24 * time.Hour},
		{"zero", &paceRetryAfter{0}, 0},
		{"negative", &paceRetryAfter{-time.Hour}, 0},
		{"most negative", &paceRetryAfter{math.MinInt64}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
					if n == 1 {
						return reauth.Token{}, tt.err
					}
					return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
				}}
				var sends atomic.Int32
				rt := &reauth.Transport{
					Base:       paceServer(&sends, func(_, tok string) bool { return tok != "T0" }),
					Credential: holding(t, iss, reauth.Token{AccessToken: "T0"}), RetryWait: -1, Logger: discard,
				}
				resp := get(t, rt, "https://api.test/")
				require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				o, _ := reauth.OutcomeOf(resp)
				var failure *reauth.RefreshError
				require.ErrorAs(t, o.Err, &failure)
				wait := time.Until(failure.RetryAt)
				if tt.want == 0 {
					assert.InDelta(t, 250*time.Millisecond, wait, float64(125*time.Millisecond))
				} else {
					assert.Equal(t, tt.want, wait)
				}
				time.Sleep(wait - 1)
				assert.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
				assert.Equal(t, 1, iss.count())
				time.Sleep(time.Nanosecond)
				assert.Equal(t, http.StatusOK, paceGet(t, rt, "/"))
			})
		})
	}
}

// F2: neither a rejection nor a success of the old token makes the issuer's wait
// shorter.
func TestRetryAfterOfARefreshAheadIsNotCutShort(t *testing.T) {
	for _, proven := range []bool{true, false} {
		t.Run(fmt.Sprint("proven before ", proven), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iss := &paceIssuer{do: func(int, reauth.Stale) (reauth.Token, error) {
					return reauth.Token{}, &paceRetryAfter{time.Minute}
				}}
				var revoked atomic.Bool
				rt := &reauth.Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					time.Sleep(50 * time.Millisecond) // the refresh fails meanwhile
					if revoked.Load() {
						return answer(req, http.StatusUnauthorized, ""), nil
					}
					return answer(req, http.StatusOK, "fine"), nil
				}), Credential: holding(t, iss, reauth.Token{AccessToken: "T0", Expiry: time.Now().Add(10 * time.Minute)}), Logger: discard}
				if proven {
					require.Equal(t, http.StatusOK, paceGet(t, rt, "/"))
				}
				time.Sleep(8 * time.Minute)
				require.Equal(t, http.StatusOK, paceGet(t, rt, "/"))
				require.Equal(t, 1, iss.count())
				revoked.Store(true)
				for range 100 {
					require.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
					time.Sleep(450 * time.Millisecond)
				}
				assert.Equal(t, 1, iss.count())
			})
		})
	}
}

// F2, bad input: an error of a nil pointer. It runs in a process of its own, as
// what it guards against ends the process.
func TestErrorThatPanicsInRetryAfterDoesNotEndTheProcess(t *testing.T) {
	if os.Getenv("REAUTH_TEST_PANIC") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		cmd.Env = append(os.Environ(), "REAUTH_TEST_PANIC=1", "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		if len(out) > 1000 {
			out = out[:1000]
		}
		assert.NoError(t, err, "%s", out)
		return
	}
	synctest.Test(t, func(t *testing.T) {
		var none *paceRetryAfter
		cred := &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, none
		})}
		_, err := cred.Token(t.Context())
		var failure *reauth.RefreshError
		require.ErrorAs(t, err, &failure)
		assert.InDelta(t, 250*time.Millisecond, time.Until(failure.RetryAt), float64(125*time.Millisecond))
		assert.NoError(t, cred.Close(t.Context()))
	})
}

// Rule 4, bad input: a Pace of the caller's own is obeyed, within reason.
func TestOddPaceNeitherHammersNorHangs(t *testing.T) {
	for _, tt := range []struct {
		name     string
		pace     func(int) time.Duration
		min, max time.Duration
	}{
		{"its own", func(n int) time.Duration { return time.Duration(n) * 3 * time.Second }, 3 * time.Second, 3 * time.Second},
		{"zero", func(int) time.Duration { return 0 }, 0, 0},
		{"negative", func(int) time.Duration { return -time.Hour }, 0, 0},
		{"most negative", func(int) time.Duration { return math.MinInt64 }, 0, 0},
		{"huge", func(int) time.Duration { return math.MaxInt64 }, 24 * time.Hour, 24 * time.Hour},
		{"panicking", func(int) time.Duration { panic("pace") }, 125 * time.Millisecond, 375 * time.Millisecond},
		{"nil", nil, 125 * time.Millisecond, 375 * time.Millisecond},
	} {
		for name, refused := range map[string]bool{"failed": false, "refused": true} {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
						if n == 1 && !refused {
							return reauth.Token{}, errPaceDown
						}
						return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
					}}
					cred := holding(t, iss, reauth.Token{AccessToken: "T0"})
					cred.Pace = tt.pace
					var sends atomic.Int32
					rt := &reauth.Transport{
						Base:       paceServer(&sends, func(_, tok string) bool { return tok == "T2" }),
						Credential: cred, RetryWait: -1, Logger: discard,
					}
					require.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
					_, err := cred.Peek()
					var failure *reauth.RefreshError
					require.ErrorAs(t, err, &failure)
					require.False(t, failure.Permanent())
					wait := time.Until(failure.RetryAt)
					assert.GreaterOrEqual(t, wait, tt.min)
					assert.LessOrEqual(t, wait, tt.max)
					if wait > 0 {
						time.Sleep(wait - 1)
						assert.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
						assert.Equal(t, 1, iss.count())
						time.Sleep(time.Nanosecond)
					}
					assert.Equal(t, http.StatusOK, paceGet(t, rt, "/"))
				})
			})
		}
	}
}

// Rule 3 and 4: Pace is a hook, and no lock is held while it runs.
func TestPaceThatLooksAtTheCredentialDoesNotDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) { return paceByTurns(n) }}
		cred := holding(t, iss, reauth.Token{AccessToken: "T0"})
		cred.Pace = func(int) time.Duration {
			_, _ = cred.Peek()
			return time.Second
		}
		var sends atomic.Int32
		rt := &reauth.Transport{Base: paceServer(&sends, func(string, string) bool { return false }), Credential: cred, Logger: discard}
		for range 3 {
			assert.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
			time.Sleep(2 * time.Second)
		}
		assert.Equal(t, 3, iss.count())
	})
}

// Rule 4: within the pause, whoever comes is told what happened and when it
// will be tried again; and nothing happens when nobody comes.
func TestNobodyWaitsInAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &paceLog{wait: 10 * time.Second}
		iss := &paceIssuer{}
		cred := holding(t, iss, reauth.Token{AccessToken: "T0"})
		cred.Pace = log.pace
		var sends atomic.Int32
		rt := &reauth.Transport{Base: paceServer(&sends, func(string, string) bool { return false }), Credential: cred, RetryWait: -1, Logger: discard}
		require.Equal(t, http.StatusUnauthorized, paceGet(t, rt, "/"))
		refused := time.Now()
		for range 9 {
			time.Sleep(time.Second)
			at, before := time.Now(), sends.Load()
			resp := get(t, rt, "https://api.test/")
			assert.Zero(t, time.Since(at))
			assert.EqualValues(t, 1, sends.Load()-before, "a request that cannot be cured is sent once")
			o, _ := reauth.OutcomeOf(resp)
			var failure *reauth.RefreshError
			require.ErrorAs(t, o.Err, &failure)
			assert.Equal(t, refused.Add(10*time.Second).UTC(), failure.RetryAt.UTC())
			assert.ErrorContains(t, failure, "rejected too")
		}
		time.Sleep(time.Hour)
		assert.Equal(t, 1, iss.count(), "nothing runs unasked")
		assert.Equal(t, []int{1}, log.steps())
	})
}

// F10: whatever is wrong, with everything at random, and never the same.
func TestNothingThatGoesWrongCostsMoreThanThePaceAllows(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				r := rand.New(rand.NewPCG(seed, 29))
				chance := func(n int) int {
					mu.Lock()
					defer mu.Unlock()
					return r.IntN(n)
				}
				// No token is ever proven: the API refuses all.
				iss := &paceIssuer{do: func(n int, stale reauth.Stale) (reauth.Token, error) {
					time.Sleep(time.Duration(chance(50)) * time.Millisecond)
					fresh := reauth.Token{AccessToken: fmt.Sprint("T", n)}
					switch chance(9) {
					case 0:
						return reauth.Token{}, errPaceDown
					case 1:
						return reauth.Token{}, nil
					case 2:
						return stale.Token, nil
					case 3:
						fresh.Expiry = time.Now().Add(-time.Hour)
					case 4:
						fresh.Expiry = time.Now().Add(time.Duration(30+chance(3600)) * time.Second)
					case 5:
						panic("refresher")
					case 6:
						return reauth.Token{AccessToken: "T1\n"}, nil
					}
					return fresh, nil
				}}
				var most atomic.Int32
				rt := &reauth.Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					n := req.Context().Value(paceKey{}).(*atomic.Int32)
					if sent := n.Add(1); sent > most.Load() {
						most.Store(sent)
					}
					time.Sleep(time.Duration(chance(100)) * time.Millisecond)
					switch chance(8) {
					case 0:
						return nil, errors.New("connection reset")
					case 1:
						return answer(req, http.StatusInternalServerError, ""), nil
					case 2:
						return answer(req, http.StatusUnauthorized, "", "Retry-After", fmt.Sprint(chance(9))), nil
					}
					return answer(req, http.StatusUnauthorized, ""), nil
				}), Credential: holding(t, iss, reauth.Token{AccessToken: "T0"}), Logger: discard}

				begin := time.Now()
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						for time.Since(begin) < 2*time.Minute {
							ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+chance(5000))*time.Millisecond)
							req, err := http.NewRequestWithContext(context.WithValue(ctx, paceKey{}, new(atomic.Int32)), http.MethodPost, "https://api.test/", strings.NewReader("x"))
							if assert.NoError(t, err) {
								if resp, err := rt.RoundTrip(req); err == nil {
									_ = resp.Body.Close()
								}
							}
							cancel()
							time.Sleep(time.Duration(chance(1500)) * time.Millisecond)
						}
					})
				}
				wg.Wait()
				assert.LessOrEqual(t, most.Load(), int32(2), "never more than two sends")
				assert.Greater(t, iss.count(), 5)
				assert.LessOrEqual(t, paceBusiest(iss.times(), time.Minute), 1+paceFirstMinute)
			})
		})
	}
}

type paceKey struct{}
