package refresher_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// fuzzModified is the modification of the files, from which lifetimes count.
var fuzzModified = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// sound checks what holds of whatever a file has in it.
func sound(t *testing.T, path string, data []byte, tok reauth.Token, err error) {
	t.Helper()
	if err != nil {
		assert.Zero(t, tok)
		assert.Contains(t, err.Error(), path)
		assert.Equal(t, time.Millisecond, asksFor(err))
		assert.False(t, reauth.IsPermanent(err))
		assert.Less(t, len(err.Error()), len(path)*2+500)
		if secret := bytes.Contains(data, []byte(localMarker)); secret && !inName(data) {
			assert.NotContains(t, err.Error(), localMarker)
		}
		return
	}
	assert.NoError(t, tok.Validate())
	if !tok.Expiry.IsZero() {
		assert.LessOrEqual(t, tok.Expiry.UTC().Year(), 9999)
		_, err := tok.Expiry.MarshalText()
		assert.NoError(t, err)
	}
}

// inName reports whether the marker stands in the name of a member, which an error may
// name, since no token is written there.
func inName(data []byte) bool {
	var walk func(v any) bool
	walk = func(v any) bool {
		switch v := v.(type) {
		case map[string]any:
			for name, inner := range v {
				if strings.Contains(name, localMarker) || walk(inner) {
					return true
				}
			}
		case []any:
			for _, inner := range v {
				if walk(inner) {
					return true
				}
			}
		}
		return false
	}
	var v any
	return json.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), &v) == nil && walk(v)
}

// fuzzFile returns a file whose content is set by the function.
func fuzzFile(f *testing.F) (path string, set func(t *testing.T, data []byte)) {
	path = filepath.Join(f.TempDir(), "token")
	return path, func(t *testing.T, data []byte) {
		require.NoError(t, os.WriteFile(path, data, 0o600))
		require.NoError(t, os.Chtimes(path, fuzzModified, fuzzModified))
	}
}

func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"", " \n", "key-1\n", "\xef\xbb\xbfkey-1\r\n", localMarker + "\n" + localMarker, "Bearer " + localMarker, `"` + localMarker + `"`,
		`{"access_token":"key-1","token_type":"Bearer","refresh_token":"r","expires_in":3600}`,
		`{"accessToken":"key-1","expiresOn":"2199-01-02 03:04:05.000000","expires_on":7226679845}`,
		`{"kind":"ExecCredential","status":{"token":"key-1","expirationTimestamp":"2199-01-02T03:04:05Z"}}`,
		`{"kind":"ExecCredential","status":"` + localMarker + `"}`, `{"kind":"ExecCredential","status":null}`,
		`{"access_token":"` + localMarker, `{"auth":{"client_token":"` + localMarker + `"}}`, `{"access_token":"key-1","expiry":"0000-01-01T00:00:00Z"}`,
		`{"access_token":"key-1","expires_at":253402300799.9}`, `{"access_token":"key-1","expires_at":1e11,"expiry":"9999-12-31T23:59:59.999999999-23:59"}`,
		`{"access_token":"\u0000` + localMarker + `"}`, `{"token":"` + localJWT(`{"exp":1000000000}`) + `"}`, "{}", "{", "[]", "null", "\xff\xfe{\x00",
	} {
		f.Add([]byte(seed))
	}
	path, set := fuzzFile(f)
	r := refresher.File(path)
	f.Fuzz(func(t *testing.T, data []byte) {
		set(t, data)
		tok, err := r.Refresh(t.Context(), reauth.Stale{})
		sound(t, path, data, tok, err)
		if err == nil && !bytes.Contains(data, []byte(tok.AccessToken)) {
			assert.Contains(t, string(data), `\`, "the token is not in the file")
		}
		again, err2 := r.Refresh(t.Context(), reauth.Stale{})
		assert.True(t, tok == again, "not the same twice")
		assert.Equal(t, err, err2)
	})
}

// Godotenv's own errors repeat the line.
func FuzzDotEnv(f *testing.F) {
	for _, seed := range []string{
		"", "KEY=key-1\n", "export KEY='key-1'\r\n", "\xef\xbb\xbfKEY=\"key-1\"", "KEY=\"" + localMarker, localMarker, localMarker + "!=1", "KEY", "=", "=\n=", "KEY: key-1",
		"A=" + localMarker + "\nKEY=${A} x", "KEY=$(A)", "#", "# \n#\nKEY=#", "export", "export =x", "KEY='a\nb'", "KEY=\"\\n\"", "\x00", "KEY\x85=\xa0", "KEY='${A}'", "KEY=a\\$b",
	} {
		f.Add([]byte(seed))
	}
	path, set := fuzzFile(f)
	r := refresher.DotEnv(path, "KEY")
	f.Fuzz(func(t *testing.T, data []byte) {
		set(t, data)
		tok, err := r.Refresh(t.Context(), reauth.Stale{})
		sound(t, path, data, tok, err)
	})
}

func FuzzFileExpiresIn(f *testing.F) {
	for _, seed := range []string{
		"3600", `"3600"`, "3600.5", "0", "-1", "1e30", "1e400", "-1e400", "null", `""`, `" 1 "`, `"NaN"`, `"Inf"`, `"-inf"`, `"0x1p10"`, `"1_000"`, "9223372036854775807", "1e-300", "true", "{}", "[1]", `"3600s"`, "3600,\"expires_in\":1",
	} {
		f.Add(seed)
	}
	path, set := fuzzFile(f)
	r := refresher.File(path)
	f.Fuzz(func(t *testing.T, raw string) {
		data := []byte(`{"access_token":"key-1","expires_in":` + raw + `}`)
		set(t, data)
		tok, err := r.Refresh(t.Context(), reauth.Stale{})
		sound(t, path, data, tok, err)
		var members struct {
			ExpiresIn json.RawMessage `json:"expires_in"`
		}
		if !json.Valid(data) || json.Unmarshal(data, &members) != nil || string(members.ExpiresIn) != strings.TrimSpace(raw) {
			return // it says more than that
		}
		require.NoError(t, err)
		life := tok.Expiry.Sub(fuzzModified)
		if !tok.Expiry.IsZero() {
			assert.GreaterOrEqual(t, life, time.Duration(0))
			assert.LessOrEqual(t, life, 100*366*24*time.Hour)
		}
		// What is plainly a number means just that.
		n, err := strconv.ParseFloat(strings.TrimSpace(raw), 64)
		switch plain := json.Valid([]byte(raw)) && err == nil; {
		case plain && n <= 0, strings.ContainsAny(raw, "{[]}") || strings.TrimSpace(raw) == "null":
			assert.Zero(t, tok.Expiry)
		case plain && n < 3e9:
			assert.InDelta(t, n, life.Seconds(), 1e-3)
		}
	})
}

func FuzzJWTExpiry(f *testing.F) {
	for _, seed := range []string{
		`{"exp":1000000000}`, `{"exp":32503680000.5,"iat":1}`, `{"EXP":1}`, `{"exp":2,"Exp":1}`, `{"exp":null}`, `{"exp":-1}`, `{"exp":-0.0}`, `{"exp":1e30}`, `{"exp":1e400}`, `{"exp":"1"}`,
		`{"exp":253402300799.99}`, `{"exp":253402300800}`, `{"exp":1e-400}`, `{"exp":[1]}`, `[]`, `null`, ``, `{`, `{"exp":1}{}`, "\xef\xbb\xbf{\"exp\":1}", `{"exp":1,"exp":2}`, `{"ex\u0070":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		token := localJWT(string(payload))
		tok, err := refresher.Static(token).Refresh(t.Context(), reauth.Stale{})
		if err != nil {
			assert.Greater(t, len(token), 64<<10)
			return
		}
		var claims map[string]any
		var want time.Time
		if json.Unmarshal(payload, &claims) == nil {
			if exp, ok := claims["exp"].(float64); ok && exp >= 0 && exp <= 253402300799 {
				want = time.Unix(int64(math.Floor(exp)), 0)
			}
		}
		assert.True(t, want.Equal(tok.Expiry), "%v, not %v", tok.Expiry, want)
		assert.Equal(t, want.IsZero(), tok.Expiry.IsZero())

		// Nor does the text of a token, whatever it is, do any harm.
		part := base64.RawURLEncoding.EncodeToString(payload)
		for _, token := range []string{string(payload), part + "." + part, "." + part + ".", part + "." + part + "." + part + "." + part, ".." + part} {
			tok, err := refresher.Static(token).Refresh(t.Context(), reauth.Stale{})
			if err == nil && strings.Count(token, ".") != 2 {
				assert.Zero(t, tok.Expiry)
			}
		}
	})
}

func FuzzJSONPointer(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"auth":{"client_token":"key-1"}}`, "/auth/client_token"}, {`"key-1"`, ""}, {`{"":"key-1"}`, "/"}, {`{"a/b":{"m~n":"key-1"}}`, "/a~1b/m~0n"}, {`{"~1":"key-1"}`, "/~01"},
		{`["a",{"token":"key-1"}]`, "/1"}, {`["a","b"]`, "/01"}, {`["a","b"]`, "/-"}, {`["a"]`, "/-0"}, {`{"a":null}`, "/a/b"}, {`{"a":"` + localMarker + `"}`, "/a/b"}, {`{"a":["` + localMarker + `"]}`, "/a"},
		{`{"a":"` + localMarker, "/a"}, {`{}`, "/a"}, {"", "/"}, {"\xef\xbb\xbf{\"a\":\"b\"}", "/a"}, {`{"a":"x","A":"y"}`, "/A"}, {`{"\u0061":"x"}`, "/a"}, {`{"a":1}`, "/a"}, {`{"~":"x"}`, "/~"}, {`{"a":"x"}`, "a"},
		{`["x"]`, "/99999999999999999999"},
	} {
		f.Add([]byte(seed[0]), seed[1])
	}
	path, set := fuzzFile(f)
	f.Fuzz(func(t *testing.T, data []byte, pointer string) {
		if strings.Contains(pointer, localMarker) { // the error names it
			return
		}
		set(t, data)
		tok, err := refresher.JSONFile(path, pointer).Refresh(t.Context(), reauth.Stale{})
		if pointer != "" && pointer[0] != '/' {
			assert.True(t, reauth.IsPermanent(err))
			return
		}
		if len(pointer) < 50 {
			sound(t, path, data, tok, err)
		}
		found, ok := valueAt(data, pointer)
		if !ok {
			assert.Error(t, err)
			return
		}
		if s, isText := found.(string); isText {
			want := reauth.Token{AccessToken: strings.TrimSpace(s)}
			assert.Equal(t, want.Validate() == nil, err == nil)
			if err == nil {
				assert.Equal(t, want.AccessToken, tok.AccessToken)
			}
			return
		}
		if _, isObject := found.(map[string]any); !isObject {
			assert.Error(t, err)
		}
	})
}

// valueAt is RFC 6901 once more, plainly.
func valueAt(data []byte, pointer string) (any, bool) {
	var v any
	if json.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), &v) != nil {
		return nil, false
	}
	for _, name := range strings.Split(pointer, "/")[1:] {
		name = strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~")
		switch inner := v.(type) {
		case map[string]any:
			found, ok := inner[name]
			if !ok {
				return nil, false
			}
			v = found
		case []any:
			i, err := strconv.ParseUint(name, 10, 31)
			if err != nil || strconv.FormatUint(i, 10) != name || i >= uint64(len(inner)) {
				return nil, false
			}
			v = inner[i]
		default:
			return nil, false
		}
	}
	return v, true
}
