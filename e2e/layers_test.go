package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gregjones/httpcache"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
	"github.com/reauth-go/reauth/retry"
)

// Each layer, as its own documentation would have one put it over or under
// reauth. It gets the Credential and returns the transport to use.
type layer struct {
	name string
	with func(cred *reauth.Credential) http.RoundTripper

	// How often a GET and a POST arrive at the API.
	good, cured, refused      int
	unavailable, postDown     int
	dropped, postDropped      int
	errorInsteadOfUnavailable bool // the layer makes an error of the last 503
}

// retryable returns go-retryablehttp as it comes, but that it waits less.
func retryable(base http.RoundTripper) http.RoundTripper {
	c := retryablehttp.NewClient()
	c.RetryMax, c.RetryWaitMin, c.RetryWaitMax = 2, time.Millisecond, time.Millisecond
	c.Logger = nil
	c.HTTPClient = &http.Client{Transport: base}
	return &retryablehttp.RoundTripper{Client: c}
}

func over(cred *reauth.Credential, base http.RoundTripper) *reauth.Transport {
	return &reauth.Transport{Base: base, Credential: cred, RetryWait: time.Millisecond, Logger: discard}
}

// fresh returns a transport that does not itself repeat a GET, as net/http does on
// a connection that it had kept.
func fresh() *http.Transport {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.DisableKeepAlives = true
	return tr
}

var stacks = []layer{
	{
		name: "reauth alone",
		with: func(cred *reauth.Credential) http.RoundTripper { return over(cred, fresh()) },
		good: 1, cured: 2, refused: 2, unavailable: 1, postDown: 1, dropped: 1, postDropped: 1,
	},
	{
		name: "package retry over reauth",
		with: func(cred *reauth.Credential) http.RoundTripper {
			return &retry.Transport{Base: over(cred, fresh()), MaxRetries: 2, MinWait: time.Millisecond, Logger: discard}
		},
		good: 1, cured: 2, refused: 2, unavailable: 3, postDown: 1, dropped: 3, postDropped: 1,
	},
	{
		name: "go-retryablehttp over reauth",
		with: func(cred *reauth.Credential) http.RoundTripper { return retryable(over(cred, fresh())) },
		good: 1, cured: 2, refused: 2, unavailable: 3, postDown: 3, dropped: 3, postDropped: 3,
		errorInsteadOfUnavailable: true,
	},
	{
		name: "go-retryablehttp under reauth",
		with: func(cred *reauth.Credential) http.RoundTripper { return over(cred, retryable(fresh())) },
		good: 1, cured: 2, refused: 2, unavailable: 3, postDown: 3, dropped: 3, postDropped: 3,
		errorInsteadOfUnavailable: true,
	},
	{
		name: "otelhttp over reauth",
		with: func(cred *reauth.Credential) http.RoundTripper { return otelhttp.NewTransport(over(cred, fresh())) },
		good: 1, cured: 2, refused: 2, unavailable: 1, postDown: 1, dropped: 1, postDropped: 1,
	},
	{
		name: "otelhttp under reauth",
		with: func(cred *reauth.Credential) http.RoundTripper {
			return over(cred, otelhttp.NewTransport(fresh()))
		},
		good: 1, cured: 2, refused: 2, unavailable: 1, postDown: 1, dropped: 1, postDropped: 1,
	},
	{
		name: "httpcache over reauth",
		with: func(cred *reauth.Credential) http.RoundTripper {
			c := httpcache.NewMemoryCacheTransport()
			c.Transport = over(cred, fresh())
			return c
		},
		good: 1, cured: 2, refused: 2, unavailable: 1, postDown: 1, dropped: 1, postDropped: 1,
	},
}

// What a request costs, whatever reauth is put together with. docs/retrying.md
// has the table that it prints with -v.
func TestNoLayerMultipliesTheSendsOfARejection(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		var b strings.Builder
		b.WriteString("\n| sends | 200 | 401, recovered | 401 for good | 503: GET, POST | connection dropped: GET, POST |\n|---|---|---|---|---|---|\n")
		for _, l := range stacks {
			fmt.Fprintf(&b, "| %s | %d | %d | %d | %d, %d | %d, %d |\n", l.name, l.good, l.cured, l.refused, l.unavailable, l.postDown, l.dropped, l.postDropped)
		}
		t.Log(b.String())
	})
	for _, l := range stacks {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			issuer := reauthtest.NewIssuer()
			t.Cleanup(issuer.Close)
			api := reauthtest.NewAPI(issuer, nil)
			t.Cleanup(api.Close)
			cred := &reauth.Credential{Refresher: issuer, Logger: discard}
			client := &http.Client{Transport: l.with(cred)}
			t.Cleanup(client.CloseIdleConnections)
			send := func(method string) (status, sends int, err error) {
				before := api.Sends()
				req, err := http.NewRequestWithContext(t.Context(), method, api.URL(), strings.NewReader("hello"))
				require.NoError(t, err)
				resp, err := client.Do(req)
				if err == nil {
					status = resp.StatusCode
					body, readErr := io.ReadAll(resp.Body)
					require.NoError(t, readErr)
					require.NoError(t, resp.Body.Close())
					if status == http.StatusOK {
						assert.Equal(t, "hello", string(body))
					}
				}
				return status, api.Sends() - before, err
			}
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				down, dropped := l.unavailable, l.dropped
				if method == http.MethodPost {
					down, dropped = l.postDown, l.postDropped
				}
				for _, step := range []struct {
					name   string
					spoil  func()
					status int
					sends  int
				}{
					{"good", func() {}, 200, l.good},
					{"revoked", issuer.Revoke, 200, l.cured},
					{"expired", issuer.Expire, 200, l.cured},
				} {
					step.spoil()
					status, sends, err := send(method)
					assert.NoError(t, err, "%s, %s", method, step.name)
					assert.Equal(t, step.status, status, "%s, %s", method, step.name)
					assert.Equal(t, step.sends, sends, "%s, %s", method, step.name)
				}
				api.Down(true)
				status, sends, err := send(method)
				assert.Equal(t, down, sends, "%s, 503", method)
				if l.errorInsteadOfUnavailable {
					assert.Error(t, err)
				} else {
					assert.Equal(t, http.StatusServiceUnavailable, status)
				}
				api.Down(false)
				api.Next(reauthtest.Drop(), reauthtest.Drop(), reauthtest.Drop())
				_, sends, err = send(method)
				assert.Error(t, err)
				assert.Equal(t, dropped, sends, "%s, connection dropped", method)
				for range 3 - sends { // use up what is left of the faults
					_, _ = client.Do(mustRequest(t, method, api.URL()))
				}
			}
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				issuer.Refuse(false)
				tok, err := issuer.Refresh(t.Context(), reauth.Stale{})
				require.NoError(t, err)
				require.NoError(t, cred.Set(t.Context(), tok)) // ends the pause
				issuer.Refuse(true)
				issuer.Revoke()
				before := api.Sends()
				resp, err := client.Do(mustRequest(t, method, api.URL()))
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				sent := api.Requests()[before:]
				if assert.Len(t, sent, l.refused, "%s, refused for good", method) {
					o, _ := reauth.OutcomeOf(resp)
					assert.Equal(t, sent[0].ID, o.First.RequestID)
					assert.Equal(t, sent[1].ID, o.Retry.RequestID)
				}
			}
		})
	}
}

func mustRequest(t *testing.T, method, address string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	require.NoError(t, err)
	return req
}

// An issuer that is down does not become a storm of a layer above.
func TestAFailedRefreshIsNotRepeatedByGoRetryablehttp(t *testing.T) {
	issuer := reauthtest.NewIssuer()
	t.Cleanup(issuer.Close)
	api := reauthtest.NewAPI(issuer, nil)
	t.Cleanup(api.Close)
	cred := &reauth.Credential{Refresher: issuer, Logger: discard}
	client := &http.Client{Transport: retryable(over(cred, nil))}
	resp, err := client.Get(api.URL())
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	issuer.Down(true)
	issuer.Revoke()
	before := api.Sends()
	resp, err = client.Get(api.URL())
	require.NoError(t, err, "the 401 in hand")
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	assert.Equal(t, 1, api.Sends()-before)
	var failure *reauth.RefreshError
	o, ok := reauth.OutcomeOf(resp)
	assert.True(t, ok)
	assert.True(t, errors.As(o.Err, &failure))
}

// With otelhttp under reauth each send has a span, over it each request.
func TestNoSpanShowsTheToken(t *testing.T) {
	for name, want := range map[string]int{"under": 2, "over": 1} {
		t.Run(name, func(t *testing.T) {
			issuer := reauthtest.NewIssuer()
			t.Cleanup(issuer.Close)
			api := reauthtest.NewAPI(issuer, nil)
			t.Cleanup(api.Close)
			spans := tracetest.NewSpanRecorder()
			traced := otelhttp.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
			cred := &reauth.Credential{Refresher: issuer, Logger: discard}
			var rt http.RoundTripper = over(cred, otelhttp.NewTransport(http.DefaultTransport, traced))
			if name == "over" {
				rt = otelhttp.NewTransport(over(cred, nil), traced)
			}
			client := &http.Client{Transport: rt}
			tok, err := cred.Token(t.Context())
			require.NoError(t, err)
			issuer.Revoke()
			resp, err := client.Get(api.URL())
			require.NoError(t, err)
			_, _ = io.Copy(io.Discard, resp.Body)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			next, err := cred.Token(t.Context())
			require.NoError(t, err)

			var said strings.Builder
			ended := spans.Ended()
			for _, s := range ended {
				fmt.Fprintln(&said, s.Name(), s.Attributes(), s.Events(), s.Status())
			}
			assert.Len(t, ended, want)
			assert.NotContains(t, said.String(), tok.AccessToken)
			assert.NotContains(t, said.String(), next.AccessToken)
		})
	}
}

// What is cached is the answer, and no 401; from then on it costs no send.
func TestACacheAboveKeepsNeitherTheTokenNorThe401(t *testing.T) {
	issuer := reauthtest.NewIssuer()
	t.Cleanup(issuer.Close)
	api := reauthtest.NewAPI(issuer, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		_, _ = io.WriteString(w, "cached")
	}))
	t.Cleanup(api.Close)
	cred := &reauth.Credential{Refresher: issuer, Logger: discard}
	stored := httpcache.NewMemoryCache()
	cache := httpcache.NewTransport(stored)
	cache.Transport = over(cred, nil)
	client := &http.Client{Transport: cache}
	tok, err := cred.Token(context.Background())
	require.NoError(t, err)
	issuer.Revoke()
	for range 3 {
		resp, err := client.Get(api.URL())
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, "cached", string(body))
	}
	assert.Equal(t, 2, api.Sends(), "one refused, one cured, and then none")
	entry, ok := stored.Get(api.URL())
	require.True(t, ok)
	assert.Contains(t, string(entry), "200 OK")
	assert.NotContains(t, string(entry), tok.AccessToken)
}
