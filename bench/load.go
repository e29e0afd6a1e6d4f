package main

import (
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reauth-go/reauth"
)

// A rejectedResult is what happened to many callers with one rejected token.
type rejectedResult struct {
	refreshes int64
	failed    int64
	last      time.Duration // from the last send to the last response
}

// How long a refresh and the sends of these callers take. Some sends take longer
// than the refresh: their 401 arrives after it.
const (
	refreshTime = 20 * time.Millisecond
	minSend     = 5 * time.Millisecond
	maxSend     = 50 * time.Millisecond
)

// sendRejected has so many goroutines send one request each, with a token that
// was revoked.
func sendRejected(p peer, goroutines int) rejectedResult {
	i := &issuer{}
	a := &api{issuer: i}
	rt := p.wrap(a, i)
	send(rt, newRequest(3))
	i.revoke()
	i.calls.Store(0)
	i.delay = refreshTime
	// No response comes before the last goroutine has sent. So all of them send
	// the rejected token.
	var sends, failed atomic.Int64
	allSent := make(chan struct{})
	var start time.Time
	a.delay = func() time.Duration {
		if sends.Add(1) == int64(goroutines) {
			start = time.Now()
			close(allSent)
		}
		<-allSent
		return minSend + rand.N(maxSend-minSend)
	}
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			if send(rt, newRequest(3)) != http.StatusOK {
				failed.Add(1)
			}
		})
	}
	all.Wait()
	return rejectedResult{i.calls.Load(), failed.Load(), time.Since(start)}
}

// sendRejectedTimes repeats sendRejected and returns the medians.
func sendRejectedTimes(p peer, goroutines, times int) rejectedResult {
	var all []rejectedResult
	for range times {
		all = append(all, sendRejected(p, goroutines))
	}
	return rejectedResult{
		int64(medianOf(all, func(r rejectedResult) float64 { return float64(r.refreshes) })),
		int64(medianOf(all, func(r rejectedResult) float64 { return float64(r.failed) })),
		time.Duration(medianOf(all, func(r rejectedResult) float64 { return float64(r.last) })),
	}
}

// An idleResult is what Credentials cost that are not in use.
type idleResult struct {
	bytes      float64 // of live heap, for each
	goroutines int     // left by all
}

// idleCredentials has each of so many Credentials send one request through one
// Transport, with a token of 40 bytes.
func idleCredentials(n int) idleResult {
	creds := make([]*reauth.Credential, 0, n)
	source := refresher(&issuer{size: opaque}, lifetime)
	rt := &reauth.Transport{Base: &api{}, Logger: silent, CredentialFor: func(*http.Request) (*reauth.Credential, error) {
		return creds[len(creds)-1], nil
	}}
	req := newRequest(3)
	goroutines, heap := runtime.NumGoroutine(), liveHeap()
	for range n {
		creds = append(creds, &reauth.Credential{Refresher: source, Logger: silent})
		send(rt, req)
	}
	time.Sleep(10 * time.Millisecond) // the last refresh may still be ending
	r := idleResult{(liveHeap() - heap) / float64(n), runtime.NumGoroutine() - goroutines}
	runtime.KeepAlive(creds)
	return r
}

// liveHeap returns the bytes of the heap that are reachable.
func liveHeap() float64 {
	runtime.GC()
	runtime.GC() // frees what the first one finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
