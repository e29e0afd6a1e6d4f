package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
	"github.com/hashicorp/vault/api/auth/kubernetes"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // NewClient logs there
	os.Exit(m.Run())
}

// An upstream is the API that takes the key from Vault, one at a time.
type upstream struct {
	key        atomic.Value
	rejections atomic.Int32
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Request-Id", "req-1")
	if r.Header.Get("Authorization") != "Bearer "+u.key.Load().(string) {
		u.rejections.Add(1)
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = io.WriteString(w, "hello")
}

// write puts content into a new file, or replaces it as an agent does.
func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".next", []byte(content), 0o600))
	require.NoError(t, os.Rename(path+".next", path))
}

func appRole(t *testing.T, secretID string) Login {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret-id")
	write(t, path, secretID)
	method, err := approle.NewAppRoleAuth("app", &approle.SecretID{FromFile: path})
	require.NoError(t, err)
	return method.Login
}

// The worst of days: at each request the API key was rotated, Vault's token
// revoked, and the token of the service account replaced.
func TestRotationAndRevocationNeverReachTheCaller(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "of-the-developer") // must not be used
	v, u := newVault(), &upstream{}
	jwt := filepath.Join(t.TempDir(), "jwt")
	cfg := api.DefaultConfig()
	cfg.Address = serve(t, v)
	client, err := NewClient(cfg, Kubernetes("app", kubernetes.WithServiceAccountTokenPath(jwt)))
	require.NoError(t, err)
	key := Key{Client: client, Mount: "secret", Path: "app", Member: "api_key"}
	apiURL := serve(t, u)
	caller := reauth.NewClient(key)

	for i := range 5 {
		fresh := fmt.Sprint("key-", i)
		u.key.Store(fresh)
		v.do(func() {
			clear(v.tokens)
			v.data["api_key"] = fresh
			v.jwt = fmt.Sprint("jwt-", i)
			write(t, jwt, v.jwt)
		})
		resp, err := caller.Get(apiURL)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, http.StatusOK, resp.StatusCode, "rotation %d", i)
		assert.EqualValues(t, i, u.rejections.Load(), "one 401 for each rotation, cured in place")
		v.do(func() {
			assert.Equal(t, i+1, v.logins)
			assert.Equal(t, i, v.refused, "one 403 for each revocation, cured in place")
		})
	}
}

func TestLeaseNeverEndsUnderARequest(t *testing.T) {
	login := appRole(t, "secret-id-1")
	synctest.Test(t, func(t *testing.T) {
		v := newVault()
		v.lease = time.Minute
		v.data["api_key"] = "key-1"
		key := Key{Client: clientOf(t, v, login), Mount: "secret", Path: "app", Member: "api_key"}
		for range 600 {
			_, err := key.Refresh(t.Context(), reauth.Stale{})
			require.NoError(t, err)
			synctest.Wait() // for a login ahead of the end
			time.Sleep(time.Second)
		}
		v.do(func() {
			assert.Zero(t, v.refused)
			assert.GreaterOrEqual(t, v.logins, 10)
			assert.LessOrEqual(t, v.logins, 21, "at most two for each lease")
		})
	})
}

func TestFailedLoginIsNeverRepeatedByVaultsClient(t *testing.T) {
	login := appRole(t, "planted-secret-id")
	synctest.Test(t, func(t *testing.T) {
		v := newVault()
		key := Key{Client: clientOf(t, v, login), Mount: "secret", Path: "app", Member: "api_key"}
		began := time.Now()
		_, err := key.Refresh(t.Context(), reauth.Stale{})
		var failure *reauth.RefreshError
		require.ErrorAs(t, err, &failure)
		assert.ErrorContains(t, err, "invalid role or secret ID")
		assert.NotContains(t, err.Error(), "planted-secret-id")
		assert.Zero(t, time.Since(began))
		v.do(func() { assert.Equal(t, 1, v.logins) })
	})
}

func TestUnchangedKeyIsReadAgainASecondLater(t *testing.T) {
	login := appRole(t, "secret-id-1")
	synctest.Test(t, func(t *testing.T) {
		v := newVault()
		v.data["api_key"] = "planted-key"
		cred := &reauth.Credential{Refresher: Key{clientOf(t, v, login), "secret", "app", "api_key"}}
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		renew := func() (reauth.Token, error) {
			return cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
		}
		for range 10 { // the pause does not grow
			_, err = renew()
			assert.ErrorContains(t, err, `"api_key" of the secret secret/app is still the rejected key`)
			assert.NotContains(t, err.Error(), "planted-key")
			time.Sleep(time.Second - time.Nanosecond)
			_, err = renew()
			require.Error(t, err)
			time.Sleep(time.Nanosecond)
		}
		v.do(func() {
			assert.Equal(t, 11, v.reads)
			v.data["api_key"] = "new"
		})
		tok, err = renew()
		require.NoError(t, err)
		assert.Equal(t, "new", tok.AccessToken)
	})
}

func TestErrorsNameTheSecretAndNeverItsValue(t *testing.T) {
	const planted = "planted-9f3b"
	login := appRole(t, "secret-id-1")
	for name, tc := range map[string]struct {
		path, member string
		data         map[string]any
		want         string
	}{
		"no secret":     {"other", "api_key", nil, "secret/data/other"},
		"deleted":       {"app", "api_key", nil, `"api_key" of the secret secret/app: the secret is deleted`},
		"no member":     {"app", "key", map[string]any{"api_key": planted}, `"key" of the secret secret/app is not there`},
		"no string":     {"app", "api_key", map[string]any{"api_key": []string{planted}}, `"api_key" of the secret secret/app is not there, or no string`},
		"empty":         {"app", "api_key", map[string]any{"api_key": ""}, "the access token is empty"},
		"pasted badly":  {"app", "api_key", map[string]any{"api_key": planted + "\n"}, "the access token ends in a line break"},
		"not permitted": {"forbidden", "api_key", nil, "secret/data/forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVault()
			v.data = tc.data
			key := Key{clientOf(t, v, login), "secret", tc.path, tc.member}
			_, own := key.Refresh(t.Context(), reauth.Stale{})
			_, err := (&reauth.Credential{Refresher: key}).Token(t.Context())
			require.ErrorContains(t, err, tc.want)
			for _, text := range []string{fmt.Sprint(own), fmt.Sprintf("%v %+v %#v", err, err, err)} {
				assert.NotContains(t, text, planted)
				assert.NotContains(t, text, "hvs.")
			}
		})
	}
}

// What a policy forbids, no login cures. Vault does not always say so, so that it
// may cost one.
func TestForbiddenSecretNeverCostsALoginForEachRead(t *testing.T) {
	login := appRole(t, "secret-id-1")
	synctest.Test(t, func(t *testing.T) {
		v := newVault()
		key := Key{clientOf(t, v, login), "secret", "forbidden", "api_key"}
		for range 60 {
			_, err := key.Refresh(t.Context(), reauth.Stale{})
			assert.ErrorContains(t, err, "permission denied")
			time.Sleep(time.Second)
		}
		v.do(func() { assert.LessOrEqual(t, v.logins, 12) })
	})
}

func TestCommandShowsTheAnswerOrTheRequestID(t *testing.T) {
	v, u := newVault(), &upstream{}
	v.data["api_key"] = "key-1"
	u.key.Store("key-1")
	t.Setenv("VAULT_ADDR", serve(t, v))
	t.Setenv("VAULT_ROLE_ID", "app")
	path := filepath.Join(t.TempDir(), "secret-id")
	write(t, path, "secret-id-1\n")
	apiURL := serve(t, u)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out, []string{"-secret-id", path, apiURL}))
	assert.Equal(t, "hello", out.String())

	u.key.Store("key-2") // and Vault does not know
	err := run(t.Context(), &out, []string{"-secret-id", path, apiURL})
	assert.ErrorContains(t, err, `401 Unauthorized, request id "req-1"`)
	assert.EqualValues(t, 1, u.rejections.Load(), "the same key is not sent twice")
}
