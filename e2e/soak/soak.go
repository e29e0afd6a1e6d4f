package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
	"github.com/reauth-go/reauth/refresher"
)

const (
	revokeEvery = 2 * time.Second
	quiet       = 500 * time.Millisecond // after a refresh, in which nothing is revoked
	think       = 100 * time.Millisecond // between a caller's requests, at random twice that at most
	maxBody     = 64 << 10
	events      = 20 // of a stream
)

// A report says what a soak did.
type report struct {
	Requests, Gets, Posts, Pipes, Streams int64 // served
	Rejected                              int   // 401s that the API answered
	Revocations, Refreshes                int
	Sends                                 int // requests that reached the API
	TokenRequests, Unavailable            int64
	Goroutines, GoroutinesAfter           int
	Heap, HeapAfter                       uint64 // bytes
	Took                                  time.Duration
}

func (r report) String() string {
	return fmt.Sprintf("%v: %d requests (%d GET, %d POST with GetBody, %d POST without, %d streams), %d sends, %d 401s met\n"+
		"%d revocations, %d refreshes, %d token requests of which %d were answered 503\n"+
		"goroutines %d, then %d; heap %d KiB, then %d KiB",
		r.Took.Round(time.Second), r.Requests, r.Gets, r.Posts, r.Pipes, r.Streams, r.Sends, r.Rejected,
		r.Revocations, r.Refreshes, r.TokenRequests, r.Unavailable,
		r.Goroutines, r.GoroutinesAfter, r.Heap>>10, r.HeapAfter>>10)
}

// A world is the servers, and the client between them.
type world struct {
	issuer *reauthtest.Issuer
	front  *httptest.Server // of the issuer: it answers 503 a third of the time
	api    *httptest.Server
	client *http.Client
	cred   *reauth.Credential

	tokenRequests, unavailable  atomic.Int64
	sends, rejected             atomic.Int64
	gets, posts, pipes, streams atomic.Int64
	refreshed                   atomic.Int64 // when the last refresh ended, in Unix nanoseconds
	refreshes                   atomic.Int64
	applied                     sync.Map // how often each request was, by its number
	next                        atomic.Int64
	begun                       []atomic.Int64 // when each caller began his request; 0: he has none
	failures                    chan error
}

// soak runs for a time and returns what happened, and what should not have.
func soak(ctx context.Context, length time.Duration, callers int) (report, error) {
	var r report
	r.Goroutines, r.Heap = settled(0)
	w := newWorld(callers)
	if err := w.login(ctx); err != nil {
		return r, err
	}
	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() { w.call(ctx, stop, &w.begun[i]) })
	}
	var failed error
	revoked := make(chan int, 1)
	go func() { revoked <- w.revoke(ctx, time.After(length)) }()
	select {
	case r.Revocations = <-revoked:
	case failed = <-w.failures:
		cancel()
		r.Revocations = <-revoked
	}
	close(stop)
	all.Wait()
	select {
	case err := <-w.failures:
		failed = errors.Join(failed, err)
	default:
	}
	r.Took = time.Since(began)
	r.Gets, r.Posts, r.Pipes, r.Streams = w.gets.Load(), w.posts.Load(), w.pipes.Load(), w.streams.Load()
	r.Requests = r.Gets + r.Posts + r.Pipes + r.Streams
	r.Refreshes = int(w.refreshes.Load())
	r.Sends, r.Rejected = int(w.sends.Load()), int(w.rejected.Load())
	r.TokenRequests, r.Unavailable = w.tokenRequests.Load(), w.unavailable.Load()
	twice := 0
	w.applied.Range(func(_, n any) bool {
		if n.(*atomic.Int64).Load() != 1 {
			twice++
		}
		return true
	})
	w.close(ctx)
	r.GoroutinesAfter, r.HeapAfter = settled(r.Goroutines)

	switch {
	case failed != nil:
		return r, failed
	case twice > 0:
		return r, fmt.Errorf("%d requests were applied more than once", twice)
	case r.Refreshes != r.Revocations:
		return r, fmt.Errorf("%d refreshes for %d revocations", r.Refreshes, r.Revocations)
	case r.GoroutinesAfter > r.Goroutines:
		return r, fmt.Errorf("%d goroutines are left", r.GoroutinesAfter-r.Goroutines)
	case r.HeapAfter > r.Heap+8<<20:
		return r, fmt.Errorf("the heap has grown by %d KiB", (r.HeapAfter-r.Heap)>>10)
	}
	return r, nil
}

// settled returns the goroutines and the heap when there are no more than want of
// the former, or after five seconds.
func settled(want int) (int, uint64) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 100 {
		if runtime.NumGoroutine() <= want || want == 0 {
			break
		}
		<-tick.C
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapAlloc
}

func newWorld(callers int) *world {
	w := &world{issuer: reauthtest.NewIssuer(), failures: make(chan error, 1), begun: make([]atomic.Int64, callers)}
	w.issuer.SetRotate(true)
	token, _ := url.Parse(w.issuer.URL())
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: token.Scheme, Host: token.Host}) },
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	w.front = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.tokenRequests.Add(1)%3 == 1 { // the first one too
			w.unavailable.Add(1)
			http.Error(rw, "out of order", http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	w.api = httptest.NewServer(http.HandlerFunc(w.serve))
	quietly := slog.New(slog.DiscardHandler)
	w.cred = &reauth.Credential{
		RefreshEvery: time.Second, // tokens are revoked every two seconds
		Logger:       quietly,
		Refresher: &refresher.OAuth2{Config: oauth2.Config{
			ClientID: "soak", Endpoint: oauth2.Endpoint{TokenURL: w.front.URL + token.Path},
		}},
		OnRefresh: func(_ context.Context, e reauth.RefreshInfo) {
			if e.Err != nil {
				w.fail(e.Err)
				return
			}
			w.refreshes.Add(1)
			w.refreshed.Store(time.Now().UnixNano())
		},
	}
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxIdleConnsPerHost = 1000
	w.client = &http.Client{Transport: &reauth.Transport{Base: base, Credential: w.cred, Logger: quietly}}
	return w
}

// login gets the first tokens from the issuer itself.
func (w *world) login(ctx context.Context) error {
	tok, err := w.issuer.Refresh(ctx, reauth.Stale{})
	if err != nil {
		return err
	}
	return w.cred.Set(ctx, tok)
}

func (w *world) close(ctx context.Context) {
	_ = w.cred.Shutdown(ctx)
	w.client.CloseIdleConnections()
	w.api.Close()
	w.front.Close()
	w.issuer.Close()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func (w *world) fail(err error) {
	select {
	case w.failures <- err:
	default: // the first is enough
	}
}

// revoke revokes the token from time to time until the end, each time when it has
// been replaced for long enough, and returns how often.
func (w *world) revoke(ctx context.Context, end <-chan time.Time) int {
	tick := time.NewTicker(revokeEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-end:
			w.replaced(ctx, n)
			return n
		case <-ctx.Done():
			return n
		}
		w.replaced(ctx, n)
		w.issuer.Revoke()
	}
}

// replaced waits until there were n refreshes, the last of them some time ago, and
// no request is under way that began before it: on a busy machine one could meet
// two revocations, and there is one retry.
func (w *world) replaced(ctx context.Context, n int) {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for int(w.refreshes.Load()) < n || time.Since(time.Unix(0, w.refreshed.Load())) < quiet || w.oldest() <= w.refreshed.Load() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// oldest returns when the oldest request began that is under way.
func (w *world) oldest() int64 {
	least := time.Now().UnixNano()
	for i := range w.begun {
		if b := w.begun[i].Load(); b != 0 {
			least = min(least, b)
		}
	}
	return least
}

// serve is the API: it takes a body and says what it has got, or streams. Half of
// its refusals come before it has read the body.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	w.sends.Add(1)
	number := r.Header.Get("X-Number")
	if token := r.Header.Get("Authorization"); len(token) < 7 || !w.issuer.Valid(token[7:]) {
		w.rejected.Add(1)
		if rand.N(2) == 0 {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		rw.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	n, _ := w.applied.LoadOrStore(number, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	if r.URL.Path == "/stream" {
		for i := range events {
			fmt.Fprintf(rw, "data: %s %d\n\n", number, i)
			_ = http.NewResponseController(rw).Flush()
			select {
			case <-time.After(think / events):
			case <-r.Context().Done():
				return
			}
		}
		return
	}
	sum := sha256.New()
	size, _ := io.Copy(sum, r.Body)
	fmt.Fprintf(rw, "%s %d %x", number, size, sum.Sum(nil))
}

// call sends requests of all kinds, one after the other.
func (w *world) call(ctx context.Context, stop <-chan struct{}, begun *atomic.Int64) {
	for {
		var err error
		begun.Store(time.Now().UnixNano())
		switch rand.N(4) {
		case 0:
			err = w.exchange(ctx, http.MethodGet, nil, false, &w.gets)
		case 1:
			err = w.exchange(ctx, http.MethodPost, body(), false, &w.posts)
		case 2:
			err = w.exchange(ctx, http.MethodPost, body(), true, &w.pipes)
		case 3:
			err = w.stream(ctx)
		}
		begun.Store(0)
		if err != nil {
			w.fail(err)
			return
		}
		select {
		case <-time.After(rand.N(2 * think)):
		case <-stop:
			return
		}
	}
}

// noise is what bodies are cut from.
var noise = func() []byte {
	b := make([]byte, 2*maxBody)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}()

func body() []byte {
	at := rand.N(maxBody)
	return noise[at : at+rand.N(maxBody)]
}

// exchange sends a request and holds the answer against what was sent.
func (w *world) exchange(ctx context.Context, method string, content []byte, piped bool, count *atomic.Int64) error {
	var upload io.Reader = bytes.NewReader(content)
	if piped { // net/http knows of no way to read it again
		upload = io.NopCloser(upload)
	}
	if method == http.MethodGet {
		upload = nil
	}
	sum := sha256.Sum256(content)
	return w.send(ctx, method, "/", upload, count, func(number string) string {
		return number + " " + strconv.Itoa(len(content)) + " " + hex.EncodeToString(sum[:])
	})
}

func (w *world) stream(ctx context.Context) error {
	return w.send(ctx, http.MethodGet, "/stream", nil, &w.streams, func(number string) string {
		var b bytes.Buffer
		for i := range events {
			fmt.Fprintf(&b, "data: %s %d\n\n", number, i)
		}
		return b.String()
	})
}

func (w *world) send(ctx context.Context, method, path string, upload io.Reader, count *atomic.Int64, want func(number string) string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // what hangs is to be told
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, w.api.URL+path, upload)
	if err != nil {
		return err
	}
	number := strconv.FormatInt(w.next.Add(1), 10)
	req.Header.Set("X-Number", number)
	resp, err := w.client.Do(req)
	if err != nil {
		return fmt.Errorf("request %s, %s %s: %w", number, method, path, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("request %s, %s %s: the answer was cut: %w", number, method, path, err)
	case resp.StatusCode != http.StatusOK:
		o, _ := reauth.OutcomeOf(resp)
		return fmt.Errorf("request %s, %s %s: status %d: %+v", number, method, path, resp.StatusCode, o)
	case string(got) != want(number):
		return fmt.Errorf("request %s, %s %s: another body arrived than was sent", number, method, path)
	}
	count.Add(1)
	return nil
}
