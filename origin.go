package reauth

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/reauth-go/reauth/internal/origin"
)

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

// maxRedirects bounds the walk back through a chain of redirects, which a
// careless caller could close to a ring.
const maxRedirects = 100

// allTrusted reports whether all requests of the chain of redirects that led to
// req, and req itself, have an origin that is trusted. A chain that is broken
// may have led anywhere.
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

// destination returns why the token must not go where the request goes, or an
// error if nothing must (step 1).
func (t *Transport) destination(req *http.Request) (withheld string, insecure error) {
	if t.Origins == nil && req.Response == nil && req.URL.Scheme == "https" {
		return "", nil
	}
	here := origin.Of(req.URL)
	listed := func(o origin.Origin) bool {
		for _, l := range t.origins {
			if l.Covers(o) {
				return true
			}
		}
		return false
	}
	trusted := listed
	if t.Origins == nil {
		trusted = func(o origin.Origin) bool { return o == here }
	} else if !listed(here) {
		return withheldOrigin, nil
	}
	switch {
	case !allTrusted(req, trusted):
		return withheldRedirect, nil
	case t.Origins != nil, here.Scheme == "https", here.Scheme == "http" && here.Loopback():
		return "", nil
	case here.Scheme == "http":
		return "", fmt.Errorf("%w, and %s is another machine: use https, or, if you trust the network in between, list it: Origins: []string{%q}", ErrInsecure, here, here.String())
	}
	return "the scheme is neither https nor http", nil
}
