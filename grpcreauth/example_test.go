package grpcreauth_test

import (
	"context"
	"log"

	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/grpcreauth"
	"github.com/reauth-go/reauth/refresher"
)

func ExampleClient() {
	issuer := &refresher.OAuth2{Config: oauth2.Config{
		ClientID: "app",
		Endpoint: oauth2.Endpoint{TokenURL: "https://issuer.example.com/token"},
	}}
	auth := &grpcreauth.Client{Credential: &reauth.Credential{Refresher: issuer.ClientCredentials()}}
	conn, err := grpc.NewClient("api.example.com:443", append(auth.DialOptions(),
		grpc.WithTransportCredentials(credentials.NewTLS(nil)))...)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	log.Print(answer.Status)
}
