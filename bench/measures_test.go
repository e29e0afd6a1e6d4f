//go:build !race

package main

import (
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// TestFreshPathMeasures holds reauth to what it promises of the path that nearly
// every request takes. The race detector would add allocations and time of its
// own.
func TestFreshPathMeasures(t *testing.T) {
	for _, tt := range []struct{ headers, allocs int }{{0, 3}, {3, 3}, {7, 3}, {8, 5}, {11, 5}} {
		assert.EqualValues(t, tt.allocs, allocs(ours, tt.headers)-allocs(base, tt.headers),
			"allocations above Base with %d headers", tt.headers)
	}
	// The garbage collector's share depends on the heap around, and a benchmark
	// has none: it would run every few thousand requests.
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	for _, tt := range []struct {
		goroutines, token int
		limit             float64 // a guard: what it is on a quiet machine, go run . prints
	}{{1, jwt, 0.75}, {64, jwt, 0.75}, {1, opaque, 0.9}} {
		// What a busy machine adds is not ours: one quiet moment is enough.
		best := ratio(tt.goroutines, tt.token)
		for i := 0; i < 10 && best > tt.limit; i++ {
			best = min(best, ratio(tt.goroutines, tt.token))
		}
		t.Logf("%.2f of the time that x/oauth2 adds: %d goroutines, token of %d bytes", best, tt.goroutines, tt.token)
		assert.LessOrEqual(t, best, tt.limit, "the time added, in that of x/oauth2, with %d goroutines", tt.goroutines)
	}
}

func allocs(p peer, headers int) float64 {
	rt, req := p.wrap(&api{}, &issuer{}), newRequest(headers)
	return testing.AllocsPerRun(1000, func() { send(rt, req) })
}

// ratio returns the time that reauth adds to that of the base, in that which
// x/oauth2 adds. The three take turns, as a machine's speed changes from one
// moment to the next, and the lower quartile of each counts: what is above it
// was disturbed.
func ratio(goroutines, token int) float64 {
	const rounds, sends = 100, 1024
	var quartile [3]time.Duration
	var times [3][]time.Duration
	var rts [3]http.RoundTripper
	for i, p := range []peer{base, ours, xoauth2} {
		rts[i] = p.wrap(&api{}, &issuer{size: token})
		timed(rts[i], goroutines, sends)
	}
	for range rounds {
		for i, rt := range rts {
			times[i] = append(times[i], timed(rt, goroutines, sends))
		}
	}
	for i := range times {
		slices.Sort(times[i])
		quartile[i] = times[i][rounds/4]
	}
	return float64(quartile[1]-quartile[0]) / float64(quartile[2]-quartile[0])
}

// timed returns how long it takes to send so many requests with 3 headers.
func timed(rt http.RoundTripper, goroutines, sends int) time.Duration {
	var all sync.WaitGroup
	start := time.Now()
	for range goroutines {
		all.Go(func() {
			req := newRequest(3)
			for range sends / goroutines {
				send(rt, req)
			}
		})
	}
	all.Wait()
	return time.Since(start)
}
