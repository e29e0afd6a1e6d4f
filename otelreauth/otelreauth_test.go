package otelreauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/otelreauth"
)

func TestInstrumentKeepsHooks(t *testing.T) {
	type key struct{}
	for name, base := range map[string]func() context.Context{
		"all":                    func() context.Context { return context.WithValue(context.Background(), key{}, "base") },
		"BaseContext is nil":     nil,
		"BaseContext of nothing": func() context.Context { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			var outcomes []reauth.Outcome
			var refreshes []reauth.RefreshInfo
			var bases []any
			cred := &reauth.Credential{
				Logger: discard, BaseContext: base,
				Refresher: reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
					bases = append(bases, ctx.Value(key{}))
					return f.issuer.Refresh(ctx, stale)
				}),
				OnRefresh: func(ctx context.Context, info reauth.RefreshInfo) {
					bases = append(bases, ctx.Value(key{}))
					refreshes = append(refreshes, info)
				},
			}
			f.rt = &reauth.Transport{Credential: cred, RetryWait: -1, Logger: discard, OnOutcome: func(_ context.Context, o reauth.Outcome) {
				outcomes = append(outcomes, o)
			}}
			require.NoError(t, f.Instrument(f.rt))
			assert.Equal(t, http.StatusOK, f.get())
			f.issuer.Revoke()
			assert.Equal(t, http.StatusOK, f.get())
			require.Len(t, outcomes, 1)
			assert.True(t, outcomes[0].Recovered())
			assert.Len(t, refreshes, 2)
			want := any("base")
			if name != "all" {
				want = nil
			}
			assert.Equal(t, []any{want, want, want, want}, bases)
			assert.Len(t, f.named("reauth.refresh"), 2)
		})
	}
}

// A hook that panics does so after the Instrumentation has measured.
func TestInstrumentHooksThatPanic(t *testing.T) {
	f := newFixture(t)
	broken := true
	cred := &reauth.Credential{Refresher: f.issuer, Logger: discard,
		BaseContext: func() context.Context {
			if broken {
				panic("not yet")
			}
			return context.Background()
		},
		OnRefresh: func(context.Context, reauth.RefreshInfo) { panic("never") },
	}
	require.NoError(t, f.InstrumentCredential(cred))
	_, err := cred.Token(t.Context())
	require.Error(t, err)
	assert.Empty(t, f.named("reauth.refresh"))
	require.NoError(t, cred.Clear(t.Context()))
	broken = false
	_, err = cred.Token(t.Context())
	require.NoError(t, err)
	assert.Len(t, f.named("reauth.refresh"), 1)
	assert.Equal(t, map[string]float64{
		"error.type=_OTHER refresh.reason=missing refresh.result=failed": 1,
		"refresh.reason=missing refresh.result=succeeded":                1,
	}, f.points("reauth.refreshes"))
}

func TestInstrumentSharedCredentialOnce(t *testing.T) {
	f := newFixture(t)
	require.NoError(t, f.Instrument(&reauth.Transport{Credential: f.cred}))
	require.NoError(t, f.InstrumentCredential(f.cred))
	assert.Equal(t, http.StatusOK, f.get())
	assert.Equal(t, map[string]float64{"refresh.reason=missing refresh.result=succeeded": 1}, f.points("reauth.refreshes"))
	assert.Len(t, f.named("reauth.refresh"), 1)
	assert.EqualValues(t, 1, f.points("reauth.credential.count")["credential.state=ready"])
}

func TestInstrumentByTwo(t *testing.T) {
	f, second := newFixture(t), newExporter(t)
	second.Attributes = []attribute.KeyValue{attribute.String("team", "billing")}
	require.NoError(t, second.Instrument(f.rt))
	assert.Equal(t, http.StatusOK, f.get())
	f.issuer.Revoke()
	assert.Equal(t, http.StatusOK, f.get())
	assert.Len(t, f.named("reauth.refresh"), 2)
	assert.Len(t, second.named("reauth.refresh"), 2)
	assert.Equal(t, map[string]float64{"rejection.reason=revoked server.address=127.0.0.1": 1}, f.points("reauth.rejections"))
	assert.Equal(t, map[string]float64{"rejection.reason=revoked server.address=127.0.0.1 team=billing": 1}, second.points("reauth.rejections"))
	assert.EqualValues(t, 1, second.points("reauth.credential.count")["credential.state=ready team=billing"])
	for _, span := range second.named("reauth.refresh") {
		assert.Contains(t, attributes(span.Attributes()), "team=billing")
	}
}

// The Credentials of tenants come and go. They have no Transport of their own.
func TestInstrumentCredentialForTenants(t *testing.T) {
	e := newExporter(t)
	for tenant := range 100 {
		cred := &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			if tenant == 7 {
				return reauth.Token{}, reauth.Permanent(errors.New("the tenant is gone"))
			}
			return reauth.Token{AccessToken: "token", Expiry: time.Now().Add(time.Hour + time.Duration(tenant)*time.Minute)}, nil
		})}
		require.NoError(t, e.InstrumentCredential(cred))
		_, err := cred.Token(t.Context())
		assert.Equal(t, tenant == 7, err != nil)
		defer runtime.KeepAlive(cred)
	}
	count := e.points("reauth.credential.count")
	assert.EqualValues(t, 99, count["credential.state=ready"])
	assert.EqualValues(t, 1, count["credential.state=failed"])
	assert.InDelta(t, time.Hour.Seconds(), e.points("reauth.token.lifetime")["credential.state=ready"], 60)
}

func TestInstrumentKeepsNoCredential(t *testing.T) {
	e := newExporter(t)
	func() {
		for range 100 {
			require.NoError(t, e.Instrument(&reauth.Transport{Credential: &reauth.Credential{}}))
		}
	}()
	assert.Eventually(t, func() bool {
		runtime.GC()
		return e.points("reauth.credential.count")["credential.state=ready"] == 0
	}, 10*time.Second, time.Millisecond)
}

// refusing is a MeterProvider that refuses an instrument.
type refusing struct{ noop.MeterProvider }

func (refusing) Meter(string, ...metric.MeterOption) metric.Meter { return refusingMeter{} }

type refusingMeter struct{ noop.Meter }

func (refusingMeter) Int64Counter(name string, _ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	if name == "reauth.retries" {
		return nil, errors.New("refused")
	}
	return noop.Int64Counter{}, nil
}

func TestInstrumentErrors(t *testing.T) {
	rt := &reauth.Transport{Credential: &reauth.Credential{}}
	var zero otelreauth.Instrumentation
	assert.EqualError(t, zero.Instrument(nil), "otelreauth: the Transport is nil")
	assert.EqualError(t, zero.InstrumentCredential(nil), "otelreauth: the Credential is nil")
	for origin, want := range map[string]string{
		"api.example.com":                 "it must begin with",
		"ftp://api.example.com":           "it must begin with",
		"https://":                        "it must begin with",
		"https://*.example.com":           "a wildcard has no bound",
		"https://ann:secret@example.com":  "it has more than a scheme, a host and a port",
		"https://example.com/?key=secret": "it has more than a scheme, a host and a port",
		"https://example.com:port":        "it is not a URL",
	} {
		i := &otelreauth.Instrumentation{MeterProvider: noop.NewMeterProvider(), Origins: []string{"https://good.example.com", origin}}
		for _, err := range []error{i.Instrument(rt), i.InstrumentCredential(rt.Credential)} {
			require.ErrorContains(t, err, "otelreauth: Instrumentation.Origins[1] cannot be an origin: "+want)
			assert.NotContains(t, err.Error(), "secret")
		}
	}
	assert.EqualError(t, (&otelreauth.Instrumentation{MeterProvider: refusing{}}).Instrument(rt), "otelreauth: refused")
	assert.Nil(t, rt.OnOutcome, "changed")
	assert.Nil(t, rt.Credential.OnRefresh, "changed")
	assert.Nil(t, rt.Credential.BaseContext, "changed")
}

var globalProvidersSet atomic.Bool

// A program may set the global providers after it has instrumented its Transports.
func TestInstrumentWithGlobalProviders(t *testing.T) {
	if globalProvidersSet.Swap(true) {
		t.Skip("-count: what was made before the global providers gets only the first of them")
	}
	rt := &reauth.Transport{Logger: discard, RetryWait: -1, Origins: []string{"https://api.example.com"},
		Credential: &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
			return reauth.Token{AccessToken: "after-" + stale.Token.Fingerprint()}, nil
		})},
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) { return answer(req, http.StatusUnauthorized, ""), nil }),
	}
	require.NoError(t, new(otelreauth.Instrumentation).Instrument(rt))
	e := newExporter(t)
	otel.SetMeterProvider(e.MeterProvider)
	otel.SetTracerProvider(e.TracerProvider)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com", nil)
	require.NoError(t, err)
	_, err = rt.RoundTrip(req)
	require.NoError(t, err)
	assert.Len(t, e.named("reauth.refresh"), 2)
	assert.Equal(t, map[string]float64{"retry.result=rejected server.address=api.example.com": 1}, e.points("reauth.retries"))
	assert.EqualValues(t, 1, e.points("reauth.credential.count")["credential.state=ready"])
}

func TestInstrumentConcurrently(t *testing.T) {
	e := newExporter(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			cred := &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				return reauth.Token{AccessToken: "token"}, nil
			})}
			assert.NoError(t, e.Instrument(&reauth.Transport{Credential: cred}))
			e.points("reauth.credential.count")
			_, err := cred.Token(t.Context())
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	assert.Len(t, e.named("reauth.refresh"), 20)
}

func TestCredentialStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newExporter(t)
		var refuse error
		cred := &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{AccessToken: "token", Expiry: time.Now().Add(time.Hour)}, refuse
		})}
		require.NoError(t, e.InstrumentCredential(cred))
		want := func(step, state string, lifetime ...time.Duration) {
			t.Helper()
			counts, lifetimes := map[string]float64{}, map[string]float64{}
			for _, s := range []string{"ready", "failing", "failed", "logged_out", "closed"} {
				counts["credential.state="+s] = 0
			}
			counts["credential.state="+state] = 1
			for _, d := range lifetime {
				lifetimes["credential.state="+state] = d.Seconds()
			}
			assert.Equal(t, counts, e.points("reauth.credential.count"), step)
			assert.Equal(t, lifetimes, e.points("reauth.token.lifetime"), step)
		}
		refresh := func() {
			_, _ = cred.Token(t.Context())
			synctest.Wait()
		}
		want("no token yet", "ready")
		refresh()
		want("refreshed", "ready", time.Hour)
		time.Sleep(59 * time.Minute)
		want("about to expire", "ready", time.Minute)
		refuse = errors.New("the issuer is down")
		refresh()
		want("the refresh failed", "failing", time.Minute)
		time.Sleep(2 * time.Minute)
		want("it failed, and the token expired", "failing", -time.Minute)
		refuse = reauth.LoginEnded(errors.New("the login has ended"))
		refresh()
		want("it failed for good", "failed", -time.Minute)
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "another", Expiry: time.Now().Add(time.Minute)}))
		want("a new login", "ready", time.Minute)
		time.Sleep(2 * time.Minute)
		want("idle", "ready")
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "for ever"}))
		want("no expiry", "ready")
		require.NoError(t, cred.Clear(t.Context()))
		want("logged out", "logged_out")
		require.NoError(t, cred.Shutdown(t.Context()))
		want("shut down", "closed")
	})
}

// The comment of the package names all that is exported.
func TestDocNamesAllThatIsExported(t *testing.T) {
	doc, err := os.ReadFile("otelreauth.go")
	require.NoError(t, err)
	f := exportEverything(t)
	names := map[string]bool{}
	note := func(attrs []attribute.KeyValue) {
		for _, a := range attrs {
			names[string(a.Key)] = true
		}
	}
	for _, s := range f.collect().ScopeMetrics {
		assert.Equal(t, "github.com/reauth-go/reauth/otelreauth", s.Scope.Name)
		for _, m := range s.Metrics {
			assert.Contains(t, string(doc), m.Name+" ")
			unit := m.Unit
			assert.Contains(t, string(doc), ", "+unit, m.Name)
			assert.NotEmpty(t, m.Description, m.Name)
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					note(p.Attributes.ToSlice())
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					note(p.Attributes.ToSlice())
				}
			}
		}
	}
	for _, s := range f.spans.Ended() {
		note(s.Attributes())
		for _, event := range s.Events() {
			names[event.Name] = true
			note(event.Attributes)
		}
	}
	assert.Len(t, names, 18, fmt.Sprint(names))
	for name := range names {
		assert.Contains(t, string(doc), name, "not in the comment of the package")
	}
}
