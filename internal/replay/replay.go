package replay

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
// with a Read outstanding, and waits for that before it lets go of the response.
// So while a retry is possible the source is read by a goroutine of its own, one
// at a time, into a buffer of ours: the first send can be sent away at once, and
// what the Read brings that was still under way is the retry's.
type Body struct {
	src   io.ReadCloser
	limit int64
	whole int64 // how long src says it is; -1: it does not

	mu      sync.Mutex
	changed sync.Cond   // of what follows
	reading bool        // a Read of src is under way
	buf     []byte      // that it reads into, while recording
	arrived []byte      // what the last one brought
	err     error       // how src ended
	state   replayState // who owns src
	kept    [][]byte    // what was read of src, for the retry
	size    int64       // bytes recorded
	lost    bool        // more than limit was read: there can be no retry
	closed  [2]bool     // by the first send, and by the retry

	release sync.Once // closes src
}

type replayState int

const (
	recording replayState = iota // the first send reads, and no answer is known
	passing                      // the first send reads, and there will be no other
	replaying                    // the retry reads
)

// newReplay returns the replay of req's body, or nil if the body needs none:
// there is no body, or GetBody gives another one.
func newBody(req *http.Request, limit int64) *Body {
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil {
		return nil
	}
	r := &Body{src: req.Body, limit: limit, whole: req.ContentLength}
	if r.whole == 0 { // as net/http has it: with a body, zero is unknown
		r.whole = -1
	}
	r.changed.L = &r.mu
	return r
}

// first returns the body for the first send.
func (r *Body) first(req *http.Request) io.ReadCloser {
	if r == nil {
		return req.Body
	}
	return sendBody{r, 0}
}

// supersede takes the source from the first send and returns the body of the
// retry, or false if more was read than is kept.
func (r *Body) supersede() (io.ReadCloser, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost {
		return nil, false
	}
	r.state = replaying
	r.changed.Broadcast()
	return sendBody{r, 1}, true
}

// isLost reports whether more was read than is kept.
func (r *Body) isLost() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// pass ends the recording: there will be no retry. A body that the first send
// has closed already is closed now.
func (r *Body) pass() {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.state, r.kept = passing, nil
	closed := r.closed[0]
	r.mu.Unlock()
	if closed {
		_ = r.close()
	}
}

func (r *Body) close() (err error) {
	r.release.Do(func() { err = r.src.Close() })
	return err
}

// A sendBody is the body of the first send (0) or of the retry (1).
type sendBody struct {
	*Body
	send int
}

// Read reads the record, if it is the retry's, and then the source.
func (b sendBody) Read(p []byte) (int, error) {
	r := b.Body
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case b.send == 0 && r.state == replaying:
			return 0, errSuperseded
		case r.closed[b.send]:
			return 0, http.ErrBodyReadAfterClose
		case b.send == 1 && len(r.kept) > 0:
			n := copy(p, r.kept[0])
			if r.kept[0] = r.kept[0][n:]; len(r.kept[0]) == 0 {
				r.kept = r.kept[1:]
			}
			return n, nil
		case len(p) == 0:
			return 0, nil
		case len(r.arrived) > 0 && b.send == 0:
			n := copy(p, r.arrived)
			r.arrived = r.arrived[n:]
			return n, nil
		case r.reading:
			r.changed.Wait()
		case r.err != nil:
			return 0, r.err
		case r.state == recording && !r.lost:
			r.record(len(p))
		default:
			return r.readLocked(p)
		}
	}
}

// readLocked reads the source for the send that has it to itself.
func (r *Body) readLocked(p []byte) (int, error) {
	r.reading = true
	r.mu.Unlock()
	n, err := r.src.Read(p)
	r.mu.Lock()
	r.reading = false
	if err != nil {
		r.err = err
	}
	r.changed.Broadcast()
	return n, err
}

// record starts to read up to n bytes of the source for the first send, or, if
// that is superseded meanwhile, for the retry.
func (r *Body) record(n int) {
	if n = min(n, 32<<10); len(r.buf) < n {
		r.buf = make([]byte, n)
	}
	r.reading = true
	go func() {
		n, err := r.src.Read(r.buf[:n])
		r.mu.Lock()
		defer r.mu.Unlock()
		r.reading = false
		r.arrived = r.buf[:n]
		if err != nil {
			r.err = err
		}
		r.keepLocked(r.arrived)
		r.changed.Broadcast()
	}()
}

// keepLocked records what was read for the first send. Memory is taken as bytes
// pass: a chunk is never larger than what was there before it.
func (r *Body) keepLocked(p []byte) {
	if r.state == passing || len(p) == 0 {
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
		room := min(r.size, 64<<10)
		if r.whole > 0 {
			room = min(room, r.whole-r.size+int64(len(p)))
		}
		r.kept = append(r.kept, append(make([]byte, 0, max(len(p), int(room))), p...))
	}
}

// Close closes the source, unless the retry may still want the rest of it. A Read
// that waits ends.
func (b sendBody) Close() error {
	r := b.Body
	r.mu.Lock()
	r.closed[b.send] = true
	ended := r.err != nil && !r.reading || r.lost
	wanted := b.send == 0 && (r.state == replaying || r.state == recording && !ended)
	r.changed.Broadcast()
	r.mu.Unlock()
	if wanted {
		return nil
	}
	return r.close()
}
