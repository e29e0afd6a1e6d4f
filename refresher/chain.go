package refresher

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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
// A token that has expired, or was rejected before, is the last resort. A link that
// hangs uses up the time of the refresh for all that follow: put it last.
//
// It is asked again when the most patient of those wishes that another try may
// help. A refresh token goes back only to the one that it came from, once that is
// known, or that lost an answer to it, and not to one that has called it invalid.
func Chain(refreshers ...reauth.Refresher) reauth.Refresher {
	if len(refreshers) == 0 {
		return failing(errors.New("refresher.Chain has no Refresher in it"))
	}
	c := &chain{links: refreshers}
	return reauth.RefresherFunc(c.refresh)
}

type chain struct {
	links []reauth.Refresher

	mu       sync.Mutex
	known    []known             // the latest refresh tokens; guarded by mu, as all below
	rejected [][sha256.Size]byte // the latest rejected access tokens
}

// A known is what is known of a refresh token and a link; of the former as little
// as is needed to know it again.
type known struct {
	sum  [sha256.Size]byte
	link int
	dead bool // else it came from there
}

const (
	maxKnown = 64 // for as many Credentials that share a Chain
)

func (c *chain) refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	if stale.Rejection.Reason != "" {
		c.reject(stale.Token)
	}
	var failed chainError
	var resort *reauth.Token
	for i, link := range c.links {
		tok, err := c.ask(ctx, i, link, stale)
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("%d: %w", i+1, err))
		case c.promising(tok, stale):
			return tok, nil
		case resort == nil:
			resort = &tok
		}
		if ctx.Err() != nil && i+1 < len(c.links) { // nobody knows what the others have
			failed = append(failed, fmt.Errorf("%d: %w", i+2, context.Cause(ctx)))
			break
		}
	}
	if resort != nil {
		return *resort, nil
	}
	for _, err := range failed {
		if !reauth.IsPermanent(err) {
			return reauth.Token{}, failed
		}
	}
	return reauth.Token{}, reauth.Permanent(failed)
}

// ask returns the token of a link.
func (c *chain) ask(ctx context.Context, i int, link reauth.Refresher, stale reauth.Stale) (reauth.Token, error) {
	mine := stale
	if !c.hands(stale.Token.RefreshToken, i) {
		mine.Token.RefreshToken = ""
	}
	tok, err := link.Refresh(ctx, mine)
	switch {
	case reauth.IsPermanent(err):
		c.note(mine.Token.RefreshToken, i, true)
	case reauth.IsAnswerLost(err):
		c.note(mine.Token.RefreshToken, i, false) // another link must not present it
	}
	if err != nil {
		return reauth.Token{}, err
	}
	if tok, err = checked(tok); err != nil {
		return reauth.Token{}, err
	}
	if why := worn(tok, stale); why != "" {
		return reauth.Token{}, errors.New("it returned the token that " + why)
	}
	c.note(tok.RefreshToken, i, false)
	return tok, nil
}

// reject remembers an access token that a server has rejected.
func (c *chain) reject(tok reauth.Token) {
	sum := sha256.Sum256([]byte(tok.AccessToken))
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.rejected, sum) {
		return
	}
	if c.rejected = append(c.rejected, sum); len(c.rejected) > maxKnown {
		c.rejected = c.rejected[1:]
	}
}

// promising reports whether a token is neither past its expiry nor one that a
// server has rejected, as a dead key in an earlier link is, time and again.
func (c *chain) promising(tok reauth.Token, stale reauth.Stale) bool {
	if !tok.Expiry.IsZero() && !time.Now().Before(tok.Expiry) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return tok.AccessToken == stale.Token.AccessToken || !slices.Contains(c.rejected, sha256.Sum256([]byte(tok.AccessToken)))
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
