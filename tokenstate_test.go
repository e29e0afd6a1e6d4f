package reauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// expiring has the issuer's tokens expire after d, by the local clock.
func expiring(s *site, d time.Duration) {
	s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
		return reauth.Token{AccessToken: fmt.Sprint("T", n), RefreshToken: fmt.Sprint("R", n), Expiry: time.Now().Add(d).Round(0)}, nil
	}
}

// The issuer's clock is d ahead of ours. Tokens live for an hour.
func TestExpiryByAWrongClock(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		most int // refreshes in two hours
		warn int
	}{
		{-2 * time.Hour, 3, 1},
		{2 * time.Hour, 3, 0},
		{-59 * time.Minute, 2 * 60 * 3, 0},
		{-59*time.Minute - 55*time.Second, 2 * 60 * 15, 0},
		{-time.Hour, 3, 1},
	} {
		t.Run(tt.d.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite()
				expiring(s, time.Hour+tt.d)
				s.accepts = func(_ *http.Request, token string) bool {
					var n int
					_, _ = fmt.Sscanf(token, "T%d", &n)
					s.mu.Lock()
					defer s.mu.Unlock()
					return n > 0 && time.Since(s.calls[n-1]) < time.Hour
				}
				during(2*time.Hour, func() {
					status, _ := s.get(t, apiURL)
					assert.Equal(t, http.StatusOK, status)
				})
				assert.LessOrEqual(t, s.refreshes(), tt.most)
				assert.Len(t, s.warnings(t), tt.warn)
			})
		})
	}
}

// An issuer that sends no expires_in, and a login that takes that for zero.
func TestExpiryNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
			began := time.Now()
			time.Sleep(time.Second)
			return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: began}, nil
		}
		during(time.Hour, func() {
			status, _ := s.get(t, apiURL)
			assert.Equal(t, http.StatusOK, status)
		})
		assert.Equal(t, 1, s.refreshes())
		s.accepts = func(_ *http.Request, token string) bool { return token != "T1" }
		status, _ := s.get(t, apiURL)
		assert.Equal(t, http.StatusOK, status)
		assert.Len(t, s.warnings(t), 1, "one for the Credential")
	})
}

// The Date of a response, and a cached 401 with an old one, change nothing.
func TestExpiryIgnoresDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		expiring(s, time.Hour)
		wrong := true
		s.rt.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := s.serve(req)
			if wrong {
				resp.Header.Set("Date", time.Now().Add(2*time.Hour).UTC().Format(http.TimeFormat))
			}
			return resp, err
		})
		s.get(t, apiURL)
		s.accepts = func(_ *http.Request, token string) bool { return token != "T1" }
		status, _ := s.get(t, apiURL)
		require.Equal(t, http.StatusOK, status)
		wrong = false
		during(50*time.Minute, func() {
			status, _ := s.get(t, apiURL)
			assert.Equal(t, http.StatusOK, status)
		})
		assert.Equal(t, 2, s.refreshes())
	})
}

func TestExpiryOfAShortLife(t *testing.T) {
	for life, gap := range map[time.Duration]time.Duration{
		time.Millisecond:       time.Second,
		500 * time.Millisecond: time.Second,
		3 * time.Second:        3 * time.Second,
		6 * time.Second:        5 * time.Second,
	} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite()
				expiring(s, life)
				for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(time.Millisecond) {
					_, err := s.cred.Token(t.Context())
					require.NoError(t, err)
				}
				for _, got := range s.gaps() {
					assert.InDelta(t, gap, got, float64(2*time.Millisecond))
				}
			})
		})
	}
}

func TestExpiryOfTheSameTokenAgain(t *testing.T) {
	t.Run("it has expired", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			end := time.Now().Add(time.Minute)
			s.refresh = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{AccessToken: "T", Expiry: end}, nil }
			_, err := s.cred.Token(t.Context())
			require.NoError(t, err)
			time.Sleep(2 * time.Minute)
			_, err = s.cred.Token(t.Context())
			var failure *reauth.RefreshError
			require.ErrorAs(t, err, &failure)
			assert.ErrorContains(t, err, "expired at")
			assert.False(t, failure.Permanent())
		})
	})
	t.Run("ahead of its expiry", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			end := time.Now().Add(time.Hour)
			s.refresh = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{AccessToken: "T", Expiry: end}, nil }
			during(59*time.Minute, func() {
				_, err := s.cred.Token(t.Context())
				require.NoError(t, err)
			})
			assert.Less(t, s.refreshes(), 20, "paced")
			assert.Empty(t, s.warnings(t), "no failure")
		})
	})
	t.Run("without an expiry this time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			end := time.Now().Add(time.Hour)
			s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
				if n == 1 {
					return reauth.Token{AccessToken: "T", Expiry: end}, nil
				}
				return reauth.Token{AccessToken: "T"}, nil
			}
			during(58*time.Minute, func() { _, _ = s.cred.Token(t.Context()) })
			tok, err := s.cred.Current()
			require.NoError(t, err)
			assert.Equal(t, end, tok.Expiry, "it is the same token")
		})
	})
	t.Run("after a rejection", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.refresh = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{AccessToken: "T"}, nil }
			tok, err := s.cred.Token(t.Context())
			require.NoError(t, err)
			_, err = s.cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
			assert.ErrorContains(t, err, "the rejected token again")
		})
	})
}

// A token that is over does not replace one that is still good.
func TestExpiredTokenDoesNotReplaceAGoodOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
			if n == 2 {
				return reauth.Token{AccessToken: "over", RefreshToken: "R2", Expiry: time.Now().Add(-time.Minute)}, nil
			}
			return reauth.Token{AccessToken: fmt.Sprint("T", n), RefreshToken: fmt.Sprint("R", n), Expiry: time.Now().Add(time.Hour)}, nil
		}
		s.get(t, apiURL)
		time.Sleep(58 * time.Minute)
		status, _ := s.get(t, apiURL)
		require.Equal(t, http.StatusOK, status)
		synctest.Wait()
		require.Equal(t, 2, s.refreshes())
		tok, err := s.cred.Current()
		assert.ErrorContains(t, err, "expired at")
		assert.Equal(t, "T1", tok.AccessToken)
		assert.Equal(t, "R2", tok.RefreshToken, "the issuer may have invalidated the old one")
		time.Sleep(time.Second)
		s.get(t, apiURL)
		synctest.Wait()
		assert.Equal(t, "R2", s.stale[2].Token.RefreshToken)
	})
}

func TestSetCloseToExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		require.NoError(t, s.cred.Set(t.Context(), reauth.Token{AccessToken: "S", Expiry: time.Now().Add(4*time.Minute + 50*time.Second)}))
		tok, err := s.cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "S", tok.AccessToken, "meanwhile")
		synctest.Wait()
		assert.Equal(t, 1, s.refreshes(), "in the background")
		tok, err = s.cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "T1", tok.AccessToken)
	})
}

func TestSetExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		require.NoError(t, s.cred.Set(t.Context(), reauth.Token{AccessToken: "S", Expiry: time.Now().Add(-time.Second)}))
		tok, err := s.cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "T1", tok.AccessToken)
	})
}

// Five resources of one server ask for five scopes, or for five claims.
func TestRequirementsAddUp(t *testing.T) {
	for _, param := range []string{"scope", "claims"} {
		for _, callers := range []int{1, 5} {
			t.Run(fmt.Sprintf("%s, %d callers", param, callers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSite()
					s.rt.RetryWait = 0
					s.refresh = func(n int, stale reauth.Stale) (reauth.Token, error) {
						time.Sleep(50 * time.Millisecond)
						tok := fmt.Sprint("T", n)
						for _, c := range stale.Rejection.Challenges {
							tok += "." + strings.ReplaceAll(c.Params[param], " ", ".") + "."
						}
						return reauth.Token{AccessToken: tok}, nil
					}
					s.accepts = func(req *http.Request, token string) bool { return strings.Contains(token, "."+req.URL.Path[1:]+".") }
					s.challenge = func(req *http.Request) string {
						if param == "claims" {
							return `Bearer error="insufficient_claims", claims="` + req.URL.Path[1:] + `"`
						}
						return `Bearer scope="` + req.URL.Path[1:] + `"`
					}
					_, err := s.cred.Token(t.Context())
					require.NoError(t, err)
					done := make(chan int)
					for i := range callers {
						go func() {
							failed := 0
							for k := range 50 / callers {
								if status, _ := s.get(t, fmt.Sprintf("%sr%d", apiURL, (i+k)%5)); status != http.StatusOK {
									failed++
								}
							}
							done <- failed
						}()
					}
					for range callers {
						assert.Zero(t, <-done, "requests that failed")
					}
					assert.LessOrEqual(t, s.refreshes(), 1+5)
				})
			})
		}
	}
}

func TestRequirementsInEachLaterStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		expiring(s, time.Hour)
		fetched := map[string]string{"/a": "T2", "/b": "T3"}
		s.accepts = func(req *http.Request, token string) bool { return token >= fetched[req.URL.Path] }
		s.challenge = func(req *http.Request) string {
			return fmt.Sprintf(`Basic realm="x", Bearer scope="read %s"`, req.URL.Path)
		}
		for _, path := range []string{"a", "b"} {
			status, _ := s.get(t, apiURL+path)
			require.Equal(t, http.StatusOK, status)
		}
		time.Sleep(2 * time.Hour)
		_, err := s.cred.Token(t.Context())
		require.NoError(t, err)
		require.Len(t, s.stale, 4)
		scopes := func(stale reauth.Stale) (all []string) {
			for _, c := range stale.Rejection.Challenges {
				if v := c.Params["scope"]; v != "" {
					all = append(all, v)
				}
			}
			return all
		}
		assert.Empty(t, scopes(s.stale[0]))
		assert.Equal(t, []string{"read /a"}, scopes(s.stale[1]))
		assert.Equal(t, []string{"read /a", "read /b"}, scopes(s.stale[2]), "the latest is last")
		assert.Len(t, s.stale[2].Rejection.Challenges, 3, "with all challenges of the rejection")
		assert.Equal(t, []string{"read /a", "read /b"}, scopes(s.stale[3]), "also for expiry")
		assert.Empty(t, s.stale[3].Rejection.Reason)

		require.NoError(t, s.cred.Clear(t.Context()))
		_, err = s.cred.Token(t.Context())
		require.NoError(t, err)
		assert.Empty(t, scopes(s.stale[4]), "another login")
	})
}

// What a server asks for reaches the Refresher as it is written, and the log masked.
func TestRequirementsAsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const token = "repository-team-app-0001"
		s := newSite()
		require.NoError(t, s.cred.Set(t.Context(), reauth.Token{AccessToken: token}))
		s.accepts = func(_ *http.Request, tok string) bool { return tok == "T1" }
		s.challenge = func(*http.Request) string { return `Bearer scope="repository-team-app:pull"` }
		status, o := s.get(t, apiURL)
		require.Equal(t, http.StatusOK, status)
		assert.Equal(t, "repository-team-app:pull", s.stale[0].Rejection.Challenges[0].Params["scope"])
		assert.NotContains(t, fmt.Sprint(o), "repository-team-app")
	})
}

// A rejection for another scope says nothing of the token: the limits do not apply.
func TestRequirementsAreNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.refresh = func(n int, stale reauth.Stale) (reauth.Token, error) {
			tok := fmt.Sprint("T", n)
			for _, c := range stale.Rejection.Challenges {
				tok += "." + c.Params["scope"]
			}
			return reauth.Token{AccessToken: tok}, nil
		}
		s.accepts = func(req *http.Request, token string) bool { return strings.Contains(token, req.URL.Path[1:]) }
		s.challenge = func(req *http.Request) string { return `Bearer scope="` + req.URL.Path[1:] + `"` }
		for i := range 5 {
			status, _ := s.get(t, fmt.Sprint(apiURL, "scope", i))
			assert.Equal(t, http.StatusOK, status, "at once, though the token was just fetched for a rejection")
		}
	})
}

// Requests that cannot be sent twice wait for a refresh of a rejected token.
func TestUploadWaitsForTheRefreshOfARejectedToken(t *testing.T) {
	const size = 2 << 20
	upload := func(ctx context.Context, s *site, url string, length int64) (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, io.NopCloser(io.LimitReader(zeroReader{}, size)))
		if err != nil {
			return 0, err
		}
		req.ContentLength = length
		resp, err := s.rt.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	replacing := func(t *testing.T, s *site, result func() (reauth.Token, error)) {
		s.get(t, apiURL)
		s.get(t, "https://b.test/")
		s.accepts = func(req *http.Request, token string) bool { return token != "T1" || req.URL.Host == "b.test" }
		s.refresh = func(int, reauth.Stale) (reauth.Token, error) {
			time.Sleep(3 * time.Second)
			return result()
		}
		go s.get(t, apiURL)
		synctest.Wait()
	}
	for name, length := range map[string]int64{"known length": size, "unknown length": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite()
				replacing(t, s, func() (reauth.Token, error) { return reauth.Token{AccessToken: "T2"}, nil })
				start := time.Now()
				status, err := upload(t.Context(), s, apiURL, length)
				require.NoError(t, err)
				assert.Equal(t, http.StatusOK, status)
				assert.Equal(t, 3*time.Second, time.Since(start))
			})
		})
	}
	t.Run("not for an origin that accepts the token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			replacing(t, s, func() (reauth.Token, error) { return reauth.Token{AccessToken: "T2"}, nil })
			start := time.Now()
			status, err := upload(t.Context(), s, "https://b.test/", size)
			require.NoError(t, err)
			assert.Equal(t, http.StatusOK, status)
			assert.Zero(t, time.Since(start))
			time.Sleep(time.Minute)
		})
	})
	t.Run("no longer than its own context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			replacing(t, s, func() (reauth.Token, error) { return reauth.Token{AccessToken: "T2"}, nil })
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := upload(ctx, s, apiURL, size)
			assert.Equal(t, context.DeadlineExceeded, err)
			time.Sleep(time.Minute)
		})
	})
	t.Run("the refresh fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			replacing(t, s, func() (reauth.Token, error) { return reauth.Token{}, errors.New("down") })
			status, err := upload(t.Context(), s, apiURL, size)
			require.NoError(t, err, "the server's answer is better than an error")
			assert.Equal(t, http.StatusUnauthorized, status)
		})
	})
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }
