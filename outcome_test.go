package reauth_test

import (
	"context"
	"errors"
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

func TestOutcomeOfTheRightRequest(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		replies []logReply
		err     error
		first   int
		retry   int
		id      string
	}{
		{"200", []logReply{{200, "", []string{"X-Request-Id", "a"}}}, nil, 200, 0, "a"},
		{"500", []logReply{{500, "", []string{"X-Request-Id", "a"}}}, nil, 500, 0, "a"},
		{"cured", []logReply{{401, "(request id: a)", nil}, {200, "", []string{"X-Request-Id", "b"}}}, nil, 401, 200, "b"},
		{"refused", []logReply{{401, "(request id: a)", nil}, {401, "(request id: b)", nil}}, nil, 401, 401, "b"},
		{"no answer", nil, io.ErrUnexpectedEOF, 0, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sends := 0
				rt := &reauth.Transport{Logger: discard, Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"}),
					Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
						if tc.err != nil {
							return nil, tc.err
						}
						return logServer(&sends, tc.replies...).RoundTrip(req)
					})}
				ctx, outcome := reauth.WithOutcome(t.Context())
				assert.Zero(t, outcome(), "before the request")
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, logURL, nil)
				require.NoError(t, err)
				other, err := http.NewRequestWithContext(t.Context(), http.MethodGet, logURL, nil)
				require.NoError(t, err)
				_, err = rt.RoundTrip(req)
				require.ErrorIs(t, err, tc.err)
				o := outcome()
				sends = 0
				_, _ = rt.RoundTrip(other)
				assert.Equal(t, o, outcome(), "changed by another request")
				assert.Equal(t, tc.first, o.First.StatusCode)
				assert.Equal(t, tc.retry, o.Retry.StatusCode)
				assert.Equal(t, tc.id, o.RequestID())
				if tc.first != 0 {
					assert.Equal(t, fingerprintOf("T0"), o.First.Token)
				}
				if tc.retry != 0 {
					assert.Equal(t, "a", o.First.RequestID)
					assert.Equal(t, fingerprintOf("T1"), o.Retry.Token)
					assert.Positive(t, o.Elapsed)
				}
			})
		})
	}
	t.Run("not sent", func(t *testing.T) {
		ctx, outcome := reauth.WithOutcome(t.Context())
		rt := &reauth.Transport{Logger: discard, Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"})}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://api.example.com", nil)
		require.NoError(t, err)
		_, err = rt.RoundTrip(req)
		require.ErrorIs(t, err, reauth.ErrInsecure)
		assert.ErrorIs(t, outcome().Err, reauth.ErrInsecure)
	})
	t.Run("of nothing", func(t *testing.T) {
		for _, resp := range []*http.Response{nil, {}, {Request: &http.Request{}}} {
			_, ok := reauth.OutcomeOf(resp)
			assert.False(t, ok)
			assert.Empty(t, reauth.RequestID(resp))
		}
	})
}

// Hooks and metrics tell hosts apart by it: whatever became of the request, the Outcome has
// its origin, and no path, query or password.
func TestOutcomeOrigin(t *testing.T) {
	ok, rejected := logReply{200, "", nil}, logReply{401, "", nil}
	for _, tc := range []struct {
		name    string
		url     string
		origins []string
		replies []logReply // nil: the connection is cut
		hooked  bool
		want    string
	}{
		{"200", "https://api.example.com/v1?key=secret", nil, []logReply{ok}, false, "https://api.example.com"},
		{"recovered", "https://ann:secret@API.Example.com.:443/v1", nil, []logReply{rejected, ok}, true, "https://api.example.com"},
		{"rejected twice", "https://api.example.com:8443", nil, []logReply{rejected}, true, "https://api.example.com:8443"},
		{"withheld", "http://[::1]:80/v1", []string{}, []logReply{ok}, true, "http://[::1]"},
		{"no response", "https://api.example.com/v1", nil, nil, false, "https://api.example.com"},
		{"no response, withheld", "https://api.example.com/v1", []string{}, nil, false, "https://api.example.com"},
		{"not sent", "http://api.example.com/v1", nil, nil, false, "http://api.example.com"},
		{"a long name", "https://" + strings.Repeat("a", 10_000), nil, []logReply{rejected}, true, "https://" + strings.Repeat("a", 291) + "…"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sends, hooked := 0, []string(nil)
				rt := &reauth.Transport{
					Logger: discard, Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"}), Origins: tc.origins,
					Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
						if tc.replies == nil {
							return nil, io.ErrUnexpectedEOF
						}
						return logServer(&sends, tc.replies...).RoundTrip(req)
					}),
					OnOutcome: func(_ context.Context, o reauth.Outcome) { hooked = append(hooked, o.Origin) },
				}
				ctx, outcome := reauth.WithOutcome(t.Context())
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, tc.url, nil)
				require.NoError(t, err)
				_, _ = rt.RoundTrip(req)
				assert.Equal(t, tc.want, outcome().Origin)
				if tc.hooked {
					assert.Equal(t, []string{tc.want}, hooked)
				} else {
					assert.Empty(t, hooked)
				}
			})
		})
	}
}

// A request that gets no answer does not show the outcome of the one before it,
// be it sent with the token or without.
func TestOutcomeNotOfTheRequestBefore(t *testing.T) {
	for name, origins := range map[string][]string{"with the token": nil, "without": {}} {
		t.Run(name, func(t *testing.T) {
			cut := errors.New("connection cut")
			sends := 0
			rt := &reauth.Transport{
				Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"}), Origins: origins, Logger: discard,
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if sends++; sends == 1 {
						return answer(req, http.StatusOK, "", "X-Request-Id", "one"), nil
					}
					return nil, cut
				}),
			}
			ctx, outcome := reauth.WithOutcome(t.Context())
			for range 2 {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example.com/", nil)
				require.NoError(t, err)
				if resp, err := rt.RoundTrip(req); err == nil {
					require.NoError(t, resp.Body.Close())
					assert.Equal(t, "one", outcome().First.RequestID)
				}
			}
			assert.Zero(t, outcome().First, "of the request before")
			assert.ErrorIs(t, outcome().Err, cut)
		})
	}
}

func TestOutcomeWithheld(t *testing.T) {
	get := func(t *testing.T, url string) *http.Request {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		return req
	}
	for want, prepare := range map[reauth.Withheld]func(t *testing.T, f *fixture) *http.Request{
		reauth.WithheldAsked: func(t *testing.T, f *fixture) *http.Request {
			req := get(t, apiURL)
			return req.WithContext(reauth.WithoutToken(req.Context()))
		},
		reauth.WithheldTrace: func(t *testing.T, f *fixture) *http.Request {
			req := get(t, apiURL)
			req.Method = http.MethodTrace
			return req
		},
		reauth.WithheldOrigin: func(t *testing.T, f *fixture) *http.Request {
			f.rt.Origins = []string{apiURL}
			return get(t, "https://b.test/")
		},
		reauth.WithheldRedirect: func(t *testing.T, f *fixture) *http.Request {
			req := get(t, "https://b.test/")
			req.Response = answer(get(t, apiURL), http.StatusFound, "")
			return req
		},
		reauth.WithheldHost: func(t *testing.T, f *fixture) *http.Request {
			req := get(t, apiURL)
			req.Host = "b.test"
			return req
		},
		reauth.WithheldScheme: func(t *testing.T, f *fixture) *http.Request { return get(t, "ftp://a.test/") },
		reauth.WithheldOwnCredential: func(t *testing.T, f *fixture) *http.Request {
			req := get(t, apiURL)
			req.Header.Set("Authorization", "Bearer another-key")
			return req
		},
	} {
		t.Run(string(want), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.set(reauth.Token{AccessToken: "T"})
				f.serve = func(req *http.Request, _ string) *http.Response { return invalidToken(req) }
				req := prepare(t, f)
				ctx, outcome := reauth.WithOutcome(req.Context())
				resp, err := f.rt.RoundTrip(req.WithContext(ctx))
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				assert.Equal(t, want, outcome().Withheld)
				assert.NotEmpty(t, want.Text())
				if want != reauth.WithheldAsked { // there the response is not looked at
					assert.Equal(t, reauth.NotRetriedWithheld, outcome().NotRetried)
					assert.NotEmpty(t, outcome().NotRetried.Text())
				}
				assert.Zero(t, outcome().Retry)
				assert.Zero(t, f.refreshes())
			})
		})
	}
	t.Run(string(reauth.WithheldRefresh), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			var during reauth.Outcome
			f.cred.Refresher = reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
				during = f.send(ctx, http.MethodGet, apiURL, nil).outcome
				return reauth.Token{AccessToken: "T"}, nil
			})
			f.get(apiURL)
			assert.Equal(t, reauth.WithheldRefresh, during.Withheld)
			assert.NotEmpty(t, during.Withheld.Text())
		})
	})
}

func TestOutcomeNotRetried(t *testing.T) {
	busy := func(seconds string) func(req *http.Request, _ string) *http.Response {
		return func(req *http.Request, _ string) *http.Response {
			resp := invalidToken(req)
			resp.Header.Set("Retry-After", seconds)
			return resp
		}
	}
	for want, prepare := range map[reauth.NotRetried]func(f *fixture){
		reauth.NotRetriedReason: func(f *fixture) {
			f.serve = func(req *http.Request, _ string) *http.Response {
				return answer(req, http.StatusUnauthorized, `{"error":{"message":"insufficient quota"}}`)
			}
		},
		reauth.NotRetriedNoToken: func(f *fixture) {
			f.issue = func(int, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, errors.New("down") }
		},
		reauth.NotRetriedTooYoung: func(f *fixture) {
			f.serve = func(req *http.Request, _ string) *http.Response { return invalidToken(req) }
			f.get(apiURL)
		},
		reauth.NotRetriedDeadline:   func(f *fixture) { f.rt.RetryWait = 20 * time.Second },
		reauth.NotRetriedRetryAfter: func(f *fixture) { f.serve = busy("6") },
		reauth.NotRetriedCanceled:   func(f *fixture) { f.takes = 11 * time.Second },
		reauth.NotRetriedLoggedOut: func(f *fixture) {
			f.serve = func(req *http.Request, _ string) *http.Response {
				assert.NoError(f.t, f.cred.Clear(req.Context()))
				return invalidToken(req)
			}
		},
		reauth.NotRetriedTokenExpired: func(f *fixture) {
			f.rt.RetryWait = 5 * time.Second
			f.issue = func(n int, _ reauth.Stale) (reauth.Token, error) {
				if n > 1 {
					return reauth.Token{}, errors.New("down")
				}
				return reauth.Token{AccessToken: "T1", Expiry: time.Now().Add(2 * time.Second)}, nil
			}
		},
		reauth.NotRetriedBodyTooLarge: func(f *fixture) { f.rt.MaxReplayBytes = -1 },
		reauth.NotRetriedBodyFailed:   func(f *fixture) {},
	} {
		t.Run(string(want), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.set(reauth.Token{AccessToken: "T"})
				f.revoke()
				prepare(f)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				ctx, outcome := reauth.WithOutcome(ctx)
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, apiURL, io.MultiReader(strings.NewReader("body")))
				require.NoError(t, err)
				if want != reauth.NotRetriedBodyTooLarge {
					req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("body")), nil }
				}
				if want == reauth.NotRetriedBodyFailed {
					req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("gone") }
				}
				base := f.rt.Base
				f.rt.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
					_, err := io.Copy(io.Discard, req.Body)
					assert.NoError(t, err)
					return base.RoundTrip(req)
				})
				resp, err := f.rt.RoundTrip(req)
				if want == reauth.NotRetriedCanceled {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					time.Sleep(f.takes) // the refresh goes on
				} else {
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				}
				assert.Equal(t, want, outcome().NotRetried)
				assert.NotEmpty(t, want.Text())
				assert.Zero(t, outcome().Retry)
				synctest.Wait()
			})
		})
	}
}
