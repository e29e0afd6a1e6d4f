package refresher_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// Whenever a key is rotated, the first request after a second has it.
func TestNoRotatedKeyIsOverlooked(t *testing.T) {
	for name, delay := range map[string]time.Duration{
		"before the rejection":  0,
		"just after it":         time.Millisecond,
		"within the second":     900 * time.Millisecond,
		"after many rejections": time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			path := localFile(t, ".env", "KEY=key-1\n")
			synctest.Test(t, func(t *testing.T) {
				now := &accepting{}
				now.Store("key-1")
				api := &localAPI{accepts: now.is}
				rt := through(refresher.DotEnv(path, "KEY"), api)
				status, _ := localGet(t, rt)
				require.Equal(t, http.StatusOK, status)

				now.Store("key-2")
				for began := time.Now(); time.Since(began) < delay; time.Sleep(100 * time.Millisecond) {
					status, o := localGet(t, rt)
					require.Equal(t, http.StatusUnauthorized, status)
					require.ErrorContains(t, o.Err, "it still has the token that was rejected")
				}
				overwrite(t, path, "KEY=key-2\n")
				if delay > 0 {
					time.Sleep(time.Second)
				}
				status, o := localGet(t, rt)
				assert.Equal(t, http.StatusOK, status)
				assert.True(t, o.Recovered())
				status, o = localGet(t, rt)
				assert.Equal(t, http.StatusOK, status)
				assert.Zero(t, o, "no other rejection")
			})
		})
	}
}

// A file that is not rotated is looked at once a second, and not ever more rarely.
func TestNoPauseGrowsForAFileThatHasNoNewKeyYet(t *testing.T) {
	for name, content := range map[string]string{"the rejected key": "KEY=key-1\n", "no key": "OTHER=1\n", "nothing": "", "no file": "-"} {
		t.Run(name, func(t *testing.T) {
			path := localFile(t, ".env", content)
			if content == "-" {
				require.NoError(t, os.Remove(path))
			}
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				cred := &reauth.Credential{
					Refresher: refresher.DotEnv(path, "KEY"),
					Logger:    localDiscard,
					OnRefresh: func(context.Context, reauth.RefreshInfo) { asked++ },
				}
				require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "key-1"}))
				rt := &reauth.Transport{Base: &localAPI{accepts: func(string) bool { return false }}, Credential: cred, Logger: localDiscard}
				for n := range 300 { // half a minute
					status, o := localGet(t, rt)
					require.Equal(t, http.StatusUnauthorized, status)
					var failed *reauth.RefreshError
					require.ErrorAs(t, o.Err, &failed)
					require.False(t, failed.Permanent())
					require.LessOrEqual(t, time.Until(failed.RetryAt), time.Second, "request %d", n)
					time.Sleep(100 * time.Millisecond)
				}
				assert.InDelta(t, 30, asked, 1)
			})
		})
	}
}

func TestNoWayToWriteAKeyIsMisread(t *testing.T) {
	t.Setenv("KEY", "of-the-environment")
	for name, content := range map[string]string{
		"plain":              "KEY=key-1",
		"a line":             "KEY=key-1\n",
		"CRLF":               "OTHER=1\r\nKEY=key-1\r\n",
		"export":             "export KEY=key-1\n",
		"double quotes":      `KEY="key-1"`,
		"single quotes":      `KEY='key-1'`,
		"blanks":             "KEY = key-1  \n",
		"a comment":          "# the key\nKEY=key-1 # of today\n",
		"a byte order mark":  "\xef\xbb\xbfKEY=key-1\n",
		"twice, last counts": "KEY=key-0\nKEY=key-1\n",
		"empty lines":        "\n\n\nKEY=key-1\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			tok, err := refresher.DotEnv(localFile(t, ".env", content), "KEY").Refresh(t.Context(), reauth.Stale{})
			require.NoError(t, err)
			assert.Equal(t, "key-1", tok.AccessToken)
		})
	}
	tok, err := refresher.DotEnv(localFile(t, ".env", `KEY='a$B$(c)'`), "KEY").Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, "a$B$(c)", tok.AccessToken, "single quotes keep a dollar sign")
}

// What is wrong is said with the file's name, and without its lines, though
// godotenv's own error repeats them.
func TestNoLineOfADotEnvFileIsRepeatedInAnError(t *testing.T) {
	for name, c := range map[string]struct{ content, says string }{
		"no quote at the end": {`KEY="` + localMarker, "not NAME=value"},
		"no equals sign":      {localMarker + "!\nKEY=1\n", "not NAME=value"},
		"a shell's command":   {"set -a; " + localMarker + "\n", "not NAME=value"},
		"JSON":                {`{"KEY":"` + localMarker + `"}`, "not NAME=value"},
		"another name":        {"SECRET=" + localMarker, "it has no KEY"},
		"no value":            {"SECRET=" + localMarker + "\nKEY=\n", "KEY: the access token is empty"},
		"a placeholder":       {"SECRET=" + localMarker + "\nKEY=<" + localMarker + ">\n", "KEY: the access token is the placeholder of an example"},
		"unexpanded":          {"SECRET=" + localMarker + "\nKEY='${SECRET}'\n", "KEY: the access token is a variable"},
	} {
		t.Run(name, func(t *testing.T) {
			path := localFile(t, ".env", c.content)
			_, err := refresher.DotEnv(path, "KEY").Refresh(t.Context(), reauth.Stale{})
			require.Error(t, err)
			assert.ErrorContains(t, err, path)
			assert.ErrorContains(t, err, c.says)
			assert.Equal(t, time.Second, asksFor(err))
			assert.False(t, reauth.IsPermanent(err))
			keepsSecret(t, localMarker, err)
		})
	}
}

// The file may come later than the process.
func TestNoMissingFileIsForEver(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".env")
	synctest.Test(t, func(t *testing.T) {
		cred := &reauth.Credential{Refresher: refresher.DotEnv(path, "KEY"), Logger: localDiscard}
		_, err := cred.Token(t.Context())
		require.ErrorContains(t, err, path)
		require.True(t, errors.Is(err, fs.ErrNotExist))

		overwrite(t, path, "KEY=key-1\n")
		time.Sleep(time.Second)
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "key-1", tok.AccessToken)
	})
}
