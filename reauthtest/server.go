package reauthtest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
)

// A server is what an Issuer and an API have in common.
type server struct {
	http        *httptest.Server
	connections atomic.Int64
	closing     chan struct{} // closed by Close
	close       sync.Once
	oauth       bool // errors have the form of RFC 6749 §5.2, not that of an API

	mu     sync.Mutex // guards the fields below, and those of the Issuer or API that embeds the server
	faults []Fault    // of the next requests
	down   bool
}

func (s *server) start(handler http.Handler, tls bool) {
	s.closing = make(chan struct{})
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.closing: // net/http may resend a request that Close has cut off, before the listener is closed
			panic(http.ErrAbortHandler)
		default:
		}
		w.Header().Set("X-Request-Id", rand.Text())
		handler.ServeHTTP(w, r)
	}))
	s.http.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	if tls {
		s.http.EnableHTTP2 = true
		s.http.StartTLS()
		return
	}
	s.http.Start()
}

// Close shuts down the server. It closes all connections, including those of requests
// in progress, and waits until the handlers have returned. It may be called more than
// once.
func (s *server) Close() {
	s.close.Do(func() {
		close(s.closing)
		s.http.CloseClientConnections() // else a Stall, or a client that does not send or read a body, would delay Close
	})
	s.http.Close()
}

// Next applies the faults to the next requests, one to each, in order. They follow the
// faults of earlier calls. The zero Fault has no effect on its request.
func (s *server) Next(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// Down sets whether the server responds to each request with a 503. The faults of Next
// are kept meanwhile.
func (s *server) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Connections returns how many connections the server has accepted.
func (s *server) Connections() int { return int(s.connections.Load()) }

// fault returns the Fault for a request that has arrived.
func (s *server) fault() Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down:
		return Unavailable(0)
	case len(s.faults) == 0:
		return Fault{}
	}
	f := s.faults[0]
	s.faults = s.faults[1:]
	return f
}

// faulty serves a request with its Fault, or with handler if there is none.
func (s *server) faulty(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := s.fault(); f.serve != nil {
			f.serve(s, w, r, handler)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// Why a token is not valid, in common words (RFC 6750 §3).
const (
	tokenInvalid = "The access token is invalid"
	tokenExpired = "The access token expired"
	tokenRevoked = "The access token was revoked"
)

// reject responds with a 401 (RFC 6750 §3.1), without reading the body of the request.
func (s *server) reject(w http.ResponseWriter, description string) {
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="invalid_token", error_description=%q`, description))
	s.fail(w, http.StatusUnauthorized, "invalid_token", description)
}

// fail responds with an error, which must not contain anything of the request.
func (s *server) fail(w http.ResponseWriter, status int, code, message string) {
	if s.oauth {
		writeJSON(w, status, map[string]string{"error": code, "error_description": message})
		return
	}
	writeJSON(w, status, map[string]any{"error": map[string]string{
		"code": code, "message": message, "request_id": w.Header().Get("X-Request-Id"),
	}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Cache-Control", "no-store") // RFC 6749 §5.1
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// drain reads the body of the request, so that the client has sent it before the
// response.
func drain(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
