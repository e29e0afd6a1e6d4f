package refresher_test

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	"github.com/reauth-go/reauth/reauthtest"
	"github.com/reauth-go/reauth/refresher"
)

// newIssuer returns an issuer whose user agrees at once, and a client of it.
func newIssuer(t *testing.T) (*reauthtest.Issuer, *refresher.OAuth2) {
	i := reauthtest.NewIssuer()
	t.Cleanup(i.Close)
	i.SetRotate(true)
	o := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Scopes: []string{"a", "b"}}}
	require.NoError(t, o.Discover(t.Context(), i.Issuer()))
	return i, o
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
			i, o := newIssuer(t)
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
			assert.True(t, i.Valid(tok.AccessToken))
			assert.NotEmpty(t, tok.RefreshToken)
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
	i, o := newIssuer(t)
	_, err := tryLogin(t, o, func(back *url.URL, state string) {
		good := url.Values{"state": {state}, "code": {"unknown"}, "iss": {i.Issuer()}}
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
	_, o := newIssuer(t)
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
	i, o := newIssuer(t)
	_, err := tryLogin(t, o, func(back *url.URL, state string) {
		browse(t, backWith(back, url.Values{"state": {state}, "error": {"access_denied"}, "iss": {i.Issuer()}}))
	})
	require.EqualError(t, err, "browser login: the authorization endpoint answered access_denied")
}

func TestBrowserLoginEndsWithItsContextAndLeavesNoListener(t *testing.T) {
	_, o := newIssuer(t)
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
	if resp, err := http.Get(back.String()); err == nil { // from another test's server, which has the port by now
		assert.Empty(t, resp.Header.Get("Content-Security-Policy"), "nobody waits for the browser")
		assert.NoError(t, resp.Body.Close())
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
	server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) { return oauthAnswer(200, ""), nil }}
	o := oauthApp(server)
	o.Config.ClientSecret, o.RevocationURL = "", "https://issuer.example/revoke"
	require.NoError(t, o.Revoke(t.Context(), reauth.Token{AccessToken: "T1", RefreshToken: "R1"}))
	require.NoError(t, o.Revoke(t.Context(), reauth.Token{AccessToken: "T1"}))
	require.NoError(t, o.Revoke(t.Context(), reauth.Token{}))
	require.Len(t, server.seen(), 2)
	assert.Equal(t, url.Values{"token": {"R1"}, "token_type_hint": {"refresh_token"}, "client_id": {"app"}}, server.seen()[0].form)
	assert.Equal(t, url.Values{"token": {"T1"}, "token_type_hint": {"access_token"}, "client_id": {"app"}}, server.seen()[1].form)

	o = oauthApp(oauthAnswers(oauthSays(400, `{"error":"unsupported_token_type"}`)))
	require.ErrorContains(t, o.Revoke(t.Context(), reauth.Token{AccessToken: "T1"}), "RevocationURL")
	o.RevocationURL = "https://issuer.example/revoke"
	require.ErrorContains(t, o.Revoke(t.Context(), reauth.Token{AccessToken: "T1"}), "the revocation endpoint answered 400 unsupported_token_type")
}

func TestDiscover(t *testing.T) {
	i, o := newIssuer(t)
	assert.Equal(t, i.Endpoint(), o.Config.Endpoint)
	assert.Equal(t, i.RevocationURL(), o.RevocationURL)
	assert.Equal(t, i.Issuer(), o.Issuer)

	post := oauthApp(nil)
	post.Base = &jsonServer{answer: func(int, *http.Request, map[string]any) (*http.Response, error) {
		return oauthAnswer(200, `{"issuer":"https://issuer.example","token_endpoint":"https://issuer.example/token","token_endpoint_auth_methods_supported":["client_secret_post"]}`), nil
	}}
	require.NoError(t, post.Discover(t.Context(), "https://issuer.example"))
	assert.Equal(t, oauth2.AuthStyleInParams, post.Config.Endpoint.AuthStyle)

	set := &refresher.OAuth2{Config: oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: "https://mine.example/token", AuthStyle: oauth2.AuthStyleInHeader}}}
	require.NoError(t, set.Discover(t.Context(), i.Issuer()))
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
	i, _ := newIssuer(t)
	mux := http.NewServeMux()
	resource := httptest.NewServer(mux)
	defer resource.Close()
	mux.HandleFunc("GET /.well-known/oauth-protected-resource/mcp", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"resource":%q,"authorization_servers":[%q]}`, resource.URL+"/mcp", i.Issuer())
	})
	h := http.Header{"Www-Authenticate": {`Bearer resource_metadata="` + resource.URL + `/.well-known/oauth-protected-resource/mcp"`}}
	challenge := reauth.ParseChallenges(h)[0]
	o := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app"}}
	require.NoError(t, o.Discover(t.Context(), challenge.Params["resource_metadata"]))
	assert.Equal(t, i.URL(), o.Config.Endpoint.TokenURL)
	assert.Equal(t, resource.URL+"/mcp", o.Params.Get("resource"))
	require.Error(t, o.Discover(t.Context(), resource.URL+"/.well-known/oauth-protected-resource"))
}
