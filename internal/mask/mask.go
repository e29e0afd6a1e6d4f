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

// A shape is what a secret looks like wherever it is: a token behind a scheme, the value
// of a telling member or parameter, the query and the password of a URL, a JWT, a key
// with an issuer's prefix. hint reports whether the expression may match: most texts
// have no hint of a secret, and need no expression.
type shape struct {
	re   *regexp.Regexp
	to   string
	hint func(*hints) bool
}

var shapes = []shape{
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}`), "$1 [redacted]", func(h *hints) bool { return h.has("bearer", "basic") }},
	{regexp.MustCompile(`(?i)("?[\w-]*(?:token|secret|passw(?:or)?d|api[-_]?key|assertion|authorization|signature)"?\s*[=]\s*"?)[^\s"'&,;}]+`), "${1}[redacted]", (*hints).assignment},
	{regexp.MustCompile(`(?i)(["'][\w-]*(?:token|secret|passw(?:or)?d|api[-_]?key|assertion|authorization)\\*["']\s*:\s*\\*["'])[^"'\\]*`), "${1}[redacted]", (*hints).assignment},
	{regexp.MustCompile(`(?i)((?:(?:access|refresh|id|client|bearer)[-_]?(?:token|secret|assertion)|passw(?:or)?d|api[-_]?key)\s*:\s*\\*"?)[^\s"',;}\]\\]+`), "${1}[redacted]", (*hints).assignment},
	{regexp.MustCompile(`(?i)(authorization\s*:\s*(?:[\w-]+\s+)?)[^\s"',;]{6,}`), "${1}[redacted]", (*hints).assignment},
	{regexp.MustCompile(`(://)[^/\s"@]*@`), "$1", func(h *hints) bool { return h.has("://") }},
	{regexp.MustCompile(`(://[^?\s"]*)\?[^\s"]*`), "$1", func(h *hints) bool { return h.has("://") }},
	{regexp.MustCompile(`\beyJ[\w-]{8,}(\.[\w-]*)*`), "[redacted]", func(h *hints) bool { return h.has("eyj") }},
	{regexp.MustCompile(`\b(sk|pk|rk|ghp|gho|ghu|ghs|ghr|github_pat|glpat|xox[a-z]|ya29|hv[sb]|npm|pypi|dapi|AKIA|ASIA|AIza)[-_.]?[\w.-]{10,}`), "[redacted]", func(h *hints) bool { return h.longWord }},
}

// hints are what a text has of the literals that the expressions need.
type hints struct {
	folded   string
	longWord bool // as long as a key with a prefix
}

func hintsOf(text string) *hints {
	const key = len("sk") + 10
	h := &hints{folded: fold(text)}
	run := 0
	for i := 0; i < len(text) && !h.longWord; i++ {
		if run++; !isWord(text[i]) && text[i] != '.' && text[i] != '-' {
			run = 0
		}
		h.longWord = run >= key
	}
	return h
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

func (h *hints) has(literals ...string) bool {
	for _, l := range literals {
		if strings.Contains(h.folded, l) {
			return true
		}
	}
	return false
}

func (h *hints) assignment() bool {
	return strings.ContainsAny(h.folded, ":=") && h.has("token", "secret", "passw", "key", "assertion", "authorization", "signature")
}

// Overlap is how many bytes in a row a word may share with a known secret.
const Overlap = 8

// Text returns foreign text as it may stand in a log: one line, printable, at most max
// runes, without the given secrets in any case, without words that contain a piece of
// them, and without what has the shape of a secret.
func Text(text string, max int, secrets ...string) string {
	if len(text) > 4*max { // before the work, not only after it
		text = strings.ToValidUTF8(text[:4*max], "")
	}
	for _, s := range secrets {
		text = replaceFolded(text, s)
	}
	text = maskPieces(text, secrets)
	h := hintsOf(text)
	for _, s := range shapes {
		if s.hint(h) {
			text = s.re.ReplaceAllString(text, s.to)
		}
	}
	return Printable(text, max)
}

// fold returns s with the letters A to Z in lower case. Its length is that of s.
func fold(s string) string {
	upper := strings.IndexFunc(s, func(r rune) bool { return 'A' <= r && r <= 'Z' })
	if upper < 0 {
		return s
	}
	b := []byte(s)
	for i := upper; i < len(b); i++ {
		b[i] = foldByte(b[i])
	}
	return string(b)
}

func foldByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// shortest is the length from which on a secret is looked for: a letter is in every text.
const shortest = 3

// replaceFolded replaces the secret in text, in any case.
func replaceFolded(text, secret string) string {
	if len(secret) < shortest || len(secret) > len(text) {
		return text
	}
	folded, secret := fold(text), fold(secret)
	var b strings.Builder
	for {
		i := strings.Index(folded, secret)
		if i < 0 {
			break
		}
		b.WriteString(text[:i])
		b.WriteString("[redacted]")
		text, folded = text[i+len(secret):], folded[i+len(secret):]
	}
	if b.Len() == 0 {
		return text
	}
	return b.String() + text
}

// maskPieces replaces the words of text that share a run of bytes with a secret.
func maskPieces(text string, secrets []string) string {
	inWord := func(r rune) bool {
		return r < utf8.RuneSelf && (isWord(byte(r)) || strings.ContainsRune("-.~+/=", r))
	}
	var runs *index
	var b strings.Builder
	for len(text) > 0 {
		end := strings.IndexFunc(text, func(r rune) bool { return !inWord(r) })
		if end < 0 {
			end = len(text)
		}
		word := text[:end]
		if len(word) >= Overlap {
			if runs == nil {
				runs = newIndex(secrets)
			}
			if runs.shares(word) {
				word = "[redacted]"
			}
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

// Shares reports whether word has a run of Overlap bytes of one of the secrets, in any
// case.
func Shares(word string, secrets []string) bool {
	return len(word) >= Overlap && newIndex(secrets).shares(word)
}

// An index finds runs of Overlap bytes of secrets. Its bits say which runs may be there:
// most are not, so that few are looked up in the secrets themselves.
type index struct {
	secrets []string // folded
	bits    [512]uint64
}

func newIndex(secrets []string) *index {
	x := &index{}
	for _, s := range secrets {
		if len(s) < Overlap {
			continue
		}
		s = fold(s)
		x.secrets = append(x.secrets, s)
		var run uint64
		for i := 0; i < len(s); i++ {
			if run = run<<8 | uint64(s[i]); i >= Overlap-1 {
				word, bit := x.place(run)
				x.bits[word] |= bit
			}
		}
	}
	return x
}

// place returns the bit of a run.
func (x *index) place(run uint64) (word int, bit uint64) {
	const multiplier = 0x9e3779b97f4a7c15 // of Fibonacci hashing
	hash := run * multiplier >> 49        // 15 bits
	return int(hash >> 6), 1 << (hash & 63)
}

func (x *index) shares(word string) bool {
	if len(x.secrets) == 0 {
		return false
	}
	var run uint64
	for i := 0; i < len(word); i++ {
		if run = run<<8 | uint64(foldByte(word[i])); i < Overlap-1 {
			continue
		}
		if at, bit := x.place(run); x.bits[at]&bit == 0 {
			continue
		}
		piece := fold(word[i-Overlap+1 : i+1])
		for _, s := range x.secrets {
			if strings.Contains(s, piece) {
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
