package refresher

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/reauth-go/reauth"
)

// Chain returns a Refresher that asks the given ones in order and takes the first
// token that is a new one. If none has one, its error has that of each; it is
// permanent if all are.
//
// A refresh token goes back only to the one that it came from, once that is known.
func Chain(refreshers ...reauth.Refresher) reauth.Refresher {
	if len(refreshers) == 0 {
		return failing(errors.New("refresher.Chain has no Refresher in it"))
	}
	c := &chain{links: refreshers}
	return reauth.RefresherFunc(c.refresh)
}

type chain struct {
	links []reauth.Refresher

	mu     sync.Mutex
	issued []issued // the latest; guarded by mu
}

// An issued is a refresh token, as little of it as is needed to know it again,
// and the link that it came from.
type issued struct {
	sum  [sha256.Size]byte
	link int
}

// maxIssued is for as many Credentials that share a Chain.
const maxIssued = 64

func (c *chain) refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	var failed chainError
	owner := c.owner(stale.Token.RefreshToken)
	for i, link := range c.links {
		mine := stale
		if owner >= 0 && owner != i {
			mine.Token.RefreshToken = ""
		}
		tok, err := link.Refresh(ctx, mine)
		if err == nil {
			tok, err = checked(tok)
		}
		if err == nil {
			if why := worn(tok, stale); why != "" {
				err = errors.New("it returned the token that " + why)
			}
		}
		if err == nil {
			c.own(i, tok.RefreshToken)
			return tok, nil
		}
		failed = append(failed, fmt.Errorf("%d: %w", i+1, err))
		if ctx.Err() != nil {
			break
		}
	}
	for _, err := range failed {
		if !reauth.IsPermanent(err) {
			return reauth.Token{}, failed
		}
	}
	return reauth.Token{}, reauth.Permanent(failed)
}

// owner returns the link that a refresh token came from, or -1.
func (c *chain) owner(refreshToken string) int {
	sum := sha256.Sum256([]byte(refreshToken))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.issued {
		if t.sum == sum {
			return t.link
		}
	}
	return -1
}

// own notes which link a refresh token came from.
func (c *chain) own(link int, refreshToken string) {
	if refreshToken == "" || c.owner(refreshToken) == link {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.issued = append(c.issued, issued{sha256.Sum256([]byte(refreshToken)), link}); len(c.issued) > maxIssued {
		c.issued = c.issued[1:]
	}
}

// A chainError is that of each link.
type chainError []error

// Error returns them all, on one line.
func (e chainError) Error() string {
	var all []string
	for _, err := range e {
		all = append(all, err.Error())
	}
	return "no link of the chain has a token: " + strings.Join(all, "; ")
}

// Unwrap returns those of the errors that another try may cure, or all if there
// are none: a single permanent one does not make the chain so.
func (e chainError) Unwrap() []error {
	var passing []error
	for _, err := range e {
		if !reauth.IsPermanent(err) {
			passing = append(passing, err)
		}
	}
	if len(passing) == 0 {
		return e
	}
	return passing
}

// RetryAfter is the shortest that a link asks for.
func (e chainError) RetryAfter() time.Duration {
	var least time.Duration
	for _, err := range e {
		var asks interface{ RetryAfter() time.Duration }
		if errors.As(err, &asks) {
			if d := asks.RetryAfter(); d > 0 && (least == 0 || d < least) {
				least = d
			}
		}
	}
	return least
}
