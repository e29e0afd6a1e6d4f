package main

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A cost is what one request costs.
type cost struct{ ns, allocs, bytes float64 }

// costs are what a request of a row costs with each of its peers.
type costs struct {
	row
	ns     [][]float64 // of a request, by round and peer
	memory []cost      // by peer
}

// sliceTime is how long a peer sends before it is the next one's turn, about. Many
// goroutines need time to start, and the garbage collector runs every few milliseconds.
const sliceTime = 8 * time.Millisecond

// measure measures the row in so many rounds, in each of which every peer sends
// for a while.
//
// The peers take turns in short slices, because the speed of a machine changes
// with time. The lower quartile of a round's slices counts, because slower ones
// were disturbed. What a request allocates, the garbage collector pays for: it runs as
// by default.
func measure(r row, rounds int, each time.Duration) costs {
	c := costs{row: r}
	callers, done := r.setUp(r.peers)
	defer done()
	sends := make([]int, len(callers))
	for i, next := range callers {
		c.memory = append(c.memory, memory(next))
		sends[i] = sendsIn(sliceTime, r.goroutines, next)
	}
	for range rounds {
		times := make([][]float64, len(callers))
		for range max(4, each/sliceTime) {
			for i, next := range callers {
				t := elapsed(next, r.goroutines, sends[i])
				times[i] = append(times[i], float64(t.Nanoseconds())/float64(sends[i]*r.goroutines))
			}
		}
		round := make([]float64, len(callers))
		for i := range times {
			slices.Sort(times[i])
			round[i] = times[i][len(times[i])/4]
		}
		c.ns = append(c.ns, round)
	}
	return c
}

// sendsIn returns how many requests each of the goroutines sends in that time.
func sendsIn(slice time.Duration, goroutines int, next caller) int {
	n := 1
	for elapsed(next, goroutines, n) < slice {
		n *= 2
	}
	return n
}

// elapsed returns how long the goroutines take to send so many requests each.
func elapsed(next caller, goroutines, sends int) time.Duration {
	var all sync.WaitGroup
	start := time.Now()
	for range goroutines {
		all.Go(func() {
			send := next()
			for range sends {
				send()
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

// memory returns what a request allocates, without its time.
func memory(next caller) cost {
	const sends = 500
	send := next()
	for range sends {
		send() // fills pools
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range sends {
		send()
	}
	runtime.ReadMemStats(&after)
	return cost{
		allocs: float64(after.Mallocs-before.Mallocs) / sends,
		bytes:  float64(after.TotalAlloc-before.TotalAlloc) / sends,
	}
}

// index returns the place of the peer with this name, or -1.
func (c costs) index(name string) int {
	return slices.IndexFunc(c.peers, func(p peer) bool { return p.name == name })
}

// over returns the median of f over the rounds.
func (c costs) over(f func(ns func(peer string) float64) float64) float64 {
	var values []float64
	for _, round := range c.ns {
		values = append(values, f(func(name string) float64 { return round[c.index(name)] }))
	}
	return median(values)
}

// absolute returns what a request costs with the peer.
func (c costs) absolute(name string) cost {
	m := c.memory[c.index(name)]
	m.ns = c.over(func(ns func(string) float64) float64 { return ns(name) })
	return m
}

// added returns what the peer adds to the base.
func (c costs) added(name string) cost {
	m, base := c.memory[c.index(name)], c.memory[0]
	m.allocs -= base.allocs
	m.bytes -= base.bytes
	m.ns = c.over(func(ns func(string) float64) float64 { return ns(name) - ns(c.peers[0].name) })
	return m
}

// ratio returns the time that one peer adds to the base's, in that which the
// other adds.
func (c costs) ratio(name, other string) float64 {
	return c.over(func(ns func(string) float64) float64 {
		base := ns(c.peers[0].name)
		if ns(other) <= base { // the round was disturbed
			return math.Inf(1)
		}
		return (ns(name) - base) / (ns(other) - base)
	})
}

// requestRatio returns the time of a request with one peer, in that with the
// other.
func (c costs) requestRatio(name, other string) float64 {
	return c.over(func(ns func(string) float64) float64 { return ns(name) / ns(other) })
}

// ofOurs returns what reauth costs, for comparison with the limits.
func (c costs) ofOurs() limits {
	added := c.added(ours.name)
	l := limits{
		oauth2:  c.ratio(ours.name, xoauth2.name),
		request: c.requestRatio(ours.name, xoauth2.name),
		allocs:  math.Round(added.allocs),
		bytes:   math.Round(added.bytes),
	}
	if c.index(leastWork.name) >= 0 {
		l.floor = c.ratio(ours.name, leastWork.name)
	}
	return l
}

// medianOf returns the median of what of returns for each element.
func medianOf[T any](all []T, of func(T) float64) float64 {
	var values []float64
	for _, v := range all {
		values = append(values, of(v))
	}
	return median(values)
}
