package cli

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses of exec, as of env(1).
const (
	exitExecFailed = 125
	exitNotRun     = 126
	exitNotFound   = 127
)

// childEnv are the variables that SDKs look for.
var childEnv = []string{
	"OPENAI_BASE_URL={url}", "OPENAI_API_KEY={key}", "ANTHROPIC_BASE_URL={root}", "ANTHROPIC_API_KEY={key}",
}

func (c *command) execCommand() *cobra.Command {
	var f proxyFlags
	var env []string
	cmd := &cobra.Command{
		Use:   "exec [flags] -- command [args]",
		Short: "Run a program behind a proxy of its own, which adds the token",
		Long: `Exec starts a proxy on a random port with a random key, and runs the command with
OPENAI_BASE_URL, OPENAI_API_KEY, ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY set to them, and
what --env says. The program never has the token.

The exit status is the command's; 125 if reauth fails, 126 if the command cannot be run,
127 if it is not found.`,
		Example: "  reauth exec -p gateway -- python app.py",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("there is no command: reauth exec [flags] -- command [args]")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			f.key = true
			x, err := c.newProxy(cmd.Context(), f)
			if err != nil {
				var exit *exitError
				if errors.As(err, &exit) && exit.status == exitUsage {
					return err
				}
				return &exitError{exitExecFailed, err}
			}
			go func() { _ = x.server.Serve(x.listener) }()
			defer x.close()
			return c.runChild(x, args, env)
		},
	}
	cmd.Flags().SetInterspersed(false)
	f.add(c, cmd)
	cmd.Flags().StringArrayVar(&env, "env", nil, "another variable of the command: NAME=TEMPLATE with {url} and {key}")
	return cmd
}

// childBase is the environment of the child, before what is added: without the variable that
// has the token, and with this machine past any proxy.
func (c *command) childBase(x *proxy) (env []string) {
	here := []string{"127.0.0.1", "localhost", "::1"}
	none := map[string]string{"NO_PROXY": "", "no_proxy": ""}
	for _, e := range os.Environ() {
		name, value, _ := strings.Cut(e, "=")
		if _, ok := none[name]; ok {
			none[name] = value
		} else if name != x.tokenVariable {
			env = append(env, e)
		}
	}
	for name, value := range none {
		hosts := slices.DeleteFunc(append(strings.Split(value, ","), here...), func(h string) bool { return h == "" })
		env = append(env, name+"="+strings.Join(hosts, ","))
	}
	return env
}

// runChild runs the command, and returns its exit status.
func (c *command) runChild(x *proxy, args, env []string) error {
	child := exec.Command(args[0], args[1:]...)
	child.Stdin, child.Stdout, child.Stderr = c.In, c.Out, c.Err
	root := strings.TrimSuffix(x.url(), strings.TrimSuffix(x.target.Path, "/"))
	fill := strings.NewReplacer("{url}", x.url(), "{key}", x.key, "{root}", root)
	child.Env = c.childBase(x)
	for _, e := range append(append([]string{}, childEnv...), env...) {
		if !strings.Contains(e, "=") {
			return usagef("--env %q is not NAME=TEMPLATE", e)
		}
		child.Env = append(child.Env, fill.Replace(e))
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer func() {
		signal.Stop(signals)
		close(signals) // which ends the goroutine below
	}()
	runtime.LockOSThread() // the child ends with the thread that started it
	defer runtime.UnlockOSThread()
	endWithParent(child)
	if err := child.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return failf(exitNotFound, "%s was not found", args[0])
		}
		return &exitError{exitNotRun, err}
	}
	go func() {
		for s := range signals {
			if s != os.Interrupt { // which the terminal has sent to the child as well
				_ = child.Process.Signal(s)
			}
		}
	}()
	err := child.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return &exitError{128 + int(status.Signal()), nil}
		}
		return &exitError{exit.ExitCode(), nil}
	}
	return &exitError{exitExecFailed, err}
}
