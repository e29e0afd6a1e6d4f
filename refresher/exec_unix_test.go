//go:build unix

package refresher_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

func TestNoProgramMindsAHundredCallers(t *testing.T) {
	aHundredCallers(t, refresher.Exec("echo", "key-1"))
}

// A script is the usual helper, and has children that it waits for, and others.
func TestNoProcessOfAScriptOutlivesTheContext(t *testing.T) {
	script := localFile(t, "helper", `#!/bin/sh
# A child in the background, one in a pipe, and one that is waited for.
"$@" &
"$@" | cat >/dev/null &
"$@"
`)
	require.NoError(t, os.Chmod(script, 0o700))
	line := newLifeline(t)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := refresher.Exec(append([]string{script}, program("hold", line.Addr().String())...)...).Refresh(ctx, reauth.Stale{})
		failed <- err
	}()
	one, two, three := line.process(t), line.process(t), line.process(t)
	cancel()
	localWithin(t, time.Minute, func() { assert.ErrorIs(t, <-failed, context.Canceled) })
	dead(t, one)
	dead(t, two)
	dead(t, three)
}

// A program that ignores a signal to end is killed.
func TestNoTrapKeepsAScriptAlive(t *testing.T) {
	line := newLifeline(t)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		command := append([]string{"/bin/sh", "-c", `trap '' TERM INT HUP; "$@"; "$@"`, "sh"}, program("hold", line.Addr().String())...)
		_, err := refresher.Exec(command...).Refresh(ctx, reauth.Stale{})
		failed <- err
	}()
	conn := line.process(t)
	cancel()
	localWithin(t, time.Minute, func() { assert.ErrorIs(t, <-failed, context.Canceled) })
	dead(t, conn)
}

// What cannot be run says why.
func TestNoProgramThatCannotBeRunIsAMystery(t *testing.T) {
	plain := localFile(t, "helper", "#!/bin/sh\necho key-1\n")
	r := refresher.Exec(plain)
	_, err := r.Refresh(t.Context(), reauth.Stale{})
	require.ErrorIs(t, err, os.ErrPermission)
	assert.ErrorContains(t, err, plain)

	require.NoError(t, os.Chmod(plain, 0o700))
	tok, err := r.Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, "key-1", tok.AccessToken)

	require.NoError(t, os.WriteFile(plain, []byte("#!/bin/sh\nkill -9 $$\n"), 0o700))
	_, err = r.Refresh(t.Context(), reauth.Stale{})
	assert.ErrorContains(t, err, "signal: killed")

	_, err = refresher.Exec(filepath.Dir(plain)).Refresh(t.Context(), reauth.Stale{})
	assert.Error(t, err)
	assert.False(t, errors.Is(err, context.Canceled))
}

// The next refresh finds a new login by another program.
func TestNoProgramsNewTokenIsOverlooked(t *testing.T) {
	path := localFile(t, "store", "key-1\n")
	now := &accepting{}
	now.Store("key-1")
	rt := through(refresher.Exec("cat", path), &localAPI{accepts: now.is})
	status, _ := localGet(t, rt)
	require.Equal(t, 200, status)
	overwrite(t, path, "key-2\n")
	now.Store("key-2")
	status, o := localGet(t, rt)
	assert.Equal(t, 200, status)
	assert.True(t, o.Recovered())
}
