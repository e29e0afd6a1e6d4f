package e2e_test

import (
	"context"
	"fmt"
	"net/http"

	openai "github.com/sashabaranov/go-openai"

	"github.com/reauth-go/reauth"
)

func Example_goOpenAI() {
	defer pretend("X-Oneapi-Request-Id", `{"error":{"code":"","message":"无效的令牌","type":"new_api_error"}}`)()
	ctx, cred, prompt := context.Background(), exampleCredential(), goOpenAIPrompt("hello")

	config := openai.DefaultConfig(reauth.Placeholder)
	config.HTTPClient = &http.Client{Transport: &reauth.Transport{Credential: cred}}
	client := openai.NewClientWithConfig(config)

	ctx, outcome := reauth.WithOutcome(ctx) // its errors do not show the response
	if _, err := client.CreateChatCompletion(ctx, prompt); err != nil {
		o := outcome()
		fmt.Println(err, "request ids:", o.First.RequestID, o.Retry.RequestID)
	}
	// Output: error, status code: 401, status: 401 Unauthorized, message: 无效的令牌 request ids: req_1 req_2
}
