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

// An HTTP is a Refresher for a token endpoint of any protocol. It sends and retries
// requests, keeps a new refresh token, and marks errors with reauth.AnswerLost and
// reauth.LoginEnded as an OAuth2 does.
//
// Its fields must not be modified after first use.
type HTTP struct {
	// Request returns the request for another token. Its URL must be https, on
	// loopback, or a link-local address such as that of a metadata server. The request
	// is retried only if its body is empty or it has GetBody. If the stale token has a
	// refresh token, the request is assumed to present it. It is then retried only as
	// OAuth2 describes for a refresh token.
	Request func(ctx context.Context, stale reauth.Stale) (*http.Request, error)

	// Token optionally returns the token of a response. body is the response body;
	// resp.Body has been read. If Token returns an error, the error of the refresh has
	// its text and the status. Token is not called if the status is not 2xx, or the
	// body has an error. If nil, the token is read from the members of RFC 6749 §5.1
	// and of other servers. They may be in the JSON object or the form in the body, or
	// one object deeper.
	Token func(resp *http.Response, body []byte) (reauth.Token, error)

	// Reuse has the same meaning as OAuth2.Reuse.
	Reuse time.Duration

	// Permanent has the same meaning as OAuth2.Permanent.
	Permanent func(*oauth2.RetrieveError) bool

	// Base has the same meaning as OAuth2.Base.
	Base http.RoundTripper
}

// Refresh implements reauth.Refresher.
func (h *HTTP) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	if h.Request == nil {
		return reauth.Token{}, reauth.Permanent(errors.New("refresher.HTTP has no Request"))
	}
	g := grant{once: stale.Token.RefreshToken != "", lostAt: stale.AnswerLostAt, permanent: h.Permanent, foreign: true}
	g.login = !g.once // a refresh token in the response is kept
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
		failure := error(mask.Err(fmt.Sprintf("the token endpoint answered %d: ", a.StatusCode), err, secrets...))
		if g.once && a.lost() {
			return reauth.Token{}, reauth.AnswerLost(failure)
		}
		return reauth.Token{}, failure
	}
	return a.granted(tok, g, stale.Token.RefreshToken, secrets)
}

// onLink returns an error unless a request is encrypted, or does not leave this machine
// or its link: routers do not forward from a link-local address (RFC 3927 §2.7).
func onLink(req *http.Request) error {
	if addr, err := netip.ParseAddr(req.URL.Hostname()); err == nil && addr.IsLinkLocalUnicast() && req.URL.Scheme == "http" {
		return nil
	}
	return secure(req.URL.String())
}

// secretsOf returns the values of a request that must not be in an error. These are all
// values of some length, as it is not known which are secret.
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
