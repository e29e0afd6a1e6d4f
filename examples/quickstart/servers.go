package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reauth-go/reauth/reauthtest"
)

// latency is what an issuer elsewhere in the network would take to answer.
const latency = 200 * time.Millisecond

// after returns a channel that is closed when d is over.
func after(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

// A gateway answers as new-api does: any request with a good key gets a 200 that
// says how many bytes it brought, any other the 401 that people paste into
// forums. It has a request id on every response.
type gateway struct {
	*httptest.Server
	issuer *reauthtest.Issuer
	wrong  atomic.Value // what it says of a bad key
}

func newGateway(i *reauthtest.Issuer) *gateway {
	g := &gateway{issuer: i}
	g.wrong.Store("无效的令牌")
	g.Server = httptest.NewServer(g)
	return g
}

// reject makes all keys bad, with the message that says why.
func (g *gateway) reject(message string) {
	g.wrong.Store(message)
	g.issuer.Revoke()
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := requestID()
	w.Header().Set("X-Oneapi-Request-Id", id)
	if !g.issuer.Valid(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":{"code":"","message":"%s (request id: %s)","type":"new_api_error"}}`, g.wrong.Load(), id)
		return
	}
	if r.URL.Path == "/download" {
		http.Redirect(w, r, r.URL.Query().Get("from"), http.StatusFound)
		return
	}
	n, _ := io.Copy(io.Discard, r.Body)
	fmt.Fprintf(w, "received %d bytes", n)
}

// requestID returns an id as the gateway makes them: the time in UTC to the
// nanosecond, and eight letters.
func requestID() string {
	now := time.Now().UTC()
	return now.Format("20060102150405") + fmt.Sprintf("%09d", now.Nanosecond()) + rand.Text()[:8]
}

// A storage is another host, to which the gateway redirects downloads. It notes
// what credentials it is sent.
type storage struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
}

func newStorage() *storage {
	s := &storage{}
	s.Server = httptest.NewServer(s)
	return s
}

func (s *storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, r.Header.Get("Authorization"))
	_, _ = io.WriteString(w, "the file")
}
