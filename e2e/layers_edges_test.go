package e2e_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gregjones/httpcache"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// An arrangement is a layer over or under reauth, and how often a GET and a POST
// arrive at an API that answers 500.
type arrangement struct {
	name      string
	with      func(*reauth.Credential) http.RoundTripper
	get, post int
	fails     bool // the layer makes an error of the last 500
}

func arrangements() []arrangement {
	return []arrangement{
		{"reauth alone", func(cred *reauth.Credential) http.RoundTripper {
			return quickly(cred)
		}, 1, 1, false},
		{"go-retryablehttp over", func(cred *reauth.Credential) http.RoundTripper {
			return persistent(quickly(cred))
		}, 3, 3, true},
		{"go-retryablehttp under", func(cred *reauth.Credential) http.RoundTripper {
			return under(cred, persistent(nil))
		}, 3, 3, true},
		{"otelhttp over", func(cred *reauth.Credential) http.RoundTripper {
			return otelhttp.NewTransport(quickly(cred))
		}, 1, 1, false},
		{"otelhttp under", func(cred *reauth.Credential) http.RoundTripper {
			return under(cred, otelhttp.NewTransport(http.DefaultTransport))
		}, 1, 1, false},
		{"httpcache over", func(cred *reauth.Credential) http.RoundTripper {
			return &httpcache.Transport{Transport: quickly(cred), Cache: httpcache.NewMemoryCache()}
		}, 1, 1, false},
	}
}

// under returns a reauth.Transport with base under it.
func under(cred *reauth.Credential, base http.RoundTripper) *reauth.Transport {
	tr := quickly(cred)
	tr.Base = base
	return tr
}

// persistent returns go-retryablehttp as it comes, but that it waits less and gives
// up sooner.
func persistent(base http.RoundTripper) *retryablehttp.RoundTripper {
	c := retryablehttp.NewClient()
	c.RetryMax, c.RetryWaitMin, c.RetryWaitMax = 2, time.Millisecond, time.Millisecond
	c.Logger = nil
	c.HTTPClient = &http.Client{Transport: base}
	return &retryablehttp.RoundTripper{Client: c}
}

// A 500 costs what each layer says, and reauth adds nothing.
func TestA500IsNeverRepeatedByReauth(t *testing.T) {
	t.Parallel()
	for _, l := range arrangements() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			issuer := reauthtest.NewIssuer()
			t.Cleanup(issuer.Close)
			api := reauthtest.NewAPI(issuer, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusInternalServerError)
			}))
			t.Cleanup(api.Close)
			client := &http.Client{Transport: l.with(&reauth.Credential{Refresher: issuer, Logger: discard})}
			t.Cleanup(client.CloseIdleConnections)
			for method, want := range map[string]int{http.MethodGet: l.get, http.MethodPost: l.post} {
				before := api.Sends()
				req, err := http.NewRequestWithContext(t.Context(), method, api.URL(), nil)
				require.NoError(t, err)
				resp, err := client.Do(req)
				if l.fails {
					assert.Error(t, err, method)
				} else if assert.NoError(t, err, method) {
					assert.Equal(t, http.StatusInternalServerError, resp.StatusCode, method)
					require.NoError(t, resp.Body.Close())
				}
				assert.Equal(t, want, api.Sends()-before, method)
			}
			assert.Equal(t, 1, issuer.Refreshes())
		})
	}
}

// tracedRequest sends a request with a span of its caller's about it, whose token
// was revoked. It returns the client spans, in the order of their end, the caller's,
// and what the API saw.
func tracedRequest(t *testing.T, with func(*reauth.Credential, ...otelhttp.Option) http.RoundTripper) ([]sdktrace.ReadOnlySpan, trace.SpanContext, []reauthtest.Request) {
	t.Helper()
	issuer := reauthtest.NewIssuer()
	t.Cleanup(issuer.Close)
	api := reauthtest.NewAPI(issuer, nil)
	t.Cleanup(api.Close)
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	cred := &reauth.Credential{Refresher: issuer, Logger: discard}
	client := &http.Client{Transport: with(cred, otelhttp.WithTracerProvider(provider), otelhttp.WithPropagators(propagation.TraceContext{}))}
	_, err := cred.Token(t.Context())
	require.NoError(t, err)
	issuer.Revoke()
	ctx, caller := provider.Tracer("caller").Start(t.Context(), "caller")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, api.URL(), strings.NewReader("hello"))
	require.NoError(t, err)
	resp, err := client.Do(req)
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, "hello", string(got))
	ended := spans.Ended()
	for _, s := range ended {
		assert.Equal(t, trace.SpanKindClient, s.SpanKind())
		assert.Equal(t, caller.SpanContext().SpanID(), s.Parent().SpanID(), "a sibling, and no child of the other")
	}
	caller.End()
	return ended, caller.SpanContext(), api.Requests()
}

// statusOf returns the attribute http.response.status_code of a span.
func statusOf(s sdktrace.ReadOnlySpan) int64 {
	for _, a := range s.Attributes() {
		if a.Key == "http.response.status_code" {
			return a.Value.AsInt64()
		}
	}
	return 0
}

// 2 sends, 2 spans. The first is an error, and has ended by the time of the
// retry; each send names its own span to the server.
func TestUnderReauthNoSendIsWithoutASpanOfItsOwn(t *testing.T) {
	t.Parallel()
	spans, caller, sent := tracedRequest(t, func(cred *reauth.Credential, options ...otelhttp.Option) http.RoundTripper {
		return under(cred, otelhttp.NewTransport(http.DefaultTransport, options...))
	})
	require.Len(t, sent, 2)
	require.Len(t, spans, 2)
	assert.EqualValues(t, http.StatusUnauthorized, statusOf(spans[0]))
	assert.Equal(t, codes.Error, spans[0].Status().Code)
	assert.EqualValues(t, http.StatusOK, statusOf(spans[1]))
	assert.Equal(t, codes.Unset, spans[1].Status().Code)
	assert.False(t, spans[0].EndTime().After(spans[1].StartTime()))
	for i, s := range spans {
		assert.Equal(t, "00-"+caller.TraceID().String()+"-"+s.SpanContext().SpanID().String()+"-01", sent[i].Header.Get("Traceparent"))
	}
}

// 2 sends, 1 span, which knows nothing of the 401; both sends name it.
func TestOverReauthNoCuredRejectionIsSeenInASpan(t *testing.T) {
	t.Parallel()
	spans, caller, sent := tracedRequest(t, func(cred *reauth.Credential, options ...otelhttp.Option) http.RoundTripper {
		return otelhttp.NewTransport(quickly(cred), options...)
	})
	require.Len(t, sent, 2)
	require.Len(t, spans, 1)
	assert.EqualValues(t, http.StatusOK, statusOf(spans[0]))
	assert.Equal(t, codes.Unset, spans[0].Status().Code)
	for _, r := range sent {
		assert.Equal(t, "00-"+caller.TraceID().String()+"-"+spans[0].SpanContext().SpanID().String()+"-01", r.Header.Get("Traceparent"))
	}
}

// 0 sends. go-retryablehttp repeats a request that got no token, as it does
// with any error; the issuer is asked once for all of that, as refreshes are paced.
func TestGoRetryablehttpNeverHammersAnIssuerThatIsDown(t *testing.T) {
	t.Parallel()
	issuer := reauthtest.NewIssuer()
	t.Cleanup(issuer.Close)
	issuer.Down(true)
	api := reauthtest.NewAPI(issuer, nil)
	t.Cleanup(api.Close)
	refreshes := make(chan reauth.RefreshInfo, 10)
	cred := &reauth.Credential{
		Refresher: issuer, Logger: discard,
		MinBackoff: time.Hour,
		OnRefresh:  func(_ context.Context, r reauth.RefreshInfo) { refreshes <- r },
	}
	client := &http.Client{Transport: persistent(quickly(cred))}
	_, err := client.Get(api.URL())
	var failure *reauth.RefreshError
	require.ErrorAs(t, err, &failure)
	assert.Zero(t, api.Sends())
	assert.Len(t, refreshes, 1)
}

// Under reauth the redirects of go-retryablehttp's own client are out of its
// sight, and net/http compares no ports. That client has to be told not to follow;
// over reauth there is nothing to be told. 1 send to the API, 1 elsewhere.
func TestGoRetryablehttpNeverCarriesTheTokenElsewhere(t *testing.T) {
	t.Parallel()
	told := func() http.RoundTripper {
		rt := persistent(nil)
		rt.Client.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		return rt
	}
	for _, tt := range []struct {
		name   string
		with   func(*reauth.Credential) http.RoundTripper
		leaves bool // the token reaches another port of the host
	}{
		{"over", func(cred *reauth.Credential) http.RoundTripper { return persistent(quickly(cred)) }, false},
		{"under", func(cred *reauth.Credential) http.RoundTripper { return under(cred, persistent(nil)) }, true},
		{"under, and told not to follow", func(cred *reauth.Credential) http.RoundTripper { return under(cred, told()) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			seen := make(chan string, 10)
			elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				seen <- r.Header.Get("Authorization")
			}))
			t.Cleanup(elsewhere.Close)
			issuer := reauthtest.NewIssuer()
			t.Cleanup(issuer.Close)
			api := reauthtest.NewAPI(issuer, nil)
			t.Cleanup(api.Close)
			api.Next(reauthtest.RedirectTo(elsewhere.URL))
			client := &http.Client{Transport: tt.with(&reauth.Credential{Refresher: issuer, Logger: discard})}
			resp, err := client.Get(api.URL())
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, 1, api.Sends())
			require.Len(t, seen, 1)
			if tt.leaves {
				assert.NotEmpty(t, received(t, seen), "go-retryablehttp has changed: under reauth it need not be warned of any more")
			} else {
				assert.Empty(t, received(t, seen))
			}
		})
	}
}

// What the cache holds is validated again with a new token: 2 sends, a 401 and a 304. A
// 401 for good is passed on and ends what was held; it is not held itself.
func TestNoCacheAboveReauthHoldsA401(t *testing.T) {
	t.Parallel()
	issuer := reauthtest.NewIssuer()
	t.Cleanup(issuer.Close)
	api := reauthtest.NewAPI(issuer, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Cache-Control", "max-age=0")
		w.Header().Set("Vary", "Authorization")
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, "held")
	}))
	t.Cleanup(api.Close)
	cred := &reauth.Credential{Refresher: issuer, Logger: discard, MinBackoff: time.Hour}
	stored := httpcache.NewMemoryCache()
	client := &http.Client{Transport: &httpcache.Transport{Transport: quickly(cred), Cache: stored}}
	get := func() (status int, body string, sends int) {
		before := api.Sends()
		resp, err := client.Get(api.URL())
		require.NoError(t, err)
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode, string(got), api.Sends() - before
	}
	keeps := func(status int, body string, sends int) {
		t.Helper()
		gotStatus, gotBody, gotSends := get()
		assert.Equal(t, status, gotStatus)
		assert.Equal(t, sends, gotSends)
		if body != "" {
			assert.Equal(t, body, gotBody)
		}
		entry, held := stored.Get(api.URL())
		assert.Equal(t, status == http.StatusOK, held)
		assert.Equal(t, held, strings.HasPrefix(string(entry), "HTTP/1.1 200 OK"))
		assert.NotContains(t, string(entry), "access-")
	}
	keeps(http.StatusOK, "held", 1)
	issuer.Revoke()
	keeps(http.StatusOK, "held", 2)
	all := api.Requests()
	require.Len(t, all, 3)
	assert.Equal(t, http.StatusUnauthorized, all[1].Status)
	assert.Equal(t, http.StatusNotModified, all[2].Status)

	issuer.Refuse(true)
	issuer.Revoke()
	keeps(http.StatusUnauthorized, "", 2)
	keeps(http.StatusUnauthorized, "", 2) // with the token before, which the API accepted once
	issuer.Refuse(false)
	require.NoError(t, cred.Set(t.Context(), mustRefresh(t, issuer)))
	keeps(http.StatusOK, "held", 1)
}

// No layer that may stand above or below holds up a stream, once it is there: 2
// sends.
func TestNoLayerHoldsUpAStream(t *testing.T) {
	t.Parallel()
	for _, l := range arrangements() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			issuer := reauthtest.NewIssuer()
			t.Cleanup(issuer.Close)
			more := make(chan struct{})
			api := reauthtest.NewAPI(issuer, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				sendEvent(w, "", "first")
				select {
				case <-more:
				case <-r.Context().Done():
				}
				sendEvent(w, "", "second")
			}))
			t.Cleanup(api.Close)
			cred := &reauth.Credential{Refresher: issuer, Logger: discard}
			require.NoError(t, cred.Set(t.Context(), mustRefresh(t, issuer)))
			issuer.Revoke()
			client := &http.Client{Transport: l.with(cred)}
			t.Cleanup(client.CloseIdleConnections)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, api.URL(), nil)
			require.NoError(t, err)
			resp, err := client.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			first := make([]byte, len("data: first\n\n"))
			_, err = io.ReadFull(resp.Body, first)
			require.NoError(t, err)
			assert.Equal(t, "data: first\n\n", string(first))
			close(more)
			rest, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.Equal(t, "data: second\n\n", string(rest))
			assert.Equal(t, 2, api.Sends())
		})
	}
}
