package e2e_test

import (
	"context"
	"errors"
	"log"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/reauth-go/reauth"
)

// getToken asks the registry's token server: GET realm?service=…&scope=…
var getToken func(ctx context.Context, scope string) (reauth.Token, error)

// authenticate is POST /v3/auth/authenticate with name and password.
var authenticate func(context.Context, reauth.Stale) (reauth.Token, error)

// The registry's tests are in registry_test.go, with a real one.
func Example_registry() {
	var ref name.Reference
	var img v1.Image

	cred := &reauth.Credential{Refresher: reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
		return getToken(ctx, "repository:team/app:pull,push")
	})}
	rt := &reauth.Transport{Credential: cred, Origins: []string{"https://registry.example.com"}}
	err := remote.Write(ref, img, remote.WithTransport(rt))
	if failure, ok := errors.AsType[*transport.Error](err); ok {
		o, _ := reauth.OutcomeOf(&http.Response{Request: failure.Request})
		log.Print(failure, " request ids: ", o.First.RequestID, o.Retry.RequestID)
	}
}

// Those of etcd are in etcd_test.go.
func Example_etcd() {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &reauth.Transport{
		Scheme:     reauth.NoScheme, // etcd wants the bare token in Authorization
		Origins:    []string{"https://etcd.example.com:2379"},
		Credential: &reauth.Credential{Refresher: reauth.RefresherFunc(authenticate)},
	}}

	_ = client
}
