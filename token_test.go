package reauth_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
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

// S5: what is told apart in logs must not be what is to be guessed.
func TestFingerprintTellsTokensApartAndNothingElse(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte("q7Zk2mVx9LrT"))
	got := reauth.Token{AccessToken: "q7Zk2mVx9LrT", RefreshToken: "r", TokenType: "Bearer", Expiry: time.Now()}.Fingerprint()
	assert.Equal(t, hex.EncodeToString(sum[:])[:8], got)
	assert.Equal(t, got, reauth.Token{AccessToken: "q7Zk2mVx9LrT"}.Fingerprint(), "only the access token counts")
	assert.NotEqual(t, got, reauth.Token{AccessToken: "q7Zk2mVx9LrU"}.Fingerprint())
	assert.Empty(t, reauth.Token{}.Fingerprint())
	assert.Empty(t, reauth.Token{RefreshToken: "only"}.Fingerprint())
}

// Markers share no run of letters with each other, nor with any word: a leak of
// one is not hidden by the masking of another.
const (
	tokAccess  = "Kq7Zk2mVx9LrT4wNcQ8vB"
	tokRefresh = "Jf5Hd0sYp3GtE6uWbM1aX"
)

var tokMarked = reauth.Token{AccessToken: tokAccess, RefreshToken: tokRefresh, TokenType: "Bearer", Expiry: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}

// tokLeaks fails the test where text has a dozen bytes in a row of a secret, in
// whatever case, plain or in hex.
func tokLeaks(t testing.TB, what, text string, secrets ...string) bool {
	t.Helper()
	low := strings.ToLower(text)
	for _, s := range secrets {
		s = strings.ToLower(s)
		for i := 0; i+10 <= len(s); i += 3 {
			if piece := s[i : i+10]; strings.Contains(low, piece) || strings.Contains(low, hex.EncodeToString([]byte(piece))) {
				t.Errorf("%s leaks a secret: %.600s", what, text)
				return true
			}
		}
	}
	return false
}

// tokVerbs lacks %p only: fmt prints what is no pointer past all methods, and
// vet says so.
var tokVerbs = []string{"%v", "%+v", "%#v", "%s", "%d", "%q", "%+q", "%#q", "%x", "%X", "%o", "%t", "%c", "%U", "%g", "%60v", "%-9.30s", "%T"}

// tokPrint returns the value as every verb and handler prints it.
func tokPrint(v any) map[string]string {
	printed := map[string]string{"Sprint": fmt.Sprint(v), "Sprintln": fmt.Sprintln(v)}
	for _, verb := range tokVerbs {
		printed["Sprintf "+verb] = fmt.Sprintf(verb, v)
	}
	var text, js bytes.Buffer
	opts := &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}
	for _, h := range []slog.Handler{slog.NewTextHandler(&text, opts), slog.NewJSONHandler(&js, opts)} {
		l := slog.New(h)
		l.Info("any", "v", v)
		l.Info("group", slog.Group("g", "v", v))
		l.With("with", v).WithGroup("g").Info("with")
	}
	printed["slog text"], printed["slog JSON"] = text.String(), js.String()
	for _, verb := range []string{"% x", "%#x", "%# X"} {
		printed["Sprintf "+verb] = strings.NewReplacer(" ", "", "0x", "", "0X", "").Replace(fmt.Sprintf(verb, v))
	}
	if b, err := json.Marshal(v); err != nil {
		printed["the error of json.Marshal"] = err.Error()
	} else {
		printed["json.Marshal"] = string(b)
	}
	return printed
}

// tokNeverPrinted fails the test where a value is printed with a secret.
func tokNeverPrinted(t testing.TB, what string, v any, secrets ...string) {
	t.Helper()
	printed := tokPrint(v)
	for _, how := range slices.Sorted(maps.Keys(printed)) {
		if tokLeaks(t, what+" by "+how, printed[how], secrets...) {
			return // one way says it
		}
	}
}

// S5
func TestTokenNeverPrintedByAnyVerbOrHandler(t *testing.T) {
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

// S5: redacted is not useless. What a support desk needs is still there.
func TestPrintedTokenStillSaysWhichItIs(t *testing.T) {
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

// S5: a formatter that panics takes the caller's log line with it.
func TestPrintingNothingNeverPanics(t *testing.T) {
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
}

// S5: redacted JSON without an error is a login lost on disk.
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

// tokValueError is an error whose value, not its pointer, holds what went wrong:
// fmt walks into it.
type tokValueError struct{ Body string }

func (e tokValueError) Error() string { return "issuer: " + e.Body }

// S5
func TestRefreshErrorNeverPrintsTheIssuersAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const answered = "Uh4Tz8Rj1Oc6Ie3Sk9PvN" // a token that nobody but the error knows
		var event reauth.RefreshInfo
		cred := &reauth.Credential{
			Logger:    discard,
			OnRefresh: func(_ context.Context, r reauth.RefreshInfo) { event = r },
			Refresher: reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
				return reauth.Token{}, tokValueError{`{"access_token":"` + answered + `","was":"` + stale.Token.RefreshToken + `"}`}
			}),
		}
		require.NoError(t, cred.Set(t.Context(), reauth.Token{RefreshToken: tokRefresh}))
		_, err := cred.Token(t.Context())
		var failure *reauth.RefreshError
		require.ErrorAs(t, err, &failure)
		synctest.Wait()
		require.Error(t, event.Err)
		require.ErrorContains(t, failure.Unwrap(), answered, "the cause is there for who asks for it")
		for name, v := range map[string]any{
			"*RefreshError": failure, "RefreshError": *failure, "error": err, "Refresh": event,
			"Outcome": reauth.Outcome{Err: err}, "*Outcome": &reauth.Outcome{Err: err}, "slice": []error{err},
			"wrapped": fmt.Errorf("login: %w", err), "joined": errors.Join(err, err), "field": struct{ Err error }{err},
		} {
			tokNeverPrinted(t, name, v, answered, tokRefresh)
		}
		assert.Contains(t, fmt.Sprintf("%+v", failure), "refresh failed", "and yet it says what failed")
		assert.Contains(t, fmt.Sprintf("%#v", reauth.Outcome{Err: err}), "refresh failed")
	})
}
