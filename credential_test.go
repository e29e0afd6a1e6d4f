package reauth_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

func (c sessionMoment) Value(key any) any { c.now(); return c.Context.Value(key) }

// A sessionMoment is a context that does something when it is asked for a value.
type sessionMoment struct {
	context.Context
	now func()
}

// sessionSlow is an issuer that needs d, whatever its context says, and returns
// Tn with the refresh token rn.
func sessionSlow(d time.Duration) *issuer {
	return &issuer{do: func(_ context.Context, n int, _ reauth.Stale) (reauth.Token, error) {
		time.Sleep(d)
		return reauth.Token{AccessToken: fmt.Sprint("T", n), RefreshToken: fmt.Sprint("r", n)}, nil
	}}
}

// Bad input of the contract: a nil Refresher matters only once it is asked.
func TestCredentialWithoutRefresherUsesItsToken(t *testing.T) {
	for _, r := range []reauth.Refresher{nil, (*secNilRefresher)(nil), reauth.RefresherFunc(nil)} {
		cred := holding(t, r, reauth.Token{AccessToken: secToken})
		assert.Equal(t, http.StatusOK, get(t, &reauth.Transport{Base: &secWire{}, Credential: cred, Logger: discard}, "https://api.example.com/").StatusCode)
		resp := get(t, &reauth.Transport{Base: accepting(), Credential: cred, Logger: discard}, "https://api.example.com/")
		assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		o, _ := reauth.OutcomeOf(resp)
		assert.ErrorContains(t, o.Err, "Credential.Refresher")
	}
}

func TestClearDuringRefresh(t *testing.T) {
	for _, revoked := range []bool{true, false} {
		t.Run(fmt.Sprintf("revoked=%v", revoked), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := sessionSlow(10 * time.Second)
				var events []reauth.RefreshInfo
				cred := &reauth.Credential{Refresher: is, Logger: discard, OnRefresh: func(_ context.Context, e reauth.RefreshInfo) { events = append(events, e) }}
				old := reauth.Token{RefreshToken: "r0"}
				if revoked {
					old.AccessToken = "T0"
				}
				require.NoError(t, cred.Set(t.Context(), old))
				rt := flightTransport(cred, accepting("T1", "T2"))
				time.AfterFunc(3*time.Second, func() { _ = cred.Clear(t.Context()) })
				for i, r := range flightAll(20, func(int) (int, error) {
					ctx, outcome := reauth.WithOutcome(t.Context())
					status, err := flightSend(ctx, rt)
					assert.Equal(t, reauth.ErrLoggedOut, outcome().Err)
					return status, err
				}) {
					assert.Equal(t, 3*time.Second, r.took, "caller %d: at once", i)
					if revoked {
						assert.NoError(t, r.err, "caller %d has the 401", i)
						assert.Equal(t, http.StatusUnauthorized, r.status, "caller %d", i)
					} else {
						assert.Equal(t, reauth.ErrLoggedOut, r.err, "caller %d", i)
					}
				}
				time.Sleep(time.Minute)
				tok, err := cred.Current()
				assert.Zero(t, tok)
				assert.Equal(t, reauth.ErrLoggedOut, err)
				require.Len(t, events, 1)
				assert.Equal(t, reauth.ErrLoggedOut, events[0].Err)
				assert.Empty(t, events[0].Token)
				assert.EqualValues(t, 1, is.calls.Load())
			})
		})
	}
}

// A logout when the refresh is done, but not yet reported.
func TestClearDuringOnRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cred *reauth.Credential
		cred = &reauth.Credential{Refresher: &issuer{}, Logger: discard, OnRefresh: func(context.Context, reauth.RefreshInfo) {
			assert.NoError(t, cred.Clear(t.Context()))
		}}
		server := accepting("T1")
		_, err := flightSend(t.Context(), flightTransport(cred, server))
		assert.Equal(t, reauth.ErrLoggedOut, err)
		assert.Zero(t, server.sends.Load())
		assert.Equal(t, [2]string{}, sessionPeek(cred))
	})
}

// The next login does not wait for the call of the session before.
func TestSetAfterClearDuringRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stales []reauth.Stale
		is := &issuer{do: func(_ context.Context, n int, stale reauth.Stale) (reauth.Token, error) {
			stales = append(stales, stale)
			if n == 1 {
				time.Sleep(time.Hour)
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n), RefreshToken: fmt.Sprint("r", n)}, nil
		}}
		cred := holding(t, is, reauth.Token{AccessToken: "T0", RefreshToken: "r0"})
		rt := flightTransport(cred, accepting("T2"))
		go func() { _, _ = flightSend(t.Context(), rt) }()
		synctest.Wait()
		require.NoError(t, cred.Clear(t.Context()))
		begin := time.Now()
		status, err := flightSend(t.Context(), rt)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, status)
		assert.Zero(t, time.Since(begin))
		require.Len(t, stales, 2)
		assert.Zero(t, stales[1], "the next session begins with a zero Stale")
		time.Sleep(2 * time.Hour)
		assert.Equal(t, [2]string{"T2", "r2"}, sessionPeek(cred))
	})
}

func TestSetDuringRefresh(t *testing.T) {
	tests := []struct {
		name string
		set  reauth.Token
		want [2]string
		took time.Duration
	}{
		{"with an access token", reauth.Token{AccessToken: "login", RefreshToken: "rl"}, [2]string{"login", "rl"}, 3 * time.Second},
		{"of a refresh token alone", reauth.Token{RefreshToken: "rl"}, [2]string{"T2", "r2"}, 13 * time.Second},
	}
	for _, tt := range tests {
		for _, revoked := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s revoked=%v", tt.name, revoked), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := sessionSlow(10 * time.Second)
					cred := &reauth.Credential{Refresher: is, Logger: discard}
					if revoked {
						require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0", RefreshToken: "r0"}))
					}
					rt := flightTransport(cred, accepting("login", "T2")) // T1 was refreshed from what is no more
					rt.RetryWait = -1
					time.AfterFunc(3*time.Second, func() { _ = cred.Set(t.Context(), tt.set) })
					all := flightAll(20, func(int) (int, error) { return flightSend(t.Context(), rt) })
					assert.Equal(t, tt.took, flightSlowest(t, all))
					time.Sleep(time.Minute)
					assert.Equal(t, tt.want, sessionPeek(cred))
				})
			})
		}
	}
}

// Also where the login comes from within the refresh.
func TestSetByTheRefresher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cred *reauth.Credential
		is := &issuer{do: func(ctx context.Context, _ int, _ reauth.Stale) (reauth.Token, error) {
			assert.NoError(t, cred.Set(ctx, reauth.Token{AccessToken: "login"}))
			return reauth.Token{}, errors.New("see Set")
		}}
		cred = &reauth.Credential{Refresher: is, Logger: discard}
		status, err := flightSend(t.Context(), flightTransport(cred, accepting("login")))
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, status)
		tok, err := cred.Current()
		assert.NoError(t, err, "the failure is of no interest any more")
		assert.Equal(t, "login", tok.AccessToken)
	})
}

// A login when the refresh is done, but not yet reported.
func TestSetDuringOnRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cred *reauth.Credential
		cred = &reauth.Credential{Refresher: &issuer{}, Logger: discard, OnRefresh: func(context.Context, reauth.RefreshInfo) {
			assert.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "login"}))
		}}
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "login", tok.AccessToken)
	})
}

func TestClearEndsEarlierRequests(t *testing.T) {
	for i := range 10 {
		moment := []string{"before its 401", "during the refresh", "during the hook", "during the wait", "when the retry picks its token"}[i/2]
		next := []string{"", "bob"}[i%2]
		t.Run(fmt.Sprintf("%s, next %q", moment, next), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var cred *reauth.Credential
				var once sync.Once
				at := func(m string) {
					if m == moment {
						once.Do(func() {
							assert.NoError(t, cred.Clear(t.Context()))
							if next != "" {
								assert.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: next}))
							}
						})
					}
				}
				var sent []string
				var renewed atomic.Bool
				is := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
					renewed.Store(true)
					at("during the refresh")
					time.AfterFunc(500*time.Millisecond, func() { at("during the wait") })
					// It expires during the wait, so that the retry has to look for another.
					return reauth.Token{AccessToken: "alice-2", Expiry: time.Now().Add(time.Second)}, nil
				}}
				cred = holding(t, is, reauth.Token{AccessToken: "alice-1"})
				cred.OnRefresh = func(context.Context, reauth.RefreshInfo) { at("during the hook") }
				rt := flightTransport(cred, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					sent = append(sent, strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "))
					at("before its 401")
					return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer error="invalid_token"`, "Retry-After", "1"), nil
				}))
				begin := time.Now()
				ctx, outcome := reauth.WithOutcome(t.Context())
				status, err := flightSend(sessionMoment{ctx, func() {
					if renewed.Load() && time.Since(begin) >= time.Second {
						at("when the retry picks its token")
					}
				}}, rt)
				require.NoError(t, err)
				assert.Equal(t, http.StatusUnauthorized, status)
				assert.Equal(t, []string{"alice-1"}, sent)
				assert.Equal(t, reauth.ErrLoggedOut, outcome().Err)
				synctest.Wait()                                 // Clear may have released the request before Set
				if moment != "when the retry picks its token" { // then it may be too late to leave the issuer alone
					assert.Equal(t, [2]string{next, ""}, sessionPeek(cred))
					assert.LessOrEqual(t, is.calls.Load(), int32(1), "nobody logs in for a request of the past")
				}
			})
		})
	}
}

// The same token in the next session is not the same login.
func TestClearEndsEarlierRequestsOfTheSameToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{}
		cred := holding(t, is, reauth.Token{AccessToken: "T0"})
		before, err := cred.Token(t.Context())
		require.NoError(t, err)
		require.NoError(t, cred.Clear(t.Context()))
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0"}))
		_, err = cred.Refresh(t.Context(), reauth.Stale{Token: before, Rejection: sessionRejected})
		assert.Equal(t, reauth.ErrLoggedOut, err)
		after, err := cred.Token(t.Context())
		require.NoError(t, err)
		got, err := cred.Refresh(t.Context(), reauth.Stale{Token: after, Rejection: sessionRejected})
		require.NoError(t, err, "that of the new session is cured")
		assert.Equal(t, "T1", got.AccessToken)
		assert.EqualValues(t, 1, is.calls.Load())
	})
}

// Also for a token of which the caller of Refresh kept only the text.
func TestClearEndsEarlierTokensByTheirText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{}
		cred := holding(t, is, reauth.Token{AccessToken: "T0"})
		require.NoError(t, cred.Clear(t.Context()))
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "bob"}))
		tok, err := cred.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "T0"}, Rejection: sessionRejected})
		assert.Equal(t, reauth.ErrLoggedOut, err)
		assert.Zero(t, tok)
		assert.Zero(t, is.calls.Load())
	})
}

// Logins and logouts at random.
func TestClearKeepsIdentitiesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var person atomic.Int32
		login := func() reauth.Token {
			return reauth.Token{AccessToken: fmt.Sprintf("p%d-0", person.Load()), RefreshToken: fmt.Sprintf("r%d", person.Load())}
		}
		is := &issuer{do: func(_ context.Context, n int, stale reauth.Stale) (reauth.Token, error) {
			time.Sleep(rand.N(10 * time.Millisecond))
			if stale.Token.AccessToken == "" {
				return reauth.Token{}, errors.New("nobody is logged in")
			}
			who, _, _ := strings.Cut(stale.Token.AccessToken, "-")
			return reauth.Token{AccessToken: fmt.Sprint(who, "-", n)}, nil
		}}
		cred := &reauth.Credential{Refresher: is, Logger: discard, MinBackoff: -1}
		require.NoError(t, cred.Set(t.Context(), login()))
		var mu sync.Mutex
		sent := map[string][]string{}
		rt := flightTransport(cred, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			who, _, _ := strings.Cut(req.Header.Get("Authorization"), "-")
			mu.Lock()
			sent[req.URL.Path] = append(sent[req.URL.Path], who)
			mu.Unlock()
			time.Sleep(rand.N(5 * time.Millisecond))
			if rand.N(2) == 0 {
				return answer(req, http.StatusUnauthorized, ""), nil
			}
			return answer(req, http.StatusOK, ""), nil
		}))
		rt.RetryWait = 5 * time.Millisecond

		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(rand.N(20 * time.Millisecond))
				person.Add(1)
				assert.NoError(t, cred.Clear(ctx))
				time.Sleep(rand.N(2 * time.Millisecond))
				assert.NoError(t, cred.Set(ctx, login()))
			}
		})
		flightAll(32, func(i int) (int, error) {
			for n := range 30 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("https://api.example.com/%d/%d", i, n), nil)
				if err != nil {
					return 0, err
				}
				if resp, err := rt.RoundTrip(req); err == nil {
					_ = resp.Body.Close()
				}
			}
			return 0, nil
		})
		stop()
		wg.Wait()
		require.NoError(t, cred.Shutdown(t.Context()))
		retried := 0
		for path, who := range sent {
			require.LessOrEqual(t, len(who), 2, path)
			if len(who) == 2 {
				retried++
				assert.Equal(t, who[0], who[1], path)
			}
		}
		assert.Greater(t, retried, 20, "or nothing was tried")
		assert.Greater(t, person.Load(), int32(5))
	})
}

func TestShutdownWaitsForTheRefresh(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("past its timeout=%v", late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took := 10 * time.Second
				if late {
					took = time.Minute
				}
				saved := time.Time{}
				cred := &reauth.Credential{Refresher: sessionSlow(took), Logger: discard, OnRefresh: func(_ context.Context, e reauth.RefreshInfo) {
					if e.Err == nil {
						time.Sleep(time.Second) // as a save would
						saved = time.Now()
					}
				}}
				rt := flightTransport(cred, accepting("T1"))
				begin := time.Now()
				go func() { _, _ = flightSend(t.Context(), rt) }()
				if late {
					time.Sleep(40 * time.Second)
				}
				synctest.Wait()
				for _, r := range flightAll(3, func(int) (int, error) { return 0, cred.Shutdown(t.Context()) }) {
					assert.NoError(t, r.err)
				}
				assert.Equal(t, took+time.Second, time.Since(begin))
				assert.False(t, saved.IsZero())
				status, err := flightSend(t.Context(), rt)
				require.NoError(t, err, "what it brought is used")
				assert.Equal(t, http.StatusOK, status)
			})
		})
	}
}

// Waiting requests are served; only no further refresh begins.
func TestShutdownLetsWaitersFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cred := &reauth.Credential{Refresher: sessionSlow(10 * time.Second), Logger: discard}
		rt := flightTransport(cred, accepting("T1"))
		time.AfterFunc(time.Second, func() { assert.NoError(t, cred.Shutdown(t.Context())) })
		assert.Equal(t, 10*time.Second, flightSlowest(t, flightAll(10, func(int) (int, error) { return flightSend(t.Context(), rt) })))
	})
}

func TestShutdownSaysWhatMayBeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cred := holding(t, sessionSlow(10*time.Second), reauth.Token{AccessToken: "T0", RefreshToken: "r0"})
		go func() {
			_, _ = cred.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "T0"}, Rejection: sessionRejected})
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		err := cred.Shutdown(ctx)
		assert.Equal(t, time.Second, time.Since(begin))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "may be lost")
		assert.NoError(t, cred.Shutdown(t.Context()), "and can be asked again")
		assert.Equal(t, 10*time.Second, time.Since(begin))
		assert.Equal(t, [2]string{"T1", "r1"}, sessionPeek(cred))
	})
}

func TestShutdownIdle(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		cred := holding(t, &issuer{}, reauth.Token{AccessToken: "T0"})
		assert.NoError(t, cred.Shutdown(ended))
		assert.NoError(t, cred.Shutdown(ended))
		assert.NoError(t, (&reauth.Credential{}).Shutdown(ended))
	}
}

func TestShutdownKeepsTheUsableToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{}
		cred := holding(t, is, reauth.Token{AccessToken: "T0", RefreshToken: "r0", Expiry: time.Now().Add(time.Hour)})
		require.NoError(t, cred.Shutdown(t.Context()))
		server := accepting("T0")
		rt := flightTransport(cred, server)
		for range 59 { // through the time in which it would be replaced
			status, err := flightSend(t.Context(), rt)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, status)
			time.Sleep(time.Minute)
		}
		assert.Equal(t, [2]string{"T0", "r0"}, sessionPeek(cred))

		server.valid = func(string) bool { return false }
		ctx, outcome := reauth.WithOutcome(t.Context())
		status, err := flightSend(ctx, rt)
		require.NoError(t, err, "the 401 is returned")
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.Equal(t, reauth.ErrClosed, outcome().Err)

		time.Sleep(time.Minute)
		sends := server.sends.Load()
		_, err = flightSend(t.Context(), rt)
		assert.Equal(t, reauth.ErrClosed, err, "it has expired")
		assert.Equal(t, sends, server.sends.Load())
		_, err = cred.Token(t.Context())
		assert.Equal(t, reauth.ErrClosed, err)
		tok, err := cred.Current()
		assert.Equal(t, reauth.ErrClosed, err, "why there is none better")
		assert.Equal(t, "T0", tok.AccessToken)
		assert.Equal(t, reauth.ErrClosed, cred.Set(t.Context(), reauth.Token{AccessToken: "T9"}))
		assert.NoError(t, cred.Clear(t.Context()), "a logout is still one")
		tok, err = cred.Current()
		assert.Error(t, err)
		assert.Zero(t, tok)
		_, err = flightSend(t.Context(), rt)
		assert.Equal(t, reauth.ErrClosed, err)
		assert.Zero(t, is.calls.Load())
	})
}

func TestSetUnusableToken(t *testing.T) {
	tests := []reauth.Token{
		{},
		{AccessToken: "to\nken"},
		{AccessToken: " x", RefreshToken: "r9"},
		{AccessToken: "two\nlines", RefreshToken: "r9"},
		{AccessToken: reauth.Placeholder},
		{Expiry: time.Now().Add(time.Hour)},
	}
	cred := holding(t, &issuer{}, reauth.Token{AccessToken: "T0", RefreshToken: "r0"})
	for _, tok := range tests {
		err := cred.Set(t.Context(), tok)
		if assert.Error(t, err) {
			assert.True(t, strings.HasPrefix(err.Error(), "reauth: Set: "), err.Error())
		}
		assert.Equal(t, [2]string{"T0", "r0"}, sessionPeek(cred))
	}
}

// A login with nothing but a refresh token is stale at once, and fine.
func TestSetRefreshTokenAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stale reauth.Stale
		is := &issuer{do: func(_ context.Context, _ int, s reauth.Stale) (reauth.Token, error) {
			stale = s
			return reauth.Token{AccessToken: "T1"}, nil
		}}
		cred := holding(t, is, reauth.Token{RefreshToken: "r0"})
		assert.Equal(t, [2]string{"", "r0"}, sessionPeek(cred))
		require.Zero(t, is.calls.Load(), "nothing runs unasked")
		server := accepting("T1")
		status, err := flightSend(t.Context(), flightTransport(cred, server))
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, status)
		assert.EqualValues(t, 1, server.sends.Load(), "no request goes out with an empty token")
		assert.Equal(t, "r0", stale.Token.RefreshToken)
		assert.Zero(t, stale.Rejection.Reason)
		assert.Equal(t, [2]string{"T1", "r0"}, sessionPeek(cred))
	})
}

// Set and Clear end what an earlier failure has begun.
func TestSetEndsTheBackoff(t *testing.T) {
	for name, failure := range map[string]error{"pause": errors.New("503"), "permanent": reauth.Permanent(errors.New("invalid_grant"))} {
		for _, how := range []string{"Set", "Clear"} {
			t.Run(name+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := &issuer{do: func(_ context.Context, n int, _ reauth.Stale) (reauth.Token, error) {
						if n == 1 {
							return reauth.Token{}, failure
						}
						return reauth.Token{AccessToken: "T2"}, nil
					}}
					cred := &reauth.Credential{Refresher: is, Logger: discard, MinBackoff: time.Hour}
					require.NoError(t, cred.Set(t.Context(), reauth.Token{RefreshToken: "r0"}))
					rt := flightTransport(cred, accepting("T2"))
					for range 5 {
						_, err := flightSend(t.Context(), rt)
						require.ErrorIs(t, err, failure)
						_, err = cred.Current()
						require.ErrorIs(t, err, failure)
					}
					require.EqualValues(t, 1, is.calls.Load())
					if how == "Set" {
						require.NoError(t, cred.Set(t.Context(), reauth.Token{RefreshToken: "r1"}))
						_, err := cred.Current()
						assert.NoError(t, err)
					} else {
						require.NoError(t, cred.Clear(t.Context()))
						_, err := cred.Current()
						assert.Equal(t, reauth.ErrLoggedOut, err)
					}
					status, err := flightSend(t.Context(), rt)
					require.NoError(t, err)
					assert.Equal(t, http.StatusOK, status)
				})
			})
		}
	}
}

func TestCurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("issuer down")
		is := &issuer{do: func(_ context.Context, n int, _ reauth.Stale) (reauth.Token, error) {
			if n == 1 {
				return reauth.Token{}, down
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
		}}
		cred := &reauth.Credential{Refresher: is, Logger: discard}
		peek := func(want string, why error) {
			t.Helper()
			calls := is.calls.Load()
			tok, err := cred.Current()
			assert.Equal(t, want, tok.AccessToken)
			if why == nil {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, why)
			}
			synctest.Wait()
			assert.Equal(t, calls, is.calls.Load())
		}
		peek("", nil)
		_, _ = cred.Token(t.Context())
		peek("", down)
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "old", Expiry: time.Now().Add(time.Second)}))
		peek("old", nil)
		time.Sleep(time.Minute)
		peek("old", nil) // expired, and nobody has asked for another
		_, err := cred.Token(t.Context())
		require.NoError(t, err)
		peek("T2", nil)
		require.NoError(t, cred.Clear(t.Context()))
		peek("", reauth.ErrLoggedOut)
		_, err = cred.Token(t.Context())
		require.NoError(t, err)
		peek("T3", nil)

		require.NoError(t, cred.Clear(t.Context()))
		empty := &reauth.Credential{Refresher: is}
		require.NoError(t, empty.Shutdown(t.Context()))
		_, err = empty.Current()
		assert.Equal(t, reauth.ErrClosed, err)
	})
}

// A failed refresh takes nothing away.
func TestCurrentAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("issuer down")
		cred := holding(t, reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, down
		}), reauth.Token{AccessToken: "T0"})
		_, err := cred.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "T0"}, Rejection: sessionRejected})
		require.ErrorIs(t, err, down)
		tok, err := cred.Current()
		assert.Equal(t, "T0", tok.AccessToken)
		var failed *reauth.RefreshError
		require.ErrorAs(t, err, &failed)
		assert.ErrorIs(t, err, down)
	})
}

// A token that was set needs no Refresher, until it is rejected.
func TestCredentialWithoutRefresher(t *testing.T) {
	for name, r := range map[string]reauth.Refresher{"nil": nil, "typed nil": reauth.RefresherFunc(nil), "nil pointer": (*issuer)(nil)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cred := &reauth.Credential{Refresher: r, Logger: discard}
				server := accepting("T0")
				rt := flightTransport(cred, server)
				_, err := flightSend(t.Context(), rt)
				assert.ErrorContains(t, err, "Credential.Refresher")
				require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0"}))
				status, err := flightSend(t.Context(), rt)
				require.NoError(t, err)
				assert.Equal(t, http.StatusOK, status)
				server.valid = func(string) bool { return false }
				ctx, outcome := reauth.WithOutcome(t.Context())
				status, err = flightSend(ctx, rt)
				require.NoError(t, err)
				assert.Equal(t, http.StatusUnauthorized, status)
				assert.ErrorContains(t, outcome().Err, "Credential.Refresher")
			})
		})
	}
}
