// Package replay sends the body of a request twice.
package replay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
)

// ErrTooLarge is returned by Retry if more of the body was sent than is kept.
var ErrTooLarge = errors.New("more of the body was sent than is kept")

// errSuperseded is what the first send reads when its body belongs to the retry.
var errSuperseded = errors.New("reauth: the request is being sent again")

// A Body is the body of a request that may be sent twice. There are these cases, in
// the order in which they are looked for:
//
//	no body           sent again as it is
//	GetBody           called for the retry
//	bytes in memory   read again from a copy of the reader
//	a file            read again with ReadAt, from where it began
//	anything else     recorded as it is read, up to a limit
type Body struct {
	req   *http.Request
	again io.Reader // of bytes in memory
	limit int64
	src   source // a file, or what is recorded; nil for the other cases
}

// A source is a body that is shared by the two sends.
type source interface {
	first() io.ReadCloser
	retry() (io.ReadCloser, error)
	release()
	lost() bool
}

// New returns the body of req. At most limit bytes are kept.
func New(req *http.Request, limit int64) Body {
	b := Body{req: req, limit: limit}
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil {
		return b
	}
	if b.again = inMemory(req.Body); b.again != nil {
		return b
	}
	if f := newFile(req.Body); f != nil {
		b.src = f
	} else {
		b.src = newRecorder(req.Body, limit)
	}
	return b
}

// First returns the body of the first send.
func (b *Body) First() io.ReadCloser {
	if b.src == nil {
		return b.req.Body
	}
	return b.src.first()
}

// Retry takes the body from the first send and returns that of the retry. The error is
// ErrTooLarge, or that of GetBody.
func (b *Body) Retry() (io.ReadCloser, error) {
	switch {
	case b.src != nil:
		return b.src.retry()
	case b.again != nil:
		return io.NopCloser(b.again), nil
	case b.req.Body == nil || b.req.Body == http.NoBody:
		return b.req.Body, nil
	}
	again, err := b.req.GetBody()
	if err == nil && again == nil {
		err = errors.New("it returned no body")
	}
	if err == nil {
		again, err = checked(again, b.req.ContentLength, b.limit)
	}
	if err != nil {
		return nil, fmt.Errorf("GetBody: %w", err)
	}
	return again, nil
}

// Release notes that there is no retry. Nothing more is kept.
func (b *Body) Release() {
	if b.src != nil {
		b.src.release()
	}
}

// Lost reports whether more of the body was sent than is kept.
func (b *Body) Lost() bool { return b.src != nil && b.src.lost() }

// Once reports whether the body can be read only once and may be larger than what is
// kept.
func (b *Body) Once() bool {
	_, recorded := b.src.(*recorder)
	n := b.req.ContentLength // zero is unknown if there is a body
	return recorded && (n <= 0 || n > b.limit)
}

// The types of what io.NopCloser returns. Package net/http knows them as well, to find
// out the length of a body.
var (
	nopCloser         = reflect.TypeOf(io.NopCloser(nil))
	nopCloserWriterTo = reflect.TypeOf(io.NopCloser(struct {
		io.Reader
		io.WriterTo
	}{}))
)

// unwrapped returns what io.NopCloser was called with, or body itself.
func unwrapped(body io.Reader) io.Reader {
	if t := reflect.TypeOf(body); t == nopCloser || t == nopCloserWriterTo {
		r, _ := reflect.ValueOf(body).Field(0).Interface().(io.Reader)
		return r
	}
	return body
}

// inMemory returns a reader of the bytes that body has in memory, or nil. It is
// independent of body, and copies no bytes.
func inMemory(body io.ReadCloser) io.Reader {
	switch r := unwrapped(body).(type) {
	case *bytes.Reader:
		c := *r
		return &c
	case *strings.Reader:
		c := *r
		return &c
	case *bytes.Buffer:
		return bytes.NewReader(r.Bytes())
	}
	return nil
}

// length returns how many bytes body has, or -1 if only reading it can say.
func length(body io.ReadCloser) int64 {
	switch r := unwrapped(body).(type) {
	case *bytes.Reader:
		return int64(r.Len())
	case *strings.Reader:
		return int64(r.Len())
	case *bytes.Buffer:
		return int64(r.Len())
	case *os.File:
		info, err := r.Stat()
		at, seekErr := r.Seek(0, io.SeekCurrent)
		if err == nil && seekErr == nil && info.Mode().IsRegular() {
			return info.Size() - at
		}
	}
	return -1
}

// checked returns the body that GetBody returned if it has as many bytes as the request
// says: a request that is longer or shorter fails in the middle, and the response to
// the first send would be gone. A body of unknown length is read for that, unless it is
// larger than limit.
func checked(body io.ReadCloser, want, limit int64) (io.ReadCloser, error) {
	if want <= 0 {
		return body, nil
	}
	got := length(body)
	var head []byte
	if got < 0 && want <= limit {
		var err error
		if head, err = io.ReadAll(io.LimitReader(body, want+1)); err != nil {
			_ = body.Close()
			return nil, err
		}
		got = int64(len(head))
	}
	if got >= 0 && got != want {
		_ = body.Close()
		return nil, fmt.Errorf("it returned a body of another length than the ContentLength %d", want)
	}
	if head == nil {
		return body, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(head), body}, nil
}
