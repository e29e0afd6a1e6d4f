package reauthtest

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"time"
)

// A Fault replaces the response to one request. It is passed to Next, and may be used
// more than once. The zero Fault has no effect.
//
// A Fault takes effect before the token is checked, and does not depend on the token.
// All Faults except RejectEarly read the body of the request first.
type Fault struct {
	serve func(*server, http.ResponseWriter, *http.Request, http.Handler)
}

// Reject responds with a 401 and error="invalid_token" (RFC 6750 §3.1), whatever the
// token.
func Reject() Fault {
	return Fault{func(s *server, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		drain(r)
		s.reject(w, tokenInvalid)
	}}
}

// RejectEarly is like Reject, but responds before it reads the body of the request. A
// client gets the 401 while it sends the body. A client that sent Expect: 100-continue
// gets it before it sends the body. The connection is closed; over HTTP/2, the stream.
func RejectEarly() Fault {
	return Fault{func(s *server, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // else net/http reads the body before it responds
		}
		s.reject(w, tokenInvalid)
	}}
}

// Drop cuts the connection without a response, or resets the stream over HTTP/2. The
// request is not served.
//
// An http.Transport itself resends a GET once if its connection was used before. Sends
// counts that too, and the client does not notice it. An http.Transport does not resend
// a POST without an Idempotency-Key, or a request over HTTP/2.
func Drop() Fault {
	return Fault{func(_ *server, _ http.ResponseWriter, r *http.Request, _ http.Handler) {
		drain(r)
		panic(http.ErrAbortHandler)
	}}
}

// DropAfter serves the request, and cuts the connection after n bytes of the response
// body, or at its end if it is shorter. Over HTTP/2 it resets the stream. If n is zero
// or negative, the response header is not sent either: the request is served, and the
// client gets no response. See also Drop.
//
// Write of the ResponseWriter panics with http.ErrAbortHandler. The handler must call
// it from the goroutine that it was called on.
func DropAfter(n int) Fault {
	return Fault{func(_ *server, w http.ResponseWriter, r *http.Request, next http.Handler) {
		cut := &cutWriter{ResponseWriter: w, left: max(n, 0)}
		next.ServeHTTP(cut, r)
		cut.Flush() // the header of a response without a body
		panic(http.ErrAbortHandler)
	}}
}

// A cutWriter passes on the beginning of a response.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) WriteHeader(status int) {
	if w.left > 0 {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *cutWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	if n > 0 {
		_, _ = w.ResponseWriter.Write(p[:n])
		_ = http.NewResponseController(w.ResponseWriter).Flush() // the panic would lose it
	}
	if w.left == 0 {
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

// Flush implements http.Flusher, for handlers that stream.
func (w *cutWriter) Flush() {
	if w.left > 0 {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
	}
}

// Stall does not respond until release is closed, and then serves the request. If
// release is nil, Stall never serves the request. If the client disconnects or the
// server is closed before that, the connection is cut, and the request is not served.
func Stall(release <-chan struct{}) Fault {
	return Fault{func(_ *server, w http.ResponseWriter, r *http.Request, next http.Handler) {
		body, err := io.ReadAll(r.Body) // else net/http does not notice that the client disconnects
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		select {
		case <-release:
			r.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}}
}

// RedirectTo responds with a 307 and the URL as its Location, whatever the token.
func RedirectTo(url string) Fault { return Status(http.StatusTemporaryRedirect, "Location", url) }

// InvalidGrant responds with a 400 and the error invalid_grant (RFC 6749 §5.2), as a
// token endpoint does if the login has ended. It is for an Issuer.
func InvalidGrant() Fault {
	return Fault{func(s *server, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		drain(r)
		s.invalidGrant(w)
	}}
}

// Unavailable responds with a 503 and a Retry-After in seconds, rounded up. If
// retryAfter is zero or negative, there is no Retry-After.
func Unavailable(retryAfter time.Duration) Fault {
	if retryAfter <= 0 {
		return Status(http.StatusServiceUnavailable)
	}
	return Status(http.StatusServiceUnavailable, "Retry-After", strconv.Itoa(seconds(retryAfter)))
}

// Status responds with the status code, and with headers that are given as pairs of
// name and value. The body is a JSON error with the name of the status. A 401 has only
// the challenges in the headers. The code must be at least 200.
func Status(code int, header ...string) Fault {
	return Fault{func(s *server, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		drain(r)
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		s.fail(w, code, strconv.Itoa(code), http.StatusText(code))
	}}
}

// Respond responds with the status code and the body, and with headers that are given
// as pairs of name and value.
func Respond(code int, body string, header ...string) Fault {
	return Fault{func(_ *server, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		drain(r)
		for n := 0; n+1 < len(header); n += 2 {
			w.Header().Add(header[n], header[n+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}}
}

func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
