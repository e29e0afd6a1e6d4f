package refresher_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

func TestNoSourceLosesItsToken(t *testing.T) {
	for _, src := range localSources() {
		t.Run(src.name, func(t *testing.T) {
			tok, err := src.with(t, "key-1").Refresh(t.Context(), reauth.Stale{})
			require.NoError(t, err)
			assert.Equal(t, "key-1", tok.AccessToken)
			assert.Zero(t, tok.Expiry)
			assert.Empty(t, tok.RefreshToken)
		})
	}
}

// Whatever the source, what cannot stand in a header or is plainly no token
// is said to be so, without repeating it.
func TestNoSourcePassesOffAnythingAsAToken(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":            "",
		"blanks":             "   ",
		"an example":         "<your-api-key>",
		"an example's words": "your-api-key-here",
		"a variable":         "${" + strings.ToUpper(localMarker) + "}",
		"a template":         "{{ ." + localMarker + " }}",
		"a scheme":           "Bearer " + localMarker,
		"a blank inside":     localMarker + " " + localMarker,
		"a control":          localMarker + "\x01",
		"a line break":       localMarker + "\n" + localMarker,
		"not ASCII":          localMarker + "é",
		"quotes":             `"` + localMarker + `"`,
		"the placeholder":    reauth.Placeholder,
		"null":               "null",
		"too much":           strings.Repeat(localMarker, 64<<10/len(localMarker)) + "x",
	} {
		for _, src := range localSources() {
			t.Run(name+" in "+src.name, func(t *testing.T) {
				r := src.with(t, text)
				tok, err := r.Refresh(t.Context(), reauth.Stale{})
				require.Error(t, err)
				assert.Zero(t, tok)
				assert.Equal(t, src.permanent, reauth.IsPermanent(err), "permanent")
				if src.paced {
					assert.Equal(t, time.Millisecond, asksFor(err))
				}
				keepsSecret(t, localMarker, err)
				keepsSecret(t, strings.ToUpper(localMarker), err)
				keepsSecret(t, localMarker, r)
				assert.Less(t, len(err.Error()), 600)
			})
		}
	}
}

func TestNoSourceTellsItsToken(t *testing.T) {
	secret := "sk-" + localMarker
	for _, src := range localSources() {
		t.Run(src.name, func(t *testing.T) {
			r := src.with(t, secret)
			keepsSecret(t, localMarker, r)
			tok, err := r.Refresh(t.Context(), rejected(secret))
			require.Error(t, err, "it was rejected")
			assert.Zero(t, tok)
			assert.ErrorContains(t, err, "rejected")
			keepsSecret(t, localMarker, err)

			var log bytes.Buffer
			logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			cred := &reauth.Credential{Refresher: r, Logger: logger}
			api := &localAPI{accepts: func(string) bool { return false }}
			rt := &reauth.Transport{Base: api, Credential: cred, Logger: logger}
			status, o := localGet(t, rt)
			assert.Equal(t, http.StatusUnauthorized, status)
			assert.Equal(t, []string{secret}, api.sends(), "the same token is not sent twice")
			require.Error(t, o.Err)
			keepsSecret(t, localMarker, o)
			keepsSecret(t, localMarker, o.Err)
			keepsSecret(t, localMarker, cred)
			assert.Contains(t, log.String(), "refresh failed")
			assert.NotContains(t, log.String(), localMarker)
		})
	}
}

// The error of a token that cannot be refreshed names the Refreshers whose tokens can
// be.
func TestNoTokenThatCannotBeRefreshedIsAskedForAgain(t *testing.T) {
	for _, src := range localSources()[:2] {
		t.Run(src.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, asked := src.with(t, "key-1"), 0
				cred := &reauth.Credential{Logger: localDiscard, Refresher: r, OnRefresh: func(context.Context, reauth.RefreshInfo) { asked++ }}
				api := &localAPI{accepts: func(string) bool { return false }}
				rt := &reauth.Transport{Base: api, Credential: cred, Logger: localDiscard}
				for range 5 {
					status, o := localGet(t, rt)
					assert.Equal(t, http.StatusUnauthorized, status)
					for _, word := range []string{"rejected", "cannot be refreshed", "DotEnv", "File", "Exec"} {
						assert.ErrorContains(t, o.Err, word)
					}
					var failed *reauth.RefreshError
					require.ErrorAs(t, o.Err, &failed)
					assert.True(t, failed.Permanent())
					time.Sleep(time.Hour)
				}
				assert.Equal(t, 2, asked, "for the token and for another")
				assert.Len(t, api.sends(), 5, "one send for each request")
			})
		})
	}
}

// A JWT says by itself when its time is over.
func TestNoStaticJWTIsSentOnceItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := localJWT(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix()))
		api := &localAPI{accepts: func(string) bool { return true }}
		rt := through(refresher.Static(token), api)
		for range 59 { // ahead of expiry it is the same, which is no failure
			status, _ := localGet(t, rt)
			require.Equal(t, http.StatusOK, status)
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Minute)
		require.Len(t, api.sends(), 59)
		_, err := rt.Credential.Token(t.Context())
		assert.ErrorContains(t, err, "has expired and cannot be refreshed")
		var failed *reauth.RefreshError
		require.ErrorAs(t, err, &failed)
		assert.True(t, failed.Permanent())
	})
}

// The environment is that of a process, as a shell or an init system gives it.
func TestEnvironmentOfARealProcessIsNotMisread(t *testing.T) {
	run := func(env ...string) string {
		self := program("env", "LOCAL_TEST_KEY")
		cmd := exec.Command(self[0], self[1:]...)
		cmd.Env = env
		out, err := cmd.Output()
		require.NoError(t, err)
		return string(out)
	}
	assert.Equal(t, "key-1 <nil>", run("LOCAL_TEST_KEY=key-1"))
	assert.Equal(t, "a=b= <nil>", run("LOCAL_TEST_KEY=a=b="))

	unset := run("OTHER=1")
	assert.Contains(t, unset, "the environment variable LOCAL_TEST_KEY")
	assert.Contains(t, unset, "not set")
	assert.Contains(t, unset, "export")
	assert.Contains(t, run("LOCAL_TEST_KEY="), "the environment variable LOCAL_TEST_KEY: the access token is empty")
	assert.Equal(t, "key-1 <nil>", run("LOCAL_TEST_KEY= key-1\r\n"), "as what was pasted has it")
}

// The process itself can change its environment, and that is seen.
func TestNoChangeByTheProcessItselfIsOverlooked(t *testing.T) {
	t.Setenv("LOCAL_TEST_KEY", "key-1")
	now := &accepting{}
	now.Store("key-1")
	api := &localAPI{accepts: now.is}
	rt := through(refresher.Env("LOCAL_TEST_KEY"), api)
	status, _ := localGet(t, rt)
	require.Equal(t, http.StatusOK, status)

	t.Setenv("LOCAL_TEST_KEY", "key-2")
	now.Store("key-2")
	status, o := localGet(t, rt)
	assert.Equal(t, http.StatusOK, status)
	assert.True(t, o.Recovered())
	assert.Equal(t, []string{"key-1", "key-1", "key-2"}, api.sends())
}

// One Refresher may serve any number of Credentials at once.
func TestNoSourceMindsAHundredCallers(t *testing.T) {
	for _, src := range localSources() {
		if src.name == "Exec" { // see exec_unix_test.go: a hundred test binaries at once are no test of it
			continue
		}
		t.Run(src.name, func(t *testing.T) { aHundredCallers(t, src.with(t, "key-1")) })
	}
}

// aHundredCallers ask r, which has nothing but key-1, for a token at once, half of
// them in place of that.
func aHundredCallers(t *testing.T, r reauth.Refresher) {
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			<-begin
			stale := reauth.Stale{}
			if i%2 == 0 {
				stale = rejected("key-1")
				stale.Token.RefreshToken = fmt.Sprint("refresh-", i)
			}
			tok, err := r.Refresh(t.Context(), stale)
			if i%2 == 0 {
				assert.ErrorContains(t, err, "rejected")
				return
			}
			assert.NoError(t, err)
			assert.Equal(t, "key-1", tok.AccessToken)
		})
	}
	close(begin)
	wg.Wait()
}
