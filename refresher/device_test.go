package refresher_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth/refresher"
)

func showNothing(*oauth2.DeviceAuthResponse) error { return nil }

// polled is a server whose device code lives for ten minutes, and whose token endpoint
// answers the nth poll as said.
func polled(device string, poll func(n int) (*http.Response, error)) (*refresher.OAuth2, *oauthServer) {
	polls := 0
	server := &oauthServer{answer: func(_ int, req *http.Request, form url.Values) (*http.Response, error) {
		if form.Get("device_code") == "" {
			return oauthAnswer(200, device), nil
		}
		polls++
		return poll(polls)
	}}
	o := oauthApp(server)
	o.Config.Endpoint.DeviceAuthURL = "https://issuer.example/device"
	return o, server
}

func TestDeviceLoginGoesOnWhileTheServerCannotAnswer(t *testing.T) {
	const device = `{"device_code":"D","user_code":"U","verification_uri":"https://issuer.example/","expires_in":600,"interval":5}`
	for name, failure := range map[string]func() (*http.Response, error){
		"500":            oauthSays(500, ""),
		"502":            oauthSays(502, "<html>"),
		"503":            oauthSays(503, "", "Retry-After", "7"),
		"429":            oauthSays(429, ""),
		"408":            oauthSays(408, ""),
		"busy, in a 400": oauthSays(400, `{"error":"temporarily_unavailable"}`),
		"no network":     func() (*http.Response, error) { return nil, errors.New("dial tcp: no route to host") },
		"a timeout":      func() (*http.Response, error) { return nil, context.DeadlineExceeded },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				back := time.Now().Add(5 * time.Minute)
				o, server := polled(device, func(n int) (*http.Response, error) {
					if time.Now().Before(back) {
						return failure()
					}
					return oauthToken(n), nil
				})
				_, err := o.DeviceLogin(t.Context(), showNothing)
				require.NoError(t, err)
				assert.Less(t, time.Since(back), 61*time.Second)
				times := server.times()
				assert.Less(t, len(times), 15, "ever more seldom")
				for i := 2; i < len(times); i++ {
					assert.GreaterOrEqual(t, times[i]-times[i-1], 5*time.Second, "no hurry")
				}
			})
		})
	}
}

func TestDeviceLoginEndsWithItsCodeThoughTheNetworkIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		o, _ := polled(`{"device_code":"D","user_code":"U","verification_uri":"https://issuer.example/","expires_in":600}`, func(int) (*http.Response, error) {
			return nil, errors.New("no route to host")
		})
		_, err := o.DeviceLogin(t.Context(), showNothing)
		require.ErrorContains(t, err, "the code expired")
		assert.Equal(t, 10*time.Minute, time.Since(start))
	})
}

func TestDeviceLoginIntervals(t *testing.T) {
	for interval, want := range map[string]time.Duration{`"5"`: 5 * time.Second, `5.0`: 5 * time.Second, `7`: 7 * time.Second, `null`: 5 * time.Second, `0.5`: time.Second} {
		synctest.Test(t, func(t *testing.T) {
			o, server := polled(`{"device_code":"D","user_code":"U","verification_url":"https://issuer.example/","expires_in":"600","interval":`+interval+`}`, func(n int) (*http.Response, error) {
				switch n {
				case 1, 3:
					return oauthError(400, "authorization_pending"), nil
				case 2:
					return oauthError(400, "slow_down"), nil
				}
				return oauthToken(n), nil
			})
			_, err := o.DeviceLogin(t.Context(), func(d *oauth2.DeviceAuthResponse) error {
				assert.Equal(t, "https://issuer.example/", d.VerificationURI)
				return nil
			})
			require.NoError(t, err)
			at := server.times()
			require.Len(t, at, 5)
			assert.Equal(t, []time.Duration{want, want, want + 5*time.Second, want + 5*time.Second},
				[]time.Duration{at[1] - at[0], at[2] - at[1], at[3] - at[2], at[4] - at[3]}, interval)
		})
	}
}

func TestDeviceLoginAuthenticatesTheClientAtBothEndpoints(t *testing.T) {
	const device = `{"device_code":"D","user_code":"U","verification_uri":"https://issuer.example/"}`
	for style, authenticated := range map[oauth2.AuthStyle]func(oauthSend) bool{
		oauth2.AuthStyleInHeader: func(s oauthSend) bool { return strings.HasPrefix(s.header.Get("Authorization"), "Basic ") },
		oauth2.AuthStyleInParams: func(s oauthSend) bool { return s.form.Get("client_secret") == oauthSecret },
	} {
		synctest.Test(t, func(t *testing.T) {
			o, server := polled(device, func(n int) (*http.Response, error) { return oauthToken(n), nil })
			o.Config.Endpoint.AuthStyle = style
			tok, err := o.DeviceLogin(t.Context(), showNothing)
			require.NoError(t, err)
			assert.NotEmpty(t, tok.AccessToken)
			require.Len(t, server.seen(), 2)
			for _, send := range server.seen() {
				assert.True(t, authenticated(send))
				assert.Equal(t, "app", send.form.Get("client_id"))
			}
		})
	}
}

func TestDeviceLoginErrorsNameTheEndpoint(t *testing.T) {
	const device = `{"device_code":"D","user_code":"U","verification_uri":"https://issuer.example/"}`
	synctest.Test(t, func(t *testing.T) {
		o, _ := polled(device, func(int) (*http.Response, error) { return oauthError(400, "access_denied"), nil })
		_, err := o.DeviceLogin(t.Context(), showNothing)
		assert.ErrorContains(t, err, "the token endpoint answered 400 access_denied")

		o = oauthApp(oauthAnswers(oauthSays(404, "")))
		o.Config.Endpoint.DeviceAuthURL = "https://issuer.example/device"
		_, err = o.DeviceLogin(t.Context(), showNothing)
		assert.ErrorContains(t, err, "the device authorization endpoint answered 404")

		o = oauthApp(oauthAnswers(oauthBreaks))
		o.Config.Endpoint.DeviceAuthURL = "https://issuer.example/device"
		_, err = o.DeviceLogin(t.Context(), showNothing)
		assert.ErrorContains(t, err, "device authorization endpoint")
	})
}
