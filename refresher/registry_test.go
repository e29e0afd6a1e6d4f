package refresher_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

func registryChallenge(realm, scope string) reauth.Challenge {
	return reauth.Challenge{Scheme: "Bearer", Params: map[string]string{"realm": realm, "service": "registry.example", "scope": scope}}
}

func TestRegistryAsksTheRealmForAllScopes(t *testing.T) {
	const realm = "https://auth.example/token?account=a"
	for name, tt := range map[string]struct{ body, want string }{
		"token":                 {`{"token":"T1","expires_in":300}`, "5m0s"},
		"access_token":          {`{"access_token":"T1","expires_in":300,"issued_at":"2000-01-01T00:00:00Z"}`, "5m0s"},
		"both, and no lifetime": {`{"token":"T1","access_token":"T1"}`, "1m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &jsonServer{answer: func(int, *http.Request, map[string]any) (*http.Response, error) {
					return oauthAnswer(200, tt.body), nil
				}}
				r := &refresher.Registry{Username: "ann", Password: "the-password-of-ann", Base: server}
				tok, err := r.Refresh(t.Context(), reauth.Stale{Rejection: reauth.Rejection{Challenges: []reauth.Challenge{
					registryChallenge("https://another.example/token", "repository:elsewhere:pull"),
					registryChallenge(realm, "repository:team/app:pull"),
					{Scheme: "Basic", Params: map[string]string{"realm": "x"}},
					registryChallenge(realm, "repository:team/app:push,pull registry:catalog:*"),
				}}})
				require.NoError(t, err)
				assert.Equal(t, tt.want, time.Until(tok.Expiry).String())
				req := server.seen[0]
				assert.Equal(t, "auth.example", req.URL.Host)
				assert.Equal(t, []string{"repository:team/app:pull,push", "registry:catalog:*"}, req.URL.Query()["scope"])
				assert.Equal(t, "registry.example", req.URL.Query().Get("service"))
				assert.Equal(t, "a", req.URL.Query().Get("account"))
				user, password, _ := req.BasicAuth()
				assert.Equal(t, "ann the-password-of-ann", user+" "+password)
				assert.NotContains(t, fmt.Sprintf("%+v %#v %+v", r, r, *r), "the-password")
			})
		})
	}
}

func TestRegistryTellsThePasswordToNobodyElse(t *testing.T) {
	stale := reauth.Stale{Rejection: reauth.Rejection{Challenges: []reauth.Challenge{registryChallenge("http://auth.example/token", "a:b:pull")}}}
	r := &refresher.Registry{Username: "ann", Password: "the-password-of-ann"}
	_, err := r.Refresh(t.Context(), stale)
	require.ErrorIs(t, err, reauth.ErrInsecure)
	r.Realm = "https://auth.example/token"
	stale.Rejection.Challenges[0].Params["realm"] = "https://evil.example/token"
	_, err = r.Refresh(t.Context(), stale)
	require.ErrorContains(t, err, "evil.example")
	_, err = r.Refresh(t.Context(), reauth.Stale{})
	require.ErrorContains(t, err, "Transport.Anonymous")
	assert.False(t, reauth.IsPermanent(err))
}
