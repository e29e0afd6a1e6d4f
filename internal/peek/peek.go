// Package peek reads the beginning of a response body.
package peek

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// How much of a body is read, and for how long: enough for all errors that servers
// explain, and no longer than callers should wait for a body that does not end.
const (
	maxBytes  = 64 << 10
	maxTime   = time.Second
	firstSize = 512
	maxEmpty  = 100 // Reads in a row that return neither bytes nor an error
)

// A Body is a response body whose beginning may be read early. A reader of the Body gets
// the same bytes as without that.
type Body struct {
	ctx context.Context
	src io.ReadCloser

	begun bool          // Bytes was called; not for concurrent use
	done  chan struct{} // closed when the goroutine of Bytes ends

	mu      sync.Mutex
	buf     []byte // what was read early
	off     int    // how much of buf the reader has got
	stop    bool   // the goroutine begins no other Read
	err     error  // how src ended
	panicky any    // the value of a panic of src.Read
	closed  bool
}

// New puts a Body in place of resp.Body, and returns it. It returns nil if there is no
// body, or a connection in its place (101 Switching Protocols).
func New(ctx context.Context, resp *http.Response) *Body {
	if resp.Body == nil || resp.Body == http.NoBody || resp.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	p := &Body{ctx: ctx, src: resp.Body}
	resp.Body = p
	return p
}

// Begun reports whether Bytes was called.
func (p *Body) Begun() bool { return p != nil && p.begun }

// Bytes returns the first 64 KiB of the body, or what arrives of it within a second and
// before the context ends. It reads at its first call, and returns the same later. A nil
// Body has no bytes.
func (p *Body) Bytes() []byte {
	if p == nil {
		return nil
	}
	if !p.begun {
		p.begun = true
		p.done = make(chan struct{})
		go p.read()
		timer := time.NewTimer(maxTime)
		defer timer.Stop()
		select {
		case <-p.done:
		case <-timer.C:
		case <-p.ctx.Done():
		}
		p.mu.Lock()
		p.stop = true
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(p.buf), maxBytes)
	return p.buf[:n:n]
}

// read reads one byte more than Bytes returns, so that it notices the end of a body of
// that length: only then is the connection used again.
func (p *Body) read() {
	defer close(p.done)
	for empty := 0; ; {
		p.mu.Lock()
		if len(p.buf) == cap(p.buf) {
			p.buf = slices.Grow(p.buf, max(firstSize, len(p.buf)))
		}
		free := p.buf[len(p.buf):min(cap(p.buf), maxBytes+1)]
		p.mu.Unlock()
		n, err := p.readSource(free)
		if empty++; n > 0 {
			empty = 0
		}
		p.mu.Lock()
		p.buf = p.buf[:len(p.buf)+n]
		p.err = err
		stop := p.stop || err != nil || len(p.buf) > maxBytes || empty == maxEmpty
		p.mu.Unlock()
		if stop {
			return
		}
	}
}

// readSource recovers from a panic of src, for the reader of the Body.
func (p *Body) readSource(b []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.panicky = v
			n, err = 0, errors.New("reauth: the Read of the response body panicked")
		}
	}()
	return p.src.Read(b)
}

// Read returns what was read early, waits for a Read that is in progress, and continues
// with the source.
func (p *Body) Read(b []byte) (int, error) {
	n, err, ok := p.early(b)
	if !ok && p.begun {
		<-p.done
		n, err, ok = p.early(b)
	}
	if !ok {
		return p.src.Read(b)
	}
	return n, err
}

// early reads what was read early, and reports false if there is no more of it.
func (p *Body) early(b []byte) (n int, err error, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return 0, http.ErrBodyReadAfterClose, true
	case p.off < len(p.buf):
		n = copy(b, p.buf[p.off:])
		p.off += n
		return n, nil, true
	case p.panicky != nil:
		panic(p.panicky)
	case p.err != nil:
		return 0, p.err, true
	}
	return 0, nil, false
}

// Close closes the source. A Read in progress ends.
func (p *Body) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	return p.src.Close()
}
