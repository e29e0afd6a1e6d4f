package refresher_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// A jsonServer is a token endpoint that is asked in JSON.
type jsonServer struct {
	answer func(n int, req *http.Request, body map[string]any) (*http.Response, error)
	seen   []*http.Request
	bodies []map[string]any
}

func (s *jsonServer) RoundTrip(req *http.Request) (*http.Response, error) {
	body := map[string]any{}
	if req.Body != nil {
		_ = json.NewDecoder(req.Body).Decode(&body)
		_ = req.Body.Close()
	}
	s.seen, s.bodies = append(s.seen, req), append(s.bodies, body)
	resp, err := s.answer(len(s.seen), req, body)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// renewing sends the refresh token in JSON.
func renewing(base http.RoundTripper) *refresher.HTTP {
	return &refresher.HTTP{Base: base, Request: func(ctx context.Context, stale reauth.Stale) (*http.Request, error) {
		body := fmt.Sprintf(`{"refresh":%q,"key":"the-key-of-the-app"}`, stale.Token.RefreshToken)
		return http.NewRequestWithContext(ctx, http.MethodPost, "https://issuer.example/renew", strings.NewReader(body))
	}}
}

func TestHTTPFindsTheToken(t *testing.T) {
	for name, body := range map[string]string{
		"RFC 6749":       `{"access_token":"T1","refresh_token":"R1","expires_in":3600}`,
		"in camel case":  `{"accessToken":"T1","refreshToken":"R1","expireIn":3600}`,
		"in an envelope": `{"code":0,"data":{"access_token":"T1","refresh_token":"R1","expire":3600}}`,
		"a form":         `access_token=T1&refresh_token=R1&expires_in=3600`,
		"until a time":   `{"token":"T1","refresh_token":"R1","expires_at":"2000-01-01T01:00:00Z"}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tok, err := renewing(oauthAnswers(oauthSays(200, body))).Refresh(t.Context(), oauthHeld())
				require.NoError(t, err)
				assert.Equal(t, []string{"T1", "R1"}, []string{tok.AccessToken, tok.RefreshToken})
				assert.True(t, time.Now().Add(time.Hour).Equal(tok.Expiry))
			})
		})
	}
}

func TestHTTPTokenOfTheCaller(t *testing.T) {
	h := renewing(oauthAnswers(oauthSays(200, `{"value":"T1"}`)))
	h.Token = func(_ *http.Response, body []byte) (reauth.Token, error) {
		var answer struct{ Value string }
		err := json.Unmarshal(body, &answer)
		return reauth.Token{AccessToken: answer.Value}, err
	}
	tok, err := h.Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, "T1", tok.AccessToken)

	h.Base = oauthAnswers(oauthSays(200, `value the-key-of-the-app`))
	_, err = h.Refresh(t.Context(), oauthHeld())
	assert.ErrorContains(t, err, "answered 200")
	assert.True(t, reauth.IsAnswerLost(err), "what the refresh token brought is not known")
	assert.NotContains(t, err.Error(), "the-key-of-the-app")
}

// The rules of a refresh token are those of OAuth2.
func TestHTTPRefreshToken(t *testing.T) {
	for name, tt := range map[string]struct {
		answer      func() (*http.Response, error)
		lost, ended bool
		sends       int
	}{
		"503, and the next answer": {oauthSays(503, ""), false, false, 8},
		"a lost answer":            {oauthBreaks, true, false, 1},
		"502":                      {oauthSays(502, ""), true, false, 1},
		"its end":                  {oauthSays(400, `{"status":"BAD_REFRESH_TOKEN","message":"unknown"}`), false, true, 1},
		"a page":                   {oauthSays(200, `<html>`), true, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := oauthAnswers(tt.answer)
				_, err := renewing(server).Refresh(t.Context(), oauthHeld())
				require.Error(t, err)
				assert.Equal(t, tt.lost, reauth.IsAnswerLost(err))
				assert.Equal(t, tt.ended, reauth.IsLoginEnded(err))
				if tt.ended {
					assert.ErrorContains(t, err, "the refresh token has expired, was revoked, or was used by another client")
				}
				assert.Len(t, server.seen(), tt.sends)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		server := oauthAnswers(oauthSays(200, `{"access_token":"T1"}`))
		stale := oauthHeld()
		stale.AnswerLostAt, stale.Token.Expiry = time.Now(), time.Now().Add(time.Hour)
		_, err := renewing(server).Refresh(t.Context(), stale)
		require.ErrorContains(t, err, "may be used up")
		assert.Empty(t, server.seen())
	})
}

func TestHTTPRepeatsWhatMayBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []func() (*http.Response, error){oauthSays(500, ""), oauthBreaks, oauthSays(429, "", "Retry-After", "2"), oauthSays(200, `{"access_token":"T1"}`)}
		server := oauthAnswers(answers...)
		_, err := renewing(server).Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		assert.Len(t, server.seen(), 4)

		server = oauthAnswers(answers...)
		h := renewing(server)
		request := h.Request
		h.Request = func(ctx context.Context, stale reauth.Stale) (*http.Request, error) {
			req, err := request(ctx, stale)
			req.GetBody = nil
			return req, err
		}
		_, err = h.Refresh(t.Context(), reauth.Stale{})
		require.ErrorContains(t, err, "500")
		assert.Len(t, server.seen(), 1, "the body is read once")
	})
}

func TestHTTPErrorsKeepTheSecretsOfTheRequest(t *testing.T) {
	h := renewing(oauthAnswers(oauthSays(400, `{"error":"moon_phase","error_description":"THE-KEY-OF-THE-APP and R0-the-refresh-token"}`)))
	stale := oauthHeld()
	stale.Token.RefreshToken = "R0-the-refresh-token"
	_, err := h.Refresh(t.Context(), stale)
	require.ErrorContains(t, err, "moon_phase")
	assert.NotContains(t, strings.ToLower(err.Error()), "the-key-of-the-app")
	assert.NotContains(t, err.Error(), "R0-the-refresh-token")

	h.Request = func(context.Context, reauth.Stale) (*http.Request, error) {
		return nil, errors.New("no key: R0-the-refresh-token")
	}
	_, err = h.Refresh(t.Context(), stale)
	require.ErrorContains(t, err, "no token request: no key")
	assert.NotContains(t, err.Error(), "R0-the-refresh-token")
}

func TestHTTPGoesNotOverPlainHTTP(t *testing.T) {
	for address, secure := range map[string]bool{
		"http://issuer.example/": false, "http://10.0.0.1/": false, "http://169.254.169.254.example/": false, "ftp://169.254.169.254/": false,
		"http://169.254.169.254/metadata": true, "http://[fe80::1]/": true, "http://127.0.0.1:1/": true, "https://issuer.example/": true,
	} {
		server := &jsonServer{answer: func(int, *http.Request, map[string]any) (*http.Response, error) {
			return oauthAnswer(200, `{"access_token":"T1"}`), nil
		}}
		h := refresher.HTTP{Base: server, Request: func(ctx context.Context, _ reauth.Stale) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		}}
		_, err := h.Refresh(t.Context(), reauth.Stale{})
		assert.Equal(t, secure, err == nil, address)
		if !secure {
			assert.ErrorIs(t, err, reauth.ErrInsecure, address)
		}
	}
	_, err := new(refresher.HTTP).Refresh(t.Context(), reauth.Stale{})
	assert.ErrorContains(t, err, "has no Request")
}

func TestFeishu(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &jsonServer{answer: func(n int, _ *http.Request, _ map[string]any) (*http.Response, error) {
			if n == 1 {
				return oauthAnswer(200, `{"code":10014,"msg":"app secret invalid"}`), nil
			}
			return oauthAnswer(200, `{"code":0,"expire":7200,"msg":"ok","tenant_access_token":"t-g1044ghJRUIJJ5"}`), nil
		}}
		f := &refresher.Feishu{AppID: "cli_1", AppSecret: "the-secret-of-the-app", Base: server}
		_, err := f.Refresh(t.Context(), reauth.Stale{})
		require.ErrorContains(t, err, "10014 (app secret invalid)")
		assert.False(t, reauth.IsPermanent(err))
		tok, err := f.Refresh(t.Context(), oauthHeld())
		require.NoError(t, err)
		assert.Equal(t, reauth.Token{AccessToken: "t-g1044ghJRUIJJ5", Expiry: time.Now().Add(2 * time.Hour)}, tok)
		assert.Equal(t, "https://open.feishu.cn/open-apis/auth/v3/tenant_access_token/internal", server.seen[1].URL.String())
		assert.Equal(t, map[string]any{"app_id": "cli_1", "app_secret": "the-secret-of-the-app"}, server.bodies[1])
		assert.NotContains(t, fmt.Sprintf("%+v %#v %+v", f, f, *f), "the-secret")
	})
}

func TestWeChat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &jsonServer{answer: func(_ int, _ *http.Request, body map[string]any) (*http.Response, error) {
			token := "ACCESS_TOKEN"
			if body["force_refresh"] == true {
				token = "ACCESS_TOKEN_2"
			}
			return oauthAnswer(200, `{"access_token":"`+token+`","expires_in":7200}`), nil
		}}
		w := &refresher.WeChat{AppID: "wx1", Secret: "the-secret-of-the-account", Base: server}
		tok, err := w.Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		assert.Equal(t, reauth.Token{AccessToken: "ACCESS_TOKEN", Expiry: time.Now().Add(2 * time.Hour)}, tok)
		assert.Equal(t, map[string]any{"grant_type": "client_credential", "appid": "wx1", "secret": "the-secret-of-the-account", "force_refresh": false}, server.bodies[0])

		why := reauth.Rejection{Reason: reauth.ReasonRevoked}
		_, err = w.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "older"}, Rejection: why})
		require.NoError(t, err)
		require.Len(t, server.seen, 2, "another process has renewed it")
		tok, err = w.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: why})
		require.NoError(t, err)
		assert.Equal(t, "ACCESS_TOKEN_2", tok.AccessToken)
		assert.Len(t, server.seen, 4)
		assert.NotContains(t, fmt.Sprintf("%+v %#v %+v", w, w, *w), "the-secret")

		server.answer = func(int, *http.Request, map[string]any) (*http.Response, error) {
			return oauthAnswer(200, `{"errcode":40125,"errmsg":"invalid appsecret rid: 1"}`), nil
		}
		_, err = w.Refresh(t.Context(), reauth.Stale{})
		require.ErrorContains(t, err, "40125 (invalid appsecret rid: 1)")
	})
}

func TestGitHubApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &jsonServer{answer: func(int, *http.Request, map[string]any) (*http.Response, error) {
			return oauthAnswer(201, `{"token":"ghs_16C7e42F292c6912E7710c838347Ae178B4a","expires_at":"2000-01-01T01:00:00Z","permissions":{"issues":"write"},"repository_selection":"selected"}`), nil
		}}
		g := &refresher.GitHubApp{ClientID: "Iv1.1", InstallationID: 42, PrivateKey: oauthKey(), Repositories: []string{"hello"}, Base: server}
		tok, err := g.Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		assert.Equal(t, "ghs_16C7e42F292c6912E7710c838347Ae178B4a", tok.AccessToken)
		assert.True(t, time.Now().Add(time.Hour).Equal(tok.Expiry))
		req := server.seen[0]
		assert.Equal(t, "https://api.github.com/app/installations/42/access_tokens", req.URL.String())
		assert.Equal(t, map[string]any{"repositories": []any{"hello"}}, server.bodies[0])
		assertion := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
		claims := oauthClaims(t, assertion)
		assert.Equal(t, "Iv1.1", claims["iss"])
		assert.InDelta(t, time.Now().Add(-time.Minute).Unix(), claims["iat"], 0)
		assert.InDelta(t, time.Now().Add(9*time.Minute).Unix(), claims["exp"], 0)
		assert.NotContains(t, fmt.Sprintf("%+v %#v %+v", g, g, *g), "PRIVATE")

		server.answer = func(int, *http.Request, map[string]any) (*http.Response, error) {
			return oauthAnswer(401, `{"message":"'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued","documentation_url":"https://docs.github.com/rest"}`), nil
		}
		_, err = g.Refresh(t.Context(), reauth.Stale{})
		require.ErrorContains(t, err, "'Issued at' claim")
		assert.NotContains(t, err.Error(), "ClientSecret", "it has none")
		assert.False(t, reauth.IsPermanent(err), "a wrong clock is set right")
		g.PrivateKey = []byte("the-key")
		_, err = g.Refresh(t.Context(), reauth.Stale{})
		require.ErrorContains(t, err, "not in PEM")
	})
}

// exampleServer answers each request with one body.
func exampleServer(body string) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, body)
	}))
}

// DingTalk has its own names for everything.
// See https://open.dingtalk.com/document/orgapp/obtain-the-access_token-of-an-internal-app.
func ExampleHTTP_dingTalk() {
	server := exampleServer(`{"accessToken":"token-of-the-app","expireIn":7200}`) // https://api.dingtalk.com
	defer server.Close()
	cred := &reauth.Credential{Refresher: &refresher.HTTP{
		Request: func(ctx context.Context, _ reauth.Stale) (*http.Request, error) {
			body := strings.NewReader(`{"appKey":"ding1","appSecret":"…"}`)
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1.0/oauth2/accessToken", body)
			if err == nil {
				req.Header.Set("Content-Type", "application/json")
			}
			return req, err
		},
	}}
	// A Transport with Header "X-Acs-Dingtalk-Access-Token" sends it.
	tok, err := cred.Token(context.Background())
	fmt.Println(tok.AccessToken, err)
	// Output: token-of-the-app <nil>
}

// Notion takes the refresh token in JSON, and rotates it.
// See https://developers.notion.com/reference/refresh-a-token.
func ExampleHTTP_notion() {
	server := exampleServer(`{"access_token":"ntn_2","refresh_token":"nrt_2","bot_id":"b"}`) // https://api.notion.com
	defer server.Close()
	cred := &reauth.Credential{Refresher: &refresher.HTTP{
		Request: func(ctx context.Context, stale reauth.Stale) (*http.Request, error) {
			body, err := json.Marshal(map[string]string{"grant_type": "refresh_token", "refresh_token": stale.Token.RefreshToken})
			if err != nil {
				return nil, err
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/oauth/token", strings.NewReader(string(body)))
			if err == nil {
				req.Header.Set("Content-Type", "application/json")
				req.SetBasicAuth("client-id", "client-secret")
			}
			return req, err
		},
	}}
	ctx := context.Background()
	if err := cred.Set(ctx, reauth.Token{RefreshToken: "nrt_1"}); err != nil { // of the login
		fmt.Println(err)
	}
	tok, err := cred.Token(ctx)
	fmt.Println(tok.AccessToken, err)
	// Output: ntn_2 <nil>
}

// The metadata server of Google Compute Engine.
// See https://cloud.google.com/compute/docs/access/authenticate-workloads.
func ExampleHTTP_googleMetadata() {
	server := exampleServer(`{"access_token":"ya29.c","expires_in":3599,"token_type":"Bearer"}`) // http://169.254.169.254
	defer server.Close()
	cred := &reauth.Credential{Refresher: &refresher.HTTP{
		Request: func(ctx context.Context, _ reauth.Stale) (*http.Request, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/computeMetadata/v1/instance/service-accounts/default/token", nil)
			if err == nil {
				req.Header.Set("Metadata-Flavor", "Google")
			}
			return req, err
		},
	}}
	tok, err := cred.Token(context.Background())
	fmt.Println(tok.AccessToken, err)
	// Output: ya29.c <nil>
}

// The metadata server of Azure, for a managed identity.
// See https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token.
func ExampleHTTP_azureMetadata() {
	server := exampleServer(`{"access_token":"eyJ0","expires_in":"3599","expires_on":"1506484173","resource":"https://management.azure.com/","token_type":"Bearer"}`) // http://169.254.169.254
	defer server.Close()
	cred := &reauth.Credential{Refresher: &refresher.HTTP{
		Request: func(ctx context.Context, _ reauth.Stale) (*http.Request, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet,
				server.URL+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F", nil)
			if err == nil {
				req.Header.Set("Metadata", "true")
			}
			return req, err
		},
	}}
	tok, err := cred.Token(context.Background())
	fmt.Println(tok.AccessToken, err)
	// Output: eyJ0 <nil>
}

// The OpenID Connect token of a GitHub Actions job, which a cloud takes as the subject
// of a token exchange.
// See https://docs.github.com/actions/reference/security/oidc.
func ExampleHTTP_gitHubActions() {
	server := exampleServer(`{"count":1857,"value":"eyJ0"}`) // $ACTIONS_ID_TOKEN_REQUEST_URL
	defer server.Close()
	subject := &refresher.HTTP{
		Request: func(ctx context.Context, _ reauth.Stale) (*http.Request, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"?api-version=2.0&audience=sts.example", nil)
			if err == nil {
				req.Header.Set("Authorization", "Bearer "+"$ACTIONS_ID_TOKEN_REQUEST_TOKEN")
			}
			return req, err
		},
		Token: func(_ *http.Response, body []byte) (reauth.Token, error) {
			var answer struct{ Value string }
			err := json.Unmarshal(body, &answer)
			return reauth.Token{AccessToken: answer.Value}, err
		},
	}
	issuer := &refresher.OAuth2{Config: oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: "https://sts.example/token"}}}
	cred := &reauth.Credential{Refresher: issuer.TokenExchange(refresher.TokenExchange{
		Subject: subject, SubjectType: "urn:ietf:params:oauth:token-type:id_token",
	})}
	_ = cred

	tok, err := subject.Refresh(context.Background(), reauth.Stale{})
	fmt.Println(tok.AccessToken, err)
	// Output: eyJ0 <nil>
}
