package recognize

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A match is a concept and its place in a sentence, counted in words.
type match struct {
	concept concept
	at, end int
}

// A sentenceReader reads sentences, and keeps the reason of the highest rank.
type sentenceReader struct {
	page      bool // an HTML page
	reason    Reason
	latest    Reason // of the text that was read last
	token     bool   // a state was that of a token, by this or a similar name
	signed    bool   // a state was that of a signature
	uncertain bool   // a state was that of a token or of something else

	// Of the current sentence.
	words   []byte // each followed by a blank
	starts  []int  // of the words
	inWord  bool
	matches []match
}

// maxText is how much of one text is read.
const maxText = 4 << 10

// read reads a text or a code. TOKEN_EXPIRED, tokenExpired and "token expired" are the
// same. It is one switch over the kinds of characters, and so longer than others.
func (l *sentenceReader) read(text string) {
	_, terms := lexicon()
	text = text[:min(len(text), maxText)]
	if l.words == nil {
		l.words, l.starts, l.matches = make([]byte, 0, 128), make([]int, 0, 16), make([]match, 0, 8)
	}
	l.latest = ""
	var last rune
	for i := 0; i < len(text); {
		r, n := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(text[i:])
		}
		switch {
		case r == 'h' && (strings.HasPrefix(text[i:], "http://") || strings.HasPrefix(text[i:], "https://")):
			l.blank() // an address is skipped
			for i+n < len(text) && text[i+n] > ' ' && text[i+n] < utf8.RuneSelf && text[i+n] != '"' && text[i+n] != '\'' {
				n++
			}
		case r == '@' && l.inWord: // and so is user@example.com
			l.words, l.starts = l.words[:l.starts[len(l.starts)-1]], l.starts[:len(l.starts)-1]
			l.inWord = false
			for i+n < len(text) && (isBase64(text[i+n]) || text[i+n] >= utf8.RuneSelf) {
				n++
			}
		case 'a' <= r && r <= 'z':
			l.letter(r)
		case 'A' <= r && r <= 'Z':
			// tokenExpired, JWTExpired
			lower := i+1 < len(text) && 'a' <= text[i+1] && text[i+1] <= 'z'
			if 'a' <= last && last <= 'z' || 'A' <= last && last <= 'Z' && lower {
				l.blank()
			}
			l.letter(r | 0x20)
		case '0' <= r && r <= '9':
			l.letter(r)
		case r == '\'', r == '’':
		case r == '.' && i+1 < len(text) && text[i+1] > ' ': // invalid.token
			l.blank()
		case r == '.', r == '!', r == '?', r == ';', r == '\n', r == '。', r == '！', r == '？', r == '；':
			l.sentence()
		case r < utf8.RuneSelf:
			l.blank()
		case r >= 0x2E80: // no blanks between words from here on
			if t := longest(terms[r], text[i:]); t.concept != nothing {
				l.blank()
				l.starts = append(l.starts, len(l.words))
				l.words = append(l.words, ' ') // no word, but a place
				l.matches = append(l.matches, match{t.concept, len(l.starts) - 1, len(l.starts) - 1})
				n = len(t.text)
			} else {
				l.blank()
			}
		case unicode.IsLetter(r):
			l.letter(unicode.ToLower(r))
		default:
			l.blank()
		}
		last = r
		i += n
	}
	l.sentence()
}

// letter takes a letter of a word, in lower case.
func (l *sentenceReader) letter(r rune) {
	if !l.inWord {
		l.starts = append(l.starts, len(l.words))
		l.inWord = true
	}
	if r < utf8.RuneSelf {
		l.words = append(l.words, byte(r))
	} else {
		l.words = utf8.AppendRune(l.words, r)
	}
}

// blank ends a word.
func (l *sentenceReader) blank() {
	if l.inWord {
		l.words = append(l.words, ' ')
		l.inWord = false
	}
}

// longest returns the longest of the terms that text begins with.
func longest(list []term, text string) term {
	for _, t := range list {
		if strings.HasPrefix(text, t.text) {
			return t
		}
	}
	return term{}
}

// sentence ends a sentence, and concludes what it says.
func (l *sentenceReader) sentence() {
	l.blank()
	words, _ := lexicon()
	for i := 0; i < len(l.starts); {
		first := l.word(i, i+1)
		n := 1
		if e, ok := words[string(first)]; ok {
			for n = max(min(e.longest, len(l.starts)-i), 1); n > 1; n-- {
				if e, ok := words[string(l.word(i, i+n))]; ok && e.concept != nothing {
					l.matches = append(l.matches, match{e.concept, i, i + n})
					break
				}
			}
			if n == 1 && e.concept != nothing {
				l.matches = append(l.matches, match{e.concept, i, i + 1})
			}
		} else if len(first) > 5 && bytes.HasSuffix(first, []byte("token")) { // Zugriffstoken
			l.matches = append(l.matches, match{token, i, i + 1})
		}
		i += n
	}
	if len(l.matches) > 0 {
		slices.SortStableFunc(l.matches, func(a, b match) int { return a.at - b.at })
		r := l.conclude()
		if r.rank() > l.latest.rank() {
			l.latest = r
		}
		if r.rank() > l.reason.rank() {
			l.reason = r
		}
	}
	l.words, l.starts, l.matches = l.words[:0], l.starts[:0], l.matches[:0]
}

// word returns the words from i to j, without the last blank.
func (l *sentenceReader) word(i, j int) []byte {
	end := len(l.words)
	if j < len(l.starts) {
		end = l.starts[j]
	}
	return bytes.TrimRight(l.words[l.starts[i]:end], " ")
}

func (c concept) subject() bool { return c >= token && c <= moment }
func (c concept) state() bool   { return c >= expired && c <= ended }

// conclude returns what the sentence says of the token, if anything. It is one switch
// over the concepts of the sentence, the most specific first.
func (l *sentenceReader) conclude() Reason {
	var has [either + 1]bool
	for i, s := range l.matches {
		// "Wrong user or password" is no alternative to anything.
		has[s.concept] = has[s.concept] || s.concept != either || !l.isAside(i-1) || !l.isAside(i+1)
	}
	ofToken, other := pairs(l.matches)
	l.token = l.token || has[token] && ofToken != ""
	l.signed = l.signed || has[signature] && ofToken != ""
	l.uncertain = l.uncertain || has[token] && has[either] && ofToken != ""
	switch {
	case has[parse]:
		return Other
	case has[quota], has[money] && ofToken == "" && slices.ContainsFunc(l.matches, func(s match) bool { return s.concept.state() }):
		return Quota
	case has[csrf]:
		return CSRF
	case has[grant]:
		return LoginRequired
	case has[factor]:
		return StepUp
	case has[nonce]:
		return DPoPNonce
	case has[audience], has[clientID] && has[mismatch]:
		return Audience
	case has[upstream]:
		return Upstream
	case has[requestSignature] && !has[token], has[signature] && has[mismatch] && !has[token], has[moment] && !has[token]:
		return RequestSignature
	case other != "":
	case has[scope]:
		other = InsufficientScope
	case has[address]:
		other = Denied
	case has[denied] && (ofToken == "" || ofToken == Missing): // "permission denied: invalid ticket"
		other = refused
	case has[unsupported], has[certificate], has[login] && l.page:
		other = OtherScheme
	}
	// "Invalid token or insufficient permissions" leaves it open: in doubt, refresh.
	if other == "" || has[either] && ofToken != "" {
		return ofToken
	}
	return other
}

// isAside reports whether the match at i is a user or a password, or there is none.
func (l *sentenceReader) isAside(i int) bool {
	return i < 0 || i >= len(l.matches) || l.matches[i].concept == account || l.matches[i].concept == password
}

// pairs combines the states of a sentence with their subjects. The subject of a state
// follows directly ("an expired token"), or precedes it ("the token of the user has
// expired"), or else is the next one. A state before alternatives ("invalid password or
// token") is that of each. pairs returns the reason that is about the token, and that
// about other things.
func pairs(matches []match) (ofToken, other Reason) {
	before, beforeEnd := nothing, 0
	for i, s := range matches {
		if s.concept.subject() {
			// "The session for this user timed out" is about the session.
			if owner := before == token && s.concept == account && s.at > beforeEnd && s.at-beforeEnd <= 2; !owner {
				before = s.concept
			}
			beforeEnd = s.end
		}
		if !s.concept.state() {
			continue
		}
		note := func(subject concept) {
			switch r := reasonOf(subject, s.concept); {
			case r == "":
			case !r.refreshable():
				other = r
			case ofToken == "" || ofToken == Missing:
				ofToken = r
			case r != ofToken && r != Missing:
				ofToken = InvalidToken // several at once: it is one of them
			}
		}
		subject, end := nothing, s.end
		for _, next := range matches[i+1:] {
			if next.concept == either && next.at == end && subject != nothing {
				note(subject)
				end = next.end
				continue
			}
			if !next.concept.subject() || next.at != end && (subject != nothing || before != nothing) {
				break
			}
			subject, end = next.concept, next.end // of several in a row the last: "user token"
		}
		if subject == nothing {
			subject = before
		}
		note(subject)
	}
	return ofToken, other
}

// reasonOf returns what it means for a request that such a thing is in such a
// state.
func reasonOf(subject, state concept) Reason {
	switch subject {
	case refreshToken:
		if state != missing {
			return LoginRequired
		}
	case account:
		if state == locked || state == revoked || state == disabled || state == expired || state == ended {
			return Denied
		}
	case clientID:
		if state != missing {
			return Audience
		}
	case password, certificate:
		return OtherScheme
	case otherToken:
		return Other
	case token, credentials, signature, requestSignature:
		switch state {
		case expired:
			return Expired
		case revoked, disabled, locked:
			return Revoked
		case missing:
			return Missing
		}
		return InvalidToken
	case nothing:
		switch state {
		case expired:
			return Expired
		case revoked:
			return Revoked
		case locked:
			return Denied
		}
	}
	return ""
}
