package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// gitCredential is one call of a credential helper (gitcredentials(7)): git asks for a
// password, or says that the last one was refused.
func (c *command) gitCredential(ctx context.Context, f sourceFlags, args []string) error {
	if len(args) != 1 {
		return usagef("-o git needs the argument get, store or erase, which git adds")
	}
	if !slices.Contains([]string{"get", "store", "erase"}, args[0]) {
		return nil // gitcredentials(7) asks for that
	}
	asked := map[string]string{}
	lines := bufio.NewScanner(c.In)
	for lines.Scan() && lines.Text() != "" {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok {
			asked[name] = value
		}
	}
	if args[0] == "store" {
		return nil // the token is kept where it comes from
	}
	cred, p, err := c.credential(ctx, f)
	if err != nil {
		return err
	}
	if p == nil {
		return usagef("-o git needs a profile, whose url says which server gets the token")
	}
	if origin := asked["protocol"] + "://" + asked["host"]; !slices.Contains(p.allOrigins(), origin) {
		return nil // another helper's
	}
	tok, err := tokenOf(ctx, cred, false)
	if err == nil && args[0] == "erase" && (asked["password"] == "" || asked["password"] == tok.AccessToken) {
		tok, err = tokenOf(ctx, cred, true) // unless another has renewed it since
	}
	if err != nil {
		return tokenError(err, p)
	}
	defer func() { _ = cred.Shutdown(context.Background()) }()
	if args[0] == "erase" {
		return nil
	}
	user := cmp.Or(asked["username"], "x-access-token")
	if _, err := fmt.Fprintf(c.Out, "username=%s\npassword=%s\n", user, tok.AccessToken); err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}
