package e2e_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// With client-go, reauth wraps the transport that it makes of the config. Override
// is for a config that has a BearerTokenFile, as that of rest.InClusterConfig has:
// client-go sets the header from it too, but reads the file once a minute.
//
// Its errors have no request id. WithOutcome has, of both sends.
func Example_kubernetes() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, newCluster("a", "b"))
	defer api.Close()
	config := &rest.Config{Host: api.URL()}
	cred := &reauth.Credential{Refresher: issuer, Logger: discard}

	config.Wrap(func(base http.RoundTripper) http.RoundTripper {
		return &reauth.Transport{Base: base, Credential: cred, Override: true} // of BearerTokenFile
	})
	client := dynamic.NewForConfigOrDie(config) // or kubernetes.NewForConfigOrDie
	ctx, outcome := reauth.WithOutcome(context.Background())
	list, err := client.Resource(configMaps).Namespace("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		log.Fatalf("%v (request ids %s, %s)", err, outcome().First.RequestID, outcome().Retry.RequestID)
	}
	fmt.Println(len(list.Items), "config maps")

	issuer.Revoke()
	issuer.Refuse(true) // whatever it hands out is good for nothing
	ctx, outcome = reauth.WithOutcome(context.Background())
	_, err = client.Resource(configMaps).Namespace("default").List(ctx, metav1.ListOptions{})
	fmt.Println(apierrors.IsUnauthorized(err), outcome().First.RequestID != "", outcome().Retry.RequestID != "")
	fmt.Println(api.Sends(), "sends")
	// Output:
	// 2 config maps
	// true true true
	// 3 sends
}

// With otelhttp under reauth each send has a span of its own, the 401 too. The other
// way round the request has one, which does not know of a 401 that was cured.
func Example_otelhttp() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	spans := tracetest.NewSpanRecorder()
	traced := otelhttp.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	cred := &reauth.Credential{Refresher: issuer, Logger: discard}

	client := &http.Client{Transport: &reauth.Transport{
		Base:       otelhttp.NewTransport(http.DefaultTransport, traced),
		Credential: cred,
	}}
	get := func() {
		resp, err := client.Get(api.URL())
		if err != nil {
			log.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	get()
	issuer.Revoke()
	get()
	for _, s := range spans.Ended() {
		fmt.Println(s.Name(), statusOf(s))
	}
	// Output:
	// HTTP GET 200
	// HTTP GET 401
	// HTTP GET 200
}

// A proxy with a token of its own: what its callers bring goes no further.
func Example_reverseProxy() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	target, err := url.Parse(api.URL())
	if err != nil {
		log.Fatal(err)
	}
	cred := &reauth.Credential{Refresher: issuer, Logger: discard}

	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &reauth.Transport{Credential: cred, Override: true},
		ModifyResponse: func(resp *http.Response) error {
			if o, ok := reauth.OutcomeOf(resp); ok {
				log.Print("request ids: ", o.First.RequestID, " ", o.Retry.RequestID)
			}
			return nil
		},
	}
	front := httptest.NewServer(proxy)
	defer front.Close()

	for range 2 {
		req, err := http.NewRequest(http.MethodGet, front.URL, nil)
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer the-caller's-own")
		resp, err := front.Client().Do(req)
		if err != nil {
			log.Fatal(err)
		}
		_ = resp.Body.Close()
		fmt.Println(resp.StatusCode)
		issuer.Revoke()
	}
	// Output:
	// 200
	// 200
}
