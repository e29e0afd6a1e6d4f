package refresher

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/reauth-go/reauth"
)

// A Registry is a Refresher for registries of container images and other artifacts. It
// requests a token from the realm that a registry's challenge names. The token has the
// scopes that this challenge and earlier ones ask for. See
// https://distribution.github.io/distribution/spec/auth/token/.
//
// A Registry needs a challenge. The Transport must have Anonymous set, and
// classifier.Registry before the default Classifier:
//
//	transport := &reauth.Transport{
//		Credential: &reauth.Credential{Refresher: &refresher.Registry{Username: user, Password: password}},
//		Classifier: classifier.Chain(classifier.Registry(), reauth.DefaultClassifier()),
//		Anonymous:  true,
//		Origins:    []string{"https://registry.example.com"},
//	}
type Registry struct {
	// Username and Password are sent to the realm. If both are empty, the token is
	// anonymous.
	Username string
	Password string

	// Realm is the only address that the password is sent to. If empty, it is sent to
	// the realm that the registry names, over https or on loopback. The registry must
	// then be listed in Transport.Origins.
	Realm string

	// Base has the same meaning as OAuth2.Base.
	Base http.RoundTripper
}

// defaultRegistryLife is the lifetime of a token whose response has no expires_in.
const defaultRegistryLife = time.Minute

// Refresh implements reauth.Refresher.
func (r *Registry) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	realm, service, scopes := registryScopes(stale.Rejection.Challenges)
	if realm == "" {
		return reauth.Token{}, errors.New("there is no challenge of a registry yet that names a realm: set Transport.Anonymous, so that the first request gets one")
	}
	if r.Realm != "" && realm != r.Realm {
		return reauth.Token{}, fmt.Errorf("the registry names the realm %s, and Registry.Realm is %s", shownURL(realm), shownURL(r.Realm))
	}
	began := time.Now()
	h := HTTP{Base: r.Base, Request: func(ctx context.Context, _ reauth.Stale) (*http.Request, error) {
		u, err := url.Parse(realm)
		if err != nil {
			return nil, errors.New("the realm is not a URL")
		}
		q := u.Query()
		if service != "" {
			q.Set("service", service)
		}
		q["scope"] = scopes
		u.RawQuery = q.Encode()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err == nil && (r.Username != "" || r.Password != "") {
			req.SetBasicAuth(r.Username, r.Password)
		}
		return req, err
	}}
	tok, err := h.Refresh(ctx, withoutRefreshToken(stale))
	if err == nil && tok.Expiry.IsZero() {
		tok.Expiry = began.Add(defaultRegistryLife)
	}
	tok.RefreshToken = ""
	return tok, err
}

// registryScopes returns the realm and the service of the latest challenge, and the
// scopes of all challenges that name these. Each resource is in it once, with all
// actions.
func registryScopes(challenges []reauth.Challenge) (realm, service string, scopes []string) {
	for _, c := range slices.Backward(challenges) {
		if strings.EqualFold(c.Scheme, "Bearer") && c.Params["realm"] != "" {
			realm, service = c.Params["realm"], c.Params["service"]
			break
		}
	}
	for _, c := range challenges {
		if c.Params["realm"] != realm || c.Params["service"] != service {
			continue
		}
		for scope := range strings.FieldsSeq(c.Params["scope"]) {
			scopes = withScope(scopes, scope)
		}
	}
	return realm, service, scopes
}

// withScope returns scopes with scope added. The actions of a resource that is in
// scopes are merged.
func withScope(scopes []string, scope string) []string {
	i := strings.LastIndexByte(scope, ':') + 1
	for n, s := range scopes {
		if j := strings.LastIndexByte(s, ':') + 1; s[:j] == scope[:i] && i > 0 {
			scopes[n] = s[:j] + strings.Join(union(strings.Split(s[j:], ","), strings.Split(scope[i:], ",")), ",")
			return scopes
		}
	}
	return union(scopes, []string{scope})
}

// Format implements fmt.Formatter: every verb prints the user without the password.
func (r Registry) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "Registry(%s)", r.Username) }
