package reauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

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

// A routine refresh has replaced T1 by T2, and the servers at a.test know only T1.
func predecessorSite(t *testing.T) *site {
	s := newSite()
	s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
		return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: time.Now().Add(time.Hour)}, nil
	}
	s.accepts = func(_ *http.Request, token string) bool { return token == "T1" }
	status, _ := s.get(t, apiURL)
	require.Equal(t, http.StatusOK, status)
	time.Sleep(58 * time.Minute)
	_, err := s.cred.Token(t.Context())
	require.NoError(t, err)
	synctest.Wait()
	require.Equal(t, 2, s.refreshes(), "in the background")
	s.sent = nil
	return s
}

func TestPredecessor(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, s *site){
		"gets the retry without a refresh": func(t *testing.T, s *site) {
			status, o := s.get(t, apiURL)
			assert.Equal(t, http.StatusOK, status)
			assert.True(t, o.Predecessor)
			assert.True(t, o.Recovered())
			assert.Equal(t, []string{"a.test/ T2", "a.test/ T1"}, s.sent)
			assert.Equal(t, 2, s.refreshes())
		},
		"is not sent to another origin": func(t *testing.T, s *site) {
			s.accepts = func(req *http.Request, token string) bool {
				return token == "T3" || req.URL.Host == "a.test" && token == "T1"
			}
			status, o := s.get(t, "https://b.test/")
			assert.Equal(t, http.StatusOK, status)
			assert.False(t, o.Predecessor)
			assert.Equal(t, []string{"b.test/ T2", "b.test/ T3"}, s.sent)
		},
		"is not sent after Clear": func(t *testing.T, s *site) {
			s.accepts = func(*http.Request, string) bool { require.NoError(t, s.cred.Clear(t.Context())); return false }
			status, o := s.get(t, apiURL)
			assert.Equal(t, http.StatusUnauthorized, status)
			assert.Equal(t, reauth.NotRetriedLoggedOut, o.NotRetried)
			assert.Len(t, s.sent, 1)
		},
		"is not sent after Clear during the wait": func(t *testing.T, s *site) {
			s.rt.RetryWait = 0
			s.accepts = func(*http.Request, string) bool {
				time.AfterFunc(20*time.Millisecond, func() { _ = s.cred.Clear(context.Background()) })
				return false
			}
			status, _ := s.get(t, apiURL)
			assert.Equal(t, http.StatusUnauthorized, status)
			assert.Len(t, s.sent, 1)
		},
		"is not sent after Set during the wait": func(t *testing.T, s *site) {
			s.rt.RetryWait = 0
			s.accepts = func(_ *http.Request, token string) bool {
				time.AfterFunc(20*time.Millisecond, func() { _ = s.cred.Set(context.Background(), reauth.Token{AccessToken: "S"}) })
				return token == "S"
			}
			status, _ := s.get(t, apiURL)
			assert.Equal(t, http.StatusOK, status)
			assert.Equal(t, []string{"a.test/ T2", "a.test/ S"}, s.sent)
		},
		"is not sent after Set of another login": func(t *testing.T, s *site) {
			require.NoError(t, s.cred.Set(t.Context(), reauth.Token{AccessToken: "S"}))
			s.accepts = func(_ *http.Request, token string) bool { return token == "T1" || token == "T3" }
			status, _ := s.get(t, apiURL)
			assert.Equal(t, http.StatusOK, status)
			assert.Equal(t, []string{"a.test/ S", "a.test/ T3"}, s.sent)
		},
		"is not sent past its expiry": func(t *testing.T, s *site) {
			time.Sleep(6 * time.Minute)
			s.accepts = func(_ *http.Request, token string) bool { return token == "T3" }
			status, _ := s.get(t, apiURL)
			assert.Equal(t, http.StatusOK, status)
			assert.Equal(t, []string{"a.test/ T2", "a.test/ T3"}, s.sent)
		},
		"is not sent for claims": func(t *testing.T, s *site) {
			s.challenge = func(*http.Request) string { return `Bearer error="insufficient_claims", claims="c"` }
			s.accepts = func(_ *http.Request, token string) bool { return token == "T3" }
			status, _ := s.get(t, apiURL)
			assert.Equal(t, http.StatusOK, status)
			assert.Equal(t, []string{"a.test/ T2", "a.test/ T3"}, s.sent)
		},
		"is not sent again where it was rejected last": func(t *testing.T, s *site) {
			s.accepts = func(_ *http.Request, token string) bool { return token == "T3" }
			status, o := s.get(t, apiURL)
			assert.Equal(t, http.StatusUnauthorized, status)
			assert.True(t, o.Predecessor)
			status, o = s.get(t, apiURL)
			assert.Equal(t, http.StatusOK, status)
			assert.False(t, o.Predecessor)
			assert.Equal(t, 3, s.refreshes())
		},
		"is not needed where the new token is accepted": func(t *testing.T, s *site) {
			s.accepts = func(_ *http.Request, token string) bool { return token == "T2" }
			status, _ := s.get(t, apiURL)
			require.Equal(t, http.StatusOK, status)
			time.Sleep(5 * time.Second)
			s.sent = nil
			s.accepts = func(_ *http.Request, token string) bool { return token == "T3" }
			status, _ = s.get(t, apiURL)
			assert.Equal(t, http.StatusOK, status)
			assert.Equal(t, []string{"a.test/ T2", "a.test/ T3"}, s.sent)
		},
		"gets the retry while the accepted new token is young": func(t *testing.T, s *site) {
			one := true // of two replicas knows the new token
			s.accepts = func(_ *http.Request, token string) bool { one = !one; return token == "T1" || !one }
			for range 10 {
				status, _ := s.get(t, apiURL)
				assert.Equal(t, http.StatusOK, status)
			}
			assert.Equal(t, 2, s.refreshes())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, predecessorSite(t)) })
		})
	}
}

// A token that is replaced within five seconds leaves a predecessor that was fetched for a
// rejection, until that is 15 seconds old.
func TestPredecessorOfTwoYoungTokens(t *testing.T) {
	for name, tt := range map[string]struct {
		beforeT3, beforeT4 time.Duration
		want               string // what precedes T4
	}{
		"both are young":           {time.Second, time.Second, "T2"},
		"the latest is not":        {time.Second, 6 * time.Second, "T3"},
		"the earlier is too old":   {14 * time.Second, 2 * time.Second, "T3"},
		"the earlier is just fine": {12 * time.Second, 2 * time.Second, "T2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite()
				valid := "T1"
				s.accepts = func(req *http.Request, token string) bool {
					if req.URL.Host == "other.test" {
						return token != "T4"
					}
					return token == valid
				}
				s.get(t, apiURL)
				both := func(next string, wait time.Duration) {
					time.Sleep(wait)
					valid = next
					for _, url := range []string{apiURL, "https://other.test/"} {
						status, _ := s.get(t, url)
						require.Equal(t, http.StatusOK, status, next)
					}
				}
				both("T2", 0)
				both("T3", tt.beforeT3)
				time.Sleep(tt.beforeT4)
				valid = "T4"
				status, _ := s.get(t, apiURL)
				require.Equal(t, http.StatusOK, status)

				s.sent = nil
				status, o := s.get(t, "https://other.test/")
				assert.Equal(t, http.StatusOK, status)
				assert.True(t, o.Predecessor)
				assert.Equal(t, []string{"other.test/ T4", "other.test/ " + tt.want}, s.sent)
			})
		})
	}
}

// A host that rejects every token has it refreshed less and less often.
func TestRowOfTokensForOneOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.accepts = func(*http.Request, string) bool { return false }
		during(4*time.Minute, func() {
			status, o := s.get(t, apiURL)
			assert.Equal(t, http.StatusUnauthorized, status)
			if o.NotRetried == "" {
				return
			}
			assert.Equal(t, reauth.NotRetriedTooYoung, o.NotRetried)
			var failure *reauth.RefreshError
			if assert.ErrorAs(t, o.Err, &failure) {
				assert.Positive(t, failure.RetryAfter())
				assert.LessOrEqual(t, failure.RetryAfter(), time.Minute)
			}
		})
		want := []time.Duration{0, 5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute}
		assert.Equal(t, want, s.gaps())
	})
}

func TestRowEnds(t *testing.T) {
	rejecting := func(t *testing.T) *site {
		s := newSite()
		s.accepts = func(*http.Request, string) bool { return false }
		during(30*time.Second, func() { s.get(t, apiURL) })
		require.Equal(t, []time.Duration{0, 5 * time.Second, 10 * time.Second}, s.gaps())
		s.calls = nil
		return s
	}
	next := func(t *testing.T, s *site) []time.Duration {
		begin := time.Now()
		s.accepts = func(*http.Request, string) bool { return false }
		during(12*time.Second, func() { s.get(t, apiURL) })
		var all []time.Duration
		for _, at := range s.calls {
			all = append(all, at.Sub(begin))
		}
		return all
	}
	t.Run("by an acceptance of the newest token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := rejecting(t)
			s.accepts = func(*http.Request, string) bool { return true }
			s.get(t, apiURL)
			assert.Equal(t, []time.Duration{0, 5 * time.Second}, next(t, s))
		})
	})
	t.Run("by five minutes without a refresh", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := rejecting(t)
			time.Sleep(5 * time.Minute)
			assert.Equal(t, []time.Duration{0, 5 * time.Second}, next(t, s))
		})
	})
	t.Run("not by four minutes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := rejecting(t)
			time.Sleep(4 * time.Minute)
			assert.Equal(t, []time.Duration{0}, next(t, s))
		})
	})
	t.Run("not by a late acceptance of an older token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			release := make(chan struct{})
			s.accepts = func(req *http.Request, token string) bool {
				if req.URL.Path == "/slow" {
					<-release
					return true
				}
				return false
			}
			go s.get(t, apiURL+"slow") // carries T1
			synctest.Wait()
			during(30*time.Second, func() { s.get(t, apiURL) })
			close(release)
			synctest.Wait()
			s.calls = nil
			assert.Equal(t, []time.Duration{5 * time.Second}, next(t, s), "when the token is 20 s old")
		})
	})
}

func TestRowOfOtherOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.accepts = func(req *http.Request, token string) bool { return req.URL.Host != "bad.test" }
		s.get(t, apiURL)
		during(time.Minute, func() { s.get(t, "https://bad.test/") })
		before := s.refreshes()
		revoked := fmt.Sprint("T", before)
		status, _ := s.get(t, apiURL)
		require.Equal(t, http.StatusOK, status)
		s.accepts = func(req *http.Request, token string) bool { return req.URL.Host != "bad.test" && token != revoked }
		status, o := s.get(t, apiURL)
		assert.Equal(t, http.StatusOK, status)
		assert.False(t, o.Predecessor)
		assert.Equal(t, before+1, s.refreshes(), "at once")
	})
}

// All callers of Refresh share a row that no acceptance ends.
func TestRefreshByOthersNamesNoOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		tok, err := s.cred.Token(t.Context())
		require.NoError(t, err)
		why := reauth.Rejection{Reason: reauth.ReasonRevoked}
		during(40*time.Second, func() {
			next, err := s.cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: why})
			if err == nil {
				tok = next
				return
			}
			var failure *reauth.RefreshError
			if assert.ErrorAs(t, err, &failure) {
				assert.Positive(t, failure.RetryAfter())
			}
		})
		assert.Equal(t, []time.Duration{0, 5 * time.Second, 10 * time.Second, 20 * time.Second}, s.gaps())

		got, err := s.cred.Refresh(t.Context(), reauth.Stale{Token: tok})
		require.NoError(t, err)
		assert.Equal(t, tok, got, "without a Rejection, Refresh is Token")
	})
}

// What an origin must answer so that a later rejection is followed by a refresh at once.
func TestAcceptanceByStatus(t *testing.T) {
	for status, accepted := range map[int]bool{
		200: true, 201: true, 204: true, 302: true, 304: true, 400: true, 402: true, 404: true, 409: true, 422: true,
		403: false, 407: false, 429: false, 500: false, 502: false, 503: false,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite()
				s.answers = func(_ *http.Request, token string) int {
					if token == "T1" {
						return http.StatusUnauthorized
					}
					return status
				}
				got, _ := s.get(t, apiURL) // T2 is fetched for a rejection
				require.Equal(t, status, got)
				s.answers = func(_ *http.Request, token string) int {
					if token == "T3" {
						return http.StatusOK
					}
					return http.StatusUnauthorized
				}
				got, o := s.get(t, apiURL)
				if accepted {
					assert.Equal(t, http.StatusOK, got)
				} else {
					assert.Equal(t, reauth.NotRetriedTooYoung, o.NotRetried)
				}
			})
		})
	}
}

// Of more than 100 origins it is not remembered what they accepted.
func TestAcceptanceByManyOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		for i := range 100 {
			s.get(t, fmt.Sprintf("https://h%d.test/", i))
		}
		s.get(t, "https://late.test/")
		s.accepts = func(_ *http.Request, token string) bool { return token == "T2" || token == "T3" }
		status, _ := s.get(t, "https://late.test/")
		require.Equal(t, http.StatusOK, status, "a refresh at once")
		require.Equal(t, 2, s.refreshes())

		// T1 is no predecessor there, although it is where it is known to be accepted.
		s.accepts = func(_ *http.Request, token string) bool { return token == "T1" }
		_, o := s.get(t, "https://late.test/")
		assert.Equal(t, reauth.NotRetried(""), o.NotRetried)
		assert.False(t, o.Predecessor)
		s.accepts = func(_ *http.Request, token string) bool { return token == "T1" }
	})
}

func TestBudget(t *testing.T) {
	// Each token is revoked after one request, and each retry succeeds, as between two
	// processes at an issuer of one valid token.
	use := func(t *testing.T, s *site, d time.Duration) {
		served := map[string]int{}
		s.accepts = func(_ *http.Request, token string) bool { served[token]++; return served[token] == 1 }
		during(d, func() { s.get(t, apiURL) })
	}
	t.Run("20 and one each 6 seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			use(t, s, time.Minute)
			assert.InDelta(t, 1+20+10, s.refreshes(), 1)
			warnings := s.warnings(t)
			require.Len(t, warnings, 1)
			assert.Contains(t, warnings[0], "another process uses the same login")
			assert.Contains(t, warnings[0], "a path rejects every token")
		})
	})
	t.Run("RefreshEvery", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.cred.RefreshEvery = 15 * time.Second
			use(t, s, time.Minute)
			assert.InDelta(t, 1+20+4, s.refreshes(), 1)
		})
	})
	t.Run("no limit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.cred.RefreshEvery = -1
			use(t, s, time.Minute)
			assert.Equal(t, 600, s.refreshes())
			assert.Empty(t, s.warnings(t))
		})
	})
	t.Run("the outcome says so", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
				return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: time.Now().Add(time.Hour)}, nil
			}
			use(t, s, 3*time.Second)
			s.accepts = func(*http.Request, string) bool { return false }
			require.NoError(t, s.cred.Set(t.Context(), reauth.Token{AccessToken: "S"})) // no predecessor
			var j journal
			s.rt.Logger = j.logger()
			_, o := s.get(t, apiURL)
			assert.Equal(t, reauth.NotRetriedBudget, o.NotRetried)
			var failure *reauth.RefreshError
			require.ErrorAs(t, o.Err, &failure)
			assert.LessOrEqual(t, failure.RetryAfter(), 6*time.Second)
			record := j.records(t, slog.LevelWarn)[0]
			assert.Equal(t, "budget", record["not_retried"])
			assert.Contains(t, record["hint"], "another process uses the same login")
		})
	})
	t.Run("failures are free", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.cred.MinBackoff = -1
			down := true
			s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
				if n > 1 && down {
					return reauth.Token{}, errors.New("down")
				}
				return reauth.Token{AccessToken: fmt.Sprint("T", n)}, nil
			}
			s.get(t, apiURL)
			s.accepts = func(_ *http.Request, token string) bool { return token != "T1" }
			during(10*time.Second, func() { s.get(t, apiURL) })
			require.Equal(t, 101, s.refreshes())
			down = false
			status, _ := s.get(t, apiURL)
			assert.Equal(t, http.StatusOK, status, "neither the budget nor the origin counts them")
		})
	})
	t.Run("expiry is free", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
				return reauth.Token{AccessToken: fmt.Sprint("T", n), Expiry: time.Now().Add(2 * time.Second)}, nil
			}
			for range 100 {
				s.get(t, apiURL)
				time.Sleep(3 * time.Second)
			}
			revoked := fmt.Sprint("T", s.refreshes())
			s.accepts = func(_ *http.Request, token string) bool { return token != revoked }
			status, _ := s.get(t, apiURL)
			assert.Equal(t, http.StatusOK, status)
		})
	})
}

func TestBackoffGrows(t *testing.T) {
	for _, tt := range []struct {
		name        string
		least, most time.Duration
		want        []time.Duration // the least between two calls
	}{
		{"default", 0, 0, []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, 40 * time.Second, 40 * time.Second}},
		{"given", 2 * time.Second, 10 * time.Second, []time.Duration{2 * time.Second, 4 * time.Second, 20 * time.Second / 3, 20 * time.Second / 3}},
		{"alike", 3 * time.Second, 3 * time.Second, []time.Duration{3 * time.Second, 3 * time.Second, 3 * time.Second}},
		{"the most is less than the least", 3 * time.Second, time.Second, []time.Duration{3 * time.Second, 3 * time.Second}},
		{"none", -1, 0, []time.Duration{0, 0, 0}},
		{"no most", time.Hour, -1, []time.Duration{time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 16 * time.Hour, 16 * time.Hour, 16 * time.Hour}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite()
				s.cred.MinBackoff, s.cred.MaxBackoff = tt.least, tt.most
				s.refresh = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, errors.New("down") }
				for s.refreshes() <= len(tt.want) {
					_, err := s.cred.Token(t.Context())
					var failure *reauth.RefreshError
					require.ErrorAs(t, err, &failure)
					time.Sleep(failure.RetryAfter())
				}
				most := tt.most
				if most == 0 {
					most = time.Minute
				}
				for i, gap := range s.gaps() {
					assert.GreaterOrEqual(t, gap, tt.want[i]*99/100, i)
					assert.LessOrEqual(t, gap, max(tt.want[i]*3/2+time.Millisecond, tt.least), i)
					if most > tt.least {
						assert.LessOrEqual(t, gap, most, i)
					}
				}
			})
		})
	}
}

// retryAfterError is an error of an issuer that says when to ask again.
type retryAfterError time.Duration

func (retryAfterError) Error() string               { return "busy" }
func (e retryAfterError) RetryAfter() time.Duration { return time.Duration(e) }

func TestBackoffRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		waits := []time.Duration{time.Millisecond, time.Hour, time.Millisecond, 0}
		s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
			if n <= len(waits) {
				return reauth.Token{}, fmt.Errorf("wrapped: %w", retryAfterError(waits[n-1]))
			}
			return reauth.Token{}, errors.New("down")
		}
		for s.refreshes() < 6 {
			_, err := s.cred.Token(t.Context())
			var failure *reauth.RefreshError
			require.ErrorAs(t, err, &failure)
			time.Sleep(failure.RetryAfter())
		}
		gaps := s.gaps()
		assert.Equal(t, waits[:3], gaps[:3], "shorter and longer than the backoff")
		assert.InDelta(t, 312*time.Millisecond, gaps[3], float64(63*time.Millisecond), "zero does not say")
		assert.InDelta(t, 625*time.Millisecond, gaps[4], float64(126*time.Millisecond), "those that said it did not count")
	})
}

func TestBackoffEndsWithASuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
			if n == 8 {
				return reauth.Token{AccessToken: "T8", Expiry: time.Now().Add(time.Minute)}, nil
			}
			return reauth.Token{}, errors.New("down")
		}
		for s.refreshes() < 8 {
			_, _ = s.cred.Token(t.Context())
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		_, err := s.cred.Token(t.Context())
		var failure *reauth.RefreshError
		require.ErrorAs(t, err, &failure)
		assert.LessOrEqual(t, failure.RetryAfter(), 400*time.Millisecond)
	})
}

// The issuer is down when a token nears its expiry and is revoked.
func TestBackoffInterruptedOnceForEachToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.cred.MinBackoff, s.cred.MaxBackoff = time.Minute, time.Minute
		s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
			if n == 1 {
				return reauth.Token{AccessToken: "T1", Expiry: time.Now().Add(time.Hour)}, nil
			}
			return reauth.Token{}, errors.New("down")
		}
		s.get(t, apiURL)
		time.Sleep(56 * time.Minute)
		during(90*time.Second, func() { s.get(t, apiURL) }) // ahead of expiry
		before := s.refreshes()
		s.accepts = func(*http.Request, string) bool { return false }
		_, o := s.get(t, apiURL)
		assert.Equal(t, reauth.NotRetriedNoToken, o.NotRetried)
		assert.Equal(t, before+1, s.refreshes(), "the rejection does not wait")
		during(50*time.Second, func() { s.get(t, apiURL) })
		assert.Equal(t, before+1, s.refreshes())
		during(5*time.Minute, func() { _, _ = s.cred.Token(t.Context()) })
		for i, gap := range s.gaps()[before+1:] {
			assert.GreaterOrEqual(t, gap, time.Minute, i)
		}
	})
}

// None of these says that another call is of no use.
func TestBackoffAfterErrorsOfSources(t *testing.T) {
	for name, failure := range map[string]error{
		"a TLS handshake that broke":     &url.Error{Op: "Post", URL: "https://issuer.test", Err: io.EOF},
		"a file that was half written":   fmt.Errorf("parse: %w", io.ErrUnexpectedEOF),
		"a read error of a Redis client": &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")},
		"a write error":                  &net.OpError{Op: "write", Net: "tcp", Err: errors.New("broken pipe")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite()
				s.refresh = func(n int, _ reauth.Stale) (reauth.Token, error) {
					if n == 1 {
						return reauth.Token{}, failure
					}
					return reauth.Token{AccessToken: "T2"}, nil
				}
				require.NoError(t, s.cred.Set(t.Context(), reauth.Token{RefreshToken: "R"}))
				_, err := s.cred.Token(t.Context())
				assert.ErrorIs(t, err, failure)
				assert.False(t, reauth.IsPermanent(err))
				time.Sleep(time.Second)
				tok, err := s.cred.Token(t.Context())
				require.NoError(t, err)
				assert.Equal(t, "T2", tok.AccessToken)
				assert.Zero(t, s.stale[1].AnswerLostAt, "nobody said that an answer was lost")
			})
		})
	}
}

func TestBackoffSpreadsProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seconds := map[int64]int{}
		var mu sync.Mutex
		for range 500 {
			cred := &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				mu.Lock()
				defer mu.Unlock()
				seconds[time.Now().Unix()]++
				return reauth.Token{AccessToken: fmt.Sprint(len(seconds)), Expiry: time.Now().Add(time.Hour)}, nil
			})}
			_, err := cred.Token(t.Context())
			require.NoError(t, err)
			go during(59*time.Minute, func() { _, _ = cred.Token(context.Background()) })
		}
		time.Sleep(time.Hour)
		delete(seconds, time.Now().Add(-time.Hour).Unix())
		for at, n := range seconds {
			assert.Less(t, n, 30, "refreshes in one second, %v", at)
		}
		assert.Greater(t, len(seconds), 100)
	})
}
