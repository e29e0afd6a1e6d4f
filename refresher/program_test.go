package refresher_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// What the helpers of others print, by their documentation.
func TestProgramReadsTheOutputOf(t *testing.T) {
	expiry := time.Date(2033, 5, 18, 3, 33, 20, 0, time.UTC) // 2000000000
	for name, tt := range map[string]struct {
		output, pointer string
		want            reauth.Token
	}{
		"gcloud config config-helper --format=json": {
			`{"configuration":{"active_configuration":"default"},"credential":{"access_token":"T1","id_token":"I1","token_expiry":"2033-05-18T03:33:20Z"},"sentinels":{}}`,
			"/credential", reauth.Token{AccessToken: "T1", Expiry: expiry},
		},
		"git credential fill": {
			"protocol=https\nhost=example.com\nusername=oauth2\npassword=T1\npassword_expiry_utc=2000000000\noauth_refresh_token=R1\n",
			"", reauth.Token{AccessToken: "T1", RefreshToken: "R1", Expiry: expiry},
		},
		"docker-credential-pass get": {`{"ServerURL":"registry.example.com","Username":"<token>","Secret":"T1"}`, "/Secret", reauth.Token{AccessToken: "T1"}},
		"an AWS credential_process": {
			`{"Version":1,"AccessKeyId":"AKIA","SecretAccessKey":"s","SessionToken":"T1","Expiration":"2033-05-18T03:33:20Z"}`,
			"/SessionToken", reauth.Token{AccessToken: "T1", Expiry: expiry},
		},
		"a plugin for kubectl": {
			`{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"T1","expirationTimestamp":"2033-05-18T03:33:20Z"}}`,
			"", reauth.Token{AccessToken: "T1", Expiry: expiry},
		},
		"az account get-access-token": {`{"accessToken":"T1","expiresOn":"2033-05-18 03:33:20.000000","expires_on":2000000000,"tokenType":"Bearer"}`, "", reauth.Token{AccessToken: "T1", TokenType: "Bearer", Expiry: expiry}},
		"a token alone":               {"T1\n", "", reauth.Token{AccessToken: "T1"}},
	} {
		t.Run(name, func(t *testing.T) {
			tok, err := (&refresher.Program{Args: program("print", tt.output), Pointer: tt.pointer}).Refresh(t.Context(), reauth.Stale{})
			require.NoError(t, err)
			assert.True(t, tt.want.Expiry.Equal(tok.Expiry), tok.Expiry)
			tok.Expiry = tt.want.Expiry
			assert.Equal(t, tt.want, tok)
		})
	}
}

func TestProgramPrintsNoArguments(t *testing.T) {
	p := &refresher.Program{Args: []string{"helper", "--password", "the-password"}, Stdin: "the-password", Env: []string{"P=the-password"}}
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v %+v", p, p, p, *p), "the-password")
	_, err := (&refresher.Program{}).Refresh(t.Context(), reauth.Stale{})
	assert.ErrorContains(t, err, "no program")
	_, err = (&refresher.Program{Args: []string{"x"}, Pointer: "a"}).Refresh(t.Context(), reauth.Stale{})
	assert.ErrorContains(t, err, "slash")
}
