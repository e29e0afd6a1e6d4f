package main_test

import (
	"archive/zip"
	"fmt"
	"io"
	"io/fs"
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
	proxy := t.TempDir()
	for _, dir := range []string{".", "store/file", "store/storetest", "cmd/reauth"} {
		publish(t, root, dir, proxy)
	}
	bin := t.TempDir()
	env, err := exec.Command("go", "env", "GOPROXY", "GOMODCACHE").Output()
	require.NoError(t, err)
	upstream, cache, _ := strings.Cut(strings.TrimSpace(string(env)), "\n")
	// A module cache of its own, as go remembers what is in a version; what others have
	// downloaded is copied.
	proxies := strings.Join([]string{"file://" + proxy, "file://" + filepath.Join(cache, "cache", "download"), upstream}, ",")
	cmd := exec.Command("go", "install", "github.com/reauth-go/reauth/cmd/reauth@"+version)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-modcacherw", "GOBIN="+bin, "GOMODCACHE="+t.TempDir(), "GOPROXY="+proxies, "GONOSUMDB=github.com/reauth-go/*")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	out, err = exec.Command(filepath.Join(bin, "reauth"), "explain", "-q", "--lang", "en", "Error code: 401 - {'error': {'message': 'The token has expired'}}").CombinedOutput()
	exit, ok := err.(*exec.ExitError)
	require.True(t, ok, "%v %s", err, out)
	require.Equal(t, 10, exit.ExitCode())
	require.Contains(t, string(out), "The token has expired: a new token helps")
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
