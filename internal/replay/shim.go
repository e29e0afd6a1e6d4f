package replay

import (
	"errors"
	"fmt"
	"io"
	"net/http"
)

var ErrTooLarge = errors.New("too large")

type Req struct {
	req   *http.Request
	b     *Body
	limit int64
}

func New(req *http.Request, limit int64) *Req {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	return &Req{req, newBody(req, limit), limit}
}
func (r *Req) First() io.ReadCloser {
	if r == nil {
		return nil
	}
	return r.b.first(r.req)
}
func (r *Req) Lost() bool { return r != nil && r.b.isLost() }
func (r *Req) Release() {
	if r != nil {
		r.b.pass()
	}
}
func (r *Req) Once() bool { return r != nil && r.b != nil && (r.b.whole < 0 || r.b.whole > r.limit) }
func (r *Req) Retry() (io.ReadCloser, error) {
	if r == nil {
		return nil, nil
	}
	if r.req.GetBody != nil {
		b, err := r.req.GetBody()
		if err == nil && b == nil {
			err = errors.New("it returned no body")
		}
		if err != nil {
			return nil, fmt.Errorf("GetBody: %w", err)
		}
		return b, nil
	}
	b, ok := r.b.supersede()
	if !ok {
		return nil, ErrTooLarge
	}
	return b, nil
}
