// Package cli is the command reauth.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	exitGood        = 0
	exitFailed      = 1
	exitUsage       = 2  // usage or configuration
	exitHelps       = 10 // refused, and a new token helps
	exitNoHelp      = 11 // refused, and it does not
	exitUndecided   = 12 // undecided, or no error about a token
	exitLater       = 20 // no token now: try later
	exitLogin       = 21 // log in again
	exitUnreachable = 22 // the server was not reached
)

// Streams are where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// An exitError ends the command with a status. Its text, if any, is written to Err.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// A command is what all subcommands share.
type command struct {
	Streams
	json    bool
	lang    string
	quiet   bool
	verbose bool
	config  string
	serves  bool // requests, as long as it runs
}

// Run runs the command with the arguments, and returns its exit status.
func Run(ctx context.Context, args []string, streams Streams) int {
	c := &command{Streams: streams}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitGood
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{exitUsage, err} // cobra's own are about usage
	}
	if exit.err != nil {
		text := said(nearest(root, exit.err), exit.status, c.language(nil))
		if c.json {
			_ = json.NewEncoder(streams.Err).Encode(map[string]any{"error": text, "exit": exit.status})
		} else {
			fmt.Fprintln(streams.Err, "reauth:", text)
		}
	}
	return exit.status
}

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "reauth",
		Short:         "Explain authentication errors, and give programs tokens that are replaced in time",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.BoolVar(&c.json, "json", false, "print one JSON object")
	flags.StringVar(&c.lang, "lang", "", "language of what is said of errors: en or zh (else the locale's, else the text's)")
	flags.BoolVarP(&c.quiet, "quiet", "q", false, "print less")
	flags.BoolVarP(&c.verbose, "verbose", "v", false, "print more")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if c.lang != "" && c.lang != "en" && c.lang != "zh" {
			return usagef("--lang is en or zh, and not %q", c.lang)
		}
		return nil
	}
	root.AddCommand(c.explainCommand(), c.checkCommand(), c.tokenCommand(), c.execCommand(), c.proxyCommand(), c.loginCommand(), c.logoutCommand(), c.statusCommand(), c.versionCommand())
	root.CompletionOptions.HiddenDefaultCmd = false
	return root
}

// nearest adds to an error about an unknown flag or command the name of one like it.
func nearest(root *cobra.Command, err error) error {
	text := err.Error()
	var known []string
	name, isFlag := strings.CutPrefix(text, "unknown flag: --")
	if isFlag {
		for _, sub := range append(root.Commands(), root) {
			known = append(known, flagNames(sub)...)
		}
	} else if _, rest, ok := strings.Cut(text, `unknown command "`); ok {
		name, _, _ = strings.Cut(rest, `"`)
		for _, sub := range root.Commands() {
			known = append(known, sub.Name())
		}
	} else {
		return err
	}
	kind := sayf("there is no command %q", name)
	if isFlag {
		kind = sayf("there is no flag --%s", name)
	}
	best := closest(name, known)
	if best == "" {
		return kind
	}
	if isFlag {
		best = "--" + best
	}
	return sayf("%v: did you mean %s?", kind, best)
}

// closest returns the name that is most like another, if one is.
func closest(name string, known []string) (best string) {
	least := 3 // letters
	for _, k := range known {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// say returns a text in the language.
func (c *command) say(format string, args ...any) string {
	return sayf(format, args...).in(c.language(nil))
}

// warn writes a text to Err.
func (c *command) warn(format string, args ...any) {
	fmt.Fprintln(c.Err, "reauth:", c.say(format, args...))
}

// progress says on Err what a person waits for.
func (c *command) progress(format string, args ...any) {
	if !c.quiet && !c.json {
		c.warn(format, args...)
	}
}

// print writes v as JSON, or the text.
func (c *command) print(v any, text string) error {
	if c.json {
		enc := json.NewEncoder(c.Out)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	_, err := io.WriteString(c.Out, text)
	return err
}
