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
	found     finding
	latest    finding // of the text that was read last
	token     bool    // a state was that of a token, by this or a similar name
	signed    bool    // a state was that of a signature
	uncertain bool    // a state was that of a token or of something else
	request   bool    // a sentence was about the signature or the time of the request

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
	known := vocabulary()
	text = text[:min(len(text), maxText)]
	if l.words == nil {
		l.words, l.starts, l.matches = make([]byte, 0, 128), make([]int, 0, 16), make([]match, 0, 8)
	}
	l.latest = finding{}
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
			if 'a' <= last && last <= 'z' || 'A' <= last && last <= 'Z' && lower && !(last == 'O' && r == 'A') { // not OAuth
				l.blank()
			}
			l.letter(r | 0x20)
		case '0' <= r && r <= '9':
			l.letter(r)
		case r == '\'', r == '’':
		case r == '.' && i+1 < len(text) && text[i+1] > ' ': // invalid.token
			l.blank()
		case r == '.' && l.inWord && len(l.words)-l.starts[len(l.starts)-1] == 1: // e.g.
			l.blank()
		case r == '.', r == '!', r == '?', r == ';', r == '\n', r == '。', r == '！', r == '？', r == '；', r == '，':
			l.sentence()
		case r < utf8.RuneSelf:
			l.blank()
		case r >= 0x2E80, 0x0E00 <= r && r < 0x0F00: // no blanks between words: Chinese, Japanese, Korean, Thai
			if t := longest(known.terms[r], text[i:]); t.concept != nothing {
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
	known := vocabulary()
	for i := 0; i < len(l.starts); {
		first := l.word(i, i+1)
		c, n := known.word(first)
		for n = max(min(n, len(l.starts)-i), 1); n > 1; n-- {
			if e := known.phrases[string(l.word(i, i+n))]; e.concept != nothing {
				c = e.concept
				break
			}
		}
		if c == nothing && len(first) > 5 && bytes.HasSuffix(first, []byte("token")) { // Zugriffstoken
			c = token
		}
		if c != nothing {
			l.matches = append(l.matches, match{c, i, i + n})
		}
		i += n
	}
	if len(l.matches) > 0 {
		slices.SortStableFunc(l.matches, func(a, b match) int { return a.at - b.at })
		r := l.conclude()
		if r.rank() > l.latest.rank() {
			l.latest = r
		}
		l.note(r)
	}
	l.words, l.starts, l.matches = l.words[:0], l.starts[:0], l.matches[:0]
}

// note keeps f if it outranks what was found before.
func (l *sentenceReader) note(f finding) {
	if f.rank() > l.found.rank() {
		l.found = f
	}
}

// word returns the words from i to j, without the last blank.
func (l *sentenceReader) word(i, j int) []byte {
	end := len(l.words)
	if j < len(l.starts) {
		end = l.starts[j]
	}
	return bytes.TrimRight(l.words[l.starts[i]:end], " ")
}
