package reauth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

const (
	atA = "https://a.test/"
	atB = "https://b.test/"
	atC = "https://c.test/"
)

var errIssuerDown = errors.New("issuer: 503 Service Unavailable")

// failing is an issuer that is down.
func failing(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, errIssuerDown }

// A retryAfterError asks for a backoff.
type retryAfterError struct{ d time.Duration }

func (e *retryAfterError) Error() string             { return "429 Too Many Requests" }
func (e *retryAfterError) RetryAfter() time.Duration { return e.d }

// The Refresher's failures.

func TestBackoffGrowsWhileTheIssuerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cred.Logger, f.rt.Logger = discard, discard
		f.issue = failing
		const tick = 50 * time.Millisecond // 20 requests a second
		begin := time.Now()
		for time.Since(begin) < time.Hour {
			r := f.get(atA)
			var failure *reauth.RefreshError
			require.ErrorAs(t, r.err, &failure)
			require.ErrorIs(t, r.err, errIssuerDown)
			require.Zero(t, r.took, "callers get the latest error at once")
			require.False(t, failure.Permanent())
			time.Sleep(tick)
		}
		assert.Empty(t, f.sends(), "nothing is sent without a token")

		times := f.refreshTimes()
		lengths := map[time.Duration]bool{}
		for i := 1; i < len(times); i++ {
			least := min(250*time.Millisecond<<min(i-1, 10), 40*time.Second)
			gap := times[i].Sub(times[i-1])
			assert.GreaterOrEqual(t, gap, least, "backoff %d", i)
			assert.LessOrEqual(t, gap, least*3/2+tick, "backoff %d", i)
			lengths[gap] = true
		}
		assert.Greater(t, len(lengths), len(times)/2, "backoffs are randomized, or all clients of an issuer return together")
		assert.InDelta(t, 80, len(times), 20)

		f.change(func() { f.issue = nil })
		back := time.Now()
		for f.get(atA).status != http.StatusOK {
			require.Less(t, time.Since(back), time.Minute+tick, "requests succeed within one step of the issuer's return")
			time.Sleep(tick)
		}
	})
}

func TestBackoffBetweenMinBackoffAndMaxBackoff(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name        string
		least, most time.Duration
		want        []time.Duration // at least these, and at most half as much more
		exact       bool            // just these
	}{
		{name: "zero", want: []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}},
		{name: "two seconds", least: 2 * time.Second, want: []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, 40 * time.Second}},
		{name: "at most 9 s", least: 2 * time.Second, most: 9 * time.Second, want: []time.Duration{2 * time.Second, 4 * time.Second, 6 * time.Second, 6 * time.Second}},
		{name: "negative MinBackoff", least: -1, want: []time.Duration{0, 0, 0}, exact: true},
		{name: "the most negative MinBackoff", least: math.MinInt64, want: []time.Duration{0, 0, 0}, exact: true},
		{name: "negative MaxBackoff", least: 10 * time.Hour, most: -1, want: []time.Duration{10 * time.Hour, 16 * time.Hour, 16 * time.Hour}},
		{name: "MaxBackoff of a year", least: 10 * time.Hour, most: 365 * day, want: []time.Duration{10 * time.Hour, 16 * time.Hour, 16 * time.Hour}},
		{name: "the largest MinBackoff", least: math.MaxInt64, want: []time.Duration{day, day}, exact: true},
		{name: "MaxBackoff below MinBackoff", least: time.Hour, most: time.Minute, want: []time.Duration{time.Hour, time.Hour}, exact: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.cred.MinBackoff, f.cred.MaxBackoff = tt.least, tt.most
				f.issue = failing
				for i, least := range tt.want {
					_, err := f.cred.Token(t.Context())
					var failure *reauth.RefreshError
					require.ErrorAs(t, err, &failure)
					require.Equal(t, i+1, f.refreshes())
					got := time.Until(failure.RetryAt)
					assert.Equal(t, got, failure.RetryAfter())
					assert.GreaterOrEqual(t, got, least)
					if tt.exact {
						assert.Equal(t, least, got)
					} else {
						assert.LessOrEqual(t, got, least*3/2)
					}
					if got > 0 {
						time.Sleep(got - 1)
						_, err = f.cred.Token(t.Context())
						assert.Same(t, failure, err, "the latest error")
						assert.Equal(t, i+1, f.refreshes())
						time.Sleep(time.Nanosecond)
					}
				}
			})
		})
	}
}

func TestBackoffEndsWithASuccess(t *testing.T) {
	for name, end := range map[string]func(*fixture){
		"a refresh": func(f *fixture) { f.change(func() { f.issue = nil }) },
		"Set":       func(f *fixture) { f.set(reauth.Token{AccessToken: "T0"}) },
		"Clear":     func(f *fixture) { require.NoError(f.t, f.cred.Clear(context.Background())); f.issue = nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.issue = failing
				for range 5 {
					require.Error(t, f.get(atA).err)
					time.Sleep(10 * time.Second)
				}
				end(f)
				require.Equal(t, http.StatusOK, f.get(atA).status)
				_, err := f.cred.Current()
				assert.NoError(t, err)

				f.change(func() { f.issue = failing })
				f.revoke()
				r := f.get(atA)
				require.Equal(t, http.StatusUnauthorized, r.status)
				assert.Less(t, r.refreshError(t).RetryAfter(), 376*time.Millisecond, "the first step")
			})
		})
	}
}

func TestBackoffOfTheErrorsRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want time.Duration // zero: MinBackoff
	}{
		{"seconds", &retryAfterError{7 * time.Second}, 7 * time.Second},
		{"wrapped", fmt.Errorf("token endpoint: %w", &retryAfterError{7 * time.Second}), 7 * time.Second},
		{"shorter than MinBackoff", &retryAfterError{time.Millisecond}, time.Millisecond},
		{"two hours", &retryAfterError{2 * time.Hour}, 2 * time.Hour},
		{"292 years", &retryAfterError{math.MaxInt64}, 24 * time.Hour},
		{"zero", &retryAfterError{0}, 0},
		{"negative", &retryAfterError{-time.Hour}, 0},
		{"the most negative", &retryAfterError{math.MinInt64}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.set(reauth.Token{AccessToken: "T0"})
				f.revoke()
				f.issue = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, tt.err }
				r := f.get(atA)
				require.Equal(t, http.StatusUnauthorized, r.status)
				assert.Equal(t, reauth.NotRetriedNoToken, r.outcome.NotRetried)
				got := time.Until(r.refreshError(t).RetryAt)
				if tt.want == 0 {
					assert.InDelta(t, 312*time.Millisecond, got, float64(63*time.Millisecond))
				} else {
					assert.Equal(t, tt.want, got)
				}
				f.change(func() { f.issue = nil })
				time.Sleep(got - 1)
				assert.Equal(t, http.StatusUnauthorized, f.get(atA).status)
				assert.Equal(t, 1, f.refreshes())
				time.Sleep(time.Nanosecond)
				assert.Equal(t, http.StatusOK, f.get(atA).status)
			})
		})
	}
}

func TestBackoffDoesNotGrowByRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
			if n <= 5 {
				return reauth.Token{}, &retryAfterError{time.Second}
			}
			return reauth.Token{}, errIssuerDown
		}
		for range 5 {
			require.Error(t, f.get(atA).err)
			time.Sleep(time.Second)
		}
		var failure *reauth.RefreshError
		require.ErrorAs(t, f.get(atA).err, &failure)
		assert.Less(t, failure.RetryAfter(), 376*time.Millisecond)
	})
}

// The issuer may ask for a time that is longer than the rest of the token's life.
func TestBackoffOfARefreshAheadOfExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cred.RefreshBefore = 2 * time.Hour
		f.life = 4 * time.Hour
		require.Equal(t, http.StatusOK, f.get(atA).status)
		f.cred.Logger, f.rt.Logger = discard, discard
		time.Sleep(3 * time.Hour) // past the latest time of the refresh
		f.change(func() { f.issue = failing })
		down := time.Now()
		for time.Since(down) < 55*time.Minute {
			r := f.get(atA)
			require.Equal(t, http.StatusOK, r.status)
			require.Zero(t, r.took, "requests do not wait for the refresh")
			time.Sleep(100 * time.Millisecond)
		}
		n := f.refreshesSince(down)
		assert.Greater(t, n, 55)
		assert.Less(t, n, 100)

		f.change(func() { f.issue = nil })
		for range 70 {
			require.Equal(t, http.StatusOK, f.get(atA).status)
			time.Sleep(time.Second)
		}
		assert.Equal(t, n+1, f.refreshesSince(down), "within one step of the issuer's return")
	})
}

func TestBackoffInterruptedOnceByARejection(t *testing.T) {
	for _, tt := range []struct {
		name   string
		waited bool // a request waits for the refresh ahead of expiry that fails
		want   int  // calls of the issuer within the backoff
	}{
		{"nobody waited for the refresh that failed", false, 1},
		{"a request waited for it", true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.cred.MinBackoff = 30 * time.Second
				f.cred.RefreshBefore = 30 * time.Minute
				f.life = time.Hour
				require.Equal(t, http.StatusOK, f.get(atA).status)
				time.Sleep(46 * time.Minute)
				f.change(func() { f.issue, f.takes = failing, 100*time.Millisecond })
				require.Equal(t, http.StatusOK, f.get(atA).status) // a refresh in the background
				f.revoke()
				if tt.waited {
					require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
				}
				time.Sleep(time.Second)
				require.Equal(t, 2, f.refreshes())

				for range 10 {
					require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
					require.Equal(t, http.StatusUnauthorized, f.get(atB).status)
				}
				assert.Equal(t, 2+tt.want, f.refreshes())
				time.Sleep(2 * time.Second)
				require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
				assert.Equal(t, 2+tt.want, f.refreshes(), "once for each token")
			})
		})
	}
}

func TestBackoffInterruptedOnceForEachToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cred.MinBackoff = 20 * time.Second
		f.life = time.Hour
		require.Equal(t, http.StatusOK, f.get(atA).status)
		for range 3 {
			// The issuer is down when the refresh is due, and the token is rejected.
			time.Sleep(58 * time.Minute)
			f.change(func() { f.issue = failing })
			require.Equal(t, http.StatusOK, f.get(atA).status)
			synctest.Wait()
			f.revoke()
			before := f.refreshes()
			for range 5 {
				require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
				time.Sleep(time.Second)
			}
			require.Equal(t, before+1, f.refreshes(), "two attempts within a step, once for each token")

			// The next refresh is asked for by the clock alone, fails, and the same token
			// is rejected.
			time.Sleep(80 * time.Second)
			_, err := f.cred.Token(t.Context()) // past its time: a refresh in the background
			require.NoError(t, err)
			synctest.Wait()
			before = f.refreshes()
			require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
			require.Equal(t, before, f.refreshes())

			f.change(func() { f.issue = nil })
			time.Sleep(time.Minute)
			require.Equal(t, http.StatusOK, f.get(atA).status)
		}
	})
}

// Neither a rejection nor a success of the old token makes the issuer's time shorter.
func TestBackoffOfRetryAfterIsKeptAfterItsInterruption(t *testing.T) {
	for _, accepted := range []bool{true, false} {
		t.Run(fmt.Sprint("accepted before ", accepted), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.issue = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, &retryAfterError{time.Minute} }
				f.set(reauth.Token{AccessToken: "T0", Expiry: time.Now().Add(10 * time.Minute)})
				if accepted {
					require.Equal(t, http.StatusOK, f.get(atA).status)
				}
				time.Sleep(8 * time.Minute)
				require.Equal(t, http.StatusOK, f.get(atA).status)
				synctest.Wait()
				f.revoke()
				for range 100 {
					require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
					time.Sleep(450 * time.Millisecond)
				}
				assert.Equal(t, 2, f.refreshes(), "the refresh ahead of expiry, and the one of the first rejection")
			})
		})
	}
}

func TestBackoffOfErrorsThatPass(t *testing.T) {
	address := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 6379}
	for name, err := range map[string]error{
		"500":                       errors.New("500 Internal Server Error"),
		"no such host":              &url.Error{Op: "Post", URL: "https://issuer.test/token", Err: &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "issuer.test", IsNotFound: true}}},
		"refused connection":        &net.OpError{Op: "dial", Net: "tcp", Addr: address, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)},
		"TLS handshake, EOF":        &url.Error{Op: "Post", URL: "https://issuer.test/token", Err: io.EOF},
		"TLS handshake, record":     &url.Error{Op: "Post", URL: "https://issuer.test/token", Err: tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}},
		"TLS handshake, authority":  &url.Error{Op: "Post", URL: "https://issuer.test/token", Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}},
		"TLS handshake, alert":      &net.OpError{Op: "remote error", Err: tls.AlertError(40)},
		"a file half written":       fmt.Errorf("token.json: %w", io.ErrUnexpectedEOF),
		"a file that is gone":       &os.PathError{Op: "open", Path: "token", Err: syscall.ENOENT},
		"a read error of Redis":     &net.OpError{Op: "read", Net: "tcp", Addr: address, Err: os.NewSyscallError("read", syscall.ECONNRESET)},
		"a timeout of Redis":        &net.OpError{Op: "read", Net: "tcp", Addr: address, Err: os.ErrDeadlineExceeded},
		"context.Canceled":          context.Canceled,
		"context.DeadlineExceeded":  context.DeadlineExceeded,
		"a lost answer":             reauth.AnswerLost(io.ErrUnexpectedEOF),
		"Permanent(nil), no token":  reauth.Permanent(nil),
		"LoginEnded(nil), no token": reauth.LoginEnded(nil),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				require.NoError(t, f.cred.Set(t.Context(), reauth.Token{RefreshToken: "R0"}))
				f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
					if n == 1 {
						return reauth.Token{}, err
					}
					return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
				}
				_, got := f.cred.Token(t.Context())
				var failure *reauth.RefreshError
				require.ErrorAs(t, got, &failure)
				if err != nil {
					assert.ErrorIs(t, got, err)
				}
				assert.False(t, failure.Permanent())
				assert.False(t, reauth.IsPermanent(got))
				assert.GreaterOrEqual(t, failure.RetryAfter(), 250*time.Millisecond)
				assert.LessOrEqual(t, failure.RetryAfter(), 375*time.Millisecond)

				time.Sleep(failure.RetryAfter())
				tok, got := f.cred.Token(t.Context())
				assert.NoError(t, got)
				assert.Equal(t, "T2", tok.AccessToken)
				assert.Equal(t, "R0", f.stale().Token.RefreshToken)
			})
		})
	}
}

func TestBackoffOfAPermanentErrorUntilSetOrClear(t *testing.T) {
	grant := errors.New("invalid_grant")
	ends := map[string]func(*testing.T, *reauth.Credential){
		"Set": func(t *testing.T, c *reauth.Credential) {
			require.NoError(t, c.Set(t.Context(), reauth.Token{RefreshToken: "R1"}))
		},
		"Clear": func(t *testing.T, c *reauth.Credential) { require.NoError(t, c.Clear(t.Context())) },
	}
	for name, err := range map[string]error{
		"Permanent":              reauth.Permanent(grant),
		"LoginEnded":             reauth.LoginEnded(grant),
		"backoff.Permanent":      backoff.Permanent(grant),
		"wrapped":                fmt.Errorf("login: %w", reauth.Permanent(grant)),
		"backoff, wrapped":       fmt.Errorf("login: %w", backoff.Permanent(grant)),
		"joined":                 errors.Join(errors.New("first"), reauth.Permanent(grant)),
		"with a RetryAfter":      reauth.Permanent(&retryAfterError{time.Second}),
		"around a RefreshError":  reauth.Permanent(&reauth.RefreshError{RetryAt: time.Now()}),
		"of a lost answer too":   reauth.AnswerLost(reauth.LoginEnded(grant)),
		"of a temporary error":   reauth.Permanent(&net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}),
		"LoginEnded of EOF":      reauth.LoginEnded(io.ErrUnexpectedEOF),
		"Permanent of Permanent": reauth.Permanent(reauth.Permanent(grant)),
	} {
		for end, apply := range ends {
			t.Run(name+", until "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.issue = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, err }
					f.set(reauth.Token{AccessToken: "T0"})
					f.revoke()
					for range 20 {
						r := f.get(atA)
						require.Equal(t, http.StatusUnauthorized, r.status)
						require.Zero(t, r.took)
						failure := r.refreshError(t)
						require.True(t, failure.Permanent())
						require.Zero(t, failure.RetryAt)
						require.Zero(t, failure.RetryAfter())
						require.ErrorIs(t, failure, err)
						time.Sleep(13 * time.Minute)
					}
					f.change(func() { f.issue = nil }) // which nobody can know
					time.Sleep(48 * time.Hour)
					require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
					assert.Equal(t, 1, f.refreshes())
					_, got := f.cred.Current()
					assert.ErrorIs(t, got, err)
					assert.Equal(t, reauth.IsLoginEnded(err), strings.Contains(got.Error(), "the login has ended"))

					apply(t, f.cred)
					_, got = f.cred.Current()
					assert.NotErrorIs(t, got, err)
					assert.Equal(t, http.StatusOK, f.get(atA).status)
					assert.Equal(t, 2, f.refreshes())
				})
			})
		}
	}
}

// A success of the old token is no reason to call the Refresher.
func TestBackoffOfAPermanentErrorAheadOfExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.issue = func(int, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, reauth.Permanent(errors.New("invalid_grant"))
		}
		f.set(reauth.Token{AccessToken: "T0", Expiry: time.Now().Add(10 * time.Minute)})
		time.Sleep(8 * time.Minute)
		for range 10 {
			require.Equal(t, http.StatusOK, f.get(atA).status)
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, f.refreshes())
		f.revoke()
		r := f.get(atA)
		assert.Equal(t, http.StatusUnauthorized, r.status, "a rejection interrupts no permanent error")
		assert.True(t, r.refreshError(t).Permanent())
		assert.Equal(t, 1, f.refreshes())

		time.Sleep(3 * time.Minute)
		_, err := f.cred.Token(t.Context())
		assert.ErrorContains(t, err, "invalid_grant")
		assert.Equal(t, 1, f.refreshes())
	})
}

// The Refresher returns after RefreshTimeout. A failure is of no use by then, but for
// a permanent error.
func TestBackoffOfALateFailure(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		want  string
		calls int // of the next request
	}{
		{"that passes", errors.New("late answer"), "did not return within", 1},
		{"that is permanent", reauth.Permanent(errors.New("late answer")), "late answer", 0},
		{"of an ended login", reauth.LoginEnded(errors.New("late answer")), "late answer", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.cred.RefreshTimeout = time.Second
				f.takes = 20 * time.Second
				f.issue = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, tt.err }
				at := time.Now()
				_, err := f.cred.Token(t.Context())
				require.ErrorContains(t, err, "did not return within 1s")
				require.Equal(t, time.Second, time.Since(at))

				time.Sleep(20 * time.Second)
				_, err = f.cred.Current()
				assert.ErrorContains(t, err, tt.want)
				f.change(func() { f.issue, f.takes = nil, 0 })
				_, err = f.cred.Token(t.Context())
				assert.Equal(t, tt.calls == 0, err != nil)
				assert.Equal(t, 1+tt.calls, f.refreshes())
				require.NoError(t, f.cred.Shutdown(t.Context()))
			})
		})
	}
}

// The method is called with a nil receiver. The test runs in a process of its own, as
// the panic would end the process.
func TestBackoffOfAnErrorWhoseRetryAfterPanics(t *testing.T) {
	if os.Getenv("REAUTH_TEST_PANIC") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		cmd.Env = append(os.Environ(), "REAUTH_TEST_PANIC=1", "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s", out[:min(len(out), 1000)])
		return
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var none *retryAfterError
		f.issue = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, fmt.Errorf("wrapped: %w", none) }
		_, err := f.cred.Token(t.Context())
		var failure *reauth.RefreshError
		require.ErrorAs(t, err, &failure)
		assert.InDelta(t, 312*time.Millisecond, failure.RetryAfter(), float64(63*time.Millisecond))
		assert.NoError(t, f.cred.Shutdown(t.Context()))
	})
}

func TestBackoffAfterAnUnusableToken(t *testing.T) {
	const secret = "sk-0123456789abcdef"
	for _, tt := range []struct {
		name string
		tok  reauth.Token
		want string
	}{
		{"the rejected one again", reauth.Token{AccessToken: secret}, "the rejected token again"},
		{"the rejected one with another expiry", reauth.Token{AccessToken: secret, Expiry: time.Now().AddDate(1000, 0, 0)}, "the rejected token again"},
		{"empty", reauth.Token{}, "empty"},
		{"only a refresh token", reauth.Token{RefreshToken: "R-" + secret}, "empty"},
		{"blank", reauth.Token{AccessToken: "  "}, "blank"},
		{"a line break", reauth.Token{AccessToken: secret + "X\n"}, "line break"},
		{"two lines", reauth.Token{AccessToken: secret + "\r\nX-Evil: 1"}, "control character"},
		{"a NUL", reauth.Token{AccessToken: secret + "\x00"}, "control character"},
		{"too long", reauth.Token{AccessToken: strings.Repeat(secret, 10_000)}, "bytes"},
		{"Placeholder", reauth.Token{AccessToken: reauth.Placeholder}, "reauth.Placeholder: give that to the SDK"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.issue = func(int, reauth.Stale) (reauth.Token, error) { return tt.tok, nil }
				f.set(reauth.Token{AccessToken: secret})
				f.revoke()
				r := f.get(atA)
				require.Equal(t, http.StatusUnauthorized, r.status)
				assert.Len(t, f.sends(), 1, "there is no retry")
				failure := r.refreshError(t)
				assert.ErrorContains(t, failure, tt.want)
				assert.False(t, failure.Permanent())
				assert.NotContains(t, fmt.Sprintf("%v %+v %#v %s", failure, r.outcome, r.outcome.Err, r.outcome.NotRetried), secret)
				for range 20 { // less than the first step
					require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
					time.Sleep(10 * time.Millisecond)
				}
				assert.Equal(t, 1, f.refreshes())
				assert.NotContains(t, f.log.text(), secret)

				f.change(func() { f.issue = nil })
				time.Sleep(time.Second)
				assert.Equal(t, http.StatusOK, f.get(atA).status, "the next token is used")
			})
		})
	}
}

// Rejections of a token that its origin has not accepted.

func TestRejectionOfAnAcceptedTokenRefreshedAtOnce(t *testing.T) {
	for _, life := range []time.Duration{0, time.Hour} {
		t.Run(fmt.Sprint("lifetime ", life), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.life = life
				f.set(reauth.Token{AccessToken: "T0"})
				begin := time.Now()
				for i := range 20 {
					f.revoke()
					r := f.get(atA)
					require.Equal(t, http.StatusOK, r.status, "revocation %d", i)
					require.True(t, r.outcome.Recovered())
				}
				assert.Equal(t, 20, f.refreshes())
				assert.Zero(t, time.Since(begin))
				assert.Len(t, f.sends(), 40)
			})
		})
	}
}

func TestAcceptanceByStatus(t *testing.T) {
	accepted := []int{200, 201, 204, 206, 301, 302, 304, 400, 402, 404, 405, 409, 410, 412, 422, 428, 499}
	not := []int{401, 403, 407, 429, 500, 501, 502, 503, 504, 599}
	for _, status := range append(slices.Clone(accepted), not...) {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.set(reauth.Token{AccessToken: "T0"})
				f.serve = func(req *http.Request, token string) *http.Response {
					if token == "T1" && req.URL.Path == "/it" {
						// For the 401: a reason that a new token does not resolve.
						return answer(req, status, "", "WWW-Authenticate", `Bearer error="insufficient_scope"`)
					}
					return nil
				}
				f.revoke()
				require.Equal(t, status, f.get(atA+"it").status) // T1 is fetched for the rejection
				f.revoke()
				r := f.get(atA)
				if slices.Contains(accepted, status) {
					assert.Equal(t, http.StatusOK, r.status)
					assert.Equal(t, 2, f.refreshes())
				} else {
					assert.Equal(t, http.StatusUnauthorized, r.status)
					assert.Equal(t, reauth.NotRetriedTooYoung, r.outcome.NotRetried)
					assert.Equal(t, 1, f.refreshes())
				}
			})
		})
	}
}

// A request that got no response says nothing of the token, nor does one that carried
// a token of its own or none.
func TestAcceptanceOfARequestThatCarriedTheToken(t *testing.T) {
	for name, send := range map[string]func(f *fixture){
		"an error of Base": func(f *fixture) {
			base := f.rt.Base
			f.rt.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.URL.Path == "/broken" {
					return nil, errors.New("connection reset")
				}
				return base.RoundTrip(req)
			})
			_ = f.get(atA + "broken")
		},
		"a request without a token": func(f *fixture) {
			f.serve = func(req *http.Request, token string) *http.Response {
				if token == "" {
					return answer(req, http.StatusOK, "")
				}
				return nil
			}
			require.Equal(f.t, http.StatusOK, f.send(reauth.WithoutToken(context.Background()), http.MethodGet, atA, nil).status)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.set(reauth.Token{AccessToken: "T0"})
				f.revoke()
				_, err := f.cred.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "T0"}, Rejection: reauth.Rejection{StatusCode: 401}})
				require.NoError(t, err)
				send(f)
				f.revoke()
				assert.Equal(t, reauth.NotRetriedTooYoung, f.get(atA).outcome.NotRetried)
				assert.Equal(t, 1, f.refreshes())
			})
		})
	}
}

func TestRowOfTokensThatAnOriginRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.set(reauth.Token{AccessToken: "T0"})
		f.change(func() {
			f.serve = func(req *http.Request, _ string) *http.Response { return invalidToken(req) }
		})
		for i, want := range []time.Duration{0, 5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute, time.Minute} {
			if want > 0 {
				obtained := time.Now()
				for {
					f.sends()
					r := f.get(atA)
					require.Equal(t, http.StatusUnauthorized, r.status)
					require.Zero(t, r.took, "nobody is held")
					require.Equal(t, []string{fmt.Sprint("a.test T", i)}, f.sends(), "its 401 at once")
					require.Equal(t, reauth.NotRetriedTooYoung, r.outcome.NotRetried)
					failure := r.refreshError(t)
					require.Equal(t, want, failure.RetryAt.Sub(obtained))
					require.False(t, failure.Permanent())
					if failure.RetryAfter() <= time.Second {
						time.Sleep(failure.RetryAfter() - 1)
						require.Equal(t, reauth.NotRetriedTooYoung, f.get(atA).outcome.NotRetried)
						time.Sleep(time.Nanosecond)
						break
					}
					time.Sleep(time.Second)
				}
			}
			require.Equal(t, i, f.refreshes())
			f.sends()
			require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
			require.Equal(t, i+1, f.refreshes(), "refresh %d", i+1)
			require.Len(t, f.sends(), 2)
		}
	})
}

// fetchRow has an origin reject n tokens in a row. The last was obtained now.
func (f *fixture) fetchRow(n int) {
	f.t.Helper()
	f.set(reauth.Token{AccessToken: "T0"})
	f.change(func() {
		f.serve = func(req *http.Request, _ string) *http.Response {
			if req.URL.Host == "a.test" {
				return invalidToken(req)
			}
			return nil
		}
	})
	for f.refreshes() < n {
		if r := f.get(atA); r.outcome.NotRetried != "" {
			time.Sleep(r.refreshError(f.t).RetryAfter())
		}
	}
}

func TestRowEndsByAnAcceptanceOfTheNewestToken(t *testing.T) {
	for _, tt := range []struct {
		name   string
		accept string // the token that a response accepts, late
		want   time.Duration
	}{
		{"the newest", "T4", 5 * time.Second},
		{"the one before", "T3", time.Minute},
		{"the first", "T0", time.Minute},
		{"none", "", time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.set(reauth.Token{AccessToken: "T0"})
				reject := func(req *http.Request, token string) *http.Response {
					if req.URL.Path == "/slow" {
						time.Sleep(3 * time.Minute)
						return answer(req, http.StatusOK, "")
					}
					return invalidToken(req)
				}
				f.change(func() { f.serve = reject })
				var wg sync.WaitGroup
				slow := func() { // a request with the current token
					wg.Go(func() { assert.Equal(t, http.StatusOK, f.get(atA+"slow").status) })
					synctest.Wait()
				}
				for {
					if tok, _ := f.cred.Current(); tok.AccessToken == tt.accept {
						slow()
						if tt.accept == "T4" {
							break
						}
						tt.accept = ""
					}
					if f.refreshes() == 4 {
						break
					}
					if r := f.get(atA); r.outcome.NotRetried != "" {
						time.Sleep(r.refreshError(t).RetryAfter())
					}
				}
				wg.Wait() // T4 was fetched less than five minutes ago
				f.revoke()
				r := f.get(atA)
				if tt.want == 5*time.Second { // T4 is accepted
					require.Equal(t, 5, f.refreshes())
				} else {
					time.Sleep(41 * time.Second)
					r = f.get(atA)
					require.Equal(t, 5, f.refreshes(), "40 s after the fourth in a row")
				}
				require.Equal(t, http.StatusUnauthorized, r.status)
				time.Sleep(time.Until(f.refreshTimes()[4].Add(tt.want)) - 1)
				require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
				assert.Equal(t, 5, f.refreshes())
				time.Sleep(time.Nanosecond)
				require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
				assert.Equal(t, 6, f.refreshes())
			})
		})
	}
}

func TestRowEndsAfterFiveMinutes(t *testing.T) {
	for _, tt := range []struct {
		pause time.Duration // after the third
		want  time.Duration // for the next token
	}{
		{5*time.Minute - 1, 40 * time.Second},
		{5 * time.Minute, 5 * time.Second},
	} {
		t.Run(tt.pause.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.fetchRow(3)
				time.Sleep(tt.pause)
				require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
				require.Equal(t, 4, f.refreshes())
				assert.Equal(t, tt.want, f.get(atA).refreshError(t).RetryAfter())
			})
		})
	}
}

func TestRowEndsBySetAndClear(t *testing.T) {
	for name, end := range map[string]func(f *fixture){
		"Set": func(f *fixture) { f.set(reauth.Token{AccessToken: "S"}) },
		"Clear": func(f *fixture) {
			require.NoError(f.t, f.cred.Clear(context.Background()))
			require.NoError(f.t, f.cred.Set(context.Background(), reauth.Token{AccessToken: "S"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.fetchRow(5)
				end(f)
				require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
				require.Equal(t, 6, f.refreshes(), "at once")
				assert.Equal(t, 5*time.Second, f.get(atA).refreshError(t).RetryAfter())
			})
		})
	}
}

func TestRowUnnoticedByOtherOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.fetchRow(5)
		require.Equal(t, time.Minute, f.get(atA).refreshError(t).RetryAfter())

		// An origin that has not accepted the token: 5 s, as it was fetched for a rejection.
		f.revoke()
		r := f.get(atB)
		require.Equal(t, reauth.NotRetriedTooYoung, r.outcome.NotRetried)
		assert.Equal(t, 5*time.Second, r.refreshError(t).RetryAfter())
		r = f.get("http://a.test:8080/") // loopback or listed origins apart, another scheme is another origin
		require.ErrorIs(t, r.err, reauth.ErrInsecure)
		time.Sleep(5 * time.Second)
		assert.Equal(t, http.StatusOK, f.get(atB).status)
		require.Equal(t, 6, f.refreshes())

		// An origin that has accepted it: at once.
		require.Equal(t, http.StatusOK, f.get(atC).status)
		f.revoke()
		assert.Equal(t, http.StatusOK, f.get(atC).status)
		require.Equal(t, 7, f.refreshes())
		assert.Equal(t, reauth.NotRetriedTooYoung, f.get(atA).outcome.NotRetried)
	})
}

// The first token, and one that was fetched for expiry, are not too young for any
// origin.
func TestRejectionOfATokenThatWasNotFetchedForOne(t *testing.T) {
	for name, fetch := range map[string]func(f *fixture){
		"the first":  func(f *fixture) { require.Equal(f.t, http.StatusOK, f.get(atA).status) },
		"from Set":   func(f *fixture) { f.set(reauth.Token{AccessToken: "T0"}) },
		"for expiry": func(f *fixture) { f.fetchAhead() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				fetch(f)
				before := f.refreshes()
				f.revoke()
				r := f.get(atB)
				assert.Equal(t, http.StatusOK, r.status)
				assert.False(t, r.outcome.Predecessor)
				assert.Equal(t, before+1, f.refreshes())
			})
		})
	}
}

// fetchAhead has T1 accepted by a.test, and replaced by T2 ahead of its expiry.
func (f *fixture) fetchAhead() {
	f.t.Helper()
	f.change(func() { f.life = time.Hour })
	require.Equal(f.t, http.StatusOK, f.get(atA).status)
	time.Sleep(58 * time.Minute)
	tok, err := f.cred.Token(context.Background())
	require.NoError(f.t, err)
	require.Equal(f.t, "T1", tok.AccessToken)
	synctest.Wait()
	tok, err = f.cred.Current()
	require.NoError(f.t, err)
	require.Equal(f.t, "T2", tok.AccessToken)
	f.sends()
}

// A refresh that failed brought no token that an origin could reject.
func TestRowWithoutRefreshesThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cred.MaxBackoff = time.Second
		f.set(reauth.Token{AccessToken: "T0"})
		f.revoke()
		f.change(func() { f.issue = failing })
		for range 30 {
			require.Equal(t, reauth.NotRetriedNoToken, f.get(atA).outcome.NotRetried)
			time.Sleep(time.Second)
		}
		require.Equal(t, 30, f.refreshes())
		f.change(func() {
			f.issue = nil
			f.serve = func(req *http.Request, _ string) *http.Response { return invalidToken(req) }
		})
		require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
		require.Equal(t, 31, f.refreshes())
		assert.Equal(t, 5*time.Second, f.get(atA).refreshError(t).RetryAfter(), "the first in a row")
		assert.Empty(t, f.warnings("reauth: the budget of refreshes is used up"))
	})
}

// What is fetched for other claims is no verdict on the token.
func TestRowWithoutRefreshesForClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.set(reauth.Token{AccessToken: "T0"})
		f.serve = func(req *http.Request, token string) *http.Response {
			if token < "T5" { // each token is asked for another claim
				return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer error="insufficient_claims", claims="after `+token+`"`)
			}
			return invalidToken(req)
		}
		for range 5 {
			require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
		}
		require.Equal(t, 5, f.refreshes())
		assert.Equal(t, 5*time.Second, f.get(atA).refreshError(t).RetryAfter())
	})
}

func TestServerThatRejectsEveryToken(t *testing.T) {
	for _, life := range []time.Duration{0, time.Hour, 3 * time.Minute} {
		t.Run(fmt.Sprint("lifetime ", life), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.cred.Logger, f.rt.Logger = discard, discard
				f.life = life
				f.serve = func(req *http.Request, _ string) *http.Response { return invalidToken(req) }
				for range 1200 { // ten minutes
					require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
					require.LessOrEqual(t, len(f.sends()), 2)
					time.Sleep(500 * time.Millisecond)
				}
				assert.Greater(t, f.refreshes(), 10, "it is tried again")
				assert.LessOrEqual(t, f.refreshes(), 20)
				assert.LessOrEqual(t, busiest(f.refreshTimes(), time.Minute), 6)

				f.change(func() { f.serve = nil })
				before := f.refreshes()
				require.Equal(t, http.StatusOK, f.get(atA).status, "the token is sent all the time")
				for range 3 {
					f.revoke()
					at := time.Now()
					require.Equal(t, http.StatusOK, f.get(atA).status)
					require.Zero(t, time.Since(at))
				}
				assert.Equal(t, before+3, f.refreshes())
			})
		})
	}
}

func TestServerThatRejectsEveryTokenOfAThousandCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cred.Logger, f.rt.Logger = discard, discard
		f.takes = time.Second
		f.set(reauth.Token{AccessToken: "T0"})
		f.serve = func(req *http.Request, _ string) *http.Response { return invalidToken(req) }
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { assert.Equal(t, http.StatusUnauthorized, f.get(atA).status) })
		}
		wg.Wait()
		assert.Equal(t, 1, f.refreshes())
		assert.Len(t, f.sends(), 2000)
	})
}

func TestRequestSentTwiceAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.set(reauth.Token{AccessToken: "T0"})
		f.serve = func(req *http.Request, _ string) *http.Response { return invalidToken(req) }
		r := f.get(atA)
		assert.Equal(t, http.StatusUnauthorized, r.status)
		assert.Equal(t, []string{"a.test T0", "a.test T1"}, f.sends())
		assert.False(t, r.outcome.Recovered())
		assert.Equal(t, http.StatusUnauthorized, r.outcome.Retry.StatusCode)
		assert.NotEqual(t, r.outcome.First.Token, r.outcome.Retry.Token)
		assert.ErrorContains(t, r.outcome.Err, "rejected too")
		assert.Empty(t, r.outcome.NotRetried)
	})
}

// A host that rejects every token, beside a healthy host.
func TestHostThatRejectsEveryTokenUnnoticedByAnother(t *testing.T) {
	for _, lag := range []time.Duration{0, 2 * time.Second} {
		for _, revoked := range []bool{false, true} {
			t.Run(fmt.Sprintf("lag %v, revocations %v", lag, revoked), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.cred.Logger, f.rt.Logger = discard, discard
					f.life, f.takes = 4*time.Minute, 50*time.Millisecond
					f.lag = lag
					f.serve = func(req *http.Request, _ string) *http.Response {
						time.Sleep(5 * time.Millisecond)
						if req.URL.Host == "b.test" {
							return invalidToken(req)
						}
						return nil
					}
					_ = f.get(atA)
					time.Sleep(10 * time.Second)
					begin := time.Now()
					var revokedAt atomic.Int64
					running := func() bool { return time.Since(begin) < 10*time.Minute }
					var wg sync.WaitGroup
					wg.Go(func() {
						for running() {
							assert.Equal(t, http.StatusUnauthorized, f.get(atB).status)
							time.Sleep(100 * time.Millisecond)
						}
					})
					wg.Go(func() {
						for running() {
							r := f.get(atA)
							since := time.Duration(time.Now().UnixNano() - revokedAt.Load())
							if since > lag+500*time.Millisecond {
								assert.Equal(t, http.StatusOK, r.status, "%v after the latest revocation", since)
							}
							assert.LessOrEqual(t, r.took, 200*time.Millisecond)
							time.Sleep(100 * time.Millisecond)
						}
					})
					for revoked && running() {
						time.Sleep(3*time.Minute + 7*time.Second)
						f.revoke()
						revokedAt.Store(time.Now().UnixNano())
					}
					wg.Wait()
					assert.LessOrEqual(t, f.refreshes(), 60)
				})
			})
		}
	}
}

// A path that rejects every token, beside a healthy path of the same origin.
func TestPathThatRejectsEveryTokenBesideAHealthyOne(t *testing.T) {
	for _, tt := range []struct {
		name   string
		stream bool // the path is sent a body that can be read only once, and gets no retry
	}{{"", false}, {"a body that cannot be replayed", true}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.cred.Logger, f.rt.Logger = discard, discard
				f.rt.MaxReplayBytes = -1
				f.serve = func(req *http.Request, token string) *http.Response {
					time.Sleep(5 * time.Millisecond)
					if req.URL.Path == "/bad" {
						return invalidToken(req)
					}
					return nil
				}
				begin := time.Now()
				running := func() bool { return time.Since(begin) < 10*time.Minute }
				var failed, n int
				var wg sync.WaitGroup
				wg.Go(func() {
					for running() {
						var body io.Reader
						if tt.stream {
							body = io.MultiReader(strings.NewReader("x"))
						}
						assert.Equal(t, http.StatusUnauthorized, f.send(t.Context(), http.MethodPost, atA+"bad", body).status)
						time.Sleep(100 * time.Millisecond)
					}
				})
				wg.Go(func() {
					for running() {
						if n++; f.get(atA+"healthz").status != http.StatusOK {
							failed++
						}
						time.Sleep(100 * time.Millisecond)
					}
				})
				wg.Wait()
				assert.Zero(t, failed, "of %d", n)
				assert.LessOrEqual(t, busiest(f.refreshTimes(), time.Minute), 20+10)
				assert.LessOrEqual(t, f.refreshes(), 20+100+1)
			})
		})
	}
}

func TestRefreshOfCallersSharesOneRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		rejected := reauth.Rejection{StatusCode: http.StatusUnauthorized, Reason: reauth.ReasonExpired}
		tok, err := f.cred.Token(t.Context())
		require.NoError(t, err)
		for i, want := range []time.Duration{0, 5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute} {
			if want > 0 {
				require.Equal(t, http.StatusOK, f.get(atA).status, "an acceptance elsewhere")
				_, err = f.cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: rejected})
				var failure *reauth.RefreshError
				require.ErrorAs(t, err, &failure)
				require.Equal(t, want, failure.RetryAfter())
				require.Equal(t, rejected, failure.Rejection)
				time.Sleep(want)
			}
			f.revoke()
			tok, err = f.cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: rejected})
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint("T", i+2), tok.AccessToken)
			assert.Equal(t, reauth.ReasonExpired, f.stale().Rejection.Reason)
		}
	})
}

func TestRefreshOfCallersWithoutAPredecessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.fetchAhead()
		tok, err := f.cred.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "T2"}, Rejection: reauth.Rejection{StatusCode: 401}})
		require.NoError(t, err)
		assert.Equal(t, "T3", tok.AccessToken)
		_, err = f.cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: reauth.Rejection{StatusCode: 401}})
		assert.Error(t, err)
		assert.Equal(t, http.StatusOK, f.get(atA).status)
	})
}

func TestRefreshWithoutARejectionIsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		for _, stale := range []reauth.Stale{{}, {Token: reauth.Token{AccessToken: "T1"}}, {Token: reauth.Token{AccessToken: "X"}}} {
			tok, err := f.cred.Refresh(t.Context(), stale)
			require.NoError(t, err)
			assert.Equal(t, "T1", tok.AccessToken)
		}
		assert.Equal(t, 1, f.refreshes())
		assert.Empty(t, f.stale().Rejection.Reason)

		// A Reason, or a status, is a rejection.
		for i, rej := range []reauth.Rejection{{Reason: reauth.ReasonExpired}, {StatusCode: 401}} {
			time.Sleep(time.Minute)
			tok, err := f.cred.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: fmt.Sprint("T", i+1)}, Rejection: rej})
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprint("T", i+2), tok.AccessToken)
			assert.NotEmpty(t, f.stale().Rejection.Reason)
		}
	})
}

// The budget.

const usedUpMessage = "reauth: the budget of refreshes is used up"

func TestBudgetOfRefreshesForRejections(t *testing.T) {
	for _, tt := range []struct{ set, every time.Duration }{
		{0, 6 * time.Second},
		{time.Minute, time.Minute},
		{time.Millisecond, time.Millisecond},
	} {
		t.Run(fmt.Sprint("RefreshEvery ", tt.set), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.cred.RefreshEvery = tt.set
				f.set(reauth.Token{AccessToken: "T0"})
				begin := time.Now()
				spend := func() reply {
					f.revoke()
					return f.get(atA)
				}
				for i := range 20 {
					require.Equal(t, http.StatusOK, spend().status, "refresh %d", i)
				}
				for i := range 5 {
					r := spend()
					require.Equal(t, http.StatusUnauthorized, r.status)
					require.Zero(t, r.took)
					require.True(t, r.outcome.Predecessor, "which is all that is left to try")
					time.Sleep(time.Until(begin.Add(time.Duration(i+1)*tt.every)) - 1)
					require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
					require.Equal(t, 20+i, f.refreshes())
					time.Sleep(time.Nanosecond)
					require.Equal(t, http.StatusOK, f.get(atA).status, "one more each RefreshEvery")
				}
				assert.Equal(t, 25, f.refreshes())

				time.Sleep(3*tt.every - 1)
				for range 2 {
					require.Equal(t, http.StatusOK, spend().status)
				}
				require.Equal(t, http.StatusUnauthorized, spend().status)
				time.Sleep(time.Nanosecond)
				require.Equal(t, http.StatusOK, f.get(atA).status)

				time.Sleep(time.Hour)
				for range 20 {
					require.Equal(t, http.StatusOK, spend().status)
				}
				require.Equal(t, http.StatusUnauthorized, spend().status, "20 at most")
			})
		})
	}
}

// An origin that has accepted no token has no predecessor, and gets its 401.
func TestBudgetUsedUpByAnotherOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cred.RefreshEvery = time.Minute
		f.set(reauth.Token{AccessToken: "T0"})
		begin := time.Now()
		for range 20 {
			f.revoke()
			require.Equal(t, http.StatusOK, f.get(atA).status)
		}
		f.revoke()
		f.sends()
		require.Equal(t, reauth.NotRetriedTooYoung, f.get(atB).outcome.NotRetried)
		time.Sleep(5 * time.Second)
		r := f.get(atB)
		assert.Equal(t, http.StatusUnauthorized, r.status)
		assert.Zero(t, r.took)
		assert.Equal(t, reauth.NotRetriedBudget, r.outcome.NotRetried)
		assert.False(t, r.outcome.Recovered())
		failure := r.refreshError(t)
		assert.Equal(t, time.Minute, failure.RetryAt.Sub(begin))
		assert.False(t, failure.Permanent())
		assert.Equal(t, []string{"b.test T20", "b.test T20"}, f.sends(), "one send for each request")
		time.Sleep(55*time.Second - 1)
		require.Equal(t, http.StatusUnauthorized, f.get(atB).status)
		time.Sleep(time.Nanosecond)
		assert.Equal(t, http.StatusOK, f.get(atB).status)
		assert.Equal(t, 21, f.refreshes())
	})
}

func TestBudgetWithoutALimit(t *testing.T) {
	for _, every := range []time.Duration{-1, math.MinInt64} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			f.cred.RefreshEvery = every
			f.set(reauth.Token{AccessToken: "T0"})
			for range 100 {
				f.revoke()
				require.Equal(t, http.StatusOK, f.get(atA).status)
			}
			assert.Equal(t, 100, f.refreshes())
		})
	}
}

func TestBudgetWithoutRefreshesForExpiryAndFailures(t *testing.T) {
	for name, spend := range map[string]func(f *fixture){
		"for expiry": func(f *fixture) {
			require.Equal(f.t, http.StatusOK, f.get(atA).status)
			time.Sleep(2 * time.Second)
		},
		"for the first token": func(f *fixture) {
			require.NoError(f.t, f.cred.Clear(context.Background()))
			require.Equal(f.t, http.StatusOK, f.get(atA).status)
		},
		"that failed": func(f *fixture) {
			f.change(func() { f.issue = failing })
			f.revoke()
			require.Equal(f.t, http.StatusUnauthorized, f.get(atA).status)
		},
		"that brought the rejected token": func(f *fixture) {
			f.change(func() { f.issue = func(_ int, s reauth.Stale) (reauth.Token, error) { return s.Token, nil } })
			f.revoke()
			require.Equal(f.t, http.StatusUnauthorized, f.get(atA).status)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.cred.RefreshEvery = 1000 * time.Hour
				f.cred.MinBackoff = -1
				f.life = 2 * time.Second
				require.Equal(t, http.StatusOK, f.get(atA).status)
				for range 50 {
					spend(f)
				}
				require.GreaterOrEqual(t, f.refreshes(), 50)
				f.change(func() { f.issue, f.life = nil, 0 })
				require.NoError(t, f.cred.Clear(t.Context()))
				require.Equal(t, http.StatusOK, f.get(atA).status)
				for i := range 20 {
					f.revoke()
					require.Equal(t, http.StatusOK, f.get(atA).status, "refresh %d", i)
				}
				f.revoke()
				assert.Equal(t, http.StatusUnauthorized, f.get(atA).status)
			})
		})
	}
}

// The budget is that of a Credential: Transports share it, and Set does not renew it.
func TestBudgetSharedByAllTransportsOfACredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cred.RefreshEvery = time.Hour
		f.set(reauth.Token{AccessToken: "T0"})
		first := f.rt
		second := &reauth.Transport{Base: first.Base, Credential: f.cred, RetryWait: -1, Logger: discard}
		for i := range 20 {
			f.rt = []*reauth.Transport{first, second}[i%2]
			f.revoke()
			require.Equal(t, http.StatusOK, f.get([]string{atA, atB}[i%2]).status)
			require.Equal(t, http.StatusOK, f.get(atA).status)
			require.Equal(t, http.StatusOK, f.get(atB).status)
			require.Equal(t, i+1, f.refreshes())
			time.Sleep(5 * time.Second)
		}
		f.set(reauth.Token{AccessToken: "S"})
		f.revoke()
		for _, rt := range []*reauth.Transport{first, second} {
			f.rt = rt
			require.Equal(t, reauth.NotRetriedBudget, f.get(atA).outcome.NotRetried)
			require.Equal(t, reauth.NotRetriedBudget, f.get(atC).outcome.NotRetried)
		}
	})
}

func TestBudgetUsedUpWarnsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.set(reauth.Token{AccessToken: "T0"})
		useUp := func() {
			for range 100 {
				f.revoke()
				f.get(atA)
				time.Sleep(time.Second)
			}
		}
		useUp()
		all := f.warnings(usedUpMessage)
		require.Len(t, all, 1)
		assert.Contains(t, all[0]["hint"], "another process uses the same login")
		assert.Contains(t, all[0]["hint"], "a path rejects every token")
		assert.EqualValues(t, 6*time.Second, all[0]["refresh_every"])

		time.Sleep(110 * time.Second) // not yet full
		useUp()
		assert.Len(t, f.warnings(usedUpMessage), 1)
		time.Sleep(121 * time.Second)
		useUp()
		assert.Len(t, f.warnings(usedUpMessage), 2, "once each time that the budget was full before")
	})
}

// Two processes with one login, at an issuer that accepts only its newest token. Each
// retry succeeds, and its token is revoked right after.
func TestBudgetOfTwoProcessesWithOneLogin(t *testing.T) {
	for _, every := range []time.Duration{0, -1} {
		t.Run(fmt.Sprint("RefreshEvery ", every), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				n, newest := 0, ""
				base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
					mu.Lock()
					defer mu.Unlock()
					if req.Header.Get("Authorization") != "Bearer "+newest {
						return invalidToken(req), nil
					}
					return answer(req, http.StatusOK, "fine"), nil
				})
				begin := time.Now()
				const length = 5 * time.Minute
				var warned atomic.Int32
				var wg sync.WaitGroup
				for range 2 {
					f := newFixture(t)
					f.rt.Base, f.rt.Logger = base, discard
					f.cred.RefreshEvery = every
					f.issue = func(int, reauth.Stale) (reauth.Token, error) {
						mu.Lock()
						defer mu.Unlock()
						n++
						newest = fmt.Sprint("T", n)
						return reauth.Token{AccessToken: newest}, nil
					}
					wg.Go(func() {
						time.Sleep(rand.N(100 * time.Millisecond))
						for time.Since(begin) < length {
							r := f.get(atA)
							if every < 0 {
								assert.Equal(t, http.StatusOK, r.status)
							} else if r.status != http.StatusOK && !r.outcome.Predecessor {
								assert.Equal(t, reauth.NotRetriedBudget, r.outcome.NotRetried)
							}
							time.Sleep(100 * time.Millisecond)
						}
						if every < 0 {
							assert.Greater(t, f.refreshes(), 1000)
							assert.Empty(t, f.warnings(usedUpMessage))
							return
						}
						assert.LessOrEqual(t, f.refreshes(), 1+20+int(length/(6*time.Second)))
						n := len(f.warnings(usedUpMessage))
						assert.LessOrEqual(t, n, 1)
						warned.Add(int32(n))
					})
				}
				wg.Wait()
				if every == 0 {
					assert.NotZero(t, warned.Load(), "the first whose budget is used up lets the other keep its token")
				}
			})
		})
	}
}

// The bound of remembered origins.

func TestOriginsRememberedUpToAHundred(t *testing.T) {
	origin := func(i int) string { return fmt.Sprintf("https://%d.test/", i) }
	// T1 is fetched for a rejection, and the origins 1 to n accept it.
	accepted := func(t *testing.T, n int) *fixture {
		f := newFixture(t)
		f.set(reauth.Token{AccessToken: "T0"})
		f.revoke()
		for i := 1; i <= n; i++ {
			require.Equal(t, http.StatusOK, f.get(origin(i)).status)
		}
		require.Equal(t, 1, f.refreshes())
		return f
	}
	for _, tt := range []struct {
		name   string
		n, i   int // origins that accepted, the one that rejects
		reject string
		want   reauth.NotRetried
		pred   bool // T1 is sent in place of T2
	}{
		{"the hundredth has accepted", 100, 100, "T1", "", false},
		{"the next counts as having accepted", 100, 101, "T1", "", false},
		{"with room, another has not accepted", 99, 101, "T1", reauth.NotRetriedTooYoung, false},
		{"the hundredth is sent the predecessor", 100, 100, "T2", "", true},
		{"the next is not, though it accepted it", 101, 101, "T2", reauth.NotRetriedTooYoung, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := accepted(t, tt.n)
				f.change(func() {
					f.serve = func(req *http.Request, token string) *http.Response {
						if req.URL.Host == fmt.Sprint(tt.i, ".test") && token == tt.reject {
							return invalidToken(req)
						}
						return nil
					}
				})
				if tt.reject == "T2" { // another origin has T1 replaced
					f.change(func() { f.revoked["T1"] = true })
					require.Equal(t, http.StatusOK, f.get(origin(1)).status)
					require.Equal(t, 2, f.refreshes())
					f.change(func() { f.revoked["T1"] = false })
				}
				before := f.refreshes()
				f.sends()
				r := f.get(origin(tt.i))
				assert.Equal(t, tt.want, r.outcome.NotRetried)
				assert.Equal(t, tt.pred, r.outcome.Predecessor)
				if tt.want != "" {
					assert.Equal(t, http.StatusUnauthorized, r.status)
					assert.Len(t, f.sends(), 1)
				} else {
					assert.Equal(t, http.StatusOK, r.status)
				}
				if tt.want != "" || tt.pred {
					assert.Equal(t, before, f.refreshes())
				} else {
					assert.Equal(t, before+1, f.refreshes())
				}
			})
		})
	}
}

// A full set of origins does not count as an acceptance for the callers of Refresh.
func TestRefreshOfCallersBesideAFullSetOfOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.set(reauth.Token{AccessToken: "T0"})
		f.revoke()
		for i := range 101 {
			require.Equal(t, http.StatusOK, f.get(fmt.Sprintf("https://%d.test/", i)).status)
		}
		_, err := f.cred.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "T1"}, Rejection: reauth.Rejection{StatusCode: 401}})
		var failure *reauth.RefreshError
		require.ErrorAs(t, err, &failure)
		assert.Equal(t, 5*time.Second, failure.RetryAfter())
	})
}

// Of the origins that reject every token, a hundred have a row.
func TestRowsOfAHundredOrigins(t *testing.T) {
	for _, tt := range []struct {
		origins int
		row     bool // the last of them has one
	}{{100, true}, {101, false}} {
		t.Run(fmt.Sprint(tt.origins), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.cred.RefreshEvery = -1
				f.set(reauth.Token{AccessToken: "T0"})
				var rejects atomic.Bool
				f.serve = func(req *http.Request, _ string) *http.Response {
					if rejects.Load() {
						return invalidToken(req)
					}
					return nil
				}
				last := ""
				for i := range tt.origins {
					last = fmt.Sprintf("https://%d.test/", i)
					rejects.Store(false)
					require.Equal(t, http.StatusOK, f.get(last).status)
					rejects.Store(true)
					require.Equal(t, http.StatusUnauthorized, f.get(last).status)
					require.Equal(t, i+1, f.refreshes())
				}
				if !tt.row { // it counts as an origin that has accepted the token
					require.Equal(t, http.StatusUnauthorized, f.get(last).status)
					assert.Equal(t, tt.origins+1, f.refreshes())
					return
				}
				require.Equal(t, 5*time.Second, f.get(last).refreshError(t).RetryAfter())
				time.Sleep(5 * time.Second)
				require.Equal(t, http.StatusUnauthorized, f.get(last).status)
				require.Equal(t, tt.origins+1, f.refreshes())
				assert.Equal(t, 10*time.Second, f.get(last).refreshError(t).RetryAfter())
			})
		})
	}
}

// The predecessor of a token.

// only has a.test accept just these tokens, and other hosts all that are valid.
func (f *fixture) only(tokens ...string) {
	f.change(func() {
		f.serve = func(req *http.Request, token string) *http.Response {
			switch {
			case req.URL.Host != "a.test":
				return nil
			case slices.Contains(tokens, token):
				return answer(req, http.StatusOK, "fine")
			}
			return invalidToken(req)
		}
	})
}

func TestPredecessorSentInPlaceOfATokenThatServersDoNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.fetchAhead()
		f.only("T1")
		for range 3 {
			r := f.get(atA)
			assert.Equal(t, http.StatusOK, r.status)
			assert.Equal(t, []string{"a.test T2", "a.test T1"}, f.sends())
			assert.True(t, r.outcome.Predecessor)
			assert.True(t, r.outcome.Recovered())
			assert.Equal(t, reauth.Token{AccessToken: "T1"}.Fingerprint(), r.outcome.Retry.Token)
			assert.Empty(t, r.outcome.NotRetried)
			assert.NoError(t, r.outcome.Err)
			time.Sleep(30 * time.Second)
		}
		assert.Equal(t, 2, f.refreshes(), "without a refresh")
		assert.Contains(t, f.log.text(), `"predecessor":true`)
		assert.Contains(t, f.log.text(), "token rejected, retry succeeded")

		f.only("T1", "T2")
		assert.Equal(t, http.StatusOK, f.get(atA).status)
		assert.Equal(t, []string{"a.test T2"}, f.sends())
	})
}

func TestPredecessorIfItsOriginAcceptedItLast(t *testing.T) {
	const young = 4*time.Second + 999*time.Millisecond
	for _, tt := range []struct {
		name     string
		age      time.Duration // of T2 when it is rejected
		accepted bool          // T2, before
		tokens   []string      // that a.test accepts when T2 is rejected
		want     []string
		calls    int // of the issuer
		status   int
	}{
		{"T2 not accepted, young", 0, false, []string{"T1"}, []string{"T2", "T1"}, 0, 200},
		{"T2 not accepted, old", time.Minute, false, []string{"T1"}, []string{"T2", "T1"}, 0, 200},
		{"T2 accepted, young", young, true, []string{"T1"}, []string{"T2", "T1"}, 0, 200},
		{"T2 accepted, not young", 5 * time.Second, true, []string{"T1", "T3"}, []string{"T2", "T3"}, 1, 200},
		{"both revoked, T2 not accepted", time.Minute, false, []string{"T3"}, []string{"T2", "T1"}, 0, 401},
		{"both revoked, T2 accepted and young", young, true, []string{"T3"}, []string{"T2", "T1"}, 0, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.fetchAhead()
				if tt.accepted {
					require.Equal(t, http.StatusOK, f.get(atA).status)
				}
				time.Sleep(tt.age)
				f.only(tt.tokens...)
				f.sends()
				r := f.get(atA)
				assert.Equal(t, tt.status, r.status)
				assert.Equal(t, []string{"a.test " + tt.want[0], "a.test " + tt.want[1]}, f.sends())
				assert.Equal(t, 2+tt.calls, f.refreshes())
				assert.Equal(t, tt.want[1] == "T1", r.outcome.Predecessor)
				if tt.status == http.StatusUnauthorized { // the last word on T1 is a rejection
					r = f.get(atA)
					assert.Equal(t, http.StatusOK, r.status, "one failure, and no more")
					assert.False(t, r.outcome.Predecessor)
					assert.Equal(t, 3, f.refreshes())
				}
			})
		})
	}
}

// Revoked right after it was accepted, again and again: each retry has another token.
func TestPredecessorThatWasRejectedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.fetchAhead()
		f.only()
		f.revoke()
		require.Equal(t, http.StatusUnauthorized, f.get(atA).status) // T2, T1
		f.change(func() { f.serve = nil })
		for range 5 {
			f.revoke()
			r := f.get(atA)
			assert.Equal(t, http.StatusOK, r.status)
			assert.False(t, r.outcome.Predecessor)
		}
		assert.Equal(t, 7, f.refreshes())
	})
}

// Replicas learn of a new token, each at its time: a refresh is allowed for none of
// their rejections, and the origin has accepted the predecessor.
func TestPredecessorWhereTheTokenIsTooYoung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		require.Equal(t, http.StatusOK, f.get(atA).status)
		f.change(func() { f.revoked["T1"] = true })
		f.only("T1")
		require.Equal(t, http.StatusOK, f.get(atC).status) // T2, fetched for a rejection
		require.Equal(t, 2, f.refreshes())

		f.only() // a replica that takes neither
		f.sends()
		require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
		require.Equal(t, []string{"a.test T2", "a.test T1"}, f.sends())

		// The last word on T1 is now a rejection, and T2 is young: T1 all the same.
		f.only("T1")
		r := f.get(atA)
		assert.Equal(t, http.StatusOK, r.status)
		assert.True(t, r.outcome.Predecessor)
		assert.Equal(t, []string{"a.test T2", "a.test T1"}, f.sends())
		f.only()
		require.Equal(t, http.StatusUnauthorized, f.get(atA).status)
		require.Equal(t, []string{"a.test T2", "a.test T1"}, f.sends())
		assert.Equal(t, 2, f.refreshes())

		time.Sleep(5 * time.Second)
		f.only("T3")
		r = f.get(atA)
		assert.Equal(t, http.StatusOK, r.status)
		assert.False(t, r.outcome.Predecessor)
		assert.Equal(t, 3, f.refreshes())
	})
}

func TestPredecessorWhereTheBudgetIsUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cred.RefreshEvery = time.Hour
		f.set(reauth.Token{AccessToken: "T0"})
		for range 20 {
			f.revoke()
			require.Equal(t, http.StatusOK, f.get(atA).status)
			time.Sleep(time.Minute)
		}
		f.sends()
		f.only() // T19 was accepted, and then rejected
		assert.Equal(t, http.StatusUnauthorized, f.get(atA).status)
		f.only("T19")
		r := f.get(atA)
		assert.Equal(t, http.StatusOK, r.status)
		assert.True(t, r.outcome.Predecessor)
		assert.Equal(t, []string{"a.test T20", "a.test T19", "a.test T20", "a.test T19"}, f.sends())
		assert.Equal(t, 20, f.refreshes())
		assert.Len(t, f.warnings(usedUpMessage), 1)
	})
}

func TestPredecessorSentOnlyWhereItWasAccepted(t *testing.T) {
	for _, url := range []string{atB, "https://a.test:8443/", "https://sub.a.test/", "http://127.0.0.1/"} {
		t.Run(url, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.fetchAhead()
				f.change(func() {
					f.serve = func(req *http.Request, token string) *http.Response {
						if token == "T2" {
							return invalidToken(req)
						}
						return nil
					}
				})
				r := f.get(url)
				assert.Equal(t, http.StatusOK, r.status)
				assert.False(t, r.outcome.Predecessor)
				assert.Equal(t, 3, f.refreshes())
				for _, sent := range f.sends() {
					assert.False(t, strings.HasSuffix(sent, " T1"), sent)
				}
			})
		})
	}
}

// An origin that answered the predecessor with 403, 429 or 503 has not accepted it.
func TestPredecessorByStatus(t *testing.T) {
	for status, want := range map[int]bool{200: true, 404: true, 409: true, 403: false, 407: false, 429: false, 503: false} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.life = time.Hour
				f.serve = func(req *http.Request, token string) *http.Response { return answer(req, status, "") }
				require.Equal(t, status, f.get(atA).status)
				time.Sleep(58 * time.Minute)
				require.Equal(t, status, f.get(atB).status)
				synctest.Wait()
				require.Equal(t, 2, f.refreshes())
				f.only("T1", "T3")
				r := f.get(atA)
				assert.Equal(t, http.StatusOK, r.status)
				assert.Equal(t, want, r.outcome.Predecessor)
			})
		})
	}
}

func TestPredecessorUntilItsExpirySetOrClear(t *testing.T) {
	login := func(f *fixture, token string) {
		f.know(token)
		assert.NoError(f.t, f.cred.Set(context.Background(), reauth.Token{AccessToken: token}))
	}
	during := func(do func(f *fixture)) func(f *fixture) { // the wait before the retry
		return func(f *fixture) {
			f.only("T1", "S")
			f.rt.RetryWait = time.Second
			time.AfterFunc(100*time.Millisecond, func() { do(f) })
		}
	}
	for _, tt := range []struct {
		name   string
		do     func(f *fixture)
		tokens []string
		want   []string
		status int
	}{
		{"nothing happens", func(*fixture) {}, []string{"T1"}, []string{"a.test T2", "a.test T1"}, 200},
		{"just before its expiry", func(f *fixture) { time.Sleep(2*time.Minute - 1) }, []string{"T1"}, []string{"a.test T2", "a.test T1"}, 200},
		{"its expiry", func(f *fixture) { time.Sleep(2 * time.Minute) }, []string{"T1", "T3"}, []string{"a.test T2", "a.test T3"}, 200},
		{"its expiry during the wait", func(f *fixture) {
			f.rt.RetryWait = 40 * time.Second // 20 s at least
			time.Sleep(2*time.Minute - 10*time.Second)
		}, []string{"T1"}, []string{"a.test T2"}, 401},
		{"Set", func(f *fixture) { login(f, "S") }, []string{"T1", "T3"}, []string{"a.test S", "a.test T3"}, 200},
		{"Set with the current token", func(f *fixture) { login(f, "T2") }, []string{"T1", "T3"}, []string{"a.test T2", "a.test T3"}, 200},
		{"Set during the wait", during(func(f *fixture) { login(f, "S") }), []string{"T1", "S"}, []string{"a.test T2", "a.test S"}, 200},
		{"Clear", func(f *fixture) { assert.NoError(f.t, f.cred.Clear(context.Background())); login(f, "S") }, []string{"T1", "T3"}, []string{"a.test S", "a.test T3"}, 200},
		{"Clear during the wait", during(func(f *fixture) { assert.NoError(f.t, f.cred.Clear(context.Background())) }), []string{"T1"}, []string{"a.test T2"}, 401},
		{"Clear and Set during the wait", during(func(f *fixture) {
			assert.NoError(f.t, f.cred.Clear(context.Background()))
			login(f, "S")
		}), []string{"T1", "S"}, []string{"a.test T2"}, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				rt := f.rt
				f.fetchAhead()
				f.rt = &reauth.Transport{Base: rt.Base, Credential: f.cred, RetryWait: -1, Logger: discard}
				tt.do(f)
				f.only(tt.tokens...)
				f.sends()
				r := f.get(atA)
				assert.Equal(t, tt.status, r.status)
				assert.Equal(t, tt.want, f.sends())
				assert.Equal(t, tt.want[len(tt.want)-1] == "a.test T1", r.outcome.Predecessor)
			})
		})
	}
}

// Another caller has the token replaced during the wait: the newest token is sent.
func TestPredecessorOfATokenThatIsReplacedDuringTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		rt := f.rt
		f.fetchAhead()
		f.rt = &reauth.Transport{Base: rt.Base, Credential: f.cred, RetryWait: 10 * time.Second, Logger: discard}
		f.only("T1", "T3")
		time.AfterFunc(time.Second, func() {
			_, err := f.cred.Refresh(context.Background(), reauth.Stale{Token: reauth.Token{AccessToken: "T2"}, Rejection: reauth.Rejection{StatusCode: 401}})
			assert.NoError(t, err)
		})
		r := f.get(atA)
		assert.Equal(t, http.StatusOK, r.status)
		assert.Equal(t, []string{"a.test T2", "a.test T3"}, f.sends(), "T1 is no longer the predecessor")
		assert.False(t, r.outcome.Predecessor)
	})
}

// A token that is replaced at once leaves the predecessor in place: servers may know
// neither of the new tokens.
func TestPredecessorOfATokenThatIsReplacedWithinFiveSeconds(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name    string
		first   bool          // T1 is the first token, and was not fetched for a rejection
		old     time.Duration // T1, when T2 comes
		age     time.Duration // of T2, when T3 comes
		remains bool
	}{
		{"at once", false, 0, 0, true},
		{"just young", false, 0, 5*time.Second - ms, true},
		{"T2 no longer young", false, 0, 5 * time.Second, false},
		{"T1 nearly too old", false, 15*time.Second - 2*ms, ms, true},
		{"T1 too old", false, 15*time.Second - ms, ms, false},
		{"T1 not fetched for a rejection", true, 0, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				if tt.first {
					require.Equal(t, http.StatusOK, f.get(atC).status)
				} else {
					f.set(reauth.Token{AccessToken: "T0"})
					f.revoke()
				}
				// Both origins accept T1.
				require.Equal(t, http.StatusOK, f.get(atC).status)
				require.Equal(t, http.StatusOK, f.get(atA).status)
				require.Equal(t, 1, f.refreshes())
				time.Sleep(tt.old)
				f.only("T2")
				require.Equal(t, http.StatusOK, f.get(atA).status)
				require.Equal(t, 2, f.refreshes())
				time.Sleep(tt.age)
				f.only("T3")
				require.Equal(t, http.StatusOK, f.get(atA).status)
				require.Equal(t, 3, f.refreshes())

				// c.test knows neither T2 nor T3.
				f.change(func() {
					f.serve = func(req *http.Request, token string) *http.Response {
						if token != "T1" {
							return invalidToken(req)
						}
						return nil
					}
				})
				r := f.get(atC)
				assert.Equal(t, tt.remains, r.outcome.Predecessor)
				if tt.remains {
					assert.Equal(t, http.StatusOK, r.status)
				} else {
					assert.Equal(t, reauth.NotRetriedTooYoung, r.outcome.NotRetried)
				}
				assert.Equal(t, 3, f.refreshes())
			})
		})
	}
}

// Servers that learn of a token late.

func TestRoutineRefreshUnnoticedByCallers(t *testing.T) {
	for _, lag := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second} {
		for _, replicas := range []int{1, 4} {
			t.Run(fmt.Sprintf("%v late, %d replicas", lag, replicas), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.cred.Logger, f.rt.Logger = discard, discard
					f.life, f.takes = 20*time.Minute, 50*time.Millisecond
					f.serve = func(req *http.Request, token string) *http.Response {
						time.Sleep(5 * time.Millisecond)
						late := lag * time.Duration(1+rand.IntN(replicas)) / time.Duration(replicas)
						f.mu.Lock()
						defer f.mu.Unlock()
						age := time.Since(f.issued[token])
						if age < late || age >= f.life {
							return invalidToken(req)
						}
						return nil
					}
					_ = f.get(atA)
					time.Sleep(lag + 10*time.Second)
					require.Equal(t, http.StatusOK, f.get(atA).status)
					time.Sleep(14 * time.Minute)
					begin := time.Now() // a minute before the refresh may begin
					var wg sync.WaitGroup
					for range 5 {
						wg.Go(func() {
							for time.Since(begin) < 8*time.Minute {
								r := f.get(atA)
								assert.Equal(t, http.StatusOK, r.status)
								assert.LessOrEqual(t, r.took, 10*time.Millisecond)
								time.Sleep(100 * time.Millisecond)
							}
						})
					}
					wg.Wait()
					assert.Equal(t, 1, f.refreshesSince(begin))
				})
			})
		}
	}
}

func TestRevocationNoticedForTheLagOfTheServers(t *testing.T) {
	for _, lag := range []time.Duration{0, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second} {
		for _, replicas := range []int{1, 4} {
			t.Run(fmt.Sprintf("%v late, %d replicas", lag, replicas), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.cred.Logger, f.rt.Logger = discard, discard
					f.takes = 50 * time.Millisecond
					f.serve = func(req *http.Request, token string) *http.Response {
						time.Sleep(5 * time.Millisecond)
						late := lag * time.Duration(1+rand.IntN(replicas)) / time.Duration(replicas)
						f.mu.Lock()
						defer f.mu.Unlock()
						if time.Since(f.issued[token]) < late {
							return invalidToken(req)
						}
						return nil
					}
					_ = f.get(atA)
					time.Sleep(lag)
					require.Equal(t, http.StatusOK, f.get(atA).status)
					time.Sleep(time.Minute)
					n := f.refreshes()
					f.revoke()
					at := time.Now()
					var last atomic.Int64
					var wg sync.WaitGroup
					for range 5 {
						wg.Go(func() {
							for time.Since(at) < 2*time.Minute {
								if f.get(atA).status != http.StatusOK {
									last.Store(int64(time.Since(at)))
								}
								time.Sleep(100 * time.Millisecond)
							}
						})
					}
					wg.Wait()
					assert.LessOrEqual(t, time.Duration(last.Load()), lag+500*time.Millisecond)
					if replicas == 1 {
						assert.Equal(t, n+1, f.refreshes())
					} else {
						assert.LessOrEqual(t, f.refreshes(), n+4)
					}
				})
			})
		}
	}
}

func TestRevocationAtTenOriginsRefreshedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.cred.Logger, f.rt.Logger = discard, discard
		f.takes, f.lag = 50*time.Millisecond, 2*time.Second
		f.set(reauth.Token{AccessToken: "T0"})
		time.Sleep(2 * time.Second)
		begin := time.Now()
		revokedAt := begin.Add(time.Minute)
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				for time.Since(begin) < 3*time.Minute {
					r := f.get(fmt.Sprintf("https://%d.test/", i))
					if since := time.Since(revokedAt); since <= 0 || since > 2500*time.Millisecond {
						assert.Equal(t, http.StatusOK, r.status)
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		time.Sleep(time.Minute)
		f.revoke()
		wg.Wait()
		assert.Equal(t, 1, f.refreshes())
	})
}

// Requests that can be sent once, while a rejected token is replaced.

// upload sends 2 MiB that can be read only once.
func (f *fixture) upload(ctx context.Context, url string, length int64) reply {
	f.t.Helper()
	ctx, outcome := reauth.WithOutcome(ctx)
	body := io.MultiReader(strings.NewReader(strings.Repeat("x", 2<<20))) // neither in memory nor a file
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"upload", body)
	require.NoError(f.t, err)
	req.ContentLength = length
	at := time.Now()
	resp, err := f.rt.RoundTrip(req)
	r := reply{took: time.Since(at), outcome: outcome(), err: err}
	if err == nil {
		r.status = resp.StatusCode
		_ = resp.Body.Close()
	}
	return r
}

func TestUploadDuringTheRefreshOfARejectedToken(t *testing.T) {
	gone := errors.New("the user has gone")
	for _, tt := range []struct {
		name   string
		url    string
		fails  bool // the refresh
		ctx    func(t *testing.T) context.Context
		sent   []string // nil: nothing
		status int
		err    error
		took   time.Duration
	}{
		{name: "it waits", url: atA, sent: []string{"a.test/upload T2"}, status: 200, took: 3 * time.Second},
		{name: "it waits at an origin that says nothing of the token", url: atC, sent: []string{"c.test/upload T2"}, status: 200, took: 3 * time.Second},
		{name: "it does not wait where the token is accepted", url: atB, sent: []string{"b.test/upload T1"}, status: 200},
		{name: "its context ends the wait", url: atA, err: gone, took: time.Second, ctx: func(t *testing.T) context.Context {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(gone) })
			return ctx
		}},
		{name: "the refresh fails, and it is sent with the token", url: atA, fails: true, sent: []string{"a.test/upload T1"}, status: 401, took: 3 * time.Second},
	} {
		for _, length := range []int64{2 << 20, -1} {
			t.Run(fmt.Sprintf("%s, ContentLength %d", tt.name, length), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					received := int64(0)
					require.Equal(t, http.StatusOK, f.get(atA).status)
					require.Equal(t, http.StatusOK, f.get(atB).status)
					f.change(func() {
						f.takes = 4 * time.Second
						if tt.fails {
							f.issue = failing
						}
						f.serve = func(req *http.Request, token string) *http.Response {
							if req.Body != nil && req.Body != http.NoBody {
								n, _ := io.Copy(io.Discard, req.Body)
								received = n
							}
							if token == "T1" && req.URL.Host != "b.test" {
								return invalidToken(req)
							}
							return answer(req, http.StatusOK, "")
						}
					})
					go f.get(atA) // its rejection starts the refresh
					time.Sleep(time.Second)
					f.sends()
					ctx := t.Context()
					if tt.ctx != nil {
						ctx = tt.ctx(t)
					}
					r := f.upload(ctx, tt.url, length)
					assert.Equal(t, tt.took, r.took)
					assert.Equal(t, tt.err, r.err)
					assert.Equal(t, tt.status, r.status)
					assert.Equal(t, tt.sent, slices.DeleteFunc(f.sends(), func(s string) bool { return !strings.Contains(s, "/upload") }))
					if tt.status == 200 {
						assert.EqualValues(t, 2<<20, received, "nothing is lost")
					}
					time.Sleep(10 * time.Second)
				})
			})
		}
	}
}

// Requests that can be sent again do not wait, and neither does an upload during a
// refresh for expiry.
func TestRequestDuringTheRefreshOfAnotherReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.life = time.Hour
		require.Equal(t, http.StatusOK, f.get(atA).status)
		time.Sleep(58 * time.Minute)
		f.change(func() { f.takes = time.Minute })
		r := f.upload(t.Context(), atC, -1)
		synctest.Wait()
		assert.Equal(t, http.StatusOK, r.status)
		assert.Zero(t, r.took)
		assert.Equal(t, 2, f.refreshes(), "it began the refresh, and did not wait")
		time.Sleep(time.Minute)

		f.change(func() { f.takes = 4 * time.Second })
		require.Equal(t, http.StatusOK, f.get(atA).status)
		time.Sleep(5 * time.Second)
		f.change(func() { f.revoked["T2"] = true })
		go f.get(atA)
		time.Sleep(time.Second)
		f.sends()
		f.change(func() { f.revoked["T2"] = false })
		r = f.get(atC) // a GET with the token that may yet be accepted there
		assert.Equal(t, http.StatusOK, r.status)
		assert.Zero(t, r.took)
		assert.Equal(t, []string{"c.test T2"}, f.sends())
		time.Sleep(10 * time.Second)
	})
}

// What the Outcome and the log say.

func TestOutcomeAndLogOfARejectionWithoutARefresh(t *testing.T) {
	reject := func(f *fixture) {
		f.set(reauth.Token{AccessToken: "T0"})
		f.change(func() {
			f.serve = func(req *http.Request, _ string) *http.Response { return invalidToken(req) }
		})
	}
	for _, tt := range []struct {
		name    string
		prepare func(f *fixture)
		why     reauth.NotRetried
		retryIn time.Duration // zero: permanent
		text    string        // of the error
		hint    string
		reason  string // sentence
	}{
		{"too young", func(f *fixture) { reject(f); f.get(atA) }, reauth.NotRetriedTooYoung, 5 * time.Second, "this origin has not accepted it", "wait until the servers know the new token; if they never do, check that they accept tokens of this issuer", "the token is new, and this origin has not accepted it"},
		{"budget", func(f *fixture) {
			f.cred.RefreshEvery = time.Hour
			f.set(reauth.Token{AccessToken: "T0"})
			for range 20 {
				f.revoke()
				f.get(atC)
			}
			f.set(reauth.Token{AccessToken: "S"})
			f.revoke()
		}, reauth.NotRetriedBudget, time.Hour, "the budget of refreshes for rejections is used up", "either another process uses the same login and the issuer accepts only the newest token, or a path rejects every token", "the budget of refreshes is used up"},
		{"backoff", func(f *fixture) {
			f.issue = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, &retryAfterError{time.Minute} }
			reject(f)
			f.get(atA)
		}, reauth.NotRetriedNoToken, time.Minute, "429 Too Many Requests", "the next request after retry_in calls the Refresher", "there is no new token"},
		{"permanent", func(f *fixture) {
			f.issue = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, reauth.Permanent(errIssuerDown) }
			reject(f)
			f.get(atA)
		}, reauth.NotRetriedNoToken, 0, "this is permanent", "call Credential.Set with a new token", "there is no new token"},
		{"login ended", func(f *fixture) {
			f.issue = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, reauth.LoginEnded(errIssuerDown) }
			reject(f)
			f.get(atA)
		}, reauth.NotRetriedNoToken, 0, "the login has ended", "call Credential.Set with a new token", "there is no new token"},
		{"no Refresher", func(f *fixture) { f.cred.Refresher = nil; reject(f) }, reauth.NotRetriedNoToken, 0, "there is no Refresher", "call Credential.Set with a new token", "there is no new token"},
		{"the call before has not returned", func(f *fixture) {
			f.cred.RefreshTimeout = time.Second
			f.takes = time.Hour
			f.set(reauth.Token{AccessToken: "T0", RefreshToken: "R0"})
			f.revoke()
			f.get(atA)
			time.Sleep(time.Minute)
		}, reauth.NotRetriedNoToken, time.Second, "the previous refresh has not returned", "the next request after retry_in calls the Refresher", "there is no new token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				tt.prepare(f)
				before := len(f.log.records(t, slog.LevelDebug))
				r := f.get(atA)
				require.Equal(t, http.StatusUnauthorized, r.status)
				assert.Equal(t, tt.why, r.outcome.NotRetried)
				assert.Equal(t, tt.reason, r.outcome.NotRetried.Text())
				failure := r.refreshError(t)
				assert.ErrorContains(t, failure, tt.text)
				assert.Equal(t, tt.retryIn == 0, failure.Permanent())
				assert.Equal(t, tt.retryIn, failure.RetryAfter())
				assert.Equal(t, reauth.ReasonInvalidToken, failure.Rejection.Reason)
				assert.Zero(t, r.outcome.Retry)
				assert.False(t, r.outcome.Predecessor)

				var record map[string]any
				for _, rec := range f.log.records(t, slog.LevelDebug)[before:] {
					if rec["msg"] == "reauth: token rejected, not retried" {
						record = rec
					}
				}
				require.NotNil(t, record, "one record for the request")
				assert.Equal(t, "WARN", record["level"])
				assert.Equal(t, string(tt.why), record["not_retried"])
				assert.Equal(t, tt.reason, record["why"])
				assert.Contains(t, record["hint"], tt.hint)
				assert.Contains(t, record["error"], tt.text)
				if tt.retryIn > 0 {
					assert.InDelta(t, tt.retryIn, record["retry_in"], float64(time.Second))
				} else {
					assert.NotContains(t, record, "retry_in")
				}
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

func TestOutcomeAndLogOfARetryWithThePredecessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.fetchAhead()
		f.only("T1")
		require.True(t, f.get(atA).outcome.Recovered())
		f.only()
		r := f.get(atA)
		assert.Equal(t, http.StatusUnauthorized, r.status)
		assert.True(t, r.outcome.Predecessor)
		assert.False(t, r.outcome.Recovered())
		all := f.warnings("reauth: token rejected, retry rejected too")
		require.Len(t, all, 1)
		assert.Equal(t, true, all[0]["predecessor"])
		assert.Contains(t, all[0]["hint"], "the server rejects the new token and the token before it")
	})
}

// With everything at random.
func TestRefreshesWithinTheBudgetWhateverFails(t *testing.T) {
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
				f := newFixture(t)
				f.cred.Logger, f.rt.Logger = discard, discard
				var brought atomic.Int32 // tokens, for rejections
				f.cred.OnRefresh = func(_ context.Context, info reauth.RefreshInfo) {
					if info.Result == reauth.RefreshSucceeded && info.Reason == reauth.ReasonUnspecified {
						brought.Add(1)
					}
				}
				f.issue = func(n int, stale reauth.Stale) (reauth.Token, error) {
					time.Sleep(time.Duration(chance(50)) * time.Millisecond)
					fresh := reauth.Token{AccessToken: fmt.Sprint("T", n)}
					switch chance(9) {
					case 0:
						return reauth.Token{}, errIssuerDown
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
				}
				f.serve = func(req *http.Request, _ string) *http.Response {
					time.Sleep(time.Duration(chance(100)) * time.Millisecond)
					switch chance(8) {
					case 0:
						return answer(req, http.StatusInternalServerError, "")
					case 1:
						return answer(req, http.StatusUnauthorized, "", "Retry-After", fmt.Sprint(chance(9)))
					case 2:
						return answer(req, http.StatusOK, "")
					}
					return answer(req, http.StatusUnauthorized, "")
				}
				require.NoError(t, f.cred.Set(t.Context(), reauth.Token{AccessToken: "T0"}))
				const length = 4 * time.Minute
				begin := time.Now()
				var sends, requests atomic.Int32
				base := f.rt.Base
				f.rt.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
					sends.Add(1)
					return base.RoundTrip(req)
				})
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						for time.Since(begin) < length {
							ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+chance(5000))*time.Millisecond)
							requests.Add(1)
							f.send(ctx, http.MethodPost, atA, strings.NewReader("x"))
							cancel()
							time.Sleep(time.Duration(chance(1500)) * time.Millisecond)
						}
					})
				}
				wg.Wait()
				assert.LessOrEqual(t, sends.Load(), 2*requests.Load())
				assert.Greater(t, f.refreshes(), 5)
				assert.LessOrEqual(t, int(brought.Load()), 20+int(length/(6*time.Second)))
				time.Sleep(time.Minute)
			})
		})
	}
}

// latestClaims returns the claims that the latest rejection asks for.
func latestClaims(stale reauth.Stale) string {
	all := stale.Rejection.Challenges
	return all[len(all)-1].Params["claims"]
}

func (s *flightClaims) RoundTrip(req *http.Request) (*http.Response, error) {
	tok := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	s.sends[req.URL.Path]++
	s.mu.Unlock()
	switch {
	case strings.HasPrefix(req.URL.Path, "/claims") && !strings.HasSuffix(tok, "+c1"):
		time.Sleep(time.Second) // the plain rejection is first
		return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer realm="", error="insufficient_claims", claims="c1"`), nil
	case tok == "T0":
		return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
	}
	return answer(req, http.StatusOK, ""), nil
}

// flightClaims is a Base that wants claims, once they are demanded, in the
// form of Continuous Access Evaluation.
type flightClaims struct {
	mu    sync.Mutex
	sends map[string]int // by path
}

func TestBackoffInterruptedByARejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{do: func(_ context.Context, n int, stale reauth.Stale) (reauth.Token, error) {
			if stale.Rejection.Reason == "" {
				return reauth.Token{}, errors.New("issuer down")
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
		}}
		cred := flightAhead(t, is)
		server := accepting("T0")
		rt := flightTransport(cred, server)
		for range 3 { // the first starts it, and it fails; then there is a pause of an hour
			status, err := flightSend(t.Context(), rt)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, status)
			synctest.Wait()
		}
		require.EqualValues(t, 1, is.calls.Load())
		server.valid = func(tok string) bool { return tok == "T2" }
		slowest := flightSlowest(t, flightAll(20, func(int) (int, error) { return flightSend(t.Context(), rt) }))
		assert.LessOrEqual(t, slowest, 150*time.Millisecond)
		assert.EqualValues(t, 2, is.calls.Load())
	})
}

// Woken once, not for each request.
func TestBackoffInterruptedOncePerToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, errors.New("issuer down")
		}}
		cred := flightAhead(t, is)
		server := accepting("T0")
		rt := flightTransport(cred, server)
		_, err := flightSend(t.Context(), rt)
		require.NoError(t, err)
		synctest.Wait()
		server.valid = func(string) bool { return false }
		for range 20 {
			status, err := flightSend(t.Context(), rt)
			require.NoError(t, err)
			require.Equal(t, http.StatusUnauthorized, status)
		}
		assert.EqualValues(t, 2, is.calls.Load(), "one ahead of expiry, one for the rejections")
	})
}

func TestClaimsAreFetched(t *testing.T) {
	tests := []struct {
		name       string
		classifier reauth.Classifier
	}{
		{"built-in", nil},
		{"Classifier", reauth.ClassifierFunc(func(resp *http.Response, _ func() []byte) reauth.Rejection {
			switch all := reauth.ParseChallenges(resp.Header); {
			case resp.StatusCode != http.StatusUnauthorized:
				return reauth.Rejection{}
			case len(all) > 0 && all[0].Params["claims"] != "":
				return reauth.Rejection{Reason: reauth.ReasonClaims, Challenges: all}
			default:
				return reauth.Rejection{Reason: reauth.ReasonInvalidToken}
			}
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked []string
				is := &issuer{do: func(_ context.Context, n int, stale reauth.Stale) (reauth.Token, error) {
					asked = append(asked, string(stale.Rejection.Reason))
					time.Sleep(5 * time.Second)
					tok := fmt.Sprint("T", n)
					for _, c := range stale.Rejection.Challenges {
						if v := c.Params["claims"]; v != "" {
							tok += "+" + v
						}
					}
					return reauth.Token{AccessToken: tok}, nil
				}}
				server := &flightClaims{sends: map[string]int{}}
				rt := flightTransport(holding(t, is, reauth.Token{AccessToken: "T0"}), server)
				rt.Classifier = tt.classifier
				const each = 10
				all := flightAll(2*each, func(i int) (int, error) {
					path := "/plain"
					if i%2 == 0 {
						path = fmt.Sprint("/claims/", i)
					}
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com"+path, nil)
					if err != nil {
						return 0, err
					}
					resp, err := rt.RoundTrip(req)
					if err != nil {
						return 0, err
					}
					return resp.StatusCode, resp.Body.Close()
				})
				flightSlowest(t, all)
				for i, r := range all {
					if i%2 != 0 {
						assert.LessOrEqual(t, r.took, 5150*time.Millisecond, "who lacks no claims waits for none")
					}
				}
				for path, n := range server.sends {
					if path != "/plain" {
						assert.Equal(t, 2, n, "sends of %s", path)
					}
				}
				assert.Equal(t, []string{"invalid_token", "claims"}, asked, "one refresh for each of the two")
			})
		})
	}
}

// Also when the other token came before the rejection did.
func TestClaimsFetchedAfterAnotherToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{}
		cred := holding(t, is, reauth.Token{AccessToken: "T0"})
		old, err := cred.Token(t.Context())
		require.NoError(t, err)
		plain := reauth.Rejection{Reason: reauth.ReasonInvalidToken}
		claims := func(v string) reauth.Rejection {
			return reauth.Rejection{Reason: reauth.ReasonClaims, Challenges: []reauth.Challenge{{Scheme: "Bearer", Params: map[string]string{"claims": v}}}}
		}
		steps := []struct {
			why  reauth.Rejection
			want string
		}{{plain, "T1"}, {claims("a"), "T2"}, {claims("a"), "T2"}, {plain, "T2"}, {claims("b"), "T3"}}
		for i, s := range steps {
			got, err := cred.Refresh(t.Context(), reauth.Stale{Token: old, Rejection: s.why})
			require.NoError(t, err)
			assert.Equal(t, s.want, got.AccessToken, "step %d", i)
		}
	})
}

// Neither does the token that another one's claims brought meanwhile.
func TestClaimsOfTwoRejections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := &issuer{do: func(_ context.Context, n int, stale reauth.Stale) (reauth.Token, error) {
			time.Sleep(10 * time.Millisecond) // both come within the wait of the first
			return reauth.Token{AccessToken: fmt.Sprintf("T%d+%s", n, latestClaims(stale))}, nil
		}}
		rt := flightTransport(holding(t, is, reauth.Token{AccessToken: "T0"}), roundTripFunc(func(req *http.Request) (*http.Response, error) {
			want := strings.TrimPrefix(req.URL.Path, "/")
			if !strings.HasSuffix(req.Header.Get("Authorization"), "+"+want) {
				return answer(req, http.StatusUnauthorized, "", "WWW-Authenticate", fmt.Sprintf(`Bearer error="insufficient_claims", claims="%s"`, want)), nil
			}
			return answer(req, http.StatusOK, ""), nil
		}))
		flightSlowest(t, flightAll(2, func(i int) (int, error) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprint("https://api.example.com/c", i), nil)
			if err != nil {
				return 0, err
			}
			resp, err := rt.RoundTrip(req)
			if err != nil {
				return 0, err
			}
			return resp.StatusCode, resp.Body.Close()
		}))
		assert.EqualValues(t, 2, is.calls.Load())
	})
}

// A registry: HEAD of an absent manifest wants to pull, the POST after it to push.
func TestClaimsRejectionSaysNothingOfTheToken(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		level, _ := strconv.Atoi(r.Header.Get("Authorization")[len("Bearer t"):])
		need, status := 1, http.StatusNotFound
		if r.Method == http.MethodPost {
			need, status = 2, http.StatusAccepted
		}
		if level < need {
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_claims", claims="level`+strconv.Itoa(need)+`"`)
			status = http.StatusUnauthorized
		}
		w.WriteHeader(status)
	}))
	defer s.Close()
	n := -1
	client := &http.Client{Transport: &reauth.Transport{RetryWait: -1, Logger: discard, Credential: &reauth.Credential{
		Logger: discard,
		Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			n++
			return reauth.Token{AccessToken: "t" + strconv.Itoa(n)}, nil
		}),
	}}}
	resp, err := client.Head(s.URL)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusNotFound, resp.StatusCode)
	resp, err = client.Post(s.URL, "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	o, _ := reauth.OutcomeOf(resp)
	assert.Equal(t, http.StatusAccepted, resp.StatusCode, "%v %v", o.NotRetried, o.Err)
}

// A permanent failure holds until Set or Clear, and Retry-After as long
// as it says, whatever a server says of the token that is left.
func TestBackoffOutlivesAnAcceptance(t *testing.T) {
	failures := map[string]error{
		"permanent":   reauth.Permanent(errors.New("invalid_grant")),
		"Retry-After": sessionBusy{errors.New("503")},
	}
	answers := map[string]int{"proves the token": http.StatusOK, "says nothing": http.StatusServiceUnavailable}
	for name, failure := range failures {
		for answers, status := range answers {
			for _, forRetry := range []bool{false, true} { // whether the token was fetched for a retry
				t.Run(fmt.Sprintf("%s, the answer %s, for a retry=%v", name, answers, forRetry), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						is := &issuer{do: func(_ context.Context, n int, _ reauth.Stale) (reauth.Token, error) {
							if n == 1 && forRetry {
								return reauth.Token{AccessToken: "T1", RefreshToken: "r1", Expiry: time.Now().Add(time.Hour)}, nil
							}
							return reauth.Token{}, failure
						}}
						cred := holding(t, is, reauth.Token{AccessToken: "T0", RefreshToken: "r0", Expiry: time.Now().Add(time.Hour)})
						revoked := map[string]bool{"Bearer T0": forRetry}
						says := http.StatusServiceUnavailable // the retry proves nothing
						rt := flightTransport(cred, roundTripFunc(func(req *http.Request) (*http.Response, error) {
							time.Sleep(time.Second)
							if revoked[req.Header.Get("Authorization")] {
								return answer(req, http.StatusUnauthorized, ""), nil
							}
							return answer(req, says, ""), nil
						}))
						if forRetry {
							_, err := flightSend(t.Context(), rt)
							require.NoError(t, err)
						}
						before := is.calls.Load()
						time.Sleep(59 * time.Minute) // less than five minutes before its expiry
						says = status
						_, err := flightSend(t.Context(), rt)
						require.NoError(t, err)
						require.Equal(t, before+1, is.calls.Load(), "ahead of expiry")
						revoked["Bearer T0"], revoked["Bearer T1"] = true, true
						_, err = flightSend(t.Context(), rt)
						require.NoError(t, err)
						time.Sleep(time.Hour)
						_, err = flightSend(t.Context(), rt)
						assert.ErrorIs(t, err, failure)
						want := before + 1
						if !reauth.IsPermanent(failure) {
							want++ // nobody waited for the refresh: the first rejection interrupts the backoff once
						}
						assert.Equal(t, want, is.calls.Load())
					})
				})
			}
		}
	}
}
