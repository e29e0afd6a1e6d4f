package otelreauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/reauth-go/reauth"
)

// instruments are the metrics.
type instruments struct {
	rejections, retries, refreshes metric.Int64Counter
	duration                       metric.Float64Histogram
	waiters                        metric.Int64Histogram
	count                          metric.Int64ObservableUpDownCounter
	lifetime                       metric.Float64ObservableGauge
}

// create makes the instruments. observe is called when the last two are read.
func (m *instruments) create(meter metric.Meter, observe metric.Callback) error {
	var errs [8]error
	m.rejections, errs[0] = meter.Int64Counter("reauth.rejections", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that a server rejected."))
	m.retries, errs[1] = meter.Int64Counter("reauth.retries", metric.WithUnit("{request}"),
		metric.WithDescription("Rejected requests that were sent again."))
	m.refreshes, errs[2] = meter.Int64Counter("reauth.refreshes", metric.WithUnit("{refresh}"),
		metric.WithDescription("Completed refreshes."))
	m.duration, errs[3] = meter.Float64Histogram("reauth.refresh.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of refreshes."),
		metric.WithExplicitBucketBoundaries(.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60))
	m.waiters, errs[4] = meter.Int64Histogram("reauth.refresh.waiters", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that waited for a refresh."),
		metric.WithExplicitBucketBoundaries(0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))
	m.count, errs[5] = meter.Int64ObservableUpDownCounter("reauth.credential.count", metric.WithUnit("{credential}"),
		metric.WithDescription("Credentials by their state."))
	m.lifetime, errs[6] = meter.Float64ObservableGauge("reauth.token.lifetime", metric.WithUnit("s"),
		metric.WithDescription("Time until a token expires, the shortest of all Credentials in the state."))
	if errors.Join(errs[:]...) == nil {
		_, errs[7] = meter.RegisterCallback(observe, m.count, m.lifetime)
	}
	return errors.Join(errs[:]...)
}

// The states of a Credential.
const (
	stateReady     = "ready"
	stateFailing   = "failing"
	stateFailed    = "failed"
	stateLoggedOut = "logged_out"
	stateClosed    = "closed"
)

var states = []string{stateReady, stateFailing, stateFailed, stateLoggedOut, stateClosed}

// stateOf returns the state of a Credential whose Current returned err.
func stateOf(err error) string {
	var failure *reauth.RefreshError
	switch {
	case err == nil:
		return stateReady
	case errors.Is(err, reauth.ErrLoggedOut):
		return stateLoggedOut
	case errors.Is(err, reauth.ErrClosed):
		return stateClosed
	case errors.As(err, &failure) && failure.Permanent():
		return stateFailed
	}
	return stateFailing
}

// observe observes the Credentials. Every state has a count, so that the count of a
// state that has ended is 0.
func (i *Instrumentation) observe(_ context.Context, to metric.Observer) error {
	now := time.Now()
	count, lifetime := map[string]int64{}, map[string]time.Duration{}
	for _, c := range i.all() {
		tok, err := c.Current()
		state := stateOf(err)
		count[state]++
		left := tok.Expiry.Sub(now)
		idle := left <= 0 && state != stateFailing && state != stateFailed
		if shortest, ok := lifetime[state]; !tok.Expiry.IsZero() && !idle && (!ok || left < shortest) {
			lifetime[state] = left
		}
	}
	for _, state := range states {
		attrs := metric.WithAttributes(i.with(nil, attribute.String("reauth.credential.state", state))...)
		to.ObserveInt64(i.instruments.count, count[state], attrs)
		if left, ok := lifetime[state]; ok {
			to.ObserveFloat64(i.instruments.lifetime, left.Seconds(), attrs)
		}
	}
	return nil
}

// hosts are the attributes of the origins that are listed, by Outcome.Origin.
type hosts map[string][]attribute.KeyValue

// with returns the hosts, and those of Transport.Origins. An entry that is not an
// origin is ignored: the Transport itself returns the error.
func (h hosts) with(list []string) hosts {
	all := make(hosts, len(h)+len(list))
	for o, attrs := range h {
		all[o] = attrs
	}
	for _, s := range list {
		if o, attrs, err := parseOrigin(s); err == nil {
			all[o] = attrs
		}
	}
	return all
}

// parseOrigins parses Instrumentation.Origins. Its errors do not repeat an entry, which
// may have a password.
func parseOrigins(list []string) (hosts, error) {
	all := hosts{}
	for n, s := range list {
		o, attrs, err := parseOrigin(s)
		if err != nil {
			return nil, fmt.Errorf("otelreauth: Instrumentation.Origins[%d] cannot be an origin: %w", n, err)
		}
		all[o] = attrs
	}
	return all, nil
}

// parseOrigin returns an origin in the form of Outcome.Origin, and its attributes.
func parseOrigin(s string) (string, []attribute.KeyValue, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", nil, errors.New("it is not a URL")
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return "", nil, errors.New(`it must begin with "https://" or "http://" and a host`)
	case strings.HasPrefix(u.Hostname(), "*"):
		return "", nil, errors.New("a wildcard has no bound: list the hosts")
	case u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return "", nil, errors.New("it has more than a scheme, a host and a port: remove the rest")
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	standard := map[string]int{"https": 443, "http": 80}[u.Scheme]
	port := standard
	if u.Port() != "" {
		if port, err = strconv.Atoi(u.Port()); err != nil {
			return "", nil, errors.New("its port is not a number")
		}
	}
	o := u.Scheme + "://" + host
	if strings.Contains(host, ":") {
		o = u.Scheme + "://[" + host + "]"
	}
	if port != standard {
		o += ":" + strconv.Itoa(port)
	}
	return o, []attribute.KeyValue{semconv.ServerAddress(host), semconv.ServerPort(port)}, nil
}
