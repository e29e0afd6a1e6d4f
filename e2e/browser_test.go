package e2e_test

import (
	"bytes"
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth/reauthtest"
	"github.com/reauth-go/reauth/refresher"
)

// The browser is Debian's Chromium, without a window; the issuer is that of reauthtest,
// whose user agrees at once.
func TestABrowserComesBackFromALogin(t *testing.T) {
	chromium := needs(t, "chromium", "chromium")
	issuer := reauthtest.NewIssuer()
	t.Cleanup(issuer.Close)
	issuer.SetRotate(true)
	o := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Scopes: []string{"read"}}}
	require.NoError(t, o.Discover(t.Context(), issuer.Issuer()))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var page, stderr bytes.Buffer
	shown := make(chan error, 1)
	tok, err := o.BrowserLogin(ctx, func(address string) error {
		cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
			"--no-first-run", "--disable-background-networking", "--user-data-dir="+t.TempDir(), "--dump-dom", address)
		cmd.Stdout, cmd.Stderr = &page, &stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() { shown <- cmd.Wait() }()
		return nil
	})
	require.NoError(t, err, "%s", &stderr)
	assert.True(t, issuer.Valid(tok.AccessToken))
	assert.NotEmpty(t, tok.RefreshToken)
	require.NoError(t, <-shown, "%s", &stderr)
	assert.Contains(t, page.String(), "You may close this page.")
	last := issuer.Requests()[0]
	assert.Equal(t, "authorization_code", last.Grant)
	assert.NotEmpty(t, last.Form.Get("code_verifier"))
}
