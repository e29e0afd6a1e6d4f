package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Benchmark has the rows side by side: benchstat -col /peer.
func Benchmark(b *testing.B) {
	for _, r := range rows {
		for _, p := range r.peers {
			b.Run(r.name+"/peer="+p.slug(), func(b *testing.B) { r.run(b, p) })
		}
	}
}

func BenchmarkCallers(b *testing.B) {
	for _, p := range crowds {
		b.Run("callers=1000/peer="+p.slug(), func(b *testing.B) {
			var sum crowd
			for b.Loop() {
				c := stampede(p, callers)
				sum.refreshes += c.refreshes
				sum.failed += c.failed
			}
			b.ReportMetric(float64(sum.refreshes)/float64(b.N), "refreshes/op")
			b.ReportMetric(float64(sum.failed)/float64(b.N), "failed/op")
		})
	}
}

// A peer that does not do its work would be a fast one.
func TestPeersAttachTheToken(t *testing.T) {
	for _, p := range everybody[2:] {
		t.Run(p.name, func(t *testing.T) {
			i := &issuer{}
			rt := p.wrap(&api{issuer: i}, i)
			for range 3 {
				req := newRequest(3)
				before := req.Header.Clone()
				require.Equal(t, http.StatusOK, send(rt, req))
				assert.Equal(t, before, req.Header)
			}
			assert.EqualValues(t, 1, i.calls.Load(), "tokens asked for")
		})
	}
}

func TestRefreshSharedByThousandCallers(t *testing.T) {
	got := stampede(ours, callers)
	assert.EqualValues(t, 1, got.refreshes, "refreshes")
	assert.Zero(t, got.failed, "failed")
	// The wait is 100 ms and half of it.
	assert.Less(t, got.last, refreshTime+2*maxSend+150*time.Millisecond+250*time.Millisecond)
}

func TestSimWithinBounds(t *testing.T) {
	if testing.Short() {
		t.Skip("the simulation takes a minute: -short")
	}
	for _, o := range simulateAll(t, 3) {
		assert.True(t, o.holds(), "%s: %s %s, at most %s", o.name, figures(o.values), o.unit, figures(o.bounds))
	}
}

func TestCredentialsIdleSize(t *testing.T) {
	size, goroutines := idleCredentials(20_000)
	assert.Less(t, size, 1000.0)
	assert.Zero(t, goroutines)
}
