package e2e_test

import (
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// quickly returns a Transport that waits less before its retry.
func quickly(cred *reauth.Credential) *reauth.Transport {
	return &reauth.Transport{Credential: cred, RetryWait: time.Millisecond, Logger: discard}
}

// A kubeAPI is a simulated API server: no more of one than client-go needs. But its
// 401 is what kube-apiserver sends: a Status, an Audit-Id, and no WWW-Authenticate.
// That is why it is no reauthtest.API, whose 401 is that of RFC 6750.
type kubeAPI struct {
	*httptest.Server // TLS and HTTP/2
	*cluster
	issuer *reauthtest.Issuer

	mu       sync.Mutex
	requests []kubeRequest // in the order of their arrival
	answers  []http.HandlerFunc
}

type kubeRequest struct {
	method, query, token, body string
	auditID                    string
	status                     int // 0 for what the cluster answers
}

func newKubeAPI(t *testing.T, names ...string) *kubeAPI {
	t.Helper()
	k := &kubeAPI{cluster: newCluster(names...), issuer: reauthtest.NewIssuer()}
	t.Cleanup(k.issuer.Close)
	k.Server = httptest.NewUnstartedServer(http.HandlerFunc(k.serve))
	k.EnableHTTP2 = true
	k.StartTLS()
	t.Cleanup(k.Close)
	return k
}

// next has the next requests answered by these, whatever their token.
func (k *kubeAPI) next(answers ...http.HandlerFunc) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answers = append(k.answers, answers...)
}

func (k *kubeAPI) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	seen := kubeRequest{
		method: r.Method, query: r.URL.RawQuery, body: string(body), auditID: rand.Text(),
		token: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
	}
	answer := k.cluster.ServeHTTP
	k.mu.Lock()
	switch {
	case len(k.answers) > 0:
		answer, k.answers = k.answers[0], k.answers[1:]
	case !k.issuer.Valid(seen.token):
		seen.status = http.StatusUnauthorized
		answer = kubeStatus(http.StatusUnauthorized, "Unauthorized", "Unauthorized")
	case strings.Contains(r.URL.RawQuery, "sendInitialEvents"): // from before WatchList: informers list then
		seen.status = http.StatusUnprocessableEntity
		answer = kubeStatus(http.StatusUnprocessableEntity, "Invalid", "sendInitialEvents is forbidden for watch")
	}
	k.requests = append(k.requests, seen)
	k.mu.Unlock()
	w.Header().Set("Audit-Id", seen.auditID)
	r.Body = io.NopCloser(strings.NewReader(seen.body))
	answer(w, r)
}

// kubeStatus returns a handler that answers with a Status, and with headers given
// as pairs of name and value.
func kubeStatus(code int, reason, message string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-cache, private")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{},
			"status": "Failure", "message": message, "reason": reason, "code": code,
		})
	}
}

// since returns the requests that came after the first n.
func (k *kubeAPI) since(n int) []kubeRequest {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.requests[n:])
}

func (k *kubeAPI) sends() int { return len(k.since(0)) }

// config returns what a kubeconfig would: no more than the address and the
// authority. client-go makes its own TLS transport of it, and reauth wraps that.
func (k *kubeAPI) config(tr *reauth.Transport) *rest.Config {
	config := &rest.Config{
		Host: k.URL,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate().Raw}),
		},
	}
	config.Wrap(func(base http.RoundTripper) http.RoundTripper {
		tr.Base = base
		return tr
	})
	return config
}

// client returns a client for config maps.
func (k *kubeAPI) client(t *testing.T, config *rest.Config) dynamic.ResourceInterface {
	t.Helper()
	// client-go keeps its transports, and with them their connections, by what is in
	// the config; this one is closed with the test.
	hc, err := rest.HTTPClientFor(config)
	require.NoError(t, err)
	t.Cleanup(hc.CloseIdleConnections)
	client, err := dynamic.NewForConfigAndClient(config, hc)
	require.NoError(t, err)
	return client.Resource(configMaps).Namespace("default")
}

// expired waits until the token has come to the end of its life.
func expired(t *testing.T, tok reauth.Token) {
	t.Helper()
	require.Eventually(t, func() bool { return time.Now().After(tok.Expiry) }, 10*time.Second, time.Millisecond)
}

// received returns what comes through the channel, and fails the test if nothing
// does.
func received[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came for ten seconds")
	}
	return v
}

// watching reports whether the last request is a watch that the cluster serves.
func (k *kubeAPI) watching() bool {
	all := k.since(0)
	if len(all) == 0 {
		return false
	}
	last := all[len(all)-1]
	return last.status == 0 && strings.Contains(last.query, "watch=true")
}
