package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// docs/command.md has what --help prints: go run ./gen writes it.
func TestReferenceIsUpToDate(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/command.md")
	require.NoError(t, err)
	want, err := WithReference(string(page))
	require.NoError(t, err)
	assert.Equal(t, want, string(page))
}

func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Man(dir))
	page, err := os.ReadFile(filepath.Join(dir, "reauth-exec.1"))
	require.NoError(t, err)
	assert.Contains(t, string(page), "OPENAI_BASE_URL")
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		out, errs, status := run(t, "", "completion", shell)
		assert.Zero(t, status, errs)
		assert.Contains(t, out, "reauth", shell)
	}
}
