package refresher

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// maxUnix is the last second of the year 9999, after which time.Time has no RFC 3339
// form. A larger exp is ignored.
const maxUnix = 253402300799

// jwtExpiry returns the exp claim of a JWT in compact form (RFC 7519 §4.1.4). The
// signature is not verified, which is up to the server: a forged exp only changes when
// the token is refreshed.
func jwtExpiry(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return time.Time{}, false
	}
	var claims map[string]json.RawMessage // a struct would take EXP for exp
	if json.Unmarshal(payload, &claims) != nil {
		return time.Time{}, false
	}
	var exp *float64
	if json.Unmarshal(claims["exp"], &exp) != nil || exp == nil || *exp < 0 || *exp > maxUnix {
		return time.Time{}, false
	}
	return time.Unix(int64(*exp), 0), true
}
