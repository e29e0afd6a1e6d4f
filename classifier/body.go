package classifier

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/reauth-go/reauth/internal/httpx"
)

// maxBody is how much of a body reauth lets a Classifier see.
const maxBody = 64 << 10

// isDocument reports whether the body of resp is one whole, small JSON document,
// so that to read it holds up no stream. The Content-Type alone does not tell:
// an array of JSON may come event by event as application/json, too. So the
// length has to be known, and then nothing is waited for but the bytes that are
// on their way. Of a body that was compressed net/http hides the length; it
// counts as a document as well, as those that stream do not compress, and
// most that answer in JSON do. An error is no stream.
func isDocument(resp *http.Response) bool {
	return isJSON(resp) && (resp.StatusCode >= http.StatusBadRequest || resp.Uncompressed || lengthKnown(resp))
}

func lengthKnown(resp *http.Response) bool {
	return resp.ContentLength >= 0 && resp.ContentLength <= maxBody
}

// isJSON reports whether the Content-Type is that of a single JSON value:
// application/json or one that ends in +json, but for Spring's
// application/stream+json. NDJSON, JSON text sequences and event streams are not.
func isJSON(resp *http.Response) bool {
	t := mediaType(resp)
	return t == "application/json" || t == "text/json" || strings.HasSuffix(t, "+json") && t != "application/stream+json"
}

// mediaType returns the Content-Type without its parameters.
func mediaType(resp *http.Response) string {
	t, _, _ := strings.Cut(httpx.First(resp.Header, "Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(t))
}

// decode fills v from the JSON of a body. It reports false where the body is no
// JSON, or was cut off; members that have another type than v's stay zero.
func decode(resp *http.Response, body func() []byte, v any) bool {
	err := json.Unmarshal(text(resp, body), v)
	var mismatch *json.UnmarshalTypeError
	return err == nil || errors.As(err, &mismatch)
}

// text returns the body without a byte order mark, and unzipped where the caller
// asked for gzip and so net/http left that to him.
func text(resp *http.Response, body func() []byte) []byte {
	b := body()
	if strings.EqualFold(httpx.First(resp.Header, "Content-Encoding"), "gzip") {
		zr, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil
		}
		b, _ = io.ReadAll(io.LimitReader(zr, maxBody)) // what is cut off is no JSON
	}
	return bytes.TrimPrefix(b, []byte("\uFEFF"))
}

// A scalar is a JSON string or number, as text: servers write their codes either
// way. Anything else is empty.
type scalar string

func (s *scalar) UnmarshalJSON(b []byte) error {
	*s = ""
	switch c := b[0]; {
	case c == '"':
		return json.Unmarshal(b, (*string)(s))
	case c == '-' || '0' <= c && c <= '9':
		*s = scalar(b)
	}
	return nil
}

// element returns the text of the first XML element with this name, whatever its
// namespace; "" if there is none.
func element(doc []byte, name string) string {
	d := xml.NewDecoder(bytes.NewReader(doc))
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil } // the codes are ASCII
	inside := false
	for {
		tok, err := d.Token()
		if err != nil {
			return ""
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			inside = tok.Name.Local == name
		case xml.CharData:
			if inside {
				return strings.TrimSpace(string(tok))
			}
		case xml.EndElement:
			inside = false
		}
	}
}
