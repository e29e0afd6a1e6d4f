package reauth

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"
)

// maxTokenBytes is what Validate accepts as one token. Servers answer 431 to
// headers far shorter than this.
const maxTokenBytes = 64 << 10

// A Token is what a Refresher returns and a Transport attaches.
//
// The verbs of package fmt and the handlers of log/slog print it redacted, with
// its Fingerprint in place of its secrets.
type Token struct {
	// AccessToken is the credential itself, without a scheme in front.
	AccessToken string

	// TokenType is what the issuer called the token ("Bearer"). It is
	// informational: Transport.Scheme decides what stands in front.
	TokenType string

	// RefreshToken is handed back to the Refresher in Stale. A Credential
	// keeps the old one when a refresh brings none (RFC 6749 §6).
	RefreshToken string

	// Expiry is when the access token ends. Zero means that it is not known:
	// the token is used until a server rejects it.
	Expiry time.Time

	// session is that of the Credential which handed the token out; zero for a
	// token that came from elsewhere.
	session uint64
}

// What people paste in place of a token, and what an unset variable leaves.
var (
	unexpanded = regexp.MustCompile(`^(\$\{[^}]*\}|\$[A-Za-z_][A-Za-z0-9_]*|%[A-Za-z_][A-Za-z0-9_]*%|\{\{.*\}\})$`)
	pasted     = regexp.MustCompile(`(?i)^(<.*>|\[.*\]|(your|my|insert|replace|enter|paste|put)([-_ .][a-z]+)*[-_ .](token|key|secret|here|me)([-_ .][a-z]+)*|.*[-_](token|key|secret)[-_]here|change[-_]?me|replace[-_]?me|(sk-)?(x{3,}|\*{3,}|\.{3,}|…+)|null|undefined|none|nil)$`)
)

// Validate reports why the access token cannot stand in a header, or why it is
// plainly no token, such as "<token>" or an unexpanded "${TOKEN}". The error
// names the problem and never the token. A Credential validates every token
// that it is given.
func (t Token) Validate() error {
	s := t.AccessToken
	switch {
	case s == "":
		return errors.New("the access token is empty")
	case len(s) > maxTokenBytes:
		return fmt.Errorf("the access token has %d bytes: no server takes a header over %d", len(s), maxTokenBytes)
	case strings.TrimSpace(s) == "":
		return errors.New("the access token is blank")
	case strings.TrimRight(s, "\r\n") != s:
		return errors.New("the access token ends in a line break: trim what was read from the file")
	case isScheme(s, "Bearer"):
		return errors.New(`the access token begins with "Bearer": leave the scheme out, the Transport adds it`)
	case len(s) > 1 && strings.ContainsRune("\"'`", rune(s[0])) && s[len(s)-1] == s[0],
		strings.HasPrefix(s, "“") && strings.HasSuffix(s, "”"):
		return errors.New("the access token stands in quotes: remove them")
	case s == Placeholder:
		return errors.New("the access token is reauth.Placeholder: that is for the SDK, the Refresher returns the real one")
	case len(s) > 100: // no one writes that much in a template
	case unexpanded.MatchString(s):
		return errors.New("the access token is a variable that was never expanded")
	case pasted.MatchString(s):
		return errors.New("the access token is an example's placeholder: put the real one in")
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ' ', c == '\t':
			return fmt.Errorf("the access token has a blank at byte %d", i)
		case c < ' ', c == 0x7f:
			return fmt.Errorf("the access token has a control character at byte %d", i)
		case c > 0x7f:
			return fmt.Errorf("the access token has a character outside of ASCII at byte %d", i)
		}
	}
	return nil
}

// isScheme reports whether s begins with the authentication scheme, alone or
// followed by a blank.
func isScheme(s, scheme string) bool {
	n := len(scheme)
	return len(s) >= n && strings.EqualFold(s[:n], scheme) && (len(s) == n || s[n] == ' ' || s[n] == '\t')
}

// Fingerprint returns eight hex digits of the SHA-256 of the access token, to
// tell tokens apart in logs. It is empty for an empty token.
func (t Token) Fingerprint() string {
	if t.AccessToken == "" {
		return ""
	}
	return fingerprint(sha256.Sum256([]byte(t.AccessToken)))
}

func fingerprint(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:4]) }

// String returns the token redacted.
func (t Token) String() string {
	var b strings.Builder
	b.WriteString("Token(")
	if t.AccessToken == "" {
		b.WriteString("empty")
	} else {
		b.WriteString(t.Fingerprint())
	}
	if t.RefreshToken != "" {
		b.WriteString(", with a refresh token")
	}
	if !t.Expiry.IsZero() {
		b.WriteString(", expires " + t.Expiry.UTC().Format(time.RFC3339))
	}
	b.WriteString(")")
	return b.String()
}

// Format implements fmt.Formatter: every verb prints the token redacted.
func (t Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(t.String())) }

// LogValue implements slog.LogValuer.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON fails: a token must not slip into an event or a dump, and one
// written redacted would be a login lost on disk.
func (t Token) MarshalJSON() ([]byte, error) {
	return nil, errors.New("reauth: a Token does not marshal itself: to save one on purpose, copy AccessToken, RefreshToken and Expiry into a struct of your own")
}
