package refresher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/joho/godotenv"

	"github.com/reauth-go/reauth"
)

// lookAgain is how long a Credential leaves a file alone in which there was no
// (new) token: to look costs little, and whoever rotates the key waits for it.
const lookAgain = time.Second

// DotEnv returns a Refresher for a token in a file of NAME=value lines (.env, as
// github.com/joho/godotenv reads it). It reads the file at each refresh, not the
// environment of the process. If the file still has the rejected token, or none,
// it is read again after one second, so that a rotated key is picked up by the
// first request after that.
//
// A value with a dollar sign goes into single quotes, or it is expanded.
func DotEnv(path, name string) reauth.Refresher {
	return fromFile(path, func(data []byte, _ time.Time) (reauth.Token, error) {
		vars, err := godotenv.UnmarshalBytes(bytes.TrimPrefix(data, byteOrderMark))
		if err != nil { // which repeats the line
			return reauth.Token{}, errors.New("it has a line that is not NAME=value")
		}
		access, ok := vars[name]
		if !ok {
			return reauth.Token{}, fmt.Errorf("it has no %s", name)
		}
		tok, err := fromText(access)
		if err != nil {
			return reauth.Token{}, fmt.Errorf("%s: %w", name, err)
		}
		return tok, nil
	}, false)
}

// File returns a Refresher for a token in a file that something else keeps fresh,
// as Kubernetes does with projected service account tokens, Vault Agent with its
// sinks, and systemd with credentials. The file has the token alone, or a JSON
// object with the members of an OAuth 2.0 token response (RFC 6749 §5.1), of an
// ExecCredential of Kubernetes, or those that the command lines of AWS and Azure
// write; for other JSON see JSONFile.
//
// The file is read at each refresh: when the token has been rejected or nears its
// expiry, which a JWT tells. A lifetime in seconds counts from the file's
// modification. If the file still has the rejected token, or none, it is read
// again after one second.
//
// A file that others may write is refused, and one that is not regular; links
// are followed. (On Windows, access control lists are not looked at.)
func File(path string) reauth.Refresher {
	return fromFile(path, parse, true)
}

// JSONFile is File for a token inside of a JSON document. The pointer (RFC 6901,
// "/auth/client_token") leads to a string, or to an object such as File reads; ""
// is the whole document.
func JSONFile(path, pointer string) reauth.Refresher {
	if pointer != "" && !strings.HasPrefix(pointer, "/") {
		return failing(fmt.Errorf("file %s: the JSON pointer %q has to begin with a slash", path, pointer))
	}
	return fromFile(path, func(data []byte, at time.Time) (reauth.Token, error) {
		return pointed(data, pointer, at)
	}, true)
}

// failing returns a Refresher that was not put together rightly.
func failing(err error) reauth.Refresher {
	return reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{}, reauth.Permanent(err)
	})
}

// fromFile returns a Refresher that finds its token in the content of a file.
func fromFile(path string, find func(data []byte, modified time.Time) (reauth.Token, error), guarded bool) reauth.Refresher {
	return reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
		data, modified, err := readFile(path, guarded)
		if err != nil {
			return reauth.Token{}, again{err, lookAgain}
		}
		tok, err := find(data, modified)
		if err != nil {
			return reauth.Token{}, again{fmt.Errorf("file %s: %w", path, err), lookAgain}
		}
		if why := worn(tok, stale); why != "" {
			return reauth.Token{}, again{fmt.Errorf("file %s: it still has the token that %s: see whether what writes the file is alive", path, why), lookAgain}
		}
		return tok, nil
	})
}

// readFile returns the content of a file and when it was modified. A guarded file
// is one that others must not be able to write.
func readFile(path string, guarded bool) ([]byte, time.Time, error) {
	info, err := os.Stat(path) // before opening, which would wait for the writer of a pipe
	if err != nil {
		return nil, time.Time{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, time.Time{}, fmt.Errorf("file %s: it is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil { // of the very file that is read, whatever the link says by now
		return nil, time.Time{}, err
	}
	if guarded && writableByOthers(info.Mode()) {
		return nil, time.Time{}, fmt.Errorf("file %s: others may write it (mode %04o), so its token may be anybody's: chmod o-w", path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxAnswer+1))
	if err == nil && len(data) > maxAnswer {
		err = fmt.Errorf("file %s: %w", path, errTooLarge)
	}
	return data, info.ModTime(), err
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
