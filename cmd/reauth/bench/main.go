// Command bench measures the proxy of the command reauth beside a plain
// httputil.ReverseProxy and nginx with a static token, in one run: each is a process of its
// own, in front of the same server, and serves the same requests.
//
//	cd cmd/reauth && go run ./bench [-n requests] [-c connections]
//
// It exits with status 1 if reauth takes more than 1.25 of the plain proxy's CPU time.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const maxCPU = 1.25

func main() {
	log.SetFlags(0)
	if to := os.Getenv("BENCH_PLAIN"); to != "" {
		plain(to)
		return
	}
	n := flag.Int("n", 20000, "requests to each")
	conns := flag.Int("c", 64, "connections")
	rounds := flag.Int("rounds", 3, "rounds, of which the least CPU time counts")
	flag.Parse()

	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer bench-token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/stream":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: 1\n\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = w.Write(make([]byte, 1<<10))
		}
	}))
	defer upstream.Close()
	dir, err := os.MkdirTemp("", "bench")
	must(err)
	defer os.RemoveAll(dir)

	fmt.Printf("%d requests over %d connections, 1 KiB each way; the least CPU time of %d rounds.\n\n", *n, *conns, *rounds)
	fmt.Println("| proxy | CPU for a request | requests a second | median | 99 % | start to first answer | memory idle | with 64 streams |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	all := proxies(dir, upstream.URL)
	least := map[string]*result{}
	for range *rounds { // in turn, so that what else the machine does is shared
		for _, p := range all {
			if p.argv == nil {
				continue
			}
			r := p.measure(*n, *conns)
			if best := least[p.name]; best == nil || r.cpu < best.cpu {
				least[p.name] = &r
			}
		}
	}
	for _, p := range all {
		best := least[p.name]
		if best == nil {
			fmt.Printf("| %s | not installed |\n", p.name)
			continue
		}
		fmt.Printf("| %s | %v | %.0f | %v | %v | %v | %.1f MB | %.1f MB |\n", p.name, (best.cpu / time.Duration(*n)).Round(100*time.Nanosecond),
			float64(*n)/best.took.Seconds(), best.median.Round(time.Microsecond), best.p99.Round(time.Microsecond), best.start.Round(time.Millisecond), best.idle, best.streams)
	}
	ratio := float64(least["reauth"].cpu) / float64(least["ReverseProxy"].cpu)
	fmt.Printf("\nreauth takes %.2f of the CPU time of a plain ReverseProxy.\n", ratio)
	if ratio > maxCPU {
		os.Exit(1)
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A contender is a proxy to measure.
type contender struct {
	name string
	argv []string
	env  []string
	url  string
	key  string
}

func proxies(dir, upstream string) []*contender {
	self, err := os.Executable()
	must(err)
	ports := freePorts(3)
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }

	reauth := filepath.Join(dir, "reauth")
	out, err := exec.Command("go", "build", "-o", reauth, "..").CombinedOutput()
	if err != nil {
		out, err = exec.Command("go", "build", "-o", reauth, ".").CombinedOutput()
	}
	if err != nil {
		log.Fatalf("run it in cmd/reauth: %s", out)
	}
	token := filepath.Join(dir, "token")
	must(os.WriteFile(token, []byte("bench-token"), 0o600))

	all := []*contender{
		{name: "ReverseProxy", argv: []string{self}, env: []string{"BENCH_PLAIN=" + upstream, "BENCH_AT=" + at(0)}, url: "http://" + at(0)},
		{name: "reauth", argv: []string{reauth, "proxy", "--source", "file:" + token, "--to", upstream, "--listen", at(1), "--key-file", filepath.Join(dir, "key")}, url: "http://" + at(1), key: filepath.Join(dir, "key")},
		{name: "nginx", url: "http://" + at(2)},
	}
	if nginx, err := exec.LookPath("nginx"); err == nil {
		conf := filepath.Join(dir, "nginx.conf")
		must(os.WriteFile(conf, fmt.Appendf(nil, `daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 1024; }
http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
upstream up { server %[2]s; keepalive 64; }
server { listen %[3]s; location / { proxy_pass http://up; proxy_http_version 1.1; proxy_buffering off; proxy_set_header Connection ""; proxy_set_header Authorization "Bearer bench-token"; } } }
`, dir, strings.TrimPrefix(upstream, "http://"), at(2)), 0o600))
		all[2].argv = []string{nginx, "-p", dir, "-c", conf}
	}
	return all
}

func freePorts(n int) (ports []int) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(err)
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// plain is a plain ReverseProxy that adds a static token.
func plain(to string) {
	target, err := url.Parse(to)
	must(err)
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.DisableCompression, base.MaxIdleConnsPerHost = true, 64
	must(http.ListenAndServe(os.Getenv("BENCH_AT"), &httputil.ReverseProxy{Transport: base, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Set("Authorization", "Bearer bench-token")
	}}))
}

// A result is what a proxy cost.
type result struct {
	cpu, took, median, p99, start time.Duration
	idle, streams                 float64 // MB
}

// measure starts the proxy, sends requests through it, and stops it.
func (p *contender) measure(n, conns int) (r result) {
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	began := time.Now()
	must(cmd.Start())
	ended := false
	defer func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: conns, MaxConnsPerHost: 2 * conns}}
	key := ""
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if b, err := os.ReadFile(p.key); err == nil {
			key = strings.TrimSpace(string(b))
		}
		if status, err := send(client, p.url+"/", key); err == nil && status == http.StatusOK {
			break
		} else if time.Now().After(end) {
			log.Fatalf("%s does not answer: %d %v", p.name, status, err)
		}
	}
	r.start = time.Since(began)
	r.idle = memory(cmd.Process.Pid)

	latencies := make([]time.Duration, n)
	var next atomic.Int64
	var all sync.WaitGroup
	began = time.Now()
	for range conns {
		all.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return
				}
				sent := time.Now()
				if status, err := send(client, p.url+"/v1", key); err != nil || status != http.StatusOK {
					log.Fatalf("%s: %d %v", p.name, status, err)
				}
				latencies[i] = time.Since(sent)
			}
		})
	}
	all.Wait()
	r.took = time.Since(began)
	slices.Sort(latencies)
	r.median, r.p99 = latencies[n/2], latencies[n*99/100]
	r.streams = streams(client, p, key, cmd.Process.Pid)

	ended = true
	_ = cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	kill.Stop()
	r.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return r
}

func send(client *http.Client, address, key string) (int, error) {
	req, err := http.NewRequest(http.MethodPost, address, strings.NewReader(strings.Repeat("x", 1<<10)))
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Api-Key", key)
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Body.Close()
}

// streams returns the memory of the proxy while it serves 64 streams.
func streams(client *http.Client, p *contender, key string, pid int) float64 {
	for range 64 {
		req, err := http.NewRequest(http.MethodGet, p.url+"/stream", nil)
		must(err)
		req.Header.Set("X-Api-Key", key)
		resp, err := client.Do(req)
		must(err)
		defer resp.Body.Close()
		_, err = bufio.NewReader(resp.Body).ReadString('\n')
		must(err)
	}
	return memory(pid)
}

// memory returns the resident memory of a process, in MB; 0 where /proc does not say.
func memory(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kb / 1000
		}
	}
	return 0
}
