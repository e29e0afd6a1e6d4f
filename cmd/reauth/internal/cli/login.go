package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/cli/browser"
	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
)

// profileArg is the name of the profile that login, logout and status are for.
func profileArg(args []string) string {
	if len(args) == 0 {
		return "default"
	}
	return args[0]
}

func (c *command) loginCommand() *cobra.Command {
	var device, web bool
	var keep string
	cmd := &cobra.Command{
		Use:   "login [profile]",
		Short: "Log in, for all that use the profile",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if keep != "" && keep != "keyring" && keep != "file" {
				return usagef("--store is keyring or file, and not %q", keep)
			}
			cred, p, err := c.credential(ctx, sourceFlags{profile: profileArg(args), store: keep})
			if err != nil {
				return err
			}
			if p.OAuth == nil || p.OAuth.Grant == "client_credentials" {
				return usagef("profile %s needs no login: its token is from %s", p.name, cmp.Or(p.Source, "client_credentials"))
			}
			if device && web {
				return usagef("--device and --browser are two ways to log in: use one")
			}
			issuer, err := p.issuer(ctx)
			if err != nil {
				return err
			}
			var tok reauth.Token
			if device || p.OAuth.Grant == "device" && !web {
				tok, err = issuer.DeviceLogin(ctx, func(d *oauth2.DeviceAuthResponse) error {
					_, err := fmt.Fprintln(c.Err, c.say("Open %s and enter the code %s. Waiting until you have, or until %s …", d.VerificationURI, d.UserCode, d.Expiry.Format(time.TimeOnly)))
					return err
				})
			} else {
				tok, err = issuer.BrowserLogin(ctx, func(address string) error {
					fmt.Fprintln(c.Err, c.say("Waiting for the login in the browser. If none opens, go to\n%s", address))
					_ = openBrowser(address) // the address is there
					return nil
				})
			}
			if err != nil {
				return &exitError{exitFailed, err}
			}
			if err := cred.Set(ctx, tok); err != nil {
				return &exitError{exitFailed, err}
			}
			if err := p.removeOther(keep); err != nil {
				return &exitError{exitFailed, err}
			}
			path, _, _ := p.loginFile()
			return c.print(map[string]any{"profile": p.name, "file": path, "expiry": expiryOf(tok)},
				c.say("Logged in. The login is kept in %s, for all that use the profile %s.", path, p.name)+"\n")
		},
	}
	c.addConfig(cmd)
	cmd.Flags().BoolVar(&device, "device", false, "log in on another device, with a code")
	cmd.Flags().BoolVar(&web, "browser", false, "log in with the browser")
	cmd.Flags().StringVar(&keep, "store", "", "where the login is kept: file, or keyring for a sealed file whose key is in the system's keyring")
	return cmd
}

// openBrowser opens an address in the user's browser: that of $BROWSER, if it is set.
var openBrowser = func(address string) error {
	if program := os.Getenv("BROWSER"); program != "" {
		return exec.Command(program, address).Start()
	}
	browser.Stdout, browser.Stderr = nil, nil
	return browser.OpenURL(address)
}

func (c *command) addConfig(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.config, "config", "", "configuration file (else $XDG_CONFIG_HOME/reauth/config.toml)")
}

func (c *command) logoutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logout [profile]",
		Short: "Revoke the login, and end it for all that use it",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			cred, p, err := c.credential(ctx, sourceFlags{profile: profileArg(args)})
			if err != nil {
				return err
			}
			if cred.Store == nil {
				return usagef("profile %s has no login: its token is from %s", p.name, cmp.Or(p.Source, "client_credentials"))
			}
			var tok reauth.Token
			held := &reauth.Credential{Store: cred.Store, Logger: c.logger(), Refresher: reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
				tok = stale.Token // an expired one has a refresh token to revoke as well
				return reauth.Token{}, errors.New("a logout does not refresh")
			})}
			if usable, err := held.Token(ctx); err == nil {
				tok = usable
			}
			revoked := false
			if tok.AccessToken != "" || tok.RefreshToken != "" {
				within, cancel := context.WithTimeout(ctx, 5*time.Second)
				issuer, err := p.issuer(within)
				if err == nil {
					err = issuer.Revoke(within, tok)
				}
				cancel()
				if revoked = err == nil; err != nil {
					c.warn("the login ends here, and may live on at the server: %v", err)
				}
			}
			if err := cred.Clear(ctx); err != nil {
				return &exitError{exitFailed, err}
			}
			return c.print(map[string]any{"profile": p.name, "revoked": revoked}, c.say("Logged out of %s.", p.name)+"\n")
		},
	}
	c.addConfig(cmd)
	return cmd
}

func (c *command) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [profile]",
		Short: "Say whether there is a login, and where it is kept",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := c.find(profileArg(args))
			if err != nil {
				return err
			}
			if p.OAuth == nil || p.OAuth.Grant == "client_credentials" {
				return c.print(map[string]any{"profile": p.name, "source": cmp.Or(p.Source, "client_credentials")}, c.say("profile %s needs no login: its token is from %s", p.name, cmp.Or(p.Source, "client_credentials"))+"\n")
			}
			cred, _, err := c.credential(cmd.Context(), sourceFlags{profile: p.name})
			if err != nil {
				return err
			}
			path, _, _ := p.loginFile()
			held := &reauth.Credential{Store: cred.Store, Logger: c.logger()}
			ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
			defer cancel()
			tok, err := held.Token(ctx)
			v := map[string]any{"profile": p.name, "file": path, "logged_in": err == nil}
			if err != nil {
				if err := c.print(v, c.say("There is no usable token of %s in %s: a program gets one, or says to log in.", p.name, path)+"\n"); err != nil {
					return err
				}
				return &exitError{exitLater, nil}
			}
			v["expiry"], v["fingerprint"] = expiryOf(tok), tok.Fingerprint()
			text := c.say("Logged in to %s: the token %s is kept in %s; its expiry is not known.", p.name, tok.Fingerprint(), path)
			if expiry := expiryOf(tok); expiry != nil {
				text = c.say("Logged in to %s: the token %s is kept in %s, and expires at %v.", p.name, tok.Fingerprint(), path, expiry)
			}
			return c.print(v, text+"\n")
		},
	}
	c.addConfig(cmd)
	return cmd
}
