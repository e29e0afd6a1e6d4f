package cli

import (
	"context"
	"net/http"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/reauth-go/reauth"
)

// Metrics of a proxy. None has a label that a client chooses.
type proxyMetrics struct {
	set       *metrics.Set
	refreshed *metrics.Counter
	failed    *metrics.Counter
}

func newProxyMetrics() *proxyMetrics {
	set := metrics.NewSet()
	return &proxyMetrics{set, set.NewCounter(`reauth_refreshes_total{result="succeeded"}`), set.NewCounter(`reauth_refreshes_total{result="failed"}`)}
}

// outcome counts what became of a request that was rejected.
func (m *proxyMetrics) outcome(_ context.Context, o reauth.Outcome) {
	if o.Rejection.Reason == "" {
		return
	}
	recovered := "no"
	if o.Recovered() {
		recovered = "yes"
	}
	m.set.GetOrCreateCounter(`reauth_rejections_total{reason="` + string(o.Rejection.Reason) + `",recovered="` + recovered + `"}`).Inc()
}

// refresh counts refreshes.
func (m *proxyMetrics) refresh(_ context.Context, info reauth.RefreshInfo) {
	if info.Result == reauth.RefreshFailed {
		m.failed.Inc()
	} else if info.Result == reauth.RefreshSucceeded {
		m.refreshed.Inc()
	}
}

// serveAdmin serves metrics and health on loopback, away from what clients reach.
func (x *proxy) serveAdmin(address string) (url string, stop func(), err error) {
	l, err := listenOn(address)
	if err != nil {
		return "", nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		x.metrics.set.WritePrometheus(w)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := x.cred.Current(); err != nil {
			http.Error(w, "there is no token: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	return "http://" + l.Addr().String(), func() { _ = server.Close() }, nil
}
