package refresher

import (
	"context"
	"errors"
	"time"

	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
)

// Token converts a token of x/oauth2, such as for Credential.Set after a login. If t is
// nil, Token returns the zero Token.
func Token(t *oauth2.Token) reauth.Token {
	if t == nil {
		return reauth.Token{}
	}
	tok := reauth.Token{AccessToken: t.AccessToken, TokenType: t.TokenType, RefreshToken: t.RefreshToken, Expiry: t.Expiry}
	if t.Expiry.IsZero() && t.ExpiresIn > 0 {
		tok.Expiry = time.Now().Add(time.Duration(min(t.ExpiresIn, maxSeconds)) * time.Second)
	}
	if valid, err := checked(tok); err == nil {
		tok = valid
	}
	return tok
}

// FromTokenSource returns a Refresher that gets its token from a new oauth2.TokenSource
// for each refresh. The sources of x/oauth2 keep their token until it expires, so that
// a single source would return a revoked token again.
//
// source is called with the context of the refresh, which ends the requests of the
// oauth2.TokenSource. The oauth2.TokenSource does not get the token to replace. For a
// refresh token that rotates, use OAuth2.
func FromTokenSource(source func(context.Context) oauth2.TokenSource) reauth.Refresher {
	return reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		src := source(ctx)
		if src == nil {
			return reauth.Token{}, errors.New("there is no oauth2.TokenSource: the function returned nil")
		}
		t, err := src.Token()
		if err != nil {
			return reauth.Token{}, ofTokenSource(err, stale.Token.AccessToken)
		}
		tok, err := checked(Token(t))
		if err != nil {
			return reauth.Token{}, err
		}
		if why := notNewer(tok, stale); why != "" {
			return reauth.Token{}, errors.New("the oauth2.TokenSource returned the token that " + why + ": have the function make a new source each time")
		}
		return tok, nil
	})
}

// ofTokenSource returns the error of an oauth2.TokenSource without the body of the
// response, which x/oauth2 includes.
func ofTokenSource(err error, secret string) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil {
		return mask.Err("no token from the oauth2.TokenSource: ", err, secret)
	}
	a := newAnswer(refused.Response, refused.Body, time.Now())
	a.cause = err
	if refused.ErrorCode != "" {
		a.code, a.description = refused.ErrorCode, refused.ErrorDescription
	}
	return a.refused(grant{}, []string{secret})
}

// TokenSource returns an oauth2.TokenSource for libraries that do not accept an
// http.Client. Its tokens are those of cred, which refreshes them ahead of expiry. It
// is the caller's responsibility to call Credential.Refresh if a server rejects a
// token. The tokens have no refresh token: an issuer may end a login if two clients use
// its refresh token.
func TokenSource(cred *reauth.Credential) oauth2.TokenSource { return tokenSource{cred} }

type tokenSource struct{ cred *reauth.Credential }

// Token implements oauth2.TokenSource. It has no context: RefreshTimeout limits the
// wait.
func (s tokenSource) Token() (*oauth2.Token, error) {
	tok, err := s.cred.Token(context.Background())
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: tok.AccessToken, TokenType: tok.TokenType, Expiry: tok.Expiry}, nil
}
