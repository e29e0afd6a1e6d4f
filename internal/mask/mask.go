// Package mask makes foreign text safe to log: bounded, printable, and without
// secrets.
package mask

import (
	"fmt"
	"iter"
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
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}`), "$1 [redacted]", func(h *hints) bool { return h.scheme }},
	{regexp.MustCompile(`(?i)("?[\w-]*(?:token|secret|passw(?:or)?d|api[-_]?key|assertion|authorization|signature)"?\s*[=]\s*"?)[^\s"'&,;}]+`), "${1}[redacted]", func(h *hints) bool { return h.assigned }},
	{regexp.MustCompile(`(?i)(["'][\w-]*(?:token|secret|passw(?:or)?d|api[-_]?key|assertion|authorization)\\*["']\s*:\s*\\*["'])[^"'\\]*`), "${1}[redacted]", func(h *hints) bool { return h.assigned }},
	{regexp.MustCompile(`(?i)((?:(?:access|refresh|id|client|bearer)[-_]?(?:token|secret|assertion)|passw(?:or)?d|api[-_]?key)\s*:\s*\\*"?)[^\s"',;}\]\\]+`), "${1}[redacted]", func(h *hints) bool { return h.assigned }},
	{regexp.MustCompile(`(?i)(authorization\s*:\s*(?:[\w-]+\s+)?)[^\s"',;]{6,}`), "${1}[redacted]", func(h *hints) bool { return h.assigned }},
	{regexp.MustCompile(`(://)[^/\s"@]*@`), "$1", func(h *hints) bool { return h.address }},
	{regexp.MustCompile(`(://[^?\s"]*)\?[^\s"]*`), "$1", func(h *hints) bool { return h.address }},
	{regexp.MustCompile(`\beyJ[\w-]{8,}(\.[\w-]*)*`), "[redacted]", func(h *hints) bool { return h.jwt }},
	{regexp.MustCompile(`\b(sk|pk|rk|ghp|gho|ghu|ghs|ghr|github_pat|glpat|xox[a-z]|ya29|hv[sb]|npm|pypi|dapi|AKIA|ASIA|AIza)[-_.]?[\w.-]{10,}`), "[redacted]", func(h *hints) bool { return h.key }},
}

// hints are what a text has of what the expressions need. Most texts have none.
type hints struct {
	scheme, assigned, address, jwt, key bool
}

func (h *hints) any() bool { return h.scheme || h.assigned || h.address || h.jwt || h.key }

// hintsOf reads text once.
func hintsOf(text string) (h hints) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case 'b', 'B':
			h.scheme = h.scheme || startsFolded(text[i:], "bearer") || startsFolded(text[i:], "basic")
		case '=', ':':
			h.address = h.address || strings.HasPrefix(text[i:], "://")
			h.assigned = h.assigned || telling(text[:i])
		case 'e':
			h.jwt = h.jwt || strings.HasPrefix(text[i:], "eyJ")
		}
		if i == 0 || !isWord(text[i-1]) {
			h.key = h.key || isKey(text[i:])
		}
	}
	return h
}

// isKey reports whether text begins with an issuer's prefix, and is as long as a key.
func isKey(text string) bool {
	const least = 10
	if text == "" || strings.IndexByte("sprgxyhndA", text[0]) < 0 {
		return false
	}
	for _, p := range keyPrefixes {
		if strings.HasPrefix(text, p) && len(text) >= len(p)+least {
			return true
		}
	}
	return false
}

// telling reports whether text ends in a name that its value follows, such as that of a
// token.
func telling(text string) bool {
	text = strings.TrimRight(text[max(0, len(text)-64):], " \t\"'\\")
	begin := len(text)
	for begin > 0 && (isWord(text[begin-1]) || text[begin-1] == '-') {
		begin--
	}
	name, _ := fold(text[begin:])
	for _, t := range tellingNames {
		if strings.Contains(name, t) {
			return true
		}
	}
	return false
}

var (
	tellingNames = []string{"token", "secret", "passw", "key", "assertion", "authorization", "signature"}
	keyPrefixes  = []string{"sk", "pk", "rk", "ghp", "gho", "ghu", "ghs", "ghr", "github_pat", "glpat", "xox", "ya29", "hvs", "hvb", "npm", "pypi", "dapi", "AKIA", "ASIA", "AIza"}
)

func startsFolded(text, folded string) bool {
	return len(text) >= len(folded) && strings.EqualFold(text[:len(folded)], folded)
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

// Overlap is how many bytes in a row a word may share with a known secret.
const Overlap = 8

// Text returns foreign text as it may stand in a log: one line, printable, at most max
// runes, without the given secrets in any case, without words that contain a piece of
// them, and without what has the shape of a secret.
func Text(text string, max int, secrets ...string) string {
	return NewSecrets(secrets...).Text(text, max)
}

// Secrets are what texts must not repeat. They are made for the texts of one response,
// and are not safe for concurrent use.
type Secrets struct {
	values []string
	words  []string // of the values those that are one word, and so found in words; folded
	others []string // of the values the others
	ready  bool     // words and others are
	looked int      // bytes that were looked for without runs
	runs   runs     // of the words, once that is worth it
}

// NewSecrets returns the Secrets with these values, of which empty ones are none.
func NewSecrets(values ...string) *Secrets { return &Secrets{values: values} }

// Text is the function Text with these secrets.
func (s *Secrets) Text(text string, max int) string {
	if len(text) > 4*max { // before the work, not only after it
		text = strings.ToValidUTF8(text[:4*max], "")
	}
	s.prepare()
	for _, v := range s.others {
		text = replaceFolded(text, v)
	}
	text = s.maskPieces(text)
	if h := hintsOf(text); h.any() {
		for _, sh := range shapes {
			if sh.hint(&h) {
				text = sh.re.ReplaceAllString(text, sh.to)
			}
		}
	}
	return Printable(text, max)
}

// In reports whether word has a run of Overlap bytes of one of the secrets, in any case.
func (s *Secrets) In(word string) bool {
	if len(word) < Overlap || len(s.values) == 0 {
		return false
	}
	s.prepare()
	if s.runs == nil {
		if s.looked += len(word); s.looked <= maxLooked && !s.mayHave(word) {
			return false
		}
		s.runs = runsOf(s.values)
	}
	return s.runs.in(word)
}

// prepare sorts the values, once.
func (s *Secrets) prepare() {
	if s.ready {
		return
	}
	s.ready = true
	for _, v := range s.values {
		if len(v) < shortest {
			continue
		}
		v, isWord := fold(v)
		if len(v) >= Overlap {
			s.words = append(s.words, v)
		}
		if !isWord || len(v) < Overlap {
			s.others = append(s.others, v)
		}
	}
}

// maxLooked is how many bytes are looked for one after another. From then on, time must
// not be the product of that and the length of the secrets.
const maxLooked = 1 << 10

// mayHave reports whether word may have a run of a secret: whether one of its pieces of half
// that length, of which each run has at least one, is in a secret. They hardly are by chance.
func (s *Secrets) mayHave(word string) bool {
	const half = Overlap / 2
	word, _ = fold(word)
	for i := 0; i+half <= len(word); i += half {
		for _, v := range s.words {
			if strings.Contains(v, word[i:i+half]) {
				return true
			}
		}
	}
	return false
}

// fold returns s with the letters A to Z in lower case, and whether it is one word. Its
// length is that of s.
func fold(s string) (folded string, isWord bool) {
	var has, also uint8 // two, as each waits for itself
	i := 0
	for ; i+4 <= len(s); i += 4 {
		has |= kinds[s[i]] | kinds[s[i+1]]
		also |= kinds[s[i+2]] | kinds[s[i+3]]
	}
	for ; i < len(s); i++ {
		has |= kinds[s[i]]
	}
	has |= also
	if has&upper == 0 {
		return s, has&noToken == 0
	}
	b := make([]byte, len(s))
	for i := range b {
		b[i] = lower[s[i]]
	}
	return string(b), has&noToken == 0
}

// Kinds of bytes.
const (
	upper   = 1 << iota // A to Z
	noToken             // a token has none of these (RFC 6750 §2.1)
)

// kinds and lower are by byte.
var kinds, lower = func() (kinds, lower [256]uint8) {
	for i := range kinds {
		c := byte(i)
		lower[i] = c
		switch {
		case 'A' <= c && c <= 'Z':
			kinds[i], lower[i] = upper, c+'a'-'A'
		case !isWord(c) && strings.IndexByte("-.~+/=", c) < 0:
			kinds[i] = noToken
		}
	}
	return kinds, lower
}()

// shortest is the length from which on a secret is looked for: a letter is in every text.
const shortest = 3

// replaceFolded replaces the secret, which is folded, in text.
func replaceFolded(text, secret string) string {
	if len(secret) > len(text) {
		return text
	}
	folded, _ := fold(text)
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
func (s *Secrets) maskPieces(text string) string {
	var b strings.Builder
	done := 0 // is in b
	for i := 0; i < len(text); {
		begin := i
		for i < len(text) && kinds[text[i]]&noToken == 0 {
			i++
		}
		if word := text[begin:i]; s.In(word) {
			b.WriteString(text[done:begin])
			b.WriteString("[redacted]")
			done = i
		}
		for i < len(text) && kinds[text[i]]&noToken != 0 {
			i++
		}
	}
	if done == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}

// runs are the runs of Overlap bytes of secrets, folded, in a hash table with open
// addressing: a run is a number of 64 bits. The zero is a free place.
type runs []uint64

func runsOf(secrets []string) runs {
	n := 0
	for _, s := range secrets {
		n += max(0, len(s)-Overlap+1)
	}
	size := 1
	for size < 2*n {
		size *= 2
	}
	r := make(runs, size)
	for _, s := range secrets {
		for run := range runsIn(s) {
			place := r.place(run)
			r[place] = run
		}
	}
	return r
}

// runsIn returns the runs of s.
func runsIn(s string) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		var run uint64
		for i := 0; i < len(s); i++ {
			if run = run<<8 | uint64(lower[s[i]]); i >= Overlap-1 && run != 0 && !yield(run) {
				return
			}
		}
	}
}

// place returns where run is, or the free place where it would be.
func (r runs) place(run uint64) int {
	const multiplier = 0x9e3779b97f4a7c15 // of Fibonacci hashing
	at := int(run*multiplier>>32) & (len(r) - 1)
	for r[at] != 0 && r[at] != run {
		at = (at + 1) & (len(r) - 1)
	}
	return at
}

// in reports whether word has one of the runs.
func (r runs) in(word string) bool {
	if len(r) < 2 { // none
		return false
	}
	for run := range runsIn(word) {
		if r[r.place(run)] == run {
			return true
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
	return NewSecrets(secrets...).Err(prefix, err)
}

// Err is the function Err with these secrets.
func (s *Secrets) Err(prefix string, err error) *Error {
	return WithText(prefix+s.errorText(err), err)
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
func ErrorText(err error, secrets ...string) string { return NewSecrets(secrets...).errorText(err) }

func (s *Secrets) errorText(err error) (text string) {
	defer func() {
		if recover() != nil { // a nil pointer in an error, most likely
			text = fmt.Sprintf("an error of type %T", err)
		}
	}()
	return s.Text(err.Error(), 300)
}

// Error returns the text.
func (e *Error) Error() string { return e.text }

// Unwrap returns the error behind it, whose text may not be safe.
func (e *Error) Unwrap() error { return e.err() }

// Format implements fmt.Formatter: every verb prints the text.
func (e *Error) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(e.text)) }
