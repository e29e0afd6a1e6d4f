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

// An API is a server on loopback that accepts the tokens of an Issuer. It reads the
// body of a request with any other token, and responds with a 401 (RFC 6750 §3). It is
// safe for concurrent use by multiple goroutines. It is the caller's responsibility to
// call Close.
//
// Each response has an X-Request-Id. A 401 has a challenge, and a JSON body with an
// error that has a code, a message and the request_id.
type API struct {
	server

	issuers  []*Issuer    // whose tokens it accepts; guarded by server.mu, as all below
	rejects  http.Handler // nil for the rejection of RFC 6750
	header   string       // where the token is
	requests []Request    // in the order of their arrival
}

// A Request describes a request that arrived at an API or an Issuer.
type Request struct {
	Method string
	Path   string      // with the query
	Header http.Header // with the token; must not be modified
	ID     string      // X-Request-Id of the response
	Status int         // of the response; 0 if there is none yet, or the connection was cut before it
}

// NewAPI starts an API over HTTP/1.1 that accepts the tokens of i. handler serves the
// requests whose token is accepted, and may hijack the connection. If nil, a handler is
// used that reads the whole body of the request, and sends it back with its
// Content-Type.
func NewAPI(i *Issuer, handler http.Handler) *API { return newAPI(i, handler, false) }

// NewTLSAPI is like NewAPI, over TLS and HTTP/2. The transport that Base returns trusts
// its certificate.
func NewTLSAPI(i *Issuer, handler http.Handler) *API { return newAPI(i, handler, true) }

func newAPI(i *Issuer, handler http.Handler, tls bool) *API {
	if handler == nil {
		handler = http.HandlerFunc(echo)
	}
	a := &API{issuers: []*Issuer{i}, header: "Authorization"}
	a.start(a.record(a.faulty(a.guard(handler))), tls)
	return a
}

// URL returns the URL of the API, without a trailing slash.
func (a *API) URL() string { return a.http.URL }

// Base returns a RoundTripper for reauth.Transport.Base. It trusts the certificates of
// all APIs that NewTLSAPI starts. It is the same *http.Transport each time. Close
// closes its idle connections.
func (a *API) Base() http.RoundTripper { return a.http.Client().Transport }

// SetHeader sets the header in which the API expects the token, without a scheme, such
// as X-Api-Key. The default is Authorization, in which the API expects the scheme
// Bearer.
func (a *API) SetHeader(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.header = http.CanonicalHeaderKey(name)
}

// Accept makes the API accept the tokens of more issuers, such as for several tenants.
func (a *API) Accept(more ...*Issuer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.issuers = append(a.issuers, more...)
}

// SetRejection makes h respond to the requests whose token is rejected or missing. The
// body of the request has been read. If h is nil, the response is that of RFC 6750,
// which is the default.
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
		case why == "" || v != tokenInvalid: // this issuer knows the token
			why = v
		}
	}
	return why
}

// Sends returns how many requests have arrived, whatever the response.
func (a *API) Sends() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.requests)
}

// Rejections returns how many responses were a 401.
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

// Requests returns the requests that have arrived, in order.
func (a *API) Requests() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

// record keeps each request, and the status of its response.
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
		noting.note(http.StatusOK) // for a handler that wrote nothing
	})
}

// guard passes the requests whose token is accepted to next.
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
	body, err := io.ReadAll(r.Body) // over HTTP/1.1, net/http allows no more reads after a write
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, _ = w.Write(body)
}

// StreamHandler returns a handler for NewAPI that writes server-sent events. It flushes
// after each event, and ends after the last.
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

// A statusWriter notes the status of a response before the client can see it.
type statusWriter struct {
	http.ResponseWriter
	note func(status int) // only the first call counts
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

// Flush implements http.Flusher, for handlers that assert it.
func (w *statusWriter) Flush() {
	w.note(http.StatusOK)
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker, for handlers that assert it.
func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.note(http.StatusSwitchingProtocols)
	}
	return conn, rw, err
}

// Unwrap is for the other methods of http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
