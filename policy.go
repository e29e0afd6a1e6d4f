package reauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/mask"
	"github.com/reauth-go/reauth/internal/origin"
)

// Placeholder is an API key to give to an SDK that requires one. A Transport replaces
// it with the token, or removes it if the token is withheld. It is never sent in a
// header, with or without a scheme, to any host.
const Placeholder = "reauth-placeholder"

// ErrInsecure is returned for a request that would carry the token over plain http to
// another machine.
var ErrInsecure = errors.New("reauth: a token is not sent over plain http")

// permit returns the Credential whose token the request may carry, or why it is sent
// without one.
func (t *Transport) permit(req *http.Request, v *contextValue, own []string) (*Credential, Withheld, error) {
	switch {
	case t.err != nil:
		return nil, "", t.err
	case req.URL == nil:
		return nil, "", errors.New("reauth: the request has no URL")
	case v != nil && v.withoutToken:
		return nil, WithheldAsked, nil
	case req.Method == http.MethodTrace:
		return nil, WithheldTrace, nil
	}
	cred := t.Credential
	if t.CredentialFor == nil && v.refreshes(cred) {
		return nil, WithheldRefresh, nil
	}
	withheld, insecure := t.destination(req)
	if withheld != "" {
		return nil, withheld, nil
	}
	if t.CredentialFor != nil {
		var err error
		if cred, err = t.CredentialFor(req); err != nil {
			return nil, "", mask.Err("reauth: CredentialFor: ", err)
		} else if cred == nil {
			return nil, "", errors.New("reauth: CredentialFor returned no Credential: use WithoutToken for a request that needs none")
		} else if v.refreshes(cred) {
			return nil, WithheldRefresh, nil
		}
	}
	if !t.Override && t.hasOwnCredential(own, cred) {
		return nil, WithheldOwnCredential, nil
	}
	return cred, "", insecure
}

// destination returns why the token must not be sent where the request goes, or an
// error if the request must not be sent there either.
func (t *Transport) destination(req *http.Request) (Withheld, error) {
	u := req.URL
	otherHost := req.Host != "" && req.Host != u.Host
	switch {
	case u.Host == "": // Base returns the error
		return WithheldScheme, nil
	case otherHost || req.Response != nil:
	case t.Origins == nil && u.Scheme == "https", slices.Contains(t.asListed, originOf(req)):
		return "", nil
	}
	here := origin.Of(u)
	trusted := t.lists
	if t.Origins == nil {
		trusted = func(o origin.Origin) bool { return o == here }
	} else if !trusted(here) {
		return WithheldOrigin, nil
	}
	if otherHost && !trusted(origin.Of(&url.URL{Scheme: u.Scheme, Host: req.Host})) {
		return WithheldHost, nil
	}
	switch {
	case !allTrusted(req, trusted):
		return WithheldRedirect, nil
	case t.Origins != nil, here.Scheme == "https", here.Scheme == "http" && here.Loopback():
		return "", nil
	case here.Scheme == "http":
		return "", fmt.Errorf("%w, and %s is another machine: use https, or, if the network in between is trusted, list the origin: Origins: []string{%q}", ErrInsecure, here, here.String())
	}
	return WithheldScheme, nil
}

// lists reports whether Origins covers o.
func (t *Transport) lists(o origin.Origin) bool {
	return slices.ContainsFunc(t.origins, func(l origin.Origin) bool { return l.Covers(o) })
}

// maxRedirects bounds the walk through a chain of redirects, which a caller could make
// circular.
const maxRedirects = 100

// allTrusted reports whether req, and all requests of the chain of redirects that led
// to it, have a trusted origin. A broken chain is not trusted.
func allTrusted(req *http.Request, trusted func(origin.Origin) bool) bool {
	for range maxRedirects {
		if req == nil || req.URL == nil || !trusted(origin.Of(req.URL)) {
			return false
		}
		if req.Response == nil {
			return true
		}
		req = req.Response.Request
	}
	return false
}

// parseOrigins parses Transport.Origins.
func parseOrigins(list []string) ([]origin.Origin, error) {
	var all []origin.Origin
	for i, s := range list {
		o, err := origin.Parse(s)
		if err != nil {
			name := fmt.Sprintf("Origins[%d]", i)
			if !strings.ContainsAny(s, "@?") { // no password, no query
				name += " " + strconv.Quote(bounded(s, 100))
			}
			return nil, fmt.Errorf("%s cannot be an origin: %w", name, err)
		}
		all = append(all, o)
	}
	return all, nil
}

// hasOwnCredential reports whether one of the values is a credential that cred neither
// holds nor held.
func (t *Transport) hasOwnCredential(own []string, cred *Credential) bool {
	return slices.ContainsFunc(own, func(v string) bool {
		if cred.knows(v) { // also a token with a blank in it
			return false
		}
		v = withoutScheme(v)
		empty := v == "" || v == Placeholder || t.scheme != "" && strings.EqualFold(v, t.scheme)
		return !empty && !cred.knows(v)
	})
}

// hasOurs reports whether one of the values is a token of Credential. With
// CredentialFor that is not known: it is not called for a request that carries no
// token.
func (t *Transport) hasOurs(values []string) bool {
	return t.CredentialFor == nil && slices.ContainsFunc(values, t.isOurs)
}

func (t *Transport) isOurs(v string) bool {
	return t.Credential.knows(v) || t.Credential.knows(withoutScheme(v))
}

// ownCredentials returns what the request has where the token goes.
func (t *Transport) ownCredentials(req *http.Request) []string {
	if t.Query != "" {
		return queryValues(req.URL, t.Query)
	}
	return httpx.Values(req.Header, t.key)
}

// credentialName names the header or the query parameter that carries the token.
func (t *Transport) credentialName() string {
	if t.Query != "" {
		return "the query parameter " + t.Query
	}
	return t.key
}

// inspectHeader examines the headers of a request in one pass. It returns the values of
// the key, in any spelling. clonable reports whether a maps.Clone of the header may be
// sent once the value of the key is set: it has no Placeholder, and no slice that an
// append could write to. A map of exactly eight keys would have to grow for the ninth.
func inspectHeader(h http.Header, key string) (own []string, clonable bool) {
	const mapGroup = 8 // how many keys a map holds without a table
	clonable = len(h) > 0 && len(h) != mapGroup
	for k, vv := range h {
		if len(k) == len(key) && (k == key || strings.EqualFold(k, key)) {
			own = append(own, vv...)
			clonable = clonable && k == key
			continue
		}
		clonable = clonable && len(vv) == cap(vv)
		for _, v := range vv {
			if len(v) >= len(Placeholder) && isPlaceholder(v) {
				clonable = false
			}
		}
	}
	return own, clonable
}

// copyHeader copies all of src but the key and Placeholder. The values are shared, and
// cannot be appended to.
func copyHeader(dst, src http.Header, key string) {
	for k, vv := range src {
		if strings.EqualFold(k, key) {
			continue
		}
		if slices.ContainsFunc(vv, isPlaceholder) {
			if vv = slices.DeleteFunc(slices.Clone(vv), isPlaceholder); len(vv) == 0 {
				continue
			}
		}
		dst[k] = vv[:len(vv):len(vv)]
	}
}

func hasPlaceholder(h http.Header) bool {
	for _, vv := range h {
		if slices.ContainsFunc(vv, isPlaceholder) {
			return true
		}
	}
	return false
}

// isPlaceholder reports whether the value is Placeholder, after an optional scheme.
func isPlaceholder(v string) bool {
	return strings.Contains(v, Placeholder) && withoutScheme(v) == Placeholder
}

// withoutScheme returns the value of a header without its authentication scheme.
func withoutScheme(v string) string {
	v = strings.TrimSpace(v)
	if i := strings.IndexAny(v, " \t"); i >= 0 {
		return strings.TrimSpace(v[i:])
	}
	return v
}

// queryValues returns the values of a query parameter.
func queryValues(u *url.URL, name string) (values []string) {
	if u == nil {
		return nil
	}
	for piece := range strings.SplitSeq(u.RawQuery, "&") {
		if v, ok := queryValue(piece, name); ok {
			values = append(values, v)
		}
	}
	return values
}

// queryValue returns the value of one piece of a query if it is that of the parameter.
func queryValue(piece, name string) (string, bool) {
	k, v, _ := strings.Cut(piece, "=")
	if k, err := url.QueryUnescape(k); err != nil || k != name {
		return "", false
	}
	if plain, err := url.QueryUnescape(v); err == nil {
		return plain, true
	}
	return v, true
}

// withoutQuery returns u without the values of a query parameter that remove reports.
// The rest of the query remains as it is encoded.
func withoutQuery(u *url.URL, name string, remove func(value string) bool) *url.URL {
	pieces := strings.Split(u.RawQuery, "&")
	kept := slices.DeleteFunc(slices.Clone(pieces), func(piece string) bool {
		v, ok := queryValue(piece, name)
		return ok && remove(v)
	})
	if len(kept) == len(pieces) {
		return u
	}
	c := *u
	c.RawQuery = strings.Join(kept, "&")
	return &c
}

// withQuery returns u with the parameter appended.
func withQuery(u *url.URL, name, value string) *url.URL {
	c := *u
	if c.RawQuery != "" {
		c.RawQuery += "&"
	}
	c.RawQuery += url.QueryEscape(name) + "=" + url.QueryEscape(value)
	return &c
}

func anyValue(string) bool { return true }
