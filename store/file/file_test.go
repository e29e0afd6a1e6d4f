package file_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/store/file"
	"github.com/reauth-go/reauth/store/storetest"
)

// The test's own binary is also the process that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("FILE_TEST_SWAP"); path != "" {
		swapForEver(path)
	}
	os.Exit(m.Run())
}

// swapForEver counts in the record, and says how far it has come.
func swapForEver(path string) {
	s, old := file.Open(path), ""
	for n := 1; ; n++ {
		next := strings.Repeat(strconv.Itoa(n)+" ", 2000)
		swapped, err := s.CompareAndSwap(context.Background(), old, next)
		if err != nil || !swapped {
			fmt.Println("failed", swapped, err)
			os.Exit(1)
		}
		fmt.Println(n)
		old = next
	}
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() reauth.Store {
		path := filepath.Join(t.TempDir(), "state", "login.json")
		return func() reauth.Store { return file.Open(path) }
	})
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no modes")
	}
	dir := filepath.Join(t.TempDir(), "made", "here")
	path := filepath.Join(dir, "login.json")
	s := file.Open(path)
	swapped, err := s.CompareAndSwap(t.Context(), "", "one")
	require.NoError(t, err)
	require.True(t, swapped)
	for name, want := range map[string]os.FileMode{path: 0o600, path + ".lock": 0o600, dir: 0o700, filepath.Dir(dir): 0o700} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode().Perm(), name)
	}
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = s.CompareAndSwap(t.Context(), "one", "two")
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "whatever it was")
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, files, 2, "no temporary file remains")
}

func TestSymbolicLinkIsFollowed(t *testing.T) {
	dir := t.TempDir()
	link, path := filepath.Join(dir, "link.json"), filepath.Join(dir, "elsewhere", "login.json")
	require.NoError(t, os.Symlink(filepath.Join("elsewhere", "login.json"), link))
	s := file.Open(link)
	swapped, err := s.CompareAndSwap(t.Context(), "", "one")
	require.NoError(t, err)
	require.True(t, swapped)
	record, err := file.Open(path).Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "one", record)
	to, err := os.Readlink(link)
	require.NoError(t, err)
	assert.Equal(t, filepath.Join("elsewhere", "login.json"), to, "it is a link still")

	require.NoError(t, os.Symlink("a", filepath.Join(dir, "b")))
	require.NoError(t, os.Symlink("b", filepath.Join(dir, "a")))
	_, err = file.Open(filepath.Join(dir, "a")).CompareAndSwap(t.Context(), "", "x")
	assert.ErrorContains(t, err, "too many links")
}

// Where nothing can be written, the error names the file, and nothing was changed.
func TestErrorsNameTheFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	path := filepath.Join(dir, "file", "login.json") // its directory is a file
	_, err := file.Open(path).CompareAndSwap(t.Context(), "", "secret")
	require.ErrorContains(t, err, filepath.Join(dir, "file"))
	assert.NotContains(t, err.Error(), "secret")
	_, err = file.Open(dir).Load(t.Context())
	assert.ErrorContains(t, err, dir)
}

// A full disk is one of 64 KiB; a mount may be read-only, or be of the file alone.
func TestMounts(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("mounts need root on Linux")
	}
	mount := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
			t.Skipf("this machine does not mount: %s", out)
		}
		t.Cleanup(func() { _ = exec.Command("umount", args[len(args)-1]).Run() })
	}
	swap := func(path, old, new string) error {
		_, err := file.Open(path).CompareAndSwap(t.Context(), old, new)
		return err
	}

	full := t.TempDir()
	mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", full)
	path := filepath.Join(full, "login.json")
	require.NoError(t, swap(path, "", "one"))
	assert.ErrorContains(t, swap(path, "one", strings.Repeat("x", 128<<10)), "no space left")
	record, err := file.Open(path).Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "one", record)
	mount("-o", "remount,ro", full)
	assert.ErrorContains(t, swap(path, "one", "two"), "read-only file system")

	dir := t.TempDir()
	outside, alone := filepath.Join(dir, "outside"), filepath.Join(dir, "alone")
	require.NoError(t, os.WriteFile(outside, []byte("one"), 0o600))
	require.NoError(t, os.WriteFile(alone, nil, 0o600))
	mount("--bind", outside, alone)
	assert.ErrorContains(t, swap(alone, "one", "two"), "mount its directory")
}

// A process that is killed in the middle of a swap leaves the old record or the new one.
func TestKilledInASwap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "login.json")
	for range 30 {
		require.NoError(t, os.RemoveAll(path))
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "FILE_TEST_SWAP="+path)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines, said := bufio.NewScanner(out), 0
		for said < 20 && lines.Scan() {
			said, err = strconv.Atoi(lines.Text())
			require.NoError(t, err, lines.Text())
		}
		require.NoError(t, cmd.Process.Kill())
		for lines.Scan() {
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				said = n
			}
		}
		_ = cmd.Wait()
		record, err := file.Open(path).Load(t.Context())
		require.NoError(t, err)
		first, _, _ := strings.Cut(record, " ")
		n, err := strconv.Atoi(first)
		require.NoError(t, err)
		assert.Equal(t, strings.Repeat(first+" ", 2000), record, "whole")
		assert.Contains(t, []int{said, said + 1}, n)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		swapped, err := file.Open(path).CompareAndSwap(ctx, record, "next")
		cancel()
		require.NoError(t, err, "the lock of a dead process is none")
		assert.True(t, swapped)
	}
}

func TestPath(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("of Unix")
	}
	t.Setenv("HOME", "/home/ann")
	t.Setenv("XDG_STATE_HOME", "")
	path, err := file.Path("tool", "work")
	require.NoError(t, err)
	assert.Equal(t, "/home/ann/.local/state/tool/work.json", path)
	t.Setenv("XDG_STATE_HOME", "/state")
	path, err = file.Path("tool", "work")
	require.NoError(t, err)
	assert.Equal(t, "/state/tool/work.json", path)
}

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, file.Open(filepath.Join(b.TempDir(), "login.json")))
}
