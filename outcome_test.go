package reauth_test

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"

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
