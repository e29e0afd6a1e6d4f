package refresher_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

const (
	oauthJWTBearer     = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	oauthExchange      = "urn:ietf:params:oauth:grant-type:token-exchange"
	oauthAccessType    = "urn:ietf:params:oauth:token-type:access_token"
	oauthDeviceGrant   = "urn:ietf:params:oauth:grant-type:device_code"
	oauthBasicApp      = "Basic YXBwOnRoZS1zZWNyZXQtb2YtdGhlLWFwcA==" // app:the-secret-of-the-app
	oauthClaimsRequest = `{"access_token":{"nbf":{"essential":true,"value":"~~~???>>>"}}}`
)

// RFC 6749 §4.4, §6, RFC 7523 §2.1, RFC 8693 §2.1: and nothing is sent twice to find
// out how the client is to show itself.
func TestGrantIsNeverSentInAnotherForm(t *testing.T) {
	key := oauthKey()
	assertion := func(o *refresher.OAuth2) reauth.Refresher {
		return o.Assertion(func(context.Context) (string, error) { return "signed", nil })
	}
	for _, c := range []struct {
		name  string
		get   func(o *refresher.OAuth2) reauth.Refresher
		set   func(o *refresher.OAuth2)
		stale reauth.Stale
		want  url.Values
		auth  string // "" for a client that names itself in the body
	}{
		{
			name: "refresh token", get: oauthRefresh.get, stale: oauthHeld(), auth: oauthBasicApp,
			want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"R0"}},
		}, {
			name: "refresh token without the scopes", get: oauthRefresh.get, stale: oauthHeld(), auth: oauthBasicApp,
			set:  func(o *refresher.OAuth2) { o.Config.Scopes = []string{"a", "b"} },
			want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"R0"}},
		}, {
			name: "refresh token of a public client", get: oauthRefresh.get, stale: oauthHeld(),
			set:  func(o *refresher.OAuth2) { o.Config.ClientSecret = "" },
			want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"R0"}, "client_id": {"app"}},
		}, {
			name: "secret in the body", get: oauthRefresh.get, stale: oauthHeld(),
			set:  func(o *refresher.OAuth2) { o.Config.Endpoint.AuthStyle = oauth2.AuthStyleInParams },
			want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"R0"}, "client_id": {"app"}, "client_secret": {oauthSecret}},
		}, {
			name: "public client in the header", get: oauthRefresh.get, stale: oauthHeld(), auth: "Basic YXBwOg==",
			set: func(o *refresher.OAuth2) {
				o.Config.ClientSecret, o.Config.Endpoint.AuthStyle = "", oauth2.AuthStyleInHeader
			},
			want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"R0"}},
		}, {
			name: "client that has to be escaped", get: oauthRefresh.get, stale: oauthHeld(),
			auth: "Basic " + base64.StdEncoding.EncodeToString([]byte("a%3Ab:c%26+%C3%A4")),
			set:  func(o *refresher.OAuth2) { o.Config.ClientID, o.Config.ClientSecret = "a:b", "c& ä" },
			want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"R0"}},
		}, {
			name: "params", get: oauthRefresh.get, stale: oauthHeld(), auth: oauthBasicApp,
			set: func(o *refresher.OAuth2) {
				o.Params = url.Values{"resource": {"https://a.example", "https://b.example"}}
			},
			want: url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"R0"}, "resource": {"https://a.example", "https://b.example"}},
		}, {
			name: "password, which logs in each time", get: oauthRefresh.get, stale: oauthHeld(), auth: oauthBasicApp,
			set: func(o *refresher.OAuth2) {
				o.Params = url.Values{"grant_type": {"password"}, "username": {"u"}, "password": {"p"}, "scope": {"a"}}
				o.Config.Scopes = []string{"b"}
			},
			want: url.Values{"grant_type": {"password"}, "username": {"u"}, "password": {"p"}, "scope": {"b a"}},
		}, {
			name: "another name for the refresh token grant", get: oauthRefresh.get, stale: oauthHeld(), auth: oauthBasicApp,
			set:  func(o *refresher.OAuth2) { o.Params = url.Values{"grant_type": {"renew"}} },
			want: url.Values{"grant_type": {"renew"}, "refresh_token": {"R0"}},
		}, {
			name: "client credentials", get: func(o *refresher.OAuth2) reauth.Refresher { return o.ClientCredentials() }, auth: oauthBasicApp,
			stale: oauthHeld(),
			want:  url.Values{"grant_type": {"client_credentials"}},
		}, {
			name: "client credentials with scopes and an audience", get: func(o *refresher.OAuth2) reauth.Refresher { return o.ClientCredentials() }, auth: oauthBasicApp,
			set: func(o *refresher.OAuth2) {
				o.Config.Scopes, o.Params = []string{"a", "b"}, url.Values{"audience": {"https://api.example.com/"}}
			},
			want: url.Values{"grant_type": {"client_credentials"}, "scope": {"a b"}, "audience": {"https://api.example.com/"}},
		}, {
			name: "assertion", get: assertion, auth: oauthBasicApp,
			set:  func(o *refresher.OAuth2) { o.Config.Scopes = []string{"a"} },
			want: url.Values{"grant_type": {oauthJWTBearer}, "assertion": {"signed"}, "scope": {"a"}},
		}, {
			name: "token exchange", auth: oauthBasicApp,
			get: func(o *refresher.OAuth2) reauth.Refresher {
				return o.TokenExchange(refresher.TokenExchange{Subject: oauthFixed("S")})
			},
			want: url.Values{"grant_type": {oauthExchange}, "subject_token": {"S"}, "subject_token_type": {oauthAccessType}},
		}, {
			name: "token exchange with an actor", auth: oauthBasicApp,
			get: func(o *refresher.OAuth2) reauth.Refresher {
				return o.TokenExchange(refresher.TokenExchange{
					Subject: oauthFixed("S"), SubjectType: "urn:ietf:params:oauth:token-type:jwt",
					Actor: oauthFixed("A"), RequestedType: "urn:ietf:params:oauth:token-type:id_token",
				})
			},
			set: func(o *refresher.OAuth2) {
				o.Config.Scopes, o.Params = []string{"a"}, url.Values{"audience": {"b"}}
			},
			want: url.Values{
				"grant_type": {oauthExchange}, "subject_token": {"S"}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
				"actor_token": {"A"}, "actor_token_type": {oauthAccessType}, "requested_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
				"scope": {"a"}, "audience": {"b"},
			},
		}, {
			name: "JWT bearer",
			get: func(o *refresher.OAuth2) reauth.Refresher {
				return o.JWTBearer(&jwt.Config{Email: "app@example.com", PrivateKey: key})
			},
			want: url.Values{"grant_type": {oauthJWTBearer}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := &oauthServer{}
			o := oauthApp(server)
			if c.set != nil {
				c.set(o)
			}
			tok, err := c.get(o).Refresh(t.Context(), c.stale)
			require.NoError(t, err)
			assert.Equal(t, "T1", tok.AccessToken)
			assert.Equal(t, "Bearer", tok.TokenType)
			send := server.only(t)
			if c.name == "JWT bearer" {
				send.form.Del("assertion")
			}
			assert.Equal(t, c.want, send.form)
			assert.Equal(t, c.auth, send.header.Get("Authorization"))
			assert.Equal(t, "application/x-www-form-urlencoded", send.header.Get("Content-Type"))
		})
	}
}

// A refused client is not shown to the server in the other way, which is a second
// request with the same refresh token.
func TestAuthStyleFoundOut(t *testing.T) {
	inHeader := func(req *http.Request) bool { return req.Header.Get("Authorization") != "" }
	for name, refusal := range map[string]func() *http.Response{
		"invalid_client":      func() *http.Response { return oauthError(401, "invalid_client") },
		"invalid_client, 400": func() *http.Response { return oauthError(400, "invalid_client") },
		"a bare 401":          func() *http.Response { return oauthAnswer(401, "") },
		"a 401 with a page": func() *http.Response {
			return oauthAnswer(401, "<html>Unauthorized</html>", "Content-Type", "text/html")
		},
		"Spring's": func() *http.Response {
			return oauthAnswer(401, `{"error":"unauthorized","error_description":"Full authentication is required to access this resource"}`)
		},
		"no client_id in the body": func() *http.Response {
			return oauthAnswer(400, `{"error":"invalid_request","error_description":"Missing parameter: client_id"}`)
		},
		"GitHub's, within a 200": func() *http.Response { return oauthError(200, "incorrect_client_credentials") },
	} {
		for _, wantsHeader := range []bool{true, false} {
			for _, grant := range append(oauthGrants(), oauthRefresh) {
				t.Run(fmt.Sprintf("%s, header %t, %s", name, wantsHeader, grant.name), func(t *testing.T) {
					server := &oauthServer{answer: func(n int, req *http.Request, _ url.Values) (*http.Response, error) {
						if grant.name != "JWT bearer" && inHeader(req) != wantsHeader {
							return refusal(), nil
						}
						return oauthToken(n), nil
					}}
					o := oauthApp(server)
					r := grant.get(o)
					want := 1
					if !wantsHeader && grant.name != "JWT bearer" { // in which no client takes part
						want = 2
					}
					_, err := r.Refresh(t.Context(), oauthHeld())
					require.NoError(t, err)
					require.Len(t, server.seen(), want)
					first, last := server.seen()[0].form, server.seen()[want-1].form
					assert.Equal(t, first.Get("grant_type"), last.Get("grant_type"), "the same grant")
					_, err = r.Refresh(t.Context(), oauthHeld())
					require.NoError(t, err)
					assert.Len(t, server.seen(), want+1, "the style is remembered")
				})
			}
		}
	}
}

func TestAuthStyleThatIsSetIsTheOnlyOne(t *testing.T) {
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
			return oauthError(401, "invalid_client"), nil
		}}
		o := oauthApp(server)
		o.Config.Endpoint.AuthStyle = style
		_, err := o.Refresh(t.Context(), oauthHeld())
		require.ErrorContains(t, err, "invalid_client")
		assert.Len(t, server.seen(), 1)
	}
}

func TestClientThatIsRefusedInEachStyle(t *testing.T) {
	for _, grant := range append(oauthGrants(), oauthRefresh) {
		server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
			return oauthError(401, "invalid_client"), nil
		}}
		r := grant.get(oauthApp(server))
		_, err := r.Refresh(t.Context(), oauthHeld())
		require.ErrorContains(t, err, "invalid_client", grant.name)
		assert.ErrorContains(t, err, "ClientSecret", grant.name)
		assert.Equal(t, grant.name == oauthRefresh.name, reauth.IsPermanent(err), "machines are asked again")
		want := 2
		if grant.name == "JWT bearer" {
			want = 1
		}
		assert.Len(t, server.seen(), want, grant.name)
	}
}

func TestJWTBearersClaimsAreNotThoseOfAnother(t *testing.T) {
	server := &oauthServer{}
	o := oauthApp(server)
	o.Config.Scopes = []string{"of the client"}
	conf := &jwt.Config{Email: "app@example.com", Subject: "user@example.com", PrivateKey: oauthKey()}
	r := o.JWTBearer(conf)
	_, err := r.Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	claims := oauthClaims(t, server.only(t).form.Get("assertion"))
	assert.Equal(t, "app@example.com", claims["iss"])
	assert.Equal(t, "user@example.com", claims["sub"])
	assert.Equal(t, oauthURL, claims["aud"])
	assert.Equal(t, "of the client", claims["scope"])
	assert.Equal(t, &jwt.Config{Email: "app@example.com", Subject: "user@example.com", PrivateKey: oauthKey()}, conf, "the caller's is not changed")

	conf.TokenURL, conf.Scopes = "https://other.example/token", []string{"of the key"}
	_, err = r.Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	claims = oauthClaims(t, server.seen()[1].form.Get("assertion"))
	assert.Equal(t, "https://other.example/token", claims["aud"])
	assert.Equal(t, "of the key", claims["scope"])
}

func TestJWTBearersIDTokenIsNotGivenTheAccessTokensLifetime(t *testing.T) {
	exp := time.Now().Add(20 * time.Minute).Truncate(time.Second)
	id := oauthJWT(exp)
	server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
		return oauthAnswer(200, `{"access_token":"T1","expires_in":60,"id_token":"`+id+`"}`), nil
	}}
	tok, err := oauthApp(server).JWTBearer(&jwt.Config{Email: "a", PrivateKey: oauthKey(), UseIDToken: true}).Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, id, tok.AccessToken)
	assert.True(t, exp.Equal(tok.Expiry), tok.Expiry)
}

func TestBrokenKeyIsNeitherSentNorShown(t *testing.T) {
	server := &oauthServer{}
	_, err := oauthApp(server).JWTBearer(&jwt.Config{Email: "a", PrivateKey: []byte("no-key-but-a-secret")}).Refresh(t.Context(), reauth.Stale{})
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "a-secret")
	assert.Empty(t, server.seen())
}

// What is made for each refresh is not kept.
func TestAssertionAndSubjectAreNeverThoseOfTheLastRefresh(t *testing.T) {
	server := &oauthServer{}
	n := 0
	o := oauthApp(server)
	assertion := o.Assertion(func(context.Context) (string, error) { n++; return fmt.Sprint("A", n), nil })
	exchange := o.TokenExchange(refresher.TokenExchange{Subject: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		n++
		return reauth.Token{AccessToken: fmt.Sprint("S", n)}, nil
	})})
	for _, r := range []reauth.Refresher{assertion, assertion, exchange, exchange} {
		_, err := r.Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
	}
	sends := server.seen()
	assert.Equal(t, "A1", sends[0].form.Get("assertion"))
	assert.Equal(t, "A2", sends[1].form.Get("assertion"))
	assert.Equal(t, "S3", sends[2].form.Get("subject_token"))
	assert.Equal(t, "S4", sends[3].form.Get("subject_token"))
}

func TestMissingPartOfAGrantIsNeitherSentNorARiddle(t *testing.T) {
	broken := errors.New("the key service is down")
	fails := reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) { return reauth.Token{}, broken })
	server := &oauthServer{}
	o := oauthApp(server)
	for _, c := range []struct {
		name  string
		r     reauth.Refresher
		says  string
		cause error
	}{
		{"no refresh token", o, "DeviceLogin", nil},
		{"no assertion", o.Assertion(func(context.Context) (string, error) { return "", broken }), "no assertion: the key service is down", broken},
		{"no subject", o.TokenExchange(refresher.TokenExchange{Subject: fails}), "no subject token: the key service is down", broken},
		{"no actor", o.TokenExchange(refresher.TokenExchange{Subject: oauthFixed("S"), Actor: fails}), "no actor token: the key service is down", broken},
		{"no function for the subject", o.TokenExchange(refresher.TokenExchange{}), "Subject", nil},
	} {
		_, err := c.r.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "T0"}})
		require.ErrorContains(t, err, c.says, c.name)
		if c.cause != nil {
			assert.ErrorIs(t, err, c.cause, c.name)
			assert.False(t, reauth.IsPermanent(err), c.name)
		}
	}
	assert.Empty(t, server.seen())
	_, err := o.Refresh(t.Context(), reauth.Stale{})
	assert.True(t, reauth.IsPermanent(err), "nobody but a login brings one")
}

func TestRotatedRefreshTokenIsNeitherLostNorUsedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
			if n%2 == 0 { // it rotates each second time
				return oauthAnswer(200, fmt.Sprintf(`{"access_token":"T%d","expires_in":60}`, n)), nil
			}
			return oauthAnswer(200, fmt.Sprintf(`{"access_token":"T%d","expires_in":60,"refresh_token":"R%d"}`, n, n)), nil
		}}
		cred := oauthCredential(t, oauthApp(server))
		for range 5 {
			_, err := cred.Token(t.Context())
			require.NoError(t, err)
			time.Sleep(time.Hour)
		}
		var used []string
		for _, send := range server.seen() {
			used = append(used, send.form.Get("refresh_token"))
		}
		assert.Equal(t, []string{"R0", "R1", "R1", "R3", "R3"}, used)
	})
}

// A grant that needs no refresh token keeps none.
func TestRefreshTokenOfAGrantThatIsRepeatedIsNotKept(t *testing.T) {
	for _, grant := range oauthGrants() {
		tok, err := grant.get(oauthApp(&oauthServer{})).Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		assert.Empty(t, tok.RefreshToken, grant.name)
	}
}

// RFC 6750 §3: what the API asks for, besides what is configured.
func TestScopeThatAChallengeAsksForIsNotIgnored(t *testing.T) {
	scope := func(t *testing.T, send oauthSend) any {
		if send.form.Get("grant_type") == oauthJWTBearer && send.form.Get("scope") == "" {
			return oauthClaims(t, send.form.Get("assertion"))["scope"]
		}
		return send.form.Get("scope")
	}
	for _, grant := range oauthGrants() {
		t.Run(grant.name, func(t *testing.T) {
			server := &oauthServer{}
			o := oauthApp(server)
			o.Config.Scopes = []string{"a", "b"}
			r := grant.get(o)
			stale := oauthRejected("scope", " b  c a d ")
			stale.Rejection.Challenges = append(stale.Rejection.Challenges, reauth.Challenge{Scheme: "DPoP", Params: map[string]string{"scope": "c e"}})
			_, err := r.Refresh(t.Context(), stale)
			require.NoError(t, err)
			assert.Equal(t, "a b c d e", scope(t, server.only(t)))

			_, err = r.Refresh(t.Context(), reauth.Stale{})
			require.NoError(t, err)
			assert.Equal(t, "a b", scope(t, server.seen()[1]), "it is asked for once")
			assert.Equal(t, []string{"a", "b"}, o.Config.Scopes)
		})
		t.Run(grant.name+", which the server does not know", func(t *testing.T) {
			server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
				if n == 1 {
					return oauthError(400, "invalid_scope"), nil
				}
				return oauthToken(n), nil
			}}
			o := oauthApp(server)
			o.Config.Scopes = []string{"a", "b"}
			tok, err := grant.get(o).Refresh(t.Context(), oauthRejected("scope", "c"))
			require.NoError(t, err)
			assert.Equal(t, "T2", tok.AccessToken)
			require.Len(t, server.seen(), 2)
			assert.Equal(t, "a b c", scope(t, server.seen()[0]))
			assert.Equal(t, "a b", scope(t, server.seen()[1]))
		})
		t.Run(grant.name+", of none", func(t *testing.T) {
			server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
				return oauthError(400, "invalid_scope"), nil
			}}
			_, err := grant.get(oauthApp(server)).Refresh(t.Context(), oauthRejected())
			require.ErrorContains(t, err, "invalid_scope")
			assert.Len(t, server.seen(), 1, "there is nothing to leave out")
		})
	}
}

// Continuous access evaluation. Entra ID has the claims in base64.
func TestClaimsThatAChallengeAsksForAreNotIgnored(t *testing.T) {
	require.Contains(t, base64.StdEncoding.EncodeToString([]byte(oauthClaimsRequest)), "/", "or the alphabets do not differ")
	for _, claims := range []string{
		oauthClaimsRequest,
		base64.StdEncoding.EncodeToString([]byte(oauthClaimsRequest)),
		base64.RawStdEncoding.EncodeToString([]byte(oauthClaimsRequest)),
		base64.URLEncoding.EncodeToString([]byte(oauthClaimsRequest)),
		base64.RawURLEncoding.EncodeToString([]byte(oauthClaimsRequest)),
	} {
		for _, grant := range append(oauthGrants(), oauthRefresh) {
			if grant.name == "JWT bearer" {
				continue // x/oauth2/jwt has no place for them
			}
			server := &oauthServer{}
			_, err := grant.get(oauthApp(server)).Refresh(t.Context(), oauthRejected("claims", claims, "scope", "c"))
			require.NoError(t, err)
			assert.Equal(t, oauthClaimsRequest, server.only(t).form.Get("claims"), "%s, %s", grant.name, claims)
			assert.Equal(t, grant.name != "refresh token", server.only(t).form.Has("scope"), "RFC 6749 §6: no more than was granted")
		}
	}
	server := &oauthServer{}
	_, err := oauthApp(server).Refresh(t.Context(), oauthRejected("claims", "not base64, no JSON"))
	require.NoError(t, err)
	assert.Equal(t, "not base64, no JSON", server.only(t).form.Get("claims"), "for the server to judge")
}

// All the way from the API's 401.
func TestClaimsOfA401ReachTheTokenEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		claims := base64.StdEncoding.EncodeToString([]byte(oauthClaimsRequest))
		server := &oauthServer{}
		cred := &reauth.Credential{Refresher: oauthApp(server), Logger: slog.New(slog.DiscardHandler)}
		require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0", RefreshToken: "R0"}))
		api := oauthBase(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Authorization") != "Bearer T1" {
				return oauthAnswer(401, "", "WWW-Authenticate", `Bearer realm="", error="insufficient_claims", claims="`+claims+`"`), nil
			}
			return oauthAnswer(200, ""), nil
		})
		client := &http.Client{Transport: &reauth.Transport{Base: api, Credential: cred, Logger: cred.Logger}}
		resp, err := client.Get("https://api.example.com/")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, oauthClaimsRequest, server.only(t).form.Get("claims"))
	})
}

func TestSecretNeverAppearsInAnErrorALogOrADump(t *testing.T) {
	key := oauthKey()
	secrets := map[string]string{
		"client secret":  oauthSecret,
		"refresh token":  "the-refresh-token-marker",
		"access token":   "the-access-token-marker",
		"assertion":      "the-assertion-marker",
		"subject token":  "the-subject-token-marker",
		"actor token":    "the-actor-token-marker",
		"new token":      "the-new-access-token-marker",
		"the answer":     "words-of-the-answer-marker",
		"location":       "location-query-marker",
		"basic":          strings.TrimPrefix(oauthBasicApp, "Basic "),
		"line of a key":  strings.Split(string(key), "\n")[1],
		"URL's password": "password-of-the-url",
	}
	echo := func(form url.Values) string {
		all := secrets["the answer"]
		for _, values := range form {
			all += " " + values[0]
		}
		return all
	}
	answers := map[string]func(form url.Values) (*http.Response, error){
		"HTML that repeats it": func(form url.Values) (*http.Response, error) {
			return oauthAnswer(400, "<html>"+echo(form)+secrets["client secret"], "Content-Type", "text/html"), nil
		},
		"a description that repeats it": func(form url.Values) (*http.Response, error) {
			form.Del("grant_type")
			var all []string
			for name, values := range form {
				all = append(all, name+" "+values[0]+" is wrong")
			}
			all = append(all, oauthSecret, oauthBasicApp)
			body, _ := json.Marshal(map[string]string{"error": "invalid_grant", "error_description": strings.Join(all, ", ")})
			return oauthAnswer(400, string(body)), nil
		},
		"a code that repeats it": func(form url.Values) (*http.Response, error) {
			body, _ := json.Marshal(map[string]string{"error": form.Get("refresh_token") + form.Get("assertion") + form.Get("subject_token")})
			return oauthAnswer(400, string(body)), nil
		},
		"a 200 that is no JSON": func(form url.Values) (*http.Response, error) {
			return oauthAnswer(200, echo(form)), nil
		},
		"a token that is none": func(url.Values) (*http.Response, error) {
			return oauthAnswer(200, `{"access_token":"`+secrets["new token"]+` \n"}`), nil
		},
		"a token of the wrong type": func(url.Values) (*http.Response, error) {
			return oauthAnswer(200, `{"access_token":{"`+secrets["new token"]+`":1}}`), nil
		},
		"a redirect": func(form url.Values) (*http.Response, error) {
			return oauthAnswer(307, "", "Location", "https://user:"+secrets["URL's password"]+"@elsewhere.example/?q="+secrets["location"]), nil
		},
		"an error of Base": func(form url.Values) (*http.Response, error) {
			return nil, errors.New("cannot send " + form.Encode() + " to " + oauthSecret + " " + oauthBasicApp)
		},
		"a Retry-After": func(form url.Values) (*http.Response, error) {
			return oauthAnswer(429, `{"error":"slow_down","error_description":"`+form.Get("refresh_token")+form.Get("assertion")+`"}`, "Retry-After", "60"), nil
		},
	}
	grants := map[string]func(o *refresher.OAuth2) reauth.Refresher{
		"refresh token":      func(o *refresher.OAuth2) reauth.Refresher { return o },
		"client credentials": func(o *refresher.OAuth2) reauth.Refresher { return o.ClientCredentials() },
		"JWT bearer": func(o *refresher.OAuth2) reauth.Refresher {
			return o.JWTBearer(&jwt.Config{Email: "app@example.com", PrivateKey: key})
		},
		"assertion": func(o *refresher.OAuth2) reauth.Refresher {
			return o.Assertion(func(context.Context) (string, error) { return secrets["assertion"], nil })
		},
		"token exchange": func(o *refresher.OAuth2) reauth.Refresher {
			return o.TokenExchange(refresher.TokenExchange{Subject: oauthFixed(secrets["subject token"]), Actor: oauthFixed(secrets["actor token"])})
		},
		"device": func(o *refresher.OAuth2) reauth.Refresher {
			return reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
				return o.DeviceLogin(ctx, func(*oauth2.DeviceAuthResponse) error { return nil })
			})
		},
	}
	for grant, get := range grants {
		for name, answer := range answers {
			t.Run(grant+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var out bytes.Buffer
					logger := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
					var jwts []string
					server := &oauthServer{answer: func(_ int, _ *http.Request, form url.Values) (*http.Response, error) {
						if a := form.Get("assertion"); grant == "JWT bearer" && a != "" {
							jwts = append(jwts, a, a[strings.LastIndex(a, ".")+1:])
						}
						return answer(form)
					}}
					o := oauthApp(server)
					o.Config.Endpoint.TokenURL = "https://user:" + secrets["URL's password"] + "@issuer.example/token?q=" + secrets["location"]
					inner := get(o)
					var direct error
					cred := &reauth.Credential{Logger: logger, Refresher: reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (tok reauth.Token, err error) {
						tok, err = inner.Refresh(ctx, stale)
						direct = err
						return tok, err
					})}
					require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: secrets["access token"], RefreshToken: secrets["refresh token"], Expiry: time.Now()}))
					_, err := cred.Token(t.Context())
					require.Error(t, err)
					require.Error(t, direct)
					for _, e := range []error{err, direct} {
						logger.Error("failed", "error", e, "client", o, "value", *o, "config", slog.AnyValue(o))
						for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%q", "%x"} {
							fmt.Fprintf(&out, verb+"\n", e)
						}
					}
					for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%q", "%x"} {
						fmt.Fprintf(&out, verb+verb+verb+"\n", o, *o, struct{ Client *refresher.OAuth2 }{o})
					}
					dump, err := json.Marshal(map[string]any{"client": o, "value": *o})
					require.NoError(t, err)
					out.Write(dump)
					require.Contains(t, out.String(), "OAuth2(app at https://issuer.example/token)")
					for what, secret := range secrets {
						assert.NotContains(t, out.String(), secret, what)
						assert.NotContains(t, out.String(), fmt.Sprintf("%x", secret), what)
					}
					for _, a := range jwts {
						assert.NotContains(t, out.String(), a)
					}
				})
			})
		}
	}
}

// Whoever wants to know more finds it.
func TestRetrieveErrorIsNotHidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, grant := range append(oauthGrants(), oauthRefresh) {
			for _, header := range [][]string{nil, {"Retry-After", "60"}} {
				server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
					return oauthAnswer(400, `{"error":"invalid_grant","error_description":"it has expired"}`, header...), nil
				}}
				cred := oauthCredential(t, grant.get(oauthApp(server)))
				_, err := cred.Token(t.Context())
				var refused *oauth2.RetrieveError
				require.ErrorAs(t, err, &refused, grant.name)
				assert.Equal(t, "invalid_grant", refused.ErrorCode, grant.name)
				assert.Equal(t, "it has expired", refused.ErrorDescription, grant.name)
				assert.Equal(t, 400, refused.Response.StatusCode)
				assert.ErrorContains(t, err, "the token endpoint answered 400 invalid_grant (it has expired)", grant.name)
			}
		}
	})
}

// Through a Credential.
func TestRevokedRefreshTokenIsNotSentAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{answer: func(_ int, _ *http.Request, form url.Values) (*http.Response, error) {
			if form.Get("refresh_token") == "R0" {
				return oauthError(400, "invalid_grant"), nil
			}
			return oauthToken(9), nil
		}}
		cred := oauthCredential(t, oauthApp(server))
		for range 100 {
			_, err := cred.Token(t.Context())
			require.True(t, reauth.IsLoginEnded(err), err)
			time.Sleep(time.Minute)
		}
		require.Len(t, server.seen(), 1)
		require.NoError(t, cred.Set(t.Context(), refresher.Token(&oauth2.Token{AccessToken: "T8", RefreshToken: "R8"})))
		tok, err := cred.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "T8"}, Rejection: reauth.Rejection{Reason: reauth.ReasonExpired}})
		require.NoError(t, err)
		assert.Equal(t, "T9", tok.AccessToken)
	})
}

// Base is the client that the token is for.
func TestRefreshThroughItsOwnTransportNeitherHangsNorCarriesTheToken(t *testing.T) {
	for _, grant := range append(oauthGrants(), oauthRefresh) {
		for _, secret := range []string{oauthSecret, ""} {
			t.Run(fmt.Sprintf("%s, secret %q", grant.name, secret), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &oauthServer{}
					api := oauthBase(func(req *http.Request) (*http.Response, error) {
						if req.URL.Host == "issuer.example" {
							return server.RoundTrip(req)
						}
						if req.Header.Get("Authorization") != "Bearer T1" {
							return oauthAnswer(401, "", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
						}
						return oauthAnswer(200, ""), nil
					})
					o := oauthApp(nil)
					o.Config.ClientSecret = secret
					cred := &reauth.Credential{Refresher: grant.get(o), Logger: slog.New(slog.DiscardHandler)}
					require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0", RefreshToken: "R0"}))
					transport := &reauth.Transport{Base: api, Credential: cred, Logger: cred.Logger}
					o.Base = transport

					client := &http.Client{Transport: transport}
					resp, err := client.Get("https://api.example.com/")
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					assert.Equal(t, 200, resp.StatusCode)
					want := oauthBasicApp
					if secret == "" || grant.name == "JWT bearer" {
						want = ""
					}
					assert.Equal(t, want, server.only(t).header.Get("Authorization"))
				})
			})
		}
	}
}

// And a 401 of the token endpoint starts no other refresh.
func TestRefusedRefreshThroughItsOwnTransportIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
			return oauthError(401, "invalid_client", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
		}}
		o := oauthApp(nil)
		o.Config.ClientSecret = ""
		cred := oauthCredential(t, o)
		o.Base = &reauth.Transport{Base: server, Credential: cred, Logger: cred.Logger}
		_, err := cred.Token(t.Context())
		require.ErrorContains(t, err, "invalid_client")
		assert.Len(t, server.seen(), 1)
	})
}

// The subject token is that of another Credential.
func TestTokenExchangeOfAnotherCredentialsTokenIsNotStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{}
		users := oauthCredential(t, oauthApp(server))
		services := oauthCredential(t, oauthApp(server).TokenExchange(refresher.TokenExchange{Subject: users}))
		tok, err := services.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "T2", tok.AccessToken)
		assert.Equal(t, "T1", server.seen()[1].form.Get("subject_token"))
		time.Sleep(2 * time.Hour)
		_, err = services.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "T3", server.seen()[3].form.Get("subject_token"))
	})
}

// With rotation and reuse detection, on sockets.
func TestAHundredCallersNeverGetTheRefreshTokensRevoked(t *testing.T) {
	rotating := &oauthRotating{live: "R0"}
	server := &oauthServer{answer: func(_ int, _ *http.Request, form url.Values) (*http.Response, error) {
		return rotating.take(form.Get("refresh_token")), nil
	}}
	o, _ := oauthListen(t, server)
	o.Params = url.Values{"audience": {"https://api.example.com/"}}
	cred := oauthCredential(t, o)
	var revoked atomic.Int32 // up to this Tn
	api := oauthBase(func(req *http.Request) (*http.Response, error) {
		var n int32
		if _, err := fmt.Sscanf(req.Header.Get("Authorization"), "Bearer T%d", &n); err != nil || n <= revoked.Load() {
			return oauthAnswer(401, "", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
		}
		return oauthAnswer(200, ""), nil
	})
	client := &http.Client{Transport: &reauth.Transport{Base: api, Credential: cred, Logger: cred.Logger, RetryWait: -1}}
	const callers, revocations = 100, 10
	for range revocations {
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				resp, err := client.Get("https://api.example.com/")
				if assert.NoError(t, err) {
					_ = resp.Body.Close()
					assert.Equal(t, 200, resp.StatusCode)
				}
			})
		}
		all.Wait()
		revoked.Add(1)
	}
	assert.Len(t, server.seen(), revocations)
	assert.False(t, rotating.revoked)
}

// An OAuth2 may serve any number of Credentials.
func TestAHundredCredentialsShareAClientAndNothingElse(t *testing.T) {
	server := &oauthServer{answer: func(_ int, _ *http.Request, form url.Values) (*http.Response, error) {
		return oauthAnswer(200, fmt.Sprintf(`{"access_token":"for-%s%s"}`, form.Get("refresh_token"), form.Get("scope"))), nil
	}}
	o, _ := oauthListen(t, server)
	o.Params = url.Values{"audience": {"https://api.example.com/"}}
	grants := append(oauthGrants(), oauthRefresh)
	var all sync.WaitGroup
	for n := range 100 {
		all.Go(func() {
			grant := grants[n%len(grants)]
			stale := oauthRejected("scope", fmt.Sprint("scope", n))
			stale.Token.RefreshToken = fmt.Sprint("R", n)
			tok, err := grant.get(o).Refresh(t.Context(), stale)
			if !assert.NoError(t, err) || grant.name == "JWT bearer" {
				return
			}
			want := fmt.Sprint("for-scope", n)
			if grant.name == "refresh token" {
				want = fmt.Sprint("for-R", n)
			}
			assert.Equal(t, want, tok.AccessToken)
		})
	}
	all.Wait()
	assert.Equal(t, url.Values{"audience": {"https://api.example.com/"}}, o.Params)
}

// An oauthBase is a Base that is a function.
type oauthBase func(*http.Request) (*http.Response, error)

func (f oauthBase) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := f(req)
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return resp, err
}

const oauthDevice = `{"device_code":"the-device-code","user_code":"WDJB-MJHT","verification_uri":"https://issuer.example/activate","expires_in":600,"interval":5}`

// oauthDeviceServer answers the request for a device code with device, and then
// each poll as poll has it, n from 1.
func oauthDeviceServer(device string, poll func(n int) *http.Response) *oauthServer {
	s := &oauthServer{}
	s.answer = func(n int, req *http.Request, _ url.Values) (*http.Response, error) {
		if strings.HasSuffix(req.URL.Path, "/device") {
			return oauthAnswer(200, device), nil
		}
		return poll(n - 1), nil
	}
	return s
}

// RFC 8628.
func TestDeviceLoginNeitherHurriesTheServerNorMissesItsAnswer(t *testing.T) {
	for _, secret := range []string{oauthSecret, ""} {
		synctest.Test(t, func(t *testing.T) {
			server := oauthDeviceServer(oauthDevice, func(n int) *http.Response {
				switch n {
				case 1, 2:
					return oauthError(400, "authorization_pending")
				case 3:
					return oauthError(400, "slow_down")
				case 4:
					return oauthError(400, "authorization_pending")
				}
				return oauthToken(1)
			})
			o := oauthApp(server)
			o.Config.ClientSecret = secret
			o.Config.Scopes = []string{"repo", "user"}
			o.Params = url.Values{"audience": {"https://api.example.com/"}}
			var shown []string
			tok, err := o.DeviceLogin(t.Context(), func(d *oauth2.DeviceAuthResponse) error {
				shown = append(shown, d.UserCode, d.VerificationURI)
				return nil
			})
			require.NoError(t, err)
			assert.Equal(t, []string{"WDJB-MJHT", "https://issuer.example/activate"}, shown)
			assert.Equal(t, "T1", tok.AccessToken)
			assert.Equal(t, "R1", tok.RefreshToken)
			assert.Equal(t, []time.Duration{0, 5 * time.Second, 10 * time.Second, 15 * time.Second, 25 * time.Second, 35 * time.Second}, server.times())
			sends := server.seen()
			assert.Equal(t, url.Values{"client_id": {"app"}, "scope": {"repo user"}, "audience": {"https://api.example.com/"}}, sends[0].form)
			for _, send := range sends[1:] {
				assert.Equal(t, url.Values{
					"grant_type": {oauthDeviceGrant}, "device_code": {"the-device-code"},
					"client_id": {"app"}, "audience": {"https://api.example.com/"},
				}, send.form)
				if secret == "" {
					assert.Empty(t, send.header.Get("Authorization"))
				} else {
					assert.Equal(t, oauthBasicApp, send.header.Get("Authorization"))
				}
			}

			cred := &reauth.Credential{Refresher: o, Logger: slog.New(slog.DiscardHandler)}
			require.NoError(t, cred.Set(t.Context(), tok))
			time.Sleep(2 * time.Hour)
			_, err = cred.Token(t.Context())
			require.NoError(t, err)
			assert.Equal(t, "R1", server.seen()[6].form.Get("refresh_token"))
		})
	}
}

func TestFailedDeviceLoginIsNeverARiddle(t *testing.T) {
	gone := errors.New("the user has gone")
	for _, c := range []struct {
		name   string
		device string
		poll   func(n int) *http.Response
		show   error
		says   string
		is     error
		sends  int
		took   time.Duration
	}{
		{name: "denied", device: oauthDevice, poll: func(int) *http.Response { return oauthError(400, "access_denied") }, says: "access_denied", sends: 2, took: 5 * time.Second},
		{name: "expired", device: oauthDevice, poll: func(int) *http.Response { return oauthError(400, "expired_token") }, says: "expired_token", sends: 2, took: 5 * time.Second},
		{name: "expired by the clock", device: strings.Replace(oauthDevice, "600", "12", 1), poll: func(int) *http.Response { return oauthError(400, "authorization_pending") }, says: "deadline", sends: 3, took: 12 * time.Second},
		{name: "nothing is shown", device: oauthDevice, show: gone, says: "device login: the user has gone", is: gone, sends: 1},
		{name: "the device flow is off", device: `{"error":"device_flow_disabled"}`, says: "device authorization endpoint answered 200 device_flow_disabled", sends: 1},
		{name: "null", device: `null`, says: "device_code", sends: 1},
		{name: "an empty answer", device: ``, says: "device login", sends: 1},
		{name: "redirected while asking", device: oauthDevice, poll: func(int) *http.Response { return oauthAnswer(302, "", "Location", "https://elsewhere.example/") }, says: "https://elsewhere.example/", sends: 2, took: 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := oauthDeviceServer(c.device, c.poll)
				start := time.Now()
				tok, err := oauthApp(server).DeviceLogin(t.Context(), func(d *oauth2.DeviceAuthResponse) error {
					require.NotEmpty(t, d.DeviceCode)
					return c.show
				})
				require.ErrorContains(t, err, c.says)
				assert.True(t, strings.HasPrefix(err.Error(), "device login: "), err)
				assert.Zero(t, tok)
				if c.is != nil {
					assert.ErrorIs(t, err, c.is)
				}
				assert.Len(t, server.seen(), c.sends)
				assert.Equal(t, c.took, time.Since(start))
			})
		})
	}
}

func TestDeviceLoginWithoutAnEndpointOverPlainHTTPOrRefusedShowsNothing(t *testing.T) {
	show := func(*oauth2.DeviceAuthResponse) error { panic("shown") }
	server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
		return oauthError(400, "unauthorized_client"), nil
	}}
	o := oauthApp(server)
	o.Config.Endpoint.DeviceAuthURL = ""
	_, err := o.DeviceLogin(t.Context(), show)
	require.ErrorContains(t, err, "OAuth2.Config.Endpoint")
	o.Config.Endpoint.DeviceAuthURL = "http://issuer.example/device"
	_, err = o.DeviceLogin(t.Context(), show)
	require.ErrorIs(t, err, reauth.ErrInsecure)
	assert.Empty(t, server.seen())
	o.Config.Endpoint.DeviceAuthURL = "https://issuer.example/device"
	_, err = o.DeviceLogin(t.Context(), show)
	var refused *oauth2.RetrieveError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "unauthorized_client", refused.ErrorCode)
	assert.Len(t, server.seen(), 1)
}

// x/oauth2 makes that request without a context.
func TestDeviceLoginNeverOutlivesItsContext(t *testing.T) {
	for _, path := range []string{"/device", "/token"} {
		for _, traced := range []bool{true, false} {
			t.Run(fmt.Sprint(path, traced), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &oauthServer{answer: func(_ int, req *http.Request, _ url.Values) (*http.Response, error) {
						if req.URL.Path == path {
							<-req.Context().Done()
							return nil, context.Cause(req.Context())
						}
						return oauthAnswer(200, oauthDevice), nil
					}}
					o := oauthApp(server)
					if traced {
						o.Base = oauthPipe(t, server)
						o.Config.Endpoint.TokenURL, o.Config.Endpoint.DeviceAuthURL = "http://127.0.0.1/token", "http://127.0.0.1/device"
					}
					gone := errors.New("the user has gone")
					ctx, cancel := context.WithCancelCause(t.Context())
					time.AfterFunc(20*time.Second, func() { cancel(gone) })
					start := time.Now()
					_, err := o.DeviceLogin(ctx, func(*oauth2.DeviceAuthResponse) error { return nil })
					require.ErrorIs(t, err, gone)
					assert.Equal(t, 20*time.Second, time.Since(start))
				})
			})
		}
	}
}

// A server that hangs does not hold the login past the code's end.
func TestDeviceLoginNeverOutlivesItsCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{answer: func(_ int, req *http.Request, _ url.Values) (*http.Response, error) {
			if req.URL.Path == "/token" {
				<-req.Context().Done()
				return nil, context.Cause(req.Context())
			}
			return oauthAnswer(200, oauthDevice), nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		start := time.Now()
		_, err := oauthApp(server).DeviceLogin(ctx, func(*oauth2.DeviceAuthResponse) error { return nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 10*time.Minute, time.Since(start))
	})
}

// A busy server is asked again for a device code, and for the token.
func TestBusyServerDoesNotEndADeviceLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Int32
		server := oauthDeviceServer(oauthDevice, func(int) *http.Response { return oauthToken(1) })
		answer := server.answer
		server.answer = func(n int, req *http.Request, form url.Values) (*http.Response, error) {
			if busy.Add(1)%2 == 1 {
				return oauthAnswer(503, "", "Retry-After", "1"), nil
			}
			return answer(n, req, form)
		}
		tok, err := oauthApp(server).DeviceLogin(t.Context(), func(*oauth2.DeviceAuthResponse) error { return nil })
		require.NoError(t, err)
		assert.Equal(t, "T1", tok.AccessToken)
		assert.Len(t, server.seen(), 4)
	})
}

// The body of an answer is read before the next request is made.
func TestAnswerThatIsCutIsNeverTakenForAToken(t *testing.T) {
	for _, grant := range oauthGrants() {
		synctest.Test(t, func(t *testing.T) {
			server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
				resp := oauthToken(n)
				if n < 3 {
					resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"access_token":"half"}`), oauthBroken{}))
				}
				return resp, nil
			}}
			tok, err := grant.get(oauthApp(server)).Refresh(t.Context(), reauth.Stale{})
			require.NoError(t, err)
			assert.Equal(t, "T3", tok.AccessToken)
		})
	}
}

type oauthBroken struct{}

func (oauthBroken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
