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
	oauth       bool // errors are in the words of RFC 6749 §5.2, not in those of an API

	mu     sync.Mutex // guards what is below, and the same of the Issuer or API around it
	faults []Fault    // of the next requests
	down   bool
}

func (s *server) start(handler http.Handler, tls bool) {
	s.closing = make(chan struct{})
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.closing: // net/http sends some of what Close cuts off again, before the listener is gone
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

// Close ends the server. It cuts the connections that are open, those of requests
// under way too, and waits until their handlers have returned. It may be called
// more than once.
func (s *server) Close() {
	s.close.Do(func() {
		close(s.closing)
		s.http.CloseClientConnections() // or a Stall, or a client that holds its body or ours, would hold it up
	})
	s.http.Close()
}

// Next has the next requests meet the faults, one each, in order, behind those that
// wait already. The zero Fault lets a request pass.
func (s *server) Next(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// Down makes the server answer 503 to everything, or lets it come back. The faults
// of Next wait meanwhile.
func (s *server) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Connections returns how many connections were accepted so far.
func (s *server) Connections() int { return int(s.connections.Load()) }

// fault returns what is to befall the request that has just arrived.
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

// faulty serves what handler does, where there is no fault to be met.
func (s *server) faulty(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := s.fault(); f.serve != nil {
			f.serve(s, w, r, handler)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// What can be wrong with a token, in words that are common (RFC 6750 §3).
const (
	tokenInvalid = "The access token is invalid"
	tokenExpired = "The access token expired"
	tokenRevoked = "The access token was revoked"
)

// reject answers 401 (RFC 6750 §3.1), without reading what the client still sends.
func (s *server) reject(w http.ResponseWriter, description string) {
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="invalid_token", error_description=%q`, description))
	s.fail(w, http.StatusUnauthorized, "invalid_token", description)
}

// fail answers with an error. It must not tell what the request brought along.
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

// drain reads the request's body, so that the client has sent it before it is
// answered.
func drain(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
