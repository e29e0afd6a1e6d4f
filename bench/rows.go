package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"time"
)

// A row is a request that is measured with several peers. The first of them is
// the base.
type row struct {
	name       string // for go test -bench, in the syntax of benchstat
	title      string // for the tables
	peers      []peer
	goroutines int
	limits     limits
	setUp      setUp
}

// A setUp makes a base, and a caller for each of the peers over it. done releases
// the base.
type setUp func(peers []peer) (callers []caller, done func())

// A caller returns the function with which one goroutine sends a request.
type caller func() (send func())

// limits are the most that reauth may cost in a row. Zero means that there is no
// limit.
type limits struct {
	floor   float64 // the time added to the base's, as a ratio to what the floor adds
	oauth2  float64 // the same, to what x/oauth2 adds
	request float64 // the time of the whole request, as a ratio to that with x/oauth2
	allocs  float64 // added to the base's
	bytes   float64 // added to the base's
}

var (
	freshPeers    = []peer{baseOnly, leastWork, ours, oursNoExpiry, xoauth2, az, clientGo, google}
	originsPeers  = []peer{baseOnly, leastWork, oursOrigins, xoauth2}
	streamPeers   = []peer{baseOnly, leastWork, ours, xoauth2}
	tlsPeers      = []peer{baseOnly, ours, xoauth2}
	recoveryPeers = []peer{leastRecovery, oursNoWait, xoauth2, az, azOnChallenge, clientGo, google}
	rejectedPeers = []peer{ours, xoauth2, az, azOnChallenge, clientGo, google}

	rows = []row{
		{"fresh/headers=3/goroutines=1/token=1kB", "3 headers", freshPeers, 1,
			limits{floor: 1.15, oauth2: 0.8, allocs: 3}, fresh(3, jwt)},
		{"fresh/headers=3/goroutines=64/token=1kB", "3 headers, 64 goroutines", freshPeers, 64,
			limits{floor: 1.2, oauth2: 0.8, allocs: 3}, fresh(3, jwt)},
		{"fresh/headers=11/goroutines=1/token=1kB", "11 headers", freshPeers, 1,
			limits{floor: 1.35}, fresh(11, jwt)},
		{"fresh/headers=11/goroutines=64/token=1kB", "11 headers, 64 goroutines", freshPeers, 64,
			limits{}, fresh(11, jwt)},
		{"fresh/headers=3/goroutines=1/token=40B", "3 headers, token of 40 bytes", freshPeers, 1,
			limits{}, fresh(3, opaque)},
		{"fresh/headers=3/goroutines=1/origins=2", "2 Origins listed", originsPeers, 1,
			limits{floor: 1.35}, fresh(3, jwt)},
		{"stream/size=64KiB", "64 KiB without GetBody", freshPeers, 1,
			limits{oauth2: 2.5, allocs: 25, bytes: 3000}, stream(64<<10, true)},
		{"stream/size=64KiB/length=unknown", "64 KiB of unknown length without GetBody", streamPeers, 1,
			limits{oauth2: 2.5, allocs: 25, bytes: 3000}, stream(64<<10, false)},
		{"tls/size=1MiB", "1 MiB over real TLS", tlsPeers, 1,
			limits{request: 1.2}, streamTLS(1 << 20)},
	}
	recoveryRow = row{"recovery/callers=1", "one 401 recovered", recoveryPeers, 1, limits{}, recovery}
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

// send sends the request and returns the status of the response.
func send(rt http.RoundTripper, req *http.Request) int {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		panic(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// fresh sends requests with a token that is good.
func fresh(headers, token int) setUp {
	return func(peers []peer) (callers []caller, done func()) {
		for _, p := range peers {
			rt := p.wrap(&api{}, &issuer{size: token})
			callers = append(callers, func() func() {
				req := newRequest(headers)
				return func() { send(rt, req) }
			})
		}
		return callers, func() {}
	}
}

// stream sends a body that has no GetBody. The request says how long it is, if
// known is true.
func stream(size int64, known bool) setUp {
	return func(peers []peer) (callers []caller, done func()) {
		length := int64(-1)
		if known {
			length = size
		}
		for _, p := range peers {
			callers = append(callers, streamCaller(p.wrap(&api{}, &issuer{}), newRequest(3), size, length))
		}
		return callers, func() {}
	}
}

// streamTLS sends such a body over TLS to a server in the same process. All peers share
// one connection.
func streamTLS(size int64) setUp {
	return func(peers []peer) (callers []caller, done func()) {
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if n, err := io.Copy(io.Discard, req.Body); n != size || err != nil {
				w.WriteHeader(http.StatusBadRequest)
			}
		}))
		req, err := http.NewRequest(http.MethodPost, server.URL, nil)
		if err != nil {
			panic(err)
		}
		for _, p := range peers {
			callers = append(callers, streamCaller(p.wrap(server.Client().Transport, &issuer{}), req, size, size))
		}
		return callers, server.Close
	}
}

// streamCaller sends copies of req with a body of that size.
func streamCaller(rt http.RoundTripper, req *http.Request, size, length int64) caller {
	return func() func() {
		return func() {
			r := req.WithContext(req.Context()) // azcore modifies the request
			r.Method, r.ContentLength = http.MethodPost, length
			r.Body = io.NopCloser(io.LimitReader(zeros{}, size))
			if status := send(rt, r); status != http.StatusOK {
				panic(http.StatusText(status))
			}
		}
	}
}

// zeros is a reader that never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// recovery revokes the token before each request.
func recovery(peers []peer) (callers []caller, done func()) {
	for _, p := range peers {
		i := &issuer{}
		rt := p.wrap(&api{issuer: i}, i)
		req := newRequest(3)
		send(rt, req)
		callers = append(callers, func() func() {
			return func() {
				i.revoke()
				if status := send(rt, req); status != http.StatusOK {
					panic(p.name + ": " + http.StatusText(status))
				}
			}
		})
	}
	return callers, func() {}
}

// recovers reports whether a request whose token was revoked succeeds, and
// whether the next one does.
func recovers(p peer) (first, next bool) {
	i := &issuer{}
	rt := p.wrap(&api{issuer: i}, i)
	send(rt, newRequest(3))
	i.revoke()
	time.Sleep(time.Millisecond) // client-go compares times
	first = send(rt, newRequest(3)) == http.StatusOK
	next = send(rt, newRequest(3)) == http.StatusOK
	return first, next
}

// verdict describes the results of recovers.
func verdict(first, next bool) string {
	switch {
	case first:
		return "yes"
	case next:
		return "no: returns the 401, the next request succeeds"
	}
	return "no: returns the 401, until the token expires"
}
