// Package paste finds HTTP responses in what people paste: raw HTTP, curl -v, a HAR, the
// error texts of Python, JavaScript and Go, JSON log lines, a forum's page around them.
package paste

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxBytes is how much of a paste is read.
const MaxBytes = 1 << 20

// A Response is one that a paste shows, as far as it does.
type Response struct {
	Status  int         // 0 if it is not shown
	Header  http.Header // what is shown of it
	Body    []byte
	Request http.Header // of the request, as shown; it has secrets
	Secrets []string    // other secrets that are shown
}

// HTTP returns it as an http.Response, whose body is to be given beside it.
func (r *Response) HTTP() *http.Response {
	h := r.Header
	if h == nil {
		h = http.Header{}
	}
	return &http.Response{StatusCode: r.Status, Header: h, Body: http.NoBody, Request: &http.Request{Header: r.Request}}
}

// Find returns the responses of a paste: of a HAR all that are errors, of anything else
// one, which may show nothing but its text.
func Find(text []byte) []*Response {
	s := clean(text)
	if all := har(s); all != nil {
		found := secrets(s)
		for _, r := range all {
			r.Secrets = append(r.Secrets, found...)
		}
		return all
	}
	r := wire(s)
	if r == nil {
		r = prose(s)
	}
	r.Secrets = append(r.Secrets, secrets(s)...)
	return []*Response{r}
}

var ansi = regexp.MustCompile("\x1b\\[[0-9;?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(\x07|\x1b\\\\)?")

// What texts show of secrets: headers that hold one, cookies, and queries of URLs.
var (
	credentialLine = regexp.MustCompile(`(?i)\b(?:(?:proxy-)?authorization|(?:[a-z-]*-)?api-?key|[a-z-]*-token)["']?[ \t]*[:=][ \t]*["']?(?:(?:bearer|basic|token|apikey)[ \t]+)?([^\s"',;]{8,})`)
	cookieLine     = regexp.MustCompile(`(?i)\bcookie["']?[ \t]*[:=][ \t\[]*["']?([^"'\n\]]+)`)
	cookiePair     = regexp.MustCompile(`=([^;\s,]{4,})`)
	requestIDName  = regexp.MustCompile(`(?i)^(log|request|trace|correlation)[-_]?id$`)
	queryValue     = regexp.MustCompile(`[?&]([A-Za-z0-9_.\-\[\]%]+)=([^&\s"'<>#\\)]{4,})`)
)

// maxSecrets is how many secrets of a text are looked for.
const maxSecrets = 200

// secrets returns the secrets that a text shows, also where its form does not say that they
// are the request's. What has no digit, and is short, is taken for a word.
func secrets(s string) (all []string) {
	note := func(value string) {
		if (strings.ContainsAny(value, "0123456789") || len(value) >= 16) && len(all) < maxSecrets {
			all = append(all, value)
		}
	}
	for _, m := range credentialLine.FindAllStringSubmatch(s, 10*maxSecrets) {
		note(m[1])
	}
	for _, m := range queryValue.FindAllStringSubmatch(s, 10*maxSecrets) {
		if requestIDName.MatchString(m[1]) {
			continue // of a page that explains the error
		}
		note(m[2])
		if plain, err := url.QueryUnescape(m[2]); err == nil && plain != m[2] {
			note(plain)
		}
	}
	for _, m := range cookieLine.FindAllStringSubmatch(s, 10*maxSecrets) {
		for _, pair := range cookiePair.FindAllStringSubmatch(m[1], maxSecrets) {
			note(pair[1])
		}
	}
	return all
}

// clientPhrase is what clients say of a status: it is not the server's.
var clientPhrase = regexp.MustCompile(`\b([45][0-9][0-9]) (?:Client|Server) Error: [A-Za-z ]* for url: \S*|\b(?:Client|Server) error '([45][0-9][0-9]) [A-Za-z ]*' for url '[^'\n]*'(?:\s*For more information check: \S*)?`)

// clean returns the text without colours, carriage returns, and the quoting of mails.
func clean(text []byte) string {
	s := strings.ToValidUTF8(string(text[:min(len(text), MaxBytes)]), "\uFFFD")
	s = strings.TrimPrefix(s, "\uFEFF")
	if strings.Contains(s, "&#39;") || strings.Contains(s, "&quot;") || strings.Contains(s, "&#34;") { // of a page's source
		s = html.UnescapeString(s)
	}
	if strings.Contains(s, "\x1b") {
		s = ansi.ReplaceAllString(s, "")
	}
	s = strings.ReplaceAll(s, "\r\n", "\n")
	for range 3 { // a quotation may be quoted
		quoted, other := 0, 0
		for line := range strings.Lines(s) {
			switch t := strings.TrimSpace(line); {
			case t == "":
			case strings.HasPrefix(t, ">") && !isRequestLine(t):
				quoted++
			default:
				other++
			}
		}
		if quoted == 0 || other > quoted {
			return s
		}
		var b strings.Builder
		for line := range strings.Lines(s) {
			t := strings.TrimLeft(line, " \t")
			if strings.HasPrefix(t, ">") {
				t = strings.TrimPrefix(t[1:], " ")
			}
			b.WriteString(t)
		}
		s = b.String()
	}
	return s
}

var requestLine = regexp.MustCompile(`^> ([A-Z]+ \S+ HTTP/|[A-Za-z-]+: )`)

// isRequestLine reports whether a line is one of curl -v, and no quotation.
func isRequestLine(line string) bool { return requestLine.MatchString(line) }

// A harFile is what is needed of an HTTP Archive.
type harFile struct {
	Log struct {
		Entries []struct {
			Request struct {
				Headers []harField `json:"headers"`
				Cookies []harField `json:"cookies"`
				Query   []harField `json:"queryString"`
			} `json:"request"`
			Response struct {
				Status  int        `json:"status"`
				Headers []harField `json:"headers"`
				Content struct {
					Text     string `json:"text"`
					Encoding string `json:"encoding"`
				} `json:"content"`
			} `json:"response"`
		} `json:"entries"`
	} `json:"log"`
}

type harField struct{ Name, Value string }

func headerOf(fields []harField) http.Header {
	h := http.Header{}
	for _, f := range fields {
		if !strings.HasPrefix(f.Name, ":") {
			h.Add(f.Name, f.Value)
		}
	}
	return h
}

// har returns the errors of a HAR, all of its responses if none is one, or nil for
// another text.
func har(s string) (errs []*Response) {
	if t := strings.TrimSpace(s); !strings.HasPrefix(t, "{") || !strings.Contains(t, `"entries"`) {
		return nil
	}
	var f harFile
	if json.Unmarshal([]byte(s), &f) != nil {
		return nil
	}
	var all []*Response
	for _, e := range f.Log.Entries {
		r := &Response{Status: e.Response.Status, Header: headerOf(e.Response.Headers), Request: headerOf(e.Request.Headers)}
		for _, f := range append(e.Request.Cookies, e.Request.Query...) {
			r.Secrets = append(r.Secrets, f.Value)
		}
		if r.Body = []byte(e.Response.Content.Text); e.Response.Content.Encoding == "base64" {
			if b, err := base64.StdEncoding.DecodeString(e.Response.Content.Text); err == nil {
				r.Body = b
			}
		}
		r.Header.Del("Content-Encoding") // a HAR has the text
		if all = append(all, r); r.Status >= 400 {
			errs = append(errs, r)
		}
	}
	if errs == nil {
		return all
	}
	return errs
}

var statusLine = regexp.MustCompile(`(?m)^(< )?HTTP/[0-9.]+ ([1-5][0-9][0-9])\b`)

// wire returns the last response of raw HTTP, or of curl -v; nil for another text.
func wire(s string) *Response {
	at := statusLine.FindAllStringSubmatchIndex(s, -1)
	if at == nil {
		return nil
	}
	last := at[len(at)-1]
	for i := len(at) - 1; i >= 0; i-- { // an error is what people ask about
		if s[at[i][4]] >= '4' {
			last = at[i]
			break
		}
	}
	r := &Response{Header: http.Header{}, Request: http.Header{}}
	r.Status, _ = strconv.Atoi(s[last[4]:last[5]])
	curl := last[2] >= 0
	for line := range strings.Lines(s[:last[0]]) { // the request's
		if t, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "> "); ok || !curl {
			field(r.Request, t)
		}
	}
	rest := s[last[0]:]
	_, rest, _ = strings.Cut(rest, "\n")
	var body strings.Builder
	inBody := false
	for line := range strings.Lines(rest) {
		t := strings.TrimRight(line, "\n")
		switch {
		case inBody && !curl:
			body.WriteString(line)
		case !curl && strings.TrimSpace(t) == "":
			inBody = true
		case !curl:
			field(r.Header, t)
		case strings.HasPrefix(t, "< ") || t == "<":
			field(r.Header, strings.TrimPrefix(t, "< "))
		case strings.HasPrefix(t, "* "), strings.HasPrefix(t, "{ ["), strings.HasPrefix(t, "} ["), progress.MatchString(t):
		default:
			body.WriteString(noise.ReplaceAllString(line, ""))
		}
	}
	r.Header.Del("Content-Encoding") // what can be pasted was decoded
	r.Body = []byte(strings.TrimSpace(body.String()))
	return r
}

var (
	progress = regexp.MustCompile(`^\s*(% Total|Dload|[0-9]+\s+[0-9]+\s+[0-9]+\s+[0-9]+)`)
	noise    = regexp.MustCompile(`\* (Connection #[0-9]+ to host .* left intact|Closing connection.*)\n?$`)
)

// field adds a line of a header.
func field(h http.Header, line string) {
	name, value, ok := strings.Cut(line, ":")
	if ok && name != "" && !strings.ContainsAny(name, " \t{\"'<") {
		h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
}

// How texts show a status, the most telling first.
var statuses = []*regexp.Regexp{
	regexp.MustCompile(`"https?://[^"\s]*": ([1-5][0-9][0-9]) `), // Go
	regexp.MustCompile(`\b[Ee]rror code: ([1-5][0-9][0-9])\b`),
	regexp.MustCompile(`(?i)\bstatus[ _-]?code["']?\s*[:=]?\s*([1-5][0-9][0-9])\b`),
	regexp.MustCompile(`(?i)["']?\bstatus["']?\s*[:=]\s*["']?([1-5][0-9][0-9])\b`),
	regexp.MustCompile(`(?i)\bHTTP(?:/[0-9.]+)?(?: error)?[ :]+([1-5][0-9][0-9])\b`),
	regexp.MustCompile(`\b([45][0-9][0-9]) (?:Client|Server) Error\b`),
	regexp.MustCompile(`\b([45][0-9][0-9])\b[ :-]*(?:Unauthorized|Forbidden|Payment Required|Too Many Requests|Bad Request|Not Found|UNAUTHORIZED|Authorization Required|\{)`),
	regexp.MustCompile(`(?i)(?:Error|returned|response|failed|answered|with|:)[ :(]+([45][0-9][0-9])\b`),
	regexp.MustCompile(`"(?:code|statusCode|errorCode)"\s*:\s*"?([45][0-9][0-9])\b`),
}

// prose returns the response that a text is about.
func prose(s string) *Response {
	if strings.Contains(s, `{\"`) && !strings.Contains(s, `{"`) { // within quotes, as in a log of key=value
		s = strings.ReplaceAll(s, `\"`, `"`)
	}
	r := &Response{Header: http.Header{}, Request: http.Header{}}
	for _, re := range statuses {
		if m := re.FindStringSubmatch(s); m != nil {
			r.Status, _ = strconv.Atoi(m[1])
			break
		}
	}
	for line := range strings.Lines(s) {
		if t := strings.TrimSpace(line); headerLine.MatchString(t) {
			name, _, _ := strings.Cut(t, ":")
			if name = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, ">"))); name == "authorization" || name == "cookie" || strings.HasSuffix(name, "api-key") {
				field(r.Request, strings.TrimSpace(strings.TrimPrefix(t, ">")))
			} else {
				field(r.Header, t)
			}
		}
	}
	r.Header.Del("Content-Encoding")
	if r.Status != 0 {
		s = clientPhrase.ReplaceAllString(s, "HTTP $1$2")
	}
	r.Body = []byte(s)
	if o := object(s); o != nil {
		r.Body = o
		if wrapped(r, o) {
			return r
		}
	}
	return r
}

var headerLine = regexp.MustCompile(`(?i)^(> ?)?(www-authenticate|authorization|cookie|x-[a-z-]*(?:request|trace|correlation)-?id|request-id|cf-ray|x-api-key|api-key)\s*:`)

// wrapped unwraps a log line or an error object that has the response in a member.
func wrapped(r *Response, o []byte) bool {
	var members map[string]json.RawMessage
	if json.Unmarshal(o, &members) != nil {
		return false
	}
	var status int
	for _, name := range []string{"status", "statusCode", "status_code", "code", "http_status"} {
		if n, err := strconv.Atoi(strings.Trim(string(members[name]), `"`)); err == nil && n >= 100 && n < 600 {
			status = n
			break
		}
	}
	if r.Status == 0 {
		r.Status = status
	}
	if r.Status == 0 || status == 0 {
		return false
	}
	var headers map[string]any
	if json.Unmarshal(members["headers"], &headers) == nil {
		for k, v := range headers {
			switch v := v.(type) {
			case string:
				r.Header.Add(k, v)
			case []any:
				for _, v := range v {
					if s, ok := v.(string); ok {
						r.Header.Add(k, s)
					}
				}
			}
		}
		r.Header.Del("Content-Encoding")
	}
	for _, name := range []string{"body", "response_body", "responseBody", "response", "data", "error"} {
		raw := bytes.TrimSpace(members[name])
		var text string
		switch {
		case len(raw) == 0, name == "error" && raw[0] != '{':
			continue
		case json.Unmarshal(raw, &text) == nil && text != "":
			r.Body = []byte(text)
			return true
		case raw[0] == '{' || raw[0] == '[':
			r.Body = raw
			return true
		}
	}
	return false
}

// object returns the JSON of the object in a text that says most: the first that is
// complete and has a message, else the longest complete one, else one that was cut off.
// An object of Python's or JavaScript's is made JSON.
func object(s string) (best []byte) {
	const most = 50 // objects
	cut, budget := -1, MaxBytes
	for i, n := 0, 0; i < len(s) && n < most && budget > 0; n++ {
		at := strings.IndexByte(s[i:], '{')
		if at < 0 {
			break
		}
		at += i
		text, end, complete := literal(s[at:])
		budget -= end
		if !complete {
			if cut < 0 {
				cut = at
			}
			i = at + 1 + strings.IndexByte(s[at+1:]+"{", '{')
			continue
		}
		i = at + end
		if !json.Valid(text) {
			continue
		}
		if errorish.Match(text) {
			return text
		}
		if len(text) > len(best) {
			best = text
		}
	}
	if best == nil && cut >= 0 {
		text, _, _ := literal(s[cut:])
		return text
	}
	return best
}

var errorish = regexp.MustCompile(`(?i)"(message|msg|error|errors|error_description|detail|code|errcode|reason|fault)"\s*:`)

// literal reads an object of JSON, Python or JavaScript from the beginning of s. It
// returns it as JSON, how much of s it is, and whether it is complete.
func literal(s string) (out []byte, end int, complete bool) {
	const most = 256 << 10
	s = s[:min(len(s), most)]
	var b bytes.Buffer
	depth := 0
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '{', c == '[':
			depth++
			b.WriteByte(c)
			i++
		case c == '}', c == ']':
			depth--
			trimComma(&b)
			b.WriteByte(c)
			i++
			if depth == 0 {
				return b.Bytes(), i, true
			}
		case c == '"', c == '\'', c == '`':
			text, n, ok := quoted(s[i:])
			if !ok {
				b.WriteString(s[i:])
				return b.Bytes(), len(s), false
			}
			q, _ := json.Marshal(text)
			b.Write(q)
			i += n
		case isName(c):
			n := 1
			for i+n < len(s) && (isName(s[i+n]) || s[i+n] == '.' || s[i+n] == '+' || s[i+n] == '-') {
				n++
			}
			b.WriteString(word(s[i : i+n]))
			i += n
		case c == '-' && i+1 < len(s) && isName(s[i+1]):
			b.WriteByte(c)
			i++
		case c == '(' || c == ')': // Headers({…}), of JavaScript's
			i++
		case c < utf8.RuneSelf && strings.IndexByte(" \t\n,:", c) >= 0:
			b.WriteByte(c)
			i++
		default:
			return b.Bytes(), i, false // no object
		}
	}
	return b.Bytes(), len(s), false
}

// trimComma removes a comma before a closing bracket.
func trimComma(b *bytes.Buffer) {
	if t := bytes.TrimRight(b.Bytes(), " \t\n"); bytes.HasSuffix(t, []byte{','}) {
		b.Truncate(len(t) - 1)
	}
}

func isName(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '$'
}

// word returns a name or a value without quotes as JSON.
func word(w string) string {
	switch w {
	case "true", "false", "null":
		return w
	case "True":
		return "true"
	case "False":
		return "false"
	case "None", "undefined", "NaN":
		return "null"
	}
	if _, err := strconv.ParseFloat(w, 64); err == nil && json.Valid([]byte(w)) {
		return w
	}
	q, _ := json.Marshal(w)
	return string(q)
}

// quoted reads a string in quotes of either kind, with the escapes of JSON, Python and
// JavaScript.
func quoted(s string) (text string, n int, ok bool) {
	q := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == q:
			return b.String(), i + 1, true
		case c == '\\' && i+1 < len(s):
			i++
			switch e := s[i]; e {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case 'b', 'f':
				b.WriteByte(' ')
			case 'u', 'x':
				digits := 4
				if e == 'x' {
					digits = 2
				}
				if i+digits < len(s) {
					if r, err := strconv.ParseUint(s[i+1:i+1+digits], 16, 32); err == nil {
						if lead := rune(r); 0xD800 <= lead && lead < 0xDC00 && strings.HasPrefix(s[i+5:], `\u`) && i+10 < len(s) {
							if low, err := strconv.ParseUint(s[i+7:i+11], 16, 32); err == nil {
								b.WriteRune((lead-0xD800)<<10 + (rune(low) - 0xDC00) + 0x10000)
								i += 10
								continue
							}
						}
						b.WriteRune(rune(r))
						i += digits
						continue
					}
				}
				b.WriteByte(e)
			case '\n':
			default:
				b.WriteByte(e)
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), len(s), false
}
