package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/reauth-go/reauth"
)

func Example_anthropic() {
	defer pretend("Request-Id", `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`)()
	ctx, cred, prompt := context.Background(), exampleCredential(), anthropicPrompt("hello")

	client := anthropic.NewClient(
		option.WithoutEnvironmentDefaults(), // or it sends ANTHROPIC_AUTH_TOKEN beside the token
		option.WithHTTPClient(&http.Client{Transport: &reauth.Transport{Credential: cred, Header: "X-Api-Key"}}),
	)
	_, err := client.Messages.New(ctx, prompt)
	if failure, ok := errors.AsType[*anthropic.Error](err); ok {
		o, _ := reauth.OutcomeOf(failure.Response)
		fmt.Println(failure.StatusCode, failure.Type(), "request ids:", o.First.RequestID, o.Retry.RequestID)
	}
	// Output: 401 authentication_error request ids: req_1 req_2
}
