package reauthtest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// grant asks the token endpoint, and returns the answer and its fields.
func grant(t *testing.T, i *reauthtest.Issuer, form url.Values) (*http.Response, map[string]any) {
	t.Helper()
	resp, err := http.PostForm(i.URL(), form)
	require.NoError(t, err)
	defer resp.Body.Close()
	var fields map[string]any
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&fields))
	assert.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	assert.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
	assert.NotEmpty(t, resp.Header.Get("X-Request-Id"))
	return resp, fields
}

// RFC 6749 §5.1.
func TestAnswerOfTheTokenEndpointIsNeverOutOfForm(t *testing.T) {
	i := newIssuer(t)
	for _, grantType := range []string{"", "client_credentials", "password", "urn:ietf:params:oauth:grant-type:jwt-bearer"} {
		resp, fields := grant(t, i, url.Values{"grant_type": {grantType}})
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, "Bearer", fields["token_type"])
		assert.True(t, i.Valid(fields["access_token"].(string)))
		assert.Len(t, fields, 2, "neither expires_in nor refresh_token unless asked for")
	}
	i.SetRotate(true)
	i.SetLifetime(time.Hour)
	_, fields := grant(t, i, nil)
	assert.EqualValues(t, 3600, fields["expires_in"])
	assert.NotEmpty(t, fields["refresh_token"])
	assert.Equal(t, 5, i.Refreshes())

	resp, err := http.Get(i.URL())
	require.NoError(t, err)
	assert.Contains(t, read(t, resp), "invalid_request")
	assert.Equal(t, 405, resp.StatusCode)
	assert.Equal(t, "POST", resp.Header.Get("Allow"))
	assert.Equal(t, 5, i.Refreshes())
	assert.Equal(t, 6, i.Sends())
}

func TestLifetimeIsNeverMisstated(t *testing.T) {
	i := newIssuer(t)
	for _, c := range []struct {
		lifetime time.Duration
		in       any
		valid    bool
	}{
		{0, nil, true},
		{time.Hour, 3600., true},
		{90500 * time.Millisecond, 91., true}, // x/oauth2 reads no fractions
		{time.Nanosecond, 1., false},
		{-time.Nanosecond, 0., false},
		{-time.Hour, 0., false},
	} {
		i.SetLifetime(c.lifetime)
		_, fields := grant(t, i, nil)
		assert.Equal(t, c.in, fields["expires_in"], c.lifetime)
		assert.Equal(t, c.valid, i.Valid(fields["access_token"].(string)), c.lifetime)
	}
	assert.False(t, i.Valid(""))
	assert.False(t, i.Valid("access-other"))
}

func TestExpiredTokenIsNeverSent(t *testing.T) {
	w := newWorld(t, nil, reauthtest.NewAPI)
	w.issuer.SetLifetime(-time.Second)
	tok := token(t, w.issuer)
	assert.True(t, tok.Expiry.Before(time.Now()))
	w.issuer.SetLifetime(time.Hour)
	require.NoError(t, w.cred.Set(t.Context(), tok))
	resp, _ := w.get(t)
	assert.Equal(t, 200, resp.StatusCode)
	assert.Equal(t, []int{200}, statuses(w.api))

	tok, err := w.cred.Current()
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(time.Hour), tok.Expiry, time.Minute)
	assert.Equal(t, "Bearer", tok.TokenType)
}

// RFC 9700 §4.14.2.
func TestUsedRefreshTokenIsNeverAcceptedAgain(t *testing.T) {
	i := newIssuer(t)
	i.SetRotate(true)
	refresh := func(rt string) (int, string, string) {
		resp, fields := grant(t, i, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {rt}})
		access, _ := fields["access_token"].(string)
		next, _ := fields["refresh_token"].(string)
		if resp.StatusCode != 200 {
			assert.Equal(t, "invalid_grant", fields["error"])
			assert.NotEmpty(t, fields["error_description"])
		}
		return resp.StatusCode, access, next
	}
	_, first, r1 := refresh("")
	_, other, s1 := refresh("") // another login
	_, second, r2 := refresh(r1)
	assert.NotEqual(t, r1, r2)
	_, third, r3 := refresh(r2)
	for _, tok := range []string{first, second, third, other} {
		assert.True(t, i.Valid(tok), "a refresh revokes nothing")
	}
	assert.Zero(t, i.Reuses())

	status, _, _ := refresh(r1)
	assert.Equal(t, 400, status)
	assert.Equal(t, 1, i.Reuses())
	for _, tok := range []string{first, second, third} {
		assert.False(t, i.Valid(tok), "the whole family is revoked")
	}
	assert.True(t, i.Valid(other))
	status, _, _ = refresh(r3)
	assert.Equal(t, 400, status, "and with it the newest")
	assert.Equal(t, 1, i.Reuses(), "which was not used before")
	status, _, _ = refresh("unknown")
	assert.Equal(t, 400, status)
	assert.Equal(t, 1, i.Reuses())
	status, _, _ = refresh(s1)
	assert.Equal(t, 200, status)
	assert.Equal(t, 5, i.Refreshes())
}

func TestWithoutRotationRefreshTokensAreIgnored(t *testing.T) {
	i := newIssuer(t)
	resp, fields := grant(t, i, url.Values{"refresh_token": {"from a login elsewhere"}})
	assert.Equal(t, 200, resp.StatusCode)
	assert.NotContains(t, fields, "refresh_token")
}

func TestCredentialNeverReusesARefreshToken(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		w.issuer.SetRotate(true)
		for range 3 {
			w.issuer.Revoke()
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if resp, err := w.client.Get(w.api.URL()); assert.NoError(t, err) {
						assert.NoError(t, resp.Body.Close())
						assert.Equal(t, 200, resp.StatusCode)
					}
				})
			}
			all.Wait()
		}
		assert.Equal(t, 3, w.issuer.Refreshes())
		assert.Zero(t, w.issuer.Reuses())
	})
}

func TestFaultOfTheIssuerIsNeverTakenForAToken(t *testing.T) {
	i := newIssuer(t)
	i.SetRotate(true)
	elsewhere := newIssuer(t)
	stale := reauth.Stale{Token: token(t, i)}
	for _, c := range []struct {
		name      string
		fault     reauthtest.Fault
		permanent bool
		after     time.Duration
	}{
		{name: "cut", fault: reauthtest.DropAfter(20)},
		{name: "cut at its end", fault: reauthtest.DropAfter(1000)},
		{name: "dropped", fault: reauthtest.Drop()},
		{name: "rejected", fault: reauthtest.Reject()},
		{name: "no JSON", fault: reauthtest.Status(200, "Content-Length", "2")},
		{name: "redirected", fault: reauthtest.RedirectTo(elsewhere.URL())},
		{name: "unavailable", fault: reauthtest.Unavailable(3 * time.Second), after: 3 * time.Second},
		{name: "bad request", fault: reauthtest.Status(400)},
		{name: "over", fault: reauthtest.InvalidGrant(), permanent: true},
	} {
		i.Next(c.fault)
		tok, err := i.Refresh(t.Context(), stale)
		if !assert.Error(t, err, c.name) {
			continue
		}
		assert.Zero(t, tok, c.name)
		assert.Equal(t, c.permanent, reauth.IsPermanent(err), c.name)
		assert.NotContains(t, err.Error(), stale.Token.RefreshToken, c.name)
		var later interface{ RetryAfter() time.Duration }
		if c.after > 0 && assert.ErrorAs(t, err, &later, c.name) {
			assert.Equal(t, c.after, later.RetryAfter())
		}
		stale.Token = token(t, i)
	}
	assert.Zero(t, elsewhere.Requests())
	assert.Zero(t, i.Reuses())
}

func TestIssuerThatIsDownHandsOutNothing(t *testing.T) {
	w := newWorld(t, nil, reauthtest.NewAPI)
	w.get(t)
	w.issuer.Down(true)
	resp, _ := w.get(t)
	assert.Equal(t, 200, resp.StatusCode, "the token is still good")
	w.issuer.Revoke()
	resp, _ = w.get(t)
	assert.Equal(t, 401, resp.StatusCode)
	assert.Equal(t, 1, w.issuer.Refreshes())
	assert.Equal(t, 2, w.issuer.Sends())
	w.issuer.Down(false)
	require.NoError(t, w.cred.Set(t.Context(), token(t, w.issuer)))
	resp, _ = w.get(t)
	assert.Equal(t, 200, resp.StatusCode)
}

func TestClosedIssuerAnswersNobody(t *testing.T) {
	i := reauthtest.NewIssuer()
	i.Close()
	_, err := i.Refresh(t.Context(), reauth.Stale{})
	assert.Error(t, err)
	assert.Zero(t, i.Sends())
}

// What the Issuer answers has to suit other clients than its own.
func TestOtherClientsDoNotMisreadTheIssuer(t *testing.T) {
	i := newIssuer(t)
	i.SetLifetime(1500 * time.Millisecond)
	i.SetRotate(true)
	ctx := context.Background()
	tok, err := (&clientcredentials.Config{ClientID: "c", ClientSecret: "s", TokenURL: i.URL()}).Token(ctx)
	require.NoError(t, err)
	assert.True(t, i.Valid(tok.AccessToken))
	assert.WithinDuration(t, time.Now().Add(2*time.Second), tok.Expiry, time.Second)

	cfg := &oauth2.Config{ClientID: "c", Endpoint: oauth2.Endpoint{TokenURL: i.URL(), AuthStyle: oauth2.AuthStyleInParams}}
	next, err := cfg.TokenSource(ctx, &oauth2.Token{RefreshToken: tok.RefreshToken}).Token()
	require.NoError(t, err)
	assert.NotEqual(t, tok.RefreshToken, next.RefreshToken)

	var refused *oauth2.RetrieveError
	_, err = cfg.TokenSource(ctx, &oauth2.Token{RefreshToken: tok.RefreshToken}).Token()
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "invalid_grant", refused.ErrorCode)
	assert.Equal(t, 1, i.Reuses())

	i.Next(reauthtest.Unavailable(time.Minute))
	_, err = cfg.TokenSource(ctx, &oauth2.Token{RefreshToken: "x"}).Token()
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "60", refused.Response.Header.Get("Retry-After"))
	assert.Equal(t, "Service Unavailable", refused.ErrorDescription)
}

// A stalled endpoint issues its token after the release, and not to a client that has
// disconnected.
func TestStalledGrantIsNeitherLostNorHandedToNobody(t *testing.T) {
	i := newIssuer(t)
	release := make(chan struct{})
	i.Next(reauthtest.Stall(nil), reauthtest.Stall(release))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := i.Refresh(ctx, reauth.Stale{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Zero(t, i.Refreshes())
	close(release)
	resp, err := http.Post(i.URL(), "application/x-www-form-urlencoded", strings.NewReader("refresh_token=x"))
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Contains(t, string(b), "access_token")
	assert.Equal(t, 1, i.Refreshes())
}
