// Package file keeps the login of reauth.Credential.Store in a file, for all processes of
// one machine: a command line tool that finds the login of yesterday, and two of them at
// once.
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

// Open returns the Store in the file at path, which need not exist. It does not touch it
// yet.
//
// The file is written with mode 0600, into a directory that is made with mode 0700 if
// there is none. A write goes to another file, which is synced and takes the place of the
// old one: a reader sees the old record or the new one, whenever a process is killed. A
// symbolic link is followed. Beside the file there is one named like it with ".lock",
// which is locked (flock, LockFileEx) while a record is compared and replaced, for
// milliseconds, and never removed.
//
// The file must be on a local disk: locks and renames of network file systems are not
// what they seem. A file that is mounted alone into a container cannot be replaced: mount
// its directory. On Windows the mode has no effect, and the file is as private as its
// directory; a rename is repeated for a second while a scanner has the file open; and the
// directory is not synced, so that a power failure may bring back the record before.
//
// Errors name the file, and have no secret.
func Open(path string) reauth.Store { return &store{path} }

// Path returns where a program keeps its login: name with ".json" in the directory app of
// $XDG_STATE_HOME, which is ~/.local/state by default; on Windows in that of
// %LocalAppData%.
func Path(app, name string) (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if runtime.GOOS == "windows" && dir == "" {
		dir = os.Getenv("LocalAppData")
	}
	if !filepath.IsAbs(dir) { // a relative one is to be ignored, says the specification
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

// read returns what the file has, "" if there is none.
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

// replace puts a new file with the record in the place of that at path.
func replace(path, record string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name()) // it is gone, unless something failed
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

// rename is os.Rename. On Windows it fails while another has the file open.
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
