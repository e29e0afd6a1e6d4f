package reauth

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"
)

// An Outcome tells what became of a request: of its first send and its retry.
// It holds no secret and may be logged.
type Outcome struct {
	First     Attempt       // the first send
	Retry     Attempt       // the retry; zero if there was none
	Rejection Rejection     // of the first send; zero if it was not rejected
	Withheld  string        // why the request went out without a token; "" if it carried one
	NoRetry   string        // why a rejected request was not sent again; "" if it was
	Err       error         // what kept it from being sent again, or at all: a *RefreshError, ErrLoggedOut, GetBody's error …
	Took      time.Duration // from the rejection to the last answer: what the cure cost
}

// An Attempt is one send of a request.
type Attempt struct {
	StatusCode int    // zero if there was no response
	RequestID  string // by which the server knows it; may be empty
	Token      string // fingerprint of the token that it carried
}

// Cured reports whether the request was rejected, and answered without another
// rejection when it was sent again.
func (o Outcome) Cured() bool {
	return o.Rejection.Reason != "" && o.Retry.StatusCode != 0 && o.Err == nil
}

// RequestID returns the id of the last response.
func (o Outcome) RequestID() string {
	if o.Retry.StatusCode != 0 {
		return o.Retry.RequestID
	}
	return o.First.RequestID
}

// OutcomeOf returns the Outcome of the request that resp answers, and whether
// there is one: a request that was neither rejected nor had its token withheld
// has none. It is for SDKs that show their response; for others see WithOutcome.
func OutcomeOf(resp *http.Response) (Outcome, bool) {
	if resp == nil || resp.Request == nil {
		return Outcome{}, false
	}
	m := markOf(resp.Request.Context())
	if m == nil || m.answered == nil {
		return Outcome{}, false
	}
	return *m.answered, true
}

// WithOutcome returns a context for a request, and a function that returns the
// Outcome of the last request made with it, whatever its status. It is for SDKs
// that do not show their response. The function is safe for concurrent use and
// returns the zero Outcome as long as there is no answer.
func WithOutcome(ctx context.Context) (context.Context, func() Outcome) {
	r := &recorder{}
	return withMark(ctx, func(m *mark) { m.outcome = r }), r.last
}

// WithoutToken returns a context whose requests go out untouched: without a
// token, and without a retry. Only a Placeholder is still removed.
func WithoutToken(ctx context.Context) context.Context {
	return withMark(ctx, func(m *mark) { m.withoutToken = true })
}

type recorder struct {
	mu sync.Mutex
	o  Outcome // guarded by mu
}

func (r *recorder) last() Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.o
}

type markKey struct{}

// A mark is all that a context says to this package, in one value, so that a
// request looks it up once. It is not changed. Its methods take a nil mark.
type mark struct {
	withoutToken bool
	outcome      *recorder
	answered     *Outcome      // of the request that this one, a response's, shows
	refreshing   []*Credential // the request is made by the refresh of the last, which is made by that of the one before …
}

func markOf(ctx context.Context) *mark {
	m, _ := ctx.Value(markKey{}).(*mark)
	return m
}

func withMark(ctx context.Context, change func(*mark)) context.Context {
	m := &mark{}
	if old := markOf(ctx); old != nil {
		*m = *old
	}
	change(m)
	return context.WithValue(ctx, markKey{}, m)
}

// within reports whether the request is made by a refresh of c.
func (m *mark) within(c *Credential) bool { return m != nil && slices.Contains(m.refreshing, c) }

// and returns the Credentials being refreshed, with c.
func (m *mark) and(c *Credential) []*Credential {
	if m == nil {
		return []*Credential{c}
	}
	return append(slices.Clip(m.refreshing), c)
}

// recording reports whether WithOutcome is waiting for the outcome.
func (m *mark) recording() bool { return m != nil && m.outcome != nil }

// forget takes from a response's request what the context of the caller's says
// of an earlier request: he may have made it from that one's response.
func (m *mark) forget(resp *http.Response) {
	if m != nil && m.answered != nil {
		resp.Request = resp.Request.WithContext(withMark(resp.Request.Context(), func(m *mark) { m.answered = nil }))
	}
}

// record keeps the outcome for WithOutcome.
func (m *mark) record(o Outcome) {
	if !m.recording() {
		return
	}
	m.outcome.mu.Lock()
	defer m.outcome.mu.Unlock()
	m.outcome.o = o
}
