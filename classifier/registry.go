package classifier

import (
	"net/http"
	"strings"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/challenge"
)

// Registry returns a Classifier for registries of container images: a 401 whose Bearer
// challenge names a realm and a scope asks for a token with that scope, whatever the
// request carried, and so also where the token was good but its scope was not enough.
// Its reason is reauth.ReasonClaims. See refresher.Registry.
func Registry() reauth.Classifier {
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		if resp.StatusCode != http.StatusUnauthorized {
			return reauth.Rejection{}
		}
		for _, c := range challenge.Parse(resp.Header) {
			if strings.EqualFold(c.Scheme, "Bearer") && c.Params["realm"] != "" && c.Params["scope"] != "" {
				return rejected(resp, body, reauth.ReasonClaims, "")
			}
		}
		return reauth.Rejection{}
	})
}
