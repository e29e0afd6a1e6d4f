//go:build !race

package main

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// The race detector adds allocations and time of its own, so these tests are not
// built with it.

// tolerance is how much more than its limit a time may be here, on a busy
// machine. The command prints the times of a quiet one.
const tolerance = 1.3

func TestRowsWithinLimits(t *testing.T) {
	for _, r := range rows {
		if r.limits == (limits{}) {
			continue
		}
		r.peers = slices.DeleteFunc(slices.Clone(r.peers), func(p peer) bool {
			return !slices.Contains([]string{baseOnly.name, leastWork.name, ours.name, xoauth2.name}, p.name)
		})
		t.Run(r.title, func(t *testing.T) {
			// The lowest of several counts: other programs only add time.
			lowest := limits{math.Inf(1), math.Inf(1), math.Inf(1), math.Inf(1), math.Inf(1)}
			for range 5 {
				lowest = lower(lowest, measure(r, 3, 50*time.Millisecond).ofOurs())
				if exceeded(lowest, r.limits) == "" {
					break
				}
			}
			t.Logf("%+v", lowest)
			assert.Empty(t, exceeded(lowest, r.limits), "%+v, limits %+v", lowest, r.limits)
		})
	}
}

func lower(a, b limits) limits {
	return limits{min(a.floor, b.floor), min(a.oauth2, b.oauth2), min(a.request, b.request), min(a.allocs, b.allocs), min(a.bytes, b.bytes)}
}

// exceeded returns the name of a limit that is exceeded, with tolerance for
// times.
func exceeded(got, limits limits) string {
	for _, l := range []struct {
		name       string
		got, limit float64
	}{
		{"time added / floor", got.floor, limits.floor * tolerance},
		{"time added / x/oauth2", got.oauth2, limits.oauth2 * tolerance},
		{"request time / x/oauth2", got.request, limits.request * tolerance},
		{"allocations", got.allocs, limits.allocs},
		{"bytes", got.bytes, limits.bytes},
	} {
		if l.limit > 0 && l.got > l.limit {
			return l.name
		}
	}
	return ""
}

func TestFreshAllocations(t *testing.T) {
	for _, tt := range []struct {
		name string
		peer peer
	}{{"Origins nil", ours}, {"2 Origins listed", oursOrigins}} {
		for _, n := range []struct{ headers, allocs int }{{0, 3}, {3, 3}, {7, 3}, {8, 5}, {11, 5}} {
			assert.EqualValues(t, n.allocs, allocs(tt.peer, n.headers)-allocs(baseOnly, n.headers),
				"allocations above base with %d headers, %s", n.headers, tt.name)
		}
	}
}

func allocs(p peer, headers int) float64 {
	rt, req := p.wrap(&api{}, &issuer{}), newRequest(headers)
	return testing.AllocsPerRun(1000, func() { send(rt, req) })
}

// A recovery costs at most 100 allocations, the test's servers included.
func TestRecoveryAllocations(t *testing.T) {
	callers, done := recovery([]peer{oursNoWait})
	defer done()
	send := callers[0]()
	n := testing.AllocsPerRun(1000, send)
	t.Logf("%.0f allocations", n)
	assert.LessOrEqual(t, n, 100.0)
}

func TestIdleCredentialsAreSmall(t *testing.T) {
	got := idleCredentials(20_000)
	assert.LessOrEqual(t, got.bytes, 1000.0, "bytes of live heap each")
	assert.LessOrEqual(t, got.goroutines, 0, "goroutines left")
}
