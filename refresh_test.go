package reauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

func TestRefreshTokenRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		brings := []string{"r1", "", "", "r4", ""} // what the issuer returns
		var used []string
		is := &issuer{do: func(_ context.Context, n int, stale reauth.Stale) (reauth.Token, error) {
			used = append(used, stale.Token.RefreshToken)
			return reauth.Token{AccessToken: fmt.Sprint("T", n), RefreshToken: brings[n-1]}, nil
		}}
		cred := holding(t, is, reauth.Token{AccessToken: "T0", RefreshToken: "r0"})
		for range brings {
			tok, err := cred.Token(t.Context())
			require.NoError(t, err)
			_, err = cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: sessionRejected})
			require.NoError(t, err)
			time.Sleep(2 * time.Minute)
		}
		assert.Equal(t, []string{"r0", "r1", "r1", "r1", "r4"}, used)
		assert.Equal(t, [2]string{"T5", "r4"}, sessionPeek(cred))
	})
}

// An issuer that answers nothing but an error has kept the token alive.
func TestRefreshTokenKeptAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used []string
		is := &issuer{do: func(_ context.Context, n int, stale reauth.Stale) (reauth.Token, error) {
			used = append(used, stale.Token.RefreshToken)
			if n < 3 {
				return reauth.Token{RefreshToken: "of an error"}, errors.New("503")
			}
			return reauth.Token{AccessToken: "T3"}, nil
		}}
		cred := holding(t, is, reauth.Token{RefreshToken: "r0"})
		for range 3 {
			_, _ = cred.Token(t.Context())
			time.Sleep(time.Minute)
		}
		assert.Equal(t, []string{"r0", "r0", "r0"}, used)
		assert.Equal(t, [2]string{"T3", "r0"}, sessionPeek(cred))
	})
}

// RFC 9700 §4.14: whatever is done to the Credential meanwhile.
func TestRefreshTokenNeverInTwoCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		out := map[string]int{}
		twice, overlaps := 0, 0
		is := &issuer{do: func(_ context.Context, n int, stale reauth.Stale) (reauth.Token, error) {
			r := stale.Token.RefreshToken
			mu.Lock()
			if out[r]++; r != "" && out[r] > 1 {
				twice++
			}
			if len(out) > 1 {
				overlaps++
			}
			mu.Unlock()
			time.Sleep(rand.N(3 * time.Second)) // often past the timeout
			mu.Lock()
			defer mu.Unlock()
			if out[r]--; out[r] == 0 {
				delete(out, r)
			}
			if n%3 == 0 {
				return reauth.Token{}, errors.New("503")
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n), RefreshToken: fmt.Sprint("r", n%4)}, nil
		}}
		cred := &reauth.Credential{Refresher: is, Logger: discard, RefreshTimeout: time.Second, MinBackoff: -1}
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0", RefreshToken: "r0"}))
		flightAll(16, func(i int) (int, error) {
			for n := range 100 {
				time.Sleep(rand.N(time.Second))
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(3*time.Second))
				switch {
				case i == 0 && n%5 == 0:
					_ = cred.Clear(ctx)
				case i == 0:
					_ = cred.Set(ctx, reauth.Token{AccessToken: fmt.Sprint("S", n), RefreshToken: fmt.Sprint("r", n%4)})
				default:
					if tok, err := cred.Token(ctx); err == nil {
						_, _ = cred.Refresh(ctx, reauth.Stale{Token: tok, Rejection: sessionRejected})
					}
				}
				cancel()
			}
			return 0, nil
		})
		require.NoError(t, cred.Shutdown(t.Context()))
		assert.Zero(t, twice)
		assert.Greater(t, overlaps, 0, "or nothing was tried")
	})
}

// RFC 9700 §4.14.2: the issuer may have rotated it.
func TestRefreshErrorsAreNotInterpreted(t *testing.T) {
	post := func(err error) error {
		return &url.Error{Op: "Post", URL: "https://issuer.example.com/token", Err: err}
	}
	tests := []struct {
		name string
		err  error
		lost bool
	}{
		{"connection reset", post(&net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}), true},
		{"broken pipe", post(&net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}), true},
		{"no answer", post(io.EOF), true},
		{"half an answer", fmt.Errorf("oauth2: cannot parse json: %w", io.ErrUnexpectedEOF), true},
		{"connection refused", post(&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}), false},
		{"no such host", post(&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host"}}), false},
		{"an empty file", io.EOF, false},
		{"503", errors.New("oauth2: 503"), false},
	}
	for _, tt := range tests {
		for _, refreshToken := range []string{"r0", ""} {
			t.Run(fmt.Sprintf("%s refresh token=%q", tt.name, refreshToken), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := &issuer{do: func(_ context.Context, n int, stale reauth.Stale) (reauth.Token, error) {
						if n == 1 {
							return reauth.Token{}, tt.err
						}
						return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
					}}
					cred := holding(t, is, reauth.Token{AccessToken: "T0", RefreshToken: refreshToken})
					rt := flightTransport(cred, accepting("T2"))
					ctx, outcome := reauth.WithOutcome(t.Context())
					_, err := flightSend(ctx, rt)
					require.NoError(t, err)
					var failed *reauth.RefreshError
					require.ErrorAs(t, outcome().Err, &failed)
					time.Sleep(time.Hour)
					status, err := flightSend(t.Context(), rt)
					require.NoError(t, err)
					assert.False(t, failed.Permanent())
					assert.Equal(t, http.StatusOK, status)
					assert.EqualValues(t, 2, is.calls.Load())
				})
			})
		}
	}
}

func TestRefreshErrorNeverPrintsTheIssuersAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const answered = "Uh4Tz8Rj1Oc6Ie3Sk9PvN" // a token that nobody but the error knows
		var event reauth.RefreshInfo
		cred := &reauth.Credential{
			Logger:    discard,
			OnRefresh: func(_ context.Context, r reauth.RefreshInfo) { event = r },
			Refresher: reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
				return reauth.Token{}, tokValueError{`{"access_token":"` + answered + `","was":"` + stale.Token.RefreshToken + `"}`}
			}),
		}
		require.NoError(t, cred.Set(t.Context(), reauth.Token{RefreshToken: tokRefresh}))
		_, err := cred.Token(t.Context())
		var failure *reauth.RefreshError
		require.ErrorAs(t, err, &failure)
		synctest.Wait()
		require.Error(t, event.Err)
		require.ErrorContains(t, failure.Unwrap(), answered, "the cause is there for who asks for it")
		for name, v := range map[string]any{
			"*RefreshError": failure, "RefreshError": *failure, "error": err, "Refresh": event,
			"Outcome": reauth.Outcome{Err: err}, "*Outcome": &reauth.Outcome{Err: err}, "slice": []error{err},
			"wrapped": fmt.Errorf("login: %w", err), "joined": errors.Join(err, err), "field": struct{ Err error }{err},
		} {
			tokNeverPrinted(t, name, v, answered, tokRefresh)
		}
		assert.Contains(t, fmt.Sprintf("%+v", failure), "refresh failed", "and yet it says what failed")
		assert.Contains(t, fmt.Sprintf("%#v", reauth.Outcome{Err: err}), "refresh failed")
	})
}

// lostSite has an issuer whose nth call is one of the results.
func lostSite(t *testing.T, results ...func() (reauth.Token, error)) *site {
	s := newSite()
	s.cred.MinBackoff = -1
	s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
		time.Sleep(time.Second)
		return results[min(n, len(results))-1]()
	}
	require.NoError(t, s.cred.Set(t.Context(), reauth.Token{RefreshToken: "R0"}))
	return s
}

func refreshed(access, refreshToken string) func() (reauth.Token, error) {
	return func() (reauth.Token, error) {
		return reauth.Token{AccessToken: access, RefreshToken: refreshToken}, nil
	}
}

func failed(err error) func() (reauth.Token, error) {
	return func() (reauth.Token, error) { return reauth.Token{}, err }
}

var errCut = errors.New("the connection was cut")

func TestAnswerLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := lostSite(t, failed(reauth.AnswerLost(errCut)), failed(fmt.Errorf("again: %w", reauth.AnswerLost(errCut))), failed(errors.New("503")),
			refreshed("T4", "R4"), refreshed("T5", ""), failed(reauth.AnswerLost(errCut)), refreshed("T7", ""))
		for range 3 {
			_, err := s.cred.Token(t.Context())
			require.Error(t, err)
			var failure *reauth.RefreshError
			require.ErrorAs(t, err, &failure)
			assert.False(t, failure.Permanent())
		}
		tok, err := s.cred.Token(t.Context())
		require.NoError(t, err)
		for range 3 {
			next, err := s.cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
			if err == nil {
				tok = next
			}
			time.Sleep(time.Hour)
		}
		var got []time.Duration
		for _, stale := range s.stale {
			if stale.AnswerLostAt.IsZero() {
				got = append(got, -1)
			} else {
				got = append(got, stale.AnswerLostAt.Sub(start))
			}
		}
		assert.Equal(t, []time.Duration{-1, 0, 0, 0, -1, -1, -1}, got,
			"since the first call; until a success; and not at an issuer whose latest answer had no new refresh token")
	})
}

func TestAnswerLostEndsWithSetAndClear(t *testing.T) {
	for name, end := range map[string]func(*reauth.Credential) error{
		"Set":   func(c *reauth.Credential) error { return c.Set(context.Background(), reauth.Token{RefreshToken: "R9"}) },
		"Clear": func(c *reauth.Credential) error { return c.Clear(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := lostSite(t, failed(reauth.AnswerLost(errCut)))
				_, err := s.cred.Token(t.Context())
				require.True(t, reauth.IsAnswerLost(err))
				require.NoError(t, end(s.cred))
				_, err = s.cred.Token(t.Context())
				require.Error(t, err)
				assert.Zero(t, s.stale[1].AnswerLostAt)
			})
		})
	}
}

// A Refresher that does not present a refresh token in doubt yet says when it will.
func TestAnswerLostIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.refresh = func(n int, stale reauth.Stale) (reauth.Token, error) {
			switch {
			case n == 1:
				return reauth.Token{}, reauth.AnswerLost(errCut)
			case time.Since(stale.AnswerLostAt) < time.Minute:
				return reauth.Token{}, &retryAfterError{10 * time.Second}
			}
			return reauth.Token{}, errCut
		}
		var gaps []time.Duration
		during(2*time.Minute, func() { _, _ = s.cred.Token(t.Context()) })
		gaps = s.gaps()
		for _, gap := range gaps[1:6] {
			assert.InDelta(t, 10*time.Second, gap, float64(100*time.Millisecond))
		}
		assert.Less(t, gaps[7], 1200*time.Millisecond, "the backoff did not grow meanwhile")
		for _, stale := range s.stale[1:] {
			assert.Equal(t, s.calls[0], stale.AnswerLostAt)
		}
	})
}

// A new refresh token is kept, whatever the access token beside it is worth.
func TestRefreshTokenKeptWithAUselessAccessToken(t *testing.T) {
	for name, access := range map[string]string{"invalid": "a\nb", "empty": "", "the same again": "T0", "Placeholder": reauth.Placeholder} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := lostSite(t, refreshed(access, "R1"), refreshed("T2", "R2"))
				require.NoError(t, s.cred.Set(t.Context(), reauth.Token{AccessToken: "T0", RefreshToken: "R0"}))
				why := reauth.Stale{Token: reauth.Token{AccessToken: "T0"}, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}}
				_, err := s.cred.Refresh(t.Context(), why)
				require.Error(t, err)
				tok, err := s.cred.Refresh(t.Context(), why)
				require.NoError(t, err)
				assert.Equal(t, "T2", tok.AccessToken)
				assert.Equal(t, "R1", s.stale[1].Token.RefreshToken)
			})
		})
	}
	t.Run("of a first token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.cred.MinBackoff = -1
			s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
				if n == 1 {
					return reauth.Token{RefreshToken: "R1"}, nil
				}
				return reauth.Token{AccessToken: "T2"}, nil
			}
			_, err := s.cred.Token(t.Context())
			require.Error(t, err)
			_, err = s.cred.Token(t.Context())
			require.NoError(t, err)
			assert.Equal(t, "R1", s.stale[1].Token.RefreshToken)
		})
	})
	t.Run("not after Clear", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := lostSite(t, refreshed("a\nb", "R1"), refreshed("T2", "R2"))
			go func() { _, _ = s.cred.Token(t.Context()) }()
			synctest.Wait()
			require.NoError(t, s.cred.Clear(t.Context()))
			time.Sleep(2 * time.Second)
			_, err := s.cred.Token(t.Context())
			require.NoError(t, err)
			assert.Empty(t, s.stale[1].Token.RefreshToken)
		})
	})
}

func TestLoginEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := lostSite(t, failed(reauth.LoginEnded(errors.New("invalid_grant"))), refreshed("T2", "R2"))
		var infos []reauth.RefreshInfo
		s.cred.OnRefresh = func(_ context.Context, info reauth.RefreshInfo) { infos = append(infos, info) }
		for range 10 {
			_, err := s.cred.Token(t.Context())
			assert.True(t, reauth.IsLoginEnded(err))
			assert.True(t, reauth.IsPermanent(err))
			assert.ErrorContains(t, err, "the login has ended")
			time.Sleep(time.Hour)
		}
		require.Len(t, infos, 1)
		assert.True(t, reauth.IsLoginEnded(infos[0].Err))
		assert.Equal(t, reauth.RefreshFailed, infos[0].Result)
		require.NoError(t, s.cred.Set(t.Context(), reauth.Token{RefreshToken: "R1"}))
		_, err := s.cred.Token(t.Context())
		assert.NoError(t, err)
	})
}

func TestErrorMarks(t *testing.T) {
	plain := errors.New("plain")
	for name, tt := range map[string]struct {
		err                    error
		permanent, ended, lost bool
	}{
		"nil":                  {nil, false, false, false},
		"plain":                {plain, false, false, false},
		"Permanent":            {reauth.Permanent(plain), true, false, false},
		"backoff.Permanent":    {backoff.Permanent(plain), true, false, false},
		"LoginEnded":           {reauth.LoginEnded(plain), true, true, false},
		"AnswerLost":           {reauth.AnswerLost(plain), false, false, true},
		"two marks":            {reauth.LoginEnded(reauth.AnswerLost(plain)), true, true, true},
		"wrapped":              {fmt.Errorf("x: %w", reauth.AnswerLost(plain)), false, false, true},
		"joined":               {errors.Join(plain, reauth.Permanent(plain)), true, false, false},
		"of a nil":             {reauth.Permanent(nil), false, false, false},
		"LoginEnded of a nil":  {reauth.LoginEnded(nil), false, false, false},
		"AnswerLost of a nil":  {reauth.AnswerLost(nil), false, false, false},
		"a nil pointer within": {fmt.Errorf("x: %w", (*url.Error)(nil)), false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tt.permanent, reauth.IsPermanent(tt.err))
			assert.Equal(t, tt.ended, reauth.IsLoginEnded(tt.err))
			assert.Equal(t, tt.lost, reauth.IsAnswerLost(tt.err))
			if tt.permanent || tt.lost {
				assert.ErrorIs(t, tt.err, plain)
			}
		})
	}
}

func TestRefreshInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		expiry := time.Now().Add(time.Hour).Round(0)
		s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
			time.Sleep(2 * time.Second)
			if n == 2 {
				return reauth.Token{}, errors.New("down")
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: expiry}, nil
		}
		var infos []reauth.RefreshInfo
		type key struct{}
		s.cred.BaseContext = func() context.Context { return context.WithValue(context.Background(), key{}, "base") }
		s.cred.OnRefresh = func(ctx context.Context, info reauth.RefreshInfo) {
			assert.Equal(t, "base", ctx.Value(key{}))
			infos = append(infos, info)
		}
		start := time.Now()
		for range 3 {
			go func() { _, _ = s.cred.Token(context.Background()) }()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		why := reauth.Stale{Token: reauth.Token{AccessToken: "T1"}, Rejection: reauth.Rejection{Reason: reauth.ReasonExpired}}
		_, err := s.cred.Refresh(t.Context(), why)
		require.Error(t, err)
		go func() { _, _ = s.cred.Refresh(context.Background(), why) }()
		time.Sleep(time.Second)
		go func() { _, _ = s.cred.Refresh(context.Background(), why) }()
		time.Sleep(time.Second)
		require.NoError(t, s.cred.Clear(t.Context()))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, infos, 3)
		t1 := fingerprintOf("T1")
		assert.Equal(t, reauth.RefreshInfo{Reason: reauth.ReasonMissing, Result: reauth.RefreshSucceeded, Token: t1, Expiry: expiry, Start: start, Duration: 2 * time.Second, Waiters: 3}, infos[0])
		assert.Equal(t, reauth.ReasonExpired, infos[1].Reason)
		assert.Equal(t, reauth.RefreshFailed, infos[1].Result)
		assert.Equal(t, t1, infos[1].Stale)
		assert.Empty(t, infos[1].Token)
		assert.Equal(t, err, infos[1].Err)
		assert.Equal(t, reauth.RefreshDiscarded, infos[2].Result)
		assert.Equal(t, reauth.ErrLoggedOut, infos[2].Err)
		assert.Empty(t, infos[2].Token)
		assert.Zero(t, infos[2].Expiry)
	})
}

// A Credential whose token is made from another one's.
func TestRefreshByACredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newSite()
		inner.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
			if n == 2 {
				return reauth.Token{}, &retryAfterError{time.Hour}
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
		}
		outer := &reauth.Credential{Refresher: inner.cred, Logger: discard}
		tok, err := outer.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "T1", tok.AccessToken)
		why := reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}}
		_, err = outer.Refresh(t.Context(), why)
		var failure *reauth.RefreshError
		require.ErrorAs(t, err, &failure)
		assert.Equal(t, time.Hour, failure.RetryAfter(), "as the inner one says")
		time.Sleep(time.Hour)
		tok, err = outer.Refresh(t.Context(), why)
		require.NoError(t, err)
		assert.Equal(t, "T3", tok.AccessToken)
	})
}

// Request.Cancel is deprecated, and still heeded by net/http.
func TestRefreshWaitEndsWithRequestCancel(t *testing.T) {
	for name, before := range map[string]bool{"the first token": true, "after a 401": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite()
				if !before {
					s.get(t, apiURL)
				}
				s.accepts = func(*http.Request, string) bool { return false }
				s.refresh = func(int, reauth.Stale) (reauth.Token, error) {
					time.Sleep(10 * time.Second)
					return reauth.Token{AccessToken: "late"}, nil
				}
				cancel := make(chan struct{})
				time.AfterFunc(time.Second, func() { close(cancel) })
				req, err := http.NewRequest(http.MethodGet, apiURL, nil)
				require.NoError(t, err)
				req.Cancel = cancel //lint:ignore SA1019 it is what is tested
				start := time.Now()
				_, err = s.rt.RoundTrip(req)
				assert.ErrorContains(t, err, "request canceled")
				assert.Equal(t, time.Second, time.Since(start))
				time.Sleep(time.Minute)
			})
		})
	}
}

// The refresh's own deadline does not end the context of what OnRefresh does.
func TestOnRefreshContextHasNotEnded(t *testing.T) {
	type key struct{}
	ended := errors.New("OnRefresh was not called")
	cred := &reauth.Credential{
		Refresher:   refresher.Static("token"),
		Logger:      slog.New(slog.DiscardHandler),
		BaseContext: func() context.Context { return context.WithValue(context.Background(), key{}, "value") },
		OnRefresh: func(ctx context.Context, _ reauth.RefreshInfo) {
			ended = ctx.Err()
			assert.Equal(t, "value", ctx.Value(key{}))
			_, limited := ctx.Deadline()
			assert.False(t, limited)
		},
	}
	_, err := cred.Token(t.Context())
	require.NoError(t, err)
	assert.NoError(t, ended)
}
