package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// An etcd is Debian's etcd 3.4 with users, spoken to over its JSON gateway. It
// wants its token bare in Authorization.
type etcd struct {
	*daemon
	url    string
	logins atomic.Int32 // requests for a token
}

// startEtcd starts an etcd that has a user root, and authentication enabled.
func startEtcd(t *testing.T, args ...string) *etcd {
	t.Helper()
	e := &etcd{}
	started := false
	for range 5 { // somebody may have taken the port
		address := freeAddress(t)
		e.url = "http://" + address
		const peers = "http://127.0.0.1:0" // it has none
		all := append([]string{
			"--data-dir", filepath.Join(t.TempDir(), "data"), "--logger", "zap", "--log-outputs", "stderr",
			"--listen-client-urls", e.url, "--advertise-client-urls", e.url,
			"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default=" + peers,
		}, args...)
		if started = e.start(t, all...); started {
			break
		}
	}
	require.True(t, started, "etcd does not start")
	for _, step := range []struct{ path, body string }{
		{"/v3/auth/user/add", `{"name":"root","password":"root's-password"}`},
		{"/v3/auth/role/add", `{"name":"root"}`},
		{"/v3/auth/user/grant", `{"user":"root","role":"root"}`},
		{"/v3/auth/enable", `{}`},
	} {
		require.Equal(t, http.StatusOK, e.post(t, unpooled, step.path, step.body, nil))
	}
	return e
}

// unpooled leaves no connections to servers that are killed.
var unpooled = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}

// start starts the server, and reports whether it runs.
func (e *etcd) start(t *testing.T, args ...string) bool {
	t.Helper()
	e.daemon = startDaemon(t, "etcd-server", "etcd", args...)
	if e.says(t, `serving client traffic insecurely`) == "" {
		return false
	}
	e.answers(t, e.url+"/health")
	return true
}

// post sends a request, decodes a 200, and returns the status.
func (e *etcd) post(t *testing.T, client *http.Client, path, body string, into any) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+path, bytes.NewReader([]byte(body)))
	if !assert.NoError(t, err) {
		return 0
	}
	resp, err := client.Do(req)
	if !assert.NoError(t, err) {
		return 0
	}
	defer resp.Body.Close()
	if into == nil || resp.StatusCode != http.StatusOK {
		into = new(any)
	}
	assert.NoError(t, json.NewDecoder(resp.Body).Decode(into))
	return resp.StatusCode
}

// login is the Refresher of a user whose password may change.
func (e *etcd) login(name string, password *atomic.Value) reauth.Refresher {
	return reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
		e.logins.Add(1)
		body := fmt.Appendf(nil, `{"name":%q,"password":%q}`, name, password.Load())
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/v3/auth/authenticate", bytes.NewReader(body))
		if err != nil {
			return reauth.Token{}, err
		}
		resp, err := unpooled.Do(req)
		if err != nil {
			return reauth.Token{}, err
		}
		defer resp.Body.Close()
		var answer struct{ Token, Error string }
		err = json.NewDecoder(resp.Body).Decode(&answer)
		if resp.StatusCode == http.StatusBadRequest { // the password is wrong
			return reauth.Token{}, reauth.Permanent(errors.New(answer.Error))
		}
		return reauth.Token{AccessToken: answer.Token}, err
	})
}

// client returns a client for the user, and what goes over the wire.
func (e *etcd) client(t *testing.T, name string, password *atomic.Value) (*http.Client, *reauth.Transport, *ledger) {
	t.Helper()
	wire := &ledger{}
	t.Cleanup(wire.CloseIdleConnections)
	rt := &reauth.Transport{
		Base: wire, Scheme: reauth.NoScheme, Origins: []string{e.url}, Logger: discard,
		Credential: &reauth.Credential{Refresher: e.login(name, password), Logger: discard},
	}
	return &http.Client{Transport: rt}, rt, wire
}

func rootsPassword() *atomic.Value { return value("root's-password") }

func value(s string) *atomic.Value {
	v := new(atomic.Value)
	v.Store(s)
	return v
}

const (
	putFoo = `{"key":"Zm9v","value":"YmFy"}` // foo, bar
	getFoo = `{"key":"Zm9v"}`
)

type keyValues struct {
	KVs []struct{ Value string } `json:"kvs"`
}

// forget waits until etcd has dropped the token that is held, which it does when
// that was not used for the time of --auth-token-ttl.
func (e *etcd) forget(t *testing.T, cred *reauth.Credential) {
	t.Helper()
	tok, err := cred.Current()
	require.NoError(t, err)
	require.NotEmpty(t, e.says(t, `"deleted a simple token".*`+regexp.QuoteMeta(tok.AccessToken)))
}

func TestEtcdForgetsATokenAndNoCallerNotices(t *testing.T) {
	e := startEtcd(t, "--auth-token-ttl", "2")
	client, rt, wire := e.client(t, "root", rootsPassword())
	require.Equal(t, http.StatusOK, e.post(t, client, "/v3/kv/put", putFoo, nil))
	assert.Equal(t, 1, wire.count("", 0))

	e.forget(t, rt.Credential)
	var got keyValues
	assert.Equal(t, http.StatusOK, e.post(t, client, "/v3/kv/range", getFoo, &got))
	require.Len(t, got.KVs, 1)
	assert.Equal(t, "YmFy", got.KVs[0].Value)
	assert.Equal(t, 1, wire.count("", http.StatusUnauthorized))
	assert.Equal(t, 3, wire.count("", 0))
	assert.EqualValues(t, 2, e.logins.Load())

	e.forget(t, rt.Credential)
	const callers = 100
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() { assert.Equal(t, http.StatusOK, e.post(t, client, "/v3/kv/put", putFoo, nil)) })
	}
	wg.Wait()
	met := wire.count("", http.StatusUnauthorized) - 1
	t.Logf("%d callers met %d 401s", callers, met)
	assert.Equal(t, 3+callers+met, wire.count("", 0))
	assert.EqualValues(t, 3, e.logins.Load())
	for _, entry := range wire.entries {
		assert.Regexp(t, `^[A-Za-z]+\.\d+$`, entry.authorization, "a token is sent bare")
	}
}

// A change of the password drops the user's tokens.
func TestAnEtcdUserWithAnotherPasswordLogsInWithThat(t *testing.T) {
	e := startEtcd(t)
	root, _, _ := e.client(t, "root", rootsPassword())
	for _, step := range []struct{ path, body string }{
		{"/v3/auth/role/add", `{"name":"app"}`},
		{"/v3/auth/role/grant", `{"name":"app","perm":{"permType":"READWRITE","key":"Zm9v"}}`},
		{"/v3/auth/user/add", `{"name":"app","password":"first"}`},
		{"/v3/auth/user/grant", `{"user":"app","role":"app"}`},
	} {
		require.Equal(t, http.StatusOK, e.post(t, root, step.path, step.body, nil))
	}
	password := value("first")
	app, rt, wire := e.client(t, "app", password)
	require.Equal(t, http.StatusOK, e.post(t, app, "/v3/kv/put", putFoo, nil))

	require.Equal(t, http.StatusOK, e.post(t, root, "/v3/auth/user/changepw", `{"name":"app","password":"second"}`, nil))
	password.Store("second")
	before := e.logins.Load()
	assert.Equal(t, http.StatusOK, e.post(t, app, "/v3/kv/put", putFoo, nil))
	assert.Equal(t, 1, wire.count("", http.StatusUnauthorized))
	assert.EqualValues(t, 1, e.logins.Load()-before)

	// What the user may not do, no other token of his may.
	wire.reset()
	assert.Equal(t, http.StatusForbidden, e.post(t, app, "/v3/kv/put", `{"key":"YmF6","value":"YmFy"}`, nil))
	assert.Equal(t, 1, wire.count("", 0))

	require.Equal(t, http.StatusOK, e.post(t, root, "/v3/auth/user/changepw", `{"name":"app","password":"third"}`, nil))
	before = e.logins.Load()
	wire.reset()
	for range 10 {
		assert.Equal(t, http.StatusUnauthorized, e.post(t, app, "/v3/kv/put", putFoo, nil), "as etcd said")
	}
	assert.Equal(t, 10, wire.count("", http.StatusUnauthorized))
	assert.EqualValues(t, 1, e.logins.Load()-before, "a wrong password is not tried again")
	_, err := rt.Credential.Current()
	assert.ErrorContains(t, err, "authentication failed")

	password.Store("third")
	require.NoError(t, rt.Credential.Clear(t.Context()))
	assert.Equal(t, http.StatusOK, e.post(t, app, "/v3/kv/put", putFoo, nil))
}

// etcdRejections is the Classifier for the two refusals of a token that etcd does
// not tell by a 401: that of a JWT from before a change of users or roles is a 400,
// and that of a watch comes in a 200, as the stream's first message.
//
// To look for it holds up a watch by the second for which a Classifier may look.
func etcdRejections(resp *http.Response, body func() []byte) reauth.Rejection {
	said := func(text string) bool { return bytes.Contains(body(), []byte(text)) }
	switch {
	case resp.StatusCode == http.StatusBadRequest && said("revision of auth store is old"),
		resp.StatusCode == http.StatusOK && resp.Request.URL.Path == "/v3/watch" && said("etcdserver: invalid auth token"):
		return reauth.Rejection{Reason: reauth.ReasonInvalidToken}
	}
	return reauth.DefaultClassifier().Classify(resp, body)
}

func TestAChangeOfUsersDoesNotFailThoseWithAJWT(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	e := startEtcd(t, "--auth-token", fmt.Sprintf("jwt,sign-method=RS256,ttl=10m,pub-key=%s,priv-key=%s",
		write("public.pem", "PUBLIC KEY", public), write("private.pem", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))))

	plain, _, _ := e.client(t, "root", rootsPassword())
	client, rt, wire := e.client(t, "root", rootsPassword())
	rt.Classifier = reauth.ClassifierFunc(etcdRejections)
	for _, c := range []*http.Client{plain, client} {
		require.Equal(t, http.StatusOK, e.post(t, c, "/v3/kv/put", putFoo, nil))
	}
	require.Equal(t, http.StatusOK, e.post(t, client, "/v3/auth/user/add", `{"name":"ann","password":"ann's"}`, nil))
	assert.EqualValues(t, 2, e.logins.Load())
	assert.Equal(t, http.StatusBadRequest, e.post(t, plain, "/v3/kv/put", putFoo, nil), "a 400 is not for the built-in Classifier")
	assert.EqualValues(t, 2, e.logins.Load())

	wire.reset()
	assert.Equal(t, http.StatusOK, e.post(t, client, "/v3/kv/put", putFoo, nil))
	assert.Equal(t, 1, wire.count("", http.StatusBadRequest))
	assert.Equal(t, 2, wire.count("", 0))
	assert.EqualValues(t, 3, e.logins.Load())

	// Other 400s are what they are.
	assert.Equal(t, http.StatusBadRequest, e.post(t, client, "/v3/kv/put", `{"value":"YmFy"}`, nil))
	assert.Equal(t, 3, wire.count("", 0))
}

func TestAnEtcdWatchOutlivesItsTokenAndBeginsWithAGoodOne(t *testing.T) {
	e := startEtcd(t, "--auth-token-ttl", "2")
	client, rt, wire := e.client(t, "root", rootsPassword())
	rt.Classifier = reauth.ClassifierFunc(etcdRejections)
	watch := func() *json.Decoder {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/v3/watch",
			bytes.NewReader([]byte(`{"create_request":`+getFoo+`}`)))
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		t.Cleanup(func() { _ = resp.Body.Close() })
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		return json.NewDecoder(resp.Body)
	}
	type message struct {
		Result struct {
			Created, Canceled bool
			Events            []struct{ KV struct{ Value string } }
		}
	}
	next := func(stream *json.Decoder) (m message) {
		within(t, 30*time.Second, func() { assert.NoError(t, stream.Decode(&m)) })
		return m
	}

	first := watch()
	m := next(first)
	assert.True(t, m.Result.Created)
	assert.False(t, m.Result.Canceled)
	assert.Equal(t, 1, wire.count("", 0))

	e.forget(t, rt.Credential)
	second := watch()
	m = next(second)
	assert.True(t, m.Result.Created)
	assert.False(t, m.Result.Canceled)
	assert.Equal(t, 3, wire.count("", http.StatusOK), "the one in the middle was canceled")
	assert.EqualValues(t, 2, e.logins.Load())

	require.Equal(t, http.StatusOK, e.post(t, client, "/v3/kv/put", putFoo, nil))
	for _, stream := range []*json.Decoder{first, second} {
		m := next(stream)
		if assert.Len(t, m.Result.Events, 1) {
			assert.Equal(t, "YmFy", m.Result.Events[0].KV.Value)
		}
	}
}
