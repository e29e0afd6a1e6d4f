// Demo shows reauth at work, on a page that it serves on loopback: a hundred callers
// of an API share one token. Buttons revoke the token, let it expire, and take the
// issuer of tokens down.
//
//	go run ./examples/demo
//
// The page shows the requests, the 401s that the API sent, the failures that callers
// saw, and the log. It runs until Ctrl-C.
//
// docs/demo.png is the page in a window of 1280x800, a third of a second after the
// token was revoked for the second time. It has to be made by hand, or over the
// DevTools protocol: chromium --screenshot does not wait for a page with a stream.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// latency is what an issuer elsewhere in the network takes to answer. It is long
// enough to see callers wait.
const latency = 800 * time.Millisecond

func main() {
	port := flag.Int("port", 8401, "the `port` on 127.0.0.1 to serve the page on; 0 picks a free one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(*port)))
	if err == nil {
		fmt.Printf("Open http://%s in a browser. Ctrl-C ends the demo.\n", l.Addr())
		err = run(ctx, l, latency)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run serves the page on l until ctx ends, and returns when all that it started has
// ended.
func run(ctx context.Context, l net.Listener, latency time.Duration) error {
	d := newDemo(latency)
	defer d.close()
	s := &http.Server{
		Handler:           d.handler(l.Addr().(*net.TCPAddr).Port),
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends the streams
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.Shutdown(grace)
	<-served
	return err
}
