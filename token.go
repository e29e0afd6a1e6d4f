package reauth

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// maxTokenBytes bounds a token, as servers bound their headers.
const maxTokenBytes = 64 << 10

// A Token is what a Refresher returns and a Transport attaches.
//
// The verbs of package fmt and the handlers of log/slog print a Token redacted, with
// its Fingerprint in place of its secrets. Package fmt cannot call methods on an
// unexported field: a struct that holds a Token in an unexported field must not be
// printed.
type Token struct {
	// AccessToken is the credential itself, without an authentication scheme.
	AccessToken string

	// TokenType is what the issuer called the token, such as "Bearer". It is
	// informational: Transport.Scheme decides what precedes the token.
	TokenType string

	// RefreshToken is passed to the Refresher in Stale. If a refresh returns
	// none, a Credential keeps the old one (RFC 6749 §6).
	RefreshToken string

	// Expiry is when the access token expires. If zero, it is not known, and the
	// token is used until a server rejects it.
	Expiry time.Time

	// RefreshAt is when the issuer asks for a refresh ahead of expiry, such as with
	// refresh_in of Microsoft Entra ID. If zero, Credential.RefreshBefore decides. If
	// not zero, it overrides Credential.RefreshBefore, unless that is negative.
	RefreshAt time.Time

	// session counts the logins of the Credential that returned the token, from 1. It
	// is zero for a token that no Credential returned.
	session uint64
}

// boundTypes are the types of tokens that a request has to be signed for (RFC 9449,
// RFC 6749 §7.1, RFC 7800).
var boundTypes = []string{"dpop", "mac", "pop"}

// Validate returns an error if the token cannot be sent. The access token must not be
// empty, longer than 64 KiB, or Placeholder. It must not begin or end with white space,
// or contain a control character. The type must not be one that requires a signature of
// each request, such as DPoP. The error names the problem and never contains the token.
// A Credential validates every token that it is given.
func (t Token) Validate() error {
	s := t.AccessToken
	switch {
	case s == "":
		return errors.New("the access token is empty")
	case len(s) > maxTokenBytes:
		return fmt.Errorf("the access token has %d bytes, and a server accepts at most %d in a header", len(s), maxTokenBytes)
	case s == Placeholder:
		return errors.New("the access token is reauth.Placeholder: give that to the SDK, and return the real token from the Refresher")
	case strings.TrimRight(s, "\r\n") != s:
		return errors.New("the access token ends in a line break: trim what was read from the file")
	case strings.Trim(s, " \t") != s:
		return errors.New("the access token begins or ends with a blank")
	case slices.Contains(boundTypes, strings.ToLower(t.TokenType)):
		return fmt.Errorf("the token is of the type %s, which is of no use without a key: have the issuer issue bearer tokens to this client", t.TokenType)
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("the access token has a control character at byte %d", i)
		}
	}
	return nil
}

// Fingerprint returns the first eight hexadecimal digits of the SHA-256 of the
// access token, to distinguish tokens in logs. It is empty for an empty token.
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

// MarshalText always returns an error, so that encoding/json and the encoders of XML
// and YAML do too. A Token must not get into an event by accident, and a redacted Token
// cannot be used after it is read back. To save a Token, copy its fields.
func (t Token) MarshalText() ([]byte, error) {
	return nil, errors.New("reauth: a Token does not marshal itself: to save one, copy AccessToken, RefreshToken and Expiry into a struct of your own")
}

// MarshalJSON returns the error of MarshalText.
func (t Token) MarshalJSON() ([]byte, error) { return t.MarshalText() }
