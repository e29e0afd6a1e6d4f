package reauthtest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reauth-go/reauth"
)

// An Issuer is an authorization server on loopback, whose token endpoint issues tokens
// over HTTP (RFC 6749 §5). It issues tokens to any client and for any grant; only
// refresh tokens and codes must be valid. It also has endpoints for authorization,
// devices, revocation and metadata. It is safe for concurrent use by multiple
// goroutines. It is the caller's responsibility to call Close.
//
// An Issuer implements reauth.Refresher with requests to its own token endpoint. The
// faults of the token endpoint therefore affect it too.
type Issuer struct {
	server

	asked     []TokenRequest     // in the order of their arrival; guarded by server.mu, as all below
	codes     map[string]*code   // device codes and authorization codes
	tokens    map[string]*issued // by access token
	logins    map[string]*login  // by refresh token, used or not
	lifetime  time.Duration
	rotate    bool
	refuse    bool
	refreshes int
	reuses    int
}

// An issued is an access token.
type issued struct {
	login *login
	ends  time.Time // zero: never
	dead  string    // why it is not valid; "" if it is valid
}

// A login is the sequence of refresh tokens that replaced each other.
type login struct {
	newest string // the only one that is valid
	over   bool
}

// NewIssuer starts an Issuer. Its tokens have no expiry and come without a refresh
// token.
func NewIssuer() *Issuer {
	i := &Issuer{tokens: map[string]*issued{}, logins: map[string]*login{}, codes: map[string]*code{}}
	i.oauth = true
	mux := i.endpoints()
	mux.Handle("/", i.record(i.faulty(http.HandlerFunc(i.serve))))
	i.start(mux, false)
	i.http.Client().CheckRedirect = func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // a refresh token must not be sent elsewhere
	}
	return i
}

// URL returns the URL of the token endpoint, which accepts any POST. Requests, Sends,
// Next and Down apply to this endpoint.
func (i *Issuer) URL() string { return i.http.URL + "/token" }

// SetLifetime sets the lifetime of the tokens that are issued from now on. Their
// expires_in has it in seconds, rounded up (RFC 6749 §5.1). If zero, the tokens do not
// expire, and have no expires_in. If negative, the tokens have already expired when
// they are issued, and their expires_in is 0.
func (i *Issuer) SetLifetime(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lifetime = d
}

// SetRotate sets whether each token comes with a new refresh token, which may be used
// once (RFC 6749 §6). If a refresh token is presented again, its login ends (RFC 9700
// §4.14.2). All refresh tokens of the login are then rejected with invalid_grant, and
// its access tokens are revoked. A refresh token that is not known is rejected too. If
// false, which is the default, the Issuer issues no refresh tokens, and ignores those
// that it gets.
func (i *Issuer) SetRotate(rotate bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rotate = rotate
}

// Expire makes all access tokens issued so far expire, whatever their expires_in. The
// 401 of an API says that they expired.
func (i *Issuer) Expire() { i.end(tokenExpired) }

// Revoke revokes all access tokens issued so far. The 401 of an API says so. Refresh
// tokens remain valid.
func (i *Issuer) Revoke() { i.end(tokenRevoked) }

func (i *Issuer) end(why string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, t := range i.tokens {
		if t.dead == "" {
			t.dead = why
		}
	}
}

// Refuse sets whether the tokens that are issued from now on are invalid. After
// Refuse(true) and Revoke, all tokens of a client are rejected.
func (i *Issuer) Refuse(refuse bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refuse = refuse
}

// Sends returns how many requests arrived at the token endpoint, whatever the response.
func (i *Issuer) Sends() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

// Requests returns the requests that arrived at the token endpoint, in order.
func (i *Issuer) Requests() []TokenRequest {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.asked)
}

// Refreshes returns how many tokens were issued, including the first of each client.
func (i *Issuer) Refreshes() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.refreshes
}

// Reuses returns how often a refresh token was presented that had been used before. If
// it is not zero, a client has lost a login.
func (i *Issuer) Reuses() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.reuses
}

// Valid reports whether an API would accept the access token.
func (i *Issuer) Valid(accessToken string) bool { return i.verdict(accessToken) == "" }

// verdict returns what is wrong with an access token, or "".
func (i *Issuer) verdict(accessToken string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch t := i.tokens[accessToken]; {
	case t == nil:
		return tokenInvalid
	case t.dead != "":
		return t.dead
	case !t.ends.IsZero() && !time.Now().Before(t.ends):
		return tokenExpired
	}
	return ""
}

// An answer is the response of a token endpoint (RFC 6749 §5.1).
type answer struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    *int   `json:"expires_in,omitempty"` // seconds
	RefreshToken string `json:"refresh_token,omitempty"`
}

// serve is the token endpoint.
func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		i.fail(w, http.StatusMethodNotAllowed, "invalid_request", "The token endpoint takes a POST")
		return
	}
	if problem := i.redeem(r); problem != "" {
		i.fail(w, http.StatusBadRequest, problem, "The code is not good, or not yet")
		return
	}
	a, ok := i.grant(r.PostFormValue("refresh_token"))
	if !ok {
		i.invalidGrant(w)
		return
	}
	writeJSON(w, http.StatusOK, a)
}

func (s *server) invalidGrant(w http.ResponseWriter) {
	s.fail(w, http.StatusBadRequest, "invalid_grant", "The login is over")
}

// grant issues a token, unless the refresh token is rejected.
func (i *Issuer) grant(refresh string) (answer, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	from := i.logins[refresh]
	if i.rotate && refresh != "" {
		if from != nil && refresh != from.newest {
			i.reuses++
			i.endLocked(from)
		}
		if from == nil || from.over {
			return answer{}, false
		}
	}
	if from == nil {
		from = &login{}
	}
	i.refreshes++
	a := answer{AccessToken: "access-" + rand.Text(), TokenType: "Bearer"}
	t := &issued{login: from}
	if i.lifetime != 0 {
		in := max(seconds(i.lifetime), 0)
		a.ExpiresIn, t.ends = &in, time.Now().Add(i.lifetime)
	}
	if i.refuse {
		t.dead = tokenInvalid
	}
	i.tokens[a.AccessToken] = t
	if i.rotate {
		a.RefreshToken = "refresh-" + rand.Text()
		i.logins[a.RefreshToken], from.newest = from, a.RefreshToken
	}
	return a, true
}

// endLocked ends a login and its access tokens.
func (i *Issuer) endLocked(l *login) {
	l.over = true
	for _, t := range i.tokens {
		if t.login == l {
			t.dead = tokenRevoked
		}
	}
}

// Refresh implements reauth.Refresher. It sends one request to the token endpoint, with
// the refresh token if there is one. It does not follow redirects. If the response is
// invalid_grant, the error is marked by reauth.Permanent. If the response has a
// Retry-After, the error has it as its RetryAfter.
func (i *Issuer) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if rt := stale.Token.RefreshToken; rt != "" {
		form = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {rt}}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.URL(), strings.NewReader(form.Encode()))
	if err != nil {
		return reauth.Token{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	began := time.Now()
	resp, err := i.http.Client().Do(req)
	if err != nil {
		return reauth.Token{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body) // a truncated body has no token
	if resp.StatusCode != http.StatusOK {
		return reauth.Token{}, refusal(resp, body)
	}
	var a answer
	if err == nil {
		err = json.Unmarshal(body, &a)
	}
	if err != nil {
		return reauth.Token{}, fmt.Errorf("reauthtest: the issuer's answer: %w", err)
	}
	tok := reauth.Token{AccessToken: a.AccessToken, TokenType: a.TokenType, RefreshToken: a.RefreshToken}
	if a.ExpiresIn != nil {
		tok.Expiry = began.Add(time.Duration(*a.ExpiresIn) * time.Second)
	}
	return tok, nil
}

// refusal returns the error of an error response of the token endpoint.
func refusal(resp *http.Response, body []byte) error {
	var a struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &a); err == nil && a.Error == "invalid_grant" {
		return reauth.Permanent(fmt.Errorf("reauthtest: the issuer answered %s: invalid_grant", resp.Status))
	}
	e := &later{status: resp.Status}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		e.after = time.Duration(s) * time.Second
	}
	return e
}

// A later is a temporary error.
type later struct {
	status string
	after  time.Duration
}

func (e *later) Error() string { return "reauthtest: the issuer answered " + e.status }

// RetryAfter returns the backoff of the Credential; see reauth.Refresher.
func (e *later) RetryAfter() time.Duration { return e.after }
