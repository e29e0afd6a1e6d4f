package recognize

import (
	"bytes"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/mask"
)

// RequestID returns the server's id of a request, of the headers of the response and of
// the beginning of its body; "" if there is none. It is printable and bounded.
func RequestID(h http.Header, body []byte) string {
	id, rank := headerRequestID(h)
	if len(body) > 0 {
		if e := explain(h, body); e.idRank > rank {
			id = e.requestID
		}
	}
	return mask.Bounded(id, MaxRequestID)
}

// IsText reports whether a body with these headers may be an error in words, and no
// event stream.
func IsText(h http.Header) bool {
	t := strings.ToLower(httpx.First(h, "Content-Type"))
	return t == "" || strings.Contains(t, "json") || strings.Contains(t, "xml") || strings.HasPrefix(t, "text/") && !strings.HasPrefix(t, "text/event-stream")
}

// headerRequestID returns the request id of the header whose name promises most,
// and how much that is.
func headerRequestID(h http.Header) (id string, best int) {
	found := ""
	for k, vv := range h {
		rank := requestIDRank(k)
		if rank == 0 || rank < best || rank == best && k > found { // of two alike, always the same
			continue
		}
		for _, v := range vv {
			if strings.HasPrefix(v, "{") { // X-Gitlab-Meta
				e := &explanation{}
				e.json(v)
				v = e.requestID
			}
			if v = mask.Bounded(v, MaxRequestID); v != "" {
				id, best, found = v, rank, k
				break
			}
		}
	}
	return id, best
}

// promising reports whether a header's name has a pair of letters that every
// name with a rank has: of id, trace or ray, meta, reference. Most have none.
func promising(name string) bool {
	for i := 1; i < len(name); i++ {
		switch uint16(name[i-1]|0x20)<<8 | uint16(name[i]|0x20) {
		case 'i'<<8 | 'd', 'r'<<8 | 'a', 'm'<<8 | 'e', 'r'<<8 | 'e':
			return true
		}
	}
	return false
}

// An idSubject is what an id is of, and what a name with it promises: the higher, the more
// the id was made for the support desk. A header is the server's and its proxies', a
// member of an error is the error's.
type idSubject struct {
	name           string
	header, member int
	fused          bool // also behind other letters: X-Arequestid
	clear          bool // a text with this label means no other id
}

var idSubjects = [...]idSubject{
	{"request", 90, 78, true, true}, {"req", 90, 78, false, true},
	{"error", 70, 95, true, false}, {"debug", 70, 94, true, false}, {"incident", 70, 94, true, false}, {"support", 70, 94, true, false},
	{"log", 70, 77, false, true}, {"tracking", 70, 77, true, false}, {"exception", 60, 76, true, false}, {"invocation", 60, 76, true, false},
	{"query", 70, 74, true, false}, {"transaction", 70, 74, true, true}, {"activity", 50, 74, true, false},
	{"correlation", 50, 75, true, true}, {"operation", 50, 50, true, false}, {"event", 30, 55, false, false},
	{"fbtrace", 70, 77, false, true}, {"trace", 40, 60, true, true}, {"ray", 60, 60, false, false},
}

// idWords end the names of ids.
var idWords = [...]string{"identifier", "uuid", "guid", "id"}

// labelledRank is that of a request id in a text. What a server writes into its
// error it means for the reader, other than most headers.
const labelledRank = 76

// idSubjectOf returns what a name in the spelling of spaced is an id of: of what stands
// before its last word, if that is "id" or the like. ok is false for another name, and
// for the id that the client chose.
func idSubjectOf(name []byte) (s idSubject, ok bool) {
	for _, w := range idWords {
		if stem, found := bytes.CutSuffix(name, []byte(w)); found {
			return subjectOf(bytes.TrimSuffix(stem, []byte{'-'}))
		}
	}
	return idSubject{}, false
}

func subjectOf(stem []byte) (s idSubject, ok bool) {
	for _, s := range idSubjects {
		before, found := bytes.CutSuffix(stem, []byte(s.name))
		if found && (s.fused || len(before) == 0 || before[len(before)-1] == '-') {
			if bytes.Contains(before, []byte("correlation")) {
				s.header, s.member = 50, 75 // of several requests
			}
			return s, !bytes.Contains(before, []byte("client")) && !bytes.Contains(before, []byte("parent")) && !bytes.Contains(before, []byte("span"))
		}
	}
	return idSubject{}, false
}

// spaced appends a name to b, in small letters, with a hyphen between its words.
// X-Request-ID, xRequestId and "x request id" are the same.
func spaced(b []byte, name string) []byte {
	var last byte
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			if 'a' <= last && last <= 'z' {
				b = append(b, '-')
			}
			b = append(b, c|0x20)
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b = append(b, c)
		case len(b) > 0 && b[len(b)-1] != '-':
			b = append(b, '-')
		}
		last = c
	}
	return b
}

// requestIDRank returns what a header's name promises, 0 for none. A vendor's own request
// id comes first, then the customary ones, then those of logs and errors, and last what
// belongs to a proxy or a trace.
func requestIDRank(name string) int {
	var room [64]byte
	if len(name) > len(room)/2 || !promising(name) {
		return 0
	}
	n := spaced(room[:0], name)
	switch string(n) {
	case "x-request-id":
		return 80
	case "request-id":
		return 79
	case "x-gitlab-meta":
		return 85
	case "audit-id", "apns-id", "intuit-tid", "cf-ray", "x-vercel-id", "x-azure-ref":
		return 60
	case "x-amz-cf-id":
		return 55
	case "traceparent":
		return 10
	case "x-cloud-trace-context", "x-amzn-trace-id":
		return 20
	}
	if bytes.HasSuffix(n, []byte("tracetoken")) {
		return 70
	}
	if s, ok := idSubjectOf(n); ok {
		return s.header
	}
	return 0
}

// memberRank is requestIDRank for the name of a member, and of the object that it is in:
// {"request": {"id": …}}, {"request": "b8f0…"}.
func memberRank(key, parent, v string) int {
	if len(key) > 32 {
		return 0
	}
	var room [64]byte
	n := spaced(room[:0], key)
	s, ok := idSubject{}, false
	switch string(n) {
	case "traceparent":
		return 5
	case "id", "uuid", "guid", "identifier":
		if len(parent) > 32 || !looksLikeID(v) {
			return 0
		}
		s, ok = subjectOf(spaced(room[:0], parent))
	case "request", "trace", "correlation", "incident":
		if !looksLikeID(v) {
			return 0
		}
		s, ok = subjectOf(n)
	default:
		s, ok = idSubjectOf(n)
	}
	if !ok {
		return 0
	}
	return s.member
}

// looksLikeID reports whether v could be an id, and hardly a word or a sentence: of 16
// characters or more, with a digit and no blank.
func looksLikeID(v string) bool {
	return len(v) >= 16 && len(v) <= MaxRequestID && strings.ContainsAny(v, "0123456789") && !strings.ContainsAny(v, " \t\r\n/")
}

// What stands before a request id in other languages. The vague labels may stand before
// something else: there, only what looks like an id is one.
var (
	labels      = []string{"请求 id", "请求id", "請求 id", "請求id", "リクエストid", "リクエスト id", "요청 id", "요청id"}
	vagueLabels = []string{"cray", "rid", "hint", "reference", "reference number", "ref"}
)

// labelled returns the request id that a text gives in words: "(request id: …)",
// "（请求 ID：…）", "Request ID:" on the line before, request_id=….
func labelled(text string) string {
	for i := 0; i < len(text); i++ {
		n := 1
		switch {
		case text[i] == ':', text[i] == '=':
		case text[i] == "："[0] && strings.HasPrefix(text[i:], "："):
			n = len("：")
		default:
			continue
		}
		found, clear := label(text[:i])
		if !found {
			continue
		}
		value := strings.TrimLeft(text[i+n:min(len(text), i+n+2*MaxRequestID)], " \t\r\n\"'[")
		end := strings.IndexFunc(value, func(r rune) bool {
			return unicode.IsSpace(r) || r == '）' || strings.ContainsRune("\"'()[]{},;<>&|", r)
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

// label reports whether a text ends in the label of a request id, and whether that can
// be no other id.
func label(text string) (found, clear bool) {
	text = strings.TrimRight(text[max(0, len(text)-32):], " \t\"'")
	for _, l := range labels {
		if n := len(text) - len(l); n >= 0 && strings.EqualFold(text[n:], l) {
			return true, true
		}
	}
	words := text[1+strings.LastIndexFunc(text, func(r rune) bool {
		return r >= utf8.RuneSelf || !isWordByte(byte(r)) && r != ' ' && r != '-'
	}):]
	var room [64]byte
	name := spaced(room[:0], words)
	if s, ok := idSubjectOf(name); ok {
		return true, s.clear
	}
	for _, l := range vagueLabels {
		if before, ok := bytes.CutSuffix(name, []byte(l)); ok && (len(before) == 0 || before[len(before)-1] == '-') {
			return true, false
		}
	}
	return false, false
}

func isWordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}
