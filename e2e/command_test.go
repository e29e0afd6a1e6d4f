package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// buildCommand builds the command, and returns where it is.
func buildCommand(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "reauth")
	build := exec.Command("go", "build", "-o", name, ".")
	build.Dir = "../cmd/reauth"
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	return name
}

// The command logs in with Chromium at fosite's authorization server. Then eight processes
// that run programs share the login, while access tokens are revoked: no request fails, and
// the issuer sees no refresh token twice.
func TestTheCommandLogsInWithABrowser(t *testing.T) {
	chromium := needs(t, "chromium", "chromium")
	curl := needs(t, "curl", "curl")
	dir := t.TempDir()
	reauth := buildCommand(t)
	as := newAuthServer(t, time.Hour)
	server := httptest.NewServer(as)
	t.Cleanup(server.Close)
	config := filepath.Join(dir, "config.toml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `[profile.corp]
url = %q
[profile.corp.oauth]
client_id = "cli"
grant = "browser"
scopes = ["offline", "read"]
authorization_endpoint = %q
token_endpoint = %q
`, server.URL+"/api", server.URL+"/authorize", server.URL+"/token"), 0o600))
	browser := filepath.Join(dir, "browser")
	page := filepath.Join(dir, "page.html")
	require.NoError(t, os.WriteFile(browser, fmt.Appendf(nil, "#!/bin/sh\nexec %s --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking --user-data-dir=%s --dump-dom \"$1\" >%s 2>/dev/null\n", chromium, filepath.Join(dir, "chromium"), page), 0o700))
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), reauth, args...)
		cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(dir, "state"), "BROWSER="+browser)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	said := run("login", "corp", "--config", config)
	assert.Contains(t, said, "Logged in")
	require.Eventually(t, func() bool {
		shown, _ := os.ReadFile(page)
		return strings.Contains(string(shown), "You may close this page.")
	}, time.Minute, 50*time.Millisecond)

	script := fmt.Sprintf(`end=$(($(date +%%s) + 20)); while [ $(date +%%s) -lt $end ]; do %s -sS -f -H "Api-Key: $OPENAI_API_KEY" "$OPENAI_BASE_URL/x" >/dev/null || exit 1; done; echo fine`, curl)
	const processes = 8
	done := make(chan string, processes)
	for range processes {
		go func() {
			cmd := exec.Command(reauth, "exec", "-p", "corp", "--config", config, "--", "sh", "-c", script)
			cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(dir, "state"))
			out, err := cmd.CombinedOutput()
			done <- fmt.Sprint(string(out), err)
		}()
	}
	revocations, every := 0, time.NewTicker(6*time.Second)
	defer every.Stop()
	for ended := 0; ended < processes; {
		select {
		case said := <-done:
			ended++
			assert.Equal(t, "fine\n<nil>", said)
		case <-every.C:
			as.revokeAccess(t, strings.TrimSpace(run("token", "-p", "corp", "--config", config)))
			revocations++
		}
	}
	assert.GreaterOrEqual(t, revocations, 2)
	assert.Zero(t, as.refused.Load(), "no refresh token came twice")
}

// The command logs in at zitadel's provider with a code, which the user enters elsewhere.
func TestTheCommandLogsInOnAnotherDevice(t *testing.T) {
	storage.RegisterClients(storage.DeviceClient("cli", "device-secret"))
	var provider http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { provider.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	users := storage.NewStorage(storage.NewUserStore(server.URL))
	provider = exampleop.SetupServer(server.URL, users, slog.New(slog.DiscardHandler), false)

	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `[profile.corp]
url = %q
[profile.corp.oauth]
issuer = %q
client_id = "cli"
client_secret_source = "env:DEVICE_SECRET"
grant = "device"
scopes = ["openid", "profile"]
`, server.URL+"/userinfo", server.URL), 0o600))
	reauth := buildCommand(t)
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), reauth, append(args, "--config", config)...)
		cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(dir, "state"), "DEVICE_SECRET=device-secret")
		return cmd
	}
	login := command("login", "corp", "--device", "--lang", "en")
	said, err := login.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, login.Start())
	line, err := bufio.NewReader(said).ReadString('\n')
	require.NoError(t, err)
	found := regexp.MustCompile(`^Open (\S+) and enter the code (\S+)\.`).FindStringSubmatch(line)
	require.NotNil(t, found, line)
	go func() { _, _ = io.Copy(io.Discard, said) }()

	resp, err := http.Get(found[1])
	require.NoError(t, err)
	page, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	_ = resp.Body.Close()
	require.Contains(t, string(page), "Device authorization", "where the user enters the code")
	require.NoError(t, users.CompleteDeviceAuthorization(t.Context(), found[2], "id1"), "the user agrees")
	require.NoError(t, login.Wait())
	out, err := command("check", "-p", "corp").CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "The token is good.")
}

// The examples are what Kubernetes and systemd take.
func TestTheCommandsExamples(t *testing.T) {
	text, err := os.ReadFile("../cmd/reauth/examples/sidecar.yaml")
	require.NoError(t, err)
	var pod corev1.Pod
	require.NoError(t, yaml.UnmarshalStrict(text, &pod))
	assert.Len(t, pod.Spec.Containers, 2)

	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze")
	}
	unit, err := os.ReadFile("../cmd/reauth/examples/reauth.service")
	require.NoError(t, err)
	dir := t.TempDir()
	name := filepath.Join(dir, "reauth.service")
	program, err := exec.LookPath("true") // stands for what go install installs
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, []byte(strings.Replace(string(unit), "%h/go/bin/reauth", program, 1)), 0o600))
	cmd := exec.Command(analyze, "verify", "--user", "--man=no", name)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}
