package recognize

import (
	"bytes"
	"net/http"
	"strings"

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
// name with a rank has: of id, trace or ray, meta, correlation. Most have none.
func promising(name string) bool {
	for i := 1; i < len(name); i++ {
		switch uint16(name[i-1]|0x20)<<8 | uint16(name[i]|0x20) {
		case 'i'<<8 | 'd', 'r'<<8 | 'a', 'm'<<8 | 'e', 'r'<<8 | 'e':
			return true
		}
	}
	return false
}

// requestIDRank returns what a header's name promises: the higher, the more the
// id was made for the support desk; 0 for none. A vendor's own request id comes
// first, then the customary ones, then those of logs and errors, and last what
// belongs to a proxy, a trace or the client.
func requestIDRank(name string) int {
	var room [48]byte
	if len(name) > len(room) || !promising(name) {
		return 0
	}
	n := room[:0]
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case 'A' <= c && c <= 'Z':
			n = append(n, c|0x20)
		case c != '-' && c != '_':
			n = append(n, c)
		}
	}
	has := func(s string) bool { return bytes.Contains(n, []byte(s)) }
	switch string(n) {
	case "xrequestid":
		return 80
	case "requestid":
		return 79
	case "xgitlabmeta":
		return 85
	case "auditid", "apnsid", "intuittid", "cfray", "xvercelid", "xazureref":
		return 60
	case "xamzcfid":
		return 55
	case "traceparent":
		return 10
	case "xcloudtracecontext", "xamzntraceid":
		return 20
	}
	switch {
	case has("client"), has("parent"), has("span"):
		return 0
	case has("correlation"), has("activityid"), has("operationid"):
		return 50
	case has("requestid"), has("reqid"):
		return 90
	case has("queryid"), has("debugid"), has("trackingid"), has("logid"), has("errorid"), has("incidentid"), has("supportid"), has("tracetoken"), has("transactionid"):
		return 70
	case has("traceid"):
		return 40
	}
	return 0
}
