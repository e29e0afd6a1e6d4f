package cli

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The child's exit status, its environment, and the statuses of env(1).
func TestExec(t *testing.T) {
	u := newUpstream(t)
	source := []string{"exec", "--source", "file:" + u.file, "--to", u.URL + "/v1"}
	out, status := runProcess(t, append(source, "--env", "MY_URL={url}?k={key}", "--", "sh", "-c", `echo "$OPENAI_BASE_URL $ANTHROPIC_BASE_URL $MY_URL"; test "$OPENAI_API_KEY" = "$ANTHROPIC_API_KEY" && exit 7`)...)
	assert.Equal(t, 7, status, out)
	assert.Regexp(t, `^http://127\.0\.0\.1:\d+/v1 http://127\.0\.0\.1:\d+ http://127\.0\.0\.1:\d+/v1\?k=[A-Z2-7]+\n$`, out)
	assert.NotContains(t, out, "upstream-token")
	for want, args := range map[int][]string{127: {"--", "no-such-command-here"}, 126: {"--", t.TempDir()}, 143: {"--", "sh", "-c", "kill -TERM $$"}, 2: {"--env", "x", "--", "true"}, 0: {"--", "true"}} {
		out, status = runProcess(t, append(source, args...)...)
		assert.Equal(t, want, status, "%v: %s", args, out)
	}
	_, status = runProcess(t, "exec", "--", "true")
	assert.Equal(t, exitUsage, status, "without a source")
}

// Curl and Python, through the proxy, while tokens are revoked.
func TestExecForeignClients(t *testing.T) {
	for name, script := range map[string]string{
		"curl":    `for i in 1 2 3 4 5 6 7 8; do curl -sS -f -H "Authorization: Bearer $OPENAI_API_KEY" -d "n=$i" "$OPENAI_BASE_URL/chat" || exit 1; echo; done`,
		"python3": "exec python3 -c 'import os,urllib.request\nfor i in range(8):\n    r=urllib.request.Request(os.environ[\"OPENAI_BASE_URL\"]+\"/chat\",data=b\"n=%d\"%i,headers={\"Authorization\":\"Bearer \"+os.environ[\"OPENAI_API_KEY\"]})\n    print(urllib.request.urlopen(r).read().decode())\n'",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(name); err != nil {
				t.Skipf("%s is not installed", name)
			}
			u := newUpstream(t)
			var n atomic.Int64
			u.answers(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				_, _ = fmt.Fprintf(w, "got %s", body)
				if n.Add(1)%2 == 0 {
					u.rotate()
				}
			})
			out, status := runProcess(t, "exec", "--source", "file:"+u.file, "--to", u.URL+"/v1", "--", "sh", "-c", script)
			assert.Zero(t, status, out)
			assert.Equal(t, 8, strings.Count(out, "got n="), out)
		})
	}
}

// SIGTERM is passed on, SIGINT is the child's own; 125 if reauth itself fails.
func TestExecSignals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signals")
	}
	u := newUpstream(t)
	for name, tt := range map[string]struct {
		signal os.Signal
		script string
		want   int
	}{
		"SIGTERM": {syscall.SIGTERM, "trap 'kill $!; exit 9' TERM; sleep 60 & echo ready; wait", 9},
		"SIGINT":  {os.Interrupt, "echo ready; read line; exit 7", 7},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "exec", "--source", "file:"+u.file, "--to", u.URL, "--", "sh", "-c", tt.script)
			cmd.Env = append(os.Environ(), "REAUTH_TEST_MAIN=1")
			in, err := cmd.StdinPipe()
			require.NoError(t, err)
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			_, err = bufio.NewReader(out).ReadString('\n')
			require.NoError(t, err)
			require.NoError(t, cmd.Process.Signal(tt.signal))
			_, _ = io.WriteString(in, "go on\n") // an interrupt has not disturbed it
			_ = cmd.Wait()
			assert.Equal(t, tt.want, cmd.ProcessState.ExitCode())
		})
	}

	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", dir)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+filepath.Join(dir, "none")) // there is no keyring
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "reauth"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "reauth", "down.json.sealed"), nil, 0o600))
	config := filepath.Join(dir, "config.toml")
	require.NoError(t, os.WriteFile(config, []byte("[profile.down]\nurl = \"https://api.example.com\"\n[profile.down.oauth]\nissuer = \"http://127.0.0.1:1\"\nclient_id = \"x\"\ngrant = \"browser\"\n"), 0o600))
	out, status := runProcess(t, "exec", "-p", "down", "--config", config, "--", "true")
	assert.Equal(t, exitExecFailed, status, out)
}

// The child has neither the variable that the token is from nor a proxy before this one.
func TestExecEnvironment(t *testing.T) {
	u := newUpstream(t)
	t.Setenv("MY_SECRET", "upstream-token-1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	t.Setenv("NO_PROXY", "intranet.example.com")
	out, status := runProcess(t, "exec", "--source", "env:MY_SECRET", "--to", u.URL, "--", "sh", "-c", `echo "[$MY_SECRET] $NO_PROXY $no_proxy"`)
	assert.Zero(t, status, out)
	assert.Equal(t, "[] intranet.example.com,127.0.0.1,localhost,::1 127.0.0.1,localhost,::1\n", out)
}
