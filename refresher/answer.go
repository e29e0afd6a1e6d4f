package refresher

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
	"github.com/reauth-go/reauth/internal/recognize"
	"github.com/reauth-go/reauth/internal/retryafter"
)

// An answer is the response of a token endpoint.
type answer struct {
	*http.Response           // whose Body has been read
	body           []byte    // at most maxAnswer bytes
	sent           time.Time // when the request was
	members        object    // of the JSON object or the form in the body; nil if it is neither

	// What is wrong according to the response, if anything.
	code        string // an error code
	description string // the server's text, which may repeat what was sent
	cause       error  // the error that the answer was taken from; nil if the request was sent here
}

// An object is a JSON object by the names of its members.
type object map[string]json.RawMessage

// newAnswer reads the body of an answer.
func newAnswer(resp *http.Response, body []byte, sent time.Time) *answer {
	a := &answer{Response: resp, body: body, sent: sent, members: objectOf(body)}
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	a.code, a.description = a.members.refusal()
	if a.code == strconv.Itoa(resp.StatusCode) { // it adds nothing to the status
		a.code = ""
	}
	if resp.StatusCode < 300 && word(a.members["error"]) == "" && a.members.hasToken(grantedMembers) {
		a.code, a.description = "", "" // a code beside a token is no error
	}
	if a.code != "" && a.description != "" || a.ok() {
		return a
	}
	// A server that does not follow RFC 6749 is read as the servers that reject tokens
	// are.
	said := recognize.Response(resp, body)
	if a.code == "" {
		a.code = said.Code
	}
	if a.description == "" {
		a.description = said.Message
	}
	return a
}

// objectOf returns the members of a JSON object or of a form, whatever the Content-Type
// says. It returns nil if body is neither.
func objectOf(body []byte) object {
	body = bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(body), byteOrderMark))
	if len(body) == 0 {
		return nil
	}
	var o object
	switch body[0] {
	case '{':
		if json.Unmarshal(body, &o) != nil {
			return nil
		}
		return o
	case '<', '[', '"':
		return nil
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || !bytes.ContainsRune(body, '=') {
		return nil
	}
	o = object{}
	for name := range form {
		o[name], _ = json.Marshal(form.Get(name))
	}
	return o
}

// ok reports whether the answer has a token, or should have.
func (a *answer) ok() bool { return a.StatusCode >= 200 && a.StatusCode < 300 && a.code == "" }

// lost reports whether the server may have used up a refresh token although the answer
// has no token: a gateway lost the response, or its body is not one.
func (a *answer) lost() bool {
	switch a.StatusCode {
	case http.StatusBadGateway, http.StatusGatewayTimeout, 520, 524: // the last two are Cloudflare's
		return true
	}
	return a.ok() && !a.members.hasToken(grantedMembers)
}

// envelopes are the names of the objects that hold a token in an answer. The last two
// are those of Slack and Cognito. Objects of other names are searched after these.
var envelopes = []string{"data", "result", "response", "authed_user", "AuthenticationResult"}

// nested returns the objects of o that may hold a token: itself first.
func (o object) nested() []object {
	all := []object{o}
	names := slices.Sorted(maps.Keys(o))
	for _, name := range append(slices.Clone(envelopes), names...) {
		var inner object
		if json.Unmarshal(o[name], &inner) == nil && inner != nil {
			all = append(all, inner)
		}
	}
	return all
}

// grantedMembers are the names of the access token in an answer; the last are Feishu's.
var grantedMembers = append(slices.Clone(accessMembers), "tenant_access_token", "user_access_token", "app_access_token")

// idMembers are the names of the id_token of OpenID Connect.
var idMembers = []string{"id_token", "idToken", "IdToken"}

func (o object) hasToken(names []string) bool {
	return slices.ContainsFunc(o.nested(), func(o object) bool { return text(o, names) != "" || text(o, refreshMembers) != "" })
}

// token returns the token of the answer. The refresh token is returned even if the
// access token is not valid, as the Credential keeps it.
func (a *answer) token(names []string) (tok reauth.Token) {
	for _, o := range a.members.nested() {
		if tok.RefreshToken == "" {
			tok.RefreshToken = text(o, refreshMembers)
		}
		if tok.AccessToken != "" || text(o, names) == "" {
			continue
		}
		tok.AccessToken, tok.TokenType = text(o, names), text(o, typeMembers)
		if names[0] == idMembers[0] {
			break // the lifetime is the access token's
		}
		if tok.Expiry = o.expiryAfter(a.sent); tok.Expiry.IsZero() { // by this machine's clock, if there is a lifetime
			tok.Expiry = o.expiryTime()
		}
		if ahead, ok := seconds(o["refresh_in"]); ok { // Microsoft Entra ID
			tok.RefreshAt = a.sent.Add(ahead)
		}
	}
	if exp, ok := jwtExpiry(tok.AccessToken); ok && tok.Expiry.IsZero() {
		tok.Expiry = exp
	}
	return tok
}

// granted returns the token of an answer to a grant, or why there is none. sent is the
// refresh token that was presented.
func (a *answer) granted(tok reauth.Token, g grant, sent string, secrets []string) (reauth.Token, error) {
	if !g.once && !g.login || tok.RefreshToken == sent { // it is not new
		tok.RefreshToken = ""
	}
	if tok.RefreshToken != "" && g.once && a.StatusCode < 300 { // the Credential keeps it, and reports an invalid access token
		if valid, err := checked(tok); err == nil {
			tok = valid
		}
		return tok, nil
	}
	if !a.ok() || tok.AccessToken == "" {
		return reauth.Token{}, a.refused(g, secrets)
	}
	tok, err := checked(tok)
	if err != nil {
		return reauth.Token{}, fmt.Errorf("the token endpoint's answer: %w", err)
	}
	return tok, nil
}

// refusal returns what an answer says is wrong, in the members of RFC 6749 §5.2 or
// those of other servers.
func (o object) refusal() (code, description string) {
	description = text(o, []string{"error_description", "msg", "errmsg", "message"})
	if code = word(o["error"]); code != "" {
		return code, description
	}
	var inner object
	if json.Unmarshal(o["error"], &inner) == nil && len(inner) > 0 {
		code, description = inner.refusal()
		return or(code, "error"), or(description, text(inner, []string{"message"}))
	}
	var several []object
	if json.Unmarshal(o["errors"], &several) == nil && len(several) > 0 {
		code = or(text(several[0], []string{"errorType", "code"}), "errors")
		return code, strings.TrimPrefix(description+several[0].words(description), ", ")
	}
	for _, name := range []string{"error_code", "errorCode", "errcode", "code", "__type"} {
		if code = word(o[name]); code != "" {
			return code, description
		}
	}
	return "", description
}

// word returns a code: a string, or a number that is not a success.
func word(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		if n, err := strconv.Atoi(s); err == nil && success(n) {
			return ""
		}
		switch strings.ToLower(s) {
		case "ok", "success", "null", "false", "none":
			return ""
		}
		return s
	}
	var n int
	if json.Unmarshal(raw, &n) == nil && !success(n) {
		return strconv.Itoa(n)
	}
	return ""
}

// success reports whether a number says that nothing is wrong.
func success(code int) bool { return code == 0 || code >= 200 && code < 300 }

// words returns the texts of an object that are not known, in the order of their names.
func (o object) words(known string) (all string) {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if s := text(o, []string{name}); s != "" && s != known {
			all += ", " + s
		}
	}
	return all
}

// retrieveError returns the answer as an error of x/oauth2.
func (a *answer) retrieveError() *oauth2.RetrieveError {
	return &oauth2.RetrieveError{
		Response: a.Response, Body: a.body,
		ErrorCode: a.code, ErrorDescription: a.description, ErrorURI: text(a.members, []string{"error_uri"}),
	}
}

// A refusal says what to do after an answer without a token.
type refusal int

const (
	passing      refusal = iota // a later request may succeed
	wrongRequest                // the same request fails later too
	loginOver                   // the refresh token is no longer valid
)

// judge returns what the answer means for a refresh token that was sent.
func (a *answer) judge() refusal {
	code := folded(a.code)
	switch {
	case a.StatusCode >= 500 || a.StatusCode == http.StatusTooManyRequests || busyCodes[code]:
		return passing
	case a.members == nil: // a page, such as a proxy's
		return passing
	case loginOverCodes[code]:
		return loginOver
	case wrongRequestCodes[code] && code != "invalidrequest": // invalid_request is ambiguous: its description decides
		return wrongRequest
	case loginOverCodes[folded(a.description)], saysLoginOver(a.code), saysLoginOver(a.description):
		return loginOver
	case wrongRequestCodes[code]:
		return wrongRequest
	}
	return passing
}

// folded returns a code in lower case without separators: BAD_REFRESH_TOKEN,
// bad-refresh-token and BadRefreshToken are the same.
func folded(code string) string {
	if i := strings.LastIndexByte(code, '#'); i >= 0 { // Cognito: com.amazon…#NotAuthorizedException
		code = code[i+1:]
	}
	return strings.ToLower(separators.Replace(code))
}

var separators = strings.NewReplacer("_", "", "-", "", " ", "", ".", "")

func codes(all ...string) map[string]bool {
	set := map[string]bool{}
	for _, code := range all {
		set[folded(code)] = true
	}
	return set
}

var (
	// busyCodes say that the server cannot answer now (RFC 6749 §4.1.2.1 has them for
	// another endpoint; GitHub and Slack have the last two).
	busyCodes = codes("temporarily_unavailable", "server_error", "slow_down", "rate_limited", "ratelimited")

	// loginOverCodes say that a refresh token is no longer valid.
	loginOverCodes = codes(
		"invalid_grant",                                              // RFC 6749 §5.2
		"interaction_required", "login_required", "consent_required", // OpenID Connect
		"bad_refresh_token",                                                           // GitHub, HubSpot
		"invalid_refresh_token", "token_revoked", "token_expired", "account_inactive", // Slack
		"refresh_token_reused", "refresh_token_expired", "refresh_token_invalidated", // OpenAI
		"refresh_token_not_found", "refresh_token_already_used", "session_not_found", // Supabase
		"session_expired", "user_banned", // Supabase
		"user_disabled", "user_not_found", // Firebase
		"inactive_user", "inactive_org", // Salesforce
		"invalid_code",                              // Zoho
		"190",                                       // Facebook
		"20026", "20037", "20064", "20073", "20074", // Feishu
	)

	// wrongRequestCodes say that another request is needed (RFC 6749 §5.2, RFC 8628 §3.5, RFC 8693
	// §2.2.2, OpenID Connect and some servers' own).
	wrongRequestCodes = codes(
		"invalid_request", "invalid_target", "access_denied", "invalid_client", "unauthorized_client", "unsupported_grant_type",
		"invalid_scope", "expired_token", "account_selection_required",
		"incorrect_client_credentials",           // GitHub
		"invalid_client_id", "bad_client_secret", // Slack
		"deleted_client", // Google
	)

	aboutRefreshToken = regexp.MustCompile(`(?i)refresh[ _-]?token|刷新令牌`)
	isInvalid         = regexp.MustCompile(`(?i)\b(expired|revoked|invalid|invalidated|unknown|reused|(already|been|was) used|not[ _]found|does not exist|no longer valid|inactive|deleted|rotated)\b|无效|过期|失效|撤销|不存在|已使用`)
	isMissing         = regexp.MustCompile(`(?i)\b(missing|required|must be|parameter)\b|缺少|不能为空`)
	unknownOne        = regexp.MustCompile(`(?i)missing or unknown|missing or invalid`)
)

// saysLoginOver reports whether a text says that the refresh token is no longer valid.
func saysLoginOver(s string) bool {
	s = strings.ReplaceAll(s, "_", " ")
	return aboutRefreshToken.MatchString(s) && isInvalid.MatchString(s) && (!isMissing.MatchString(s) || unknownOne.MatchString(s))
}

// refused returns the error of an answer without a token. It has no body of the answer,
// and is marked for the Credential.
func (a *answer) refused(g grant, secrets []string) error {
	refused := a.retrieveError()
	var b strings.Builder
	fmt.Fprintf(&b, "the %s answered %d", or(g.endpoint, "token endpoint"), a.StatusCode)
	if code := mask.Text(a.code, 60, secrets...); code != "" {
		b.WriteString(" " + code)
	}
	if d := mask.Text(a.description, 150, secrets...); d != "" && d != a.code {
		b.WriteString(" (" + d + ")")
	}
	b.WriteString(a.advice(g))
	failure := error(mask.WithText(b.String(), refused))
	if a.cause != nil {
		failure = mask.WithText(b.String(), a.cause)
	}
	switch what := a.judge(); {
	case g.permanent != nil && g.permanent(refused):
		return reauth.Permanent(failure)
	case !g.once: // the next request presents new credentials
	case what == loginOver:
		return reauth.LoginEnded(failure)
	case what == wrongRequest:
		return reauth.Permanent(failure)
	case a.lost():
		failure = reauth.AnswerLost(failure)
	}
	if wait, ok := retryafter.Of(a.Response); ok && wait > 0 {
		return retryAfterError{failure, wait}
	}
	return failure
}

// advice returns what to do about the error.
func (a *answer) advice(g grant) string {
	switch dead := a.judge() == loginOver && g.once; {
	case a.StatusCode >= 300 && a.StatusCode < 400:
		return ", a redirect to " + shownURL(a.Header.Get("Location")) + " that is not followed: set TokenURL to where it leads"
	case (a.refusesClient() || folded(a.code) == "unauthorizedclient") && !g.foreign:
		return ": check ClientID, ClientSecret, and whether the server wants them in the body (AuthStyle)"
	case dead && g.login:
		return ": the code has expired or was used, begin again"
	case dead && !g.lostAt.IsZero():
		return ": the refresh token has expired, was revoked, or was used by another client; the answer to the refresh of " +
			g.lostAt.UTC().Format(time.RFC3339) + " was lost, and with it, most likely, the refresh token in it"
	case dead:
		return ": the refresh token has expired, was revoked, or was used by another client"
	case a.ok() && g.idToken:
		return " without an id_token: ask for the scope openid, and check that TokenURL is the token endpoint"
	case a.ok():
		return " without an access_token: check that this is the token endpoint"
	}
	return ""
}

// aboutClient matches the description of an invalid_request from a server that did not
// find the client's authentication.
var aboutClient = regexp.MustCompile(`(?i)client[ _-]?(id|secret|auth|credential)`)

// refusesClient reports whether the server rejected the client's authentication, which
// it checks before the grant (RFC 6749 §5.2).
func (a *answer) refusesClient() bool {
	switch folded(a.code) {
	case "invalidclient", "incorrectclientcredentials", "invalidclientid", "badclientsecret":
		return true
	case "invalidrequest":
		return aboutClient.MatchString(a.description)
	}
	return a.StatusCode == http.StatusUnauthorized && a.judge() != loginOver
}
