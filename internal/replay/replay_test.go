package replay_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth/internal/replay"
)

// A source is a body that can be read only once, and counts its Closes.
type source struct {
	io.Reader
	closed atomic.Int32
}

func (s *source) Close() error { s.closed.Add(1); return nil }

func request(body io.ReadCloser) *http.Request { return &http.Request{Body: body} }

// read returns all of a body.
func read(t testing.TB, body io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(body)
	require.NoError(t, err)
	return string(b)
}

func TestRetryWithoutABody(t *testing.T) {
	for _, body := range []io.ReadCloser{nil, http.NoBody} {
		b := replay.New(request(body), 10)
		assert.Equal(t, body, b.First())
		again, err := b.Retry()
		require.NoError(t, err)
		assert.Equal(t, body, again)
		assert.False(t, b.Lost())
		assert.False(t, b.Once())
		b.Release()
	}
}

func TestRetryWithGetBody(t *testing.T) {
	gone := errors.New("gone")
	path := filepath.Join(t.TempDir(), "body")
	require.NoError(t, os.WriteFile(path, []byte("12345"), 0o600))
	for name, tt := range map[string]struct {
		length int64
		get    func() (io.ReadCloser, error)
		want   string // "" for an error
	}{
		"in memory":     {5, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("hello")), nil }, "hello"},
		"other content": {5, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader([]byte("world"))), nil }, "world"},
		"shorter":       {5, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("hell")), nil }, ""},
		"longer":        {5, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewBufferString("hello!")), nil }, ""},
		"a stream": {5, func() (io.ReadCloser, error) {
			return io.NopCloser(iotest.OneByteReader(strings.NewReader("hello"))), nil
		}, "hello"},
		"a shorter stream": {5, func() (io.ReadCloser, error) {
			return io.NopCloser(iotest.OneByteReader(strings.NewReader("hell"))), nil
		}, ""},
		"a longer stream": {5, func() (io.ReadCloser, error) {
			return io.NopCloser(iotest.OneByteReader(strings.NewReader("hello!"))), nil
		}, ""},
		"a stream over the limit": {100, func() (io.ReadCloser, error) {
			return io.NopCloser(iotest.OneByteReader(strings.NewReader("hello"))), nil
		}, "hello"},
		"a stream that fails": {5, func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(gone)), nil }, ""},
		"a file":              {5, func() (io.ReadCloser, error) { return os.Open(path) }, "12345"},
		"a longer file":       {4, func() (io.ReadCloser, error) { return os.Open(path) }, ""},
		"unknown length":      {-1, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("any")), nil }, "any"},
		"no length":           {0, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("any")), nil }, "any"},
		"it fails":            {5, func() (io.ReadCloser, error) { return nil, gone }, ""},
		"it returns nil":      {5, func() (io.ReadCloser, error) { return nil, nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			src := &source{Reader: strings.NewReader("first")}
			req := request(src)
			req.ContentLength, req.GetBody = tt.length, tt.get
			b := replay.New(req, 50)
			assert.Same(t, src, b.First())
			assert.False(t, b.Once())
			again, err := b.Retry()
			if tt.want == "" {
				assert.ErrorContains(t, err, "GetBody: ")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, read(t, again))
			assert.NoError(t, again.Close())
		})
	}
}

func TestRetryOfBytesInMemory(t *testing.T) {
	at := func(r io.ReadSeeker) io.Reader { _, _ = r.Seek(2, io.SeekStart); return r }
	buffer := bytes.NewBufferString("01234")
	buffer.Next(2)
	for name, r := range map[string]io.Reader{
		"bytes.Reader":   at(bytes.NewReader([]byte("01234"))),
		"strings.Reader": at(strings.NewReader("01234")),
		"bytes.Buffer":   buffer,
	} {
		t.Run(name, func(t *testing.T) {
			b := replay.New(request(io.NopCloser(r)), 0)
			assert.False(t, b.Once())
			first := b.First()
			_, err := first.Read(make([]byte, 1))
			require.NoError(t, err)
			again, err := b.Retry()
			require.NoError(t, err)
			assert.Equal(t, "234", read(t, again), "from where it stood")
		})
	}
}

// A fileSource is a file that counts its Closes.
type fileSource struct {
	*os.File
	closed atomic.Int32
}

func (f *fileSource) Close() error { f.closed.Add(1); return f.File.Close() }

func openFile(t testing.TB, size int) *fileSource {
	t.Helper()
	path := filepath.Join(t.TempDir(), "body")
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("0123456789"), size/10), 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	return &fileSource{File: f}
}

func TestRetryOfAFileFromWhereItStood(t *testing.T) {
	const size = 3 << 20 / 10 * 10
	f := openFile(t, size)
	_, err := f.Seek(105, io.SeekStart)
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b := replay.New(request(f), 0)
	assert.False(t, b.Once())
	first := b.First()
	_, err = io.CopyN(io.Discard, first, 1<<20)
	require.NoError(t, err)
	again, err := b.Retry()
	require.NoError(t, err)
	_, err = first.Read(make([]byte, 1))
	assert.Error(t, err, "superseded")
	assert.NoError(t, first.Close())
	start := make([]byte, 10)
	_, err = io.ReadFull(again, start)
	require.NoError(t, err)
	assert.Equal(t, "5678901234", string(start))
	n, err := io.Copy(io.Discard, again)
	require.NoError(t, err)
	assert.EqualValues(t, size-105-10, n)
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(200<<10), "without a copy")
	assert.Zero(t, f.closed.Load())
	assert.NoError(t, again.Close())
	assert.EqualValues(t, 1, f.closed.Load())
}

func TestFileClosedOnce(t *testing.T) {
	for name, use := range map[string]func(b *replay.Body, first io.ReadCloser){
		"accepted, then closed":   func(b *replay.Body, first io.ReadCloser) { b.Release(); _ = first.Close(); _ = first.Close() },
		"closed, then accepted":   func(b *replay.Body, first io.ReadCloser) { _ = first.Close(); b.Release() },
		"closed, then sent again": func(b *replay.Body, first io.ReadCloser) { _ = first.Close(); again, _ := b.Retry(); _ = again.Close() },
		"sent again, then closed": func(b *replay.Body, first io.ReadCloser) { again, _ := b.Retry(); _ = again.Close(); _ = first.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			f := openFile(t, 100)
			b := replay.New(request(f), 0)
			first := b.First()
			use(&b, first)
			assert.EqualValues(t, 1, f.closed.Load())
			_, err := first.Read(make([]byte, 1))
			assert.Error(t, err)
		})
	}
}

// A seeker is a file whose Read waits.
type seeker struct {
	*strings.Reader
	wait   chan struct{}
	closed atomic.Bool
}

func (s *seeker) Read(p []byte) (int, error) {
	<-s.wait
	if s.closed.Load() {
		return 0, os.ErrClosed
	}
	return s.Reader.Read(p)
}
func (s *seeker) Close() error { s.closed.Store(true); return nil }

func TestFileClosedAfterTheReadOfTheFirstSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &seeker{Reader: strings.NewReader("hello"), wait: make(chan struct{})}
		b := replay.New(request(f), 0)
		first := b.First()
		go func() { _, _ = first.Read(make([]byte, 1)) }()
		synctest.Wait()
		again, err := b.Retry()
		require.NoError(t, err)
		assert.Equal(t, "hello", read(t, again))
		assert.NoError(t, again.Close())
		assert.False(t, f.closed.Load(), "a Read is in progress")
		close(f.wait)
		synctest.Wait()
		assert.True(t, f.closed.Load())
	})
}

// A pipe cannot be read at an offset.
func TestFileThatIsAPipeIsRecorded(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	_, err = w.WriteString("piped")
	require.NoError(t, err)
	require.NoError(t, w.Close())
	b := replay.New(request(r), 100)
	assert.True(t, b.Once(), "its length is not known")
	assert.Equal(t, "piped", read(t, b.First()))
	again, err := b.Retry()
	require.NoError(t, err)
	assert.Equal(t, "piped", read(t, again))
	assert.NoError(t, again.Close())
}

func TestRecorderOnce(t *testing.T) {
	for length, want := range map[int64]bool{-1: true, 0: true, 99: false, 100: false, 101: true} {
		req := request(&source{Reader: strings.NewReader("")})
		req.ContentLength = length
		b := replay.New(req, 100)
		assert.Equal(t, want, b.Once(), length)
	}
}

func TestRecorderLimit(t *testing.T) {
	for _, tt := range []struct {
		limit, size int
		lost        bool
	}{{10, 0, false}, {10, 9, false}, {10, 10, false}, {10, 11, true}, {0, 0, false}, {0, 1, true}, {100 << 10, 100 << 10, false}, {100 << 10, 100<<10 + 1, true}, {100 << 10, 1 << 20, true}} {
		src := &source{Reader: io.LimitReader(digits{}, int64(tt.size))}
		b := replay.New(request(src), int64(tt.limit))
		first := b.First()
		assert.Len(t, read(t, first), tt.size)
		assert.Equal(t, tt.lost, b.Lost(), "%+v", tt)
		again, err := b.Retry()
		if tt.lost {
			assert.ErrorIs(t, err, replay.ErrTooLarge)
			assert.NoError(t, first.Close())
			b.Release()
		} else {
			require.NoError(t, err)
			assert.Len(t, read(t, again), tt.size)
			assert.NoError(t, again.Close())
		}
		assert.EqualValues(t, 1, src.closed.Load())
	}
}

type digits struct{}

func (digits) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0' + byte(i%10)
	}
	return len(p), nil
}

func TestRecorderReadsNoFurtherAheadThan64KiB(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		src := &source{Reader: readerFunc(func(p []byte) (int, error) { n.Add(int64(len(p))); return len(p), nil })}
		b := replay.New(request(src), 1<<20)
		first := b.First()
		_, err := first.Read(make([]byte, 1))
		require.NoError(t, err)
		synctest.Wait()
		assert.LessOrEqual(t, n.Load(), int64(64<<10+1))
		b.Release()
		assert.NoError(t, first.Close())
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A Read of the source is in progress when the retry is decided.
func TestRecorderSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		src := &source{Reader: r}
		b := replay.New(request(src), 1<<20)
		first := b.First()
		_, _ = w, r
		go func() { _, _ = w.Write([]byte("one ")) }()
		p := make([]byte, 100)
		n, err := first.Read(p)
		require.NoError(t, err)
		assert.Equal(t, "one ", string(p[:n]))
		done := make(chan error)
		go func() {
			_, err := first.Read(p) // waits for the pipe
			done <- err
		}()
		synctest.Wait()
		again, err := b.Retry()
		require.NoError(t, err)
		assert.Error(t, <-done, "the first send ends, and not with io.EOF")
		assert.NoError(t, first.Close())
		assert.Zero(t, src.closed.Load())
		go func() {
			_, _ = w.Write([]byte("two "))
			_, _ = w.Write([]byte("three"))
			_ = w.Close()
		}()
		assert.Equal(t, "one two three", read(t, again))
		assert.NoError(t, again.Close())
		assert.EqualValues(t, 1, src.closed.Load())
	})
}

func TestRecorderOddReaders(t *testing.T) {
	for name, r := range map[string]io.Reader{
		"data with its end":    iotest.DataErrReader(strings.NewReader("hello")),
		"empty Reads":          &stutter{Reader: strings.NewReader("hello")},
		"one byte each":        iotest.OneByteReader(strings.NewReader("hello")),
		"more than one chunk":  iotest.HalfReader(strings.NewReader(strings.Repeat("hello", 20_000))),
		"written and not read": strings.NewReader("hello"),
	} {
		t.Run(name, func(t *testing.T) {
			b := replay.New(request(&source{Reader: struct{ io.Reader }{r}}), 1<<20)
			first := b.First()
			var got strings.Builder
			_, err := io.Copy(&got, struct{ io.Reader }{first})
			require.NoError(t, err)
			again, err := b.Retry()
			require.NoError(t, err)
			var twice strings.Builder
			_, err = io.Copy(&twice, again) // by WriteTo
			require.NoError(t, err)
			assert.Equal(t, got.String(), twice.String())
			assert.True(t, strings.HasPrefix(twice.String(), "hello"))
		})
	}
}

// A stutter returns nothing, and no error, every other time.
type stutter struct {
	io.Reader
	n int
}

func (s *stutter) Read(p []byte) (int, error) {
	if s.n++; s.n%2 == 1 {
		return 0, nil
	}
	return s.Reader.Read(p[:1])
}

func TestRecorderErrorOfTheSource(t *testing.T) {
	broken := errors.New("broken")
	for _, err := range []error{broken, io.ErrUnexpectedEOF} {
		b := replay.New(request(&source{Reader: io.MultiReader(strings.NewReader("he"), iotest.ErrReader(err))}), 100)
		first := b.First()
		got, firstErr := io.ReadAll(first)
		assert.Equal(t, "he", string(got))
		assert.Equal(t, err, firstErr)
		again, retryErr := b.Retry()
		require.NoError(t, retryErr)
		got, againErr := io.ReadAll(again)
		assert.Equal(t, "he", string(got))
		assert.Equal(t, err, againErr)
	}
	b := replay.New(request(&source{Reader: readerFunc(func([]byte) (int, error) { return 0, nil })}), 100)
	_, err := b.First().Read(make([]byte, 1))
	assert.Equal(t, io.ErrNoProgress, err)
}

// A panic of the source is raised in the reader, as without a recorder.
func TestRecorderPanicOfTheSource(t *testing.T) {
	for _, retried := range []bool{false, true} {
		b := replay.New(request(&source{Reader: readerFunc(func([]byte) (int, error) { panic("boom") })}), 100)
		first := b.First()
		assert.PanicsWithValue(t, "boom", func() { _, _ = first.Read(make([]byte, 1)) })
		if retried {
			again, err := b.Retry()
			require.NoError(t, err)
			assert.PanicsWithValue(t, "boom", func() { _, _ = io.Copy(io.Discard, again) })
			assert.NoError(t, again.Close())
		}
		assert.NoError(t, first.Close())
		b.Release()
	}
}

func TestRecorderGoexitOfTheSource(t *testing.T) {
	b := replay.New(request(&source{Reader: readerFunc(func([]byte) (int, error) { runtime.Goexit(); return 0, nil })}), 100)
	_, err := b.First().Read(make([]byte, 1))
	assert.ErrorContains(t, err, "Goexit")
}

// A stubborn source closes only when its Read returns.
type stubborn struct{ release chan struct{} }

func (s *stubborn) Read([]byte) (int, error) { <-s.release; return 0, io.EOF }
func (s *stubborn) Close() error             { <-s.release; return nil }

func TestRecorderReleaseWaitsForNoClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &stubborn{make(chan struct{})}
		b := replay.New(request(src), 100)
		first := b.First()
		go func() { _, _ = first.Read(make([]byte, 1)) }()
		synctest.Wait()
		assert.NoError(t, first.Close(), "a retry may still want it")
		start := time.Now()
		b.Release()
		assert.Zero(t, time.Since(start))
		close(src.release)
	})
}

func TestRecorderClosedOnce(t *testing.T) {
	for name, use := range map[string]func(b *replay.Body, first io.ReadCloser){
		"not read":              func(b *replay.Body, first io.ReadCloser) { b.Release(); _ = first.Close() },
		"closed, then accepted": func(b *replay.Body, first io.ReadCloser) { _ = first.Close(); b.Release() },
		"read, closed, accepted": func(b *replay.Body, first io.ReadCloser) {
			_, _ = io.Copy(io.Discard, first)
			_ = first.Close()
			b.Release()
		},
		"read, accepted, closed": func(b *replay.Body, first io.ReadCloser) {
			_, _ = io.Copy(io.Discard, first)
			b.Release()
			_ = first.Close()
		},
		"half read, sent again": func(b *replay.Body, first io.ReadCloser) {
			_, _ = first.Read(make([]byte, 2))
			again, _ := b.Retry()
			_ = first.Close()
			_ = again.Close()
		},
		"closed, then sent again": func(b *replay.Body, first io.ReadCloser) {
			_ = first.Close()
			again, _ := b.Retry()
			_, _ = io.Copy(io.Discard, again)
			_ = again.Close()
		},
		"accepted while it is read": func(b *replay.Body, first io.ReadCloser) {
			_, _ = first.Read(make([]byte, 2))
			b.Release()
			_, _ = io.Copy(io.Discard, struct{ io.Reader }{first})
			_ = first.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &source{Reader: strings.NewReader("hello")}
				b := replay.New(request(src), 100)
				first := b.First()
				use(&b, first)
				synctest.Wait()
				assert.EqualValues(t, 1, src.closed.Load())
				_, err := first.Read(make([]byte, 1))
				assert.Error(t, err)
				assert.NotEqual(t, io.EOF, err)
			})
		})
	}
}

// After the acceptance, the source is read by the first send itself.
func TestRecorderAcceptedPassesTheSourceThrough(t *testing.T) {
	src := &source{Reader: io.LimitReader(digits{}, 1<<20)}
	b := replay.New(request(src), 1<<10)
	first := b.First()
	_, err := io.ReadFull(first, make([]byte, 100))
	require.NoError(t, err)
	b.Release()
	n, err := io.Copy(io.Discard, first)
	require.NoError(t, err)
	assert.EqualValues(t, 1<<20-100, n)
}

// Readers of random sizes, superseded at random, never lose or repeat a byte.
func TestRecorderRandomSizes(t *testing.T) {
	want := make([]byte, 300<<10)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	for range 200 {
		size := rand.IntN(len(want))
		src := &source{Reader: &ragged{bytes.NewReader(want[:size])}}
		b := replay.New(request(src), 1<<20)
		first := b.First()
		stop := rand.IntN(size + 1)
		done := make(chan []byte)
		go func() {
			var got bytes.Buffer
			if rand.IntN(2) == 0 {
				_, _ = io.Copy(&got, first)
			} else {
				_, _ = io.Copy(&got, struct{ io.Reader }{&ragged{first}})
			}
			done <- got.Bytes()
		}()
		if rand.IntN(2) == 0 {
			_, _ = io.CopyN(io.Discard, digits{}, int64(stop))
		} else {
			runtime.Gosched()
		}
		again, err := b.Retry()
		require.NoError(t, err)
		got, err := io.ReadAll(&ragged{again})
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want[:size], got))
		assert.True(t, bytes.HasPrefix(want[:size], <-done))
		assert.NoError(t, first.Close())
		assert.NoError(t, again.Close())
		assert.EqualValues(t, 1, src.closed.Load())
	}
}

// A ragged reader returns as many bytes as it likes.
type ragged struct{ io.Reader }

func (r *ragged) Read(p []byte) (int, error) {
	return r.Reader.Read(p[:min(len(p), 1+rand.IntN(20<<10))])
}

func BenchmarkRecorder(b *testing.B) {
	req := &http.Request{ContentLength: 64 << 10}
	b.ReportAllocs()
	for b.Loop() {
		req.Body = io.NopCloser(io.LimitReader(digits{}, 64<<10))
		body := replay.New(req, 1<<20)
		first := body.First()
		_, _ = io.Copy(io.Discard, first)
		_ = first.Close()
		body.Release()
	}
}
