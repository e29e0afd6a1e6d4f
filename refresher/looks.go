package refresher

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/reauth-go/reauth"
)

// Texts that are pasted in place of a token, or that an unset variable leaves.
var (
	unexpanded = regexp.MustCompile(`^(\$\{[^}]*\}|\$[A-Za-z_][A-Za-z0-9_]*|%[A-Za-z_][A-Za-z0-9_]*%|\{\{.*\}\})$`)
	template   = regexp.MustCompile(`(?i)^(<.*>|\[.*\]|(your|insert|replace|enter|paste|put)([-_ .][a-z]+)*[-_ .](token|key|secret|here|me)([-_ .][a-z]+)*|.*[-_](token|key|secret)[-_]here|change[-_]?me|replace[-_]?me|(sk-)?(x{3,}|\*{3,}|\.{3,}|…+)|null|undefined|none|nil)$`)
)

// maxTemplate bounds the length of a text that may be a template.
const maxTemplate = 100

// fromText returns the token that a person or a program has written as text.
func fromText(access string) (reauth.Token, error) {
	if err := plausible(access); err != nil {
		return reauth.Token{}, err
	}
	return checked(reauth.Token{AccessToken: access})
}

// plausible returns an error if a text does not look like a token.
func plausible(s string) error {
	const quotes = "\"'`"
	switch scheme := strings.FieldsFunc(s+" ", isBlank); {
	case len(scheme) > 0 && strings.EqualFold(scheme[0], "Bearer"):
		return errors.New(`the access token begins with "Bearer": leave the scheme out, the Transport adds it`)
	case len(s) > 1 && strings.ContainsRune(quotes, rune(s[0])) && s[len(s)-1] == s[0], strings.HasPrefix(s, "“") && strings.HasSuffix(s, "”"):
		return errors.New("the access token is in quotes: remove them")
	case len(s) <= maxTemplate && unexpanded.MatchString(s):
		return errors.New("the access token is a variable that was not expanded")
	case len(s) <= maxTemplate && template.MatchString(s):
		return errors.New("the access token is the placeholder of an example: replace it with the real one")
	}
	for i, r := range strings.Trim(s, " \t\r\n") {
		switch {
		case isBlank(r):
			return fmt.Errorf("the access token has a blank at byte %d", i)
		case r > 0x7f:
			return fmt.Errorf("the access token has a character outside of ASCII at byte %d", i)
		}
	}
	return nil
}

func isBlank(r rune) bool { return r == ' ' || r == '\t' }
