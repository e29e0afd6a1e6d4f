package challenge_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth/internal/challenge"
)

// chalOne is a challenge with these parameters, given as pairs.
func chalOne(scheme string, params ...string) challenge.Challenge {
	c := challenge.Challenge{Scheme: scheme}
	for i := 0; i+1 < len(params); i += 2 {
		if c.Params == nil {
			c.Params = map[string]string{}
		}
		c.Params[params[i]] = params[i+1]
	}
	return c
}

// chal68 is a challenge with a token68.
func chal68(scheme, token68 string) challenge.Challenge {
	return challenge.Challenge{Scheme: scheme, Token68: token68}
}

const chalInvalid = "invalid_token"

// chalVectors are what servers sent, and what broke somebody.
var chalVectors = []struct {
	name  string
	lines []string
	want  []challenge.Challenge
}{
	{"no header", nil, nil},
	{"an empty line", []string{""}, nil},
	{"nothing but separators", []string{" , ;\t,, "}, nil},

	// In its order.
	{"all lines", []string{`Basic realm="x"`, `Bearer error="invalid_token"`}, []challenge.Challenge{chalOne("Basic", "realm", "x"), chalOne("Bearer", "error", chalInvalid)}},
	{"several on a line", []string{`Basic realm="x", Bearer realm="y", error="invalid_token"`}, []challenge.Challenge{chalOne("Basic", "realm", "x"), chalOne("Bearer", "realm", "y", "error", chalInvalid)}},
	{"several on several lines", []string{`Basic realm="x", Digest nonce=n`, "", `Negotiate, Bearer`}, []challenge.Challenge{chalOne("Basic", "realm", "x"), chalOne("Digest", "nonce", "n"), chalOne("Negotiate"), chalOne("Bearer")}},
	{"an unknown scheme", []string{`X-Custom.1 a=b`}, []challenge.Challenge{chalOne("X-Custom.1", "a", "b")}},
	{"token68", []string{`Negotiate a-._~+/Z09==`}, []challenge.Challenge{chal68("Negotiate", "a-._~+/Z09==")}},
	{"token68 without padding", []string{`Negotiate abc`}, []challenge.Challenge{chal68("Negotiate", "abc")}},
	{"token68 and blanks", []string{"Negotiate \t abc=  ,Bearer"}, []challenge.Challenge{chal68("Negotiate", "abc="), chalOne("Bearer")}},
	{"unquoted", []string{`Bearer error=invalid_token, realm=api`}, []challenge.Challenge{chalOne("Bearer", "error", chalInvalid, "realm", "api")}},
	{"escaped", []string{`Bearer realm="a \"b\" \\ \c, d", error="invalid_token"`}, []challenge.Challenge{chalOne("Bearer", "realm", `a "b" \ c, d`, "error", chalInvalid)}},
	{"empty elements", []string{`,, ,Bearer ,, error="invalid_token" , ,, realm=x,,`}, []challenge.Challenge{chalOne("Bearer", "error", chalInvalid, "realm", "x")}},
	{"names in upper case", []string{`BEARER REALM="X", ERROR="INVALID_TOKEN"`}, []challenge.Challenge{chalOne("BEARER", "realm", "X", "error", "INVALID_TOKEN")}},
	{"blanks around the equals sign", []string{"Bearer error \t=\t \"invalid_token\" , realm = x"}, []challenge.Challenge{chalOne("Bearer", "error", chalInvalid, "realm", "x")}},
	{"error twice", []string{`Bearer error="invalid_token", error="insufficient_scope", realm=x`}, []challenge.Challenge{chalOne("Bearer", "realm", "x")}},
	{"error three times, in any case", []string{`Bearer error=a, realm=x, ERROR=b, Error="c"`}, []challenge.Challenge{chalOne("Bearer", "realm", "x")}},
	{"error once in each of two", []string{`Bearer error=a, error=b, DPoP error=c`}, []challenge.Challenge{{Scheme: "Bearer", Params: map[string]string{}}, chalOne("DPoP", "error", "c")}},

	// Its vectors.
	{"bearer", []string{`bearer`}, []challenge.Challenge{chalOne("bearer")}},
	{"a parameter of no scheme", []string{`ERROR="invalid_token"`}, nil},
	{"a parameter of no scheme, and a scheme", []string{`ERROR="invalid_token", Bearer realm=x`}, []challenge.Challenge{chalOne("Bearer", "realm", "x")}},
	{"token68, then Bearer", []string{`Negotiate abc==, Bearer error=invalid_token`}, []challenge.Challenge{chal68("Negotiate", "abc=="), chalOne("Bearer", "error", chalInvalid)}},
	{"a Bearer in Basic's realm", []string{`Basic realm="Bearer error=\"invalid_token\""`}, []challenge.Challenge{chalOne("Basic", "realm", `Bearer error="invalid_token"`)}},
	{"an error in the description", []string{`Bearer error_description="error=invalid_token is not set"`}, []challenge.Challenge{chalOne("Bearer", "error_description", "error=invalid_token is not set")}},
	{"commas all over", []string{`Bearer , ,error="invalid_token",`}, []challenge.Challenge{chalOne("Bearer", "error", chalInvalid)}},
	{"BearerX", []string{`BearerX error="invalid_token"`}, []challenge.Challenge{chalOne("BearerX", "error", chalInvalid)}},
	{"DPoP and Bearer", []string{`DPoP error="use_dpop_nonce", Bearer realm="x"`}, []challenge.Challenge{chalOne("DPoP", "error", "use_dpop_nonce"), chalOne("Bearer", "realm", "x")}},
	{"a quote that is never closed", []string{`Bearer error="invalid_token`}, []challenge.Challenge{chalOne("Bearer", "error", chalInvalid)}},
	{"a quote that is never closed, and more", []string{`Bearer realm="api, error=invalid_token`, `DPoP`}, []challenge.Challenge{chalOne("Bearer", "realm", "api", "error", chalInvalid), chalOne("DPoP")}},
	{"a quote that is never closed after one that is", []string{`Bearer realm="a", error="invalid_token, scope="x`}, []challenge.Challenge{chalOne("Bearer", "realm", "a", "error", chalInvalid, "scope", "x")}},
	{"NUL", []string{"Bearer\x00error=\"invalid_token\"\x00,\x00realm=\"a\x00b\""}, []challenge.Challenge{chalOne("Bearer", "error", chalInvalid, "realm", "a\x00b")}},

	// Of the corpus.
	{"Apache", []string{`Basic realm="Corp \"SSO\" login, staff only"`}, []challenge.Challenge{chalOne("Basic", "realm", `Corp "SSO" login, staff only`)}},
	{"Apache, Digest", []string{`Digest realm="realm", nonce="jC1lq+JgBgA=beb8354513ca7c771481c13278c94cec5981eaeb", algorithm=MD5, domain="/d http://mirror.example.com/d2", qop="auth"`},
		[]challenge.Challenge{chalOne("Digest", "realm", "realm", "nonce", "jC1lq+JgBgA=beb8354513ca7c771481c13278c94cec5981eaeb", "algorithm", "MD5", "domain", "/d http://mirror.example.com/d2", "qop", "auth")}},
	{"Auth0 for Node, two schemes", []string{`Bearer realm="api", error="invalid_token", error_description="Invalid Compact JWS", DPoP algs="RS256 RS384"`},
		[]challenge.Challenge{chalOne("Bearer", "realm", "api", "error", chalInvalid, "error_description", "Invalid Compact JWS"), chalOne("DPoP", "algs", "RS256 RS384")}},
	{"a quote that nobody escaped", []string{`Basic realm="Private, "area""`}, []challenge.Challenge{chalOne("Basic", "realm", `Private, "area"`)}},
	{"quotes that nobody escaped, and more", []string{`Bearer realm="My "private" area", error="invalid_token"`}, []challenge.Challenge{chalOne("Bearer", "realm", `My "private" area`, "error", chalInvalid)}},
	{"gin-jwt", []string{`JWT realm=test zone`}, []challenge.Challenge{chalOne("JWT", "realm", "test zone")}},
	{"tymon/jwt-auth", []string{`jwt-auth`}, []challenge.Challenge{chalOne("jwt-auth")}},
	{"registry, without blanks", []string{`Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:library/alpine:pull",error="invalid_token"`},
		[]challenge.Challenge{chalOne("Bearer", "realm", "https://auth.example.com/token", "service", "registry.example.com", "scope", "repository:library/alpine:pull", "error", chalInvalid)}},
	{"Negotiate and NTLM", []string{`Negotiate`, `NTLM TlRMTVNTUAACAAAADAAMADgAAAAFgokC==`}, []challenge.Challenge{chalOne("Negotiate"), chal68("NTLM", "TlRMTVNTUAACAAAADAAMADgAAAAFgokC==")}},
	{"Graph, claims", []string{`Bearer realm="", client_id="00000003-0000-0000-c000-000000000000", errorDescription="a: b", error="insufficient_claims", claims="eyJhIjp9=="`},
		[]challenge.Challenge{chalOne("Bearer", "realm", "", "client_id", "00000003-0000-0000-c000-000000000000", "errordescription", "a: b", "error", "insufficient_claims", "claims", "eyJhIjp9==")}},
	{"a semicolon in the text", []string{`Bearer error="invalid_token", error_description="The audience 'api' is invalid; The token expired at '01/01/2024 00:00:00'"`},
		[]challenge.Challenge{chalOne("Bearer", "error", chalInvalid, "error_description", "The audience 'api' is invalid; The token expired at '01/01/2024 00:00:00'")}},

	// Commas that are missing, and semicolons in their place.
	{"no comma", []string{`Bearer realm="a" error="invalid_token" error_description="The token expired"`}, []challenge.Challenge{chalOne("Bearer", "realm", "a", "error", chalInvalid, "error_description", "The token expired")}},
	{"no comma, no quotes", []string{`Bearer error=invalid_token error_description=The token has expired realm=x`}, []challenge.Challenge{chalOne("Bearer", "error", chalInvalid, "error_description", "The token has expired", "realm", "x")}},
	{"a comma behind the scheme", []string{`Bearer, error="invalid_token"`}, []challenge.Challenge{chalOne("Bearer", "error", chalInvalid)}},
	{"semicolons", []string{`Bearer realm="a"; error=invalid_token;scope=b`}, []challenge.Challenge{chalOne("Bearer", "realm", "a", "error", chalInvalid, "scope", "b")}},
	{"an empty value", []string{`Bearer realm="", error=""`}, []challenge.Challenge{chalOne("Bearer", "realm", "", "error", "")}},
	{"equals signs in a value", []string{`Bearer nonce=a=b==, error=invalid_token`}, []challenge.Challenge{chalOne("Bearer", "nonce", "a=b==", "error", chalInvalid)}},
	{"line breaks", []string{"Bearer\r\n realm=\"a\",\r\n\terror=\"invalid_token\""}, []challenge.Challenge{chalOne("Bearer", "realm", "a", "error", chalInvalid)}},
	{"no ASCII", []string{"Bearer realm=\"登录\", error_description=ungültig \xff"}, []challenge.Challenge{chalOne("Bearer", "realm", "登录", "error_description", "ungültig \xff")}},

	// RFC 9110 §5.3: lines are joined by commas.
	{"parameters on a line of their own", []string{`Bearer realm="a"`, `error="invalid_token"`}, []challenge.Challenge{chalOne("Bearer", "realm", "a", "error", chalInvalid)}},
	{"a parameter repeated on another line", []string{`Bearer error="a", realm=x`, `error="b"`, `error="c"`}, []challenge.Challenge{chalOne("Bearer", "realm", "x")}},
}

func TestParse(t *testing.T) {
	for _, tt := range chalVectors {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{"Www-Authenticate": tt.lines}
			assert.Equal(t, tt.want, challenge.Parse(h))
			assert.Equal(t, tt.want, chalObvious(tt.lines), "the second opinion")
		})
	}
}

// Header is a map, and some fill it by hand.
func TestParseHeaderInAnySpelling(t *testing.T) {
	for _, key := range []string{"Www-Authenticate", "WWW-Authenticate", "www-authenticate", "WWW-AUTHENTICATE"} {
		assert.Equal(t, []challenge.Challenge{chalOne("Bearer", "error", chalInvalid)}, challenge.Parse(http.Header{key: {`Bearer error="invalid_token"`}}), key)
	}
	for _, key := range []string{"Proxy-Authenticate", "Authorization", "Www-Authenticat", "Www-Authenticates"} {
		assert.Empty(t, challenge.Parse(http.Header{key: {`Bearer error="invalid_token"`}}), key)
	}
	assert.Empty(t, challenge.Parse(nil))
}

// 64 challenges are kept, each as a whole, and 64 KiB are read.
func TestParseBounds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
	}{
		{"on a line", []string{strings.Repeat(`Basic realm="x", `, 63) + `Bearer error="invalid_token", realm=y, Basic realm=z`}},
		{"on many lines", append(slicesRepeat(`Basic realm="x"`, 63), `Bearer error="invalid_token", realm=y`, `Basic realm=z`)},
		{"the last of a line of two", append(slicesRepeat(`Basic realm="x"`, 62), `Basic a=b, Bearer error="invalid_token", realm=y, Basic realm=z`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := challenge.Parse(http.Header{"Www-Authenticate": tt.lines})
			if assert.Len(t, all, 64) {
				assert.Equal(t, chalOne("Bearer", "error", chalInvalid, "realm", "y"), all[63])
			}
		})
	}
	far := func(n int) http.Header { // n bytes, then another line
		return http.Header{"Www-Authenticate": {`Basic realm="` + strings.Repeat("x", n-14) + `"`, `Bearer error="invalid_token"`}}
	}
	assert.Len(t, challenge.Parse(far(64<<10-100)), 2)
	assert.Len(t, challenge.Parse(far(64<<10)), 1, "what stands behind 64 KiB is not read")
	assert.Len(t, challenge.Parse(far(1<<20)), 1)
}

func slicesRepeat(s string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = s
	}
	return all
}

// The second opinion: what ParseChallenges documents, in rules that look as far
// ahead as they like. A line is what is left of it; each rule takes its piece.
var (
	chalGap     = regexp.MustCompile(`^[\x00-\x20\x7f,;]+`)
	chalName    = regexp.MustCompile(`^([^\x00-\x20\x7f,;="]+)[\x00-\x20\x7f]*=[\x00-\x20\x7f]*`)
	chalScheme  = regexp.MustCompile(`^[^\x00-\x20\x7f,;="]+`)
	chalToken68 = regexp.MustCompile(`^[\x00-\x20\x7f]+([A-Za-z0-9._~+/-]+=*)[\x00-\x20\x7f]*(?:,|$)`)

	// What may come behind a closing quote: nothing, a separator, another parameter.
	chalClosed = regexp.MustCompile(`^[\x00-\x20\x7f]*(?:$|[,;]|[^\x00-\x20\x7f,;="]+[\x00-\x20\x7f]*=)`)
	// And behind an unquoted value: blanks before another parameter, a separator.
	chalBare = regexp.MustCompile(`^(?:$|[,;]|[\x00-\x20\x7f]+[^\x00-\x20\x7f,;="]+[\x00-\x20\x7f]*=)`)
	chalWord = regexp.MustCompile(`^(?:$|[,;]|[\x00-\x20\x7f])`)
)

func chalObvious(lines []string) []challenge.Challenge {
	var all []challenge.Challenge
	var count []map[string]int // how often each name came
	left := 64 << 10
	for _, s := range lines {
		s = s[:min(len(s), left)]
		left -= len(s)
		for s != "" {
			if m := chalGap.FindString(s); m != "" {
				s = s[len(m):]
				continue
			}
			if m := chalName.FindStringSubmatch(s); m != nil {
				name := strings.ToLower(m[1])
				var v string
				v, s = chalValue(name, s[len(m[0]):])
				if len(all) > 0 && len(all) <= 64 {
					last := len(all) - 1
					if all[last].Params == nil {
						all[last].Params = map[string]string{}
					}
					if count[last][name]++; count[last][name] == 1 {
						all[last].Params[name] = v
					} else {
						delete(all[last].Params, name)
					}
				}
				continue
			}
			if m := chalScheme.FindString(s); m != "" {
				c := challenge.Challenge{Scheme: m}
				s = s[len(m):]
				if m := chalToken68.FindStringSubmatch(s); m != nil {
					c.Token68 = m[1]
					s = s[len(m[0]):]
				}
				all, count = append(all, c), append(count, map[string]int{})
				continue
			}
			s = s[1:] // a stray sign
		}
	}
	return all[:min(len(all), 64)]
}

// chalValue takes the value that s begins with.
func chalValue(name, s string) (value, rest string) {
	if strings.HasPrefix(s, `"`) {
		s = s[1:]
		text := ""
		for i := 0; i < len(s); i++ {
			if s[i] == '\\' && i+1 < len(s) {
				i++
				text += s[i : i+1]
				continue
			}
			if s[i] == '"' && chalClosed.MatchString(s[i+1:]) {
				return text, s[i+1:]
			}
			text += s[i : i+1]
		}
		// Never closed: as if it had not been opened.
	}
	end := chalBare
	if name == "error" { // of which the value is one word
		end = chalWord
	}
	i := 0
	for !end.MatchString(s[i:]) {
		i++
	}
	return strings.Trim(s[:i], " \t\""), s[i:]
}

func chalAgrees(t testing.TB, lines []string) bool {
	t.Helper()
	return assert.Equal(t, chalObvious(lines), challenge.Parse(http.Header{"Www-Authenticate": lines}), "%q", lines)
}

func TestParseAgainstTheObvious(t *testing.T) {
	seen := 0
	for _, r := range corpus(t) {
		for k, vv := range r.Headers {
			if strings.EqualFold(k, "WWW-Authenticate") {
				seen++
				chalAgrees(t, vv)
			}
		}
	}
	assert.Greater(t, seen, 50, "the corpus has many")

	pieces := []string{
		"Bearer", "bearer", "Basic", "DPoP", "Negotiate", "a", "b", "error", "ERROR", "realm", "scope", "error_description", "invalid_token", "abc==", "x=y",
		" ", " ", " ", "  ", "\t", ",", ",", ", ", ";", "=", "=", "=", " = ", `"`, `"`, `"`, `""`, `\`, `\"`, `\\`, `="`, `",`, `", `, `" `, `error="`, `realm="a", `,
		"\x00", "\x7f", "\v", "é", "\xff", "令牌", "\r\n ", "'", ".", "/", "+", "-", "%", "a a a", "\n",
	}
	for seed := range uint64(6000) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		var b strings.Builder
		for range rnd.IntN(30) {
			b.WriteString(pieces[rnd.IntN(len(pieces))])
		}
		if !chalAgrees(t, strings.Split(b.String(), "\n")) {
			t.Fatalf("seed %d", seed)
		}
	}
	for seed := range uint64(20) { // long ones, of more challenges than are kept
		rnd := rand.New(rand.NewPCG(seed, 99))
		var b strings.Builder
		for range 400 {
			b.WriteString(pieces[rnd.IntN(len(pieces))])
		}
		if !chalAgrees(t, strings.Split(b.String(), "\n")) {
			t.Fatalf("seed %d", seed)
		}
	}
}

// What is written by the book (RFC 9110 §11.6.1, with all the freedom that
// §5.6 leaves) is read as it was meant.
func TestParseByTheBook(t *testing.T) {
	const tokenChars = "abcdefgXYZ019!#$%&'*+-.^_`|~"
	const textChars = "abc XYZ,;=\"\\\t'()/:{}éñ令"
	const base64Chars = "abcXYZ019-._~+/"
	for seed := range uint64(4000) {
		rnd := rand.New(rand.NewPCG(seed, 11))
		some := func(chars string, least, most int) string {
			rr := []rune(chars)
			var b strings.Builder
			for range least + rnd.IntN(most-least+1) {
				b.WriteRune(rr[rnd.IntN(len(rr))])
			}
			return b.String()
		}
		blanks := func() string { return some(" \t", 0, 2) }
		comma := func() string {
			s := blanks() + ","
			for rnd.IntN(4) == 0 {
				s += blanks() + ","
			}
			return s + blanks()
		}
		var want []challenge.Challenge
		var lines []string
		line := ""
		for n := range rnd.IntN(5) {
			if n > 0 {
				if rnd.IntN(3) == 0 {
					lines, line = append(lines, line), ""
				} else {
					line += comma()
				}
			}
			c := challenge.Challenge{Scheme: some(tokenChars, 1, 8)}
			line += c.Scheme
			if rnd.IntN(4) == 0 {
				c.Token68 = some(base64Chars, 1, 12) + some("=", 0, 2)
				line += some(" ", 1, 3) + c.Token68
				want = append(want, c)
				continue
			}
			names := map[string]bool{}
			for i := range rnd.IntN(4) {
				name := some(tokenChars, 1, 6)
				if rnd.IntN(3) == 0 {
					name = []string{"error", "Realm", "SCOPE"}[rnd.IntN(3)]
				}
				if names[strings.ToLower(name)] {
					continue
				}
				names[strings.ToLower(name)] = true
				v, written := "", ""
				if rnd.IntN(2) == 0 {
					v = some(tokenChars, 1, 8)
					written = v
				} else {
					v = some(textChars, 0, 12)
					for _, r := range v {
						if r == '"' || r == '\\' || r < 0x80 && rnd.IntN(8) == 0 {
							written += `\`
						}
						written += string(r)
					}
					written = `"` + written + `"`
				}
				if c.Params == nil {
					c.Params = map[string]string{}
				}
				c.Params[strings.ToLower(name)] = v
				if i == 0 || len(c.Params) == 1 {
					line += some(" ", 1, 3)
				} else {
					line += comma()
				}
				line += name + blanks() + "=" + blanks() + written
			}
			want = append(want, c)
		}
		lines = append(lines, line)
		if !assert.Equal(t, want, challenge.Parse(http.Header{"Www-Authenticate": lines}), "seed %d: %q", seed, lines) {
			return
		}
	}
}

func FuzzParseAgainstTheObvious(f *testing.F) {
	for _, tt := range chalVectors {
		f.Add(strings.Join(tt.lines, "\n"))
	}
	for _, r := range corpus(f) {
		for k, vv := range r.Headers {
			if strings.EqualFold(k, "WWW-Authenticate") {
				f.Add(strings.Join(vv, "\n"))
			}
		}
	}
	f.Add(strings.Repeat("Basic,", 63) + `Bearer error="invalid_token"`)
	f.Fuzz(func(t *testing.T, lines string) {
		if len(lines) <= 2<<10 { // the obvious is slow
			chalAgrees(t, strings.Split(lines, "\n"))
		}
	})
}

// chalWorst are lines of 64 KiB, or many that make as much.
func chalWorst() map[string][]string {
	const size = 64 << 10
	worst := map[string][]string{
		"an open quote, and more":   {`a="` + strings.Repeat(`b="`, size/3)},
		"an open quote of words":    {`a b="` + strings.Repeat("x ", size/2)},
		"a quote of quotes":         {`a b="` + strings.Repeat(`" `, size/2)},
		"a word without an end":     {`a b="` + strings.Repeat(`"x`, size/2)},
		"quotes before a long word": {`a b=` + strings.Repeat(`"`, size/2) + strings.Repeat("x", size/2)},
		"quotes before blanks":      {`a b="` + strings.Repeat(`"`, size/2) + strings.Repeat(" ", size/2) + "x"},
		"many lines":                slicesRepeat(`a="b`, size/4),
		"many empty lines":          slicesRepeat("", size),
		"many schemes, many lines":  slicesRepeat(`a `, size/2),
		"one scheme, all names":     {"a " + chalNames(size)},
	}
	for _, s := range []string{
		`a="b,`, " ", "\t", `"`, `\`, ",", "=", ";", "a", "a ", "a a a ", `a="`, `a=b `, `a=b,`, `a= `, `"a `, `" `, `\"`, `" a`, `" a =`, "a =", "a\x00", `a="b" `, `a="\`,
		"a,", `a b="c", `, `a "`, `=" `, `a=" " `, "==", "a b==,", "é", "\xff", `a=" b c`,
	} {
		line := strings.Repeat(s, size/len(s))
		worst[fmt.Sprintf("%q", s)] = []string{line}
		worst[fmt.Sprintf("%q in a value", s)] = []string{"Bearer realm=" + line}
		worst[fmt.Sprintf("%q in a quote", s)] = []string{`Bearer realm="` + line}
		worst[fmt.Sprintf("%q behind an error", s)] = []string{`Bearer error=x ` + line}
	}
	return worst
}

// chalNames is as many different parameters.
func chalNames(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "p%d=v,", i)
	}
	return b.String()
}

// fastest returns the least time that f took, of some rounds, or of few if
// that is soon below enough.
func fastest(rounds int, enough time.Duration, f func()) time.Duration {
	best := time.Hour
	for range rounds {
		began := time.Now()
		f()
		if best = min(best, time.Since(began)); best < enough {
			break
		}
	}
	return best
}

// No header takes longer to read than its length explains. What is quadratic
// takes some thousand times as long.
func TestParseTimeIsLinear(t *testing.T) {
	benign := http.Header{"Www-Authenticate": {`Bearer realm="` + strings.Repeat("An ordinary realm. ", 64<<10/19) + `"`}}
	base := max(fastest(20, 0, func() { challenge.Parse(benign) }), 50*time.Microsecond)
	slowest, name := time.Duration(0), ""
	for what, lines := range chalWorst() {
		h := http.Header{"Www-Authenticate": lines}
		took := fastest(30, 200*base, func() { challenge.Parse(h) })
		assert.Less(t, took, 200*base, "64 KiB of %s", what)
		if took > slowest {
			slowest, name = took, what
		}
	}
	t.Logf("benign %v, slowest %v (%s)", base, slowest, name)
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"bearer", `ERROR="invalid_token"`, "Negotiate abc==, Bearer error=invalid_token",
		`Basic realm="Bearer error=\"invalid_token\""`,
		`Bearer error_description="error=invalid_token is not set"`,
		`Bearer , ,error="invalid_token",`, `BearerX error="invalid_token"`,
		`DPoP error="use_dpop_nonce", Bearer realm="x"`, "Bearer realm=\"never closed, error=invalid_token",
		"Bearer realm=\"a\x00b\"", `Bearer error="a", error="b", error="c"`, "Basic\nBearer error=invalid_token\nNegotiate",
		`Bearer  error  =  "invalid_token"  `, `Bearer realm="a" error="b"`, "= = =\"\"\",,;;", "A=B=C=D", "a\\\"b", "\xff\xfe \xff=\xff",
		`a="b,`, strings.Repeat("Basic,", 200), strings.Repeat("Basic,", 63) + "\n" + strings.Repeat("Basic,", 64), strings.Repeat("a=\"", 200), strings.Repeat(`\"`, 200), "Bearer " + strings.Repeat("=", 200),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, lines string) {
		h := http.Header{"Www-Authenticate": strings.Split(lines, "\n")}
		before := h.Clone()
		all := challenge.Parse(h)
		assert.Equal(t, before, h, "the header was changed")
		assert.Equal(t, all, challenge.Parse(h), "not the same twice")
		assert.LessOrEqual(t, len(all), 64, "challenges")

		size := 0
		for _, c := range all {
			size += len(c.Scheme) + len(c.Token68)
			assert.NotEmpty(t, c.Scheme)
			assert.False(t, strings.ContainsAny(c.Scheme, " \t\r,;=\""), "scheme %q", c.Scheme)
			assert.True(t, strings.Contains(lines, c.Scheme), "scheme %q is not in the header", c.Scheme)
			assert.True(t, strings.Contains(lines, c.Token68), "token68 %q is not in the header", c.Token68)
			for name, v := range c.Params {
				size += len(v)
				assert.Equal(t, strings.ToLower(name), name)
				assert.NotEmpty(t, name)
				assert.True(t, strings.Contains(strings.ToLower(lines), name) || !utf8.ValidString(lines), "parameter %q is not in the header", name)
			}
		}
		assert.LessOrEqual(t, size, len(lines), "more came out than went in")

		// A line of 64 KiB made of this must not take longer than its length.
		if lines != "" {
			line := strings.Repeat(strings.ReplaceAll(lines, "\n", " "), 64<<10/len(lines)+1)
			best := time.Minute // of three, as the machine may be busy
			for range 3 {
				began := time.Now()
				challenge.Parse(http.Header{"Www-Authenticate": {line}})
				if best = min(best, time.Since(began)); best < 100*time.Millisecond {
					break
				}
			}
			assert.Less(t, best, time.Second, "64 KiB of it")
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, row := range []struct{ name, line string }{
		{"simple", `Bearer error="invalid_token"`},
		{"of each kind", `Negotiate abc==, Basic realm="Bearer error=\"invalid_token\"", Bearer , ,error=invalid_token error_description="a "b" c",`},
		{"64KiB", `Bearer realm="` + strings.Repeat("An ordinary realm. ", 64<<10/19-1) + `", error="invalid_token"`},
		{"64KiB of names", "Bearer " + chalNames(64<<10)},
	} {
		b.Run(row.name, func(b *testing.B) {
			h := http.Header{"Www-Authenticate": {row.line}}
			b.SetBytes(int64(len(row.line)))
			b.ReportAllocs()
			for b.Loop() {
				challenge.Parse(h)
			}
		})
	}
}

// corpus returns the headers of the responses that servers sent.
func corpus(t testing.TB) (rows []struct{ Headers map[string][]string }) {
	t.Helper()
	f, err := os.Open("../../testdata/corpus/responses.jsonl")
	require.NoError(t, err)
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var row struct{ Headers map[string][]string }
		if err := d.Decode(&row); err == io.EOF {
			return rows
		} else {
			require.NoError(t, err)
		}
		rows = append(rows, row)
	}
}
