package refresher

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/reauth-go/reauth"
)

// A Feishu is a Refresher for the tenant_access_token of an internal app of Feishu or
// Lark. See
// https://open.feishu.cn/document/server-docs/authentication-management/access-token/tenant_access_token_internal.
type Feishu struct {
	AppID     string
	AppSecret string

	// URL is the address of the API. If empty, "https://open.feishu.cn" is used. The
	// address of Lark is "https://open.larksuite.com".
	URL string

	// Base has the same meaning as OAuth2.Base.
	Base http.RoundTripper
}

// Refresh implements reauth.Refresher.
func (f *Feishu) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	h := HTTP{Base: f.Base, Request: func(ctx context.Context, _ reauth.Stale) (*http.Request, error) {
		address := or(f.URL, "https://open.feishu.cn") + "/open-apis/auth/v3/tenant_access_token/internal"
		return postJSON(ctx, address, map[string]any{"app_id": f.AppID, "app_secret": f.AppSecret})
	}}
	return h.Refresh(ctx, withoutRefreshToken(stale))
}

// Format implements fmt.Formatter: every verb prints the app without its secret.
func (f Feishu) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "Feishu(%s)", f.AppID) }

// A WeChat is a Refresher for the access_token of an official account or a mini
// program, with the stable version of the interface. See
// https://developers.weixin.qq.com/doc/offiaccount/Basic_Information/getStableAccessToken.html.
// Its tokens are sent in the query: set Transport.Query to "access_token".
//
// If the interface returns the rejected token, a WeChat forces a new one. That ends the
// former token, and is allowed 20 times a day.
type WeChat struct {
	AppID  string
	Secret string

	// URL is the address of the API. If empty, "https://api.weixin.qq.com" is used.
	URL string

	// Base has the same meaning as OAuth2.Base.
	Base http.RoundTripper
}

// Refresh implements reauth.Refresher.
func (w *WeChat) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	stale = withoutRefreshToken(stale)
	tok, err := w.ask(ctx, stale, false)
	if err == nil && stale.Rejection.Reason != "" && tok.AccessToken == stale.Token.AccessToken {
		return w.ask(ctx, stale, true)
	}
	return tok, err
}

func (w *WeChat) ask(ctx context.Context, stale reauth.Stale, force bool) (reauth.Token, error) {
	h := HTTP{Base: w.Base, Request: func(ctx context.Context, _ reauth.Stale) (*http.Request, error) {
		return postJSON(ctx, or(w.URL, "https://api.weixin.qq.com")+"/cgi-bin/stable_token", map[string]any{
			"grant_type": "client_credential", "appid": w.AppID, "secret": w.Secret, "force_refresh": force,
		})
	}}
	return h.Refresh(ctx, stale)
}

// Format implements fmt.Formatter: every verb prints the account without its secret.
func (w WeChat) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "WeChat(%s)", w.AppID) }

// A GitHubApp is a Refresher for the access tokens of a GitHub App's installation. See
// https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-an-installation-access-token-for-a-github-app.
type GitHubApp struct {
	// ClientID is the client ID of the app, or its app ID.
	ClientID string

	// InstallationID is the number in the URL of the installation's settings.
	InstallationID int64

	// PrivateKey is the RSA key of the app, in PEM.
	PrivateKey []byte

	// Repositories and Permissions restrict the token. If nil, the token has all of the
	// installation's.
	Repositories []string
	Permissions  map[string]string

	// URL is the address of the API. If empty, "https://api.github.com" is used. The
	// address of a GitHub Enterprise Server ends in "/api/v3".
	URL string

	// Base has the same meaning as OAuth2.Base.
	Base http.RoundTripper
}

// Refresh implements reauth.Refresher.
func (g *GitHubApp) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	h := HTTP{Base: g.Base, Request: func(ctx context.Context, _ reauth.Stale) (*http.Request, error) {
		assertion, err := g.assertion(time.Now())
		if err != nil {
			return nil, err
		}
		address, err := url.JoinPath(or(g.URL, "https://api.github.com"), "app/installations", fmt.Sprint(g.InstallationID), "access_tokens")
		if err != nil {
			return nil, err
		}
		narrow := map[string]any{}
		if g.Repositories != nil {
			narrow["repositories"] = g.Repositories
		}
		if g.Permissions != nil {
			narrow["permissions"] = g.Permissions
		}
		req, err := postJSON(ctx, address, narrow)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+assertion)
		req.Header.Set("Accept", "application/vnd.github+json")
		req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
		return req, nil
	}}
	return h.Refresh(ctx, withoutRefreshToken(stale))
}

// assertion returns the JWT of the app (RFC 7519), which GitHub accepts for ten minutes
// at most; it is dated back a minute, as GitHub advises, for clocks that differ.
func (g *GitHubApp) assertion(now time.Time) (string, error) {
	key, err := rsaKey(g.PrivateKey)
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{"iss": g.ClientID, "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(9 * time.Minute).Unix()})
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + enc.EncodeToString(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	return signed + "." + enc.EncodeToString(signature), nil
}

// rsaKey returns the RSA private key in PEM data. Its errors do not contain any of it.
func rsaKey(data []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("the PrivateKey is not in PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		if key, ok := key.(*rsa.PrivateKey); ok {
			return key, nil
		}
	}
	return nil, errors.New("the PrivateKey is not an RSA private key in PKCS #1 or PKCS #8")
}

// Format implements fmt.Formatter: every verb prints the app without its key.
func (g GitHubApp) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "GitHubApp(%s, installation %d)", g.ClientID, g.InstallationID)
}

// withoutRefreshToken returns stale without the refresh token, for a Refresher that
// does not use it.
func withoutRefreshToken(stale reauth.Stale) reauth.Stale {
	stale.Token.RefreshToken, stale.AnswerLostAt = "", time.Time{}
	return stale
}
