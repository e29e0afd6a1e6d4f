package reauthtest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
)

// A TokenRequest describes a request to the token endpoint of an Issuer.
type TokenRequest struct {
	Request
	Grant    string     // grant_type
	Scopes   []string   // scope
	Audience []string   // audience and resource (RFC 8707)
	ClientID string     // "" if the request has none
	Auth     string     // how the client authenticated (RFC 7591 §2): client_secret_basic, client_secret_post, private_key_jwt or none
	Form     url.Values // all parameters, including secrets; must not be modified
}

// tokenRequest reads the form of a request.
func tokenRequest(r *http.Request) TokenRequest {
	form := r.PostForm
	t := TokenRequest{
		Grant: form.Get("grant_type"), Scopes: strings.Fields(form.Get("scope")), Form: form,
		Audience: append(append([]string(nil), form["audience"]...), form["resource"]...),
		ClientID: form.Get("client_id"), Auth: "none",
	}
	id, _, basic := r.BasicAuth()
	switch {
	case basic:
		t.Auth = "client_secret_basic"
		if plain, err := url.QueryUnescape(id); err == nil { // RFC 6749 §2.3.1
			id = plain
		}
		t.ClientID = id
	case form.Get("client_assertion") != "":
		t.Auth = "private_key_jwt"
	case form.Get("client_secret") != "":
		t.Auth = "client_secret_post"
	}
	return t
}

// record keeps each request to the token endpoint, and the status of its response.
func (i *Issuer) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		t := tokenRequest(r)
		t.Request = Request{Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header.Clone(), ID: w.Header().Get("X-Request-Id")}
		i.mu.Lock()
		n := len(i.asked)
		i.asked = append(i.asked, t)
		i.mu.Unlock()
		noting := &statusWriter{ResponseWriter: w, note: func(status int) {
			i.mu.Lock()
			defer i.mu.Unlock()
			if i.asked[n].Status == 0 {
				i.asked[n].Status = status
			}
		}}
		next.ServeHTTP(noting, r)
		noting.note(http.StatusOK)
	})
}

// Issuer returns the identifier of the issuer. Its metadata are at the well-known URLs
// of RFC 8414 and of OpenID Connect Discovery.
func (i *Issuer) Issuer() string { return i.http.URL }

// Endpoint returns the endpoints of the issuer, for an oauth2.Config.
func (i *Issuer) Endpoint() oauth2.Endpoint {
	return oauth2.Endpoint{AuthURL: i.http.URL + "/authorize", TokenURL: i.URL(), DeviceAuthURL: i.http.URL + "/device"}
}

// RevocationURL returns the URL of the revocation endpoint (RFC 7009).
func (i *Issuer) RevocationURL() string { return i.http.URL + "/revoke" }

// A code is a device code, or an authorization code.
type code struct {
	approved  bool
	redirect  string // of an authorization code
	challenge string // of PKCE (RFC 7636), S256; "" if there was none
}

// endpoints returns the endpoints other than the token endpoint. A GET of the
// authorization endpoint, or of the verification_uri_complete of a device, counts as
// the user's consent.
func (i *Issuer) endpoints() *http.ServeMux {
	mux := http.NewServeMux()
	metadata := func(w http.ResponseWriter, _ *http.Request) {
		end := i.Endpoint()
		writeJSON(w, http.StatusOK, map[string]any{
			"issuer": i.Issuer(), "authorization_endpoint": end.AuthURL, "token_endpoint": end.TokenURL,
			"device_authorization_endpoint": end.DeviceAuthURL, "revocation_endpoint": i.RevocationURL(),
			"code_challenge_methods_supported":               []string{"S256"},
			"authorization_response_iss_parameter_supported": true,
		})
	}
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", metadata)
	mux.HandleFunc("GET /.well-known/openid-configuration", metadata)
	mux.HandleFunc("POST /device", i.device)
	mux.HandleFunc("GET /activate", func(w http.ResponseWriter, r *http.Request) {
		if !i.approve(r.URL.Query().Get("user_code")) {
			http.Error(w, "There is no such code.", http.StatusNotFound)
		}
	})
	mux.HandleFunc("GET /authorize", i.authorize)
	mux.HandleFunc("POST /revoke", func(_ http.ResponseWriter, r *http.Request) { i.revoke(r.PostFormValue("token")) })
	return mux
}

// device is the device authorization endpoint (RFC 8628 §3.2).
func (i *Issuer) device(w http.ResponseWriter, _ *http.Request) {
	name := rand.Text()
	i.mu.Lock()
	i.codes[name] = &code{}
	i.mu.Unlock()
	user := name[:8]
	writeJSON(w, http.StatusOK, map[string]any{
		"device_code": name, "user_code": user, "expires_in": 600, "interval": 1,
		"verification_uri": i.http.URL + "/activate", "verification_uri_complete": i.http.URL + "/activate?user_code=" + user,
	})
}

// approve approves the device code with the user code.
func (i *Issuer) approve(user string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for name, c := range i.codes {
		if user != "" && strings.HasPrefix(name, user) {
			c.approved = true
			return true
		}
	}
	return false
}

// authorize is the authorization endpoint (RFC 6749 §4.1.1). It redirects to loopback
// addresses only.
func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || back.Hostname() != "127.0.0.1" && back.Hostname() != "::1" && back.Hostname() != "localhost" {
		http.Error(w, "The redirect_uri is not on loopback.", http.StatusBadRequest)
		return
	}
	answer := back.Query()
	answer.Set("state", q.Get("state"))
	answer.Set("iss", i.Issuer())
	switch {
	case q.Get("response_type") != "code":
		answer.Set("error", "unsupported_response_type")
	case q.Get("code_challenge") != "" && q.Get("code_challenge_method") != "S256":
		answer.Set("error", "invalid_request")
	default:
		name := rand.Text()
		i.mu.Lock()
		i.codes[name] = &code{approved: true, redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge")}
		i.mu.Unlock()
		answer.Set("code", name)
	}
	back.RawQuery = answer.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

// redeem uses up the code of a token request, if its grant has one, and returns an
// error code if the code is not valid.
func (i *Issuer) redeem(r *http.Request) string {
	var name string
	switch r.PostFormValue("grant_type") {
	case "urn:ietf:params:oauth:grant-type:device_code":
		name = r.PostFormValue("device_code")
	case "authorization_code":
		name = r.PostFormValue("code")
	default:
		return ""
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.codes[name]
	switch {
	case c == nil:
		return "invalid_grant"
	case !c.approved:
		return "authorization_pending"
	}
	delete(i.codes, name)
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if c.redirect != r.PostFormValue("redirect_uri") || c.challenge != "" && c.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
		return "invalid_grant"
	}
	return ""
}

// revoke revokes a token (RFC 7009). The revocation of a refresh token ends its login.
func (i *Issuer) revoke(token string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if l := i.logins[token]; l != nil {
		i.endLocked(l)
	}
	if t := i.tokens[token]; t != nil {
		t.dead = tokenRevoked
	}
}
