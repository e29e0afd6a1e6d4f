package refresher

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
	"github.com/reauth-go/reauth/internal/origin"
)

// Exchange returns the token for an authorization code (RFC 6749 §4.1.3) that was sent
// to Config.RedirectURL. verifier is the code verifier of PKCE (RFC 7636), or "". The
// caller passes the token to Credential.Set. The request is retried only if it was not
// sent, or the response was a 503.
func (o *OAuth2) Exchange(ctx context.Context, code, verifier string) (reauth.Token, error) {
	return o.exchangeCode(ctx, code, verifier, o.Config.RedirectURL)
}

func (o *OAuth2) exchangeCode(ctx context.Context, code, verifier, redirect string) (reauth.Token, error) {
	form := o.firstParams()
	form.Set("grant_type", "authorization_code")
	form.Set("code", code)
	if redirect != "" {
		form.Set("redirect_uri", redirect)
	}
	if verifier != "" {
		form.Set("code_verifier", verifier)
	}
	return o.token(ctx, o.Config.Endpoint.TokenURL, form, grant{once: true, login: true}, append(o.secrets(form), code, verifier))
}

// BrowserLogin logs a user in with the authorization code grant and PKCE (RFC 6749
// §4.1, RFC 7636), in the browser of this machine (RFC 8252). It calls open once, with
// the address that the browser must open. It then waits on a loopback address until the
// browser comes back, or ctx ends. The caller passes the token to Credential.Set.
//
// Config.RedirectURL is where the browser comes back to. If empty, a free port of
// 127.0.0.1 and the path /callback are used. If it is a loopback address without a
// port, a free port is used. The issuer must know the URL. RFC 8252 §7.3 requires the
// issuer to accept any port.
func (o *OAuth2) BrowserLogin(ctx context.Context, open func(address string) error) (reauth.Token, error) {
	tok, err := o.browserLogin(ctx, open)
	if err != nil {
		return reauth.Token{}, fmt.Errorf("browser login: %w", err)
	}
	return tok, nil
}

func (o *OAuth2) browserLogin(ctx context.Context, open func(address string) error) (reauth.Token, error) {
	if err := secure(o.Config.Endpoint.AuthURL); err != nil {
		return reauth.Token{}, err
	}
	redirect, listener, err := listen(o.Config.RedirectURL)
	if err != nil {
		return reauth.Token{}, err
	}
	c := &callback{redirect: redirect, state: rand.Text(), issuer: o.Issuer, issued: o.issRequired, result: make(chan authorization, 1)}
	server := &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	go func() { _ = server.Serve(listener) }()
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // for the page to arrive
		defer cancel()
		if server.Shutdown(closing) != nil {
			_ = server.Close()
		}
	}()

	conf := o.Config
	conf.RedirectURL = redirect.String()
	verifier := oauth2.GenerateVerifier()
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier)}
	for name := range o.Params {
		if name != "grant_type" && name != "scope" {
			options = append(options, oauth2.SetAuthURLParam(name, o.Params.Get(name)))
		}
	}
	if err := open(conf.AuthCodeURL(c.state, options...)); err != nil {
		return reauth.Token{}, err
	}
	select {
	case got := <-c.result:
		if got.err != nil {
			return reauth.Token{}, got.err
		}
		return o.exchangeCode(ctx, got.code, verifier, conf.RedirectURL)
	case <-ctx.Done():
		return reauth.Token{}, fmt.Errorf("the browser has not come back: %w", context.Cause(ctx))
	}
}

// listen returns the redirect URL with its port, and the listener for it.
func listen(redirect string) (*url.URL, net.Listener, error) {
	u, err := url.Parse(or(redirect, "http://127.0.0.1/callback"))
	if err != nil {
		return nil, nil, errors.New("Config.RedirectURL is not a URL")
	}
	if at := origin.Of(u); u.Scheme != "http" || !at.Loopback() {
		return nil, nil, errors.New("Config.RedirectURL must be http on a loopback address, such as http://127.0.0.1/callback: a browser of this machine opens it")
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(u.Hostname(), or(u.Port(), "0")))
	if err != nil {
		return nil, nil, fmt.Errorf("nothing can listen at Config.RedirectURL: %w", err)
	}
	if u.Port() == "" {
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, listener, nil
}

// A callback waits for the browser to come back, once.
type callback struct {
	redirect *url.URL
	state    string
	issuer   string // "" if not known
	issued   bool   // the response has to name the issuer (RFC 9207)
	result   chan authorization
}

// An authorization is the response in the browser's request: a code, or why there is
// none.
type authorization struct {
	code string
	err  error
}

// ServeHTTP takes the first request that has the state. Others do not end the login:
// any page in the browser can make a request to this address.
func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	query := r.URL.Query()
	switch {
	case r.Host != c.redirect.Host: // another name for this address (DNS rebinding)
		page(w, http.StatusForbidden, "This address is not for that name.")
	case r.URL.Path != or(c.redirect.Path, "/"):
		page(w, http.StatusNotFound, "There is nothing here.")
	case r.Method != http.MethodGet:
		h.Set("Allow", http.MethodGet)
		page(w, http.StatusMethodNotAllowed, "There is nothing here.")
	case subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(c.state)) != 1:
		page(w, http.StatusBadRequest, "This is not the login that was begun. Begin again.")
	default:
		got := c.read(query)
		select {
		case c.result <- got:
		default:
			page(w, http.StatusConflict, "This login has ended already.")
			return
		}
		if got.err != nil {
			page(w, http.StatusOK, "The login failed. See the program for the reason; you may close this page.")
			return
		}
		page(w, http.StatusOK, "You may close this page.")
	}
}

// read returns what an authorization response says (RFC 6749 §4.1.2).
func (c *callback) read(query url.Values) authorization {
	iss := query.Get("iss")
	switch {
	case c.issuer != "" && iss != "" && iss != c.issuer, c.issuer != "" && iss == "" && c.issued:
		return authorization{err: fmt.Errorf("the response names the issuer %q instead of %s: another server may have mixed itself in (RFC 9207)",
			mask.Text(iss, 100), mask.Text(c.issuer, 100))}
	case query.Get("error") != "":
		text := "the authorization endpoint answered " + mask.Text(query.Get("error"), 60)
		if d := mask.Text(query.Get("error_description"), 150); d != "" {
			text += " (" + d + ")"
		}
		return authorization{err: errors.New(text)}
	case query.Get("code") == "":
		return authorization{err: errors.New("the authorization endpoint answered without a code")}
	}
	return authorization{code: query.Get("code")}
}

// page writes a page with a text, which must not repeat anything of the request.
func page(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `<!doctype html><html lang="en"><meta charset="utf-8"><title>Login</title><body style="font-family: sans-serif; margin: 4em"><p>%s</p></body></html>`+"\n", text)
}

// Revoke revokes the refresh token of tok (RFC 7009), which ends the login. If there is
// no refresh token, it revokes the access token. A token that the server does not know
// is not an error (RFC 7009 §2.2).
func (o *OAuth2) Revoke(ctx context.Context, tok reauth.Token) error {
	g := grant{endpoint: "revocation endpoint"}
	if o.RevocationURL == "" {
		return errors.New("revocation: there is no OAuth2.RevocationURL")
	}
	form := url.Values{"token": {tok.RefreshToken}, "token_type_hint": {"refresh_token"}}
	if tok.RefreshToken == "" {
		form = url.Values{"token": {tok.AccessToken}, "token_type_hint": {"access_token"}}
	}
	if form.Get("token") == "" {
		return nil
	}
	secrets := append(o.secrets(form), tok.RefreshToken, tok.AccessToken)
	a, err := o.post(ctx, o.RevocationURL, form, g, secrets)
	if err != nil {
		return fmt.Errorf("revocation: %w", err)
	}
	if a.StatusCode >= 300 || a.code != "" {
		return fmt.Errorf("revocation: %w", a.refused(g, secrets))
	}
	return nil
}
