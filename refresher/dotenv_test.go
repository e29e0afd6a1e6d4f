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

// Whenever a key is rotated, the next request has it.
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
				time.Sleep(5 * time.Millisecond)
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

// A file that is not rotated is looked at by each request, and not ever more rarely.
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
				assert.Equal(t, 300, asked)
			})
		})
	}
}

func TestNoWayToWriteAKeyIsMisread(t *testing.T) {
	t.Setenv("KEY", "of-the-environment")
	t.Setenv("REAUTH_TEST_KEY", "key-1")
	for name, content := range map[string]string{
		"plain":                 "KEY=key-1",
		"a line":                "KEY=key-1\n",
		"CRLF":                  "OTHER=1\r\nKEY=key-1\r\n",
		"export":                "export KEY=key-1\n",
		"double quotes":         `KEY="key-1"`,
		"single quotes":         `KEY='key-1'`,
		"blanks":                "KEY = key-1  \n",
		"a comment":             "# the key\nKEY=key-1 # of today\n",
		"a byte order mark":     "\xef\xbb\xbfKEY=key-1\n",
		"twice, last counts":    "KEY=key-0\nKEY=key-1\n",
		"empty lines":           "\n\n\nKEY=key-1\n\n",
		"a bad line before":     "this is no line\nKEY=key-1\n",
		"a bad line after":      "KEY=key-1\nset -a; x\n",
		"an open quote":         "OTHER=\"open\nKEY=key-1\n",
		"lines in quotes":       "OTHER=\"first\nKEY=key-0\nlast\"\nKEY=key-1\n",
		"another's dollar":      "OTHER=${NOT_THERE_AT_ALL}\nKEY=key-1\n",
		"a dollar in a comment": "KEY=key-1 # ${NOT_THERE_AT_ALL}\n",
		"of the file":           "BASE=key\nKEY=${BASE}-1\n",
		"of the file, quoted":   "BASE='key'\nKEY=\"$BASE-1\"\n",
		"of the process":        "KEY=${REAUTH_TEST_KEY}\n",
		"of the file first":     "REAUTH_TEST_KEY=key-1\nKEY=${REAUTH_TEST_KEY}\nREAUTH_TEST_KEY=key-0\n",
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
	tok, err = refresher.DotEnv(localFile(t, ".env", "BASE='a\"b\\$C'\nKEY=${BASE}\n"), "KEY").Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, `a"b\$C`, tok.AccessToken, "what is referred to is not expanded again")
}

// What is wrong is said with the file's name, and without its lines, though
// godotenv's own error repeats them.
func TestNoLineOfADotEnvFileIsRepeatedInAnError(t *testing.T) {
	for name, c := range map[string]struct{ content, says string }{
		"no quote at the end":   {`KEY="` + localMarker, "not NAME=value"},
		"no equals sign":        {"OTHER=1\n" + localMarker + "!\n", "it has no KEY, and line 2 is not NAME=value"},
		"a shell's command":     {"set -a; " + localMarker + "\n", "not NAME=value"},
		"JSON":                  {`{"KEY":"` + localMarker + `"}`, "not NAME=value"},
		"another name":          {"SECRET=" + localMarker, "it has no KEY"},
		"no value":              {"SECRET=" + localMarker + "\nKEY=\n", "KEY: the access token is empty"},
		"a placeholder":         {"SECRET=" + localMarker + "\nKEY=<" + localMarker + ">\n", "KEY: the access token is the placeholder of an example"},
		"refers to nothing":     {"SECRET=" + localMarker + "\nKEY=${NOT_THERE_AT_ALL}\n", "KEY: it refers to ${NOT_THERE_AT_ALL}"},
		"refers to such a one":  {"BASE=${NOT_THERE_AT_ALL}\nKEY=${BASE}-" + localMarker + "\n", "KEY: it refers to ${NOT_THERE_AT_ALL}"},
		"UTF-16":                {"\xff\xfeK\x00E\x00Y\x00=\x001\x00", "UTF-16"},
		"UTF-16 without a mark": {"K\x00E\x00Y\x00=\x001\x00", "UTF-16"},
		"unexpanded":            {"SECRET=" + localMarker + "\nKEY='${SECRET}'\n", "KEY: the access token is a variable"},
	} {
		t.Run(name, func(t *testing.T) {
			path := localFile(t, ".env", c.content)
			_, err := refresher.DotEnv(path, "KEY").Refresh(t.Context(), reauth.Stale{})
			require.Error(t, err)
			assert.ErrorContains(t, err, path)
			assert.ErrorContains(t, err, c.says)
			assert.Equal(t, time.Millisecond, asksFor(err))
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
