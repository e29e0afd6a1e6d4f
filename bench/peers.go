package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/httptransport"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"golang.org/x/oauth2"
	clientgo "k8s.io/client-go/transport"

	"github.com/reauth-go/reauth"
)

// A peer is a way to attach a token to the requests that go to base.
type peer struct {
	name   string
	module string // the table shows its version; "": none
	wrap   func(base http.RoundTripper, i *issuer) http.RoundTripper
}

var (
	baseOnly      = peer{"base", "", func(base http.RoundTripper, _ *issuer) http.RoundTripper { return base }}
	leastWork     = peer{"floor", "", wrapFloor}
	ours          = peer{"reauth", "", transport(options{lifetime: lifetime})}
	oursNoExpiry  = peer{"reauth, no expiry", "", transport(options{})}
	oursNoWait    = peer{"reauth", "", transport(options{lifetime: lifetime, retryWait: -1})}
	oursOrigins   = peer{"reauth", "", transport(options{lifetime: lifetime, origins: []string{"https://login.example.com", "https://api.example.com"}})}
	xoauth2       = peer{"x/oauth2", "golang.org/x/oauth2", wrapOAuth2}
	az            = peer{"azcore", "github.com/Azure/azure-sdk-for-go/sdk/azcore", azcoreWith(nil)}
	azOnChallenge = peer{"azcore, OnChallenge", az.module, azcoreWith(authenticateAgain)}
	clientGo      = peer{"client-go", "k8s.io/client-go", wrapClientGo}
	google        = peer{"google/auth", "cloud.google.com/go/auth", wrapGoogle}
	leastRecovery = peer{"base", "", func(base http.RoundTripper, i *issuer) http.RoundTripper { return &recoverer{base, i, i.token()} }}
)

// options are the fields of a Transport and its Credential that differ between
// the rows.
type options struct {
	lifetime  time.Duration // zero: tokens have no expiry
	retryWait time.Duration // as in Transport
	origins   []string      // as in Transport
}

// transport returns the peer that the options describe. Its log is discarded, as
// no other peer has one.
func transport(o options) func(http.RoundTripper, *issuer) http.RoundTripper {
	return func(base http.RoundTripper, i *issuer) http.RoundTripper {
		return &reauth.Transport{
			Base:       base,
			RetryWait:  o.retryWait,
			Origins:    o.origins,
			Logger:     silent,
			Credential: &reauth.Credential{Logger: silent, RefreshEvery: -1, Refresher: refresher(i, o.lifetime)},
		}
	}
}

var silent = slog.New(slog.DiscardHandler)

// refresher returns the issuer as a Refresher.
func refresher(i *issuer, lifetime time.Duration) reauth.Refresher {
	return reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		tok := reauth.Token{AccessToken: i.token()}
		if lifetime > 0 {
			tok.Expiry = time.Now().Add(lifetime)
		}
		return tok, nil
	})
}

// An oauth2Source is what x/oauth2 and client-go take.
type oauth2Source struct{ *issuer }

func (s oauth2Source) Token() (*oauth2.Token, error) {
	return &oauth2.Token{AccessToken: s.token(), TokenType: "Bearer", Expiry: time.Now().Add(lifetime)}, nil
}

func wrapOAuth2(base http.RoundTripper, i *issuer) http.RoundTripper {
	return &oauth2.Transport{Base: base, Source: oauth2.ReuseTokenSource(nil, oauth2Source{i})}
}

// wrapClientGo wraps base as client-go wraps it for its own token sources. Of its
// wrappers, this one notices a 401: TokenSourceWrapTransport and
// NewBearerAuthWithRefreshRoundTripper do not.
func wrapClientGo(base http.RoundTripper, i *issuer) http.RoundTripper {
	return clientgo.ResettableTokenSourceWrapTransport(clientgo.NewCachedTokenSource(oauth2Source{i}))(base)
}

type googleProvider struct{ *issuer }

func (p googleProvider) Token(context.Context) (*auth.Token, error) {
	return &auth.Token{Value: p.token(), Type: "Bearer", Expiry: time.Now().Add(lifetime)}, nil
}

// wrapGoogle disables the telemetry, whose cost exceeds that of the token.
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

// An azPipeline is azcore as a RoundTripper. Making its own kind of request is
// part of the cost of a call.
type azPipeline struct{ runtime.Pipeline }

// RoundTrip implements http.RoundTripper.
func (p azPipeline) RoundTrip(req *http.Request) (*http.Response, error) {
	r, err := runtime.NewRequestFromRequest(req)
	if err != nil {
		return nil, err
	}
	return p.Do(r)
}

type azTransport struct{ http.RoundTripper }

func (t azTransport) Do(req *http.Request) (*http.Response, error) { return t.RoundTrip(req) }

// azcoreWith returns the pipeline that SDKs make, with the policy in the same
// place. Retries are off. Telemetry, which modifies the caller's request, is off
// too.
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

// authenticateAgain is the least that a client must write for challenges other
// than azcore's own, according to its documentation. The policy marks the token
// as expired before the call.
func authenticateAgain(_ *policy.Request, _ *http.Response, authenticate func(policy.TokenRequestOptions) error) error {
	return authenticate(policy.TokenRequestOptions{Scopes: azScopes})
}

// A recoverer does the least that a recovery needs: two sends and a refresh. It
// is not safe for concurrent use.
type recoverer struct {
	base   http.RoundTripper
	issuer *issuer
	token  string
}

// RoundTrip implements http.RoundTripper.
func (r *recoverer) RoundTrip(req *http.Request) (*http.Response, error) {
	defer req.Header.Del("Authorization")
	req.Header.Set("Authorization", "Bearer "+r.token)
	resp, err := r.base.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	r.token = r.issuer.token()
	req.Header.Set("Authorization", "Bearer "+r.token)
	return r.base.RoundTrip(req)
}

// slug returns a peer's name for go test -bench.
func (p peer) slug() string {
	return strings.NewReplacer(", ", "-", " ", "-", "/", "-").Replace(p.name)
}

// title returns the peer's name with its version.
func (p peer) title() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || p.module == "" {
		return p.name
	}
	for _, m := range info.Deps {
		if m.Path == p.module {
			return p.name + " (" + m.Version + ")"
		}
	}
	return p.name
}
