package refresher

import (
	"context"
	"errors"
	"net/url"

	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
)

// A TokenExchange specifies what is exchanged for a token (RFC 8693 §2.1). An audience
// or a resource is set in OAuth2.Params.
type TokenExchange struct {
	// Subject returns the subject_token. It is called for each exchange with a zero
	// Stale. If the issuer rejects that token, it is called once more with that token
	// as Stale.Token. Subject may be a *reauth.Credential.
	Subject reauth.Refresher

	// SubjectType is the subject_token_type. If empty,
	// "urn:ietf:params:oauth:token-type:access_token" is used.
	SubjectType string

	// Actor optionally returns the actor_token. It is called as Subject is. If nil,
	// there is no actor_token. ActorType is its type, with the default of SubjectType.
	Actor     reauth.Refresher
	ActorType string

	// RequestedType is the requested_token_type. If empty, the server decides.
	RequestedType string
}

// TokenExchange returns a Refresher for the token exchange grant (RFC 8693).
func (o *OAuth2) TokenExchange(x TokenExchange) reauth.Refresher {
	if x.Subject == nil {
		return failing(errors.New("refresher.TokenExchange has no Subject"))
	}
	return reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		var subject, actor reauth.Stale
		var err error
		if subject.Token, err = x.Subject.Refresh(ctx, subject); err != nil {
			return reauth.Token{}, ofAnother("no subject token: ", err)
		}
		if x.Actor != nil {
			if actor.Token, err = x.Actor.Refresh(ctx, actor); err != nil {
				return reauth.Token{}, ofAnother("no actor token: ", err)
			}
		}
		tok, err := o.exchange(ctx, stale, x, subject.Token, actor.Token)
		refused := refusedToken(err)
		if refused == nil {
			return tok, err
		}
		said := err
		before := subject.Token.AccessToken + " " + actor.Token.AccessToken
		subject.Rejection, actor.Rejection = *refused, *refused
		if subject.Token, err = x.Subject.Refresh(ctx, subject); err != nil {
			return reauth.Token{}, mask.WithText(said.Error()+"; there is no other subject token: "+mask.ErrorText(err), said)
		}
		if x.Actor != nil {
			if actor.Token, err = x.Actor.Refresh(ctx, actor); err != nil {
				return reauth.Token{}, mask.WithText(said.Error()+"; there is no other actor token: "+mask.ErrorText(err), said)
			}
		}
		if subject.Token.AccessToken+" "+actor.Token.AccessToken == before {
			return reauth.Token{}, mask.WithText(said.Error()+"; the Subject returned the same token again", said)
		}
		return o.exchange(ctx, stale, x, subject.Token, actor.Token)
	})
}

func (o *OAuth2) exchange(ctx context.Context, stale reauth.Stale, x TokenExchange, subject, actor reauth.Token) (reauth.Token, error) {
	const accessToken = "urn:ietf:params:oauth:token-type:access_token"
	form := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {subject.AccessToken},
		"subject_token_type": {or(x.SubjectType, accessToken)},
	}
	if x.Actor != nil {
		form.Set("actor_token", actor.AccessToken)
		form.Set("actor_token_type", or(x.ActorType, accessToken))
	}
	if x.RequestedType != "" {
		form.Set("requested_token_type", x.RequestedType)
	}
	return o.ask(ctx, stale, grant{form: form, scoped: true})
}

// refusedToken returns the rejection if err says that the issuer rejected a token to
// exchange (with invalid_request by RFC 8693 §2.2.2). Otherwise it returns nil.
func refusedToken(err error) *reauth.Rejection {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return nil
	}
	switch folded(refused.ErrorCode) {
	case "invalidgrant", "invalidrequest", "invalidtoken", "tokenexpired", "expiredtoken":
		return &reauth.Rejection{Reason: reauth.ReasonInvalidToken, StatusCode: refused.Response.StatusCode, Code: refused.ErrorCode}
	}
	return nil
}
