package refresher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
)

const (
	maxStderr = 4 << 10
	// hangUp is how long a program's output is waited for after its end, should a
	// child of it hold the pipe. What has been written may take its time to arrive
	// on a busy machine, and would be lost.
	hangUp = 3 * time.Second
)

// Exec returns a Refresher that runs a helper program for each refresh, in the
// manner of the credential helpers of git, kubectl and AWS, without a shell:
//
//	refresher.Exec("gcloud", "auth", "print-access-token")
//	refresher.Exec("gh", "auth", "token")
//	refresher.Exec("az", "account", "get-access-token", "--resource", "https://api.example.com")
//
// The program writes to its standard output the token alone, or JSON as File has
// it, and ends with status 0. A lifetime in seconds counts from its start. If it
// fails, the error has the beginning of what it wrote to its standard error, with
// secrets masked. Its standard input is empty.
//
// It has the environment of this process, and, for a token that was rejected,
// REAUTH_REASON with the Reason (empty if it is about to expire), REAUTH_SCOPE
// and REAUTH_CLAIMS with the scope and the claims that the server's challenge
// asks for. Plugins for kubectl also find their KUBERNETES_EXEC_INFO.
//
// When the refresh's context ends, the program and its children are killed (on
// Unix its process group, on Windows its process tree).
func Exec(command ...string) reauth.Refresher {
	if len(command) == 0 || command[0] == "" {
		return failing(errors.New("refresher.Exec has no program to run"))
	}
	return reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		began := time.Now()
		out, err := run(ctx, command, stale)
		if err != nil {
			return reauth.Token{}, fmt.Errorf("program %s: %w", command[0], err) // its arguments may be secret
		}
		tok, err := parse(out, began)
		if err != nil {
			return reauth.Token{}, fmt.Errorf("program %s: its output: %w", command[0], err)
		}
		if why := worn(tok, stale); why != "" {
			return reauth.Token{}, fmt.Errorf("program %s: it printed the token that %s: see whether it caches tokens, and log in to it again", command[0], why)
		}
		return tok, nil
	})
}

// run runs the program and returns its standard output.
func run(ctx context.Context, command []string, stale reauth.Stale) ([]byte, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	stdout, stderr := &limited{max: maxAnswer}, &limited{max: maxStderr}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Env = append(os.Environ(), helperEnv(stale)...)
	cmd.WaitDelay = hangUp
	ownGroup(cmd)
	cmd.Cancel = func() error { return killTree(cmd.Process) }
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		if cmd.Process != nil {
			killRest(cmd.Process)
		}
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrWaitDelay) { // the program has ended well, a child of it has not
		if err = nil; stdout.buf.Len() == 0 {
			err = errors.New("it has ended without any output, but a child of it holds its standard output open")
		}
	}
	if err != nil {
		said := mask.Text(stderr.buf.String(), 200, stale.Token.AccessToken, stale.Token.RefreshToken, stdout.buf.String())
		if said == "" {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	if stdout.cut {
		return nil, errTooLarge
	}
	return stdout.buf.Bytes(), nil
}

// helperEnv tells the program why it is run.
func helperEnv(stale reauth.Stale) []string {
	scopes, claims := asked(stale.Rejection)
	return []string{
		"REAUTH_REASON=" + string(stale.Rejection.Reason),
		"REAUTH_SCOPE=" + strings.Join(scopes, " "),
		"REAUTH_CLAIMS=" + claims,
		`KUBERNETES_EXEC_INFO={"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false}}`,
	}
}

// A limited keeps the beginning of what is written to it.
type limited struct {
	buf bytes.Buffer // not embedded: its ReadFrom knows no limit
	max int
	cut bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := len(p) // all of it, or the program would get a broken pipe
	if room := l.max - l.buf.Len(); len(p) > room {
		p, l.cut = p[:room], true
	}
	l.buf.Write(p)
	return n, nil
}
