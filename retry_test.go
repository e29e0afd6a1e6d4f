package reauth_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
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

// respRagged reads with buffers of any size.
func respRagged(r io.Reader) ([]byte, error) {
	var all []byte
	for {
		p := make([]byte, 1+rand.IntN(10_000))
		n, err := r.Read(p)
		all = append(all, p[:n]...)
		if err != nil {
			return all, err
		}
	}
}

// respHanging returns a body that hangs after its beginning, until it is closed.
func respHanging(start string) *bodyProbe {
	pr, _ := io.Pipe()
	b := bodyProbing(io.MultiReader(strings.NewReader(start), pr))
	b.close = pr.Close
	return b
}

func (f bodyReaderFunc) Read(p []byte) (int, error) { return f(p) }

type bodyReaderFunc func([]byte) (int, error)

func (b bodyGate) Read([]byte) (int, error) { <-b; return 0, io.EOF }

// A bodyGate is empty, but not before it opens.
type bodyGate <-chan struct{}

func (b *bodyBare) Read(p []byte) (int, error) { return b.r.Read(p) }
func (b *bodyBare) Close() error               { close(b.closed); return nil }

// A bodyBare has nothing that would hide a data race, or survive a second Close.
type bodyBare struct {
	r      io.Reader
	closed chan struct{}
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

func (b bodyRagged) Read(p []byte) (int, error) {
	return b.r.Read(p[:1+rand.IntN(min(len(p), 9000))])
}

// A bodyRagged reads in pieces of any size, and with the end, or after it, io.EOF.
type bodyRagged struct{ r *bytes.Reader }

func (b *bodyStutter) Read(p []byte) (int, error) {
	if b.n++; b.n%4 != 0 {
		return 0, nil
	}
	return b.r.Read(p)
}

// A bodyStutter returns nothing and no error now and then, as io.Reader allows.
type bodyStutter struct {
	r io.Reader
	n int
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

func bodySumOf(t testing.TB, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	_, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, make([]byte, 32<<10))
	assert.NoError(t, err, "of the body at the server")
	return fmt.Sprintf("%x", h.Sum(nil))
}

func bodyStreaming(n int64) *bodyStream { return &bodyStream{size: n} }

// GetBody or not, whatever the body is, the server sees one request
// twice.
func TestRetryBodyIsTheSame(t *testing.T) {
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

// *os.File, from where it stands.
func TestRetryBodyFileFromWhereItStood(t *testing.T) {
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

// Over HTTP/1 the first send closes its body only when that Read
// returns, over HTTP/2 while it is still under way. Neither is waited for.
func TestRetryBodyPipeThatBlocksDuringThe401(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		t.Run("401 ends", func(t *testing.T) { bodyPipeBlocks(t, proto, true) })
		t.Run("401 does not end", func(t *testing.T) { bodyPipeBlocks(t, proto, false) })
	})
}

// The 401 is handed back while the Read blocks; the pipe's writer
// learns of it as soon as it writes.
func TestRetryBodyPipeWithoutANewToken(t *testing.T) {
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

// One reads at a time, whenever the 401 comes. Nothing in this body is
// locked, so that -race sees two Reads at once.
func TestRetryBodyChunksWhereverThe401Falls(t *testing.T) {
	content := bodyBytes(1 << 20)
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

// The same with a writer at the other end that is slower than the 401.
func TestRetryBodyChunksOfASlowPipe(t *testing.T) {
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

// And the measure: 32 MiB swallowed whole and refused.
func TestRetryBodyTooLargeUsesLittleMemory(t *testing.T) {
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

// And the measure: 64 MiB refused on the headers.
func TestRetryBodyAfterExpect100Continue(t *testing.T) {
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

// Recording stops at the first response that is no rejection; memory is
// taken as bytes pass.
func TestRetryBodyRecordingEndsWithTheResponse(t *testing.T) {
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

// A 401 says that nothing was applied, which is not known here.
func TestRetryErrorIsReturned(t *testing.T) {
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

func TestRetryGetBodyFails(t *testing.T) {
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

// On every path, also when nothing was sent.
func TestRetryBodyClosedOnce(t *testing.T) {
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

// How much is kept.
func TestRetryMaxReplayBytes(t *testing.T) {
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

// Base may close the body as late as it likes, or more than once.
func TestRetryBodyWheneverBaseClosesIt(t *testing.T) {
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

// HTTP/2 closes a body with a Read outstanding, and may then begin another
// one. A file or a pooled buffer must not see that.
func TestRetryBodyNotReadAfterClose(t *testing.T) {
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

// A first send that is superseded must not look complete to its server,
// however it learns of it: a cut request is discarded, a short one is applied.
func TestRetryEndsTheFirstBodyWithAnError(t *testing.T) {
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
func TestRetryBodyTruncated(t *testing.T) {
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
func TestRetryBodyErrorIsRepeated(t *testing.T) {
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

// The caller goes while the new token is on its way.
func TestRetryBodyClosedAfterCancellation(t *testing.T) {
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

// What announces the body is the same for both sends, also where there is none.
func TestRetryBodyOfEachForm(t *testing.T) {
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

// Trailers of the request, which its body fills in when it ends.
func TestRetryRequestTrailer(t *testing.T) {
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

func TestRetryKeepsTheClientsRequestID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		rt := &reauth.Transport{Logger: discard, Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"}),
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				seen = append(seen, req.Header.Get("X-Client-Request-Id"))
				return answer(req, 401-len(seen)/2*201, ""), nil
			})}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, logURL, nil)
		require.NoError(t, err)
		req.Header.Set("X-Client-Request-Id", "mine")
		resp, err := rt.RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		assert.Equal(t, []string{"mine", "mine"}, seen)
	})
}

// Within 64 KiB and a second, whatever the server does.
func TestRejectionThatDoesNotEnd(t *testing.T) {
	endless := func(wait time.Duration, n int) *bodyProbe {
		return bodyProbing(bodyReaderFunc(func(p []byte) (int, error) {
			time.Sleep(wait)
			return min(n, len(p)), nil
		}))
	}
	tests := []struct {
		name string
		body func() *bodyProbe
		took time.Duration // -1: up to a second
	}{
		{"pours", func() *bodyProbe { return endless(0, 1<<20) }, 0},
		{"drips", func() *bodyProbe { return endless(70*time.Millisecond, 1) }, time.Second},
		{"hangs at once", func() *bodyProbe { return respHanging("") }, time.Second},
		{"hangs after ten bytes", func() *bodyProbe { return respHanging("0123456789") }, time.Second},
		{"hangs and is deaf to Close", func() *bodyProbe { return endless(time.Hour, 1) }, time.Second},
		{"reads nothing and no error", func() *bodyProbe { return endless(0, 0) }, -1},
	}
	for _, tt := range tests {
		for _, cured := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, cured %t", tt.name, cured), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					body := tt.body()
					rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
						if bodyToken(req) == "T0" {
							return respWith(req, 401, body), nil
						}
						return answer(req, 200, "fine"), nil
					}))
					if !cured {
						rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
					}
					start := time.Now()
					resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
					require.NoError(t, err)
					took := time.Since(start)
					if tt.took >= 0 {
						assert.Equal(t, tt.took, took)
					} else {
						assert.LessOrEqual(t, took, time.Second)
					}
					if cured {
						assert.Equal(t, 200, resp.StatusCode)
					} else {
						assert.Equal(t, 401, resp.StatusCode)
						assert.Zero(t, body.closes.Load(), "it is the caller's now")
					}
					require.NoError(t, resp.Body.Close())
					time.Sleep(2 * time.Hour)
					assert.EqualValues(t, 1, body.closes.Load(), "closes")
					assert.Zero(t, body.late.Load(), "Reads after Close")
				})
			})
		}
	}
}

// "about 64 KiB" of memory too.
func TestRejectionReadNoFurtherThanNeeded(t *testing.T) {
	var read atomic.Int64
	rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return respWith(req, 401, bodyProbing(bodyReaderFunc(func(p []byte) (int, error) {
			read.Add(int64(len(p)))
			return len(p), nil
		}))), nil
	}))
	rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
	resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Greater(t, read.Load(), int64(64<<10))
	assert.LessOrEqual(t, read.Load(), int64(72<<10))
}

// The caller's own end comes first.
func TestRejectionAfterCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(300*time.Millisecond, func() { cancel(gone) })
		body := respHanging("")
		rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return respWith(req, 401, body), nil
		}))
		rt.RetryWait = time.Second
		start := time.Now()
		resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/").WithContext(ctx))
		assert.Nil(t, resp)
		assert.Equal(t, gone, err)
		assert.Equal(t, 300*time.Millisecond, time.Since(start))
		assert.EqualValues(t, 1, body.closes.Load(), "closes of the 401")
		time.Sleep(time.Minute)
	})
}

// Classified on what came, and handed on with all of it.
func TestRejectionThatContinuesLater(t *testing.T) {
	for _, tt := range []struct {
		name, start string
		refreshes   int32
	}{
		{"what came says quota", `{"error":{"message":"quota exceeded`, 0},
		{"nothing came", "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pr, pw := io.Pipe()
				body := bodyProbing(pr)
				go func() {
					_, _ = io.WriteString(pw, tt.start)
					for i := range 5 {
						time.Sleep(7 * time.Second)
						_, _ = io.WriteString(pw, fmt.Sprint(" ", i))
					}
					_ = pw.CloseWithError(errBodyBroken)
				}()
				rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					return respWith(req, 401, body), nil
				}))
				refresher := respFailing()
				rt.Credential = holding(t, refresher, reauth.Token{AccessToken: "T0"})
				start := time.Now()
				resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
				require.NoError(t, err)
				assert.Equal(t, time.Second, time.Since(start))
				assert.Equal(t, tt.refreshes, refresher.(*issuer).calls.Load())
				for i := range 5 { // as it comes, not at its end
					p := make([]byte, len(tt.start)+2)
					if i > 0 {
						p = p[:2]
					} else if _, err := io.ReadFull(resp.Body, p[:len(tt.start)]); assert.NoError(t, err) {
						assert.Equal(t, tt.start, string(p[:len(tt.start)]))
						p = p[:2]
					}
					_, err := io.ReadFull(resp.Body, p)
					assert.NoError(t, err)
					assert.Equal(t, fmt.Sprint(" ", i), string(p))
					assert.Equal(t, time.Duration(i+1)*7*time.Second, time.Since(start))
				}
				_, err = resp.Body.Read(make([]byte, 1))
				assert.Equal(t, errBodyBroken, err, "how it ended")
				require.NoError(t, resp.Body.Close())
				assert.EqualValues(t, 1, body.closes.Load())
				assert.Zero(t, body.overlaps.Load(), "Reads while another was under way")
			})
		})
	}
}

// A 401 that is handed on and hangs ends with its Close, as any body does.
func TestRejectionReadEndsWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := respHanging("ten bytes.")
		rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return respWith(req, 401, body), nil
		}))
		rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
		resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
		require.NoError(t, err)
		go func() {
			time.Sleep(time.Minute)
			_ = resp.Body.Close()
		}()
		start := time.Now()
		all, err := io.ReadAll(resp.Body)
		assert.Equal(t, "ten bytes.", string(all))
		assert.Error(t, err)
		assert.Equal(t, time.Minute, time.Since(start))
		n, err := resp.Body.Read(make([]byte, 1))
		assert.Zero(t, n)
		assert.Error(t, err)
		assert.NotErrorIs(t, err, io.EOF)
		assert.Zero(t, body.late.Load(), "Reads after Close")
	})
}

// Nor is what was read ahead there after the Close.
func TestRejectionNotReadAfterClose(t *testing.T) {
	body := bodyProbing(strings.NewReader(bodyOf401))
	rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return respWith(req, 401, body), nil
	}))
	rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
	resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	n, err := resp.Body.Read(make([]byte, 10))
	assert.Zero(t, n)
	assert.Equal(t, http.ErrBodyReadAfterClose, err)
	body.check(t)
}

// On sockets: the retry goes through, and the server is rid of the 401.
func TestRejectionClosedBeforeTheRetry(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, tt := range []struct {
			name    string
			endless bool
			coding  string
		}{
			{"hangs", false, ""},
			{"pours", true, ""},
			// net/http unzips it, and Close comes while that reads.
			{"hangs, gzip-coded", false, "gzip"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				ended := make(chan struct{})
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					if bodyToken(r) != "T0" {
						return
					}
					defer close(ended)
					if tt.coding != "" {
						w.Header().Set("Content-Encoding", tt.coding)
						w.WriteHeader(http.StatusUnauthorized)
						zw := gzip.NewWriter(w)
						_, _ = zw.Write([]byte("0123456789"))
						_ = zw.Flush()
					} else {
						w.WriteHeader(http.StatusUnauthorized)
						_, _ = io.WriteString(w, "0123456789")
					}
					_ = http.NewResponseController(w).Flush()
					for page := make([]byte, 8<<10); tt.endless; {
						if _, err := w.Write(page); err != nil {
							return
						}
					}
					<-r.Context().Done()
				})
				resp, err := bodyDo(t, bodyTransport(t, w.base), respGet(t, w.url))
				require.NoError(t, err)
				bodyRead(t, resp)
				assert.Equal(t, http.StatusOK, resp.StatusCode)
				bodyAwait(t, ended, "the server still writes the 401")
			})
		}
	})
}

// Handed on byte by byte, whatever its length, with its headers and
// trailers; the second 401 as well as the first.
func TestRejectionReturnedUnread(t *testing.T) {
	content := bodyBytes(150 << 10)
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			var size int
			var chunked bool
			_, err := fmt.Sscan(r.Header.Get("X-Want"), &size, &chunked)
			assert.NoError(t, err)
			w.Header().Set("Content-Type", "application/octet-stream")
			if chunked {
				w.Header().Set("Trailer", "X-Sum")
			} else {
				w.Header().Set("Content-Length", fmt.Sprint(size))
			}
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write(content[:size])
			if chunked {
				w.Header().Set("X-Sum", "42")
			}
		})
		for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 150 << 10} {
			for _, chunked := range []bool{false, true} {
				twice := chunked != (size == 64<<10)
				t.Run(fmt.Sprintf("%d bytes, chunked %t, refused twice %t", size, chunked, twice), func(t *testing.T) {
					rt := bodyTransport(t, w.base)
					if !twice {
						rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
					}
					req := respGet(t, w.url)
					req.Header.Set("X-Want", fmt.Sprint(size, " ", chunked))
					plain, err := bodyDo(t, w.base, req)
					require.NoError(t, err)
					bodyRead(t, plain)
					resp, err := bodyDo(t, rt, req)
					require.NoError(t, err)
					var got []byte
					within(t, bodyPatience, func() { got, err = respRagged(resp.Body) })
					assert.Equal(t, io.EOF, err)
					assert.NoError(t, resp.Body.Close())
					assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
					assert.True(t, bytes.Equal(content[:size], got), "%d bytes", len(got))
					assert.Equal(t, plain.ContentLength, resp.ContentLength)
					assert.Equal(t, plain.TransferEncoding, resp.TransferEncoding)
					plain.Header.Del("Date")
					resp.Header.Del("Date")
					assert.Equal(t, plain.Header, resp.Header)
					assert.Equal(t, plain.Trailer, resp.Trailer)
					if chunked {
						assert.Equal(t, "42", resp.Trailer.Get("X-Sum"))
					}
					o, ok := reauth.OutcomeOf(resp)
					assert.True(t, ok)
					assert.Equal(t, twice, o.Retry.StatusCode != 0)
				})
			}
		}
	})
}

// A 401 that is cut off is handed on cut off, not as if it had ended.
func TestRejectionCutOff(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, "0123456789")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		rt := bodyTransport(t, w.base)
		rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
		resp, err := bodyDo(t, rt, respGet(t, w.url))
		require.NoError(t, err)
		all, err := io.ReadAll(resp.Body)
		assert.Error(t, err)
		assert.Equal(t, "0123456789", string(all))
		assert.NoError(t, resp.Body.Close())
	})
}

func TestRejectionFormsOfBodies(t *testing.T) {
	zipped := func(s string) string {
		var b bytes.Buffer
		zw := gzip.NewWriter(&b)
		_, _ = zw.Write([]byte(s))
		_ = zw.Close()
		return b.String()
	}
	const quota, dead = `{"error":{"message":"insufficient quota"}}`, `{"error":{"message":"Invalid token"}}`
	tests := []struct {
		name, method, body string
		header             http.Header // of the response
		ask                http.Header // of the request
		status             int         // 401 if a fresh token is no cure
	}{
		{"HEAD", "HEAD", "", nil, nil, 200},
		{"no body", "GET", "", nil, nil, 200},
		{"JSON", "GET", dead, nil, nil, 200},
		{"JSON, quota", "GET", quota, nil, nil, 401},
		{"BOM", "GET", "\ufeff" + dead, nil, nil, 200},
		{"BOM, quota", "GET", "\ufeff" + quota, nil, nil, 401},
		{"HTML page", "GET", "<!doctype html><title>401</title><h1>Authorization Required</h1>", http.Header{"Content-Type": {"text/html"}}, nil, 200},
		{"gzip that net/http unzips", "GET", zipped(dead), http.Header{"Content-Encoding": {"gzip"}}, nil, 200},
		{"gzip that net/http unzips, quota", "GET", zipped(quota), http.Header{"Content-Encoding": {"gzip"}}, nil, 401},
		{"gzip that the caller asked for", "GET", zipped(dead), http.Header{"Content-Encoding": {"gzip"}}, http.Header{"Accept-Encoding": {"gzip"}}, 200},
		{"gzip that the caller asked for, quota", "GET", zipped(quota), http.Header{"Content-Encoding": {"gzip"}}, http.Header{"Accept-Encoding": {"gzip"}}, 401},
		{"no gzip that says it is", "GET", quota, http.Header{"Content-Encoding": {"gzip"}}, http.Header{"Accept-Encoding": {"gzip"}}, 200},
		{"gzip bomb", "GET", zipped(strings.Repeat(" ", 2<<20)), http.Header{"Content-Encoding": {"gzip"}}, http.Header{"Accept-Encoding": {"gzip"}}, 200},
		{"not UTF-8", "GET", "\xff\xfe\x00", nil, nil, 200},
		{"NULs", "GET", strings.Repeat("\x00", 1000), nil, nil, 200},
	}
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				var sends atomic.Int32
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					sends.Add(1)
					if bodyToken(r) == "T1" {
						return
					}
					for k, vv := range tt.header {
						w.Header()[k] = vv
					}
					w.WriteHeader(http.StatusUnauthorized)
					_, _ = io.WriteString(w, tt.body)
				})
				req := respGet(t, w.url)
				req.Method = tt.method
				for k, vv := range tt.ask {
					req.Header[k] = vv
				}
				plain, err := bodyDo(t, w.base, req)
				require.NoError(t, err)
				want := bodyRead(t, plain)
				resp, err := bodyDo(t, bodyTransport(t, w.base), req)
				require.NoError(t, err)
				got := bodyRead(t, resp)
				assert.Equal(t, tt.status, resp.StatusCode)
				if tt.status == 401 {
					assert.Equal(t, want, got)
					assert.Equal(t, plain.Header.Get("Content-Encoding"), resp.Header.Get("Content-Encoding"))
					assert.Equal(t, plain.Uncompressed, resp.Uncompressed)
					assert.EqualValues(t, 2, sends.Load())
				} else {
					assert.EqualValues(t, 3, sends.Load())
				}
				if strings.Contains(tt.body, `{"error"`) && tt.header == nil {
					o, ok := reauth.OutcomeOf(resp)
					assert.True(t, ok)
					assert.Contains(t, []string{"Invalid token", "insufficient quota"}, o.Rejection.Message, "read as JSON")
				}
			})
		}
	})
}

// Twenty retries, one dial.
func TestRejectionConnectionIsUsedAgain(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, tt := range []struct {
			size    int
			chunked bool
			c       reauth.Classifier
		}{
			{0, false, nil}, {17, true, nil}, {64 << 10, false, nil}, {64 << 10, true, nil}, {64 << 10, true, respByHeader},
		} {
			t.Run(fmt.Sprintf("%d bytes, chunked %t, %T", tt.size, tt.chunked, tt.c), func(t *testing.T) {
				seen := map[string]bool{} // by one connection, so one after another
				var mu sync.Mutex
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					_, _ = io.Copy(io.Discard, r.Body)
					id := r.Header.Get("X-Id")
					if seen[id] {
						return
					}
					seen[id] = true
					if !tt.chunked {
						w.Header().Set("Content-Length", fmt.Sprint(tt.size))
					}
					w.WriteHeader(http.StatusUnauthorized)
					_ = http.NewResponseController(w).Flush()
					_, _ = w.Write(make([]byte, tt.size))
				})
				rt := bodyTransport(t, w.base)
				rt.Classifier = tt.c
				for i := range 20 {
					req := bodyPost(t, w.url, io.NopCloser(strings.NewReader("body")))
					req.Header.Set("X-Id", fmt.Sprint(i))
					resp, err := bodyDo(t, rt, req)
					require.NoError(t, err)
					bodyRead(t, resp)
					require.Equal(t, http.StatusOK, resp.StatusCode)
				}
				assert.EqualValues(t, 1, w.dials.Load(), "dials")
			})
		}
	})
}

// Read to its end before the refresh, also by who need not look at it,
// and closed before the retry.
func TestRejectionReadBeforeTheRefresh(t *testing.T) {
	for _, c := range []reauth.Classifier{nil, respByHeader, respByBody} {
		t.Run(fmt.Sprintf("%T", c), func(t *testing.T) {
			ended := false
			first := bodyProbing(io.MultiReader(strings.NewReader(bodyOf401), bodyReaderFunc(func([]byte) (int, error) {
				ended = true
				return 0, io.EOF
			})))
			rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if bodyToken(req) == "T0" {
					return respWith(req, 401, first), nil
				}
				assert.EqualValues(t, 1, first.closes.Load(), "the 401 is closed before the retry")
				return answer(req, 200, "fine"), nil
			}))
			rt.Classifier = c
			refreshed := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
				assert.True(t, ended, "the 401 is read to its end")
				return reauth.Token{AccessToken: "T1"}, nil
			}}
			rt.Credential = holding(t, refreshed, reauth.Token{AccessToken: "T0"})
			resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
			require.NoError(t, err)
			assert.Equal(t, "fine", bodyRead(t, resp))
			assert.EqualValues(t, 1, refreshed.calls.Load())
			assert.EqualValues(t, 1, first.closes.Load(), "closes of the 401")
		})
	}
}

// One connection to the host, on which the issuer is too.
func TestRejectionFreesTheOnlyConnection(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, c := range []reauth.Classifier{nil, respByHeader} {
			for _, upload := range []bool{false, true} {
				t.Run(fmt.Sprintf("%T, upload that blocks %t", c, upload), func(t *testing.T) {
					replayed := make(chan struct{})
					w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
						switch {
						case r.URL.Path == "/token":
							_, _ = io.WriteString(w, "T1")
						case bodyToken(r) == "T0" && upload:
							bodyRejectNow(w, r)
						case bodyToken(r) == "T0":
							w.WriteHeader(http.StatusUnauthorized)
							_, _ = w.Write(make([]byte, 60<<10))
						default:
							close(replayed)
							_, _ = io.Copy(w, r.Body)
						}
					})
					w.base.MaxConnsPerHost = 1
					rt := bodyTransport(t, w.base)
					rt.Classifier = c
					rt.Credential = holding(t, reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
						resp, err := w.base.RoundTrip(respGet(t, w.url+"/token").WithContext(ctx))
						if err != nil {
							return reauth.Token{}, err
						}
						return reauth.Token{AccessToken: bodyRead(t, resp)}, nil
					}), reauth.Token{AccessToken: "T0"})
					req := respGet(t, w.url)
					if upload {
						pr, pw := io.Pipe()
						req = bodyPost(t, w.url, pr)
						go func() {
							_, _ = io.WriteString(pw, "one ")
							<-replayed
							_, _ = io.WriteString(pw, "two")
							_ = pw.Close()
						}()
					}
					resp, err := bodyDo(t, rt, req)
					require.NoError(t, err)
					got := bodyRead(t, resp)
					assert.Equal(t, http.StatusOK, resp.StatusCode)
					if upload {
						assert.Equal(t, "one two", got)
					}
				})
			}
		}
	})
}

// Http.Client.Timeout covers the body of a retried response as well.
func TestRetryTimeoutStillHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &http.Client{Timeout: time.Minute, Transport: bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if bodyToken(req) == "T0" {
				return answer(req, 401, ""), nil
			}
			ctx := req.Context()
			return respWith(req, 200, bodyProbing(bodyReaderFunc(func([]byte) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			}))), nil
		}))}
		start := time.Now()
		resp, err := client.Get("https://api.example.com/")
		require.NoError(t, err)
		_, err = io.ReadAll(resp.Body)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(start))
		require.NoError(t, resp.Body.Close())
	})
}

// No response but a rejection is read.
func TestRetryResponseIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := false
		rt := &reauth.Transport{Credential: holding(t, &issuer{}, reauth.Token{AccessToken: "T0"}), Logger: discard, RetryWait: -1,
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("Authorization") == "Bearer T0" {
					return answer(req, http.StatusUnauthorized, ""), nil
				}
				resp := answer(req, http.StatusServiceUnavailable, "")
				resp.Body = io.NopCloser(readerFunc(func([]byte) (int, error) { read = true; time.Sleep(time.Hour); return 0, io.EOF }))
				resp.Trailer = http.Header{"X-Trailer": nil}
				return resp, nil
			})}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, apiURL, nil)
		require.NoError(t, err)
		start := time.Now()
		resp, err := rt.RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		assert.Zero(t, time.Since(start))
		assert.False(t, read)
		assert.Nil(t, resp.Trailer["X-Trailer"])
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A server that offers only Basic, and accepts bearer tokens nevertheless.
func TestRetryAtAServerThatOffersAnotherScheme(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.challenge = func(*http.Request) string { return `Basic realm="management"` }
		s.get(t, apiURL)
		s.accepts = func(_ *http.Request, token string) bool { return token == "T2" }
		status, _ := s.get(t, apiURL)
		assert.Equal(t, http.StatusOK, status, "it has accepted a token before")
		_, o := s.get(t, "https://b.test/")
		assert.Empty(t, o.NotRetried)
		s.accepts = func(*http.Request, string) bool { return false }
		_, o = s.get(t, "https://c.test/")
		assert.Equal(t, reauth.NotRetriedReason, o.NotRetried)
	})
}
