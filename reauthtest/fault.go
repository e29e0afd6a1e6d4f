package reauthtest

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"time"
)

// A Fault is what a server does to one request in place of what it should. It is
// passed to Next, as often as one likes. The zero Fault is none.
//
// A Fault comes before the check of the token, and its answer does not depend on
// that. All but RejectEarly read the request's body first.
type Fault struct {
	serve func(*server, http.ResponseWriter, *http.Request, http.Handler)
}

// Reject answers 401 with error="invalid_token" (RFC 6750 §3.1), whatever the
// token.
func Reject() Fault {
	return Fault{func(s *server, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		drain(r)
		s.reject(w, tokenInvalid)
	}}
}

// RejectEarly answers as Reject does, but before it reads any of the request's
// body: a client that is still sending gets its 401 in the middle of that, and one
// that sent Expect: 100-continue before all of it. It costs the connection; over
// HTTP/2, the stream.
func RejectEarly() Fault {
	return Fault{func(s *server, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // else net/http reads on before it answers
		}
		s.reject(w, tokenInvalid)
	}}
}

// Drop cuts the connection (over HTTP/2, resets the stream) without an answer. The
// request was not served.
//
// An http.Transport repeats a GET by itself, once, when the connection it was sent
// over had been in use before: Sends counts that too, and the client sees nothing.
// A POST without an Idempotency-Key is not repeated, nor anything over HTTP/2.
func Drop() Fault {
	return Fault{func(_ *server, _ http.ResponseWriter, r *http.Request, _ http.Handler) {
		drain(r)
		panic(http.ErrAbortHandler)
	}}
}

// DropAfter serves the request and cuts the connection (over HTTP/2, resets the
// stream) after n bytes of the answer's body, or at its end if it is shorter. If n
// is zero or less, the header is lost too: the request was served, and the client
// does not know. See Drop.
//
// It stops the handler with a panic of http.ErrAbortHandler, in Write: the handler
// must write from the goroutine that it was called on.
func DropAfter(n int) Fault {
	return Fault{func(_ *server, w http.ResponseWriter, r *http.Request, next http.Handler) {
		cut := &cutWriter{ResponseWriter: w, left: max(n, 0)}
		next.ServeHTTP(cut, r)
		cut.Flush() // the header of an answer without a body
		panic(http.ErrAbortHandler)
	}}
}

// A cutWriter passes on the beginning of an answer.
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

// Stall does not answer until release is closed; then the request is served as it
// should be. A nil release never comes. The connection is cut, and the request not
// served, when the client has gone before, or the server is closed.
func Stall(release <-chan struct{}) Fault {
	return Fault{func(_ *server, w http.ResponseWriter, r *http.Request, next http.Handler) {
		body, err := io.ReadAll(r.Body) // or net/http does not see the client go
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

// RedirectTo answers 307 with the URL as its Location, to any token or none.
func RedirectTo(url string) Fault { return Status(http.StatusTemporaryRedirect, "Location", url) }

// InvalidGrant answers 400 with the error invalid_grant (RFC 6749 §5.2): what a
// token endpoint says when the login is over. It is for an Issuer.
func InvalidGrant() Fault {
	return Fault{func(s *server, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		drain(r)
		s.invalidGrant(w)
	}}
}

// Unavailable answers 503, with a Retry-After in seconds, rounded up; none if
// retryAfter is zero or negative.
func Unavailable(retryAfter time.Duration) Fault {
	if retryAfter <= 0 {
		return Status(http.StatusServiceUnavailable)
	}
	return Status(http.StatusServiceUnavailable, "Retry-After", strconv.Itoa(seconds(retryAfter)))
}

// Status answers with the status, and with headers given as pairs of name and
// value. The body is an error with the name of the status, in JSON. A 401 has only
// the challenges that are among the headers. The status is at least 200.
func Status(code int, header ...string) Fault {
	return Fault{func(s *server, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		drain(r)
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		s.fail(w, code, strconv.Itoa(code), http.StatusText(code))
	}}
}

// Respond answers with the status and the body, and the header's keys and values.
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
