package refresher

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// It is an internal test, as nothing else shows how often a file is read. It takes as long
// as two changes may have the same time, which is the system's and cannot be set.
func TestFileThatHasNotChangedIsNotReadAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	old := time.Now().Add(-time.Hour)
	write := func(content string) {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		require.NoError(t, os.Chtimes(path, old, old)) // as rsync and cp -p do
	}
	reads := 0
	f := &file{path: path, find: func(data []byte, at time.Time) (reauth.Token, error) {
		reads++
		return parse(data, at)
	}}
	get := func() string {
		tok, err := f.refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		return tok.AccessToken
	}
	write("key-1")
	for range 10 {
		require.Equal(t, "key-1", get())
	}
	assert.Equal(t, 10, reads, "it may be changed again at the same time")
	require.Eventually(t, func() bool {
		before := reads
		return get() == "key-1" && reads == before
	}, time.Minute, 10*time.Millisecond, "it is old enough to be known by its time")
	before := reads
	for range 10 {
		require.Equal(t, "key-1", get())
	}
	assert.Equal(t, before, reads)
	write("key-2") // of the same length and time
	require.Equal(t, "key-2", get())
	require.NoError(t, os.Remove(path))
	_, err := f.refresh(t.Context(), reauth.Stale{})
	require.ErrorIs(t, err, os.ErrNotExist)
}
