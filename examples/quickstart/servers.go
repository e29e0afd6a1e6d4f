package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An issuer hands out keys for a gateway over HTTP, as an authorization server
// would, and can be out of order.
type issuer struct {
	*httptest.Server
	refreshes atomic.Int32
	down      atomic.Bool
	gateway   *gateway
}

func newIssuer(g *gateway) *issuer {
	i := &issuer{gateway: g}
	i.Server = httptest.NewServer(i)
	return i
}

// latency is what an issuer elsewhere in the network would take to answer.
const latency = 200 * time.Millisecond

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(latency):
	case <-r.Context().Done():
		return
	}
	if i.down.Load() {
		http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
		return
	}
	i.refreshes.Add(1)
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": i.gateway.mint(), "expires_in": 3600})
}

// A gateway answers as new-api does: any request with a good key gets a 200 that
// says how many bytes it brought, any other the 401 that people paste into
// forums. It has a request id on every response.
type gateway struct {
	*httptest.Server
	mu   sync.Mutex
	keys map[string]string // the good ones have "", the others what is wrong with them
}

func newGateway() *gateway {
	g := &gateway{keys: map[string]string{}}
	g.Server = httptest.NewServer(g)
	return g
}

// mint returns a new key.
func (g *gateway) mint() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := "sk-" + rand.Text()
	g.keys[key] = ""
	return key
}

// reject makes all keys bad, with the message that says why.
func (g *gateway) reject(message string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key := range g.keys {
		g.keys[key] = message
	}
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := requestID()
	w.Header().Set("X-Oneapi-Request-Id", id)
	g.mu.Lock()
	message, known := g.keys[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	g.mu.Unlock()
	if !known {
		message = "无效的令牌"
	}
	if message != "" {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":{"code":"","message":"%s (request id: %s)","type":"new_api_error"}}`, message, id)
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
