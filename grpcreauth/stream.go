package grpcreauth

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// A stream is a grpc.ClientStream that may be replaced by another one, until the
// server has sent a message or a status other than Unauthenticated.
type stream struct {
	current  atomic.Pointer[attempt]
	received bool        // RecvMsg has returned. Its callers take turns
	settled  atomic.Bool // nothing more is kept, and nothing is sent again

	// open opens another stream with a new token. It reports whether there is one.
	open func() (grpc.ClientStream, bool, error)

	mu     sync.Mutex // held while messages that may be sent again are sent
	kept   []any      // the messages sent so far. SendMsg's callers must not modify them
	room   int        // how many more bytes may be kept
	closed bool       // CloseSend was called
}

type attempt struct{ grpc.ClientStream }

func newStream(first grpc.ClientStream, room int, open func() (grpc.ClientStream, bool, error)) *stream {
	s := &stream{open: open, room: room}
	s.current.Store(&attempt{first})
	return s
}

func (s *stream) SendMsg(m any) error {
	if s.settled.Load() {
		return s.current.Load().SendMsg(m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepLocked(m)
	err := s.current.Load().SendMsg(m)
	if errors.Is(err, io.EOF) && !s.settled.Load() {
		return nil // the stream has ended: RecvMsg gets the status, and sends what was kept
	}
	return err
}

func (s *stream) keepLocked(m any) {
	if s.settled.Load() {
		s.kept = nil
		return
	}
	if msg, ok := m.(proto.Message); ok {
		s.room -= proto.Size(msg)
	} else {
		s.room = -1 // a message of unknown size
	}
	if s.room < 0 {
		s.settled.Store(true)
		s.kept = nil
		return
	}
	s.kept = append(s.kept, m)
}

func (s *stream) CloseSend() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.current.Load().CloseSend()
}

// RecvMsg must not wait for the mutex unless the stream has ended. A SendMsg that holds
// the mutex may wait for the server, and the server may wait until its messages are
// received.
func (s *stream) RecvMsg(m any) error {
	err := s.current.Load().RecvMsg(m)
	if s.received {
		return err
	}
	s.received = true
	if status.Code(err) != codes.Unauthenticated {
		s.settled.Store(true)
		return err
	}
	if replaced, openErr := s.replace(); openErr != nil {
		return openErr
	} else if !replaced {
		return err
	}
	return s.current.Load().RecvMsg(m)
}

// replace opens another stream, and starts to replay the messages. It reports whether
// there is another stream.
func (s *stream) replace() (bool, error) {
	s.mu.Lock()
	if s.settled.Load() { // a message was not kept
		s.mu.Unlock()
		return false, nil
	}
	next, ok, err := s.open()
	if !ok || err != nil {
		s.settled.Store(true)
		s.mu.Unlock()
		return false, err
	}
	s.current.Store(&attempt{next})
	// The server may read no more until what it sends is received.
	go s.replay(next)
	return true, nil
}

// replay sends what was kept, and unlocks the mutex. An error ends the stream, and
// RecvMsg returns it.
func (s *stream) replay(next grpc.ClientStream) {
	defer s.mu.Unlock()
	defer s.settled.Store(true)
	for _, m := range s.kept {
		if next.SendMsg(m) != nil {
			return
		}
	}
	s.kept = nil
	if s.closed {
		_ = next.CloseSend()
	}
}

// Header returns the header of the first attempt if it is called before RecvMsg, even
// if the server rejects the token.
func (s *stream) Header() (metadata.MD, error) { return s.current.Load().Header() }
func (s *stream) Trailer() metadata.MD         { return s.current.Load().Trailer() }
func (s *stream) Context() context.Context     { return s.current.Load().Context() }
