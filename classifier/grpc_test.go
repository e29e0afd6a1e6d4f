package classifier_test

import (
	"net/http"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
)

func grpcResponse(status int, contentType, grpcStatus, grpcMessage string) *http.Response {
	return response(status, "", "Content-Type", contentType, "Grpc-Status", grpcStatus, "Grpc-Message", grpcMessage)
}

func TestGRPC(t *testing.T) {
	const grpc = "application/grpc"
	for _, tt := range []struct {
		name                             string
		status                           int
		contentType, grpcStatus, message string
		want                             reauth.Reason
		says                             string
	}{
		{"expired", 200, grpc, "16", "token%20is%20expired", reauth.ReasonExpired, "token is expired"},
		{"revoked", 200, grpc, "16", "the token has been revoked", reauth.ReasonRevoked, "the token has been revoked"},
		{"invalid", 200, grpc + "+proto", "16", "invalid token", reauth.ReasonInvalidToken, "invalid token"},
		{"in Chinese", 200, grpc, "16", "%E4%BB%A4%E7%89%8C%E5%B7%B2%E8%BF%87%E6%9C%9F", reauth.ReasonExpired, "令牌已过期"},
		{"says nothing", 200, grpc, "16", "", reauth.ReasonUnspecified, ""},
		{"scope", 200, grpc, "16", "insufficient scope: needs admin", reauth.ReasonInsufficientScope, "insufficient scope: needs admin"},
		{"badly encoded", 200, grpc, "16", "token expired 100%, %zz%2", reauth.ReasonExpired, "token expired 100%, %zz%2"},
		{"gRPC-Web", 200, "application/grpc-web+proto", "16", "invalid token", reauth.ReasonInvalidToken, "invalid token"},
		{"permission denied", 200, grpc, "7", "token expired", "", ""},
		{"OK", 200, grpc, "0", "", "", ""},
		{"no status", 200, grpc, "", "token expired", "", ""},
		{"another status", 200, grpc, "160", "", "", ""},
		{"no gRPC", 200, "application/json", "16", "token expired", "", ""},
		{"Connect", 200, "application/connect+json", "16", "token expired", "", ""},
		{"HTTP error", 503, grpc, "16", "token expired", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := grpcResponse(tt.status, tt.contentType, tt.grpcStatus, tt.message)
			rej := classifier.GRPC().Classify(resp, func() []byte {
				assert.Fail(t, "the body was read")
				return nil
			})
			assert.Equal(t, tt.want, rej.Reason)
			assert.Equal(t, tt.contentType, resp.Header.Get("Content-Type"), "the response is not touched")
			if tt.want == "" {
				assert.Zero(t, rej)
				return
			}
			assert.Equal(t, "16", rej.Code)
			assert.Equal(t, tt.says, rej.Message)
			assert.Equal(t, tt.status, rej.StatusCode)
		})
	}
}

// A unary call of Connect, and what grpc-gateway makes of a status, need no Classifier.
func TestUnauthenticatedConnectCallIsUnderstoodByDefault(t *testing.T) {
	for body, want := range map[string]reauth.Reason{
		`{"code":"unauthenticated"}`:                                   reauth.ReasonUnspecified,
		`{"code":"unauthenticated","message":"token expired"}`:         reauth.ReasonExpired,
		`{"code":"unauthenticated","message":"invalid token"}`:         reauth.ReasonInvalidToken,
		`{"code":16,"message":"token is expired","details":[]}`:        reauth.ReasonExpired,
		`{"code":"unauthenticated","message":"insufficient scope: x"}`: reauth.ReasonInsufficientScope,
	} {
		c := classifier.Chain(classifier.GRPC(), nil)
		assert.Equal(t, want, classify(c, response(401, body), body).Reason, body)
		denied := `{"code":"permission_denied","message":"token expired"}`
		assert.Zero(t, classify(c, response(403, denied), denied))
	}
}

func FuzzGRPC(f *testing.F) {
	f.Add("application/grpc", "token%20is%20expired")
	f.Add("application/grpc-web+proto", "%e4%bb%a4%")
	f.Add("application/grpc", "%0A%1b%00%ff")
	f.Fuzz(func(t *testing.T, contentType, message string) {
		rej := classify(classifier.GRPC(), grpcResponse(200, contentType, "16", message), "")
		assert.LessOrEqual(t, utf8.RuneCountInString(rej.Message), 550)
		assert.True(t, utf8.ValidString(rej.Message))
		assert.NotContains(t, rej.Message+rej.RequestID, "\n")
	})
}
