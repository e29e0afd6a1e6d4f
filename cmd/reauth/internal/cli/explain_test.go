package cli

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth/cmd/reauth/internal/paste"
)

func explained(t testing.TB, text string, args ...string) (e explanation, status int) {
	t.Helper()
	out, errs, status := run(t, text, append([]string{"explain", "--json"}, args...)...)
	require.Empty(t, errs)
	require.NoError(t, json.Unmarshal([]byte(strings.SplitAfter(out, "\n")[0]), &e), out)
	return e, status
}

// The line that began it all, and a forum's page around it.
func TestExplainTheSeed(t *testing.T) {
	const seed = `Error code: 401 - {'error': {'code': '', 'message': '无效的令牌 (request id: 20260219100814161456584b503l5fK)', 'type': 'new_api_error'}}`
	page := "# Help, my bot is broken\n\nPosted by ann, 3 hours ago — 401 views\n\nI run it like this:\n\n```\nclient = OpenAI(api_key=os.environ['KEY'], timeout={'read': 30})\n```\n\nand get\n\n    " + seed + "\n\nAny idea? Thanks!\n\n> me too\n"
	quoted := "> " + strings.ReplaceAll(page, "\n", "\n> ")
	colours := "\x1b[31m" + strings.ReplaceAll(seed, "无效", "\x1b[1m无效\x1b[0m\x1b[31m") + "\x1b[0m"
	for name, text := range map[string]string{"alone": seed, "a page": page, "a quotation": quoted, "colours": colours, "cut": seed[:len(seed)-24]} {
		e, status := explained(t, text)
		assert.Equal(t, exitHelps, status, name)
		assert.Equal(t, "invalid_token", e.Reason, name)
		assert.Equal(t, "20260219100814161456584b503l5fK", e.RequestID, name)
		assert.Equal(t, 401, e.Status, name)
	}
	out, _, _ := run(t, "", "explain", "--lang", "zh", seed)
	first, _, _ := strings.Cut(out, "\n")
	assert.Equal(t, "服务器不认识（或不再认识）这个令牌：换新令牌有用；请换一个新令牌，并确认它属于这个服务器。如仍有问题，请把请求 ID 20260219100814161456584b503l5fK 提供给服务器的技术支持。", first)
	out, _, _ = run(t, "", "explain", "--lang", "en", "-q", seed)
	assert.Equal(t, "The server does not know the token, or no longer: a new token helps; get a new token, and see that it is this server's. Else give the request id 20260219100814161456584b503l5fK to the server's support.\n", out)
}

// A row is a response of the corpus.
type row struct {
	ID           string
	Status       int
	Headers      map[string][]string
	Body         string
	BodyEncoding string `json:"body_encoding"`
}

func corpus(t testing.TB) (rows []row) {
	t.Helper()
	for _, name := range []string{"responses", "responses2", "servers", "more"} {
		f, err := os.Open("../../../../testdata/corpus/" + name + ".jsonl")
		require.NoError(t, err)
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<22)
		for lines.Scan() {
			var r row
			require.NoError(t, json.Unmarshal(lines.Bytes(), &r))
			if r.BodyEncoding != "" || !utf8.ValidString(r.Body) || strings.ContainsAny(r.Body, "\x00\x1b") {
				continue // it cannot be pasted
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// header returns the headers of a row, without a coding that a paste has not.
func (r row) header() http.Header {
	h := http.Header{}
	for k, vv := range r.Headers {
		for _, v := range vv {
			h.Add(k, v)
		}
	}
	h.Del("Content-Encoding")
	return h
}

// python returns a value as repr does.
func python(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case string:
		s := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(v)
		if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
			return `"` + s + `"`
		}
		return "'" + strings.ReplaceAll(s, "'", `\'`) + "'"
	case json.Number:
		return v.String()
	case []any:
		var all []string
		for _, e := range v {
			all = append(all, python(e))
		}
		return "[" + strings.Join(all, ", ") + "]"
	case *ordered:
		var all []string
		for i, k := range v.keys {
			all = append(all, python(k)+": "+python(v.values[i]))
		}
		return "{" + strings.Join(all, ", ") + "}"
	}
	panic(fmt.Sprintf("%T", v))
}

// javascript returns a value as node's inspect does.
func javascript(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return fmt.Sprint(v)
	case string:
		return "'" + strings.NewReplacer(`\`, `\\`, "\n", `\n`, "'", `\'`).Replace(v) + "'"
	case json.Number:
		return v.String()
	case []any:
		var all []string
		for _, e := range v {
			all = append(all, javascript(e))
		}
		return "[ " + strings.Join(all, ", ") + " ]"
	case *ordered:
		var all []string
		for i, k := range v.keys {
			key := k
			if !identifier(k) {
				key = javascript(k)
			}
			all = append(all, key+": "+javascript(v.values[i]))
		}
		return "{\n  " + strings.Join(all, ",\n  ") + "\n}"
	}
	panic(fmt.Sprintf("%T", v))
}

func identifier(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !isLetter(r) && r != '_' && (r < '0' || r > '9') }) < 0 && (s[0] < '0' || s[0] > '9')
}

func isLetter(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }

// An ordered object keeps the order of its members, and repeated ones.
type ordered struct {
	keys   []string
	values []any
}

func decode(d *json.Decoder) (any, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('{'):
		o := &ordered{}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := decode(d)
			if err != nil {
				return nil, err
			}
			o.keys, o.values = append(o.keys, k.(string)), append(o.values, v)
		}
		_, err = d.Token()
		return o, err
	case json.Delim('['):
		a := []any{}
		for d.More() {
			v, err := decode(d)
			if err != nil {
				return nil, err
			}
			a = append(a, v)
		}
		_, err = d.Token()
		return a, err
	}
	return tok, nil
}

func parsed(body string) *ordered {
	d := json.NewDecoder(strings.NewReader(body))
	d.UseNumber()
	v, err := decode(d)
	if o, ok := v.(*ordered); ok && err == nil && d.InputOffset() == int64(len(strings.TrimRight(body, " \r\n"))) && len(o.keys) > 0 {
		return o
	}
	return nil
}

// A wrapping is a way in which people meet a response, and what it shows of it. It
// returns "" for a response that it does not show.
type wrapping struct {
	name    string
	headers bool
	wrap    func(r row, o *ordered) string
}

var wrappings = []wrapping{
	{"raw HTTP", true, func(r row, _ *ordered) string {
		var b strings.Builder
		fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", r.Status, http.StatusText(r.Status))
		_ = r.header().Write(&b)
		return b.String() + "\r\n" + r.Body
	}},
	{"curl -v", true, func(r row, _ *ordered) string {
		var b bytes.Buffer
		_ = r.header().Write(&b)
		text := "*   Trying 192.0.2.1:443...\n* Connected to api.example.com (192.0.2.1) port 443 (#0)\n> GET /v1/models HTTP/1.1\n> Host: api.example.com\n> User-Agent: curl/7.88.1\n> Authorization: Bearer paste-secret-qwertyuiop\n>\n"
		text += fmt.Sprintf("< HTTP/1.1 %d %s\n", r.Status, http.StatusText(r.Status))
		for line := range strings.Lines(strings.ReplaceAll(b.String(), "\r\n", "\n")) {
			text += "< " + line
		}
		return text + "<\n" + r.Body + "\n* Connection #0 to host api.example.com left intact\n"
	}},
	{"HAR", true, func(r row, _ *ordered) string {
		var fields []map[string]string
		for k, vv := range r.header() {
			for _, v := range vv {
				fields = append(fields, map[string]string{"name": k, "value": v})
			}
		}
		b, _ := json.Marshal(map[string]any{"log": map[string]any{"version": "1.2", "entries": []any{
			map[string]any{"request": map[string]any{"method": "GET"}, "response": map[string]any{"status": 200, "content": map[string]any{"text": "fine"}}},
			map[string]any{"request": map[string]any{"method": "GET", "headers": []any{map[string]string{"name": "authorization", "value": "Bearer paste-secret-qwertyuiop"}}},
				"response": map[string]any{"status": r.Status, "headers": fields, "content": map[string]any{"text": base64.StdEncoding.EncodeToString([]byte(r.Body)), "encoding": "base64"}}},
		}}})
		if r.Status < 400 {
			return "" // not an error
		}
		return string(b)
	}},
	{"openai in Python", false, func(r row, o *ordered) string {
		if o == nil {
			return ""
		}
		return fmt.Sprintf("Traceback (most recent call last):\n  File \"/app/bot.py\", line 12, in <module>\n    client.chat.completions.create(model=\"gpt\", messages=[{\"role\": \"user\"}])\nopenai.AuthenticationError: Error code: %d - %s\n", r.Status, python(o))
	}},
	{"openai in JavaScript", false, func(r row, o *ordered) string {
		if o == nil {
			return ""
		}
		return fmt.Sprintf("/app/node_modules/openai/core/error.js:41\n            return new AuthenticationError(status, error, message, headers);\n\nAuthenticationError: %d status code (no body)\n    at APIError.generate (/app/node_modules/openai/core/error.js:41:20) {\n  status: %d,\n  error: %s\n}\n", r.Status, r.Status, javascript(o))
	}},
	{"Go", false, func(r row, o *ordered) string {
		if o == nil {
			return ""
		}
		return fmt.Sprintf("2026/11/26 12:00:00 POST \"https://api.example.com/v1/chat/completions\": %d %s %s\n", r.Status, http.StatusText(r.Status), r.Body)
	}},
	{"a JSON log line", false, func(r row, _ *ordered) string {
		b, _ := json.Marshal(map[string]any{"level": "error", "ts": "2026-11-26T12:00:00Z", "msg": "request failed", "status": r.Status, "body": r.Body})
		return string(b) + "\n"
	}},
}

// What explain says of a wrapped response is what Inspect says of what the wrapping shows.
func TestExplainWrappings(t *testing.T) {
	rows := corpus(t)
	var differ, all int
	for _, w := range wrappings {
		differs, n := 0, 0
		for _, r := range rows {
			text := w.wrap(r, parsed(r.Body))
			if text == "" {
				continue
			}
			h := http.Header{}
			if w.headers {
				h = r.header()
			}
			shown := &paste.Response{Status: r.Status, Header: h, Body: []byte(strings.TrimSpace(r.Body))}
			if w.name == "curl -v" || w.name == "HAR" {
				shown.Request = http.Header{"Authorization": {"Bearer paste-secret-qwertyuiop"}}
			}
			want := explain(shown, "en")
			got := explain(paste.Find([]byte(text))[0], "en")
			n++
			if got.Reason != want.Reason || got.RequestID != want.RequestID || got.Status != want.Status {
				differs++
				t.Logf("%s: %s: %d %s %q, not %d %s %q", w.name, r.ID, got.Status, got.Reason, got.RequestID, want.Status, want.Reason, want.RequestID)
			}
			assert.NotContains(t, got.text(false), "paste-secret", r.ID)
		}
		t.Logf("%s: %d of %d differ", w.name, differs, n)
		differ, all = differ+differs, all+n
	}
	t.Logf("%d of %d wrappings differ", differ, all)
	assert.LessOrEqual(t, float64(differ), 0.005*float64(all))
}

func TestExplainStatuses(t *testing.T) {
	for text, want := range map[string]int{
		`HTTP 402 {"error":"token expired"}`:           exitNoHelp,
		`HTTP 429 {"error":"invalid token"}`:           exitNoHelp,
		`HTTP 403 {"message":"Your token is invalid"}`: exitNoHelp,
		`HTTP 403 {"code":"TOKEN_EXPIRED"}`:            exitHelps,
		`status: 403 {"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}`: exitHelps,
		`HTTP 400 {"error":"invalid_grant","error_description":"Token has been expired or revoked."}`:                      exitNoHelp,
		`HTTP 500 {"error":"internal"}`:    exitUndecided,
		`HTTP 404 {"message":"Not Found"}`: exitUndecided,
		"panic: index out of range":        exitUndecided,
		"":                                 exitUndecided,
		"I have a problem with my printer": exitUndecided,
		"Your session has expired":         exitHelps,
		`level=ERROR msg="call failed" err="POST \"https://api.example.com\": 401 Unauthorized {\"error\":{\"message\":\"quota is used up\",\"code\":\"insufficient_quota\"}}"`:               exitNoHelp,
		"requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://api.example.com/v1/models":                                                                            exitHelps,
		"httpx.HTTPStatusError: Client error '401 Unauthorized' for url 'https://api.example.com/'\nFor more information check: https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/401": exitHelps,
		"<pre>{&#39;error&#39;: {&#39;message&#39;: &#39;The token has expired&#39;, &#39;code&#39;: 401}} status 401</pre>":                                                                  exitHelps,
	} {
		_, status := explained(t, text)
		assert.Equal(t, want, status, text)
	}
}

// Of several objects, a complete one wins over one that was cut off.
func TestExplainCompleteObject(t *testing.T) {
	e, status := explained(t, `{"request":{"model":"gpt","messages":[{"role":"us
	Error code: 401 - {'error': {'message': 'The token has expired', 'type': 'new_api_error'}}`)
	assert.Equal(t, exitHelps, status)
	assert.Equal(t, "expired", e.Reason)
}

// Nothing secret of the paste is printed.
func TestExplainPrintsNoSecret(t *testing.T) {
	const secret = "opaque-Secret-0987654321"
	for name, text := range map[string]string{
		"curl":      "> GET /?key=" + secret + " HTTP/1.1\n> Authorization: Token " + secret + "\n> Cookie: sid=" + secret + "\n>\n< HTTP/1.1 401 Unauthorized\n< X-Request-Id: " + secret + "\n<\n{\"message\":\"unknown token " + secret + " or " + strings.ToUpper(secret) + "\"}",
		"prose":     "Authorization: Bearer " + secret + "\nHTTP 401 {\"message\":\"unknown token " + secret + "\"}",
		"HAR":       `{"log":{"entries":[{"request":{"headers":[{"name":"X-Api-Key","value":"` + secret + `"}],"queryString":[{"name":"key","value":"` + secret + `"}],"cookies":[{"name":"c","value":"` + secret + `"}]},"response":{"status":401,"content":{"text":"{\"message\":\"bad ` + secret + `\"}"}}}]}}`,
		"a query":   "> GET /v1?api_key=" + secret + " HTTP/1.1\n< HTTP/1.1 401 Unauthorized\n< X-Request-Id: " + secret + "\n<\n{\"message\":\"bad " + secret + "\"}",
		"Go":        `POST "https://api.example.com/v1?key=` + secret + `": 401 Unauthorized {"error":{"message":"API key ` + secret + ` invalid"}}`,
		"a log":     `{"level":50,"req":{"url":"/x?key=` + secret + `","headers":{"authorization":"Bearer ` + secret + `","cookie":"a=b; sid=` + secret + `"}},"err":{"message":"401 bad ` + secret + `"}}`,
		"a session": "HTTP/1.1 401 Unauthorized\nSet-Cookie: session=" + secret + "; Path=/\n\n{\"message\":\"no session " + secret + "\"}",
		"Node":      "AuthenticationError: 401 bad " + secret + "\n  headers: { 'set-cookie': [ '__cf_bm=" + secret + "; path=/' ] }\n",
		"a JWT":     "HTTP 401 {\"message\":\"bad eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0." + secret + "\"}",
		"a link":    "HTTP 401 {\"message\":\"see https://user:" + secret + "@example.com/?token=" + secret + "\"}",
	} {
		for _, args := range [][]string{{"explain"}, {"explain", "--json"}, {"explain", "--lang", "zh", "-v"}} {
			out, errs, _ := run(t, text, args...)
			assert.NotContains(t, strings.ToLower(out+errs), strings.ToLower(secret), name)
		}
	}
}

// A paste is read in time linear to it, up to 1 MiB.
func TestExplainWorstCases(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector slows it down")
	}
	for _, s := range []string{"{", "{'", `{"`, "{a:", "[", "<", "\x1b[", "> ", "401 ", "HTTP/1.1 401\n", "status: ", "request id: ", `{"a":`, "\\", "（请求 ID："} {
		best := func(size int) time.Duration {
			text, least := strings.Repeat(s, size/len(s)), time.Hour
			for range 3 {
				began := time.Now()
				run(t, text, "explain")
				least = min(least, time.Since(began))
			}
			return least
		}
		part, whole := best(128<<10), best(3<<20)
		assert.Less(t, whole, 3*time.Second, "3 MiB of %q", s)
		assert.Less(t, whole, 24*part+100*time.Millisecond, "of 3 MiB of %q, 8 times as much is read as of 128 KiB", s)
	}
}

// The README shows what the command prints.
func TestReadmeShowsTheSeed(t *testing.T) {
	for _, name := range []string{"../../README.md", "../../../../docs/command.md"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		_, rest, ok := strings.Cut(string(text), "$ reauth explain \"")
		require.True(t, ok, name)
		arg, rest, _ := strings.Cut(rest, "\"\n")
		shown, _, _ := strings.Cut(rest, "```")
		out, _, status := run(t, "", "explain", "--lang", "en", arg)
		assert.Equal(t, exitHelps, status)
		assert.True(t, strings.HasPrefix(out, shown), "%s shows %q, and not %q", name, shown, out)
	}
}

// FuzzExplain has explain read anything: it ends with one of its exit statuses, in time, and
// does not print the token that curl -v shows.
//
//	go test -run XXX -fuzz FuzzExplain -fuzztime 10m .
func FuzzExplain(f *testing.F) {
	const secret = "fuzz-secret-0123456789abcdef"
	for _, seed := range []string{
		`Error code: 401 - {'error': {'code': '', 'message': '无效的令牌 (request id: 20260219100814161456584b503l5fK)', 'type': 'new_api_error'}}`,
		"HTTP/1.1 401 Unauthorized\r\nWww-Authenticate: Bearer error=\"invalid_token\"\r\nX-Request-Id: 7\r\n\r\n{\"error\":\"invalid_token\"}",
		"> GET / HTTP/2\n> Cookie: a=b\n< HTTP/2 403\n< content-type: application/json\n<\n{\"message\":\"ExpiredToken\"}",
		`{"log":{"entries":[{"request":{"headers":[{"name":"Authorization","value":"Bearer x"}]},"response":{"status":401,"content":{"text":"{}"}}}]}}`,
		"openai.AuthenticationError: 401 Incorrect API key provided",
		"AuthenticationError: 401 {\n  status: 401,\n  headers: Headers { 'x-request-id': 'req_1' },\n  error: { message: 'x' }\n}",
		`{"time":"2026-01-01T00:00:00Z","level":"ERROR","msg":"call failed","status":401,"body":"{\"error\":\"token expired\"}"}`,
		"\x1b[31m> > 429 Too Many Requests\x1b[0m", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		began := time.Now()
		out, errs, status := run(t, text+"\n> Authorization: Bearer "+secret+"\n< HTTP/1.1 401 Unauthorized\n<\n{\"message\":\"bad "+secret+"\"}\n", "explain")
		took := time.Since(began)
		if !slices.Contains([]int{exitHelps, exitNoHelp, exitUndecided}, status) {
			t.Errorf("exit status %d: %s", status, errs)
		}
		if strings.Contains(out+errs, secret) {
			t.Errorf("it prints the token: %q", out)
		}
		if !utf8.ValidString(out) {
			t.Errorf("it prints what is no UTF-8: %q", out)
		}
		if took > 2*time.Second {
			t.Errorf("it takes %v for %d bytes", took, len(text))
		}
	})
}
