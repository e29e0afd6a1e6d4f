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

// Static returns a Refresher for a token that never changes. If a server rejects the
// token, or it expires, the Refresher returns a permanent error.
func Static(token string) reauth.Refresher {
	return fixed("a static token", func() (string, error) { return token, nil })
}

// Env returns a Refresher for a token in an environment variable. White space around
// the token is removed. Only the process itself can change its environment. If a server
// rejects the token, or it expires, the Refresher therefore returns a permanent error.
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
		if why := notNewer(tok, stale); why != "" {
			return reauth.Token{}, reauth.Permanent(fmt.Errorf("%s %s and cannot be refreshed: "+
				"replace it and start again, or use refresher.DotEnv, File or Exec, which look again", source, why))
		}
		return tok, nil
	})
}

// checked returns the token if it is valid, with its expiry if that is known.
func checked(tok reauth.Token) (reauth.Token, error) {
	if err := tok.Validate(); err != nil {
		return reauth.Token{}, err
	}
	if exp, ok := jwtExpiry(tok.AccessToken); ok && (tok.Expiry.IsZero() || !time.Now().Before(exp)) {
		tok.Expiry = exp
	}
	return tok, nil
}

// notNewer returns why tok cannot replace the stale token, or "". It cannot if it is
// the same token, and that was rejected or has expired.
func notNewer(tok reauth.Token, stale reauth.Stale) string {
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
