package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// git asks for a password, and is given the token for the profile's server only.
func TestTokenForGit(t *testing.T) {
	dir := t.TempDir()
	config, token := filepath.Join(dir, "config.toml"), filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("git-token"), 0o600))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "[profile.work]\nurl = \"https://git.example.com\"\nsource = \"file:%s\"\n", token), 0o600))
	helper := func(in string, args ...string) (string, int) {
		out, errs, status := run(t, in, append([]string{"token", "-p", "work", "--config", config, "-o", "git"}, args...)...)
		assert.NotContains(t, errs, "git-token")
		return out, status
	}
	out, status := helper("protocol=https\nhost=git.example.com\n\n", "get")
	assert.Zero(t, status)
	assert.Equal(t, "username=x-access-token\npassword=git-token\n", out)
	for _, in := range []string{"protocol=http\nhost=git.example.com\n", "protocol=https\nhost=git.example.com.evil.example\n", ""} {
		out, status = helper(in, "get")
		assert.Zero(t, status, in)
		assert.Empty(t, out, in)
	}
	out, status = helper("protocol=https\nhost=git.example.com\npassword=git-token\n", "store")
	assert.Zero(t, status)
	assert.Empty(t, out)
	_, status = helper("protocol=https\nhost=git.example.com\npassword=git-token\n", "erase")
	assert.Equal(t, exitLater, status, "the file has no other token")
	_, status = helper("")
	assert.Equal(t, exitUsage, status)
}
