package refresher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth/internal/mask"
)

// Discover gets the endpoints of an authorization server from its metadata (RFC 8414,
// OpenID Connect Discovery). It sets the fields of Config.Endpoint, RevocationURL and
// Issuer that are not set. It must be called before the first use of o.
//
// issuer is the issuer's identifier, a URL, or the address of the metadata itself. It
// may also be the resource_metadata in the challenge of a protected resource, such as
// an MCP server (RFC 9728 §5.1). The first authorization server in it is then the
// issuer. If Params has no resource, the resource is set there (RFC 8707).
func (o *OAuth2) Discover(ctx context.Context, issuer string) error {
	if strings.Contains(issuer, "/.well-known/oauth-protected-resource") {
		m, err := o.metadata(ctx, issuer)
		if err != nil {
			return fmt.Errorf("discovery: %w", err)
		}
		var servers []string
		if json.Unmarshal(m["authorization_servers"], &servers) != nil || len(servers) == 0 {
			return fmt.Errorf("discovery: %s names no authorization server", shownURL(issuer))
		}
		if resource := text(m, []string{"resource"}); resource != "" && o.Params.Get("resource") == "" {
			if o.Params == nil {
				o.Params = url.Values{}
			}
			o.Params.Set("resource", resource)
		}
		issuer = servers[0]
	}
	var failed []error
	for _, address := range wellKnown(issuer) {
		m, err := o.metadata(ctx, address)
		if err == nil {
			err = o.adopt(m, issuer)
		}
		if err == nil {
			return nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("discovery: %w", errors.Join(failed...))
}

// wellKnown returns where the metadata of an issuer may be (RFC 8414 §3.1, §5).
func wellKnown(issuer string) []string {
	u, err := url.Parse(issuer)
	if err != nil || strings.Contains(u.Path, "/.well-known/") {
		return []string{issuer}
	}
	path := strings.TrimSuffix(u.Path, "/")
	root := *u
	root.Path, root.RawQuery = "", ""
	all := []string{
		root.String() + "/.well-known/oauth-authorization-server" + path,
		root.String() + path + "/.well-known/openid-configuration",
		root.String() + "/.well-known/openid-configuration" + path,
	}
	return slices.Compact(all)
}

// metadata returns a JSON object.
func (o *OAuth2) metadata(ctx context.Context, address string) (object, error) {
	if err := secure(address); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	e := newEndpoint(ctx, o.Base, false)
	defer e.stop()
	a, err := e.send(req)
	switch {
	case err != nil:
		return nil, mask.Err(shownURL(address)+": ", err)
	case a.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answered %d", shownURL(address), a.StatusCode)
	case a.members == nil:
		return nil, fmt.Errorf("%s is not a JSON object", shownURL(address))
	}
	return a.members, nil
}

// adopt sets the fields that are not set from the metadata.
func (o *OAuth2) adopt(m object, issuer string) error {
	name := text(m, []string{"issuer"})
	if name != issuer && !strings.Contains(issuer, "/.well-known/") { // RFC 8414 §3.3
		return fmt.Errorf("the metadata is that of the issuer %s, not of %s", shownURL(name), shownURL(issuer))
	}
	token := text(m, []string{"token_endpoint"})
	if token == "" {
		return fmt.Errorf("the metadata of %s has no token_endpoint", shownURL(issuer))
	}
	end := &o.Config.Endpoint
	found := map[*string]string{
		&end.TokenURL:      token,
		&end.AuthURL:       text(m, []string{"authorization_endpoint"}),
		&end.DeviceAuthURL: text(m, []string{"device_authorization_endpoint"}),
		&o.RevocationURL:   text(m, []string{"revocation_endpoint"}),
	}
	for _, address := range found {
		if err := secure(address); address != "" && err != nil {
			return err
		}
	}
	for field, address := range found {
		*field = or(*field, address)
	}
	var methods []string
	if json.Unmarshal(m["token_endpoint_auth_methods_supported"], &methods) == nil && end.AuthStyle == oauth2.AuthStyleAutoDetect &&
		slices.Contains(methods, "client_secret_post") && !slices.Contains(methods, "client_secret_basic") {
		end.AuthStyle = oauth2.AuthStyleInParams
	}
	o.Issuer = or(o.Issuer, name)
	_ = json.Unmarshal(m["authorization_response_iss_parameter_supported"], &o.issRequired)
	return nil
}
