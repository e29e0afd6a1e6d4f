package reauth_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// tokProblems are all that Validate says, each by its words. No part of them
// comes from the token, so an error that matches one repeats none of it.
var tokProblems = map[string]*regexp.Regexp{
	"empty":       regexp.MustCompile(`^the access token is empty$`),
	"long":        regexp.MustCompile(`^the access token has \d+ bytes, and a server accepts at most 65536 in a header$`),
	"line break":  regexp.MustCompile(`^the access token ends in a line break: trim what was read from the file$`),
	"placeholder": regexp.MustCompile(`^the access token is reauth\.Placeholder: give that to the SDK, and return the real token from the Refresher$`),
	"blank":       regexp.MustCompile(`^the access token begins or ends with a blank$`),
	"control":     regexp.MustCompile(`^the access token has a control character at byte \d+$`),
}

func FuzzValidate(f *testing.F) {
	for _, seed := range []string{
		"", " ", "a", "T1", "sk-1234", "1|abc", "eyJhbGciOiJub25lIn0.e30.", "a\r\nX-Admin: 1", "a\nb", "a\x00b", "a\x7fb", "\tx",
		"Bearer", "Bearer x", "bearer\tx", `"quoted"`, "${VAR}", "%VAR%", "<token>", "your_token_here", "ü", "\xff", "a b",
		"!#$&'*+.^_`|~", "=:,;@()[]{}<>?/\\", reauth.Placeholder, strings.Repeat("a", 70<<10),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		tok := reauth.Token{AccessToken: token}
		if err := tok.Validate(); err != nil {
			for problem := range maps.Values(tokProblems) {
				if problem.MatchString(err.Error()) {
					return
				}
			}
			t.Fatalf("an error of no known words, which may be the token's: %s", err)
		}
		// Through net/http as it is, onto a wire, and read back by its server half.
		client, server := net.Pipe()
		seen := make(chan []string, 1)
		go func() {
			defer server.Close()
			req, err := http.ReadRequest(bufio.NewReader(server))
			if err != nil {
				seen <- []string{"the server cannot read it: " + err.Error()}
				return
			}
			seen <- req.Header["Authorization"]
			_, _ = io.WriteString(server, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		}()
		wire := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return client, nil }}
		defer wire.CloseIdleConnections()
		rt := &reauth.Transport{Base: wire, Logger: discard, Credential: holding(t, &issuer{}, tok)}
		req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1/", nil)
		require.NoError(t, err)
		resp, err := rt.RoundTrip(req)
		if !assert.NoError(t, err, "net/http refuses what Validate lets pass") {
			_ = client.Close()
			return
		}
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, []string{"Bearer " + token}, <-seen)
	})
}

func TestTokenValidateRefusesWhatNoHeaderCarries(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, token, problem string
	}{
		{"nothing", "", "empty"},
		{"blanks", "  \t ", "blank"},
		{"only a line break", "\n", "line break"},
		{"a file's last newline", "q7Zk2mVx9LrT\n", "line break"},
		{"a Windows file's last newline", "q7Zk2mVx9LrT\r\n", "line break"},
		{"the SDK's placeholder", reauth.Placeholder, "placeholder"},
		{"blank in front", " q7Zk2mVx9LrT", "blank"},
		{"blank behind", "q7Zk2mVx9LrT ", "blank"},
		{"header injection", "q7Zk2mVx\r\nX-Admin:1", "control"},
		{"newline within", "q7Zk2mVx\n9LrT", "control"},
		{"NUL", "q7Zk2mVx\x009LrT", "control"},
		{"DEL", "q7Zk2mVx\x7f9LrT", "control"},
		{"escape", "\x1b[31mq7Zk2mVx", "control"},
		{"one byte too long", strings.Repeat("a", 64<<10+1), "long"},
		{"a whole file", strings.Repeat("line\n", 1<<20), "long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := reauth.Token{AccessToken: tc.token}.Validate()
			require.Error(t, err)
			assert.Regexp(t, tokProblems[tc.problem], err.Error())

			c := &reauth.Credential{Logger: discard}
			err = c.Set(context.Background(), reauth.Token{AccessToken: tc.token})
			require.Error(t, err, "Set")
			assert.Regexp(t, tokProblems[tc.problem], strings.TrimPrefix(err.Error(), "reauth: Set: "))

			synctest.Test(t, func(t *testing.T) {
				c := &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
					return reauth.Token{AccessToken: tc.token}, nil
				})}
				_, err := c.Token(t.Context())
				var failure *reauth.RefreshError
				require.ErrorAs(t, err, &failure)
				assert.Regexp(t, tokProblems[tc.problem], errors.Unwrap(errors.Unwrap(err)).Error())
				if len(tc.token) > 5 && tc.token != "Bearer" && tc.problem != "blank" {
					assert.NotContains(t, err.Error(), strings.TrimSpace(tc.token))
				}
			})
		})
	}
}

func TestTokenValidateAcceptsWhatAHeaderCarries(t *testing.T) {
	t.Parallel()
	for name, token := range map[string]string{
		"Bearer in front":               "Bearer q7Zk2mVx9LrT",
		"bearer in lower case":          "bearer q7Zk2mVx9LrT",
		"Bearer and a tab":              "Bearer\tq7Zk2mVx9LrT",
		"Bearer alone":                  "Bearer",
		"another scheme in front":       "token q7Zk2mVx9LrT",
		"double quotes":                 `"q7Zk2mVx9LrT"`,
		"single quotes":                 `'q7Zk2mVx9LrT'`,
		"backquotes":                    "`q7Zk2mVx9LrT`",
		"a word processor's quotes":     "“q7Zk2mVx9LrT”",
		"empty quotes":                  `""`,
		"shell variable":                "${OPENAI_API_KEY}",
		"shell variable with a default": "${OPENAI_API_KEY:-none}",
		"bare shell variable":           "$OPENAI_API_KEY",
		"Windows variable":              "%OPENAI_API_KEY%",
		"template":                      "{{ .Values.token }}",
		"your_token_here":               "your_token_here",
		"YOUR_API_KEY":                  "YOUR_API_KEY",
		"your-api-key-here":             "your-api-key-here",
		"in angle brackets":             "<token>",
		"in angle brackets with words":  "<your API key>",
		"in square brackets":            "[token]",
		"changeme":                      "changeme",
		"crosses":                       "sk-xxxxxxxxxxxxxxxx",
		"stars":                         "********",
		"dots":                          "...",
		"a stringified nothing":         "undefined",
		"another one":                   "null",
		"blank within":                  "q7Zk2mVx 9LrT",
		"tab within":                    "q7Zk2mVx\t9LrT",
		"umlaut":                        "q7Zk2mVxü",
		"byte order mark":               "\uFEFFq7Zk2mVx9LrT",
		"zero-width space":              "q7Zk\u200b2mVx9LrT",
		"no-break space":                "q7Zk\u00a02mVx9LrT",
		"invalid UTF-8":                 "q7Zk\xff\xfe",
		"JWT":                           "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
		"unsigned JWT":                  "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.",
		"OpenAI key":                    "sk-proj-T3BlbkFJ0Yx7u2Zk_Qm9-4vWn1Lr8sXc5Bd6Ge",
		"short gateway key":             "sk-1234",
		"GitHub, classic":               "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
		"GitHub, fine-grained":          "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz0123456789",
		"GitLab":                        "glpat-x9Zk2mVx9LrT4wNcQ8vZ",
		"Slack":                         "xoxb-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx",
		"Google":                        "ya29.a0AfH6SMBx-7_9",
		"Vault":                         "hvs.CAESIJz8",
		"Laravel Sanctum":               "1|abcDEF123",
		"base64 with padding":           "dG9rZW4gd2l0aCBwYWRkaW5nIQ==",
		"base64 with plus":              "a+b/c+d/e==",
		"uuid":                          "123e4567-e89b-12d3-a456-426614174000",
		"hex":                           "da39a3ee5e6b4b0d3255bfef95601890afd80709",
		"digits":                        "1234567890",
		"one byte":                      "x",
		"T1":                            "T1",
		"colon":                         "user:0123456789abcdef",
		"Telegram":                      "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
		"Kubernetes bootstrap":          "07401b.f395accd246ae52d",
		"all of legal punctuation":      "a!#$%&'()*+,-./:;<=>?@[]^_`{|}~\\\"z",
		"percent-encoded":               "abc%2Fdef%3D",
		"begins with a dollar":          "$2y$10$N9qo8uLOickgx2ZMRZoMye",
		"dollar within":                 "pa$WORD$x",
		"percent at both ends":          "%41bc%",
		"a lonely quote":                `abc"def`,
		"quote at one end":              `"abcdef`,
		"curly braces":                  "{d0c5a3}",
		"begins with Bearer":            "Bearerd0c5a3",
		"has token in it":               "prod-token-8f3c1d",
		"has secret in it":              "secret_8f3c1dEXAMPLE",
		"has your in it":                "k9-your-8f3c1d",
		"begins with put":               "put8keyQx1",
		"ends like an example":          "q7Zk2mVx9LrT-here",
		"crosses and more":              "xxxZk2mVx9",
		"none as a part":                "none-8f3c1d",
		"begins like the SDK's":         reauth.Placeholder + "d",
		"as long as may be":             strings.Repeat("a", 64<<10),
		"random, begins with my":        "my-Zk2vVx9LrT4wNcQ8ME7dGb",
		"random, begins with enter":     "put_Zk2vKEYx9LrT4wNcQ8W7dGb",
	} {
		t.Run(name, func(t *testing.T) {
			assert.NoError(t, reauth.Token{AccessToken: token}.Validate())
			assert.NoError(t, (&reauth.Credential{Logger: discard}).Set(context.Background(), reauth.Token{AccessToken: token}))
		})
	}
}

// What distinguishes tokens in logs must not help to guess them.
func TestTokenValidateRefusesTypesThatSignRequests(t *testing.T) {
	for _, name := range []string{"DPoP", "dpop", "mac", "PoP"} {
		err := reauth.Token{AccessToken: "T", TokenType: name}.Validate()
		assert.ErrorContains(t, err, name)
		assert.ErrorContains(t, err, "bearer")
	}
	for _, name := range []string{"", "Bearer", "bearer", "JWT", "user", "N_A", "jwt-bearer"} {
		assert.NoError(t, reauth.Token{AccessToken: "T", TokenType: name}.Validate())
	}
}

func TestTokenFingerprint(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte("q7Zk2mVx9LrT"))
	got := reauth.Token{AccessToken: "q7Zk2mVx9LrT", RefreshToken: "r", TokenType: "Bearer", Expiry: time.Now()}.Fingerprint()
	assert.Equal(t, hex.EncodeToString(sum[:])[:8], got)
	assert.Equal(t, got, reauth.Token{AccessToken: "q7Zk2mVx9LrT"}.Fingerprint(), "only the access token counts")
	assert.NotEqual(t, got, reauth.Token{AccessToken: "q7Zk2mVx9LrU"}.Fingerprint())
	assert.Empty(t, reauth.Token{}.Fingerprint())
	assert.Empty(t, reauth.Token{RefreshToken: "only"}.Fingerprint())
}

func TestSecretNeverPrinted(t *testing.T) {
	t.Parallel()
	cred := &reauth.Credential{Logger: discard}
	require.NoError(t, cred.Set(context.Background(), tokMarked))
	used := &reauth.Transport{Credential: cred, Base: accepting(tokAccess), Logger: discard}
	require.Equal(t, http.StatusOK, get(t, used, "https://api.example.com").StatusCode)
	held, err := cred.Token(context.Background())
	require.NoError(t, err)
	require.Equal(t, tokAccess, held.AccessToken)
	peeked, err := cred.Current()
	require.NoError(t, err)
	tok := tokMarked

	for name, v := range map[string]any{
		"Token":                        tok,
		"*Token":                       &tok,
		"**Token":                      func() any { p := &tok; return &p }(),
		"Token of a Credential":        held,
		"Token of Peek":                peeked,
		"Token without access":         reauth.Token{RefreshToken: tokRefresh},
		"Stale":                        reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonExpired}},
		"*Stale":                       &reauth.Stale{Token: tok},
		"Credential":                   cred,
		"Transport":                    used,
		"unused Transport":             &reauth.Transport{Credential: cred},
		"http.Client":                  &http.Client{Transport: used},
		"slice":                        []reauth.Token{tok},
		"slice of pointers":            []*reauth.Token{&tok},
		"array":                        [1]reauth.Token{tok},
		"map":                          map[string]reauth.Token{"a": tok},
		"keys of a map":                map[reauth.Token]bool{tok: true},
		"field":                        struct{ T reauth.Token }{tok},
		"field with a pointer":         struct{ T *reauth.Token }{&tok},
		"embedded":                     struct{ reauth.Token }{tok},
		"embedded beside others":       struct{ Stale reauth.Stale }{reauth.Stale{Token: tok}},
		"field with the Credential":    struct{ C *reauth.Credential }{cred},
		"any in a slice":               []any{tok, &tok, cred},
		"Credentials by tenant":        map[string]*reauth.Credential{"a": cred},
		"the wrapped error of Set":     cred.Set(context.Background(), reauth.Token{AccessToken: tokAccess + "\x01", RefreshToken: tokRefresh}),
		"the wrapped error of Marshal": func() error { _, err := json.Marshal(tok); return err }(),
	} {
		t.Run(name, func(t *testing.T) {
			tokNeverPrinted(t, name, v, tokAccess, tokRefresh)
		})
	}
}

// Redacted is not useless. What a support desk needs is still there.
func TestTokenString(t *testing.T) {
	t.Parallel()
	for _, verb := range tokVerbs {
		if verb == "%T" {
			continue
		}
		assert.Contains(t, fmt.Sprintf(verb, tokMarked), tokMarked.Fingerprint(), verb)
		assert.Contains(t, fmt.Sprintf(verb, &tokMarked), tokMarked.Fingerprint(), verb)
	}
	assert.Contains(t, tokMarked.String(), "2030-01-02T03:04:05Z")
	assert.Contains(t, tokMarked.String(), "refresh token")
	assert.NotContains(t, reauth.Token{AccessToken: "a"}.String(), "refresh token")
	assert.Contains(t, reauth.Token{}.String(), "empty")

	j := &journal{}
	j.logger().Info("login", "token", tokMarked)
	assert.Equal(t, tokMarked.String(), j.records(t, slog.LevelInfo)[0]["token"])

	cred := holding(t, nil, tokMarked)
	assert.Contains(t, fmt.Sprintf("%+v", cred), tokMarked.Fingerprint())
}

// A formatter that panics takes the caller's log line with it.
func TestFormatOfNil(t *testing.T) {
	t.Parallel()
	for _, v := range []any{
		(*reauth.Token)(nil), reauth.Token{}, (*reauth.Credential)(nil), &reauth.Credential{}, (*reauth.Transport)(nil),
		&reauth.Transport{}, reauth.Stale{}, reauth.Rejection{}, reauth.Outcome{}, reauth.RefreshInfo{}, reauth.Challenge{},
		(*reauth.Outcome)(nil), &reauth.RefreshError{},
	} {
		assert.NotPanics(t, func() {
			for how, text := range tokPrint(v) {
				if strings.HasPrefix(how, "Sprintf") {
					assert.NotContains(t, text, "PANIC", "%T by %s", v, how)
				}
			}
		}, "%T", v)
	}
	assert.Equal(t, "Credential(empty)", fmt.Sprint((*reauth.Credential)(nil)))
	assert.Equal(t, "Transport(nil)", fmt.Sprint((*reauth.Transport)(nil)))
}

// Redacted JSON without an error is a login lost on disk.
func TestTokenMarshalingFails(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]any{
		"Token":    tokMarked,
		"*Token":   &tokMarked,
		"empty":    reauth.Token{},
		"embedded": struct{ reauth.Token }{tokMarked},
		"field":    map[string]any{"login": tokMarked},
		"Stale":    reauth.Stale{Token: tokMarked},
	} {
		b, err := json.Marshal(v)
		if assert.Error(t, err, name) {
			assert.Empty(t, b, name)
			assert.Contains(t, err.Error(), "to save one, copy AccessToken, RefreshToken and Expiry into a struct of your own", name)
			tokLeaks(t, name, err.Error(), tokAccess, tokRefresh)
		}
	}
}
