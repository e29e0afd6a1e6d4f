package reauth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/reauth-go/reauth/internal/lost"
	"github.com/reauth-go/reauth/internal/mask"
)

var (
	// ErrLoggedOut is the answer to a request that was begun before
	// Credential.Clear: it does not go out under the next identity.
	ErrLoggedOut = errors.New("reauth: logged out by Credential.Clear: a request begun before goes out under no other identity")

	// ErrClosed is the answer where a refresh would be needed after
	// Credential.Close.
	ErrClosed = errors.New("reauth: the Credential is closed and its token can no longer be used: make a new Credential")
)

// A Refresher gets a token from where tokens come from: an issuer, a file, a
// secret manager, a login.
//
// Refresh returns a token other than stale.Token. It should end when ctx does;
// one that does not is no longer waited for, but its late result is still used.
// ctx belongs to the refresh and to no request: it carries no request's values
// and ends with none. A request made with ctx through a Transport of the same
// Credential goes out without a token.
//
// A Credential calls its Refresher from a goroutine of its own, once at a time,
// and again only after a pause if it failed. An error wrapped by Permanent is
// not followed by another call; one that has a method RetryAfter() time.Duration
// sets the pause. Calls may overlap where a call that ignores its ctx was given
// up on, or after Set or Clear, but never with the same refresh token.
type Refresher interface {
	Refresh(ctx context.Context, stale Stale) (Token, error)
}

// A RefresherFunc is a function that is a Refresher.
type RefresherFunc func(ctx context.Context, stale Stale) (Token, error)

// Refresh calls f.
func (f RefresherFunc) Refresh(ctx context.Context, stale Stale) (Token, error) {
	return f(ctx, stale)
}

// Stale is what a Refresher is to replace.
type Stale struct {
	Token     Token     // zero: there is none yet, or none any more
	Rejection Rejection // zero: the token is about to expire, or has
}

// Permanent marks err as one that another try does not cure, such as
// invalid_grant: the Refresher is left alone until Credential.Set or Clear.
// Permanent(nil) is nil. Permanent of github.com/cenkalti/backoff/v4 does the
// same.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// IsPermanent reports whether err was marked by Permanent, of this package or of
// backoff/v4, for Refreshers that are made of others.
func IsPermanent(err error) bool {
	var ours *permanentError
	var theirs *backoff.PermanentError
	return errors.As(err, &ours) || errors.As(err, &theirs)
}

// A RefreshError says why there is no usable token. Its text is safe to log:
// what Unwrap returns may not be.
type RefreshError struct {
	Rejection Rejection // of the token that was to be replaced; zero if it was the first or had expired
	RetryAt   time.Time // when the Refresher is asked again; zero if only Set or Clear changes anything

	text string
	err  func() error // not the error itself: fmt would find a way into it
}

// Error says what failed and what to do.
func (e *RefreshError) Error() string { return "reauth: " + e.text }

// Unwrap returns the Refresher's error.
func (e *RefreshError) Unwrap() error {
	if e.err == nil {
		return nil
	}
	return e.err()
}

// Permanent reports whether the Refresher is left alone until Credential.Set or
// Clear.
func (e *RefreshError) Permanent() bool { return e.RetryAt.IsZero() }

// Format implements fmt.Formatter: every verb prints the text alone.
func (e *RefreshError) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, e.Error()) }

// A Refresh tells about one call of the Refresher, for metrics.
type Refresh struct {
	Reason  Reason        // of the rejection; missing for the first token, expired for one past its expiry, "" ahead of that
	Stale   string        // fingerprint of the token that was to be replaced
	Token   string        // fingerprint of its replacement; "" if there is none
	Start   time.Time     // when the Refresher was called
	Took    time.Duration // how long it took, or was waited for
	Waiters int           // how many requests waited for it
	Err     error         // nil; or a *RefreshError; or why the result was dropped: ErrLoggedOut, or another token came first
}

// A Credential holds the token of one identity and replaces it when it expires
// or is rejected: once, however many requests find out at the same time.
//
// Its fields are not changed after first use. It must not be copied, is safe for
// concurrent use, and may serve any number of Transports. An idle one has no
// goroutine and no timer, and needs no Close.
type Credential struct {
	// Refresher gets the first token and every later one. Required, unless Set
	// brings a token that is never rejected.
	Refresher Refresher

	// RefreshBefore is how long before its expiry a token is replaced, while
	// requests go on with it. It is jittered down to its half, so that many
	// processes do not ask in the same second, and is at most half of the
	// token's lifetime. Zero means 5 minutes; negative means not ahead at all.
	RefreshBefore time.Duration

	// RefreshTimeout ends a refresh for those who wait for it. Zero means 30
	// seconds; negative means no limit.
	RefreshTimeout time.Duration

	// Pace returns how long the Refresher is left alone after so many failures
	// in a row, 1 and up. A refresh fails that returns an error, or a token that
	// is refused on the retry it was fetched for. Nil means 250 ms doubling to
	// one minute, jittered; what it returns is cut to between zero and a day.
	Pace func(failures int) time.Duration

	// BaseContext returns the context that refreshes derive from. Nil means
	// context.Background. Its end ends a refresh.
	BaseContext func() context.Context

	// Logger gets a Warn for each refresh that fails and a Debug for each that
	// does not. Nil means slog.Default().
	Logger *slog.Logger

	// OnRefresh is called after each refresh, on the refresh's goroutine, when
	// its result is in force and before those who waited for it go on. It must
	// not wait for a request, nor call Close. A refresh that was given up on is
	// told twice if its result comes after all.
	OnRefresh func(Refresh)

	// held is what requests carry now; nil if there is nothing. It is read
	// without mu and replaced with it.
	held atomic.Pointer[held]

	mu       sync.Mutex
	sessions uint64          // how many Clear has ended
	changes  uint64          // how often held was replaced by another token, or cleared
	flight   *flight         // the refresh that callers join; nil if none
	out      map[string]bool // refresh tokens given to calls that have not returned
	running  int             // calls that have not returned, with their hooks
	idle     chan struct{}   // closed when running is 0; made by Close
	closed   bool
	pause    pause
	past     []pastToken   // the latest tokens held, so that they are known again
	skew     time.Duration // the servers' clock less ours
}

// A flight is one refresh and those who wait for it.
type flight struct {
	stale   Stale
	start   time.Time
	session uint64 // when it began
	changes uint64

	done    chan struct{} // closed when the callers may go on
	waiters int           // guarded by Credential.mu
	landed  bool          // the outcome is decided; guarded by Credential.mu

	// The outcome, to be read when done is closed.
	held  *held
	err   error
	again bool // Set or another token came between: what is held now counts
}

// A pastToken remembers a token that was held, as little of it as is needed to
// know it again.
type pastToken struct {
	sum     [sha256.Size]byte
	session uint64
}

const (
	defaultRefreshBefore  = 5 * time.Minute
	defaultRefreshTimeout = 30 * time.Second
	maxLifetime           = 100 * 365 * 24 * time.Hour
	maxPast               = 16
	clockTolerance        = 30 * time.Second // Date has whole seconds, and was on the way
)

// Token returns a token for a request: at once if the one held is fresh, else
// after a refresh. It fails with a *RefreshError if there is none, with ErrClosed
// or ErrLoggedOut, or with the cause of ctx if that ends before.
//
// A first token that seems to have expired when it comes is returned until a
// Transport has seen what a server says of it, or Renew is called: this machine's
// clock may be wrong.
func (c *Credential) Token(ctx context.Context) (Token, error) {
	h, err := c.hold(ctx)
	if err != nil {
		return Token{}, err
	}
	return h.Token, nil
}

// Renew returns a token to use in place of one that a server rejected: the one
// held if that is another, else the result of a refresh, of which there is only
// one for all who ask. A token that was handed out before Clear gets
// ErrLoggedOut. The other errors are those of Token.
//
// Renew is what a Transport calls after a 401. Who calls it for a protocol of
// his own and has the new token rejected too calls it again with that: it takes
// this for a failed refresh, and the next one is paced.
func (c *Credential) Renew(ctx context.Context, rejected Token, why Rejection) (Token, error) {
	if why.Reason == "" { // which would mean "ahead of expiry"
		why.Reason = ReasonUnspecified
	}
	h, err := c.renew(ctx, rejected, why)
	if err != nil {
		return Token{}, err
	}
	return h.Token, nil
}

// Peek returns the token that is held, which may have expired, and the reason
// why there is none better: a *RefreshError after a refresh that failed, else
// ErrLoggedOut after Clear, or ErrClosed when the token cannot be used any more
// after Close. It never calls the Refresher.
func (c *Credential) Peek() (Token, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var tok Token
	h := c.held.Load()
	if h != nil {
		tok = h.Token
	}
	switch {
	case c.pause.err != nil:
		return tok, c.pause.err
	case c.closed && !h.usable(time.Now()):
		return tok, ErrClosed
	case h == nil && c.sessions > 0:
		return tok, ErrLoggedOut
	}
	return tok, nil
}

// Set puts a token in force, as after a login: whatever refresh is under way is
// overruled, and no earlier failure holds up the next one. A Token with only a
// RefreshToken is stale at once, and fine: the next request refreshes it. Set
// fails if the token cannot be used, leaving things as they were, or with
// ErrClosed.
func (c *Credential) Set(_ context.Context, tok Token) error {
	if tok.AccessToken != "" || tok.RefreshToken == "" {
		if err := tok.Validate(); err != nil {
			return fmt.Errorf("reauth: Set: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	now := time.Now()
	h := c.newHeld(tok, now, c.skew)
	c.adoptLocked(h, now)
	c.pause = pause{}
	if f := c.flight; f != nil {
		f.again = true
		c.releaseLocked(f)
	}
	return nil
}

// Clear forgets the token, as after a logout. The result of a refresh that is
// under way is dropped, and who waits for it gets ErrLoggedOut, as does who has
// an earlier token rejected. The next request asks the Refresher with a zero
// Stale.
func (c *Credential) Clear(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions++
	c.changes++
	c.held.Store(nil)
	c.pause = pause{}
	if f := c.flight; f != nil {
		f.err = ErrLoggedOut
		c.releaseLocked(f)
	}
	return nil
}

// Close lets no other refresh begin and waits for those under way. If ctx ends
// before they do, it returns an error that says so: a rotated refresh token may
// then be lost. Afterwards a token is still attached as long as it is valid,
// and then requests fail with ErrClosed.
func (c *Credential) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	if c.running == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	idle := c.idle
	c.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("reauth: closed with a refresh under way: a refresh token that it rotates may be lost: %w", context.Cause(ctx))
	}
}

// Format implements fmt.Formatter: it prints no field, as they may hold secrets.
func (c *Credential) Format(f fmt.State, _ rune) {
	h := (*held)(nil)
	if c != nil {
		h = c.held.Load()
	}
	if h == nil {
		_, _ = io.WriteString(f, "Credential(empty)")
		return
	}
	_, _ = io.WriteString(f, "Credential("+h.Token.String()+")")
}

// hold returns what the next request is to carry.
func (c *Credential) hold(ctx context.Context) (*held, error) {
	if h := c.held.Load(); h != nil && !h.due.passed() {
		return h, nil
	}
	return c.await(ctx, func(now time.Time, landed *flight) (*held, *flight, error) {
		return c.nextLocked(ctx, now, landed)
	})
}

// renew returns what to carry in place of a rejected token.
func (c *Credential) renew(ctx context.Context, rejected Token, why Rejection) (*held, error) {
	c.doubt(rejected, why)
	return c.await(ctx, func(now time.Time, landed *flight) (*held, *flight, error) {
		return c.renewLocked(ctx, now, landed, rejected, why)
	})
}

// renewSoon has a rejected token replaced, and waits for nothing.
func (c *Credential) renewSoon(ctx context.Context, rejected Token, why Rejection) {
	c.doubt(rejected, why)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, _ = c.renewLocked(ctx, time.Now(), nil, rejected, why)
}

// doubt counts the rejection of a token that was fetched to cure another, and
// was never seen to, as if its retry had been refused; unless it is only asked for
// other claims than it was fetched with.
func (c *Credential) doubt(rejected Token, why Rejection) {
	h := c.held.Load()
	if h == nil || !h.forRetry || h.proven || h.AccessToken != rejected.AccessToken {
		return
	}
	if claims := why.claims(); claims == "" || claims == h.claims {
		c.refused(h, false, why)
	}
}

// await asks next until it names a token or an error; the flights that it names
// instead are waited for. Nobody waits longer than his own context.
func (c *Credential) await(ctx context.Context, next func(now time.Time, landed *flight) (*held, *flight, error)) (*held, error) {
	if markOf(ctx).within(c) {
		return nil, errors.New("reauth: the Refresher asks its own Credential for a token")
	}
	var landed *flight
	c.mu.Lock()
	session := c.sessions
	for {
		if c.sessions != session {
			c.mu.Unlock()
			return nil, ErrLoggedOut
		}
		h, f, err := next(time.Now(), landed)
		if f == nil {
			c.mu.Unlock()
			return h, err
		}
		f.waiters++
		c.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if f.err != nil {
			return nil, f.err
		}
		landed = f
		if f.again {
			landed = nil
		}
		c.mu.Lock()
	}
}

// nextLocked decides for a request that needs a token: the one held, the flight
// to wait for, or an error. landed is the flight that it has waited for.
func (c *Credential) nextLocked(ctx context.Context, now time.Time, landed *flight) (*held, *flight, error) {
	h := c.held.Load()
	if landed != nil && h.is(landed.held) {
		return landed.held, nil, nil
	}
	var stale Stale
	if h != nil {
		stale.Token = h.Token
	}
	if h.usable(now) {
		if h.due.passedAt(now) && c.flight == nil && c.blockedLocked(now, stale, false) == nil {
			c.launchLocked(ctx, now, stale)
		}
		return h, nil, nil
	}
	if c.flight != nil {
		return nil, c.flight, nil
	}
	if err := c.blockedLocked(now, stale, false); err != nil {
		return nil, nil, err
	}
	return nil, c.launchLocked(ctx, now, stale), nil
}

// renewLocked decides likewise for a request whose token was rejected.
func (c *Credential) renewLocked(ctx context.Context, now time.Time, landed *flight, rejected Token, why Rejection) (*held, *flight, error) {
	if c.endedLocked(rejected) {
		return nil, nil, ErrLoggedOut
	}
	c.learnLocked(why.Date, now)
	claims := why.claims()
	replaces := func(h *held) bool {
		return h != nil && h.AccessToken != rejected.AccessToken && (claims == "" || h.claims == claims)
	}
	h := c.held.Load()
	if landed != nil && replaces(landed.held) && (h.is(landed.held) || !replaces(h)) {
		return landed.held, nil, nil
	}
	if replaces(h) && h.usable(now) {
		return h, nil, nil
	}
	// A flight without these claims, or one that brought the same token again
	// because it did not know of the rejection, is followed by one that does.
	if c.flight != nil {
		return nil, c.flight, nil
	}
	stale := Stale{Rejection: why}
	wake := false
	if h != nil {
		stale.Token = h.Token
		if h.AccessToken == rejected.AccessToken {
			wake = c.pause.ahead
		} else if claims == "" {
			stale.Rejection = Rejection{} // of another token; this one has expired
		}
	}
	if err := c.blockedLocked(now, stale, wake); err != nil {
		return nil, nil, err
	}
	return nil, c.launchLocked(ctx, now, stale), nil
}

// endedLocked reports whether tok was handed out before the last Clear.
func (c *Credential) endedLocked(tok Token) bool {
	if tok.session != 0 {
		return tok.session != c.sessions+1
	}
	ended := false
	sum := sha256.Sum256([]byte(tok.AccessToken))
	for _, p := range c.past {
		if p.sum == sum {
			ended = p.session != c.sessions+1
		}
	}
	return ended
}

// ended reports whether tok was handed out before the last Clear.
func (c *Credential) ended(tok Token) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endedLocked(tok)
}

// knows reports whether the access token is one that was held in this session.
func (c *Credential) knows(access string) bool {
	if h := c.held.Load(); h != nil && h.AccessToken == access {
		return access != ""
	}
	sum := sha256.Sum256([]byte(access))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.past {
		if p.sum == sum && p.session == c.sessions+1 {
			return true
		}
	}
	return false
}

// learnLocked takes the difference between the clocks from a server's Date.
func (c *Credential) learnLocked(date, now time.Time) {
	if date.IsZero() {
		return
	}
	if c.skew = date.Sub(now); c.skew.Abs() < clockTolerance {
		c.skew = 0
	}
}

// blockedLocked returns why the Refresher is not called now, or nil. A rejection
// wakes: it does not wait for a pause that only a refresh ahead of expiry opened.
func (c *Credential) blockedLocked(now time.Time, stale Stale, wakes bool) error {
	rt := stale.Token.RefreshToken
	switch {
	case isNil(c.Refresher):
		return &RefreshError{Rejection: stale.Rejection, text: "there is nothing to get a token from: set Credential.Refresher, or call Credential.Set"}
	case c.closed:
		return ErrClosed
	case c.pause.forever:
		return c.pause.err
	case now.Before(c.pause.until) && !wakes:
		return c.pause.err
	case rt != "" && c.out[rt]:
		return &RefreshError{
			Rejection: stale.Rejection,
			RetryAt:   now.Add(time.Second),
			text:      "the last refresh has not returned yet, and its refresh token must not be used twice: see whether the issuer answers, and whether the Refresher ends with its context",
		}
	}
	return nil
}

// launchLocked starts a refresh.
func (c *Credential) launchLocked(ctx context.Context, now time.Time, stale Stale) *flight {
	f := &flight{stale: stale, start: now, session: c.sessions, changes: c.changes, done: make(chan struct{})}
	c.flight = f
	c.running++
	if rt := stale.Token.RefreshToken; rt != "" {
		if c.out == nil {
			c.out = map[string]bool{}
		}
		c.out[rt] = true
	}
	// Of the request only this goes along: which refreshes it is made for.
	go c.fly(f, &mark{refreshing: markOf(ctx).and(c)})
	return f
}

// releaseLocked lets those who wait for f go on.
func (c *Credential) releaseLocked(f *flight) {
	f.landed = true
	c.flight = nil
	close(f.done)
}

// fly calls the Refresher. Whatever that does, even runtime.Goexit, f lands.
func (c *Credential) fly(f *flight, m *mark) {
	var tok Token
	err := errors.New("the Refresher called runtime.Goexit")
	ctx := context.Background()
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
		c.land(ctx, f, tok, err, true)
	}()

	if c.BaseContext != nil {
		if base := c.BaseContext(); base != nil {
			ctx = base
		}
	}
	ctx = context.WithValue(ctx, markKey{}, m)
	cancel := context.CancelFunc(func() {})
	timeout := c.RefreshTimeout
	if timeout == 0 {
		timeout = defaultRefreshTimeout
	}
	if timeout > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, timeout,
			fmt.Errorf("the Refresher did not return within %v: %w", timeout, context.DeadlineExceeded))
	}
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.land(ctx, f, Token{}, context.Cause(ctx), false) })
	defer stop()

	tok, err = c.obtain(ctx, f)
}

// obtain calls the Refresher and checks what it returns. It is all that happens
// between looking at the present token and having the next one. The token that
// comes with an error is to be masked in its text.
func (c *Credential) obtain(ctx context.Context, f *flight) (Token, error) {
	old := f.stale.Token
	tok, err := c.Refresher.Refresh(ctx, f.stale)
	if err != nil && isNil(err) { // its methods may panic, and not only here
		err = fmt.Errorf("the Refresher returned a nil %T as its error", err)
	}
	if err != nil {
		return tok, err
	}
	if err := tok.Validate(); err != nil {
		return tok, fmt.Errorf("the Refresher returned no usable token: %w", err)
	}
	if tok.RefreshToken == "" {
		tok.RefreshToken = old.RefreshToken
	}
	same := tok.AccessToken == old.AccessToken
	if same && tok.Expiry.IsZero() {
		tok.Expiry = old.Expiry
	}
	rejected := f.stale.Rejection.Reason != ""
	if same && rejected {
		return tok, errors.New("the Refresher returned the rejected token again: its source has no newer one")
	}
	c.mu.Lock()
	skew := c.skew
	c.mu.Unlock()
	if life := lifetime(tok.Expiry, f.start, skew); (same || rejected) && life <= time.Since(f.start) {
		return tok, fmt.Errorf("the Refresher returned a token that expired at %s: its source has no newer one, or this machine's clock is wrong", tok.Expiry.UTC().Format(time.RFC3339))
	}
	return tok, nil
}

// land puts the outcome of f in force: of a Refresher that returned, or of one
// that is not waited for any longer. The first of the two decides for those who
// wait; a token is welcome at any time, unless Set or Clear came between.
func (c *Credential) land(ctx context.Context, f *flight, tok Token, err error, returned bool) {
	now := time.Now()
	c.mu.Lock()
	failures := 1 + c.failuresLocked(c.pause.failures, now)
	skew := c.skew
	c.mu.Unlock()
	var h *held
	var failure *RefreshError
	var step time.Duration
	var asked bool
	if err == nil {
		h = c.newHeld(tok, f.start, skew)
		h.since = now
		h.claims = f.stale.Rejection.claims()
		h.forRetry = f.stale.Rejection.Reason != ""
		if h.expiry.passedAt(now) {
			h.trial, h.due = true, instant{}
		}
	} else {
		step, asked = c.step(failures, err)
		failure = newRefreshError(f, tok, err, now.Add(step))
	}

	c.mu.Lock()
	decided := f.landed
	f.landed = true
	if c.flight == f {
		c.flight = nil
	}
	if returned {
		delete(c.out, f.stale.Token.RefreshToken)
	}
	overruled := c.changes != f.changes
	switch {
	case overruled:
	case failure == nil:
		c.adoptLocked(h, now)
		f.held = h
	case !decided || failure.Permanent():
		c.pauseLocked(pause{
			until:    now.Add(step),
			err:      failure,
			forever:  failure.Permanent(),
			ahead:    f.stale.Rejection.Reason == "" && !asked,
			failures: failures,
		})
	}
	switch {
	case decided:
	case overruled: // by a token that came late, from a call given up on
		f.again = true
	case failure != nil:
		f.err = failure
	}
	event := Refresh{
		Reason:  f.reason(),
		Stale:   f.stale.Token.Fingerprint(),
		Start:   f.start,
		Took:    now.Sub(f.start),
		Waiters: f.waiters,
	}
	switch {
	case overruled && c.sessions != f.session:
		event.Err = ErrLoggedOut
	case overruled:
		event.Err = errOverruled
	case failure != nil:
		event.Err = failure
	default:
		event.Token = h.Fingerprint()
	}
	c.mu.Unlock()

	defer func() {
		if !decided {
			close(f.done)
		}
		if returned {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.running--; c.running == 0 && c.idle != nil {
				close(c.idle)
				c.idle = nil
			}
		}
	}()
	if failure == nil || !decided { // a failure is told once
		c.report(ctx, event, err)
	}
}

var errOverruled = errors.New("reauth: the refresh was overruled: another token came first")

// reason returns why f was begun.
func (f *flight) reason() Reason {
	switch tok := f.stale.Token; {
	case f.stale.Rejection.Reason != "":
		return f.stale.Rejection.Reason
	case tok.AccessToken == "" && tok.RefreshToken == "":
		return ReasonMissing
	case tok.AccessToken == "" || !tok.Expiry.IsZero() && !f.start.Before(tok.Expiry):
		return ReasonExpired
	}
	return ""
}

// adoptLocked makes h what requests carry.
func (c *Credential) adoptLocked(h *held, now time.Time) {
	h.session = c.sessions + 1
	old := c.held.Load()
	if old != nil && old.AccessToken == h.AccessToken && h.AccessToken != "" {
		// The source has no newer one (a kubelet, a metadata server). What is
		// known of the token stays known, and the source is asked again later.
		h.forRetry, h.proven, h.refused, h.claims = old.forRetry, old.proven, old.refused, old.claims
		h.repeats = old.repeats + 1
		if again := now.Add(defaultPace(h.repeats)); !h.due.never() && h.due.passedAt(again) {
			h.due = earlier(h.expiry, instantOf(again))
		}
	}
	c.changes++
	c.held.Store(h)
	c.pause = pause{until: now, failures: c.failuresLocked(c.pause.failures, now)}
	if c.past = append(c.past, pastToken{h.sum, h.session}); len(c.past) > maxPast {
		c.past = c.past[1:]
	}
}

// newRefreshError describes the failure of f, without the secrets that the
// Refresher's error may repeat.
func newRefreshError(f *flight, tok Token, err error, retryAt time.Time) *RefreshError {
	old := f.stale.Token
	e := &RefreshError{Rejection: f.stale.Rejection, RetryAt: retryAt, err: func() error { return err }}
	if tok.AccessToken == Placeholder { // no secret, and what the error is about
		tok.AccessToken = ""
	}
	text := "refresh failed: " + mask.ErrorText(err, old.AccessToken, old.RefreshToken, tok.AccessToken, tok.RefreshToken)
	switch {
	case old.RefreshToken != "" && lost.Answer(err):
		// RFC 9700 §4.14.2: to present a used refresh token revokes its family.
		e.RetryAt = time.Time{}
		e.text = text + "; the answer was lost and may have been a new refresh token, so the old one is not used again: log in and call Credential.Set"
	case IsPermanent(err):
		e.RetryAt = time.Time{}
		e.text = text + "; this is permanent: log in and call Credential.Set"
	default:
		e.text = text + "; next attempt after " + retryAt.UTC().Format(time.RFC3339)
	}
	return e
}

// report logs the refresh and calls OnRefresh. A panic of either stays here.
func (c *Credential) report(ctx context.Context, e Refresh, err error) {
	log := logger(c.Logger)
	defer func() {
		if v := recover(); v != nil {
			logPanic(ctx, log, "reauth: OnRefresh panicked", v)
		}
	}()
	attrs := []slog.Attr{
		slog.String("reason", string(e.Reason)),
		slog.String("token", e.Token),
		slog.Duration("took", e.Took),
		slog.Int("waiters", e.Waiters),
	}
	var failure *RefreshError
	if errors.As(e.Err, &failure) {
		attrs[1] = slog.String("token", e.Stale)
		attrs = append(attrs, slog.String("error", failure.Error()))
		if !failure.Permanent() {
			attrs = append(attrs, slog.Duration("retry_in", time.Until(failure.RetryAt)))
		}
		var p *panicError
		if errors.As(err, &p) {
			attrs = append(attrs, slog.String("stack", string(p.stack)))
		}
		log.LogAttrs(ctx, slog.LevelWarn, "reauth: refresh failed", attrs...)
	} else if e.Err != nil {
		log.LogAttrs(ctx, slog.LevelDebug, "reauth: refresh overruled", attrs...)
	} else {
		log.LogAttrs(ctx, slog.LevelDebug, "reauth: refreshed", attrs...)
	}
	if c.OnRefresh != nil {
		c.OnRefresh(e)
	}
}

// A panicError is a panic of the Refresher. It does not print the value, which
// may be a token.
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

func logPanic(ctx context.Context, log *slog.Logger, msg string, v any) {
	defer func() { _ = recover() }() // it may have been the logger
	log.LogAttrs(ctx, slog.LevelError, msg, slog.String("error", (&panicError{value: v}).Error()), slog.String("stack", string(debug.Stack())))
}

// logger returns l, or the default where l is of no use.
func logger(l *slog.Logger) *slog.Logger {
	if l == nil || isNil(l.Handler()) {
		return slog.Default()
	}
	return l
}

// isNil reports whether v is nil, or an interface around a nil.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan:
		return r.IsNil()
	}
	return false
}
