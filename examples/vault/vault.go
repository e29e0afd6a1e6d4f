package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/kubernetes"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
)

// A Login gets a token from Vault. The Login method of an api.AuthMethod is one.
//
// It is called for each new token, so that what it logs in with must be good for
// more than once: an AppRole's secret id has secret_id_num_uses=0.
type Login func(ctx context.Context, client *api.Client) (*api.Secret, error)

// Kubernetes returns a Login with the service account of the pod.
//
// A kubernetes.KubernetesAuth reads the account's token when it is made and never
// again, but that token lives for an hour: so one is made for each login.
func Kubernetes(role string, opts ...kubernetes.LoginOption) Login {
	return func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		method, err := kubernetes.NewKubernetesAuth(role, opts...)
		if err != nil {
			return nil, err
		}
		return method.Login(ctx, client)
	}
}

// NewClient returns a Vault client that logs in when it needs a token: before its
// first request, ahead of the end of each lease, and when Vault no longer knows
// the token, as after a revocation. There is no LifetimeWatcher to run. cfg is one
// of api.DefaultConfig; NewClient takes it over.
func NewClient(cfg *api.Config, login Login) (*api.Client, error) {
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	client.ClearToken() // that of VAULT_TOKEN would be sent instead
	// The login goes through the same client. Its request carries no token, as its
	// context tells the Transport whose refresh it is part of.
	cred := &reauth.Credential{Refresher: reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
		began := time.Now()
		secret, err := login(ctx, client)
		switch {
		case err != nil:
			return reauth.Token{}, err
		case secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "":
			return reauth.Token{}, errors.New("the login brought no token: see whether Vault wants a second factor")
		}
		tok := reauth.Token{AccessToken: secret.Auth.ClientToken}
		if lease := secret.Auth.LeaseDuration; lease > 0 {
			tok.Expiry = began.Add(time.Duration(lease) * time.Second)
		}
		return tok, nil
	})}
	cfg.HttpClient.Transport = &reauth.Transport{
		Base:       cfg.HttpClient.Transport,
		Credential: cred,
		Header:     api.AuthHeaderName,
		Classifier: classifier.Vault(), // Vault says 403, never 401
	}
	client.SetCheckRetry(func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		// The Credential paces the logins, and Vault locks out who repeats a wrong one.
		if failed := (*reauth.RefreshError)(nil); errors.As(err, &failed) {
			return false, err
		}
		return api.DefaultRetryPolicy(ctx, resp, err)
	})
	return client, nil
}

// A Key is an API key in Vault's key-value store, version 2. It is a
// reauth.Refresher.
type Key struct {
	Client *api.Client
	Mount  string // of the store, such as "secret"
	Path   string // of the secret, such as "app"
	Member string // of the secret, such as "api_key"
}

// Refresh reads the secret. After a rejection, an unchanged one is a failure, and
// the secret is read again when a request comes a second later.
func (k Key) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	secret, err := k.Client.KVv2(k.Mount).Get(ctx, k.Path)
	if err != nil {
		return reauth.Token{}, err
	}
	name := fmt.Sprintf("%q of the secret %s/%s", k.Member, k.Mount, k.Path)
	token, ok := secret.Data[k.Member].(string)
	switch {
	case secret.Data == nil:
		return reauth.Token{}, fmt.Errorf("%s: the secret is deleted", name)
	case !ok:
		return reauth.Token{}, fmt.Errorf("%s is not there, or no string", name)
	case stale.Rejection.Reason != "" && token == stale.Token.AccessToken:
		return reauth.Token{}, unchanged(name + " is still the rejected key: put the new one there")
	}
	return reauth.Token{AccessToken: token}, nil
}

// unchanged is the failure of a source that has nothing new yet. To look again
// costs little, so that it is no reason for pauses that grow to a minute.
type unchanged string

func (e unchanged) Error() string           { return string(e) }
func (unchanged) RetryAfter() time.Duration { return time.Second }
