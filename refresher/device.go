package refresher

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
)

const (
	defaultInterval = 5 * time.Second // RFC 8628 §3.2
	slowDown        = 5 * time.Second // RFC 8628 §3.5
	maxInterval     = time.Minute
	defaultCodeLife = 15 * time.Minute
)

// DeviceLogin logs a user in with the device authorization grant (RFC 8628). It calls
// show once, with the code and the address that the user must open. It then polls the
// server until the user has agreed, the code has expired, or ctx ends. If the server
// cannot be reached or is busy, it polls less often (RFC 8628 §3.5). The caller passes
// the token to Credential.Set. An error names the endpoint that failed.
func (o *OAuth2) DeviceLogin(ctx context.Context, show func(*oauth2.DeviceAuthResponse) error) (reauth.Token, error) {
	device, err := o.deviceCode(ctx)
	if err == nil {
		err = show(device)
	}
	if err != nil {
		return reauth.Token{}, fmt.Errorf("device login: %w", err)
	}
	polling, cancel := context.WithDeadline(ctx, device.Expiry)
	defer cancel()
	tok, err := o.poll(polling, device)
	switch {
	case err != nil && ctx.Err() != nil:
		return reauth.Token{}, fmt.Errorf("device login: %w", context.Cause(ctx))
	case err != nil && polling.Err() != nil:
		return reauth.Token{}, fmt.Errorf("device login: the code expired before the user had entered it, begin again: %w", err)
	case err != nil:
		return reauth.Token{}, fmt.Errorf("device login: %w", err)
	}
	return tok, nil
}

// deviceCode asks for a device code (RFC 8628 §3.1).
func (o *OAuth2) deviceCode(ctx context.Context) (*oauth2.DeviceAuthResponse, error) {
	g := grant{endpoint: "device authorization endpoint"}
	form := o.firstParams()
	if scopes := union(o.Config.Scopes, strings.Fields(form.Get("scope"))); len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	form.Set("client_id", o.Config.ClientID)
	a, err := o.post(ctx, o.Config.Endpoint.DeviceAuthURL, form, g, o.secrets(form))
	if err != nil {
		return nil, err
	}
	d := &oauth2.DeviceAuthResponse{
		DeviceCode:              text(a.members, []string{"device_code"}),
		UserCode:                text(a.members, []string{"user_code"}),
		VerificationURI:         text(a.members, []string{"verification_uri", "verification_url"}), // the latter is Google's
		VerificationURIComplete: text(a.members, []string{"verification_uri_complete", "verification_url_complete"}),
	}
	if a.StatusCode >= 300 || a.code != "" {
		return nil, a.refused(g, o.secrets(form))
	}
	if d.DeviceCode == "" {
		return nil, errors.New("the answer of the device authorization endpoint has no device_code: check that the client may use the device flow")
	}
	life, ok := seconds(a.members["expires_in"])
	if !ok {
		life = defaultCodeLife
	}
	d.Expiry = a.sent.Add(life)
	interval, ok := seconds(a.members["interval"])
	if !ok {
		interval = defaultInterval
	}
	d.Interval = int64((interval + time.Second - 1) / time.Second)
	return d, nil
}

// poll asks for the token until the user has entered the code (RFC 8628 §3.4).
func (o *OAuth2) poll(ctx context.Context, device *oauth2.DeviceAuthResponse) (reauth.Token, error) {
	form := o.firstParams()
	form.Set("grant_type", "urn:ietf:params:oauth:grant-type:device_code")
	form.Set("device_code", device.DeviceCode)
	form.Set("client_id", o.Config.ClientID)
	interval := time.Duration(device.Interval) * time.Second
	wait := interval
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return reauth.Token{}, context.Cause(ctx)
		}
		tok, err := o.token(ctx, o.Config.Endpoint.TokenURL, form, grant{login: true, polled: true}, o.secrets(form))
		var refused *oauth2.RetrieveError
		switch {
		case err == nil:
			return tok, nil
		case reauth.IsPermanent(err):
			return reauth.Token{}, err
		case !errors.As(err, &refused): // no answer
			wait = min(2*wait, max(interval, maxInterval))
		case refused.ErrorCode == "authorization_pending":
			wait = interval
		case refused.ErrorCode == "slow_down":
			interval += slowDown
			wait = interval
		case refused.Response.StatusCode >= 500 || refused.Response.StatusCode == http.StatusTooManyRequests ||
			refused.Response.StatusCode == http.StatusRequestTimeout || busyCodes[folded(refused.ErrorCode)]:
			wait = min(2*wait, max(interval, maxInterval))
			var asks retryAfterError
			if errors.As(err, &asks) {
				wait = max(wait, asks.after)
			}
		default:
			return reauth.Token{}, err
		}
	}
}

// firstParams returns the first value of each of the Params.
func (o *OAuth2) firstParams() url.Values {
	form := url.Values{}
	for name := range o.Params {
		form.Set(name, o.Params.Get(name))
	}
	return form
}
