package refresher_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
)

// Whatever stands there, the token beside it is a token, and its expiry is
// unknown or to come.
func FuzzExpiresInOfATokenEndpoint(f *testing.F) {
	for _, c := range oauthLifetimes {
		f.Add(c.json, false)
		f.Add(c.json, true)
	}
	for _, raw := range []string{
		`3600,"expires_in":-1`, `1e-400`, `0x10`, `1_000`, `"0x1p4"`, `"inf"`, `"+Inf"`, `"-inf"`, `"1e309"`, `3600,"Expires_In":"x"`,
		`3600,"expires_in":null`, `"\u0033600"`, "1,\"expire\u017f_in\":{}", `3155760000`, `0.000000001`, `1e-30`, `-0`, `"3600s"`, `"1h"`,
		`"2030-01-01T00:00:00Z"`, `3600,"expiry":"never"`, `{"a":[{}]}`, `"💥"`,
	} {
		f.Add(raw, false)
		f.Add(raw, true)
	}
	f.Fuzz(func(t *testing.T, raw string, asForm bool) {
		body, contentType := `{"access_token":"T1","expires_in":`+raw+`}`, "application/json"
		if asForm {
			body, contentType = url.Values{"access_token": {"T1"}, "expires_in": {raw}}.Encode(), "application/x-www-form-urlencoded"
		} else if !json.Valid([]byte(body)) {
			return
		}
		server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
			return oauthAnswer(200, body, "Content-Type", contentType), nil
		}}
		start := time.Now()
		tok, err := oauthApp(server).Refresh(t.Context(), oauthHeld())
		var members map[string]any
		if !asForm && json.Unmarshal([]byte(body), &members) == nil && (len(members) > 2 || members["access_token"] != "T1") {
			return // more came of it than an expires_in
		}
		require.NoError(t, err, body)
		require.Equal(t, "T1", tok.AccessToken)
		if !tok.Expiry.IsZero() {
			assert.False(t, tok.Expiry.Before(start), tok.Expiry)
			assert.LessOrEqual(t, tok.Expiry.Sub(start), oauthCentury+time.Minute)
			_, err := tok.Expiry.MarshalText()
			assert.NoError(t, err)
		}
	})
}

// Whatever a token endpoint answers: no panic, no token that is none, no second
// request, no error that cannot be logged.
func FuzzTokenEndpoint(f *testing.F) {
	for _, body := range []string{
		``, `null`, `{}`, `[]`, `""`, `1`, `{`, `{"access_token":`, `{"access_token":"T1","refresh_token":"R1","expires_in":3600}`,
		`{"access_token":null,"error":null}`, `{"access_token":["T1"]}`, `{"access_token":"T1","id_token":"a.b.c"}`, `{"access_token":"T1","id_token":"e30.e30.e30"}`,
		`{"access_token":"T1","id_token":".."}`, `{"access_token":"T1","id_token":5}`, `{"error":"invalid_grant","error_description":"it\nhas \u001b[31mexpired"}`,
		`{"error":{"code":5}}`, `{"error":"` + "\x00\xff" + `"}`, `error=invalid_grant&error_description=a%0ab`, `access_token=T1&expires_in=60`, `%zz`, `a=%`, `;`,
		`<html>`, oauthDevice, `{"device_code":"d","interval":-1,"expires_in":-1}`, `{"device_code":"d","interval":1e99}`, `{"device_code":5}`, `{"access_token":"Bearer x"}`,
	} {
		f.Add(200, "application/json", body)
		f.Add(400, "text/plain", body)
		f.Add(401, "application/x-www-form-urlencoded; charset", body)
	}
	f.Add(307, "", "Location")
	f.Add(302, "text/plain", `{"access_token":["T1"]}`) // no URL
	f.Add(204, "text/html", "")
	f.Add(1000, "a/b", "{}")
	grants := append(oauthGrants(), oauthRefresh)
	shown := errors.New("shown")
	f.Fuzz(func(t *testing.T, status int, contentType, body string) {
		if status < 200 || status > 999 || status == 429 || status >= 500 {
			status = 200 // 1xx are not for a Transport to return, and others are waited for
		}
		server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
			return oauthAnswer(status, body, "Content-Type", contentType, "Location", body), nil
		}}
		o := oauthApp(server)
		o.Config.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
		check := func(name string, tok reauth.Token, err error) {
			if err == nil {
				if tok.RefreshToken == "" || name != oauthRefresh.name { // which a Credential keeps in any case
					assert.NoError(t, tok.Validate(), name)
				}
				return
			}
			assert.Zero(t, tok, name)
			for _, r := range err.Error() {
				assert.True(t, r >= ' ' && r != 0x7f && r != utf8.RuneError, "%s: %q", name, err)
			}
			assert.Less(t, len(err.Error()), 2000, name)
			_ = fmt.Sprintf("%+v", err)
		}
		for n, grant := range grants {
			tok, err := grant.get(o).Refresh(t.Context(), oauthHeld())
			check(grant.name, tok, err)
			require.Len(t, server.seen(), n+1)
		}
		_, err := o.DeviceLogin(t.Context(), func(d *oauth2.DeviceAuthResponse) error {
			assert.NotEmpty(t, d.DeviceCode)
			return shown
		})
		check("device", reauth.Token{}, err)
		require.Error(t, err)
	})
}
