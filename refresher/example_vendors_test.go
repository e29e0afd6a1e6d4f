package refresher_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
	"github.com/reauth-go/reauth/refresher"
)

// An internal app of Feishu, whose API answers 200 also where it rejects a token.
func ExampleFeishu() {
	server := exampleServer(`{"code":0,"msg":"ok","tenant_access_token":"t-1","expire":7200}`) // https://open.feishu.cn
	defer server.Close()
	cred := &reauth.Credential{Refresher: &refresher.Feishu{AppID: "cli_1", AppSecret: "…", URL: server.URL}}
	client := &http.Client{Transport: &reauth.Transport{
		Credential: cred,
		Origins:    []string{server.URL},
		Classifier: classifier.Chain(classifier.Feishu(), reauth.DefaultClassifier()),
	}}
	_ = client // for the SDK

	tok, err := cred.Token(context.Background())
	fmt.Println(tok.AccessToken, err)
	// Output: t-1 <nil>
}

// A mini program of WeChat, whose API wants the token in the query.
func ExampleWeChat() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // https://api.weixin.qq.com
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/cgi-bin/stable_token" {
			_, _ = fmt.Fprint(w, `{"access_token":"A-1","expires_in":7200}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"errcode":0,"query":%q}`, r.URL.RawQuery)
	}))
	defer server.Close()
	client := &http.Client{Transport: &reauth.Transport{
		Credential: &reauth.Credential{Refresher: &refresher.WeChat{AppID: "wx1", Secret: "…", URL: server.URL}},
		Origins:    []string{server.URL},
		Query:      "access_token",
		Classifier: classifier.Chain(classifier.WeChat(), reauth.DefaultClassifier()),
	}}
	resp, err := client.Get(server.URL + "/cgi-bin/get_api_domain_ip")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(resp.StatusCode, resp.Request.URL.RawQuery == "", resp.Body.Close())
	// Output: 200 true <nil>
}

// A container registry names in its first 401 where its tokens come from.
func ExampleRegistry() {
	var registry *httptest.Server
	registry = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, r.URL.Query().Get("scope"))
		case r.Header.Get("Authorization") != "Bearer repository:team/app:pull":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+registry.URL+`/token",service="registry",scope="repository:team/app:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer registry.Close()
	client := &http.Client{Transport: &reauth.Transport{
		Credential: &reauth.Credential{Refresher: &refresher.Registry{Username: "ann", Password: "…"}},
		Origins:    []string{registry.URL},
		Anonymous:  true,
		Classifier: classifier.Chain(classifier.Registry(), reauth.DefaultClassifier()),
	}}
	resp, err := client.Get(registry.URL + "/v2/team/app/manifests/v1")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(resp.StatusCode, resp.Body.Close())
	// Output: 200 <nil>
}
