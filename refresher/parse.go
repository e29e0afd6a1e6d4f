package refresher

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
)

// maxAnswer bounds what is read from a file, a program or a token endpoint.
const maxAnswer = 1 << 20

// byteOrderMark precedes the text in files of some editors.
var byteOrderMark = []byte("\xef\xbb\xbf")

var errTooLarge = errors.New("it is larger than 1 MiB, which no token is")

// parse returns the token in data: alone, or in a JSON object. A lifetime in
// seconds counts from at.
func parse(data []byte, at time.Time) (reauth.Token, error) {
	data = bytes.TrimSpace(bytes.TrimPrefix(data, byteOrderMark))
	if len(data) == 0 {
		return reauth.Token{}, errors.New("it is empty")
	}
	if lines, ok := gitCredential(string(data)); ok {
		return parseMembers(lines, at)
	}
	if data[0] != '{' {
		return fromText(string(data))
	}
	return parseObject(data, at)
}

// gitCredential returns the attributes of a credential helper of git (see git help
// credential), under the names of RFC 6749.
func gitCredential(text string) (object, bool) {
	lines := object{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if !ok {
			return nil, false
		}
		switch name {
		case "password":
			name = "access_token"
		case "oauth_refresh_token":
			name = "refresh_token"
		case "password_expiry_utc":
			name = "expires_at"
		}
		lines[name], _ = json.Marshal(value)
	}
	_, token := lines["access_token"]
	return lines, token && len(lines) > 1
}

// The names of the members of a token: those of RFC 6749 §5.1 first, then those of
// x/oauth2 (expiry), of the Azure and AWS command lines (accessToken, expires_on,
// expiresAt), and of kubectl plugins (token, expirationTimestamp).
var (
	accessMembers   = []string{"access_token", "accessToken", "token", "AccessToken"}
	refreshMembers  = []string{"refresh_token", "refreshToken", "RefreshToken"}
	typeMembers     = []string{"token_type", "tokenType", "TokenType"}
	lifetimeMembers = []string{"expires_in", "expiresIn", "ExpiresIn", "expire", "expireIn"}
	expiryMembers   = []string{"expires_at", "expiresAt", "expires_on", "expiry", "expirationTimestamp", "expiration", "Expiration",
		"expiry_date", "expireTime", "token_expiry"}
)

func parseObject(data []byte, at time.Time) (reauth.Token, error) {
	var members object
	if err := json.Unmarshal(data, &members); err != nil {
		return reauth.Token{}, notJSON(err)
	}
	return parseMembers(members, at)
}

func parseMembers(members object, at time.Time) (reauth.Token, error) {
	if text(members, []string{"kind"}) == "ExecCredential" { // client.authentication.k8s.io
		var status object
		if json.Unmarshal(members["status"], &status) == nil {
			members = status
		}
	}
	tok := reauth.Token{
		AccessToken:  text(members, accessMembers),
		RefreshToken: text(members, refreshMembers),
		TokenType:    text(members, typeMembers),
	}
	if len(members) == 0 {
		return reauth.Token{}, errors.New("the JSON object is empty")
	}
	if tok.AccessToken == "" {
		names := slices.Sorted(maps.Keys(members))
		return reauth.Token{}, fmt.Errorf("the JSON object has no access_token, accessToken or token, but %s",
			mask.Text(strings.Join(names, ", "), 100))
	}
	tok.Expiry = members.expiry(at)
	if err := plausible(tok.AccessToken); err != nil {
		return reauth.Token{}, err
	}
	return checked(tok)
}

// expiry returns when the token in o expires, or the zero Time. A lifetime in seconds
// counts from at.
func (o object) expiry(at time.Time) time.Time {
	if when := o.expiryTime(); !when.IsZero() {
		return when
	}
	return o.expiryAfter(at)
}

// expiryTime returns the expiry by the issuer's clock, or the zero Time.
func (o object) expiryTime() time.Time {
	for _, name := range expiryMembers {
		if when, ok := moment(o[name]); ok {
			return when
		}
	}
	return time.Time{}
}

// expiryAfter returns the expiry by a lifetime that counts from at, or the zero Time.
func (o object) expiryAfter(at time.Time) time.Time {
	for _, name := range lifetimeMembers {
		if life, ok := seconds(o[name]); ok {
			return at.Add(life)
		}
	}
	return time.Time{}
}

// notJSON replaces an error of encoding/json, which may contain what was read.
func notJSON(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("it begins like JSON and is not valid at byte %d", syntax.Offset)
	}
	return errors.New("it is JSON of another form than expected")
}

// text returns the first of the members that is a string.
func text(members map[string]json.RawMessage, names []string) string {
	for _, name := range names {
		var s string
		if json.Unmarshal(members[name], &s) == nil && s != "" {
			return s
		}
	}
	return ""
}

// number returns a JSON number, or a string that holds one.
func number(raw json.RawMessage) (float64, bool) {
	s := string(raw)
	_ = json.Unmarshal(raw, &s)
	n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	return n, (err == nil || errors.Is(err, strconv.ErrRange)) && !math.IsNaN(n)
}

// maxSeconds bounds a lifetime: a hundred years.
const maxSeconds = 100 * 365 * 24 * 60 * 60

// seconds returns a lifetime such as expires_in. A lifetime that is missing, not a
// number, zero or negative is not known: issuers write 0 and -1 for a token that does
// not expire. If it does, the server responds with a 401.
func seconds(raw json.RawMessage) (time.Duration, bool) {
	n, ok := number(raw)
	if !ok || n <= 0 {
		return 0, false
	}
	return time.Duration(min(n, maxSeconds) * float64(time.Second)), true
}

// moment returns a point in time in RFC 3339, or in seconds or milliseconds since
// 1970.
func moment(raw json.RawMessage) (time.Time, bool) {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		if t, err := time.Parse(time.RFC3339, s); err == nil && !t.IsZero() {
			return t, true
		}
	}
	n, ok := number(raw)
	if n > 1e11 { // the year 5138, in seconds
		n /= 1000
	}
	if !ok || n <= 0 || n > maxUnix {
		return time.Time{}, false
	}
	return time.Unix(int64(n), 0), true
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// pointed returns the token at a JSON pointer (RFC 6901): a string, or an object
// with the members of a token.
func pointed(data []byte, pointer string, at time.Time) (reauth.Token, error) {
	raw := json.RawMessage(bytes.TrimPrefix(data, byteOrderMark))
	if len(bytes.TrimSpace(raw)) == 0 {
		return reauth.Token{}, errors.New("it is empty")
	}
	if !json.Valid(raw) {
		return reauth.Token{}, errors.New("it is not valid JSON")
	}
	var holder object
	for _, name := range strings.Split(pointer, "/")[1:] {
		var ok bool
		holder = nil
		_ = json.Unmarshal(raw, &holder)
		if raw, ok = member(raw, unescape.Replace(name)); !ok {
			return reauth.Token{}, fmt.Errorf("it has nothing at %q", pointer)
		}
	}
	var value string
	if json.Unmarshal(raw, &value) != nil {
		return parseObject(raw, at)
	}
	tok, err := fromText(strings.TrimSpace(value))
	if err == nil && tok.Expiry.IsZero() {
		tok.Expiry = holder.expiry(at) // beside it, as in the output of AWS
	}
	return tok, err
}

// member returns the member of an object or the element of an array with that name.
func member(raw json.RawMessage, name string) (json.RawMessage, bool) {
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) == nil {
		found, ok := object[name]
		return found, ok
	}
	var array []json.RawMessage
	i, err := strconv.Atoi(name)
	if err != nil || strconv.Itoa(i) != name || json.Unmarshal(raw, &array) != nil || i < 0 || i >= len(array) {
		return nil, false
	}
	return array[i], true
}
