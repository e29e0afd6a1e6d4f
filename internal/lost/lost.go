// Package lost tells errors after which a server may have done what it was asked
// from those after which it has not.
package lost

import (
	"errors"
	"io"
	"net"
	"net/url"
)

// Answer reports whether the server may have acted on a request whose answer did
// not arrive whole.
func Answer(err error) bool {
	var exchange *url.Error
	var op *net.OpError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return true
	case errors.As(err, &op):
		return op.Op == "read" || op.Op == "write"
	case errors.As(err, &exchange): // http.Client; a bare EOF is an empty answer
		return errors.Is(err, io.EOF)
	}
	return false
}
