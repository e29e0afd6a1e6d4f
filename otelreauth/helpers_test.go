package otelreauth_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/otelreauth"
	"github.com/reauth-go/reauth/reauthtest"
)

var discard = slog.New(slog.DiscardHandler)

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// answer is a response in memory.
func answer(req *http.Request, status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}
}

// An exporter has what an Instrumentation exported.
type exporter struct {
	t       testing.TB
	reader  *metric.ManualReader
	spans   *tracetest.SpanRecorder
	tracers *sdktrace.TracerProvider
	otelreauth.Instrumentation
}

func newExporter(t testing.TB, more ...metric.Reader) *exporter {
	e := &exporter{t: t, reader: metric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	e.tracers = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(e.spans))
	e.TracerProvider = e.tracers
	readers := []metric.Option{metric.WithReader(e.reader)}
	for _, r := range more {
		readers = append(readers, metric.WithReader(r))
	}
	e.MeterProvider = metric.NewMeterProvider(readers...)
	return e
}

func (e *exporter) collect() metricdata.ResourceMetrics {
	e.t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(e.t, e.reader.Collect(e.t.Context(), &all))
	return all
}

// points returns the data points of a metric by their attributes: the value, of a
// histogram the number of values.
func (e *exporter) points(name string) map[string]float64 {
	e.t.Helper()
	points := map[string]float64{}
	for _, s := range e.collect().ScopeMetrics {
		for _, m := range s.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					points[attributes(p.Attributes.ToSlice())] = float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					points[attributes(p.Attributes.ToSlice())] = p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					points[attributes(p.Attributes.ToSlice())] = float64(p.Count)
				}
			case metricdata.Histogram[int64]:
				for _, p := range data.DataPoints {
					points[attributes(p.Attributes.ToSlice())] = float64(p.Count)
				}
			default:
				e.t.Fatalf("%s has the data %T", name, data)
			}
		}
	}
	return points
}

// named returns the ended spans with a name.
func (e *exporter) named(name string) []sdktrace.ReadOnlySpan {
	var named []sdktrace.ReadOnlySpan
	for _, s := range e.spans.Ended() {
		if s.Name() == name {
			named = append(named, s)
		}
	}
	return named
}

// dump returns all that was exported, as text.
func (e *exporter) dump() string {
	e.t.Helper()
	metrics, err := json.Marshal(e.collect())
	require.NoError(e.t, err)
	spans, err := json.Marshal(tracetest.SpanStubsFromReadOnlySpans(e.spans.Ended()))
	require.NoError(e.t, err)
	return string(metrics) + string(spans)
}

// attributes prints attributes as "key=value key=value", without those that differ from
// run to run.
func attributes(attrs []attribute.KeyValue) string {
	var all []string
	for _, a := range attrs {
		switch a.Key {
		case "server.port", "reauth.request_id", "reauth.token.fingerprint":
			continue
		}
		all = append(all, fmt.Sprintf("%s=%s", strings.TrimPrefix(string(a.Key), "reauth."), a.Value.String()))
	}
	sort.Strings(all)
	return strings.Join(all, " ")
}

// events prints the events of a span.
func events(s sdktrace.ReadOnlySpan) []string {
	var all []string
	for _, e := range s.Events() {
		all = append(all, strings.TrimSpace(strings.TrimPrefix(e.Name, "reauth.")+" "+attributes(e.Attributes)))
	}
	return all
}

// A fixture is an issuer, an API, and a Transport that is instrumented.
type fixture struct {
	*exporter
	issuer *reauthtest.Issuer
	api    *reauthtest.API
	cred   *reauth.Credential
	rt     *reauth.Transport
}

func newFixture(t testing.TB, more ...metric.Reader) *fixture {
	f := &fixture{exporter: newExporter(t, more...), issuer: reauthtest.NewIssuer()}
	t.Cleanup(f.issuer.Close)
	f.api = reauthtest.NewAPI(f.issuer, nil)
	t.Cleanup(f.api.Close)
	f.cred = &reauth.Credential{Refresher: f.issuer, Logger: discard}
	f.rt = &reauth.Transport{Credential: f.cred, Origins: []string{f.api.URL()}, RetryWait: -1, Logger: discard}
	require.NoError(t, f.Instrument(f.rt))
	return f
}

// get sends a request within a span, and returns the status, or 0 if there was none.
func (f *fixture) get() int {
	f.t.Helper()
	ctx, span := f.tracers.Tracer("test").Start(f.t.Context(), "request")
	defer span.End()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.api.URL()+"/v1?key=query-secret", nil)
	require.NoError(f.t, err)
	resp, err := f.rt.RoundTrip(req)
	if err != nil {
		return 0
	}
	require.NoError(f.t, resp.Body.Close())
	return resp.StatusCode
}
