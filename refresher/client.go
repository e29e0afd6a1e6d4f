package refresher

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
)

// post sends a form to an endpoint, with the client's authentication, and returns the
// answer. If the authentication style is not known and the server rejects the client,
// the same form is sent once more in the other style. That is safe: the server checks
// the client before it uses the grant (RFC 6749 §5.2).
func (o *OAuth2) post(ctx context.Context, address string, form url.Values, g grant, secrets []string) (*answer, error) {
	if err := secure(address); err != nil {
		return nil, reauth.Permanent(err)
	}
	e := newEndpoint(ctx, o.Base, g.once)
	defer e.stop()
	if g.polled {
		e.repeats = 0
	}
	styles := o.authStyles()
	if g.anonymous {
		styles = []oauth2.AuthStyle{anonymous}
	}
	var refused *answer
	for _, style := range styles {
		req, err := o.request(e.ctx, address, form, style)
		if err != nil {
			return nil, err
		}
		a, err := e.send(req)
		if err != nil {
			return nil, e.failed(err, g, secrets)
		}
		switch {
		case !a.refusesClient() && (refused == nil || folded(a.code) != "invalidrequest"):
			if style != anonymous && o.style.Load() != style {
				o.style.Store(style)
			}
			return a, nil
		case refused == nil:
			refused = a
		}
	}
	return refused, nil
}

// anonymous is the style of a grant without client authentication.
const anonymous oauth2.AuthStyle = -1

// request returns a token request.
func (o *OAuth2) request(ctx context.Context, address string, form url.Values, style oauth2.AuthStyle) (*http.Request, error) {
	all := url.Values{}
	for name, values := range form {
		all[name] = values
	}
	switch {
	case style == anonymous:
	case o.ClientAssertion != nil:
		assertion, err := o.ClientAssertion(ctx)
		if err != nil {
			return nil, ofAnother("no client assertion: ", err)
		}
		if assertion = strings.TrimSpace(assertion); assertion == "" {
			return nil, errors.New("no client assertion: OAuth2.ClientAssertion returned an empty one")
		}
		all.Set("client_id", o.Config.ClientID)
		all.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		all.Set("client_assertion", assertion)
	case style == oauth2.AuthStyleInParams:
		if o.Config.ClientID != "" {
			all.Set("client_id", o.Config.ClientID)
		}
		if o.Config.ClientSecret != "" {
			all.Set("client_secret", o.Config.ClientSecret)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(all.Encode()))
	if err != nil {
		return nil, fmt.Errorf("the endpoint %q is not a URL: set OAuth2.Config.Endpoint", shownURL(address))
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if style == oauth2.AuthStyleInHeader && o.ClientAssertion == nil { // encoded by RFC 6749 §2.3.1
		req.SetBasicAuth(url.QueryEscape(o.Config.ClientID), url.QueryEscape(o.Config.ClientSecret))
	}
	return req, nil
}

// authStyles returns how to authenticate the client, in the order to try.
func (o *OAuth2) authStyles() []oauth2.AuthStyle {
	switch style := o.Config.Endpoint.AuthStyle; {
	case style != oauth2.AuthStyleAutoDetect:
		return []oauth2.AuthStyle{style}
	case o.Config.ClientSecret == "" || o.ClientAssertion != nil:
		return []oauth2.AuthStyle{oauth2.AuthStyleInParams}
	}
	if accepted, _ := o.style.Load().(oauth2.AuthStyle); accepted == oauth2.AuthStyleInParams {
		return []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader}
	}
	return []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams}
}
