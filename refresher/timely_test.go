package refresher_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// A movingDeadline is a context whose deadline passes, and which does not end.
type movingDeadline struct {
	context.Context
	end time.Time
}

func (ctx movingDeadline) Deadline() (time.Time, bool) { return ctx.end, true }

// Past the deadline of its context, which need not have ended, no refresh token is sent.
func TestOAuth2SendsNothingPastItsDeadline(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("refresh_token") != "" {
			asked.Add(1)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"T","token_type":"Bearer","refresh_token":"R2"}`))
	}))
	defer server.Close()
	o := &refresher.OAuth2{Config: oauth2.Config{ClientID: "x", Endpoint: oauth2.Endpoint{TokenURL: server.URL, AuthStyle: oauth2.AuthStyleInParams}}}
	stale := reauth.Stale{Token: reauth.Token{AccessToken: "old", RefreshToken: "R1"}}

	_, err := o.Refresh(movingDeadline{t.Context(), time.Now().Add(-time.Second)}, stale)
	require.ErrorContains(t, err, "another may have refreshed")
	assert.False(t, reauth.IsAnswerLost(err), "nothing was sent")
	assert.Zero(t, asked.Load())

	tok, err := o.Refresh(movingDeadline{t.Context(), time.Now().Add(time.Minute)}, stale)
	require.NoError(t, err)
	assert.Equal(t, "R2", tok.RefreshToken)
	assert.EqualValues(t, 1, asked.Load())
}
