package storetest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/reauth-go/reauth"
)

// A TB has the methods of testing.TB that Start needs.
type TB interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	TempDir() string
	Cleanup(func())
}

// A Server is the process of a server on loopback. It is killed when the test ends.
type Server struct {
	Addr string // host and port

	t    TB
	argv []string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// Start starts a program, and waits until it accepts connections on port. The function
// argv returns the program and its arguments. Its parameter dir is a temporary
// directory; port and next are free ports. Start skips the test if the program is not
// installed.
func Start(t TB, argv func(dir, host string, port, next int) []string) *Server {
	t.Helper()
	const host = "127.0.0.1"
	port, next := freePorts(t)
	s := &Server{Addr: fmt.Sprintf("%s:%d", host, port), t: t, argv: argv(t.TempDir(), host, port, next)}
	if _, err := exec.LookPath(s.argv[0]); err != nil {
		t.Skipf("%s is not installed", s.argv[0])
	}
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// freePorts returns two ports that were free a moment ago.
func freePorts(t TB) (a, b int) {
	t.Helper()
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports[0], ports[1]
}

// Kill kills the process, like kill -9.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Restart starts the process again, with its data on disk.
func (s *Server) Restart() {
	s.t.Helper()
	s.cmd = exec.Command(s.argv[0], s.argv[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.Addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(end) {
			s.Kill()
			s.t.Fatalf("%s does not listen: %s", s.argv[0], s.out.String())
		}
	}
}

// KilledServer tests a server that is killed under load. After a restart, its record
// must not be older than the last swap that returned.
func KilledServer(t *testing.T, server *Server, open func() reauth.Store) {
	t.Helper()
	for range 5 {
		s := open()
		old := load(t, s)
		swaps := make(chan string, 1000)
		done := make(chan struct{})
		go func() {
			defer close(done)
			known := old
			for n := 0; ; n++ {
				next := fmt.Sprintf("%p/%d", swaps, n)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // some wait for the server
				swapped, err := s.CompareAndSwap(ctx, known, next)
				cancel()
				swaps <- next
				if err != nil || !swapped {
					return
				}
				known = next
			}
		}()
		var tried []string
		for len(tried) < 50 {
			tried = append(tried, <-swaps)
		}
		server.Kill()
		<-done
		close(swaps)
		for next := range swaps {
			tried = append(tried, next)
		}
		server.Restart()
		var got string
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			var err error
			got, err = open().Load(ctx)
			if cancel(); err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
		// The last may or may not have taken effect; the one before has returned.
		if n := len(tried); got != tried[n-1] && got != tried[n-2] {
			t.Fatalf("the record is %q after %q and %q", got, tried[n-2], tried[n-1])
		}
		mustSwap(t, open(), got, "", true)
	}
}
