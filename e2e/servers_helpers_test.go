package e2e_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A daemon is the server of one of Debian's packages, started by the test.
type daemon struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when its output has ended

	mu    sync.Mutex
	said  []string
	heard chan struct{} // closed, and replaced, at each line
}

// needs returns the path of a program that is in one of Debian's packages.
func needs(t *testing.T, pkg, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	require.NoErrorf(t, err, "this test starts a real %s: apt-get install -y --no-install-recommends %s", program, pkg)
	return path
}

// startDaemon starts the program, and kills it at the end of the test.
func startDaemon(t *testing.T, pkg, program string, args ...string) *daemon {
	t.Helper()
	path := needs(t, pkg, program)
	d := &daemon{cmd: exec.Command(path, args...), ended: make(chan struct{}), heard: make(chan struct{})}
	d.cmd.Dir = t.TempDir()
	d.cmd.Env = []string{"PATH=/usr/bin:/bin"} // REGISTRY_* and ETCD_* would change its settings
	stderr, err := d.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, d.cmd.Start())
	go func() {
		defer close(d.ended)
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			d.mu.Lock()
			d.said = append(d.said, lines.Text())
			close(d.heard)
			d.heard = make(chan struct{})
			d.mu.Unlock()
		}
		_, _ = io.Copy(io.Discard, stderr) // it would wait for us otherwise
	}()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", program, strings.Join(d.said, "\n"))
		}
	})
	return d
}

// kill ends the program as a crash would.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.ended
	_ = d.cmd.Wait()
}

// says waits until the program has said something that matches, and returns the
// last group of that, or all of it; "" if it ended before.
func (d *daemon) says(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for seen, ended := 0, false; ; {
		d.mu.Lock()
		fresh, heard := d.said[seen:], d.heard
		seen = len(d.said)
		d.mu.Unlock()
		for _, line := range fresh {
			if m := re.FindStringSubmatch(line); m != nil {
				return m[len(m)-1]
			}
		}
		if ended {
			return ""
		}
		select {
		case <-heard:
		case <-d.ended: // what it said last is still to be looked at
			ended = true
		case <-deadline.C:
			require.FailNowf(t, "the server is not heard", "it did not say %s", pattern)
		}
	}
}

// answers waits until there is any answer at the address.
func (d *daemon) answers(t *testing.T, address string) {
	t.Helper()
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	require.Eventually(t, func() bool {
		resp, err := client.Get(address)
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	}, 30*time.Second, 20*time.Millisecond)
}

// freeAddress returns an address of loopback that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// A ledger is a Base that notes what was sent, and what came of it.
type ledger struct {
	http.Transport

	mu      sync.Mutex
	entries []entry
}

type entry struct {
	method, host, path, authorization string
	status                            int // zero if there was no answer
}

func (l *ledger) RoundTrip(req *http.Request) (*http.Response, error) {
	e := entry{method: req.Method, host: req.URL.Host, path: req.URL.Path, authorization: req.Header.Get("Authorization")}
	resp, err := l.Transport.RoundTrip(req)
	if err == nil {
		e.status = resp.StatusCode
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	return resp, err
}

// count returns how many sends were answered with the status; with any for 0. ""
// is any method, and no path is any.
func (l *ledger) count(method string, status int, paths ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.entries {
		if (method == "" || e.method == method) && e.status != 0 && (status == 0 || e.status == status) &&
			(len(paths) == 0 || slices.Contains(paths, e.path)) {
			n++
		}
	}
	return n
}

// reset begins a new page.
func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = nil
}
