package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/httptransport"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"golang.org/x/oauth2"
	"k8s.io/client-go/transport"

	"github.com/reauth-go/reauth"
)

// A peer is a way to attach a token to the requests that go to base.
type peer struct {
	name   string
	module string // whose version the table shows
	wrap   func(base http.RoundTripper, i *issuer) http.RoundTripper
}

var (
	base  = peer{"base", "", func(base http.RoundTripper, _ *issuer) http.RoundTripper { return base }}
	least = peer{"floor", "", func(base http.RoundTripper, i *issuer) http.RoundTripper {
		return &floor{base, "Bearer " + i.token(), time.Now().Add(lifetime)}
	}}

	ours        = peer{"reauth", "", reauthWith(lifetime, 0)}
	oursOrigins = peer{"reauth", "", func(base http.RoundTripper, i *issuer) http.RoundTripper {
		t := reauthWith(lifetime, 0)(base, i).(*reauth.Transport)
		t.Origins = []string{"https://files.example.com", "https://api.example.com"}
		return t
	}}
	oursNoExpiry  = peer{"reauth, no expiry", "", reauthWith(0, 0)}
	oursAtOnce    = peer{"reauth", "", reauthWith(lifetime, -1)}
	xoauth2       = peer{"x/oauth2", "golang.org/x/oauth2", wrapOAuth2}
	az            = peer{"azcore", "github.com/Azure/azure-sdk-for-go/sdk/azcore", azcoreWith(nil)}
	azOnChallenge = peer{"azcore, OnChallenge", az.module, azcoreWith(authenticateAgain)}
	clientGo      = peer{"client-go", "k8s.io/client-go", wrapClientGo}
	google        = peer{"google/auth", "cloud.google.com/go/auth", wrapGoogle}
	twoSends      = peer{"base", "", func(base http.RoundTripper, i *issuer) http.RoundTripper { return &twoSendsByHand{base, i, i.token()} }}
)

// A floor is the least that keeps the promises: a look at the context for what it says to
// this package, a look at the clock, a pass over the headers for a credential and a
// placeholder, a copy of the request and of its header, and a value. It serves requests
// that have no credential, and a token that does not expire meanwhile.
type floor struct {
	base   http.RoundTripper
	value  string
	expiry time.Time
}

type floorKey struct{}

type floorRequest struct {
	http.Request
	value [1]string
}

func (f *floor) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Context().Value(floorKey{}) != nil || !time.Now().Before(f.expiry) {
		return nil, errors.New("the floor does not serve this request")
	}
	for k, vv := range req.Header {
		if len(k) == len("Authorization") && strings.EqualFold(k, "Authorization") {
			return nil, errors.New("the floor does not serve this request")
		}
		for _, v := range vv {
			if len(v) >= len(reauth.Placeholder) && strings.Contains(v, reauth.Placeholder) {
				return nil, errors.New("the floor does not serve this request")
			}
		}
	}
	out := &floorRequest{Request: *req, value: [1]string{f.value}}
	out.Header = maps.Clone(req.Header)
	out.Header["Authorization"] = out.value[:]
	return f.base.RoundTrip(&out.Request)
}

// reauthWith returns a Transport whose log goes nowhere, as no peer has one. The
// peers do not wait before they send again; neither does it if wait is negative. Tokens
// are revoked without end, so that there is no limit of refreshes.
func reauthWith(lifetime, wait time.Duration) func(http.RoundTripper, *issuer) http.RoundTripper {
	return func(base http.RoundTripper, i *issuer) http.RoundTripper {
		silent := slog.New(slog.DiscardHandler)
		return &reauth.Transport{
			Base:      base,
			RetryWait: wait,
			Logger:    silent,
			Credential: &reauth.Credential{Logger: silent, RefreshEvery: -1, Refresher: reauth.RefresherFunc(
				func(context.Context, reauth.Stale) (reauth.Token, error) {
					tok := reauth.Token{AccessToken: i.token()}
					if lifetime > 0 {
						tok.Expiry = time.Now().Add(lifetime)
					}
					return tok, nil
				})},
		}
	}
}

// An oauth2Source is what x/oauth2 and client-go take.
type oauth2Source struct{ *issuer }

func (s oauth2Source) Token() (*oauth2.Token, error) {
	return &oauth2.Token{AccessToken: s.token(), TokenType: "Bearer", Expiry: time.Now().Add(lifetime)}, nil
}

func wrapOAuth2(base http.RoundTripper, i *issuer) http.RoundTripper {
	return &oauth2.Transport{Base: base, Source: oauth2.ReuseTokenSource(nil, oauth2Source{i})}
}

// wrapClientGo is how client-go has its own token sources wrapped, where a 401
// is to be noticed (TokenSourceWrapTransport and
// NewBearerAuthWithRefreshRoundTripper do not look at it).
func wrapClientGo(base http.RoundTripper, i *issuer) http.RoundTripper {
	return transport.ResettableTokenSourceWrapTransport(transport.NewCachedTokenSource(oauth2Source{i}))(base)
}

type googleProvider struct{ *issuer }

func (p googleProvider) Token(context.Context) (*auth.Token, error) {
	return &auth.Token{Value: p.token(), Type: "Bearer", Expiry: time.Now().Add(lifetime)}, nil
}

// wrapGoogle leaves the telemetry out, which would be most of what is measured.
func wrapGoogle(base http.RoundTripper, i *issuer) http.RoundTripper {
	client, err := httptransport.NewClient(&httptransport.Options{
		BaseRoundTripper: base,
		DisableTelemetry: true,
		Credentials:      auth.NewCredentials(&auth.CredentialsOptions{TokenProvider: googleProvider{i}}),
	})
	if err != nil {
		panic(err)
	}
	return client.Transport
}

type azCredential struct{ *issuer }

func (c azCredential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: c.token(), ExpiresOn: time.Now().Add(lifetime)}, nil
}

// An azPipeline is azcore as a RoundTripper. To make its own kind of request is
// part of what a call costs.
type azPipeline struct{ runtime.Pipeline }

func (p azPipeline) RoundTrip(req *http.Request) (*http.Response, error) {
	r, err := runtime.NewRequestFromRequest(req)
	if err != nil {
		return nil, err
	}
	return p.Do(r)
}

type azTransport struct{ http.RoundTripper }

func (t azTransport) Do(req *http.Request) (*http.Response, error) { return t.RoundTrip(req) }

// azcoreWith returns the pipeline that SDKs make, the policy in the place that
// they give it, without retries and without the telemetry that would write into
// the caller's request.
func azcoreWith(onChallenge func(*policy.Request, *http.Response, func(policy.TokenRequestOptions) error) error) func(http.RoundTripper, *issuer) http.RoundTripper {
	return func(base http.RoundTripper, i *issuer) http.RoundTripper {
		bearer := runtime.NewBearerTokenPolicy(azCredential{i}, azScopes, &policy.BearerTokenOptions{
			AuthorizationHandler: policy.AuthorizationHandler{OnChallenge: onChallenge},
		})
		return azPipeline{runtime.NewPipeline("bench", "v0.0.0",
			runtime.PipelineOptions{PerRetry: []policy.Policy{bearer}},
			&policy.ClientOptions{
				Transport: azTransport{base},
				Retry:     policy.RetryOptions{MaxRetries: -1},
				Telemetry: policy.TelemetryOptions{Disabled: true},
			})}
	}
}

var azScopes = []string{"https://api.example.com/.default"}

// authenticateAgain is the least that azcore's documentation has a client write
// for challenges other than its own: the policy has marked the token as expired
// before it calls.
func authenticateAgain(_ *policy.Request, _ *http.Response, authenticate func(policy.TokenRequestOptions) error) error {
	return authenticate(policy.TokenRequestOptions{Scopes: azScopes})
}

// twoSendsByHand is the least that a recovery can cost: two sends and a refresh. It
// serves one caller.
type twoSendsByHand struct {
	base   http.RoundTripper
	issuer *issuer
	token  string
}

func (h *twoSendsByHand) RoundTrip(req *http.Request) (*http.Response, error) {
	defer req.Header.Del("Authorization")
	req.Header.Set("Authorization", "Bearer "+h.token)
	resp, err := h.base.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	h.token = h.issuer.token()
	req.Header.Set("Authorization", "Bearer "+h.token)
	return h.base.RoundTrip(req)
}
