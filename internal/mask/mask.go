// Package mask makes foreign text safe to log: bounded, printable, and without
// secrets.
package mask

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What has the shape of a secret, wherever it stands: tokens behind a scheme,
// values of telling members and parameters, a URL's query and password, JWTs
// and the prefixes that issuers give to their keys.
var secretShapes = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}`), "$1 [redacted]"},
	{regexp.MustCompile(`(?i)("?[\w-]*(?:token|secret|passw(?:or)?d|api[-_]?key|assertion|authorization|signature)"?\s*[=]\s*"?)[^\s"'&,;}]+`), "${1}[redacted]"},
	{regexp.MustCompile(`(?i)(["'][\w-]*(?:token|secret|passw(?:or)?d|api[-_]?key|assertion|authorization)\\*["']\s*:\s*\\*["'])[^"'\\]*`), "${1}[redacted]"},
	{regexp.MustCompile(`(?i)((?:(?:access|refresh|id|client|bearer)[-_]?(?:token|secret|assertion)|passw(?:or)?d|api[-_]?key)\s*:\s*\\*"?)[^\s"',;}\]\\]+`), "${1}[redacted]"},
	{regexp.MustCompile(`(?i)(authorization\s*:\s*(?:[\w-]+\s+)?)[^\s"',;]{6,}`), "${1}[redacted]"},
	{regexp.MustCompile(`(://)[^/\s"@]*@`), "$1"},
	{regexp.MustCompile(`(://[^?\s"]*)\?[^\s"]*`), "$1"},
	{regexp.MustCompile(`\beyJ[\w-]{8,}(\.[\w-]*)*`), "[redacted]"},
	{regexp.MustCompile(`\b(sk|pk|rk|ghp|gho|ghu|ghs|ghr|github_pat|glpat|xox[a-z]|ya29|hv[sb]|npm|pypi|dapi|AKIA|ASIA|AIza)[-_.]?[\w.-]{10,}`), "[redacted]"},
}

// Overlap is how many bytes in a row a word may share with a known secret.
const Overlap = 8

// Text returns foreign text as it may stand in a log: one line, printable, at
// most max runes, without the given secrets, what contains a piece of them, and
// what has the shape of a secret.
func Text(text string, max int, secrets ...string) string {
	if len(text) > 4*max { // before the work, not only after it
		text = strings.ToValidUTF8(text[:4*max], "")
	}
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[redacted]")
		}
	}
	text = maskPieces(text, secrets)
	for _, shape := range secretShapes {
		text = shape.re.ReplaceAllString(text, shape.to)
	}
	return Printable(text, max)
}

// maskPieces replaces the words of text that share a run of bytes with one of
// the secrets.
func maskPieces(text string, secrets []string) string {
	inWord := func(r rune) bool {
		return r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-._~+/=", r))
	}
	var b strings.Builder
	for len(text) > 0 {
		end := strings.IndexFunc(text, func(r rune) bool { return !inWord(r) })
		if end < 0 {
			end = len(text)
		}
		word := text[:end]
		if Shares(word, secrets) {
			word = "[redacted]"
		}
		b.WriteString(word)
		text = text[end:]
		next := strings.IndexFunc(text, inWord)
		if next < 0 {
			next = len(text)
		}
		b.WriteString(text[:next])
		text = text[next:]
	}
	return b.String()
}

// Shares reports whether word has a run of bytes of one of the secrets.
func Shares(word string, secrets []string) bool {
	for _, s := range secrets {
		for i := 0; i+Overlap <= len(word); i++ {
			if strings.Contains(s, word[i:i+Overlap]) {
				return true
			}
		}
	}
	return false
}

// Bounded is Printable, for text that may be much longer.
func Bounded(s string, max int) string { return Printable(s[:min(len(s), max*utf8.UTFMax)], max) }

// Printable returns s with blanks and control characters folded into single
// spaces, what else cannot be printed left out, cut to max runes.
func Printable(s string, max int) string {
	if len(s) < max && isPlain(s) { // most are
		return s
	}
	var b strings.Builder
	b.Grow(min(len(s), max*utf8.UTFMax))
	n, blank := 0, false
	for _, r := range s {
		if r == ' ' || r < ' ' || r == 0x7f || r == utf8.RuneError || r > unicode.MaxASCII && (unicode.IsSpace(r) || unicode.IsControl(r)) {
			blank = true
			continue
		}
		if r > unicode.MaxASCII && !unicode.IsPrint(r) {
			continue
		}
		gap := 0
		if blank && n > 0 {
			gap = 1
		}
		if n+gap+1 >= max { // room for the mark, should more come
			b.WriteString("…")
			break
		}
		if gap > 0 {
			b.WriteByte(' ')
			n++
		}
		blank = false
		b.WriteRune(r)
		n++
	}
	return b.String()
}

// isPlain reports whether s has no other than visible characters, with single
// spaces between.
func isPlain(s string) bool {
	last := ' '
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == ' ' && last == ' ' || r == utf8.RuneError || r > unicode.MaxASCII && !unicode.IsPrint(r) {
			return false
		}
		last = r
	}
	return last != ' ' || s == ""
}

// An Error prints as text that was made safe to log; errors.Is and
// errors.As see the error behind it.
type Error struct {
	text string
	err  func() error // not the error itself: fmt would find a way into it
}

// Err returns err with the prefix before its text, which is masked.
func Err(prefix string, err error, secrets ...string) *Error {
	return WithText(prefix+ErrorText(err, secrets...), err)
}

// WithText returns an error that prints as the text, which has to be safe, with
// err behind it.
func WithText(text string, err error) *Error {
	if v := reflect.ValueOf(err); v.Kind() == reflect.Pointer && v.IsNil() { // errors.As would call its methods
		err = nil
	}
	return &Error{text, func() error { return err }}
}

// ErrorText returns the text of a foreign error, made safe to log.
func ErrorText(err error, secrets ...string) (text string) {
	defer func() {
		if recover() != nil { // a nil pointer in an error, most likely
			text = fmt.Sprintf("an error of type %T", err)
		}
	}()
	return Text(err.Error(), 300, secrets...)
}

// Error returns the text.
func (e *Error) Error() string { return e.text }

// Unwrap returns the error behind it, whose text may not be safe.
func (e *Error) Unwrap() error { return e.err() }

// Format implements fmt.Formatter: every verb prints the text.
func (e *Error) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(e.text)) }
