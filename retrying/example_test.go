package retrying_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/retrying"
)

// busy is an API that is at first too busy, and accepts one token.
func busy() *httptest.Server {
	n := 0
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n++; {
		case n == 1:
			w.Header().Set("Retry-After", "0")
			http.Error(w, "too many requests", http.StatusTooManyRequests)
		case r.Header.Get("Authorization") != "Bearer fresh":
			http.Error(w, "unknown token", http.StatusUnauthorized)
		default:
			_, _ = io.WriteString(w, "hello")
		}
	}))
}

func login(context.Context, reauth.Stale) (reauth.Token, error) {
	return reauth.Token{AccessToken: "fresh"}, nil
}

func Example() {
	client := retrying.NewClient(reauth.RefresherFunc(login))

	api := busy()
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
	client := &http.Client{Transport: &retrying.Transport{
		Base: &reauth.Transport{
			Credential: &reauth.Credential{Refresher: reauth.RefresherFunc(login)},
			Origins:    []string{"https://api.example.com"},
		},
		Max:     5,
		Wait:    200 * time.Millisecond,
		MaxWait: time.Minute, // also of a Retry-After
	}}

	_ = client
	// Output:
}

// A POST may have been applied although the connection broke. With a key by
// which the server knows it again it is repeated all the same.
func ExampleTransport_idempotencyKey() {
	drops := 1
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if drops--; drops >= 0 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "charged once: "+r.Header.Get("Idempotency-Key"))
	}))
	defer api.Close()
	client := &http.Client{Transport: &retrying.Transport{}}

	req, err := http.NewRequest(http.MethodPost, api.URL, nil)
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
