package refresher_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// localMarker is a token, or a part of one, that must appear in no text.
const localMarker = "kT7qZ2mXw9LrVb4N"

// program is the test binary, which does what is named here when it is run with
// localFlag, and nothing else. An init rather than a TestMain leaves that to others.
const localFlag = "-local-program"

func program(do string, args ...string) []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return append([]string{self, localFlag, do}, args...)
}

func init() {
	if len(os.Args) < 3 || os.Args[1] != localFlag {
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // a second, else, at the end of each program
		return
	}
	do, args := os.Args[2], os.Args[3:]
	switch do {
	case "print": // text
		fmt.Print(args[0])
	case "fail": // code, standard output, standard error
		fmt.Print(args[1])
		fmt.Fprint(os.Stderr, args[2])
		code, _ := strconv.Atoi(args[0])
		os.Exit(code)
	case "flood": // bytes, stream
		n, _ := strconv.Atoi(args[0])
		out, code := os.Stdout, 0
		if args[1] == "stderr" {
			out, code = os.Stderr, 1
		}
		_, _ = out.Write(bytes.Repeat([]byte("a"), n))
		os.Exit(code)
	case "tell": // what it was given, in a form that passes for a token
		stdin, _ := io.ReadAll(os.Stdin)
		all, _ := json.Marshal(map[string]string{
			"args": strings.Join(args, "|"), "stdin": string(stdin),
			"reason": os.Getenv("REAUTH_REASON"), "scope": os.Getenv("REAUTH_SCOPE"), "claims": os.Getenv("REAUTH_CLAIMS"),
			"kubernetes": os.Getenv("KUBERNETES_EXEC_INFO"), "own": os.Getenv("LOCAL_TEST_OWN"),
		})
		fmt.Println(hex.EncodeToString(all))
	case "env": // name
		tok, err := refresher.Env(args[0]).Refresh(context.Background(), reauth.Stale{})
		fmt.Print(tok.AccessToken, " ", err)
	case "hold": // address: lives as long as the connection
		conn, err := net.Dial("tcp", args[0])
		if err != nil {
			os.Exit(1)
		}
		_, _ = io.Copy(io.Discard, conn)
	case "parent": // address: waits for a child that holds on
		_ = child(args[0]).Run()
	case "abandon": // address, text: leaves a child behind that has the standard output
		if err := child(args[0]).Start(); err != nil {
			os.Exit(1)
		}
		fmt.Print(args[1])
	}
	os.Exit(0)
}

func child(address string) *exec.Cmd {
	self := program("hold", address)
	cmd := exec.Command(self[0], self[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

// localFile writes a file of its own, and returns its path.
func localFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	overwrite(t, path, content)
	return path
}

func overwrite(t testing.TB, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

// A localSource makes a Refresher of the package that finds the token somewhere.
type localSource struct {
	name      string
	permanent bool // its failures are
	paced     bool // its failures ask for one second
	with      func(t testing.TB, token string) reauth.Refresher
}

// localSources are all of them that need no server.
func localSources() []localSource {
	var n atomic.Int64
	asJSON := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return string(data)
	}
	return []localSource{
		{"Static", true, false, func(_ testing.TB, token string) reauth.Refresher { return refresher.Static(token) }},
		{"Env", true, false, func(t testing.TB, token string) reauth.Refresher {
			name := fmt.Sprint("LOCAL_TEST_TOKEN_", n.Add(1))
			require.NoError(t, os.Setenv(name, token))
			t.Cleanup(func() { _ = os.Unsetenv(name) })
			return refresher.Env(name)
		}},
		{"DotEnv", false, true, func(t testing.TB, token string) reauth.Refresher {
			return refresher.DotEnv(localFile(t, ".env", "OTHER=1\nKEY='"+token+"'\n"), "KEY")
		}},
		{"File", false, true, func(t testing.TB, token string) reauth.Refresher {
			return refresher.File(localFile(t, "token", token))
		}},
		{"File of JSON", false, true, func(t testing.TB, token string) reauth.Refresher {
			return refresher.File(localFile(t, "token.json", asJSON(map[string]any{"access_token": token, "token_type": "Bearer"})))
		}},
		{"JSONFile", false, true, func(t testing.TB, token string) reauth.Refresher {
			return refresher.JSONFile(localFile(t, "vault.json", asJSON(map[string]any{"auth": map[string]any{"client_token": token}})), "/auth/client_token")
		}},
		{"Exec", false, false, func(_ testing.TB, token string) reauth.Refresher {
			return refresher.Exec(program("print", token)...)
		}},
		{"Chain", false, true, func(t testing.TB, token string) reauth.Refresher {
			return refresher.Chain(refresher.Env("LOCAL_TEST_UNSET"), refresher.File(localFile(t, "token", token)))
		}},
	}
}

// localJWT returns a JWT with the payload, unsigned.
func localJWT(payload string) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"none"}`)) + "." + part([]byte(payload)) + ".c2ln"
}

// rejected is the Stale of a Refresher after a 401.
func rejected(token string) reauth.Stale {
	return reauth.Stale{
		Token:     reauth.Token{AccessToken: token},
		Rejection: reauth.Rejection{Reason: reauth.ReasonInvalidToken, StatusCode: http.StatusUnauthorized},
	}
}

// asksFor returns the RetryAfter of an error, as a Credential sees it.
func asksFor(err error) time.Duration {
	var asks interface{ RetryAfter() time.Duration }
	if errors.As(err, &asks) {
		return asks.RetryAfter()
	}
	return 0
}

type localBase func(*http.Request) (*http.Response, error)

func (f localBase) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// A localAPI is a Base that accepts the tokens for which accepts says so, and
// notes what it was sent.
type localAPI struct {
	accepts func(token string) bool
	date    func() time.Time // nil: no Date

	mu   sync.Mutex
	sent []string
}

func (a *localAPI) RoundTrip(req *http.Request) (*http.Response, error) {
	token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	a.mu.Lock()
	a.sent = append(a.sent, token)
	a.mu.Unlock()
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: req}
	if a.date != nil {
		resp.Header.Set("Date", a.date().UTC().Format(http.TimeFormat))
	}
	if !a.accepts(token) {
		resp.StatusCode = http.StatusUnauthorized
		resp.Header.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	return resp, nil
}

// sends returns what was sent since it was last asked.
func (a *localAPI) sends() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.sent
	a.sent = nil
	return all
}

// accepting is for an API that knows one token at a time.
type accepting struct{ atomic.Value }

func (a *accepting) is(token string) bool { now, _ := a.Load().(string); return now == token }

var localDiscard = slog.New(slog.DiscardHandler)

// through returns a Transport that gets its tokens from r.
func through(r reauth.Refresher, base http.RoundTripper) *reauth.Transport {
	return &reauth.Transport{Base: base, Credential: &reauth.Credential{Refresher: r, Logger: localDiscard}, Logger: localDiscard}
}

// localGet sends a request and returns its status and its Outcome.
func localGet(t testing.TB, rt http.RoundTripper) (int, reauth.Outcome) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.test/", nil)
	require.NoError(t, err)
	resp, err := rt.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	o, _ := reauth.OutcomeOf(resp)
	return resp.StatusCode, o
}

// localWithin fails the test if f takes longer than d of real time.
func localWithin(t testing.TB, d time.Duration, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("still not done after %v", d)
	}
}

// keepsSecret checks that what is printed of v does not have the secret in it,
// with any verb, nor, if it is an error, do those that it wraps.
func keepsSecret(t testing.TB, secret string, v any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		s := fmt.Sprintf(verb, v)
		assert.NotContains(t, s, secret, verb)
		assert.NotContains(t, strings.ToLower(s), hex.EncodeToString([]byte(secret)), verb)
	}
	switch err := v.(type) {
	case interface{ Unwrap() []error }:
		for _, e := range err.Unwrap() {
			keepsSecret(t, secret, e)
		}
	case interface{ Unwrap() error }:
		if e := err.Unwrap(); e != nil {
			keepsSecret(t, secret, e)
		}
	}
}
