package refresher_test

import (
	"os"

	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

func Example() {
	client := reauth.NewClient(refresher.DotEnv(".env", "OPENAI_API_KEY"), "https://api.example.com")

	_ = client
	// Output:
}

func ExampleOAuth2_clientCredentials() {
	issuer := &refresher.OAuth2{Config: oauth2.Config{
		ClientID:     "app",
		ClientSecret: os.Getenv("CLIENT_SECRET"),
		Endpoint:     oauth2.Endpoint{TokenURL: "https://issuer.example.com/token"},
	}}
	client := reauth.NewClient(issuer.ClientCredentials())

	_ = client
	// Output:
}
