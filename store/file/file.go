// Package file provides a reauth.Store in a file, for all processes on one machine. A
// command-line tool can use the login of an earlier run, and several can run at once.
//
//	cred := &reauth.Credential{Refresher: issuer, Store: file.Open(path)}
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"

	"github.com/reauth-go/reauth"
)

// Open returns a Store that keeps its record in the file at path. The file need not
// exist. Open does not access it.
//
// The file is created with mode 0600. Its directory is created with mode 0700 if there
// is none. A record is written to a temporary file, which is synced and then renamed. A
// reader sees the old record or the new one, even if a process is killed. A symbolic
// link is followed. While a record is compared and replaced, a file with the suffix
// ".lock" beside it is locked (flock, LockFileEx). That file is never removed.
//
// The file must be on a local disk: locks and renames of network file systems are not
// reliable. A file that is mounted alone into a container cannot be replaced: mount its
// directory. On Windows the mode has no effect: the file is as private as its
// directory. A rename there is retried for up to a second while another program has the
// file open. The directory is not synced there, so that a power failure may restore the
// previous record.
//
// Errors name the file, and contain no secret.
func Open(path string) reauth.Store { return &store{path} }

// Path returns a path for the login of a program: the file name with the suffix ".json"
// in the directory app of $XDG_STATE_HOME. If that is not set, %LocalAppData% is used
// on Windows, and ~/.local/state on other systems. Path returns an error if there is no
// home directory.
func Path(app, name string) (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if runtime.GOOS == "windows" && dir == "" {
		dir = os.Getenv("LocalAppData")
	}
	if !filepath.IsAbs(dir) { // the specification says to ignore a relative path
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("store/file: there is no home directory to keep the login in: set XDG_STATE_HOME: %w", err)
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, app, name+".json"), nil
}

type store struct{ path string }

const (
	lockRetry  = 2 * time.Millisecond // between two tries to lock
	maxRecord  = 2 << 20              // bytes that are read
	renameTime = time.Second          // how long a rename is repeated on Windows
)

// Load implements reauth.Store.
func (s *store) Load(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	record, err := read(s.path)
	if err != nil {
		return "", fmt.Errorf("store/file: the login cannot be read: %w", err)
	}
	return record, nil
}

// read returns the content of the file, or "" if there is no file.
func read(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord))
	return string(b), err
}

// CompareAndSwap implements reauth.Store.
func (s *store) CompareAndSwap(ctx context.Context, old, new string) (swapped bool, err error) {
	defer func() {
		switch {
		case err == nil || ctx.Err() != nil:
		case isBusy(err):
			err = fmt.Errorf("store/file: the login cannot be written, as the file is mounted alone: mount its directory: %w", err)
		default:
			err = fmt.Errorf("store/file: the login cannot be written: %w", err)
		}
	}()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	path, err := target(s.path)
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, err
	}
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
		return false, err
	}
	defer func() { _ = lock.Close() }()
	now, err := read(path)
	if err != nil || now != old {
		return false, err
	}
	if new == "" {
		err = remove(path)
	} else {
		err = replace(path, new)
	}
	return err == nil, err
}

// target follows symbolic links, also to a file that does not exist.
func target(path string) (string, error) {
	const most = 40 // links
	for range most {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", &fs.PathError{Op: "readlink", Path: path, Err: errors.New("too many links")}
}

// replace replaces the file at path with a new file that has the record.
func replace(path, record string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name()) // it was renamed, unless an error occurred
	}()
	if _, err := f.WriteString(record); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// rename is os.Rename. On Windows it fails while another program has the file open.
func rename(from, to string) error {
	end := time.Now().Add(renameTime)
	for {
		err := os.Rename(from, to)
		if err == nil || runtime.GOOS != "windows" || time.Now().After(end) {
			return err
		}
		time.Sleep(lockRetry)
	}
}

// String returns the name of the file.
func (s *store) String() string { return "store/file(" + s.path + ")" }
