// Package origin compares where requests go (RFC 6454).
package origin

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// An Origin is a scheme, a host and a port (RFC 6454), in canonical form.
type Origin struct{ Scheme, Host, Port string }

// Of returns the origin of u: in lower case, without userinfo, the
// trailing dot of a host, or a default port.
func Of(u *url.URL) Origin {
	o := Origin{Scheme: strings.ToLower(u.Scheme), Host: lowerASCII(u.Hostname()), Port: u.Port()}
	o.Host = strings.TrimSuffix(o.Host, ".")
	if ip, err := netip.ParseAddr(o.Host); err == nil {
		o.Host = ip.Unmap().String()
	}
	if o.Scheme == "https" && o.Port == "443" || o.Scheme == "http" && o.Port == "80" {
		o.Port = ""
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

// String returns the origin as one writes it.
func (o Origin) String() string {
	host := o.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if o.Port != "" {
		host += ":" + o.Port
	}
	return o.Scheme + "://" + host
}

// Loopback reports whether requests to o stay on this machine.
func (o Origin) Loopback() bool {
	ip, err := netip.ParseAddr(o.Host)
	return err == nil && ip.IsLoopback() || o.Host == "localhost"
}

// Covers reports whether o, which is listed in Transport.Origins, covers another origin.
func (o Origin) Covers(other Origin) bool {
	if o.Scheme != other.Scheme || o.Port != other.Port {
		return false
	}
	if domain, ok := strings.CutPrefix(o.Host, "*"); ok {
		return strings.HasSuffix(other.Host, domain) && len(other.Host) > len(domain)
	}
	return o.Host == other.Host
}

// Parse parses an entry of Transport.Origins. Its errors do not repeat it.
func Parse(s string) (Origin, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return Origin{}, errors.New("it is not a URL")
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return Origin{}, errors.New(`it must begin with "https://" or "http://" and a host`)
	case u.User != nil:
		return Origin{}, errors.New("it has a user name: remove that")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return Origin{}, errors.New("it has more than a scheme, a host and a port: remove the rest")
	}
	o := Of(u)
	if n, err := strconv.Atoi(u.Port()); u.Port() != "" && (err != nil || n < 1 || n > 65535) || strings.HasSuffix(u.Host, ":") {
		return Origin{}, errors.New("its port is not a number from 1 to 65535")
	}
	name, wild := strings.CutPrefix(o.Host, "*.")
	if wild && strings.Trim(name, "0123456789.") == "" {
		return Origin{}, errors.New("a wildcard covers names, not addresses")
	}
	if name == "" || strings.ContainsAny(name, "* \t,") || strings.HasPrefix(name, ".") {
		return Origin{}, errors.New(`its host is none: write "api.example.com", or "*.example.com" for all below it`)
	}
	return o, nil
}
