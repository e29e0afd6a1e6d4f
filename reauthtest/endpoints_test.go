package reauthtest_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
	"github.com/reauth-go/reauth/refresher"
)

func open(t *testing.T, address string) {
	resp, err := http.Get(address)
	if assert.NoError(t, err) {
		assert.NoError(t, resp.Body.Close())
		assert.Equal(t, http.StatusOK, resp.StatusCode)
	}
}

func TestIssuerLogsInByEachGrant(t *testing.T) {
	i := reauthtest.NewIssuer()
	defer i.Close()
	i.SetRotate(true)
	o := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app"}}
	require.NoError(t, o.Discover(t.Context(), i.Issuer()))
	assert.Equal(t, i.Endpoint(), o.Config.Endpoint)

	tok, err := o.BrowserLogin(t.Context(), func(address string) error {
		go open(t, address)
		return nil
	})
	require.NoError(t, err)
	assert.True(t, i.Valid(tok.AccessToken))

	device, err := o.DeviceLogin(t.Context(), func(d *oauth2.DeviceAuthResponse) error {
		open(t, d.VerificationURIComplete)
		return nil
	})
	require.NoError(t, err)
	assert.True(t, i.Valid(device.AccessToken))

	require.NoError(t, o.Revoke(t.Context(), device))
	assert.False(t, i.Valid(device.AccessToken), "its login has ended")
	assert.True(t, i.Valid(tok.AccessToken), "the other has not")
	_, err = o.Refresh(t.Context(), reauth.Stale{Token: device})
	assert.True(t, reauth.IsLoginEnded(err))
	require.NoError(t, o.Revoke(t.Context(), reauth.Token{AccessToken: tok.AccessToken}))
	assert.False(t, i.Valid(tok.AccessToken))
}

func TestIssuerTakesACodeOnceAndWithItsVerifier(t *testing.T) {
	i := reauthtest.NewIssuer()
	defer i.Close()
	o := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Endpoint: i.Endpoint(), RedirectURL: "http://127.0.0.1:1/back"}}
	verifier := oauth2.GenerateVerifier()
	code := func() string {
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		resp, err := client.Get(o.Config.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		back, err := resp.Location()
		require.NoError(t, err)
		assert.Equal(t, i.Issuer(), back.Query().Get("iss"))
		assert.Equal(t, "s", back.Query().Get("state"))
		return back.Query().Get("code")
	}
	once := code()
	_, err := o.Exchange(t.Context(), once, verifier)
	require.NoError(t, err)
	_, err = o.Exchange(t.Context(), once, verifier)
	require.ErrorContains(t, err, "invalid_grant")
	_, err = o.Exchange(t.Context(), code(), "another verifier, of another who saw the code")
	require.ErrorContains(t, err, "invalid_grant")
}

func TestIssuerShowsWhatItWasAsked(t *testing.T) {
	i := reauthtest.NewIssuer()
	defer i.Close()
	o := &refresher.OAuth2{
		Config: oauth2.Config{ClientID: "a:b", ClientSecret: "secret", Endpoint: i.Endpoint(), Scopes: []string{"read", "write"}},
		Params: url.Values{"audience": {"https://api.example/"}},
	}
	_, err := o.ClientCredentials().Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	o.Config.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	_, err = o.ClientCredentials().Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	all := i.Requests()
	require.Len(t, all, 2)
	assert.Equal(t, 2, i.Sends())
	for n, auth := range []string{"client_secret_basic", "client_secret_post"} {
		r := all[n]
		assert.Equal(t, []string{auth, "client_credentials", "a:b"}, []string{r.Auth, r.Grant, r.ClientID})
		assert.Equal(t, []string{"read", "write"}, r.Scopes)
		assert.Equal(t, []string{"https://api.example/"}, r.Audience)
		assert.Equal(t, http.StatusOK, r.Status)
	}
}

// The error of the README, in the words of the server that says it.
func TestAPIRejectsInWordsOfItsOwn(t *testing.T) {
	i := reauthtest.NewIssuer()
	defer i.Close()
	a := reauthtest.NewAPI(i, nil)
	defer a.Close()
	a.SetRejection(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprint(w, `{"error":{"code":"","message":"无效的令牌 (request id: 2026)","type":"new_api_error"}}`)
	}))
	cred := &reauth.Credential{Refresher: i}
	client := &http.Client{Transport: &reauth.Transport{Credential: cred, RetryWait: -1}}
	get := func() reauth.Outcome {
		ctx, outcome := reauth.WithOutcome(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL(), nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		return outcome()
	}
	get()
	i.Revoke()
	o := get()
	assert.True(t, o.Recovered())
	assert.Contains(t, o.Rejection.Message, "无效的令牌")
	a.SetRejection(nil)
	i.Revoke()
	assert.Equal(t, reauth.ReasonRevoked, get().Rejection.Reason)
}

func TestAPIOfSeveralTenants(t *testing.T) {
	one, other, stranger := reauthtest.NewIssuer(), reauthtest.NewIssuer(), reauthtest.NewIssuer()
	a := reauthtest.NewAPI(one, nil)
	a.Accept(other)
	defer func() { a.Close(); one.Close(); other.Close(); stranger.Close() }()
	status := func(i *reauthtest.Issuer, end func()) int {
		tok, err := i.Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		end()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL(), nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+tok.AccessToken)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		if resp.StatusCode != http.StatusOK && i != stranger {
			assert.Contains(t, string(body), "revoked", "by the one who knows it")
		}
		return resp.StatusCode
	}
	nothing := func() {}
	assert.Equal(t, []int{200, 200, 401, 401, 401}, []int{
		status(one, nothing), status(other, nothing), status(stranger, nothing), status(one, one.Revoke), status(other, other.Revoke),
	})
}

func TestRespondAnswersOnce(t *testing.T) {
	i := reauthtest.NewIssuer()
	defer i.Close()
	i.Next(reauthtest.Respond(http.StatusBadRequest, `{"status":"BAD_REFRESH_TOKEN","message":"gone"}`, "X-Own", "1"))
	o := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Endpoint: i.Endpoint()}}
	_, err := o.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{RefreshToken: "R"}})
	require.True(t, reauth.IsLoginEnded(err))
	_, err = o.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{RefreshToken: "R"}})
	require.NoError(t, err)
}
