package reauth

import (
	"net/http"
	"slices"
	"strings"
)

// Placeholder is the "API key" to give to an SDK that insists on having one.
// A Transport puts its own token in its place, or, where the token must not
// go, removes it: it never reaches the wire, in any header, to any host, be it
// alone or behind a scheme.
const Placeholder = "reauth-placeholder"

// survey goes over the headers, once. It returns the values under the key, in
// any spelling, and whether a plain copy is fit to be sent with one value set: no
// Placeholder is among them, and nothing that an append could overwrite.
func survey(h http.Header, key string) (own []string, plain bool) {
	plain = 0 < len(h) && len(h) < mapGroup
	for k, vv := range h {
		if len(k) == len(key) && strings.EqualFold(k, key) {
			own = append(own, vv...)
			plain = plain && k == key
			continue
		}
		plain = plain && len(vv) == cap(vv)
		for _, v := range vv {
			plain = plain && !isPlaceholder(v)
		}
	}
	return own, plain
}

// bare returns a header's value without the scheme in front.
func bare(v string) string {
	v = strings.TrimSpace(v)
	if i := strings.IndexAny(v, " \t"); i >= 0 {
		return strings.TrimSpace(v[i:])
	}
	return v
}

// copyHeader copies all of src but the key, and no Placeholder. The values are
// shared, and cannot be appended to.
func copyHeader(dst, src http.Header, key string) {
	for k, vv := range src {
		if k == key || len(k) == len(key) && strings.EqualFold(k, key) {
			continue
		}
		if vv = withoutPlaceholder(vv); vv != nil || src[k] == nil {
			dst[k] = vv[:len(vv):len(vv)]
		}
	}
}

// mapGroup is how many keys a map of the Go runtime holds in one piece of memory.
const mapGroup = 8

// withoutPlaceholder returns the values that are not Placeholder, after an
// optional scheme; nil if none is left.
func withoutPlaceholder(vv []string) []string {
	for i, v := range vv {
		if !isPlaceholder(v) {
			continue
		}
		var rest []string
		rest = append(rest, vv[:i]...)
		for _, v := range vv[i+1:] {
			if !isPlaceholder(v) {
				rest = append(rest, v)
			}
		}
		return rest
	}
	return vv
}

func hasPlaceholder(h http.Header) bool {
	for _, vv := range h {
		if slices.ContainsFunc(vv, isPlaceholder) {
			return true
		}
	}
	return false
}

// isPlaceholder reports whether the value is Placeholder, after an optional
// scheme. It is asked of every header, of which most are too short.
func isPlaceholder(v string) bool { return len(v) >= len(Placeholder) && endsInPlaceholder(v) }

func endsInPlaceholder(v string) bool {
	return strings.Contains(v, Placeholder) && bare(v) == Placeholder
}
