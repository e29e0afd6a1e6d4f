package main

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Benchmark has the rows side by side, for benchstat -col /peer.
func Benchmark(b *testing.B) {
	for _, r := range rows {
		for _, p := range r.peers {
			b.Run(r.name+"/peer="+p.slug(), func(b *testing.B) { benchmark(b, r, p) })
		}
	}
	for _, p := range recoveryRow.peers {
		b.Run(recoveryRow.name+"/peer="+p.slug(), func(b *testing.B) {
			if first, next := recovers(p); !first {
				b.Skip(verdict(first, next))
			}
			benchmark(b, recoveryRow, p)
		})
	}
}

func benchmark(b *testing.B, r row, p peer) {
	callers, done := r.setUp([]peer{p})
	defer done()
	next := callers[0]
	next()() // gets the first token
	b.ReportAllocs()
	if r.goroutines == 1 {
		send := next()
		for b.Loop() {
			send()
		}
		return
	}
	procs := runtime.GOMAXPROCS(0)
	b.SetParallelism((r.goroutines + procs - 1) / procs)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		send := next()
		for pb.Next() {
			send()
		}
	})
}

// BenchmarkRejected has 1,000 goroutines with one rejected token.
func BenchmarkRejected(b *testing.B) {
	for _, p := range rejectedPeers {
		b.Run(fmt.Sprintf("callers=%d/peer=%s", rejectedCallers, p.slug()), func(b *testing.B) {
			var sum rejectedResult
			for b.Loop() {
				r := sendRejected(p, rejectedCallers)
				sum.refreshes += r.refreshes
				sum.failed += r.failed
			}
			b.ReportMetric(float64(sum.refreshes)/float64(b.N), "refreshes/op")
			b.ReportMetric(float64(sum.failed)/float64(b.N), "failed/op")
		})
	}
}

// A peer that does not do its work would be a fast one.
func TestPeersAttachTokenAndKeepRequest(t *testing.T) {
	for _, p := range append([]peer{oursOrigins}, freshPeers[1:]...) {
		t.Run(p.name, func(t *testing.T) {
			i := &issuer{}
			rt := p.wrap(&api{issuer: i}, i)
			for range 3 {
				req := newRequest(3)
				before := req.Header.Clone()
				require.Equal(t, http.StatusOK, send(rt, req))
				assert.Equal(t, before, req.Header)
			}
			assert.EqualValues(t, 1, i.calls.Load(), "tokens issued")
		})
	}
}

func TestRejectedTokenCostsOneRefresh(t *testing.T) {
	for _, tt := range []struct{ goroutines, times int }{{1000, 1}, {10_000, 10}} {
		for range tt.times {
			got := sendRejected(ours, tt.goroutines)
			assert.EqualValues(t, 1, got.refreshes, "refreshes with %d goroutines", tt.goroutines)
			assert.Zero(t, got.failed, "failed with %d goroutines", tt.goroutines)
			if tt.goroutines == 1000 {
				// The wait is 100 ms ± 50%.
				assert.Less(t, got.last, refreshTime+2*maxSend+150*time.Millisecond+250*time.Millisecond)
			}
		}
	}
}
