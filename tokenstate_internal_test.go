package reauth

import (
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// clockAsleep returns what time.Now says if the machine slept for d before and
// its monotonic clock stopped meanwhile, as on Linux: only the wall clock went on. Nothing in package time makes such a reading, so it is written into
// the seconds of a Time, behind its 30 bits of nanoseconds.
func clockAsleep(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	woken := at
	*(*uint64)(unsafe.Pointer(&woken)) += uint64(d/time.Second) << 30
	require.Equal(t, d, woken.Round(0).Sub(at.Round(0)), "the wall clock went on")
	require.Zero(t, woken.Sub(at), "the monotonic clock did not")
	return woken
}

// It is an internal test, as no test can put the machine to sleep.
func TestTokenIsNotTakenForValidAfterTheMachineSlept(t *testing.T) {
	now := time.Now()
	for name, expiry := range map[string]time.Time{
		"reckoned by us":         now.Add(time.Hour),
		"reckoned by the issuer": now.Add(time.Hour).Round(0),
	} {
		t.Run(name, func(t *testing.T) {
			c := &Credential{}
			h := c.newTokenState(Token{AccessToken: "T1", Expiry: expiry}, now, now)
			assert.True(t, h.usable(now.Add(50*time.Minute)))
			assert.False(t, h.refreshAt.passedAt(now.Add(50*time.Minute)))
			assert.False(t, h.usable(now.Add(time.Hour)), "awake all the time")

			woken := clockAsleep(t, now.Add(time.Second), 2*time.Hour)
			assert.True(t, h.refreshAt.passedAt(woken))
			assert.False(t, h.usable(woken))

			// Someone sets the wall clock back by two hours: the monotonic one knows.
			assert.False(t, h.usable(clockAsleep(t, now.Add(90*time.Minute), -2*time.Hour)))
		})
	}
}
