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

// lookAgain is how long a Credential leaves a file alone in which there was no (new)
// token: whoever has written it waits for the next request, and if the file has not
// changed, a stat is all that it costs.
const lookAgain = time.Millisecond

// File returns a Refresher for a token in a file that something else keeps fresh,
// as Kubernetes does with projected service account tokens, Vault Agent with its
// sinks, and systemd with credentials. The file has the token alone, or a JSON
// object with the members of an OAuth 2.0 token response (RFC 6749 §5.1), of an
// ExecCredential of Kubernetes, or those that the command lines of AWS and Azure
// write; for other JSON see JSONFile.
//
// The file is read at each refresh: when the token has been rejected or nears its
// expiry, which a JWT tells. A lifetime in seconds counts from the file's
// modification. If the file still has the rejected token, or none, the next request
// looks at it again.
//
// A file that others may write is refused, and one that is not regular; links
// are followed. (On Windows, access control lists are not looked at.)
func File(path string) reauth.Refresher {
	return reauth.RefresherFunc((&file{path: path, find: parse}).refresh)
}

// JSONFile is File for a token inside of a JSON document. The pointer (RFC 6901,
// "/auth/client_token") leads to a string, or to an object such as File reads; ""
// is the whole document.
func JSONFile(path, pointer string) reauth.Refresher {
	if pointer != "" && !strings.HasPrefix(pointer, "/") {
		return failing(fmt.Errorf("file %s: the JSON pointer %q has to begin with a slash", path, pointer))
	}
	return reauth.RefresherFunc((&file{path: path, find: func(data []byte, at time.Time) (reauth.Token, error) {
		return pointed(data, pointer, at)
	}}).refresh)
}

// failing returns a Refresher that was not put together rightly.
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

	last atomic.Pointer[found] // nil: read it
}

// A found is what a file had when it was read.
type found struct {
	info fs.FileInfo
	tok  reauth.Token
	err  error
}

func (f *file) refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	tok, err := f.read(ctx)
	if err != nil {
		return reauth.Token{}, again{err, lookAgain}
	}
	if why := worn(tok, stale); why != "" {
		return reauth.Token{}, again{fmt.Errorf("file %s: it still has the token that %s: see whether what writes the file is alive", f.path, why), lookAgain}
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
		return reauth.Token{}, fmt.Errorf("file %s: it is no regular file", f.path)
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

// timestampStep is longer than what two changes of a file may be apart and have the same
// time.
const timestampStep = 3 * time.Second

// unchanged reports whether nobody has written to the file in between, whatever the time
// of modification, which anybody can set.
func unchanged(a, b fs.FileInfo) bool {
	at, _ := changed(a)
	again, ok := changed(b)
	return ok && at.Equal(again) && os.SameFile(a, b) && a.Size() == b.Size()
}

// content returns that of the file, and what it is. A file that others may write is
// refused.
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
	info, err := r.Stat() // of the very file that is read, whatever the link says by now
	if err != nil {
		return nil, nil, err
	}
	if writableByOthers(info.Mode()) {
		return nil, nil, fmt.Errorf("file %s: others may write it (mode %04o), so its token may be anybody's: chmod o-w, "+
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

// An again is an error after which the Credential asks again after a time.
type again struct {
	error
	after time.Duration
}

// RetryAfter is what a Credential looks for in an error; see reauth.Refresher.
func (a again) RetryAfter() time.Duration { return a.after }

func (a again) Unwrap() error { return a.error }
