package reauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// A clockWorld is an issuer and an API that go by a clock of their own, which is
// ahead of ours by skew: it knows when a token ends, and says so as a moment of
// that clock. It sends Date headers.
type clockWorld struct {
	skew   time.Duration
	life   time.Duration
	noDate bool
	slow   time.Duration // how long a refresh takes

	mu      sync.Mutex
	ends    map[string]time.Time // by our clock
	asked   []time.Time
	refused int
}

func (w *clockWorld) Refresh(context.Context, reauth.Stale) (reauth.Token, error) {
	w.mu.Lock()
	w.asked = append(w.asked, time.Now())
	tok := reauth.Token{AccessToken: fmt.Sprint("T", len(w.asked))}
	end := time.Now().Add(w.life)
	if w.ends == nil {
		w.ends = map[string]time.Time{}
	}
	w.ends[tok.AccessToken] = end
	w.mu.Unlock()
	tok.Expiry = time.Unix(end.Add(w.skew).Unix(), 0) // absolute, as in a JWT: no monotonic reading
	time.Sleep(w.slow)
	return tok, nil
}

func (w *clockWorld) RoundTrip(req *http.Request) (*http.Response, error) {
	var header []string
	if !w.noDate {
		header = []string{"Date", time.Now().Add(w.skew).UTC().Format(http.TimeFormat)}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !time.Now().Before(w.ends[strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")]) {
		w.refused++
		return answer(req, http.StatusUnauthorized, "", header...), nil
	}
	return answer(req, http.StatusOK, "fine", header...), nil
}

// kill revokes all tokens.
func (w *clockWorld) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = nil
}

func (w *clockWorld) tally() (refreshes, refused int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asked), w.refused
}

// clockBase accepts every token but none.
func clockBase(req *http.Request) (*http.Response, error) {
	if req.Header.Get("Authorization") == "" {
		return answer(req, http.StatusUnauthorized, ""), nil
	}
	return answer(req, http.StatusOK, "fine"), nil
}

// clockIssuer returns a Refresher whose tokens live so long, and a count of them.
func clockIssuer(life time.Duration) (reauth.Refresher, *atomic.Int32) {
	n := new(atomic.Int32)
	return reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{AccessToken: fmt.Sprint("T", n.Add(1)), Expiry: time.Now().Add(life)}, nil
	}), n
}

// F3: the window is at most half the lifetime.
func TestShortLivedTokenIsNotRefreshedOnEachRequest(t *testing.T) {
	for _, life := range []time.Duration{2 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute} {
		for _, ahead := range []time.Duration{0, time.Hour, math.MaxInt64} {
			t.Run(fmt.Sprint(life, " with RefreshBefore ", ahead), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					iss, n := clockIssuer(life)
					rt := &reauth.Transport{
						Base:       roundTripFunc(clockBase),
						Credential: &reauth.Credential{Refresher: iss, RefreshBefore: ahead, Logger: discard}, Logger: discard,
					}
					const lives, requests = 20, 1000
					for range requests {
						at := time.Now()
						require.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode)
						require.Zero(t, time.Since(at))
						time.Sleep(life * lives / requests)
					}
					assert.GreaterOrEqual(t, int(n.Load()), lives)
					assert.LessOrEqual(t, int(n.Load()), 2*lives+1)
				})
			})
		}
	}
}

// F3: the lifetime is counted from before the request for the token.
func TestSlowRefreshDoesNotMakeTheWindowShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 { // it is jittered
			begin := time.Now()
			w := &clockWorld{life: 100 * time.Second, slow: 40 * time.Second}
			cred := &reauth.Credential{Refresher: w, RefreshBefore: time.Hour, RefreshTimeout: -1, Logger: discard}
			for time.Since(begin) < 76*time.Second {
				_, err := cred.Token(t.Context())
				require.NoError(t, err)
				time.Sleep(time.Second)
			}
			n, _ := w.tally()
			assert.Equal(t, 2, n, "between 50 and 75 s; counted from its arrival it were up to 85 s")
			assert.NoError(t, cred.Close(t.Context()))
		}
	})
}

// F3a: kubelets and metadata servers have no other token until shortly before
// the end.
func TestSourceWithoutANewerTokenIsNotAskedOnEachRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		end := begin.Add(time.Hour)
		log := &journal{}
		iss := &paceIssuer{do: func(int, reauth.Stale) (reauth.Token, error) {
			if time.Since(begin) >= time.Hour {
				return reauth.Token{AccessToken: "T2", Expiry: end.Add(time.Hour)}, nil
			}
			return reauth.Token{AccessToken: "T1", Expiry: end}, nil
		}}
		var failures atomic.Int32
		cred := &reauth.Credential{Refresher: iss, Logger: log.logger(), OnRefresh: func(r reauth.Refresh) {
			if r.Err != nil {
				failures.Add(1)
			}
		}}
		rt := &reauth.Transport{Base: roundTripFunc(clockBase), Credential: cred, Logger: discard}
		require.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode)
		time.Sleep(54 * time.Minute)
		for time.Since(begin) < 62*time.Minute {
			require.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode)
			_, err := cred.Peek()
			require.NoError(t, err, "it is no failure")
			if last := time.Since(begin) - 59*time.Minute; last >= 0 && last < time.Minute {
				time.Sleep(5 * time.Millisecond)
			} else {
				time.Sleep(100 * time.Millisecond)
			}
		}
		assert.Greater(t, iss.count(), 3, "it is asked again")
		assert.LessOrEqual(t, paceBusiest(iss.times(), time.Minute), paceFirstMinute+1, "paced")
		assert.LessOrEqual(t, iss.since(begin.Add(59*time.Minute)), paceLaterMinute+2, "more and more so, though less and less time is left")
		assert.Zero(t, failures.Load())
		assert.NotContains(t, log.text(), `"WARN"`)
		tok, err := cred.Token(t.Context())
		assert.NoError(t, err)
		assert.Equal(t, "T2", tok.AccessToken)
	})
}

// F4, as far as an Expiry goes.
func TestOddExpiryNeverMeansARefreshForEachRequest(t *testing.T) {
	never := 365 * 24 * time.Hour
	for _, tt := range []struct {
		name   string
		expiry time.Time
		lasts  time.Duration
	}{
		{"none", time.Time{}, never},
		{"the year 9999", time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), never},
		{"1e18 seconds", time.Unix(1e18, 0), never},
		{"as much as a Duration holds", time.Now().Add(math.MaxInt64), never},
		// Past when it comes: the server accepts it, so it is no matter.
		{"1970", time.Unix(0, 0), never},
		{"1969", time.Unix(-1, 0), never},
		{"the year 1", time.Time{}.Add(1), never},
		{"before the year 1", time.Unix(-1e17, 0), never},
		{"seconds that overflow", time.Unix(math.MaxInt64, 0), never},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				rt := &reauth.Transport{Base: roundTripFunc(clockBase), Logger: discard, Credential: &reauth.Credential{
					Logger: discard,
					Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
						n++
						return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: tt.expiry}, nil
					}),
				}}
				for range 100 {
					require.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode)
					synctest.Wait()
					time.Sleep(tt.lasts / 100)
				}
				assert.Equal(t, 1, n)
			})
		})
	}
}

// F4: an Expiry that Set brings.
func TestTokenThatWasSetExpiredIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, expiry := range []time.Time{time.Now(), time.Now().Add(-time.Hour), time.Unix(1, 0)} {
			iss, n := clockIssuer(time.Hour)
			tok, err := holding(t, iss, reauth.Token{AccessToken: "T0", Expiry: expiry}).Token(t.Context())
			assert.NoError(t, err)
			assert.Equal(t, "T1", tok.AccessToken)
			assert.EqualValues(t, 1, n.Load())
		}
	})
}

// F5: a rollout, and an hour later.
func TestProcessesStartedTogetherDoNotRefreshTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var mu sync.Mutex
		bySecond := map[time.Duration]int{}
		all := make([]*reauth.Credential, 500)
		for i := range all {
			first := true
			all[i] = &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				mu.Lock()
				defer mu.Unlock()
				if !first {
					bySecond[time.Since(begin).Truncate(time.Second)]++
				}
				first = false
				return reauth.Token{AccessToken: "T" + time.Since(begin).String(), Expiry: time.Now().Add(time.Hour)}, nil
			})}
			_, err := all[i].Token(t.Context())
			require.NoError(t, err)
		}
		time.Sleep(55*time.Minute - time.Second)
		for time.Since(begin) < 58*time.Minute {
			for _, c := range all {
				_, err := c.Token(t.Context())
				require.NoError(t, err)
			}
			time.Sleep(time.Second)
		}
		mu.Lock()
		defer mu.Unlock()
		sum := 0
		for at, n := range bySecond {
			sum += n
			assert.LessOrEqual(t, n, 20, "at %v", at) // 3.3 on average
			assert.GreaterOrEqual(t, at, 55*time.Minute)
			assert.LessOrEqual(t, at, 57*time.Minute+31*time.Second)
		}
		assert.Equal(t, 500, sum)
		assert.Greater(t, len(bySecond), 100)
	})
}

// F6a: all tokens look expired to a clock that is fast, the first one too. It is
// sent, and what comes back tells.
func TestFastClockDoesNotKeepTheFirstTokenFromBeingSent(t *testing.T) {
	for _, dead := range []bool{false, true} {
		t.Run(fmt.Sprint("dead ", dead), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &clockWorld{skew: -2 * time.Hour, life: time.Hour}
				cred := &reauth.Credential{Refresher: w, Logger: discard}
				rt := &reauth.Transport{Base: w, Credential: cred, Logger: discard}
				_, err := cred.Token(t.Context())
				require.NoError(t, err)
				want := 1
				if dead {
					w.kill() // and the 401 has a Date
					want = 2
				}
				for range 50 {
					require.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode)
					time.Sleep(time.Minute)
				}
				n, refused := w.tally()
				assert.Equal(t, want, n)
				assert.Equal(t, want-1, refused)
			})
		})
	}
}

// F6a: a token that really has expired is sent once, not for ever.
func TestReallyExpiredFirstTokenIsNotSentAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &clockWorld{life: -time.Hour}
		rt := &reauth.Transport{Base: w, Credential: &reauth.Credential{Refresher: w, Logger: discard}, Logger: discard}
		resp := get(t, rt, "https://api.test/")
		assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		n, refused := w.tally()
		assert.Equal(t, 2, n)
		assert.Equal(t, 1, refused, "its replacement has expired too, and is not sent")
		o, _ := reauth.OutcomeOf(resp)
		assert.ErrorContains(t, o.Err, "expired")
	})
}

// F7: with our clock two hours slow, tokens seem to live longer than they do.
func TestSlowClockCostsOne401AndNotOnePerToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &clockWorld{skew: 2 * time.Hour, life: time.Hour}
		rt := &reauth.Transport{Base: w, Credential: &reauth.Credential{Refresher: w, Logger: discard}, Logger: discard}
		for range 600 { // ten hours
			require.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode)
			time.Sleep(time.Minute)
		}
		n, refused := w.tally()
		assert.Equal(t, 1, refused, "its Date says by how much the clock is wrong")
		assert.LessOrEqual(t, n, 12)
		assert.GreaterOrEqual(t, n, 10)
	})
}

// F7: without a Date it is one 401 for each token, and each is cured.
func TestSlowClockWithoutADateFailsNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &clockWorld{skew: 2 * time.Hour, life: time.Hour, noDate: true}
		rt := &reauth.Transport{Base: w, Credential: &reauth.Credential{Refresher: w, Logger: discard}, Logger: discard}
		for range 600 {
			require.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode)
			time.Sleep(time.Minute)
		}
		n, _ := w.tally()
		assert.LessOrEqual(t, n, 11)
	})
}

// F7: with our clock two hours fast, every token seems to have expired.
func TestFastClockDoesNotCostARefreshPerRequest(t *testing.T) {
	for _, skew := range []time.Duration{-2 * time.Hour, -61 * time.Minute, -59 * time.Minute, -30 * time.Minute} {
		t.Run(skew.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &clockWorld{skew: skew, life: time.Hour}
				rt := &reauth.Transport{Base: w, Credential: &reauth.Credential{Refresher: w, Logger: discard}, Logger: discard}
				for range 600 {
					require.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode)
					time.Sleep(time.Minute)
				}
				n, refused := w.tally()
				assert.Zero(t, refused)
				if skew < -w.life {
					assert.LessOrEqual(t, n, 12, "the server's Date says by how much the clock is wrong")
				} else {
					// They are valid, though for less time than they could be.
					assert.LessOrEqual(t, n, 1+int(2*10*time.Hour/max(w.life+skew, time.Minute)))
				}
			})
		})
	}
}

// F7: a server's Date that is wrong, or foul, makes no difference worth telling.
func TestFoulDateDoesNotCostARefreshPerRequest(t *testing.T) {
	for _, date := range []string{
		"Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "yesterday", "",
	} {
		t.Run(date, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iss, n := clockIssuer(time.Hour)
				rt := &reauth.Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if strings.HasSuffix(req.Header.Get("Authorization"), " T0") {
						return answer(req, http.StatusUnauthorized, "", "Date", date), nil
					}
					return answer(req, http.StatusOK, "fine", "Date", date), nil
				}), Credential: holding(t, reauth.RefresherFunc(func(ctx context.Context, s reauth.Stale) (reauth.Token, error) {
					tok, err := iss.Refresh(ctx, s)
					tok.Expiry = tok.Expiry.Round(0)
					return tok, err
				}), reauth.Token{AccessToken: "T0"}), Logger: discard}
				for range 300 {
					require.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode)
					time.Sleep(time.Minute)
				}
				assert.LessOrEqual(t, n.Load(), int32(6))
			})
		})
	}
}

// F8: the retry takes the newest token there is.
func TestRetryDoesNotCarryATokenThatExpiredMeanwhile(t *testing.T) {
	for _, tt := range []struct {
		name      string
		life      time.Duration // of T1
		meanwhile func(*testing.T, *reauth.Credential)
		want      string
	}{
		{"it lives on", time.Hour, nil, "T1"},
		{"it expires during the wait", 2 * time.Second, nil, "T2"},
		{"another is set during the wait", time.Hour, func(t *testing.T, c *reauth.Credential) {
			assert.NoError(t, c.Set(t.Context(), reauth.Token{AccessToken: "T9"}))
		}, "T9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent []string
				iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
					return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: time.Now().Add(tt.life)}, nil
				}}
				cred := holding(t, iss, reauth.Token{AccessToken: "T0"})
				rt := &reauth.Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					tok := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
					sent = append(sent, tok)
					if tok == "T0" {
						return answer(req, http.StatusUnauthorized, "", "Retry-After", "4"), nil
					}
					return answer(req, http.StatusOK, "fine"), nil
				}), Credential: cred, Logger: discard}
				if tt.meanwhile != nil {
					time.AfterFunc(time.Second, func() { tt.meanwhile(t, cred) })
				}
				assert.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode)
				assert.Equal(t, []string{"T0", tt.want}, sent)
			})
		})
	}
}

// F8: a token that expires between attaching and arriving, while others have the
// next one already.
func TestTokenThatExpiresOnTheWayCostsNoSecondRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &clockWorld{life: time.Minute}
		cred := &reauth.Credential{Refresher: w, RefreshBefore: -1, Logger: discard}
		rt := &reauth.Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			time.Sleep(2 * time.Second)
			return w.RoundTrip(req)
		}), Credential: cred, Logger: discard}
		require.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode)
		time.Sleep(57 * time.Second)
		var wg sync.WaitGroup
		for range 20 { // some before the end, some after
			wg.Go(func() { assert.Equal(t, http.StatusOK, get(t, rt, "https://api.test/").StatusCode) })
			time.Sleep(100 * time.Millisecond)
		}
		wg.Wait()
		n, refused := w.tally()
		assert.Equal(t, 2, n)
		assert.Greater(t, refused, 5)
	})
}

// clockRefused returns a Transport over a Base that answers T0 with a 401 and
// these headers, and the count of its sends. A refresh takes so long.
func clockRefused(t *testing.T, refresh, wait time.Duration, header ...string) (*reauth.Transport, *atomic.Int32) {
	t.Helper()
	n := new(atomic.Int32)
	return &reauth.Transport{
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			n.Add(1)
			if strings.HasSuffix(req.Header.Get("Authorization"), " T0") {
				return answer(req, http.StatusUnauthorized, "dead", header...), nil
			}
			return answer(req, http.StatusOK, "fine"), nil
		}),
		Credential: holding(t, reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			time.Sleep(refresh)
			return reauth.Token{AccessToken: "T1"}, nil
		}), reauth.Token{AccessToken: "T0"}),
		RetryWait: wait,
		Logger:    discard,
	}, n
}

// A clockSend is one request, and what became of it.
type clockSend struct {
	status int
	body   string
	err    error
	took   time.Duration
	reauth.Outcome
}

func clockDo(ctx context.Context, t *testing.T, rt http.RoundTripper) clockSend {
	t.Helper()
	ctx, outcome := reauth.WithOutcome(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.test/", nil)
	require.NoError(t, err)
	at := time.Now()
	resp, err := rt.RoundTrip(req)
	s := clockSend{err: err, took: time.Since(at), Outcome: outcome()}
	if err == nil {
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		s.status, s.body = resp.StatusCode, string(b)
	}
	return s
}

// clockDate is a date so long after the start of every bubble.
func clockDate(d time.Duration) string {
	return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d).Format(http.TimeFormat)
}

// F9: Retry-After in all its forms.
func TestRetryAfterIsNeitherIgnoredNorObeyedBeyondReason(t *testing.T) {
	const low, high = 50 * time.Millisecond, 150 * time.Millisecond // RetryWait's default
	after := func(v string) []string { return []string{"Retry-After", v} }
	for _, tt := range []struct {
		name     string
		header   []string
		refresh  time.Duration
		min, max time.Duration
		givesUp  bool
	}{
		{name: "none", min: low, max: high},
		{name: "0", header: after("0")},
		{name: "1", header: after("1"), min: time.Second, max: time.Second},
		{name: "blanks around", header: after(" 2 "), min: 2 * time.Second, max: 2 * time.Second},
		{name: "5", header: after("5"), min: 5 * time.Second, max: 5 * time.Second},
		{name: "counted from the 401", header: after("5"), refresh: 3 * time.Second, min: 5 * time.Second, max: 5 * time.Second},
		{name: "over before the refresh was", header: after("2"), refresh: 3 * time.Second, min: 3 * time.Second, max: 3 * time.Second},
		{name: "6", header: after("6"), givesUp: true},
		{name: "6 and an issuer that takes its time", header: after("6"), refresh: 10 * time.Second, givesUp: true},
		{name: "10^18", header: after("1000000000000000000"), givesUp: true},
		{name: "10^40", header: after("1" + strings.Repeat("0", 40)), givesUp: true},
		{name: "2^64", header: after("18446744073709551616"), givesUp: true},
		{name: "negative", header: after("-5"), min: low, max: high},
		{name: "garbage", header: after("soon"), min: low, max: high},
		{name: "a fraction", header: after("1.5"), min: low, max: high},
		{name: "empty", header: after(""), min: low, max: high},
		{name: "a date", header: after(clockDate(3 * time.Second)), min: 3 * time.Second, max: 3 * time.Second},
		{name: "a date by a clock that is fast", header: append(after(clockDate(2*time.Hour+3*time.Second)), "Date", clockDate(2*time.Hour)), min: 3 * time.Second, max: 3 * time.Second},
		{name: "a date by a clock that is slow", header: append(after(clockDate(-2*time.Hour+3*time.Second)), "Date", clockDate(-2*time.Hour)), min: 3 * time.Second, max: 3 * time.Second},
		{name: "a date that is over", header: after(clockDate(-time.Minute))},
		{name: "a date in ten seconds", header: after(clockDate(10 * time.Second)), givesUp: true},
		{name: "a date of the year 9999", header: after("Fri, 31 Dec 9999 23:59:59 GMT"), givesUp: true},
		{name: "a date of the year 1", header: after("Mon, 01 Jan 0001 00:00:00 GMT")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt, sends := clockRefused(t, tt.refresh, 0, tt.header...)
				got := clockDo(t.Context(), t, rt)
				require.NoError(t, got.err)
				if !tt.givesUp {
					assert.Equal(t, http.StatusOK, got.status)
					assert.GreaterOrEqual(t, got.took, tt.min)
					assert.LessOrEqual(t, got.took, tt.max)
					assert.EqualValues(t, 2, sends.Load())
					return
				}
				assert.Equal(t, http.StatusUnauthorized, got.status)
				assert.Equal(t, "dead", got.body)
				assert.Zero(t, got.took, "the 401 is returned now: no refresh can make this request's retry come in time")
				assert.EqualValues(t, 1, sends.Load())
				assert.NotEmpty(t, got.NoRetry)
				time.Sleep(tt.refresh)
				synctest.Wait()
				next := clockDo(t.Context(), t, rt)
				assert.Equal(t, http.StatusOK, next.status, "the next request has the fresh token")
				assert.Zero(t, next.took)
			})
		})
	}
}

// F9: a deadline nearer than the wait.
func TestRequestIsNotHeldUntilADeadlineItCannotMeet(t *testing.T) {
	for _, tt := range []struct {
		name     string
		header   []string
		wait     time.Duration
		refresh  time.Duration
		deadline time.Duration
		ok       bool
		took     time.Duration
	}{
		{name: "Retry-After", header: []string{"Retry-After", "3"}, deadline: 2 * time.Second},
		{name: "Retry-After, just met", header: []string{"Retry-After", "3"}, deadline: 3*time.Second + 1, ok: true, took: 3 * time.Second},
		{name: "the default wait", deadline: 49 * time.Millisecond},
		{name: "RetryWait", wait: time.Hour, deadline: 29 * time.Minute},
		{name: "a huge RetryWait", wait: math.MaxInt64, deadline: time.Hour},
		{name: "no wait", wait: -1, deadline: 1, ok: true},
		{name: "Retry-After, and a slow issuer", header: []string{"Retry-After", "3"}, refresh: 10 * time.Second, deadline: 2 * time.Second},
		{name: "Retry-After, and a refresh that leaves too little", header: []string{"Retry-After", "3"}, refresh: time.Second, deadline: 2 * time.Second},
		{name: "what the refresh leaves is too little", wait: 2 * time.Second, refresh: 2 * time.Second, deadline: 3 * time.Second, took: 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt, sends := clockRefused(t, tt.refresh, tt.wait, tt.header...)
				ctx, cancel := context.WithTimeout(t.Context(), tt.deadline)
				defer cancel()
				got := clockDo(ctx, t, rt)
				assert.NoError(t, got.err, "a response in hand is returned")
				assert.Equal(t, tt.took, got.took)
				if tt.ok {
					assert.Equal(t, http.StatusOK, got.status)
				} else {
					assert.Equal(t, http.StatusUnauthorized, got.status)
					assert.Equal(t, "dead", got.body)
					assert.Contains(t, got.NoRetry, "deadline")
					assert.EqualValues(t, 1, sends.Load())
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// F9: the context ends any wait at once.
func TestCancelledRequestIsNotHeld(t *testing.T) {
	gone := errors.New("the user has gone")
	for name, tt := range map[string]struct {
		header  []string
		wait    time.Duration
		refresh time.Duration
	}{
		"in Retry-After":   {header: []string{"Retry-After", "5"}},
		"in RetryWait":     {wait: time.Hour},
		"in a huge wait":   {wait: math.MaxInt64},
		"in the refresh":   {refresh: 20 * time.Second},
		"before Base ends": {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt, sends := clockRefused(t, tt.refresh, tt.wait, tt.header...)
				ctx, cancel := context.WithCancelCause(t.Context())
				var want time.Duration
				if name == "before Base ends" {
					cancel(gone)
				} else {
					want = time.Second
					time.AfterFunc(want, func() { cancel(gone) })
				}
				got := clockDo(ctx, t, rt)
				assert.Equal(t, gone, got.err, "the cause, unwrapped")
				assert.Equal(t, want, got.took)
				assert.EqualValues(t, 1, sends.Load())
				time.Sleep(time.Minute)
			})
		})
	}
}

// RetryWait: default, negative, and its jitter.
func TestRetriesOfACrowdDoNotComeAtOnce(t *testing.T) {
	for _, tt := range []struct {
		wait, min, max time.Duration
	}{
		{0, 50 * time.Millisecond, 150 * time.Millisecond},
		{10 * time.Second, 5 * time.Second, 15 * time.Second},
		{-1, 0, 0},
		{math.MinInt64, 0, 0},
		{math.MaxInt64, 12 * time.Hour, 36 * time.Hour},
	} {
		t.Run(tt.wait.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt, _ := clockRefused(t, time.Second, tt.wait)
				var mu sync.Mutex
				waits := map[time.Duration]int{}
				var wg sync.WaitGroup
				for range 100 {
					wg.Go(func() {
						got := clockDo(t.Context(), t, rt)
						assert.Equal(t, http.StatusOK, got.status)
						wait := got.took - time.Second
						assert.GreaterOrEqual(t, wait, tt.min)
						assert.LessOrEqual(t, wait, tt.max)
						mu.Lock()
						defer mu.Unlock()
						waits[wait]++
					})
				}
				wg.Wait()
				if tt.max > 0 {
					assert.Greater(t, len(waits), 50)
				}
			})
		})
	}
}

// RefreshBefore: default, negative, huge.
func TestRefreshIsNeitherTooEarlyNorTooLate(t *testing.T) {
	for _, tt := range []struct {
		ahead, life, min, max time.Duration
	}{
		{0, time.Hour, 55 * time.Minute, 57*time.Minute + 30*time.Second},
		{20 * time.Minute, time.Hour, 40 * time.Minute, 50 * time.Minute},
		{math.MaxInt64, time.Hour, 30 * time.Minute, 45 * time.Minute},
		{0, 4 * time.Minute, 2 * time.Minute, 3 * time.Minute},
		{-1, time.Hour, time.Hour, time.Hour},
		{math.MinInt64, time.Hour, time.Hour, time.Hour},
		{math.MaxInt64, math.MaxInt64, 50 * 365 * 24 * time.Hour, 75 * 365 * 24 * time.Hour},
	} {
		t.Run(fmt.Sprint(tt.ahead, " of ", tt.life), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				times := 20 // it is jittered
				if tt.life == math.MaxInt64 {
					times = 1 // fake time has no more centuries
				}
				for range times {
					iss := &paceIssuer{do: func(n int, _ reauth.Stale) (reauth.Token, error) {
						time.Sleep(time.Second)
						return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: time.Now().Add(tt.life - time.Second)}, nil
					}}
					cred := &reauth.Credential{Refresher: iss, RefreshBefore: tt.ahead, Logger: discard}
					begin := time.Now()
					ask := func(wait time.Duration, token string) {
						t.Helper()
						synctest.Wait()
						at := time.Now()
						tok, err := cred.Token(t.Context())
						require.NoError(t, err)
						require.Equal(t, wait, time.Since(at))
						require.Equal(t, token, tok.AccessToken)
						synctest.Wait()
					}
					ask(time.Second, "T1")
					time.Sleep(time.Until(begin.Add(tt.min - time.Nanosecond)))
					ask(0, "T1")
					assert.Equal(t, 1, iss.count(), "not too early")
					time.Sleep(time.Until(begin.Add(tt.max)))
					if tt.max == tt.life { // off: the request waits
						ask(time.Second, "T2")
					} else {
						ask(0, "T1")
						time.Sleep(time.Second)
						ask(0, "T2")
					}
					assert.Equal(t, 2, iss.count())
				}
			})
		})
	}
}

// RefreshTimeout: default, negative, huge.
func TestRefreshIsNotCutOffBeforeItsTimeout(t *testing.T) {
	for _, tt := range []struct {
		timeout, refresh, took time.Duration
		fails                  bool
	}{
		{0, 29 * time.Second, 29 * time.Second, false},
		{0, time.Minute, 30 * time.Second, true},
		{time.Second, time.Minute, time.Second, true},
		{-1, 48 * time.Hour, 48 * time.Hour, false},
		{math.MinInt64, 48 * time.Hour, 48 * time.Hour, false},
		{math.MaxInt64, 48 * time.Hour, 48 * time.Hour, false},
	} {
		t.Run(fmt.Sprint(tt.refresh, " with RefreshTimeout ", tt.timeout), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cred := &reauth.Credential{RefreshTimeout: tt.timeout, Logger: discard, Refresher: reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
					_, limited := ctx.Deadline()
					assert.Equal(t, tt.timeout >= 0, limited)
					select {
					case <-time.After(tt.refresh):
						return reauth.Token{AccessToken: "T1"}, nil
					case <-ctx.Done():
						return reauth.Token{}, ctx.Err()
					}
				})}
				at := time.Now()
				tok, err := cred.Token(t.Context())
				assert.Equal(t, tt.took, time.Since(at))
				if tt.fails {
					assert.ErrorIs(t, err, context.DeadlineExceeded)
				} else {
					assert.NoError(t, err)
					assert.Equal(t, "T1", tok.AccessToken)
				}
			})
		})
	}
}
