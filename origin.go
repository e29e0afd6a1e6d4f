package reauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// An origin is a scheme, a host and a port (RFC 6454), in canonical form.
type origin struct{ scheme, host, port string }

// originOf returns the origin of u: in lower case, without userinfo, the
// trailing dot of a host, or a default port.
func originOf(u *url.URL) origin {
	o := origin{scheme: strings.ToLower(u.Scheme), host: lowerASCII(u.Hostname()), port: u.Port()}
	o.host = strings.TrimSuffix(o.host, ".")
	if ip, err := netip.ParseAddr(o.host); err == nil {
		o.host = ip.Unmap().String()
	}
	if o.scheme == "https" && o.port == "443" || o.scheme == "http" && o.port == "80" {
		o.port = ""
	}
	return o
}

// lowerASCII returns s with A to Z in lower case. Other letters stay: the IDNA
// mapping of net/http makes something else of them than strings.ToLower does (İ,
// ẞ), and so another host.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

func (o origin) String() string {
	host := o.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if o.port != "" {
		host += ":" + o.port
	}
	return o.scheme + "://" + host
}

// loopback reports whether requests to o stay on this machine.
func (o origin) loopback() bool {
	ip, err := netip.ParseAddr(o.host)
	return err == nil && ip.IsLoopback() || o.host == "localhost"
}

// covers reports whether o, which is listed in Origins, covers another origin.
func (o origin) covers(other origin) bool {
	if o.scheme != other.scheme || o.port != other.port {
		return false
	}
	if domain, ok := strings.CutPrefix(o.host, "*"); ok {
		return strings.HasSuffix(other.host, domain) && len(other.host) > len(domain)
	}
	return o.host == other.host
}

// parseOrigin parses an entry of Origins.
func parseOrigin(s string) (origin, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return origin{}, errors.New("it is not a URL")
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return origin{}, errors.New(`it has to begin with "https://" or "http://" and a host`)
	case u.User != nil:
		return origin{}, errors.New("it has a user name: remove that")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return origin{}, errors.New("it has more than scheme, host and port: remove that")
	}
	o := originOf(u)
	if n, err := strconv.Atoi(u.Port()); u.Port() != "" && (err != nil || n < 1 || n > 65535) || strings.HasSuffix(u.Host, ":") {
		return origin{}, errors.New("its port is not a number from 1 to 65535")
	}
	name, wild := strings.CutPrefix(o.host, "*.")
	if wild && strings.Trim(name, "0123456789.") == "" {
		return origin{}, errors.New("a wildcard covers names, not addresses")
	}
	if name == "" || strings.ContainsAny(name, "* \t,") || strings.HasPrefix(name, ".") {
		return origin{}, errors.New(`its host is none: write "api.example.com", or "*.example.com" for all below it`)
	}
	return o, nil
}

func parseOrigins(list []string) ([]origin, error) {
	var all []origin
	for i, s := range list {
		o, err := parseOrigin(s)
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
func allTrusted(req *http.Request, trusted func(origin) bool) bool {
	for range maxRedirects {
		if req == nil || req.URL == nil || !trusted(originOf(req.URL)) {
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
	here := originOf(req.URL)
	listed := func(o origin) bool {
		for _, l := range t.origins {
			if l.covers(o) {
				return true
			}
		}
		return false
	}
	trusted := listed
	if t.Origins == nil {
		trusted = func(o origin) bool { return o == here }
	} else if !listed(here) {
		return withheldOrigin, nil
	}
	switch {
	case !allTrusted(req, trusted):
		return withheldRedirect, nil
	case t.Origins != nil, here.scheme == "https", here.scheme == "http" && here.loopback():
		return "", nil
	case here.scheme == "http":
		return "", fmt.Errorf("%w, and %s is another machine: use https, or, if you trust the network in between, list it: Origins: []string{%q}", ErrInsecure, here, here.String())
	}
	return "the scheme is neither https nor http", nil
}
