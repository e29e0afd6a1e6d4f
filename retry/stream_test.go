package retry_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/retry"
)

// over returns the usual stack: retrying, reauth, net/http.
func over(base http.RoundTripper) *retry.Transport {
	return &retry.Transport{MinWait: -1, Logger: discard, Base: &reauth.Transport{
		Base: base, RetryWait: -1, Logger: discard, Credential: &reauth.Credential{Refresher: &issuer{}, Logger: discard},
	}}
}

// Retryablehttp reads it whole before it sends anything.
func TestABodyWithoutGetBodyIsSentAsItComesAndOnce(t *testing.T) {
	t.Parallel()
	ofBoth(t, func(t *testing.T, h2 bool) {
		got := make(chan string)
		srv := serve(t, h2, func(w http.ResponseWriter, r *http.Request) {
			lines := bufio.NewScanner(r.Body)
			for lines.Scan() {
				got <- lines.Text()
			}
			w.Header().Set("Retry-After", "0")
			http.Error(w, "down", http.StatusServiceUnavailable)
		})
		out, in := io.Pipe()
		go func() {
			for i := range 3 { // the next when the one before has arrived
				line := fmt.Sprint("line ", i)
				_, _ = io.WriteString(in, line+"\n")
				assert.Equal(t, line, <-got)
			}
			_ = in.Close()
		}()
		within(t, 20*time.Second, func() {
			resp, err := over(srv.base(t)).RoundTrip(newRequest(t, http.MethodPut, srv.URL, out))
			require.NoError(t, err)
			assert.Equal(t, 503, resp.StatusCode)
			assert.Equal(t, "down\n", read(t, resp))
		})
		assert.EqualValues(t, 1, srv.sends.Load())
	})
}

func TestAStreamArrivesAsItComes(t *testing.T) {
	t.Parallel()
	ofBoth(t, func(t *testing.T, h2 bool) {
		next := make(chan struct{})
		var srv *server
		srv = serve(t, h2, func(w http.ResponseWriter, r *http.Request) {
			if srv.sends.Load() == 1 {
				w.WriteHeader(502)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Trailer", "X-Sum")
			for i := range 3 {
				_, _ = fmt.Fprintf(w, "data: %d\n", i)
				w.(http.Flusher).Flush()
				select {
				case <-next:
				case <-r.Context().Done():
				}
			}
			w.Header().Set("X-Sum", "3")
		})
		within(t, 20*time.Second, func() {
			resp, err := over(srv.base(t)).RoundTrip(newRequest(t, http.MethodGet, srv.URL, nil))
			require.NoError(t, err)
			lines := bufio.NewReader(resp.Body)
			for i := range 3 {
				line, err := lines.ReadString('\n')
				require.NoError(t, err)
				assert.Equal(t, fmt.Sprintf("data: %d\n", i), line)
				next <- struct{}{} // it waits for this before it goes on
			}
			_, err = lines.ReadString('\n')
			assert.Equal(t, io.EOF, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, "3", resp.Trailer.Get("X-Sum"))
		})
	})
}

// upgrade answers the first request with a 503 and any other with a 101, after
// which it echoes.
func upgrade(t *testing.T) *server {
	var srv *server
	srv = serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		if srv.sends.Load() == 1 {
			w.WriteHeader(503)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(conn, "echo "+line)
	})
	return srv
}

func TestAnUpgradeKeepsItsWriter(t *testing.T) {
	t.Parallel()
	srv := upgrade(t)
	front := httptest.NewServer(&httputil.ReverseProxy{Transport: over(srv.base(t)), Rewrite: func(r *httputil.ProxyRequest) {
		to, _ := url.Parse(srv.URL)
		r.SetURL(to)
	}})
	t.Cleanup(front.Close)
	for name, tt := range map[string]struct {
		url string
		rt  http.RoundTripper
	}{
		"direct":                 {srv.URL, over(srv.base(t))},
		"under the ReverseProxy": {front.URL, srv.base(t)},
	} {
		srv.sends.Store(0)
		req := newRequest(t, http.MethodGet, tt.url, nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		within(t, 20*time.Second, func() {
			resp, err := tt.rt.RoundTrip(req)
			require.NoError(t, err, name)
			require.Equal(t, 101, resp.StatusCode, name)
			conn, ok := resp.Body.(io.ReadWriteCloser)
			require.True(t, ok, name)
			_, err = io.WriteString(conn, "hello\n")
			require.NoError(t, err, name)
			line, err := bufio.NewReader(conn).ReadString('\n')
			require.NoError(t, err, name)
			assert.Equal(t, "echo hello\n", line, name)
			require.NoError(t, conn.Close())
		})
		assert.EqualValues(t, 2, srv.sends.Load(), name)
	}
}

func TestABodyThatWaitsToBeAskedForIsNotReadInVain(t *testing.T) {
	t.Parallel()
	srv := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(503) // on its headers
	})
	base := srv.base(t)
	base.ExpectContinueTimeout = 20 * time.Second
	for _, replayable := range []bool{false, true} {
		srv.sends.Store(0)
		var bodies []*once
		fresh := func() (io.ReadCloser, error) {
			bodies = append(bodies, &once{Reader: strings.NewReader("payload")})
			return bodies[len(bodies)-1], nil
		}
		req := newRequest(t, http.MethodPost, srv.URL, nil)
		req.Body, _ = fresh()
		req.ContentLength = 7
		req.Header.Set("Expect", "100-continue")
		want := 1
		if replayable {
			req.GetBody, want = fresh, 4
		}
		within(t, 20*time.Second, func() {
			resp, err := over(base).RoundTrip(req)
			require.NoError(t, err)
			assert.Equal(t, 503, resp.StatusCode)
			read(t, resp)
		})
		assert.EqualValues(t, want, srv.sends.Load())
		assert.Len(t, bodies, want)
		for _, b := range bodies {
			assert.False(t, b.read, "was sent")
		}
	}
}

// once notes whether it was read.
type once struct {
	io.Reader
	read bool
}

func (b *once) Read(p []byte) (int, error) { b.read = true; return b.Reader.Read(p) }
func (b *once) Close() error               { return nil }

// The request of a ReverseProxy has what an http.Client refuses, a RequestURI.
func TestAReverseProxyCanUseIt(t *testing.T) {
	t.Parallel()
	var srv *server
	srv = serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		if srv.sends.Load() == 1 {
			w.WriteHeader(502)
			return
		}
		_, _ = fmt.Fprint(w, r.Header.Get("Authorization"), " ", r.URL)
	})
	rt := over(srv.base(t))
	front := httptest.NewServer(&httputil.ReverseProxy{Transport: rt, Rewrite: func(r *httputil.ProxyRequest) {
		to, _ := url.Parse(srv.URL)
		r.SetURL(to)
	}})
	t.Cleanup(front.Close)
	req := newRequest(t, http.MethodGet, front.URL+"/a?b=c", nil)
	resp, err := front.Client().Do(req)
	require.NoError(t, err)
	assert.Equal(t, 200, resp.StatusCode)
	assert.Equal(t, "Bearer T1 /a?b=c", read(t, resp))
}
