package classifier_test

import (
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
)

// client returns one whose first token is stale, and the count of its refreshes.
func client(t *testing.T, c reauth.Classifier) (*http.Client, *atomic.Int32) {
	t.Helper()
	refreshes := new(atomic.Int32)
	quiet := slog.New(slog.DiscardHandler)
	cred := &reauth.Credential{
		Logger: quiet,
		Refresher: reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
			if stale.Token.AccessToken == "" {
				return reauth.Token{AccessToken: "stale-token-1"}, nil
			}
			refreshes.Add(1)
			return reauth.Token{AccessToken: "fresh-token-2"}, nil
		}),
	}
	tr := &reauth.Transport{Base: http.DefaultTransport.(*http.Transport).Clone(), Credential: cred, Classifier: c, RetryWait: -1, Logger: quiet}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}, refreshes
}

func TestExpiredTokenInA200NeverReachesTheCaller(t *testing.T) {
	for name, zipped := range map[string]bool{"plain": false, "gzip": true} {
		t.Run(name, func(t *testing.T) {
			var sends atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				sends.Add(1)
				in, _ := io.ReadAll(r.Body)
				answer := `{"ok":true,"echo":"` + string(in) + `"}`
				if r.Header.Get("Authorization") != "Bearer fresh-token-2" {
					answer = `{"ok":false,"error":"token_expired"}`
				}
				w.Header().Set("Content-Type", "application/json; charset=utf-8")
				if !zipped {
					_, _ = io.WriteString(w, answer)
					return
				}
				w.Header().Set("Content-Encoding", "gzip")
				zw := gzip.NewWriter(w)
				_, _ = io.WriteString(zw, answer)
				_ = zw.Close()
			}))
			defer srv.Close()
			c, refreshes := client(t, classifier.Chain(classifier.Slack(), reauth.DefaultClassifier()))
			for range 3 {
				resp, err := c.Post(srv.URL, "text/plain", http.NoBody)
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				assert.Equal(t, `{"ok":true,"echo":""}`, string(body))
			}
			assert.EqualValues(t, 1, refreshes.Load())
			assert.EqualValues(t, 4, sends.Load(), "one was sent twice")
		})
	}
}

// What no token cures goes to the caller, who reads it from its beginning.
func TestAnswerThatNoTokenCuresReachesTheCallerWhole(t *testing.T) {
	const answer = `{"ok":false,"error":"account_inactive"}`
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	}))
	defer srv.Close()
	c, refreshes := client(t, classifier.Chain(classifier.Slack(), nil))
	resp, err := c.Get(srv.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Equal(t, answer, string(body))
	assert.Zero(t, refreshes.Load())
}

// The server sends the second event only when the first was read, and the test
// would hang, or the body be looked at, were the stream held up.
func TestStreamIsNeverHeldUp(t *testing.T) {
	for _, contentType := range []string{"application/json", "application/x-ndjson", "text/event-stream", "text/plain"} {
		for name, http2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
			t.Run(name+" "+contentType, func(t *testing.T) {
				const first, second = `[{"ok":false,"error":"token_expired"}`, `,{"errcode":42001}]`
				read := make(chan struct{})
				srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", contentType)
					_, _ = io.WriteString(w, first)
					_ = http.NewResponseController(w).Flush()
					select {
					case <-read:
					case <-r.Context().Done():
					}
					_, _ = io.WriteString(w, second)
				}))
				srv.EnableHTTP2 = http2
				srv.StartTLS()
				defer srv.Close()

				looks := 0
				all := everything()
				c, _ := client(t, reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
					return all.Classify(resp, func() []byte { looks++; return body() })
				}))
				c.Transport.(*reauth.Transport).Base = srv.Client().Transport
				resp, err := c.Get(srv.URL)
				require.NoError(t, err)
				defer resp.Body.Close()
				assert.Zero(t, looks)
				got := make([]byte, len(first))
				_, err = io.ReadFull(resp.Body, got)
				require.NoError(t, err)
				assert.Equal(t, first, string(got))
				close(read)
				rest, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				assert.Equal(t, second, string(rest))
			})
		}
	}
}

// Each rejects the first token as its server does. The request is sent once more, with its
// body, and the caller gets the response to that.
func TestRejectedRequestIsSentExactlyOnceMore(t *testing.T) {
	byCode := classifier.JSON("/error/code", map[string]reauth.Reason{"40101": reauth.ReasonExpired})
	for _, tt := range []struct {
		name        string
		classifier  reauth.Classifier
		status      int
		contentType string
		rejection   string
		header      []string
	}{
		{"Consul", classifier.Consul(), 403, "text/plain; charset=utf-8", "ACL not found", nil},
		{"NewAPI", classifier.NewAPI(), 200, "application/json; charset=utf-8", `{"message":"无权进行此操作，access token 无效","success":false}`, nil},
		{"JSON, number", byCode, 200, "application/json", `{"error":{"code":40101}}`, nil},
		{"JSON, string", byCode, 200, "application/json", `{"error":{"code":"40101"}}`, nil},
		{"JSON, error", byCode, 500, "application/json", `{"error":{"code":40101}}`, nil},
		{"GRPC", classifier.GRPC(), 200, "application/grpc", "", []string{"Grpc-Status", "16", "Grpc-Message", "token%20is%20expired"}},
	} {
		for protocol, http2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
			t.Run(tt.name+" "+protocol, func(t *testing.T) {
				var sends atomic.Int32
				srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					sends.Add(1)
					in, _ := io.ReadAll(r.Body)
					w.Header().Set("Content-Type", tt.contentType)
					if r.Header.Get("Authorization") == "Bearer fresh-token-2" {
						_, _ = w.Write(in)
						return
					}
					for i := 0; i < len(tt.header); i += 2 {
						w.Header().Set(tt.header[i], tt.header[i+1])
					}
					w.WriteHeader(tt.status)
					_, _ = io.WriteString(w, tt.rejection)
				}))
				srv.EnableHTTP2 = http2
				srv.StartTLS()
				defer srv.Close()
				c, refreshes := client(t, classifier.Chain(tt.classifier, reauth.DefaultClassifier()))
				c.Transport.(*reauth.Transport).Base = srv.Client().Transport
				for range 3 {
					resp, err := c.Post(srv.URL, "text/plain", strings.NewReader("what was sent"))
					require.NoError(t, err)
					body, err := io.ReadAll(resp.Body)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					assert.Equal(t, "what was sent", string(body))
				}
				assert.EqualValues(t, 1, refreshes.Load())
				assert.EqualValues(t, 4, sends.Load(), "one was sent twice")
			})
		}
	}
}

// A status in the trailers comes after the body, which is the caller's.
func TestStatusInTheTrailersReachesTheCaller(t *testing.T) {
	var sends atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		sends.Add(1)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, "a message")
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("Grpc-Status", "16")
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	c, refreshes := client(t, classifier.Chain(classifier.GRPC(), nil))
	c.Transport.(*reauth.Transport).Base = srv.Client().Transport
	resp, err := c.Get(srv.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Equal(t, "a message", string(body))
	assert.Equal(t, "16", resp.Trailer.Get("Grpc-Status"))
	assert.Zero(t, refreshes.Load())
	assert.EqualValues(t, 1, sends.Load())
}

// A body that is too large to be looked at, or is not what was looked for, is the caller's
// from its first byte.
func TestSuccessReachesTheCallerWhole(t *testing.T) {
	c, refreshes := client(t, everything())
	for name, body := range map[string]string{
		"small": `{"code":0,"success":true,"data":{"code":40101,"message":"Unauthorized, invalid access token"}}`,
		"large": `{"code":40101,"success":false,"data":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = io.WriteString(w, body)
		}))
		defer srv.Close()
		resp, err := c.Get(srv.URL)
		require.NoError(t, err)
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.True(t, string(got) == body, name)
		assert.EqualValues(t, len(body), resp.ContentLength, name)
	}
	assert.Zero(t, refreshes.Load())
}
