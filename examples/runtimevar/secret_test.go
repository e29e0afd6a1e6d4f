package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// An api accepts one key at a time.
type api struct {
	*httptest.Server
	key        atomic.Value
	rejections atomic.Int32
}

func newAPI(t *testing.T, key string) *api {
	a := &api{}
	a.key.Store(key)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "req-1")
		if r.Header.Get("Authorization") != "Bearer "+a.key.Load().(string) {
			a.rejections.Add(1)
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "hello")
	}))
	t.Cleanup(a.Close)
	return a
}

// put replaces the file as a secret manager's agent does: by a rename.
func put(t *testing.T, path, content string) {
	t.Helper()
	next := path + ".next"
	require.NoError(t, os.WriteFile(next, []byte(content), 0o600))
	require.NoError(t, os.Rename(next, path))
}

func fileURL(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

var discard = slog.New(slog.DiscardHandler)

func TestKeyRotatedInAFileNeverReachesTheCallerAsA401(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api-key")
	put(t, path, "key-0\n")
	a := newAPI(t, "key-0")
	client := &http.Client{Transport: &reauth.Transport{
		Credential: &reauth.Credential{Refresher: Secret{URL: fileURL(path)}, Logger: discard},
		RetryWait:  -1,
		Logger:     discard,
	}}
	for i := range 5 {
		if i > 0 { // the first is the first
			key := fmt.Sprint("key-", i)
			put(t, path, key+"\n")
			a.key.Store(key)
		}
		resp, err := client.Get(a.URL)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, http.StatusOK, resp.StatusCode, "rotation %d", i)
		assert.EqualValues(t, i, a.rejections.Load(), "one 401 for each rotation, cured in place")
	}
}

// The bubble also sees that nothing runs between refreshes: it would not end.
func TestUnchangedKeyIsNeverCauseForPausesThatGrow(t *testing.T) {
	t.Setenv("API_KEY", "revoked") // outside of the bubble, which must not change it at the end
	synctest.Test(t, func(t *testing.T) {
		cred := &reauth.Credential{Refresher: Secret{URL: "constant://?envvar=API_KEY"}, Logger: discard}
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		renew := func() error {
			_, err := cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
			return err
		}
		for range 10 {
			var failure *reauth.RefreshError
			require.ErrorAs(t, renew(), &failure)
			assert.ErrorContains(t, failure, "constant: still has the rejected token")
			assert.Equal(t, time.Second, time.Until(failure.RetryAt))
			time.Sleep(time.Second)
		}

		require.Error(t, renew())
		require.NoError(t, os.Setenv("API_KEY", "new"))
		time.Sleep(time.Second - time.Nanosecond)
		require.Error(t, renew(), "within the pause the variable is not read")
		time.Sleep(time.Nanosecond)
		require.NoError(t, renew())
		fresh, err := cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "new", fresh.AccessToken)
	})
}

// The deadline of the refresh ends the wait for a value that does not come, and
// the request for it.
func TestVariableWithoutAValueNeverHoldsARefresh(t *testing.T) {
	asked, gone := make(chan struct{}), make(chan struct{})
	source := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		select {
		case <-r.Context().Done():
			close(gone)
		case <-t.Context().Done(): // or a failure would hang
		}
	}))
	t.Cleanup(source.Close)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := Secret{URL: source.URL}.Refresh(ctx, reauth.Stale{})
		result <- err
	}()
	within(t, asked)
	cancel()
	require.ErrorIs(t, within(t, result), context.Canceled)
	within(t, gone)
}

// within receives from c, or fails the test.
func within[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("still not done after 10s")
		panic("unreachable")
	}
}

func TestTokenIsFoundInAnObject(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.json")
	put(t, path, `{"user":"app","api_key":"key-1"}`)
	for _, decoder := range []string{"", "?decoder=string", "?decoder=bytes"} {
		tok, err := Secret{URL: fileURL(path) + decoder, Member: "api_key"}.Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		assert.Equal(t, "key-1", tok.AccessToken)
	}
}

func TestErrorsNameTheVariableAndNeverItsValue(t *testing.T) {
	const secret = "planted-9f3b"
	dir := t.TempDir()
	put(t, filepath.Join(dir, "plain"), secret)
	put(t, filepath.Join(dir, "object"), `{"api_key":"`+secret+`","n":1}`)
	put(t, filepath.Join(dir, "empty"), "\n")
	for name, tc := range map[string]struct {
		secret Secret
		want   []string
	}{
		"no file":         {Secret{URL: fileURL(dir + "/missing")}, []string{dir + "/missing", "no such file"}},
		"empty":           {Secret{URL: fileURL(dir + "/empty")}, []string{"the access token is empty"}},
		"whole object":    {Secret{URL: fileURL(dir+"/object") + "?decoder=jsonmap"}, []string{dir + "/object", "leave the decoder out"}},
		"no object":       {Secret{URL: fileURL(dir + "/plain"), Member: "api_key"}, []string{dir + "/plain", "is no JSON object"}},
		"no member":       {Secret{URL: fileURL(dir + "/object"), Member: "key"}, []string{dir + "/object", `no member "key"`}},
		"no string":       {Secret{URL: fileURL(dir + "/object"), Member: "n"}, []string{dir + "/object", `no member "n"`}},
		"driver's error":  {Secret{URL: "constant://?err=out+of+order&val=" + secret}, []string{"constant:", "out of order"}},
		"bad parameter":   {Secret{URL: "constant://?nonsense=1&val=" + secret}, []string{"constant:", "invalid query parameter", "nonsense"}},
		"no driver":       {Secret{URL: "nonsense://var?val=" + secret}, []string{"nonsense://var", "no driver registered"}},
		"no scheme":       {Secret{URL: "/run/secrets/key"}, []string{"/run/secrets/key", "no scheme"}},
		"no URL":          {Secret{URL: "http://[" + secret}, []string{"URL cannot be parsed"}},
		"password in URL": {Secret{URL: "nonsense://app:" + secret + "@host/var"}, []string{"host/var", "no driver registered"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := (&reauth.Credential{Refresher: tc.secret, Logger: discard}).Token(t.Context())
			var failure *reauth.RefreshError
			require.ErrorAs(t, err, &failure)
			for _, want := range tc.want {
				assert.ErrorContains(t, err, want)
			}
			assert.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), secret)
		})
	}
}

func TestCommandShowsTheAnswerOrTheRequestID(t *testing.T) {
	a := newAPI(t, "key-1")
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out, Secret{URL: "constant://?val=key-1"}, a.URL))
	assert.Equal(t, "hello", out.String())

	err := run(t.Context(), &out, Secret{URL: "constant://?val=key-0"}, a.URL)
	assert.ErrorContains(t, err, `401 Unauthorized, request id "req-1"`)
	assert.EqualValues(t, 1, a.rejections.Load(), "the same key is not sent twice")
}
