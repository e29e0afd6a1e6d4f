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

// An Issuer hands out tokens over HTTP on loopback, as the token endpoint of an
// authorization server does (RFC 6749 §5): to anybody and for any grant, of which only
// refresh tokens and codes have to be good. Beside it are the endpoints for
// authorization, devices, revocation and metadata. It is made
// by NewIssuer, and closed by its user. It is safe for concurrent use.
//
// An Issuer is a reauth.Refresher that asks itself, over its own HTTP: what its
// token endpoint does wrong, the Refresher feels.
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
	dead  string    // why it is good for nothing; "": it is good
}

// A login is the family of refresh tokens that came one from another.
type login struct {
	newest string // the only one that is good
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
		return http.ErrUseLastResponse // a refresh token goes nowhere else
	}
	return i
}

// URL returns the URL of the token endpoint. It answers any POST. Requests, Next and
// Down are about this endpoint.
func (i *Issuer) URL() string { return i.http.URL + "/token" }

// SetLifetime sets for how long the tokens are good that are handed out from now
// on, and what their expires_in says, in seconds rounded up (RFC 6749 §5.1). Zero
// means for ever, without an expires_in; negative means not at all: they have
// expired when they are handed out, and expires_in is 0.
func (i *Issuer) SetLifetime(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lifetime = d
}

// SetRotate has each answer bring a refresh token, which is good once (RFC 6749
// §6). One that is presented again ends its login: it and all that came of the same
// are refused with invalid_grant, and the access tokens revoked (RFC 9700
// §4.14.2). One that is unknown is refused too. Without SetRotate no refresh token
// is handed out, and none looked at.
func (i *Issuer) SetRotate(rotate bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rotate = rotate
}

// Expire ends all access tokens handed out so far, whatever their expires_in said:
// an API's 401 says that they expired.
func (i *Issuer) Expire() { i.end(tokenExpired) }

// Revoke revokes all access tokens handed out so far: an API's 401 says so. Refresh
// tokens stay good.
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

// Refuse has the tokens that are handed out from now on be good for nothing, or
// good again. With Revoke after it, a client is refused for good.
func (i *Issuer) Refuse(refuse bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refuse = refuse
}

// Sends returns how many requests came to the token endpoint, whatever their
// answer.
func (i *Issuer) Sends() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

// Requests returns what came to the token endpoint so far, in order.
func (i *Issuer) Requests() []TokenRequest {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.asked)
}

// Refreshes returns how many tokens were handed out, the first of a client too.
func (i *Issuer) Refreshes() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.refreshes
}

// Reuses returns how often a refresh token was presented that had been used
// before. Where it is not zero, a client has lost a login.
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

// An answer is that of a token endpoint (RFC 6749 §5.1).
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

// grant hands out a token, unless the refresh token is refused.
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

// Refresh implements reauth.Refresher. It asks the token endpoint, once, with the
// refresh token if there is one, and follows no redirect. An invalid_grant is
// permanent, see reauth.Permanent; of a 503 the Retry-After is heeded.
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
	body, err := io.ReadAll(resp.Body) // to its end: half a token is none
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

// refusal returns the error that an answer of the token endpoint is.
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

// A later is a refusal that another try may find gone.
type later struct {
	status string
	after  time.Duration
}

func (e *later) Error() string { return "reauthtest: the issuer answered " + e.status }

// RetryAfter is what a Credential looks for.
func (e *later) RetryAfter() time.Duration { return e.after }
