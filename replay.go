package reauth

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// errSuperseded is what the first send reads once its body belongs to the retry.
var errSuperseded = errors.New("reauth: the request is being sent again")

// A replay makes a body that has no GetBody readable twice. It records what the
// first send reads, up to a limit; when the retry is decided, the first send is
// superseded, and the retry reads the record and then the rest of the source.
//
// Base cannot be waited for in between: over HTTP/1 it closes the first body
// only when a Read returns that may block for ever, over HTTP/2 it closes it
// with a Read outstanding. So both sends may be reading at the same time. What
// they share stands here, and one at a time reads the source.
type replay struct {
	src   io.ReadCloser
	limit int64

	mu      sync.Mutex
	idle    sync.Cond   // no Read of src is under way
	reading bool        // a Read of src is under way
	state   replayState // who owns src
	kept    [][]byte    // what was read of src, for the retry
	size    int64       // bytes in kept
	lost    bool        // more than limit was read, or the record is no longer wanted
	err     error       // how src ended
	closed  bool        // the first send has closed its body
	release sync.Once   // closes src
}

type replayState int

const (
	recording replayState = iota // the first send reads, and no answer is known
	passing                      // the first send reads, and there will be no other
	replaying                    // the retry reads
)

// newReplay returns the replay of req's body, or nil if the body needs none:
// there is no body, or GetBody gives another one.
func newReplay(req *http.Request, limit int64) *replay {
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil {
		return nil
	}
	r := &replay{src: req.Body, limit: limit}
	r.idle.L = &r.mu
	return r
}

// first returns the body for the first send.
func (r *replay) first(req *http.Request) io.ReadCloser {
	if r == nil {
		return req.Body
	}
	return firstBody{r}
}

// read reads the source for one of the sends. Only one Read of it is ever under
// way; the others wait for it to end.
func (r *replay) read(p []byte, retry bool) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case !retry && r.state == replaying:
			return 0, errSuperseded
		case retry && len(r.kept) > 0:
			n := copy(p, r.kept[0])
			if r.kept[0] = r.kept[0][n:]; len(r.kept[0]) == 0 {
				r.kept = r.kept[1:]
			}
			return n, nil
		case r.err != nil:
			return 0, r.err
		case r.reading:
			r.idle.Wait()
			continue
		}
		r.reading = true
		r.mu.Unlock()
		n, err := r.src.Read(p)
		r.mu.Lock()
		r.reading = false
		r.idle.Broadcast()
		if err != nil {
			r.err = err
		}
		if retry {
			return n, err
		}
		r.keepLocked(p[:n])
		if r.state != replaying {
			return n, err
		}
		// Superseded while the Read was under way: its bytes are the retry's.
	}
}

// keepLocked records what the first send has read. Memory is taken as bytes
// pass: a chunk is never larger than what was there before it.
func (r *replay) keepLocked(p []byte) {
	if r.lost || r.state == passing || len(p) == 0 {
		return
	}
	if r.size+int64(len(p)) > r.limit && r.state == recording {
		r.lost, r.kept = true, nil
		return
	}
	r.size += int64(len(p))
	if last := len(r.kept) - 1; last >= 0 {
		room := min(cap(r.kept[last])-len(r.kept[last]), len(p))
		r.kept[last] = append(r.kept[last], p[:room]...)
		p = p[room:]
	}
	if len(p) > 0 {
		chunk := make([]byte, 0, max(len(p), min(int(r.size), 64<<10)))
		r.kept = append(r.kept, append(chunk, p...))
	}
}

// pass ends the recording: there will be no retry. A body that the first send
// has closed already is closed now.
func (r *replay) pass() {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.state, r.kept = passing, nil
	closed := r.closed
	r.mu.Unlock()
	if closed {
		_ = r.close()
	}
}

// supersede takes the source from the first send and returns the body of the
// retry, or false if more was read than is kept.
func (r *replay) supersede() (io.ReadCloser, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost {
		return nil, false
	}
	r.state = replaying
	return secondBody{r}, true
}

func (r *replay) close() (err error) {
	r.release.Do(func() { err = r.src.Close() })
	return err
}

// firstBody is the body of the first send.
type firstBody struct{ r *replay }

func (b firstBody) Read(p []byte) (int, error) { return b.r.read(p, false) }

// Close closes the source, unless the retry may still want the rest of it.
func (b firstBody) Close() error {
	b.r.mu.Lock()
	b.r.closed = true
	wanted := b.r.state == replaying || b.r.state == recording && b.r.err == nil && !b.r.lost
	b.r.mu.Unlock()
	if wanted {
		return nil
	}
	return b.r.close()
}

// secondBody is the body of the retry.
type secondBody struct{ r *replay }

func (b secondBody) Read(p []byte) (int, error) { return b.r.read(p, true) }
func (b secondBody) Close() error               { return b.r.close() }
