package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/google/go-github/v93/github"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/reauth-go/reauth"
)

// pretend has http.DefaultTransport send everything to a server that refuses every
// token, with the SDK's own header for its request ids, until restore is called.
func pretend(header, body string) (restore func()) {
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n++
		w.Header().Set(header, fmt.Sprintf("req_%d", n))
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, body)
	}))
	before := http.DefaultTransport
	http.DefaultTransport = toServer(server)
	return func() {
		http.DefaultTransport = before
		server.Close()
	}
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func toServer(server *httptest.Server) http.RoundTripper {
	base := server.Client().Transport
	return roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		req = req.Clone(req.Context())
		req.URL.Scheme, req.URL.Host = "http", server.Listener.Addr().String()
		return base.RoundTrip(req)
	})
}

// exampleCredential has a new token whenever one is asked for.
func exampleCredential() *reauth.Credential {
	n := 0
	return &reauth.Credential{Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		n++
		return reauth.Token{AccessToken: fmt.Sprintf("token-%d", n)}, nil
	})}
}

func Example_openai() {
	defer pretend("X-Request-Id", `{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","code":"invalid_api_key"}}`)()
	ctx, cred, prompt := context.Background(), exampleCredential(), openaiPrompt("hello")

	client := openai.NewClient(
		option.WithAPIKey(reauth.Placeholder), // or it sends OPENAI_API_KEY in place of the token
		option.WithHTTPClient(&http.Client{Transport: &reauth.Transport{Credential: cred}}),
	)
	_, err := client.Chat.Completions.New(ctx, prompt)
	if failure, ok := errors.AsType[*openai.Error](err); ok {
		o, _ := reauth.OutcomeOf(failure.Response)
		fmt.Println(failure, "request ids:", o.First.RequestID, o.Retry.RequestID)
	}
	// Output: OpenAI API error: 401 Unauthorized request ids: req_1 req_2
}

func Example_github() {
	defer pretend("X-GitHub-Request-Id", `{"message":"Bad credentials","documentation_url":"https://docs.github.com/rest","status":"401"}`)()
	ctx, cred := context.Background(), exampleCredential()

	client, _ := github.NewClient(github.WithTransport(&reauth.Transport{
		Credential: cred,
		Origins:    []string{"https://api.github.com", "https://uploads.github.com"}, // not where archives are kept
	}))
	_, _, err := client.Repositories.Get(ctx, "acme", "anvil")
	if failure, ok := errors.AsType[*github.ErrorResponse](err); ok {
		o, _ := reauth.OutcomeOf(failure.Response)
		fmt.Println(failure.Message, "request ids:", o.First.RequestID, o.Retry.RequestID)
	}
	// Output: Bad credentials request ids: req_1 req_2
}
