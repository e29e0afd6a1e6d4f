package main_test

import (
	"archive/zip"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// version is that which cmd/reauth/go.mod requires of the other modules.
const version = "v0.0.0"

// go install of the published modules works: from a GOPROXY that is made of this tree,
// where no replace and no go.work has a say.
func TestGoInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the command")
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	env := published(t, root, ".", "store/file", "store/storetest", "cmd/reauth")
	bin := t.TempDir()
	cmd := exec.Command("go", "install", "github.com/reauth-go/reauth/cmd/reauth@"+version)
	cmd.Dir, cmd.Env = t.TempDir(), append(env, "GOBIN="+bin)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	out, err = exec.Command(filepath.Join(bin, "reauth"), "explain", "-q", "--lang", "en", "Error code: 401 - {'error': {'message': 'The token has expired'}}").CombinedOutput()
	exit, ok := err.(*exec.ExitError)
	require.True(t, ok, "%v %s", err, out)
	require.Equal(t, 10, exit.ExitCode())
	require.Contains(t, string(out), "The token has expired: a new token helps")
}

// A new user has the README and an empty directory: its commands and its program work, and
// the program does not see a 401.
func TestGoGet(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a program")
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	require.Contains(t, string(readme), "\n    go get github.com/reauth-go/reauth github.com/reauth-go/reauth/refresher\n")
	require.Contains(t, string(readme), "\n    go run github.com/reauth-go/reauth/examples/quickstart@latest\n")
	_, program, _ := strings.Cut(string(readme), "```go\npackage main")
	program, _, ok := strings.Cut("package main"+program, "```")
	require.True(t, ok)

	dir := t.TempDir()
	dotenv := filepath.Join(dir, ".env")
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	var sent []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.Header.Get("Authorization"))
		if r.Header.Get("Authorization") != "Bearer new-key" {
			_ = os.WriteFile(dotenv, []byte("OPENAI_API_KEY=new-key\n"), 0o600) // the key is rotated
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":{"message":"Invalid token"}}`)
		}
	}))
	defer server.Close()
	write(".env", "OPENAI_API_KEY=old-key\n")
	write("main.go", strings.ReplaceAll(program, "https://api.example.com", server.URL))

	env := published(t, root, ".")
	for _, args := range [][]string{
		{"mod", "init", "example.com/program"},
		{"get", "github.com/reauth-go/reauth", "github.com/reauth-go/reauth/refresher"},
		{"run", "."},
		{"run", "github.com/reauth-go/reauth/examples/quickstart@latest"},
	} {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "go %v: %s", args, out)
		switch args[1] {
		case ".":
			require.Contains(t, string(out), "reauth: token rejected, retry succeeded")
			require.Contains(t, string(out), "200 OK")
		case "github.com/reauth-go/reauth/examples/quickstart@latest":
			require.Contains(t, string(out), "Everything went as it should.")
		}
	}
	require.Equal(t, []string{"Bearer old-key", "Bearer new-key"}, sent)
}

// published returns the environment for go with a GOPROXY that has the modules of the tree.
func published(t *testing.T, root string, dirs ...string) []string {
	t.Helper()
	proxy := t.TempDir()
	for _, dir := range dirs {
		publish(t, root, dir, proxy)
	}
	env, err := exec.Command("go", "env", "GOPROXY", "GOMODCACHE").Output()
	require.NoError(t, err)
	upstream, cache, _ := strings.Cut(strings.TrimSpace(string(env)), "\n")
	// A module cache of its own, as go remembers what is in a version; what others have
	// downloaded is copied.
	proxies := strings.Join([]string{"file://" + proxy, "file://" + filepath.Join(cache, "cache", "download"), upstream}, ",")
	return append(os.Environ(), "GOWORK=off", "GOFLAGS=-modcacherw", "GOMODCACHE="+t.TempDir(), "GOPROXY="+proxies, "GONOSUMDB=github.com/reauth-go/*")
}

// publish puts the module in a directory of the tree into the proxy (go.dev/ref/mod).
func publish(t *testing.T, root, dir, proxy string) {
	t.Helper()
	module := "github.com/reauth-go/reauth"
	if dir != "." {
		module += "/" + dir
	}
	at := filepath.Join(proxy, filepath.FromSlash(module), "@v")
	require.NoError(t, os.MkdirAll(at, 0o755))
	mod, err := os.ReadFile(filepath.Join(root, dir, "go.mod"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(at, version+".mod"), mod, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(at, version+".info"), fmt.Appendf(nil, `{"Version":%q,"Time":"2026-01-01T00:00:00Z"}`, version), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(at, "list"), []byte(version+"\n"), 0o644))
	f, err := os.Create(filepath.Join(at, version+".zip"))
	require.NoError(t, err)
	w := zip.NewWriter(f)
	top := filepath.Join(root, dir)
	require.NoError(t, filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if path != top && (err == nil || d.Name() == ".git" || d.Name() == "dist") {
				return fs.SkipDir // another module's
			}
			return nil
		}
		name, err := filepath.Rel(top, path)
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		part, err := w.Create(module + "@" + version + "/" + filepath.ToSlash(name))
		if err != nil {
			return err
		}
		from, err := os.Open(path)
		if err != nil {
			return err
		}
		defer from.Close()
		_, err = io.Copy(part, from)
		return err
	}))
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
}
