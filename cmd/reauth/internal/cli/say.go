package cli

import (
	"fmt"
	"strings"
)

// A message is a text with arguments, to be said in a language. Its format is the English
// one, and the key of the Chinese one.
type message struct {
	format string
	args   []any
}

// sayf returns a message. An argument may be a message, or an error that is wrapped.
func sayf(format string, args ...any) *message { return &message{format, args} }

func (m *message) Error() string { return m.in("en") }

// in returns the text in a language.
func (m *message) in(lang string) string {
	format := m.format
	if lang == "zh" && chinese[format] != "" {
		format = chinese[format]
	}
	args := make([]any, len(m.args))
	for i, a := range m.args {
		if args[i] = a; lang == "zh" {
			if inner, ok := a.(*message); ok {
				args[i] = inner.in(lang)
			}
		}
	}
	return fmt.Sprintf(format, args...)
}

// Unwrap returns the errors among the arguments.
func (m *message) Unwrap() (all []error) {
	for _, a := range m.args {
		if err, ok := a.(error); ok {
			all = append(all, err)
		}
	}
	return all
}

// said returns the text of an error in a language, after what its exit status means where
// that says what to do. What the system, a server or the library says is repeated as it is.
func said(err error, status int, lang string) string {
	m, ours := err.(*message)
	if !ours {
		m = &message{format: "%s", args: []any{strings.TrimPrefix(err.Error(), "reauth: ")}}
	}
	meaning := statuses[status].in(lang)
	if meaning == "" || status < exitLater && (ours || lang == "en") {
		return m.in(lang)
	}
	return sayf("%s: %v", meaning, m).in(lang)
}

// usagef returns an error of usage or configuration.
func usagef(format string, args ...any) error { return failf(exitUsage, format, args...) }

// failf returns an error that ends the command with a status.
func failf(status int, format string, args ...any) error {
	return &exitError{status, sayf(format, args...)}
}

// sentences joins messages.
func sentences(all []*message, lang string) string {
	texts := make([]string, len(all))
	for i, m := range all {
		texts[i] = m.in(lang)
	}
	return strings.Join(texts, map[bool]string{false: "; ", true: "；"}[lang == "zh"])
}
