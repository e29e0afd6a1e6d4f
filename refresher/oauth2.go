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

// An OAuth2 is a client at an authorization server, whose grants are Refreshers.
// It is itself one: of the refresh token grant (RFC 6749 §6), after a login that
// Credential.Set was given.
//
//	issuer := &refresher.OAuth2{Config: oauth2.Config{
//		ClientID: "app",
//		Endpoint: endpoints.GitHub,
//	}}
//	cred := &reauth.Credential{Refresher: issuer}
//	tok, err := issuer.DeviceLogin(ctx, showCode)
//	err = cred.Set(ctx, tok)
//
// The token endpoint has to be https, or on loopback, and is not followed where it
// redirects to. It is asked again, with pauses, after 429 and 5xx (as its
// Retry-After has it, up to 5 seconds) and dropped connections, at most 7 times
// and until the refresh's context ends. That does not hold for a refresh token,
// which a server that rotates them takes for stolen when it sees it twice (RFC
// 9700 §4.14.2): it is sent again only if it was not sent, or the answer was 503;
// after another passing error, by a later refresh; and if its answer was lost, as
// Reuse says. A new refresh token is kept, whatever came with it.
//
// An answer that a refresh token is of no more use (invalid_grant of RFC 6749 §5.2,
// and what other servers say) is marked by reauth.LoginEnded, and one that the request
// for it is wrong by reauth.Permanent. Without a refresh token nothing is permanent:
// who sends new credentials each time is asked again at the Credential's backoff.
// errors.As finds the *oauth2.RetrieveError.
//
// Its fields are not changed after first use.
type OAuth2 struct {
	// Config has the client and the endpoints. TokenURL is required. If AuthStyle is
	// not set, a client with a secret shows it in the header (RFC 6749 §2.3.1), and if
	// the server refuses the client, once more in the body; what it accepts is
	// remembered.
	Config oauth2.Config

	// Issuer is the issuer's identifier, with which BrowserLogin compares that of the
	// response (RFC 9207). "" means that it is not compared. Discover sets it.
	Issuer string

	// RevocationURL is the revocation endpoint, for Revoke. Discover sets it.
	RevocationURL string

	// ClientAssertion, if not nil, returns the JWT with which the client authenticates
	// in place of a secret (private_key_jwt; RFC 7523 §2.2): signed for each request,
	// or read from a file, as in workload identity federation.
	ClientAssertion func(context.Context) (string, error)

	// Params are sent with each token request, an audience or a resource; those of
	// JWTBearer have them in their assertion. A grant_type takes the place of the
	// grant's own, scopes are added to those of Config, and claims (OpenID Connect Core
	// §5.5) are merged with those that a challenge asks for. DeviceLogin sends the first
	// value of each.
	Params url.Values

	// Reuse is for how long after its first use the issuer accepts a refresh token
	// again: its grace period, leeway or reuse interval, less a second. If the answer to
	// a refresh was lost, the refresh token is presented again within that time. After
	// it, or if Reuse is zero, which means unknown, it is presented again as soon as the
	// access token is of no more use, since without that the login is lost for certain.
	// If Reuse is negative, it is never presented again.
	Reuse time.Duration

	// IDToken makes the id_token the bearer token, as the Kubernetes API and Google's
	// IAP have it, in place of the access_token.
	IDToken bool

	// Permanent, if not nil, reports whether another try after a refusal is of no use.
	// It is asked ahead of what is known of the server's codes.
	Permanent func(*oauth2.RetrieveError) bool

	// Base sends the requests. Nil means the transport of the client that
	// BaseContext has under oauth2.HTTPClient, if any, else one like
	// http.DefaultTransport that makes a new connection for each request: on one
	// that the server is just closing, the answer would be lost, and with it the
	// next refresh token.
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

// MarshalText does likewise for logs and JSON.
func (o OAuth2) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Refresh implements reauth.Refresher with the refresh token grant. It sends the
// claims that a challenge asks for, but no scope, which can only be what was
// granted (RFC 6749 §6).
//
// If the answer to an earlier call was lost, the server may have used the refresh
// token up, and may end the login if it is presented again (RFC 9700 §4.14.2); see
// Reuse.
//
// If ctx's deadline passes while the server has the refresh token, Refresh waits
// for the answer up to a minute longer, as it may bring the next refresh token.
// A Credential does not wait so long, and uses what still comes.
func (o *OAuth2) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	grantType := o.Params.Get("grant_type")
	if stale.Token.RefreshToken == "" || grantType == "password" {
		if grantType == "" {
			return reauth.Token{}, reauth.Permanent(errors.New("there is no refresh token: log in, with DeviceLogin for instance, and hand the token to Credential.Set"))
		}
		return o.ask(ctx, stale, grant{form: url.Values{}, scoped: true, login: true})
	}
	if err := doubt(stale, o.Reuse); err != nil {
		return reauth.Token{}, err
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {stale.Token.RefreshToken}}
	return o.ask(ctx, stale, grant{form: form, once: true, lostAt: stale.AnswerLostAt})
}

// doubt returns why a refresh token that may be used up is not presented now.
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
		return again{errors.New(text + ", and is presented again when the access token is of no more use"), left}
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

// ClientCredentials returns a Refresher of the client credentials grant (RFC 6749
// §4.4).
func (o *OAuth2) ClientCredentials() reauth.Refresher {
	return reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		return o.ask(ctx, stale, grant{form: url.Values{"grant_type": {"client_credentials"}}, scoped: true})
	})
}

// JWTBearer returns a Refresher of the JWT bearer grant (RFC 7523 §2.1) with
// assertions that x/oauth2 signs, as for service accounts of Google. What conf
// leaves empty of TokenURL and Scopes is taken from the Config.
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
				return reauth.Token{}, mask.Err("no assertion: ", err) // the key is not in it, nor is it sent
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

// Assertion returns a Refresher of the JWT bearer grant (RFC 7523 §2.1) with
// assertions that come from elsewhere: a key management service, or a file. sign
// is called for each refresh.
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
	once      bool                             // it holds what must not be seen twice, and may bring a refresh token
	lostAt    time.Time                        // when an earlier answer to it was lost, or zero
	login     bool                             // it may bring a refresh token, too
	polled    bool                             // it is repeated by whoever sends it
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

// ofAnother returns the error of what a grant is made from. Its being permanent is
// the other's affair: after a login there, this one goes on.
func ofAnother(text string, err error) error {
	if reauth.IsPermanent(err) {
		return mask.WithText(text+mask.ErrorText(err), nil)
	}
	return fmt.Errorf("%s%w", text, err)
}

// widened asks for a token with what the rejection's challenge asks for, and if
// the server knows nothing of that, without. A grant that is not scoped is never
// asked for twice; but it is not dead because of what an API had in a challenge.
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
// rejection ask for: all of them together, and where they differ, the latest.
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
// all that a and b ask for; where they differ, as b does.
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

// secrets returns what must not appear in an error, of what is sent.
func (o *OAuth2) secrets(form url.Values) []string {
	all := []string{o.Config.ClientSecret}
	for _, name := range []string{"refresh_token", "assertion", "client_assertion", "subject_token", "actor_token", "device_code", "client_secret", "password"} {
		all = append(all, form.Get(name))
	}
	for _, values := range o.Params {
		for _, v := range values {
			if len(v) >= mask.Overlap { // the server may repeat it, and who knows what it is
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
