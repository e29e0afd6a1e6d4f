package reauth

import (
	"context"
	"net/http"
	"slices"
	"sync"
)

// WithOutcome returns a copy of ctx for requests, and a function that returns the
// Outcome of the latest request made with it, whatever its status. It is for SDKs
// that do not expose their response. The function is safe for concurrent use by
// multiple goroutines. It returns the zero Outcome until there is a response.
func WithOutcome(ctx context.Context) (context.Context, func() Outcome) {
	r := &recorder{}
	return withValue(ctx, func(v *contextValue) { v.outcome = r }), r.latest
}

// WithoutToken returns a copy of ctx. Requests made with it are sent unchanged, without
// a token and without a retry. Only Placeholder is removed from their headers.
func WithoutToken(ctx context.Context) context.Context {
	return withValue(ctx, func(v *contextValue) { v.withoutToken = true })
}

// A recorder keeps the Outcome of the latest request for WithOutcome.
type recorder struct {
	mu sync.Mutex
	o  Outcome // guarded by mu
}

func (r *recorder) latest() Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.o
}

type contextKey struct{}

// A contextValue is everything that this package keeps in a context. It is one value,
// so that a request looks it up once. It must not be modified. Its methods accept a nil
// receiver.
type contextValue struct {
	withoutToken bool
	outcome      *recorder
	answered     *Outcome      // of the response whose Request has this context
	refreshing   []*Credential // whose refreshes make the request, outermost first
}

func contextOf(ctx context.Context) *contextValue {
	v, _ := ctx.Value(contextKey{}).(*contextValue)
	return v
}

func withValue(ctx context.Context, change func(*contextValue)) context.Context {
	v := &contextValue{}
	if old := contextOf(ctx); old != nil {
		*v = *old
	}
	change(v)
	return context.WithValue(ctx, contextKey{}, v)
}

// refreshes reports whether the request is made by a refresh of c.
func (v *contextValue) refreshes(c *Credential) bool {
	return v != nil && slices.Contains(v.refreshing, c)
}

// with returns the Credentials that are being refreshed, and c.
func (v *contextValue) with(c *Credential) []*Credential {
	if v == nil {
		return []*Credential{c}
	}
	return append(slices.Clip(v.refreshing), c)
}

// recording reports whether WithOutcome wants the Outcome.
func (v *contextValue) recording() bool { return v != nil && v.outcome != nil }

// record keeps the Outcome for WithOutcome.
func (v *contextValue) record(o Outcome) {
	if !v.recording() {
		return
	}
	v.outcome.mu.Lock()
	defer v.outcome.mu.Unlock()
	v.outcome.o = o
}

// withoutAnswered removes the Outcome of an earlier response from resp.Request. The
// caller may have made the request with the context of that response's request.
func (v *contextValue) withoutAnswered(resp *http.Response) {
	if v != nil && v.answered != nil {
		resp.Request = resp.Request.WithContext(withValue(resp.Request.Context(), func(v *contextValue) { v.answered = nil }))
	}
}
