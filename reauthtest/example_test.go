package reauthtest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// client returns a client as one under test would be. It logs nothing, so that
// the examples print no more than what they say.
func client(i *reauthtest.Issuer, a *reauthtest.API) *http.Client {
	quiet := slog.New(slog.DiscardHandler)
	return &http.Client{Transport: &reauth.Transport{
		Base:       a.Base(),
		Credential: &reauth.Credential{Refresher: i, Logger: quiet},
		Logger:     quiet,
	}}
}

// show prints the status and the body of an answer.
func show(resp *http.Response, err error) {
	if err != nil {
		fmt.Println("no answer")
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Printf("%s %q", resp.Status, body)
	if err != nil {
		fmt.Print(", then ", err)
	}
	fmt.Println()
}

// A token is revoked between two requests. The caller does not notice, and the
// counts tell what it cost.
func Example() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	client := client(issuer, api)

	show(client.Post(api.URL(), "text/plain", strings.NewReader("first")))
	issuer.Revoke()
	show(client.Post(api.URL(), "text/plain", strings.NewReader("second")))

	fmt.Println("sends", api.Sends(), "rejections", api.Rejections(), "connections", api.Connections())
	fmt.Println("refreshes", issuer.Refreshes())
	// Output:
	// 200 OK "first"
	// 200 OK "second"
	// sends 3 rejections 1 connections 1
	// refreshes 2
}

// The token was to be good for an hour, and is not: Outcome tells why.
func ExampleIssuer_Expire() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	issuer.SetLifetime(time.Hour)
	api := reauthtest.NewTLSAPI(issuer, nil)
	defer api.Close()
	client := client(issuer, api)

	show(client.Get(api.URL()))
	issuer.Expire()
	resp, err := client.Get(api.URL())
	show(resp, err)
	o, _ := reauth.OutcomeOf(resp)
	fmt.Println(o.Rejection.Reason, o.Rejection.Message)
	// Output:
	// 200 OK ""
	// 200 OK ""
	// expired The access token expired
}

// What a client does that is refused whatever it sends.
func ExampleIssuer_Refuse() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()

	issuer.Refuse(true)
	resp, err := client(issuer, api).Get(api.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, "after", api.Sends(), "sends")
	// Output: 401 Unauthorized after 2 sends
}

// Refresh tokens are good once. Who presents one again has lost the login.
func ExampleIssuer_SetRotate() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	issuer.SetRotate(true)

	ctx := context.Background()
	first, _ := issuer.Refresh(ctx, reauth.Stale{})
	second, _ := issuer.Refresh(ctx, reauth.Stale{Token: first})
	_, err := issuer.Refresh(ctx, reauth.Stale{Token: first})
	fmt.Println(err)
	fmt.Println("reuses", issuer.Reuses(), "still valid", issuer.Valid(second.AccessToken))
	// Output:
	// reauthtest: the issuer answered 400 Bad Request: invalid_grant
	// reuses 1 still valid false
}

// An issuer that does not answer does not hold up a request beyond its deadline.
func ExampleStall() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()

	issuer.Next(reauthtest.Stall(nil))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, api.URL(), nil)
	_, err := client(issuer, api).Do(req)
	fmt.Println(errors.Is(err, context.DeadlineExceeded), "sends", api.Sends())
	// Output: true sends 0
}

// A 401 that comes while the client is still sending.
func ExampleRejectEarly() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewTLSAPI(issuer, nil)
	defer api.Close()

	api.Next(reauthtest.RejectEarly())
	upload := io.LimitReader(strings.NewReader(strings.Repeat("x", 1<<20)), 500_000) // has no GetBody
	resp, err := client(issuer, api).Post(api.URL(), "text/plain", upload)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	n, _ := io.Copy(io.Discard, resp.Body)
	fmt.Println(resp.Status, n, "bytes came back, rejections", api.Rejections())
	// Output: 200 OK 500000 bytes came back, rejections 1
}

// A connection is cut without an answer: the error is the caller's, and the request
// is not repeated.
func ExampleDrop() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()

	api.Next(reauthtest.Drop())
	show(client(issuer, api).Post(api.URL(), "text/plain", strings.NewReader("x")))
	fmt.Println("sends", api.Sends(), "rejections", api.Rejections())
	// Output:
	// no answer
	// sends 1 rejections 0
}

// A stream is cut in the middle.
func ExampleDropAfter() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, reauthtest.StreamHandler("one", "two", "three"))
	defer api.Close()

	api.Next(reauthtest.DropAfter(len("data: one\n\n")))
	show(client(issuer, api).Get(api.URL()))
	// Output: 200 OK "data: one\n\n", then unexpected EOF
}

// Server-sent events, after a 401 that the reader does not see.
func ExampleStreamHandler() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, reauthtest.StreamHandler("one", "two"))
	defer api.Close()

	api.Next(reauthtest.Reject())
	resp, err := client(issuer, api).Get(api.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(os.Stdout, resp.Body)
	// Output:
	// data: one
	//
	// data: two
}

// The token does not follow a redirect to another host.
func ExampleRedirectTo() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	other := reauthtest.NewAPI(issuer, nil)
	defer other.Close()

	api.Next(reauthtest.RedirectTo(other.URL() + "/file"))
	resp, err := client(issuer, api).Get(api.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	arrived := other.Requests()[0]
	fmt.Printf("%s %q\n", arrived.Path, arrived.Header.Get("Authorization"))
	fmt.Println(resp.StatusCode, "refreshes", issuer.Refreshes())
	// Output:
	// /file ""
	// 401 refreshes 1
}

// Both servers go down. A token that is still good is used without the issuer.
func ExampleAPI_Down() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, http.NotFoundHandler())
	defer api.Close()
	client := client(issuer, api)
	status := func() {
		resp, err := client.Get(api.URL())
		if err != nil {
			fmt.Println(err)
			return
		}
		defer resp.Body.Close()
		fmt.Println(resp.Status)
	}

	status()
	issuer.Down(true)
	status()
	api.Down(true)
	status()
	api.Down(false)
	status()
	// Output:
	// 404 Not Found
	// 404 Not Found
	// 503 Service Unavailable
	// 404 Not Found
}

// A key that is expected bare, in a header of its own.
func ExampleAPI_SetHeader() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	api.SetHeader("X-Api-Key")

	client := &http.Client{Transport: &reauth.Transport{
		Credential: &reauth.Credential{Refresher: issuer},
		Header:     "X-Api-Key",
	}}
	show(client.Get(api.URL()))
	// Output: 200 OK ""
}

// A server that says it in words of its own.
func ExampleAPI_SetRejection() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	api.SetRejection(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":{"message":"无效的令牌 (request id: 20260219)","type":"new_api_error"}}`)
	}))

	resp, err := http.Get(api.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(body), err)
	// Output: 401 {"error":{"message":"无效的令牌 (request id: 20260219)","type":"new_api_error"}} <nil>
}

// What the issuer was asked for.
func ExampleIssuer_Requests() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	if _, err := issuer.Refresh(context.Background(), reauth.Stale{}); err != nil {
		fmt.Println(err)
	}
	for _, r := range issuer.Requests() {
		fmt.Println(r.Grant, r.Auth, r.Status)
	}
	// Output: client_credentials none 200
}
