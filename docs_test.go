package reauth_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// docsConstants returns the values of the package's constants of that type.
func docsConstants(t *testing.T, typ string) (values []string) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST {
				continue
			}
			for _, spec := range group.Specs {
				spec := spec.(*ast.ValueSpec)
				if of, ok := spec.Type.(*ast.Ident); ok && of.Name == typ {
					value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
					require.NoError(t, err)
					values = append(values, value)
				}
			}
		}
	}
	require.NotEmpty(t, values, typ)
	return values
}

// docsSection returns what stands under the heading, up to the next one of its level.
func docsSection(t *testing.T, page, heading string) string {
	t.Helper()
	_, section, ok := strings.Cut("\n"+page, "\n"+heading+"\n")
	require.True(t, ok, heading)
	level, _, _ := strings.Cut(heading, " ")
	section, _, _ = strings.Cut(section, "\n"+level+" ")
	return section
}

func docsPage(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(page)
}

// The page of the reasons has a row for each constant, in the words of the package.
func TestDocsReasonsHaveAllConstants(t *testing.T) {
	page := docsPage(t, "docs/reasons.md")
	holds := func(heading, typ string, row func(value string) string) {
		section := docsSection(t, page, heading)
		values := docsConstants(t, typ)
		for _, v := range values {
			assert.Contains(t, section, "\n"+row(v), typ)
		}
		assert.Equal(t, len(values), strings.Count(section, "\n| `")+strings.Count(section, "\n| [`"), "rows of "+typ)
	}
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + s + "`"
	}
	holds("## All reasons", "Reason", func(v string) string {
		r := reauth.Reason(v)
		helps := "no"
		if r.Refreshable() {
			helps = "yes"
		}
		return fmt.Sprintf("| [`%s`](#%[1]s) | %s | %s |", v, helps, code(string(r.Advice())))
	})
	holds("## Advice", "Advice", func(v string) string {
		return fmt.Sprintf("| `%s` | %s |", v, reauth.Advice(v).Text())
	})
	holds("## NotRetried", "NotRetried", func(v string) string {
		n := reauth.NotRetried(v)
		return fmt.Sprintf("| `%s` | %s | %s |", v, n.Text(), code(string(n.Advice())))
	})
	holds("## Withheld", "Withheld", func(v string) string {
		w := reauth.Withheld(v)
		return fmt.Sprintf("| `%s` | %s | %s |", v, w.Text(), code(string(w.Advice())))
	})
}

// Each response on the page was seen, and has the reason under which it stands.
func TestDocsReasonsShowResponsesOfTheCorpus(t *testing.T) {
	page := docsPage(t, "docs/reasons.md")
	seen := map[string]bool{}
	names, err := filepath.Glob("testdata/corpus/*.jsonl")
	require.NoError(t, err)
	for _, name := range names {
		f, err := os.Open(name)
		require.NoError(t, err)
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var row struct{ Body string }
			require.NoError(t, json.Unmarshal(lines.Bytes(), &row))
			seen[strings.TrimSpace(row.Body)] = true
		}
		require.NoError(t, lines.Err())
		require.NoError(t, f.Close())
	}
	response := regexp.MustCompile("(?s)```http\n(.*?)```")
	for _, reason := range docsConstants(t, "Reason") {
		t.Run(reason, func(t *testing.T) {
			section := docsSection(t, page, "### "+reason)
			examples := response.FindAllStringSubmatch(section, -1)
			require.NotEmpty(t, examples)
			for _, m := range examples {
				resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(m[1])), nil)
				require.NoError(t, err, m[1])
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				assert.Equal(t, reason, string(reauth.Inspect(resp, body).Reason), m[1])
				assert.True(t, seen[strings.TrimSpace(string(body))], "not in the corpus: %s", m[1])
			}
		})
	}
}

// docsPages returns the names of all pages of the repository.
func docsPages(t *testing.T) (names []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) == ".md" {
			names = append(names, name)
		}
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return names
}

// docsProse returns a page without its blocks and spans of code.
func docsProse(page string) string {
	var b strings.Builder
	inBlock := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			inBlock = !inBlock
		} else if !inBlock && !strings.HasPrefix(line, "    ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

var docsHeading = regexp.MustCompile(`(?m)^(#+) (.*?)\s*$`)

// docsAnchors returns the anchors that GitHub makes of the headings of a page.
func docsAnchors(page string) map[string]bool {
	anchors := map[string]bool{}
	for _, m := range docsHeading.FindAllStringSubmatch(docsProse(page), -1) {
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsNumber(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[2])
		for n, unique := 1, anchor; ; n++ {
			if !anchors[unique] {
				anchors[unique] = true
				break
			}
			unique = fmt.Sprintf("%s-%d", anchor, n)
		}
	}
	return anchors
}

// Links between the pages, and to files and directories, lead somewhere.
func TestDocsLinksLeadSomewhere(t *testing.T) {
	code := regexp.MustCompile("`[^`\n]*`")
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, name := range docsPages(t) {
		prose := docsProse(docsPage(t, name))
		prose = code.ReplaceAllString(prose, "")
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if path != "" {
				target = filepath.Join(filepath.Dir(name), filepath.FromSlash(path))
			}
			if _, err := os.Stat(target); !assert.NoError(t, err, "%s: %s", name, m[1]) || anchor == "" {
				continue
			}
			assert.True(t, docsAnchors(docsPage(t, target))[anchor], "%s: no heading for %s", name, m[1])
		}
	}
}

// The READMEs have the same headings and the same blocks of code, in the same order.
func TestDocsReadmesHaveTheSameShape(t *testing.T) {
	shape := func(name string) (headings, blocks []string) {
		page := docsPage(t, name)
		for _, m := range docsHeading.FindAllStringSubmatch(docsProse(page), -1) {
			headings = append(headings, m[1])
		}
		for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n.*?^```$").FindAllStringSubmatch(page, -1) {
			blocks = append(blocks, m[1])
		}
		return headings, blocks
	}
	headings, blocks := shape("README.md")
	translatedHeadings, translatedBlocks := shape("README.zh-CN.md")
	assert.Equal(t, headings, translatedHeadings)
	assert.Equal(t, blocks, translatedBlocks)
}

// The tour of the code names each file of the package, and each internal package.
func TestDocsTourHasAllFiles(t *testing.T) {
	tour := docsSection(t, docsPage(t, "CONTRIBUTING.md"), "## A tour of the code")
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	packages, err := filepath.Glob("internal/*")
	require.NoError(t, err)
	for _, name := range append(names, packages...) {
		if !strings.HasSuffix(name, "_test.go") {
			assert.Contains(t, tour, "`"+filepath.ToSlash(name)+"`")
		}
	}
	for _, m := range regexp.MustCompile("`([a-z/]+\\.go|internal/[a-z]+)`").FindAllStringSubmatch(tour, -1) {
		_, err := os.Stat(m[1])
		assert.NoError(t, err)
	}
}

// A test that a page names exists.
func TestDocsNamedTestsExist(t *testing.T) {
	tests := map[string]bool{}
	err := filepath.WalkDir(".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		source, err := os.ReadFile(name)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(source, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	require.NoError(t, err)
	for _, name := range docsPages(t) {
		for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`").FindAllStringSubmatch(docsPage(t, name), -1) {
			assert.True(t, tests[m[1]], "%s: %s", name, m[1])
		}
	}
}
