package e2e_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The command logs in with Chromium at fosite's authorization server. Then the programs that
// it runs share the login, while access tokens are revoked, and the issuer sees no refresh
// token twice.
func TestTheCommandLogsInWithABrowser(t *testing.T) {
	chromium := needs(t, "chromium", "chromium")
	curl := needs(t, "curl", "curl")
	dir := t.TempDir()
	reauth := filepath.Join(dir, "reauth")
	build := exec.Command("go", "build", "-o", reauth, ".")
	build.Dir = "../cmd/reauth"
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))

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

	script := fmt.Sprintf(`for i in 1 2 3 4 5; do %s -sS -f -H "Api-Key: $OPENAI_API_KEY" "$OPENAI_BASE_URL/x" >/dev/null || exit 1; done; echo fine`, curl)
	for range 3 {
		done := make(chan string, 4)
		for range 4 {
			go func() {
				cmd := exec.Command(reauth, "exec", "-p", "corp", "--config", config, "--", "sh", "-c", script)
				cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(dir, "state"))
				out, err := cmd.CombinedOutput()
				done <- fmt.Sprint(string(out), err)
			}()
		}
		for range 4 {
			assert.Equal(t, "fine\n<nil>", <-done)
		}
		as.revokeAccess(t, strings.TrimSpace(run("token", "-p", "corp", "--config", config)))
	}
	assert.Zero(t, as.refused.Load(), "no refresh token came twice")
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
