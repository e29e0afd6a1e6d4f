package refresher

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/joho/godotenv"

	"github.com/reauth-go/reauth"
)

// DotEnv returns a Refresher for a token in a file of NAME=value lines, such as .env,
// in the syntax of github.com/joho/godotenv. It reads the file if it has changed. It
// does not look for name in the environment of the process. If the file still has the
// rejected token, or none, the next request looks at the file again.
//
// A ${NAME} in a value that is not in single quotes is replaced with its value. The
// value is that above it in the file, or else in the environment of the process. If
// there is none, it is an error. A line that is not NAME=value does not affect other
// lines. The file may be a named pipe, such as that of 1Password. Reading it ends at
// the latest when the context of the refresh ends. For the permissions of the file, see
// File.
func DotEnv(path, name string) reauth.Refresher {
	f := &file{path: path, pipes: true, find: func(data []byte, _ time.Time) (reauth.Token, error) {
		access, err := lookup(data, name)
		if err != nil {
			return reauth.Token{}, err
		}
		tok, err := fromText(access)
		if err != nil {
			return reauth.Token{}, fmt.Errorf("%s: %w", name, err)
		}
		return tok, nil
	}}
	return reauth.RefresherFunc(f.refresh)
}

// lookup returns the value of a name. Its errors do not contain a line of the file.
func lookup(data []byte, name string) (string, error) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) || bytes.IndexByte(data, 0) >= 0 {
		return "", errors.New("it is UTF-16, or no text: save it as UTF-8")
	}
	vars := map[string]string{}
	failed := map[string]error{} // the names whose values cannot be expanded
	bad := 0
	for _, s := range statements(string(bytes.TrimPrefix(data, byteOrderMark))) {
		given, missing := s.references(vars, failed)
		before, err := godotenv.Marshal(given)
		if err != nil {
			return "", err
		}
		all, err := godotenv.Unmarshal(before + "\n" + s.text)
		if err != nil {
			if bad == 0 {
				bad = s.line
			}
			continue
		}
		for n, value := range all {
			if was, ok := given[n]; ok && was == value {
				continue
			}
			delete(failed, n)
			if vars[n] = value; missing != nil {
				failed[n] = missing
			}
		}
	}
	value, ok := vars[name]
	switch {
	case failed[name] != nil:
		return "", fmt.Errorf("%s: %w", name, failed[name])
	case ok:
		return value, nil
	case bad > 0:
		return "", fmt.Errorf("it has no %s, and line %d is not NAME=value", name, bad)
	}
	return "", fmt.Errorf("it has no %s", name)
}

// A statement is one assignment for godotenv: a line, or several lines in quotes.
type statement struct {
	line int // from 1
	text string
}

var (
	opening   = regexp.MustCompile(`^\s*(?:export\s+)?[\w.-]+\s*[=:]\s*(["'])`)
	reference = regexp.MustCompile(`(\\?)\$\{?([A-Z0-9_]+)\}?`) // as godotenv has it
)

// statements returns the statements of a file. A line whose quote is not closed is a
// statement.
func statements(text string) (all []statement) {
	lines := strings.SplitAfter(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		s := statement{i + 1, lines[i]}
		if m := opening.FindStringSubmatchIndex(s.text); m != nil {
			quote, rest := s.text[m[2]], s.text[m[3]:]
			for n := i; ; n++ {
				if n > i {
					if n == len(lines) {
						break // there is no other quote
					}
					rest = lines[n]
				}
				if closes(rest, quote) {
					s.text, i = strings.Join(lines[i:n+1], ""), n
					break
				}
			}
		}
		all = append(all, s)
	}
	return all
}

// closes reports whether text has the quote, not escaped.
func closes(text string, quote byte) bool {
	for i := 0; i < len(text); i++ {
		if text[i] == quote && (i == 0 || text[i-1] != '\\') {
			return true
		}
	}
	return false
}

// references returns the variables that the statement refers to, and an error if one of
// them is not known.
func (s statement) references(vars map[string]string, failed map[string]error) (given map[string]string, missing error) {
	given = map[string]string{}
	if m := opening.FindStringSubmatch(s.text); m != nil && m[1] == "'" || strings.HasPrefix(strings.TrimSpace(s.text), "#") {
		return given, nil
	}
	text := s.text
	if m := opening.FindString(text); m == "" { // a comment ends a value without quotes
		text, _, _ = strings.Cut(text, " #")
	}
	for _, m := range reference.FindAllStringSubmatch(text, -1) {
		name := m[2]
		if m[1] != "" {
			continue
		}
		value, ok := vars[name]
		if !ok {
			value, ok = os.LookupEnv(name)
		}
		switch {
		case failed[name] != nil:
			missing = failed[name]
		case !ok:
			missing = fmt.Errorf("it refers to ${%s}, which is neither in the file nor a variable of the process: a value with a dollar sign goes into single quotes", name)
		default:
			given[name] = value
		}
	}
	return given, missing
}
