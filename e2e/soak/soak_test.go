package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The command in short, on sockets.
func TestNobodyNoticesTenSecondsOfRevocations(t *testing.T) {
	r, err := soak(t.Context(), 10*time.Second, 200)
	t.Logf("%v", r)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, r.Refreshes, 3)
	assert.NotZero(t, r.Rejected)
	for _, n := range []int64{r.Gets, r.Posts, r.Pipes, r.Streams, r.Unavailable} {
		assert.NotZero(t, n)
	}
	assert.EqualValues(t, r.Sends, r.Requests+int64(r.Rejected), "each rejection costs one more send, and nothing else does")
}
