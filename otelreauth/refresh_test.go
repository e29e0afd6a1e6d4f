package otelreauth_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"

	"github.com/reauth-go/reauth"
)

// A memoryStore is a Store that processes of a test share.
type memoryStore struct {
	mu     sync.Mutex
	record string // guarded by mu
}

func (s *memoryStore) Load(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record, nil
}

func (s *memoryStore) CompareAndSwap(_ context.Context, old, new string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record != old {
		return false, nil
	}
	s.record = new
	return true, nil
}

// The span of a refresh is below that of BaseContext, and above those of the Refresher.
func TestRefreshSpan(t *testing.T) {
	f := newFixture(t)
	tracer := f.tracers.Tracer("test")
	base, process := tracer.Start(context.Background(), "process")
	cred := &reauth.Credential{Logger: discard, BaseContext: func() context.Context { return base },
		Refresher: reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
			ctx, span := tracer.Start(ctx, "token endpoint")
			defer span.End()
			return f.issuer.Refresh(ctx, stale)
		})}
	f.rt = &reauth.Transport{Credential: cred, Logger: discard}
	require.NoError(t, f.Instrument(f.rt))
	assert.Equal(t, http.StatusOK, f.get())
	refreshes, calls := f.named("reauth.refresh"), f.named("token endpoint")
	require.Len(t, refreshes, 1)
	require.Len(t, calls, 1)
	span := refreshes[0]
	assert.Equal(t, process.SpanContext().SpanID(), span.Parent().SpanID())
	assert.Equal(t, span.SpanContext().SpanID(), calls[0].Parent().SpanID())
	assert.Equal(t, trace.SpanKindInternal, span.SpanKind())
	assert.Equal(t, codes.Unset, span.Status().Code)
	assert.Equal(t, "refresh.reason=missing refresh.result=succeeded refresh.waiters=1", attributes(span.Attributes()))
	tok, err := cred.Current()
	require.NoError(t, err)
	assert.Contains(t, f.dump(), tok.Fingerprint())
}

// Without a BaseContext that has a span, a refresh is a trace of its own, also if the
// request has one.
func TestRefreshSpanBelongsToNoRequest(t *testing.T) {
	f := newFixture(t)
	assert.Equal(t, http.StatusOK, f.get())
	spans := f.named("reauth.refresh")
	require.Len(t, spans, 1)
	assert.False(t, spans[0].Parent().IsValid())
}

func TestRefreshSpanOfAFailure(t *testing.T) {
	for _, tc := range []struct {
		kind string
		err  error
	}{
		{"_OTHER", errors.New("refused")},
		{"permanent", reauth.Permanent(errors.New("refused"))},
		{"login_ended", reauth.LoginEnded(errors.New("refused"))},
		{"answer_lost", reauth.AnswerLost(errors.New("refused"))},
		{"timeout", context.DeadlineExceeded},
		{"canceled", context.Canceled},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			e := newExporter(t)
			cred := &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				return reauth.Token{}, tc.err
			})}
			require.NoError(t, e.InstrumentCredential(cred))
			_, err := cred.Token(t.Context())
			require.Error(t, err)
			want := "error.type=" + tc.kind + " refresh.reason=missing refresh.result=failed"
			spans := e.named("reauth.refresh")
			require.Len(t, spans, 1)
			assert.Equal(t, want+" refresh.waiters=1", attributes(spans[0].Attributes()))
			assert.Equal(t, codes.Error, spans[0].Status().Code)
			assert.Equal(t, err.Error(), spans[0].Status().Description)
			assert.Equal(t, map[string]float64{want: 1}, e.points("reauth.refreshes"))
		})
	}
}

// A refresh that outlives its timeout is measured when it times out, and when its token
// comes. The span shows the first.
func TestRefreshThatOutlivesItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newExporter(t)
		cred := &reauth.Credential{Logger: discard, RefreshTimeout: time.Second, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			time.Sleep(5 * time.Second)
			return reauth.Token{AccessToken: "late"}, nil
		})}
		require.NoError(t, e.InstrumentCredential(cred))
		_, err := cred.Token(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(10 * time.Second)
		assert.Equal(t, map[string]float64{
			"error.type=timeout refresh.reason=missing refresh.result=failed": 1,
			"refresh.reason=missing refresh.result=succeeded":                 1,
		}, e.points("reauth.refreshes"))
		spans := e.named("reauth.refresh")
		require.Len(t, spans, 1)
		assert.Equal(t, "error.type=timeout refresh.reason=missing refresh.result=failed refresh.waiters=1", attributes(spans[0].Attributes()))
	})
}

func TestRefreshBeforeExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newExporter(t)
		cred := &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{AccessToken: "token", Expiry: time.Now().Add(time.Hour)}, nil
		})}
		require.NoError(t, e.InstrumentCredential(cred))
		for range 2 {
			_, err := cred.Token(t.Context())
			require.NoError(t, err)
			time.Sleep(59 * time.Minute)
		}
		synctest.Wait()
		assert.Equal(t, map[string]float64{
			"refresh.reason=missing refresh.result=succeeded":       1,
			"refresh.reason=before_expiry refresh.result=succeeded": 1,
		}, e.points("reauth.refreshes"))
	})
}

func TestRefreshDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newExporter(t)
		cred := &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			time.Sleep(time.Second)
			return reauth.Token{AccessToken: "discarded"}, nil
		})}
		require.NoError(t, e.InstrumentCredential(cred))
		go func() { _, _ = cred.Token(t.Context()) }()
		synctest.Wait()
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "login"}))
		time.Sleep(2 * time.Second)
		assert.Equal(t, map[string]float64{"refresh.reason=missing refresh.result=discarded": 1}, e.points("reauth.refreshes"))
		spans := e.named("reauth.refresh")
		require.Len(t, spans, 1)
		assert.Equal(t, codes.Unset, spans[0].Status().Code)
	})
}

// A refresh by another process that shares the login is counted apart: the sum over all
// processes is what the issuer has seen.
func TestRefreshOfAnotherProcess(t *testing.T) {
	f := newFixture(t)
	store := &memoryStore{}
	for range 2 {
		cred := &reauth.Credential{Logger: discard, Refresher: f.issuer, Store: store}
		require.NoError(t, f.InstrumentCredential(cred))
		_, err := cred.Token(t.Context())
		require.NoError(t, err)
	}
	assert.Equal(t, map[string]float64{
		"refresh.reason=missing refresh.result=succeeded":                     1,
		"refresh.reason=missing refresh.result=succeeded refresh.shared=true": 1,
	}, f.points("reauth.refreshes"))
	assert.Equal(t, 1, f.issuer.Refreshes())
	assert.Len(t, f.named("reauth.refresh"), 2)
}

func TestRefreshWithManyWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const waiters = 50
		e := newExporter(t)
		rt := &reauth.Transport{Logger: discard,
			Credential: &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				time.Sleep(2 * time.Second)
				return reauth.Token{AccessToken: "token"}, nil
			})},
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) { return answer(req, http.StatusOK, ""), nil }),
		}
		require.NoError(t, e.Instrument(rt))
		var wg sync.WaitGroup
		for range waiters {
			wg.Go(func() {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com", nil)
				assert.NoError(t, err)
				_, err = rt.RoundTrip(req)
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		sums := map[string]float64{}
		for _, s := range e.collect().ScopeMetrics {
			for _, m := range s.Metrics {
				switch data := m.Data.(type) {
				case metricdata.Histogram[int64]:
					sums[m.Name] = float64(data.DataPoints[0].Sum)
				case metricdata.Histogram[float64]:
					sums[m.Name] = data.DataPoints[0].Sum
				}
			}
		}
		assert.Equal(t, map[string]float64{"reauth.refresh.waiters": waiters, "reauth.refresh.duration": 2}, sums)
		assert.Equal(t, map[string]float64{"refresh.reason=missing refresh.result=succeeded": 1}, e.points("reauth.refreshes"))
		for name := range sums {
			assert.Equal(t, map[string]float64{"refresh.result=succeeded": 1}, e.points(name))
		}
		require.Len(t, e.named("reauth.refresh"), 1)
		assert.Contains(t, attributes(e.named("reauth.refresh")[0].Attributes()), "refresh.waiters=50")
	})
}
