package recognize

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"strings"
	"unicode"

	"github.com/reauth-go/reauth/internal/httpx"
)

// An explanation is what the body of an error says.
type explanation struct {
	code, message string
	requestID     string
	unread        string // the content coding of a body that could not be read
	found         finding
	otherCode     bool // a code says that something else is invalid
	expired       bool // a code says that the token's time is over
	badSignature  bool // a code says that a signature is wrong, which may be the token's
	prose         bool // there is prose that speaks of other things than authentication
	foreignType   bool // the error has a type that is not a gateway's own
	messages      bool // there is a member of that name
	upstream      bool // a gateway hides whose key was refused

	words                      sentenceReader
	codeRank, textRank, idRank int // of code, message and requestID
	nested                     bool
	parent                     string // the member that the current object is of
}

// The members of a JSON error that are known by name, in the spelling of
// folded. The rank says which of several counts.
var (
	codeMembers = map[string]int{
		"code": 9, "errorcode": 9, "errcode": 8, "error": 7, "tag": 7, "reason": 6, "errortype": 6, "type": 5, "name": 4, "status": 3, "category": 3, "id": 2,
	}
	textMembers = map[string]int{
		"message": 9, "errordescription": 9, "msg": 8, "errmsg": 8, "errormsg": 8, "errormessage": 8, "detail": 7, "details": 5, "errorsummary": 7,
		"description": 7, "developermessage": 7, "reason": 6, "explanation": 6, "cause": 5, "info": 4, "faultstring": 8, "usermessage": 6, "longmessage": 6, "statusmessage": 6, "exceptionmessage": 6, "title": 4, "error": 6, "errors": 6, "text": 3,
	}
	// These say nothing about the token.
	ignoredMembers = map[string]bool{
		"help": true, "hint": true, "documentation": true, "documentationurl": true, "docurl": true, "docs": true, "moreinfo": true, "link": true,
		"links": true, "href": true, "url": true, "uri": true, "see": true, "path": true, "instance": true, "resource": true, "trace": true,
		"stack": true, "stacktrace": true, "timestamp": true, "date": true, "method": true, "param": true, "troubleshooter": true,
	}
)

// folded returns a name as the tables above have it.
func folded(name string) string {
	clean := true
	for i := 0; i < len(name); i++ {
		if c := name[i]; c < 'a' || c > 'z' {
			clean = false
			break
		}
	}
	if clean {
		return name
	}
	var b [40]byte
	out := b[:0]
	for i := 0; i < len(name) && len(out) < len(b); i++ {
		switch c := name[i]; {
		case 'A' <= c && c <= 'Z':
			out = append(out, c+'a'-'A')
		case c != '_' && c != '-' && c != '.' && c != ' ' && c != '@':
			out = append(out, c)
		}
	}
	return string(out)
}

// explain reads the body of an error.
func explain(h http.Header, body []byte) *explanation {
	e := &explanation{}
	e.headers(h)
	body, e.unread = decoded(h, body)
	text := bytes.TrimLeft(body, " \t\r\n")
	if len(text) > 1 && (text[0] == '{' || text[0] == '[') && bytes.IndexByte(text, '"') < 0 {
		text = []byte(html.UnescapeString(string(text))) // JSON that a template has escaped
	}
	switch {
	case len(text) == 0:
	case text[0] == '{' || text[0] == '[' || text[0] == '"':
		e.json(string(text))
	case text[0] == '<':
		e.markup(text)
	case text[0] == ':', bytes.HasPrefix(text, []byte("event:")), bytes.HasPrefix(text, []byte("data:")), bytes.HasPrefix(text, []byte("id:")):
		for line := range bytes.Lines(text) {
			if data, ok := bytes.CutPrefix(line, []byte("data:")); ok {
				e.json(string(data))
			}
		}
	default:
		e.fact("", string(text))
	}
	e.found = e.words.found
	switch r := e.found.Reason; {
	case r == InvalidToken && !e.words.token && (e.badSignature || e.words.signed && e.words.request):
		e.found = finding{Reason: RequestSignature}
	case e.foreignType && len(httpx.Values(h, "X-Oneapi-Request-Id")) > 0:
		e.upstream = true
	case e.expired && (r == InsufficientScope || e.found.weak): // in its prose only
		e.found = finding{Reason: Expired}
	case e.words.uncertain && r == OtherScheme: // "the user or the token is invalid"
		e.found = finding{Reason: InvalidToken}
	}
	return e
}

// headers reads the headers that explain an error: X-Amzn-Errortype, X-Ms-Diagnostics.
func (e *explanation) headers(h http.Header) {
	for k, vv := range h {
		if len(k) > 40 || !explains(k) {
			continue
		}
		for _, v := range vv {
			if !strings.HasPrefix(v, "{") { // of the server's own state
				e.words.read(v)
			}
		}
	}
}

// explains reports whether a header's name promises an explanation.
func explains(name string) bool {
	for _, s := range []string{"Error", "error", "Diagnostic", "diagnostic", "Reason", "reason", "Failure", "failure"} {
		if strings.Contains(name, s) {
			return true
		}
	}
	return false
}

// maxDecoded bounds what is decompressed.
const maxDecoded = 64 << 10

// decoded returns the body's text, without a byte order mark: unpacked where it is coded
// in gzip or deflate, within the same bound. Of another coding it returns the name.
func decoded(h http.Header, body []byte) (text []byte, unread string) {
	coding := strings.ToLower(strings.TrimSpace(httpx.First(h, "Content-Encoding")))
	switch coding {
	case "", "identity":
	case "gzip", "x-gzip":
		r, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, coding
		}
		body = readUpTo(r, maxDecoded)
	case "deflate": // zlib's format (RFC 9110 §8.4.1.2), or what some send without its frame
		if r, err := zlib.NewReader(bytes.NewReader(body)); err == nil {
			body = readUpTo(r, maxDecoded)
		} else if body = readUpTo(flate.NewReader(bytes.NewReader(body)), maxDecoded); len(body) == 0 {
			return nil, coding
		}
	default:
		return nil, coding
	}
	return bytes.TrimPrefix(body, []byte("\uFEFF")), ""
}

// readUpTo returns the beginning of what r has; that it is cut off is no error.
func readUpTo(r io.Reader, max int64) []byte {
	b, _ := io.ReadAll(io.LimitReader(r, max))
	return b
}

// json reads the members of JSON: one value or several, whole or cut off. So it looks for
// strings and numbers and the names of their members, and for nothing else.
func (e *explanation) json(s string) {
	var keys [16]string // of the containers around, by depth
	depth, key := 0, ""
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '"':
			raw := s[i+1:]
			end, escaped := stringEnd(raw)
			i += 1 + end + 1
			v := raw[:end]
			if escaped {
				v = unescaped(v)
			}
			next := i
			for next < len(s) && isBlank(s[next]) {
				next++
			}
			if next < len(s) && s[next] == ':' {
				key, i = folded(v), next+1
				e.messages = e.messages || key == "messages"
			} else {
				e.parent = keys[min(depth, len(keys)-1)]
				e.fact(key, v)
			}
		case c == '{', c == '[':
			depth++
			keys[min(depth, len(keys)-1)] = key
			i++
		case c == '}', c == ']':
			key = keys[min(depth, len(keys)-1)]
			depth = max(depth-1, 0)
			i++
		case '0' <= c && c <= '9':
			end := i + 1
			for end < len(s) && (isBase64(s[end]) || s[end] == '+') {
				end++
			}
			e.parent = keys[min(depth, len(keys)-1)]
			e.number(key, s[i:end])
			i = end
		default:
			i++
		}
	}
}

// stringEnd returns where a JSON string ends whose opening quote stands before s,
// and whether it has escapes.
func stringEnd(s string) (end int, escaped bool) {
	for end < len(s) && s[end] != '"' {
		if s[end] == '\\' {
			escaped = true
			end++
		}
		end++
	}
	return min(end, len(s)), escaped
}

// unescaped returns the value of what stands between a JSON string's quotes.
func unescaped(raw string) string {
	var v string
	if json.Unmarshal([]byte(`"`+raw+`"`), &v) != nil {
		return raw
	}
	return v
}

// number takes note of a number.
func (e *explanation) number(key, v string) {
	e.id(key, v)
	if rank := codeMembers[key]; rank > e.codeRank && len(v) > 3 {
		e.code, e.codeRank = v, rank
	}
}

// id takes note of a request id, if that is what the key is for.
func (e *explanation) id(key, v string) {
	if v == "" {
		return
	}
	rank := memberRank(key, e.parent, v)
	if rank > e.idRank {
		e.requestID, e.idRank = v, rank
	}
}

// prose is added to the rank of a text of several words, before a single one's.
const prose = 10

// fact takes note of a text, and of what it says of the token.
func (e *explanation) fact(key, v string) {
	if v == "" {
		return
	}
	e.id(key, v)
	if (strings.HasPrefix(v, "{\"") || strings.HasPrefix(v, "[{")) && !e.nested {
		e.nested = true // once: an error that was wrapped as a string
		e.json(v)
		e.nested = false
		return
	}
	e.messages = e.messages || strings.HasPrefix(v, "Given token") // Simple JWT, of a header's
	e.gateway(key, v)
	blank := strings.ContainsAny(v, " \n") || v[len(v)-1] >= 0x80
	if rank := codeMembers[key]; !blank && rank > e.codeRank && v != "401" && v != "error" && v != "fail" && v != "failure" && v != "fault" {
		e.code, e.codeRank = v, rank
	}
	e.upstream = e.upstream || strings.Contains(v, "https://***")
	if ignoredMembers[key] {
		return
	}
	rank := 1 + textMembers[key]
	if blank {
		rank += prose
	}
	if rank > 6 && rank > e.textRank {
		e.message, e.textRank = v, rank
	}
	if e.idRank < labelledRank {
		if id := labelled(v[max(0, len(v)-maxText):]); id != "" {
			e.requestID, e.idRank = id, labelledRank
		}
	}
	if strings.HasPrefix(v, "http://") || strings.HasPrefix(v, "https://") || memberRank(key, e.parent, v) > 0 {
		return
	}
	if key == "faultcode" { // of SOAP, which begins with whose fault it is
		v = v[1+strings.LastIndexByte(v, ':'):]
		v = strings.TrimPrefix(strings.TrimPrefix(v, "Client."), "Server.")
	}
	before := e.words.found.Reason
	e.words.read(v)
	if blank {
		e.prose = e.prose || e.words.found.Reason == "" && english(v)
		return
	}
	if before == "" && e.words.found.Reason == "" {
		e.otherCode = e.otherCode || namesOther(v)
	}
	if f := e.words.latest; f.Reason == RequestSignature && f.weak && !isClass(v) {
		e.words.note(finding{Reason: RequestSignature}) // a code is no prose
	}
	e.expired = e.expired || e.words.latest.Reason == Expired
	e.badSignature = e.badSignature || codeMembers[key] > 0 && namesSignature(v)
}

// gateway takes note of the type of an error. new-api and one-api give their own errors
// theirs; what they pass on has another's.
func (e *explanation) gateway(key, v string) {
	if key == "type" && e.parent == "error" && v != "" && !strings.HasSuffix(v, "_api_error") && !strings.HasSuffix(v, "_hub_error") {
		e.foreignType = true
	}
}

// namesSignature reports whether a code is about a signature, and of no token:
// INVALID_SIGNATURE. In prose, "invalid signature" is what JWT libraries say, and so is
// the name of their error.
func namesSignature(code string) bool {
	if isClass(code) {
		return false
	}
	code = strings.ToLower(code)
	return strings.Contains(code, "signature") && !strings.Contains(code, "verif") && !strings.Contains(code, "token") && !strings.Contains(code, "jw")
}

// isClass reports whether a code is the name of a class of errors.
func isClass(code string) bool {
	return strings.HasSuffix(code, "Error") || strings.HasSuffix(code, "Exception")
}

// namesOther reports whether a code is "invalid_" and something that is neither
// the request nor its authentication, such as invalid_merchant.
func namesOther(code string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(code), "invalid_")
	if !ok {
		return false
	}
	for _, s := range []string{"auth", "access", "login", "request", "error", "header", "argument", "param", "input", "grant", "cred", "bearer", "response"} {
		if strings.Contains(rest, s) {
			return false
		}
	}
	return true
}

// markup reads the text of HTML and XML; an XML element is a member. It is one loop over
// texts and tags, whose order decides, and so longer than others.
func (e *explanation) markup(body []byte) {
	head := strings.ToLower(string(body[:min(len(body), 256)]))
	page := strings.Contains(head, "<!doctype html") || strings.Contains(head, "<html")
	e.words.page = page
	length := 0
	name := ""
	for len(body) > 0 && length < maxText {
		i := bytes.IndexByte(body, '<')
		if i < 0 {
			i = len(body)
		}
		if text := strings.TrimSpace(html.UnescapeString(string(body[:min(i, maxText)]))); text != "" {
			key := folded(name)
			if page {
				key = ""
			}
			length += len(text)
			e.fact(key, text)
		}
		body = body[i:]
		if len(body) == 0 {
			return
		}
		end := bytes.IndexByte(body, '>')
		if bytes.HasPrefix(body, []byte("<!--")) {
			if end = bytes.Index(body, []byte("-->")); end >= 0 {
				end += 2
			}
		}
		if end < 0 {
			return
		}
		name = strings.ToLower(string(body[1:min(end, 40)]))
		if j := strings.IndexFunc(name, func(r rune) bool { return unicode.IsSpace(r) || r == '/' }); j > 0 {
			name = name[:j]
		}
		if j := strings.LastIndexByte(name, ':'); j >= 0 {
			name = name[j+1:]
		}
		body = body[end+1:]
		if name == "script" || name == "style" {
			j := bytes.Index(body, []byte("</"+name))
			if j < 0 {
				j = len(body)
			}
			if id := labelled(string(body[:min(j, maxText)])); id != "" && e.idRank < 1 {
				e.requestID, e.idRank = id, 1
			}
			body = body[j:]
		}
	}
}

func isBlank(c byte) bool { return c <= ' ' || c == 0x7f }

func isBase64(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~+/", c) >= 0
}
