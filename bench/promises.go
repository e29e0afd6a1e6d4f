package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/reauth-go/reauth"
)

// A promise is a figure with a bound.
type promise struct {
	what     string
	measured float64
	unit     string
	bound    float64
}

// promises returns what was measured of the rows, and measures the rest.
func promises(costs []map[string]cost, rounds int) []promise {
	added := func(row int, p, other peer) float64 { return costs[row][p.name].ns / costs[row][other.name].ns }
	list := []promise{
		{"3 headers, time added, in that of the floor", added(0, ours, least), "", 1.15},
		{"3 headers, time added, in that of x/oauth2", added(0, ours, xoauth2), "", 0.8},
		{"3 headers, allocations added", costs[0][ours.name].allocs, "", 3},
		{"3 headers, 64 goroutines, time added, in that of the floor", added(1, ours, least), "", 1.2},
		{"11 headers, time added, in that of the floor", added(2, ours, least), "", 1.35},
		{"2 Origins listed, time added, in that of the floor", added(rowNamed("fresh/headers=3/origins=2"), oursOrigins, least), "", 1.35},
	}
	stream := rowNamed("stream/size=64KiB")
	whole := func(p peer) float64 { return costs[stream][base.name].ns + costs[stream][p.name].ns }
	list = append(list,
		promise{"64 KiB without GetBody, time, in that of x/oauth2", whole(ours) / whole(xoauth2), "", 2.5},
		promise{"64 KiB without GetBody, bytes", costs[stream][base.name].bytes + costs[stream][ours.name].bytes, "B", 3000},
		promise{"64 KiB without GetBody, allocations", costs[stream][base.name].allocs + costs[stream][ours.name].allocs, "", 25},
		promise{"1 MiB without GetBody over real TLS, time, in that of x/oauth2", overTLS(rounds), "", 1.2},
	)
	var refreshes, failed int64
	const crowdsOf10000 = 50
	for range crowdsOf10000 {
		c := stampede(ours, 10_000)
		refreshes, failed = max(refreshes, c.refreshes), failed+c.failed
	}
	list = append(list,
		promise{"10,000 goroutines with one rejected token, 50 times: refreshes of the worst", float64(refreshes), "", 1},
		promise{"the same: requests that failed", float64(failed), "", 0},
	)
	size, goroutines := idleCredentials(100_000)
	return append(list,
		promise{"100,000 Credentials used once: heap for each", size, "B", 1000},
		promise{"the same: goroutines left", float64(goroutines), "", 0},
	)
}

func rowNamed(name string) int {
	for i, r := range rows {
		if r.name == name {
			return i
		}
	}
	panic("no row " + name)
}

// overTLS returns the time of an upload of 1 MiB through reauth, in that through
// x/oauth2, over HTTP/2 and TLS on loopback. The two take turns.
func overTLS(rounds int) float64 {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, srv.URL, nil)
	if err != nil {
		panic(err)
	}
	var rts []http.RoundTripper
	for _, p := range []peer{ours, xoauth2} {
		rts = append(rts, p.wrap(srv.Client().Transport, &issuer{}))
	}
	const size, uploads = 1 << 20, 16
	upload := func(rt http.RoundTripper) time.Duration {
		start := time.Now()
		for range uploads {
			r := req.WithContext(req.Context())
			r.ContentLength = size
			r.Body = io.NopCloser(io.LimitReader(zeros{}, size))
			send(rt, r)
		}
		return time.Since(start)
	}
	var ratios []float64
	for i := range rounds + 1 {
		mine, theirs := upload(rts[0]), upload(rts[1])
		if i > 0 { // the first round makes the connection
			ratios = append(ratios, float64(mine)/float64(theirs))
		}
	}
	return median(ratios, func(f float64) float64 { return f })
}

// idleCredentials returns the bytes on the heap for each of n Credentials, each of which
// has had one request, and the goroutines that are left.
func idleCredentials(n int) (size float64, goroutines int) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	quiet := slog.New(slog.DiscardHandler)
	refresher := reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{AccessToken: strings.Repeat("x", opaque), RefreshToken: strings.Repeat("y", opaque), Expiry: time.Now().Add(lifetime)}, nil
	})
	all := make([]*reauth.Credential, n)
	rt := &reauth.Transport{Base: &api{}, Logger: quiet, CredentialFor: func(req *http.Request) (*reauth.Credential, error) {
		return req.Context().Value(floorKey{}).(*reauth.Credential), nil
	}}
	send(&reauth.Transport{Base: &api{}, Logger: quiet, Credential: &reauth.Credential{Refresher: refresher, Logger: quiet}}, newRequest(3))
	running, before := runtime.NumGoroutine(), heap()
	var wg sync.WaitGroup
	for part := range 8 {
		wg.Go(func() {
			for i := part; i < n; i += 8 {
				all[i] = &reauth.Credential{Refresher: refresher, Logger: quiet}
				req := newRequest(3)
				send(rt, req.WithContext(context.WithValue(req.Context(), floorKey{}, all[i])))
			}
		})
	}
	wg.Wait()
	size = float64(heap()-before) / float64(n)
	goroutines = max(0, runtime.NumGoroutine()-running)
	runtime.KeepAlive(all)
	return size, goroutines
}

// promiseTable prints the promises.
func promiseTable(out *strings.Builder, list []promise) {
	line(out, []string{"promise", "measured", "bound", ""})
	line(out, []string{"---", "---", "---", "---"})
	for _, p := range list {
		verdict := "holds"
		if p.measured > p.bound {
			verdict = "exceeded"
		}
		line(out, []string{p.what, strings.TrimSpace(fmt.Sprintf("%.2f %s", p.measured, p.unit)), strings.TrimSpace(fmt.Sprintf("%g %s", p.bound, p.unit)), verdict})
	}
}
