package replay

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

const (
	chunkSize = 16 << 10
	maxAhead  = 64 << 10 // how far the source is read ahead of the first send
	maxEmpty  = 100      // Reads in a row that return neither bytes nor an error
)

// A chunk is a piece of the record.
type chunk struct {
	n int
	b [chunkSize]byte
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// A recorder is a body that can be read only once. It records what the first send reads,
// up to a limit. When the retry is decided, the first send is superseded: the retry
// reads the record, and then the rest of the source.
//
// Base cannot be waited for in between. Over HTTP/1 it closes the first body only when a
// Read returns that may block forever. Over HTTP/2 it closes the body during a Read, and
// waits for that before it lets go of the response. So while a retry is possible, a
// goroutine of the recorder reads the source: the first send can be dismissed at once,
// and what a Read still brings goes to the retry.
type recorder struct {
	src   io.ReadCloser
	limit int64

	mu      sync.Mutex
	changed sync.Cond // of anything below
	state   state
	record  []*chunk  // from the beginning of the body, or what was not read yet
	next    position  // of the send that reads
	size    int64     // bytes that were read from src into the record
	taken   int64     // bytes that the first send read
	running bool      // the goroutine exists
	reading bool      // a Read of src is in progress
	filling *chunk    // into which the goroutine reads
	lent    [2]*chunk // which WriteTo of a send writes
	wanted  bool      // the first send waits for bytes
	resting bool      // the goroutine waits until half of what is ahead was sent
	tooMany bool      // more than limit was read: there can be no retry
	err     error     // how src ended
	panicky any       // the value of a panic of src.Read
	closed  [2]bool   // by the first send, and by the retry

	room [6]*chunk // the first memory of record

	once sync.Once // closes src
}

// A state says which send reads the source.
type state int

const (
	recording state = iota // the first send, and there may be a retry
	passing                // the first send, and there is no retry
	replaying              // the retry
)

// A position is a place in the record.
type position struct{ chunk, byte int }

func newRecorder(src io.ReadCloser, limit int64) *recorder {
	r := &recorder{src: src, limit: limit}
	r.changed.L = &r.mu
	r.record = r.room[:0]
	return r
}

func (r *recorder) first() io.ReadCloser { return sendBody{r, 0} }

func (r *recorder) retry() (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tooMany {
		return nil, ErrTooLarge
	}
	r.state, r.next = replaying, position{}
	r.changed.Broadcast()
	return sendBody{r, 1}, nil
}

// release ends the recording. A body that the first send has closed is closed now. The
// caller does not wait for a Close that waits for a Read.
func (r *recorder) release() {
	r.mu.Lock()
	r.state = passing
	if r.closed[0] {
		r.next = position{len(r.record), 0}
	}
	r.discardLocked()
	closed, reading := r.closed[0], r.reading
	r.changed.Broadcast()
	r.mu.Unlock()
	switch {
	case closed && reading:
		go func() { _ = r.close() }()
	case closed:
		_ = r.close()
	}
}

func (r *recorder) lost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tooMany
}

func (r *recorder) close() (err error) {
	r.once.Do(func() { err = r.src.Close() })
	return err
}

// A sendBody is the body of the first send (0) or of the retry (1).
type sendBody struct {
	r    *recorder
	send int
}

// Read reads the record, and then the source. A panic of the source's Read is raised
// here, where it would be without a recorder.
func (b sendBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r := b.r
	r.mu.Lock()
	defer r.mu.Unlock()
	recorded, err := r.awaitLocked(b.send)
	switch {
	case err != nil:
		return 0, err
	case recorded:
		return r.copyLocked(p), nil
	}
	return r.readLocked(p)
}

// WriteTo writes the record, chunk by chunk without a copy, and then the source.
func (b sendBody) WriteTo(w io.Writer) (n int64, err error) {
	for {
		piece, err := b.borrow()
		if err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		} else if piece == nil {
			break
		}
		m, err := w.Write(piece)
		if n += int64(m); err != nil {
			b.giveBack()
			return n, err
		}
	}
	rest, err := io.Copy(w, struct{ io.Reader }{b})
	return n + rest, err
}

// borrow returns the next bytes of the record, or nil if the send reads the source
// itself. Their chunk is not used for anything else until the next call, or giveBack.
func (b sendBody) borrow() ([]byte, error) {
	r := b.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lent[b.send] != nil {
		r.lent[b.send] = nil
		r.discardLocked()
	}
	recorded, err := r.awaitLocked(b.send)
	if err != nil || !recorded {
		return nil, err
	}
	c := r.record[r.next.chunk]
	piece := c.b[r.next.byte:c.n]
	r.next.byte = c.n
	r.lent[b.send] = c
	r.takenLocked(len(piece))
	return piece, nil
}

func (b sendBody) giveBack() {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	b.r.lent[b.send] = nil
	b.r.discardLocked()
}

// awaitLocked waits until there are bytes of the record for the send, or the send may
// read the source itself. It returns how the body ends.
func (r *recorder) awaitLocked(send int) (recorded bool, err error) {
	for {
		switch {
		case send == 0 && r.state == replaying:
			return false, errSuperseded
		case r.closed[send]:
			return false, http.ErrBodyReadAfterClose
		case r.availableLocked():
			return true, nil
		case r.reading:
			r.wanted = true
			r.changed.Wait()
		case r.panicky != nil:
			panic(r.panicky)
		case r.err != nil:
			return false, r.err
		case r.state == recording && !r.tooMany:
			r.wanted = true
			if !r.running {
				r.running = true
				go r.fill()
			} else {
				r.changed.Broadcast()
			}
			r.changed.Wait()
		default:
			return false, nil
		}
	}
}

// availableLocked reports whether there are bytes of the record to read.
func (r *recorder) availableLocked() bool {
	if r.next.chunk < len(r.record) && r.next.byte == chunkSize {
		r.next = position{r.next.chunk + 1, 0}
	}
	return r.next.chunk < len(r.record) && r.next.byte < r.record[r.next.chunk].n
}

// Close closes the source, unless the retry may still read it. A Read in progress ends.
func (b sendBody) Close() error {
	r := b.r
	r.mu.Lock()
	r.closed[b.send] = true
	complete := r.err != nil && !r.reading || r.tooMany
	wanted := b.send == 0 && (r.state == replaying || r.state == recording && !complete)
	if b.send == 1 || r.state == passing {
		r.next = position{len(r.record), 0}
		r.discardLocked()
	}
	r.changed.Broadcast()
	r.mu.Unlock()
	if wanted {
		return nil
	}
	return r.close()
}

// copyLocked copies bytes of the record to the send that reads.
func (r *recorder) copyLocked(p []byte) (n int) {
	for n < len(p) && r.availableLocked() {
		c := r.record[r.next.chunk]
		m := copy(p[n:], c.b[r.next.byte:c.n])
		n += m
		r.next.byte += m
	}
	r.takenLocked(n)
	r.discardLocked()
	return n
}

// takenLocked notes that the send has got n bytes. There may be room to read ahead.
func (r *recorder) takenLocked(n int) {
	if r.state != recording {
		return
	}
	r.taken += int64(n)
	if r.running && !r.reading && r.size-r.taken <= maxAhead/2 {
		r.changed.Broadcast()
	}
}

// readLocked reads the source for the send that has it to itself.
func (r *recorder) readLocked(p []byte) (n int, err error) {
	r.reading = true
	r.mu.Unlock()
	defer func() { // also after a panic
		r.mu.Lock()
		r.reading = false
		if err != nil {
			r.err = err
		}
		r.changed.Broadcast()
	}()
	return r.src.Read(p)
}

// discardLocked returns the chunks that no send reads any more.
func (r *recorder) discardLocked() {
	if r.state == recording && !r.tooMany {
		return
	}
	r.availableLocked() // steps over a chunk that was read to its end
	kept := r.record[:0]
	for i, c := range r.record {
		if i >= r.next.chunk || c == r.filling || c == r.lent[0] || c == r.lent[1] {
			kept = append(kept, c)
			continue
		}
		c.n = 0
		chunks.Put(c)
	}
	r.next.chunk -= len(r.record) - len(kept)
	clear(r.record[len(kept):])
	r.record = kept
}

// fill reads the source into the record while there may be a retry.
func (r *recorder) fill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		if r.filling != nil { // runtime.Goexit in src.Read
			r.filledLocked(0, errors.New("reauth: the Read of the request body called runtime.Goexit"))
		}
		r.running = false
		r.changed.Broadcast()
	}()
	for empty := 0; r.state == recording && !r.tooMany && r.err == nil && !r.closed[0]; {
		n := r.allowedLocked()
		if n == 0 {
			r.changed.Wait()
			continue
		}
		c := r.tailLocked()
		n = min(n, chunkSize-c.n)
		r.reading, r.filling, r.wanted = true, c, false
		n, err := r.read(c.b[c.n : c.n+n])
		if empty++; n > 0 {
			empty = 0
		}
		if empty == maxEmpty && err == nil {
			err = io.ErrNoProgress
		}
		r.filledLocked(n, err)
	}
}

// read reads the source without the lock, and recovers from a panic.
func (r *recorder) read(p []byte) (n int, err error) {
	r.mu.Unlock()
	defer func() {
		v := recover()
		r.mu.Lock()
		if v != nil {
			r.panicky = v
			n, err = 0, errors.New("reauth: the Read of the request body panicked")
		}
	}()
	return r.src.Read(p)
}

// filledLocked adds what a Read brought to the record.
func (r *recorder) filledLocked(n int, err error) {
	r.filling.n += n
	r.size += int64(n)
	if last := len(r.record) - 1; r.filling.n == 0 {
		chunks.Put(r.filling)
		r.record[last] = nil
		r.record = r.record[:last]
	}
	r.reading, r.filling = false, nil
	if err != nil {
		r.err = err
	}
	if n > 0 && r.state == recording && r.size > r.limit {
		r.tooMany = true
		r.discardLocked()
	}
	r.changed.Broadcast()
}

// allowedLocked returns how many bytes may be read now: those that fit into the limit,
// and not too far ahead. Beyond the limit only what the first send waits for is read.
// Once the goroutine has rested, there is room for several chunks: to wake it up for
// each would cost more than to copy them.
func (r *recorder) allowedLocked() int {
	ahead := r.size - r.taken
	r.resting = ahead >= maxAhead || r.resting && ahead > maxAhead/2
	switch {
	case r.resting:
	case r.size < r.limit && ahead < maxAhead:
		return int(min(r.limit-r.size, maxAhead-ahead))
	case r.size >= r.limit && ahead == 0 && r.wanted:
		return chunkSize
	}
	return 0
}

// tailLocked returns the chunk into which the next bytes go.
func (r *recorder) tailLocked() *chunk {
	if n := len(r.record); n > 0 && r.record[n-1].n < chunkSize {
		return r.record[n-1]
	}
	c := chunks.Get().(*chunk)
	r.record = append(r.record, c)
	return c
}
