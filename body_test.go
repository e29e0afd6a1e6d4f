package reauth_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// bodyPatience is for what ought to come at once, on a machine that is busy.
const bodyPatience = 20 * time.Second

var errBodyBroken = errors.New("the disk is gone")

// A bodyProbe is a request body that notes what must not be done to it.
type bodyProbe struct {
	r      io.Reader
	close  func() error  // nil: nothing
	closed chan struct{} // closed by the first Close

	reading, closes, overlaps, late atomic.Int32
}

func bodyProbing(r io.Reader) *bodyProbe {
	b := &bodyProbe{r: r, closed: make(chan struct{})}
	if c, ok := r.(io.Closer); ok {
		b.close = c.Close
	}
	return b
}

func (b *bodyProbe) Read(p []byte) (int, error) {
	if b.reading.Add(1) > 1 {
		b.overlaps.Add(1)
	}
	defer b.reading.Add(-1)
	if b.closes.Load() > 0 {
		b.late.Add(1)
	}
	return b.r.Read(p)
}

func (b *bodyProbe) Close() (err error) {
	first := b.closes.Add(1) == 1
	if b.close != nil {
		err = b.close()
	}
	if first {
		close(b.closed)
	}
	return err
}

// check waits for the body's end and looks at its notes.
func (b *bodyProbe) check(t testing.TB) {
	t.Helper()
	bodyAwait(t, b.closed, "the body was not closed")
	assert.EqualValues(t, 1, b.closes.Load(), "closes")
	assert.Zero(t, b.overlaps.Load(), "Reads while another was under way")
	assert.Zero(t, b.late.Load(), "Reads after Close")
}

// bodyAwait waits for what another goroutine is about to do.
func bodyAwait(t testing.TB, done <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(bodyPatience):
		t.Fatal(otherwise)
	}
}

// bodyBytes returns n bytes of which no two stretches are alike.
func bodyBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// A bodyStream is a long body that is made as it is read.
type bodyStream struct{ pos, size int64 }

func bodyStreaming(n int64) *bodyStream { return &bodyStream{size: n} }

// bodyBlock has a length that no buffer's is a multiple of.
var bodyBlock = bodyBytes(65521)

func (b *bodyStream) Read(p []byte) (int, error) {
	if b.pos == b.size {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), b.size-b.pos)], bodyBlock[b.pos%int64(len(bodyBlock)):])
	b.pos += int64(n)
	return n, nil
}

func bodySumOf(t testing.TB, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	_, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, make([]byte, 32<<10))
	assert.NoError(t, err, "of the body at the server")
	return fmt.Sprintf("%x", h.Sum(nil))
}

// A bodyWire is a server on a socket and the Base that leads to it.
type bodyWire struct {
	url   string
	base  *http.Transport
	dials atomic.Int32
}

// bodyServe starts a server that speaks just the one protocol.
func bodyServe(t testing.TB, proto string, h http.HandlerFunc) *bodyWire {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, proto, r.Proto)
		h(w, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	w := &bodyWire{}
	if proto == "HTTP/2.0" {
		srv.EnableHTTP2 = true
		srv.StartTLS()
		w.base = srv.Client().Transport.(*http.Transport)
	} else {
		srv.Start()
		w.base = &http.Transport{}
	}
	w.url = srv.URL
	w.base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		w.dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	t.Cleanup(func() {
		w.base.CloseIdleConnections()
		srv.CloseClientConnections()
		srv.Close()
	})
	return w
}

// bodyEachProtocol runs the test over HTTP/1 and over HTTP/2.
func bodyEachProtocol(t *testing.T, test func(t *testing.T, proto string)) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) { test(t, proto) })
	}
}

// bodyTransport returns a Transport that holds T0 and gets T1 next.
func bodyTransport(t testing.TB, base http.RoundTripper) *reauth.Transport {
	return &reauth.Transport{
		Base:       base,
		Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"}),
		RetryWait:  -1,
		Logger:     discard,
	}
}

func bodyToken(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

const bodyOf401 = `{"error":"invalid_token"}`

func bodyReject(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = io.WriteString(w, bodyOf401)
}

// bodyRejectNow sends the 401 at once. Over HTTP/1 a server otherwise reads on,
// for 256 KiB, before it answers; and has to say that it will hang up.
func bodyRejectNow(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex() // not there over HTTP/2, nor needed
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	bodyReject(w)
	_ = http.NewResponseController(w).Flush()
}

// bodyDo sends the request, and fails the test if it hangs.
func bodyDo(t testing.TB, rt http.RoundTripper, req *http.Request) (resp *http.Response, err error) {
	t.Helper()
	within(t, bodyPatience, func() { resp, err = rt.RoundTrip(req) })
	return resp, err
}

// bodyRead reads the response's body to its end and closes it.
func bodyRead(t testing.TB, resp *http.Response) string {
	t.Helper()
	var all []byte
	within(t, bodyPatience, func() {
		var err error
		all, err = io.ReadAll(resp.Body)
		assert.NoError(t, err)
		assert.NoError(t, resp.Body.Close())
	})
	return string(all)
}

func bodyPost(t testing.TB, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, body)
	require.NoError(t, err)
	return req
}

// bodyAllocated returns how much f allocates, on all goroutines together: the
// server's too.
func bodyAllocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// bodyWithin checks what an upload allocated. Over HTTP/2 that is not to be seen:
// the server alone takes 22 MiB of buffers for 32 MiB, more or less.
func bodyWithin(t testing.TB, proto string, took, measure int64) {
	t.Helper()
	if proto == "HTTP/1.1" {
		assert.Less(t, took, measure, "bytes allocated")
		t.Logf("%d KiB allocated", took>>10)
	}
}

// A bodyStutter returns nothing and no error now and then, as io.Reader allows.
type bodyStutter struct {
	r io.Reader
	n int
}

func (b *bodyStutter) Read(p []byte) (int, error) {
	if b.n++; b.n%4 != 0 {
		return 0, nil
	}
	return b.r.Read(p)
}

// A bodyRagged reads in pieces of any size, and with the end, or after it, io.EOF.
type bodyRagged struct{ r *bytes.Reader }

func (b bodyRagged) Read(p []byte) (int, error) {
	return b.r.Read(p[:1+rand.IntN(min(len(p), 9000))])
}

// B1, B2, B6: GetBody or not, whatever the body is, the server sees one request
// twice.
func TestNoBodyChangesOnItsWayToTheRetry(t *testing.T) {
	large, small := bodyBytes(700<<10), bodyBytes(3000)
	tests := []struct {
		name   string
		method string
		want   []byte
		length int64 // -1: unknown
		open   func() io.Reader
	}{
		{"one piece", "POST", large, 700 << 10, func() io.Reader { return bytes.NewReader(large) }},
		{"length unknown", "POST", large, -1, func() io.Reader { return bytes.NewReader(large) }},
		{"as much as is kept by default", "PUT", bodyBytes(1 << 20), 1 << 20, func() io.Reader { return bytes.NewReader(bodyBytes(1 << 20)) }},
		{"ragged", "PATCH", large, -1, func() io.Reader { return bodyRagged{bytes.NewReader(large)} }},
		{"a byte at a time", "POST", small, 3000, func() io.Reader { return iotest.OneByteReader(bytes.NewReader(small)) }},
		{"the end with the last bytes", "POST", large, -1, func() io.Reader { return iotest.DataErrReader(bytes.NewReader(large)) }},
		{"Reads of nothing", "POST", small, -1, func() io.Reader { return &bodyStutter{r: iotest.HalfReader(bytes.NewReader(small))} }},
		{"Reads of nothing, length known", "POST", small, 3000, func() io.Reader { return &bodyStutter{r: bytes.NewReader(small)} }},
		{"method that seldom has a body", "DELETE", small, -1, func() io.Reader { return bodyRagged{bytes.NewReader(small)} }},
		{"empty, length unknown", "POST", nil, -1, func() io.Reader { return strings.NewReader("") }},
		{"pipe", "POST", large, -1, func() io.Reader {
			pr, pw := io.Pipe()
			go func() { _, err := bodyRagged{bytes.NewReader(large)}.r.WriteTo(pw); _ = pw.CloseWithError(err) }()
			return pr
		}},
	}
	type sent struct {
		method string
		length int64
		te     string
		header http.Header
	}
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		var mu sync.Mutex
		var sends []sent
		var bodies [][]byte
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			all, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			mu.Lock()
			h := r.Header.Clone()
			h.Del("Authorization")
			sends = append(sends, sent{r.Method, r.ContentLength, fmt.Sprint(r.TransferEncoding), h})
			bodies = append(bodies, all)
			mu.Unlock()
			if bodyToken(r) == "T0" {
				bodyReject(w)
			}
		})
		for _, tt := range tests {
			for _, getBody := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, GetBody %t", tt.name, getBody), func(t *testing.T) {
					sends, bodies = nil, nil
					probes := []*bodyProbe{bodyProbing(tt.open())}
					req := bodyPost(t, w.url, probes[0])
					req.Method, req.ContentLength = tt.method, tt.length
					req.Header.Set("X-Own", "1")
					if getBody {
						req.GetBody = func() (io.ReadCloser, error) {
							probes = append(probes, bodyProbing(tt.open()))
							return probes[len(probes)-1], nil
						}
					}
					resp, err := bodyDo(t, bodyTransport(t, w.base), req)
					require.NoError(t, err)
					bodyRead(t, resp)
					assert.Equal(t, http.StatusOK, resp.StatusCode)
					mu.Lock()
					defer mu.Unlock()
					require.Len(t, sends, 2)
					assert.Equal(t, sends[0], sends[1])
					if tt.want != nil { // of an empty one, HTTP/1 learns the length
						assert.Equal(t, tt.length, sends[1].length, "Content-Length")
					}
					for i, got := range bodies {
						assert.True(t, bytes.Equal(tt.want, got), "send %d: %d bytes, want %d", i+1, len(got), len(tt.want))
					}
					want := 1
					if getBody {
						want = 2
					}
					assert.Len(t, probes, want, "bodies opened")
					for _, p := range probes {
						p.check(t)
					}
				})
			}
		}
	})
}

// B6: *os.File, from where it stands.
func TestNoFileIsRewoundBeyondItsStartOrLeftOpen(t *testing.T) {
	content := bodyBytes(300 << 10)
	name := filepath.Join(t.TempDir(), "upload")
	require.NoError(t, os.WriteFile(name, content, 0o600))
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, offset := range []int64{0, 100} {
			for _, early := range []bool{false, true} {
				t.Run(fmt.Sprintf("from %d, early 401 %t", offset, early), func(t *testing.T) {
					var got []byte
					w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
						if bodyToken(r) == "T0" && early {
							bodyRejectNow(w, r)
							return
						}
						all, err := io.ReadAll(r.Body)
						assert.NoError(t, err)
						if bodyToken(r) == "T0" {
							bodyReject(w)
							return
						}
						got = all
					})
					f, err := os.Open(name)
					require.NoError(t, err)
					_, err = f.Seek(offset, io.SeekStart)
					require.NoError(t, err)
					probe := bodyProbing(f)
					req := bodyPost(t, w.url, probe)
					req.ContentLength = int64(len(content)) - offset
					resp, err := bodyDo(t, bodyTransport(t, w.base), req)
					require.NoError(t, err)
					bodyRead(t, resp)
					assert.Equal(t, http.StatusOK, resp.StatusCode)
					assert.True(t, bytes.Equal(content[offset:], got), "%d bytes", len(got))
					probe.check(t)
					assert.ErrorIs(t, f.Close(), os.ErrClosed)
				})
			}
		}
	})
}

// B2, rule 6: over HTTP/1 the first send closes its body only when that Read
// returns, over HTTP/2 while it is still under way. Neither is waited for.
func TestNoByteIsLostWhenAPipeBlocksDuringThe401(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		t.Run("401 ends", func(t *testing.T) { bodyPipeBlocks(t, proto, true) })
		t.Run("401 does not end", func(t *testing.T) { bodyPipeBlocks(t, proto, false) })
	})
}

func bodyPipeBlocks(t *testing.T, proto string, ends bool) {
	replayed := make(chan struct{})
	var got []byte
	w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, len("one "))
		_, err := io.ReadFull(r.Body, chunk)
		assert.NoError(t, err)
		if bodyToken(r) == "T0" {
			bodyRejectNow(w, r)
			if !ends {
				<-replayed // the body is not read on
			}
			return
		}
		close(replayed)
		rest, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		got = append(chunk, rest...)
	})
	pr, pw := io.Pipe()
	probe := bodyProbing(pr)
	go func() {
		_, _ = io.WriteString(pw, "one ")
		<-replayed // and all the time, the first send's Read blocks
		for _, s := range []string{"two ", "three ", "four"} {
			_, err := io.WriteString(pw, s)
			assert.NoError(t, err)
		}
		assert.NoError(t, pw.Close())
	}()
	resp, err := bodyDo(t, bodyTransport(t, w.base), bodyPost(t, w.url, probe))
	require.NoError(t, err)
	bodyRead(t, resp)
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Equal(t, "one two three four", string(got))
	probe.check(t)
}

// Rule 1, B8: the 401 is handed back while the Read blocks; the pipe's writer
// learns of it as soon as it writes.
func TestNoRequestHangsAndNoWriterIsForgottenWhenThereIsNoFreshToken(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadFull(r.Body, make([]byte, 3))
			assert.NoError(t, err)
			bodyRejectNow(w, r)
		})
		rt := bodyTransport(t, w.base)
		rt.Credential = holding(t, &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, errors.New("down")
		}}, reauth.Token{AccessToken: "T0"})
		pr, pw := io.Pipe()
		probe := bodyProbing(pr)
		go func() { _, _ = io.WriteString(pw, "one") }()
		resp, err := bodyDo(t, rt, bodyPost(t, w.url, probe))
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		assert.Equal(t, bodyOf401, bodyRead(t, resp))
		within(t, bodyPatience, func() {
			for err == nil {
				_, err = io.WriteString(pw, "more")
			}
		})
		assert.ErrorIs(t, err, io.ErrClosedPipe)
		probe.check(t)
	})
}

// Rule 6: one reads at a time, whenever the 401 comes. Nothing in this body is
// locked, so that -race sees two Reads at once.
func TestNoChunkIsLostRepeatedOrSwappedWhereverThe401Falls(t *testing.T) {
	content := bodyBytes(1 << 20)
	bodyEachProtocol(t, func(t *testing.T, proto string) { // B5 is the HTTP/2 half
		var got []byte
		var size atomic.Int64
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			if bodyToken(r) == "T0" {
				_, _ = io.CopyN(io.Discard, r.Body, size.Load())
				bodyRejectNow(w, r)
				return
			}
			all, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			got = all
		})
		rt := bodyTransport(t, w.base)
		rt.MaxReplayBytes = 16 << 20
		for i := range 10 {
			require.NoError(t, rt.Credential.Set(context.Background(), reauth.Token{AccessToken: "T0"}))
			size.Store(int64(rand.IntN(600 << 10)))
			closed := make(chan struct{})
			req := bodyPost(t, w.url, &bodyBare{r: bodyRagged{bytes.NewReader(content)}, closed: closed})
			if i%2 == 0 {
				req.ContentLength = int64(len(content))
			}
			resp, err := bodyDo(t, rt, req)
			require.NoError(t, err)
			bodyRead(t, resp)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.True(t, bytes.Equal(content, got), "401 after %d bytes: %d bytes, want %d", size.Load(), len(got), len(content))
			bodyAwait(t, closed, "the body was not closed")
		}
	})
}

// A bodyBare has nothing that would hide a data race, or survive a second Close.
type bodyBare struct {
	r      io.Reader
	closed chan struct{}
}

func (b *bodyBare) Read(p []byte) (int, error) { return b.r.Read(p) }
func (b *bodyBare) Close() error               { close(b.closed); return nil }

// The same with a writer at the other end that is slower than the 401.
func TestNoChunkOfASlowPipeIsLostRepeatedOrSwapped(t *testing.T) {
	content := bodyBytes(200 << 10)
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		var got []byte
		var size atomic.Int64
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			if bodyToken(r) == "T0" {
				_, _ = io.CopyN(io.Discard, r.Body, size.Load())
				bodyRejectNow(w, r)
				return
			}
			all, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			got = all
		})
		rt := bodyTransport(t, w.base)
		for range 20 {
			require.NoError(t, rt.Credential.Set(context.Background(), reauth.Token{AccessToken: "T0"}))
			size.Store(int64(rand.IntN(len(content))))
			pr, pw := io.Pipe()
			probe := bodyProbing(pr)
			go func() {
				for rest := content; len(rest) > 0; {
					n := min(1+rand.IntN(4000), len(rest))
					if _, err := pw.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
					runtime.Gosched()
				}
				_ = pw.Close()
			}()
			resp, err := bodyDo(t, rt, bodyPost(t, w.url, probe))
			require.NoError(t, err)
			bodyRead(t, resp)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.True(t, bytes.Equal(content, got), "401 after %d bytes: %d bytes, want %d", size.Load(), len(got), len(content))
			probe.check(t)
		}
	})
}

// B3 and the measure: 32 MiB swallowed whole and refused.
func TestNoLargeBodyIsHeldInMemory(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		size := int64(32 << 20)
		if proto == "HTTP/2.0" {
			size = 8 << 20
		}
		var sends atomic.Int32
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			sends.Add(1)
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r.Body}, make([]byte, 32<<10))
			assert.NoError(t, err)
			if bodyToken(r) == "T0" {
				assert.EqualValues(t, size, n)
				bodyReject(w)
			}
		})
		rt := bodyTransport(t, w.base)
		probe := bodyProbing(bodyStreaming(size))
		req := bodyPost(t, w.url, probe)
		req.ContentLength = size
		var resp *http.Response
		var err error
		took := bodyAllocated(func() { resp, err = bodyDo(t, rt, req) })
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		assert.Equal(t, bodyOf401, bodyRead(t, resp))
		o, _ := reauth.OutcomeOf(resp)
		assert.Equal(t, reauth.NotRetriedBodyTooLarge, o.NotRetried)
		probe.check(t)

		next, err := bodyDo(t, rt, bodyPost(t, w.url, strings.NewReader("next")))
		require.NoError(t, err)
		bodyRead(t, next)
		assert.Equal(t, http.StatusOK, next.StatusCode)
		assert.EqualValues(t, 2, sends.Load(), "the next request goes out once, with the new token")
		bodyWithin(t, proto, took, 4<<20)
	})
}

// B4 and the measure: 64 MiB refused on the headers.
func TestNoStreamIsLostOrBufferedThatWaitsFor100Continue(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, keep := range []int64{0, -1, 1 << 40} {
			t.Run(fmt.Sprintf("MaxReplayBytes %d", keep), func(t *testing.T) {
				size := int64(64 << 20)
				if keep != 0 || proto == "HTTP/2.0" {
					size = 8 << 20 // more would only take time
				}
				want, got := bodySumOf(t, bodyStreaming(size)), ""
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					if bodyToken(r) == "T0" {
						bodyReject(w)
						return
					}
					got = bodySumOf(t, r.Body)
				})
				w.base.ExpectContinueTimeout = time.Hour
				rt := bodyTransport(t, w.base)
				rt.MaxReplayBytes = keep
				probe := bodyProbing(bodyStreaming(size))
				req := bodyPost(t, w.url, probe)
				req.ContentLength = size
				req.Header.Set("Expect", "100-continue")
				var resp *http.Response
				var err error
				took := bodyAllocated(func() { resp, err = bodyDo(t, rt, req) })
				require.NoError(t, err)
				bodyRead(t, resp)
				assert.Equal(t, http.StatusOK, resp.StatusCode)
				assert.Equal(t, want, got, "the sum of what was replayed")
				bodyWithin(t, proto, took, 8<<20)
				probe.check(t)
			})
		}
	})
}

// Rule 6: recording stops at the first response that is no rejection; memory is
// taken as bytes pass.
func TestNoBodyIsRecordedOnceItsRequestIsAccepted(t *testing.T) {
	const size = 16 << 20
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, bodySumOf(t, r.Body))
		})
		rt := bodyTransport(t, w.base)
		rt.MaxReplayBytes = math.MaxInt64
		gate := make(chan struct{})
		probe := bodyProbing(io.MultiReader(bodyGate(gate), bodyStreaming(size)))
		var got string
		took := bodyAllocated(func() {
			resp, err := bodyDo(t, rt, bodyPost(t, w.url, probe))
			require.NoError(t, err)
			close(gate)
			got = bodyRead(t, resp)
		})
		assert.Equal(t, bodySumOf(t, bodyStreaming(size)), got)
		bodyWithin(t, proto, took, 8<<20)
		probe.check(t)
	})
}

// A bodyGate is empty, but not before it opens.
type bodyGate <-chan struct{}

func (b bodyGate) Read([]byte) (int, error) { <-b; return 0, io.EOF }

// X2: a conversation in both directions goes on as it does without reauth, also
// one that had to be begun twice.
func TestNoConversationIsHeldUp(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			if bodyToken(r) == "T0" {
				bodyRejectNow(w, r)
				return
			}
			c := http.NewResponseController(w)
			_ = c.EnableFullDuplex()
			_ = c.Flush()
			line := make([]byte, 5)
			for {
				if _, err := io.ReadFull(r.Body, line); err != nil {
					return
				}
				_, _ = w.Write(line)
				_ = c.Flush()
			}
		})
		pr, pw := io.Pipe()
		resp, err := bodyDo(t, bodyTransport(t, w.base), bodyPost(t, w.url, pr))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		within(t, bodyPatience, func() {
			for i := range 20 {
				line := fmt.Sprintf("%04d\n", i)
				_, err := io.WriteString(pw, line)
				assert.NoError(t, err)
				echo := make([]byte, 5)
				_, err = io.ReadFull(resp.Body, echo)
				assert.NoError(t, err)
				assert.Equal(t, line, string(echo))
			}
			assert.NoError(t, pw.Close())
		})
		assert.Empty(t, bodyRead(t, resp))
	})
}

// B6a: a 401 says that nothing was applied, which is not known here.
func TestNoAppliedPostIsReportedAsRefused(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, getBody := range []bool{true, false} {
			t.Run(fmt.Sprintf("GetBody %t", getBody), func(t *testing.T) {
				var sends, applied atomic.Int32
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					sends.Add(1)
					_, _ = io.Copy(io.Discard, r.Body)
					if bodyToken(r) == "T0" {
						bodyReject(w)
						return
					}
					applied.Add(1)
					panic(http.ErrAbortHandler)
				})
				ctx, outcome := reauth.WithOutcome(context.Background())
				req := bodyPost(t, w.url, strings.NewReader("pay")).WithContext(ctx)
				if !getBody {
					req.GetBody = nil
				}
				resp, err := bodyDo(t, bodyTransport(t, w.base), req)
				assert.Nil(t, resp)
				assert.Error(t, err)
				assert.EqualValues(t, 1, applied.Load())
				assert.EqualValues(t, 2, sends.Load())
				assert.Error(t, outcome().Err)
				assert.Equal(t, http.StatusUnauthorized, outcome().First.StatusCode)
				assert.False(t, outcome().Recovered())
			})
		}
	})
}

// B7, rule 1.
func TestNo401IsLostWhenGetBodyFails(t *testing.T) {
	tests := []struct {
		name    string
		getBody func() (io.ReadCloser, error)
		want    string
	}{
		{"an error", func() (io.ReadCloser, error) { return nil, errBodyBroken }, "the disk is gone"},
		{"no body and no error", func() (io.ReadCloser, error) { return nil, nil }, "no body"},
	}
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				var sends atomic.Int32
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					sends.Add(1)
					_, _ = io.Copy(io.Discard, r.Body)
					if bodyToken(r) == "T0" {
						bodyReject(w)
					}
				})
				rt := bodyTransport(t, w.base)
				probe := bodyProbing(strings.NewReader("once"))
				req := bodyPost(t, w.url, probe)
				req.GetBody = tt.getBody
				resp, err := bodyDo(t, rt, req)
				require.NoError(t, err)
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				assert.Equal(t, bodyOf401, bodyRead(t, resp))
				o, ok := reauth.OutcomeOf(resp)
				assert.True(t, ok)
				assert.ErrorContains(t, o.Err, tt.want)
				assert.Contains(t, o.NotRetried, "body")
				assert.EqualValues(t, 1, sends.Load())
				probe.check(t)

				assert.Equal(t, http.StatusOK, get(t, rt, w.url).StatusCode)
				assert.EqualValues(t, 2, sends.Load(), "the next request goes out once, with the new token")
			})
		}
	})
}

// B8: on every path, also when nothing was sent.
func TestNoBodyStaysOpenOrIsClosedTwice(t *testing.T) {
	type setup struct {
		*reauth.Transport
		ctx context.Context
		req *http.Request
		do  func(n int, req *http.Request) (*http.Response, error) // Base
	}
	refuse := func(n int, req *http.Request) (*http.Response, error) {
		return answer(req, 401, bodyOf401, "WWW-Authenticate", `Bearer error="invalid_token"`), nil
	}
	refuseOnce := func(n int, req *http.Request) (*http.Response, error) {
		if n == 1 {
			return refuse(n, req)
		}
		return answer(req, 200, "fine"), nil
	}
	refresher := func(err error) func(*setup) {
		return func(s *setup) {
			s.Credential = &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				return reauth.Token{}, err
			})}
		}
	}
	tests := []struct {
		name  string
		set   func(*setup)
		sends int
		err   string // "" for a response
	}{
		{"no Credential", func(s *setup) { s.Credential = nil }, 0, "no Credential"},
		{"neither Refresher nor token", func(s *setup) { s.Credential = &reauth.Credential{} }, 0, "Refresher"},
		{"malformed Origins", func(s *setup) { s.Origins = []string{"::"} }, 0, "Origins"},
		{"a nil Base", func(s *setup) { s.Base = (*http.Transport)(nil) }, 0, "nil"},
		{"malformed Header", func(s *setup) { s.Header = "a b" }, 0, "Header"},
		{"no URL", func(s *setup) { s.req.URL = nil }, 0, "URL"},
		{"plain http", func(s *setup) { s.req.URL.Scheme = "http" }, 0, "plain http"},
		{"CredentialFor fails", func(s *setup) {
			s.CredentialFor = func(*http.Request) (*reauth.Credential, error) { return nil, errBodyBroken }
		}, 0, "disk"},
		{"CredentialFor finds none", func(s *setup) {
			s.CredentialFor = func(*http.Request) (*reauth.Credential, error) { return nil, nil }
		}, 0, "CredentialFor"},
		{"no first token", refresher(errBodyBroken), 0, "disk"},
		{"no token ever", refresher(reauth.Permanent(errBodyBroken)), 0, "disk"},
		{"closed", func(s *setup) {
			s.Credential = &reauth.Credential{Refresher: &issuer{}}
			_ = s.Credential.Shutdown(context.Background())
		}, 0, "closed"},
		{"the caller goes while the first token is fetched", func(s *setup) {
			ctx, cancel := context.WithCancelCause(context.Background())
			s.ctx = ctx
			s.Credential = &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
				cancel(errBodyBroken)
				<-ctx.Done()
				return reauth.Token{}, ctx.Err()
			})}
		}, 0, "disk"},
		{"accepted", func(s *setup) {}, 1, ""},
		{"broken", func(s *setup) {
			s.do = func(_ int, req *http.Request) (*http.Response, error) {
				_ = answer(req, 200, "")
				return nil, errBodyBroken
			}
		}, 1, "disk"},
		{"broken before a byte was read", func(s *setup) {
			s.do = func(_ int, req *http.Request) (*http.Response, error) {
				_ = req.Body.Close()
				return nil, errBodyBroken
			}
		}, 1, "disk"},
		{"neither response nor error", func(s *setup) {
			s.do = func(_ int, req *http.Request) (*http.Response, error) {
				_ = answer(req, 200, "")
				return nil, nil
			}
		}, 1, "neither"},
		{"cured", func(s *setup) { s.do = refuseOnce }, 2, ""},
		{"refused unread, and cured", func(s *setup) {
			s.do = func(n int, req *http.Request) (*http.Response, error) {
				if n == 1 {
					_ = req.Body.Close()
					req.Body = nil
				}
				return refuseOnce(n, req)
			}
		}, 2, ""},
		{"refused twice", func(s *setup) { s.do = refuse }, 2, ""},
		{"refused for another reason", func(s *setup) {
			s.do = func(_ int, req *http.Request) (*http.Response, error) {
				return answer(req, 401, "", "WWW-Authenticate", `Bearer error="insufficient_scope"`), nil
			}
		}, 1, ""},
		{"broken on the retry", func(s *setup) {
			s.do = func(n int, req *http.Request) (*http.Response, error) {
				if n == 1 {
					return refuse(n, req)
				}
				_ = req.Body.Close()
				return nil, errBodyBroken
			}
		}, 2, "disk"},
		{"no fresh token", func(s *setup) {
			refresher(errBodyBroken)(s)
			_ = s.Credential.Set(context.Background(), reauth.Token{AccessToken: "T0"})
			s.do = refuse
		}, 1, ""},
		{"more than is kept", func(s *setup) { s.do, s.MaxReplayBytes, s.req.GetBody = refuseOnce, 2, nil }, 1, ""},
		{"too long a wait", func(s *setup) {
			s.do = func(_ int, req *http.Request) (*http.Response, error) {
				return answer(req, 401, "", "Retry-After", "60"), nil
			}
		}, 1, ""},
		{"logged out meanwhile", func(s *setup) {
			s.do = func(n int, req *http.Request) (*http.Response, error) {
				_ = s.Credential.Clear(context.Background())
				return refuse(n, req)
			}
		}, 1, ""},
		{"a token of its own", func(s *setup) { s.do = refuse; s.req.Header.Set("Authorization", "Bearer mine") }, 1, ""},
		{"without a token", func(s *setup) { s.do = refuse; s.ctx = reauth.WithoutToken(s.ctx) }, 1, ""},
		{"an origin that is not listed", func(s *setup) { s.do = refuse; s.Origins = []string{} }, 1, ""},
	}
	for _, tt := range tests {
		for _, getBody := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, GetBody %t", tt.name, getBody), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					probes := []*bodyProbe{bodyProbing(strings.NewReader("body"))}
					sends := 0
					s := &setup{ctx: context.Background(), do: func(_ int, req *http.Request) (*http.Response, error) {
						return answer(req, 200, "fine"), nil
					}}
					s.Transport = bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
						sends++
						return s.do(sends, req)
					}))
					s.req = bodyPost(t, "https://api.example.com/", probes[0])
					if getBody {
						s.req.GetBody = func() (io.ReadCloser, error) {
							probes = append(probes, bodyProbing(strings.NewReader("body")))
							return probes[len(probes)-1], nil
						}
					}
					tt.set(s)
					resp, err := s.RoundTrip(s.req.WithContext(s.ctx))
					if tt.err != "" {
						assert.ErrorContains(t, err, tt.err)
						assert.Nil(t, resp)
					} else if assert.NoError(t, err) {
						assert.NoError(t, resp.Body.Close())
					}
					assert.Equal(t, tt.sends, sends)
					time.Sleep(time.Minute) // till refreshes have ended
					for i, p := range probes {
						assert.EqualValues(t, 1, p.closes.Load(), "closes of body %d", i+1)
						assert.Zero(t, p.late.Load(), "Reads after Close of body %d", i+1)
					}
				})
			})
		}
	}
}

// B3: how much is kept.
func TestNoMoreIsKeptThanMaxReplayBytes(t *testing.T) {
	tests := []struct {
		name  string
		keep  int64
		size  int
		cured bool
	}{
		{"default, just as much", 0, 1 << 20, true},
		{"default, one more", 0, 1<<20 + 1, false},
		{"just as much", 5000, 5000, true},
		{"one more", 5000, 5001, false},
		{"one", 1, 1, true},
		{"nothing is kept of something", -1, 1, false},
		{"nothing is kept of nothing", -1, 0, true},
		{"most negative", math.MinInt64, 1, false},
		{"largest", math.MaxInt64, 3 << 20, true},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			content := bodyBytes(tt.size)
			var got []byte
			rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
				all, err := io.ReadAll(req.Body)
				assert.NoError(t, err)
				if bodyToken(req) == "T0" {
					return answer(req, 401, bodyOf401), nil
				}
				got = all
				return answer(req, 200, "fine"), nil
			}))
			rt.MaxReplayBytes = tt.keep
			probe := bodyProbing(bodyRagged{bytes.NewReader(content)})
			req := bodyPost(t, "https://api.example.com/", probe)
			// What the length is said to be changes nothing; a lie is Base's to find.
			req.ContentLength = []int64{-1, 0, int64(tt.size), 3, 1 << 60}[i%5]
			resp, err := rt.RoundTrip(req)
			require.NoError(t, err)
			text := bodyRead(t, resp)
			if tt.cured {
				assert.Equal(t, http.StatusOK, resp.StatusCode)
				assert.True(t, bytes.Equal(content, got), "%d bytes", len(got))
			} else {
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				assert.Equal(t, bodyOf401, text)
			}
			probe.check(t)
		})
	}
}

// Rule 6: Base may close the body as late as it likes, or more than once.
func TestNoBodyDependsOnWhenBaseClosesIt(t *testing.T) {
	tests := []struct {
		name   string
		status []int // of the sends
		fail   bool  // the refresh
		want   int
	}{
		{"accepted", []int{200}, false, 200},
		{"cured", []int{401, 200}, false, 200},
		{"refused twice", []int{401, 401}, false, 401},
		{"no fresh token", []int{401}, true, 401},
	}
	for _, tt := range tests {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, early %t", tt.name, early), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var last []byte
					sends := 0
					rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
						body := req.Body
						req.Body = nil
						sends++
						n, status := sends, tt.status[sends-1]
						if !early || status == 200 {
							last, _ = io.ReadAll(body)
						} else {
							_, _ = io.ReadFull(body, make([]byte, 7))
						}
						go func() {
							for range 3 {
								time.Sleep(time.Duration(4-n) * time.Minute)
								_ = body.Close()
							}
						}()
						return answer(req, status, ""), nil
					}))
					if tt.fail {
						rt.Credential = holding(t, &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
							return reauth.Token{}, errBodyBroken
						}}, reauth.Token{AccessToken: "T0"})
					}
					probe := bodyProbing(bodyRagged{bytes.NewReader(bodyBytes(50_000))})
					start := time.Now()
					resp, err := rt.RoundTrip(bodyPost(t, "https://api.example.com/", probe))
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					assert.Equal(t, tt.want, resp.StatusCode)
					assert.Less(t, time.Since(start), time.Minute, "it did not wait for Base")
					if tt.want == 200 {
						assert.True(t, bytes.Equal(bodyBytes(50_000), last), "%d bytes", len(last))
					}
					time.Sleep(time.Hour)
					probe.check(t)
				})
			})
		}
	}
}

// B5: HTTP/2 closes a body with a Read outstanding, and may then begin another
// one. A file or a pooled buffer must not see that.
func TestNoBodyIsReadAfterItsClose(t *testing.T) {
	for _, status := range []int{200, 401} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var bodies []io.ReadCloser
				rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					body := req.Body
					req.Body = nil
					bodies = append(bodies, body)
					_, _ = io.ReadFull(body, make([]byte, 7))
					_ = body.Close()
					return answer(req, status, ""), nil
				}))
				probe := bodyProbing(bytes.NewReader(bodyBytes(50_000)))
				resp, err := rt.RoundTrip(bodyPost(t, "https://api.example.com/", probe))
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				probe.check(t)
				for i, body := range bodies {
					n, err := body.Read(make([]byte, 10))
					assert.Zero(t, n, "body %d", i+1)
					assert.Error(t, err, "body %d", i+1)
					assert.NotErrorIs(t, err, io.EOF, "body %d: it has not ended", i+1)
				}
				probe.check(t)
			})
		})
	}
}

// Rule 6: a first send that is superseded must not look complete to its server,
// however it learns of it: a cut request is discarded, a short one is applied.
func TestNoSupersededSendEndsAsIfItWereWhole(t *testing.T) {
	for _, blocked := range []bool{false, true} {
		t.Run(fmt.Sprintf("Read under way %t", blocked), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pr, pw := io.Pipe()
				probe := bodyProbing(pr)
				var firstErr error
				firstDone := make(chan struct{})
				var got []byte
				rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					body := req.Body
					req.Body = nil
					if bodyToken(req) != "T0" {
						if blocked {
							go func() { _, _ = io.WriteString(pw, "two"); _ = pw.Close() }()
						} else {
							go func() { <-firstDone; _, _ = io.WriteString(pw, "two"); _ = pw.Close() }()
						}
						got, _ = io.ReadAll(body)
						_ = body.Close()
						return answer(req, 200, "fine"), nil
					}
					go func() { _, _ = io.WriteString(pw, "one") }()
					_, _ = io.ReadFull(body, make([]byte, 3))
					go func() {
						defer close(firstDone)
						if !blocked {
							time.Sleep(10 * time.Second) // till the retry is under way
						}
						var n int
						n, firstErr = body.Read(make([]byte, 10))
						assert.Zero(t, n, "these bytes belong to the retry")
						_ = body.Close()
					}()
					synctest.Wait()
					return answer(req, 401, ""), nil
				}))
				rt.MaxReplayBytes = int64(len("one")) // of what was sent; "two" was not
				resp, err := rt.RoundTrip(bodyPost(t, "https://api.example.com/", probe))
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				<-firstDone
				assert.Equal(t, "onetwo", string(got))
				assert.Error(t, firstErr)
				assert.NotErrorIs(t, firstErr, io.EOF)
				probe.check(t)
			})
		})
	}
}

// A body that breaks off is never taken for a whole one, by neither send.
func TestNoTruncatedBodyIsTakenForAWholeOne(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, tt := range []struct {
			name  string
			after int // bytes, before it breaks off
			early int // bytes read before the 401; -1: all
			again int32
		}{
			{"in the first send", 60_000, -1, 0},
			{"in the retry", 900_000, 10, 1},
		} {
			t.Run(tt.name, func(t *testing.T) {
				var again, whole atomic.Int32
				t.Cleanup(func() { // when the server has ended
					assert.Equal(t, tt.again, again.Load())
					assert.Zero(t, whole.Load(), "bodies that were whole to the server")
				})
				gate := make(chan struct{})
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					if bodyToken(r) == "T0" && tt.early >= 0 {
						_, _ = io.CopyN(io.Discard, r.Body, int64(tt.early))
						bodyRejectNow(w, r)
						return
					}
					if bodyToken(r) != "T0" {
						again.Add(1)
						close(gate)
					}
					if _, err := io.Copy(io.Discard, r.Body); err == nil {
						whole.Add(1)
					}
					bodyReject(w)
				})
				start := io.Reader(bytes.NewReader(bodyBytes(tt.after)))
				if tt.early >= 0 { // the rest comes when the retry is there
					start = io.MultiReader(bytes.NewReader(bodyBytes(10)), bodyGate(gate), start)
				}
				probe := bodyProbing(io.MultiReader(start, iotest.ErrReader(errBodyBroken)))
				resp, err := bodyDo(t, bodyTransport(t, w.base), bodyPost(t, w.url, probe))
				assert.Nil(t, resp)
				assert.ErrorIs(t, err, errBodyBroken)
				probe.check(t)
			})
		}
	})
}

// An error that the first send met is what the retry meets after the same bytes.
func TestNoErrorOfABodyIsForgottenByTheRetry(t *testing.T) {
	var got []byte
	var gotErr error
	rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		got, gotErr = io.ReadAll(req.Body)
		if bodyToken(req) == "T0" { // a 401 was already on its way
			return answer(req, 401, ""), nil
		}
		_ = req.Body.Close()
		return nil, gotErr
	}))
	probe := bodyProbing(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errBodyBroken)))
	resp, err := rt.RoundTrip(bodyPost(t, "https://api.example.com/", probe))
	assert.Nil(t, resp)
	assert.Equal(t, errBodyBroken, err)
	assert.Equal(t, "half", string(got))
	assert.Equal(t, errBodyBroken, gotErr)
	probe.check(t)
}

// B8, rule 1: the caller goes while the cure is on its way.
func TestNoBodyStaysOpenWhenTheCallerGoes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after time.Duration // the refresh takes 10 s, the wait 20 to 60, the retry for ever
		sends int
	}{
		{"during the refresh", 5 * time.Second, 1},
		{"during the wait", 15 * time.Second, 1},
		{"during the retry", 5 * time.Minute, 2},
	} {
		for _, getBody := range []bool{false, true} {
			for _, closes := range []bool{true, false} { // at once; false: with the Read that blocks
				t.Run(fmt.Sprintf("%s, GetBody %t, closes %t", tt.name, getBody, closes), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						gone := errors.New("the user pressed Ctrl-C")
						ctx, cancel := context.WithCancelCause(context.Background())
						time.AfterFunc(tt.after, func() { cancel(gone) })
						sends := 0
						rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
							sends++
							body := req.Body
							req.Body = nil
							if sends == 2 {
								<-req.Context().Done()
								_ = body.Close()
								return nil, context.Cause(req.Context())
							}
							go func() {
								_, _ = io.ReadAll(body)
								_ = body.Close()
							}()
							synctest.Wait()
							if closes {
								_ = body.Close()
							}
							return answer(req, 401, ""), nil
						}))
						rt.RetryWait = 40 * time.Second
						rt.Credential = holding(t, &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
							time.Sleep(10 * time.Second)
							return reauth.Token{AccessToken: "T1"}, nil
						}}, reauth.Token{AccessToken: "T0"})
						open := func() (*bodyProbe, *io.PipeWriter) {
							pr, pw := io.Pipe()
							go func() { _, _ = io.WriteString(pw, "one") }()
							return bodyProbing(pr), pw
						}
						probe, pw := open()
						probes := []*bodyProbe{probe}
						req := bodyPost(t, "https://api.example.com/", probe).WithContext(ctx)
						if getBody {
							req.GetBody = func() (io.ReadCloser, error) {
								p, w := open()
								go func() { <-p.closed; _ = w.Close() }()
								probes = append(probes, p)
								return p, nil
							}
						}
						start := time.Now()
						resp, err := rt.RoundTrip(req)
						assert.Nil(t, resp)
						assert.Equal(t, gone, err)
						assert.Equal(t, tt.after, time.Since(start))
						assert.Equal(t, tt.sends, sends)
						if !closes {
							_ = pw.CloseWithError(errBodyBroken) // then the Read that blocks ends
						}
						time.Sleep(time.Hour)
						for i, p := range probes {
							if getBody && closes && i == 0 {
								continue // closed by Base twice, as it is without reauth
							}
							assert.EqualValues(t, 1, p.closes.Load(), "closes of body %d", i+1)
						}
					})
				})
			}
		}
	}
}

// X2: what announces the body is the same for both sends, also where there is none.
func TestNoRequestGainsOrLosesABody(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		var sends []string
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			all, _ := io.ReadAll(r.Body)
			sends = append(sends, fmt.Sprint(r.Method, r.ContentLength, r.TransferEncoding, r.Header["Content-Length"], string(all), r.Trailer))
			if bodyToken(r) == "T0" {
				bodyReject(w)
			}
		})
		for _, tt := range []struct {
			name string
			req  http.Request
			want string // "" for HTTP/1 and HTTP/2 differ
		}{
			{"GET, nil", http.Request{Method: "GET"}, "GET0 [] []map[]"},
			{"no method, nil", http.Request{}, "GET0 [] []map[]"},
			{"POST, nil", http.Request{Method: "POST"}, ""},
			{"POST, NoBody", http.Request{Method: "POST", Body: http.NoBody}, ""},
			{"POST, NoBody of unknown length", http.Request{Method: "POST", Body: http.NoBody, ContentLength: -1}, ""},
			{"PUT, unknown length", http.Request{Method: "PUT", ContentLength: -1, Body: io.NopCloser(strings.NewReader("x"))}, ""},
			{"PUT, unset length", http.Request{Method: "PUT", Body: io.NopCloser(strings.NewReader("x"))}, ""},
			{"PUT, known length", http.Request{Method: "PUT", ContentLength: 1, Body: io.NopCloser(strings.NewReader("x"))}, ""},
		} {
			t.Run(tt.name, func(t *testing.T) {
				sends = nil
				req := tt.req.WithContext(context.Background()) // its Header map is nil
				target := bodyPost(t, w.url, nil)
				req.URL, req.Host = target.URL, target.Host
				resp, err := bodyDo(t, bodyTransport(t, w.base), req)
				require.NoError(t, err)
				bodyRead(t, resp)
				assert.Equal(t, http.StatusOK, resp.StatusCode)
				require.Len(t, sends, 2)
				assert.Equal(t, sends[0], sends[1])
				if tt.want != "" {
					assert.Equal(t, tt.want, sends[1])
				}
				assert.Nil(t, req.Header, "the caller's")
			})
		}
	})
}

// X2: trailers of the request, which its body fills in when it ends.
func TestNoRequestTrailerIsLost(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		var got []string
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			all, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			got = append(got, string(all)+" "+r.Trailer.Get("X-Sum"))
			if bodyToken(r) == "T0" {
				bodyReject(w)
			}
		})
		req := bodyPost(t, w.url, nil)
		req.Trailer = http.Header{"X-Sum": nil}
		end := bodyReaderFunc(func([]byte) (int, error) { req.Trailer.Set("X-Sum", "42"); return 0, io.EOF })
		req.Body = bodyProbing(io.MultiReader(strings.NewReader("summed"), end))
		req.ContentLength = -1
		resp, err := bodyDo(t, bodyTransport(t, w.base), req)
		require.NoError(t, err)
		bodyRead(t, resp)
		assert.Equal(t, []string{"summed 42", "summed 42"}, got)
	})
}

type bodyReaderFunc func([]byte) (int, error)

func (f bodyReaderFunc) Read(p []byte) (int, error) { return f(p) }
