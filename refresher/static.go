package refresher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/reauth-go/reauth"
)

// Static returns a Refresher for a token that never changes. When a server has
// rejected it, or its time is over, its error is permanent.
func Static(token string) reauth.Refresher {
	return fixed("a static token", func() (string, error) { return token, nil })
}

// Env returns a Refresher for a token in an environment variable, without the line
// breaks and blanks around it. Nobody can
// change the environment of a running process but the process itself, so that
// when a server has rejected the token, or its time is over, its error is
// permanent.
func Env(name string) reauth.Refresher {
	return fixed("the environment variable "+name, func() (string, error) {
		token, ok := os.LookupEnv(name)
		if !ok {
			return "", errors.New("it is not set: export it before the process starts")
		}
		return strings.TrimSpace(token), nil
	})
}

func fixed(source string, get func() (string, error)) reauth.Refresher {
	return reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
		access, err := get()
		if err != nil {
			return reauth.Token{}, reauth.Permanent(fmt.Errorf("%s: %w", source, err))
		}
		tok, err := fromText(access)
		if err != nil {
			return reauth.Token{}, reauth.Permanent(fmt.Errorf("%s: %w", source, err))
		}
		if why := worn(tok, stale); why != "" {
			return reauth.Token{}, reauth.Permanent(fmt.Errorf("%s %s and cannot be refreshed: "+
				"replace it and start again, or use refresher.DotEnv, File or Exec, which look again", source, why))
		}
		return tok, nil
	})
}

// checked returns the token if it is one, with its expiry if that is known.
func checked(tok reauth.Token) (reauth.Token, error) {
	if err := tok.Validate(); err != nil {
		return reauth.Token{}, err
	}
	if exp, ok := jwtExpiry(tok.AccessToken); ok && (tok.Expiry.IsZero() || !time.Now().Before(exp)) {
		tok.Expiry = exp
	}
	return tok, nil
}

// worn returns why tok is of no more use than the stale token, or "": it is the
// same, and that was rejected or has expired.
func worn(tok reauth.Token, stale reauth.Stale) string {
	switch {
	case tok.AccessToken != stale.Token.AccessToken:
		return ""
	case stale.Rejection.Reason != "":
		return "was rejected"
	case !tok.Expiry.IsZero() && !time.Now().Before(tok.Expiry):
		return "has expired"
	}
	return ""
}
