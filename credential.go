package reauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reauth-go/reauth/internal/mask"
)

var (
	// ErrLoggedOut is returned if the login of a request has ended, as by
	// Credential.Clear. The request is not sent with the token of another login.
	ErrLoggedOut = errors.New("reauth: logged out by Credential.Clear: a request that began before is not sent with another login's token")

	// ErrClosed is returned if a refresh is needed after Credential.Shutdown.
	ErrClosed = errors.New("reauth: the Credential is closed by Shutdown and its token is no longer usable: make a new Credential")
)

// A Credential holds the token of one identity. It replaces the token when it
// expires or is rejected. Concurrent rejections of one token share one refresh.
//
// A Credential is safe for concurrent use by multiple goroutines. It must not be
// copied, and its fields must not be modified, after first use. Several Transports
// may share it. An idle Credential has no goroutine and no timer, and need not be
// shut down.
//
// A Credential implements Refresher, so that another Credential can derive its token
// from the token of this one.
type Credential struct {
	// Refresher obtains the first token and all later ones. It may be nil if Set
	// provides a token.
	Refresher Refresher

	// Store optionally keeps the token for all Credentials that share the login, also
	// in other processes and on other machines. The token in the Store outlives this
	// process. A Credential sends a refresh token only while it holds a lease in the
	// record, so that each refresh token is sent once. The Store is called if a token
	// is needed or rejected. It is not called for a request that has a usable token. If
	// nil, the token is kept in memory only.
	Store Store

	// RefreshBefore specifies how long before its expiry a token is refreshed. Requests
	// use the old token until the refresh returns. The value is limited to half of the
	// token's lifetime. It is then randomized between half of the value and the value,
	// so that processes started together do not refresh together. If zero, 5 minutes is
	// used. If negative, tokens are not refreshed before they expire.
	RefreshBefore time.Duration

	// RefreshTimeout specifies how long callers wait for a refresh. The context of the
	// refresh then ends. If zero, 30 seconds is used. If negative, there is no limit.
	RefreshTimeout time.Duration

	// MinBackoff and MaxBackoff specify how long the Credential backs off after the
	// Refresher fails. The delay is MinBackoff after the first failure. It doubles with
	// each further failure, up to MaxBackoff, and is randomized. If zero, 250 ms and 1
	// minute are used. If MinBackoff is negative, there is no backoff. If MaxBackoff is
	// negative, 24 hours is used.
	MinBackoff, MaxBackoff time.Duration

	// RefreshEvery limits the refreshes that servers cause by rejecting tokens: 20
	// at once, and one more in each interval of this length. Refreshes for expiry
	// and refreshes that fail are not counted. If zero, 6 seconds is used. If
	// negative, there is no limit.
	RefreshEvery time.Duration

	// BaseContext optionally specifies a function that returns the base context for
	// refreshes. It is called once at the beginning of each refresh. The Refresher and
	// OnRefresh are called with contexts derived from the returned context. If nil,
	// context.Background is used.
	BaseContext func() context.Context

	// Logger specifies an optional logger. The level is Warn if a refresh fails, or if
	// the budget of RefreshEvery is used up. It is also Warn if a new token has already
	// expired, or if the Store fails to keep the record. It is Error if OnRefresh
	// panics, and Debug for all other refreshes. If nil, slog.Default is used.
	Logger *slog.Logger

	// OnRefresh, if not nil, is called after each refresh, before the requests that
	// wait for the refresh continue. The new token is already the current one. The
	// context has the values of the refresh's context, and no deadline. OnRefresh
	// must not send a request that needs the new token, and must not call Shutdown. If
	// the Refresher returns a token after RefreshTimeout, OnRefresh is called twice.
	OnRefresh func(context.Context, RefreshInfo)

	// current is the token that requests carry; nil if there is none. It is read
	// without mu, and replaced with mu held.
	current atomic.Pointer[tokenState]

	mu          sync.Mutex
	predecessor *tokenState // that current replaced; nil after Set and Clear
	sessions    uint64      // how many logins have ended
	changes     uint64      // how often current was replaced by another token, or cleared
	flight      *flight     // the refresh in progress; nil if none
	calls       []*flight   // flights whose Refresher or OnRefresh has not returned
	idle        chan struct{}
	backoff     failureBackoff
	budget      budget
	rows        map[requestOrigin]row
	challenges  *[]Challenge // that asked for claims or a scope, oldest first; a pointer, which fmt does not follow
	lostAt      time.Time    // see Stale.AnswerLostAt
	closed      bool
	norotation  bool        // the latest refresh returned no new refresh token
	warnedClock bool        // that a token arrived expired
	shared      *share      // what is known of Store's record; nil until there is one
	past        []pastToken // the latest tokens, to recognize them
}

// A pastToken is what is needed to recognize a token.
type pastToken struct {
	sum     [sha256.Size]byte
	session uint64
}

const (
	defaultRefreshBefore  = 5 * time.Minute
	defaultRefreshTimeout = 30 * time.Second
	maxLifetime           = 100 * 365 * 24 * time.Hour
	maxPast               = 16
)

// Token returns a token for a request: the current token if it is usable, else the
// token of a refresh. It returns a *RefreshError if there is no usable token. It
// returns ErrClosed if a refresh is needed after Shutdown, ErrLoggedOut if the login
// ends meanwhile, or the cause of ctx if ctx ends first.
func (c *Credential) Token(ctx context.Context) (Token, error) {
	s, err := c.token(ctx, nil)
	if err != nil {
		return Token{}, err
	}
	return s.Token, nil
}

// Refresh implements Refresher. It returns a token other than stale.Token, which a
// server has rejected. That is the current token if it differs, else the token of a
// refresh. If stale.Rejection is zero, Refresh is equivalent to Token.
//
// A Transport does the same after a rejection, for the origin of the request. All
// callers of Refresh count as one origin that accepts no token, so that frequent calls
// are limited: see Limits in the package documentation. The errors are those of Token.
// A *RefreshError has RetryAt unless it is permanent. ErrLoggedOut is also returned if
// stale.Token is from before Clear.
func (c *Credential) Refresh(ctx context.Context, stale Stale) (Token, error) {
	why := rejection{Rejection: stale.Rejection, rejected: tokenStateOf(stale.Token, time.Time{}), written: stale.Rejection.Challenges}
	if why.Reason == "" {
		if why.StatusCode == 0 {
			return c.Token(ctx)
		}
		why.Reason = ReasonUnspecified
	}
	s, _, err := c.replacement(ctx, nil, why)
	if err != nil {
		return Token{}, err
	}
	return s.Token, nil
}

// Current returns the token that the Credential holds. The token may have expired. The
// error is a *RefreshError if the latest refresh failed, ErrLoggedOut after Clear, or
// ErrClosed if the token is no longer usable after Shutdown. Current does not call the
// Refresher.
func (c *Credential) Current() (Token, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var tok Token
	s := c.current.Load()
	if s != nil {
		tok = s.Token
	}
	switch {
	case c.backoff.err != nil:
		return tok, c.backoff.err
	case c.closed && !s.usable(time.Now()):
		return tok, ErrClosed
	case s == nil && c.sessions > 0:
		return tok, ErrLoggedOut
	}
	return tok, nil
}

// Set makes tok the current token, as after a login. The result of a refresh in
// progress is discarded, and the backoff of earlier failures ends. If tok has only a
// RefreshToken, the next request refreshes it. Set returns an error, and changes
// nothing, if tok is not valid: see Token.Validate. It returns ErrClosed after
// Shutdown.
//
// With a Store, Set begins a new login for all Credentials that share the record. Set
// returns an error, and changes nothing in this Credential, if the Store cannot be
// written.
func (c *Credential) Set(ctx context.Context, tok Token) error {
	if tok.AccessToken != "" || tok.RefreshToken == "" {
		if err := tok.Validate(); err != nil {
			return fmt.Errorf("reauth: Set: %w", err)
		}
	}
	var written record
	if c.Store != nil {
		var lifetime time.Duration
		if !tok.Expiry.IsZero() {
			lifetime = time.Until(tok.Expiry)
		}
		c.mu.Lock()
		closed := c.closed
		c.mu.Unlock()
		if closed {
			return ErrClosed
		}
		written = newRecord(tok, rand.Text(), 1, lifetime).written()
		if err := c.overwrite(ctx, func(record) record { return written }); err != nil {
			return mask.Err("reauth: Set: ", err, tok.AccessToken, tok.RefreshToken)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.resetLocked()
	c.holdLocked(c.newSetState(tok, time.Now()))
	if c.Store != nil {
		c.noteRecordLocked(written)
	}
	if f := c.flight; f != nil {
		f.superseded = true
		c.releaseLocked(f)
	}
	return nil
}

// Clear removes the token, as after a logout. The result of a refresh in progress is
// discarded. Requests that wait for it fail with ErrLoggedOut. Requests that began
// before Clear and are rejected are not retried. The next request calls the Refresher
// with a zero Stale.
//
// With a Store, the login ends for all Credentials that share the record. If the Store
// cannot be written, Clear returns an error, and the login ends for this Credential
// only.
func (c *Credential) Clear(ctx context.Context) error {
	c.mu.Lock()
	c.clearLocked()
	if c.Store == nil {
		c.mu.Unlock()
		return nil
	}
	known := c.sharedLocked()
	login, seq := known.login, known.seq
	known.login, known.seq = "", 0
	c.mu.Unlock()
	err := c.overwrite(ctx, func(r record) record {
		if r.raw == "" && login == "" {
			return r // there is no login to end
		}
		if r.State.Login != "" {
			login, seq = r.State.Login, r.State.Seq
		}
		return record{State: recordState{Login: login, Seq: seq, Ended: true}}.written()
	})
	if err != nil {
		return mask.Err("reauth: Clear: ", err)
	}
	return nil
}

// clearLocked removes the token from memory.
func (c *Credential) clearLocked() {
	c.sessions++
	c.changes++
	c.resetLocked()
	c.challenges = nil
	c.current.Store(nil)
	if f := c.flight; f != nil {
		f.err = ErrLoggedOut
		c.releaseLocked(f)
	}
}

// Shutdown prevents further refreshes and waits for those in progress. With a Store, it
// also waits until the Store has the new token, for up to a minute. If ctx ends first,
// Shutdown returns an error, and a new refresh token may be lost. After Shutdown,
// requests carry the token while it is usable, and then fail with ErrClosed.
func (c *Credential) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	if len(c.calls) == 0 {
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
		return fmt.Errorf("reauth: shut down during a refresh: a refresh token that it replaces may be lost: %w", context.Cause(ctx))
	}
}

// Format implements fmt.Formatter. It prints no field, as fields may hold secrets.
func (c *Credential) Format(f fmt.State, _ rune) {
	var s *tokenState
	if c != nil {
		s = c.current.Load()
	}
	if s == nil {
		_, _ = io.WriteString(f, "Credential(empty)")
		return
	}
	_, _ = io.WriteString(f, "Credential("+s.Token.String()+")")
}

// token returns the token for the next request. For nearly all requests it is one
// atomic load and one reading of the clock.
func (c *Credential) token(ctx context.Context, cancel <-chan struct{}) (*tokenState, error) {
	if s := c.current.Load(); s != nil && !s.refreshAt.passed() {
		return s, nil
	}
	s, _, err := c.await(ctx, cancel, func(now time.Time, done *flight) decision {
		return c.forRequestLocked(ctx, now, done)
	})
	return s, err
}

// replacement returns what a retry carries after a rejection, and whether that is the
// predecessor of the current token.
func (c *Credential) replacement(ctx context.Context, cancel <-chan struct{}, why rejection) (*tokenState, bool, error) {
	c.mu.Lock()
	c.noteLocked(why)
	c.mu.Unlock()
	return c.await(ctx, cancel, func(now time.Time, done *flight) decision {
		return c.forRejectionLocked(ctx, now, done, why)
	})
}

// replaceSoon starts the refresh that a rejection calls for, and does not wait.
func (c *Credential) replaceSoon(ctx context.Context, why rejection) {
	c.mu.Lock()
	c.noteLocked(why)
	d := c.forRejectionLocked(ctx, time.Now(), nil, why)
	c.mu.Unlock()
	c.warnUsedUp(ctx, d)
}

// rejectedAgain notes the rejection of a retry.
func (c *Credential) rejectedAgain(why rejection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteLocked(why)
}

// noteLocked notes that a token was rejected, and what the rejection asks for. A
// rejection that asks for more than the token was fetched with does not count as a
// rejection of the token.
func (c *Credential) noteLocked(why rejection) {
	if c.endedLocked(why.rejected.Token) {
		return
	}
	asks := why.requirements()
	if why.rejected.asked.covers(asks) {
		why.rejected.verdicts.setLocked(why.origin, false)
	}
	if asks.none() {
		return
	}
	var session []Challenge
	if c.challenges != nil {
		session = *c.challenges
	}
	for _, ch := range why.written {
		if asks := requirementsOf([]Challenge{ch}); !asks.none() && !requirementsOf(session).covers(asks) {
			session = append(session[:len(session):len(session)], ch)
		}
	}
	session = session[max(0, len(session)-maxRequirements):]
	c.challenges = &session
}

// waitForRefresh waits for a refresh in progress if a server has rejected the current
// token, unless the origin has accepted it last. It is for requests that cannot be sent
// twice.
func (c *Credential) waitForRefresh(ctx context.Context, cancel <-chan struct{}, o requestOrigin) (*tokenState, error) {
	s, _, err := c.await(ctx, cancel, func(now time.Time, done *flight) decision {
		cur, f := c.current.Load(), c.flight
		if f != nil && f != done && f.stale.Rejection.Reason != "" && cur.usable(now) &&
			f.stale.Token.AccessToken == cur.AccessToken && !cur.verdicts.lastAccepted(o) {
			return decision{flight: f, tolerant: true}
		}
		return c.forRequestLocked(ctx, now, done)
	})
	return s, err
}

// anonymous returns an empty state, for a request without a token, if there is no
// current token. Otherwise it returns nil.
func (c *Credential) anonymous() *tokenState {
	if c.current.Load() != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return &tokenState{Token: Token{session: c.sessions + 1}, verdicts: &verdicts{}}
}

// resetLocked discards what does not apply to another login.
func (c *Credential) resetLocked() {
	c.predecessor = nil
	c.backoff = failureBackoff{}
	c.rows = nil
	c.lostAt = time.Time{}
	c.norotation = false
}

// holdLocked makes s the current token.
func (c *Credential) holdLocked(s *tokenState) {
	s.session = c.sessions + 1
	c.changes++
	if cur := c.current.Load(); cur != nil {
		s.verdicts.earlier = cur.verdicts.origins()
	}
	c.current.Store(s)
	if c.past = append(c.past, pastToken{s.sum, s.session}); len(c.past) > maxPast {
		c.past = slices.Delete(c.past, 0, 1)
	}
}

// endedLocked reports whether tok was returned before the latest Clear.
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

// knows reports whether the access token is, or was, that of this login.
func (c *Credential) knows(access string) bool {
	if s := c.current.Load(); s != nil && s.AccessToken == access {
		return access != ""
	}
	sum := sha256.Sum256([]byte(access))
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.past, pastToken{sum, c.sessions + 1})
}

// anyClaimsLocked reports whether servers have asked for more claims than are
// distinguished: see maxClaims.
func (c *Credential) anyClaimsLocked() bool {
	return c.challenges != nil && len(requirementsOf(*c.challenges).claims) > maxClaims
}

// challengesLocked returns the challenges for the next Stale: those of the session
// that ask for claims or a scope, oldest first, and those of the rejection.
func (c *Credential) challengesLocked(why rejection) (all []Challenge) {
	if c.challenges == nil {
		return why.written
	}
	asks := why.requirements()
	for _, ch := range *c.challenges {
		if !asks.covers(requirementsOf([]Challenge{ch})) {
			all = append(all, ch)
		}
	}
	return append(all, why.written...)
}

// A rejection is a Rejection with what a refresh needs to know about it.
type rejection struct {
	Rejection             // masked
	written   []Challenge // as the server wrote them
	rejected  *tokenState
	origin    requestOrigin
}

// requirements returns what the challenges of a 401 ask for; of another status, only
// the claims.
func (r rejection) requirements() requirements {
	asks := requirementsOf(r.written)
	if r.StatusCode != http.StatusUnauthorized {
		asks.scopes = nil
	}
	return asks
}

// newest returns the token that the retry carries after the delay. That is the newest
// token, unless the token chosen before the delay serves the rejection better.
func (c *Credential) newest(ctx context.Context, cancel <-chan struct{}, why rejection, chosen *tokenState, predecessor bool) (*tokenState, bool, error) {
	asks := why.requirements()
	c.mu.Lock()
	ended := c.endedLocked(why.rejected.Token) || c.endedLocked(chosen.Token)
	remains := predecessor && chosen.is(c.predecessor) && chosen.usable(time.Now())
	anyClaims := c.anyClaimsLocked()
	c.mu.Unlock()
	switch {
	case ended:
		return nil, false, ErrLoggedOut
	case remains:
		return chosen, true, nil
	}
	s, err := c.token(ctx, cancel)
	switch {
	case err != nil:
		return nil, false, err
	case s.session != chosen.session:
		return nil, false, ErrLoggedOut
	case s.is(why.rejected) && predecessor:
		return nil, false, errors.New("reauth: the token before the rejected one has expired")
	case s.is(why.rejected): // Set was called with it: the new one is better
		return chosen, false, nil
	case (len(asks.claims) > 0 || !s.asked.serves(asks, anyClaims)) && chosen.usable(time.Now()):
		return chosen, false, nil // a later rejection may have asked for other claims
	}
	return s, false, nil
}
