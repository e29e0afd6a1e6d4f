package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// A vault answers as HashiCorp Vault does, but is none: that takes too long to
// build for a test. It knows the logins by AppRole and by Kubernetes, and how to
// read a secret of the key-value store, version 2. The answers are those of the
// documentation (https://developer.hashicorp.com/vault/api-docs), the errors in
// them those in the source of Vault 1.21.
type vault struct {
	mu       sync.Mutex
	secretID string
	jwt      string
	lease    time.Duration
	tokens   map[string]time.Time // the good ones, and when they end
	data     map[string]any       // of the secret secret/app; nil: it is deleted
	logins   int
	reads    int
	refused  int // reads with a bad token
}

func newVault() *vault {
	return &vault{secretID: "secret-id-1", jwt: "jwt-1", lease: time.Hour, tokens: map[string]time.Time{}, data: map[string]any{}}
}

// do changes or reads what the server's requests do too.
func (v *vault) do(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch r.Method + " " + r.URL.Path {
	case "PUT /v1/auth/approle/login":
		v.login(w, r, http.StatusBadRequest, "invalid role or secret ID", map[string]string{"role_id": "app", "secret_id": v.secretID})
	case "PUT /v1/auth/kubernetes/login":
		v.login(w, r, http.StatusForbidden, "permission denied", map[string]string{"role": "app", "jwt": v.jwt})
	default:
		v.read(w, r)
	}
}

func (v *vault) login(w http.ResponseWriter, r *http.Request, status int, refusal string, want map[string]string) {
	v.logins++
	var got map[string]string
	_ = json.NewDecoder(r.Body).Decode(&got)
	for member, value := range want {
		if got[member] != value {
			answer(w, status, map[string]any{"errors": []string{refusal}})
			return
		}
	}
	token := fmt.Sprint("hvs.token-", v.logins)
	v.tokens[token] = time.Now().Add(v.lease)
	answer(w, http.StatusOK, map[string]any{"data": nil, "auth": map[string]any{
		"client_token": token, "accessor": "accessor", "policies": []string{"default", "app"},
		"lease_duration": int(v.lease.Seconds()), "renewable": true, "token_type": "service",
	}})
}

func (v *vault) read(w http.ResponseWriter, r *http.Request) {
	v.reads++
	if end, ok := v.tokens[r.Header.Get("X-Vault-Token")]; !ok || time.Now().After(end) {
		v.refused++
		answer(w, http.StatusForbidden, map[string]any{"errors": []string{"2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"}})
		return
	}
	metadata := map[string]any{"created_time": "2026-11-25T06:00:00.1Z", "deletion_time": "", "destroyed": false, "version": 1, "custom_metadata": nil}
	switch {
	case !slices.Contains([]string{"/v1/secret/data/app", "/v1/secret/data/other"}, r.URL.Path):
		answer(w, http.StatusForbidden, map[string]any{"errors": []string{"1 error occurred:\n\t* permission denied\n\n"}})
	case strings.HasSuffix(r.URL.Path, "/other"):
		answer(w, http.StatusNotFound, map[string]any{"errors": []string{}})
	case v.data == nil:
		metadata["deletion_time"] = "2026-11-25T06:00:01.1Z"
		answer(w, http.StatusNotFound, map[string]any{"data": map[string]any{"data": nil, "metadata": metadata}})
	default:
		answer(w, http.StatusOK, map[string]any{"data": map[string]any{"data": v.data, "metadata": metadata}})
	}
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// RoundTrip makes it a Transport, for tests without a network.
func (v *vault) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	v.ServeHTTP(w, req)
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return w.Result(), nil
}

// serve starts v on loopback and returns its address.
func serve(t *testing.T, v http.Handler) string {
	s := httptest.NewServer(v)
	t.Cleanup(s.Close)
	return s.URL
}

// clientOf returns a client of v that is not served.
func clientOf(t *testing.T, v *vault, login Login) *api.Client {
	t.Helper()
	cfg := api.DefaultConfig()
	cfg.Address = "https://vault.test"
	cfg.HttpClient.Transport = v
	client, err := NewClient(cfg, login)
	require.NoError(t, err)
	return client
}
