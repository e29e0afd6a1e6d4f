package cli

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"github.com/BurntSushi/toml"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// A config is the configuration file.
type config struct {
	Profile map[string]*profile `toml:"profile"`
}

// A profile says which token is for which server.
type profile struct {
	URL     string   `toml:"url"`
	Origins []string `toml:"origins"`
	Source  string   `toml:"source"`
	Header  string   `toml:"header"`
	Scheme  string   `toml:"scheme"`
	OAuth   *oauth   `toml:"oauth"`
	Proxy   struct {
		Listen string `toml:"listen"`
	} `toml:"proxy"`

	name string
}

// An oauth is how a profile gets tokens of an authorization server.
type oauth struct {
	Issuer    string            `toml:"issuer"`
	ClientID  string            `toml:"client_id"`
	Secret    string            `toml:"client_secret_source"` // a source, not the secret
	Grant     string            `toml:"grant"`
	Scopes    []string          `toml:"scopes"`
	Params    map[string]string `toml:"params"`
	AuthURL   string            `toml:"authorization_endpoint"`
	TokenURL  string            `toml:"token_endpoint"`
	DeviceURL string            `toml:"device_authorization_endpoint"`
}

// configFile returns the name of the configuration file.
func (c *command) configFile() (string, error) {
	if c.config != "" {
		return c.config, nil
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", usagef("there is no home directory to look for the configuration in: use --config: %v", err)
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "reauth", "config.toml"), nil
}

// loadConfig reads the configuration file. One that others may write is refused, since it
// names programs to run.
func (c *command) loadConfig() (*config, string, error) {
	name, err := c.configFile()
	if err != nil {
		return nil, "", err
	}
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, name, usagef("there is no configuration %s: make one with [profile.NAME], or use --source", name)
	}
	if err != nil {
		return nil, name, &exitError{exitUsage, err}
	}
	dir, err := os.Stat(filepath.Dir(name))
	if err != nil {
		return nil, name, &exitError{exitUsage, err}
	}
	switch {
	case writableByOthers(info):
		return nil, name, usagef("%s may be written by others, who could have programs run (mode %04o): give it to yourself and chmod go-w it, or use another with --config", name, info.Mode().Perm())
	case writableByOthers(dir):
		return nil, name, usagef("%s may be replaced by others, who could have programs run: its directory has mode %04o", name, dir.Mode().Perm())
	}
	var conf config
	meta, err := toml.DecodeFile(name, &conf)
	if err != nil {
		return nil, name, usagef("%s: %v", name, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		key := unknown[0][len(unknown[0])-1]
		text := sayf("%s: unknown key %v", name, unknown[0])
		if best := closest(key, configKeys); best != "" {
			return nil, name, usagef("%v: did you mean %s?", text, best)
		}
		return nil, name, &exitError{exitUsage, text}
	}
	for n, p := range conf.Profile {
		p.name = n
	}
	return &conf, name, nil
}

var configKeys = []string{"profile", "url", "origins", "source", "header", "scheme", "oauth", "proxy", "listen", "issuer", "client_id", "client_secret_source", "grant", "scopes", "params",
	"authorization_endpoint", "token_endpoint", "device_authorization_endpoint"}

// find returns a profile of the configuration.
func (c *command) find(name string) (*profile, error) {
	conf, file, err := c.loadConfig()
	if err != nil {
		return nil, err
	}
	if p := conf.Profile[name]; p != nil {
		return p, p.check(file)
	}
	var known []string
	for n := range conf.Profile {
		known = append(known, n)
	}
	sort.Strings(known)
	text := sayf("%s has no profile %q", file, name)
	if best := closest(name, known); best != "" {
		return nil, usagef("%v: did you mean %s?", text, best)
	} else if len(known) > 0 {
		return nil, usagef("%v: it has %s", text, strings.Join(known, ", "))
	}
	return nil, &exitError{exitUsage, text}
}

// check reports what is missing from a profile.
func (p *profile) check(file string) error {
	switch {
	case p.URL == "":
		return usagef("%s: profile %s has no url, whose origin is the one that gets the token", file, p.name)
	case p.Source == "" && p.OAuth == nil:
		return usagef("%s: profile %s has neither a source nor an oauth section", file, p.name)
	case p.Source != "" && p.OAuth != nil:
		return usagef("%s: profile %s has both a source and an oauth section: remove one", file, p.name)
	}
	for _, address := range append([]string{p.URL}, p.Origins...) {
		if _, err := serverURL(address); err != nil {
			return usagef("%s: profile %s: %v", file, p.name, err)
		}
	}
	if p.OAuth != nil && !slices.Contains(grants, p.OAuth.Grant) {
		return usagef("%s: profile %s: grant is %q: it is one of %s", file, p.name, p.OAuth.Grant, strings.Join(grants, ", "))
	}
	return nil
}

var grants = []string{"browser", "device", "client_credentials"}

// allOrigins returns the origins that get the token.
func (p *profile) allOrigins() []string {
	u, _ := url.Parse(p.URL)
	all := []string{u.Scheme + "://" + u.Host}
	for _, o := range p.Origins {
		if !slices.Contains(all, o) {
			all = append(all, o)
		}
	}
	return all
}

// A sourceFlags are the flags that say where the token comes from.
type sourceFlags struct {
	profile, source string
	store           string // of login: keyring, file, or "" for what is there
}

// credential returns the Credential of a profile or a source, and the profile, if any.
func (c *command) credential(ctx context.Context, f sourceFlags) (*reauth.Credential, *profile, error) {
	cred := &reauth.Credential{Logger: c.logger()}
	switch {
	case f.profile != "" && f.source != "":
		return nil, nil, usagef("--profile and --source are two ways to say where the token comes from: use one")
	case f.source != "":
		r, err := sourceOf(f.source)
		cred.Refresher = r
		return cred, nil, err
	case f.profile == "":
		return nil, nil, usagef("say where the token comes from: --profile NAME, or --source env:NAME, dotenv:PATH#NAME, file:PATH, exec:PROGRAM")
	}
	p, err := c.find(f.profile)
	if err != nil {
		return nil, nil, err
	}
	if p.Source != "" {
		cred.Refresher, err = sourceOf(p.Source)
		return cred, p, err
	}
	if err := p.checkIssuer(); err != nil {
		return nil, nil, err
	}
	cred.Refresher = p.lazyIssuer()
	if p.OAuth.Grant != "client_credentials" {
		cred.Store, err = p.loginStore(f.store)
	}
	return cred, p, err
}

// lazyIssuer returns the Refresher of the profile, which asks the authorization server for
// its endpoints with the first refresh: what needs none works while the server is down.
func (p *profile) lazyIssuer() reauth.Refresher {
	var known atomic.Pointer[reauth.Refresher]
	return reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		if stale.Token.RefreshToken == "" && p.OAuth.Grant != "client_credentials" {
			return (&refresher.OAuth2{}).Refresh(ctx, stale) // it says to log in
		}
		if r := known.Load(); r != nil {
			return (*r).Refresh(ctx, stale)
		}
		issuer, err := p.issuer(ctx)
		if err != nil {
			return reauth.Token{}, err
		}
		var r reauth.Refresher = issuer
		if p.OAuth.Grant == "client_credentials" {
			r = issuer.ClientCredentials()
		}
		known.Store(&r)
		return r.Refresh(ctx, stale)
	})
}

// checkIssuer reports what is missing from the profile's oauth section.
func (p *profile) checkIssuer() error {
	switch {
	case p.OAuth.ClientID == "":
		return usagef("profile %s has no oauth.client_id", p.name)
	case p.OAuth.Issuer == "" && p.OAuth.TokenURL == "":
		return usagef("profile %s has neither oauth.issuer nor oauth.token_endpoint", p.name)
	}
	return nil
}

// issuer returns the profile's client of its authorization server.
func (p *profile) issuer(ctx context.Context) (*refresher.OAuth2, error) {
	o := p.OAuth
	issuer := &refresher.OAuth2{Config: oauth2.Config{ClientID: o.ClientID, Scopes: o.Scopes,
		Endpoint: oauth2.Endpoint{AuthURL: o.AuthURL, TokenURL: o.TokenURL, DeviceAuthURL: o.DeviceURL}}}
	if o.Secret != "" {
		r, err := sourceOf(o.Secret)
		if err != nil {
			return nil, err
		}
		tok, err := r.Refresh(ctx, reauth.Stale{})
		if err != nil {
			return nil, failf(exitFailed, "the client secret: %v", err)
		}
		issuer.Config.ClientSecret = tok.AccessToken
	}
	for k, v := range o.Params {
		if issuer.Params == nil {
			issuer.Params = url.Values{}
		}
		issuer.Params.Set(k, v)
	}
	if o.Issuer != "" {
		if err := issuer.Discover(ctx, o.Issuer); err != nil {
			return nil, &exitError{exitUnreachable, err}
		}
	}
	return issuer, nil
}

// sourceOf returns the Refresher of a source.
func sourceOf(source string) (reauth.Refresher, error) {
	kind, rest, ok := strings.Cut(source, ":")
	if !ok || rest == "" && kind != "stdin" {
		return nil, usagef("the source %q has no value: it is env:NAME, dotenv:PATH#NAME, file:PATH, file:PATH#/json/pointer or exec:PROGRAM ARGS", source)
	}
	switch kind {
	case "env":
		return refresher.Env(rest), nil
	case "dotenv":
		path, name, ok := strings.Cut(rest, "#")
		if !ok {
			return nil, usagef("the source %q does not say which variable: dotenv:PATH#NAME", source)
		}
		return refresher.DotEnv(expand(path), name), nil
	case "file":
		if path, pointer, ok := strings.Cut(rest, "#"); ok {
			return refresher.JSONFile(expand(path), pointer), nil
		}
		return refresher.File(expand(rest)), nil
	case "exec":
		return refresher.Exec(strings.Fields(rest)...), nil
	}
	text := sayf("there is no source %q: it is env, dotenv, file or exec", kind)
	if best := closest(kind, []string{"env", "dotenv", "file", "exec"}); best != "" {
		return nil, usagef("%v: did you mean %s?", text, best)
	}
	return nil, &exitError{exitUsage, text}
}

// expand replaces a tilde at the beginning by the home directory.
func expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

// logger returns the log, of which -v shows more. A command that ends says its error at the
// end, and logs nothing else.
func (c *command) logger() *slog.Logger {
	level := slog.LevelError + 1
	switch {
	case c.verbose:
		level = slog.LevelDebug
	case c.quiet && c.serves:
		level = slog.LevelError
	case c.serves:
		level = slog.LevelWarn
	}
	return slog.New(slog.NewTextHandler(c.Err, &slog.HandlerOptions{Level: level}))
}

// isLoopback reports whether a host is this machine, and no name that leads there by DNS.
func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// serverURL reads the URL of a server that gets a token.
func serverURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		text := sayf("%q is no URL of a server", redacted(address))
		if scheme, _, ok := strings.Cut(address, "://"); ok {
			if best := closest(scheme, []string{"https", "http"}); best != "" && best != scheme {
				return nil, sayf("%v: did you mean %s?", text, best+"://")
			}
		}
		return nil, text
	case u.User != nil:
		return nil, sayf("%s has a password in it: the token is the credential", u.Redacted())
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, sayf("%s is http: a token is sent over https only, except to this machine", redacted(address))
	}
	return u, nil
}

// redacted returns a URL without what may be secret in it.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the URL"
	}
	if u.RawQuery != "" {
		u.RawQuery = "…"
	}
	return u.Redacted()
}
