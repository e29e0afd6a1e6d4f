package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/reauth-go/reauth"
)

// A proxyFlags are the flags of proxy and exec.
type proxyFlags struct {
	sourceFlags
	to, listen string
	replay     byteSize
	key        bool // clients need the key
	anyUser    bool // of any user

	headerTimeout, bodyTimeout time.Duration // zero for the constants below
}

const (
	headerTimeout = 10 * time.Minute // for the server's first answer: SDKs wait as long
	bodyTimeout   = time.Minute      // for each part of a request's body
)

func (f *proxyFlags) add(c *command, cmd *cobra.Command) {
	c.addSource(cmd, &f.sourceFlags)
	cmd.Flags().StringVar(&f.to, "to", "", "URL of the server that requests go to (else the profile's)")
	cmd.Flags().StringVar(&f.listen, "listen", "", "where to listen: 127.0.0.1:0, or unix:PATH")
	f.replay = 16 << 20
	cmd.Flags().Var(&f.replay, "replay", "how much of a request's body is kept to send it again, such as 64KiB or 16MiB")
}

// A byteSize is a number of bytes, as a flag.
type byteSize int64

var byteUnits = map[string]int64{"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

// Set implements pflag.Value.
func (b *byteSize) Set(s string) error {
	digits := strings.TrimRight(s, "KMGIBkmgib")
	n, err := strconv.ParseInt(digits, 10, 64)
	unit, ok := byteUnits[strings.ToUpper(s[len(digits):])]
	if err != nil || !ok || n < 0 || n > 1<<40/unit {
		return errors.New("it is a number of bytes, or one with KiB, MiB or GiB")
	}
	*b = byteSize(n * unit)
	return nil
}

func (b *byteSize) String() string {
	if n := int64(*b); n >= 1<<20 && n%(1<<20) == 0 {
		return fmt.Sprintf("%dMiB", n>>20)
	}
	return strconv.FormatInt(int64(*b), 10)
}

// Type implements pflag.Value.
func (b *byteSize) Type() string { return "size" }

// addSource adds the flags that say where the token comes from.
func (c *command) addSource(cmd *cobra.Command, f *sourceFlags) {
	cmd.Flags().StringVarP(&f.profile, "profile", "p", "", "profile of the configuration file")
	cmd.Flags().StringVarP(&f.source, "source", "s", "", "where the token comes from: env:NAME, dotenv:PATH#NAME, file:PATH[#/json/pointer], exec:PROGRAM ARGS")
	cmd.Flags().StringVar(&c.config, "config", "", "configuration file (else $XDG_CONFIG_HOME/reauth/config.toml)")
}

// A proxy serves one upstream on loopback or a unix socket.
type proxy struct {
	target   *url.URL
	key      string // "" if clients need none
	peers    bool   // clients are of this user, as the kernel says
	listener net.Listener
	server   *http.Server
	cred     *reauth.Credential
	log      *slog.Logger
	metrics  *proxyMetrics
	verbose  bool
	say      func(format string, args ...any) string
	lang     string

	tokenVariable string // of the environment, if the token is from there

	bodyTimeout time.Duration
}

// newProxy makes a proxy, and listens.
func (c *command) newProxy(ctx context.Context, f proxyFlags) (*proxy, error) {
	c.serves = true
	cred, p, err := c.credential(ctx, f.sourceFlags)
	if err != nil {
		return nil, err
	}
	to, listen := f.to, f.listen
	rt := &reauth.Transport{Credential: cred, Override: true, MaxReplayBytes: int64(f.replay), Logger: c.logger(), Base: proxyBase(cmp.Or(f.headerTimeout, headerTimeout))}
	if p != nil {
		rt.Header, rt.Scheme, rt.Origins = p.Header, p.Scheme, p.allOrigins()
		to, listen = cmp.Or(to, p.URL), cmp.Or(listen, os.ExpandEnv(p.Proxy.Listen))
	}
	target, err := serverURL(to)
	if err != nil {
		return nil, usagef("--to: %v", err)
	}
	if origin := target.Scheme + "://" + target.Host; p == nil {
		rt.Origins = []string{origin}
	}
	x := &proxy{target: target, cred: cred, log: c.logger(), metrics: newProxyMetrics(), verbose: c.verbose, say: c.say, lang: c.language(nil),
		bodyTimeout: cmp.Or(f.bodyTimeout, bodyTimeout)}
	source := f.source
	if p != nil {
		source = p.Source
	}
	if name, ok := strings.CutPrefix(source, "env:"); ok {
		x.tokenVariable = name
	}
	rt.OnOutcome, cred.OnRefresh = x.metrics.outcome, x.metrics.refresh
	if f.key {
		x.key = rand.Text()
	}
	listen = cmp.Or(listen, "127.0.0.1:0")
	switch isTCP := !strings.HasPrefix(listen, "unix:"); {
	case f.anyUser && !f.key:
		return nil, usagef("--any-user needs a key: use --key-file")
	case isTCP && !f.key && !peersAreKnown:
		return nil, usagef("without a key, any user of this machine could use the proxy: use --key-file, or --listen unix:PATH")
	default:
		x.peers = isTCP && peersAreKnown && !f.anyUser
	}
	if x.listener, err = listenOn(listen); err != nil {
		return nil, err
	}
	reverse := &httputil.ReverseProxy{
		Rewrite:        x.rewrite,
		Transport:      rt,
		FlushInterval:  -1, // as it comes
		ModifyResponse: x.modify,
		ErrorHandler:   x.fail,
		ErrorLog:       slog.NewLogLogger(x.log.Handler(), slog.LevelWarn),
	}
	x.server = &http.Server{
		Handler: x.guard(reverse), ConnContext: x.connContext, ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 256 << 10,
		DisableGeneralOptionsHandler: true,                                                // it would answer anybody
		ErrorLog:                     slog.NewLogLogger(x.log.Handler(), slog.LevelDebug), // of clients that went
	}
	return x, nil
}

// proxyBase is the upstream's transport. It decodes nothing: the client gets what it
// asked for.
func proxyBase(timeout time.Duration) http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true
	t.MaxIdleConnsPerHost = 64
	t.ResponseHeaderTimeout = timeout
	return t
}

// listenOn listens on loopback, or on a unix socket of the user's own.
func listenOn(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		dir := filepath.Dir(path)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, usagef("--listen: %v", err)
		}
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o077 != 0 {
			return nil, usagef("--listen: others may enter %s: use a directory with mode 0700", dir)
		}
		if conn, err := net.Dial("unix", path); err == nil {
			_ = conn.Close()
			return nil, usagef("--listen: another process listens on %s", path)
		}
		if info, err := os.Lstat(path); err == nil {
			if info.Mode().Type() != fs.ModeSocket {
				return nil, usagef("--listen: %s is there, and is no socket", path)
			}
			_ = os.Remove(path) // of a process that was killed
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			return nil, usagef("--listen: %v", err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			_ = l.Close()
			return nil, usagef("--listen: %v", err)
		}
		return l, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usagef("--listen %q is neither HOST:PORT nor unix:PATH", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usagef("--listen %s: a proxy that adds a token listens on this machine only: 127.0.0.1, [::1] or unix:PATH", address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, usagef("--listen: %v", err)
	}
	return l, nil
}

// url returns the address for clients.
func (x *proxy) url() string {
	if x.listener.Addr().Network() == "unix" {
		return "http://localhost" + strings.TrimSuffix(x.target.Path, "/")
	}
	return "http://" + x.listener.Addr().String() + strings.TrimSuffix(x.target.Path, "/")
}

// keyHeaders are where clients put the key that they were given.
var keyHeaders = []string{"Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key"}

// guard admits requests of the user's own programs: no browser's, and none without the
// key.
func (x *proxy) guard(next http.Handler) http.Handler {
	refuse := func(w http.ResponseWriter, status int, why string) {
		x.log.Warn("refused", slog.Int("status", status), slog.String("why", why))
		w.Header().Set("Connection", "close")
		x.answer(w, status, x.say(why))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		switch {
		case r.Method == http.MethodConnect:
			refuse(w, http.StatusMethodNotAllowed, "this proxy is an address of its own, and no proxy for CONNECT: set the program's base URL")
		case r.URL.IsAbs() || r.URL.Host != "" || !x.isOurs(r.Host):
			refuse(w, http.StatusMisdirectedRequest, "the Host of the request is not this proxy's")
		case r.Header["Origin"] != nil || r.Header["Sec-Fetch-Site"] != nil || r.Header["Access-Control-Request-Method"] != nil:
			refuse(w, http.StatusForbidden, "requests of a browser's pages are refused")
		case x.peers && r.Context().Value(peerKey{}) != nil:
			x.log.Warn("refused", slog.Any("why", r.Context().Value(peerKey{})))
			refuse(w, http.StatusForbidden, "this proxy is for another user")
		case x.key != "" && !x.hasKey(r.Header):
			refuse(w, http.StatusForbidden, "the key of this proxy is missing or wrong")
		default:
			x.serveBody(next, w, r)
		}
		if x.verbose {
			x.log.Debug("request", slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Duration("took", time.Since(began)))
		}
	})
}

// answer writes an answer of the proxy's own.
func (x *proxy) answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, "reauth: "+text)
}

// A clientBody is the body of a client's request. Its error, if any, is the client's.
type clientBody struct {
	io.ReadCloser
	conn    *http.ResponseController
	timeout time.Duration
	err     atomic.Pointer[error]
}

// Read reads a part, for which the client has a timeout.
func (b *clientBody) Read(p []byte) (int, error) {
	_ = b.conn.SetReadDeadline(time.Now().Add(b.timeout))
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		_ = b.conn.SetReadDeadline(time.Time{}) // the server now waits for the client to go
	case err != nil && !errors.Is(err, http.ErrBodyReadAfterClose):
		b.err.CompareAndSwap(nil, &err)
	}
	return n, err
}

// A bodyKey is for the clientBody of a request.
type bodyKey struct{}

// serveBody serves a request, and notices if the client does not send all of its body.
func (x *proxy) serveBody(next http.Handler, w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		b := &clientBody{ReadCloser: r.Body, conn: http.NewResponseController(w), timeout: x.bodyTimeout}
		r = r.WithContext(context.WithValue(r.Context(), bodyKey{}, b))
		r.Body = b
	}
	next.ServeHTTP(w, r)
}

// bodyError is why the body of a client's request could not be read; nil if it could.
func bodyError(r *http.Request) error {
	if b, ok := r.Context().Value(bodyKey{}).(*clientBody); ok {
		if err := b.err.Load(); err != nil {
			return *err
		}
	}
	return nil
}

// A peerKey is for what checkPeer said of the connection of a request.
type peerKey struct{}

func (x *proxy) connContext(ctx context.Context, conn net.Conn) context.Context {
	if !x.peers {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, checkPeer(conn))
}

// isOurs reports whether a Host is an address of this proxy: a page that a browser has
// loaded from elsewhere may have a name that now leads here (DNS rebinding).
func (x *proxy) isOurs(host string) bool {
	if x.listener.Addr().Network() == "unix" {
		return host == "localhost" || strings.HasPrefix(host, "localhost:")
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil || port != strconv.Itoa(x.listener.Addr().(*net.TCPAddr).Port) {
		return false
	}
	return name == "127.0.0.1" || name == "::1" || name == "localhost"
}

// hasKey reports whether the request has the key.
func (x *proxy) hasKey(h http.Header) bool {
	found := false
	for _, name := range keyHeaders {
		for _, v := range h[name] {
			if name == "Authorization" {
				_, v, _ = strings.Cut(v, " ")
			}
			found = subtle.ConstantTimeCompare([]byte(v), []byte(x.key)) == 1 || found
		}
	}
	return found
}

// rewrite makes the upstream's request of the client's.
func (x *proxy) rewrite(r *httputil.ProxyRequest) {
	for _, name := range keyHeaders {
		r.Out.Header.Del(name) // the key goes no further
	}
	base := *x.target
	path := strings.TrimSuffix(base.Path, "/")
	r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = base.Scheme, base.Host, ""
	if rest, ok := strings.CutPrefix(r.Out.URL.Path, path); !ok || rest != "" && rest[0] != '/' {
		if r.Out.URL.RawPath != "" {
			r.Out.URL.RawPath = strings.TrimSuffix(base.EscapedPath(), "/") + r.Out.URL.RawPath
		}
		r.Out.URL.Path = path + r.Out.URL.Path
	}
	r.Out.URL.RawQuery = r.In.URL.RawQuery // as it is, also what Go cannot read
	accept := "identity"
	if acceptsGzip.MatchString(strings.Join(r.In.Header["Accept-Encoding"], ",")) {
		accept = "gzip"
	}
	r.Out.Header["Accept-Encoding"] = []string{accept} // a 401 in brotli could not be read
}

// acceptsGzip matches an Accept-Encoding that has gzip with a weight that is not zero.
var acceptsGzip = regexp.MustCompile(`(?i)(^|,)\s*gzip\s*(,|$|;\s*q=(1|0\.0*[1-9]))`)

// modify makes the client's response of the upstream's.
func (x *proxy) modify(resp *http.Response) error {
	for name := range resp.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			resp.Header.Del(name)
		}
	}
	x.relocate(resp)
	o, ok := reauth.OutcomeOf(resp)
	if !ok || resp.StatusCode != http.StatusUnauthorized {
		return nil
	}
	if o.Retry.StatusCode == 0 && o.Rejection.Reason.Refreshable() {
		return &noToken{o}
	}
	resp.Header.Set("Reauth-Reason", string(o.Rejection.Reason))
	if o.Retry.StatusCode != 0 {
		resp.Header.Set("Reauth-First-Request-Id", o.First.RequestID)
	}
	return nil
}

// relocate rewrites a Location of the upstream's origin.
func (x *proxy) relocate(resp *http.Response) {
	to, err := resp.Location()
	if err != nil || to.Scheme != x.target.Scheme || to.Host != x.target.Host {
		return
	}
	if to.Scheme, to.Host = "http", x.listener.Addr().String(); x.listener.Addr().Network() == "unix" {
		to.Host = "localhost"
	}
	resp.Header.Set("Location", to.String())
}

// A noToken is that there was no fresh token to try.
type noToken struct{ outcome reauth.Outcome }

func (e *noToken) Error() string {
	if e.outcome.Err != nil {
		return e.outcome.Err.Error()
	}
	return e.outcome.NotRetried.Text()
}

// in returns the text in a language, and what to do.
func (e *noToken) in(lang string) *message {
	why := e.Error()
	if e.outcome.Err == nil && lang == "zh" {
		why = notRetried[e.outcome.NotRetried]
	}
	return sayf("no new token was tried: %s; %s", why, sayAdvice(e.outcome.Advice, lang))
}

func (e *noToken) Unwrap() error { return e.outcome.Err }

// fail answers a request that got no response: never with a 401, at which SDKs give up
// for good, while they try again after a 503.
func (x *proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	var refresh *reauth.RefreshError
	var none *noToken
	status, text := http.StatusBadGateway, said(err, exitUnreachable, x.lang)
	var slow net.Error
	body := bodyError(r)
	switch {
	case body != nil:
		status, err = http.StatusBadRequest, body
		text = x.say("the body of the request ended before its end: %v", body)
		if errors.As(body, &slow) && slow.Timeout() {
			status, text = http.StatusRequestTimeout, x.say("the body of the request stopped for %v", x.bodyTimeout)
		}
	case r.Context().Err() != nil: // the client has gone, or sends no more
		x.log.Debug("the client has gone", slog.String("method", r.Method), slog.String("path", r.URL.Path))
		w.Header().Set("Connection", "close")
		x.answer(w, http.StatusBadRequest, x.say("the client closed the connection before the answer"))
		return
	case errors.As(err, &refresh) && refresh.Permanent(), errors.Is(err, reauth.ErrLoggedOut):
		status, text = http.StatusServiceUnavailable, said(err, exitLogin, x.lang)
		w.Header().Set("X-Should-Retry", "false")
	case errors.As(err, &refresh), errors.As(err, &none):
		status, text = http.StatusServiceUnavailable, said(err, exitLater, x.lang)
		if none != nil {
			text = said(none.in(x.lang), exitLater, x.lang)
		}
		wait := time.Second
		if refresh != nil {
			wait = max(wait, refresh.RetryAfter())
		}
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	case errors.As(err, &slow) && slow.Timeout():
		status = http.StatusGatewayTimeout
	}
	x.log.Warn("no response", slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", status), slog.String("error", err.Error()))
	x.answer(w, status, text)
}

// serve serves until ctx ends, and then lets requests end for a moment.
func (x *proxy) serve(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- x.server.Serve(x.listener) }()
	select {
	case err := <-done:
		return &exitError{exitFailed, err}
	case <-ctx.Done():
	}
	x.close()
	return nil
}

// close ends the proxy.
func (x *proxy) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if x.server.Shutdown(ctx) != nil {
		_ = x.server.Close()
	}
	_ = x.cred.Shutdown(ctx)
}

// writeKey writes the key for this user alone, whatever was there before.
func writeKey(name, key string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".reauth-key-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(key + "\n")
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func (c *command) proxyCommand() *cobra.Command {
	var f proxyFlags
	var keyFile, admin string
	var readyFD int
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Serve a proxy that adds the token, on this machine",
		Long: `Proxy serves the server of --to, or of the profile, on loopback or a unix socket. It adds
the token to requests, and sends a request again with a new token if the server rejects it.
A unix socket is for this user alone, and so is, on Linux, a port of loopback. With --key-file,
clients also need the key that is written there, in place of a token; elsewhere than on
Linux a port needs one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.key = keyFile != ""
			x, err := c.newProxy(cmd.Context(), f)
			if err != nil {
				return err
			}
			if keyFile != "" {
				if err := writeKey(keyFile, x.key); err != nil {
					return failf(exitFailed, "--key-file: %v", err)
				}
			}
			v := map[string]string{"url": x.url(), "to": x.target.String(), "listen": x.listener.Addr().String()}
			text := c.say("listening on %s for %s", x.url(), x.target) + "\n"
			if admin != "" {
				address, stop, err := x.serveAdmin(admin)
				if err != nil {
					return err
				}
				defer stop()
				v["admin"] = address
				text += c.say("metrics and health are on %s", address) + "\n"
			}
			if err := c.print(v, text); err != nil {
				return &exitError{exitFailed, err}
			}
			if readyFD > 0 {
				f := os.NewFile(uintptr(readyFD), "ready")
				if f == nil {
					return usagef("--ready-fd %d is no open file", readyFD)
				}
				_, err := fmt.Fprintln(f, x.url())
				if err = errors.Join(err, f.Close()); err != nil {
					return usagef("--ready-fd: %v", err)
				}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return x.serve(ctx)
		},
	}
	f.add(c, cmd)
	cmd.Flags().StringVar(&keyFile, "key-file", "", "have clients need a key, and write it to this file with mode 0600")
	cmd.Flags().BoolVar(&f.anyUser, "any-user", false, "serve other users of this machine too, who know the key")
	cmd.Flags().IntVar(&readyFD, "ready-fd", 0, "write a line to this file descriptor once the proxy listens")
	cmd.Flags().StringVar(&admin, "admin", "", "serve metrics and health on this address of loopback")
	return cmd
}
