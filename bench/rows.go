package main

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A row is what is measured, with those whom it is measured for. The first is
// the base that the others are held against.
type row struct {
	name  string // for go test -bench, in the words of benchstat
	title string // for the table
	peers []peer
	run   func(*testing.B, peer)
}

var (
	everybody  = []peer{base, least, ours, oursNoExpiry, xoauth2, az, clientGo, google}
	bodies     = []peer{base, ours, xoauth2, az, clientGo, google}
	listed     = []peer{base, least, oursOrigins, xoauth2}
	recovering = []peer{twoSends, oursAtOnce, xoauth2, az, azOnChallenge, clientGo, google}
	crowds     = []peer{ours, xoauth2, az, azOnChallenge, clientGo, google}

	rows = []row{
		{"fresh/headers=3/goroutines=1/token=1kB", "3 headers", everybody, fresh(3, 1, jwt)},
		{"fresh/headers=3/goroutines=64/token=1kB", "3 headers, 64 goroutines", everybody, fresh(3, 64, jwt)},
		{"fresh/headers=11/goroutines=1/token=1kB", "11 headers", everybody, fresh(11, 1, jwt)},
		{"fresh/headers=11/goroutines=64/token=1kB", "11 headers, 64 goroutines", everybody, fresh(11, 64, jwt)},
		{"fresh/headers=3/origins=2", "3 headers, 2 Origins listed", listed, fresh(3, 1, jwt)},
		{"fresh/headers=3/goroutines=1/token=40B", "3 headers, token of 40 bytes", everybody, fresh(3, 1, opaque)},
		{"stream/size=64KiB", "64 KiB without GetBody", bodies, stream(64 << 10)},
		{"recovery/callers=1", "one 401 recovered", recovering, recovery},
	}
)

// newRequest returns a request with so many headers, none of them a credential.
func newRequest(headers int) *http.Request {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://api.example.com/v1/models", nil)
	if err != nil {
		panic(err)
	}
	for _, h := range []string{
		"Accept", "Content-Type", "User-Agent", "X-Request-Id", "Accept-Encoding", "Accept-Language",
		"Traceparent", "Tracestate", "Idempotency-Key", "X-Client-Version", "X-Client-Os",
	}[:headers] {
		req.Header.Set(h, "application/json")
	}
	return req
}

// send sends the request and returns the answer's status.
func send(rt http.RoundTripper, req *http.Request) int {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		panic(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// fresh is the path that nearly every request takes: the token is good.
func fresh(headers, goroutines, token int) func(*testing.B, peer) {
	return func(b *testing.B, p peer) {
		rt := p.wrap(&api{}, &issuer{size: token})
		send(rt, newRequest(headers)) // the first token
		b.ReportAllocs()
		if goroutines == 1 {
			req := newRequest(headers)
			for b.Loop() {
				send(rt, req)
			}
			return
		}
		procs := runtime.GOMAXPROCS(0)
		b.SetParallelism((goroutines + procs - 1) / procs)
		b.RunParallel(func(pb *testing.PB) {
			req := newRequest(headers)
			for pb.Next() {
				send(rt, req)
			}
		})
	}
}

// stream sends a body that cannot be had twice.
func stream(size int64) func(*testing.B, peer) {
	return func(b *testing.B, p peer) {
		rt := p.wrap(&api{}, &issuer{})
		send(rt, newRequest(3))
		req := newRequest(3)
		b.ReportAllocs()
		for b.Loop() {
			r := req.WithContext(req.Context()) // azcore changes the request
			r.Method, r.ContentLength = http.MethodPost, size
			r.Body = io.NopCloser(io.LimitReader(zeros{}, size))
			send(rt, r)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// recovery revokes the token before each request. Who does not recover is
// skipped.
func recovery(b *testing.B, p peer) {
	if cured, later := recovers(p); !cured {
		b.Skip(verdict(cured, later))
	}
	i := &issuer{}
	rt := p.wrap(&api{issuer: i}, i)
	req := newRequest(3)
	send(rt, req)
	b.ReportAllocs()
	for b.Loop() {
		i.revoke()
		if status := send(rt, req); status != http.StatusOK {
			b.Fatalf("%s: %d", p.name, status)
		}
	}
}

// recovers reports whether a request whose token was revoked succeeds, and
// whether the next one does.
func recovers(p peer) (cured, later bool) {
	i := &issuer{}
	rt := p.wrap(&api{issuer: i}, i)
	send(rt, newRequest(3))
	i.revoke()
	time.Sleep(time.Millisecond) // client-go goes by the clock
	cured = send(rt, newRequest(3)) == http.StatusOK
	later = send(rt, newRequest(3)) == http.StatusOK
	return cured, later
}

// verdict says it in words.
func verdict(cured, later bool) string {
	switch {
	case cured:
		return "yes"
	case later:
		return "no: returns the 401, the next request is fine"
	}
	return "no: returns the 401, until the token expires"
}

// A crowd is what became of many callers with one revoked token.
type crowd struct {
	refreshes int64
	failed    int64
	last      time.Duration // until the last was answered
}

// The crowd's callers, and how long its refresh and its sends take. Some sends
// take longer than the refresh, as in life: their 401 arrives when all is well
// again.
const (
	callers     = 1000
	refreshTime = 20 * time.Millisecond
	minSend     = 5 * time.Millisecond
	maxSend     = 50 * time.Millisecond
)

// stampede has all callers send at once, with a token that was just revoked.
func stampede(p peer, callers int) crowd {
	i := &issuer{}
	a := &api{issuer: i}
	rt := p.wrap(a, i)
	send(rt, newRequest(3))
	i.revoke()
	i.calls.Store(0)
	i.takes = refreshTime
	// No 401 before the last caller has sent: all of them with the dead token.
	var sends, failed atomic.Int64
	gate := make(chan struct{})
	var start time.Time
	a.takes = func() time.Duration {
		if sends.Add(1) == int64(callers) {
			start = time.Now()
			close(gate)
		}
		<-gate
		return minSend + rand.N(maxSend-minSend)
	}
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			if send(rt, newRequest(3)) != http.StatusOK {
				failed.Add(1)
			}
		})
	}
	all.Wait()
	return crowd{i.calls.Load(), failed.Load(), time.Since(start)}
}

// slug returns a peer's name for go test -bench.
func (p peer) slug() string {
	return strings.NewReplacer(", ", "-", " ", "-", "/", "-").Replace(p.name)
}
