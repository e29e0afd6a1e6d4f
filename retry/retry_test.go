package retry_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/retry"
)

func TestWhatMayHaveBeenAppliedIsNotSentAgain(t *testing.T) {
	t.Parallel()
	requests := []struct {
		name, method, key string
		idempotent        bool
	}{
		{"GET", http.MethodGet, "", true},
		{"HEAD", http.MethodHead, "", true},
		{"OPTIONS", http.MethodOptions, "", true},
		{"PUT", http.MethodPut, "", true},
		{"DELETE", http.MethodDelete, "", true},
		{"POST", http.MethodPost, "", false},
		{"PATCH", http.MethodPatch, "", false},
		{"POST with Idempotency-Key", http.MethodPost, "Idempotency-Key", true},
		{"POST with X-Idempotency-Key", http.MethodPost, "X-Idempotency-Key", true},
	}
	answers := []struct {
		name             string
		status           int // 0: the connection is dropped
		retryAfter       string
		idempotent, post int // sends
	}{
		{"200", 200, "", 1, 1},
		{"204", 204, "", 1, 1},
		{"304", 304, "", 1, 1},
		{"400", 400, "", 1, 1},
		{"401", 401, "", 1, 1},
		{"401 with Retry-After", 401, "0", 1, 1},
		{"403 with Retry-After", 403, "0", 1, 1},
		{"404", 404, "", 1, 1},
		{"408", 408, "", 4, 1},
		{"409", 409, "", 1, 1},
		{"425", 425, "", 4, 1},
		{"429", 429, "", 4, 1},
		{"429 with Retry-After", 429, "0", 4, 4},
		{"429 with another Retry-After", 429, "soon", 4, 1},
		{"500", 500, "", 4, 1},
		{"500 with Retry-After", 500, "0", 4, 1},
		{"501", 501, "", 1, 1},
		{"502", 502, "", 4, 1},
		{"503", 503, "", 4, 1},
		{"503 with Retry-After", 503, "0", 4, 4},
		{"504", 504, "", 4, 1},
		{"a dropped connection", 0, "", 4, 1},
	}
	ofBoth(t, func(t *testing.T, h2 bool) {
		t.Parallel()
		for _, r := range requests {
			for _, a := range answers {
				t.Run(r.name+" and "+a.name, func(t *testing.T) {
					var cut atomic.Int32
					srv := serve(t, h2, func(w http.ResponseWriter, got *http.Request) {
						if body, err := io.ReadAll(got.Body); err != nil || string(body) != "payload" {
							cut.Add(1)
						}
						if a.status == 0 {
							panic(http.ErrAbortHandler)
						}
						if a.retryAfter != "" {
							w.Header().Set("Retry-After", a.retryAfter)
						}
						w.WriteHeader(a.status)
						_, _ = io.WriteString(w, a.name)
					})
					req := newRequest(t, r.method, srv.URL, strings.NewReader("payload"))
					if r.key != "" {
						req.Header.Set(r.key, "k1")
					}
					resp, err := (&retry.Transport{Base: srv.base(t), MinWait: -1, Logger: discard}).RoundTrip(req)
					if a.status == 0 {
						require.Error(t, err)
						assert.Nil(t, resp)
					} else {
						require.NoError(t, err)
						assert.Equal(t, a.status, resp.StatusCode)
						if got := read(t, resp); r.method != http.MethodHead && a.status != 204 && a.status != 304 {
							assert.Equal(t, a.name, got)
						}
					}
					want := a.post
					if r.idempotent {
						want = a.idempotent
					}
					assert.EqualValues(t, want, srv.sends.Load(), "sends")
					assert.Zero(t, cut.Load(), "bodies that were not whole")
				})
			}
		}
	})
}

func TestRepeatableOfTheCaller(t *testing.T) {
	for status, want := range map[int]int{502: 4, 503: 4, 529: 4, 429: 4, 500: 4, 400: 1, 401: 1, 501: 1} {
		for path, repeatable := range map[string]bool{"/v1/chat/completions": true, "/v1/files": false} {
			synctest.Test(t, func(t *testing.T) {
				sends := 0
				rt := &retry.Transport{
					Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
						sends++
						return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
					}),
					Repeatable: func(req *http.Request) bool { return strings.HasSuffix(req.URL.Path, "/chat/completions") },
				}
				req, err := http.NewRequest(http.MethodPost, "https://api.example.com"+path, strings.NewReader("{}"))
				require.NoError(t, err)
				resp, err := rt.RoundTrip(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				if repeatable {
					assert.Equal(t, want, sends, "%d", status)
				} else {
					assert.Equal(t, 1, sends, "%d", status)
				}
			})
		}
	}
}

func TestOneRepeatIsEnoughIfItIsAnswered(t *testing.T) {
	t.Parallel()
	for _, fault := range []int{429, 500, 502, 503, 504, 0} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			t.Parallel()
			var srv *server
			srv = serve(t, false, func(w http.ResponseWriter, r *http.Request) {
				if srv.sends.Load() > 1 {
					_, _ = io.Copy(w, r.Body)
				} else if fault == 0 {
					panic(http.ErrAbortHandler)
				} else {
					w.WriteHeader(fault)
				}
			})
			req := newRequest(t, http.MethodPut, srv.URL, strings.NewReader("payload"))
			resp, err := (&retry.Transport{Base: srv.base(t), MinWait: -1, Logger: discard}).RoundTrip(req)
			require.NoError(t, err)
			assert.Equal(t, 200, resp.StatusCode)
			assert.Equal(t, "payload", read(t, resp))
			assert.EqualValues(t, 2, srv.sends.Load())
		})
	}
}

func TestMaxIsTheNumberOfRepeats(t *testing.T) {
	t.Parallel()
	for limit, sends := range map[int]int32{0: 4, 1: 2, 5: 6, -1: 1} {
		srv := serve(t, false, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
		req, bodies := newRequest(t, http.MethodPut, srv.URL, strings.NewReader("payload")), int32(1)
		fresh := req.GetBody
		req.GetBody = func() (io.ReadCloser, error) { bodies++; return fresh() }
		resp, err := (&retry.Transport{Base: srv.base(t), MaxRetries: limit, MinWait: -1, Logger: discard}).RoundTrip(req)
		require.NoError(t, err)
		read(t, resp)
		assert.Equal(t, sends, srv.sends.Load(), "MaxRetries: %d", limit)
		assert.Equal(t, sends, bodies, "MaxRetries: %d", limit)
	}
}

// An error that is found by its type and its identity.
type oddError struct{ n int }

func (e *oddError) Error() string { return fmt.Sprint("odd ", e.n) }

// "giving up after 4 attempts" would stand in its place.
func TestTheLastErrorIsReturnedAsItIs(t *testing.T) {
	t.Parallel()
	n := 0
	rt := &retry.Transport{MinWait: -1, Logger: discard, Base: roundTripFunc(func(*http.Request) (*http.Response, error) {
		n++
		return nil, &oddError{n}
	})}
	resp, err := rt.RoundTrip(newRequest(t, http.MethodGet, "https://api.example.com/?q=secret", nil))
	assert.Nil(t, resp)
	require.IsType(t, &oddError{}, err)
	assert.Equal(t, 4, err.(*oddError).n)

	n = 0
	_, err = (&http.Client{Transport: rt}).Get("https://api.example.com/")
	var wrapped *url.Error
	require.ErrorAs(t, err, &wrapped)
	assert.IsType(t, &oddError{}, wrapped.Err, "wrapped once")
}

func TestABaseThatAnswersNothingIsAnError(t *testing.T) {
	t.Parallel()
	rt := &retry.Transport{MinWait: -1, Logger: discard, Base: roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, nil })}
	resp, err := rt.RoundTrip(newRequest(t, http.MethodGet, "https://api.example.com/", nil))
	assert.Nil(t, resp)
	assert.EqualError(t, err, "retry: Base (retry_test.roundTripFunc) returned neither a response nor an error")
}

func TestABaseThatAnswersBothIsTakenByItsError(t *testing.T) {
	t.Parallel()
	var answers []*tracked
	resp, err := (&retry.Transport{MinWait: -1, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp := answer(req, 200, "")
		answers = append(answers, &tracked{Reader: strings.NewReader("half")})
		resp.Body = answers[len(answers)-1]
		return resp, io.ErrUnexpectedEOF
	})}).RoundTrip(newRequest(t, http.MethodGet, "https://api.example.com", nil))
	assert.Equal(t, io.ErrUnexpectedEOF, err)
	require.Len(t, answers, 4)
	for _, b := range answers[:3] {
		assert.EqualValues(t, 1, b.closed.Load())
	}
	assert.Same(t, answers[3], resp.Body)
}

func TestABaseWithoutBodiesIsRepeatedToo(t *testing.T) {
	t.Parallel()
	n := 0
	resp, err := (&http.Client{Transport: &retry.Transport{MinWait: -1, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		n++
		return &http.Response{StatusCode: 503}, nil
	})}}).Get("https://api.example.com")
	require.NoError(t, err)
	assert.Empty(t, read(t, resp))
	assert.Equal(t, 4, n)
	assert.Equal(t, "api.example.com", resp.Request.URL.Host)
}

// The Credential is paced; a hail of repeats would only meet its pause.
func TestWhatReauthSaysItselfIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	down := errors.New("issuer down")
	closed := &reauth.Credential{Refresher: &issuer{}, Logger: discard}
	require.NoError(t, closed.Shutdown(context.Background()))
	for name, tt := range map[string]struct {
		url  string
		base *reauth.Transport
		is   error
	}{
		"RefreshError": {"https://api.example.com", &reauth.Transport{Credential: &reauth.Credential{Refresher: &issuer{err: down}, Logger: discard}}, down},
		"ErrInsecure":  {"http://api.example.com", &reauth.Transport{Credential: &reauth.Credential{Refresher: &issuer{}, Logger: discard}}, reauth.ErrInsecure},
		"ErrClosed":    {"https://api.example.com", &reauth.Transport{Credential: closed}, reauth.ErrClosed},
		"CredentialFor": {"https://api.example.com", &reauth.Transport{CredentialFor: func(*http.Request) (*reauth.Credential, error) {
			return nil, down
		}}, down},
		"configuration": {"https://api.example.com", &reauth.Transport{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, sent := 0, 0
			tt.base.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) { sent++; return answer(req, 200, ""), nil })
			between := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				asked++
				resp, err := tt.base.RoundTrip(req)
				return resp, err
			})
			_, err := (&retry.Transport{Base: between, MinWait: -1, Logger: discard}).RoundTrip(newRequest(t, http.MethodGet, tt.url, nil))
			require.Error(t, err)
			if tt.is != nil {
				assert.ErrorIs(t, err, tt.is)
			}
			assert.Equal(t, 1, asked)
			assert.Zero(t, sent)
		})
	}
	for _, err := range []error{&reauth.RefreshError{}, reauth.ErrInsecure, reauth.ErrLoggedOut, reauth.ErrClosed} {
		n := 0
		_, got := (&retry.Transport{MinWait: -1, Logger: discard, Base: roundTripFunc(func(*http.Request) (*http.Response, error) {
			n++
			return nil, fmt.Errorf("a layer between: %w", err)
		})}).RoundTrip(newRequest(t, http.MethodGet, "https://api.example.com", nil))
		assert.ErrorIs(t, got, err)
		assert.Equal(t, 1, n, "%v", err)
	}
}

// Reauth below has repeated it; a second repeat is not ours.
func TestA401ForGoodIsTwoSends(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		srv := serve(t, false, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, "no", http.StatusUnauthorized)
		})
		iss := &issuer{}
		rt := &retry.Transport{MinWait: -1, Logger: discard, Base: &reauth.Transport{
			Base: srv.base(t), RetryWait: -1, Logger: discard, Credential: &reauth.Credential{Refresher: iss, Logger: discard},
		}}
		ctx, outcome := reauth.WithOutcome(context.Background())
		resp, err := rt.RoundTrip(newRequest(t, method, srv.URL, strings.NewReader("payload")).WithContext(ctx))
		require.NoError(t, err)
		assert.Equal(t, 401, resp.StatusCode)
		assert.Equal(t, "no\n", read(t, resp))
		assert.EqualValues(t, 2, srv.sends.Load())
		assert.EqualValues(t, 2, iss.calls.Load())
		o, ok := reauth.OutcomeOf(resp)
		require.True(t, ok)
		assert.Equal(t, 401, o.Retry.StatusCode)
		assert.Equal(t, o, outcome())
	}
}

func TestTheOutcomeOfTheLastTryComesThrough(t *testing.T) {
	t.Parallel()
	var srv *server
	srv = serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", fmt.Sprint("r", srv.sends.Load()))
		switch _, _ = io.Copy(io.Discard, r.Body); {
		case srv.sends.Load() == 1:
			w.WriteHeader(503)
		case r.Header.Get("Authorization") != "Bearer T2":
			w.WriteHeader(401)
		}
	})
	cred := &reauth.Credential{Refresher: &issuer{}, Logger: discard}
	_, err := cred.Token(context.Background())
	require.NoError(t, err)
	client := &http.Client{Transport: &retry.Transport{MinWait: -1, Logger: discard, Base: &reauth.Transport{
		Base: srv.base(t), Credential: cred, RetryWait: -1, Logger: discard,
	}}}
	ctx, outcome := reauth.WithOutcome(context.Background())
	req := newRequest(t, http.MethodPut, srv.URL, strings.NewReader("payload")).WithContext(ctx)
	resp, err := client.Do(req)
	require.NoError(t, err)
	read(t, resp)
	assert.Equal(t, 200, resp.StatusCode)
	o, ok := reauth.OutcomeOf(resp)
	require.True(t, ok)
	assert.True(t, o.Recovered())
	assert.Equal(t, "r2", o.First.RequestID)
	assert.Equal(t, "r3", o.Retry.RequestID)
	assert.Equal(t, o, outcome())
	assert.Same(t, req.URL, resp.Request.URL)
	assert.Empty(t, resp.Request.Header.Get("Authorization"))
}

func TestTheResponseShowsTheCallersRequestWhichIsAsItWas(t *testing.T) {
	t.Parallel()
	ofBoth(t, func(t *testing.T, h2 bool) {
		for _, method := range []string{http.MethodGet, http.MethodPut} {
			var srv *server
			srv = serve(t, h2, func(w http.ResponseWriter, _ *http.Request) {
				if srv.sends.Load() < 3 {
					w.WriteHeader(500)
				}
			})
			req := newRequest(t, method, srv.URL+"/path?q=1", nil)
			if method == http.MethodPut {
				req = newRequest(t, method, srv.URL+"/path?q=1", strings.NewReader("payload"))
				req.Body = &tracked{Reader: req.Body}
			}
			req.Header = http.Header{"X-Mine": {"a", "b"}}
			req.URL.User = url.UserPassword("user", "password")
			req.RequestURI = "/as/a/proxy/has/it"
			before, header, body := *req, req.Header.Clone(), req.Body
			resp, err := (&retry.Transport{Base: srv.base(t), MinWait: -1, Logger: discard}).RoundTrip(req)
			require.NoError(t, err)
			read(t, resp)
			assert.Equal(t, 200, resp.StatusCode)
			if h2 { // net/http itself makes a copy there
				assert.Equal(t, header, resp.Request.Header)
				assert.Equal(t, req.Method, resp.Request.Method)
			} else {
				assert.Same(t, req, resp.Request)
			}
			assert.Same(t, req.URL, resp.Request.URL)
			assert.Equal(t, header, req.Header)
			assert.Same(t, before.URL, req.URL)
			assert.Equal(t, before.RequestURI, req.RequestURI)
			assert.Equal(t, before.ContentLength, req.ContentLength)
			if body != nil {
				assert.Same(t, body, req.Body)
			}
		}
	})
}

// Retryablehttp's http.Client adds the header, and reauth would take it for
// the caller's own.
func TestNoCredentialIsMadeOfTheURLsUserinfo(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	srv := serve(t, false, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Authorization") })
	req := newRequest(t, http.MethodGet, srv.URL, nil)
	req.URL.User = url.UserPassword("user", "password")
	resp, err := (&retry.Transport{MinWait: -1, Logger: discard, Base: &reauth.Transport{
		Base: srv.base(t), Credential: &reauth.Credential{Refresher: &issuer{}, Logger: discard},
	}}).RoundTrip(req)
	require.NoError(t, err)
	read(t, resp)
	assert.Equal(t, "Bearer T1", <-got)
}

// Retryablehttp's http.Client follows before the caller's can refuse.
func TestRedirectsAreTheCallersToFollow(t *testing.T) {
	t.Parallel()
	for _, code := range []int{301, 302, 303, 307, 308} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(fmt.Sprint(code, " ", method), func(t *testing.T) {
				t.Parallel()
				there := serve(t, false, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Method) })
				here := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Location", there.URL+"/there")
					w.WriteHeader(code)
				})
				rt := &retry.Transport{Base: here.base(t), MinWait: -1, Logger: discard}
				send := func(check func(*http.Request, []*http.Request) error) (*http.Response, error) {
					client := &http.Client{Transport: rt, CheckRedirect: check}
					return client.Do(newRequest(t, method, here.URL, strings.NewReader("payload")))
				}

				resp, err := send(func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse })
				require.NoError(t, err)
				read(t, resp)
				assert.Equal(t, code, resp.StatusCode)
				assert.Equal(t, there.URL+"/there", resp.Header.Get("Location"))

				refused := errors.New("not there")
				_, err = send(func(*http.Request, []*http.Request) error { return refused })
				assert.ErrorIs(t, err, refused)
				assert.Zero(t, there.sends.Load())

				hops := 0
				resp, err = send(func(_ *http.Request, via []*http.Request) error { hops++; assert.Len(t, via, 1); return nil })
				require.NoError(t, err)
				want := method
				if code < 307 {
					want = http.MethodGet
				}
				assert.Equal(t, want, read(t, resp))
				assert.Equal(t, 1, hops)
				assert.EqualValues(t, 1, there.sends.Load())
				assert.EqualValues(t, 3, here.sends.Load())
			})
		}
	}
}

func TestALocationThatCannotBeReadIsTheCallersToJudge(t *testing.T) {
	t.Parallel()
	srv := serve(t, false, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://[bad")
		w.WriteHeader(302)
	})
	resp, err := (&retry.Transport{Base: srv.base(t), MinWait: -1, Logger: discard}).RoundTrip(newRequest(t, http.MethodGet, srv.URL, nil))
	require.NoError(t, err)
	assert.Equal(t, 302, resp.StatusCode)
	read(t, resp)
	assert.EqualValues(t, 1, srv.sends.Load())
}

// Retryablehttp closes them when it gives up.
func TestGivingUpLeavesTheConnectionsOfASharedBaseAlone(t *testing.T) {
	t.Parallel()
	other := serve(t, false, func(http.ResponseWriter, *http.Request) {})
	srv := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/drop" {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(503)
	})
	shared := other.base(t)
	visit := func() {
		resp, err := shared.RoundTrip(newRequest(t, http.MethodGet, other.URL, nil))
		require.NoError(t, err)
		read(t, resp)
	}
	visit()
	rt := &retry.Transport{Base: shared, MaxRetries: 1, MinWait: -1, Logger: discard}
	resp, err := rt.RoundTrip(newRequest(t, http.MethodGet, srv.URL, nil))
	require.NoError(t, err)
	read(t, resp)
	visit()
	_, err = rt.RoundTrip(newRequest(t, http.MethodGet, srv.URL+"/drop", nil))
	require.Error(t, err)
	visit()
	ctx, cancel := context.WithCancel(context.Background())
	slow := &retry.Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		defer cancel()
		return shared.RoundTrip(req)
	}), MinWait: 1 << 50, MaxWait: -1, Logger: discard}
	_, err = slow.RoundTrip(newRequest(t, http.MethodGet, srv.URL+"/drop", nil).WithContext(ctx))
	require.Error(t, err)
	visit()
	assert.EqualValues(t, 1, other.conns.Load())
	assert.EqualValues(t, 4, other.sends.Load())

	rt.CloseIdleConnections()
	visit()
	assert.EqualValues(t, 2, other.conns.Load(), "closed when asked to")
}

func TestRepeatsUseTheConnectionAgain(t *testing.T) {
	t.Parallel()
	ofBoth(t, func(t *testing.T, h2 bool) {
		for _, size := range []int{0, 100, 4096, 5000, 64 << 10} {
			srv := serve(t, h2, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(500)
				w.(http.Flusher).Flush() // chunked
				_, _ = w.Write(make([]byte, size))
			})
			rt := &retry.Transport{Base: srv.base(t), MaxRetries: 9, MinWait: -1, Logger: discard}
			resp, err := rt.RoundTrip(newRequest(t, http.MethodGet, srv.URL, nil))
			require.NoError(t, err)
			assert.Len(t, read(t, resp), size)
			assert.EqualValues(t, 10, srv.sends.Load())
			assert.EqualValues(t, 1, srv.conns.Load(), "a body of %d", size)
		}
	})
}

// No server becomes trusted by being asked again.
func TestACertificateThatIsNotTrustedIsAskedForOnce(t *testing.T) {
	t.Parallel()
	srv := serve(t, true, func(http.ResponseWriter, *http.Request) {})
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	for _, wrap := range []func(error) error{
		func(err error) error { return err },
		func(err error) error { return fmt.Errorf("a layer between: %w", err) },
	} {
		n := 0
		_, err := (&retry.Transport{MinWait: -1, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			n++
			resp, err := base.RoundTrip(req)
			return resp, wrap(err)
		})}).RoundTrip(newRequest(t, http.MethodGet, srv.URL, nil))
		var untrusted *tls.CertificateVerificationError
		require.ErrorAs(t, err, &untrusted)
		assert.Equal(t, 1, n)
	}
}

func TestWhatCannotBeSentIsTriedOnce(t *testing.T) {
	t.Parallel()
	plain := serve(t, false, func(http.ResponseWriter, *http.Request) {})
	for name, change := range map[string]func(*http.Request){
		"no URL":      func(req *http.Request) { req.URL = nil },
		"no host":     func(req *http.Request) { req.URL.Host = "" },
		"bad scheme":  func(req *http.Request) { req.URL.Scheme = "gopher" },
		"bad header":  func(req *http.Request) { req.Header = http.Header{"X": {"\n"}} },
		"TLS to http": func(req *http.Request) { req.URL.Scheme = "https" },
	} {
		n := 0
		base := plain.base(t)
		req := newRequest(t, http.MethodPut, plain.URL, nil)
		body := &tracked{Reader: strings.NewReader("payload")}
		req.Body, req.ContentLength = body, 7
		req.GetBody = func() (io.ReadCloser, error) { return &tracked{Reader: strings.NewReader("payload")}, nil }
		change(req)
		_, err := (&retry.Transport{MinWait: -1, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			n++
			return base.RoundTrip(req)
		})}).RoundTrip(req)
		require.Error(t, err, name)
		assert.Equal(t, 1, n, name)
		assert.NotZero(t, body.closed.Load(), name)
	}
	assert.Zero(t, plain.sends.Load())
}

// What never left may go again, whatever the method.
func TestAPostIsRepeatedIfThereWasNoConnection(t *testing.T) {
	t.Parallel()
	srv := serve(t, false, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	dials := 0
	base := srv.base(t)
	base.DialContext = func(ctx context.Context, network, to string) (net.Conn, error) {
		d := net.Dialer{}
		if dials++; dials < 3 {
			d.Timeout = 1
		}
		return d.DialContext(ctx, network, to)
	}
	for name, proxy := range map[string]func(*http.Request) (*url.URL, error){
		"direct":        nil,
		"through proxy": func(*http.Request) (*url.URL, error) { return url.Parse(srv.URL) },
	} {
		dials = 0
		base.CloseIdleConnections()
		base := base.Clone()
		base.Proxy = proxy
		resp, err := (&retry.Transport{Base: base, MinWait: -1, Logger: discard}).
			RoundTrip(newRequest(t, http.MethodPost, srv.URL, strings.NewReader("payload")))
		require.NoError(t, err, name)
		assert.Equal(t, "payload", read(t, resp), name)
		assert.Equal(t, 3, dials, name)
		base.CloseIdleConnections()
	}
	assert.EqualValues(t, 2, srv.sends.Load())
}

func TestEveryBodyIsClosed(t *testing.T) {
	t.Parallel()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for name, tt := range map[string]struct {
		ctx    context.Context
		method string
		status int
		sends  int
	}{
		"answered":     {context.Background(), http.MethodPut, 200, 1},
		"repeated":     {context.Background(), http.MethodPut, 500, 4},
		"not repeated": {context.Background(), http.MethodPost, 500, 1},
		"dropped":      {context.Background(), http.MethodPut, 0, 4},
		"cancelled":    {gone, http.MethodPut, 500, 1},
		"and in vain":  {gone, http.MethodPut, 408, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var bodies []*tracked
			var answers []*tracked
			fresh := func() (io.ReadCloser, error) {
				bodies = append(bodies, &tracked{Reader: strings.NewReader("payload")})
				return bodies[len(bodies)-1], nil
			}
			req := newRequest(t, tt.method, "https://api.example.com", nil).WithContext(tt.ctx)
			req.Body, _ = fresh()
			req.GetBody = fresh
			resp, _ := (&retry.Transport{MinWait: -1, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				resp := answer(req, tt.status, "")
				if tt.status == 0 {
					return nil, io.ErrUnexpectedEOF
				}
				answers = append(answers, &tracked{Reader: strings.NewReader("answer")})
				resp.Body = answers[len(answers)-1]
				return resp, nil
			})}).RoundTrip(req)
			assert.Len(t, bodies, tt.sends)
			for i, b := range bodies {
				assert.EqualValues(t, 1, b.closed.Load(), "body %d", i)
			}
			if tt.status == 0 {
				return
			}
			require.Len(t, answers, tt.sends)
			for i, b := range answers[:len(answers)-1] {
				assert.EqualValues(t, 1, b.closed.Load(), "answer %d", i)
			}
			assert.Zero(t, answers[len(answers)-1].closed.Load())
			assert.Equal(t, "answer", read(t, resp))
		})
	}
}

func TestABodyThatCannotBeHadAgainEndsWithTheResponse(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func() (io.ReadCloser, error){
		"error": func() (io.ReadCloser, error) { return nil, errors.New("the file is gone") },
		"nil":   func() (io.ReadCloser, error) { return nil, nil },
	} {
		srv := serve(t, false, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) })
		req := newRequest(t, http.MethodPut, srv.URL, strings.NewReader("payload"))
		req.GetBody = again
		resp, err := (&retry.Transport{Base: srv.base(t), MinWait: -1, Logger: discard}).RoundTrip(req)
		require.NoError(t, err, name)
		assert.Equal(t, 503, resp.StatusCode, name)
		assert.Equal(t, "down\n", read(t, resp), name)
		assert.EqualValues(t, 1, srv.sends.Load(), name)
	}
}

// Not parallel: it listens to what goes to slog.Default and to package log.
func TestNoQueryAndNoSecretIsLogged(t *testing.T) {
	const marker = "s3cr3t-m4rk3r"
	var j journal
	before, flags := slog.Default(), log.Flags()
	t.Cleanup(func() { slog.SetDefault(before); log.SetOutput(os.Stderr); log.SetFlags(flags) })
	slog.SetDefault(j.logger())
	n := 0
	rt := &retry.Transport{MinWait: -1, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if n++; n == 2 {
			return nil, fmt.Errorf("Get %q: Authorization: Bearer %s: EOF", req.URL, marker)
		}
		return answer(req, 503, `{"error":"`+marker+`"}`, "X-Request-Id", fmt.Sprint("r", n), "Retry-After", "0", "Set-Cookie", "a="+marker), nil
	})}
	req := newRequest(t, http.MethodGet, "https://user:"+marker+"@api.example.com/p%61th/bot"+marker+"%2f/x?key="+marker, nil)
	req.Header.Set("Authorization", "Bearer "+marker)
	resp, err := rt.RoundTrip(req)
	require.NoError(t, err)
	read(t, resp)
	assert.Equal(t, 4, n)
	text := j.text()
	assert.NotContains(t, text, marker)
	assert.NotContains(t, text, "key=")
	assert.Equal(t, 3, strings.Count(text, `"msg":"retry: to be sent again"`))
	assert.Equal(t, 3, strings.Count(text, `"level":"DEBUG"`))
	assert.Equal(t, 3, strings.Count(text, "\n"), "nothing else")
	assert.Contains(t, text, `"method":"GET","host":"api.example.com","repeat":1,"retry_in":`)
	assert.Contains(t, text, `"status":503,"request_id":"r1"`)
	assert.Contains(t, text, `EOF`)
	assert.Contains(t, text, `"status":503,"request_id":"r3"`)
}

func TestNothingIsLoggedOfWhatIsNotRepeated(t *testing.T) {
	t.Parallel()
	var j journal
	for _, status := range []int{200, 302, 404, 501} {
		_, err := (&retry.Transport{MinWait: -1, Logger: j.logger(), Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return answer(req, status, ""), nil
		})}).RoundTrip(newRequest(t, http.MethodGet, "https://api.example.com", nil))
		require.NoError(t, err)
	}
	assert.Empty(t, j.text())
}

func TestOneTransportServesManyAtOnce(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	tries := map[string]int{}
	srv := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		tries[r.URL.Path]++
		n := tries[r.URL.Path]
		mu.Unlock()
		if n == 1 {
			w.WriteHeader(503)
			return
		}
		_, _ = io.Copy(w, r.Body)
	})
	client := &http.Client{Transport: &retry.Transport{MinWait: -1, Logger: discard, Base: &reauth.Transport{
		Base: srv.base(t), Credential: &reauth.Credential{Refresher: &issuer{}, Logger: discard}, Logger: discard,
	}}}
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			path := fmt.Sprint("/", i)
			req, err := http.NewRequest(http.MethodPut, srv.URL+path, strings.NewReader(path))
			if !assert.NoError(t, err) {
				return
			}
			resp, err := client.Do(req)
			if !assert.NoError(t, err) {
				return
			}
			body, err := io.ReadAll(resp.Body)
			assert.NoError(t, err)
			assert.NoError(t, resp.Body.Close())
			assert.Equal(t, path, string(body))
		})
	}
	all.Wait()
	assert.EqualValues(t, 128, srv.sends.Load())
}

func TestTheZeroValueAndNewClientWork(t *testing.T) {
	t.Parallel()
	got := make(chan string, 2)
	srv := serve(t, false, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Authorization") })
	resp, err := (&http.Client{Transport: &retry.Transport{}}).Get(srv.URL)
	require.NoError(t, err)
	read(t, resp)
	assert.Empty(t, <-got)
	resp, err = retry.NewClient(&issuer{}).Get(srv.URL)
	require.NoError(t, err)
	read(t, resp)
	assert.Equal(t, "Bearer T1", <-got)
}
