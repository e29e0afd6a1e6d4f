package recognize

// A finding is what a sentence says: why a request is rejected, and how certain that is.
type finding struct {
	Reason
	weak bool // any news of a token overrules it
}

// Ranks of a weak finding, and of InvalidToken.
const (
	rankWeak    = 2
	rankInvalid = 4
)

// rank orders the findings of a response that has several: what a new token does not
// resolve before what it does, the specific before the generic.
func (f finding) rank() int {
	switch f.Reason {
	case "":
		return 0
	case Unspecified:
		return 1
	case Missing:
		return 3
	case InvalidToken:
		return rankInvalid
	case Expired, Revoked:
		return 5
	}
	switch {
	case f.weak:
		return rankWeak
	case f.Reason == Other, f.Reason == OtherScheme:
		return 6
	case f.Reason == InsufficientScope, f.Reason == RequestSignature, f.Reason == LoginRequired, f.Reason == Denied:
		return 7
	}
	return 8
}

func (c concept) subject() bool { return c >= token && c <= login }
func (c concept) state() bool   { return c >= expired && c <= limited }

// decisive are the matters that decide, whatever their state, the first before the next.
// A weak one is what people say of other things as well.
var decisive = [...]struct {
	concept
	finding
}{
	{parse, finding{Reason: Other}},
	{ousted, finding{Reason: Revoked}},
	{clientAuth, finding{Reason: Denied}},
	{csrf, finding{Reason: CSRF}},
	{grant, finding{Reason: LoginRequired}},
	{factor, finding{Reason: StepUp}},
	{nonce, finding{Reason: DPoPNonce}},
	{audience, finding{Reason: Audience}},
	{upstream, finding{Reason: Upstream}},
}

// hinting are the matters that a sentence may mention in passing. They count if it says
// nothing of a token, nor of another thing's state.
var hinting = [...]struct {
	concept
	finding
}{
	{scope, finding{Reason: InsufficientScope}},
	{identity, finding{StepUp, true}},
	{address, finding{Reason: Denied}},
	{place, finding{Denied, true}},
	{denied, finding{Denied, true}},
	{right, finding{InsufficientScope, true}},
	{refused, finding{Denied, true}},
	{unsupported, finding{OtherScheme, true}},
	{certificate, finding{OtherScheme, true}},
	{password, finding{OtherScheme, true}},
	{loginFailed, finding{OtherScheme, true}},
	{setup, finding{Other, true}},
}

// conclude returns what the sentence says.
func (l *sentenceReader) conclude() finding {
	var has [concepts]bool
	for i, s := range l.matches {
		// "Wrong user or password" is no alternative to anything.
		has[s.concept] = has[s.concept] || s.concept != either || !l.isAside(i-1) || !l.isAside(i+1)
	}
	if has[example] {
		return finding{} // of several causes
	}
	ofToken, other := pairs(l.matches)
	l.token = l.token || has[token] && ofToken != ""
	l.signed = l.signed || has[signature] && ofToken != ""
	l.uncertain = l.uncertain || has[token] && has[either] && ofToken != ""
	l.request = l.request || !has[token] && (has[moment] || has[requestTime] || has[requestSignature])
	if f := decide(&has, ofToken); f.strong() {
		return f
	} else if f.weak {
		ofToken, other = "", f // the signature's state is the request's
	} else if other.Reason == "" && (ofToken == "" || ofToken == Missing) || has[scope] && !other.strong() {
		if f := hint(&has, l.page); f.Reason != "" {
			other = f
		}
	}
	// "Invalid token or insufficient permissions" leaves it open: in doubt, refresh.
	if other.Reason == "" || has[either] && ofToken != "" || other.weak && ofToken != "" {
		return finding{Reason: ofToken}
	}
	return other
}

func (f finding) strong() bool { return f.Reason != "" && !f.weak }

// decide returns what the matters of a sentence decide, or none.
func decide(has *[concepts]bool, ofToken Reason) finding {
	switch {
	case has[timeClaim] && !has[quota]:
		return finding{Reason: Expired}
	case has[malformed]:
		return finding{Reason: InvalidToken}
	case has[quota], has[money] && ofToken == "" && (has[expired] || has[invalid] || has[missing] || has[ended] || has[disabled] || has[locked]):
		return finding{Reason: Quota}
	}
	for _, d := range decisive {
		if has[d.concept] {
			return d.finding
		}
	}
	switch {
	case has[client] && has[mismatch]:
		return finding{Reason: Audience}
	case has[hmac] && (has[token] || has[signature]):
		return finding{Reason: RequestSignature}
	case has[token]:
	case has[hmac], has[requestSignature], has[requestTime]:
		return finding{Reason: RequestSignature}
	case has[signature] && has[mismatch], has[moment]:
		return finding{RequestSignature, true}
	}
	return finding{}
}

// hint returns what a sentence hints at, or none.
func hint(has *[concepts]bool, page bool) finding {
	if has[login] && page {
		return finding{Reason: OtherScheme}
	}
	for _, h := range hinting {
		// "Log in to use this feature", "not authorized to access this resource".
		if has[h.concept] && !(has[login] && (h.concept == denied || h.concept == refused)) && !(has[generic] && h.concept == refused) {
			return h.finding
		}
	}
	return finding{}
}

// isAside reports whether the match at i is a user or a password, or there is none.
func (l *sentenceReader) isAside(i int) bool {
	if i < 0 || i >= len(l.matches) {
		return true
	}
	c := l.matches[i].concept
	return c == user || c == account || c == password || c == email
}

// pairs combines the states of a sentence with their subjects. The subject of a state
// follows directly ("an expired token"), or precedes it ("the token of the user has
// expired"), or else is the next one. A state before alternatives ("invalid password or
// token") is that of each. pairs returns the reason that is about the token, and the
// finding that is about other things.
func pairs(matches []match) (ofToken Reason, other finding) {
	before, beforeEnd := nothing, 0
	for i, s := range matches {
		if s.concept.subject() {
			// "The session for this user timed out" is about the session, "the user of
			// this session was disabled" about the user.
			owner := before != nothing && i > 0 && matches[i-1].concept == of && s.at-beforeEnd <= 4 ||
				before == token && (s.concept == account || s.concept == user) && s.at > beforeEnd && s.at-beforeEnd <= 2 ||
				before == refreshToken && s.concept == token && s.at == s.end && s.at-beforeEnd <= 1 // 刷新令牌会话
			if !owner {
				before = s.concept
			}
			beforeEnd = s.end
		}
		if !s.concept.state() {
			continue
		}
		note := func(subject concept) {
			switch f := findingOf(subject, s.concept); {
			case f.Reason == "":
			case !f.refreshable():
				if f.rank() > other.rank() {
					other = f
				}
			case ofToken == "" || ofToken == Missing:
				ofToken = f.Reason
			case f.Reason != ofToken && f.Reason != Missing:
				ofToken = InvalidToken // several at once: it is one of them
			}
		}
		subject, end := nothing, s.end
		for _, next := range matches[i+1:] {
			if next.concept == either && next.at == end && subject != nothing {
				note(subject)
				end = next.end
				continue
			}
			if !next.concept.subject() || next.at != end && (subject != nothing || before != nothing) {
				break
			}
			subject, end = next.concept, next.end // of several in a row the last: "user token"
		}
		if subject == nothing {
			subject = before
		}
		note(subject)
	}
	return ofToken, other
}

// findingOf returns what it means for a request that such a thing is in such a state.
func findingOf(subject, state concept) finding {
	if state == limited {
		return finding{Denied, true}
	}
	if state == notYet && subject != user && subject != account && subject != email && subject != plan && subject != thing {
		return finding{}
	}
	inactive := state == locked || state == revoked || state == disabled || state == expired || state == ended
	switch subject {
	case refreshToken:
		return finding{LoginRequired, state == missing}
	case email:
		if state == unverified || state == notYet || inactive {
			return finding{Denied, true}
		}
		return finding{Reason: OtherScheme}
	case user: // one who is not found may be that of a stale token
		if inactive {
			return finding{Reason: Denied}
		}
		if state == unverified || state == notYet || state == mismatch {
			return finding{Denied, true}
		}
	case account:
		if inactive {
			return finding{Reason: Denied}
		}
		return finding{Denied, true}
	case authn, login:
		if state == expired {
			return finding{Reason: Expired}
		}
	case admin:
		if state == missing || state == unauthorized {
			return finding{InsufficientScope, true}
		}
	case plan:
		return finding{Denied, true}
	case right:
		return finding{InsufficientScope, true}
	case client:
		if state == unauthorized {
			return finding{Denied, true}
		}
		if state != missing {
			return finding{Audience, true}
		}
	case secret:
		return finding{Reason: Denied}
	case password, certificate:
		return finding{Reason: OtherScheme}
	case otherToken, thing:
		return finding{Other, subject == thing}
	case token, credentials, signature, requestSignature, hmac:
		switch state {
		case missing:
			if subject == signature {
				return finding{RequestSignature, true}
			}
			return finding{Reason: Missing}
		case unauthorized, unverified:
			return finding{}
		case expired:
			return finding{Reason: Expired}
		case revoked, disabled, locked:
			return finding{Reason: Revoked}
		}
		return finding{Reason: InvalidToken}
	case nothing:
		switch state {
		case expired:
			return finding{Reason: Expired}
		case revoked:
			return finding{Reason: Revoked}
		case locked, unverified:
			return finding{Denied, true}
		}
	}
	return finding{}
}
