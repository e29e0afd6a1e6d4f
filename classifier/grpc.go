package classifier

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/httpx"
)

// GRPC returns a Classifier for gRPC and gRPC-Web over an http.RoundTripper, as the client
// of connectrpc.com/connect sends them. A rejection is a 200 whose Content-Type begins with
// application/grpc and whose Grpc-Status is 16 (UNAUTHENTICATED). The reason is what
// Grpc-Message says ("token is expired"), else unspecified. Other statuses are no
// rejections, 7 (PERMISSION_DENIED) among them.
//
// GRPC reads the header alone. The status is there if the response has no message
// (Trailers-Only). A status in the trailers arrives after the body, which only the caller
// reads: GRPC does not see it, and the call is not retried. grpc-go and gRPC-Web servers
// send the error of a call without messages in the header. The server of connect sends it
// in the trailers for gRPC, and in the header for gRPC-Web.
//
// The Connect protocol needs no Classifier of its own. The error of a unary call is a 401
// with {"code":"unauthenticated"}, which reauth.DefaultClassifier understands. The error of
// a stream is the last message of a 200, and no Classifier sees it.
//
// grpc-go does not use an http.RoundTripper: see module grpcreauth.
//
// Sources: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md (Responses),
// https://github.com/grpc/grpc/blob/master/doc/statuscodes.md and
// https://connectrpc.com/docs/protocol.
func GRPC() reauth.Classifier {
	const unauthenticated = "16"
	return reauth.ClassifierFunc(func(resp *http.Response, _ func() []byte) reauth.Rejection {
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(mediaType(resp), "application/grpc") || httpx.First(resp.Header, "Grpc-Status") != unauthenticated {
			return reauth.Rejection{}
		}
		message, err := json.Marshal(map[string]string{"message": percentDecoded(httpx.First(resp.Header, "Grpc-Message"))})
		if err != nil {
			return reauth.Rejection{}
		}
		said := *resp
		said.Header = resp.Header.Clone()
		said.Header.Set("Content-Type", "application/json")
		said.Header.Del("Content-Encoding")
		rej := understood(&said, func() []byte { return message })
		rej.Code = unauthenticated
		return rej
	})
}

// percentDecoded returns the text of a Grpc-Message. What is not encoded as it should be
// is left as it is.
func percentDecoded(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+3 <= len(s) {
			if c, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
