package e2e_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/storage"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// An authServer is an authorization server of github.com/ory/fosite, which nobody
// here wrote, with a resource server that asks it about tokens. It rotates refresh
// tokens, and one that is presented twice revokes its family.
//
// A rotation also revokes the access token before: requests that are under way
// with it meet a 401.
type authServer struct {
	provider fosite.OAuth2Provider
	store    *storage.MemoryStore

	// The example store of fosite is no match for -race: revoking a refresh token
	// and introspection write what others read.
	mu sync.Mutex

	asked     atomic.Int32 // token requests
	refreshes atomic.Int32 // answered with tokens
	refused   atomic.Int32 // answered with an error
	denied    atomic.Int32 // 401s of the resource server
	served    atomic.Int32 // its 200s
}

const (
	clientID     = "app"
	clientSecret = "the-client's-secret"
	apiSecret    = "the-resource-server's-secret"
)

func newAuthServer(t *testing.T, lifetime time.Duration) *authServer {
	t.Helper()
	return newForgivingServer(t, lifetime, 0)
}

// newForgivingServer returns an authServer that accepts a refresh token again for a grace
// period after its first use.
func newForgivingServer(t *testing.T, lifetime, grace time.Duration) *authServer {
	t.Helper()
	config := &fosite.Config{
		AccessTokenLifespan:  lifetime,
		RefreshTokenLifespan: 30 * 24 * time.Hour,
		GlobalSecret:         []byte(rand.Text() + rand.Text())[:32],
		ClientSecretsHasher:  quickHasher{},
	}
	store := storage.NewMemoryStore()
	store.Users["ann"] = storage.MemoryUserRelation{Username: "ann", Password: "ann's-password"}
	for id, secret := range map[string]string{clientID: clientSecret, "api": apiSecret} {
		store.Clients[id] = &fosite.DefaultClient{
			ID: id, Secret: []byte(secret), Scopes: []string{"offline", "read", "write"},
			GrantTypes: []string{"password", "refresh_token", "client_credentials"},
		}
	}
	store.Clients["cli"] = &fosite.DefaultClient{ // the command's, which has no secret
		ID: "cli", Public: true, Scopes: []string{"offline", "read"}, GrantTypes: []string{"authorization_code", "refresh_token"},
		ResponseTypes: []string{"code"}, RedirectURIs: []string{"http://127.0.0.1/callback", "http://127.0.0.1/"},
	}
	config.EnforcePKCE = true
	forgiving := &graceStore{MemoryStore: store, grace: grace, used: map[string]time.Time{}}
	return &authServer{store: store, provider: compose.Compose(config, forgiving, compose.NewOAuth2HMACStrategy(config),
		//lint:ignore SA1019 nobody should log in so; what is tested begins after the login
		compose.OAuth2ResourceOwnerPasswordCredentialsFactory,
		compose.OAuth2RefreshTokenGrantFactory,
		compose.OAuth2ClientCredentialsGrantFactory,
		compose.OAuth2TokenIntrospectionFactory,
		compose.OAuth2AuthorizeExplicitFactory,
		compose.OAuth2PKCEFactory,
	)}
}

// A graceStore is the storage that fosite leaves to its users: a refresh token is
// forgiven to be used again for a while, as Hydra, Auth0 and Okta have it.
type graceStore struct {
	*storage.MemoryStore
	grace time.Duration
	used  map[string]time.Time // when a refresh token was first used; guarded by the authServer
}

func (s *graceStore) RotateRefreshToken(ctx context.Context, requestID, signature string) error {
	if _, ok := s.used[signature]; !ok {
		s.used[signature] = time.Now()
	}
	return s.MemoryStore.RotateRefreshToken(ctx, requestID, signature)
}

func (s *graceStore) GetRefreshTokenSession(ctx context.Context, signature string, session fosite.Session) (fosite.Requester, error) {
	req, err := s.MemoryStore.GetRefreshTokenSession(ctx, signature, session)
	if at, ok := s.used[signature]; ok && errors.Is(err, fosite.ErrInactiveToken) && time.Since(at) < s.grace {
		return req, nil
	}
	return req, err
}

// A quickHasher hashes nothing: the secrets here are none, and bcrypt would be all
// that a resource server does which introspects each request.
type quickHasher struct{}

func (quickHasher) Hash(_ context.Context, secret []byte) ([]byte, error) { return secret, nil }

func (quickHasher) Compare(_ context.Context, hash, secret []byte) error {
	if string(hash) != string(secret) {
		return errors.New("another secret")
	}
	return nil
}

// authorize is where a browser arrives. The user agrees.
func (s *authServer) authorize(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx := r.Context()
	req, err := s.provider.NewAuthorizeRequest(ctx, r)
	if err == nil {
		for _, scope := range req.GetRequestedScopes() {
			req.GrantScope(scope)
		}
		var answer fosite.AuthorizeResponder
		if answer, err = s.provider.NewAuthorizeResponse(ctx, req, &fosite.DefaultSession{Subject: "ann"}); err == nil {
			s.provider.WriteAuthorizeResponse(ctx, w, req, answer)
			return
		}
	}
	s.provider.WriteAuthorizeError(ctx, w, req, err)
}

// ServeHTTP is both servers: /authorize, /token and /introspect (RFC 7662), and the resource
// server at any other path.
func (s *authServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/authorize":
		s.authorize(w, r)
	case "/token":
		s.token(w, r)
	case "/introspect":
		s.introspect(w, r)
	default:
		s.resource(w, r)
	}
}

func (s *authServer) token(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx := r.Context()
	access, err := s.provider.NewAccessRequest(ctx, r, new(fosite.DefaultSession))
	if err == nil {
		for _, scope := range access.GetRequestedScopes() {
			access.GrantScope(scope)
		}
		var answer fosite.AccessResponder
		if answer, err = s.provider.NewAccessResponse(ctx, access); err == nil {
			if access.GetGrantTypes().ExactOne("refresh_token") {
				s.refreshes.Add(1)
			}
			s.provider.WriteAccessResponse(ctx, w, access, answer)
			return
		}
	}
	s.refused.Add(1)
	s.provider.WriteAccessError(ctx, w, access, err)
}

func (s *authServer) introspect(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx := r.Context()
	answer, err := s.provider.NewIntrospectionRequest(ctx, r, new(fosite.DefaultSession))
	if err != nil {
		s.provider.WriteIntrospectionError(ctx, w, err)
		return
	}
	s.provider.WriteIntrospectionResponse(ctx, w, answer)
}

// active asks the server about a token, as a resource server does (RFC 7662).
func (s *authServer) active(ctx context.Context, token string) bool {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/introspect", strings.NewReader(url.Values{"token": {token}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("api", url.QueryEscape(apiSecret))
	w := httptest.NewRecorder()
	s.introspect(w, r)
	var answer struct {
		Active bool   `json:"active"`
		Use    string `json:"token_use"`
	}
	return json.Unmarshal(w.Body.Bytes(), &answer) == nil && answer.Active && answer.Use != "refresh_token"
}

func (s *authServer) resource(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Request-Id", rand.Text())
	if !s.active(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
		s.denied.Add(1)
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.served.Add(1)
	_, _ = w.Write([]byte("hello"))
}

// revokeAccess has an administrator revoke the access token alone.
func (s *authServer) revokeAccess(t *testing.T, token string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	_, signature, _ := strings.Cut(token, ".")
	require.Contains(t, s.store.AccessTokens, signature)
	require.NoError(t, s.store.DeleteAccessTokenSession(t.Context(), signature))
}

// RoundTrip makes an authServer a network of its own, for tests in fake time.
func (s *authServer) RoundTrip(req *http.Request) (*http.Response, error) {
	in := req.Clone(req.Context())
	in.RequestURI = req.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, in)
	if req.Body != nil {
		_ = req.Body.Close()
	}
	resp := w.Result()
	resp.Request = req
	return resp, nil
}

// client is the OAuth 2.0 client of the tests, at a server with that address.
func oauthClient(address string, base http.RoundTripper) *refresher.OAuth2 {
	return &refresher.OAuth2{
		Base: base,
		Config: oauth2.Config{
			ClientID: clientID, ClientSecret: clientSecret, Scopes: []string{"offline", "read"},
			Endpoint: oauth2.Endpoint{TokenURL: address + "/token", AuthStyle: oauth2.AuthStyleInHeader},
		},
	}
}

// login gets the first tokens, by the password grant of x/oauth2.
func login(t *testing.T, client *refresher.OAuth2) reauth.Token {
	t.Helper()
	ctx := t.Context()
	if client.Base != nil {
		ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: client.Base})
	}
	tok, err := client.Config.PasswordCredentialsToken(ctx, "ann", "ann's-password")
	require.NoError(t, err)
	require.NotEmpty(t, tok.RefreshToken)
	return refresher.Token(tok)
}

// present presents a refresh token as anybody could, and returns the error code.
func present(t *testing.T, address, refreshToken string) string {
	t.Helper()
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/token", strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(clientID), url.QueryEscape(clientSecret))
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		Error string `json:"error"`
	}
	decode(t, resp, &answer)
	return answer.Error
}
