package refresher_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
	"github.com/reauth-go/reauth/refresher"
)

// newExampleIssuer is an authorization server on loopback, whose token for a
// grant says which grant that was.
func newExampleIssuer() (*httptest.Server, oauth2.Endpoint) {
	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token": "token-for-%.40s", "expires_in": 3600, "refresh_token": "another"}`, req.FormValue("grant_type"))
	})
	mux.HandleFunc("/device", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"device_code": "d", "user_code": "WDJB-MJHT", "verification_uri": "https://example.com/activate", "interval": 1}`)
	})
	server := httptest.NewServer(mux)
	return server, oauth2.Endpoint{TokenURL: server.URL + "/token", DeviceAuthURL: server.URL + "/device"}
}

// A login has brought a refresh token. Each new one takes its place.
func ExampleOAuth2() {
	server, endpoint := newExampleIssuer()
	defer server.Close()

	issuer := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Endpoint: endpoint}}
	cred := &reauth.Credential{Refresher: issuer}
	_ = cred.Set(context.Background(), reauth.Token{RefreshToken: "from-the-login"})

	tok, err := cred.Token(context.Background())
	fmt.Println(tok.AccessToken, tok.RefreshToken, err)
	// Output: token-for-refresh_token another <nil>
}

// What is printed of a client has no secret in it.
func ExampleOAuth2_String() {
	issuer := &refresher.OAuth2{Config: oauth2.Config{
		ClientID:     "app",
		ClientSecret: "hush",
		Endpoint:     oauth2.Endpoint{TokenURL: "https://issuer.example.com/token"},
	}}
	fmt.Printf("%+v\n", issuer)
	// Output: OAuth2(app at https://issuer.example.com/token)
}

// A service that acts for itself.
func ExampleOAuth2_ClientCredentials() {
	server, endpoint := newExampleIssuer()
	defer server.Close()

	issuer := &refresher.OAuth2{Config: oauth2.Config{
		ClientID:     "service",
		ClientSecret: "from the environment",
		Endpoint:     endpoint,
		Scopes:       []string{"https://api.example.com/.default"},
	}}
	cred := &reauth.Credential{Refresher: issuer.ClientCredentials()}

	tok, err := cred.Token(context.Background())
	fmt.Println(tok.AccessToken, err)
	// Output: token-for-client_credentials <nil>
}

// A service account with a key of its own.
func ExampleOAuth2_JWTBearer() {
	server, endpoint := newExampleIssuer()
	defer server.Close()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		fmt.Println(err)
	}

	issuer := &refresher.OAuth2{Config: oauth2.Config{Endpoint: endpoint}}
	cred := &reauth.Credential{Refresher: issuer.JWTBearer(&jwt.Config{
		Email:      "robot@project.example.com",
		PrivateKey: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	})}

	tok, err := cred.Token(context.Background())
	fmt.Println(tok.AccessToken, err)
	// Output: token-for-urn:ietf:params:oauth:grant-type:jwt-bea <nil>
}

// The key stays in a key management service, which signs.
func ExampleOAuth2_Assertion() {
	server, endpoint := newExampleIssuer()
	defer server.Close()
	sign := func(context.Context) (string, error) { return "header.claims.signature", nil }

	issuer := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Endpoint: endpoint}}
	cred := &reauth.Credential{Refresher: issuer.Assertion(sign)}

	tok, err := cred.Token(context.Background())
	fmt.Println(tok.AccessToken, err)
	// Output: token-for-urn:ietf:params:oauth:grant-type:jwt-bea <nil>
}

// A token of the platform is exchanged for one of the API.
func ExampleOAuth2_TokenExchange() {
	server, endpoint := newExampleIssuer()
	defer server.Close()
	platform := &reauth.Credential{Refresher: refresher.Static("token-of-the-platform")}

	issuer := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Endpoint: endpoint}}
	cred := &reauth.Credential{Refresher: issuer.TokenExchange(refresher.TokenExchange{
		Subject:     platform,
		SubjectType: "urn:ietf:params:oauth:token-type:jwt",
	})}

	tok, err := cred.Token(context.Background())
	fmt.Println(tok.AccessToken, err)
	// Output: token-for-urn:ietf:params:oauth:grant-type:token-e <nil>
}

// A command line logs its user in; afterwards the refresh token does.
func ExampleOAuth2_DeviceLogin() {
	server, endpoint := newExampleIssuer()
	defer server.Close()
	ctx := context.Background()

	issuer := &refresher.OAuth2{Config: oauth2.Config{ClientID: "cli", Endpoint: endpoint}}
	tok, err := issuer.DeviceLogin(ctx, func(d *oauth2.DeviceAuthResponse) error {
		_, err := fmt.Println("open", d.VerificationURI, "and enter", d.UserCode)
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	cred := &reauth.Credential{Refresher: issuer}
	fmt.Println(cred.Set(ctx, tok))
	// Output:
	// open https://example.com/activate and enter WDJB-MJHT
	// <nil>
}

// A source of x/oauth2 is made for each refresh, since it remembers its token.
func ExampleFromTokenSource() {
	server, endpoint := newExampleIssuer()
	defer server.Close()

	conf := &clientcredentials.Config{ClientID: "service", ClientSecret: "from the environment", TokenURL: endpoint.TokenURL}
	cred := &reauth.Credential{Refresher: refresher.FromTokenSource(conf.TokenSource)}

	tok, err := cred.Token(context.Background())
	fmt.Println(tok.AccessToken, err)
	// Output: token-for-client_credentials <nil>
}

// For what takes an oauth2.TokenSource, such as gRPC.
func ExampleTokenSource() {
	cred := &reauth.Credential{Refresher: refresher.Static("secret")}
	src := refresher.TokenSource(cred)

	tok, err := src.Token()
	fmt.Println(tok.AccessToken, err)
	// Output: secret <nil>
}

// A login that x/oauth2 has done.
func ExampleToken() {
	login := &oauth2.Token{AccessToken: "first", RefreshToken: "from-the-login"}

	cred := &reauth.Credential{Refresher: &refresher.OAuth2{}}
	err := cred.Set(context.Background(), refresher.Token(login))
	fmt.Println(err)

	tok, err := cred.Token(context.Background())
	fmt.Println(tok.AccessToken, err)
	// Output:
	// <nil>
	// first <nil>
}

// A user logs in with the browser of this machine, once. The command xdg-open, or open on
// macOS, shows him the address.
func ExampleOAuth2_BrowserLogin() {
	server := reauthtest.NewIssuer() // an issuer whose users agree at once
	defer server.Close()
	browser := func(address string) error {
		go func() { // xdg-open
			if resp, err := http.Get(address); err == nil {
				_ = resp.Body.Close()
			}
		}()
		return nil
	}
	ctx := context.Background()

	issuer := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Scopes: []string{"offline_access"}}}
	if err := issuer.Discover(ctx, server.Issuer()); err != nil {
		fmt.Println(err)
		return
	}
	cred := &reauth.Credential{Refresher: issuer}
	tok, err := issuer.BrowserLogin(ctx, browser)
	if err == nil {
		err = cred.Set(ctx, tok)
	}
	fmt.Println(err)
	// Output: <nil>
}

// An MCP server says in the challenge of its 401 where its metadata are, and they name
// the issuer. A machine with client credentials needs no more than that.
func ExampleOAuth2_Discover_mcp() {
	server := reauthtest.NewIssuer()
	defer server.Close()
	var mcp *httptest.Server
	mcp = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); {
		case r.URL.Path == "/.well-known/oauth-protected-resource/mcp":
			_, _ = fmt.Fprintf(w, `{"resource":%q,"authorization_servers":[%q]}`, mcp.URL+"/mcp", server.Issuer())
		case !server.Valid(token):
			w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="`+mcp.URL+`/.well-known/oauth-protected-resource/mcp"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer mcp.Close()

	var discovered atomic.Pointer[refresher.OAuth2]
	cred := &reauth.Credential{Refresher: reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		for _, c := range stale.Rejection.Challenges {
			if address := c.Params["resource_metadata"]; address != "" && discovered.Load() == nil {
				issuer := &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", ClientSecret: "secret"}}
				if err := issuer.Discover(ctx, address); err != nil {
					return reauth.Token{}, err
				}
				discovered.Store(issuer)
			}
		}
		issuer := discovered.Load()
		if issuer == nil {
			return reauth.Token{}, errors.New("no challenge has named the metadata of the resource yet")
		}
		return issuer.ClientCredentials().Refresh(ctx, stale)
	})}
	client := &http.Client{Transport: &reauth.Transport{Credential: cred, Anonymous: true}}
	resp, err := client.Get(mcp.URL + "/mcp")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(resp.StatusCode, resp.Body.Close(), server.Requests()[0].Audience[0] == mcp.URL+"/mcp")
	// Output: 200 <nil> true
}

// A workload of AKS: Microsoft Entra ID trusts the token that Kubernetes projects into
// the pod (workload identity federation), in place of a secret.
func ExampleOAuth2_workloadIdentity() {
	server := reauthtest.NewIssuer() // https://login.microsoftonline.com/<tenant>/oauth2/v2.0/token
	defer server.Close()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "azure-identity-token") // $AZURE_FEDERATED_TOKEN_FILE
	if err := os.WriteFile(path, []byte("projected-token"), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	projected := refresher.File(path)
	issuer := &refresher.OAuth2{
		Config: oauth2.Config{ClientID: "app", Endpoint: server.Endpoint(), Scopes: []string{"https://management.azure.com/.default"}},
		ClientAssertion: func(ctx context.Context) (string, error) {
			tok, err := projected.Refresh(ctx, reauth.Stale{})
			return tok.AccessToken, err
		},
	}
	cred := &reauth.Credential{Refresher: issuer.ClientCredentials()}
	_, err = cred.Token(context.Background())
	fmt.Println(server.Requests()[0].Auth, err)
	// Output: private_key_jwt <nil>
}

// To log out is to tell the issuer and to forget.
func ExampleOAuth2_Revoke() {
	server := reauthtest.NewIssuer()
	defer server.Close()
	server.SetRotate(true)
	ctx := context.Background()
	issuer := &refresher.OAuth2{
		Config:        oauth2.Config{ClientID: "app", Endpoint: server.Endpoint(), RedirectURL: "http://127.0.0.1/callback"},
		RevocationURL: server.RevocationURL(),
	}
	cred := &reauth.Credential{Refresher: issuer}
	tok, err := server.Refresh(ctx, reauth.Stale{}) // of the login; or of Exchange, with a code
	if err == nil {
		err = cred.Set(ctx, tok)
	}

	tok, _ = cred.Current()
	err = errors.Join(err, issuer.Revoke(ctx, tok), cred.Clear(ctx))
	fmt.Println(server.Valid(tok.AccessToken), err)
	// Output: false <nil>
}
