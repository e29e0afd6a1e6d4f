//go:build unix

package refresher_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

func shell(script string) *refresher.Program {
	return &refresher.Program{Args: []string{"sh", "-c", script}}
}

func TestProgramHasItsInputDirectoryAndVariables(t *testing.T) {
	dir := t.TempDir()
	p := shell(`read line; echo "$line-$NAME-$(pwd)-$HOME"`)
	p.Stdin, p.Dir, p.Env = "asked\n", dir, []string{"NAME=set"}
	tok, err := p.Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, "asked-set-"+dir+"-"+os.Getenv("HOME"), tok.AccessToken)

	p = shell("echo T1") // which reads nothing
	p.Stdin = string(make([]byte, 1<<20))
	tok, err = p.Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, "T1", tok.AccessToken)
}

// Programs write what matters last.
func TestProgramErrorHasTheEndOfWhatItSaid(t *testing.T) {
	const chatter = `i=0; while [ $i -lt 300 ]; do echo "looking for a token, try $i" >&2; i=$((i+1)); done; echo "run: helper login" >&2; `
	for name, script := range map[string]string{
		"a failure":       chatter + "exit 1",
		"an empty output": chatter,
		"no token":        chatter + `echo '{"message":"none"}'`,
	} {
		_, err := shell(script).Refresh(t.Context(), reauth.Stale{})
		require.ErrorContains(t, err, "run: helper login", name)
		assert.NotContains(t, err.Error(), "try 1,", name)
		assert.Less(t, len(err.Error()), 400, name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := shell(chatter+"exec sleep 600").Refresh(ctx, reauth.Stale{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "run: helper login")
}

func TestProgramErrorKeepsWhatItPrinted(t *testing.T) {
	_, err := shell("echo an-opaque-value-2718; echo 'cannot store an-opaque-value-2718' >&2; exit 1").Refresh(t.Context(), reauth.Stale{})
	require.ErrorContains(t, err, "cannot store")
	assert.NotContains(t, err.Error(), "opaque-value")
}

// The test runs itself on a terminal, by script(1). A program in the background that
// reads from there is stopped, and would be until the refresh times out.
func TestProgramThatAsksOnTheTerminalFailsAtOnce(t *testing.T) {
	const inside = "REAUTH_TEST_ON_A_TERMINAL"
	if os.Getenv(inside) != "" {
		if _, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err != nil {
			t.Fatal("there is no terminal: ", err)
		}
		start := time.Now()
		_, err := shell("read answer </dev/tty && echo $answer").Refresh(t.Context(), reauth.Stale{})
		require.ErrorContains(t, err, "exit status")
		assert.Less(t, time.Since(start), 20*time.Second)
		return
	}
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("there is no script(1) to make a terminal")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, script, "-q", "-e", "-c", os.Args[0]+" -test.run=^TestProgramThatAsksOnTheTerminalFailsAtOnce$", "/dev/null")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "PASS")
}
