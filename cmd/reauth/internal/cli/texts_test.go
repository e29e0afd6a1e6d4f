package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// sayers are the functions whose messages are said in both languages, by the index of the
// format among their arguments.
var sayers = map[string]int{"sayf": 0, "usagef": 0, "failf": 1, "say": 0, "warn": 0, "progress": 0, "problem": 0, "refuse": 2}

// formats returns the formats in the source of this package.
func formats(t *testing.T) map[string]bool {
	found := map[string]bool{}
	note := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			text, err := strconv.Unquote(lit.Value)
			require.NoError(t, err)
			found[text] = true
		}
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		require.NoError(t, err)
		file, err := parser.ParseFile(token.NewFileSet(), name, src, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt: // format = "…"
				if id, ok := n.Lhs[0].(*ast.Ident); ok && id.Name == "format" {
					note(n.Rhs[0])
				}
			case *ast.CallExpr:
				name := ""
				switch f := n.Fun.(type) {
				case *ast.Ident:
					name = f.Name
				case *ast.SelectorExpr:
					name = f.Sel.Name
				}
				if i, ok := sayers[name]; ok && i < len(n.Args) {
					note(n.Args[i])
				}
			}
			return true
		})
	}
	return found
}

var verb = regexp.MustCompile(`%[-+# 0-9.]*[a-z]`)

// Each message is there in Chinese, with the same arguments, and none is there for nothing.
func TestMessagesAreSaidInBothLanguages(t *testing.T) {
	said := formats(t)
	require.Greater(t, len(said), 80)
	for en := range said {
		zh := chinese[en]
		assert.NotEmpty(t, zh, "%q is not there in Chinese", en)
		assert.Equal(t, verb.FindAllString(en, -1), verb.FindAllString(zh, -1), en)
	}
	for en := range chinese {
		assert.Contains(t, said, en, "nobody says it")
	}
}

// libraryConstants returns the values of the library's constants of a type.
func libraryConstants(t *testing.T, kind string) (values []string) {
	files, err := filepath.Glob("../../../../*.go")
	require.NoError(t, err)
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
				if id, ok := spec.Type.(*ast.Ident); ok && id.Name == kind {
					if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
						text, err := strconv.Unquote(lit.Value)
						require.NoError(t, err)
						values = append(values, text)
					}
				}
			}
			return true
		})
	}
	return values
}

// Each Reason, Advice and NotRetried of the library is there in both languages.
func TestLibraryIsSaidInBothLanguages(t *testing.T) {
	all := libraryConstants(t, "Reason")
	assert.Len(t, all, len(reasons))
	for _, v := range all {
		r := reauth.Reason(v)
		assert.NotEmpty(t, reasons[r].en, v)
		assert.NotEmpty(t, reasons[r].zh, v)
		for _, lang := range []string{"en", "zh"} {
			assert.NotEmpty(t, adviceText(r, lang), v)
		}
	}
	all = libraryConstants(t, "Advice")
	assert.Len(t, all, len(advices))
	for _, v := range all {
		assert.NotEmpty(t, advices[reauth.Advice(v)], v)
	}
	all = libraryConstants(t, "NotRetried")
	assert.Len(t, all, len(notRetried))
	for _, v := range all {
		assert.NotEmpty(t, notRetried[reauth.NotRetried(v)], v)
	}
	for _, tables := range []map[string]text{verdicts} {
		for key, text := range tables {
			assert.NotEmpty(t, text.en, key)
			assert.NotEmpty(t, text.zh, key)
		}
	}
	for status, text := range statuses {
		assert.NotEmpty(t, text.en, status)
		assert.NotEmpty(t, text.zh, status)
	}
}
