package refresher

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
)

// An OAuth2 is a client of an authorization server. It is a Refresher for the refresh
// token grant (RFC 6749 §6), after a login whose token was passed to Credential.Set.
// Its methods return Refreshers for other grants.
//
//	issuer := &refresher.OAuth2{Config: oauth2.Config{
//		ClientID: "app",
//		Endpoint: endpoints.GitHub,
//	}}
//	cred := &reauth.Credential{Refresher: issuer}
//	tok, err := issuer.DeviceLogin(ctx, showCode)
//	err = cred.Set(ctx, tok)
//
// The token endpoint must be https, or on loopback. Redirects are not followed. A
// request is retried after a 429, a 5xx or a dropped connection, at most 7 times, until
// the context of the refresh ends. The delay doubles, or is that of Retry-After. If
// Retry-After is longer than 5 seconds, the request is not retried.
//
// A server that rotates refresh tokens treats one that it sees twice as stolen (RFC
// 9700 §4.14.2). A request with a refresh token is retried only if it was not sent, or
// the response was a 503. After another temporary error, a later refresh sends it. If
// the response was lost, see Reuse. A new refresh token is kept even if the access
// token with it is not valid.
//
// The error is marked by reauth.LoginEnded if the server says that the refresh token is
// no longer valid. Servers say so with invalid_grant (RFC 6749 §5.2) or codes of their
// own. The error is marked by reauth.Permanent if the request is wrong. The error of a
// grant without a refresh token is not marked, unless Permanent reports true: each
// request presents new credentials. errors.As finds the *oauth2.RetrieveError.
//
// Its fields must not be modified after first use.
type OAuth2 struct {
	// Config has the client and the endpoints. Endpoint.TokenURL is required. If
	// Endpoint.AuthStyle is zero, a client with a secret sends it in the header (RFC
	// 6749 §2.3.1). If the server rejects the client, the request is sent once more
	// with the secret in the body. The style that the server accepts is remembered.
	Config oauth2.Config

	// Issuer is the issuer's identifier. BrowserLogin compares it with the issuer that
	// the response names (RFC 9207). If empty, it is not compared. Discover sets it.
	Issuer string

	// RevocationURL is the revocation endpoint, for Revoke. Discover sets it.
	RevocationURL string

	// ClientAssertion optionally specifies a function that returns the JWT with which
	// the client authenticates in place of a secret (private_key_jwt, RFC 7523 §2.2).
	// It is called for each request. It may sign a JWT, or read one from a file as in
	// workload identity federation.
	ClientAssertion func(context.Context) (string, error)

	// Params are sent with each token request, such as an audience or a resource.
	// JWTBearer does not send them; its assertion has such claims. A grant_type
	// replaces that of the grant. Scopes are added to those of Config. Claims (OpenID
	// Connect Core §5.5) are merged with those that a challenge asks for. A login sends
	// the first value of each parameter.
	Params url.Values

	// Reuse is how long after its first use the issuer accepts a refresh token again:
	// its grace period, leeway or reuse interval, less a second. If the response to a
	// refresh was lost, the refresh token is presented again within that time. After
	// that time, it is presented again once the access token is no longer usable, as
	// otherwise the login is certainly lost. If zero, the time is not known, and counts
	// as over. If negative, the refresh token is never presented again.
	Reuse time.Duration

	// IDToken specifies whether the id_token is the bearer token in place of the
	// access_token. The Kubernetes API and Google's IAP need it.
	IDToken bool

	// Permanent, if not nil, reports whether an error response is permanent. It is
	// called before the known codes of servers are considered.
	Permanent func(*oauth2.RetrieveError) bool

	// Base is the RoundTripper that sends the requests. If nil, the Transport of the
	// http.Client under oauth2.HTTPClient in the context is used. If there is none, a
	// RoundTripper like http.DefaultTransport is used that makes a new connection for
	// each request. On a connection that the server is closing, the response would be
	// lost, and with it the next refresh token.
	Base http.RoundTripper

	style       atomic.Value // of the oauth2.AuthStyle that the server has accepted
	issRequired bool         // authorization responses name the issuer, by its metadata
}

// String returns the client without its secret.
func (o OAuth2) String() string {
	return fmt.Sprintf("OAuth2(%s at %s)", o.Config.ClientID, shownURL(o.Config.Endpoint.TokenURL))
}

// Format implements fmt.Formatter: every verb prints the client without its secret.
func (o OAuth2) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.String()) }

// MarshalText returns the text of String, for logs and JSON.
func (o OAuth2) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Refresh implements reauth.Refresher with the refresh token grant. It sends the claims
// that a challenge asks for. It does not send a scope, as a refresh cannot extend the
// scope (RFC 6749 §6).
//
// If the response to an earlier call was lost, the refresh token may be used up. The
// server may end the login if it is presented again (RFC 9700 §4.14.2); see Reuse.
//
// If the deadline of ctx passes while the server has the refresh token, Refresh waits
// up to a minute longer for the response. The response may have the next refresh token.
// A Credential does not wait for it, but uses a late result.
func (o *OAuth2) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	grantType := o.Params.Get("grant_type")
	if stale.Token.RefreshToken == "" || grantType == "password" {
		if grantType == "" {
			return reauth.Token{}, reauth.Permanent(errors.New("there is no refresh token: log in, such as with DeviceLogin, and pass the token to Credential.Set"))
		}
		return o.ask(ctx, stale, grant{form: url.Values{}, scoped: true, login: true})
	}
	if err := doubt(stale, o.Reuse); err != nil {
		return reauth.Token{}, err
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {stale.Token.RefreshToken}}
	return o.ask(ctx, stale, grant{form: form, once: true, lostAt: stale.AnswerLostAt})
}

// doubt returns an error if a refresh token that may be used up is not to be presented
// now.
func doubt(stale reauth.Stale, reuse time.Duration) error {
	at := stale.AnswerLostAt
	if at.IsZero() || reuse > 0 && time.Since(at) <= reuse {
		return nil
	}
	text := fmt.Sprintf("the answer to the refresh of %s was lost: the refresh token may be used up", at.UTC().Format(time.RFC3339))
	if reuse < 0 {
		return reauth.Permanent(errors.New(text + ", and Reuse says not to present it again"))
	}
	if left := usableFor(stale); left > 0 {
		return retryAfterError{errors.New(text + ", and is presented again when the access token is no longer usable"), left}
	}
	return nil
}

// usableFor returns for how long the stale access token may still be used; at most a
// day.
func usableFor(stale reauth.Stale) time.Duration {
	const day = 24 * time.Hour
	switch {
	case stale.Token.AccessToken == "" || stale.Rejection.Reason != "":
		return 0
	case stale.Token.Expiry.IsZero():
		return day
	}
	return min(time.Until(stale.Token.Expiry), day)
}

// ClientCredentials returns a Refresher for the client credentials grant (RFC 6749
// §4.4).
func (o *OAuth2) ClientCredentials() reauth.Refresher {
	return reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		return o.ask(ctx, stale, grant{form: url.Values{"grant_type": {"client_credentials"}}, scoped: true})
	})
}

// JWTBearer returns a Refresher for the JWT bearer grant (RFC 7523 §2.1). x/oauth2
// signs the assertions, as for service accounts of Google. If conf has no TokenURL or
// no Scopes, those of o.Config are used.
func (o *OAuth2) JWTBearer(conf *jwt.Config) reauth.Refresher {
	return reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		conf := *conf
		if conf.TokenURL == "" {
			conf.TokenURL = o.Config.Endpoint.TokenURL
		}
		if len(conf.Scopes) == 0 {
			conf.Scopes = o.Config.Scopes
		}
		given := conf.Scopes
		return widened(stale, true, func(more []string, _ string) (reauth.Token, error) {
			conf.Scopes = union(given, more)
			form, err := signed(ctx, &conf)
			if err != nil {
				return reauth.Token{}, mask.Err("no assertion: ", err) // the error does not contain the key
			}
			return o.token(ctx, conf.TokenURL, form, grant{anonymous: true, idToken: conf.UseIDToken}, o.secrets(form))
		})
	})
}

// signed returns the token request that x/oauth2 makes of conf.
func signed(ctx context.Context, conf *jwt.Config) (form url.Values, err error) {
	unsent := errors.New("the request is not sent here")
	client := &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
		defer req.Body.Close()
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		if form, err = url.ParseQuery(string(body)); err != nil {
			return nil, err
		}
		return nil, unsent
	})}
	if _, err = conf.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, client)).Token(); form != nil {
		return form, nil
	}
	return nil, err
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// Assertion returns a Refresher for the JWT bearer grant (RFC 7523 §2.1). sign returns
// the assertion, such as from a key management service or a file. It is called for each
// refresh.
func (o *OAuth2) Assertion(sign func(context.Context) (string, error)) reauth.Refresher {
	return reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		assertion, err := sign(ctx)
		if err != nil {
			return reauth.Token{}, ofAnother("no assertion: ", err)
		}
		form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
		return o.ask(ctx, stale, grant{form: form, scoped: true})
	})
}

// A grant is a token request.
type grant struct {
	endpoint  string // what it is sent to, for errors; "" means "token endpoint"
	form      url.Values
	once      bool                             // the server must not see it twice; the response may have a refresh token
	lostAt    time.Time                        // when an earlier response to it was lost, or zero
	login     bool                             // the response may have a refresh token, too
	polled    bool                             // the caller of token repeats it
	scoped    bool                             // it may ask for scopes
	anonymous bool                             // the client does not authenticate itself
	idToken   bool                             // the id_token is wanted
	foreign   bool                             // its protocol is not OAuth 2.0
	permanent func(*oauth2.RetrieveError) bool // nil, or OAuth2.Permanent
}

// ask sends a token request with what the rejection's challenge asks for.
func (o *OAuth2) ask(ctx context.Context, stale reauth.Stale, g grant) (reauth.Token, error) {
	return widened(stale, g.scoped, func(more []string, claims string) (reauth.Token, error) {
		form := maps.Clone(g.form)
		maps.Copy(form, o.Params)
		scopes := union(o.Config.Scopes, strings.Fields(o.Params.Get("scope")))
		if scopes = union(scopes, more); g.scoped && len(scopes) > 0 {
			form.Set("scope", strings.Join(scopes, " "))
		}
		if claims = mergedClaims(o.Params.Get("claims"), claims); claims != "" {
			form.Set("claims", claims)
		}
		return o.token(ctx, o.Config.Endpoint.TokenURL, form, g, o.secrets(form))
	})
}

// token sends a token request and returns the token of the answer.
func (o *OAuth2) token(ctx context.Context, address string, form url.Values, g grant, secrets []string) (reauth.Token, error) {
	g.permanent, g.idToken = o.Permanent, g.idToken || o.IDToken
	a, err := o.post(ctx, address, form, g, secrets)
	if err != nil {
		return reauth.Token{}, err
	}
	names := grantedMembers
	if g.idToken {
		names = idMembers
	}
	return a.granted(a.token(names), g, form.Get("refresh_token"), secrets)
}

// ofAnother returns the error of the source of an assertion or a subject token. It is
// not marked as permanent: the grant works again after a login there.
func ofAnother(text string, err error) error {
	if reauth.IsPermanent(err) {
		return mask.WithText(text+mask.ErrorText(err), nil)
	}
	return fmt.Errorf("%s%w", text, err)
}

// widened calls get with what the challenges of the rejection ask for, and once more
// without if the server rejects that. If the grant is not scoped, get is not called
// twice. Its error is then not permanent, as the challenge of an API caused it.
func widened(stale reauth.Stale, scoped bool, get func(scopes []string, claims string) (reauth.Token, error)) (reauth.Token, error) {
	scopes, claims := asked(stale.Rejection)
	if !scoped {
		scopes = nil
	}
	tok, err := get(scopes, claims)
	var refused *oauth2.RetrieveError
	if len(scopes) == 0 && claims == "" || !errors.As(err, &refused) || refused.ErrorCode != "invalid_scope" && refused.ErrorCode != "invalid_request" {
		return tok, err
	}
	if scoped {
		return get(nil, "")
	}
	return reauth.Token{}, mask.WithText(err.Error(), refused)
}

// asked returns the scopes (RFC 6750 §3) and the claims that the challenges of a
// rejection ask for. If claims differ, the latest apply.
func asked(rej reauth.Rejection) (scopes []string, claims string) {
	for _, c := range rej.Challenges {
		scopes = union(scopes, strings.Fields(c.Params["scope"]))
		claims = mergedClaims(claims, decodedClaims(c.Params["claims"]))
	}
	return scopes, claims
}

// decodedClaims returns the claims of a challenge. Microsoft Entra ID has them in base64.
func decodedClaims(claims string) string {
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if plain, err := enc.DecodeString(strings.TrimRight(claims, "=")); err == nil && json.Valid(plain) {
			return string(plain)
		}
	}
	return claims
}

// union returns the strings of a and those of b that are not among them.
func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// mergedClaims returns the claims request (OpenID Connect Core §5.5.1) that asks for
// all that a and b ask for. If they differ, b applies.
func mergedClaims(a, b string) string {
	var one, other map[string]any
	if a == "" || b == "" || a == b || json.Unmarshal([]byte(a), &one) != nil || json.Unmarshal([]byte(b), &other) != nil {
		return or(b, a)
	}
	all, err := json.Marshal(merged(one, other))
	if err != nil {
		return b
	}
	return string(all)
}

func merged(a, b map[string]any) map[string]any {
	all := maps.Clone(a)
	for name, v := range b {
		was, _ := all[name].(map[string]any)
		if more, ok := v.(map[string]any); ok && was != nil {
			v = merged(was, more)
		}
		all[name] = v
	}
	return all
}

// secrets returns the values of a request that must not be in an error.
func (o *OAuth2) secrets(form url.Values) []string {
	all := []string{o.Config.ClientSecret}
	for _, name := range []string{"refresh_token", "assertion", "client_assertion", "subject_token", "actor_token", "device_code", "client_secret", "password"} {
		all = append(all, form.Get(name))
	}
	for _, values := range o.Params {
		for _, v := range values {
			if len(v) >= mask.Overlap { // the server may repeat it, and it may be secret
				all = append(all, v)
			}
		}
	}
	return all
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
