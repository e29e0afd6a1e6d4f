package mask

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestTextHidesASecretInAnyCase(t *testing.T) {
	const secret = "Kx7-Q2m_Zz90"
	for _, text := range []string{
		secret,
		strings.ToUpper(secret),
		strings.ToLower(secret),
		"no such key: " + strings.ToUpper(secret) + ".",
		"two: " + secret + strings.ToLower(secret),
		"a piece of it: q2m_zz90",
		"a piece of it in a word: xxQ2M_ZZ90xx",
	} {
		got := Text(text, 200, secret)
		assert.NotContains(t, strings.ToLower(got), "q2m_zz90", text)
		assert.Contains(t, got, "[redacted]", text)
	}
}

func TestTextLeavesWhatIsNoSecret(t *testing.T) {
	for _, text := range []string{
		"", "Q2m_Zz9", "无效的令牌 (request id: 20260219100814161456584b503l5fK)", "the token is invalid", "İstanbul ſ K",
	} {
		assert.Equal(t, text, Text(text, 200, "Kx7-Q2m_Zz90", "a", "to"))
	}
}

func TestTextIsOnePrintableLineOfAtMostMaxRunes(t *testing.T) {
	for text, want := range map[string]string{
		"a\r\nlevel=ERROR\x1b[31m\u202eb\x00": "a level=ERROR",
		"  a \t b\n":                          "a b",
		"\xff\xfe":                            "",
	} {
		got := Text(text, 200)
		assert.True(t, isPlain(got), "%q", got)
		assert.True(t, strings.HasPrefix(got, want), "%q", got)
	}
	got := []rune(Text(strings.Repeat("令", 1000), 200))
	assert.LessOrEqual(t, len(got), 201, "the mark that it was cut off is one more")
}

// What shapes promise is cheaper to look for than their expressions: a text without a
// hint has to be one that no expression changes.
func TestTextHintsMissNothingThatAnExpressionFinds(t *testing.T) {
	for _, text := range []string{
		"Bearer abcdefgh", "BASIC dXNlcjpwYXNz", "access_token=abc", "API-KEY = abc", `"client_secret":"abc"`, `{\"password\":\"abc\"}`,
		"refresh token: abc", "refresh_token: abc", "apikey:abc", "Authorization: abcdefgh", "https://user:pass@host/", "https://host/path?token",
		"eyJhbGciOiJIUzI1NiJ9.e30.x", "sk-0123456789abcdef", "ghp_0123456789abcdef", "signature=abc", "assertion=abc", "passwd=abc",
	} {
		h := hintsOf(text)
		for _, s := range shapes {
			if s.re.ReplaceAllString(text, s.to) != text {
				assert.True(t, s.hint(&h), "%q and %s", text, s.re)
			}
		}
	}
}

func FuzzTextHints(f *testing.F) {
	f.Add("Bearer abcdefgh https://u:p@h/?q access_token=x")
	f.Fuzz(func(t *testing.T, text string) {
		h := hintsOf(text)
		for _, s := range shapes {
			if s.re.ReplaceAllString(text, s.to) != text && !s.hint(&h) {
				t.Errorf("%q and %s", text, s.re)
			}
		}
	})
}

// A server chooses the text, and an issuer the token.
func TestTextTakesLinearTime(t *testing.T) {
	token := strings.Repeat("abcdefg", 16<<10/7)
	text := strings.Repeat("abcdefh", 64<<10/7)
	start := time.Now()
	Text(text, 16<<10, token)
	assert.Less(t, time.Since(start), 2*time.Second, "a product of the lengths takes minutes")
}

func TestSecretsIn(t *testing.T) {
	assert.True(t, NewSecrets("012345678").In("xx12345678xx"))
	assert.True(t, NewSecrets("abcdefgh").In("ABCDEFGH"), "in another case")
	assert.False(t, NewSecrets("1234567").In("1234567"), "less than Overlap")
	assert.False(t, NewSecrets().In("12345678"))
}

type leaky struct{ secret string }

func (l *leaky) Error() string { return "refused " + l.secret }

func TestErrPrintsNoSecretWithAnyVerbAndUnwraps(t *testing.T) {
	const secret = "Kx7-Q2m_Zz90"
	cause := &leaky{secret}
	err := Err("login: ", cause, secret)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
		assert.NotContains(t, fmt.Sprintf(verb, err), secret)
		assert.NotContains(t, fmt.Sprintf(verb, struct{ E any }{err}), secret)
		assert.NotContains(t, fmt.Sprintf(verb, struct{ e any }{*err}), secret)
	}
	assert.ErrorIs(t, err, error(cause))
	var as *leaky
	assert.True(t, errors.As(err, &as))
}

func TestErrOfAnErrorThatPanics(t *testing.T) {
	var none *leaky
	assert.Equal(t, "login: an error of type *mask.leaky", Err("login: ", none).Error())
	assert.NoError(t, errors.Unwrap(Err("", none)), "errors.As would call its methods")
}
