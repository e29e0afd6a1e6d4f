package classifier_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
)

func TestRegistry(t *testing.T) {
	for challenge, want := range map[string]reauth.Reason{
		`Bearer realm="https://auth.example/token",service="r",scope="repository:a:pull"`:                            reauth.ReasonClaims,
		`Bearer realm="https://auth.example/token",service="r",scope="repository:a:pull",error="insufficient_scope"`: reauth.ReasonClaims,
		`Basic realm="x", Bearer realm="https://auth.example/token",scope="repository:a:pull"`:                       reauth.ReasonClaims,
		`Bearer realm="https://auth.example/token",service="r"`:                                                      "",
		`Bearer scope="a"`: "",
		`Basic realm="x"`:  "",
	} {
		for status, want := range map[int]reauth.Reason{http.StatusUnauthorized: want, http.StatusForbidden: "", http.StatusOK: ""} {
			resp := &http.Response{StatusCode: status, Header: http.Header{"Www-Authenticate": {challenge}}}
			rej := classifier.Registry().Classify(resp, func() []byte { return nil })
			assert.Equal(t, want, rej.Reason, "%d %s", status, challenge)
		}
	}
}
