package reauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/peek"
	"github.com/reauth-go/reauth/internal/replay"
	"github.com/reauth-go/reauth/internal/retryafter"
)

// A rejectedRequest is a request whose token was rejected, on its way to the retry.
type rejectedRequest struct {
	t         *Transport
	req       *http.Request
	clonable  bool           // what inspectHeader returned
	resp      *http.Response // the rejection
	head      *peek.Body     // the beginning of its body
	body      replay.Body    // of the request
	cred      *Credential
	why       rejection
	next      *tokenState   // what the retry carries
	retryBody io.ReadCloser // the body of the retry
	began     time.Time     // when the rejection came
	delay     time.Duration // before the retry
	Outcome
}

const (
	defaultRetryWait = 100 * time.Millisecond
	maxRetryAfter    = 5 * time.Second
)

// giveUp notes why there is no retry.
func (r *rejectedRequest) giveUp(why NotRetried, err error) bool {
	r.NotRetried, r.Err, r.Predecessor = why, err, false
	return false
}

// refresh obtains the token for the retry. It reads the body of the rejection first:
// the refresh may need its connection.
func (r *rejectedRequest) refresh() bool {
	if !r.why.Reason.Refreshable() {
		return r.giveUp(NotRetriedReason, nil)
	}
	r.head.Bytes()
	r.delay = retryWait(r.t.RetryWait)
	after, asked := r.retryAfter()
	if asked {
		r.delay = after
	}
	// The default delay is short compared to a refresh. The deadline is then checked
	// after the refresh.
	if (asked || r.t.RetryWait > 0) && !r.affords(r.delay) {
		r.cred.replaceSoon(r.req.Context(), r.why) // for the next request
		return false
	}
	next, predecessor, err := r.cred.replacement(r.req.Context(), canceled(r.req), r.why)
	if err != nil {
		return r.giveUp(notRetriedFor(r.req, err), err)
	}
	r.next, r.Predecessor = next, predecessor
	return true
}

// notRetriedFor returns what the error of a refresh means for the retry.
func notRetriedFor(req *http.Request, err error) NotRetried {
	var failure *RefreshError
	switch {
	case errors.As(err, &failure) && failure.notRetried != "":
		return failure.notRetried
	case errors.Is(err, ErrLoggedOut):
		return NotRetriedLoggedOut
	case req.Context().Err() != nil, errors.Is(err, errCanceled):
		return NotRetriedCanceled
	}
	return NotRetriedNoToken
}

// affords reports whether there is enough time for the delay before the retry.
func (r *rejectedRequest) affords(wait time.Duration) bool {
	if _, asked := r.retryAfter(); asked && wait > maxRetryAfter {
		return r.giveUp(NotRetriedRetryAfter, nil)
	}
	if end, ok := r.req.Context().Deadline(); ok && time.Until(end) <= wait {
		return r.giveUp(NotRetriedDeadline, nil)
	}
	return true
}

// wait waits before the retry, and takes the newest token afterwards.
func (r *rejectedRequest) wait() bool {
	ctx := r.req.Context()
	wait := r.delay
	if _, asked := r.retryAfter(); asked {
		wait = max(0, wait-time.Since(r.began))
	}
	if !r.affords(wait) {
		return false
	}
	if r.body.Lost() { // it cannot be restored during the delay
		return r.giveUp(NotRetriedBodyTooLarge, nil)
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return r.giveUp(NotRetriedCanceled, context.Cause(ctx))
		case <-canceled(r.req):
			return r.giveUp(NotRetriedCanceled, errCanceled)
		}
	}
	next, predecessor, err := r.cred.newest(ctx, canceled(r.req), r.why, r.next, r.Predecessor)
	switch {
	case errors.Is(err, ErrLoggedOut):
		return r.giveUp(NotRetriedLoggedOut, err)
	case err != nil:
		return r.giveUp(NotRetriedTokenExpired, err)
	}
	r.next, r.Predecessor = next, predecessor
	return true
}

// retryWait returns the default wait, or w, randomized by ±50%.
func retryWait(w time.Duration) time.Duration {
	switch {
	case w < 0:
		return 0
	case w == 0:
		w = defaultRetryWait
	}
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(min(w, maxBackoff)),
		backoff.WithRandomizationFactor(0.5),
		backoff.WithMaxElapsedTime(0),
	).NextBackOff()
}

// retryAfter returns the Retry-After of the rejection. A date in it is compared with
// the Date of the same response.
func (r *rejectedRequest) retryAfter() (time.Duration, bool) {
	now := r.Rejection.Date
	if now.IsZero() {
		now = r.began
	}
	return retryafter.Parse(r.resp.Header, now)
}

// rewind prepares the body of the retry.
func (r *rejectedRequest) rewind() bool {
	body, err := r.body.Retry()
	switch {
	case errors.Is(err, replay.ErrTooLarge):
		return r.giveUp(NotRetriedBodyTooLarge, nil)
	case err != nil:
		return r.giveUp(NotRetriedBodyFailed, r.t.secrets(r.req, r.why.rejected, r.next).Err("reauth: ", err))
	}
	r.retryBody = body
	return true
}

// retry sends the request for the second and last time.
func (r *rejectedRequest) retry() (*http.Response, error) {
	httpx.CloseBody(r.resp.Body)
	resp, _, err := r.t.send(r.req, r.next, r.retryBody, r.clonable)
	r.Elapsed = time.Since(r.began)
	secrets := r.t.secrets(r.req, r.why.rejected, r.next)
	if resp == nil {
		r.Err = secrets.Err("reauth: the retry failed: ", err)
		r.t.finish(r.req, nil, &r.Outcome)
		return nil, err
	}
	if rej, _ := r.t.classify(r.req, resp, r.next, r.why.rejected); rej == nil {
		r.Retry = attempt(resp, r.next, r.t.requestID(resp, secrets))
		r.t.noteAccepted(r.req, resp, r.cred, r.next)
	} else {
		r.Retry = attempt(resp, r.next, rej.RequestID)
		r.Err = fmt.Errorf("reauth: the retry was rejected too (%s)", rej.Reason)
		r.cred.rejectedAgain(*rej)
	}
	r.t.finish(r.req, resp, &r.Outcome)
	return resp, err
}

// giveBack returns the rejection with its body unread. If the context of the request
// has ended, it returns the cause.
func (r *rejectedRequest) giveBack() (*http.Response, error) {
	r.body.Release()
	r.Elapsed = time.Since(r.began)
	ctx := r.req.Context()
	if r.why.Reason.Refreshable() && (ctx.Err() != nil || errors.Is(r.Err, errCanceled)) {
		if ctx.Err() != nil {
			r.Err = context.Cause(ctx)
		}
		httpx.CloseBody(r.resp.Body)
		r.t.finish(r.req, nil, &r.Outcome)
		return nil, r.Err
	}
	r.t.finish(r.req, r.resp, &r.Outcome)
	return r.resp, nil
}
