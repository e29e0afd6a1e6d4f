package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A configuration that others may write is refused; a mistake names what is right.
func TestConfig(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "config.toml")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		require.NoError(t, os.Chmod(name, mode))
	}
	token := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("the-token"), 0o600))
	good := fmt.Sprintf("[profile.gateway]\nurl = \"https://api.example.com\"\nsource = \"file:%s\"\n", token)
	for _, tt := range []struct {
		text string
		mode os.FileMode
		args []string
		want string
	}{
		{good, 0o622, nil, "may be written by others"},
		{strings.Replace(good, "url", "ulr", 1), 0o600, nil, "did you mean url?"},
		{strings.Replace(good, "file:", "fil:", 1), 0o600, nil, "did you mean file?"},
		{strings.Replace(good, "https", "http", 1), 0o600, nil, "over https only"},
		{good, 0o600, []string{"-p", "gatewya"}, `no profile "gatewya": did you mean gateway?`},
		{good + "[profile.gateway.oauth]\n", 0o600, nil, "both a source and an oauth"},
		{"[profile.gateway]\nurl = \"https://x.example.com\"\n", 0o600, nil, "neither a source"},
		{"[profile.gateway]\nsource = \"env:X\"\n", 0o600, nil, "no url"},
		{"nonsense", 0o600, nil, "config.toml"},
		{strings.Replace(good, "source", "origins = [\"http://files.example.com\"]\nsource", 1), 0o600, nil, "over https only"},
		{strings.Replace(good, "source", "origins = [\"files.example.com\"]\nsource", 1), 0o600, nil, "no URL"},
		{strings.Replace(good, "file:"+token, "env:NOT_SET_ANYWHERE", 1), 0o600, nil, "NOT_SET_ANYWHERE: it is not set"},
	} {
		write(tt.text, tt.mode)
		args := append([]string{"token", "--config", name}, tt.args...)
		if tt.args == nil {
			args = append(args, "-p", "gateway")
		}
		_, errs, status := run(t, "", args...)
		assert.Equal(t, exitUsage, status, tt.text)
		assert.Contains(t, errs, tt.want)
		assert.NotContains(t, errs, "the-token")
	}
	env := filepath.Join(dir, ".env")
	require.NoError(t, os.WriteFile(env, []byte("OPENAI_KEY=secret-of-another\n"), 0o600))
	_, errs, status := run(t, "", "token", "--lang", "en", "--source", "dotenv:"+env+"#OPENAI_API_KEY")
	assert.Equal(t, exitLater, status)
	assert.Equal(t, "reauth: there is no token now: try again later: file "+env+": it has no OPENAI_API_KEY\n", errs)

	write(good, 0o600)
	out, _, status := run(t, "", "token", "--config", name, "-p", "gateway")
	assert.Zero(t, status)
	assert.Equal(t, "the-token\n", out)
	out, _, _ = run(t, "", "token", "--config", name, "-p", "gateway", "-o", "kubernetes")
	var cred map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &cred))
	assert.Equal(t, "ExecCredential", cred["kind"])
	_, _, status = run(t, "", "token", "--config", name, "-p", "gateway", "--renew")
	assert.Equal(t, exitLater, status, "the file has no other")
	_, errs, status = run(t, "", "token", "--config", filepath.Join(dir, "none.toml"), "-p", "x")
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, errs, "there is no configuration")
	require.NoError(t, os.Chmod(dir, 0o777))
	_, errs, status = run(t, "", "token", "--config", name, "-p", "gateway")
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, errs, "may be replaced by others")
	require.NoError(t, os.Chmod(dir, 0o700))
	if os.Getuid() == 0 && runtime.GOOS != "windows" {
		require.NoError(t, os.Chown(name, 65534, 65534))
		_, errs, status = run(t, "", "token", "--config", name, "-p", "gateway")
		assert.Equal(t, exitUsage, status)
		assert.Contains(t, errs, "may be written by others")
	}
}
