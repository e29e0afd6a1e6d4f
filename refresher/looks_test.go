package refresher_test

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// lookProblems are the errors about what a text looks like. No part of them comes from
// the text.
var lookProblems = map[string]*regexp.Regexp{
	"scheme":   regexp.MustCompile(`the access token begins with "Bearer": leave the scheme out, the Transport adds it$`),
	"quotes":   regexp.MustCompile(`the access token is in quotes: remove them$`),
	"variable": regexp.MustCompile(`the access token is a variable that was not expanded$`),
	"example":  regexp.MustCompile(`the access token is the placeholder of an example: replace it with the real one$`),
	"a blank":  regexp.MustCompile(`the access token has a blank at byte \d+$`),
	"ascii":    regexp.MustCompile(`the access token has a character outside of ASCII at byte \d+$`),
}

func TestStaticRefusesWhatIsNoToken(t *testing.T) {
	for _, tt := range []struct{ name, token, problem string }{
		{"Bearer in front", "Bearer q7Zk2mVx9LrT", "scheme"},
		{"bearer in lower case", "bearer q7Zk2mVx9LrT", "scheme"},
		{"Bearer and a tab", "Bearer\tq7Zk2mVx9LrT", "scheme"},
		{"Bearer alone", "Bearer", "scheme"},
		{"another scheme in front", "token q7Zk2mVx9LrT", "a blank"},
		{"double quotes", `"q7Zk2mVx9LrT"`, "quotes"},
		{"single quotes", `'q7Zk2mVx9LrT'`, "quotes"},
		{"backquotes", "`q7Zk2mVx9LrT`", "quotes"},
		{"a word processor's quotes", "“q7Zk2mVx9LrT”", "quotes"},
		{"empty quotes", `""`, "quotes"},
		{"shell variable", "${OPENAI_API_KEY}", "variable"},
		{"shell variable with a default", "${OPENAI_API_KEY:-none}", "variable"},
		{"bare shell variable", "$OPENAI_API_KEY", "variable"},
		{"Windows variable", "%OPENAI_API_KEY%", "variable"},
		{"template", "{{ .Values.token }}", "variable"},
		{"your_token_here", "your_token_here", "example"},
		{"YOUR_API_KEY", "YOUR_API_KEY", "example"},
		{"your-api-key-here", "your-api-key-here", "example"},
		{"in angle brackets", "<token>", "example"},
		{"in angle brackets with words", "<your API key>", "example"},
		{"in square brackets", "[token]", "example"},
		{"changeme", "changeme", "example"},
		{"crosses", "sk-xxxxxxxxxxxxxxxx", "example"},
		{"stars", "********", "example"},
		{"dots", "...", "example"},
		{"a stringified nothing", "undefined", "example"},
		{"another one", "null", "example"},
		{"blank within", "q7Zk2mVx 9LrT", "a blank"},
		{"tab within", "q7Zk2mVx\t9LrT", "a blank"},
		{"umlaut", "q7Zk2mVxü", "ascii"},
		{"byte order mark", "\uFEFFq7Zk2mVx9LrT", "ascii"},
		{"zero-width space", "q7Zk\u200b2mVx9LrT", "ascii"},
		{"no-break space", "q7Zk\u00a02mVx9LrT", "ascii"},
		{"invalid UTF-8", "q7Zk\xff\xfe", "ascii"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := refresher.Static(tt.token).Refresh(context.Background(), reauth.Stale{})
			require.Error(t, err)
			assert.True(t, reauth.IsPermanent(err))
			assert.Regexp(t, lookProblems[tt.problem], err.Error())
			if len(tt.token) > 6 {
				assert.NotContains(t, err.Error(), tt.token)
			}
		})
	}
}

func TestStaticAcceptsWhatMayBeAToken(t *testing.T) {
	for name, token := range map[string]string{
		"a test system's key":                "my-secret-key",
		"as long as a text with no template": "your-" + strings.Repeat("a-", 48) + "key",
		"begins with a dollar":               "$2y$10$N9qo8uLOickgx2ZMRZoMye",
		"crosses and more":                   "xxxZk2mVx9",
		"none as a part":                     "none-8f3c1d",
	} {
		t.Run(name, func(t *testing.T) {
			tok, err := refresher.Static(token).Refresh(context.Background(), reauth.Stale{})
			require.NoError(t, err)
			assert.Equal(t, token, tok.AccessToken)
		})
	}
}
