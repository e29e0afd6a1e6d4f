package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// An oidcProvider is node-oidc-provider, which rotates refresh tokens and ends the login
// when one is presented twice. The API is its userinfo endpoint.
type oidcProvider struct {
	Address      string
	RefreshToken string
}

// startOIDCProvider starts one, where node and npm are at hand.
func startOIDCProvider(t *testing.T, lifetime string) *oidcProvider {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node to run oidc-provider with")
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("there is no npm to install oidc-provider with")
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "server.js"} {
		content, err := os.ReadFile(filepath.Join("testdata", "oidc-provider", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	install := exec.CommandContext(t.Context(), npm, "install", "--no-audit", "--no-fund", "--no-package-lock")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("oidc-provider cannot be installed: %s: %s", err, out)
	}
	cmd := exec.Command(node, "server.js", lifetime)
	cmd.Dir = dir
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p := &oidcProvider{}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(line, p))
	return p
}

func (p *oidcProvider) client(base http.RoundTripper) *refresher.OAuth2 {
	return &refresher.OAuth2{Base: base, Config: oauth2.Config{
		ClientID: "app", ClientSecret: "secret", Endpoint: oauth2.Endpoint{TokenURL: p.Address + "/token"},
	}}
}

// Callers go on until the token has been renewed three times ahead of its expiry.
func TestAStrictIssuerIsNeverShownARefreshTokenTwice(t *testing.T) {
	p := startOIDCProvider(t, "12")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var refreshes atomic.Int32
	cred := &reauth.Credential{Refresher: p.client(nil), Logger: discard, OnRefresh: func(_ context.Context, info reauth.RefreshInfo) {
		if assert.NoError(t, info.Err) {
			refreshes.Add(1)
		}
	}}
	require.NoError(t, cred.Set(ctx, reauth.Token{RefreshToken: p.RefreshToken}))
	client := &http.Client{Transport: &reauth.Transport{Credential: cred, Logger: discard}}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for refreshes.Load() < 4 && ctx.Err() == nil && !t.Failed() {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Address+"/me", nil)
				if !assert.NoError(t, err) {
					return
				}
				resp, err := client.Do(req)
				if !assert.NoError(t, err) {
					return
				}
				assert.Equal(t, http.StatusOK, resp.StatusCode)
				assert.NoError(t, resp.Body.Close())
			}
		})
	}
	wg.Wait()
	assert.GreaterOrEqual(t, refreshes.Load(), int32(4))
}

// An answer is lost: the access token is used to its end, and then the refresh token is
// presented again, as the login is lost for certain otherwise. This issuer ends it.
func TestAStrictIssuerAndALostAnswer(t *testing.T) {
	p := startOIDCProvider(t, "12")
	var sends, lose atomic.Int32
	oauth := p.client(roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		sends.Add(1)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil && lose.Load() == 1 {
			_ = resp.Body.Close()
			return nil, context.DeadlineExceeded
		}
		return resp, err
	}))
	tok, err := oauth.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{RefreshToken: p.RefreshToken}})
	require.NoError(t, err)
	lose.Store(1)
	_, err = oauth.Refresh(t.Context(), reauth.Stale{Token: tok})
	require.True(t, reauth.IsAnswerLost(err), err)
	lose.Store(0)

	lost := time.Now()
	stale := reauth.Stale{Token: tok, AnswerLostAt: lost}
	before := sends.Load()
	_, err = oauth.Refresh(t.Context(), stale)
	require.ErrorContains(t, err, "is presented again when the access token is no longer usable")
	assert.Equal(t, before, sends.Load())

	stale.Rejection.Reason = reauth.ReasonExpired
	_, err = oauth.Refresh(t.Context(), stale)
	require.True(t, reauth.IsLoginEnded(err), err)
	assert.ErrorContains(t, err, "the answer to the refresh of "+lost.UTC().Format(time.RFC3339)+" was lost")
}
