package storetest

import (
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/reauth-go/reauth"
)

// A Proxy is a TCP proxy between the client of a Store and its server. It can cut off
// responses.
type Proxy struct {
	listener net.Listener
	server   string
	cut      atomic.Bool
}

// NewProxy starts a Proxy on loopback for the server at the address. It is closed when
// the test ends.
func NewProxy(t *testing.T, server string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: listener, server: server}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

// Addr returns the address of the Proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut sets whether the Proxy closes a connection when the server responds, in place of
// passing the response on.
func (p *Proxy) Cut(cut bool) { p.cut.Store(cut) }

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	b := make([]byte, 32<<10)
	for {
		n, err := server.Read(b)
		if err != nil || p.cut.Load() {
			return
		}
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}

// ErrorAfterEffect tests a swap whose response is cut off. CompareAndSwap must return
// an error, and Load must return the new record if the swap took effect. The handle
// through is connected through p, and direct is another handle.
func ErrorAfterEffect(t *testing.T, p *Proxy, through, direct reauth.Store) {
	t.Helper()
	mustSwap(t, through, "", "zero", true)
	mustSwap(t, through, "zero", "one", true) // a statement is prepared
	happened := false
	for range 50 { // a connection may be cut before the command was sent
		p.Cut(true)
		swapped, err := through.CompareAndSwap(t.Context(), "one", "two")
		p.Cut(false)
		if swapped || err == nil {
			t.Fatalf("CompareAndSwap without an answer = %v, %v; want an error", swapped, err)
		}
		if happened = load(t, direct) == "two"; happened {
			break
		}
		recovers(t, through, "one")
	}
	if !happened {
		t.Fatal("no command reached the server")
	}
	mustSwap(t, direct, "two", "three", true)
	recovers(t, through, "three")
}

// recovers waits until a handle reads the record again. A client must first notice that
// its connection was closed.
func recovers(t *testing.T, s reauth.Store, want string) {
	t.Helper()
	var err error
	for range 50 {
		var record string
		if record, err = s.Load(t.Context()); err == nil {
			if record != want {
				t.Fatalf("Load = %q, want %q", record, want)
			}
			return
		}
	}
	t.Fatalf("the handle does not recover: %v", err)
}
