// Package challenge reads WWW-Authenticate headers.
package challenge

import (
	"net/http"
	"strings"

	"github.com/reauth-go/reauth/internal/httpx"
)

// How much of WWW-Authenticate is read, over all lines, and how many challenges
// are kept: no server has a use for more.
const (
	maxChallengeBytes = 64 << 10
	maxChallenges     = 64
)

// A Challenge is one challenge of a WWW-Authenticate header (RFC 9110 §11.6.1).
type Challenge struct {
	Scheme  string            // as the server wrote it; compare with strings.EqualFold
	Token68 string            // the one value of "Negotiate abc=="; else empty
	Params  map[string]string // by lower-case name; a name that is repeated is left out, as neither value can be trusted
}

// Parse returns the challenges of all WWW-Authenticate lines of h, in their order. It
// accepts what RFC 9110 §11 allows and what servers send besides: unquoted values,
// quotes inside of quotes, missing and superfluous commas. It skips what it cannot
// read. It never fails, and takes time in proportion to the header, of which it reads
// 64 KiB.
func Parse(h http.Header) []Challenge {
	var p parser
	budget := maxChallengeBytes
	for _, line := range httpx.Values(h, "Www-Authenticate") {
		line = line[:min(len(line), budget)]
		budget -= len(line)
		p.parse(line)
	}
	return p.all
}

// A parser reads lines one after another, as if they were one line with a
// comma in between (RFC 9110 §5.3), byte by byte and never backwards.
type parser struct {
	all      []Challenge
	repeated map[string]bool // names that the last challenge has more than once
	full     bool            // there was one challenge too many

	s    string // the line
	i    int
	open bool // a quote was seen to stay open to its end: so will every later one
}

func (p *parser) parse(line string) {
	p.s, p.i, p.open = line, 0, false
	for {
		p.skip(isSeparator)
		if p.i == len(p.s) || p.full {
			return
		}
		word := p.word()
		switch {
		case word == "": // a stray quote or equals sign
			p.i++
		case p.assigned():
			name := strings.ToLower(word)
			p.param(name, p.value(name))
		case len(p.all) == maxChallenges:
			p.full = true // what follows is none of the last one's
		default:
			p.skip(isBlank)
			p.all = append(p.all, Challenge{Scheme: word, Token68: p.token68()})
			p.repeated = nil
		}
	}
}

// param adds a parameter to the last challenge.
func (p *parser) param(name, value string) {
	if len(p.all) == 0 { // parameters of no scheme
		return
	}
	c := &p.all[len(p.all)-1]
	if _, seen := c.Params[name]; seen || p.repeated[name] {
		delete(c.Params, name)
		if p.repeated == nil {
			p.repeated = map[string]bool{}
		}
		p.repeated[name] = true
		return
	}
	if c.Params == nil {
		c.Params = map[string]string{}
	}
	c.Params[name] = value
}

func isBlank(c byte) bool     { return c <= ' ' || c == 0x7f }
func isSeparator(c byte) bool { return isBlank(c) || c == ',' || c == ';' }
func isWord(c byte) bool      { return !isSeparator(c) && c != '=' && c != '"' }
func isBase64(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~+/", c) >= 0
}

func (p *parser) skip(is func(byte) bool) { p.i = p.after(p.i, is) }

// after returns the first index from i on that is not of the class.
func (p *parser) after(i int, is func(byte) bool) int {
	for i < len(p.s) && is(p.s[i]) {
		i++
	}
	return i
}

func (p *parser) word() string {
	start := p.i
	p.skip(isWord)
	return p.s[start:p.i]
}

// assigned reports whether an equals sign comes next, and steps over it.
func (p *parser) assigned() bool {
	i := p.after(p.i, isBlank)
	if i == len(p.s) || p.s[i] != '=' {
		return false
	}
	p.i = i + 1
	return true
}

// token68 reads the bare value after a scheme, or nothing: a word is one only
// when it ends the challenge, else it is the name of a parameter.
func (p *parser) token68() string {
	end := p.after(p.i, isBase64)
	if end == p.i {
		return ""
	}
	end = p.after(end, func(c byte) bool { return c == '=' })
	if next := p.after(end, isBlank); next < len(p.s) && p.s[next] != ',' {
		return ""
	}
	value := p.s[p.i:end]
	p.i = end
	return value
}

// value reads what stands behind the equals sign of the named parameter.
func (p *parser) value(name string) string {
	p.skip(isBlank)
	if p.i < len(p.s) && p.s[p.i] == '"' {
		if !p.open {
			if v, ok := p.quoted(); ok {
				return v
			}
			p.open = true
		}
		p.i++
	}
	start := p.i
	for p.i < len(p.s) && p.s[p.i] != ',' && p.s[p.i] != ';' {
		// "realm=test zone" is one value, "error=invalid_token realm=x" two.
		if !isBlank(p.s[p.i]) {
			p.i++
			continue
		}
		if name == "error" || p.named(p.i) {
			break
		}
		p.skip(isBlank)
	}
	return strings.Trim(p.s[start:p.i], " \t\"")
}

// quoted reads a quoted string, of which a quote is the end only if a separator,
// another parameter or nothing comes behind it: servers forget to escape.
func (p *parser) quoted() (string, bool) {
	var b strings.Builder
	for i := p.i + 1; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == '\\' && i+1 < len(p.s):
			i++
			b.WriteByte(p.s[i])
		case c == '"' && p.ends(i+1):
			p.i = i + 1
			return b.String(), true
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// ends reports whether a quoted string may have ended before i.
func (p *parser) ends(i int) bool {
	next := p.after(i, isBlank)
	return next == len(p.s) || p.s[next] == ',' || p.s[next] == ';' || p.named(i)
}

// named reports whether a parameter's name and its equals sign come at i, blanks
// aside. It looks no further than the next word, so all its looks together read
// the line a few times at most.
func (p *parser) named(i int) bool {
	start := p.after(i, isBlank)
	end := p.after(start, isWord)
	if end == start {
		return false
	}
	next := p.after(end, isBlank)
	return next < len(p.s) && p.s[next] == '='
}
