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
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
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
// after another passing error, by a later refresh; and if its answer was lost,
// never.
//
// Errors of the server that another try does not change, such as invalid_grant
// and invalid_client (RFC 6749 §5.2), are permanent; errors.As finds the
// *oauth2.RetrieveError.
//
// Its fields are not changed after first use.
type OAuth2 struct {
	// Config has the client and the endpoints. TokenURL is required. If AuthStyle is
	// not set, a client with a secret shows it in the header (RFC 6749 §2.3.1), and
	// one without names itself in the body; nothing is detected, as that takes a
	// second request with the same grant.
	Config oauth2.Config

	// Params are sent with each token request, an audience or a resource; those of
	// JWTBearer have them in their assertion. DeviceLogin sends the first value of
	// each.
	Params url.Values

	// Base sends the requests. Nil means the transport of the client that
	// BaseContext has under oauth2.HTTPClient, if any, else one like
	// http.DefaultTransport that makes a new connection for each request: on one
	// that the server is just closing, the answer would be lost, and with it the
	// next refresh token.
	Base http.RoundTripper
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
// token up, and may end the login if it is presented again (RFC 9700 §4.14.2). It is
// presented again when the access token was rejected or has expired, since without
// that the login is lost for certain.
//
// If ctx's deadline passes while the server has the refresh token, Refresh waits
// for the answer up to a minute longer, as it may bring the next refresh token.
// A Credential does not wait so long, and uses what still comes.
func (o *OAuth2) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	if stale.Token.RefreshToken == "" {
		return reauth.Token{}, reauth.Permanent(errors.New("there is no refresh token: log in, with DeviceLogin for instance, and hand the token to Credential.Set"))
	}
	if left := usableFor(stale); !stale.AnswerLostAt.IsZero() && left > 0 {
		err := fmt.Errorf("the answer to a refresh was lost at %s: the refresh token may be used up, and is presented again when the access token is of no more use", stale.AnswerLostAt.UTC().Format(time.RFC3339))
		return reauth.Token{}, again{err, left}
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {stale.Token.RefreshToken}}
	return o.ask(ctx, stale, grant{form: form, once: true})
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
			return o.call(ctx, conf.TokenURL, grant{}, append(o.secrets(nil), string(conf.PrivateKey)), func(ctx context.Context) (*oauth2.Token, error) {
				return conf.TokenSource(ctx).Token()
			})
		})
	})
}

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
		return o.ask(ctx, stale, grant{form: form, scoped: true, fresh: true})
	})
}

// A TokenExchange says what is exchanged for a token (RFC 8693 §2.1). Audience
// and resource go into OAuth2.Params.
type TokenExchange struct {
	// Subject returns the subject_token; that of another Credential with
	// Credential.Token. It is called for each refresh.
	Subject func(context.Context) (reauth.Token, error)

	// SubjectType is the subject_token_type. "" means
	// "urn:ietf:params:oauth:token-type:access_token".
	SubjectType string

	// Actor returns the actor_token; nil means none. ActorType is as SubjectType.
	Actor     func(context.Context) (reauth.Token, error)
	ActorType string

	// RequestedType is the requested_token_type; "" leaves it to the server.
	RequestedType string
}

// TokenExchange returns a Refresher of the token exchange grant (RFC 8693).
func (o *OAuth2) TokenExchange(x TokenExchange) reauth.Refresher {
	const accessToken = "urn:ietf:params:oauth:token-type:access_token"
	if x.Subject == nil {
		return failing(errors.New("refresher.TokenExchange has no Subject"))
	}
	return reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}}
		subject, err := x.Subject(ctx)
		if err != nil {
			return reauth.Token{}, ofAnother("no subject token: ", err)
		}
		form.Set("subject_token", subject.AccessToken)
		form.Set("subject_token_type", or(x.SubjectType, accessToken))
		if x.Actor != nil {
			actor, err := x.Actor(ctx)
			if err != nil {
				return reauth.Token{}, ofAnother("no actor token: ", err)
			}
			form.Set("actor_token", actor.AccessToken)
			form.Set("actor_token_type", or(x.ActorType, accessToken))
		}
		if x.RequestedType != "" {
			form.Set("requested_token_type", x.RequestedType)
		}
		return o.ask(ctx, stale, grant{form: form, scoped: true, fresh: true})
	})
}

// DeviceLogin logs a user in by the device authorization grant (RFC 8628): show
// is called once with the code and the address that he is to open, and then the
// server is asked until he has, the code has expired, or ctx ends. The token is
// for Credential.Set.
func (o *OAuth2) DeviceLogin(ctx context.Context, show func(*oauth2.DeviceAuthResponse) error) (reauth.Token, error) {
	conf := o.Config
	conf.Endpoint.AuthStyle = o.authStyle()
	var device *oauth2.DeviceAuthResponse
	_, err := o.call(ctx, conf.Endpoint.DeviceAuthURL, grant{}, o.secrets(nil), func(ctx context.Context) (_ *oauth2.Token, err error) {
		device, err = conf.DeviceAuth(ctx, params(o.Params)...)
		return nil, err
	})
	if err != nil {
		return reauth.Token{}, fmt.Errorf("device login: %w", err)
	}
	if device.DeviceCode == "" { // some servers have errors in a 200
		return reauth.Token{}, errors.New("device login: the answer has no device_code: see whether the client may use the device flow")
	}
	if err := show(device); err != nil {
		return reauth.Token{}, fmt.Errorf("device login: %w", err)
	}
	tok, err := o.call(ctx, conf.Endpoint.TokenURL, grant{login: true}, o.secrets(url.Values{"device_code": {device.DeviceCode}}), func(ctx context.Context) (*oauth2.Token, error) {
		return conf.DeviceAccessToken(ctx, device, params(o.Params)...)
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return reauth.Token{}, fmt.Errorf("device login: the code expired before the user had entered it, begin again: %w", err)
	}
	if err != nil {
		return reauth.Token{}, fmt.Errorf("device login: %w", err)
	}
	return tok, nil
}

// A grant is a token request.
type grant struct {
	form   url.Values
	once   bool // it holds what must not be seen twice, and may bring a refresh token
	login  bool // so may this
	scoped bool // it may ask for scopes
	fresh  bool // it is made of what another try may find renewed
}

// ask sends a token request with what the rejection's challenge asks for.
func (o *OAuth2) ask(ctx context.Context, stale reauth.Stale, g grant) (reauth.Token, error) {
	return widened(stale, g.scoped, func(more []string, claims string) (reauth.Token, error) {
		form := maps.Clone(o.Params)
		if form == nil {
			form = url.Values{}
		}
		maps.Copy(form, g.form)
		if scopes := union(o.Config.Scopes, more); g.scoped && len(scopes) > 0 {
			form.Set("scope", strings.Join(scopes, " "))
		}
		if claims != "" {
			form.Set("claims", claims)
		}
		// x/oauth2's own refresh cannot send claims. This one sends any grant, and
		// nothing else that differs.
		conf := clientcredentials.Config{
			ClientID:       o.Config.ClientID,
			ClientSecret:   o.Config.ClientSecret,
			TokenURL:       o.Config.Endpoint.TokenURL,
			AuthStyle:      o.authStyle(),
			EndpointParams: form,
		}
		return o.call(ctx, conf.TokenURL, g, o.secrets(form), conf.Token)
	})
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
// rejection ask for. Entra ID has the claims in base64.
func asked(rej reauth.Rejection) (scopes []string, claims string) {
	for _, c := range rej.Challenges {
		scopes = union(scopes, strings.Fields(c.Params["scope"]))
		if v := c.Params["claims"]; v != "" { // the latest
			claims = v
		}
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if plain, err := enc.DecodeString(strings.TrimRight(claims, "=")); err == nil && json.Valid(plain) {
			return scopes, string(plain)
		}
	}
	return scopes, claims
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

func (o *OAuth2) authStyle() oauth2.AuthStyle {
	switch style := o.Config.Endpoint.AuthStyle; {
	case style != oauth2.AuthStyleAutoDetect:
		return style
	case o.Config.ClientSecret == "":
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
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

// params returns the parameters as x/oauth2 has them.
func params(v url.Values) []oauth2.AuthCodeOption {
	var all []oauth2.AuthCodeOption
	for name := range v {
		all = append(all, oauth2.SetAuthURLParam(name, v.Get(name)))
	}
	return all
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
