package reauth

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/reauth-go/reauth/internal/mask"
)

// A Refresher obtains tokens from an issuer, a file, a secret manager or a login.
//
// Refresh returns a token other than stale.Token. It should return when ctx ends. If it
// does not, the callers stop waiting, but its result is still used. ctx has no values
// of a request, and does not end with a request. A request made with ctx through a
// Transport of the same Credential is sent without a token.
//
// A Credential calls its Refresher in a separate goroutine, one call at a time, and
// backs off after an error. Permanent, LoginEnded and AnswerLost classify an error. If
// an error has a method RetryAfter() time.Duration, it specifies the backoff. A call
// that outlives Credential.RefreshTimeout, Set or Clear may overlap with the next call.
// Two such calls never have the same refresh token.
type Refresher interface {
	Refresh(ctx context.Context, stale Stale) (Token, error)
}

// The RefresherFunc type is an adapter to allow the use of ordinary functions as
// Refreshers.
type RefresherFunc func(ctx context.Context, stale Stale) (Token, error)

// Refresh calls f(ctx, stale).
func (f RefresherFunc) Refresh(ctx context.Context, stale Stale) (Token, error) {
	return f(ctx, stale)
}

// A Stale describes the token to replace.
type Stale struct {
	// Token is the current token. If zero, there is none.
	Token Token

	// Rejection describes the response that rejected the token. If its Reason is empty,
	// no server has rejected the token: it is about to expire, or has expired.
	//
	// Its Challenges end with those of this rejection. Before them are earlier
	// challenges that asked for claims or a scope, since the Credential was created or
	// cleared. The Refresher should request a token with all of these claims and
	// scopes.
	Rejection Rejection

	// AnswerLostAt is when the first call began whose error was marked by AnswerLost.
	// Since then the refresh token may be used up. It is zero if there was no such
	// call, or if the issuer does not replace refresh tokens.
	AnswerLostAt time.Time
}

// Permanent marks err as an error that another call cannot resolve. The Refresher
// is not called until Credential.Set or Clear. Permanent(nil) is nil. Permanent of
// package github.com/cenkalti/backoff/v4 has the same effect.
func Permanent(err error) error { return marked(err, errorKind{permanent: true}) }

// LoginEnded marks err as permanent. It also says that the refresh token is no longer
// valid, for all processes that share the login. An issuer says so with invalid_grant
// (RFC 6749 §5.2). LoginEnded(nil) is nil.
func LoginEnded(err error) error {
	return marked(err, errorKind{permanent: true, loginEnded: true})
}

// AnswerLost marks err as an error after which the refresh token may be used up. The
// request was sent to the issuer, and the response did not arrive. The next call has
// Stale.AnswerLostAt. AnswerLost(nil) is nil.
//
// The error of a dial, of a TLS handshake or of reading a local file must not be
// marked. If the Refresher does not yet present a refresh token that may be used up, it
// returns an error with a method RetryAfter. That error must not be marked either.
func AnswerLost(err error) error { return marked(err, errorKind{answerLost: true}) }

// IsPermanent reports whether err was marked by Permanent or LoginEnded, or by
// Permanent of backoff/v4.
func IsPermanent(err error) bool {
	return kindOf(err).permanent
}

// IsLoginEnded reports whether err was marked by LoginEnded. It reports true for the
// Err of a RefreshInfo if the refresh ended the login.
func IsLoginEnded(err error) bool { return kindOf(err).loginEnded }

// IsAnswerLost reports whether err was marked by AnswerLost.
func IsAnswerLost(err error) bool { return kindOf(err).answerLost }

// An errorKind is what the marks of an error say.
type errorKind struct{ permanent, loginEnded, answerLost bool }

type markedError struct {
	err  error
	kind errorKind
}

func (e *markedError) Error() string { return e.err.Error() }
func (e *markedError) Unwrap() error { return e.err }

func marked(err error, kind errorKind) error {
	if err == nil {
		return nil
	}
	return &markedError{err, kind}
}

// kindOf returns the marks of err and of all errors that it wraps.
func kindOf(err error) (kind errorKind) {
	defer func() { _ = recover() }() // Unwrap of a nil pointer may panic
	walk(err, func(err error) {
		switch e := err.(type) {
		case *markedError:
			kind.permanent = kind.permanent || e.kind.permanent
			kind.loginEnded = kind.loginEnded || e.kind.loginEnded
			kind.answerLost = kind.answerLost || e.kind.answerLost
		case *backoff.PermanentError:
			kind.permanent = true
		}
	})
	return kind
}

// walk calls visit for err and all that it wraps.
func walk(err error, visit func(error)) {
	for err != nil {
		visit(err)
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				walk(err, visit)
			}
			return
		default:
			return
		}
	}
}

// A RefreshError says why there is no usable token, or no token other than the rejected
// one. Its text is safe to log. The text of the error that Unwrap returns may contain
// secrets.
type RefreshError struct {
	Rejection Rejection // of the token to replace; zero if it was the first or had expired
	RetryAt   time.Time // when the Refresher may be called again; zero if not before Set or Clear

	text       string
	notRetried NotRetried   // why the Refresher was not called; NotRetriedNoToken if empty
	err        func() error // not the error itself: package fmt would print it
}

// Error returns what failed and what to do.
func (e *RefreshError) Error() string { return "reauth: " + e.text }

// Unwrap returns the error of the Refresher, or nil.
func (e *RefreshError) Unwrap() error {
	if e.err == nil {
		return nil
	}
	return e.err()
}

// Permanent reports whether the Refresher is not called until Credential.Set or
// Clear.
func (e *RefreshError) Permanent() bool { return e.RetryAt.IsZero() }

// RetryAfter returns the time until RetryAt, or zero if e is permanent. A Refresher
// that calls another Credential may return e as its own error.
func (e *RefreshError) RetryAfter() time.Duration {
	if e.Permanent() {
		return 0
	}
	return max(time.Until(e.RetryAt), 0)
}

// Format implements fmt.Formatter. Every verb prints the text alone.
func (e *RefreshError) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, e.Error()) }

// newRefreshError returns the error of a refresh that failed with err. The text does
// not repeat the given secrets.
func newRefreshError(rej Rejection, err error, secrets ...string) *RefreshError {
	return &RefreshError{
		Rejection: rej,
		text:      "refresh failed: " + mask.ErrorText(err, secrets...),
		err:       func() error { return err },
	}
}

// retry completes the error of a refresh that may be repeated.
func (e *RefreshError) retry(at time.Time) {
	e.RetryAt = at
	e.text += "; next attempt after " + stamp(at)
}

// A RefreshInfo describes a completed refresh, for metrics and for programs that act
// on it. It contains no secret.
type RefreshInfo struct {
	Reason   Reason        // of the rejection; ReasonMissing for a first token, ReasonExpired past the expiry, "" ahead of it
	Result   RefreshResult // what became of it
	Stale    string        // fingerprint of the token to replace; "" if there was none
	Token    string        // fingerprint of the new token; "" if there is none
	Expiry   time.Time     // of the new token; zero if it is not known
	Start    time.Time     // when the Refresher was called
	Duration time.Duration // how long the call took, or was waited for
	Waiters  int           // how many requests waited for it
	Shared   bool          // the token was refreshed by another process that shares the login, not by the Refresher
	Err      error         // a *RefreshError, ErrLoggedOut, or why the result was discarded; nil if RefreshSucceeded
}

// A RefreshResult says what became of a refresh.
type RefreshResult string

const (
	RefreshSucceeded RefreshResult = "succeeded" // the token is used
	RefreshFailed    RefreshResult = "failed"    // there is no new token
	RefreshDiscarded RefreshResult = "discarded" // Set, Clear or another refresh came first
)
