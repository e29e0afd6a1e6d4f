package reauth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// This file decides whether a rejection of the current token is followed by a refresh,
// by a retry with the predecessor, or by neither. The first row that applies decides.
// "Accepted" means accepted by the origin of the request.
//
//	the challenge asks for claims or scopes that       refresh, if the budget allows
//	  the token was not fetched with
//	the predecessor was accepted last, and the token   retry with the predecessor
//	  is not accepted or younger than settleTime
//	the challenge asks for the predecessor's claims    retry with the predecessor
//	a refresh is in progress                           wait for it
//	the token is not accepted, and too young           the predecessor if it was ever
//	                                                     accepted, else NotRetriedTooYoung
//	the budget is used up                              the same, else NotRetriedBudget
//	the Refresher failed, and its backoff lasts        NotRetriedNoToken
//	otherwise                                          refresh
//
// A token is too young for an origin that has not accepted it
//
//	fetched for a rejection                            for 5 s
//	the n-th in a row fetched for this origin          for 5, 10, 20, 40, 60 s
//
// An acceptance of the current token ends the row. Five minutes without a refresh for
// the origin end it too. Set and Clear end all rows and remove the predecessor.

const (
	defaultMinBackoff   = 250 * time.Millisecond
	defaultMaxBackoff   = time.Minute
	defaultRefreshEvery = 6 * time.Second
	maxBackoff          = 24 * time.Hour

	budgetSize = 20 // refreshes for rejections at once

	rowStep = 5 * time.Second
	maxRow  = time.Minute
	rowEnd  = 5 * time.Minute

	keepPredecessor = 15 * time.Second
)

// forRejectionLocked decides for a request whose token was rejected, as the table
// above says.
func (c *Credential) forRejectionLocked(ctx context.Context, now time.Time, done *flight, why rejection) decision {
	if c.endedLocked(why.rejected.Token) {
		return decision{err: ErrLoggedOut}
	}
	asks := why.requirements()
	serves := func(s *tokenState) bool { return s.asked.serves(asks, c.anyClaimsLocked()) }
	replaces := func(s *tokenState) bool {
		return s != nil && s.AccessToken != why.rejected.AccessToken && serves(s)
	}
	s := c.current.Load()
	if done != nil && !done.superseded && replaces(done.state) && (s.is(done.state) || !replaces(s)) {
		return decision{state: done.state}
	}
	if replaces(s) && s.usable(now) {
		return decision{state: s}
	}
	isCurrent := s != nil && s.AccessToken == why.rejected.AccessToken
	if isCurrent {
		if p := c.predecessorLocked(why.origin, s, asks, now); p != nil {
			return decision{state: p, predecessor: true}
		}
	}
	// A flight that does not ask for the same, or that returned the rejected token
	// because it did not know of the rejection, is followed by another.
	if c.flight != nil {
		return decision{flight: c.flight}
	}
	stale := Stale{Rejection: why.Rejection}
	if s != nil {
		stale.Token = s.Token
	}
	if !isCurrent && s != nil && serves(s) {
		why, stale.Rejection = rejection{}, Rejection{} // the current token has merely expired
	} else if limit, usedUp := c.limitLocked(why, s, asks, now); limit != nil {
		if p := c.fallbackLocked(why.origin, asks, now); p != nil && isCurrent {
			return decision{state: p, predecessor: true, usedUp: usedUp}
		}
		return decision{err: limit, usedUp: usedUp}
	}
	if err := c.unavailableLocked(now, stale); err != nil {
		return decision{err: err}
	}
	return decision{flight: c.startLocked(ctx, now, stale, why)}
}

// limitLocked returns why no refresh is allowed for the rejection, and whether the
// budget has just been used up.
func (c *Credential) limitLocked(why rejection, cur *tokenState, asks requirements, now time.Time) (*RefreshError, bool) {
	if cur != nil && cur.asked.covers(asks) {
		if until := c.oldEnoughLocked(why.origin, cur, now); !until.IsZero() {
			return tooYoung(why.Rejection, until), false
		}
	}
	if until := c.budgetLocked(now); !until.IsZero() {
		first := !c.budget.warned
		c.budget.warned = true
		return usedUp(why.Rejection, until), first
	}
	return nil, false
}

// A failureBackoff prevents calls of a Refresher that has failed.
type failureBackoff struct {
	err       *RefreshError // of the latest refresh; nil after a success
	until     time.Time
	permanent bool // until Set or Clear
	failures  int  // in a row
	unwaited  bool // no caller waited for the refresh that failed
}

// backOffLocked begins the backoff after a failed refresh. The caller sets err.
func (c *Credential) backOffLocked(now time.Time, retryAfter time.Duration, permanent, waited bool) {
	b := &c.backoff
	wait := retryAfter
	if retryAfter <= 0 {
		b.failures++
		wait = c.backoffAfter(b.failures)
	}
	b.until, b.permanent, b.unwaited = now.Add(wait), permanent, !waited
	// Requests that carry a usable token must not take the lock before then.
	cur := c.current.Load()
	if cur == nil || cur.refreshAt.never() {
		return
	}
	s := *cur
	if until := instantOf(b.until); permanent {
		s.refreshAt = s.expiry
	} else if s.refreshAt.mono.Before(until.mono) {
		s.refreshAt = earlier(s.expiry, until)
	}
	c.current.Store(&s)
}

// backoffAfter returns how long to back off after so many failures in a row.
func (c *Credential) backoffAfter(failures int) time.Duration {
	least, most := c.MinBackoff, c.MaxBackoff
	switch {
	case least < 0:
		return 0
	case least == 0:
		least = defaultMinBackoff
	}
	switch {
	case most < 0:
		most = maxBackoff
	case most == 0:
		most = defaultMaxBackoff
	}
	least = min(least, maxBackoff)
	most = min(max(most, least), maxBackoff)
	const jitter = 0.2
	b := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(time.Duration(float64(least)/(1-jitter))),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(jitter),
		backoff.WithMaxInterval(time.Duration(float64(most)/(1+jitter))),
		backoff.WithMaxElapsedTime(0), // else NextBackOff returns Stop after 15 minutes
	)
	for range min(failures, 30) - 1 {
		b.NextBackOff()
	}
	return min(max(b.NextBackOff(), least), most)
}

// unavailableLocked returns why the Refresher is not called now, or nil.
func (c *Credential) unavailableLocked(now time.Time, stale Stale) error {
	b := &c.backoff
	switch {
	case c.refresherMissing() && c.Store == nil:
		return &RefreshError{Rejection: stale.Rejection, text: noRefresher}
	case c.closed:
		return ErrClosed
	case b.permanent && c.Store != nil && now.Sub(c.sharedLocked().looked) >= lookAgain:
		c.sharedLocked().looked = now // another process may have logged in
		return nil
	case b.permanent:
		return b.err
	case now.Before(b.until) && !c.mayAskOnceLocked(stale):
		return b.err
	case c.Store == nil && c.refreshTokenOutLocked(stale.Token.RefreshToken):
		return &RefreshError{
			Rejection: stale.Rejection,
			RetryAt:   now.Add(time.Second),
			text:      "the previous refresh has not returned, and its refresh token must not be used twice: check that the issuer answers, and that the Refresher returns when its context ends",
		}
	}
	return nil
}

const noRefresher = "there is no Refresher: set Credential.Refresher, or call Credential.Set with a token"

// mayAskOnceLocked reports whether a rejection may interrupt the backoff: it began when
// no caller waited, and no rejection of this token has interrupted it before.
func (c *Credential) mayAskOnceLocked(stale Stale) bool {
	cur := c.current.Load()
	return stale.Rejection.Reason != "" && c.backoff.unwaited && cur != nil && !cur.verdicts.interrupted
}

// A budget allows so many refreshes at once, and one more in each interval.
type budget struct {
	used   int       // when filled was set
	filled time.Time // when the interval of the next refresh began
	warned bool      // the log has a warning since the budget was last full
}

// refreshEvery returns RefreshEvery or its default. Negative is no limit.
func (c *Credential) refreshEvery() time.Duration {
	if c.RefreshEvery == 0 {
		return defaultRefreshEvery
	}
	return c.RefreshEvery
}

// budgetLocked returns when the budget allows another refresh; zero is now.
func (c *Credential) budgetLocked(now time.Time) time.Time {
	b, every := &c.budget, c.refreshEvery()
	if every < 0 {
		return time.Time{}
	}
	if earned := int(now.Sub(b.filled) / every); earned >= b.used {
		*b = budget{filled: now}
	} else if earned > 0 {
		b.used -= earned
		b.filled = b.filled.Add(time.Duration(earned) * every)
	}
	if b.used < budgetSize {
		return time.Time{}
	}
	return b.filled.Add(every)
}

// spendLocked takes one refresh out of the budget.
func (c *Credential) spendLocked(now time.Time) {
	c.budgetLocked(now)
	if c.budget.used == 0 {
		c.budget.filled = now
	}
	c.budget.used = min(c.budget.used+1, budgetSize)
}

// A row counts the tokens that were fetched for an origin in a row.
type row struct {
	tokens int
	latest time.Time
}

// oldEnoughLocked returns when the current token is old enough to be replaced for
// the origin; zero is now.
func (c *Credential) oldEnoughLocked(o requestOrigin, cur *tokenState, now time.Time) time.Time {
	r, remembered := c.rows[o]
	if cur.verdicts.presumed(o) || !remembered && o != (requestOrigin{}) && c.rowsFullLocked(now) {
		return time.Time{}
	}
	var least time.Duration
	if cur.forRejection {
		least = settleTime
	}
	if remembered && now.Sub(r.latest) < rowEnd {
		least = max(least, min(rowStep<<min(r.tokens-1, 10), maxRow))
	}
	if cur.age(now) >= least {
		return time.Time{}
	}
	return cur.obtained.Add(least)
}

// countLocked notes that a token was fetched for the origin.
func (c *Credential) countLocked(o requestOrigin, now time.Time) {
	r, ok := c.rows[o]
	if !ok && o != (requestOrigin{}) && c.rowsFullLocked(now) {
		return
	}
	if now.Sub(r.latest) >= rowEnd {
		r.tokens = 0
	}
	if c.rows == nil {
		c.rows = map[requestOrigin]row{}
	}
	c.rows[o] = row{r.tokens + 1, now}
}

// rowsFullLocked reports whether there is no room for the row of another origin. Such an
// origin counts as one that has accepted the token. Rows that have ended are removed.
func (c *Credential) rowsFullLocked(now time.Time) bool {
	if len(c.rows) < maxOrigins {
		return false
	}
	maps.DeleteFunc(c.rows, func(_ requestOrigin, r row) bool { return now.Sub(r.latest) >= rowEnd })
	return len(c.rows) >= maxOrigins
}

// accepted notes that the origin answered a request which carried the token, and
// neither rejected it nor failed.
func (c *Credential) accepted(s *tokenState, o requestOrigin) {
	if s.verdicts.known(o) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.verdicts.setLocked(o, true)
	if s.is(c.current.Load()) {
		delete(c.rows, o)
	}
}

// predecessorLocked returns the predecessor if the retry is to carry it in place of the
// current token, which the origin has rejected. Otherwise it returns nil.
func (c *Credential) predecessorLocked(o requestOrigin, cur *tokenState, asks requirements, now time.Time) *tokenState {
	p := c.predecessor
	switch {
	case !p.usable(now) || !p.verdicts.everAccepted(o):
		return nil
	case len(asks.claims) > 0:
		if p.asked.covers(asks) && asks.covers(requirements{claims: p.asked.claims}) {
			return p
		}
		return nil
	case p.asked.covers(asks) && p.verdicts.lastAccepted(o) && (!cur.verdicts.everAccepted(o) || cur.age(now) < settleTime):
		return p
	}
	return nil
}

// fallbackLocked returns the predecessor if the origin has ever accepted it, for a
// rejection for which no refresh is allowed.
func (c *Credential) fallbackLocked(o requestOrigin, asks requirements, now time.Time) *tokenState {
	if p := c.predecessor; p.usable(now) && p.verdicts.everAccepted(o) && p.asked.covers(asks) {
		return p
	}
	return nil
}

// replaceLocked makes next the current token, and the current one its predecessor.
// Servers may know neither of two tokens that came within settleTime, so that an
// earlier predecessor remains.
func (c *Credential) replaceLocked(next *tokenState, now time.Time) {
	if cur := c.current.Load(); cur != nil && cur.AccessToken != "" {
		p := c.predecessor
		remains := cur.age(now) < settleTime && p.usable(now) && p.forRejection && p.age(now) < keepPredecessor
		if !remains {
			c.predecessor = cur
		}
	}
	c.holdLocked(next)
}

// retryAfterOf returns how long the error asks to wait before the next call. It returns
// zero if the error does not say.
func retryAfterOf(err error) (d time.Duration) {
	defer func() {
		if recover() != nil {
			d = 0
		}
	}()
	var asks interface{ RetryAfter() time.Duration }
	if errors.As(err, &asks) {
		d = min(asks.RetryAfter(), maxBackoff)
	}
	return d
}

// tooYoung is the error for a rejection of a token that its origin may not know yet.
func tooYoung(rej Rejection, until time.Time) *RefreshError {
	return &RefreshError{
		Rejection:  rej,
		RetryAt:    until,
		notRetried: NotRetriedTooYoung,
		text:       "the token is new and this origin has not accepted it: its servers may not know it yet, or they accept no token of this issuer; the next refresh for this origin is allowed after " + stamp(until),
	}
}

// usedUp is the error for a rejection for which the budget allows no refresh.
func usedUp(rej Rejection, until time.Time) *RefreshError {
	return &RefreshError{
		Rejection:  rej,
		RetryAt:    until,
		notRetried: NotRetriedBudget,
		text:       fmt.Sprintf("the budget of refreshes for rejections is used up: %s; the next refresh is allowed after %s", budgetCauses, stamp(until)),
	}
}

const budgetCauses = "either another process uses the same login and the issuer accepts only the newest token, or a path rejects every token"

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
