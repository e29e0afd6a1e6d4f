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

// Chain returns a Refresher that calls the given Refreshers in order and returns the
// first new token. If there is none, the error has the errors of all. It is permanent
// if all of them are.
//
// A token that has expired, or was rejected before, is returned only if there is no
// other. A Refresher that does not return uses up the time of the refresh for those
// that follow, and should be the last.
//
// If each error that is not permanent specifies a backoff, the longest of them applies.
// Otherwise the Credential's backoff applies. Once it is known which Refresher returned
// a refresh token, or lost the answer to it, only that Refresher gets it. A Refresher
// that has returned a permanent error for a refresh token does not get it again.
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

// A known relates a refresh token, whose sum is kept, to a link.
type known struct {
	sum     [sha256.Size]byte
	link    int
	invalid bool // for this link; if false, the token came from it
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
		if ctx.Err() != nil && i+1 < len(c.links) { // the other links are not asked
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
	if why := notNewer(tok, stale); why != "" {
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

// promising reports whether a token has not expired, and no server has rejected it. An
// earlier link may return a revoked key each time.
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
		if k.sum == sum && (k.link == link) == k.invalid {
			return false // it is invalid for this link, or belongs to another
		}
	}
	return true
}

// note records that a refresh token came from a link, or is invalid for it.
func (c *chain) note(refreshToken string, link int, invalid bool) {
	k := known{sha256.Sum256([]byte(refreshToken)), link, invalid}
	c.mu.Lock()
	defer c.mu.Unlock()
	if refreshToken == "" || slices.Contains(c.known, k) {
		return
	}
	if c.known = append(c.known, k); len(c.known) > maxKnown {
		c.known = c.known[1:]
	}
}

// A chainError has the errors of the links.
type chainError []error

// Error returns them all, on one line.
func (e chainError) Error() string {
	var all []string
	for _, err := range e {
		all = append(all, err.Error())
	}
	return "no link of the chain has a token: " + strings.Join(all, "; ")
}

// Unwrap returns the errors that are not permanent, or all if there are none: a single
// permanent error does not make the chain's error permanent.
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

// RetryAfter returns the longest backoff that the errors of Unwrap specify. It returns
// zero if an error specifies none: the Credential's backoff then grows, so that a file
// does not cause an issuer to be called as often as the file is read.
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
