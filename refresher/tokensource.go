package refresher

import (
	"context"
	"errors"
	"time"

	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
)

// Token converts a token of x/oauth2, for Credential.Set after a login. Nil gives
// the zero Token.
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

// FromTokenSource returns a Refresher that takes its token from a new
// oauth2.TokenSource each time. The sources of x/oauth2 remember their token until
// its expiry, so that one and the same would return a revoked token for ever.
//
// The source is made with the refresh's context, which ends its requests; how it
// makes them is its own affair. It learns nothing of the token that is to be
// replaced: for a refresh token that rotates, use OAuth2.
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
		if why := worn(tok, stale); why != "" {
			return reauth.Token{}, errors.New("the oauth2.TokenSource returned the token that " + why + ": have the function make a new source each time")
		}
		return tok, nil
	})
}

// ofTokenSource returns the error of an oauth2.TokenSource without the answer's body,
// which x/oauth2 puts into it.
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

// TokenSource returns an oauth2.TokenSource for what takes no http.Client. Its
// tokens are those of the Credential, which renews them ahead of their expiry;
// that one was rejected has to be told to Credential.Refresh. The refresh token
// stays with the Credential, since two who use it would be taken for thieves.
func TokenSource(cred *reauth.Credential) oauth2.TokenSource { return tokenSource{cred} }

type tokenSource struct{ cred *reauth.Credential }

// Token has no context: RefreshTimeout limits it.
func (s tokenSource) Token() (*oauth2.Token, error) {
	tok, err := s.cred.Token(context.Background())
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: tok.AccessToken, TokenType: tok.TokenType, Expiry: tok.Expiry}, nil
}
