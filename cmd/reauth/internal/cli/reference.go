package cli

import (
	"bytes"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// referenceHeading is where the generated part of docs/command.md begins.
const referenceHeading = "\n## Reference\n"

// WithReference returns the page docs/command.md with the reference that is due.
func WithReference(page string) (string, error) {
	head, _, ok := strings.Cut(page, referenceHeading)
	if !ok {
		return "", errors.New("docs/command.md has no heading Reference")
	}
	var b bytes.Buffer
	b.WriteString(head + referenceHeading)
	for _, cmd := range (&command{}).root().Commands() {
		if !cmd.IsAvailableCommand() || cmd.Name() == "help" {
			continue
		}
		b.WriteString("\n### " + cmd.CommandPath() + "\n\n```\n" + strings.TrimSpace(usage(cmd)) + "\n```\n")
	}
	return b.String(), nil
}

// usage returns what --help prints of a command.
func usage(cmd *cobra.Command) string {
	var b bytes.Buffer
	cmd.SetOut(&b)
	_ = cmd.Help()
	return b.String()
}

// Man writes the manual pages to a directory.
func Man(dir string) error {
	root := (&command{}).root()
	root.DisableAutoGenTag = true
	return doc.GenManTree(root, &doc.GenManHeader{Title: "REAUTH", Section: "1"}, dir)
}
