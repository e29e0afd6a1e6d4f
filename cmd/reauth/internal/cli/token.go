package cli

import (
	"cmp"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	jose "github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"

	"github.com/reauth-go/reauth"
)

func (c *command) tokenCommand() *cobra.Command {
	var f sourceFlags
	var o inspectFlags
	var output string
	var renew, inspect bool
	cmd := &cobra.Command{
		Use:   "token [get|store|erase]",
		Short: "Print a token, or say what is in one",
		Long: `Token prints the token of a profile or a source, and nothing else, on standard output.
With --renew it gets another, as the last one was refused.

With --inspect it says what is in the token, and verifies it with the keys of --issuer or
--jwks; without them nothing is said to be verified. The source stdin reads the token from
standard input.

With -o git it is a credential helper of git, which adds the argument:

  git config credential.https://git.example.com.helper '!reauth token -p work -o git'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output == "git" {
				return c.gitCredential(cmd.Context(), f, args)
			}
			if len(args) > 0 {
				return usagef("token takes no argument, except with -o git")
			}
			if f.source == "stdin" {
				b, err := io.ReadAll(io.LimitReader(c.In, 128<<10))
				if err != nil {
					return &exitError{exitFailed, err}
				}
				if !inspect {
					return usagef("the source stdin is for --inspect")
				}
				return c.inspect(cmd.Context(), string(b), o)
			}
			cred, p, err := c.credential(cmd.Context(), f)
			if err != nil {
				return err
			}
			tok, err := tokenOf(cmd.Context(), cred, renew)
			if err == nil && !renew && !inspect && !tok.Expiry.IsZero() && time.Until(tok.Expiry) < o.minValid {
				tok, err = tokenOf(cmd.Context(), cred, true)
			}
			if err != nil {
				return tokenError(err, p)
			}
			defer func() { _ = cred.Shutdown(context.Background()) }()
			if inspect {
				return c.inspect(cmd.Context(), tok.AccessToken, o)
			}
			if c.json && output == "plain" {
				output = "json"
			}
			return c.printToken(tok, output, p)
		},
	}
	c.addSource(cmd, &f)
	cmd.Flags().StringVarP(&output, "output", "o", "plain", "plain, header, json, kubernetes or git")
	cmd.Flags().BoolVar(&renew, "renew", false, "get another token: the last one was refused")
	cmd.Flags().BoolVar(&inspect, "inspect", false, "say what is in the token, and do not print it")
	cmd.Flags().StringVar(&o.issuer, "issuer", "", "verify the token with the keys of this issuer")
	cmd.Flags().StringVar(&o.jwks, "jwks", "", "verify the token with the keys of this file or URL")
	cmd.Flags().StringVar(&o.audience, "audience", "", "the audience that the token must have")
	cmd.Flags().DurationVar(&o.minValid, "min-valid", 0, "how long the token must still be valid")
	return cmd
}

// tokenOf returns a token, another one if the last was refused.
func tokenOf(ctx context.Context, cred *reauth.Credential, renew bool) (reauth.Token, error) {
	tok, err := cred.Token(ctx)
	if err != nil || !renew {
		return tok, err
	}
	return cred.Refresh(ctx, reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonInvalidToken, StatusCode: http.StatusUnauthorized}})
}

// tokenError gives an error of a refresh its exit status. Of its text it drops what is said
// to programs. A source that can have no token is a matter of configuration.
func tokenError(err error, p *profile) error {
	text := strings.TrimPrefix(err.Error(), "reauth: refresh failed: ")
	for _, end := range []string{"; next attempt after ", "; this is permanent, "} {
		text, _, _ = strings.Cut(text, end)
	}
	said := errors.New(text)
	isLogin := p != nil && p.OAuth != nil && p.OAuth.Grant != "client_credentials"
	var refresh *reauth.RefreshError
	switch {
	case errors.Is(err, reauth.ErrLoggedOut), errors.As(err, &refresh) && refresh.Permanent() && isLogin:
		return &exitError{exitLogin, said}
	case refresh != nil && refresh.Permanent():
		return &exitError{exitUsage, said}
	case refresh != nil, errors.Is(err, context.DeadlineExceeded):
		return &exitError{exitLater, said}
	}
	return &exitError{exitFailed, err}
}

// printToken prints a token, and warns if that is a terminal.
func (c *command) printToken(tok reauth.Token, output string, p *profile) error {
	if f, ok := c.Out.(*os.File); ok && !c.quiet {
		null, _ := os.Stat(os.DevNull)
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && !os.SameFile(info, null) {
			c.warn("the token is on the screen: who sees it can use it")
		}
	}
	var text string
	switch output {
	case "plain":
		text = tok.AccessToken + "\n"
	case "header":
		name, scheme := "Authorization", ""
		if p != nil {
			name, scheme = cmp.Or(p.Header, name), p.Scheme
		}
		if scheme == "" && name == "Authorization" {
			scheme = "Bearer"
		}
		text = name + ": " + strings.TrimSpace(scheme+" "+tok.AccessToken) + "\n"
	case "json", "kubernetes":
		var v any = map[string]any{"access_token": tok.AccessToken, "expiry": expiryOf(tok)}
		if output == "kubernetes" {
			status := map[string]any{"token": tok.AccessToken}
			if e := expiryOf(tok); e != nil {
				status["expirationTimestamp"] = e
			}
			v = map[string]any{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
		}
		b, err := json.Marshal(v)
		if err != nil {
			return &exitError{exitFailed, err}
		}
		text = string(b) + "\n"
	default:
		return usagef("-o is plain, header, json, kubernetes or git, and not %q", output)
	}
	if _, err := io.WriteString(c.Out, text); err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

func expiryOf(tok reauth.Token) any {
	if tok.Expiry.IsZero() {
		return nil
	}
	return tok.Expiry.UTC().Format(time.RFC3339)
}

type inspectFlags struct {
	issuer, jwks, audience string
	minValid               time.Duration
}

// An inspection is what is said of a token.
type inspection struct {
	Kind        string   `json:"kind"` // jwt, opaque, or what is wrong with its form
	Length      int      `json:"length"`
	Fingerprint string   `json:"fingerprint"`
	Algorithm   string   `json:"algorithm,omitempty"`
	Issuer      string   `json:"issuer,omitempty"`
	Audience    []string `json:"audience,omitempty"`
	NotBefore   string   `json:"not_before,omitempty"`
	Expiry      string   `json:"expiry,omitempty"` // "none" if the token has no exp
	Verified    bool     `json:"verified"`
	Problems    []string `json:"problems,omitempty"`

	problems []*message
}

// algorithms are those of public keys: one of a shared secret would let a forger sign with
// the public key.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// inspect says what is in a token, and whether it is good.
func (c *command) inspect(ctx context.Context, raw string, o inspectFlags) error {
	if o.issuer != "" && o.jwks != "" {
		return usagef("--issuer and --jwks both say which keys: use one")
	}
	in := formOf(raw)
	token := strings.TrimSpace(raw)
	in.Length, in.Fingerprint = len(token), reauth.Token{AccessToken: token}.Fingerprint()
	if in.Kind == "jwt" {
		if err := in.read(ctx, token, o); err != nil {
			return err
		}
	} else if o.issuer != "" || o.jwks != "" {
		in.problem("it is no JWT, and cannot be verified here")
	}
	lang := c.language(nil)
	for _, m := range in.problems {
		in.Problems = append(in.Problems, m.in(lang))
	}
	if err := c.print(in, in.text(lang)); err != nil {
		return &exitError{exitFailed, err}
	}
	if len(in.Problems) > 0 {
		return &exitError{exitHelps, nil}
	}
	return nil
}

// problem notes what is wrong with the token.
func (in *inspection) problem(format string, args ...any) {
	in.problems = append(in.problems, sayf(format, args...))
}

// formOf says what a token looks like, and what is wrong with it.
func formOf(raw string) *inspection {
	in := &inspection{Kind: "opaque"}
	t := strings.TrimRight(raw, "\r\n")
	lower := strings.ToLower(t)
	switch {
	case strings.TrimSpace(t) == "":
		in.problem("it is empty")
	case t == reauth.Placeholder, placeholder.MatchString(strings.Trim(t, `"'`)):
		in.problem("it is a placeholder, and no token")
	}
	if t != strings.TrimSpace(t) {
		in.problem("it begins or ends with a blank")
	}
	if quote := strings.Trim(t, " "); len(quote) > 1 && strings.ContainsAny(quote[:1]+quote[len(quote)-1:], `"'`) || strings.ContainsAny(t, "“”‘’") {
		in.problem("it is in quotes")
	}
	if strings.HasPrefix(lower, "bearer ") {
		in.problem("it begins with Bearer, which the client adds")
	}
	if strings.ContainsAny(strings.TrimSpace(t), " \t\n") && !strings.HasPrefix(lower, "bearer ") {
		in.problem("it has a blank in it")
	}
	if isJWT(strings.TrimSpace(t)) {
		in.Kind = "jwt"
	}
	return in
}

// placeholder matches what stands in examples for a token.
var placeholder = regexp.MustCompile(`(?i)^(.*\byour[-_ ]?.*|.*\b(my|api|the|some)[-_](api[-_])?(key|token)\b.*|<.*>|\$.*|%.*%|\{\{.*|[x*.•]+|(sk|pk|ghp)[-_][x*.•]*|sk-xxx.*|.*(change|replace)[-_ ]?me.*|todo|null|nil|none|undefined|token|secret|test|placeholder)$`)

// isJWT reports whether a token has the parts of a JWT, of which the first is a header. One
// without a signature is one too.
func isJWT(token string) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 2 && len(parts) != 3 {
		return false
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[0])
	var header map[string]json.RawMessage
	return err == nil && json.Unmarshal(b, &header) == nil && header["alg"] != nil || strings.HasPrefix(parts[0], "eyJ")
}

// claims are those that are looked at.
type claims struct {
	Issuer    string       `json:"iss"`
	Audience  audience     `json:"aud"`
	Expiry    *json.Number `json:"exp"`
	NotBefore *json.Number `json:"nbf"`
}

// read reads them by their exact names: encoding/json would take EXP for exp.
func (c *claims) read(payload []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(payload, &all); err != nil {
		return err
	}
	for name, to := range map[string]any{"iss": &c.Issuer, "aud": &c.Audience, "exp": &c.Expiry, "nbf": &c.NotBefore} {
		if raw, ok := all[name]; ok {
			if err := json.Unmarshal(raw, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// An audience is one, or several (RFC 7519 §4.1.3).
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

func timeOf(n *json.Number) (time.Time, bool) {
	if n == nil {
		return time.Time{}, false
	}
	f, err := n.Float64()
	if err != nil || f < -1e12 || f > 1e12 {
		return time.Time{}, false
	}
	return time.Unix(int64(f), 0), true
}

// read reads a JWT, and verifies it if there are keys.
func (in *inspection) read(ctx context.Context, token string, o inspectFlags) error {
	parts := strings.Split(token, ".")
	var header struct {
		Algorithm string `json:"alg"`
	}
	head, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err == nil {
		err = json.Unmarshal(head, &header)
	}
	payload, bodyErr := base64.RawURLEncoding.DecodeString(parts[1])
	var cl claims
	if bodyErr == nil {
		bodyErr = cl.read(payload)
	}
	if err != nil || bodyErr != nil {
		in.problem("it looks like a JWT, and is damaged")
		return nil
	}
	in.Algorithm, in.Issuer, in.Audience = header.Algorithm, cl.Issuer, cl.Audience
	if !slices.Contains(algorithms, jose.SignatureAlgorithm(header.Algorithm)) {
		in.problem("its algorithm is %.20q, which nobody can verify with a public key", header.Algorithm)
	}
	now := time.Now()
	in.Expiry = "none"
	if exp, ok := timeOf(cl.Expiry); ok {
		in.Expiry = exp.UTC().Format(time.RFC3339)
		switch {
		case !now.Before(exp):
			in.problem("it has expired %v ago", now.Sub(exp).Round(time.Second))
		case exp.Sub(now) < o.minValid:
			in.problem("it is valid for %v more, and not for %v", exp.Sub(now).Round(time.Second), o.minValid)
		}
	} else if cl.Expiry != nil {
		in.problem("its exp is no time")
	}
	if nbf, ok := timeOf(cl.NotBefore); ok {
		in.NotBefore = nbf.UTC().Format(time.RFC3339)
		if now.Before(nbf) {
			in.problem("it is not valid yet: in %v; see this machine's clock", nbf.Sub(now).Round(time.Second))
		}
	}
	if o.issuer != "" && cl.Issuer != o.issuer {
		in.problem("its issuer is %.100q, and not %q", cl.Issuer, o.issuer)
	}
	if o.audience != "" && !slices.Contains(cl.Audience, o.audience) {
		in.problem("its audience is %.200q, and not %q", []string(cl.Audience), o.audience)
	}
	if o.issuer == "" && o.jwks == "" {
		return nil
	}
	keys, err := keySet(ctx, o)
	if err != nil {
		return err
	}
	got, err := keys.VerifySignature(ctx, token)
	if err != nil && strings.Contains(err.Error(), "fetching keys") { // go-oidc has no type for it
		return &exitError{exitUnreachable, err}
	}
	if err != nil || string(got) != string(payload) {
		in.problem("its signature does not verify with these keys")
		return nil
	}
	in.Verified = true
	return nil
}

// keySet returns the keys to verify with: never what the token itself names.
func keySet(ctx context.Context, o inspectFlags) (oidc.KeySet, error) {
	switch {
	case o.issuer != "":
		provider, err := oidc.NewProvider(ctx, o.issuer)
		if err != nil {
			return nil, failf(exitUnreachable, "the keys of the issuer: %v", err)
		}
		var meta struct {
			JWKS string `json:"jwks_uri"`
		}
		if err := provider.Claims(&meta); err != nil {
			return nil, &exitError{exitFailed, err}
		}
		return oidc.NewRemoteKeySet(ctx, meta.JWKS), nil
	case strings.HasPrefix(o.jwks, "https://"), strings.HasPrefix(o.jwks, "http://"):
		return oidc.NewRemoteKeySet(ctx, o.jwks), nil
	}
	b, err := os.ReadFile(expand(o.jwks))
	if err != nil {
		return nil, usagef("--jwks: %v", err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(b, &set); err != nil || len(set.Keys) == 0 {
		return nil, usagef("--jwks: %s is no JSON Web Key Set", o.jwks)
	}
	return &fileKeys{set}, nil
}

// fileKeys are the keys of a file.
type fileKeys struct{ set jose.JSONWebKeySet }

// VerifySignature implements oidc.KeySet. A key id that the token has must be that of the
// key.
func (k *fileKeys) VerifySignature(_ context.Context, token string) ([]byte, error) {
	sig, err := jose.ParseSigned(token, algorithms)
	if err != nil {
		return nil, err
	}
	id := sig.Signatures[0].Header.KeyID
	for _, key := range k.set.Keys {
		if _, public := key.Key.(crypto.PublicKey); !public || id != "" && key.KeyID != id || !key.IsPublic() {
			continue
		}
		if payload, err := sig.Verify(key); err == nil {
			return payload, nil
		}
	}
	return nil, errors.New("no key fits")
}

// text returns what a person reads.
func (in *inspection) text(lang string) string {
	var b strings.Builder
	first := sayf("Nothing is wrong with its form; it was not verified.")
	switch {
	case len(in.problems) > 0:
		first = sayf("The token is not good: %s.", sentences(in.problems, lang))
	case in.Verified:
		first = sayf("The token is good: its signature is verified.")
	}
	b.WriteString(first.in(lang) + "\n")
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-11s %s\n", name, value)
		}
	}
	line("kind", in.Kind)
	line("length", fmt.Sprint(in.Length))
	line("fingerprint", in.Fingerprint)
	line("algorithm", in.Algorithm)
	line("issuer", in.Issuer)
	line("audience", strings.Join(in.Audience, ", "))
	line("not before", in.NotBefore)
	line("expiry", in.Expiry)
	return b.String()
}
