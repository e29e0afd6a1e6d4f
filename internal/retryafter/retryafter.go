// Package retryafter reads how long a server asks its client to wait.
package retryafter

import (
	"net/http"
	"strings"
	"time"

	"github.com/reauth-go/reauth/internal/httpx"
)

// Of returns the Retry-After of a response, as Parse does. A date is compared with the
// Date of the response, or with our clock if it has none. A nil response has none.
func Of(resp *http.Response) (time.Duration, bool) {
	if resp == nil {
		return 0, false
	}
	now, err := http.ParseTime(httpx.First(resp.Header, "Date"))
	if err != nil {
		now = time.Now()
	}
	return Parse(resp.Header, now)
}

// Parse returns the Retry-After of a response (RFC 9110 §10.2.3), at most a
// million seconds, and whether it has one. A date is compared with now: the
// server's clock, where that is known.
func Parse(h http.Header, now time.Time) (time.Duration, bool) {
	v := strings.TrimSpace(httpx.First(h, "Retry-After"))
	if v == "" {
		return 0, false
	}
	seconds := 0
	for i := 0; i < len(v); i++ {
		if v[i] < '0' || v[i] > '9' {
			at, err := http.ParseTime(v)
			return max(0, at.Sub(now)), err == nil
		}
		seconds = min(seconds*10+int(v[i]-'0'), 1e6)
	}
	return time.Duration(seconds) * time.Second, true
}
