package reauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"runtime"
	"strconv"
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

func noMap() map[string]int { return nil }

func (h flightHandler) Handle(context.Context, slog.Record) error { h.f(); return nil }

func (h flightHandler) Enabled(context.Context, slog.Level) bool { return true }

// A flightHandler calls f for each record.
type flightHandler struct {
	slog.Handler
	f func()
}

// flightRevocations lets 64 callers send requests while the token is revoked
// again and again, and checks that nobody notices.
func flightRevocations(t *testing.T, idle func(), wait time.Duration) {
	t.Helper()
	s := &flightServer{active: map[int]int{}}
	var calls, waiters atomic.Int32
	cred := &reauth.Credential{Logger: discard, RefreshEvery: -1, Refresher: reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		calls.Add(1)
		idle()
		return s.Refresh(ctx, stale)
	}), OnRefresh: func(_ context.Context, e reauth.RefreshInfo) { waiters.Add(int32(e.Waiters)) }}
	rt := flightTransport(cred, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		idle()
		resp, err := s.RoundTrip(req)
		idle()
		return resp, err
	}))
	rt.RetryWait = wait
	const callers, each, enough = 64, 30, 20
	flightSlowest(t, flightAll(callers, func(int) (int, error) {
		for n := 0; n < each || s.revocations() < enough; n++ {
			epoch := s.begin()
			resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
			status, accepted := 0, 0
			if err == nil {
				status = resp.StatusCode
				accepted, _ = strconv.Atoi(resp.Header.Get("Issued"))
				_ = resp.Body.Close()
			}
			s.end(epoch, accepted)
			if err != nil || status != http.StatusOK {
				return status, err
			}
			if rand.N(3) == 0 {
				s.revoke()
			}
			_, _ = cred.Current()
		}
		return http.StatusOK, nil
	}))
	require.NoError(t, cred.Shutdown(t.Context()))
	assert.LessOrEqual(t, calls.Load(), int32(s.revoked+1), "one refresh for each revocation, and the first")
	assert.GreaterOrEqual(t, calls.Load(), int32(s.revoked), "the last may not have been noticed")
	t.Logf("%d revocations, %d refreshes, %d rejections, %d waits", s.revoked, calls.Load(), s.rejects, waiters.Load())
}

type flightKey struct{}

func (c *flightReused) reuse() { c.keys, c.over = nil, true }

func (c *flightReused) Done() <-chan struct{} {
	if c.over {
		c.late.Add(1)
	}
	return c.Context.Done()
}

func (c *flightReused) Value(key any) any {
	if c.over {
		c.late.Add(1)
	}
	if v, ok := c.keys[key]; ok {
		return v
	}
	return c.Context.Value(key)
}

// A flightReused is a context like a *gin.Context: once its request is over it
// is emptied for the next one, without a lock. The race detector sees who still
// reads it, and so does late.
type flightReused struct {
	context.Context
	keys map[any]any
	over bool
	late atomic.Int32
}

// flightDeaf is an issuer whose nth call takes took[n-1], whatever its context
// says, and returns Tn.
func flightDeaf(refreshToken string, took ...time.Duration) *issuer {
	return &issuer{do: func(_ context.Context, n int, _ reauth.Stale) (reauth.Token, error) {
		if n <= len(took) {
			time.Sleep(took[n-1])
		}
		return reauth.Token{AccessToken: fmt.Sprint("T", n), RefreshToken: refreshToken}, nil
	}}
}

// flightNoneLeft waits until there are no more goroutines than before.
func flightNoneLeft(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines are left over %d", runtime.NumGoroutine(), before)
		}
	}
}

// flightSlow is a Base that needs d for each request, half of it on the way.
func flightSlow(d time.Duration, base http.RoundTripper) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		time.Sleep(d / 2)
		resp, err := base.RoundTrip(req)
		time.Sleep(d / 2)
		return resp, err
	})
}

// With the measure in exact time.
func TestRefreshSharedByConcurrentCallers(t *testing.T) {
	const roundTrip, refresh, wait = 40 * time.Millisecond, 200 * time.Millisecond, 150 * time.Millisecond
	tests := []struct {
		name     string
		held     reauth.Token
		sends    int32
		min, max time.Duration
	}{
		{"revoked", reauth.Token{AccessToken: "dead"}, 2000, 2*roundTrip + refresh + wait/3, 2*roundTrip + refresh + wait},
		{"expired", reauth.Token{AccessToken: "dead", Expiry: time.Unix(1, 0)}, 1000, roundTrip + refresh, roundTrip + refresh},
		{"only a refresh token", reauth.Token{RefreshToken: "r1"}, 1000, roundTrip + refresh, roundTrip + refresh},
		{"none", reauth.Token{}, 1000, roundTrip + refresh, roundTrip + refresh},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
					time.Sleep(refresh)
					return reauth.Token{AccessToken: "live"}, nil
				}}
				var events []reauth.RefreshInfo
				cred := &reauth.Credential{Refresher: is, Logger: discard, OnRefresh: func(_ context.Context, e reauth.RefreshInfo) { events = append(events, e) }}
				if tt.name != "none" {
					require.NoError(t, cred.Set(t.Context(), tt.held))
				}
				server := accepting("live")
				rt := flightTransport(cred, flightSlow(roundTrip, server))

				slowest := flightSlowest(t, flightAll(1000, func(int) (int, error) { return flightSend(t.Context(), rt) }))

				assert.EqualValues(t, 1, is.calls.Load(), "refreshes")
				assert.Equal(t, tt.sends, server.sends.Load(), "sends")
				assert.GreaterOrEqual(t, slowest, tt.min)
				assert.LessOrEqual(t, slowest, tt.max)
				require.Len(t, events, 1)
				assert.Equal(t, 1000, events[0].Waiters)
				assert.Equal(t, refresh, events[0].Duration)
			})
		})
	}
}

// On real sockets, and the measure: refresh, two round trips, wait
// and 250 ms. What a round trip takes for a thousand at once on this machine is
// measured in the same test.
func TestRefreshSharedOnRealConnections(t *testing.T) {
	const callers = 1000
	before := runtime.NumGoroutine()
	var valid atomic.Value
	valid.Store("T0")
	var rejected atomic.Int32
	everybody := make(chan struct{}) // closed when all have met the 401
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "Bearer "+valid.Load().(string) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":{"message":"无效的令牌"}}`)
			if rejected.Add(1) == callers {
				close(everybody)
			}
		}
	}))
	defer server.Close()
	base := &http.Transport{MaxConnsPerHost: 64, MaxIdleConnsPerHost: 64}
	defer base.CloseIdleConnections()

	var refreshed time.Time
	is := &issuer{do: func(ctx context.Context, _ int, _ reauth.Stale) (reauth.Token, error) {
		select { // the longest refresh that the measure allows for
		case <-everybody:
		case <-ctx.Done():
		}
		valid.Store("T1")
		refreshed = time.Now()
		return reauth.Token{AccessToken: "T1"}, nil
	}}
	cred := holding(t, is, reauth.Token{AccessToken: "T0"})
	rt := flightTransport(cred, base)
	send := func(int) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			return 0, err
		}
		resp, err := rt.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.Body.Close()
	}

	var calm, dead, after []flightResult
	var begin time.Time
	within(t, time.Minute, func() {
		calm = flightAll(callers, send)
		valid.Store("nobody has it")
		begin = time.Now()
		dead = flightAll(callers, send)
		after = flightAll(callers, send)
	})
	roundTrip := max(flightSlowest(t, calm), flightSlowest(t, after))
	// One of the two round trips passed before the end of the refresh. The other
	// counts threefold, for the noise of the machine.
	rest := flightSlowest(t, dead) - refreshed.Sub(begin)
	t.Logf("a round trip for all takes %v, the rest took %v", roundTrip, rest)
	limit := 3*roundTrip + 150*time.Millisecond + 250*time.Millisecond
	if raceEnabled { // which slows some steps far more than others
		limit += time.Second
	}
	assert.Less(t, rest, limit)
	assert.EqualValues(t, 1, is.calls.Load(), "refreshes")
	assert.EqualValues(t, callers, rejected.Load(), "rejections: one each")
	base.CloseIdleConnections()
	server.Close()
	flightNoneLeft(t, before)
}

// No two of the rejections overlap with a refresh.
func TestRefreshSharedByStaggeredRejections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{}
		cred := holding(t, is, reauth.Token{AccessToken: "T0"})
		server := accepting("T1")
		var turn atomic.Int32
		rt := flightTransport(cred, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Authorization") == "Bearer T0" {
				time.Sleep(time.Duration(turn.Add(1)) * time.Second)
			}
			return server.RoundTrip(req)
		}))
		all := flightAll(10, func(int) (int, error) { return flightSend(t.Context(), rt) })
		slowest := flightSlowest(t, all)
		assert.GreaterOrEqual(t, slowest, 10*time.Second, "the 401s have to come one by one")
		assert.EqualValues(t, 1, is.calls.Load())
		assert.EqualValues(t, 20, server.sends.Load())
	})
}

// A 401 for an older token than the last is no news either.
func TestRefreshNotCausedByAnOlderToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{}
		cred := holding(t, is, reauth.Token{AccessToken: "T0"})
		why := reauth.Rejection{Reason: reauth.ReasonInvalidToken}
		oldest, err := cred.Token(t.Context())
		require.NoError(t, err)
		newest := oldest
		for range 5 {
			newest, err = cred.Refresh(t.Context(), reauth.Stale{Token: newest, Rejection: why})
			require.NoError(t, err)
			time.Sleep(2 * time.Minute) // past each pause
		}
		require.EqualValues(t, 5, is.calls.Load())
		got, err := cred.Refresh(t.Context(), reauth.Stale{Token: oldest, Rejection: why})
		require.NoError(t, err)
		assert.Equal(t, newest.AccessToken, got.AccessToken)
		assert.EqualValues(t, 5, is.calls.Load())
	})
}

func TestRefreshJoinedDuringTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
			time.Sleep(10 * time.Second)
			return reauth.Token{AccessToken: "T1"}, nil
		}}
		cred := holding(t, is, reauth.Token{AccessToken: "T0"})
		rt := flightTransport(cred, accepting("T1"))
		all := flightAll(10, func(i int) (int, error) {
			time.Sleep(time.Duration(i) * time.Second) // each in another second of the same refresh
			return flightSend(t.Context(), rt)
		})
		assert.LessOrEqual(t, flightSlowest(t, all), 10*time.Second+150*time.Millisecond)
		assert.EqualValues(t, 1, is.calls.Load())
	})
}

func TestRefreshOutlivesTheCallerThatStartedIt(t *testing.T) {
	for _, revoked := range []bool{true, false} {
		t.Run(fmt.Sprintf("revoked=%v", revoked), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := &issuer{do: func(ctx context.Context, _ int, _ reauth.Stale) (reauth.Token, error) {
					select {
					case <-time.After(10 * time.Second):
						return reauth.Token{AccessToken: "T1"}, nil
					case <-ctx.Done():
						return reauth.Token{}, ctx.Err()
					}
				}}
				cred := &reauth.Credential{Refresher: is, Logger: discard}
				if revoked {
					require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0"}))
				}
				rt := flightTransport(cred, accepting("T1"))
				cause := errors.New("the user closed the tab")
				leader, leave := context.WithCancelCause(t.Context())
				all := flightAll(20, func(i int) (int, error) {
					if i == 0 {
						time.AfterFunc(3*time.Second, func() { leave(cause) })
						return flightSend(leader, rt)
					}
					time.Sleep(time.Second)
					return flightSend(t.Context(), rt)
				})
				assert.Same(t, cause, all[0].err, "the cause itself, not wrapped")
				assert.Equal(t, 3*time.Second, all[0].took, "at once")
				assert.LessOrEqual(t, flightSlowest(t, all[1:]), 10*time.Second+150*time.Millisecond)
				assert.EqualValues(t, 1, is.calls.Load())
			})
		})
	}
}

// No request waits any longer, and the result of the refresh is still used.
func TestRefreshOutlivesAllCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{do: func(ctx context.Context, _ int, _ reauth.Stale) (reauth.Token, error) {
			time.Sleep(10 * time.Second)
			return reauth.Token{AccessToken: "T1"}, ctx.Err()
		}}
		cred := holding(t, is, reauth.Token{AccessToken: "T0"})
		rt := flightTransport(cred, accepting("T1"))
		flightAll(5, func(int) (int, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return flightSend(ctx, rt)
		})
		time.Sleep(10 * time.Second)
		status, err := flightSend(t.Context(), rt)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, status)
		assert.EqualValues(t, 1, is.calls.Load())
	})
}

func TestRefreshWaitEndsWithTheCallersDeadline(t *testing.T) {
	why := reauth.Rejection{Reason: reauth.ReasonInvalidToken}
	tests := []struct {
		name string
		call func(ctx context.Context, cred *reauth.Credential, rt http.RoundTripper) error
	}{
		{"request", func(ctx context.Context, _ *reauth.Credential, rt http.RoundTripper) error {
			_, err := flightSend(ctx, rt)
			return err
		}},
		{"Token", func(ctx context.Context, cred *reauth.Credential, _ http.RoundTripper) error {
			_, err := cred.Token(ctx)
			return err
		}},
		{"Renew", func(ctx context.Context, cred *reauth.Credential, _ http.RoundTripper) error {
			_, err := cred.Refresh(ctx, reauth.Stale{Token: reauth.Token{AccessToken: "T0"}, Rejection: why})
			return err
		}},
	}
	for _, tt := range tests {
		for _, leads := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s leads=%v", tt.name, leads), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := &issuer{do: func(ctx context.Context, _ int, _ reauth.Stale) (reauth.Token, error) {
						<-ctx.Done()
						return reauth.Token{}, ctx.Err()
					}}
					cred := holding(t, is, reauth.Token{AccessToken: "T0", Expiry: time.Now()})
					rt := flightTransport(cred, accepting())
					if !leads {
						go func() { _, _ = cred.Token(t.Context()) }()
						synctest.Wait()
					}
					ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
					defer cancel()
					begin := time.Now()
					err := tt.call(ctx, cred, rt)
					assert.Equal(t, context.DeadlineExceeded, err)
					assert.Equal(t, 50*time.Millisecond, time.Since(begin))
					time.Sleep(time.Minute) // until RefreshTimeout has ended it
				})
			})
		}
	}
}

func TestRefreshTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := flightDeaf("", time.Hour)
		cred := &reauth.Credential{Refresher: is, Logger: discard, RefreshTimeout: 5 * time.Second}
		rt := flightTransport(cred, accepting("T1", "T2"))
		for i, r := range flightAll(20, func(int) (int, error) { return flightSend(t.Context(), rt) }) {
			var failed *reauth.RefreshError
			require.ErrorAs(t, r.err, &failed, "caller %d", i)
			assert.ErrorIs(t, r.err, context.DeadlineExceeded)
			assert.False(t, failed.Permanent())
			assert.Equal(t, 5*time.Second, r.took, "caller %d", i)
		}
		time.Sleep(time.Second)
		status, err := flightSend(t.Context(), rt)
		require.NoError(t, err, "no refresh token is out: the next request tries again")
		assert.Equal(t, http.StatusOK, status)
		assert.EqualValues(t, 2, is.calls.Load())
		time.Sleep(time.Hour) // the first call returns
		status, err = flightSend(t.Context(), rt)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, status)
		assert.EqualValues(t, 2, is.calls.Load())
	})
}

// The caller has the 401.
func TestRefreshTimeoutReturnsThe401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := flightDeaf("", time.Hour)
		cred := holding(t, is, reauth.Token{AccessToken: "T0"})
		rt := flightTransport(cred, accepting("T1"))
		ctx, outcome := reauth.WithOutcome(t.Context())
		begin := time.Now()
		status, err := flightSend(ctx, rt)
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.Equal(t, 30*time.Second, time.Since(begin), "the default")
		assert.ErrorIs(t, outcome().Err, context.DeadlineExceeded)
		time.Sleep(2 * time.Hour)
	})
}

func TestRefreshLateTokenIsUsed(t *testing.T) {
	for _, rt := range []string{"", "r1"} {
		t.Run("refresh token "+rt, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := flightDeaf(rt, time.Minute)
				cred := holding(t, is, reauth.Token{AccessToken: "T0", RefreshToken: rt})
				tr := flightTransport(cred, accepting("T1"))
				status, err := flightSend(t.Context(), tr)
				require.NoError(t, err)
				require.Equal(t, http.StatusUnauthorized, status)
				time.Sleep(time.Minute)
				status, err = flightSend(t.Context(), tr)
				require.NoError(t, err)
				assert.Equal(t, http.StatusOK, status)
				assert.EqualValues(t, 1, is.calls.Load())
				tok, err := cred.Current()
				assert.NoError(t, err, "the timeout is over and done with")
				assert.Equal(t, "T1", tok.AccessToken)
			})
		})
	}
}

func TestRefreshTokenInOneCallAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := flightDeaf("r1", 2*time.Minute, 0)
		cred := &reauth.Credential{Refresher: is, Logger: discard}
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0", RefreshToken: "r1"}))
		rt := flightTransport(cred, accepting("T2"))
		start := time.Now()
		for time.Since(start) < 90*time.Second {
			begin := time.Now()
			status, err := flightSend(t.Context(), rt)
			require.NoError(t, err)
			require.Equal(t, http.StatusUnauthorized, status)
			require.EqualValues(t, 1, is.calls.Load(), "the first call has not returned")
			require.LessOrEqual(t, time.Since(begin), 30*time.Second)
			time.Sleep(time.Second)
		}
		begin := time.Now()
		_, err := flightSend(t.Context(), rt)
		require.NoError(t, err)
		assert.Zero(t, time.Since(begin), "who cannot be helped is told so at once")
		time.Sleep(time.Minute) // the first call returns T1, which is dead already
		status, err := flightSend(t.Context(), rt)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, status, "now the refresh token is free again")
		assert.EqualValues(t, 2, is.calls.Load())
	})
}

// The late result of one call comes while another is under way. Those who
// wait for the other get one of the two tokens, at the latest when it returns.
func TestRefreshLateTokenDuringTheNextRefresh(t *testing.T) {
	tests := []struct {
		name   string
		second func() (reauth.Token, error)
	}{
		{"which succeeds", func() (reauth.Token, error) { return reauth.Token{AccessToken: "T2"}, nil }},
		{"which fails", func() (reauth.Token, error) { return reauth.Token{}, errors.New("issuer down") }},
		{"which panics", func() (reauth.Token, error) { panic("issuer down") }},
	}
	for _, tt := range tests {
		for _, revoked := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s revoked=%v", tt.name, revoked), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := &issuer{do: func(_ context.Context, n int, _ reauth.Stale) (reauth.Token, error) {
						if n == 1 {
							time.Sleep(35 * time.Second)
							return reauth.Token{AccessToken: "T1"}, nil
						}
						time.Sleep(10 * time.Second)
						return tt.second()
					}}
					cred := &reauth.Credential{Refresher: is, Logger: discard}
					if revoked {
						require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0"}))
					}
					rt := flightTransport(cred, accepting("T1", "T2"))
					_, _ = flightSend(t.Context(), rt) // 30 s, in vain
					time.Sleep(time.Second)
					all := flightAll(10, func(i int) (_ int, err error) {
						defer func() {
							if v := recover(); v != nil {
								err = fmt.Errorf("panic: %v", v)
							}
						}()
						return flightSend(t.Context(), rt)
					})
					require.EqualValues(t, 2, is.calls.Load())
					flightSlowest(t, all)
					time.Sleep(time.Minute)
					status, err := flightSend(t.Context(), rt)
					assert.NoError(t, err)
					assert.Equal(t, http.StatusOK, status)
					assert.EqualValues(t, 2, is.calls.Load(), "there is a token")
				})
			})
		}
	}
}

func TestRefreshLateTokenAfterSetOrClear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := flightDeaf("r1", time.Minute)
		cred := holding(t, is, reauth.Token{AccessToken: "T0", RefreshToken: "r0"})
		_, err := cred.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "T0"}, Rejection: reauth.Rejection{Reason: reauth.ReasonInvalidToken}})
		require.Error(t, err)
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "login"}))
		time.Sleep(time.Hour)
		tok, err := cred.Current()
		assert.NoError(t, err)
		assert.Equal(t, reauth.Token{AccessToken: "login"}.Fingerprint(), tok.Fingerprint())
		assert.Empty(t, tok.RefreshToken)
	})
	synctest.Test(t, func(t *testing.T) {
		is := flightDeaf("r1", time.Minute)
		cred := holding(t, is, reauth.Token{AccessToken: "T0", RefreshToken: "r0"})
		_, err := cred.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "T0"}, Rejection: reauth.Rejection{Reason: reauth.ReasonInvalidToken}})
		require.Error(t, err)
		require.NoError(t, cred.Clear(t.Context()))
		time.Sleep(time.Hour)
		tok, err := cred.Current()
		assert.Equal(t, reauth.ErrLoggedOut, err)
		assert.Zero(t, tok)
	})
}

// A negative timeout is none.
func TestRefreshWithoutATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := flightDeaf("", 24*time.Hour)
		cred := &reauth.Credential{Refresher: is, Logger: discard, RefreshTimeout: -1}
		status, err := flightSend(t.Context(), flightTransport(cred, accepting("T1")))
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, status)
	})
}

func TestRefresherPanics(t *testing.T) {
	const secret = "hunter2-correct-horse"
	tests := []struct {
		name string
		call func()
		want string
	}{
		{"nil map", func() { noMap()["x"]++ }, "nil map"},
		{"nil pointer", func() { var p *reauth.Token; _ = p.AccessToken }, "nil pointer"},
		{"error value", func() { panic(fmt.Errorf("login with %s failed", secret)) }, "panicked"},
		{"string", func() { panic("password " + secret) }, "panicked with a string"},
		{"token", func() { panic(reauth.Token{AccessToken: secret}) }, "reauth.Token"},
		{"nil", func() { panic(nil) }, "panic"},
		{"Goexit", runtime.Goexit, "Goexit"},
		{"abort", func() { panic(http.ErrAbortHandler) }, "panicked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := &issuer{do: func(_ context.Context, n int, _ reauth.Stale) (reauth.Token, error) {
					time.Sleep(time.Second)
					if n == 1 {
						tt.call()
					}
					return reauth.Token{AccessToken: "T1"}, nil
				}}
				var log journal
				cred := &reauth.Credential{Refresher: is, Logger: log.logger()}
				rt := flightTransport(cred, accepting("T1"))
				for _, r := range flightAll(20, func(int) (int, error) { return flightSend(t.Context(), rt) }) {
					var failed *reauth.RefreshError
					require.ErrorAs(t, r.err, &failed)
					assert.Contains(t, r.err.Error(), tt.want)
					for err := r.err; err != nil; err = errors.Unwrap(err) {
						assert.NotContains(t, fmt.Sprintf("%v %+v %q", err, err, err), secret)
					}
					assert.Equal(t, time.Second, r.took)
				}
				require.Len(t, log.records(t, slog.LevelWarn), 1)
				assert.NotContains(t, log.text(), secret)

				time.Sleep(time.Second)
				status, err := flightSend(t.Context(), rt)
				require.NoError(t, err)
				assert.Equal(t, http.StatusOK, status)
				assert.NoError(t, cred.Shutdown(t.Context()), "nothing is left under way")
			})
		})
	}
}

func TestRefresherPanicsAfterA401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cred := holding(t, reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) { panic("no") }), reauth.Token{AccessToken: "T0"})
		ctx, outcome := reauth.WithOutcome(t.Context())
		status, err := flightSend(ctx, flightTransport(cred, accepting()))
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.Error(t, outcome().Err)
	})
}

func TestRefreshFailureReachesAllWaitersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("issuer down")
		is := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
			time.Sleep(10 * time.Second)
			return reauth.Token{}, down
		}}
		cred := &reauth.Credential{Refresher: is, Logger: discard, MinBackoff: time.Minute}
		rt := flightTransport(cred, accepting())
		for i, r := range flightAll(50, func(i int) (int, error) {
			time.Sleep(time.Duration(i) * time.Millisecond)
			return flightSend(t.Context(), rt)
		}) {
			assert.ErrorIs(t, r.err, down, "caller %d", i)
			assert.Equal(t, 10*time.Second, r.took, "caller %d", i)
		}
		begin := time.Now()
		_, err := flightSend(t.Context(), rt)
		assert.ErrorIs(t, err, down)
		assert.Zero(t, time.Since(begin), "who comes later gets the last answer")
		assert.EqualValues(t, 1, is.calls.Load())
	})
}

func TestRefreshThroughTheSameClient(t *testing.T) {
	tests := []struct {
		name string
		held reauth.Token
		wrap func(*reauth.Transport)
	}{
		{"first", reauth.Token{RefreshToken: "r0"}, nil},
		{"revoked", reauth.Token{AccessToken: "T0"}, nil},
		{"revoked, CredentialFor", reauth.Token{AccessToken: "T0"}, func(rt *reauth.Transport) {
			cred := rt.Credential
			rt.Credential, rt.CredentialFor = nil, func(*http.Request) (*reauth.Credential, error) { return cred, nil }
		}},
		{"ahead of expiry", reauth.Token{AccessToken: "T0", Expiry: time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC)}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var client *http.Client
				var logins []string
				cred := holding(t, reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://api.example.com/login", strings.NewReader("user"))
					if err != nil {
						return reauth.Token{}, err
					}
					resp, err := client.Do(req)
					if err != nil {
						return reauth.Token{}, err
					}
					return reauth.Token{AccessToken: resp.Header.Get("X-Token")}, resp.Body.Close()
				}), tt.held)
				server := accepting("T1")
				if tt.name == "ahead of expiry" {
					server = accepting("T0", "T1")
				}
				rt := flightTransport(cred, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if req.URL.Path == "/login" {
						logins = append(logins, req.Header.Get("Authorization"))
						return answer(req, http.StatusOK, "", "X-Token", "T1"), nil
					}
					return server.RoundTrip(req)
				}))
				if tt.wrap != nil {
					tt.wrap(rt)
				}
				client = &http.Client{Transport: rt}
				begin := time.Now()
				time.Sleep(50 * time.Second) // where there is an expiry, it is near now
				status, err := flightSend(t.Context(), rt)
				require.NoError(t, err)
				assert.Equal(t, http.StatusOK, status)
				synctest.Wait()
				assert.Equal(t, []string{""}, logins, "one login, without a token")
				assert.Less(t, time.Since(begin), 51*time.Second)
				tok, _ := cred.Current()
				assert.Equal(t, "T1", tok.AccessToken)
			})
		})
	}
}

func TestRefresherAsksItsOwnCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cred *reauth.Credential
		var errs [2]error
		is := &issuer{do: func(ctx context.Context, _ int, stale reauth.Stale) (reauth.Token, error) {
			_, errs[0] = cred.Token(ctx)
			_, errs[1] = cred.Refresh(ctx, reauth.Stale{Token: stale.Token, Rejection: stale.Rejection})
			return reauth.Token{AccessToken: "T1"}, nil
		}}
		cred = holding(t, is, reauth.Token{AccessToken: "T0", Expiry: time.Now()})
		begin := time.Now()
		status, err := flightSend(t.Context(), flightTransport(cred, accepting("T1")))
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, status)
		assert.ErrorContains(t, errs[0], "its own Credential")
		assert.ErrorContains(t, errs[1], "its own Credential")
		assert.Zero(t, time.Since(begin), "nobody waited for a timeout")
		assert.EqualValues(t, 1, is.calls.Load())
	})
}

// A 401 on the login itself is the Refresher's to read.
func TestRefreshThroughTheSameClientIsRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var client *http.Client
		is := &issuer{do: func(ctx context.Context, _ int, _ reauth.Stale) (reauth.Token, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, flightURL, nil)
			if err != nil {
				return reauth.Token{}, err
			}
			resp, err := client.Do(req)
			if err != nil {
				return reauth.Token{}, err
			}
			return reauth.Token{}, fmt.Errorf("login: status %d", resp.StatusCode)
		}}
		cred := holding(t, is, reauth.Token{AccessToken: "T0"})
		server := accepting()
		client = &http.Client{Transport: flightTransport(cred, server)}
		status, err := flightSend(t.Context(), client.Transport)
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.EqualValues(t, 1, is.calls.Load())
		assert.EqualValues(t, 2, server.sends.Load(), "the request and the login")
	})
}

// A logs in at an API that wants B's token, and B at one that wants A's.
func TestRefreshNestedCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clients := map[string]*http.Client{}
		sent := map[string][]string{}
		var mu sync.Mutex
		login := func(as, with string) *issuer {
			return &issuer{do: func(ctx context.Context, n int, _ reauth.Stale) (reauth.Token, error) {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example.com/login/"+as, nil)
				if err != nil {
					return reauth.Token{}, err
				}
				resp, err := clients[with].Do(req)
				if err != nil {
					return reauth.Token{}, err
				}
				return reauth.Token{AccessToken: fmt.Sprint(as, n)}, resp.Body.Close()
			}}
		}
		a, b := login("A", "B"), login("B", "A")
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			sent[req.URL.Path] = append(sent[req.URL.Path], req.Header.Get("Authorization"))
			return answer(req, http.StatusOK, ""), nil
		})
		clients["A"] = &http.Client{Transport: flightTransport(&reauth.Credential{Refresher: a, Logger: discard}, base)}
		clients["B"] = &http.Client{Transport: flightTransport(&reauth.Credential{Refresher: b, Logger: discard}, base)}

		begin := time.Now()
		for range 3 {
			status, err := flightSend(t.Context(), clients["A"].Transport)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, status)
		}
		assert.Equal(t, map[string][]string{
			"/v1/models": {"Bearer A1", "Bearer A1", "Bearer A1"},
			"/login/A":   {"Bearer B1"},
			"/login/B":   {""}, // A's refresh would wait for itself
		}, sent)
		assert.Zero(t, time.Since(begin))
		assert.EqualValues(t, 1, a.calls.Load())
		assert.EqualValues(t, 1, b.calls.Load())
	})
}

// A rejected token of the inner Credential is refreshed inside of the outer refresh.
func TestRefreshNestedCredentialsInnerRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &issuer{}
		login := flightTransport(holding(t, inner, reauth.Token{AccessToken: "T0"}), accepting("T1"))
		outer := &issuer{do: func(ctx context.Context, _ int, _ reauth.Stale) (reauth.Token, error) {
			status, err := flightSend(ctx, login)
			return reauth.Token{AccessToken: fmt.Sprint("status", status)}, err
		}}
		rt := flightTransport(holding(t, outer, reauth.Token{AccessToken: "dead"}), accepting("status200"))
		flightSlowest(t, flightAll(50, func(int) (int, error) { return flightSend(t.Context(), rt) }))
		assert.EqualValues(t, 1, outer.calls.Load())
		assert.EqualValues(t, 1, inner.calls.Load())
	})
}

func TestRefreshInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{do: func(ctx context.Context, _ int, _ reauth.Stale) (reauth.Token, error) {
			end, ok := ctx.Deadline()
			assert.True(t, ok, "it has a deadline")
			assert.Equal(t, 30*time.Second, time.Until(end))
			select {
			case <-time.After(20 * time.Second):
				return reauth.Token{AccessToken: "T1"}, nil
			case <-ctx.Done():
				return reauth.Token{}, ctx.Err()
			}
		}}
		cred := flightAhead(t, is)
		rt := flightTransport(cred, accepting("T0", "T1"))
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		flightSlowest(t, flightAll(100, func(int) (int, error) { return flightSend(ctx, rt) }))
		assert.Zero(t, time.Since(begin), "nobody waited")
		cancel()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		tok, err := cred.Current()
		assert.NoError(t, err)
		assert.Equal(t, "T1", tok.AccessToken)
		assert.EqualValues(t, 1, is.calls.Load())
	})
}

func TestRefreshInTheBackgroundPanics(t *testing.T) {
	for name, call := range map[string]func(){"panic": func() { panic("no") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
					call()
					return reauth.Token{}, nil
				}}
				cred := flightAhead(t, is)
				rt := flightTransport(cred, accepting("T0"))
				for range 10 {
					status, err := flightSend(t.Context(), rt)
					require.NoError(t, err)
					require.Equal(t, http.StatusOK, status)
					synctest.Wait()
				}
				assert.EqualValues(t, 1, is.calls.Load(), "and is paced")
			})
		})
	}
}

func TestRefreshDuringAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{}
		cred := holding(t, is, reauth.Token{AccessToken: "T0"})
		server := accepting("T1")
		events, feed := io.Pipe()
		uploading := make(chan struct{})
		rt := flightTransport(cred, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			switch req.URL.Path {
			case "/events":
				resp := answer(req, http.StatusOK, "")
				resp.Body, resp.ContentLength = events, -1
				return resp, nil
			case "/upload":
				close(uploading)
				return answer(req, http.StatusOK, ""), nil // when the body ends
			case "/endless":
				resp := answer(req, http.StatusUnauthorized, "")
				resp.Body, _ = io.Pipe()
				return resp, nil
			}
			return server.RoundTrip(req)
		}))
		// A Classifier that looks at every response must not wait for the bodies.
		rt.Classifier = reauth.ClassifierFunc(func(resp *http.Response, _ func() []byte) reauth.Rejection {
			if resp.StatusCode == http.StatusUnauthorized {
				return reauth.Rejection{Reason: reauth.ReasonInvalidToken}
			}
			return reauth.Rejection{}
		})
		do := func(method, path string, body io.Reader) (*http.Response, error) {
			req, err := http.NewRequestWithContext(t.Context(), method, "https://api.example.com"+path, body)
			if err != nil {
				return nil, err
			}
			return rt.RoundTrip(req)
		}

		begin := time.Now()
		stream, err := do(http.MethodGet, "/events", nil)
		require.NoError(t, err)
		require.Zero(t, time.Since(begin))
		source, end := io.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			resp, err := do(http.MethodPost, "/upload", source)
			if assert.NoError(t, err) {
				assert.NoError(t, resp.Body.Close())
			}
		})
		<-uploading
		wg.Go(func() { // a rejection whose body does not end
			_, err := do(http.MethodGet, "/endless", nil)
			assert.NoError(t, err)
		})
		synctest.Wait()

		slowest := flightSlowest(t, flightAll(10, func(int) (int, error) { return flightSend(t.Context(), rt) }))
		assert.LessOrEqual(t, slowest, 150*time.Millisecond, "refresh and wait")
		assert.EqualValues(t, 1, is.calls.Load())

		go func() { _, _ = feed.Write([]byte("still here")); _ = feed.Close(); _ = end.Close() }()
		got, err := io.ReadAll(stream.Body)
		require.NoError(t, err)
		assert.Equal(t, "still here", string(got), "the stream goes on")
		wg.Wait()
	})
}

// A background refresh that brings the same token again knew nothing of
// the revocation, so one that does follows.
func TestRefreshInTheBackgroundJoinedByARejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{do: func(_ context.Context, _ int, stale reauth.Stale) (reauth.Token, error) {
			time.Sleep(time.Second)
			if stale.Rejection.Reason == "" {
				return stale.Token, nil
			}
			return reauth.Token{AccessToken: "T1"}, nil
		}}
		cred := flightAhead(t, is)
		server := accepting("T0")
		rt := flightTransport(cred, server)
		_, err := flightSend(t.Context(), rt)
		require.NoError(t, err)
		server.valid = func(tok string) bool { return tok == "T1" }
		slowest := flightSlowest(t, flightAll(20, func(int) (int, error) { return flightSend(t.Context(), rt) }))
		assert.LessOrEqual(t, slowest, 2*time.Second+150*time.Millisecond)
		assert.EqualValues(t, 2, is.calls.Load())
	})
}

func TestRefreshContextIsNotARequests(t *testing.T) {
	tests := []struct {
		name string
		cred func(*testing.T, *issuer) *reauth.Credential
		want error // of the request, which ends after a second
	}{
		{"ahead of expiry", flightAhead, nil},
		{"first", func(_ *testing.T, is *issuer) *reauth.Credential {
			return &reauth.Credential{Refresher: is, Logger: discard}
		}, context.DeadlineExceeded},
		{"revoked", func(t *testing.T, is *issuer) *reauth.Credential {
			return holding(t, is, reauth.Token{AccessToken: "dead"})
		}, context.DeadlineExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				looks := func(ctx context.Context) {
					assert.Nil(t, ctx.Value(flightKey{}), "a value of the request")
					assert.Nil(t, httptrace.ContextClientTrace(ctx), "the trace of the request")
				}
				tokenEndpoint := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					looks(req.Context())
					return answer(req, http.StatusOK, ""), nil
				})}
				is := &issuer{do: func(ctx context.Context, _ int, _ reauth.Stale) (reauth.Token, error) {
					for range 5 {
						looks(ctx)
						req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://issuer.example.com/token", nil)
						if err != nil {
							return reauth.Token{}, err
						}
						resp, err := tokenEndpoint.Do(req)
						if err != nil {
							return reauth.Token{}, err
						}
						_ = resp.Body.Close()
						time.Sleep(time.Second)
					}
					return reauth.Token{AccessToken: "T1"}, ctx.Err()
				}}
				cred := tt.cred(t, is)
				cred.OnRefresh = func(context.Context, reauth.RefreshInfo) {}
				traced := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GetConn: func(string) { t.Error("the trace saw the token call") }})
				ends, cancel := context.WithTimeout(traced, 1500*time.Millisecond)
				ctx := &flightReused{Context: ends, keys: map[any]any{flightKey{}: "alice"}}
				_, err := flightSend(ctx, flightTransport(cred, accepting("T0", "T1")))
				assert.Equal(t, tt.want, err)
				ctx.reuse()
				cancel()
				time.Sleep(10 * time.Second)
				tok, err := cred.Current()
				assert.NoError(t, err)
				assert.Equal(t, "T1", tok.AccessToken)
				assert.Zero(t, ctx.late.Load(), "looks at the context of a request that is over")
			})
		})
	}
}

// What a refresh does see.
func TestRefreshRunsOnBaseContext(t *testing.T) {
	cause := errors.New("shutting down")
	tests := []struct {
		name string
		base func() context.Context
		see  any
		err  error
	}{
		{"no func", nil, nil, nil},
		{"nil", func() context.Context { return nil }, nil, nil},
		{"with a value", func() context.Context { return context.WithValue(context.Background(), flightKey{}, "process") }, "process", nil},
		{"that ended", func() context.Context {
			ctx, cancel := context.WithCancelCause(context.Background())
			cancel(cause)
			return ctx
		}, nil, cause},
		{"that ends", func() context.Context {
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(time.Second, func() { cancel(cause) })
			return ctx
		}, nil, cause},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := &issuer{do: func(ctx context.Context, _ int, _ reauth.Stale) (reauth.Token, error) {
					assert.Equal(t, tt.see, ctx.Value(flightKey{}))
					select {
					case <-time.After(2 * time.Second):
						return reauth.Token{AccessToken: "T1"}, nil
					case <-ctx.Done():
						return reauth.Token{}, context.Cause(ctx)
					}
				}}
				cred := &reauth.Credential{Refresher: is, Logger: discard, BaseContext: tt.base}
				ctx := context.WithValue(t.Context(), flightKey{}, "request")
				_, err := flightSend(ctx, flightTransport(cred, accepting("T1")))
				if tt.err == nil {
					assert.NoError(t, err)
					return
				}
				var failed *reauth.RefreshError
				require.ErrorAs(t, err, &failed)
				assert.ErrorIs(t, err, tt.err)
				assert.False(t, failed.Permanent())
			})
		})
	}
}

// What BaseContext puts into the context of a refresh is seen by its Refresher and its
// OnRefresh, and by no other refresh.
func TestRefreshHasABaseContextOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bases int
		var seen []any
		cred := &reauth.Credential{
			Logger: discard,
			Refresher: reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
				seen = append(seen, ctx.Value(flightKey{}))
				if stale.Token.AccessToken == "" {
					return reauth.Token{AccessToken: "T1"}, nil
				}
				return reauth.Token{}, errors.New("refused")
			}),
			BaseContext: func() context.Context {
				bases++
				return context.WithValue(context.Background(), flightKey{}, bases)
			},
			OnRefresh: func(ctx context.Context, _ reauth.RefreshInfo) { seen = append(seen, ctx.Value(flightKey{})) },
		}
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		_, err = cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
		require.Error(t, err)
		assert.Equal(t, []any{1, 1, 2, 2}, seen)
		assert.Equal(t, 2, bases)
	})
}

// The process lives, whichever of the hooks panics.
func TestRefreshBaseContextPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var once sync.Once
		cred := &reauth.Credential{Refresher: &issuer{}, Logger: discard, BaseContext: func() context.Context {
			once.Do(func() { panic("not yet") })
			return context.Background()
		}}
		rt := flightTransport(cred, accepting("T1"))
		_, err := flightSend(t.Context(), rt)
		var failed *reauth.RefreshError
		require.ErrorAs(t, err, &failed)
		time.Sleep(time.Second)
		_, err = flightSend(t.Context(), rt)
		assert.NoError(t, err)
	})
}

func TestRefreshOnTheOnlyConnection(t *testing.T) {
	for _, size := range []int{0, 100, 32 << 10} {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				switch {
				case req.URL.Path == "/token":
					_, _ = io.WriteString(w, "T1")
				case req.Header.Get("Authorization") != "Bearer T1":
					w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
					w.WriteHeader(http.StatusUnauthorized)
					_, _ = io.WriteString(w, strings.Repeat(" ", size))
				}
			}))
			defer server.Close()
			base := &http.Transport{MaxConnsPerHost: 1}
			defer base.CloseIdleConnections()
			is := &issuer{do: func(ctx context.Context, _ int, _ reauth.Stale) (reauth.Token, error) {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/token", nil)
				if err != nil {
					return reauth.Token{}, err
				}
				resp, err := base.RoundTrip(req)
				if err != nil {
					return reauth.Token{}, err
				}
				defer func() { _ = resp.Body.Close() }()
				tok, err := io.ReadAll(resp.Body)
				return reauth.Token{AccessToken: string(tok)}, err
			}}
			cred := holding(t, is, reauth.Token{AccessToken: "T0"})
			rt := flightTransport(cred, base)
			rt.Classifier = reauth.ClassifierFunc(func(resp *http.Response, _ func() []byte) reauth.Rejection {
				if resp.StatusCode == http.StatusUnauthorized { // decided on the headers
					return reauth.Rejection{Reason: reauth.ReasonInvalidToken}
				}
				return reauth.Rejection{}
			})
			var all []flightResult
			within(t, 20*time.Second, func() { // RefreshTimeout is 30 s
				all = flightAll(10, func(int) (int, error) {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
					if err != nil {
						return 0, err
					}
					resp, err := rt.RoundTrip(req)
					if err != nil {
						return 0, err
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					return resp.StatusCode, resp.Body.Close()
				})
			})
			flightSlowest(t, all)
			assert.EqualValues(t, 1, is.calls.Load())
		})
	}
}

// In the order of a clock. The bubble does not end as long as a goroutine
// is left.
func TestRefreshRandomRevocations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flightRevocations(t, func() { time.Sleep(rand.N(20 * time.Millisecond)) }, 10*time.Millisecond)
	})
}

// In no order at all.
func TestRefreshRandomRevocationsInRealTime(t *testing.T) {
	before := runtime.NumGoroutine()
	within(t, time.Minute, func() { flightRevocations(t, runtime.Gosched, -1) })
	flightNoneLeft(t, before)
}

// The hook comes before those who waited go on, and its result is in
// force.
func TestOnRefreshMayAskTheCredential(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprintf("fails=%v", fails), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				down := errors.New("issuer down")
				is := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
					time.Sleep(time.Second)
					if fails {
						return reauth.Token{}, down
					}
					return reauth.Token{AccessToken: "T1"}, nil
				}}
				var served, told atomic.Int32
				cred := &reauth.Credential{Refresher: is, Logger: discard, MinBackoff: time.Minute}
				cred.OnRefresh = func(_ context.Context, e reauth.RefreshInfo) {
					time.Sleep(time.Second)
					assert.Zero(t, served.Load(), "somebody went on before the hook was done")
					tok, err := cred.Token(t.Context())
					held, why := cred.Current()
					if fails {
						assert.ErrorIs(t, e.Err, down)
						assert.ErrorIs(t, err, down)
						assert.ErrorIs(t, why, down)
						assert.Empty(t, e.Token)
					} else {
						assert.NoError(t, e.Err)
						assert.NoError(t, err)
						assert.NoError(t, why)
						assert.Equal(t, "T1", tok.AccessToken)
						assert.Equal(t, "T1", held.AccessToken)
						assert.Equal(t, tok.Fingerprint(), e.Token)
					}
					told.Add(1)
				}
				rt := flightTransport(cred, accepting("T1"))
				for _, r := range flightAll(10, func(int) (int, error) {
					defer served.Add(1)
					return flightSend(t.Context(), rt)
				}) {
					assert.Equal(t, fails, r.err != nil)
					assert.Equal(t, 2*time.Second, r.took)
				}
				assert.EqualValues(t, 1, told.Load())
			})
		})
	}
}

func TestOnRefreshPanics(t *testing.T) {
	const secret = "hunter2-correct-horse"
	for name, call := range map[string]func(){"panic": func() { panic(secret) }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log journal
				is := &issuer{}
				cred := &reauth.Credential{Refresher: is, Logger: log.logger(), OnRefresh: func(context.Context, reauth.RefreshInfo) { call() }}
				rt := flightTransport(cred, accepting("T1"))
				flightSlowest(t, flightAll(20, func(int) (int, error) { return flightSend(t.Context(), rt) }))
				assert.EqualValues(t, 1, is.calls.Load())
				assert.NotContains(t, log.text(), secret)
				if name == "panic" {
					assert.Len(t, log.records(t, slog.LevelError), 1)
				}
				assert.NoError(t, cred.Shutdown(t.Context()), "nothing is left under way")
			})
		})
	}
}

// Each of them would hang if it were called with the lock held.
func TestHooksCalledWithoutALock(t *testing.T) {
	var cred *reauth.Credential
	var hooks sync.Map
	hook := func(name string) {
		hooks.Store(name, true)
		_, _ = cred.Current()
		_ = fmt.Sprint(cred)
	}
	is := &issuer{do: func(_ context.Context, n int, _ reauth.Stale) (reauth.Token, error) {
		hook("Refresh")
		if n == 1 {
			return reauth.Token{}, errors.New("issuer down")
		}
		return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
	}}
	log := slog.New(flightHandler{slog.DiscardHandler, func() { hook("Logger") }})
	cred = &reauth.Credential{
		Refresher:   is,
		Logger:      log,
		MinBackoff:  -1,
		BaseContext: func() context.Context { hook("BaseContext"); return nil },
		OnRefresh:   func(context.Context, reauth.RefreshInfo) { hook("OnRefresh") },
	}
	rt := flightTransport(cred, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		hook("Base")
		return accepting("T3").RoundTrip(req)
	}))
	rt.Logger, rt.RetryWait = log, -1
	rt.OnOutcome = func(context.Context, reauth.Outcome) { hook("OnOutcome") }
	within(t, 10*time.Second, func() {
		for range 3 {
			_, _ = flightSend(context.Background(), rt)
		}
	})
	for _, name := range []string{"Refresh", "Logger", "BaseContext", "OnRefresh", "Base", "OnOutcome"} {
		_, called := hooks.Load(name)
		assert.True(t, called, name)
	}
}

func TestIdleCredentialRefreshesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{}
		cred := holding(t, is, reauth.Token{AccessToken: "T0", Expiry: time.Now().Add(time.Hour)})
		status, err := flightSend(t.Context(), flightTransport(cred, accepting("T0")))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status)
		time.Sleep(48 * time.Hour)
		assert.Zero(t, is.calls.Load())
	})
}
