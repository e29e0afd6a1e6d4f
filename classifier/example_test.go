package classifier_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
)

// slack answers as Slack does: with a 200, whatever became of the token.
func slack(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if r.Header.Get("Authorization") != "Bearer xoxe.fresh" {
		_, _ = io.WriteString(w, `{"ok":false,"error":"token_expired"}`)
		return
	}
	_, _ = io.WriteString(w, `{"ok":true}`)
}

func login(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
	if stale.Rejection.Reason == "" {
		return reauth.Token{AccessToken: "xoxe.stale"}, nil
	}
	fmt.Println("refresh:", stale.Rejection.Reason, stale.Rejection.Code)
	return reauth.Token{AccessToken: "xoxe.fresh"}, nil
}

func Example() {
	srv := httptest.NewServer(http.HandlerFunc(slack))
	defer srv.Close()

	client := &http.Client{Transport: &reauth.Transport{
		Credential: &reauth.Credential{Refresher: reauth.RefresherFunc(login)},
		Classifier: classifier.Chain(classifier.Slack(), reauth.DefaultClassifier()),
		Logger:     slog.New(slog.DiscardHandler),
	}}
	resp, err := client.Get(srv.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(body))
	// Output:
	// refresh: expired token_expired
	// 200 {"ok":true}
}

func ExampleChain() {
	c := classifier.Chain(classifier.Vault(), classifier.Statuses(403), reauth.DefaultClassifier())
	for _, body := range []string{
		`{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`,
		`{"message":"Token expired"}`,
		`{"message":"Forbidden"}`,
	} {
		resp := &http.Response{StatusCode: 403, Header: http.Header{"Content-Type": {"application/json"}}}
		rej := c.Classify(resp, func() []byte { return []byte(body) })
		fmt.Printf("%q %t\n", rej.Reason, rej.Reason.Refreshable())
	}
	// Output:
	// "invalid_token" true
	// "expired" true
	// "" false
}

func ExampleStatuses() {
	c := classifier.Statuses(http.StatusForbidden)
	resp := &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": {"application/json"}}}
	for _, body := range []string{`{"error":"token_expired"}`, `{"error":"admins only"}`} {
		rej := c.Classify(resp, func() []byte { return []byte(body) })
		fmt.Printf("%q\n", rej.Reason)
	}
	// Output:
	// "expired"
	// ""
}

// say prints what a Classifier makes of a response.
func say(c reauth.Classifier, status int, contentType, body string) {
	resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, ContentLength: int64(len(body))}
	rej := c.Classify(resp, func() []byte { return []byte(body) })
	fmt.Printf("%q %t\n", rej.Reason, rej.Reason.Refreshable())
}

func ExampleConsul() {
	c := classifier.Chain(classifier.Consul(), reauth.DefaultClassifier())
	say(c, 403, "text/plain", `ACL not found`)
	say(c, 403, "text/plain", `Permission denied: token with AccessorID 'b78d37c7-0ca7-5f4d-99ee-6d9975ce4586' lacks permission 'key:read' on "foo"`)
	// Output:
	// "invalid_token" true
	// "" false
}

func ExampleNewAPI() {
	c := classifier.Chain(classifier.NewAPI(), reauth.DefaultClassifier())
	say(c, 200, "application/json", `{"message":"无权进行此操作，access token 无效","success":false}`)
	say(c, 200, "application/json", `{"message":"用户已被封禁","success":false}`)
	say(c, 200, "application/json", `{"message":"","success":true}`)
	// Output:
	// "invalid_token" true
	// "denied" false
	// "" false
}

func ExampleGRPC() {
	c := classifier.Chain(classifier.GRPC(), reauth.DefaultClassifier())
	resp := &http.Response{StatusCode: 200, Header: http.Header{
		"Content-Type": {"application/grpc"},
		"Grpc-Status":  {"16"},
		"Grpc-Message": {"token%20is%20expired"},
	}}
	rej := c.Classify(resp, func() []byte { return nil })
	fmt.Println(rej.Reason, rej.Code, rej.Message)
	// Output:
	// expired 16 token is expired
}

func ExampleJSON() {
	c := classifier.Chain(
		classifier.JSON("/code", map[string]reauth.Reason{
			"40101": reauth.ReasonExpired,
			"40103": reauth.ReasonDenied,
		}),
		reauth.DefaultClassifier(),
	)
	say(c, 200, "application/json", `{"code":40101,"msg":"token expired"}`)
	say(c, 200, "application/json", `{"code":"40103","msg":"not from this network"}`)
	say(c, 200, "application/json", `{"code":0,"data":{"code":40101}}`)
	// Output:
	// "expired" true
	// "denied" false
	// "" false
}
