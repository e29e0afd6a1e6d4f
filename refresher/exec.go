package refresher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
)

const (
	maxStderr = 4 << 10
	// hangUp is how long to wait for the output after the program has ended, if a child
	// holds the pipe and the system cannot say what is in it.
	hangUp = 3 * time.Second
)

// Exec returns a Refresher that runs a helper program for each refresh, without a
// shell, like the credential helpers of git, kubectl and AWS:
//
//	refresher.Exec("gcloud", "auth", "print-access-token")
//	refresher.Exec("gh", "auth", "token")
//	refresher.Exec("az", "account", "get-access-token", "--resource", "https://api.example.com")
//
// It is equivalent to &Program{Args: command}.
func Exec(command ...string) reauth.Refresher { return &Program{Args: command} }

// A Program is a Refresher that runs a helper program for each refresh, without a
// shell. The program writes the token alone, JSON as in File, or the lines of a git
// credential helper to its standard output. It must end with status 0. A lifetime in
// seconds counts from its start. If it fails or writes nothing, the error has the end
// of its standard error, with secrets masked.
//
// The program has the environment of this process, and more variables. REAUTH_REASON
// has the Reason of the rejection; it is empty if no server has rejected the token.
// REAUTH_SCOPE and REAUTH_CLAIMS have the scope and the claims that the server's
// challenges ask for. KUBERNETES_EXEC_INFO is for kubectl plugins.
//
// On Unix the program has a session of its own, without a terminal. A program that asks
// for input there fails at once. When the context of the refresh ends, the program and
// its children are killed: its process group on Unix, its process tree on Windows. A
// child that outlives the program does not delay the refresh.
//
// Its fields must not be modified after first use.
type Program struct {
	// Args is the program and its arguments. A program without a slash is searched for
	// in PATH.
	Args []string

	// Stdin is the standard input of the program. If empty, the input is empty.
	//
	//	refresher.Program{Args: []string{"git", "credential", "fill"}, Stdin: "protocol=https\nhost=example.com\n\n"}
	//	refresher.Program{Args: []string{"docker-credential-pass", "get"}, Stdin: "registry.example.com", Pointer: "/Secret"}
	Stdin string

	// Dir is the working directory. If empty, that of this process is used.
	Dir string

	// Env lists additional environment variables of the program, as "NAME=value".
	Env []string

	// Pointer is a JSON pointer (RFC 6901) to the token in the output, as in JSONFile:
	// "/credential" for gcloud config config-helper --format=json, and "/SessionToken"
	// for a credential_process of AWS. If empty, the whole output is used.
	Pointer string
}

// Refresh implements reauth.Refresher.
func (p *Program) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	switch {
	case len(p.Args) == 0 || p.Args[0] == "":
		return reauth.Token{}, reauth.Permanent(errors.New("refresher.Exec has no program to run"))
	case p.Pointer != "" && p.Pointer[0] != '/':
		return reauth.Token{}, reauth.Permanent(errors.New("the Pointer of a refresher.Program must begin with a slash"))
	}
	began := time.Now()
	name := p.Args[0] // its arguments may be secret
	out, said, err := p.run(ctx, stale)
	if err != nil {
		return reauth.Token{}, fmt.Errorf("program %s: %w", name, withWords(err, said))
	}
	var tok reauth.Token
	if p.Pointer != "" {
		tok, err = pointed(out, p.Pointer, began)
	} else {
		tok, err = parse(out, began)
	}
	if err != nil {
		return reauth.Token{}, fmt.Errorf("program %s: its output: %w", name, withWords(err, said))
	}
	if why := notNewer(tok, stale); why != "" {
		return reauth.Token{}, fmt.Errorf("program %s: it printed the token that %s: check whether it caches tokens, and log in to it again", name, why)
	}
	return tok, nil
}

// Format implements fmt.Formatter: every verb prints the program without its arguments.
func (p Program) Format(f fmt.State, _ rune) {
	name := ""
	if len(p.Args) > 0 {
		name = p.Args[0]
	}
	_, _ = fmt.Fprintf(f, "Program(%s)", name)
}

// withWords returns err with what the program wrote to its standard error.
func withWords(err error, said string) error {
	if said == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, said)
}

// run runs the program. It returns the standard output, and the end of the standard
// error, which is safe to log.
func (p *Program) run(ctx context.Context, stale reauth.Stale) (out []byte, said string, err error) {
	cmd := exec.CommandContext(ctx, p.Args[0], p.Args[1:]...)
	cmd.Dir = p.Dir
	cmd.Env = append(append(os.Environ(), helperEnv(stale)...), p.Env...)
	if p.Stdin != "" {
		cmd.Stdin = strings.NewReader(p.Stdin)
	}
	cmd.WaitDelay = hangUp
	ownGroup(cmd)
	cmd.Cancel = func() error { return killTree(cmd.Process) }
	stdout, stderr := &limited{max: maxAnswer}, &limited{max: maxStderr, tail: true}
	var pipes [2]*outputPipe
	for i, to := range []struct {
		field *io.Writer
		all   *limited
	}{{&cmd.Stdout, stdout}, {&cmd.Stderr, stderr}} {
		if pipes[i], err = newOutputPipe(to.all); err != nil {
			return nil, "", err
		}
		defer pipes[i].close()
		*to.field = pipes[i].w
	}
	if err = cmd.Start(); err == nil {
		for _, pipe := range pipes {
			pipe.begin()
		}
		err = cmd.Wait()
		if ctx.Err() != nil {
			killRest(cmd.Process)
		}
		for _, pipe := range pipes {
			pipe.end()
		}
	}
	if errors.Is(err, exec.ErrWaitDelay) { // it succeeded without reading its input
		err = nil
	}
	if stderr.buf.Len() > 0 {
		said = mask.Text(lastWords(stderr.buf.String()), 200, stale.Token.AccessToken, stale.Token.RefreshToken, stdout.buf.String())
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, said, context.Cause(ctx)
	case err != nil:
		return nil, said, err
	case stdout.cut:
		return nil, said, errTooLarge
	}
	return stdout.buf.Bytes(), said, nil
}

// lastWords returns the end of a text, whole lines if there are some.
func lastWords(text string) string {
	const most = 200
	text = strings.TrimSpace(text)
	if len(text) <= most {
		return text
	}
	text = text[len(text)-most:]
	if _, rest, ok := strings.Cut(text, "\n"); ok {
		return rest
	}
	return "…" + strings.ToValidUTF8(text, "")
}

// An outputPipe collects what a program writes until it ends. A child of the program
// may hold the pipe longer.
type outputPipe struct {
	r, w *os.File
	to   io.Writer
	done chan struct{}
}

func newOutputPipe(to io.Writer) (*outputPipe, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &outputPipe{r, w, to, make(chan struct{})}, nil
}

// begin starts to read what the program writes. The program has started, and has the
// other end.
func (p *outputPipe) begin() {
	_ = p.w.Close()
	go func() {
		defer close(p.done)
		if _, err := io.Copy(p.to, p.r); errors.Is(err, os.ErrDeadlineExceeded) {
			drainPipe(p.r, p.to)
		}
	}()
}

// end reads what the program has written.
func (p *outputPipe) end() {
	if p.r.SetReadDeadline(time.Now()) != nil {
		select {
		case <-p.done:
		case <-time.After(hangUp):
			_ = p.r.Close()
		}
	}
	<-p.done
}

func (p *outputPipe) close() {
	_ = p.w.Close()
	_ = p.r.Close()
}

// helperEnv returns the variables that say why the program is run.
func helperEnv(stale reauth.Stale) []string {
	scopes, claims := asked(stale.Rejection)
	return []string{
		"REAUTH_REASON=" + string(stale.Rejection.Reason),
		"REAUTH_SCOPE=" + strings.Join(scopes, " "),
		"REAUTH_CLAIMS=" + claims,
		`KUBERNETES_EXEC_INFO={"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false}}`,
	}
}

// A limited keeps the beginning of what is written to it, or if tail, the end.
type limited struct {
	buf  bytes.Buffer // not embedded: its ReadFrom knows no limit
	max  int
	tail bool
	cut  bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := len(p) // all of it, or the program would get a broken pipe
	if l.tail {
		p = p[max(0, len(p)-l.max):]
		l.buf.Next(max(0, l.buf.Len()+len(p)-l.max))
	} else if room := l.max - l.buf.Len(); len(p) > room {
		p, l.cut = p[:room], true
	}
	l.buf.Write(p)
	return n, nil
}
