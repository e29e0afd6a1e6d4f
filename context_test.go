package reauth_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// A request made with WithoutToken has no OutcomeOf and no log record, but WithOutcome
// reports it.
func TestWithoutToken(t *testing.T) {
	t.Parallel()
	j := &journal{}
	var seen []string
	rt := &reauth.Transport{Logger: j.logger(), OnOutcome: func(context.Context, reauth.Outcome) { t.Error("OnOutcome") },
		Credential: &reauth.Credential{Logger: j.logger(), Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			t.Error("a refresh")
			return reauth.Token{AccessToken: "T1"}, nil
		})},
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			seen = append(seen, req.Header.Get("Authorization")+req.Header.Get("X-Api-Key"))
			return answer(req, 401, "", "X-Request-Id", "a"), nil
		})}
	for _, key := range []string{"", reauth.Placeholder} {
		ctx, outcome := reauth.WithOutcome(reauth.WithoutToken(t.Context()))
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, logURL, nil)
		require.NoError(t, err)
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
			req.Header.Set("X-Api-Key", key)
		}
		resp, err := rt.RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, 401, resp.StatusCode)
		assert.Equal(t, 401, outcome().First.StatusCode)
		assert.Equal(t, "a", outcome().RequestID())
		assert.NotEmpty(t, outcome().Withheld)
	}
	assert.Equal(t, []string{"", ""}, seen)
	assert.Empty(t, j.text())
}
