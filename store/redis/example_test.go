package redis_test

import (
	"log"
	"net/http"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
	"github.com/reauth-go/reauth/store/redis"
)

// Replicas that share the login of one user: one of them refreshes, the others get its
// token.
func ExampleNew() {
	client := goredis.NewClient(&goredis.Options{Addr: "redis.example.com:6379"})
	cred := &reauth.Credential{
		Refresher: &refresher.OAuth2{
			Config: oauth2.Config{ClientID: "app", Endpoint: oauth2.Endpoint{TokenURL: "https://issuer.example.com/token"}},
			Reuse:  29 * time.Second, // the grace period is 30 seconds
		},
		Store: redis.New(client, "reauth:ann@example.com", redis.Options{}),
	}
	api := &http.Client{Transport: &reauth.Transport{Credential: cred}}
	resp, err := api.Get("https://api.example.com/v1/models")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
}
