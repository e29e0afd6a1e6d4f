package reauthtest_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

const patience = 20 * time.Second // of a busy machine

func TestFaultIsNeitherMetTwiceNorOutOfOrder(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		w.api.Next(reauthtest.Status(502), reauthtest.Fault{})
		w.api.Next(reauthtest.Reject(), reauthtest.Status(404))
		for _, want := range []int{502, 200, 404, 200} { // the 401 is cured, and its retry meets the 404
			resp, _ := w.get(t)
			assert.Equal(t, want, resp.StatusCode)
		}
		assert.Equal(t, []int{502, 200, 401, 404, 200}, statuses(w.api))
		assert.Equal(t, 2, w.issuer.Refreshes())
	})
}

func TestServerThatIsDownServesNothing(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		w.get(t)
		w.api.Next(reauthtest.Status(404))
		w.api.Down(true)
		for range 2 {
			resp, _ := w.get(t)
			assert.Equal(t, 503, resp.StatusCode)
		}
		w.api.Down(false)
		resp, _ := w.get(t)
		assert.Equal(t, 404, resp.StatusCode, "the fault has waited")
		resp, _ = w.get(t)
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, 5, w.api.Sends())
		assert.Zero(t, w.api.Rejections())
	})
}

func TestStatusNeverLosesAHeader(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		challenges := []string{`Basic realm="a"`, `Bearer error="insufficient_scope"`}
		w.api.Next(
			reauthtest.Status(401, "WWW-Authenticate", challenges[0], "WWW-Authenticate", challenges[1], "Content-Type", "text/plain"),
			reauthtest.Status(401),
			reauthtest.Status(204),
			reauthtest.Unavailable(1500*time.Millisecond),
			reauthtest.Unavailable(0),
		)
		resp, _ := w.get(t)
		assert.Equal(t, challenges, resp.Header.Values("WWW-Authenticate"))
		assert.Equal(t, []string{"text/plain"}, resp.Header.Values("Content-Type"))
		resp, err := w.bare.Get(w.api.URL())
		require.NoError(t, err)
		assert.Empty(t, resp.Header.Values("WWW-Authenticate"))
		assert.Contains(t, read(t, resp), "Unauthorized")
		resp, _ = w.get(t)
		assert.Equal(t, 204, resp.StatusCode)
		resp, _ = w.get(t)
		assert.Equal(t, 503, resp.StatusCode)
		assert.Equal(t, "2", resp.Header.Get("Retry-After"))
		resp, _ = w.get(t)
		assert.Empty(t, resp.Header.Values("Retry-After"))
		assert.Equal(t, 2, w.api.Rejections())
	})
}

func TestEarly401NeverWaitsForTheBody(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		w.api.Next(reauthtest.RejectEarly())
		body, send := io.Pipe()
		defer send.Close()
		go func() { _, _ = io.WriteString(send, "the first chunk") }() // and no end
		within(t, patience, func() {
			resp, err := w.bare.Post(w.api.URL(), "text/plain", body)
			if assert.NoError(t, err) {
				b, err := io.ReadAll(resp.Body)
				assert.NoError(t, err, "the answer is whole before the body is")
				assert.Contains(t, string(b), "invalid_token")
				assert.NoError(t, resp.Body.Close())
				assert.Equal(t, 401, resp.StatusCode)
			}
		})
		assert.Equal(t, []int{401}, statuses(w.api))
	})
}

// All the other faults are met when the body has arrived: that is the difference.
func TestOtherFaultsNeverComeEarly(t *testing.T) {
	const size = 4 << 20 // more than there is room for on the way
	over(t, nil, func(t *testing.T, w *world) {
		good := "Bearer " + token(t, w.issuer).AccessToken
		for _, c := range []struct {
			name, authorization string
			fault               reauthtest.Fault
		}{
			{"reject", good, reauthtest.Reject()},
			{"drop", good, reauthtest.Drop()},
			{"drop after", good, reauthtest.DropAfter(0)},
			{"status", good, reauthtest.Status(500)},
			{"redirect", good, reauthtest.RedirectTo("/")},
			{"invalid grant", good, reauthtest.InvalidGrant()},
			{"bad token", good + "x", reauthtest.Fault{}},
			{"no token", "", reauthtest.Fault{}},
		} {
			w.api.Next(c.fault)
			var sent atomic.Int64
			req, err := http.NewRequest(http.MethodPost, w.api.URL(), counting{io.LimitReader(zeros{}, size), &sent})
			require.NoError(t, err)
			req.Header.Set("Authorization", c.authorization)
			within(t, patience, func() {
				if resp, err := w.bare.Transport.RoundTrip(req); err == nil {
					assert.NoError(t, resp.Body.Close())
				}
			})
			assert.EqualValues(t, size, sent.Load(), c.name)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// counting counts the bytes that are read.
type counting struct {
	r io.Reader
	n *atomic.Int64
}

func (c counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestEarly401NeverAsksForABodyThatIsExpectedToWait(t *testing.T) {
	w := newWorld(t, nil, reauthtest.NewAPI)
	w.api.Base().(*http.Transport).ExpectContinueTimeout = time.Hour
	w.api.Next(reauthtest.RejectEarly())
	var sent atomic.Int64
	var continues atomic.Int32
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { continues.Add(1) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.api.URL(), counting{strings.NewReader("body"), &sent})
	require.NoError(t, err)
	req.Header.Set("Expect", "100-continue")
	within(t, patience, func() {
		resp, err := w.bare.Do(req)
		if assert.NoError(t, err) {
			assert.Equal(t, 401, resp.StatusCode)
			assert.NoError(t, resp.Body.Close())
		}
	})
	assert.Zero(t, sent.Load())
	assert.Zero(t, continues.Load())
}

func TestEarly401NeverCostsAByteOfTheBody(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		content := strings.Repeat("0123456789", 100_000)
		for name, body := range map[string]io.Reader{
			"GetBody":    strings.NewReader(content),
			"no GetBody": io.NopCloser(strings.NewReader(content)),
		} {
			w.api.Next(reauthtest.RejectEarly())
			resp, err := w.client.Post(w.api.URL(), "text/plain", body)
			require.NoError(t, err)
			assert.Equal(t, 200, resp.StatusCode, name)
			assert.True(t, read(t, resp) == content, name)
		}
		assert.Equal(t, []int{401, 200, 401, 200}, statuses(w.api))
	})
}

func TestDroppedRequestIsNeverServed(t *testing.T) {
	var served atomic.Int32
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) })
	over(t, handler, func(t *testing.T, w *world) {
		served.Store(0)
		w.get(t)
		w.api.Next(reauthtest.Drop())
		_, err := w.client.Post(w.api.URL(), "text/plain", strings.NewReader("x"))
		assert.Error(t, err)
		assert.Equal(t, []int{200, 0}, statuses(w.api))
		assert.EqualValues(t, 1, served.Load())

		resp, _ := w.get(t)
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, 1, w.issuer.Refreshes(), "a cut connection says nothing about the token")
	})
}

func TestDropIsHiddenByNothingButNetHTTPItself(t *testing.T) {
	w := newWorld(t, nil, reauthtest.NewAPI)
	w.get(t)
	w.api.Next(reauthtest.Drop())
	resp, _ := w.get(t) // over a connection that was in use before
	assert.Equal(t, 200, resp.StatusCode)
	assert.Equal(t, []int{200, 0, 200}, statuses(w.api))
	assert.Equal(t, 2, w.api.Connections())

	w.api.Base().(*http.Transport).CloseIdleConnections()
	w.api.Next(reauthtest.Drop())
	_, err := w.client.Get(w.api.URL()) // over a new one
	assert.Error(t, err)
	assert.Equal(t, 4, w.api.Sends())
}

func TestCutAnswerIsNeverWhole(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	over(t, nil, func(t *testing.T, w *world) {
		for _, c := range []struct {
			body string
			n    int
		}{{"hello", 2}, {"hello", 5}, {"hello", 50}, {long, 70_000}} {
			w.api.Next(reauthtest.DropAfter(c.n))
			resp, err := w.client.Post(w.api.URL(), "text/plain", strings.NewReader(c.body))
			require.NoError(t, err)
			b, err := io.ReadAll(resp.Body)
			assert.Error(t, err)
			assert.NoError(t, resp.Body.Close())
			assert.Equal(t, 200, resp.StatusCode)
			assert.True(t, string(b) == c.body[:min(c.n, len(c.body))], "%d bytes of %d", len(b), c.n)
		}
		assert.Equal(t, []int{200, 200, 200, 200}, statuses(w.api))
	})
}

func TestRequestWhoseAnswerIsLostWasServed(t *testing.T) {
	for _, n := range []int{0, -1} {
		var served atomic.Int32
		handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			served.Add(1)
			w.WriteHeader(http.StatusCreated)
			w.(http.Flusher).Flush()
		})
		over(t, handler, func(t *testing.T, w *world) {
			served.Store(0)
			w.api.Next(reauthtest.DropAfter(n))
			_, err := w.client.Post(w.api.URL(), "text/plain", strings.NewReader("x"))
			assert.Error(t, err)
			assert.EqualValues(t, 1, served.Load())
			assert.Equal(t, []int{0}, statuses(w.api))

			w.api.Next(reauthtest.Reject(), reauthtest.DropAfter(n)) // lost on the retry: no old 401
			_, err = w.client.Post(w.api.URL(), "text/plain", strings.NewReader("x"))
			assert.Error(t, err)
			assert.EqualValues(t, 2, served.Load())
		})
	}
}

func TestStreamIsCutWhereItWasToBe(t *testing.T) {
	over(t, reauthtest.StreamHandler("one", "two", "three"), func(t *testing.T, w *world) {
		w.api.Next(reauthtest.DropAfter(len("data: one\n\ndata: t")))
		resp, err := w.client.Get(w.api.URL())
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		assert.Error(t, err)
		assert.Equal(t, "data: one\n\ndata: t", string(b))
	})
}

func TestStreamWithoutAnEndIsCutAllTheSame(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := io.WriteString(w, "x"); err != nil {
				return
			}
		}
	})
	over(t, handler, func(t *testing.T, w *world) {
		w.api.Next(reauthtest.DropAfter(3))
		within(t, patience, func() {
			resp, err := w.client.Get(w.api.URL())
			if assert.NoError(t, err) {
				b, err := io.ReadAll(resp.Body)
				assert.Error(t, err)
				assert.Equal(t, "xxx", string(b))
				assert.NoError(t, resp.Body.Close())
			}
		})
	})
}

func TestStallEndsWhenItIsReleased(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		release := make(chan struct{})
		w.api.Next(reauthtest.Stall(release))
		answered := make(chan string, 1)
		go func() {
			resp, err := w.client.Post(w.api.URL(), "text/plain", strings.NewReader("kept over the stall"))
			if err != nil {
				answered <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			answered <- string(b)
		}()
		arrived(t, w, 1)
		assert.Empty(t, answered)
		assert.Equal(t, []int{0}, statuses(w.api))
		close(release)
		within(t, patience, func() { assert.Equal(t, "kept over the stall", <-answered) })
		assert.Equal(t, []int{200}, statuses(w.api))
	})
}

func TestStallNeverOutlivesItsClient(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		w.api.Next(reauthtest.Stall(nil))
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.api.URL(), strings.NewReader("x"))
		require.NoError(t, err)
		failed := make(chan error, 1)
		go func() {
			_, err := w.client.Do(req)
			failed <- err
		}()
		arrived(t, w, 1)
		cancel()
		within(t, patience, func() { assert.ErrorIs(t, <-failed, context.Canceled) })
		require.Eventually(t, func() bool {
			stacks := make([]byte, 1<<20)
			return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "/fault.go:")
		}, patience, 10*time.Millisecond, "the server knows that the client has gone")
		resp, _ := w.get(t)
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, []int{0, 200}, statuses(w.api))
	})
}

func TestHalfABodyIsNeverServed(t *testing.T) {
	released := make(chan struct{})
	close(released)
	over(t, nil, func(t *testing.T, w *world) {
		w.api.Next(reauthtest.Fault{}, reauthtest.Stall(released))
		for n := range 2 {
			body := endless()
			failed := make(chan error, 1)
			go func() {
				_, err := w.client.Post(w.api.URL(), "text/plain", body)
				failed <- err
			}()
			arrived(t, w, n+1)
			_ = body.Close() // a Read of it fails
			within(t, patience, func() { assert.Error(t, <-failed) })
		}
		w.api.Close() // waits for its handlers
		assert.Equal(t, []int{0, 0}, statuses(w.api))
	})
}

// arrived waits until the API has got n requests.
func arrived(t *testing.T, w *world, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return w.api.Sends() >= n }, patience, time.Millisecond)
}

func TestStalledIssuerDoesNotHoldUpADeadline(t *testing.T) {
	w := newWorld(t, nil, reauthtest.NewAPI)
	w.issuer.Next(reauthtest.Stall(nil))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.api.URL(), nil)
	require.NoError(t, err)
	within(t, patience, func() {
		_, err = w.client.Do(req)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
	assert.Zero(t, w.api.Sends())
	assert.Zero(t, w.issuer.Refreshes())
}

// Server.Close of httptest waits for all of these.
func TestCloseNeverHangs(t *testing.T) {
	streaming := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		streaming <- struct{}{}
		<-r.Context().Done() // a stream without an end
	})
	short := func() io.ReadCloser { return io.NopCloser(strings.NewReader("x")) }
	for _, c := range []struct {
		name  string
		fault reauthtest.Fault
		body  func() io.ReadCloser
	}{
		{"stalled", reauthtest.Stall(nil), short},
		{"stalled while sending", reauthtest.Stall(nil), endless},
		{"rejected early while sending", reauthtest.RejectEarly(), endless},
		{"rejected while sending", reauthtest.Reject(), endless},
		{"streaming", reauthtest.Fault{}, short},
	} {
		t.Run(c.name, func(t *testing.T) {
			over(t, handler, func(t *testing.T, w *world) {
				w.api.Next(c.fault)
				body := c.body()
				req, err := http.NewRequest(http.MethodPost, w.api.URL(), body)
				require.NoError(t, err)
				req.Header.Set("Authorization", "Bearer "+token(t, w.issuer).AccessToken)
				answered := make(chan struct{})
				go func() {
					defer close(answered)
					if resp, err := w.bare.Do(req); err == nil {
						_, _ = io.Copy(io.Discard, resp.Body)
						_ = resp.Body.Close()
					}
				}()
				arrived(t, w, 1)
				if c.name == "streaming" {
					<-streaming
				}
				within(t, patience, func() {
					w.api.Close()
					w.api.Close()
					_ = body.Close() // net/http waits for a Read of it
					<-answered
				})
			})
		})
	}
}

// endless returns a body that does not end.
func endless() io.ReadCloser {
	r, w := io.Pipe()
	go func() { _, _ = io.WriteString(w, "x") }()
	return r
}

func TestTokenNeverFollowsTheRedirect(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		other := reauthtest.NewAPI(w.issuer, nil)
		t.Cleanup(other.Close)
		w.get(t)
		w.api.Next(reauthtest.RedirectTo(other.URL() + "/elsewhere"))
		resp, err := w.client.Post(w.api.URL(), "text/plain", strings.NewReader("x"))
		require.NoError(t, err)
		read(t, resp)
		assert.Equal(t, 401, resp.StatusCode)
		assert.Equal(t, []int{200, 307}, statuses(w.api))
		require.Equal(t, 1, other.Sends())
		assert.Equal(t, "/elsewhere", other.Requests()[0].Path)
		assert.Equal(t, http.MethodPost, other.Requests()[0].Method)
		assert.Empty(t, other.Requests()[0].Header.Get("Authorization"))
		assert.Equal(t, 1, w.issuer.Refreshes())

		w.api.Next(reauthtest.RedirectTo(w.api.URL() + "/here"))
		resp, _ = w.get(t)
		assert.Equal(t, 200, resp.StatusCode)
	})
}

// The certificate of one is that of all, so that a redirect between two works.
func TestAPIsOverTLSDoNotDistrustEachOther(t *testing.T) {
	w := newWorld(t, nil, reauthtest.NewTLSAPI)
	other := reauthtest.NewTLSAPI(w.issuer, nil)
	t.Cleanup(other.Close)
	w.api.Next(reauthtest.RedirectTo(other.URL()))
	w.client.Transport.(*reauth.Transport).Origins = []string{w.api.URL(), other.URL()}
	resp, _ := w.get(t)
	assert.Equal(t, 200, resp.StatusCode)
	assert.Equal(t, 2, resp.ProtoMajor)
	assert.Equal(t, 1, other.Sends())
}

// net/http sends a GET that Close cuts off once more, by itself, if its connection
// had been in use before: that one has no connection that Close would cut.
func TestCloseNeverHangsOnARequestThatIsSentAgain(t *testing.T) {
	arrived := make(chan struct{}, 2)
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stall" {
			arrived <- struct{}{}
			<-r.Context().Done()
		}
	})
	w := newWorld(t, handler, reauthtest.NewAPI)
	w.get(t)
	failed := make(chan error, 1)
	go func() {
		_, err := w.client.Get(w.api.URL() + "/stall")
		failed <- err
	}()
	<-arrived
	within(t, patience, w.api.Close)
	within(t, patience, func() { assert.Error(t, <-failed) })
}
