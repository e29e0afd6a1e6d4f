package reauth_test

import (
	"bytes"
	"flag"
	"go/ast"
	"go/build"
	"go/doc"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var updateAPI = flag.Bool("update", false, "rewrite testdata/api")

// The exported API changes on purpose only. testdata/api has the declarations of each
// package that callers import.
func TestAPI(t *testing.T) {
	for _, dir := range []string{".", "classifier", "reauthtest", "refresher", "retry", "store"} {
		name := strings.Replace(dir, ".", "reauth", 1)
		t.Run(name, func(t *testing.T) {
			got := exportedAPI(t, dir)
			file := filepath.Join("testdata", "api", name+".txt")
			if *updateAPI {
				require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
				return
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err, "write it with: go test -run TestAPI -update .")
			if got == string(want) {
				return
			}
			gone, added := changedLines(string(want), got)
			t.Errorf("The exported API of package %s is not that of %s:\n\n%s%s\n"+
				"If that was not intended, restore it. If it was, write it down in CHANGELOG.md and run:\n\n"+
				"\tgo test -run TestAPI -update .\n",
				name, filepath.ToSlash(file), prefixed("- ", gone), prefixed("+ ", added))
		})
	}
}

// exportedAPI returns the exported declarations of the package in dir, as go doc -all has
// them, without comments, bodies, values of variables and alignment. They are those of Linux.
func exportedAPI(t *testing.T, dir string) string {
	t.Helper()
	ctxt := build.Default
	ctxt.GOOS, ctxt.GOARCH, ctxt.CgoEnabled, ctxt.BuildTags, ctxt.ToolTags = "linux", "amd64", false, nil, nil
	pkg, err := ctxt.ImportDir(dir, 0)
	require.NoError(t, err)
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range pkg.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, 0) // without comments
		require.NoError(t, err)
		files = append(files, f)
	}
	d, err := doc.NewFromFiles(fset, files, pkg.Name)
	require.NoError(t, err)

	var out bytes.Buffer
	out.WriteString("package " + d.Name + "\n")
	write := func(decl ast.Node) {
		var b bytes.Buffer
		require.NoError(t, format.Node(&b, fset, decl))
		for line := range strings.Lines(b.String()) {
			// Fields and values are aligned by their neighbors, blank lines come from comments.
			if text := strings.Join(strings.Fields(line), " "); text != "" {
				indent := len(line) - len(strings.TrimLeft(line, "\t"))
				out.WriteString(line[:indent] + text + "\n")
			}
		}
	}
	values := func(all []*doc.Value) {
		for _, v := range all {
			withoutVariableValues(v.Decl)
			write(v.Decl)
		}
	}
	funcs := func(all []*doc.Func) {
		for _, f := range all {
			write(f.Decl)
		}
	}
	values(d.Consts)
	values(d.Vars)
	funcs(d.Funcs)
	for _, typ := range d.Types {
		write(typ.Decl)
		values(typ.Consts)
		values(typ.Vars)
		funcs(typ.Funcs)
		funcs(typ.Methods)
	}
	return out.String()
}

// withoutVariableValues puts the type of a variable in the place of its value, if the value
// shows it: the text of an error is not part of the API.
func withoutVariableValues(decl *ast.GenDecl) {
	for _, spec := range decl.Specs {
		v, ok := spec.(*ast.ValueSpec)
		if decl.Tok != token.VAR || !ok || len(v.Values) != 1 {
			continue
		}
		switch value := v.Values[0].(type) {
		case *ast.CompositeLit:
			v.Type, v.Values = value.Type, nil
		case *ast.CallExpr:
			if f, ok := value.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "New" {
				v.Type, v.Values = ast.NewIdent("error"), nil
			}
		}
	}
}

// changedLines returns the lines of before that after does not have, and the other way
// round. Fields and methods stand behind their type. If there are none, as lines have only
// moved, it returns all.
func changedLines(before, after string) (gone, added []string) {
	b, a := qualified(before), qualified(after)
	for _, line := range b {
		if !slices.Contains(a, line) {
			gone = append(gone, line)
		}
	}
	for _, line := range a {
		if !slices.Contains(b, line) {
			added = append(added, line)
		}
	}
	if len(gone)+len(added) == 0 {
		return b, a
	}
	return gone, added
}

// qualified returns the lines, those that are indented behind the last that is not.
func qualified(text string) (all []string) {
	var outer string
	for line := range strings.Lines(text) {
		switch inner, indented := strings.CutPrefix(strings.TrimRight(line, "\n"), "\t"); {
		case indented:
			all = append(all, outer+" "+strings.TrimSpace(inner))
		case inner != "}" && inner != ")":
			outer = inner
			all = append(all, inner)
		}
	}
	return all
}

// prefixed returns the lines, each with the prefix.
func prefixed(prefix string, lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(prefix + line + "\n")
	}
	return b.String()
}
