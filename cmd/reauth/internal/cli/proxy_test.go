package cli

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth/reauthtest"
)

// A key is for this user alone, also where a file of that name was there for all.
func TestProxyKeyFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(name, nil, 0o644))
	require.NoError(t, os.Chmod(name, 0o644))
	require.NoError(t, writeKey(name, "the-key"))
	info, err := os.Stat(name)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, "the-key\n", string(b))
	require.Error(t, writeKey(filepath.Join(name, "none"), "x"))
}

func TestProxyReplacesRevokedTokens(t *testing.T) {
	u := newUpstream(t)
	x := startProxy(t, u, "/openai")
	for range 5 {
		resp, body := ask(t, x, "POST", "/openai/v1/chat?x=1", "hello")
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, "POST /openai/v1/chat?x=1 hello", body)
		u.rotate()
	}
	_, body := ask(t, x, "GET", "/v1/models", "")
	assert.Equal(t, "GET /openai/v1/models ", body, "a path without the URL's gets it")
	for _, h := range u.seen() {
		assert.NotContains(t, fmt.Sprint(h), x.key, "the key goes no further")
	}
}

// Only this machine is listened on.
func TestProxyListensOnLoopbackOnly(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:80", "[::]:0", "example.com:80", "nonsense"} {
		_, err := listenOn(address)
		var exit *exitError
		require.ErrorAs(t, err, &exit, address)
		assert.Equal(t, exitUsage, exit.status)
	}
	path := filepath.Join(t.TempDir(), "run", "proxy.sock")
	l, err := listenOn("unix:" + path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	info, err = os.Stat(filepath.Dir(path))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	_, err = listenOn("unix:" + path)
	assert.ErrorContains(t, err, "another process listens")
	require.NoError(t, l.Close())
	open := filepath.Join(t.TempDir(), "open")
	require.NoError(t, os.Mkdir(open, 0o755))
	_, err = listenOn("unix:" + filepath.Join(open, "x.sock"))
	assert.ErrorContains(t, err, "others may enter")
}

// A Host that is not ours, as after DNS rebinding, and CONNECT.
func TestProxyRefusesOtherHosts(t *testing.T) {
	u := newUpstream(t)
	x := startProxy(t, u, "")
	port := x.listener.Addr().(*net.TCPAddr).Port
	for host, want := range map[string]int{
		fmt.Sprintf("127.0.0.1:%d", port): 200, fmt.Sprintf("localhost:%d", port): 200, fmt.Sprintf("[::1]:%d", port): 200,
		"127.0.0.1": 421, "localhost:1": 421, fmt.Sprintf("evil.example.com:%d", port): 421, fmt.Sprintf("127.0.0.1.evil.example.com:%d", port): 421,
		fmt.Sprintf("127.0.0.2:%d", port): 421,
	} {
		resp, _ := ask(t, x, "GET", "/", "", "Host", host)
		assert.Equal(t, want, resp.StatusCode, host)
	}
	for request, want := range map[string]string{
		"GET / HTTP/1.0\r\nAuthorization: Bearer " + x.key + "\r\n\r\n": "421",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n":                  "400",
		"GET / HTTP/1.1\r\n\r\n":                                        "400",
		fmt.Sprintf("GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n\r\n", port, port, x.key): "421",
		fmt.Sprintf("CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", port, port):                                        "405",
		"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 300<<10) + "\r\n\r\n":                                                "431",
	} {
		conn, err := net.Dial("tcp", x.listener.Addr().String())
		require.NoError(t, err)
		_, _ = io.WriteString(conn, request)
		line, err := bufio.NewReader(conn).ReadString('\n')
		require.NoError(t, err)
		assert.Contains(t, line, " "+want+" ", request[:min(len(request), 60)])
		_ = conn.Close()
	}
}

// No page of a browser's.
func TestProxyRefusesBrowsers(t *testing.T) {
	u := newUpstream(t)
	u.answers(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Access-Control-Allow-Origin", "*") })
	x := startProxy(t, u, "")
	for _, h := range [][]string{{"Origin", "https://evil.example.com"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}, {"Access-Control-Request-Method", "POST"}} {
		resp, _ := ask(t, x, "OPTIONS", "/", "", h...)
		assert.Equal(t, 403, resp.StatusCode, h)
	}
	resp, _ := ask(t, x, "GET", "/", "", "Sec-Fetch-Mode", "cors")
	assert.Equal(t, 200, resp.StatusCode, "Node's fetch sends it")
	assert.Empty(t, resp.Header.Get("Access-Control-Allow-Origin"))
}

// The key, in each header that SDKs use; 403, which no SDK takes for its token's end.
func TestProxyNeedsItsKey(t *testing.T) {
	u := newUpstream(t)
	x := startProxy(t, u, "")
	for _, name := range []string{"X-Api-Key", "Api-Key", "X-Goog-Api-Key"} {
		resp, _ := ask(t, x, "GET", "/", "", "Authorization", "", name, x.key)
		assert.Equal(t, 200, resp.StatusCode, name)
		resp, _ = ask(t, x, "GET", "/", "", "Authorization", "", name, "x"+x.key[1:])
		assert.Equal(t, 403, resp.StatusCode, name)
	}
	for _, v := range []string{"", "Bearer", "Bearer ", "Bearer " + x.key[1:], x.key + " x"} {
		resp, body := ask(t, x, "GET", "/", "", "Authorization", v)
		assert.Equal(t, 403, resp.StatusCode, v)
		assert.NotContains(t, body, x.key)
	}
}

// Without a key, a port of loopback is for this user's processes.
func TestProxyIsForThisUser(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("of Linux")
	}
	u := newUpstream(t)
	c := &command{Streams: Streams{Out: io.Discard, Err: io.Discard}}
	x, err := c.newProxy(context.Background(), proxyFlags{sourceFlags: sourceFlags{source: "file:" + u.file}, to: u.URL})
	require.NoError(t, err)
	go func() { _ = x.server.Serve(x.listener) }()
	t.Cleanup(x.close)
	resp, _ := ask(t, x, "GET", "/", "", "Authorization", "")
	assert.Equal(t, 200, resp.StatusCode)

	client, server := net.Pipe() // neither end is a socket
	defer client.Close()
	assert.Error(t, checkPeer(server))

	_, err = c.newProxy(context.Background(), proxyFlags{sourceFlags: sourceFlags{source: "file:" + u.file}, to: u.URL, anyUser: true})
	assert.ErrorContains(t, err, "needs a key")

	if os.Getuid() != 0 {
		t.Skip("the rest is about another user, as root")
	}
	for _, tool := range []string{"setpriv", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	out, err := exec.Command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", x.url()+"/").CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Equal(t, "403", string(out))
}

// The upstream's 401 passes only where a new token was tried.
func TestProxyWithoutAFreshToken(t *testing.T) {
	u := newUpstream(t)
	x := startProxy(t, u, "")
	u.refuse.Store(true)
	resp, body := ask(t, x, "GET", "/", "")
	assert.Equal(t, 503, resp.StatusCode, "the file has no newer token")
	assert.NotEmpty(t, resp.Header.Get("Retry-After"))
	assert.NotContains(t, body, "upstream-token")
	u.rotate()
	require.Eventually(t, func() bool { // once the backoff is over
		resp, body = ask(t, x, "GET", "/", "")
		return resp.StatusCode != 503
	}, 20*time.Second, 50*time.Millisecond)
	assert.Equal(t, 401, resp.StatusCode, "a new one was tried")
	assert.Contains(t, body, "Invalid token")
	assert.Equal(t, "invalid_token", resp.Header.Get("Reauth-Reason"))
	assert.NotEmpty(t, resp.Header.Get("Reauth-First-Request-Id"))
}

// Codings that a 401 can be read in; streams arrive as they are sent; the
// client's going ends the upstream's request.
func TestProxyStreams(t *testing.T) {
	u := newUpstream(t)
	gone := make(chan struct{})
	next := make(chan string)
	u.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case s := <-next:
				_, _ = io.WriteString(w, s)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				close(gone)
				return
			}
		}
	})
	x := startProxy(t, u, "")
	req, err := http.NewRequest("GET", x.url(), nil)
	require.NoError(t, err)
	req.Header.Set("X-Api-Key", x.key)
	req.Header.Set("Accept-Encoding", "br, gzip")
	resp, err := (&http.Transport{}).RoundTrip(req)
	require.NoError(t, err)
	lines := bufio.NewReader(resp.Body)
	for i := range 3 {
		next <- fmt.Sprintf("data: %d\n", i)
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("data: %d\n", i), line)
	}
	_ = resp.Body.Close()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the upstream goes on")
	}
	assert.Equal(t, "gzip", u.seen()[0].Get("Accept-Encoding"))
}

// A Location of the upstream's origin leads to the proxy; others are left alone.
func TestProxyLocations(t *testing.T) {
	u := newUpstream(t)
	x := startProxy(t, u, "")
	for to, want := range map[string]string{
		u.URL + "/next?a=1":          "http://" + x.listener.Addr().String() + "/next?a=1",
		"/next":                      "http://" + x.listener.Addr().String() + "/next",
		"https://other.example.com/": "https://other.example.com/",
	} {
		u.answers(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Location", to); w.WriteHeader(302) })
		resp, _ := ask(t, x, "GET", "/", "")
		assert.Equal(t, want, resp.Header.Get("Location"))
	}
}

// An upstream that is down, hangs, breaks off or lies is a clear error for the client and a
// line in the log, and the proxy goes on.
func TestProxyUpstreamMisbehaves(t *testing.T) {
	u := newUpstream(t)
	x, log := startProxyWith(t, u, proxyFlags{headerTimeout: 2 * time.Second})
	raw := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // a close with something unread is a reset
			conn, _, err := http.NewResponseController(w).Hijack()
			if assert.NoError(t, err) {
				_, _ = io.WriteString(conn, answer)
				_ = conn.Close()
			}
		}
	}
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		status int
		body   string // of the proxy, or of the upstream
		log    string
	}{
		"breaks off":      {raw(""), 502, "the server was not reached", "status=502"},
		"sends garbage":   {raw("no HTTP at all\n\n"), 502, "malformed", "status=502"},
		"hangs":           {func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() }, 504, "timeout", "status=504"},
		"says too much":   {raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"), 200, "abc", ""},
		"says two":        {raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), 502, "the server was not reached", "status=502"},
		"says too little": {raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), 200, "unexpected EOF", "unexpected EOF"},
		"stops a chunk":   {raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"), 200, "unexpected EOF", "unexpected EOF"},
		"has a huge head": {raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 11<<20) + "\r\n\r\n"), 502, "the server was not reached", "status=502"},
	} {
		t.Run(name, func(t *testing.T) {
			u.answers(tt.answer)
			log.Reset()
			req, err := http.NewRequest("POST", x.url(), strings.NewReader("x"))
			require.NoError(t, err)
			req.Header.Set("Api-Key", x.key)
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			require.NoError(t, err)
			b, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				b = fmt.Append(b, err)
			}
			assert.Equal(t, tt.status, resp.StatusCode)
			assert.Contains(t, string(b), tt.body)
			assert.Contains(t, log.String(), tt.log)
			u.answers(nil)
			resp, _ = ask(t, x, "GET", "/", "")
			assert.Equal(t, 200, resp.StatusCode, "the proxy lives")
		})
	}
	u.Close()
	resp, body := ask(t, x, "GET", "/", "")
	assert.Equal(t, 502, resp.StatusCode)
	assert.Contains(t, body, "the server was not reached")
	assert.NotContains(t, log.String(), "upstream-token")
}

// A body that the client does not finish is the client's error.
func TestProxyClientStops(t *testing.T) {
	u := newUpstream(t)
	x, log := startProxyWith(t, u, proxyFlags{bodyTimeout: 200 * time.Millisecond, anyUser: true}) // a peer that has closed its end is no known one
	for name, tt := range map[string]struct {
		head   string
		closes bool
		want   string
	}{
		"half":              {"Content-Length: 10\r\n\r\nabc", true, " 400 "},
		"half a chunk":      {"Transfer-Encoding: chunked\r\n\r\n5\r\nabc", true, " 400 "},
		"no chunk":          {"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n", false, " 400 "},
		"and keeps it open": {"Content-Length: 10\r\n\r\nabc", false, " 408 "},
	} {
		t.Run(name, func(t *testing.T) {
			log.Reset()
			conn, err := net.Dial("tcp", x.listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			_, _ = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nApi-Key: %s\r\n%s", x.listener.Addr(), x.key, tt.head)
			if tt.closes {
				require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			}
			line, err := bufio.NewReader(conn).ReadString('\n')
			require.NoError(t, err)
			assert.Contains(t, line, tt.want)
			assert.Contains(t, log.String(), "status="+strings.TrimSpace(tt.want))
		})
	}
	resp, body := ask(t, x, "POST", "/", "all of it")
	assert.Equal(t, 200, resp.StatusCode, "the proxy lives")
	assert.Contains(t, body, "all of it")
}

// HTTP/1.0, with a Host.
func TestProxyServesHTTP10(t *testing.T) {
	u := newUpstream(t)
	x := startProxy(t, u, "")
	conn, err := net.Dial("tcp", x.listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET /old HTTP/1.0\r\nHost: %s\r\nApi-Key: %s\r\n\r\n", x.listener.Addr(), x.key)
	b, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Contains(t, string(b), " 200 OK")
	assert.Contains(t, string(b), "GET /old")
}

// The proxy's own answers are in the language of --lang.
func TestProxySpeaksChinese(t *testing.T) {
	u := newUpstream(t)
	c := &command{Streams: Streams{Out: io.Discard, Err: io.Discard}, lang: "zh"}
	x, err := c.newProxy(context.Background(), proxyFlags{sourceFlags: sourceFlags{source: "file:" + u.file}, to: u.URL, key: true})
	require.NoError(t, err)
	go func() { _ = x.server.Serve(x.listener) }()
	t.Cleanup(x.close)
	_, body := ask(t, x, "GET", "/", "", "Authorization", "")
	assert.Equal(t, "reauth: 缺少这个代理的密钥，或密钥不正确\n", body)
	u.refuse.Store(true)
	resp, body := ask(t, x, "GET", "/", "")
	assert.Equal(t, 503, resp.StatusCode)
	assert.Contains(t, body, "暂时没有令牌")
	u.Close()
	_, body = ask(t, x, "GET", "/", "")
	assert.Contains(t, body, "无法连接服务器")
}

// 64 connections for a minute, and a revocation every 5 s: no request fails.
func TestProxyUnderLoad(t *testing.T) {
	revocations := 11
	if testing.Short() {
		revocations = 1
	}
	u := newUpstream(t)
	x := startProxy(t, u, "")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	var served, failed atomic.Int64
	var all sync.WaitGroup
	done := make(chan struct{})
	for range 64 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				req, _ := http.NewRequest("POST", x.url()+"/v1", strings.NewReader("body"))
				req.Header.Set("Api-Key", x.key)
				resp, err := client.Do(req)
				if err != nil {
					failed.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode == 200 {
					served.Add(1)
				} else {
					failed.Add(1)
				}
			}
		})
	}
	every := time.NewTicker(5 * time.Second)
	defer every.Stop()
	for range revocations {
		<-every.C
		u.rotate()
	}
	<-every.C
	close(done)
	all.Wait()
	t.Logf("%d requests, %d revocations", served.Load(), revocations)
	assert.Zero(t, failed.Load())
	assert.NotZero(t, served.Load())
}

// The handshake of a WebSocket is sent again with a new token, and then bytes go both
// ways.
func TestProxyWebSocket(t *testing.T) {
	u := newUpstream(t)
	x := startProxy(t, u, "")
	ask(t, x, "GET", "/", "") // the proxy has the token that is revoked then
	u.answers(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "websocket", r.Header.Get("Upgrade"))
		conn, rw, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw) // an echo
	})
	u.rotate()
	conn, err := net.Dial("tcp", x.listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET /live HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Api-Key: %s\r\n\r\n", x.listener.Addr(), x.key)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, 101, resp.StatusCode)
	for _, word := range []string{"hello", "again"} {
		_, _ = io.WriteString(conn, word)
		b := make([]byte, len(word))
		_, err = io.ReadFull(r, b)
		require.NoError(t, err)
		assert.Equal(t, word, string(b))
	}
}

// A login that has ended is not presented again, and a new one is noticed by a
// running proxy within a second.
func TestProxyNoticesANewLogin(t *testing.T) {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	issuer.SetRotate(true)
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	config, _ := loginConfig(t, issuer, api.URL(), "browser")
	c := &command{Streams: Streams{Out: io.Discard, Err: io.Discard}, config: config}
	x, err := c.newProxy(context.Background(), proxyFlags{sourceFlags: sourceFlags{profile: "corp"}, key: true})
	require.NoError(t, err)
	go func() { _ = x.server.Serve(x.listener) }()
	t.Cleanup(x.close)
	for range 3 {
		resp, body := ask(t, x, "GET", "/", "")
		assert.Equal(t, 503, resp.StatusCode)
		assert.Equal(t, "false", resp.Header.Get("X-Should-Retry"))
		assert.Contains(t, body, "run reauth login")
	}
	agreeingUser(t)
	_, errs, status := run(t, "", "login", "corp", "--config", config)
	require.Zero(t, status, errs)
	loggedIn := time.Now()
	require.Eventually(t, func() bool {
		resp, _ := ask(t, x, "GET", "/", "")
		return resp.StatusCode == 200
	}, 10*time.Second, 20*time.Millisecond)
	assert.Less(t, time.Since(loggedIn), 2*time.Second)
}

// An upload is sent again as it was.
func TestProxyUploads(t *testing.T) {
	u := newUpstream(t)
	x := startProxy(t, u, "")
	ask(t, x, "GET", "/", "")
	u.answers(func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, _ := io.Copy(sum, r.Body)
		_, _ = fmt.Fprintf(w, "%d %x", n, sum.Sum(nil))
	})
	for _, size := range []int{1, 64 << 10, 4 << 20} {
		body := strings.Repeat("0123456789abcdef", size/16) + "x"
		u.rotate()
		resp, got := ask(t, x, "PUT", "/file", body)
		assert.Equal(t, 200, resp.StatusCode, size)
		assert.Equal(t, fmt.Sprintf("%d %x", len(body), sha256.Sum256([]byte(body))), got)
	}
}

// What is there and no socket stays.
func TestProxyListenRemovesOnlySockets(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	name := filepath.Join(dir, "data.txt")
	require.NoError(t, os.WriteFile(name, []byte("precious"), 0o600))
	_, err := listenOn("unix:" + name)
	assert.ErrorContains(t, err, "no socket")
	assert.FileExists(t, name)
	l, err := net.Listen("unix", filepath.Join(dir, "dead.sock"))
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close()) // as of a process that was killed
	l, err = listenOn("unix:" + filepath.Join(dir, "dead.sock"))
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// The path and the query arrive as they were sent.
func TestProxyKeepsThePathAndQuery(t *testing.T) {
	u := newUpstream(t)
	u.answers(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) })
	x := startProxy(t, u, "/base")
	for in, want := range map[string]string{
		"/files/a%2Fb":         "/base/files/a%2Fb",
		"/base/a%2Fb?x":        "/base/a%2Fb?x",
		"/q?x=1;y=2&z=%zz":     "/base/q?x=1;y=2&z=%zz",
		"/plain?a=b&a=c#nobdy": "/base/plain?a=b&a=c",
	} {
		req, err := http.NewRequest("GET", x.url(), nil)
		require.NoError(t, err)
		path, _, _ := strings.Cut(in, "#")
		req.URL.Opaque = "//" + x.listener.Addr().String() + path
		conn, err := net.Dial("tcp", x.listener.Addr().String())
		require.NoError(t, err)
		_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nApi-Key: %s\r\nConnection: close\r\n\r\n", path, x.listener.Addr(), x.key)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		_ = conn.Close()
		assert.Equal(t, want, string(b))
	}
	for accept, want := range map[string]string{"gzip;q=0": "identity", "br, gzip;q=0.5": "gzip", "br": "identity", "gzip": "gzip"} {
		ask(t, x, "GET", "/", "", "Accept-Encoding", accept)
		seen := u.seen()
		assert.Equal(t, want, seen[len(seen)-1].Get("Accept-Encoding"), accept)
	}
}

// OPTIONS * is refused like other requests of strangers, each with a line in the log.
func TestProxyLogsWhatItRefuses(t *testing.T) {
	u := newUpstream(t)
	x, log := startProxyWith(t, u, proxyFlags{})
	for _, request := range []string{
		"OPTIONS * HTTP/1.1\r\nHost: evil.example.com\r\nOrigin: https://evil.example.com\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: evil.example.com\r\n\r\n",
	} {
		log.Reset()
		conn, err := net.Dial("tcp", x.listener.Addr().String())
		require.NoError(t, err)
		_, _ = io.WriteString(conn, request)
		b, err := io.ReadAll(conn) // to its end: the connection is closed
		require.NoError(t, err)
		assert.NotContains(t, string(b), "200 OK", request)
		assert.Contains(t, log.String(), "msg=refused", request)
		_ = conn.Close()
	}
}

// A client that sends no more, and waits, gets an error and no empty 200.
func TestProxyClientClosesItsEnd(t *testing.T) {
	u := newUpstream(t)
	arrived := make(chan struct{})
	u.answers(func(_ http.ResponseWriter, r *http.Request) { close(arrived); <-r.Context().Done() })
	x := startProxy(t, u, "")
	conn, err := net.Dial("tcp", x.listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET /slow HTTP/1.1\r\nHost: %s\r\nApi-Key: %s\r\n\r\n", x.listener.Addr(), x.key)
	<-arrived
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Contains(t, line, " 400 ")
}

// SIGTERM ends the proxy in order: a request in flight is answered, and no socket is left.
func TestProxySIGTERM(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signals")
	}
	u := newUpstream(t)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	u.answers(func(w http.ResponseWriter, _ *http.Request) { close(arrived); <-goOn; _, _ = io.WriteString(w, "done") })
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	socket := filepath.Join(dir, "proxy.sock")
	cmd := exec.Command(os.Args[0], "proxy", "--source", "file:"+u.file, "--to", u.URL, "--listen", "unix:"+socket)
	cmd.Env = append(os.Environ(), "REAUTH_TEST_MAIN=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
	answer := make(chan string, 1)
	go func() {
		resp, err := client.Get("http://localhost/")
		if err != nil {
			answer <- err.Error()
			return
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		answer <- string(b)
	}()
	<-arrived
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	close(goOn)
	assert.Equal(t, "done", <-answer)
	_ = cmd.Wait()
	assert.Zero(t, cmd.ProcessState.ExitCode())
	assert.NoFileExists(t, socket)
}
