package reauth_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// undented returns code without its indentation.
func undented(code string) string {
	var b strings.Builder
	for line := range strings.Lines(code) {
		b.WriteString(strings.TrimLeft(line, "\t "))
	}
	return b.String()
}

// Both READMEs and the docs show only code that compiles, and that runs where it can: it
// stands word for word in the examples.
func TestReadmeSnippetsStandInExamples(t *testing.T) {
	names, err := filepath.Glob("*/example*_test.go")
	require.NoError(t, err)
	nested, err := filepath.Glob("*/*/example*_test.go")
	require.NoError(t, err)
	docs, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	programs, err := filepath.Glob("examples/*/main.go")
	require.NoError(t, err)
	names = append(append(names, nested...), programs...)
	var source []byte
	for _, name := range append(names, "example_test.go") {
		examples, err := os.ReadFile(name)
		require.NoError(t, err)
		source = append(source, examples...)
	}
	fence := regexp.MustCompile("(?s)```go\n(.*?)```")
	for _, name := range append(docs, "README.md", "README.zh-CN.md") {
		readme, err := os.ReadFile(name)
		require.NoError(t, err)
		snippets := fence.FindAllSubmatch(readme, -1)
		if !strings.HasPrefix(name, "docs") {
			assert.NotEmpty(t, snippets, name)
		}
		for _, m := range snippets {
			assert.Contains(t, undented(string(source)), undented(string(m[1])), name)
		}
	}
}
