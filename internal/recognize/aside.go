package recognize

import "strings"

// aside reports whether the body is in English and speaks of nothing that has to do with
// authentication: a server that rejects a token may be terse, but not about other things.
func (e *explanation) aside() bool { return e.prose && !e.words.page }

// topical are the beginnings and parts of words that speak of authentication, or of
// nothing in particular.
var topical = []string{
	"auth", "token", "jwt", "jws", "key", "credential", "session", "login", "logged", "log in", "signin", "sign in", "signed", "access", "denied", "deny", "permi", "expire",
	"invalid", "forbidden", "identity", "bearer", "cookie", "password", "secret", "verif", "valid", "claim", "signature", "user", "went wrong", "try again", "error", "fail", "reject",
	"problem", "status code", "header", "request could", "refus", "protected", "private", "restricted", "allowed", "401",
}

// common are words that most sentences in English have.
var common = map[string]bool{
	"the": true, "a": true, "an": true, "is": true, "are": true, "was": true, "were": true, "has": true, "have": true, "been": true, "be": true, "not": true, "your": true, "you": true,
	"this": true, "that": true, "to": true, "for": true, "of": true, "on": true, "in": true, "with": true, "please": true, "it": true, "must": true, "can": true, "cannot": true,
}

// english reports whether text is a sentence in English, of five words or more, none of
// which is topical.
func english(text string) bool {
	text = strings.ToLower(text[:min(len(text), maxText)])
	for _, t := range topical {
		if strings.Contains(text, t) {
			return false
		}
	}
	words, known := 0, 0
	for w := range strings.FieldsSeq(text) {
		words++
		if common[w] {
			known++
		}
	}
	return words >= 5 && known >= 2
}
