package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain is also the command, for tests that need a process.
func TestMain(m *testing.M) {
	if os.Getenv("REAUTH_TEST_MAIN") != "" {
		os.Exit(Run(context.Background(), os.Args[1:], Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
	}
	os.Exit(m.Run())
}

// An upstream accepts one token, which is in a file, and can be replaced.
type upstream struct {
	*httptest.Server
	mu      sync.Mutex
	n       int
	file    string
	answer  http.HandlerFunc
	headers []http.Header
	refuse  atomic.Bool // every token
}

func newUpstream(t testing.TB) *upstream {
	u := &upstream{file: filepath.Join(t.TempDir(), "token")}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		want, answer := u.tokenLocked(), u.answer
		u.headers = append(u.headers, r.Header.Clone())
		id := fmt.Sprintf("req-%d", len(u.headers))
		u.mu.Unlock()
		w.Header().Set("X-Request-Id", id)
		if r.Header.Get("Authorization") != "Bearer "+want || u.refuse.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":{"message":"Invalid token","type":"new_api_error"}}`)
			return
		}
		if answer != nil {
			answer(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Method, r.URL, body)
	}))
	t.Cleanup(u.Close)
	u.rotate()
	return u
}

// answers sets what is answered to a request with the token.
func (u *upstream) answers(f http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = f
}

func (u *upstream) tokenLocked() string { return fmt.Sprintf("upstream-token-%d", u.n) }

// rotate revokes the token, and puts the next into the file.
func (u *upstream) rotate() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
	next := u.file + ".next"
	_ = os.WriteFile(next, []byte(u.tokenLocked()), 0o600)
	_ = os.Rename(next, u.file)
}

func (u *upstream) seen() []http.Header {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.headers
}

// startProxy starts a proxy for the upstream until the test ends.
func startProxy(t testing.TB, u *upstream, path string) *proxy {
	t.Helper()
	x, _ := startProxyWith(t, u, proxyFlags{to: u.URL + path})
	return x
}

// startProxyWith starts a proxy with more flags, and returns what it logs.
func startProxyWith(t testing.TB, u *upstream, f proxyFlags) (*proxy, *buffer) {
	t.Helper()
	log := &buffer{}
	c := &command{Streams: Streams{In: strings.NewReader(""), Out: io.Discard, Err: log}}
	f.source, f.to, f.replay, f.key = "file:"+u.file, cmp.Or(f.to, u.URL), 16<<20, true
	x, err := c.newProxy(context.Background(), f)
	require.NoError(t, err)
	go func() { _ = x.server.Serve(x.listener) }()
	t.Cleanup(x.close)
	return x, log
}

// A buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

// ask sends a request to the proxy.
func ask(t testing.TB, x *proxy, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+x.listener.Addr().String()+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+x.key)
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		} else if req.Header.Del(header[i]); header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	_ = resp.Body.Close()
	return resp, string(b)
}

// runProcess runs the command in a process of its own.
func runProcess(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "REAUTH_TEST_MAIN=1")
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		return b.String(), exit.ExitCode()
	}
	require.NoError(t, err)
	return b.String(), 0
}

// run runs the command, and returns what it prints and its exit status.
func run(t testing.TB, in string, args ...string) (out, errs string, status int) {
	t.Helper()
	var o, e bytes.Buffer
	status = Run(context.Background(), args, Streams{In: strings.NewReader(in), Out: &o, Err: &e})
	return o.String(), e.String(), status
}
