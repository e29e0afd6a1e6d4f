package reauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
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
