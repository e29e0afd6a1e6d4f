package peek_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth/internal/peek"
)

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func response(body io.Reader) *http.Response {
	return &http.Response{StatusCode: http.StatusUnauthorized, Body: io.NopCloser(body)}
}

func TestBytesAndThenTheWholeBody(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, 513, 5000, 64 << 10, 64<<10 + 1, 200 << 10} {
		want := strings.Repeat("x", size)
		resp := response(iotest.HalfReader(strings.NewReader(want)))
		p := peek.New(t.Context(), resp)
		assert.False(t, p.Begun())
		got := p.Bytes()
		assert.True(t, p.Begun())
		assert.Equal(t, want[:min(size, 64<<10)], string(got))
		assert.Equal(t, got, p.Bytes())
		all, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, want, string(all))
		assert.NoError(t, resp.Body.Close())
		_, err = resp.Body.Read(make([]byte, 1))
		assert.Equal(t, http.ErrBodyReadAfterClose, err)
	}
}

func TestNewWithoutABody(t *testing.T) {
	for _, resp := range []*http.Response{{}, {Body: http.NoBody}, {StatusCode: http.StatusSwitchingProtocols, Body: io.NopCloser(strings.NewReader("x"))}} {
		body := resp.Body
		p := peek.New(t.Context(), resp)
		assert.Nil(t, p)
		assert.Empty(t, p.Bytes())
		assert.False(t, p.Begun())
		assert.Equal(t, body, resp.Body)
	}
}

// What comes later than a second is for the reader of the body.
func TestBytesOfABodyThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		go func() {
			_, _ = w.Write([]byte("early "))
			time.Sleep(time.Minute)
			_, _ = w.Write([]byte("late"))
			_ = w.Close()
		}()
		resp := response(r)
		p := peek.New(t.Context(), resp)
		start := time.Now()
		assert.Equal(t, "early ", string(p.Bytes()))
		assert.Equal(t, time.Second, time.Since(start))
		all, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, "early late", string(all))
	})
}

func TestBytesEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		resp := response(r)
		start := time.Now()
		assert.Empty(t, peek.New(ctx, resp).Bytes())
		assert.Equal(t, 100*time.Millisecond, time.Since(start))
		assert.NoError(t, w.Close())
	})
}

func TestReadErrorOfTheSource(t *testing.T) {
	broken := errors.New("broken")
	resp := response(io.MultiReader(strings.NewReader("he"), iotest.ErrReader(broken)))
	assert.Equal(t, "he", string(peek.New(t.Context(), resp).Bytes()))
	all, err := io.ReadAll(resp.Body)
	assert.Equal(t, "he", string(all))
	assert.Equal(t, broken, err)
}

// A panic is raised in the reader, as without a Body, and not in Bytes.
func TestReadPanicOfTheSource(t *testing.T) {
	resp := response(io.MultiReader(strings.NewReader("he"), readerFunc(func([]byte) (int, error) { panic("boom") })))
	assert.Equal(t, "he", string(peek.New(t.Context(), resp).Bytes()))
	assert.PanicsWithValue(t, "boom", func() { _, _ = io.ReadAll(resp.Body) })
}

func TestReadWithoutBytes(t *testing.T) {
	resp := response(strings.NewReader("hello"))
	peek.New(t.Context(), resp)
	all, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(all))
}

func TestBytesOfEmptyReads(t *testing.T) {
	resp := response(readerFunc(func([]byte) (int, error) { return 0, nil }))
	assert.Empty(t, peek.New(t.Context(), resp).Bytes())
}
