// Vault sends one request with an API key from HashiCorp Vault, into which it logs
// in by AppRole, or with -kubernetes as the pod's service account:
//
//	export VAULT_ADDR=https://vault.example.com:8200 VAULT_ROLE_ID=…
//	go run . -secret-id /run/secrets/secret-id -path app -member api_key https://api.example.com/v1/models
//
// The API key may be rotated and Vault's token revoked at any time, see Key and
// NewClient.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"

	"github.com/reauth-go/reauth"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run sends a GET to the URL in args and copies the answer to w.
func run(ctx context.Context, w io.Writer, args []string) error {
	var key Key
	flags := flag.NewFlagSet("vault", flag.ContinueOnError)
	role := flags.String("kubernetes", "", "Vault role of the pod's service account")
	secretID := flags.String("secret-id", "", "file with the secret id of the AppRole in VAULT_ROLE_ID")
	flags.StringVar(&key.Mount, "mount", "secret", "mount of the key-value store, version 2")
	flags.StringVar(&key.Path, "path", "app", "path of the secret in it")
	flags.StringVar(&key.Member, "member", "api_key", "member of the secret that is the API key")
	if err := flags.Parse(args); err != nil {
		return err
	}

	login := Kubernetes(*role)
	if *role == "" {
		method, err := approle.NewAppRoleAuth(os.Getenv("VAULT_ROLE_ID"), &approle.SecretID{FromFile: *secretID})
		if err != nil {
			return err
		}
		login = method.Login
	}
	var err error
	if key.Client, err = NewClient(api.DefaultConfig(), login); err != nil { // VAULT_ADDR and its like are in there
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, flags.Arg(0), nil)
	if err != nil {
		return err
	}
	resp, err := reauth.NewClient(key).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the API answered %s, request id %q", resp.Status, reauth.RequestID(resp))
	}
	return nil
}
