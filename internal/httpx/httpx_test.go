package httpx

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestIsNil(t *testing.T) {
	var transport *http.Transport
	var f http.HandlerFunc
	for _, v := range []any{nil, transport, f, map[string]int(nil), []int(nil), (chan int)(nil)} {
		assert.True(t, IsNil(v), "%T", v)
	}
	for _, v := range []any{0, "", http.DefaultTransport, struct{}{}, []int{}} {
		assert.False(t, IsNil(v), "%T", v)
	}
}

func TestValuesFindsAKeyInAnySpelling(t *testing.T) {
	h := http.Header{"Www-Authenticate": {"a", "b"}, "WWW-Authenticate": {"c"}, "www-authenticat": {"d"}}
	assert.ElementsMatch(t, []string{"a", "b", "c"}, Values(h, "Www-Authenticate"))
	assert.Equal(t, []string{"a", "b"}, h["Www-Authenticate"], "the header is not touched")
	assert.Equal(t, "c", First(http.Header{"WWW-Authenticate": {"c"}}, "Www-Authenticate"))
	assert.Empty(t, First(h, "Content-Type"))
}

type slow struct {
	io.Reader
	closed chan struct{}
}

func (s *slow) Close() error { close(s.closed); return nil }

// hangs waits until it is closed.
type hangs struct{ closed chan struct{} }

func (h hangs) Read([]byte) (int, error) { <-h.closed; return 0, io.ErrClosedPipe }

func TestDrainReadsToTheEnd(t *testing.T) {
	r := strings.NewReader("0123456789")
	body := &slow{r, make(chan struct{})}
	Drain(t.Context(), body, 10, time.Minute)
	assert.Zero(t, r.Len())
	<-body.closed
	Drain(t.Context(), nil, 10, time.Minute)
}

func TestDrainIsBoundedInBytesTimeAndContext(t *testing.T) {
	r := strings.NewReader(strings.Repeat("x", 100))
	Drain(t.Context(), &slow{r, make(chan struct{})}, 10, time.Minute)
	assert.Equal(t, 89, r.Len(), "and one to see the end")

	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		closed := make(chan struct{})
		Drain(t.Context(), &slow{hangs{closed}, closed}, 10, time.Second)
		assert.Equal(t, time.Second, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		closed = make(chan struct{})
		Drain(ctx, &slow{hangs{closed}, closed}, 10, time.Second)
		assert.Equal(t, time.Second+time.Millisecond, time.Since(start))
	})
}

func TestShown(t *testing.T) {
	type key struct{}
	req, _ := http.NewRequest(http.MethodGet, "https://a.test/", nil)
	sent := req.Clone(t.Context())
	assert.Same(t, req, Shown(req, nil, sent))
	assert.Same(t, req, Shown(req, sent, sent))
	other := req.Clone(context.WithValue(t.Context(), key{}, "Base's"))
	assert.Equal(t, "Base's", Shown(req, other, sent).Context().Value(key{}))
}
