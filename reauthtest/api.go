package reauthtest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
)

// An API is a server on loopback that accepts the tokens of an Issuer, and answers
// 401 to any other (RFC 6750 §3), when it has read the request's body. It is made
// by NewAPI or NewTLSAPI, and closed by its user. It is safe for concurrent use.
//
// Every response has an X-Request-Id. A 401 has a challenge and a body in JSON, an
// error with a code, a message and the request_id.
type API struct {
	server

	issuers  []*Issuer    // whose tokens it accepts; guarded by server.mu, as all below
	rejects  http.Handler // nil: as RFC 6750 has it
	header   string       // where the token is
	requests []Request    // in the order of their arrival
}

// A Request is one that arrived at an API.
type Request struct {
	Method string
	Path   string      // with its query
	Header http.Header // with the token that it carried; not to be changed
	ID     string      // X-Request-Id of the answer
	Status int         // of the answer; 0 if there is none yet, or none came before the connection was cut
}

// NewAPI starts an API over HTTP/1.1, which accepts the tokens of i. handler stands
// behind the check of the token, and may take over the connection; nil means one
// that sends the request's body back when it has all of it, with its Content-Type.
func NewAPI(i *Issuer, handler http.Handler) *API { return newAPI(i, handler, false) }

// NewTLSAPI does what NewAPI does, over TLS and HTTP/2. Base trusts its certificate.
func NewTLSAPI(i *Issuer, handler http.Handler) *API { return newAPI(i, handler, true) }

func newAPI(i *Issuer, handler http.Handler, tls bool) *API {
	if handler == nil {
		handler = http.HandlerFunc(echo)
	}
	a := &API{issuers: []*Issuer{i}, header: "Authorization"}
	a.start(a.record(a.faulty(a.guard(handler))), tls)
	return a
}

// URL returns the API's address, without a slash at its end.
func (a *API) URL() string { return a.http.URL }

// Base returns the transport to reach the API by, for reauth.Transport.Base: it
// trusts the certificate of this and every other NewTLSAPI. It is the same
// *http.Transport each time. Close closes its idle connections.
func (a *API) Base() http.RoundTripper { return a.http.Client().Transport }

// SetHeader has the API expect the bare token in another header, such as X-Api-Key.
// It begins with Authorization and the scheme Bearer, to which "Authorization"
// returns.
func (a *API) SetHeader(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.header = http.CanonicalHeaderKey(name)
}

// Accept has the API accept the tokens of more issuers, as one with several tenants does.
func (a *API) Accept(more ...*Issuer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.issuers = append(a.issuers, more...)
}

// SetRejection has h answer the requests whose token is refused, or is missing, in the
// words of a server of one's own. The request's body has been read. Nil returns to those
// of RFC 6750.
func (a *API) SetRejection(h http.Handler) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rejects = h
}

// verdict returns what is wrong with an access token, or "".
func (a *API) verdict(token string) (why string) {
	a.mu.Lock()
	issuers := slices.Clone(a.issuers)
	a.mu.Unlock()
	for _, i := range issuers {
		switch v := i.verdict(token); {
		case v == "":
			return ""
		case why == "" || v != tokenInvalid: // it is the one who knows the token
			why = v
		}
	}
	return why
}

// Sends returns how many requests arrived, whatever their answer.
func (a *API) Sends() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.requests)
}

// Rejections returns how many requests were answered 401.
func (a *API) Rejections() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, r := range a.requests {
		if r.Status == http.StatusUnauthorized {
			n++
		}
	}
	return n
}

// Requests returns what arrived so far, in order.
func (a *API) Requests() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

// record keeps what arrives, and the status of its answer.
func (a *API) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		n := len(a.requests)
		a.requests = append(a.requests, Request{
			Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header.Clone(), ID: w.Header().Get("X-Request-Id"),
		})
		a.mu.Unlock()
		noting := &statusWriter{ResponseWriter: w, note: func(status int) {
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.requests[n].Status == 0 {
				a.requests[n].Status = status
			}
		}}
		next.ServeHTTP(noting, r)
		noting.note(http.StatusOK) // of a handler that wrote nothing
	})
}

// guard lets requests with a good token through to next.
func (a *API) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := a.token(r.Header)
		a.mu.Lock()
		own := a.rejects
		a.mu.Unlock()
		if own != nil && (token == "" || a.verdict(token) != "") {
			drain(r)
			own.ServeHTTP(w, r)
			return
		}
		if token == "" { // RFC 6750 §3.1: no error code where there were no credentials
			drain(r)
			w.Header().Set("WWW-Authenticate", `Bearer realm="reauthtest"`)
			a.fail(w, http.StatusUnauthorized, "unauthorized", "No access token was sent")
			return
		}
		if why := a.verdict(token); why != "" {
			drain(r)
			a.reject(w, why)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// token returns the token that a request carries, or "".
func (a *API) token(h http.Header) string {
	a.mu.Lock()
	name := a.header
	a.mu.Unlock()
	if name != "Authorization" {
		return h.Get(name)
	}
	scheme, token, _ := strings.Cut(h.Get(name), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return token
}

// echo sends the request's body back.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body) // over HTTP/1.1, net/http gives no more of it once we write
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, _ = w.Write(body)
}

// StreamHandler returns a handler for NewAPI that answers with the events as
// server-sent events, each flushed by itself, and then ends.
func StreamHandler(events ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		drain(r)
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		for _, e := range events {
			event := "data: " + strings.ReplaceAll(e, "\n", "\ndata: ") + "\n\n"
			if _, err := fmt.Fprint(w, event); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
}

// A statusWriter notes the status of an answer before the client can see it.
type statusWriter struct {
	http.ResponseWriter
	note func(status int) // the first counts
}

func (w *statusWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.note(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	w.note(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher, which handlers ask for by name.
func (w *statusWriter) Flush() {
	w.note(http.StatusOK)
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker, which handlers ask for by name.
func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.note(http.StatusSwitchingProtocols)
	}
	return conn, rw, err
}

// Unwrap is for the rest of what http.ResponseController does.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
