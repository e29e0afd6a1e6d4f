package refresher

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/reauth-go/reauth"
)

// Chain returns a Refresher that asks the given ones in order and takes the first
// token that is a new one. If none has one, its error has that of each; it is
// permanent if all are.
//
// It is asked again when the most patient of those wishes that another try may
// cure. A refresh token goes back only to the one that it came from, once that is
// known, and to none that has called it dead or lost the answer to it.
func Chain(refreshers ...reauth.Refresher) reauth.Refresher {
	if len(refreshers) == 0 {
		return failing(errors.New("refresher.Chain has no Refresher in it"))
	}
	c := &chain{links: refreshers}
	return reauth.RefresherFunc(c.refresh)
}

type chain struct {
	links []reauth.Refresher

	mu    sync.Mutex
	known []known // the latest refresh tokens; guarded by mu
}

// A known is what is known of a refresh token and a link; of the former as little
// as is needed to know it again.
type known struct {
	sum  [sha256.Size]byte
	link int
	dead bool // else it came from there
}

// maxKnown is for as many Credentials that share a Chain.
const maxKnown = 64

func (c *chain) refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	var failed chainError
	for i, link := range c.links {
		mine := stale
		if !c.hands(stale.Token.RefreshToken, i) {
			mine.Token.RefreshToken = ""
		}
		tok, err := link.Refresh(ctx, mine)
		if reauth.IsPermanent(err) || errors.Is(err, io.ErrUnexpectedEOF) {
			c.note(mine.Token.RefreshToken, i, true)
		}
		if err == nil {
			tok, err = checked(tok)
		}
		if err == nil {
			if why := worn(tok, stale); why != "" {
				err = errors.New("it returned the token that " + why)
			}
		}
		if err == nil {
			c.note(tok.RefreshToken, i, false)
			return tok, nil
		}
		failed = append(failed, fmt.Errorf("%d: %w", i+1, err))
		if ctx.Err() != nil && i+1 < len(c.links) { // nobody knows what the others have
			failed = append(failed, fmt.Errorf("%d: %w", i+2, context.Cause(ctx)))
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

// hands reports whether a link is to have the refresh token.
func (c *chain) hands(refreshToken string, link int) bool {
	sum := sha256.Sum256([]byte(refreshToken))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.known {
		if k.sum == sum && (k.link == link) == k.dead {
			return false // it is dead to this link, or it is another's
		}
	}
	return true
}

// note remembers that a refresh token came from a link, or is dead to it.
func (c *chain) note(refreshToken string, link int, dead bool) {
	k := known{sha256.Sum256([]byte(refreshToken)), link, dead}
	c.mu.Lock()
	defer c.mu.Unlock()
	if refreshToken == "" || slices.Contains(c.known, k) {
		return
	}
	if c.known = append(c.known, k); len(c.known) > maxKnown {
		c.known = c.known[1:]
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

// RetryAfter is the longest that those ask for which another try may cure; zero if
// one of them leaves it to the Credential's pace, which grows: a file that is looked
// at each second must not have an issuer asked as often.
func (e chainError) RetryAfter() time.Duration {
	var most time.Duration
	for _, err := range e.Unwrap() {
		var asks interface{ RetryAfter() time.Duration }
		if !errors.As(err, &asks) || asks.RetryAfter() <= 0 {
			return 0
		}
		most = max(most, asks.RetryAfter())
	}
	return most
}
