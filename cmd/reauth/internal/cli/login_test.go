package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/zalando/go-keyring"

	"github.com/reauth-go/reauth/reauthtest"
)

// loginConfig is a configuration for the issuer, in a home of the test's own.
func loginConfig(t *testing.T, issuer *reauthtest.Issuer, api, grant string) (config, state string) {
	t.Helper()
	dir := t.TempDir()
	state = filepath.Join(dir, "state")
	t.Setenv("XDG_STATE_HOME", state)
	config = filepath.Join(dir, "config.toml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "[profile.corp]\nurl = %q\n[profile.corp.oauth]\nissuer = %q\nclient_id = \"cli\"\ngrant = %q\n", api, issuer.Issuer(), grant), 0o600))
	return config, state
}

// agreeingUser has a user who agrees in place of the browser until the test ends, and
// returns the pages that are shown.
func agreeingUser(t *testing.T) (pages <-chan string) {
	before := openBrowser
	t.Cleanup(func() { openBrowser = before })
	shown := make(chan string, 10)
	openBrowser = func(address string) error {
		go func() {
			resp, err := http.Get(address)
			if err != nil {
				shown <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			shown <- string(b)
		}()
		return nil
	}
	return shown
}

// A login in the browser is there for all that use the profile, until logout.
func TestLoginLogout(t *testing.T) {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	issuer.SetRotate(true)
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	config, state := loginConfig(t, issuer, api.URL(), "browser")
	page := agreeingUser(t)

	_, _, status := run(t, "", "status", "corp", "--config", config)
	assert.Equal(t, exitLater, status)
	_, errs, status := run(t, "", "token", "-p", "corp", "--config", config)
	assert.Equal(t, exitLogin, status, errs)
	out, errs, status := run(t, "", "login", "corp", "--config", config)
	require.Zero(t, status, errs)
	assert.Contains(t, out, filepath.Join(state, "reauth", "corp.json"))
	assert.Contains(t, errs, "Waiting for the login")
	assert.Contains(t, <-page, "close")
	info, err := os.Stat(filepath.Join(state, "reauth", "corp.json"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	out, _, status = run(t, "", "status", "corp", "--config", config)
	assert.Zero(t, status)
	assert.Contains(t, out, "Logged in")
	token, _, status := run(t, "", "token", "-p", "corp", "--config", config)
	assert.Zero(t, status)
	assert.NotContains(t, out, strings.TrimSpace(token))
	out, errs, status = run(t, "", "check", "-p", "corp", "--config", config, api.URL()+"/x")
	assert.Zero(t, status, out+errs)
	_, _, status = run(t, "", "check", "-p", "corp", "--config", config, "https://elsewhere.example.com/")
	assert.Equal(t, exitUsage, status)

	again, _, status := run(t, "", "token", "-p", "corp", "--config", config, "--renew")
	assert.Zero(t, status)
	assert.NotEqual(t, token, again)

	out, errs, status = run(t, "", "logout", "corp", "--config", config)
	require.Zero(t, status, out+errs)
	_, _, status = run(t, "", "token", "-p", "corp", "--config", config)
	assert.Equal(t, exitLogin, status)
	assert.Zero(t, issuer.Reuses())
}

// Eight programs at once, and revocations: the refresh token is sent once each time.
func TestLoginSharedByEight(t *testing.T) {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	issuer.SetRotate(true)
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	config, _ := loginConfig(t, issuer, api.URL(), "browser")
	agreeingUser(t)
	_, errs, status := run(t, "", "login", "corp", "--config", config)
	require.Zero(t, status, errs)
	for range 3 {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				out, errs, status := run(t, "", "check", "-p", "corp", "--config", config, "-q", "--no-anonymous-probe")
				assert.Zero(t, status, out+errs)
			})
		}
		all.Wait()
		issuer.Revoke()
	}
	assert.Zero(t, issuer.Reuses())
}

// With --store keyring the file is sealed, and its key is in the keyring. Without a keyring
// that is an error, and no file.
func TestLoginInTheKeyring(t *testing.T) {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	config, state := loginConfig(t, issuer, "https://api.example.com", "browser")
	agreeingUser(t)
	keyring.MockInitWithError(errors.New("there is no keyring"))
	_, errs, status := run(t, "", "login", "corp", "--config", config, "--store", "keyring")
	assert.Equal(t, exitFailed, status)
	assert.Contains(t, errs, "there is no keyring")
	files, _ := filepath.Glob(filepath.Join(state, "reauth", "*"))
	assert.Empty(t, files)

	keyring.MockInit()
	out, errs, status := run(t, "", "login", "corp", "--config", config, "--store", "keyring")
	require.Zero(t, status, errs)
	sealed := filepath.Join(state, "reauth", "corp.json.sealed")
	assert.Contains(t, out, sealed)
	b, err := os.ReadFile(sealed)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(b), "reauth-sealed-1:"))
	token, _, status := run(t, "", "token", "-p", "corp", "--config", config)
	assert.Zero(t, status)
	assert.True(t, issuer.Valid(strings.TrimSpace(token)))
	assert.NoFileExists(t, strings.TrimSuffix(sealed, ".sealed"))
	agreeingUser(t)
	_, errs, status = run(t, "", "login", "corp", "--config", config, "--store", "file")
	require.Zero(t, status, errs)
	assert.NoFileExists(t, sealed)
	_, errs, status = run(t, "", "login", "corp", "--config", config, "--store", "keyring")
	require.Zero(t, status, errs)
	assert.NoFileExists(t, strings.TrimSuffix(sealed, ".sealed"), "it has the refresh token in plain text")
	keyring.MockInitWithError(errors.New("it is locked"))
	_, errs, status = run(t, "", "token", "-p", "corp", "--config", config)
	assert.Equal(t, exitFailed, status)
	assert.Contains(t, errs, "unlock it")
}

// On another device, with a code.
func TestLoginOnAnotherDevice(t *testing.T) {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	config, _ := loginConfig(t, issuer, "https://api.example.com", "device")
	r, w := io.Pipe()
	said := make(chan string, 1)
	go func() {
		b := make([]byte, 4<<10)
		n, _ := r.Read(b)
		said <- string(b[:n])
		for _, word := range strings.Fields(string(b[:n])) { // a user on a phone
			if strings.HasPrefix(word, "http") {
				code := regexp.MustCompile(`code (\S+)\.`).FindStringSubmatch(string(b[:n]))
				if resp, err := http.Get(word + "?user_code=" + code[1]); err == nil {
					_ = resp.Body.Close()
				}
			}
		}
		_, _ = io.Copy(io.Discard, r)
	}()
	var out strings.Builder
	status := Run(t.Context(), []string{"login", "corp", "--config", config, "--device"}, Streams{In: strings.NewReader(""), Out: &out, Err: w})
	_ = w.Close()
	assert.Contains(t, <-said, "enter the code")
	require.Zero(t, status, out.String())
	token, _, status := run(t, "", "token", "-p", "corp", "--config", config)
	assert.Zero(t, status)
	assert.True(t, issuer.Valid(strings.TrimSpace(token)))
}

// Logout revokes a login whose access token has expired too, and ends it here while the
// issuer is down.
func TestLogoutRevokes(t *testing.T) {
	issuer := reauthtest.NewIssuer()
	issuer.SetRotate(true)
	issuer.SetLifetime(time.Second)
	config, state := loginConfig(t, issuer, "https://api.example.com", "browser")
	agreeingUser(t)
	_, errs, status := run(t, "", "login", "corp", "--config", config)
	require.Zero(t, status, errs)
	record, err := os.ReadFile(filepath.Join(state, "reauth", "corp.json"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { // it expires
		_, _, status := run(t, "", "status", "corp", "--config", config)
		return status == exitLater
	}, 10*time.Second, 50*time.Millisecond)
	out, errs, status := run(t, "", "logout", "corp", "--config", config, "--json")
	require.Zero(t, status, errs)
	assert.Contains(t, out, `"revoked":true`)
	require.NoError(t, os.WriteFile(filepath.Join(state, "reauth", "corp.json"), record, 0o600))
	_, _, status = run(t, "", "token", "-p", "corp", "--config", config)
	assert.Equal(t, exitLogin, status, "the refresh token of a copy is revoked too")

	issuer.SetLifetime(time.Hour)
	_, errs, status = run(t, "", "login", "corp", "--config", config)
	require.Zero(t, status, errs)
	issuer.Close()
	_, errs, status = run(t, "", "token", "-p", "corp", "--config", config)
	assert.Zero(t, status, "a usable token needs no issuer: %s", errs)
	_, errs, status = run(t, "", "logout", "corp", "--config", config, "--lang", "en")
	assert.Zero(t, status)
	assert.Contains(t, errs, "may live on at the server")
	_, _, status = run(t, "", "token", "-p", "corp", "--config", config)
	assert.Equal(t, exitLogin, status)
}
