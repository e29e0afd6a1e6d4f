package reauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/mask"
)

// This file has what a refresh does with a Store. No refresh token is sent unless the
// record names the sender. The first row of this table that applies to the record
// decides. After a row that writes or waits, the record is read again.
//
//	it cannot be read                        an error; a token without refresh token
//	                                           is refreshed nevertheless
//	it says that the login has ended         ErrLoggedOut
//	it is older than what is known here,     ours is written back, in doubt
//	  or gone
//	it has a usable token other than the     that is adopted
//	  one to replace, with its claims
//	another holds the lease                  look again in 30 to 250 ms; if the record has
//	                                           not changed for leaseTime, it is in doubt
//	a refresh with this record has failed    the same error, until another record is seen
//	  here for good, or its doubt lasts
//	a refresh has failed elsewhere           its pause, from when the record was first seen
//	otherwise                                take the lease, and call the Refresher
//
// What becomes of the record after the call
//
//	a token                                  it is saved; see save
//	the answer was lost                      the lease is released, the doubt remains
//	the login has ended                      the refresh token is removed, for all
//	another permanent error                  the lease is released
//	another error                            the lease is released, with a pause for all
//
// A refresh token is in doubt if it was sent, and no process has the response: "sent"
// without "by". No two machines' clocks are compared: each process times a lease and a
// pause from when it first saw the record.

const (
	leaseTime   = 5 * time.Second         // a lease ends if its record does not change for so long
	leaseRenew  = 1500 * time.Millisecond // how often its holder changes it
	leaseMargin = time.Second             // nothing is sent for so long before its end
	lookLeast   = 30 * time.Millisecond   // between two looks at another's lease
	lookMost    = 250 * time.Millisecond
	lookAgain   = time.Second // between two looks after a permanent failure

	storeTimeout = 5 * time.Second // of one call of the Store
	saveWait     = time.Second     // how long requests wait for the Store to have the token
	saveTime     = time.Minute     // how long that is tried
)

// A share is what a Credential knows of its Store's record. It is guarded by
// Credential.mu.
type share struct {
	login string // of the newest record that was read or written here
	seq   int64

	sum   [sha256.Size]byte // of the record that was read or written last
	first time.Time         // when it was first seen

	refused      recordKey // the record for which the Refresher failed permanently, or whose refresh token it did not present
	refusedUntil time.Time // zero if permanently
	refusal      error
	looked       time.Time // after a permanent failure
}

// sharedLocked returns what is known of the record. Credential.mu is held.
func (c *Credential) sharedLocked() *share {
	if c.shared == nil {
		c.shared = &share{}
	}
	return c.shared
}

// An obtained is the result of a flight, from the Refresher or from the Store.
type obtained struct {
	tok      Token
	err      error
	shared   bool          // another process has refreshed
	asked    *requirements // what the token was fetched with, if shared
	lifetime time.Duration // of the token, if shared
	old      *Token        // what the Refresher was to replace, if not the flight's
	save     func()        // what is left to do, once the callers go on
}

// errUnchanged is the error of a flight that found the record unchanged after a
// permanent failure.
var errUnchanged = errors.New("reauth: the record has not changed since the Refresher failed")

// A storeError is an error that has to do with the Store. It may say when to try again.
type storeError struct {
	error
	retryAfter time.Duration
}

func (e *storeError) RetryAfter() time.Duration { return e.retryAfter }
func (e *storeError) Unwrap() error             { return e.error }

// loadRecord reads the record, and notes when it was first seen.
func (c *Credential) loadRecord(ctx context.Context) (r record, first time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	raw, err := c.Store.Load(ctx)
	if err == nil {
		r, err = parseRecord(raw)
	}
	if err != nil {
		return r, first, mask.Err("the record of the Store cannot be read, and no refresh token is sent without it: ", err)
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.sharedLocked()
	if sum := sha256.Sum256([]byte(raw)); sum != known.sum || known.first.IsZero() {
		known.sum, known.first = sum, now
	}
	return r, known.first, nil
}

// swapRecord replaces old with next, and reports whether next is in the Store. If the
// Store reports false or an error, swapRecord loads the record: the client of a server
// may repeat a command that has succeeded.
func (c *Credential) swapRecord(ctx context.Context, old, next record) (bool, error) {
	call, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	swapped, err := c.Store.CompareAndSwap(call, old.raw, next.raw)
	if swapped && err == nil {
		c.wrote(next)
		return true, nil
	}
	look, cancelLook := context.WithTimeout(ctx, storeTimeout)
	defer cancelLook()
	raw, lookErr := c.Store.Load(look)
	switch {
	case lookErr == nil && raw == next.raw:
		c.wrote(next)
		return true, nil
	case lookErr == nil && (err == nil || raw != old.raw): // another process was quicker
		return false, nil
	case err == nil:
		err = lookErr
	}
	return false, mask.Err("the record of the Store cannot be written: ", err)
}

// wrote notes that r was first seen now.
func (c *Credential) wrote(r record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.sharedLocked()
	known.sum, known.first = sha256.Sum256([]byte(r.raw)), time.Now()
}

// overwrite replaces the record, even if it cannot be parsed.
func (c *Credential) overwrite(ctx context.Context, next func(record) record) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for {
		raw, err := c.Store.Load(ctx)
		if err != nil {
			return fmt.Errorf("the Store cannot be read: %w", err)
		}
		old, err := parseRecord(raw)
		if err != nil {
			old = record{raw: raw}
		}
		new := next(old)
		if new.raw == old.raw {
			return nil
		}
		if swapped, err := c.swapRecord(ctx, old, new); swapped || err != nil {
			return err
		}
		if err := sleep(ctx, lookLeast); err != nil {
			return err
		}
	}
}

// note keeps the login and the sequence number of the record, unless a newer one is
// known.
func (c *Credential) note(r record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteRecordLocked(r)
}

func (c *Credential) noteRecordLocked(r record) {
	known := c.sharedLocked()
	if r.State.Login != known.login || r.State.Seq > known.seq {
		known.login, known.seq = r.State.Login, r.State.Seq
	}
}

// obtainShared is the call of a flight with a Store, as the first table above says.
func (c *Credential) obtainShared(ctx context.Context, f *flight) obtained {
	for {
		r, first, err := c.loadRecord(ctx)
		if err != nil {
			return c.obtainAlone(ctx, f, err)
		}
		c.mu.Lock()
		known, norotation, cur := *c.sharedLocked(), c.norotation, c.current.Load()
		c.mu.Unlock()
		now := time.Now()
		switch tok, usable := f.adoptable(r, now); {
		case r.State.Ended && known.login != "":
			c.endSession(f)
			return obtained{err: ErrLoggedOut}
		case known.login != "" && (r.raw == "" || r.State.Login == known.login && r.State.Seq < known.seq):
			if err := c.writeBack(ctx, r, known, cur, now, norotation); err != nil {
				return obtained{err: err}
			}
		case usable:
			c.note(r)
			return obtained{tok: tok, shared: true, asked: &requirements{claims: r.State.Claims}, lifetime: r.lifetime()}
		case r.State.By != "":
			if now.Sub(first) >= leaseTime {
				doubt := r
				doubt.State.By = ""
				_, err = c.swapRecord(ctx, r, doubt.written())
			} else {
				err = sleep(ctx, lookLeast+mathrand.N(lookMost-lookLeast))
			}
			if err != nil {
				return obtained{err: err}
			}
		case r.key() == known.refused && (known.refusedUntil.IsZero() || now.Before(known.refusedUntil)):
			if known.refusedUntil.IsZero() {
				return obtained{err: errUnchanged}
			}
			return obtained{err: &storeError{known.refusal, known.refusedUntil.Sub(now)}}
		case now.Before(first.Add(time.Duration(r.State.RetryInMS) * time.Millisecond)):
			pause := first.Add(time.Duration(r.State.RetryInMS) * time.Millisecond).Sub(now)
			return obtained{err: &storeError{errors.New("a refresh of this login has just failed, here or in another process"), pause}}
		case c.refresherMissing():
			return obtained{err: errors.New(noRefresher)}
		default:
			l, err := c.takeLease(ctx, r, first)
			if err != nil {
				return obtained{err: err}
			}
			if l != nil {
				return l.refresh(ctx, f)
			}
			if err := sleep(ctx, mathrand.N(lookLeast)); err != nil {
				return obtained{err: err}
			}
		}
	}
}

// adoptable returns the token of the record, and whether it can take the place of the one
// that f is to replace.
func (f *flight) adoptable(r record, now time.Time) (tok Token, usable bool) {
	tok = r.token()
	if latest := now.Add(r.lifetime()); r.lifetime() > 0 && tok.Expiry.After(latest) {
		tok.Expiry = latest // the other machine's clock is ahead
	}
	switch {
	case tok.AccessToken == "", r.State.Ended, !tok.Expiry.IsZero() && !now.Before(tok.Expiry):
		return tok, false
	case f.why.Reason != "" && tok.AccessToken == f.why.rejected.AccessToken, tok.AccessToken == f.stale.Token.AccessToken:
		return tok, false
	}
	asks := f.why.requirements()
	return tok, r.hasClaims(asks.claims) && !(f.renewed && len(asks.scopes) > 0)
}

// obtainAlone calls the Refresher although the record cannot be read, provided that no
// refresh token is sent.
func (c *Credential) obtainAlone(ctx context.Context, f *flight, why error) obtained {
	if f.stale.Token.AccessToken == "" || f.stale.Token.RefreshToken != "" {
		return obtained{err: why}
	}
	tok, err := c.call(ctx, f.stale)
	return obtained{tok: tok, err: err}
}

// call calls the Refresher.
func (c *Credential) call(ctx context.Context, stale Stale) (Token, error) {
	tok, err := c.Refresher.Refresh(ctx, stale)
	if err != nil && httpx.IsNil(err) { // its methods may panic
		err = fmt.Errorf("the Refresher returned a nil %T as its error", err)
	}
	return tok, err
}

// writeBack replaces a record that was lost or rolled back with what is known here.
// Another process may have used the refresh token since.
func (c *Credential) writeBack(ctx context.Context, old record, known share, cur *tokenState, now time.Time, norotation bool) error {
	if cur == nil { // there is nothing to write; another process may have the token
		c.mu.Lock()
		defer c.mu.Unlock()
		c.shared = nil
		return nil
	}
	r := newRecord(cur.Token, known.login, known.seq, 0)
	r.State.Claims = cur.asked.claims
	if !norotation {
		r.State.Sent = now.Round(0)
	}
	_, err := c.swapRecord(ctx, old, r.written())
	if err == nil {
		c.warn(ctx, "reauth: the record of the Store was lost or rolled back, and is written again", slog.String("hint", "make sure that the Store keeps what was written: no eviction, no old backup, a disk that is synced"))
	}
	return err
}

// endSession ends the login because another process has ended it.
func (c *Credential) endSession(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions == f.session {
		c.clearLocked()
	}
	c.shared = nil
}

// A lease is the right to present the refresh token of the record.
type lease struct {
	c     *Credential
	taken record    // the record before
	doubt time.Time // since when its refresh token may have been used up; zero if it was not

	mu   sync.Mutex
	held record    // the record now
	ends time.Time // after this nothing may be sent
}

// takeLease returns the lease of the record, or nil if another process was quicker.
func (c *Credential) takeLease(ctx context.Context, r record, first time.Time) (*lease, error) {
	l := &lease{c: c, taken: r}
	if r.inDoubt() {
		if l.doubt = r.State.Sent; l.doubt.After(time.Now()) {
			l.doubt = first // of another clock
		}
	}
	began := time.Now()
	next := r
	if r.raw == "" || r.State.Ended { // a login begins
		next = record{State: recordState{Login: rand.Text()}}
	}
	next.State.By, next.State.RetryInMS = rand.Text(), 0
	if !r.inDoubt() { // else it was sent before
		next.State.Sent = began.Round(0)
	}
	next = next.written()
	taken, err := c.swapRecord(ctx, r, next)
	if !taken {
		return nil, err
	}
	l.held, l.ends = next, began.Add(leaseTime-leaseMargin)
	return l, nil
}

// refresh calls the Refresher, and writes the result.
func (l *lease) refresh(ctx context.Context, f *flight) obtained {
	c := l.c
	stale := f.stale
	if l.taken.raw != "" {
		stale.Token = l.taken.token() // none after a logout
	}
	if f.why.Reason != "" && stale.Token.AccessToken != f.why.rejected.AccessToken {
		stale.Rejection = Rejection{Challenges: stale.Rejection.Challenges} // of another token
	}
	stale.AnswerLostAt = l.doubt
	began := time.Now()

	leased := &leaseContext{Context: ctx, lease: l}
	renewal, stop := context.WithCancel(context.WithoutCancel(ctx))
	var renewing sync.WaitGroup
	renewing.Go(func() { l.renew(renewal) })
	var tok Token
	err := errGoexit
	returned := false
	defer func() { // of a Refresher that panics: it may have sent the refresh token
		if !returned {
			stop()
			renewing.Wait()
			l.release(ctx, l.failed(AnswerLost(err)))
		}
	}()
	tok, err = c.call(leased, stale)
	returned = true
	stop()
	renewing.Wait()

	o := obtained{tok: tok, err: err, old: &stale.Token}
	if o.err == nil {
		if o.tok.RefreshToken == "" {
			o.tok.RefreshToken = stale.Token.RefreshToken
		}
		_, o.err = c.check(f, stale.Token, o, time.Now())
	}
	if o.err == nil {
		return l.saved(ctx, f, o, began)
	}
	if rt := tok.RefreshToken; err == nil && rt != "" && rt != stale.Token.RefreshToken {
		l.keep(rt) // that came with a useless access token
	}
	next := l.failed(o.err)
	l.release(ctx, next)
	if pause := time.Duration(next.State.RetryInMS) * time.Millisecond; pause > 0 {
		o.err = &storeError{o.err, pause} // as for the other processes
	}
	return o
}

// failed returns the record after a failure.
func (l *lease) failed(err error) record {
	c, kind := l.c, kindOf(err)
	r := l.held
	r.State.By = ""
	c.mu.Lock()
	norotation := c.norotation
	c.mu.Unlock()
	asks := retryAfterOf(err)
	var until time.Time // until when the Refresher is not called with the record; zero if permanently
	switch {
	case kind.answerLost:
		r.State.Failures++
		if norotation || r.RefreshToken == "" {
			r.State.Sent = time.Time{}
		}
		r.State.RetryInMS = max(asks, c.backoffAfter(r.State.Failures)).Milliseconds()
		return r
	case kind.loginEnded:
		r.RefreshToken, r.State.Sent = "", time.Time{}
	case kind.permanent:
		r.State.Sent = l.taken.State.Sent
	case !l.doubt.IsZero() && asks > 0: // it was not presented
		r.State.Sent, r.State.RetryInMS = l.taken.State.Sent, asks.Milliseconds()
		until = time.Now().Add(asks)
	default:
		r.State.Failures++
		r.State.Sent = l.taken.State.Sent
		if asks <= 0 {
			asks = c.backoffAfter(r.State.Failures)
		}
		r.State.RetryInMS = asks.Milliseconds()
		return r
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.sharedLocked()
	known.refused, known.refusedUntil, known.refusal = r.key(), until, err
	return r
}

// keep puts a new refresh token into the record that is held.
func (l *lease) keep(refreshToken string) {
	l.held.RefreshToken = refreshToken
	l.taken.State.Sent, l.doubt = time.Time{}, time.Time{}
	l.held.State.Seq++
}

// release writes the record after a failure, if it is still ours.
func (l *lease) release(ctx context.Context, next record) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	next = next.written()
	for old := l.current(); ; {
		swapped, err := l.c.swapRecord(ctx, old, next)
		if err == nil && !swapped {
			// A renewal that was interrupted may have happened.
			if old, _, err = l.c.loadRecord(ctx); err == nil && old.State.By != l.held.State.By {
				return
			}
		}
		if swapped {
			l.c.note(next)
			return
		}
		if err != nil {
			l.c.warn(ctx, "reauth: the lease of a refresh was not released, and runs out", slog.String("error", err.Error()))
			return
		}
	}
}

// current returns the record as it was written last.
func (l *lease) current() record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return record{raw: l.held.raw}
}

// renew changes the record from time to time, so that other processes see that the
// lease is held.
func (l *lease) renew(ctx context.Context) {
	ticker := time.NewTicker(leaseRenew)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		began := time.Now()
		next := l.held.written()
		swapped, err := l.c.swapRecord(ctx, l.held, next)
		switch {
		case err != nil: // it is not renewed, and ends by itself
		case !swapped: // another has written it
			return
		default:
			l.mu.Lock()
			l.held, l.ends = next, began.Add(leaseTime-leaseMargin)
			l.mu.Unlock()
		}
	}
}

// A leaseContext is the context of a refresh. Its Deadline is the end of the lease,
// which each renewal postpones. It does not end then, as a response may still come. A
// Refresher that sends a refresh token compares the Deadline with the clock at the last
// moment: the process may have been suspended.
type leaseContext struct {
	context.Context
	lease *lease
}

// Deadline returns after when nothing may be sent.
func (ctx *leaseContext) Deadline() (time.Time, bool) {
	ctx.lease.mu.Lock()
	ends := ctx.lease.ends
	ctx.lease.mu.Unlock()
	if d, ok := ctx.Context.Deadline(); ok && d.Before(ends) {
		return d, true
	}
	return ends, true
}

// saved writes the new token. Requests wait for it until saveWait has passed. It is
// repeated until saveTime has passed.
func (l *lease) saved(ctx context.Context, f *flight, o obtained, began time.Time) obtained {
	c := l.c
	var lifetime time.Duration
	if !o.tok.Expiry.IsZero() {
		lifetime = o.tok.Expiry.Sub(began)
	}
	next := newRecord(o.tok, l.held.State.Login, l.held.State.Seq+1, lifetime)
	next.State.Claims = f.asked.claims
	next = next.written()
	rotates := o.tok.RefreshToken != o.old.RefreshToken

	ctx = context.WithoutCancel(ctx)
	tried := time.Now()
	result, err := l.save(ctx, next, saveWait)
	c.mu.Lock()
	c.norotation = !rotates
	c.mu.Unlock()
	switch result {
	case saveDone:
		c.note(next)
	case saveEnded:
		c.warn(ctx, "reauth: the result of a refresh was discarded: the login has ended meanwhile")
		c.endSession(f)
		return obtained{err: ErrLoggedOut}
	case saveOlder:
		c.warn(ctx, "reauth: the result of a refresh was discarded: the Store has a newer token, or that of another login")
		return c.obtainShared(ctx, f)
	case saveFailed:
		c.note(next) // the refresh token before must not be sent again
		c.warn(ctx, "reauth: a new token is not in the Store yet", slog.String("error", err.Error()), slog.String("hint", "requests use it from memory; if this process ends before the Store has it, the login may be lost"))
		o.save = func() {
			if result, err := l.save(ctx, next, saveTime-time.Since(tried)); result == saveFailed {
				c.warn(ctx, "reauth: a new token was not saved, and is in memory only", slog.String("error", err.Error()), slog.String("hint", "check the Store; the next refresh writes the record again"))
			}
		}
	}
	return o
}

// A saveResult says what became of a save.
type saveResult int

const (
	saveDone   saveResult = iota
	saveFailed            // the Store did not take it in time
	saveOlder             // the record is newer, or of another login
	saveEnded             // there was a logout
)

// save replaces the lease, or an earlier state of the same login, with next: a late
// response has the only valid refresh token.
func (l *lease) save(ctx context.Context, next record, wait time.Duration) (saveResult, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	old := l.current()
	var last error
	for pause := lookLeast; ; pause = min(2*pause, time.Second) {
		swapped, err := l.c.swapRecord(ctx, old, next)
		if swapped {
			return saveDone, nil
		}
		if err == nil {
			var r record
			if r, _, err = l.c.loadRecord(ctx); err == nil {
				switch {
				case r.raw == next.raw:
					return saveDone, nil
				case r.State.Ended:
					return saveEnded, nil
				case r.raw != "" && (r.State.Login != next.State.Login || r.State.Seq >= next.State.Seq):
					return saveOlder, nil
				}
				old = r
			}
		}
		if err != nil {
			last = err
		}
		if err := sleep(ctx, pause); err != nil {
			if last == nil {
				last = err
			}
			return saveFailed, last
		}
	}
}

// sleep waits, or returns the cause of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
