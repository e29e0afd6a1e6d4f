package refresher

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/reauth-go/reauth"
)

// lookAgain is the backoff after a file had no new token. It is short: if the file has
// not changed, the next request costs one stat.
const lookAgain = time.Millisecond

// File returns a Refresher for a token in a file that another program keeps up to date.
// Examples are projected service account tokens of Kubernetes, sinks of Vault Agent,
// and credentials of systemd. The file has the token alone, or a JSON object. The
// object has the members of an OAuth 2.0 token response (RFC 6749 §5.1) or of an
// ExecCredential of Kubernetes. It may also be the output of the AWS or Azure command
// line. For other JSON, see JSONFile.
//
// The file is read at each refresh: when the token is rejected, or is about to expire.
// A lifetime in seconds counts from the modification time of the file. If the file
// still has the rejected token, or none, the next request looks at the file again.
//
// It is an error if the file is not a regular file, or if all users may write it.
// Symbolic links are followed. On Windows, access control lists are not checked.
func File(path string) reauth.Refresher {
	return reauth.RefresherFunc((&file{path: path, find: parse}).refresh)
}

// JSONFile is like File, for a token inside of a JSON document. The pointer is a JSON
// pointer (RFC 6901) to a string, or to an object as in File, such as
// "/auth/client_token". If empty, it is the whole document.
func JSONFile(path, pointer string) reauth.Refresher {
	if pointer != "" && !strings.HasPrefix(pointer, "/") {
		return failing(fmt.Errorf("file %s: the JSON pointer %q must begin with a slash", path, pointer))
	}
	return reauth.RefresherFunc((&file{path: path, find: func(data []byte, at time.Time) (reauth.Token, error) {
		return pointed(data, pointer, at)
	}}).refresh)
}

// failing returns a Refresher whose configuration is wrong.
func failing(err error) reauth.Refresher {
	return reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{}, reauth.Permanent(err)
	})
}

// A file is a Refresher that finds its token in the content of a file.
type file struct {
	path  string
	find  func(data []byte, modified time.Time) (reauth.Token, error)
	pipes bool // it may be a named pipe

	last atomic.Pointer[found] // nil if the file must be read
}

// A found is the result of reading a file.
type found struct {
	info fs.FileInfo
	tok  reauth.Token
	err  error
}

func (f *file) refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	tok, err := f.read(ctx)
	if err != nil {
		return reauth.Token{}, retryAfterError{err, lookAgain}
	}
	if why := notNewer(tok, stale); why != "" {
		return reauth.Token{}, retryAfterError{fmt.Errorf("file %s: it still has the token that %s: check that the program that writes the file is running", f.path, why), lookAgain}
	}
	return tok, nil
}

// read returns the token in the file, which is read if it may have changed.
func (f *file) read(ctx context.Context) (reauth.Token, error) {
	info, err := os.Stat(f.path) // before opening, which would wait for the writer of a pipe
	if err != nil {
		return reauth.Token{}, err
	}
	pipe := info.Mode()&fs.ModeNamedPipe != 0 && f.pipes
	if !info.Mode().IsRegular() && !pipe {
		return reauth.Token{}, fmt.Errorf("file %s: it is not a regular file", f.path)
	}
	if last := f.last.Load(); last != nil && unchanged(last.info, info) {
		return last.tok, last.err
	}
	began := time.Now()
	data, info, err := f.content(ctx, pipe)
	if err != nil {
		return reauth.Token{}, err
	}
	now := &found{info: info}
	if now.tok, now.err = f.find(data, info.ModTime()); now.err != nil {
		now.err = fmt.Errorf("file %s: %w", f.path, now.err)
	}
	if at, ok := changed(info); ok && !pipe && began.Sub(at) > timestampStep {
		f.last.Store(now)
	}
	return now.tok, now.err
}

// timestampStep is longer than the resolution of the times of a file: two changes
// within it may have the same time.
const timestampStep = 3 * time.Second

// unchanged reports whether the file was not written in between. It does not use the
// modification time, which any program can set.
func unchanged(a, b fs.FileInfo) bool {
	at, _ := changed(a)
	again, ok := changed(b)
	return ok && at.Equal(again) && os.SameFile(a, b) && a.Size() == b.Size()
}

// content returns the content and the FileInfo of the file. It returns an error if all
// users may write the file.
func (f *file) content(ctx context.Context, pipe bool) ([]byte, fs.FileInfo, error) {
	open := func() (*os.File, error) { return os.Open(f.path) }
	if pipe {
		open = func() (*os.File, error) { return openPipe(ctx, f.path) }
	}
	r, err := open()
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	if pipe {
		stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
	}
	info, err := r.Stat() // of the open file: the link may have changed
	if err != nil {
		return nil, nil, err
	}
	if writableByOthers(info.Mode()) {
		return nil, nil, fmt.Errorf("file %s: all users may write it (mode %04o), so any of them may have set its token: chmod o-w, "+
			"or where that changes nothing (a mount of WSL or SMB), mount it with umask=022 or file_mode=0644, or move it", f.path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	switch {
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	case err == nil && len(data) > maxAnswer:
		err = fmt.Errorf("file %s: %w", f.path, errTooLarge)
	}
	return data, info, err
}

func writableByOthers(mode fs.FileMode) bool {
	return runtime.GOOS != "windows" && mode.Perm()&0o002 != 0
}

// A retryAfterError is an error that specifies the backoff of the Credential.
type retryAfterError struct {
	error
	after time.Duration
}

// RetryAfter returns the backoff; see reauth.Refresher.
func (a retryAfterError) RetryAfter() time.Duration { return a.after }

func (a retryAfterError) Unwrap() error { return a.error }
