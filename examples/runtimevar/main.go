// Runtimevar sends one request with a token from a secret manager:
//
//	go run . -secret file:///run/secrets/api-key https://api.example.com/v1/models
//
// The secret may be rotated at any time, see Secret.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"

	"github.com/reauth-go/reauth"

	// The drivers, each for a scheme. These have a large SDK behind them:
	//
	//	_ "gocloud.dev/runtimevar/awsparamstore"     // awsparamstore://
	//	_ "gocloud.dev/runtimevar/awssecretsmanager" // awssecretsmanager://
	//	_ "gocloud.dev/runtimevar/gcpsecretmanager"  // gcpsecretmanager://
	//	_ "gocloud.dev/runtimevar/etcdvar"           // etcd://, a module of its own
	_ "gocloud.dev/runtimevar/constantvar" // constant://
	_ "gocloud.dev/runtimevar/filevar"     // file://
	_ "gocloud.dev/runtimevar/httpvar"     // http:// and https://
)

func main() {
	var s Secret
	flag.StringVar(&s.URL, "secret", os.Getenv("SECRET_URL"), "URL of the variable that has the token")
	flag.StringVar(&s.Member, "member", "", "member of the JSON object that is the token, if it is one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, s, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run sends a GET to url and copies the answer to w.
func run(ctx context.Context, w io.Writer, s Secret, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := reauth.NewClient(s).Do(req)
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
