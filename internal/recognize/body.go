package recognize

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

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
	messages      bool // there is a member of that name
	upstream      bool // a gateway hides whose key was refused

	words                      sentenceReader
	codeRank, textRank, idRank int // of code, message and requestID
	nested                     bool
}

// The members of a JSON error that are known by name, in the spelling of
// folded. The rank says which of several counts.
var (
	codeMembers = map[string]int{
		"code": 9, "errorcode": 9, "errcode": 8, "error": 7, "tag": 7, "reason": 6, "errortype": 6, "type": 5, "name": 4, "status": 3, "category": 3, "id": 2,
	}
	textMembers = map[string]int{
		"message": 9, "errordescription": 9, "msg": 8, "errmsg": 8, "errormsg": 8, "errormessage": 8, "detail": 7, "details": 5, "errorsummary": 7,
		"description": 7, "developermessage": 7, "title": 4, "error": 6, "errors": 6, "reason": 3, "text": 3,
	}
	idMembers = map[string]int{
		"errorid": 95, "debugid": 94, "supportid": 94, "incidentid": 94, "requestid": 78, "reqid": 78, "logid": 77, "fbtraceid": 77, "trackingid": 77,
		"xrequestid": 78, "requestuuid": 78, "requestguid": 78, "transactionid": 74, "activityid": 74, "queryid": 74,
		"correlationid": 75, "traceid": 60, "traceparent": 5,
	}
	// These say nothing about the token.
	ignoredMembers = map[string]bool{
		"help": true, "hint": true, "documentation": true, "documentationurl": true, "docurl": true, "docs": true, "moreinfo": true, "link": true,
		"links": true, "href": true, "url": true, "uri": true, "see": true, "path": true, "instance": true, "resource": true, "trace": true,
		"stack": true, "stacktrace": true, "timestamp": true, "date": true, "method": true, "param": true, "troubleshooter": true,
	}
)

// labelledRank is that of a request id in a text. What a server writes into its
// error it means for the reader, other than most headers.
const labelledRank = 76

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
	body = decoded(h, body)
	switch text := bytes.TrimLeft(body, " \t\r\n"); {
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
	case e.expired && (r == InsufficientScope || e.found.weak): // in its prose only
		e.found = finding{Reason: Expired}
	case e.words.uncertain && r == OtherScheme: // "the user or the token is invalid"
		e.found = finding{Reason: InvalidToken}
	}
	return e
}

// maxDecoded bounds what is decompressed.
const maxDecoded = 64 << 10

// decoded returns the body's text: unzipped where it is gzip-coded, within the
// same bound, and without a byte order mark.
func decoded(h http.Header, body []byte) []byte {
	switch strings.ToLower(strings.TrimSpace(httpx.First(h, "Content-Encoding"))) {
	case "", "identity":
	case "gzip", "x-gzip":
		zr, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil
		}
		body, _ = io.ReadAll(io.LimitReader(zr, maxDecoded)) // cut off is no error
	default: // nobody here can read it
		return nil
	}
	return bytes.TrimPrefix(body, []byte("\uFEFF"))
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
	if rank := idMembers[key]; rank > e.idRank && v != "" {
		e.requestID, e.idRank = v, rank
	}
}

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
	blank := strings.ContainsAny(v, " \n") || v[len(v)-1] >= 0x80
	if rank := codeMembers[key]; !blank && rank > e.codeRank && v != "401" {
		e.code, e.codeRank = v, rank
	}
	e.upstream = e.upstream || strings.Contains(v, "https://***")
	if ignoredMembers[key] {
		return
	}
	if rank := 1 + textMembers[key]; (blank || rank > 6) && rank > e.textRank {
		e.message, e.textRank = v, rank
	}
	if e.idRank < labelledRank {
		if id := labelled(v[max(0, len(v)-maxText):]); id != "" {
			e.requestID, e.idRank = id, labelledRank
		}
	}
	if strings.HasPrefix(v, "http://") || strings.HasPrefix(v, "https://") || idMembers[key] > 0 {
		return
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

// What stands before a request id in a text, and the colon behind. The vague
// ones may stand before something else: there, only what looks like an id is one.
var (
	labels = []string{"request id", "request_id", "request-id", "requestid", "req_id", "x-request-id", "请求 id", "请求id", "請求 id", "請求id", "リクエストid", "リクエスト id", "요청 id", "correlation id", "transaction id",
		"correlation_id", "trace id", "traceid", "trace_id", "log id", "log_id", "logid"}
	vagueLabels = []string{"cray", "ray id", "rid", "hint", "reference", "error id", "incident id", "support id", "tracking id"}
)

// labelled returns the request id that a text gives in words: "(request id: …)",
// "（请求 ID：…）", "Request ID:" on the line before.
func labelled(text string) string {
	for i := 0; i < len(text); i++ {
		n := 1
		switch {
		case text[i] == ':':
		case text[i] == "："[0] && strings.HasPrefix(text[i:], "："):
			n = len("：")
		default:
			continue
		}
		before := strings.TrimRight(text[:i], " \t\"'")
		clear := endsIn(before, labels)
		if !clear && !endsIn(before, vagueLabels) {
			continue
		}
		value := strings.TrimLeft(text[i+n:], " \t\r\n\"'[")
		end := strings.IndexFunc(value, func(r rune) bool {
			return unicode.IsSpace(r) || r == '）' || strings.ContainsRune("\"'()[]{},;<>", r)
		})
		if end < 0 {
			end = len(value)
		}
		value = strings.TrimRight(value[:end], ".")
		if value != "" && (clear || len(value) >= 6 && strings.ContainsAny(value, "0123456789")) {
			return value
		}
	}
	return ""
}

// endsIn reports whether s ends in one of the labels, as a word.
func endsIn(s string, labels []string) bool {
	for _, l := range labels {
		if n := len(s) - len(l); n >= 0 && strings.EqualFold(s[n:], l) && (n == 0 || l[0] >= utf8.RuneSelf || !isBase64(s[n-1])) {
			return true
		}
	}
	return false
}

func isBlank(c byte) bool { return c <= ' ' || c == 0x7f }

func isBase64(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~+/", c) >= 0
}
