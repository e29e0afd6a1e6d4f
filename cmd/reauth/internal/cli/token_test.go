package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// forge signs claims.
func forge(t *testing.T, alg jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any, claims map[string]any) string {
	t.Helper()
	opts := &jose.SignerOptions{ExtraHeaders: header}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	require.NoError(t, err)
	b, err := json.Marshal(claims)
	require.NoError(t, err)
	signed, err := signer.Sign(b)
	require.NoError(t, err)
	text, err := signed.CompactSerialize()
	require.NoError(t, err)
	return text
}

func inspected(t *testing.T, token string, args ...string) (in inspection, status int) {
	t.Helper()
	out, errs, status := run(t, token, append([]string{"token", "--inspect", "--json", "--source", "stdin"}, args...)...)
	require.Empty(t, errs)
	require.NoError(t, json.Unmarshal([]byte(out), &in), out)
	if len(token) > 20 {
		assert.NotContains(t, out, token[len(token)-20:])
	}
	return in, status
}

// A JWT that was forged in any known way is refused, offline.
func TestTokenInspectForged(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "RS256", Use: "sig"}}})
	require.NoError(t, err)
	jwks := filepath.Join(t.TempDir(), "jwks.json")
	require.NoError(t, os.WriteFile(jwks, set, 0o600))
	asked := 0
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer evil.Close()

	claims := func(change func(map[string]any)) map[string]any {
		c := map[string]any{"iss": "https://issuer.example.com", "aud": []string{"api", "other"}, "sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
		if change != nil {
			change(c)
		}
		return c
	}
	kid := map[jose.HeaderKey]any{"kid": "k1"}
	good := forge(t, jose.RS256, key, kid, claims(nil))
	parts := strings.Split(good, ".")
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"k1"}`)) + "." + parts[1] + "."
	changed, err := json.Marshal(claims(func(c map[string]any) { c["sub"] = "root" }))
	require.NoError(t, err)

	in, status := inspected(t, good, "--jwks", jwks, "--audience", "api")
	assert.Zero(t, status)
	assert.True(t, in.Verified)
	assert.Empty(t, in.Problems)
	in, status = inspected(t, good)
	assert.Zero(t, status)
	assert.False(t, in.Verified, "never without a key")

	for name, token := range map[string]string{
		"none":                      none,
		"None":                      strings.Replace(none, parts[0][:4], parts[0][:4], 1) + "x",
		"HS256 with the public key": forge(t, jose.HS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), kid, claims(nil)),
		"another key":               forge(t, jose.RS256, other, kid, claims(nil)),
		"another algorithm":         forge(t, jose.ES256, curve, kid, claims(nil)),
		"jwk":                       forge(t, jose.RS256, other, map[jose.HeaderKey]any{"kid": "k1", "jwk": jose.JSONWebKey{Key: other.Public(), KeyID: "k1"}}, claims(nil)),
		"jku":                       forge(t, jose.RS256, other, map[jose.HeaderKey]any{"kid": "k1", "jku": evil.URL}, claims(nil)),
		"x5u":                       forge(t, jose.RS256, other, map[jose.HeaderKey]any{"kid": "k1", "x5u": evil.URL}, claims(nil)),
		"kid is a path":             forge(t, jose.RS256, other, map[jose.HeaderKey]any{"kid": "../../../../dev/null"}, claims(nil)),
		"another kid":               forge(t, jose.RS256, key, map[jose.HeaderKey]any{"kid": "k2"}, claims(nil)),
		"changed claims":            parts[0] + "." + base64.RawURLEncoding.EncodeToString(changed) + "." + parts[2],
		"no signature":              parts[0] + "." + parts[1] + ".",
		"expired":                   forge(t, jose.RS256, key, kid, claims(func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() })),
		"not yet":                   forge(t, jose.RS256, key, kid, claims(func(c map[string]any) { c["nbf"] = time.Now().Add(time.Minute).Unix() })),
		"wrong audience":            forge(t, jose.RS256, key, kid, claims(func(c map[string]any) { c["aud"] = "else" })),
		"no audience":               forge(t, jose.RS256, key, kid, claims(func(c map[string]any) { delete(c, "aud") })),
		"exp is a text":             forge(t, jose.RS256, key, kid, claims(func(c map[string]any) { c["exp"] = 1e300 })),
		"soon":                      forge(t, jose.RS256, key, kid, claims(func(c map[string]any) { c["exp"] = time.Now().Add(2 * time.Minute).Unix() })),
	} {
		in, status := inspected(t, token, "--jwks", jwks, "--audience", "api", "--min-valid", "5m")
		assert.Equal(t, exitHelps, status, name)
		assert.NotEmpty(t, in.Problems, name)
	}
	assert.Zero(t, asked, "what the token names is not asked")

	in, status = inspected(t, forge(t, jose.RS256, key, kid, claims(func(c map[string]any) { delete(c, "exp") })), "--jwks", jwks)
	assert.Zero(t, status)
	assert.Equal(t, "none", in.Expiry, "no expiry is not expired")
}

// What people paste in place of a token is named as what it is.
func TestTokenInspectForm(t *testing.T) {
	for token, want := range map[string]string{
		"": "empty", "  \n": "empty", "YOUR_API_KEY": "placeholder", "sk-xxxxxxxx": "placeholder", "<token>": "placeholder", "${TOKEN}": "placeholder",
		`"sk-0123456789"`: "quotes", "Bearer sk-0123456789": "Bearer", " sk-0123456789": "blank", "sk-01234 56789": "blank", "eyJhbGciOiJub25lIn0.!!!.x": "damaged",
	} {
		in, status := inspected(t, token)
		assert.Equal(t, exitHelps, status, token)
		assert.Contains(t, strings.Join(in.Problems, "; "), want, token)
	}
	in, status := inspected(t, "sk-0123456789abcdef")
	assert.Zero(t, status)
	assert.Equal(t, "opaque", in.Kind)
	assert.Equal(t, 19, in.Length)
}

func TestCheck(t *testing.T) {
	u := newUpstream(t)
	see := func(args ...string) (v checked, errs string, status int) {
		out, errs, status := run(t, "", append([]string{"check", "--json", "--source", "file:" + u.file}, args...)...)
		if out != "" {
			require.NoError(t, json.Unmarshal([]byte(out), &v), out)
		}
		assert.NotContains(t, out+errs, "upstream-token")
		return v, errs, status
	}
	v, _, status := see(u.URL + "/models")
	assert.Zero(t, status)
	assert.Equal(t, "good", v.Verdict)
	assert.Equal(t, len("upstream-token-1"), v.Length)
	assert.NotEmpty(t, v.RequestID)

	u.refuse.Store(true)
	v, _, status = see(u.URL)
	assert.Equal(t, exitHelps, status, "there was no other to try")
	assert.Equal(t, "refused", v.Verdict)
	u.refuse.Store(false)

	u.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(401)
		_, _ = w.Write([]byte(`{"error":{"code":"insufficient_quota","message":"You exceeded your current quota"}}`))
	})
	v, _, status = see(u.URL)
	assert.Equal(t, exitNoHelp, status)
	assert.Equal(t, "known", v.Verdict, "by the reason, not the status")

	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
	}))
	defer open.Close()
	v, _, status = see(open.URL)
	assert.Equal(t, exitUndecided, status)
	assert.Equal(t, "proves nothing", v.Verdict)
	assert.Contains(t, v.ClockSkew, "1h")
	v, _, status = see(open.URL, "--no-anonymous-probe")
	assert.Zero(t, status)
	assert.Equal(t, "good", v.Verdict)

	for _, args := range [][]string{{"http://api.example.com/"}, {"nonsense"}, {}, {open.URL, "-H", "x"}} {
		_, _, status = see(args...)
		assert.Equal(t, exitUsage, status, args)
	}
	open.Close()
	_, _, status = see(open.URL)
	assert.Equal(t, exitUnreachable, status)
	require.NoError(t, os.Remove(u.file))
	_, _, status = see(u.URL)
	assert.Contains(t, []int{exitLater, exitLogin}, status)
}

// What only looks like another thing: a JWT with a blank in its header, one without a
// signature, a claim in capitals; keys that cannot be had are no verdict.
func TestTokenInspectLookalikes(t *testing.T) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for name, token := range map[string]string{
		"a blank":      part(`{ "alg":"none"}`) + "." + part(`{"exp":1}`) + ".",
		"two parts":    part(`{"alg":"none"}`) + "." + part(`{"sub":"x"}`),
		"two expiries": part(`{"alg":"RS256"}`) + "." + part(`{"exp":1,"EXP":99999999999}`) + ".eA",
	} {
		in, status := inspected(t, token)
		assert.Equal(t, "jwt", in.Kind, name)
		assert.Equal(t, exitHelps, status, name)
		assert.NotEmpty(t, in.Problems, name)
	}
	_, errs, status := run(t, part(`{"alg":"RS256"}`)+"."+part(`{}`)+".eA", "token", "--inspect", "-s", "stdin", "--jwks", "http://127.0.0.1:1/")
	assert.Equal(t, exitUnreachable, status, errs)
	for _, text := range []string{"YOUR_TOKEN", "your-api-key", "changeme", "REPLACE_ME", "null", "sk-...", "$OPENAI_API_KEY", "<token>", "sk-xxxxxxxx", "“sk-abcdef0123”"} {
		in, status := inspected(t, text)
		assert.Equal(t, exitHelps, status, text)
		assert.NotEmpty(t, in.Problems, text)
	}
	for _, text := range []string{"sk-proj-4fJ2kd93KdkeW02lslQ", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "glpat-tokenABC123yourself99"} {
		_, status := inspected(t, text)
		assert.Zero(t, status, text)
	}
}

// The token is not shown where a server repeats it, and an address that sends strangers to
// a login proves something.
func TestCheckShowsNoToken(t *testing.T) {
	const token = "the-token-0123456789"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "r-"+token)
		switch {
		case r.Header.Get("Authorization") == "":
			http.Redirect(w, r, "/login", http.StatusFound)
		case r.URL.Path == "/":
			http.Redirect(w, r, "/ok?access_token="+token, http.StatusFound)
		}
	}))
	defer server.Close()
	name := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(name, []byte(token), 0o600))
	for _, args := range [][]string{{}, {"--json"}, {"-v"}, {"--lang", "zh"}} {
		out, errs, status := run(t, "", append([]string{"check", "-s", "file:" + name, server.URL + "/?key=" + token}, args...)...)
		assert.Zero(t, status, out)
		assert.NotContains(t, out+errs, token)
	}
	for _, address := range []string{"http://127.0.0.1.nip.io:9/", "http://127.evil.example.com/", "ftp://127.0.0.1/", "https://user:secret-of-mine@api.example.com/"} {
		_, errs, status := run(t, "", "check", "-s", "file:"+name, address)
		assert.Equal(t, exitUsage, status, address)
		assert.NotContains(t, errs, "secret-of-mine")
		_, _, status = run(t, "", "proxy", "-s", "file:"+name, "--to", address)
		assert.Equal(t, exitUsage, status, address)
	}
	_, errs, _ := run(t, "", "check", "-s", "file:"+name, "htps://api.example.com/")
	assert.Contains(t, errs, "did you mean https://?")
}
