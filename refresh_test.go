package reauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
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
