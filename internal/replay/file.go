package replay

import (
	"io"
	"math"
	"net/http"
	"sync"
)

// A file is a body that can be read at any offset. The retry reads it with ReadAt, which
// does not move the offset that the first send may still read at.
type file struct {
	src   io.ReadCloser
	at    io.ReaderAt
	start int64

	mu       sync.Mutex
	reading  bool // a Read of the first send is in progress
	closed   bool // by the first send
	taken    bool // the retry has the body
	released bool // there is no retry
	ended    bool // the last send has closed it

	once sync.Once // closes src
}

// newFile returns the file that body is, or nil.
func newFile(body io.ReadCloser) *file {
	at, ok := unwrapped(body).(interface {
		io.ReaderAt
		io.Seeker
	})
	if !ok {
		return nil
	}
	start, err := at.Seek(0, io.SeekCurrent)
	if err != nil { // a pipe, or a terminal
		return nil
	}
	return &file{src: body, at: at, start: start}
}

func (f *file) first() io.ReadCloser { return firstOfFile{f} }

func (f *file) retry() (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken = true
	return &retryOfFile{f, io.NewSectionReader(f.at, f.start, math.MaxInt64-f.start)}, nil
}

func (f *file) release() {
	f.mu.Lock()
	f.released = true
	closed := f.closed
	f.mu.Unlock()
	if closed {
		_ = f.close()
	}
}

func (f *file) lost() bool { return false }

func (f *file) close() (err error) {
	f.once.Do(func() { err = f.src.Close() })
	return err
}

// A firstOfFile is the body of the first send.
type firstOfFile struct{ f *file }

func (b firstOfFile) Read(p []byte) (int, error) {
	f := b.f
	f.mu.Lock()
	switch {
	case f.taken:
		f.mu.Unlock()
		return 0, errSuperseded
	case f.closed:
		f.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	f.reading = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.reading = false
		ended := f.ended
		f.mu.Unlock()
		if ended {
			_ = f.close()
		}
	}()
	return f.src.Read(p)
}

// Close closes the file, unless the retry may still read it.
func (b firstOfFile) Close() error {
	b.f.mu.Lock()
	b.f.closed = true
	released := b.f.released
	b.f.mu.Unlock()
	if released {
		return b.f.close()
	}
	return nil
}

// A retryOfFile is the body of the retry.
type retryOfFile struct {
	f *file
	*io.SectionReader
}

// Close closes the file; after the Read of the first send, if that is in progress.
func (b *retryOfFile) Close() error {
	b.f.mu.Lock()
	b.f.ended = true
	reading := b.f.reading
	b.f.mu.Unlock()
	if reading {
		return nil
	}
	return b.f.close()
}
