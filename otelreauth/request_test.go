package otelreauth_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

func TestRequest(t *testing.T) {
	const first = "refresh.reason=missing refresh.result=succeeded"
	const host = " server.address=127.0.0.1"
	type counts = map[string]float64
	for _, tc := range []struct {
		name       string
		prepare    func(f *fixture)
		status     int
		rejections counts
		retries    counts
		refreshes  counts
		events     []string
	}{
		{"good", func(*fixture) {}, 200, counts{}, counts{}, counts{first: 1}, nil},
		{"revoked and recovered", func(f *fixture) { f.issuer.Revoke() }, 200,
			counts{"rejection.reason=revoked" + host: 1},
			counts{"retry.result=recovered" + host: 1},
			counts{first: 1, "refresh.reason=revoked refresh.result=succeeded": 1},
			[]string{
				"rejection http.response.status_code=401 rejection.reason=revoked" + host,
				"retry http.response.status_code=200 retry.result=recovered" + host,
			}},
		{"refused for good", func(f *fixture) { f.issuer.Refuse(true); f.issuer.Revoke() }, 401,
			counts{"rejection.reason=revoked" + host: 1},
			counts{"retry.result=rejected" + host: 1},
			counts{first: 1, "refresh.reason=revoked refresh.result=succeeded": 1},
			[]string{
				"rejection advice=check_issuer http.response.status_code=401 rejection.reason=revoked" + host,
				"retry http.response.status_code=401 retry.result=rejected" + host,
			}},
		{"refresh fails", func(f *fixture) { f.issuer.Revoke(); f.issuer.Down(true) }, 401,
			counts{"not_retried=no_token rejection.reason=revoked" + host: 1},
			counts{},
			counts{first: 1, "error.type=_OTHER refresh.reason=revoked refresh.result=failed": 1},
			[]string{"rejection advice=check_refresher http.response.status_code=401 not_retried=no_token rejection.reason=revoked" + host}},
		{"login ended", func(f *fixture) { f.issuer.Revoke(); f.issuer.Next(reauthtest.InvalidGrant()) }, 401,
			counts{"not_retried=no_token rejection.reason=revoked" + host: 1},
			counts{},
			counts{first: 1, "error.type=permanent refresh.reason=revoked refresh.result=failed": 1},
			[]string{"rejection advice=log_in http.response.status_code=401 not_retried=no_token rejection.reason=revoked" + host}},
		{"retry without a response", func(f *fixture) {
			f.api.Next(reauthtest.Reject())
			base := http.DefaultTransport
			sends := 0
			f.rt.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if sends++; sends == 2 {
					return nil, context.DeadlineExceeded
				}
				return base.RoundTrip(req)
			})
		}, 0,
			counts{"rejection.reason=invalid_token" + host: 1},
			counts{"retry.result=failed" + host: 1},
			counts{first: 1, "refresh.reason=invalid_token refresh.result=succeeded": 1},
			[]string{
				"rejection advice=resume http.response.status_code=401 rejection.reason=invalid_token" + host,
				"retry error.type=timeout retry.result=failed" + host,
			}},
		{"not about the token", func(f *fixture) {
			f.api.Next(reauthtest.Respond(http.StatusUnauthorized, `{"error":{"code":"insufficient_quota"}}`))
		}, 401,
			counts{"not_retried=reason rejection.reason=quota" + host: 1},
			counts{}, counts{first: 1},
			[]string{"rejection advice=top_up http.response.status_code=401 not_retried=reason rejection.reason=quota" + host}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			_, err := f.cred.Token(t.Context())
			require.NoError(t, err)
			tc.prepare(f)
			assert.Equal(t, tc.status, f.get())
			assert.Equal(t, tc.rejections, f.points("reauth.rejections"))
			assert.Equal(t, tc.retries, f.points("reauth.retries"))
			assert.Equal(t, tc.refreshes, f.points("reauth.refreshes"))
			requests := f.named("request")
			require.Len(t, requests, 1)
			assert.Equal(t, tc.events, events(requests[0]))
		})
	}
}

// An event is at the time of what it tells of, and has what leads to the logs of both
// sides.
func TestRequestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newExporter(t)
		sends := 0
		rt := &reauth.Transport{Logger: discard, RetryWait: -1, Origins: []string{"https://api.example.com:8443"},
			Credential: &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				time.Sleep(3 * time.Second)
				return reauth.Token{AccessToken: fmt.Sprint("token ", sends)}, nil
			})},
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sends++
				time.Sleep(time.Second)
				resp := answer(req, http.StatusOK, "")
				if sends == 1 {
					resp.StatusCode = http.StatusUnauthorized
				}
				resp.Header.Set("X-Request-Id", fmt.Sprint("id-", sends))
				return resp, nil
			}),
		}
		require.NoError(t, e.Instrument(rt))
		began := time.Now()
		ctx, span := e.tracers.Tracer("test").Start(t.Context(), "request")
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://API.example.com:8443/v1", nil)
		require.NoError(t, err)
		_, err = rt.RoundTrip(req)
		require.NoError(t, err)
		span.End()

		requests := e.named("request")
		require.Len(t, requests, 1)
		events := requests[0].Events()
		require.Len(t, events, 2)
		for n, at := range []time.Duration{4 * time.Second, 8 * time.Second} {
			assert.Equal(t, at, events[n].Time.Sub(began))
			set := attribute.NewSet(events[n].Attributes...)
			id, _ := set.Value("reauth.request_id")
			assert.Equal(t, fmt.Sprint("id-", n+1), id.AsString())
			print, _ := set.Value("reauth.token.fingerprint")
			assert.Equal(t, reauth.Token{AccessToken: fmt.Sprint("token ", n)}.Fingerprint(), print.AsString())
			host, _ := set.Value("server.address")
			assert.Equal(t, "api.example.com", host.AsString())
			port, _ := set.Value("server.port")
			assert.EqualValues(t, 8443, port.AsInt64())
		}
	})
}

// A request whose token was withheld is counted only if it was rejected.
func TestRequestWithheld(t *testing.T) {
	f := newFixture(t)
	f.rt = &reauth.Transport{Credential: f.cred, Origins: []string{}, Logger: discard}
	require.NoError(t, f.Instrument(f.rt))
	assert.Equal(t, http.StatusUnauthorized, f.get())
	f.rt = &reauth.Transport{Credential: f.cred, Origins: []string{}, Logger: discard,
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) { return answer(req, http.StatusOK, ""), nil })}
	require.NoError(t, f.Instrument(f.rt))
	assert.Equal(t, http.StatusOK, f.get())

	assert.Equal(t, map[string]float64{"not_retried=withheld rejection.reason=denied": 1}, f.points("reauth.rejections"))
	assert.Empty(t, f.points("reauth.retries"))
	requests := f.named("request")
	require.Len(t, requests, 2)
	assert.Equal(t, []string{"rejection advice=list_origin http.response.status_code=401 not_retried=withheld rejection.reason=denied withheld=origin"}, events(requests[0]))
	assert.Empty(t, requests[1].Events())
}

// With neither list, or through a wildcard, any host may be requested, also one that an
// attacker chose.
func TestCardinalityOfHostsIsBounded(t *testing.T) {
	for _, tc := range []struct {
		name    string
		origins []string // of the Transport
		more    []string
		want    []string
	}{
		{"no list", nil, nil, []string{""}},
		{"a wildcard", []string{"https://*.example.com"}, nil, []string{""}},
		{"listed in the Instrumentation", nil, []string{"https://H7.Example.com:443/", "https://h8.example.com."}, []string{"", "h7.example.com", "h8.example.com"}},
		{"listed in both", []string{"https://*.example.com", "https://h6.example.com"}, []string{"https://h7.example.com"}, []string{"", "h6.example.com", "h7.example.com"}},
		{"another port", nil, []string{"https://h7.example.com:444", "http://h7.example.com"}, []string{""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := newExporter(t)
			e.Origins = tc.more
			rt := &reauth.Transport{Logger: discard, Origins: tc.origins, Credential: &reauth.Credential{Logger: discard},
				Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
					return answer(req, http.StatusUnauthorized, `{"error":"insufficient_scope"}`), nil
				}),
			}
			require.NoError(t, rt.Credential.Set(t.Context(), reauth.Token{AccessToken: "token"}))
			require.NoError(t, e.Instrument(rt))
			for n := range 1000 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("https://h%d.example.com/%d", n, n), nil)
				require.NoError(t, err)
				_, err = rt.RoundTrip(req)
				require.NoError(t, err)
			}
			const rest = "not_retried=reason rejection.reason=insufficient_scope"
			want := map[string]float64{}
			for _, host := range tc.want {
				if host == "" {
					want[rest] = float64(1000 - len(tc.want) + 1)
				} else {
					want[rest+" server.address="+host] = 1
				}
			}
			assert.Equal(t, want, e.points("reauth.rejections"))
		})
	}
}

// A Classifier may return the text of a server as a Reason.
func TestCardinalityOfReasonsIsBounded(t *testing.T) {
	e := newExporter(t)
	n := 0
	rt := &reauth.Transport{Logger: discard, Credential: &reauth.Credential{Logger: discard},
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) { return answer(req, http.StatusForbidden, ""), nil }),
		Classifier: reauth.ClassifierFunc(func(*http.Response, func() []byte) reauth.Rejection {
			n++
			return reauth.Rejection{Reason: reauth.Reason(fmt.Sprint("reason ", n))}
		}),
	}
	require.NoError(t, rt.Credential.Set(t.Context(), reauth.Token{AccessToken: "token"}))
	require.NoError(t, e.Instrument(rt))
	for range 1000 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com", nil)
		require.NoError(t, err)
		_, err = rt.RoundTrip(req)
		require.NoError(t, err)
	}
	assert.Equal(t, map[string]float64{"not_retried=reason rejection.reason=_OTHER": 1000}, e.points("reauth.rejections"))
}

// Every Reason of package reauth has a value of its own.
func TestReasonsAreKnown(t *testing.T) {
	e := newExporter(t)
	reasons := constantsOf(t, "Reason")
	require.Len(t, reasons, 18)
	for _, reason := range reasons {
		rt := &reauth.Transport{Logger: discard, RetryWait: -1,
			Credential: &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				return reauth.Token{}, errors.New("refused")
			})},
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) { return answer(req, http.StatusUnauthorized, ""), nil }),
			Classifier: reauth.ClassifierFunc(func(*http.Response, func() []byte) reauth.Rejection {
				return reauth.Rejection{Reason: reauth.Reason(reason)}
			}),
		}
		require.NoError(t, rt.Credential.Set(t.Context(), reauth.Token{AccessToken: "token"}))
		require.NoError(t, e.Instrument(rt))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com", nil)
		require.NoError(t, err)
		_, err = rt.RoundTrip(req)
		require.NoError(t, err)
	}
	points := e.points("reauth.rejections")
	assert.Len(t, points, len(reasons))
	for _, reason := range reasons {
		why := "reason"
		if reauth.Reason(reason).Refreshable() {
			why = "no_token"
		}
		assert.Contains(t, points, "not_retried="+why+" rejection.reason="+reason)
	}
}

// constantsOf returns the values of the constants that package reauth has of a type.
func constantsOf(t *testing.T, name string) []string {
	files, err := filepath.Glob("../*.go")
	require.NoError(t, err)
	var values []string
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			typ, ok := spec.Type.(*ast.Ident)
			lit, isLit := spec.Values[0].(*ast.BasicLit)
			if ok && isLit && typ.Name == name {
				v, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				values = append(values, v)
			}
			return true
		})
	}
	return values
}

// exportEverything returns a fixture that has exported every metric, attribute and event.
// The issuer, the server and the connection repeat the token in all that they say.
func exportEverything(t *testing.T, more ...metric.Reader) *fixture {
	f := newFixture(t, more...)
	f.issuer.SetLifetime(time.Hour)
	f.api.SetRejection(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		token := req.Header.Get("Authorization")
		w.Header().Set("X-Request-Id", token)
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token", error_description="`+token+`"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":{"code":"invalid_token","message":"`+token+` of ?key=query-secret"}}`)
	}))
	fail := false
	f.cred = &reauth.Credential{Logger: discard, MinBackoff: -1, Store: &memoryStore{}, Refresher: reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		if fail {
			return reauth.Token{}, fmt.Errorf("the issuer refused %q and %q", stale.Token.AccessToken, stale.Token.RefreshToken)
		}
		tok, err := f.issuer.Refresh(ctx, stale)
		tok.RefreshToken = "refresh-secret"
		return tok, err
	})}
	f.rt = &reauth.Transport{Credential: f.cred, Origins: []string{f.api.URL()}, RetryWait: -1, Logger: discard,
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				err = fmt.Errorf("%w: %s", err, req.Header.Get("Authorization"))
			}
			return resp, err
		}),
	}
	require.NoError(t, f.Instrument(f.rt))
	assert.Equal(t, http.StatusOK, f.get())
	f.api.Next(reauthtest.Fault{}, reauthtest.Status(http.StatusOK, "X-Request-Id", "request-id"))
	f.issuer.Revoke()
	assert.Equal(t, http.StatusOK, f.get(), "recovered")

	// Another process takes its token from the Store.
	other := &reauth.Credential{Logger: discard, Refresher: f.cred.Refresher, Store: f.cred.Store}
	require.NoError(t, f.InstrumentCredential(other))
	_, err := other.Token(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = other.Current() })

	fail = true
	f.issuer.Revoke()
	assert.Equal(t, http.StatusUnauthorized, f.get(), "no new token")
	withheld := &reauth.Transport{Credential: f.cred, Origins: []string{}, Logger: discard}
	require.NoError(t, f.Instrument(withheld))
	f.rt = withheld
	assert.Equal(t, http.StatusUnauthorized, f.get(), "withheld")

	// A new login, whose retry gets no response.
	f.rt = &reauth.Transport{Credential: f.cred, Logger: discard, RetryWait: -1, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if fail = !fail; fail {
			return nil, fmt.Errorf("cut: %s", req.Header.Get("Authorization"))
		}
		return answer(req, http.StatusUnauthorized, ""), nil
	})}
	require.NoError(t, f.cred.Set(t.Context(), reauth.Token{AccessToken: "login-secret", RefreshToken: "refresh-secret"}))
	require.NoError(t, f.Instrument(f.rt))
	assert.Zero(t, f.get(), "no response")
	return f
}

func TestNoSecretIsExported(t *testing.T) {
	f := exportEverything(t)
	dump := f.dump()
	require.Contains(t, dump, "reauth.retry")
	require.Contains(t, dump, "the issuer refused", "the error of a refresh is the status of its span")
	secrets := []string{"refresh-secret", "login-secret", "query-secret", "Bearer "}
	for _, req := range f.api.Requests() {
		if token := req.Header.Get("Authorization"); token != "" {
			secrets = append(secrets, token[len("Bearer "):])
		}
	}
	assert.Greater(t, len(secrets), 6)
	for _, secret := range secrets {
		assert.NotContains(t, dump, secret)
	}
}
