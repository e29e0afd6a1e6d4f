package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

//go:embed index.html
var page []byte

// interval is the time between two snapshots of a stream.
const interval = 100 * time.Millisecond

// handler serves the page, the stream that feeds it, and its buttons.
//
// A page of another site must not press the buttons, nor read the stream under a name
// of its own that resolves to 127.0.0.1 (DNS rebinding).
func (d *demo) handler(port int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", servePage)
	mux.HandleFunc("GET /stream", d.serveStream)
	for pattern, press := range map[string]func(){
		"POST /revoke":      d.revoke,
		"POST /expire":      d.expire,
		"POST /issuer/down": func() { d.setIssuerDown(true) },
		"POST /issuer/up":   func() { d.setIssuerDown(false) },
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			press()
			w.WriteHeader(http.StatusNoContent)
		})
	}
	sameOrigin := http.NewCrossOriginProtection().Handler(mux)
	hosts := []string{fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("localhost:%d", port)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(hosts, r.Host) {
			http.Error(w, "this server is "+hosts[0], http.StatusMisdirectedRequest)
			return
		}
		sameOrigin.ServeHTTP(w, r)
	})
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "+
		"img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_, _ = w.Write(page)
}

// serveStream sends a snapshot at once and after each interval, as server-sent events.
// The callers call while there is a stream.
func (d *demo) serveStream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	defer d.startCallers()()
	c := http.NewResponseController(w)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for last := 0; ; {
		s := d.snapshot(last)
		last = s.Seq
		data, err := json.Marshal(s)
		if err != nil {
			panic(err) // a snapshot has only types that JSON has
		}
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second)) // for a page that no longer reads
		if _, err := fmt.Fprintf(w, "data: %s\n\n", data); err != nil {
			return
		}
		if c.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}
