package reauth_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"github.com/reauth-go/reauth"
)

// issuerURL is an issuer for the examples.
var issuerURL = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, `{"access_token":"fresh","expires_in":3600}`)
})).URL

// gateway is an API that knows just one key, and answers any other as new-api
// does.
func gateway(key string) *httptest.Server {
	n := 0
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		id := fmt.Sprintf("2026021910081416145658%d", n)
		w.Header().Set("X-Oneapi-Request-Id", id)
		if r.Header.Get("Authorization") != "Bearer "+key {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":{"code":"","message":"无效的令牌 (request id: %s)","type":"new_api_error"}}`, id)
			return
		}
		_, _ = io.WriteString(w, "hello")
	}))
}

// login asks the issuer for a token. It is all that you write.
func login(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, issuerURL, nil)
	if err != nil {
		return reauth.Token{}, err
	}
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reauth.Token{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return reauth.Token{}, fmt.Errorf("the issuer answered %s", resp.Status)
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return reauth.Token{}, err
	}
	return reauth.Token{
		AccessToken: answer.AccessToken,
		Expiry:      began.Add(time.Duration(answer.ExpiresIn) * time.Second),
	}, nil
}

func Example() {
	client := reauth.NewClient(reauth.RefresherFunc(login))

	api := gateway("fresh")
	defer api.Close()
	resp, err := client.Get(api.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

func ExampleTransport() {
	client := &http.Client{Transport: &reauth.Transport{
		Credential: &reauth.Credential{Refresher: reauth.RefresherFunc(login)},
		Origins:    []string{"https://api.example.com"},
	}}

	client.Transport.(*reauth.Transport).Base = printer{} // in place of a network
	for _, url := range []string{"https://api.example.com/v1/models", "https://elsewhere.example/"} {
		if resp, err := client.Get(url); err == nil {
			resp.Body.Close()
		}
	}
	// Output:
	// api.example.com gets a token: true
	// elsewhere.example gets a token: false
}

// A printer is a RoundTripper that prints whether a request carries a token.
type printer struct{}

func (printer) RoundTrip(req *http.Request) (*http.Response, error) {
	fmt.Println(req.URL.Host, "gets a token:", req.Header.Get("Authorization") != "")
	return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody, Request: req}, nil
}

func ExampleOutcomeOf() {
	api := gateway("good")
	defer api.Close()
	cred := &reauth.Credential{Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{AccessToken: "good"}, nil
	})}
	_ = cred.Set(context.Background(), reauth.Token{AccessToken: "expired"})
	client := &http.Client{Transport: &reauth.Transport{Credential: cred, Logger: slog.New(slog.DiscardHandler)}}

	resp, err := client.Get(api.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	if o, ok := reauth.OutcomeOf(resp); ok {
		fmt.Println("first", o.First.StatusCode, "request id", o.First.RequestID, o.Rejection.Reason)
		fmt.Println("retry", o.Retry.StatusCode, "request id", o.Retry.RequestID)
	}
	// Output:
	// first 401 request id 20260219100814161456581 invalid_token
	// retry 200 request id 20260219100814161456582
}

func ExampleWithOutcome() {
	api := gateway("good")
	defer api.Close()
	cred := &reauth.Credential{Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{AccessToken: "good"}, nil
	})}
	client := &http.Client{Transport: &reauth.Transport{Credential: cred}}

	ctx, outcome := reauth.WithOutcome(context.Background())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, api.URL, nil)
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
	}
	fmt.Println("request id", outcome().RequestID())
	// Output: request id 20260219100814161456581
}

func ExamplePermanent() {
	cred := &reauth.Credential{
		Logger: slog.New(slog.DiscardHandler),
		Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, reauth.Permanent(errors.New("invalid_grant"))
		}),
	}
	_, err := cred.Token(context.Background())
	fmt.Println(err)

	// After a login:
	_ = cred.Set(context.Background(), reauth.Token{AccessToken: "from-the-login"})
	_, err = cred.Token(context.Background())
	fmt.Println(err)
	// Output:
	// reauth: refresh failed: invalid_grant; this is permanent, and the Refresher is not called until Credential.Set or Clear
	// <nil>
}

func ExampleTransport_credentialFor() {
	tenants := map[string]*reauth.Credential{
		"acme": {Refresher: reauth.RefresherFunc(login)},
	}
	client := &http.Client{Transport: &reauth.Transport{
		CredentialFor: func(req *http.Request) (*reauth.Credential, error) {
			cred, ok := tenants[req.Header.Get("X-Tenant")]
			if !ok {
				return nil, errors.New("unknown tenant")
			}
			return cred, nil
		},
	}}

	client.Transport.(*reauth.Transport).Base = printer{} // in place of a network
	for _, tenant := range []string{"acme", "unknown"} {
		req, _ := http.NewRequest(http.MethodGet, "https://api.example.com/", nil)
		req.Header.Set("X-Tenant", tenant)
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
		} else {
			fmt.Println(err)
		}
	}
	// Output:
	// api.example.com gets a token: true
	// Get "https://api.example.com/": reauth: CredentialFor: unknown tenant
}

// A program asks its user to log in when the login has ended.
func ExampleLoginEnded() {
	cred := &reauth.Credential{
		Logger: slog.New(slog.DiscardHandler),
		Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, reauth.LoginEnded(errors.New("invalid_grant"))
		}),
		OnRefresh: func(_ context.Context, info reauth.RefreshInfo) {
			if reauth.IsLoginEnded(info.Err) {
				fmt.Println("please log in again")
			}
		},
	}
	_ = cred.Set(context.Background(), reauth.Token{RefreshToken: "from-an-earlier-login"})

	_, err := cred.Token(context.Background())
	fmt.Println(err != nil)

	// After the login:
	_ = cred.Set(context.Background(), reauth.Token{AccessToken: "from-the-login"})
	tok, _ := cred.Token(context.Background())
	fmt.Println(tok.AccessToken)
	// Output:
	// please log in again
	// true
	// from-the-login
}

// A server that expects the token in the query, such as WeChat's.
func ExampleTransport_query() {
	cred := &reauth.Credential{}
	_ = cred.Set(context.Background(), reauth.Token{AccessToken: "from-the-login"})
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println(r.URL.RawQuery)
	}))
	defer api.Close()

	client := &http.Client{Transport: &reauth.Transport{Credential: cred, Query: "access_token"}}
	resp, err := client.Get(api.URL + "/cgi-bin/user/get?next=1")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Request.URL.RawQuery)
	// Output:
	// next=1&access_token=from-the-login
	// next=1
}

// A registry names the realm and the scope in its first 401.
func ExampleTransport_anonymous() {
	cred := &reauth.Credential{Refresher: reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
		for _, c := range stale.Rejection.Challenges {
			fmt.Println(c.Scheme, c.Params["scope"])
		}
		return reauth.Token{AccessToken: "good"}, nil
	})}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://auth.example.com/token",scope="repository:team/app:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer api.Close()

	client := &http.Client{Transport: &reauth.Transport{Credential: cred, Anonymous: true, Logger: slog.New(slog.DiscardHandler)}}
	resp, err := client.Get(api.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode)
	// Output:
	// Bearer repository:team/app:pull
	// 200
}

func ExampleCredential_Set() {
	cred := &reauth.Credential{Refresher: reauth.RefresherFunc(login)}
	// A refresh token from an earlier login is enough: it is used at the first request.
	err := cred.Set(context.Background(), reauth.Token{RefreshToken: "from-the-login"})
	fmt.Println(err)
	// Output: <nil>
}

// An SDK that insists on an API key gets the Placeholder; the server gets the token.
func ExampleTransport_placeholder() {
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Header.Get("Authorization"))
	}))
	defer api.Close()
	cred := &reauth.Credential{}
	_ = cred.Set(context.Background(), reauth.Token{AccessToken: "from-the-login"})
	client := &http.Client{Transport: &reauth.Transport{Credential: cred}}

	req, _ := http.NewRequest(http.MethodGet, api.URL, nil)
	req.Header.Set("Authorization", "Bearer "+reauth.Placeholder)
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
	}
	// Output: Bearer from-the-login
}

func ExampleParseChallenges() {
	h := http.Header{"Www-Authenticate": {
		`Negotiate abc==, Bearer realm="api", error=invalid_token`,
	}}
	for _, c := range reauth.ParseChallenges(h) {
		fmt.Println(c.Scheme, c.Token68, c.Params)
	}
	// Output:
	// Negotiate abc== map[]
	// Bearer  map[error:invalid_token realm:api]
}

// For another protocol than HTTP, such as gRPC: Token before a call, and Refresh once
// when the server has rejected the token. A tool explains a saved response.
func ExampleInspect() {
	resp := &http.Response{StatusCode: 403, Header: http.Header{"X-Request-Id": {"b8f0"}}}
	rej := reauth.Inspect(resp, []byte(`{"code":"QUOTA_EXCEEDED","message":"The monthly quota is used up"}`))
	fmt.Println(rej.Reason, rej.RequestID)
	fmt.Println(rej.Reason.Advice().Text())
	// Output:
	// quota b8f0
	// top up the balance or the quota of the token
}

// A program decides by the Advice what its user has to do.
func ExampleAdvice() {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="repo:write"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer api.Close()
	client := &http.Client{Transport: &reauth.Transport{
		Credential: &reauth.Credential{Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{AccessToken: "token"}, nil
		})},
		Origins: []string{api.URL},
		Logger:  slog.New(slog.DiscardHandler),
	}}
	resp, err := client.Get(api.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	o, _ := reauth.OutcomeOf(resp)
	switch o.Advice {
	case reauth.AdviceLogIn, reauth.AdviceRequestScope, reauth.AdviceStepUp:
		fmt.Println("please", o.Advice.Text())
	case reauth.AdviceTopUp:
		fmt.Println("no money left")
	}
	// Output: please log in with the scope or the permission that the server asks for
}

func ExampleCredential_Refresh() {
	n := 0
	cred := &reauth.Credential{Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		n++
		return reauth.Token{AccessToken: fmt.Sprint("token-", n)}, nil
	})}
	ctx := context.Background()
	tok, _ := cred.Token(ctx)
	fmt.Println(tok.AccessToken)
	tok, _ = cred.Refresh(ctx, reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonExpired}})
	fmt.Println(tok.AccessToken)

	_ = cred.Clear(ctx) // a logout
	_, err := cred.Refresh(ctx, reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
	fmt.Println(errors.Is(err, reauth.ErrLoggedOut))
	fmt.Println(cred.Shutdown(ctx))
	// Output:
	// token-1
	// token-2
	// true
	// <nil>
}

// A gateway responds with 403 to a token that it does not know, and says so in plain text.
func ExampleClassifierFunc() {
	gateway := reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		if resp.StatusCode == http.StatusForbidden && bytes.Contains(body(), []byte("unknown session")) {
			return reauth.Rejection{Reason: reauth.ReasonInvalidToken}
		}
		return reauth.Rejection{}
	})
	rt := &reauth.Transport{
		Credential: &reauth.Credential{Refresher: reauth.RefresherFunc(login)},
		Header:     "X-Gateway-Token",
		Classifier: gateway,
	}

	for _, body := range []string{"unknown session", "Permission denied"} {
		rej := rt.Classifier.Classify(&http.Response{StatusCode: http.StatusForbidden}, func() []byte { return []byte(body) })
		fmt.Printf("%q %t\n", rej.Reason, rej.Reason.Refreshable())
	}
	// Output:
	// "invalid_token" true
	// "" false
}

// TLS, proxies and limits belong to Base, which is configured before it is wrapped.
func ExampleTransport_base() {
	roots := x509.NewCertPool() // of the server's own authority
	proxy := &url.URL{Scheme: "http", Host: "proxy.example.com:3128"}

	base := http.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = &tls.Config{RootCAs: roots}
	base.Proxy = http.ProxyURL(proxy)
	client := &http.Client{Transport: &reauth.Transport{
		Base:       base,
		Credential: &reauth.Credential{Refresher: reauth.RefresherFunc(login)},
	}}

	_, insecure := client.Get("http://api.example.com/")
	fmt.Println(errors.Is(insecure, reauth.ErrInsecure))
	// Output: true
}

// Git over https takes a token as the password of Basic. The Refresher makes the value
// that the header carries.
func ExampleTransport_basic() {
	git := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		fmt.Println(user, password)
	}))
	defer git.Close()
	token := reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{AccessToken: "token-of-the-app"}, nil
	})

	basic := reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		tok, err := token.Refresh(ctx, stale)
		tok.AccessToken = base64.StdEncoding.EncodeToString([]byte("x-access-token:" + tok.AccessToken))
		return tok, err
	})
	client := &http.Client{Transport: &reauth.Transport{
		Credential: &reauth.Credential{Refresher: basic},
		Scheme:     "Basic",
	}}

	if resp, err := client.Get(git.URL + "/anvil.git/info/refs"); err == nil {
		resp.Body.Close()
	}
	// Output: x-access-token token-of-the-app
}
