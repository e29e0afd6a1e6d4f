package classifier

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/jsonpointer"
)

// JSON returns a Classifier for servers that reject a token by the value of a JSON member,
// as gateways do that answer 200 and {"code":40101,"msg":…}. pointer is a JSON pointer
// (RFC 6901) to the member, such as /code or /error/code. reasons has the values that are
// rejections. A value is a string or a number, as the server writes it: "40101" is both.
//
//	classifier.JSON("/code", map[string]reauth.Reason{
//		"40101": reauth.ReasonExpired,
//		"40102": reauth.ReasonRevoked,
//	})
//
// A response without the member, or with another value, is no rejection. A redirect is
// none. Any other status may be one.
//
// The request is sent again if the Reason is refreshable. It is the caller's responsibility
// that such values mean that the server has not carried out the request.
//
// A success whose length is not known is read only if it was compressed; see [GraphQL]. One
// of more than 64 KiB is not read.
//
// JSON panics if pointer is not empty and does not begin with a slash. It keeps a copy of
// reasons.
func JSON(pointer string, reasons map[string]reauth.Reason) reauth.Classifier {
	if pointer != "" && pointer[0] != '/' {
		panic(fmt.Sprintf("classifier: the JSON pointer %q has to begin with a slash", pointer))
	}
	names := jsonpointer.Names(pointer)
	byValue := make(map[scalar]reauth.Reason, len(reasons))
	for value, reason := range reasons {
		byValue[scalar(value)] = reason
	}
	delete(byValue, "") // of another type
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusMultipleChoices && resp.StatusCode < http.StatusBadRequest || !isDocument(resp) {
			return reauth.Rejection{}
		}
		raw := json.RawMessage(text(resp, body))
		if !json.Valid(raw) {
			return reauth.Rejection{}
		}
		for _, name := range names {
			var ok bool
			if raw, ok = jsonpointer.Member(raw, name); !ok {
				return reauth.Rejection{}
			}
		}
		var value scalar
		if json.Unmarshal(raw, &value) != nil {
			return reauth.Rejection{}
		}
		return rejected(resp, body, byValue[value], string(value))
	})
}
