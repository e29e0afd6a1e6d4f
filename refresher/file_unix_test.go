//go:build unix

package refresher_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// Who may write a token file decides whose requests these are.
func TestNoFileThatOthersMayWriteIsBelieved(t *testing.T) {
	for mode, good := range map[fs.FileMode]bool{
		0o400: true, 0o600: true, 0o640: true, 0o644: true, 0o440: true, 0o660: true, 0o664: true, 0o755: true,
		0o666: false, 0o602: false, 0o622: false, 0o777: false, 0o646: false,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			path := localFile(t, "token", `{"token":"`+localMarker+`"}`)
			require.NoError(t, os.Chmod(path, mode))
			for name, r := range map[string]reauth.Refresher{"File": refresher.File(path), "JSONFile": refresher.JSONFile(path, "/token")} {
				tok, err := r.Refresh(t.Context(), reauth.Stale{})
				if good {
					require.NoError(t, err, name)
					assert.Equal(t, localMarker, tok.AccessToken)
					continue
				}
				require.ErrorContains(t, err, "all users may write it (mode 0", name)
				assert.ErrorContains(t, err, path)
				assert.ErrorContains(t, err, "chmod o-w")
				assert.Equal(t, time.Millisecond, asksFor(err), "it may be put right")
				assert.Zero(t, tok)
				keepsSecret(t, localMarker, err)
			}
		})
	}
}

func TestDotEnvThatOthersMayWriteIsNotBelieved(t *testing.T) {
	path := localFile(t, ".env", "KEY=key-1\n")
	require.NoError(t, os.Chmod(path, 0o777)) // as all files on a mount of WSL or SMB
	_, err := refresher.DotEnv(path, "KEY").Refresh(t.Context(), reauth.Stale{})
	require.ErrorContains(t, err, "all users may write it")
	assert.ErrorContains(t, err, "umask=022")
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = refresher.DotEnv(path, "KEY").Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
}

// A link has the mode 0777 and means nothing by it: the file's counts.
func TestNoLinksOwnModeCounts(t *testing.T) {
	path := localFile(t, "token", "key-1")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(path, link))
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&fs.ModeSymlink)
	tok, err := refresher.File(link).Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, "key-1", tok.AccessToken)

	require.NoError(t, os.Chmod(path, 0o666))
	_, err = refresher.File(link).Refresh(t.Context(), reauth.Stale{})
	assert.ErrorContains(t, err, "all users may write it")

	require.NoError(t, os.Remove(path))
	_, err = refresher.File(link).Refresh(t.Context(), reauth.Stale{})
	assert.ErrorIs(t, err, fs.ErrNotExist)
	assert.ErrorContains(t, err, link)
}

func TestNothingButARegularFileIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	toFifo := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(fifo, toFifo))
	loop := filepath.Join(dir, "loop")
	require.NoError(t, os.Symlink(loop, loop))
	for name, c := range map[string]struct{ path, says string }{
		"a pipe":            {fifo, "not a regular file"},
		"a link to a pipe":  {toFifo, "not a regular file"},
		"a directory":       {dir, "not a regular file"},
		"a device":          {"/dev/zero", "not a regular file"},
		"a link to itself":  {loop, "too many levels"},
		"under a file":      {filepath.Join(localFile(t, "file", "x"), "token"), "not a directory"},
		"nothing":           {"", "no such file"},
		"a NUL in its name": {"a\x00b", "invalid argument"},
	} {
		t.Run(name, func(t *testing.T) {
			all := []reauth.Refresher{refresher.File(c.path), refresher.JSONFile(c.path, "/a")}
			if !strings.Contains(name, "pipe") { // which a DotEnv reads
				all = append(all, refresher.DotEnv(c.path, "KEY"))
			}
			for _, r := range all {
				localWithin(t, time.Minute, func() {
					_, err := r.Refresh(t.Context(), reauth.Stale{})
					if assert.ErrorContains(t, err, c.says) {
						assert.ErrorContains(t, err, c.path)
						assert.Equal(t, time.Millisecond, asksFor(err))
					}
				})
			}
		})
	}
}

// Another process rotates the file: by a rename, as mv does it.
func TestNoRenameByAnotherProcessIsOverlooked(t *testing.T) {
	path := localFile(t, "token", "key-1\n")
	next := path + ".next"
	now := &accepting{}
	now.Store("key-1")
	rt := through(refresher.File(path), &localAPI{accepts: now.is})
	status, _ := localGet(t, rt)
	require.Equal(t, http.StatusOK, status)

	overwrite(t, next, "key-2\n")
	out, err := exec.Command("mv", "-f", next, path).CombinedOutput()
	require.NoError(t, err, string(out))
	now.Store("key-2")
	status, o := localGet(t, rt)
	assert.Equal(t, http.StatusOK, status)
	assert.True(t, o.Recovered())
}

// A kubelet writes a new directory, and swaps the link ..data to it; the token is
// a link into ..data. So does cert-manager's CSI driver.
func TestNoSwapOfAProjectedVolumeIsOverlooked(t *testing.T) {
	volume := t.TempDir()
	project := func(version, token string) {
		dir := filepath.Join(volume, "..2026_"+version)
		require.NoError(t, os.Mkdir(dir, 0o755))
		file := filepath.Join(dir, "token")
		require.NoError(t, os.WriteFile(file, []byte(token), 0o644))
		require.NoError(t, os.Chmod(file, 0o644))
		require.NoError(t, os.Symlink(filepath.Base(dir), filepath.Join(volume, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
	}
	project("1", "key-1")
	token := filepath.Join(volume, "token")
	require.NoError(t, os.Symlink(filepath.Join("..data", "token"), token))

	synctest.Test(t, func(t *testing.T) {
		now := &accepting{}
		now.Store("key-1")
		rt := through(refresher.File(token), &localAPI{accepts: now.is})
		status, _ := localGet(t, rt)
		require.Equal(t, http.StatusOK, status)

		now.Store("key-2")
		status, o := localGet(t, rt)
		require.Equal(t, http.StatusUnauthorized, status, "the server is ahead of the kubelet")
		require.ErrorContains(t, o.Err, "check that the program that writes the file is running")

		project("2", "key-2")
		require.NoError(t, os.RemoveAll(filepath.Join(volume, "..2026_1")))
		time.Sleep(time.Second)
		status, o = localGet(t, rt)
		assert.Equal(t, http.StatusOK, status)
		assert.True(t, o.Recovered())
	})
}

// A file that is not for us says so, and may be put right.
func TestNoForbiddenFileIsForEver(t *testing.T) {
	path := localFile(t, "token", "key-1")
	require.NoError(t, os.Chmod(path, 0))
	_, err := refresher.File(path).Refresh(t.Context(), reauth.Stale{})
	if os.Geteuid() == 0 { // who is refused nothing
		assert.NoError(t, err)
		return
	}
	require.ErrorIs(t, err, fs.ErrPermission)
	assert.ErrorContains(t, err, path)
	assert.Equal(t, time.Millisecond, asksFor(err))

	require.NoError(t, os.Chmod(path, 0o400))
	_, err = refresher.File(path).Refresh(t.Context(), reauth.Stale{})
	assert.NoError(t, err)
}

// 1Password mounts a .env as a named pipe, and writes it anew to each reader.
func TestDotEnvReadsANamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".env")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	r := refresher.DotEnv(path, "KEY")
	for n := range 3 {
		written := make(chan error, 1)
		go func() {
			w, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				_, err = fmt.Fprintf(w, "OTHER=1\nKEY=key-%d\n", n)
				err = errors.Join(err, w.Close())
			}
			written <- err
		}()
		localWithin(t, time.Minute, func() {
			tok, err := r.Refresh(t.Context(), reauth.Stale{})
			if assert.NoError(t, err) {
				assert.Equal(t, fmt.Sprint("key-", n), tok.AccessToken)
			}
			assert.NoError(t, <-written)
		})
	}
}

// What the name means by the time that a pipe is read is another file's affair.
func TestDotEnvJudgesTheFileThatItReads(t *testing.T) {
	dir := t.TempDir()
	path, moved := filepath.Join(dir, ".env"), filepath.Join(dir, "moved")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	got := make(chan error, 1)
	go func() {
		_, err := refresher.DotEnv(path, "KEY").Refresh(t.Context(), reauth.Stale{})
		got <- err
	}()
	localWithin(t, time.Minute, func() {
		var w *os.File
		var err error
		assert.Eventually(t, func() bool { // a writer that does not wait fails until there is a reader
			w, err = os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
			return err == nil
		}, time.Minute, time.Millisecond)
		assert.NoError(t, os.Rename(path, moved))
		assert.NoError(t, os.WriteFile(path, []byte("KEY=key-of-another\n"), 0o600))
		assert.NoError(t, os.Chmod(path, 0o666))
		_, err = w.WriteString("KEY=key-1\n")
		assert.NoError(t, err)
		assert.NoError(t, w.Close())
		assert.NoError(t, <-got)
	})
}

func TestDotEnvWaitsForAPipeWithinItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".env")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	localWithin(t, time.Minute, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := refresher.DotEnv(path, "KEY").Refresh(ctx, reauth.Stale{})
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "no process writes to this pipe")
	})
	// One who writes, and does not end.
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer w.Close()
	_, err = w.WriteString("KEY=key-1\n")
	require.NoError(t, err)
	localWithin(t, time.Minute, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := refresher.DotEnv(path, "KEY").Refresh(ctx, reauth.Stale{})
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
	assert.Eventually(t, func() bool {
		buf := make([]byte, 1<<20)
		return !strings.Contains(string(buf[:runtime.Stack(buf, true)]), "refresher.openPipe")
	}, time.Minute, time.Millisecond, "no goroutine is left at the pipe")
}
