package refresher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
)

// An HTTP is a Refresher that asks any token endpoint, of whatever protocol. It sends
// and repeats requests, keeps a new refresh token, and marks lost answers and the end of
// a login as an OAuth2 does.
//
// Its fields are not changed after first use.
type HTTP struct {
	// Request returns the request for another token. Its URL has to be https, or on
	// loopback, or an address of this link, as metadata servers have. It is sent again
	// only if its body has GetBody or is empty; and if the stale token has a refresh
	// token, which it is then taken to present, only as the refresh token of an OAuth2.
	Request func(ctx context.Context, stale reauth.Stale) (*http.Request, error)

	// Token returns the token of an answer, whose Body has been read. If it returns an
	// error, its text is shown with the status. Nil means the members of RFC 6749 §5.1
	// and of other servers, in the JSON object or form of the body or one object deeper.
	// It is not called if the status is not 2xx, or the answer has an error.
	Token func(resp *http.Response, body []byte) (reauth.Token, error)

	// Reuse is as that of an OAuth2.
	Reuse time.Duration

	// Permanent is as that of an OAuth2.
	Permanent func(*oauth2.RetrieveError) bool

	// Base is as that of an OAuth2.
	Base http.RoundTripper
}

// Refresh implements reauth.Refresher.
func (h *HTTP) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	if h.Request == nil {
		return reauth.Token{}, reauth.Permanent(errors.New("refresher.HTTP has no Request"))
	}
	g := grant{once: stale.Token.RefreshToken != "", lostAt: stale.AnswerLostAt, permanent: h.Permanent, foreign: true}
	g.login = !g.once // whatever a refresh token it brings is kept
	if err := doubt(stale, h.Reuse); g.once && err != nil {
		return reauth.Token{}, err
	}
	e := newEndpoint(ctx, h.Base, g.once)
	defer e.stop()
	req, err := h.Request(e.ctx, stale)
	if err != nil {
		return reauth.Token{}, mask.Err("no token request: ", err, stale.Token.AccessToken, stale.Token.RefreshToken)
	}
	if err := onLink(req); err != nil {
		return reauth.Token{}, reauth.Permanent(err)
	}
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		e.repeats = 0
	}
	secrets := append(secretsOf(req), stale.Token.AccessToken, stale.Token.RefreshToken)
	a, err := e.send(req)
	if err != nil {
		return reauth.Token{}, e.failed(err, g, secrets)
	}
	if h.Token == nil || !a.ok() {
		return a.granted(a.token(grantedMembers), g, stale.Token.RefreshToken, secrets)
	}
	tok, err := h.Token(a.Response, a.body)
	if err != nil {
		told := error(mask.Err(fmt.Sprintf("the token endpoint answered %d: ", a.StatusCode), err, secrets...))
		if g.once && a.lost() {
			return reauth.Token{}, reauth.AnswerLost(told)
		}
		return reauth.Token{}, told
	}
	return a.granted(tok, g, stale.Token.RefreshToken, secrets)
}

// onLink returns an error unless a request is encrypted, or stays on this machine or on
// its link, which no router forwards from (RFC 3927 §2.7).
func onLink(req *http.Request) error {
	if addr, err := netip.ParseAddr(req.URL.Hostname()); err == nil && addr.IsLinkLocalUnicast() && req.URL.Scheme == "http" {
		return nil
	}
	return secure(req.URL.String())
}

// secretsOf returns what a request may hold that must not be in an error: all values of
// some length, since who knows what they are.
func secretsOf(req *http.Request) (all []string) {
	add := func(v string) {
		if len(v) >= mask.Overlap {
			all = append(all, v)
		}
	}
	for name, values := range req.Header {
		if name != "Content-Type" && name != "Accept" && name != "User-Agent" {
			for _, v := range values {
				add(v[strings.LastIndexByte(v, ' ')+1:])
			}
		}
	}
	for _, values := range req.URL.Query() {
		for _, v := range values {
			add(v)
		}
	}
	if req.GetBody == nil {
		return all
	}
	body, err := req.GetBody()
	if err != nil {
		return all
	}
	defer body.Close()
	data, _ := io.ReadAll(io.LimitReader(body, maxAnswer))
	for _, raw := range objectOf(data) {
		var s string
		if json.Unmarshal(raw, &s) == nil {
			add(s)
		}
	}
	return all
}

// postJSON returns a request with a JSON object in its body.
func postJSON(ctx context.Context, address string, object map[string]any) (*http.Request, error) {
	body, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	return req, nil
}
