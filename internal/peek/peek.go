package peek

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// How much of a rejection's body is read, and for how long: enough for every
// error that a server explains, and no hold on the caller by one that does not end.
const (
	peekBytes = 64 << 10
	peekTime  = time.Second
)

// A peek is a response body of which the beginning is read ahead, to classify
// the response and to free its connection. As a body it reads as if nothing
// had been taken: what was read ahead, then the rest.
type Body struct {
	ctx context.Context
	src io.ReadCloser

	begun bool          // done is open or closed; touched by the classifying goroutine only
	done  chan struct{} // closed when the goroutine that reads ahead has ended

	mu     sync.Mutex
	buf    []byte // what was read ahead, to the end
	off    int    // how much of buf was handed on
	stop   bool   // the goroutine begins no other Read
	err    error  // how src ended, read ahead
	closed bool
}

// peekable puts a peek in place of resp's body, if that can be read ahead.
func New(ctx context.Context, resp *http.Response) *Body {
	if resp.Body == nil || resp.Body == http.NoBody || resp.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	p := &Body{ctx: ctx, src: resp.Body, done: make(chan struct{})}
	resp.Body = p
	return p
}

// bytes returns the first 64 KiB of the body, or what came of it within a
// second. It reads at the first call and returns the same ever after.
func (p *Body) Bytes() []byte {
	if p == nil {
		return nil
	}
	if !p.begun {
		p.begun = true
		go p.readAhead()
		timer := time.NewTimer(peekTime)
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
	n := min(len(p.buf), peekBytes)
	return p.buf[:n:n]
}

// readAhead reads one byte more than bytes returns, so as to see the end of a
// body of just that length: only then is its connection used again.
func (p *Body) readAhead() {
	defer close(p.done)
	chunk := make([]byte, 4<<10)
	for empty := 0; empty < 100; { // a Reader that returns nothing and no error spins no longer
		n, err := p.src.Read(chunk)
		if n == 0 {
			empty++
		}
		p.mu.Lock()
		p.buf = append(p.buf, chunk[:n]...)
		p.err = err
		stop := p.stop || err != nil || len(p.buf) > peekBytes
		p.mu.Unlock()
		if stop {
			return
		}
	}
}

// Read hands on what was read ahead, waits for a Read that is still under way,
// and goes on where that ended.
func (p *Body) Read(b []byte) (int, error) {
	n, err, ok := p.ahead(b)
	if !ok && p.begun {
		<-p.done
		n, err, ok = p.ahead(b)
	}
	if !ok {
		return p.src.Read(b)
	}
	return n, err
}

// ahead reads from what was read ahead, and reports false where that is all gone.
func (p *Body) ahead(b []byte) (n int, err error, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return 0, http.ErrBodyReadAfterClose, true
	case p.off < len(p.buf):
		n = copy(b, p.buf[p.off:])
		p.off += n
		return n, nil, true
	case p.err != nil:
		return 0, p.err, true
	}
	return 0, nil, false
}

// Close closes the body; a Read under way ends with it.
func (p *Body) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	return p.src.Close()
}

// Begun reports whether Bytes was called.
func (p *Body) Begun() bool { return p != nil && p.begun }
