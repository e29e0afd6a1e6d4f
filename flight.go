package reauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/reauth-go/reauth/internal/httpx"
)

// A flight is one call of the Refresher, and the callers that wait for it.
type flight struct {
	stale   Stale
	before  *tokenState  // the current token when the call began; nil if there was none
	why     rejection    // zero: the token is about to expire, or has expired
	asked   requirements // the scopes that servers have asked for, and the claims that the token is fetched with
	renewed bool         // it asks for what the current token was not fetched with
	start   time.Time
	session uint64 // when it began
	changes uint64

	done     chan struct{} // closed when the waiters may continue
	waiters  int           // guarded by Credential.mu
	decided  bool          // the result for the waiters is known; guarded by Credential.mu
	returned bool          // the Refresher has returned; guarded by Credential.mu

	// The result. It is read when done is closed.
	state      *tokenState
	err        error
	superseded bool // by Set or by another token: the current token counts
}

// A decision is what a caller gets: a token, an error, or a flight to wait for.
type decision struct {
	state       *tokenState
	predecessor bool // state is not the current token, but the one before
	err         error
	flight      *flight
	tolerant    bool // the failure of flight is no error
	usedUp      bool // the budget has just been used up
}

var (
	errOwnCredential = errors.New("reauth: the Refresher requests a token of its own Credential")
	errSuperseded    = errors.New("reauth: the result of the refresh was discarded: another token came first")
	errCanceled      = errors.New("net/http: request canceled") // the text that net/http uses for Request.Cancel
)

// await calls decide until it returns a token or an error. It waits for each flight
// that decide returns, but not longer than until ctx ends.
func (c *Credential) await(ctx context.Context, cancel <-chan struct{}, decide func(now time.Time, done *flight) decision) (*tokenState, bool, error) {
	if contextOf(ctx).refreshes(c) {
		return nil, false, errOwnCredential
	}
	var done *flight
	c.mu.Lock()
	session := c.sessions
	for {
		if c.sessions != session {
			c.mu.Unlock()
			return nil, false, ErrLoggedOut
		}
		d := decide(time.Now(), done)
		f := d.flight
		if f == nil {
			c.mu.Unlock()
			c.warnUsedUp(ctx, d)
			return d.state, d.predecessor, d.err
		}
		f.waiters++
		c.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		case <-cancel:
			return nil, false, errCanceled
		}
		if f.err != nil && !d.tolerant {
			return nil, false, f.err
		}
		done = f
		c.mu.Lock()
	}
}

// forRequestLocked decides for a request that needs a token. done is the flight that
// it has waited for.
func (c *Credential) forRequestLocked(ctx context.Context, now time.Time, done *flight) decision {
	s := c.current.Load()
	if done != nil && !done.superseded && s.is(done.state) {
		return decision{state: done.state}
	}
	var stale Stale
	if s != nil {
		stale.Token = s.Token
	}
	if s.usable(now) {
		if s.refreshAt.passedAt(now) && c.flight == nil && c.unavailableLocked(now, stale) == nil {
			c.startLocked(ctx, now, stale, rejection{})
		}
		return decision{state: s}
	}
	if c.flight != nil {
		return decision{flight: c.flight}
	}
	if err := c.unavailableLocked(now, stale); err != nil {
		return decision{err: err}
	}
	return decision{flight: c.startLocked(ctx, now, stale, rejection{})}
}

// startLocked starts a refresh.
func (c *Credential) startLocked(ctx context.Context, now time.Time, stale Stale, why rejection) *flight {
	cur := c.current.Load()
	if why.Reason != "" && now.Before(c.backoff.until) && cur != nil {
		cur.verdicts.interrupted = true
	}
	stale.Rejection.Challenges = c.challengesLocked(why)
	if !c.norotation && c.Store == nil {
		stale.AnswerLostAt = c.lostAt
	}
	f := &flight{
		stale:   stale,
		before:  cur,
		why:     why,
		start:   now,
		session: c.sessions,
		changes: c.changes,
		done:    make(chan struct{}),
	}
	if c.challenges != nil {
		f.asked = requirementsOf(*c.challenges)
		// Claims may contradict each other. The Stale has those that other requests
		// have met too, and each of them gets a refresh of its own.
		f.asked.claims = why.requirements().claims
		if cur != nil {
			f.asked.claims = joined(cur.asked.claims, f.asked.claims)
		}
	}
	f.renewed = cur != nil && !cur.asked.covers(why.requirements())
	c.flight = f
	c.calls = append(c.calls, f)
	// The context of the refresh has nothing of the request's but the Credentials being
	// refreshed.
	go c.run(f, &contextValue{refreshing: contextOf(ctx).with(c)})
	return f
}

// refreshTokenOutLocked reports whether a call with the refresh token has not
// returned.
func (c *Credential) refreshTokenOutLocked(refreshToken string) bool {
	for _, f := range c.calls {
		if refreshToken != "" && !f.returned && f.stale.Token.RefreshToken == refreshToken {
			return true
		}
	}
	return false
}

// refresherMissing reports whether there is no Refresher to call.
func (c *Credential) refresherMissing() bool { return httpx.IsNil(c.Refresher) }

// releaseLocked lets the waiters of f continue.
func (c *Credential) releaseLocked(f *flight) {
	f.decided = true
	c.flight = nil
	close(f.done)
}

// run calls the Refresher. f is completed whatever the Refresher does, including
// runtime.Goexit.
func (c *Credential) run(f *flight, value *contextValue) {
	o := obtained{err: errGoexit}
	ctx := context.Background()
	defer c.callEnded(f)
	defer func() {
		if v := recover(); v != nil {
			o.err = &panicError{v, debug.Stack()}
		}
		c.complete(ctx, f, o, true)
		if o.save != nil {
			o.save()
		}
	}()

	if c.BaseContext != nil {
		if base := c.BaseContext(); base != nil {
			ctx = base
		}
	}
	ctx = context.WithValue(ctx, contextKey{}, value)
	cancel := context.CancelFunc(func() {})
	timeout := c.RefreshTimeout
	if timeout == 0 {
		timeout = defaultRefreshTimeout
	}
	if timeout > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, refreshTimeout(timeout))
	}
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.complete(ctx, f, obtained{err: context.Cause(ctx)}, false) })
	defer stop()

	if c.Store != nil {
		o = c.obtainShared(ctx, f)
		return
	}
	o.tok, o.err = c.call(ctx, f.stale)
}

var errGoexit = errors.New("the Refresher called runtime.Goexit")

// A refreshTimeout is the error of a Refresher that took longer than that.
type refreshTimeout time.Duration

// Error implements error.
func (d refreshTimeout) Error() string {
	return fmt.Sprintf("the Refresher did not return within %v: %v", time.Duration(d), context.DeadlineExceeded)
}

// Unwrap returns context.DeadlineExceeded.
func (d refreshTimeout) Unwrap() error { return context.DeadlineExceeded }

// complete applies the result of f. It is called when the Refresher has returned, and
// when its time is up. The first call decides for the waiters. A late token is used
// too, unless Set, Clear or another token came first.
func (c *Credential) complete(ctx context.Context, f *flight, o obtained, returned bool) {
	now := time.Now()
	r := c.resultOf(f, o, now)

	c.mu.Lock()
	late := f.decided
	f.decided = true
	f.returned = f.returned || returned
	if c.flight == f {
		c.flight = nil
	}
	superseded := c.changes != f.changes
	warn := false
	switch {
	case superseded && !late:
		f.superseded = true
	case superseded:
	case errors.Is(o.err, errUnchanged) && c.backoff.err != nil:
		f.err = c.backoff.err
	case r.failure == nil:
		f.state = r.next
		warn = c.adoptLocked(f, r.next, now)
	default:
		c.keepRefreshTokenLocked(f, r.refreshToken, now)
		c.failLocked(f, r, now, late)
		if !late {
			f.err = r.failure
		}
	}
	info := f.info(now, r)
	info.Shared = o.shared
	if superseded {
		info.discard(c.sessions != f.session)
	}
	c.mu.Unlock()

	defer func() {
		if !late {
			close(f.done)
		}
	}()
	if warn {
		c.warn(ctx, "reauth: a new token was expired when it came, and is used until a server rejects it",
			slog.String("token", info.Token),
			slog.Time("expiry", r.next.Expiry),
			slog.String("hint", "check this machine's clock, and the expiry that the Refresher returns"))
	}
	if (r.failure == nil || !late) && !errors.Is(o.err, errUnchanged) { // a failure is reported once
		c.report(ctx, info, r.err)
	}
}

// A result is the result of a call of the Refresher.
type result struct {
	next         *tokenState
	failure      *RefreshError // nil if there is a token
	err          error         // that failure describes
	kind         errorKind
	retryAfter   time.Duration // zero if the error does not say
	refreshToken string        // a new one that came with a useless access token
}

// resultOf checks what the Refresher returned. It calls methods of the error, so no
// lock may be held.
func (c *Credential) resultOf(f *flight, o obtained, now time.Time) result {
	r, old, tok := result{err: o.err}, f.stale.Token, o.tok
	if o.old != nil {
		old = *o.old
	}
	if o.err == nil {
		if r.next, r.err = c.check(f, old, o, now); r.err == nil {
			return r
		}
		r.refreshToken = tok.RefreshToken
	}
	if tok.AccessToken == Placeholder {
		tok.AccessToken = "" // no secret, and the error names it
	}
	r.kind, r.retryAfter = kindOf(r.err), retryAfterOf(r.err)
	r.failure = newRefreshError(f.why.Rejection, r.err, old.AccessToken, old.RefreshToken, tok.AccessToken, tok.RefreshToken)
	return r
}

// check returns the state of a token that the Refresher returned in place of old, or why
// it is of no use.
func (c *Credential) check(f *flight, old Token, o obtained, now time.Time) (*tokenState, error) {
	tok, start := o.tok, f.start
	if err := tok.Validate(); err != nil {
		return nil, fmt.Errorf("the Refresher returned no usable token: %w", err)
	}
	if tok.RefreshToken == "" && !o.shared {
		tok.RefreshToken = old.RefreshToken
	}
	if o.lifetime > 0 {
		start = tok.Expiry.Add(-o.lifetime)
	}
	same := tok.AccessToken == old.AccessToken
	if same && f.why.Reason != "" {
		return nil, errors.New("the Refresher returned the rejected token again: its source has no newer one")
	}
	if same && tok.Expiry.IsZero() {
		tok.Expiry = old.Expiry
	}
	next := c.newTokenState(tok, start, now)
	next.forRejection = f.why.Reason != ""
	if next.asked = f.asked; o.asked != nil {
		next.asked = *o.asked
	}
	if next.outlived && (same || c.stillGood(f, now)) {
		return nil, fmt.Errorf("the Refresher returned a token that expired at %s: its source has no newer one, or this machine's clock is wrong", stamp(tok.Expiry))
	}
	return next, nil
}

// stillGood reports whether the token that f is to replace remains in use. If a server
// rejected it, it does until its known expiry, provided that some origin accepts it.
func (c *Credential) stillGood(f *flight, now time.Time) bool {
	cur := c.current.Load()
	return cur.usable(now) && !cur.outlived && (f.why.Reason == "" || cur.verdicts.anyAccepted())
}

// adoptLocked makes next the current token after a refresh, and reports whether to
// warn that it came past its expiry.
func (c *Credential) adoptLocked(f *flight, next *tokenState, now time.Time) (outlived bool) {
	c.backoff = failureBackoff{}
	c.lostAt = time.Time{}
	if c.Store == nil {
		c.norotation = next.RefreshToken == f.stale.Token.RefreshToken
	}
	if old := c.current.Load(); old.is(next) {
		// The source, such as a kubelet or a metadata server, has no newer token. What
		// is known of the token remains valid, and the source is asked again later.
		next.obtained, next.forRejection, next.verdicts = old.obtained, old.forRejection, old.verdicts
		next.repeats = old.repeats + 1
		if soonest := now.Add(c.backoffAfter(next.repeats)); !next.refreshAt.never() && next.refreshAt.passedAt(soonest) {
			next.refreshAt = earlier(next.expiry, instantOf(soonest))
		}
		c.holdLocked(next)
		return false
	}
	if f.why.Reason != "" {
		c.spendLocked(now)
		if !f.renewed {
			c.countLocked(f.why.origin, now)
		}
	}
	c.replaceLocked(next, now)
	outlived = next.outlived && !c.warnedClock
	c.warnedClock = c.warnedClock || outlived
	return outlived
}

// failLocked notes the failure of f.
func (c *Credential) failLocked(f *flight, r result, now time.Time, late bool) {
	if r.kind.answerLost && c.lostAt.IsZero() && c.Store == nil {
		c.lostAt = f.start
	}
	if late && !r.kind.permanent {
		return
	}
	c.backOffLocked(now, r.retryAfter, r.kind.permanent, f.waiters > 0)
	switch {
	case r.kind.loginEnded:
		r.failure.text += "; the login has ended, and the Refresher is not called until Credential.Set or Clear"
	case r.kind.permanent:
		r.failure.text += "; this is permanent, and the Refresher is not called until Credential.Set or Clear"
	default:
		r.failure.retry(c.backoff.until)
	}
	c.backoff.err = r.failure
}

// keepRefreshTokenLocked keeps a refresh token that came with a useless access token:
// the issuer may have invalidated the old one.
func (c *Credential) keepRefreshTokenLocked(f *flight, refreshToken string, now time.Time) {
	if refreshToken == "" || refreshToken == f.stale.Token.RefreshToken {
		return
	}
	c.lostAt = time.Time{}
	c.norotation = false
	cur := c.current.Load()
	if cur == nil {
		c.holdLocked(c.newSetState(Token{RefreshToken: refreshToken}, now))
		return
	}
	s := *cur
	s.RefreshToken = refreshToken
	c.current.Store(&s)
}

// info describes the completed refresh. Credential.mu is held.
func (f *flight) info(now time.Time, r result) RefreshInfo {
	info := RefreshInfo{
		Reason:   f.reason(),
		Result:   RefreshSucceeded,
		Stale:    f.before.fingerprint(),
		Start:    f.start,
		Duration: now.Sub(f.start),
		Waiters:  f.waiters,
	}
	if r.failure != nil {
		info.Result, info.Err = RefreshFailed, r.failure
	} else {
		info.Token, info.Expiry = r.next.fingerprint(), r.next.Expiry
	}
	return info
}

// discard makes info that of a result which came too late.
func (info *RefreshInfo) discard(loggedOut bool) {
	info.Token, info.Expiry, info.Result, info.Err = "", time.Time{}, RefreshDiscarded, errSuperseded
	if loggedOut {
		info.Err = ErrLoggedOut
	}
}

// reason returns why f was started.
func (f *flight) reason() Reason {
	switch tok := f.stale.Token; {
	case f.why.Reason != "":
		return f.why.Reason
	case tok.AccessToken == "" && tok.RefreshToken == "":
		return ReasonMissing
	case tok.AccessToken == "" || !tok.Expiry.IsZero() && !f.start.Before(tok.Expiry):
		return ReasonExpired
	}
	return ""
}

// callEnded notes that the Refresher and its hooks have returned.
func (c *Credential) callEnded(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = slices.DeleteFunc(c.calls, func(other *flight) bool { return other == f })
	if len(c.calls) == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// warnUsedUp warns if the budget has just been used up.
func (c *Credential) warnUsedUp(ctx context.Context, d decision) {
	if d.usedUp {
		c.warn(ctx, "reauth: the budget of refreshes is used up", slog.Duration("refresh_every", c.refreshEvery()), slog.String("hint", budgetCauses))
	}
}

// warn logs a record about the Credential.
func (c *Credential) warn(ctx context.Context, msg string, attrs ...slog.Attr) {
	logger(c.Logger).LogAttrs(ctx, slog.LevelWarn, msg, attrs...)
}

// report logs the refresh and calls OnRefresh. It recovers from a panic of either.
func (c *Credential) report(ctx context.Context, info RefreshInfo, err error) {
	log := logger(c.Logger)
	defer func() {
		if v := recover(); v != nil {
			logPanic(ctx, log, "reauth: OnRefresh panicked", v)
		}
	}()
	attrs := []slog.Attr{
		slog.String("reason", string(info.Reason)),
		slog.String("token", info.Token),
		slog.Duration("duration", info.Duration),
		slog.Int("waiters", info.Waiters),
	}
	var failure *RefreshError
	switch {
	case info.Result == RefreshFailed && errors.As(info.Err, &failure):
		attrs[1] = slog.String("token", info.Stale)
		attrs = append(attrs, slog.String("error", failure.Error()))
		if !failure.Permanent() {
			attrs = append(attrs, slog.Duration("retry_in", failure.RetryAfter()))
		}
		var p *panicError
		if errors.As(err, &p) {
			attrs = append(attrs, slog.String("stack", string(p.stack)))
		}
		log.LogAttrs(ctx, slog.LevelWarn, "reauth: refresh failed", attrs...)
	case info.Result == RefreshDiscarded:
		log.LogAttrs(ctx, slog.LevelDebug, "reauth: refresh discarded", attrs...)
	default:
		log.LogAttrs(ctx, slog.LevelDebug, "reauth: refreshed", attrs...)
	}
	if c.OnRefresh != nil {
		c.OnRefresh(context.WithoutCancel(ctx), info)
	}
}

// A panicError is a panic of the Refresher. It does not print the value, which may
// contain a token.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	if err, ok := e.value.(runtime.Error); ok {
		return "the Refresher panicked: " + err.Error()
	}
	return fmt.Sprintf("the Refresher panicked with a %T", e.value)
}
