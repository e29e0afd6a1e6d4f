package otelreauth_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/otelreauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// A token is revoked between two requests. The second is rejected and recovered, which
// the metrics show. A program has an exporter in place of the ManualReader.
func ExampleInstrumentation_Instrument() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	api := reauthtest.NewAPI(issuer, nil)
	defer api.Close()
	reader := metric.NewManualReader()

	transport := &reauth.Transport{
		Credential: &reauth.Credential{Refresher: issuer},
		Origins:    []string{api.URL()},
	}
	telemetry := &otelreauth.Instrumentation{
		MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)), // if nil, the global one
	}
	if err := telemetry.Instrument(transport); err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport}

	for range 2 {
		resp, err := client.Get(api.URL())
		if err != nil {
			log.Fatal(err)
		}
		_ = resp.Body.Close()
		issuer.Revoke()
	}

	var exported metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &exported); err != nil {
		log.Fatal(err)
	}
	for _, m := range exported.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "reauth.retries" {
			result, _ := sum.DataPoints[0].Attributes.Value("reauth.retry.result")
			fmt.Println(m.Name, result.AsString(), sum.DataPoints[0].Value)
		}
	}
	// Output: reauth.retries recovered 1
}

// The Credentials of tenants are instrumented when they are made.
func ExampleInstrumentation_InstrumentCredential() {
	telemetry := &otelreauth.Instrumentation{}
	tenants := map[string]*reauth.Credential{}
	for _, tenant := range []string{"acme", "globex"} {
		cred := &reauth.Credential{Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{AccessToken: "token of " + tenant}, nil
		})}
		if err := telemetry.InstrumentCredential(cred); err != nil {
			log.Fatal(err)
		}
		tenants[tenant] = cred
	}
	transport := &reauth.Transport{CredentialFor: func(req *http.Request) (*reauth.Credential, error) {
		return tenants[req.Header.Get("X-Tenant")], nil
	}}
	if err := telemetry.Instrument(transport); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(tenants), "Credentials")
	// Output: 2 Credentials
}
