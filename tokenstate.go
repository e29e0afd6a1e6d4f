package reauth

import (
	"crypto/sha256"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A tokenState is a token that a Credential holds, with what is known of it. It must
// not be modified: a Credential replaces it with a copy. Only verdicts are added to.
type tokenState struct {
	Token
	bearer string // the value of an Authorization header
	sum    [sha256.Size]byte

	obtained     time.Time    // when it was obtained
	expiry       instant      // zero: never
	refreshAt    instant      // when to refresh ahead of expiry; zero: never
	outlived     bool         // it was obtained after its Expiry, which is ignored
	forRejection bool         // it was fetched because a server rejected another token
	asked        requirements // what it was fetched with
	repeats      int          // how often the Refresher returned it again

	verdicts *verdicts // shared by all copies
}

const (
	minUse     = time.Second     // a token of the Refresher is used for at least that long
	settleTime = 5 * time.Second // until all servers may be expected to know a new token
)

// newTokenState returns the state of a token that a Refresher was asked for at
// start and returned at now.
func (c *Credential) newTokenState(tok Token, start, now time.Time) *tokenState {
	s := tokenStateOf(tok, now)
	if tok.Expiry.IsZero() {
		if c.RefreshBefore >= 0 && tok.RefreshAt.After(start) {
			s.refreshAt = instantOf(start.Add(min(tok.RefreshAt.Sub(start), maxLifetime)))
		}
		return s
	}
	life := min(tok.Expiry.Sub(start), maxLifetime)
	expiry := start.Add(life)
	if !now.Before(expiry) {
		s.outlived = true
		return s
	}
	if soonest := now.Add(minUse); expiry.Before(soonest) {
		expiry = soonest
	}
	refreshAt := expiry.Add(-randomized(min(c.refreshBefore(), life/2)))
	if c.RefreshBefore >= 0 && !tok.RefreshAt.IsZero() {
		refreshAt = start.Add(min(tok.RefreshAt.Sub(start), life))
	}
	if soonest := now.Add(settleTime); refreshAt.Before(soonest) {
		refreshAt = soonest
	}
	s.expiry = instantOf(expiry)
	s.refreshAt = earlier(s.expiry, instantOf(refreshAt))
	return s
}

// newSetState returns the state of a token that was given to Set. Its lifetime is not
// known, and its Expiry is used as it is.
func (c *Credential) newSetState(tok Token, now time.Time) *tokenState {
	s := tokenStateOf(tok, now)
	switch {
	case tok.AccessToken == "":
		s.expiry, s.refreshAt = instantOf(now), instantOf(now)
	case !tok.Expiry.IsZero():
		left := min(tok.Expiry.Sub(now), maxLifetime)
		s.expiry = instantOf(now.Add(left))
		before := c.refreshBefore()
		if left > before {
			before = randomized(before)
		}
		s.refreshAt = instantOf(now.Add(left - before))
	}
	return s
}

func tokenStateOf(tok Token, now time.Time) *tokenState {
	return &tokenState{
		Token:    tok,
		bearer:   "Bearer " + tok.AccessToken,
		sum:      sha256.Sum256([]byte(tok.AccessToken)),
		obtained: now,
		verdicts: &verdicts{},
	}
}

// fingerprint is Token.Fingerprint without computing the sum again. It is empty for a
// nil s.
func (s *tokenState) fingerprint() string {
	if s == nil || s.AccessToken == "" {
		return ""
	}
	return fingerprint(s.sum)
}

// refreshBefore returns RefreshBefore or its default.
func (c *Credential) refreshBefore() time.Duration {
	if c.RefreshBefore == 0 {
		return defaultRefreshBefore
	}
	return max(c.RefreshBefore, 0)
}

// randomized returns a duration between d/2 and d, so that processes which started
// together do not refresh together.
func randomized(d time.Duration) time.Duration { return d - d/2 + rand.N(d/2+1) }

// is reports whether both are the same token.
func (s *tokenState) is(other *tokenState) bool {
	return s != nil && other != nil && s.AccessToken == other.AccessToken
}

// usable reports whether a request may carry the token.
func (s *tokenState) usable(now time.Time) bool {
	return s != nil && s.AccessToken != "" && !s.expiry.passedAt(now)
}

// age returns how long ago the token was obtained.
func (s *tokenState) age(now time.Time) time.Duration { return now.Sub(s.obtained) }

// An instant is a moment by both clocks: the monotonic clock may stop while the machine
// sleeps, and the wall clock may be set. It has passed if it has by either clock. The
// zero instant never passes.
type instant struct {
	mono time.Time
	wall int64 // Unix nanoseconds
}

func instantOf(t time.Time) instant { return instant{t, t.UnixNano()} }

func (i *instant) never() bool { return i.mono.IsZero() }

func (i *instant) passed() bool { return !i.never() && i.passedAt(time.Now()) }

func (i *instant) passedAt(now time.Time) bool {
	return !i.never() && (!now.Before(i.mono) || now.UnixNano() >= i.wall)
}

// earlier returns the instant that comes first.
func earlier(a, b instant) instant {
	if a.never() || !b.never() && b.mono.Before(a.mono) {
		return b
	}
	return a
}

// A requestOrigin is the scheme and the host of a request, as the request has
// them. The zero requestOrigin stands for all callers of Credential.Refresh.
type requestOrigin struct{ scheme, host string }

func originOf(req *http.Request) requestOrigin {
	return requestOrigin{req.URL.Scheme, req.URL.Host}
}

// verdicts are the responses of origins to one token.
type verdicts struct {
	all         atomic.Pointer[[]verdict] // read without a lock, replaced with Credential.mu held
	interrupted bool                      // a rejection has interrupted a backoff; guarded by Credential.mu
	earlier     *[]requestOrigin          // that have accepted an earlier token; nil if none; must not be modified
}

// A verdict is of an origin that has accepted the token.
type verdict struct {
	origin   requestOrigin
	accepted bool // its latest answer was an acceptance
}

// maxOrigins bounds the verdicts of one token.
const maxOrigins = 100

func (v *verdicts) of(o requestOrigin) (everAccepted, lastAccepted bool, n int) {
	all := v.all.Load()
	if all == nil {
		return false, false, 0
	}
	for i := range *all {
		if e := &(*all)[i]; e.origin == o {
			return true, e.accepted, len(*all)
		}
	}
	return false, false, len(*all)
}

// known reports whether an acceptance by o changes nothing: o is the origin of the
// latest acceptances, or there is no room for another.
func (v *verdicts) known(o requestOrigin) bool {
	ever, last, n := v.of(o)
	return last || !ever && n >= maxOrigins
}

// everAccepted reports whether o has accepted the token.
func (v *verdicts) everAccepted(o requestOrigin) bool {
	ever, _, _ := v.of(o)
	return ever
}

// takes reports whether o has accepted this token or an earlier one, and so accepts the
// scheme.
func (v *verdicts) takes(o requestOrigin) bool {
	return v.everAccepted(o) || v.earlier != nil && slices.Contains(*v.earlier, o)
}

// origins returns the origins that have accepted this token or an earlier one.
func (v *verdicts) origins() *[]requestOrigin {
	var known []requestOrigin
	if v.earlier != nil {
		known = *v.earlier
	}
	n := len(known)
	if all := v.all.Load(); all != nil {
		for _, e := range *all {
			if len(known) < maxOrigins && !slices.Contains(known, e.origin) {
				known = append(known[:len(known):len(known)], e.origin)
			}
		}
	}
	if len(known) == n {
		return v.earlier
	}
	return &known
}

// lastAccepted reports whether the latest answer of o was an acceptance.
func (v *verdicts) lastAccepted(o requestOrigin) bool {
	_, last, _ := v.of(o)
	return last
}

// presumed reports whether a rejection by o means that the token is no longer valid: o
// has accepted it, or there was no room to record whether o has.
func (v *verdicts) presumed(o requestOrigin) bool {
	ever, _, n := v.of(o)
	return ever || o != requestOrigin{} && n >= maxOrigins
}

// anyAccepted reports whether the latest answer of some origin was an acceptance.
func (v *verdicts) anyAccepted() bool {
	all := v.all.Load()
	return all != nil && slices.ContainsFunc(*all, func(e verdict) bool { return e.accepted })
}

// setLocked notes an answer of o. Credential.mu is held.
func (v *verdicts) setLocked(o requestOrigin, accepted bool) {
	var all []verdict
	if old := v.all.Load(); old != nil {
		all = *old
	}
	i := slices.IndexFunc(all, func(e verdict) bool { return e.origin == o })
	switch {
	case i >= 0 && all[i].accepted == accepted, i < 0 && !accepted, i < 0 && len(all) >= maxOrigins:
		return
	case i >= 0:
		all = slices.Clone(all)
		all[i].accepted = accepted
	default: // the strings may be part of a URL with a query
		o = requestOrigin{strings.Clone(o.scheme), strings.Clone(o.host)}
		all = append(all[:len(all):len(all)], verdict{o, accepted})
	}
	v.all.Store(&all)
}

// requirements are the claims and scopes that challenges ask for.
type requirements struct{ claims, scopes []string }

const (
	// maxRequirements bounds what is remembered of what challenges asked for.
	maxRequirements = 64

	// maxClaims bounds the different claims that are distinguished. If servers have
	// asked for more, they ask each request for other claims, and a token with any
	// claims serves.
	maxClaims = 8
)

// requirementsOf returns what the challenges ask for.
func requirementsOf(challenges []Challenge) (r requirements) {
	for _, c := range challenges {
		if v := c.Params["claims"]; v != "" && !slices.Contains(r.claims, v) {
			r.claims = append(r.claims, v)
		}
		for scope := range strings.FieldsSeq(c.Params["scope"]) {
			// A registry lists actions, in any order: repository:team/app:pull,push.
			i := strings.LastIndexByte(scope, ':') + 1
			for action := range strings.SplitSeq(scope[i:], ",") {
				if v := scope[:i] + action; !slices.Contains(r.scopes, v) {
					r.scopes = append(r.scopes, v)
				}
			}
		}
	}
	return r
}

func (r requirements) none() bool { return len(r.claims) == 0 && len(r.scopes) == 0 }

// covers reports whether r includes all that other asks for.
func (r requirements) covers(other requirements) bool {
	return includes(r.claims, other.claims) && includes(r.scopes, other.scopes)
}

// serves reports whether a token that was fetched with r may be sent after a rejection
// of another token that asks for other. If anyClaims, the claims may be others.
func (r requirements) serves(other requirements, anyClaims bool) bool {
	if anyClaims && len(r.claims) > 0 {
		other.claims = nil
	}
	return r.covers(other)
}

// joined returns the strings of a, and those of b that are not among them.
func joined(a, b []string) []string {
	all := slices.Clip(a)
	for _, s := range b {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// includes reports whether all has each of some.
func includes(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}
