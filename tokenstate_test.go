package reauth_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
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

// The lifetime of a token.

func TestTokenRefreshedAheadOfExpiry(t *testing.T) {
	for _, tt := range []struct {
		before, life, min, max time.Duration
	}{
		{0, time.Hour, 55 * time.Minute, 57*time.Minute + 30*time.Second},
		{20 * time.Minute, time.Hour, 40 * time.Minute, 50 * time.Minute},
		{math.MaxInt64, time.Hour, 30 * time.Minute, 45 * time.Minute}, // at most half the lifetime
		{0, 4 * time.Minute, 2 * time.Minute, 3 * time.Minute},
		{-1, time.Hour, time.Hour, time.Hour},
		{math.MinInt64, time.Hour, time.Hour, time.Hour},
		{math.MaxInt64, math.MaxInt64, 50 * 365 * 24 * time.Hour, 75 * 365 * 24 * time.Hour},
		{0, 7 * time.Second, 6 * time.Second, 6 * time.Second}, // not before it is 5 s old
		{0, 5 * time.Second, 5 * time.Second, 5 * time.Second}, // its expiry comes first
	} {
		t.Run(fmt.Sprint(tt.before, " before the end of ", tt.life), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				times := 20 // it is randomized
				if tt.life == math.MaxInt64 {
					times = 1 // fake time has no more centuries
				}
				for range times {
					f := newFixture(t)
					f.cred.RefreshBefore = tt.before
					f.takes, f.life = time.Second, tt.life-time.Second
					begin := time.Now()
					ask := func(wait time.Duration, token string) {
						t.Helper()
						synctest.Wait()
						at := time.Now()
						tok, err := f.cred.Token(t.Context())
						require.NoError(t, err)
						require.Equal(t, wait, time.Since(at))
						require.Equal(t, token, tok.AccessToken)
						synctest.Wait()
					}
					ask(time.Second, "T1")
					time.Sleep(time.Until(begin.Add(tt.min - 1)))
					ask(0, "T1")
					assert.Equal(t, 1, f.refreshes(), "not earlier")
					time.Sleep(time.Until(begin.Add(tt.max)))
					if tt.max == tt.life { // the request waits
						ask(time.Second, "T2")
					} else {
						ask(0, "T1")
						time.Sleep(time.Second)
						ask(0, "T2")
					}
					assert.Equal(t, 2, f.refreshes())
				}
			})
		})
	}
}

func TestTokenRefreshedWhenTheIssuerWants(t *testing.T) {
	for name, tt := range map[string]struct {
		before, life, refreshIn, want time.Duration
	}{
		"earlier than we would":  {0, time.Hour, 30 * time.Minute, 30 * time.Minute},
		"later than we would":    {30 * time.Minute, time.Hour, 59 * time.Minute, 59 * time.Minute},
		"without an expiry":      {0, 0, 30 * time.Minute, 30 * time.Minute},
		"in no time":             {0, time.Hour, time.Nanosecond, 5 * time.Second},
		"after its expiry":       {0, time.Hour, 2 * time.Hour, time.Hour},
		"none ahead of expiry":   {-1, time.Hour, 30 * time.Minute, time.Hour},
		"none, nor is there one": {-1, 0, 30 * time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.cred.RefreshBefore = tt.before
				f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
					tok := reauth.Token{AccessToken: fmt.Sprint("T", n), RefreshAt: time.Now().Add(tt.refreshIn)}
					if tt.life > 0 {
						tok.Expiry = time.Now().Add(tt.life)
					}
					return tok, nil
				}
				require.Equal(t, http.StatusOK, f.get(apiURL).status)
				wait := tt.want
				if wait == 0 {
					wait = 24 * time.Hour
				}
				time.Sleep(wait - time.Nanosecond)
				require.Equal(t, http.StatusOK, f.get(apiURL).status)
				synctest.Wait()
				require.Equal(t, 1, f.refreshes())
				if tt.want == 0 {
					return
				}
				time.Sleep(time.Nanosecond)
				require.Equal(t, http.StatusOK, f.get(apiURL).status)
				synctest.Wait()
				assert.Equal(t, 2, f.refreshes())
			})
		})
	}
}

func TestTokenOfAShortLifeRefreshedTwiceInItAtMost(t *testing.T) {
	for _, life := range []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute} {
		for _, before := range []time.Duration{0, time.Hour, math.MaxInt64} {
			t.Run(fmt.Sprint(life, " with RefreshBefore ", before), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.cred.RefreshBefore, f.life = before, life
					const lives, requests = 20, 1000
					for range requests {
						r := f.get(atA)
						require.Equal(t, http.StatusOK, r.status)
						require.Zero(t, r.took)
						time.Sleep(life * lives / requests)
					}
					assert.GreaterOrEqual(t, f.refreshes(), lives)
					assert.LessOrEqual(t, f.refreshes(), 2*lives+1)
				})
			})
		}
	}
}

func TestTokenOfASlowRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 { // it is randomized
			f := newFixture(t)
			f.cred.RefreshBefore, f.cred.RefreshTimeout = time.Hour, -1
			f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
				end := time.Now().Add(100 * time.Second) // of a token that is made at once
				time.Sleep(40 * time.Second)
				return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: end}, nil
			}
			begin := time.Now()
			for time.Since(begin) < 76*time.Second {
				_, err := f.cred.Token(t.Context())
				require.NoError(t, err)
				time.Sleep(time.Second)
			}
			assert.Equal(t, 2, f.refreshes(), "between 50 and 75 s; if the lifetime began with its arrival, up to 85 s")
			require.NoError(t, f.cred.Shutdown(t.Context()))
		}
	})
}

func TestTokenUsedForASecondAtLeast(t *testing.T) {
	for _, life := range []time.Duration{1, 100 * time.Millisecond, time.Second} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.life = life
				for i := range 5 {
					for range 100 {
						r := f.get(atA)
						require.Equal(t, http.StatusOK, r.status)
						require.Equal(t, i+1, f.refreshes())
						time.Sleep(10 * time.Millisecond)
					}
				}
				assert.Empty(t, f.warnings(outlivedMessage))
			})
		})
	}
}

func TestTokenYoungerThanFiveSecondsNotRefreshedAhead(t *testing.T) {
	for _, life := range []time.Duration{2 * time.Second, 4 * time.Second, 5 * time.Second, 6 * time.Second} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.life = life
				begin := time.Now()
				for time.Since(begin) < min(life, 5*time.Second) {
					require.Equal(t, http.StatusOK, f.get(atA).status)
					synctest.Wait()
					require.Equal(t, 1, f.refreshes())
					time.Sleep(10 * time.Millisecond)
				}
				require.Equal(t, http.StatusOK, f.get(atA).status)
				synctest.Wait()
				assert.Equal(t, 2, f.refreshes())
			})
		})
	}
}

func TestTokenWithAnOddExpiry(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, expiry := range map[string]time.Time{
		"none":                       {},
		"the year 9999":              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		"1e18 seconds":               time.Unix(1e18, 0),
		"as much as a Duration":      time.Now().Add(math.MaxInt64),
		"1970":                       time.Unix(0, 0), // past, and of no consequence: servers accept the token
		"1969":                       time.Unix(-1, 0),
		"the year 1":                 time.Time{}.Add(1),
		"before the year 1":          time.Unix(-1e17, 0),
		"seconds that overflow":      time.Unix(math.MaxInt64, 0),
		"negative ones that do":      time.Unix(math.MinInt64, 0),
		"in a zone of a day":         time.Date(9999, 1, 1, 0, 0, 0, 0, time.FixedZone("", 86399)),
		"with a monotonic reading":   time.Now().Add(50 * year),
		"without a monotonic one":    time.Now().Add(50 * year).Round(0),
		"the last year of UnixNano":  time.Unix(0, math.MaxInt64),
		"the first year of UnixNano": time.Unix(0, math.MinInt64),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
					return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: expiry}, nil
				}
				for range 100 {
					require.Equal(t, http.StatusOK, f.get(atA).status)
					synctest.Wait()
					time.Sleep(year / 100)
				}
				assert.Equal(t, 1, f.refreshes())
				tok, err := f.cred.Current()
				require.NoError(t, err)
				assert.True(t, tok.Expiry.Equal(expiry), "Expiry is what the Refresher returned")
			})
		})
	}
}

func TestTokensOf500ProcessesNotRefreshedTogether(t *testing.T) {
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

// A token from Set.

func TestTokenFromSetRefreshedByTheNextRequest(t *testing.T) {
	for _, tt := range []struct {
		left, before time.Duration
		refreshed    bool // in the background
	}{
		{time.Minute, 0, true},
		{5 * time.Minute, 0, true},
		{5*time.Minute - 1, 0, true},
		{time.Second, 0, true},
		{5*time.Minute + 1, 0, false},
		{time.Hour, 0, false},
		{time.Hour, 2 * time.Hour, true}, // half of the lifetime is not known
		{time.Minute, -1, false},
	} {
		t.Run(fmt.Sprintf("%v left, RefreshBefore %v", tt.left, tt.before), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.cred.RefreshBefore = tt.before
				f.life, f.takes = time.Hour, time.Millisecond
				f.set(reauth.Token{AccessToken: "T0", RefreshToken: "R0", Expiry: time.Now().Add(tt.left)})
				r := f.get(atA)
				assert.Equal(t, http.StatusOK, r.status)
				assert.Zero(t, r.took)
				assert.Equal(t, []string{"a.test T0"}, f.sends())
				time.Sleep(time.Millisecond)
				synctest.Wait()
				if !tt.refreshed {
					assert.Zero(t, f.refreshes())
					return
				}
				require.Equal(t, 1, f.refreshes())
				assert.Equal(t, "T0", f.stale().Token.AccessToken)
				assert.Equal(t, "R0", f.stale().Token.RefreshToken)
				assert.Empty(t, f.stale().Rejection.Reason)
				assert.Equal(t, http.StatusOK, f.get(atA).status)
				assert.Equal(t, []string{"a.test T1"}, f.sends())
			})
		})
	}
}

func TestTokenFromSetRefreshedAheadOfExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		times := map[time.Duration]bool{}
		for range 20 {
			f := newFixture(t)
			begin := time.Now()
			f.set(reauth.Token{AccessToken: "T0", Expiry: time.Now().Add(time.Hour)})
			time.Sleep(55*time.Minute - time.Second)
			for f.refreshes() == 0 {
				require.Less(t, time.Since(begin), 58*time.Minute)
				require.Equal(t, http.StatusOK, f.get(atA).status)
				synctest.Wait()
				time.Sleep(time.Second)
			}
			at := f.refreshTimes()[0].Sub(begin)
			assert.GreaterOrEqual(t, at, 55*time.Minute)
			assert.LessOrEqual(t, at, 57*time.Minute+31*time.Second)
			times[at] = true
		}
		assert.Greater(t, len(times), 5, "randomized")
	})
}

func TestTokenFromSetPastItsExpiryRefreshedBeforeUse(t *testing.T) {
	for _, ago := range []time.Duration{0, time.Nanosecond, time.Hour, 30 * 365 * 24 * time.Hour} {
		t.Run(ago.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.takes = time.Second
				f.set(reauth.Token{AccessToken: "T0", Expiry: time.Now().Add(-ago)})
				r := f.get(atA)
				assert.Equal(t, http.StatusOK, r.status)
				assert.Equal(t, time.Second, r.took)
				assert.Equal(t, []string{"a.test T1"}, f.sends())
				assert.Equal(t, 1, f.refreshes())
				assert.Empty(t, f.warnings(outlivedMessage), "Set is believed")
			})
		})
	}
}

func TestTokenFromSetThatIsOnlyARefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		require.NoError(t, f.cred.Set(t.Context(), reauth.Token{RefreshToken: "R0"}))
		assert.Equal(t, http.StatusOK, f.get(atA).status)
		assert.Equal(t, []string{"a.test T1"}, f.sends())
		assert.Equal(t, "R0", f.stale().Token.RefreshToken)
	})
}

// Clocks.

const outlivedMessage = "reauth: a new token was expired when it came, and is used until a server rejects it"

// skewed has an issuer and servers whose clock is ahead of ours. Tokens are accepted
// for life, and their Expiry is a time of that clock.
func (f *fixture) skewed(skew, life time.Duration, header func() []string) {
	f.change(func() {
		f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
			end := time.Now().Add(life + skew)
			return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: time.Unix(end.Unix(), 0)}, nil
		}
		f.serve = func(req *http.Request, token string) *http.Response {
			f.mu.Lock()
			defer f.mu.Unlock()
			var h []string
			if header != nil {
				h = header()
			}
			at, ok := f.issued[token]
			if !ok || f.revoked[token] || time.Since(at) >= life {
				return answer(req, http.StatusUnauthorized, "", h...)
			}
			return answer(req, http.StatusOK, "fine", h...)
		}
	})
}

func TestClockThatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		name     string
		skew     time.Duration // of the issuer's clock from ours
		least    int           // refreshes in ten hours
		most     int
		rejected int // requests that needed a retry, at most
		warns    int
	}{
		{"right", 0, 10, 12, 0, 0},
		{"slow by 2 h", 2 * time.Hour, 10, 11, 10, 0},
		{"slow by 10 min", 10 * time.Minute, 10, 11, 10, 0},
		{"fast by 30 min", -30 * time.Minute, 20, 25, 0, 0},
		{"fast by 59 min", -59 * time.Minute, 600, 1210, 0, 0},
		{"fast by 59:55", -59*time.Minute - 55*time.Second, 7100, 7500, 0, 0},
		{"fast by 61 min", -61 * time.Minute, 10, 11, 10, 1},
		{"fast by 2 h", -2 * time.Hour, 10, 11, 10, 1},
		{"fast by ten years", -10 * 365 * 24 * time.Hour, 10, 11, 10, 1},
	} {
		for _, date := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, Date %v", tt.name, date), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					j := f.log
					f.rt.Logger = discard
					f.cred.Logger = slog.New(slog.NewJSONHandler(j, nil))
					var header func() []string
					if date {
						header = func() []string {
							return []string{"Date", time.Now().Add(tt.skew).UTC().Format(http.TimeFormat)}
						}
					}
					f.skewed(tt.skew, time.Hour, header)
					begin := time.Now()
					rejected := 0
					for time.Since(begin) < 10*time.Hour {
						r := f.get(atA)
						require.Equal(t, http.StatusOK, r.status)
						if r.outcome.Recovered() {
							rejected++
						}
						time.Sleep(time.Second)
					}
					assert.GreaterOrEqual(t, f.refreshes(), tt.least)
					assert.LessOrEqual(t, f.refreshes(), tt.most)
					assert.LessOrEqual(t, rejected, tt.rejected)
					assert.Len(t, f.warnings(outlivedMessage), tt.warns)
				})
			})
		}
	}
}

// A Date of one response, as of one server of many or of a cached response.
func TestDateOfAResponseWithoutConsequence(t *testing.T) {
	for name, date := range map[string]func() string{
		"an hour ahead":  func() string { return time.Now().Add(time.Hour).UTC().Format(http.TimeFormat) },
		"an hour behind": func() string { return time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat) },
		"1970":           func() string { return "Thu, 01 Jan 1970 00:00:00 GMT" },
		"the year 1":     func() string { return "Mon, 01 Jan 0001 00:00:00 GMT" },
		"the year 9999":  func() string { return "Fri, 31 Dec 9999 23:59:59 GMT" },
		"no date":        func() string { return "yesterday" },
		"empty":          func() string { return "" },
	} {
		for _, status := range []int{http.StatusOK, http.StatusUnauthorized} {
			t.Run(fmt.Sprint(name, ", ", status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.life = time.Hour
					require.Equal(t, http.StatusOK, f.get(atA).status)
					var once atomic.Bool
					f.change(func() {
						f.serve = func(req *http.Request, _ string) *http.Response {
							if !once.Swap(true) {
								return answer(req, status, "", "Date", date(), "Age", "3600")
							}
							return nil
						}
					})
					want := 5
					if status == http.StatusUnauthorized {
						want++ // for that response
					}
					for range 290 {
						require.Equal(t, http.StatusOK, f.get(atA).status)
						synctest.Wait()
						time.Sleep(time.Minute)
					}
					assert.InDelta(t, want, f.refreshes(), 1)
					assert.Empty(t, f.warnings(outlivedMessage))
				})
			})
		}
	}
}

// The README's login, of an issuer that sends no expires_in: Expiry is the time of the
// call.
func TestTokenThatExpiresWhenItComesUsedUntilRejected(t *testing.T) {
	for name, expiry := range map[string]func() time.Time{
		"the time of the call": time.Now,
		"a second before":      func() time.Time { return time.Now().Add(-time.Second) },
		"an hour before":       func() time.Time { return time.Now().Add(-time.Hour).Round(0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
					return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: expiry()}, nil
				}
				for i := range 3 {
					for range 100 {
						r := f.get(atA)
						require.Equal(t, http.StatusOK, r.status)
						require.Zero(t, r.took)
						synctest.Wait()
						time.Sleep(time.Hour)
					}
					require.Equal(t, i+1, f.refreshes(), "one refresh for each rejection")
					_, err := f.cred.Current()
					require.NoError(t, err)
					f.revoke()
				}
				all := f.warnings(outlivedMessage)
				require.Len(t, all, 1, "one Warn for each Credential")
				assert.Equal(t, reauth.Token{AccessToken: "T1"}.Fingerprint(), all[0]["token"])
				assert.Contains(t, all[0], "expiry")
				assert.Contains(t, all[0]["hint"], "check this machine's clock")

				f2 := newFixture(t)
				f2.issue = f.issue
				require.Equal(t, http.StatusOK, f2.get(atA).status)
				assert.Len(t, f2.warnings(outlivedMessage), 1, "and one for another Credential")
			})
		})
	}
}

func TestTokenThatHasReallyExpiredWhenItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.skewed(0, -time.Hour, nil)
		r := f.get(atA)
		assert.Equal(t, http.StatusUnauthorized, r.status)
		assert.Equal(t, []string{"a.test T1", "a.test T2"}, f.sends())
		assert.Equal(t, reauth.NotRetriedTooYoung, f.get(atA).outcome.NotRetried)
		assert.Equal(t, 2, f.refreshes())
	})
}

// A token that is over does not replace one that is still good.
func TestTokenThatIsOverBesideAGoodOne(t *testing.T) {
	over := func(f *fixture) {
		f.change(func() {
			f.takes = 0
			f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
				return reauth.Token{AccessToken: fmt.Sprint("T", n), RefreshToken: fmt.Sprint("R", n), Expiry: time.Now().Add(-time.Minute)}, nil
			}
		})
	}
	t.Run("ahead of expiry", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			f.cred.MinBackoff = 10 * time.Second
			f.set(reauth.Token{AccessToken: "T0", RefreshToken: "R0", Expiry: time.Now().Add(4 * time.Minute)})
			over(f)
			for i := range 3 {
				r := f.get(atA)
				require.Equal(t, http.StatusOK, r.status)
				synctest.Wait()
				require.Equal(t, i+1, f.refreshes())
				_, err := f.cred.Current()
				var failure *reauth.RefreshError
				require.ErrorAs(t, err, &failure)
				assert.ErrorContains(t, failure, "a token that expired at")
				assert.False(t, failure.Permanent())
				tok, _ := f.cred.Current()
				assert.Equal(t, "T0", tok.AccessToken, "nothing has changed")
				assert.Equal(t, fmt.Sprint("R", i+1), tok.RefreshToken, "but its refresh token is kept")
				time.Sleep(failure.RetryAfter())
			}
			assert.Equal(t, "R2", f.stale().Token.RefreshToken)
			assert.Equal(t, []string{"a.test T0", "a.test T0", "a.test T0"}, f.sends())
			assert.Empty(t, f.warnings(outlivedMessage))

			// T0 expires: what is over is better than nothing.
			time.Sleep(5 * time.Minute)
			assert.Equal(t, http.StatusOK, f.get(atA).status)
			assert.Equal(t, []string{"a.test T4"}, f.sends())
			assert.Len(t, f.warnings(outlivedMessage), 1)
		})
	})
	for _, accepted := range []bool{true, false} {
		t.Run(fmt.Sprint("for a rejection, another origin accepts the token ", accepted), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.set(reauth.Token{AccessToken: "T0", Expiry: time.Now().Add(time.Hour)})
				if accepted {
					require.Equal(t, http.StatusOK, f.get(atB).status)
				}
				over(f)
				f.only("T1")
				r := f.get(atA)
				if accepted {
					assert.Equal(t, http.StatusUnauthorized, r.status)
					assert.ErrorContains(t, r.outcome.Err, "a token that expired at")
				} else {
					assert.Equal(t, http.StatusOK, r.status)
				}
			})
		})
	}
}

// The same token again.

// Kubelets and metadata servers have no other token until shortly before its expiry.
func TestTokenReturnedAgainIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.rt.Logger = discard
		begin := time.Now()
		end := begin.Add(time.Hour)
		f.issue = func(int, reauth.Stale) (reauth.Token, error) {
			if time.Since(begin) >= time.Hour {
				return reauth.Token{AccessToken: "T2", Expiry: end.Add(time.Hour)}, nil
			}
			return reauth.Token{AccessToken: "T1", Expiry: end}, nil
		}
		var failed atomic.Int32
		f.cred.OnRefresh = func(_ context.Context, r reauth.RefreshInfo) {
			if r.Result != reauth.RefreshSucceeded {
				failed.Add(1)
			}
		}
		require.Equal(t, http.StatusOK, f.get(atA).status)
		time.Sleep(54 * time.Minute)
		for time.Since(begin) < 62*time.Minute {
			require.Equal(t, http.StatusOK, f.get(atA).status)
			_, err := f.cred.Current()
			require.NoError(t, err)
			time.Sleep(20 * time.Millisecond)
		}
		assert.Greater(t, f.refreshes(), 5, "it is tried again")
		assert.LessOrEqual(t, busiest(f.refreshTimes(), time.Minute), 10, "with a backoff that grows")
		assert.LessOrEqual(t, f.refreshesSince(begin.Add(59*time.Minute)), 6)
		assert.Zero(t, failed.Load())
		assert.Empty(t, f.log.records(t, slog.LevelWarn))
		tok, err := f.cred.Current()
		assert.NoError(t, err)
		assert.Equal(t, "T2", tok.AccessToken)
	})
}

func TestTokenReturnedAgainPacedByBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 { // it is randomized
			f := newFixture(t)
			f.rt.Logger, f.cred.Logger = discard, discard
			f.cred.MinBackoff = 20 * time.Second
			end := time.Now().Add(4 * time.Minute)
			f.issue = func(int, reauth.Stale) (reauth.Token, error) {
				return reauth.Token{AccessToken: "T0", Expiry: end}, nil
			}
			f.set(reauth.Token{AccessToken: "T0", Expiry: end})
			for time.Until(end) > time.Second {
				require.Equal(t, http.StatusOK, f.get(atA).status)
				synctest.Wait()
				time.Sleep(time.Second)
			}
			// Of the remaining time a half or more; and 20, 40 and 60 s at least.
			times := f.refreshTimes()
			assert.GreaterOrEqual(t, len(times), 2)
			for i := 1; i < len(times); i++ {
				assert.GreaterOrEqual(t, times[i].Sub(times[i-1]), min(20*time.Second<<(i-1), 40*time.Second), "call %d", i)
			}
		}
	})
}

func TestTokenReturnedAgainWithAnotherExpiry(t *testing.T) {
	for _, tt := range []struct {
		name   string
		expiry time.Duration // of the second call, from the beginning; zero: none
		want   time.Duration // until when the token is used
	}{
		{"none: the old one remains", 0, 10 * time.Minute},
		{"a later one", 20 * time.Minute, 20 * time.Minute},
		{"an earlier one", 9 * time.Minute, 9 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.cred.RefreshBefore = 5 * time.Minute
				f.cred.MinBackoff = time.Hour // no third call before the end
				begin := time.Now()
				f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
					tok := reauth.Token{AccessToken: "T1", Expiry: begin.Add(10 * time.Minute)}
					switch {
					case n == 2 && tt.expiry == 0:
						tok.Expiry = time.Time{}
					case n == 2:
						tok.Expiry = begin.Add(tt.expiry)
					case n > 2:
						tok = reauth.Token{AccessToken: "T2"}
					}
					return tok, nil
				}
				require.Equal(t, http.StatusOK, f.get(atA).status)
				time.Sleep(8 * time.Minute)
				require.Equal(t, http.StatusOK, f.get(atA).status)
				synctest.Wait()
				require.Equal(t, 2, f.refreshes())
				tok, err := f.cred.Current()
				require.NoError(t, err)
				assert.True(t, tok.Expiry.Equal(begin.Add(tt.want)))
				time.Sleep(time.Until(begin.Add(tt.want)) - 1)
				f.sends()
				require.Equal(t, http.StatusOK, f.get(atA).status)
				time.Sleep(time.Nanosecond)
				require.Equal(t, http.StatusOK, f.get(atA).status)
				assert.Equal(t, []string{"a.test T1", "a.test T2"}, f.sends())
			})
		})
	}
}

func TestTokenReturnedAgainAndExpiredIsAFailure(t *testing.T) {
	for name, expiry := range map[string]time.Duration{"the same expiry": time.Hour, "no expiry": 0, "an earlier one": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				begin := time.Now()
				f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
					tok := reauth.Token{AccessToken: "T1", Expiry: begin.Add(time.Hour)}
					if n > 1 {
						tok.Expiry = begin.Add(expiry)
					}
					if n > 1 && expiry == 0 {
						tok.Expiry = time.Time{}
					}
					return tok, nil
				}
				f.cred.RefreshBefore = -1
				require.Equal(t, http.StatusOK, f.get(atA).status)
				f.sends()
				time.Sleep(time.Hour)
				for range 20 {
					r := f.get(atA)
					var failure *reauth.RefreshError
					require.ErrorAs(t, r.err, &failure)
					assert.ErrorContains(t, failure, "a token that expired at")
					assert.False(t, failure.Permanent())
					time.Sleep(10 * time.Millisecond)
				}
				assert.Equal(t, 2, f.refreshes(), "it backs off")
				assert.Empty(t, f.sends())
				assert.Empty(t, f.warnings(outlivedMessage))
			})
		})
	}
}

// What is known of the token remains: it was accepted, and is not young.
func TestTokenReturnedAgainKeepsItsAcceptances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.set(reauth.Token{AccessToken: "T0"})
		f.revoke()
		f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
			if n > 2 {
				return reauth.Token{AccessToken: "T3"}, nil
			}
			return reauth.Token{AccessToken: "T1", Expiry: time.Now().Add(time.Minute)}, nil
		}
		require.Equal(t, http.StatusOK, f.get(atA).status) // T1 is fetched for a rejection
		time.Sleep(50 * time.Second)
		require.Equal(t, http.StatusOK, f.get(atB).status)
		synctest.Wait()
		require.Equal(t, 2, f.refreshes())
		f.revoke()
		assert.Equal(t, http.StatusOK, f.get(atA).status)
		assert.Equal(t, 3, f.refreshes())
	})
}

// A token is recognized in a request that brings it, also after it was replaced.

func TestTokensRememberedUpToSixteen(t *testing.T) {
	for _, tt := range []struct {
		later int // tokens that were set after it
		ours  bool
	}{{0, true}, {1, true}, {15, true}, {16, false}} {
		t.Run(fmt.Sprint(tt.later), func(t *testing.T) {
			f := newFixture(t)
			f.set(reauth.Token{AccessToken: "mine"})
			for i := range tt.later {
				f.set(reauth.Token{AccessToken: fmt.Sprint("S", i+1)})
			}
			req, err := http.NewRequest(http.MethodGet, atA, nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", "Bearer mine")
			resp, err := f.rt.RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			want := "a.test mine"
			if tt.ours && tt.later > 0 {
				want = fmt.Sprint("a.test S", tt.later)
			}
			assert.Equal(t, []string{want}, f.sends())
			o, ok := reauth.OutcomeOf(resp)
			assert.Equal(t, tt.ours, !ok)
			if !tt.ours {
				assert.Equal(t, reauth.WithheldOwnCredential, o.Withheld)
			}
		})
	}
}

// The retry and the clock.

func TestRetryCarriesTheNewestToken(t *testing.T) {
	for _, tt := range []struct {
		name      string
		life      time.Duration // of T1
		meanwhile func(*fixture)
		want      string
	}{
		{"nothing happens", time.Hour, nil, "T1"},
		{"it expires during the wait", 2 * time.Second, nil, "T2"},
		{"another is set during the wait", time.Hour, func(f *fixture) { f.set(reauth.Token{AccessToken: "S"}) }, "S"},
		{"the rejected one is set during the wait", time.Hour, func(f *fixture) { f.set(reauth.Token{AccessToken: "T0"}) }, "T1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.life = tt.life
				f.set(reauth.Token{AccessToken: "T0"})
				f.serve = func(req *http.Request, token string) *http.Response {
					if token == "T0" {
						return answer(req, http.StatusUnauthorized, "", "Retry-After", "4")
					}
					return nil
				}
				if tt.meanwhile != nil {
					time.AfterFunc(time.Second, func() { tt.meanwhile(f) })
				}
				assert.Equal(t, http.StatusOK, f.get(atA).status)
				assert.Equal(t, []string{"a.test T0", "a.test " + tt.want}, f.sends())
			})
		})
	}
}

// Tokens expire between their attachment and their arrival, while other requests have
// the next one already.
func TestTokenThatExpiresOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cred.RefreshBefore = -1
		f.life = time.Minute
		f.serve = func(req *http.Request, token string) *http.Response {
			time.Sleep(2 * time.Second)
			f.mu.Lock()
			defer f.mu.Unlock()
			if time.Since(f.issued[token]) >= time.Minute {
				return invalidToken(req)
			}
			return nil
		}
		require.Equal(t, http.StatusOK, f.get(atA).status)
		time.Sleep(57 * time.Second)
		var wg sync.WaitGroup
		var rejected atomic.Int32
		for range 20 { // some before the expiry, some after
			wg.Go(func() {
				r := f.get(atA)
				assert.Equal(t, http.StatusOK, r.status)
				if r.outcome.Recovered() {
					rejected.Add(1)
				}
			})
			time.Sleep(100 * time.Millisecond)
		}
		wg.Wait()
		assert.Equal(t, 2, f.refreshes())
		assert.Greater(t, rejected.Load(), int32(5))
	})
}

// What a challenge asks for.

// demanding has an issuer whose tokens have what the challenges of the Stale ask for,
// and servers that demand what want says. In challenge, %s is that.
func (f *fixture) demanding(challenge, param string, want func(req *http.Request) string) {
	have := map[string][]string{} // guarded by f.mu
	f.change(func() {
		f.issue = func(n int, stale reauth.Stale) (reauth.Token, error) {
			time.Sleep(50 * time.Millisecond)
			tok := fmt.Sprint("T", n)
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, ch := range stale.Rejection.Challenges {
				if v := ch.Params[param]; v != "" {
					have[tok] = append(have[tok], v)
				}
			}
			return reauth.Token{AccessToken: tok, Expiry: time.Now().Add(time.Hour)}, nil
		}
		f.serve = func(req *http.Request, token string) *http.Response {
			time.Sleep(5 * time.Millisecond)
			w := want(req)
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.revoked[token] {
				return invalidToken(req)
			}
			if w != "" && !slices.Contains(have[token], w) {
				return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", fmt.Sprintf(challenge, w))
			}
			return answer(req, http.StatusOK, "")
		}
	})
}

// asked returns the values of a parameter in the challenges of a Stale.
func asked(stale reauth.Stale, param string) (all []string) {
	for _, ch := range stale.Rejection.Challenges {
		if v := ch.Params[param]; v != "" {
			all = append(all, v)
		}
	}
	return all
}

const (
	claimsChallenge = `Bearer error="insufficient_claims", claims="%s"`
	scopeChallenge  = `Bearer realm="https://issuer.test/token",service="s",scope="%s"`
)

// demand returns what the path of a request names.
func demand(req *http.Request) string { return strings.Trim(req.URL.Path, "/") }

func TestChallengesOfFiveResources(t *testing.T) {
	for param, challenge := range map[string]string{"claims": claimsChallenge, "scope": scopeChallenge} {
		for _, parallel := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, in parallel %v", param, parallel), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.demanding(challenge, param, demand)
					require.Equal(t, http.StatusOK, f.get(atA).status)
					begin := time.Now()
					var wg sync.WaitGroup
					for i := range 5 {
						url := fmt.Sprintf("%sr%d", atA, i)
						use := func() {
							for range 10 {
								assert.Equal(t, http.StatusOK, f.get(url).status)
								time.Sleep(10 * time.Millisecond)
							}
						}
						if parallel {
							wg.Go(use)
						} else {
							use()
						}
					}
					wg.Wait()
					for range 10 { // by turns
						for i := range 5 {
							r := f.get(fmt.Sprintf("%sr%d", atA, i))
							assert.Equal(t, http.StatusOK, r.status)
							assert.Empty(t, r.outcome.Rejection.Reason)
						}
					}
					assert.LessOrEqual(t, f.refreshesSince(begin), 5)
					assert.Empty(t, f.log.records(t, slog.LevelWarn))
				})
			})
		}
	}
}

func TestChallengesAddUpInEachLaterStale(t *testing.T) {
	for param, challenge := range map[string]string{"claims": claimsChallenge, "scope": scopeChallenge} {
		t.Run(param, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.demanding(challenge, param, demand)
				var want []string
				for _, v := range []string{"r1", "r2", "r3"} {
					want = append(want, v)
					require.Equal(t, http.StatusOK, f.get(atA+v).status)
					assert.Equal(t, want, asked(f.stale(), param), "oldest first, this rejection last")
				}
				require.Equal(t, 4, f.refreshes())

				// A rejection that asks for nothing.
				time.Sleep(10 * time.Second)
				f.revoke()
				require.Equal(t, http.StatusOK, f.get(atA).status)
				require.Equal(t, 5, f.refreshes())
				assert.Equal(t, want, asked(f.stale(), param))
				assert.Equal(t, reauth.ReasonInvalidToken, f.stale().Rejection.Reason)
				last := f.stale().Rejection.Challenges[len(f.stale().Rejection.Challenges)-1]
				assert.Equal(t, "invalid_token", last.Params["error"])

				// Expiry.
				time.Sleep(2 * time.Hour)
				require.Equal(t, http.StatusOK, f.get(atA+"r2").status)
				require.Equal(t, 6, f.refreshes())
				assert.Equal(t, want, asked(f.stale(), param))
				assert.Empty(t, f.stale().Rejection.Reason)
				for i := range want {
					require.Equal(t, http.StatusOK, f.get(atA+want[i]).status)
				}
				require.Equal(t, 6, f.refreshes())

				// Set is of the same session. An earlier challenge is not repeated.
				f.set(reauth.Token{AccessToken: "S"})
				require.Equal(t, http.StatusOK, f.get(atA+"r1").status)
				assert.ElementsMatch(t, want, asked(f.stale(), param))
				assert.Equal(t, "r1", asked(f.stale(), param)[2], "this rejection last")

				require.NoError(t, f.cred.Clear(t.Context()))
				require.Equal(t, http.StatusOK, f.get(atA).status)
				assert.Empty(t, asked(f.stale(), param), "Clear ends the session")
			})
		})
	}
}

// A registry writes the actions of one scope as its map gives them.
func TestChallengesForOneScopeInAnotherOrderShareARefresh(t *testing.T) {
	for name, scopes := range map[string][]string{
		"a registry's actions":            {"repository:team/app:pull,push", "repository:team/app:push,pull", "repository:team/app:pull"},
		"RFC 6749's scopes":               {"read write", "write read", "read"},
		"scopes with commas between them": {"repo,user", "user,repo", "user"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.takes = 50 * time.Millisecond
				require.Equal(t, http.StatusOK, f.get(atA).status)
				var n atomic.Int32
				f.change(func() {
					f.serve = func(req *http.Request, token string) *http.Response {
						if token != "T1" {
							return nil
						}
						i := int(n.Add(1)) - 1
						time.Sleep(time.Duration(5+20*i) * time.Millisecond)
						return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", fmt.Sprintf(scopeChallenge, scopes[i%len(scopes)]))
					}
				})
				var wg sync.WaitGroup
				for range 6 {
					wg.Go(func() { assert.Equal(t, http.StatusOK, f.get(atA).status) })
				}
				wg.Wait()
				assert.Equal(t, 2, f.refreshes())
			})
		})
	}
}

func TestChallengesRememberedUpToSixtyFour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cred.RefreshEvery = -1
		f.demanding(scopeChallenge, "scope", demand)
		for i := range 64 {
			require.Equal(t, http.StatusOK, f.get(fmt.Sprintf("%sr%d", atA, i)).status)
		}
		all := asked(f.stale(), "scope")
		require.Len(t, all, 64)
		assert.Equal(t, "r0", all[0])
		require.Equal(t, http.StatusOK, f.get(atA+"last").status)
		all = asked(f.stale(), "scope")
		require.Len(t, all, 64)
		assert.Equal(t, "r1", all[0], "the oldest is forgotten")
		assert.Equal(t, "last", all[63])
	})
}

// A scope that repeats a part of the token is masked in what may be logged.
func TestChallengeReachesTheRefresherAsTheServerWroteIt(t *testing.T) {
	const token, scope = "sk-0123456789abcdef", "repository:sk-0123456789abcdef:pull,push"
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.demanding(scopeChallenge, "scope", func(*http.Request) string { return scope })
		f.set(reauth.Token{AccessToken: token})
		r := f.get(atA)
		assert.Equal(t, http.StatusOK, r.status)
		assert.Equal(t, []string{scope}, asked(f.stale(), "scope"))
		require.Len(t, r.outcome.Rejection.Challenges, 1)
		assert.NotContains(t, r.outcome.Rejection.Challenges[0].Params["scope"], token)
		assert.NotContains(t, f.log.text(), token)
	})
}

func TestChallengesOf200RequestsForOtherClaimsEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.takes = 50 * time.Millisecond
		require.Equal(t, http.StatusOK, f.get(atA).status)
		var n atomic.Int32
		f.change(func() {
			f.serve = func(req *http.Request, token string) *http.Response {
				i := n.Add(1)
				time.Sleep(time.Duration(5+i%100) * time.Millisecond)
				if token == "T1" {
					return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", fmt.Sprintf(claimsChallenge, fmt.Sprint("c", i)))
				}
				return nil
			}
		})
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() { assert.Equal(t, http.StatusOK, f.get(atA).status) })
		}
		wg.Wait()
		assert.Equal(t, 2, f.refreshes(), "the first token, and one for them all")
	})
}

// Up to eight claims are distinguished. A server that asks for more asks each request
// for others.
func TestChallengesToldApartUpToEight(t *testing.T) {
	for _, tt := range []struct{ n, most, ok int }{{8, 8, 8}, {9, 1, 1}} {
		t.Run(fmt.Sprint(tt.n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.demanding(claimsChallenge, "claims", demand)
				require.Equal(t, http.StatusOK, f.get(atA).status)
				begin := time.Now()
				var wg sync.WaitGroup
				var ok atomic.Int32
				for i := range tt.n {
					wg.Go(func() {
						if f.get(fmt.Sprintf("%sr%d", atA, i)).status == http.StatusOK {
							ok.Add(1)
						}
					})
				}
				wg.Wait()
				assert.EqualValues(t, tt.ok, ok.Load())
				assert.LessOrEqual(t, f.refreshesSince(begin), tt.most)
			})
		})
	}
}

func TestChallengesOfTwoEndpointsByTurns(t *testing.T) {
	for name, both := range map[string]bool{"a token has all claims": true, "a token has the claims of one challenge": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.rt.Logger, f.cred.Logger = discard, discard
				f.demanding(claimsChallenge, "claims", demand)
				if !both { // the last
					issue := f.issue
					f.issue = func(n int, stale reauth.Stale) (reauth.Token, error) {
						if all := stale.Rejection.Challenges; len(all) > 1 {
							stale.Rejection.Challenges = all[len(all)-1:]
						}
						return issue(n, stale)
					}
				}
				begin := time.Now()
				for i := 0; time.Since(begin) < 10*time.Minute; i++ {
					require.Equal(t, http.StatusOK, f.get(atA+[]string{"c1", "c2"}[i%2]).status, "request %d after %v", i, time.Since(begin))
					time.Sleep(100 * time.Millisecond)
				}
				assert.LessOrEqual(t, f.refreshes(), 3)
			})
		})
	}
}

// The rejection of a retry for something else says nothing of the token: it is neither
// too young nor in a row.
func TestChallengeOfARetryIsNoVerdictOnTheToken(t *testing.T) {
	for param, challenge := range map[string]string{"claims": claimsChallenge, "scope": scopeChallenge} {
		t.Run(param, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var n atomic.Int32
				f.demanding(challenge, param, func(*http.Request) string { return fmt.Sprint("c", min(n.Add(1), 4)) })
				f.set(reauth.Token{AccessToken: "T0"})
				f.revoke()
				require.Equal(t, http.StatusUnauthorized, f.get(atA).status) // revoked; then the retry is asked for c2
				require.Equal(t, http.StatusUnauthorized, f.get(atA).status) // c3, c4
				require.Equal(t, 2, f.refreshes())
				r := f.get(atA)
				assert.Equal(t, http.StatusOK, r.status, "at once")
				assert.Equal(t, 3, f.refreshes())
			})
		})
	}
}

func TestChallengeDoesNotJoinARefreshThatAsksForSomethingElse(t *testing.T) {
	for param, challenge := range map[string]string{"claims": claimsChallenge, "scope": scopeChallenge} {
		for _, first := range []string{"r1", ""} { // the other refresh: for another challenge, or for a revocation
			t.Run(param+", after "+first, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.demanding(challenge, param, demand)
					require.Equal(t, http.StatusOK, f.get(atA).status)
					time.Sleep(10 * time.Second)
					f.change(func() { f.takes = time.Second })
					if first == "" {
						f.change(func() {
							serve := f.serve
							f.serve = func(req *http.Request, token string) *http.Response {
								if demand(req) == "" && token == "T1" {
									return invalidToken(req)
								}
								return serve(req, token)
							}
						})
					}
					var wg sync.WaitGroup
					wg.Go(func() { assert.Equal(t, http.StatusOK, f.get(atA+first).status) })
					time.Sleep(500 * time.Millisecond)
					f.sends()
					wg.Go(func() {
						r := f.get(atA + "r2")
						assert.Equal(t, http.StatusOK, r.status)
						assert.Greater(t, r.took, time.Second, "it waits for both")
					})
					wg.Wait()
					assert.Equal(t, 3, f.refreshes())
					assert.Contains(t, asked(f.stale(), param), "r2")
					sent := f.sends()
					assert.Contains(t, sent, "a.test/r2 T1")
					assert.NotContains(t, sent, "a.test/r2 T2", "it is not sent with a token that was fetched without it")
				})
			})
		}
	}
}

// The claims of a challenge of the predecessor are no reason for a refresh.
func TestChallengeForJustTheClaimsOfThePredecessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve = func(req *http.Request, token string) *http.Response {
			want := map[string]string{"/c1": "T2", "/c2": "T3"}[req.URL.Path]
			if want != "" && token != want {
				return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", fmt.Sprintf(claimsChallenge, demand(req)))
			}
			return nil
		}
		require.Equal(t, http.StatusOK, f.get(atA).status)
		require.Equal(t, http.StatusOK, f.get(atA+"c1").status)
		require.Equal(t, http.StatusOK, f.get(atA+"c2").status)
		require.Equal(t, 3, f.refreshes())
		f.sends()
		r := f.get(atA + "c1")
		assert.Equal(t, http.StatusOK, r.status)
		assert.True(t, r.outcome.Predecessor)
		assert.Equal(t, []string{"a.test/c1 T3", "a.test/c1 T2"}, f.sends())
		assert.Equal(t, 3, f.refreshes())
	})
}

// A scope in the challenge of a 403, which a Classifier takes for a rejection, is not
// asked for: the user has not granted it.
func TestScopeOfAChallengeThatIsNo401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.rt.Classifier = reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
			if resp.StatusCode == http.StatusForbidden {
				return reauth.Rejection{Reason: reauth.ReasonUnspecified}
			}
			return reauth.DefaultClassifier().Classify(resp, body)
		})
		f.set(reauth.Token{AccessToken: "T0"})
		f.serve = func(req *http.Request, token string) *http.Response {
			if token == "T0" {
				return answer(req, http.StatusForbidden, "", "WWW-Authenticate", fmt.Sprintf(scopeChallenge, "admin"))
			}
			return nil
		}
		require.Equal(t, http.StatusOK, f.get(atA).status)
		time.Sleep(time.Minute)
		f.revoke()
		require.Equal(t, http.StatusOK, f.get(atA).status)
		assert.Empty(t, asked(f.stale(), "scope"), "it did not add up")
	})
}

// A challenge of an ended session is not that of the next.
func TestChallengeAfterClear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.demanding(claimsChallenge, "claims", demand)
		require.Equal(t, http.StatusOK, f.get(atA).status)
		serve := f.serve
		f.change(func() {
			f.serve = func(req *http.Request, token string) *http.Response {
				if demand(req) == "old" {
					assert.NoError(t, f.cred.Clear(context.Background()))
				}
				return serve(req, token)
			}
		})
		r := f.get(atA + "old")
		assert.Equal(t, http.StatusUnauthorized, r.status)
		assert.True(t, errors.Is(r.outcome.Err, reauth.ErrLoggedOut))
		require.Equal(t, http.StatusOK, f.get(atA+"new").status)
		assert.Equal(t, []string{"new"}, asked(f.stale(), "claims"))
	})
}
