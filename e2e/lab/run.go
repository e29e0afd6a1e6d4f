package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/reauth-go/reauth/e2e/internal/servers"
)

// A world is a run: the issuer, the processes, and what they need.
type world struct {
	issuer   *issuer
	env      []string
	mu       sync.Mutex
	running  map[string]*exec.Cmd
	started  int
	ending   bool
	requests int
	failed   int
	all      sync.WaitGroup
}

// run has n processes share a login for d.
func run(name string, n int, d, grace, reuse time.Duration) (r result, err error) {
	c := &cleanups{}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%v", v)
		}
		c.run()
	}()
	w := &world{issuer: newIssuer(grace), running: map[string]*exec.Cmd{}}
	w.issuer.kill, w.issuer.stop = w.kill, w.stop

	mux := http.NewServeMux()
	mux.HandleFunc("/token", w.issuer.token)
	mux.HandleFunc("/login", w.issuer.loginHandler)
	mux.HandleFunc("/api", w.issuer.api)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	dir := c.TempDir()
	at := ""
	switch name {
	case "postgresql":
		at = servers.PostgreSQL(c)
	case "redis":
		at = servers.Redis(c)
	case "etcd":
		at = servers.Etcd(c)
	default:
		at = filepath.Join(dir, "login")
	}
	if name == "sqlite" {
		if err := makeSQLite(at); err != nil {
			return r, err
		}
	}
	w.env = append(os.Environ(), roleVar+"="+name, atVar+"="+at, urlVar+"=http://"+listener.Addr().String(), reuseVar+"="+reuse.String())
	if err := w.logIn(name); err != nil {
		return r, err
	}
	for range n {
		if err := w.start(); err != nil {
			return r, err
		}
	}
	revocations := time.NewTicker(revokeEvery)
	defer revocations.Stop()
	for end := time.After(d); ; {
		select {
		case <-revocations.C:
			w.issuer.revoke()
			continue
		case <-end:
		}
		break
	}
	r = w.issuer.close()
	w.end()
	w.all.Wait()
	r.requests, r.failed = w.requests, w.failed
	return r, nil
}

// logIn is what the first user does, once.
func (w *world) logIn(name string) error {
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(w.env, loginVar+"=1"), os.Stderr
	return cmd.Run()
}

// start starts a process, and another once it was killed.
func (w *world) start() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ending {
		return nil
	}
	w.started++
	id := fmt.Sprint(w.started)
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(w.env, processVar+"="+id), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	w.running[id] = cmd
	w.all.Go(func() {
		w.count(bufio.NewScanner(out))
		_ = cmd.Wait()
		w.mu.Lock()
		delete(w.running, id)
		w.mu.Unlock()
		_ = w.start()
	})
	return nil
}

// count adds up what a process says of its requests.
func (w *world) count(lines *bufio.Scanner) {
	for lines.Scan() {
		var requests, failed int
		if _, err := fmt.Sscan(lines.Text(), &requests, &failed); err != nil {
			fmt.Fprintln(os.Stderr, strings.TrimSpace(lines.Text()))
			continue
		}
		w.mu.Lock()
		w.requests += requests
		w.failed += failed
		w.mu.Unlock()
	}
}

func (w *world) kill(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cmd := w.running[id]; cmd != nil {
		_ = cmd.Process.Kill()
	}
}

// stop stops a process, and lets it go on later.
func (w *world) stop(id string) {
	w.mu.Lock()
	cmd := w.running[id]
	w.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGSTOP)
	time.AfterFunc(stopped, func() { _ = cmd.Process.Signal(syscall.SIGCONT) })
}

// end ends all processes.
func (w *world) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending = true
	for _, cmd := range w.running {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
}

// cleanups is the storetest.TB of a run.
type cleanups struct{ all []func() }

func (c *cleanups) Helper()                           {}
func (c *cleanups) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (c *cleanups) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (c *cleanups) Skipf(format string, args ...any)  { panic(fmt.Sprintf(format, args...)) }
func (c *cleanups) Cleanup(f func())                  { c.all = append(c.all, f) }

func (c *cleanups) TempDir() string {
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (c *cleanups) run() {
	for i := len(c.all) - 1; i >= 0; i-- {
		c.all[i]()
	}
}
