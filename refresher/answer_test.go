package refresher_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
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

// oauthAnswers is an endpoint that gives one answer after the other, the last for ever.
func oauthAnswers(answers ...func() (*http.Response, error)) *oauthServer {
	return &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
		return answers[min(n, len(answers))-1]()
	}}
}

func oauthSays(status int, body string, header ...string) func() (*http.Response, error) {
	return func() (*http.Response, error) { return oauthAnswer(status, body, header...), nil }
}

func oauthBreaks() (*http.Response, error) { return nil, errors.New("connection reset by peer") }

func rejectedFirst() reauth.Stale {
	return reauth.Stale{Token: reauth.Token{AccessToken: "T0"}, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}}
}

// Whatever is wrong with the access token, the refresh token beside it is the only one
// that an issuer which rotates them still takes.
func TestRefreshTokenThatArrivedIsNeverThrownAway(t *testing.T) {
	past := oauthJWT(time.Unix(1e9, 0))
	for name, answer := range map[string]func() (*http.Response, error){
		"the access token is the old one":     oauthSays(200, `{"access_token":"T0","refresh_token":"R1"}`),
		"it fails Validate":                   oauthSays(200, `{"access_token":"T\n1","refresh_token":"R1"}`),
		"it is empty":                         oauthSays(200, `{"access_token":"","refresh_token":"R1"}`),
		"there is none":                       oauthSays(200, `{"refresh_token":"R1"}`),
		"it is a JWT that has expired":        oauthSays(200, `{"access_token":"`+past+`","refresh_token":"R1"}`),
		"of a type that no bearer client has": oauthSays(200, `{"access_token":"T1","token_type":"DPoP","refresh_token":"R1"}`),
		"an error of 0":                       oauthSays(200, `{"error":0,"access_token":"T1","refresh_token":"R1"}`),
		"an error of null":                    oauthSays(200, `{"error":null,"access_token":"T1","refresh_token":"R1"}`),
		"an empty error":                      oauthSays(200, `{"error":"","access_token":"T1","refresh_token":"R1"}`),
		"an error beside it":                  oauthSays(200, `{"error":"warning","access_token":"T1","refresh_token":"R1"}`),
		"a BOM":                               oauthSays(200, "\xef\xbb\xbf"+`{"access_token":"T1","refresh_token":"R1"}`),
		"a form as HTML":                      oauthSays(200, "access_token=T1&refresh_token=R1&expires_in=3600", "Content-Type", "text/html"),
		"JSON as HTML":                        oauthSays(200, `{"access_token":"T1","refresh_token":"R1"}`, "Content-Type", "text/html"),
		"in data":                             oauthSays(200, `{"code":0,"msg":"success","data":{"access_token":"T1","refresh_token":"R1"}}`),
		"in authed_user":                      oauthSays(200, `{"ok":true,"authed_user":{"access_token":"T1","refresh_token":"R1"}}`),
		"in AuthenticationResult":             oauthSays(200, `{"AuthenticationResult":{"AccessToken":"T1","RefreshToken":"R1","ExpiresIn":3600}}`),
		"in an object of another name":        oauthSays(200, `{"tokens":{"accessToken":"T1","refreshToken":"R1"}}`),
		"with a 201":                          oauthSays(201, `{"access_token":"T1","refresh_token":"R1"}`),
		"with a number as the lifetime of it": oauthSays(200, `{"access_token":"T1","refresh_token":"R1","expires_in":"soon"}`),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := oauthAnswers(answer, oauthSays(200, `{"access_token":"T2","refresh_token":"R2"}`))
				cred := &reauth.Credential{Refresher: oauthApp(server), Logger: localDiscard}
				require.NoError(t, cred.Set(t.Context(), reauth.Token{AccessToken: "T0", RefreshToken: "R0"}))
				why := rejectedFirst()
				tok, _ := cred.Refresh(t.Context(), why)
				if tok.AccessToken == "" {
					tok = why.Token
				}
				time.Sleep(time.Minute)
				tok, err := cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: why.Rejection})
				require.NoError(t, err)
				assert.Equal(t, "T2", tok.AccessToken)
				assert.Equal(t, "R1", server.seen()[1].form.Get("refresh_token"))
			})
		})
	}
}

func TestRefreshTokenThatDidNotChangeIsNotNew(t *testing.T) {
	for _, echo := range []string{oauthHeld().Token.RefreshToken, "what a 400 says is none"} {
		server := oauthAnswers(oauthSays(400, `{"error":"invalid_scope","refresh_token":"`+echo+`"}`))
		_, err := oauthApp(server).Refresh(t.Context(), oauthHeld())
		require.ErrorContains(t, err, "invalid_scope")
	}
}

func TestAnswersThatMayHaveUsedTheRefreshTokenUp(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func() (*http.Response, error)
		lost   bool
	}{
		"a connection that broke": {oauthBreaks, true},
		"502":                     {oauthSays(502, ""), true},
		"504":                     {oauthSays(504, "<html>"), true},
		"520":                     {oauthSays(520, ""), true},
		"524":                     {oauthSays(524, "error code: 524"), true},
		"a page in a 200":         {oauthSays(200, "<html>Welcome to this hotel</html>"), true},
		"an empty 200":            {oauthSays(200, ""), true},
		"JSON that is cut":        {oauthSays(200, `{"access_token":"T1","refresh`), true},
		"a 200 without a token":   {oauthSays(200, `{"token_type":"Bearer"}`), true},
		"more than 1 MiB":         {oauthSays(200, strings.Repeat(" ", 2<<20)), true},
		"400":                     {oauthSays(400, `{"error":"moon_phase"}`), false},
		"500":                     {oauthSays(500, ""), false},
		"429":                     {oauthSays(429, ""), false},
		"an error in a 200":       {oauthSays(200, `{"error":"moon_phase"}`), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := oauthApp(oauthAnswers(tt.answer)).Refresh(t.Context(), oauthHeld())
				require.Error(t, err)
				assert.Equal(t, tt.lost, reauth.IsAnswerLost(err), err)
				assert.False(t, reauth.IsPermanent(err))

				for _, grant := range oauthGrants() {
					_, err := grant.get(oauthApp(oauthAnswers(tt.answer))).Refresh(t.Context(), reauth.Stale{})
					require.Error(t, err)
					assert.False(t, reauth.IsAnswerLost(err), "nothing is used up: %s", grant.name)
				}
			})
		})
	}
}

// What httptrace has seen counts, and only if it has seen nothing, the kind of the error.
func TestAnswerLostAsHTTPTraceSawIt(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	handshake := &tls.CertificateVerificationError{Err: errors.New("unknown authority")}
	connecting := func(trace *httptrace.ClientTrace) { trace.GetConn("issuer.example:443") }
	writing := func(trace *httptrace.ClientTrace) { connecting(trace); trace.WroteHeaders() }
	nothing := func(*httptrace.ClientTrace) {}
	for name, tt := range map[string]struct {
		saw  func(*httptrace.ClientTrace)
		err  error
		lost bool
	}{
		"no connection, a strange error":       {connecting, io.ErrUnexpectedEOF, false},
		"written, an error of a dial":          {writing, dial, true},
		"written, then reset":                  {writing, errors.New("connection reset by peer"), true},
		"nothing was seen, a dial failed":      {nothing, dial, false},
		"nothing was seen, a handshake failed": {nothing, handshake, false},
		"nothing was seen, an alert of one":    {nothing, &net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")}, false},
		"nothing was seen, an alert later":     {nothing, &net.OpError{Op: "remote error", Err: errors.New("tls: bad record MAC")}, true},
		"nothing was seen, no TLS there":       {nothing, tls.RecordHeaderError{Msg: "not TLS"}, false},
		"nothing was seen, a strange error":    {nothing, io.ErrUnexpectedEOF, true},
		"nothing was seen, a timeout":          {nothing, context.DeadlineExceeded, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sends := 0
				server := &oauthServer{answer: func(_ int, req *http.Request, _ url.Values) (*http.Response, error) {
					sends++
					if trace := httptrace.ContextClientTrace(req.Context()); trace != nil {
						tt.saw(trace)
					}
					return nil, tt.err
				}}
				_, err := oauthApp(server).Refresh(t.Context(), oauthHeld())
				require.ErrorIs(t, err, tt.err)
				assert.Equal(t, tt.lost, reauth.IsAnswerLost(err))
				if tt.lost {
					assert.Equal(t, 1, sends)
				}
			})
		})
	}
}

// The issuer rotates: its first answer brings R1. The second is lost.
func TestReuseOfARefreshTokenInDoubt(t *testing.T) {
	const grace = 30 * time.Second
	for name, tt := range map[string]struct {
		reuse    time.Duration
		rejected bool
		after    time.Duration // of the lost answer
		again    bool          // is the refresh token presented
	}{
		"unknown, the access token is good":  {0, false, 20 * time.Second, false},
		"unknown, the access token rejected": {0, true, 20 * time.Second, true},
		"within it":                          {grace, false, 20 * time.Second, true},
		"at its end":                         {grace, false, grace, true},
		"just after it":                      {grace, false, grace + 1, false},
		"after it, the access token is good": {grace, false, 2 * time.Minute, false},
		"after it, rejected":                 {grace, true, 2 * time.Minute, true},
		"never":                              {-1, true, 20 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := oauthAnswers(oauthSays(200, `{"access_token":"T2","refresh_token":"R2","expires_in":3600}`))
				o := oauthApp(server)
				o.Reuse = tt.reuse
				stale := reauth.Stale{
					Token:        reauth.Token{AccessToken: "T1", RefreshToken: "R1", Expiry: time.Now().Add(time.Hour)},
					AnswerLostAt: time.Now(),
				}
				if tt.rejected {
					stale.Rejection.Reason = reauth.ReasonRevoked
				}
				time.Sleep(tt.after)
				_, err := o.Refresh(t.Context(), stale)
				if tt.again {
					require.NoError(t, err)
					return
				}
				assert.Empty(t, server.seen())
				require.ErrorContains(t, err, "2000-01-01T00:00:00Z", "when it was lost")
				assert.Equal(t, tt.reuse < 0, reauth.IsPermanent(err))
				assert.False(t, reauth.IsAnswerLost(err), "the doubt stays as it is")
				var asks interface{ RetryAfter() time.Duration }
				if tt.reuse >= 0 {
					require.ErrorAs(t, err, &asks)
					assert.Equal(t, time.Hour-tt.after, asks.RetryAfter(), "until the access token expires")
				}
			})
		})
	}
}

func TestInvalidGrantAfterADoubtSaysWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stale := oauthHeld()
		stale.Rejection.Reason, stale.AnswerLostAt = reauth.ReasonRevoked, time.Now()
		time.Sleep(time.Hour)
		_, err := oauthApp(oauthAnswers(oauthSays(400, `{"error":"invalid_grant"}`))).Refresh(t.Context(), stale)
		assert.True(t, reauth.IsLoginEnded(err))
		assert.ErrorContains(t, err, "the answer to the refresh of 2000-01-01T00:00:00Z was lost")
	})
}

// What issuers answer that do not speak RFC 6749, in the shapes of their documentation
// and of their users' reports.
func TestIssuersOfOtherLanguages(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		body   string
		says   string
		dead   bool
	}{
		"OpenAI":              {401, `{"error":{"message":"Your refresh token has already been used to generate a new access token. Please try signing in again.","type":"invalid_request_error","param":null,"code":"refresh_token_reused"}}`, "refresh_token_reused", true},
		"HubSpot":             {400, `{"status":"BAD_REFRESH_TOKEN","message":"missing or unknown refresh token","correlationId":"c-1"}`, "missing or unknown refresh token", true},
		"Fitbit":              {400, `{"errors":[{"errorType":"invalid_grant","message":"Refresh token invalid: [redacted]. Visit https://dev.fitbit.com/docs/oauth2 for more information."}],"success":false}`, "invalid_grant", true},
		"Strava":              {400, `{"message":"Bad Request","errors":[{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}]}`, "Bad Request", true},
		"Supabase":            {400, `{"code":400,"error_code":"refresh_token_not_found","msg":"Invalid Refresh Token: Refresh Token Not Found"}`, "refresh_token_not_found", true},
		"Supabase, older":     {400, `{"error":"invalid_grant","error_description":"Invalid Refresh Token: Already Used"}`, "Already Used", true},
		"Firebase":            {400, `{"error":{"code":400,"message":"TOKEN_EXPIRED","status":"INVALID_ARGUMENT"}}`, "TOKEN_EXPIRED", true},
		"Firebase, invalid":   {400, `{"error":{"code":400,"message":"INVALID_REFRESH_TOKEN","status":"INVALID_ARGUMENT"}}`, "INVALID_REFRESH_TOKEN", true},
		"Firebase, disabled":  {400, `{"error":{"code":400,"message":"USER_DISABLED","errors":[{"message":"USER_DISABLED"}]}}`, "USER_DISABLED", true},
		"Cognito":             {400, `{"__type":"NotAuthorizedException","message":"Refresh Token has been revoked"}`, "Refresh Token has been revoked", true},
		"Cognito, expired":    {400, `{"__type":"com.amazonaws.cognito#NotAuthorizedException","message":"Refresh Token has expired"}`, "expired", true},
		"Facebook":            {400, `{"error":{"message":"Error validating access token: Session has expired on Tuesday","type":"OAuthException","code":190,"error_subcode":463,"fbtrace_id":"f"}}`, "190", true},
		"Feishu":              {400, `{"code":20037,"error":"invalid_grant","error_description":"The refresh token passed is invalid."}`, "invalid_grant", true},
		"Feishu, 200":         {200, `{"code":20026,"msg":"refresh token invalid"}`, "20026", true},
		"Feishu, Chinese":     {200, `{"code":20064,"msg":"refresh_token 已使用"}`, "已使用", true},
		"Zoho":                {200, `{"error":"invalid_code"}`, "invalid_code", true},
		"Slack":               {200, `{"ok":false,"error":"token_revoked"}`, "token_revoked", true},
		"Salesforce":          {400, `{"error":"inactive_user","error_description":"user is inactive"}`, "user is inactive", true},
		"GitHub, as a form":   {200, `error=bad_refresh_token&error_description=The+refresh+token+passed+is+incorrect+or+expired.`, "bad_refresh_token", true},
		"invalid_request":     {400, `{"error":"invalid_request","error_description":"The refresh token is no longer valid"}`, "no longer valid", true},
		"a wrong grant":       {400, `{"error":"unsupported_grant_type","error_description":"The grant refresh_token is unknown"}`, "unknown", false},
		"a wrong scope":       {400, `{"error":"invalid_scope","error_description":"The scope is invalid for this refresh token"}`, "scope", false},
		"a wrong client":      {401, `{"error":"invalid_client","error_description":"Refresh token of another client, which is unknown"}`, "client", false},
		"a use":               {400, `{"message":"a refresh token is used with POST"}`, "POST", false},
		"a status in a 200":   {200, `{"code":500,"msg":"try later"}`, "500 (try later)", false},
		"a 401 in a 200":      {200, `{"code":401,"msg":"refresh_token 无效"}`, "无效", true},
		"a missing parameter": {400, `{"message":"refresh_token is a required parameter"}`, "required parameter", false},
		"HubSpot, busy":       {429, `{"status":"error","message":"You have reached your ten_secondly limit.","errorType":"RATE_LIMIT"}`, "limit", false},
		"Firebase, quota":     {400, `{"error":{"code":400,"message":"QUOTA_EXCEEDED","status":"RESOURCE_EXHAUSTED"}}`, "QUOTA_EXCEEDED", false},
		"Supabase, busy":      {500, `{"code":500,"error_code":"unexpected_failure","msg":"Database error finding refresh token"}`, "unexpected_failure", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := oauthAnswers(oauthSays(tt.status, tt.body))
				_, err := oauthApp(server).Refresh(t.Context(), oauthHeld())
				require.Error(t, err)
				assert.Equal(t, tt.dead, reauth.IsLoginEnded(err), err)
				assert.False(t, reauth.IsAnswerLost(err), "the answer is there")
				assert.ErrorContains(t, err, tt.says)
				if name != "a wrong client" {
					assert.Len(t, server.seen(), 1)
				}
				var refused *oauth2.RetrieveError
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, tt.body, string(refused.Body))
			})
		})
	}
}

func TestTheIssuersWordsAreMasked(t *testing.T) {
	stale := oauthHeld()
	stale.Token.RefreshToken = "1//0refresh-Token-of-the-user"
	body := fmt.Sprintf(`{"status":"BAD_REFRESH_TOKEN","message":"unknown refresh token %s"}`, strings.ToUpper(stale.Token.RefreshToken))
	_, err := oauthApp(oauthAnswers(oauthSays(400, body))).Refresh(t.Context(), stale)
	require.True(t, reauth.IsLoginEnded(err))
	assert.NotContains(t, strings.ToLower(fmt.Sprintf("%v %+v %#v", err, err, err)), "0refresh-token-of-the-user")
}

func TestPermanentOfTheCaller(t *testing.T) {
	for _, grant := range append(oauthGrants(), oauthRefresh) {
		o := oauthApp(oauthAnswers(oauthSays(400, `{"error":"moon_phase"}`)))
		o.Permanent = func(e *oauth2.RetrieveError) bool { return e.ErrorCode == "moon_phase" }
		_, err := grant.get(o).Refresh(t.Context(), oauthHeld())
		assert.True(t, reauth.IsPermanent(err), grant.name)
		assert.False(t, reauth.IsLoginEnded(err), grant.name)
	}
}

func TestMachinesRecover(t *testing.T) {
	for name, body := range map[string]string{
		"invalid_client": `{"error":"invalid_client"}`,
		"invalid_grant":  `{"error":"invalid_grant"}`,
		"Entra, a secret that has been replaced": `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. ` +
			`Ensure the secret being sent in the request is the client secret value.","error_codes":[7000215],"trace_id":"t","correlation_id":"c"}`,
		"Entra, an application that is new": `{"error":"unauthorized_client","error_description":"AADSTS700016: Application with identifier 'app' ` +
			`was not found in the directory.","error_codes":[700016],"trace_id":"t","correlation_id":"c"}`,
		"Google, a clock that is wrong": `{"error":"invalid_grant","error_description":"Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."}`,
	} {
		for _, grant := range oauthGrants() {
			t.Run(name+", "+grant.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					down := true
					server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
						if down {
							return oauthAnswer(401, body), nil
						}
						return oauthToken(n), nil
					}}
					cred := &reauth.Credential{Refresher: grant.get(oauthApp(server)), Logger: localDiscard}
					for range 600 { // ten minutes
						_, err := cred.Token(t.Context())
						require.Error(t, err)
						assert.NotContains(t, strings.ToLower(err.Error()), "log in")
						assert.NotContains(t, err.Error(), "Credential.Set")
						time.Sleep(time.Second)
					}
					assert.Less(t, len(server.seen()), 100, "it backs off")
					down = false
					time.Sleep(2 * time.Minute) // MaxBackoff, and what it is randomized by
					_, err := cred.Token(t.Context())
					assert.NoError(t, err)
				})
			})
		}
	}
}

// A server that says so in a 4xx is asked again as after a 503, but for a refresh token.
func TestServerThatIsBusyInItsOwnWords(t *testing.T) {
	for _, code := range []string{"temporarily_unavailable", "server_error", "slow_down", "ratelimited"} {
		for _, grant := range append(oauthGrants(), oauthRefresh) {
			t.Run(code+", "+grant.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &oauthServer{answer: func(n int, _ *http.Request, _ url.Values) (*http.Response, error) {
						if n < 3 {
							return oauthError(400, code), nil
						}
						return oauthToken(n), nil
					}}
					_, err := grant.get(oauthApp(server)).Refresh(t.Context(), oauthHeld())
					if grant.name != oauthRefresh.name {
						require.NoError(t, err)
						assert.Len(t, server.seen(), 3)
						return
					}
					require.ErrorContains(t, err, code)
					assert.False(t, reauth.IsPermanent(err))
					assert.False(t, reauth.IsAnswerLost(err))
					assert.Len(t, server.seen(), 1)
				})
			})
		}
	}
}

func TestRefreshInOfEntra(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := oauthApp(oauthAnswers(oauthSays(200, `{"access_token":"T1","expires_in":86400,"refresh_in":"43200"}`)))
		tok, err := o.ClientCredentials().Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		assert.Equal(t, time.Now().Add(12*time.Hour), tok.RefreshAt)
		assert.Equal(t, time.Now().Add(24*time.Hour), tok.Expiry)
	})
}

func TestIDTokenIsTheBearer(t *testing.T) {
	exp := time.Now().Add(10 * time.Minute).Truncate(time.Second)
	id := oauthJWT(exp)
	body := `{"access_token":"T1","id_token":"` + id + `","refresh_token":"R1","expires_in":86400}`
	for _, grant := range append(oauthGrants(), oauthRefresh) {
		o := oauthApp(oauthAnswers(oauthSays(200, body)))
		o.IDToken = true
		tok, err := grant.get(o).Refresh(t.Context(), oauthHeld())
		require.NoError(t, err, grant.name)
		assert.Equal(t, id, tok.AccessToken, grant.name)
		assert.True(t, exp.Equal(tok.Expiry), "the lifetime is its own: %s", grant.name)
	}
	o := oauthApp(oauthAnswers(oauthSays(200, `{"access_token":"T1"}`)))
	o.IDToken = true
	_, err := o.ClientCredentials().Refresh(t.Context(), reauth.Stale{})
	assert.ErrorContains(t, err, "id_token")
}

func TestClientAssertion(t *testing.T) {
	server := &oauthServer{}
	o := oauthApp(server)
	n := 0
	o.ClientAssertion = func(ctx context.Context) (string, error) { n++; return fmt.Sprintf("A%d\n", n), nil }
	for i := 1; i <= 2; i++ {
		_, err := o.ClientCredentials().Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		got := server.seen()[i-1]
		assert.Equal(t, url.Values{
			"grant_type": {"client_credentials"}, "client_id": {"app"}, "client_assertion": {fmt.Sprint("A", i)},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		}, got.form)
		assert.Empty(t, got.header.Get("Authorization"))
	}
	o.ClientAssertion = func(context.Context) (string, error) { return "", reauth.Permanent(errors.New("no file")) }
	_, err := o.ClientCredentials().Refresh(t.Context(), reauth.Stale{})
	require.ErrorContains(t, err, "no client assertion: no file")
	assert.False(t, reauth.IsPermanent(err), "the file may come")
}

func TestClaimsOfParamsAndOfAChallengeAreMerged(t *testing.T) {
	server := &oauthServer{}
	o := oauthApp(server)
	o.Params = url.Values{"claims": {`{"access_token":{"xms_cc":{"values":["cp1"]},"nbf":{"value":"1"}}}`}}
	_, err := o.ClientCredentials().Refresh(t.Context(), reauth.Stale{Rejection: reauth.Rejection{
		Reason:     reauth.ReasonClaims,
		Challenges: []reauth.Challenge{{Scheme: "Bearer", Params: map[string]string{"claims": `{"access_token":{"nbf":{"essential":true,"value":"2"}}}`}}},
	}})
	require.NoError(t, err)
	assert.JSONEq(t, `{"access_token":{"xms_cc":{"values":["cp1"]},"nbf":{"essential":true,"value":"2"}}}`, server.only(t).form.Get("claims"))
}

func TestTokenExchangeRenewsItsSubject(t *testing.T) {
	for _, code := range []string{"invalid_grant", "invalid_request"} {
		var stales []reauth.Stale
		subject := reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
			stales = append(stales, stale)
			return reauth.Token{AccessToken: fmt.Sprint("S", len(stales))}, nil
		})
		server := &oauthServer{answer: func(n int, _ *http.Request, form url.Values) (*http.Response, error) {
			if form.Get("subject_token") != "S2" {
				return oauthError(400, code), nil
			}
			return oauthToken(n), nil
		}}
		_, err := oauthApp(server).TokenExchange(refresher.TokenExchange{Subject: subject}).Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		require.Len(t, stales, 2)
		assert.Zero(t, stales[0])
		assert.Equal(t, "S1", stales[1].Token.AccessToken)
		assert.Equal(t, reauth.ReasonInvalidToken, stales[1].Rejection.Reason)
	}
}

// A Credential is a Subject, and is refreshed if its token is rejected.
func TestTokenExchangeOfACredentialsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		users := &reauth.Credential{Logger: localDiscard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			n++
			return reauth.Token{AccessToken: fmt.Sprint("S", n)}, nil
		})}
		_, err := users.Token(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Minute)
		server := &oauthServer{answer: func(n int, _ *http.Request, form url.Values) (*http.Response, error) {
			if form.Get("subject_token") != "S2" {
				return oauthError(400, "invalid_grant"), nil
			}
			return oauthToken(n), nil
		}}
		_, err = oauthApp(server).TokenExchange(refresher.TokenExchange{Subject: users}).Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		assert.Equal(t, 2, n)
	})
}
