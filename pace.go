package reauth

import (
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
)

const (
	maxPause   = 24 * time.Hour
	forgetStep = time.Minute // a failure is forgotten after this time
)

// A pause keeps callers from the Refresher.
type pause struct {
	until    time.Time
	err      *RefreshError // what callers get meanwhile; the last failure also after until
	forever  bool          // until Set or Clear
	ahead    bool          // nobody was waiting: a rejection ends it
	doubt    bool          // of the held token, which was rejected: its proof ends it
	failures int           // in a row, as of until
	before   int           // likewise, before the held token was proven
}

// pauseLocked opens a pause. Requests that still have a usable token do not even
// ask before its end.
func (c *Credential) pauseLocked(p pause) {
	c.pause = p
	old := c.held.Load()
	if old == nil || old.due.never() {
		return
	}
	h := *old
	if until := instantOf(p.until); p.forever {
		h.due = old.expiry
	} else if old.due.mono.Before(until.mono) {
		h.due = earlier(old.expiry, until)
	}
	c.held.Store(&h)
}

// failuresLocked returns how many of n failures in a row still count: one less
// for each minute since the pause ended without another.
func (c *Credential) failuresLocked(n int, now time.Time) int {
	return max(0, n-max(0, int(now.Sub(c.pause.until)/forgetStep)))
}

// accepted takes note that a server accepted h: on the retry that it was fetched
// for, or on another request. date is the server's clock.
//
// A token that was fetched for a retry is proven by nothing else, or an API that
// always says 401 beside a healthy one would cost a refresh for each request.
func (c *Credential) accepted(h *held, retry bool, date time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.held.Load()
	if old == nil || old.AccessToken != h.AccessToken || !old.learns(retry) {
		return
	}
	now := *old
	if old.trial {
		// It seemed to have expired when it came. Either our clock is wrong, and
		// the server's tells by how much, or its expiry means nothing.
		c.learnLocked(date, time.Now())
		if now.expires(old.since, c.skew, c.RefreshBefore); now.expiry.passed() {
			now.expiry, now.due = instant{}, instant{}
		}
		now.trial = false
	}
	if old.provable(retry) {
		now.proven = true
		if c.pause.err == nil || c.pause.doubt { // else a later refresh has failed
			at := time.Now()
			c.pause = pause{until: at, before: c.failuresLocked(c.pause.failures, at)}
		}
	}
	c.held.Store(&now)
}

// refused takes note that h was rejected on the retry that it was fetched for:
// that opens a pause and takes the proof of the token away, for good. Without a
// retry, the pause is counted from the time that the token came, and the retry
// may still prove it.
func (c *Credential) refused(h *held, retry bool, why Rejection) {
	failures := func(now time.Time) int { // with mu held; 0 if there is nothing to do
		old := c.held.Load()
		switch {
		case old == nil || old.AccessToken != h.AccessToken || old.refused || old.proven && !retry:
			return 0
		case old.proven:
			return 1 + c.failuresLocked(c.pause.before, now)
		case c.pause.doubt: // counted already
			return max(1, c.pause.failures)
		}
		return 1 + c.failuresLocked(c.pause.failures, now)
	}
	c.mu.Lock()
	n := failures(time.Now())
	known := c.pause.doubt && !retry
	c.mu.Unlock()
	if n == 0 || known {
		return
	}
	step, _ := c.step(n, nil)

	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Now()
	if n = failures(at); n == 0 {
		return
	}
	now := *c.held.Load()
	if retry {
		now.proven, now.refused = false, true
		c.held.Store(&now)
	} else {
		at = h.since
	}
	until := at.Add(step)
	if c.pause.forever || c.pause.until.After(until) {
		return // the issuer has said more
	}
	c.pauseLocked(pause{
		until: until,
		err: &RefreshError{
			Rejection: why,
			RetryAt:   until,
			text: fmt.Sprintf("the fresh token was rejected too (%s): see whether the server accepts tokens of this issuer, identity and scope; next attempt after %s",
				why.Reason, until.UTC().Format(time.RFC3339)),
		},
		doubt:    true,
		failures: n,
	})
}

// step returns for how long the Refresher is left alone, and whether its error
// asked for that.
func (c *Credential) step(failures int, err error) (d time.Duration, asked bool) {
	defer func() {
		if recover() != nil { // in Pace, or in the error's RetryAfter
			d, asked = defaultPace(failures), false
		}
	}()
	var asks interface{ RetryAfter() time.Duration }
	if errors.As(err, &asks) {
		if d := asks.RetryAfter(); d > 0 {
			return min(d, maxPause), true
		}
	}
	pace := c.Pace
	if pace == nil {
		pace = defaultPace
	}
	return min(max(pace(failures), 0), maxPause), false
}

// defaultPace is 250 ms doubling to one minute, jittered.
func defaultPace(failures int) time.Duration {
	b := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(250*time.Millisecond),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(0.5),
		backoff.WithMaxInterval(40*time.Second), // a minute with its jitter
		backoff.WithMaxElapsedTime(0),
	)
	for range min(failures, 20) - 1 {
		b.NextBackOff()
	}
	return b.NextBackOff()
}
