package reauth

import (
	"crypto/sha256"
	"math/rand/v2"
	"time"
)

// A held is a token as requests carry it, with what is known of it. It is never
// changed, only replaced by a copy.
type held struct {
	Token
	bearer string // as it stands in the header
	sum    [sha256.Size]byte
	since  time.Time // when it came
	expiry instant   // zero: never
	due    instant   // when to look for another; zero: never
	trial  bool      // it seemed to have expired when it came: the first answer decides

	forRetry bool   // fetched to cure a rejection
	claims   string // that it was fetched with
	proven   bool   // seen to work
	refused  bool   // rejected on its retry: never proven again
	repeats  int    // how often its source returned it again
}

// newHeld returns what a token is worth that was asked for at start.
func (c *Credential) newHeld(tok Token, start time.Time, skew time.Duration) *held {
	h := &held{Token: tok, bearer: "Bearer " + tok.AccessToken, sum: sha256.Sum256([]byte(tok.AccessToken)), since: start}
	h.expires(start, skew, c.RefreshBefore)
	if tok.AccessToken == "" {
		h.expiry, h.due = instantOf(start), instantOf(start)
	}
	return h
}

// expires sets when the token ends and when to look for another.
func (h *held) expires(start time.Time, skew, ahead time.Duration) {
	if h.Expiry.IsZero() {
		h.expiry, h.due = instant{}, instant{}
		return
	}
	life := lifetime(h.Expiry, start, skew)
	h.expiry = instantOf(start.Add(life))
	if ahead == 0 {
		ahead = defaultRefreshBefore
	}
	ahead = min(max(ahead, 0), max(life, 0)/2)
	h.due = instantOf(start.Add(life - ahead/2 - rand.N(ahead/2+1)))
}

// provable reports whether an answer to the retry, or to another request, proves
// the token.
func (h *held) provable(retry bool) bool {
	return !h.proven && !h.refused && (retry || !h.forRetry)
}

// learns reports whether such an answer tells anything new.
func (h *held) learns(retry bool) bool { return h.trial || h.provable(retry) }

// is reports whether both are the same token.
func (h *held) is(other *held) bool { return h != nil && h.AccessToken == other.AccessToken }

// usable reports whether a request may carry the token.
func (h *held) usable(now time.Time) bool {
	return h != nil && h.AccessToken != "" && (h.trial || !h.expiry.passedAt(now))
}

// lifetime returns for how long a token that was asked for at start is good.
//
// An expiry with a monotonic reading was reckoned by our own clock. Any other
// may have been reckoned by the issuer's, and skew says how far ahead that is.
// Which of the two it was cannot be seen, so the shorter one counts, of those
// that leave the token any time at all.
func lifetime(expiry, start time.Time, skew time.Duration) time.Duration {
	if expiry.IsZero() {
		return maxLifetime
	}
	local := min(expiry.Sub(start), maxLifetime)
	if expiry != expiry.Round(0) { // it has a monotonic reading
		return local
	}
	theirs := min(expiry.Sub(start.Add(skew)), maxLifetime)
	if theirs > 0 && (theirs < local || local <= 0) {
		return theirs
	}
	return local
}

// An instant is a moment by both clocks: the monotonic one may stop while the
// machine sleeps, and the wall clock may be set. It has passed when either says
// so. The zero instant never comes.
type instant struct {
	mono time.Time
	wall int64 // Unix nanoseconds: the shortest way to compare
}

func instantOf(t time.Time) instant { return instant{t, t.UnixNano()} }

func (i *instant) never() bool { return i.mono.IsZero() }

func (i *instant) passed() bool { return !i.never() && i.passedAt(time.Now()) }

func (i *instant) passedAt(now time.Time) bool {
	return !i.never() && (!now.Before(i.mono) || now.UnixNano() >= i.wall)
}

// earlier returns the one that comes first.
func earlier(a, b instant) instant {
	if a.never() || !b.never() && b.mono.Before(a.mono) {
		return b
	}
	return a
}
