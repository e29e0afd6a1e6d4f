package classifier_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
)

// providers are all that are for one server.
func providers() map[string]reauth.Classifier {
	return map[string]reauth.Classifier{
		"AWS":           classifier.AWS(),
		"Vault":         classifier.Vault(),
		"Consul":        classifier.Consul(),
		"GRPC":          classifier.GRPC(),
		"NewAPI":        classifier.NewAPI(),
		"FacebookGraph": classifier.FacebookGraph(),
		"Salesforce":    classifier.Salesforce(),
		"Slack":         classifier.Slack(),
		"WeChat":        classifier.WeChat(),
		"Feishu":        classifier.Feishu(),
		"GraphQL":       classifier.GraphQL(),
	}
}

// response is one of a known length, as net/http makes it. Headers are pairs.
func response(status int, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
	if strings.HasPrefix(body, "<") {
		h.Set("Content-Type", "text/xml")
	}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	req, _ := http.NewRequest(http.MethodPost, "https://api.example.com/v1/things", nil)
	req.Header.Set("Authorization", "Bearer [redacted]")
	return &http.Response{StatusCode: status, Header: h, Body: http.NoBody, ContentLength: int64(len(body)), Request: req}
}

func classify(c reauth.Classifier, resp *http.Response, body string) reauth.Rejection {
	return c.Classify(resp, func() []byte { return []byte(body)[:min(len(body), 64<<10)] })
}

// A corpusRow is what a server answered: ../testdata/corpus/responses.jsonl.
type corpusRow struct {
	ID, Provider string
	Status       int
	Headers      map[string][]string
	Body         string
	BodyEncoding string `json:"body_encoding"`
	MayHelp      bool   `json:"refresh_may_help"`
	Ambiguous    bool
	RequestID    string `json:"request_id"`
}

func (r corpusRow) response(t testing.TB) (*http.Response, string) {
	t.Helper()
	body := r.Body
	if r.BodyEncoding == "base64" {
		b, err := base64.StdEncoding.DecodeString(r.Body)
		require.NoError(t, err)
		body = string(b)
	}
	resp := response(r.Status, body)
	resp.Header = http.Header{}
	for k, vv := range r.Headers {
		for _, v := range vv {
			resp.Header.Add(k, v)
		}
	}
	return resp, body
}

func corpus(t testing.TB) []corpusRow {
	t.Helper()
	f, err := os.Open("../testdata/corpus/responses.jsonl")
	require.NoError(t, err)
	defer f.Close()
	var rows []corpusRow
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var r corpusRow
		require.NoError(t, json.Unmarshal(lines.Bytes(), &r))
		rows = append(rows, r)
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, rows)
	return rows
}

// of returns the name of the Classifier that is for a row, by its provider.
func (r corpusRow) of() string {
	if r.Provider == "new-api" { // not one behind another server
		return "NewAPI"
	}
	for _, p := range [][2]string{
		{"AWS", "AWS"}, {"Amazon API Gateway", "AWS"}, {"Vault", "Vault"}, {"Consul", "Consul"}, {"gRPC over", "GRPC"}, {"Facebook", "FacebookGraph"}, {"Meta", "FacebookGraph"},
		{"Salesforce", "Salesforce"}, {"Slack", "Slack"}, {"WeC", "WeChat"}, {"Feishu", "Feishu"}, {"apollo", "GraphQL"}, {"Hasura", "GraphQL"},
	} {
		if strings.Contains(r.Provider, p[0]) {
			return p[1]
		}
	}
	return ""
}

// What a provider is known to answer is understood by its Classifier, recalled
// rows too, and the request id is found on the way.
func TestCorpusOfEachProvider(t *testing.T) {
	all := providers()
	rows := map[string]int{}
	for _, r := range corpus(t) {
		name := r.of()
		if name == "" || r.Status == http.StatusUnauthorized || r.Ambiguous {
			continue
		}
		rows[name]++
		resp, body := r.response(t)
		rej := classify(all[name], resp, body)
		assert.Equal(t, r.MayHelp, rej.Reason.Refreshable(), "%s is %q", r.ID, rej.Reason)
		if rej.Reason != "" {
			assert.Equal(t, r.RequestID, rej.RequestID, r.ID)
			assert.Equal(t, r.Status, rej.StatusCode, r.ID)
		}
	}
	assert.Subset(t, []string{"AWS", "Consul", "GRPC", "NewAPI", "Salesforce", "Slack", "WeChat", "Feishu", "GraphQL"}, keys(rows))
	assert.GreaterOrEqual(t, len(rows), 9)
}

func keys(m map[string]int) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	return all
}

// Somebody else's answer is no business of a provider's Classifier.
func TestNoOtherServersErrorIsTakenForTheProviders(t *testing.T) {
	for _, r := range corpus(t) {
		for name, c := range providers() {
			if r.of() == name || r.MayHelp || r.Ambiguous {
				continue
			}
			resp, body := r.response(t)
			assert.False(t, classify(c, resp, body).Reason.Refreshable(), "%s by %s", r.ID, name)
		}
	}
}

func TestWhatEachProviderSays(t *testing.T) {
	const consulText = "Content-Type text/plain; charset=utf-8"
	const graph = `{"error":{"message":"Error validating access token","type":"OAuthException","code":190,"error_subcode":%d,"fbtrace_id":"EJplcsCHuLu"}}`
	soap := func(fault string) string {
		return `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:sf="urn:fault.partner.soap.sforce.com"><soapenv:Body><soapenv:Fault><faultcode>sf:` + fault + `</faultcode><faultstring>x</faultstring></soapenv:Fault></soapenv:Body></soapenv:Envelope>`
	}
	for _, tt := range []struct {
		by     string
		status int
		body   string
		header string // a name and a value
		want   reauth.Reason
		code   string
	}{
		{"AWS", 403, `{"message":"x"}`, "X-Amzn-Errortype ExpiredTokenException:http://internal.amazon.com/coral/", reauth.ReasonExpired, "ExpiredTokenException"},
		{"AWS", 403, ``, "X-Amzn-Errortype ExpiredTokenException", reauth.ReasonExpired, "ExpiredTokenException"},
		{"AWS", 400, `{"__type":"com.amazonaws.dynamodb.v20120810#ExpiredTokenException","message":"x"}`, "", reauth.ReasonExpired, "ExpiredTokenException"},
		{"AWS", 403, `{"code":"UnrecognizedClientException"}`, "", reauth.ReasonInvalidToken, "UnrecognizedClientException"},
		{"AWS", 400, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>`, "", reauth.ReasonExpired, "ExpiredToken"},
		{"AWS", 400, `<Error><Code>InvalidToken</Code></Error>`, "", reauth.ReasonInvalidToken, "InvalidToken"},
		{"AWS", 403, `{"message":"The security token included in the request is expired"}`, "", reauth.ReasonExpired, ""},
		{"AWS", 400, `{"__type":"NotAuthorizedException","message":"Invalid Access Token"}`, "", reauth.ReasonInvalidToken, "NotAuthorizedException"},
		{"AWS", 400, `{"__type":"NotAuthorizedException","message":"Refresh Token has expired"}`, "", "", ""},
		{"AWS", 400, `{"__type":"RequestExpired","message":"Request has expired"}`, "", "", ""},
		{"AWS", 403, `<Error><Code>RequestTimeTooSkewed</Code><Message>The security token included in the request is expired</Message></Error>`, "", "", ""},
		{"AWS", 403, `{"message":"Missing Authentication Token"}`, "X-Amzn-Errortype MissingAuthenticationTokenException", "", ""},
		{"AWS", 200, `{"__type":"ExpiredTokenException"}`, "", "", ""},

		{"Vault", 403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`, "", reauth.ReasonInvalidToken, ""},
		{"Vault", 403, `{"errors":["permission denied"]}`, "", reauth.ReasonUnspecified, ""},
		{"Vault", 403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, "", reauth.ReasonUnspecified, ""},
		{"Vault", 403, `{"errors":["wrapping token is not valid or does not exist"]}`, "", "", ""},
		{"Vault", 403, `permission denied`, "Content-Type text/plain", "", ""},
		{"Vault", 400, `{"errors":["permission denied"]}`, "", "", ""},

		{"Consul", 403, "ACL not found", consulText, reauth.ReasonInvalidToken, ""},
		{"Consul", 403, "token does not exist: ACL not found", consulText, reauth.ReasonInvalidToken, ""},
		{"Consul", 403, "rpc error making call: ACL not found\n", consulText, reauth.ReasonInvalidToken, ""},
		{"Consul", 403, "rpc error making call: rpc error making call: token does not exist: ACL not found", consulText, reauth.ReasonInvalidToken, ""},
		{"Consul", 403, "Permission denied: anonymous token lacks permission 'agent:read' on \"a\". The anonymous token is used implicitly when a request does not specify a token.", consulText, reauth.ReasonMissing, ""},
		{"Consul", 403, "Permission denied: token with AccessorID '0b5bd4cb-cc6c-34c1-3d03-e9f6d2a31c4c' lacks permission 'key:read' on \"ACL not found\"", consulText, "", ""},
		{"Consul", 403, "rpc error making call: Permission denied", consulText, "", ""},
		{"Consul", 403, "Permission denied", consulText, "", ""},
		{"Consul", 403, "Requested token does not exist: ACL not found", consulText, "", ""},
		{"Consul", 403, "rpc error making call: Requested policy does not exist: ACL not found", consulText, "", ""},
		{"Consul", 403, "rpc error making call: ", consulText, "", ""},
		{"Consul", 403, `{"errors":["ACL not found"]}`, "", "", ""},
		{"Consul", 401, "ACL support disabled", consulText, reauth.ReasonOther, ""},
		{"Consul", 401, "ACL not found", consulText, "", ""},
		{"Consul", 500, "ACL not found", consulText, "", ""},
		{"Consul", 200, "ACL not found", consulText, "", ""},

		{"NewAPI", 200, `{"message":"无权进行此操作，access token 无效","success":false}`, "", reauth.ReasonInvalidToken, ""},
		{"NewAPI", 200, `{"message":"無權進行此操作，access token 無效","success":false}`, "", reauth.ReasonInvalidToken, ""},
		{"NewAPI", 200, `{"message":"Unauthorized, invalid access token","success":false}`, "", reauth.ReasonInvalidToken, ""},
		{"NewAPI", 200, `{"message":"用户已被封禁","success":false}`, "", reauth.ReasonDenied, ""},
		{"NewAPI", 200, `{"message":"无权进行此操作，access token 无效","success":true}`, "", "", ""},
		{"NewAPI", 200, `{"message":"无权进行此操作，access token 无效"}`, "", "", ""},
		{"NewAPI", 200, `{"message":"无权进行此操作，access token 无效","success":"false"}`, "", "", ""},
		{"NewAPI", 200, `{"data":{"message":"无权进行此操作，access token 无效","success":false},"success":false}`, "", "", ""},
		{"NewAPI", 200, `{"message":"无权进行此操作，权限不足","success":false}`, "", "", ""},
		{"NewAPI", 200, `{"message":"status_code=401, Unauthorized, invalid access token","success":false,"time":0.3}`, "", "", ""},
		{"NewAPI", 200, `{"data":[],"message":"","success":true}`, "", "", ""},
		{"NewAPI", 401, `{"message":"无权进行此操作，未登录且未提供 access token","success":false}`, "", "", ""},
		{"NewAPI", 403, `{"message":"无权进行此操作，access token 无效","success":false}`, "", "", ""},

		{"FacebookGraph", 400, `{"error":{"type":"OAuthException","code":190,"message":"Malformed access token"}}`, "", reauth.ReasonInvalidToken, "190"},
		{"FacebookGraph", 400, fmt.Sprintf(graph, 463), "", reauth.ReasonExpired, "190"},
		{"FacebookGraph", 401, fmt.Sprintf(graph, 467), "", reauth.ReasonInvalidToken, "190"},
		{"FacebookGraph", 400, fmt.Sprintf(graph, 460), "", reauth.ReasonRevoked, "190"},
		{"FacebookGraph", 401, fmt.Sprintf(graph, 459), "", reauth.ReasonStepUp, "190"},
		{"FacebookGraph", 400, fmt.Sprintf(graph, 490), "", reauth.ReasonStepUp, "190"},
		{"FacebookGraph", 400, fmt.Sprintf(graph, 464), "", reauth.ReasonDenied, "190"},
		{"FacebookGraph", 400, fmt.Sprintf(graph, 999), "", reauth.ReasonInvalidToken, "190"},
		{"FacebookGraph", 400, `{"error":{"type":"OAuthException","code":4,"message":"Application request limit reached"}}`, "", "", ""},
		{"FacebookGraph", 400, `{"error":{"type":"OAuthException","code":100,"message":"Invalid parameter: access token"}}`, "", "", ""},
		{"FacebookGraph", 400, `{"error":{"type":"GraphMethodException","code":190,"message":"x"}}`, "", "", ""},
		{"FacebookGraph", 403, fmt.Sprintf(graph, 463), "", "", ""},

		{"Salesforce", 401, `[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]`, "", reauth.ReasonInvalidToken, "INVALID_SESSION_ID"},
		{"Salesforce", 401, `[{"message":"This session is not valid for use with the REST API","errorCode":"INVALID_SESSION_ID"}]`, "", reauth.ReasonInsufficientScope, "INVALID_SESSION_ID"},
		{"Salesforce", 400, `{"exceptionCode":"InvalidSessionId","exceptionMessage":"Invalid session id"}`, "", reauth.ReasonInvalidToken, "InvalidSessionId"},
		{"Salesforce", 500, soap("INVALID_SESSION_ID"), "", reauth.ReasonInvalidToken, "INVALID_SESSION_ID"},
		{"Salesforce", 500, soap("MALFORMED_QUERY"), "", "", ""},
		{"Salesforce", 403, `[{"errorCode":"REQUEST_LIMIT_EXCEEDED","message":"TotalRequests Limit exceeded."}]`, "", "", ""},

		{"Slack", 200, `{"ok":false,"error":"token_expired"}`, "", reauth.ReasonExpired, "token_expired"},
		{"Slack", 200, `{"ok":false,"error":"token_revoked"}`, "", reauth.ReasonRevoked, "token_revoked"},
		{"Slack", 200, `{"ok":false,"error":"invalid_auth"}`, "", reauth.ReasonInvalidToken, "invalid_auth"},
		{"Slack", 200, `{"ok":false,"error":"account_inactive"}`, "", reauth.ReasonDenied, "account_inactive"},
		{"Slack", 200, `{"ok":false,"error":"missing_scope"}`, "", "", ""},
		{"Slack", 200, `{"ok":true,"error":"token_expired"}`, "", "", ""},
		{"Slack", 200, `{"error":"token_expired"}`, "", "", ""},
		{"Slack", 200, `{"ok":"true","error":"token_expired"}`, "", "", ""},
		{"Slack", 500, `{"ok":false,"error":"token_expired"}`, "", "", ""},

		{"WeChat", 200, `{"errcode":"42001","errmsg":"access_token expired"}`, "", reauth.ReasonExpired, "42001"},
		{"WeChat", 200, `{"errcode":40014,"errmsg":"invalid access_token"}`, "Content-Type text/plain; charset=utf-8", reauth.ReasonInvalidToken, "40014"},
		{"WeChat", 200, `{"errcode":40082,"errmsg":"invalid suite_acccess_token or provider_access_token"}`, "", reauth.ReasonInvalidToken, "40082"},
		{"WeChat", 200, `{"errcode":40001,"errmsg":"不合法的secret参数"}`, "", "", ""},
		{"WeChat", 200, `{"errcode":40013,"errmsg":"invalid appid"}`, "", "", ""},
		{"WeChat", 200, `{"errcode":0,"errmsg":"ok"}`, "", "", ""},

		{"Feishu", 400, `{"code":99991677,"msg":"Authentication token expired"}`, "", reauth.ReasonExpired, "99991677"},
		{"Feishu", 200, `{"code":99991663,"msg":"Invalid access token for authorization."}`, "", reauth.ReasonInvalidToken, "99991663"},
		{"Feishu", 200, `{"code":99991661,"msg":"Missing access token for authorization."}`, "", reauth.ReasonMissing, "99991661"},
		{"Feishu", 400, `{"code":99991669,"msg":"refresh token invalid"}`, "", reauth.ReasonLoginRequired, "99991669"},
		{"Feishu", 400, `{"code":99991672,"msg":"Access denied. One of the following scopes is required"}`, "", "", ""},

		{"GraphQL", 200, `{"errors":[{"message":"You must be logged in","extensions":{"code":"UNAUTHENTICATED"}}],"data":null}`, "", reauth.ReasonUnspecified, "UNAUTHENTICATED"},
		{"GraphQL", 200, `{"errors":[{"message":"Token expired","extensions":{"code":"UNAUTHENTICATED"}}]}`, "Content-Type application/graphql-response+json", reauth.ReasonExpired, "UNAUTHENTICATED"},
		{"GraphQL", 200, `{"errors":[{"extensions":{"path":"$","code":"invalid-jwt"},"message":"Could not verify JWT: JWTExpired"}]}`, "", reauth.ReasonInvalidToken, "invalid-jwt"},
		{"GraphQL", 200, `{"errors":[{"extensions":{"path":"$","code":"invalid-jwt"},"message":"Could not verify JWT: JWSError JWSInvalidSignature"}]}`, "", reauth.ReasonInvalidToken, "invalid-jwt"},
		{"GraphQL", 200, `{"errors":[null,7,{"extensions":[]},{"extensions":{"code":42}},{"message":{},"extensions":{"code":"UNAUTHENTICATED"}}],"data":{}}`, "", reauth.ReasonUnspecified, "UNAUTHENTICATED"},
		{"GraphQL", 200, `{"errors":[{"message":"CSRF quota","extensions":{"code":"OTHER"}},{"message":"Token expired","extensions":{"code":"UNAUTHENTICATED"}}]}`, "", reauth.ReasonExpired, "UNAUTHENTICATED"},
		{"GraphQL", 200, `{"errors":[{"message":"Token expired","extensions":{"code":"FORBIDDEN"}}]}`, "", "", ""},
		{"GraphQL", 200, `{"errors":[{"message":"Token expired"}],"data":{"me":null}}`, "", "", ""},
		{"GraphQL", 500, `{"errors":[{"message":"Token expired","extensions":{"code":"UNAUTHENTICATED"}}]}`, "", "", ""},
	} {
		t.Run(fmt.Sprintf("%s %d %.60s", tt.by, tt.status, tt.body), func(t *testing.T) {
			name, value, _ := strings.Cut(tt.header, " ")
			resp := response(tt.status, tt.body)
			if name != "" {
				resp.Header.Set(name, value)
			}
			rej := classify(providers()[tt.by], resp, tt.body)
			assert.Equal(t, tt.want, rej.Reason)
			if tt.want == "" {
				assert.Zero(t, rej)
				return
			}
			assert.Equal(t, tt.status, rej.StatusCode)
			if tt.code != "" {
				assert.Equal(t, tt.code, rej.Code)
			}
		})
	}
}

// One field of a mutation may have been carried out before another was refused.
func TestMutationThatWasPartlyCarriedOutIsNeverSentTwice(t *testing.T) {
	for _, data := range []string{`{"pay":{"id":1},"notify":null}`, `{"a":null,"b":false}`, `[]`, `"x"`, `0`} {
		body := `{"errors":[{"message":"Token expired","extensions":{"code":"UNAUTHENTICATED"}}],"data":` + data + `}`
		assert.Zero(t, classify(classifier.GraphQL(), response(200, body), body), data)
	}
}

func TestSuccessThatMentionsTokensIsNeverARejection(t *testing.T) {
	c := everything()
	for _, body := range []string{
		`{"ok":true,"messages":[{"text":"token_expired"},{"error":"invalid_auth"}]}`,
		`{"ok":true,"error":"token_expired","data":{"errcode":42001,"code":99991663}}`,
		`{"data":{"errors":[{"extensions":{"code":"UNAUTHENTICATED"}}]}}`,
		`{"data":{"code":"UNAUTHENTICATED","message":"The access token expired"}}`,
		`{"errors":[],"data":{"token":"expired"}}`,
		`{"error":null,"token":"expired_flag_false","data":{"expired":false}}`,
		`{"choices":[{"message":{"content":"A 401 with error=\"invalid_token\" means that the access token expired"}}]}`,
		`{"code":0,"msg":"success","data":{"code":99991677}}`,
		`{"errcode":0,"errmsg":"invalid credential, access_token is invalid or not latest"}`,
		`{"message":"The security token included in the request is expired"}`,
		`[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]`,
		`[{"ok":false,"error":"token_expired"}]`,
		`"token_expired"`, `null`, `42001`, `[]`, `{}`, ``, ` `,
		`{"ok":false,"error":"token_expired"`,
		`{"success":true,"message":"Unauthorized, invalid access token","data":{"code":40101}}`,
		`{"success":false,"message":"Unauthorized, invalid access token`,
		`{"code":40101`, `{"code":40101}{"code":0}`, `{"Code":40101,"code":[40101]}`, `{"code":"40101 "}`, `40101`,
		`{"ok":false,"error":"token_expired"}{"ok":true}`,
		`{"ok":"false","error":["token_expired"]}`,
		`{"errcode":{"42001":42001},"code":[99991663],"errors":{"extensions":{"code":"UNAUTHENTICATED"}}}`,
		"\x00\xff{", strings.Repeat("[", 60000), strings.Repeat(`{"errors":[`, 5000),
	} {
		resp := response(200, body, "WWW-Authenticate", `Bearer error="invalid_token"`)
		assert.Zero(t, classify(c, resp, body), "%.80s", body)
	}
	for _, r := range corpus(t) {
		if r.Status < 400 && !r.MayHelp {
			resp, body := r.response(t)
			rej := classify(c, resp, body)
			assert.False(t, !r.Ambiguous && rej.Reason.Refreshable(), "%s is %q", r.ID, rej.Reason)
		}
	}
}

// everything joins all of them, as nobody would.
func everything() reauth.Classifier {
	all := []reauth.Classifier{classifier.Statuses(200, 302, 400, 403, 422, 500), classifier.JSON("/code", map[string]reauth.Reason{"40101": reauth.ReasonExpired}), nil}
	for _, c := range providers() {
		all = append(all, c)
	}
	return classifier.Chain(all...)
}

func TestBodyThatMayBeAStreamIsNeverRead(t *testing.T) {
	const body = `{"ok":false,"error":"token_expired","errcode":42001,"code":40101,"success":false,"message":"Unauthorized, invalid access token","errors":[{"extensions":{"code":"UNAUTHENTICATED"}}]}`
	type change func(*http.Response)
	contentType := func(s string) change { return func(r *http.Response) { r.Header.Set("Content-Type", s) } }
	for name, c := range map[string]change{
		"of unknown length": func(r *http.Response) { r.ContentLength = -1 },
		"large":             func(r *http.Response) { r.ContentLength = 64<<10 + 1 },
		"NDJSON":            contentType("application/x-ndjson"),
		"JSON sequence":     contentType("application/json-seq"),
		"stream+json":       contentType("application/stream+json"),
		"event stream":      contentType("text/event-stream"),
		"parts":             contentType("multipart/mixed; boundary=json"),
		"page":              contentType("text/html"),
		"of no type":        func(r *http.Response) { r.Header.Del("Content-Type") },
		"text of unknown length": func(r *http.Response) {
			r.Header.Set("Content-Type", "text/plain")
			r.ContentLength, r.Uncompressed = -1, true
		},
	} {
		resp := response(200, body)
		c(resp)
		rej := everything().Classify(resp, func() []byte {
			assert.Fail(t, "the body was read", name)
			return []byte(body)
		})
		assert.Zero(t, rej, name)
	}
}

func TestCompressedAnswerIsUnderstood(t *testing.T) {
	const body = "\uFEFF" + `{"ok":false,"error":"token_expired"}`
	t.Run("by net/http", func(t *testing.T) {
		resp := response(200, body)
		resp.ContentLength, resp.Uncompressed = -1, true
		assert.Equal(t, reauth.ReasonExpired, classify(classifier.Slack(), resp, body).Reason)
	})
	t.Run("by the caller", func(t *testing.T) {
		var zipped bytes.Buffer
		zw := gzip.NewWriter(&zipped)
		_, err := io.WriteString(zw, body)
		require.NoError(t, err)
		require.NoError(t, zw.Close())
		resp := response(200, zipped.String(), "Content-Encoding", "gzip")
		assert.Equal(t, reauth.ReasonExpired, classify(classifier.Slack(), resp, zipped.String()).Reason)
	})
	t.Run("a bomb", func(t *testing.T) {
		var zipped bytes.Buffer
		zw := gzip.NewWriter(&zipped)
		_, err := io.WriteString(zw, `{"ok":false,"error":"token_expired","x":"`+strings.Repeat("x", 8<<20)+`"}`)
		require.NoError(t, err)
		require.NoError(t, zw.Close())
		resp := response(200, zipped.String(), "Content-Encoding", "gzip")
		assert.Zero(t, classify(classifier.Slack(), resp, zipped.String()))
	})
}

func TestFirstOf(t *testing.T) {
	const body = `{"ok":false,"error":"token_expired"}`
	says := func(r reauth.Reason) reauth.Classifier {
		return reauth.ClassifierFunc(func(*http.Response, func() []byte) reauth.Rejection { return reauth.Rejection{Reason: r} })
	}
	nobody := reauth.ClassifierFunc(func(*http.Response, func() []byte) reauth.Rejection {
		assert.Fail(t, "asked after another had decided")
		return reauth.Rejection{}
	})
	t.Run("the first reason decides, cure or not", func(t *testing.T) {
		c := classifier.Chain(says(""), says(reauth.ReasonQuota), nobody)
		assert.Equal(t, reauth.ReasonQuota, classify(c, response(401, body), body).Reason)
	})
	t.Run("none says nothing", func(t *testing.T) {
		assert.Zero(t, classify(classifier.Chain(says(""), says("")), response(401, body), body))
	})
	t.Run("nil is the default", func(t *testing.T) {
		for _, c := range []reauth.Classifier{
			classifier.Chain(), classifier.Chain(nil), classifier.Chain(says(""), nil),
			classifier.Chain(reauth.ClassifierFunc(nil)), classifier.Chain((*pointed)(nil)),
		} {
			assert.Equal(t, reauth.ReasonExpired, classify(c, response(401, body), body).Reason)
			assert.Zero(t, classify(c, response(200, body), body))
		}
	})
	t.Run("what the caller does to his slice later changes nothing", func(t *testing.T) {
		list := []reauth.Classifier{says(reauth.ReasonExpired)}
		c := classifier.Chain(list...)
		list[0] = nil
		assert.Equal(t, reauth.ReasonExpired, classify(c, response(200, body), body).Reason)
	})
}

type pointed struct{}

func (*pointed) Classify(*http.Response, func() []byte) reauth.Rejection { panic("nil") }

func TestStatuses(t *testing.T) {
	for _, tt := range []struct {
		name, body, header string
		status             int
		want               reauth.Reason
	}{
		{"expired", `{"message":"Token expired"}`, "", 403, reauth.ReasonExpired},
		{"revoked", `{"message":"OAuth token has been revoked."}`, "", 403, reauth.ReasonRevoked},
		{"by a challenge", ``, `Bearer error="invalid_token"`, 403, reauth.ReasonInvalidToken},
		{"in Chinese", `{"message":"令牌已过期"}`, "", 403, reauth.ReasonExpired},
		{"a card", `{"code":"expired_card","message":"Your card has expired."}`, "", 403, ""},
		{"forbidden", `{"message":"Forbidden"}`, "", 403, ""},
		{"says nothing", ``, "", 403, ""},
		{"missing", `{"message":"Token is missing"}`, "", 403, ""},
		{"scope", ``, `Bearer error="insufficient_scope"`, 403, ""},
		{"another status", `{"message":"Token expired"}`, "", 404, ""},
		{"a success", `{"message":"Token expired"}`, "", 200, ""},
		{"a 401 that says nothing", ``, "", 401, reauth.ReasonUnspecified},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := response(tt.status, tt.body)
			if tt.header != "" {
				resp.Header.Set("WWW-Authenticate", tt.header)
			}
			rej := classify(classifier.Statuses(200, 403), resp, tt.body)
			assert.Equal(t, tt.want, rej.Reason)
			if tt.want != "" {
				assert.Equal(t, tt.status, rej.StatusCode)
			}
			assert.Equal(t, tt.status, resp.StatusCode, "the response is not touched")
		})
	}
}

// Of the corpus, Statuses cures what is clearly said, and takes next to nothing
// else for it. What it does take says no other words than a dead token's.
func TestStatusesTakesNoOtherTroubleForADeadToken(t *testing.T) {
	known := map[string]string{
		"trap-license-expired":         "says token expired, of a licence",
		"trap-syntax-token":            "says invalid token, of a parser's",
		"firebase-securetoken-expired": "says TOKEN_EXPIRED, of a refresh token at its own endpoint",
		"go-echo-jwt-missing":          "says missing or malformed",
	}
	c := classifier.Statuses(400, 402, 403, 418, 419, 422, 429, 503)
	var cured, curable int
	for _, r := range corpus(t) {
		if r.Ambiguous || r.Status < 400 || r.Status == 401 {
			continue
		}
		resp, body := r.response(t)
		switch rej := classify(c, resp, body); {
		case r.MayHelp:
			curable++
			if rej.Reason.Refreshable() {
				cured++
			} else {
				t.Logf("not seen: %s (%.90s)", r.ID, body)
			}
		case known[r.ID] == "":
			assert.Zero(t, rej, "%s (%.90s)", r.ID, body)
		}
	}
	t.Logf("cured %d of %d", cured, curable)
	assert.GreaterOrEqual(t, cured*10, curable*7)
}

func FuzzClassifiers(f *testing.F) {
	for _, r := range corpus(f) {
		if r.of() != "" || r.Status < 400 {
			resp, body := r.response(f)
			f.Add(r.Status, resp.Header.Get("Content-Type"), resp.Header.Get("X-Amzn-Errortype"), body)
		}
	}
	f.Add(400, "text/xml", "", "<Error><Code>ExpiredToken")
	f.Add(200, "application/json", "#:", `{"errors":[{"extensions":{"code":"UNAUTHENTICATED"}}],"data":{"a":null}}`)
	all := providers()
	all["everything"] = everything()
	f.Fuzz(func(t *testing.T, status int, contentType, errorType, body string) {
		resp := response(status, body, "Content-Type", contentType, "X-Amzn-Errortype", errorType)
		for name, c := range all {
			read := 0
			rej := c.Classify(resp, func() []byte {
				read++
				return []byte(body)[:min(len(body), 64<<10)]
			})
			if status < 400 {
				streams := !strings.Contains(strings.ToLower(contentType), "json") && !strings.HasPrefix(strings.ToLower(strings.TrimSpace(contentType)), "text/plain")
				assert.False(t, (len(body) > 64<<10 || streams) && read > 0, "%s reads %q", name, contentType)
			}
			if rej.Reason == "" {
				assert.Zero(t, rej, name)
				continue
			}
			assert.Equal(t, status, rej.StatusCode, name)
			assert.LessOrEqual(t, utf8.RuneCountInString(rej.Code), 250, name)
			assert.LessOrEqual(t, utf8.RuneCountInString(rej.Message), 550, name)
			assert.NotContains(t, rej.Code+rej.Message+rej.RequestID, "\n", name)
		}
	})
}
