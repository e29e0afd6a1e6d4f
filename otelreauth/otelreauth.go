// Package otelreauth measures and traces a reauth.Transport with OpenTelemetry.
//
//	telemetry := &otelreauth.Instrumentation{}
//	if err := telemetry.Instrument(transport); err != nil {
//		log.Fatal(err)
//	}
//
// # Metrics
//
//	reauth.rejections        counter, {request}             requests that a server rejected
//	reauth.retries           counter, {request}             requests that were sent again
//	reauth.refreshes         counter, {refresh}             completed refreshes
//	reauth.refresh.duration  histogram, s                   how long a refresh took
//	reauth.refresh.waiters   histogram, {request}           how many requests waited for a refresh
//	reauth.credential.count  up-down counter, {credential}  Credentials by their state
//	reauth.token.lifetime    gauge, s                       the time left until a token expires
//
// reauth.token.lifetime is the shortest of all Credentials in the same state. It is
// negative after the expiry. It is absent for a token without an expiry. It is also
// absent for a token that expired while no request needed it: the next request
// refreshes that.
//
// # Attributes of metrics
//
//	reauth.rejection.reason  rejections: a reauth.Reason
//	reauth.not_retried       rejections: a reauth.NotRetried; absent if the request was sent again
//	reauth.retry.result      retries: recovered, rejected, or failed if there was no response
//	server.address           rejections, retries: the host; absent unless its origin is listed
//	server.port              rejections, retries: the port; absent unless its origin is listed
//	reauth.refresh.reason    refreshes: a reauth.Reason; before_expiry if the token was still usable
//	reauth.refresh.result    refreshes, duration, waiters: a reauth.RefreshResult
//	reauth.refresh.shared    refreshes, duration, waiters: true if another process refreshed; else absent
//	error.type               refreshes, duration, waiters, if failed: login_ended, permanent,
//	                         answer_lost, timeout, canceled or _OTHER
//	reauth.credential.state  count, lifetime: ready; failing, if the latest refresh failed;
//	                         failed, if it failed permanently; logged_out; closed
//
// Each attribute has a closed set of values. A Reason of a Classifier that package
// reauth does not define is _OTHER.
//
// # Traces
//
// Each refresh is a span, reauth.refresh. Its parent is the span of
// Credential.BaseContext, if there is one: a refresh does not belong to a request.
// Spans that the Refresher starts with its context are its children. The span ends with
// the refresh, or after Credential.RefreshTimeout if that is sooner. A refresh that
// outlives the timeout and succeeds is counted twice: as failed, and as succeeded.
//
// The span in the context of a request gets the events reauth.rejection and
// reauth.retry. The time of reauth.retry is that of the last response. The attributes
// are those of the metrics, and
//
//	reauth.token.fingerprint   of the token that was sent, or that a refresh obtained
//	reauth.refresh.waiters     how many requests waited for the refresh
//	reauth.request_id          the server's id of the request
//	reauth.withheld            a reauth.Withheld; absent if the request carried the token
//	reauth.advice              a reauth.Advice; absent if there is nothing to do
//	http.response.status_code  of the response
//
// If a refresh failed, the status of its span has the text of the *reauth.RefreshError.
// No metric, span or event contains a token, or the URL or the body of a request.
//
// The directory prometheus has alert rules.
package otelreauth

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"weak"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/reauth-go/reauth"
)

const scope = "github.com/reauth-go/reauth/otelreauth"

// An Instrumentation measures and traces Transports and Credentials. The zero value
// uses the global providers. A program should use a single Instrumentation: it remains
// registered with its MeterProvider.
//
// An Instrumentation is safe for concurrent use by multiple goroutines. It must not be
// copied, and its fields must not be modified, after first use.
type Instrumentation struct {
	// TracerProvider creates the spans of refreshes. If nil, the global TracerProvider
	// is used. The events of a request are added to the span in its context.
	TracerProvider trace.TracerProvider

	// MeterProvider creates the metrics. If nil, the global MeterProvider is used.
	MeterProvider metric.MeterProvider

	// Origins lists the origins whose requests have server.address and server.port,
	// such as "https://api.example.com". Those of Transport.Origins are added. A
	// wildcard is an error, as it has no bound. A wildcard in Transport.Origins is
	// ignored. If both lists are nil, no metric has a host.
	Origins []string

	// Attributes are added to all metrics, spans and events. They may distinguish
	// several Instrumentations of a program.
	Attributes []attribute.KeyValue

	once        sync.Once
	err         error // set by once, as the fields below
	hosts       hosts // of Origins
	tracer      trace.Tracer
	instruments instruments

	mu          sync.Mutex
	credentials map[weak.Pointer[reauth.Credential]]struct{} // guarded by mu
}

// Instrument instruments t, and t.Credential if it is not nil. The Credentials that
// t.CredentialFor returns need InstrumentCredential. Hooks that are already set are
// called after i has measured.
//
// Instrument must be called before the first use of t and of its Credential, and once
// for each Transport. It returns an error, and changes nothing, if t is nil, if an
// entry of i.Origins is not an origin, or if the MeterProvider returns an error.
func (i *Instrumentation) Instrument(t *reauth.Transport) error {
	if t == nil {
		return errors.New("otelreauth: the Transport is nil")
	}
	if i.once.Do(i.configure); i.err != nil {
		return i.err
	}
	known := i.hosts.with(t.Origins)
	next := t.OnOutcome
	t.OnOutcome = func(ctx context.Context, o reauth.Outcome) {
		i.outcome(ctx, o, known)
		if next != nil {
			next(ctx, o)
		}
	}
	if t.Credential != nil {
		return i.InstrumentCredential(t.Credential)
	}
	return nil
}

// InstrumentCredential instruments c. It does nothing if i has instrumented c before,
// such as for another Transport. Hooks that are already set are called. An
// Instrumentation does not keep c from being garbage collected.
//
// InstrumentCredential must be called before the first use of c. It returns an error,
// and changes nothing, if c is nil, if an entry of i.Origins is not an origin, or if
// the MeterProvider returns an error.
func (i *Instrumentation) InstrumentCredential(c *reauth.Credential) error {
	if c == nil {
		return errors.New("otelreauth: the Credential is nil")
	}
	if i.once.Do(i.configure); i.err != nil {
		return i.err
	}
	if !i.add(c) {
		return nil
	}
	base, next := c.BaseContext, c.OnRefresh
	c.BaseContext = func() context.Context {
		ctx := context.Background()
		if base != nil {
			if b := base(); b != nil {
				ctx = b
			}
		}
		return i.startRefresh(ctx)
	}
	c.OnRefresh = func(ctx context.Context, info reauth.RefreshInfo) {
		i.endRefresh(ctx, info)
		if next != nil {
			next(ctx, info)
		}
	}
	return nil
}

// configure sets the unexported fields.
func (i *Instrumentation) configure() {
	if i.hosts, i.err = parseOrigins(i.Origins); i.err != nil {
		return
	}
	tracers, meters := i.TracerProvider, i.MeterProvider
	if tracers == nil {
		tracers = otel.GetTracerProvider()
	}
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	i.tracer = tracers.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))
	i.credentials = map[weak.Pointer[reauth.Credential]]struct{}{}
	if err := i.instruments.create(meters.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL)), i.observe); err != nil {
		i.err = fmt.Errorf("otelreauth: %w", err)
	}
}

// add adds c to the Credentials that are observed, and reports whether it was not among
// them.
func (i *Instrumentation) add(c *reauth.Credential) bool {
	p := weak.Make(c)
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.credentials[p]; ok {
		return false
	}
	i.credentials[p] = struct{}{}
	runtime.AddCleanup(c, i.remove, p)
	return true
}

// remove removes a Credential that was garbage collected.
func (i *Instrumentation) remove(p weak.Pointer[reauth.Credential]) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.credentials, p)
}

// all returns the Credentials. Their methods must not be called with mu held.
func (i *Instrumentation) all() []*reauth.Credential {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := make([]*reauth.Credential, 0, len(i.credentials))
	for p := range i.credentials {
		if c := p.Value(); c != nil {
			all = append(all, c)
		}
	}
	return all
}
