package refresher_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// An authServer is an authorization server that asks the user nothing, and verifies what
// RFC 6749, 7636, 8252 and 9207 have it verify. It is simulated.
type authServer struct {
	*httptest.Server
	iss     bool // it says who it is
	deny    bool
	codes   map[string]url.Values // by code, the authorization request
	revoked []url.Values
}

func newAuthServer(t *testing.T) *authServer {
	s := &authServer{iss: true, codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": s.URL, "authorization_endpoint": s.URL + "/authorize", "token_endpoint": s.URL + "/token",
			"device_authorization_endpoint": s.URL + "/device", "revocation_endpoint": s.URL + "/revoke",
			"token_endpoint_auth_methods_supported":          []string{"client_secret_post"},
			"authorization_response_iss_parameter_supported": true,
		})
	})
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		back, err := url.Parse(q.Get("redirect_uri"))
		if err != nil || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || q.Get("client_id") != "app" {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		answer := url.Values{"state": {q.Get("state")}}
		if s.iss {
			answer.Set("iss", s.URL)
		}
		if s.deny {
			answer.Set("error", "access_denied")
		} else {
			code := fmt.Sprint("code-", len(s.codes))
			s.codes[code] = q
			answer.Set("code", code)
		}
		back.RawQuery = answer.Encode()
		http.Redirect(w, r, back.String(), http.StatusFound)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		code := r.PostFormValue("code")
		began, ok := s.codes[code]
		delete(s.codes, code)
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		if !ok || r.PostFormValue("redirect_uri") != began.Get("redirect_uri") || base64.RawURLEncoding.EncodeToString(sum[:]) != began.Get("code_challenge") {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"T1","refresh_token":"R1","expires_in":3600}`)
	})
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		s.revoked = append(s.revoked, r.PostForm)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *authServer) app(t *testing.T) *refresher.OAuth2 {
	o := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Scopes: []string{"a", "b"}}}
	require.NoError(t, o.Discover(t.Context(), s.URL))
	return o
}

// browse does as a browser, and returns the page where it ended.
func browse(t *testing.T, address string) (status int, page string, end *url.URL) {
	resp, err := http.Get(address)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body), resp.Request.URL
}

func TestBrowserLogin(t *testing.T) {
	for name, redirect := range map[string]string{"the default": "", "another path": "http://localhost/back", "no path": "http://127.0.0.1"} {
		t.Run(name, func(t *testing.T) {
			s := newAuthServer(t)
			o := s.app(t)
			o.Config.RedirectURL = redirect
			o.Params = url.Values{"resource": {"https://api.example/"}}
			pages := make(chan string, 1)
			tok, err := o.BrowserLogin(t.Context(), func(address string) error {
				u, err := url.Parse(address)
				require.NoError(t, err)
				assert.Equal(t, "a b", u.Query().Get("scope"))
				assert.Equal(t, "https://api.example/", u.Query().Get("resource"))
				go func() {
					_, page, end := browse(t, address)
					pages <- page
					assert.True(t, strings.HasPrefix(end.String(), strings.TrimSuffix(redirect, "/back")) || redirect == "")
				}()
				return nil
			})
			require.NoError(t, err)
			assert.Equal(t, []string{"T1", "R1"}, []string{tok.AccessToken, tok.RefreshToken})
			assert.Contains(t, <-pages, "You may close this page.")
		})
	}
}

// login begins one, and gives the redirect URL and its state to try.
func tryLogin(t *testing.T, o *refresher.OAuth2, try func(back *url.URL, state string)) (reauth.Token, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return o.BrowserLogin(ctx, func(address string) error {
		u, err := url.Parse(address)
		require.NoError(t, err)
		back, err := url.Parse(u.Query().Get("redirect_uri"))
		require.NoError(t, err)
		go try(back, u.Query().Get("state"))
		return nil
	})
}

func backWith(back *url.URL, query url.Values) string {
	u := *back
	u.RawQuery = query.Encode()
	return u.String()
}

// Any page that the browser shows can make requests to the loopback address.
func TestBrowserLoginTakesOneCallbackOfItsOwn(t *testing.T) {
	s := newAuthServer(t)
	o := s.app(t)
	_, err := tryLogin(t, o, func(back *url.URL, state string) {
		good := url.Values{"state": {state}, "code": {"unknown"}, "iss": {s.URL}}
		status, _, _ := browse(t, backWith(back, url.Values{"state": {"another"}, "code": {"evil"}}))
		assert.Equal(t, http.StatusBadRequest, status)
		status, _, _ = browse(t, backWith(back, url.Values{"code": {"evil"}}))
		assert.Equal(t, http.StatusBadRequest, status, "no state")
		other := *back
		other.Path = "/other"
		status, _, _ = browse(t, backWith(&other, good))
		assert.Equal(t, http.StatusNotFound, status)
		resp, err := http.PostForm(backWith(back, good), nil)
		if assert.NoError(t, err) {
			assert.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
			_ = resp.Body.Close()
		}
		req, err := http.NewRequest(http.MethodGet, backWith(back, good), nil)
		assert.NoError(t, err)
		req.Host = "rebound.example" // DNS rebinding
		resp, err = http.DefaultClient.Do(req)
		if assert.NoError(t, err) {
			assert.Equal(t, http.StatusForbidden, resp.StatusCode)
			assert.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
			_ = resp.Body.Close()
		}
		status, page, _ := browse(t, backWith(back, good))
		assert.Equal(t, http.StatusOK, status)
		assert.NotContains(t, page, "unknown", "nothing of the request is on the page")
	})
	require.ErrorContains(t, err, "invalid_grant")
}

func TestBrowserLoginOfAnotherIssuer(t *testing.T) {
	s := newAuthServer(t)
	o := s.app(t)
	_, err := tryLogin(t, o, func(back *url.URL, state string) {
		_, page, _ := browse(t, backWith(back, url.Values{"state": {state}, "code": {"c"}, "iss": {"https://evil.example"}}))
		assert.Contains(t, page, "failed")
	})
	require.ErrorContains(t, err, "https://evil.example")
	_, err = tryLogin(t, o, func(back *url.URL, state string) {
		browse(t, backWith(back, url.Values{"state": {state}, "code": {"c"}}))
	})
	require.ErrorContains(t, err, "RFC 9207", "its metadata promises an iss")
}

func TestBrowserLoginThatIsDenied(t *testing.T) {
	s := newAuthServer(t)
	s.deny = true
	o := s.app(t)
	_, err := o.BrowserLogin(t.Context(), func(address string) error {
		go browse(t, address)
		return nil
	})
	require.EqualError(t, err, "browser login: the authorization endpoint answered access_denied")
}

func TestBrowserLoginEndsWithItsContextAndLeavesNoListener(t *testing.T) {
	s := newAuthServer(t)
	o := s.app(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the user has gone")
	var back *url.URL
	_, err := o.BrowserLogin(ctx, func(address string) error {
		u, _ := url.Parse(address)
		back, _ = url.Parse(u.Query().Get("redirect_uri"))
		cancel(gone)
		return nil
	})
	require.ErrorIs(t, err, gone)
	conn, err := net.Dial("tcp", back.Host)
	if !assert.Error(t, err, "nobody listens") {
		_ = conn.Close()
	}
	_, err = o.BrowserLogin(t.Context(), func(string) error { return gone })
	require.ErrorIs(t, err, gone)
	o.Config.RedirectURL = "https://app.example/callback"
	_, err = o.BrowserLogin(t.Context(), func(string) error { return nil })
	require.ErrorContains(t, err, "loopback")
}

func TestExchange(t *testing.T) {
	server := &oauthServer{}
	o := oauthApp(server)
	o.Config.RedirectURL = "https://app.example/callback"
	tok, err := o.Exchange(t.Context(), "the-code", "the-verifier")
	require.NoError(t, err)
	assert.NotEmpty(t, tok.RefreshToken)
	assert.Equal(t, url.Values{
		"grant_type": {"authorization_code"}, "code": {"the-code"}, "code_verifier": {"the-verifier"}, "redirect_uri": {"https://app.example/callback"},
	}, server.only(t).form)

	_, err = oauthApp(oauthAnswers(oauthSays(400, `{"error":"invalid_grant","error_description":"the-code-was-used"}`))).Exchange(t.Context(), "the-code-was-used", "")
	require.ErrorContains(t, err, "the code has expired or was used")
	assert.NotContains(t, err.Error(), "the-code-was-used")
}

func TestRevoke(t *testing.T) {
	s := newAuthServer(t)
	o := s.app(t)
	require.NoError(t, o.Revoke(t.Context(), reauth.Token{AccessToken: "T1", RefreshToken: "R1"}))
	require.NoError(t, o.Revoke(t.Context(), reauth.Token{AccessToken: "T1"}))
	require.NoError(t, o.Revoke(t.Context(), reauth.Token{}))
	require.Len(t, s.revoked, 2)
	assert.Equal(t, url.Values{"token": {"R1"}, "token_type_hint": {"refresh_token"}, "client_id": {"app"}}, s.revoked[0])
	assert.Equal(t, url.Values{"token": {"T1"}, "token_type_hint": {"access_token"}, "client_id": {"app"}}, s.revoked[1])

	o = oauthApp(oauthAnswers(oauthSays(400, `{"error":"unsupported_token_type"}`)))
	require.ErrorContains(t, o.Revoke(t.Context(), reauth.Token{AccessToken: "T1"}), "RevocationURL")
	o.RevocationURL = "https://issuer.example/revoke"
	require.ErrorContains(t, o.Revoke(t.Context(), reauth.Token{AccessToken: "T1"}), "the revocation endpoint answered 400 unsupported_token_type")
}

func TestDiscover(t *testing.T) {
	s := newAuthServer(t)
	o := s.app(t)
	assert.Equal(t, oauth2.Endpoint{
		AuthURL: s.URL + "/authorize", TokenURL: s.URL + "/token", DeviceAuthURL: s.URL + "/device", AuthStyle: oauth2.AuthStyleInParams,
	}, o.Config.Endpoint)
	assert.Equal(t, s.URL+"/revoke", o.RevocationURL)
	assert.Equal(t, s.URL, o.Issuer)

	set := &refresher.OAuth2{Config: oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: "https://mine.example/token", AuthStyle: oauth2.AuthStyleInHeader}}}
	require.NoError(t, set.Discover(t.Context(), s.URL))
	assert.Equal(t, "https://mine.example/token", set.Config.Endpoint.TokenURL, "what is set stays")
	assert.Equal(t, oauth2.AuthStyleInHeader, set.Config.Endpoint.AuthStyle)
}

func TestDiscoverPlaces(t *testing.T) {
	const issuer = "https://issuer.example/tenant"
	for place, ok := range map[string]bool{
		"/.well-known/oauth-authorization-server/tenant": true, // RFC 8414
		"/tenant/.well-known/openid-configuration":       true, // OpenID Connect
		"/.well-known/openid-configuration/tenant":       true, // RFC 8414 §5
		"/.well-known/oauth-authorization-server":        false,
	} {
		o := oauthApp(nil)
		o.Config.Endpoint = oauth2.Endpoint{}
		o.Base = &jsonServer{answer: func(_ int, req *http.Request, _ map[string]any) (*http.Response, error) {
			if req.URL.Path != place {
				return oauthAnswer(404, ""), nil
			}
			return oauthAnswer(200, `{"issuer":"`+issuer+`","token_endpoint":"https://issuer.example/token"}`), nil
		}}
		err := o.Discover(t.Context(), issuer)
		assert.Equal(t, ok, err == nil, "%s: %v", place, err)
		if ok {
			assert.Equal(t, "https://issuer.example/token", o.Config.Endpoint.TokenURL)
		}
	}
}

func TestDiscoverBelievesNobodyElse(t *testing.T) {
	for name, tt := range map[string]struct{ body, says string }{
		"another issuer's":  {`{"issuer":"https://evil.example","token_endpoint":"https://evil.example/token"}`, "evil.example"},
		"plain http":        {`{"issuer":"https://issuer.example","token_endpoint":"http://issuer.example/token"}`, "not https"},
		"no token endpoint": {`{"issuer":"https://issuer.example"}`, "token_endpoint"},
		"a page":            {`<html>`, "not a JSON object"},
	} {
		o := oauthApp(nil)
		o.Config.Endpoint = oauth2.Endpoint{}
		o.Base = &jsonServer{answer: func(int, *http.Request, map[string]any) (*http.Response, error) {
			return oauthAnswer(200, tt.body), nil
		}}
		require.ErrorContains(t, o.Discover(t.Context(), "https://issuer.example"), tt.says, name)
		assert.Empty(t, o.Config.Endpoint.TokenURL, name)
	}
	require.ErrorIs(t, oauthApp(nil).Discover(t.Context(), "http://issuer.example"), reauth.ErrInsecure)
}

// A protected resource, as an MCP server, says in its challenge where its metadata is.
func TestDiscoverFromAResource(t *testing.T) {
	s := newAuthServer(t)
	mux := http.NewServeMux()
	resource := httptest.NewServer(mux)
	defer resource.Close()
	mux.HandleFunc("GET /.well-known/oauth-protected-resource/mcp", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"resource":%q,"authorization_servers":[%q]}`, resource.URL+"/mcp", s.URL)
	})
	h := http.Header{"Www-Authenticate": {`Bearer resource_metadata="` + resource.URL + `/.well-known/oauth-protected-resource/mcp"`}}
	challenge := reauth.ParseChallenges(h)[0]
	o := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app"}}
	require.NoError(t, o.Discover(t.Context(), challenge.Params["resource_metadata"]))
	assert.Equal(t, s.URL+"/token", o.Config.Endpoint.TokenURL)
	assert.Equal(t, resource.URL+"/mcp", o.Params.Get("resource"))
	require.Error(t, o.Discover(t.Context(), resource.URL+"/.well-known/oauth-protected-resource"))
}
