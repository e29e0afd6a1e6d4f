package retry_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
	"github.com/reauth-go/reauth/retry"
)

func login(context.Context, reauth.Stale) (reauth.Token, error) {
	return reauth.Token{AccessToken: "fresh"}, nil
}

// The API is at first too busy, and then its connection breaks.
func Example() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	api.Next(reauthtest.Status(http.StatusTooManyRequests, "Retry-After", "0"), reauthtest.Drop())

	client := retry.NewClient(issuer)
	resp, err := client.Get(api.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, "after", api.Sends(), "sends")
	// Output: 200 OK after 3 sends
}

func ExampleTransport() {
	client := &http.Client{Transport: &retry.Transport{
		Base: &reauth.Transport{
			Credential: &reauth.Credential{Refresher: reauth.RefresherFunc(login)},
			Origins:    []string{"https://api.example.com"},
		},
		MaxRetries: 5,
		MinWait:    200 * time.Millisecond,
		MaxWait:    time.Minute, // also of a Retry-After
	}}

	_ = client
	// Output:
}

// A POST may have been applied although the connection broke. With a key by
// which the server knows it again it is repeated all the same.
func ExampleTransport_idempotencyKey() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "charged once: "+r.Header.Get("Idempotency-Key"))
	}))
	defer api.Close()
	api.Next(reauthtest.Drop())
	client := retry.NewClient(issuer)

	req, err := http.NewRequest(http.MethodPost, api.URL(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	req.Header.Set("Idempotency-Key", "order-4711")
	resp, err := client.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(os.Stdout, resp.Body)
	// Output: charged once: order-4711
}

// A completion is worth to be asked for again, and costs twice at worst.
func ExampleTransport_repeatable() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	api.Next(reauthtest.Respond(529, `{"type":"overloaded_error"}`))
	client := &http.Client{Transport: &retry.Transport{
		Base: &reauth.Transport{Credential: &reauth.Credential{Refresher: issuer}},
		Repeatable: func(req *http.Request) bool {
			return retry.Idempotent(req) || strings.HasSuffix(req.URL.Path, "/messages")
		},
	}}

	resp, err := client.Post(api.URL()+"/v1/messages", "text/plain", strings.NewReader("hello"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(os.Stdout, resp.Body)
	// Output: hello
}
