package refresher_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

func TestTokenLosesNothingInItsConversion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		exp := now.Add(20 * time.Minute).Truncate(time.Second)
		for _, c := range []struct {
			name string
			from *oauth2.Token
			want reauth.Token
		}{
			{"nil", nil, reauth.Token{}},
			{"zero", &oauth2.Token{}, reauth.Token{}},
			{"all", &oauth2.Token{AccessToken: "T", TokenType: "bearer", RefreshToken: "R", Expiry: exp},
				reauth.Token{AccessToken: "T", TokenType: "bearer", RefreshToken: "R", Expiry: exp}},
			{"a refresh token alone", &oauth2.Token{RefreshToken: "R"}, reauth.Token{RefreshToken: "R"}},
			{"a lifetime", &oauth2.Token{AccessToken: "T", ExpiresIn: 60}, reauth.Token{AccessToken: "T", Expiry: now.Add(time.Minute)}},
			{"a lifetime beside an expiry", &oauth2.Token{AccessToken: "T", ExpiresIn: 60, Expiry: exp}, reauth.Token{AccessToken: "T", Expiry: exp}},
			{"a negative lifetime", &oauth2.Token{AccessToken: "T", ExpiresIn: -60}, reauth.Token{AccessToken: "T"}},
			{"a lifetime of ages", &oauth2.Token{AccessToken: "T", ExpiresIn: math.MaxInt64}, reauth.Token{AccessToken: "T", Expiry: now.Add(oauthCentury)}},
			{"a JWT", &oauth2.Token{AccessToken: oauthJWT(exp)}, reauth.Token{AccessToken: oauthJWT(exp), Expiry: exp}},
			{"a dead JWT", &oauth2.Token{AccessToken: oauthJWT(now.Add(-time.Hour)), Expiry: exp}, reauth.Token{AccessToken: oauthJWT(now.Add(-time.Hour)), Expiry: now.Add(-time.Hour)}},
			{"no token", &oauth2.Token{AccessToken: "<token>", Expiry: exp}, reauth.Token{AccessToken: "<token>", Expiry: exp}},
		} {
			got := refresher.Token(c.from)
			assert.True(t, c.want.Expiry.Equal(got.Expiry), "%s: %v", c.name, got.Expiry)
			got.Expiry, c.want.Expiry = time.Time{}, time.Time{}
			assert.Equal(t, c.want, got, c.name)
		}
	})
}

// Set, and not the conversion, says that a token is none.
func TestConversionOfNoTokenIsNotSilent(t *testing.T) {
	cred := &reauth.Credential{}
	require.Error(t, cred.Set(t.Context(), refresher.Token(nil)))
	require.ErrorContains(t, cred.Set(t.Context(), refresher.Token(&oauth2.Token{AccessToken: "to\nken"})), "control character")
}

// A source of x/oauth2 remembers its token: a new one is made each time.
func TestTokenSourcesMemoryIsNotTheCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{}
		conf := &clientcredentials.Config{ClientID: "app", ClientSecret: oauthSecret, TokenURL: oauthURL, AuthStyle: oauth2.AuthStyleInHeader}
		made := 0
		cred := &reauth.Credential{Logger: slog.New(slog.DiscardHandler), Refresher: refresher.FromTokenSource(func(ctx context.Context) oauth2.TokenSource {
			made++
			return conf.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: server}))
		})}
		for n := 1; n <= 3; n++ {
			tok, err := cred.Token(t.Context())
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprint("T", n), tok.AccessToken)
			assert.Equal(t, time.Hour, time.Until(tok.Expiry))
			time.Sleep(2 * time.Hour)
		}
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		tok, err = cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
		require.NoError(t, err, "the source's token had not expired")
		assert.Equal(t, "T5", tok.AccessToken)
		assert.Equal(t, 5, made)
		assert.Len(t, server.seen(), 5)
	})
}

func TestTokenSourceThatHasOneTokenForEverIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for _, c := range []struct {
			name  string
			tok   *oauth2.Token
			stale reauth.Stale
			says  string // "" if it is fine
		}{
			{"rejected", &oauth2.Token{AccessToken: "T0"}, oauthRejected(), "was rejected: have the function make a new source each time"},
			{"expired", &oauth2.Token{AccessToken: "T0", Expiry: now.Add(-time.Second)}, oauthHeld(), "has expired"},
			{"not yet", &oauth2.Token{AccessToken: "T0", Expiry: now.Add(time.Second)}, oauthHeld(), ""},
			{"another", &oauth2.Token{AccessToken: "T1"}, oauthRejected(), ""},
		} {
			r := refresher.FromTokenSource(func(context.Context) oauth2.TokenSource { return oauth2.StaticTokenSource(c.tok) })
			tok, err := r.Refresh(t.Context(), c.stale)
			if c.says == "" {
				require.NoError(t, err, c.name)
				assert.Equal(t, c.tok.AccessToken, tok.AccessToken)
				continue
			}
			require.ErrorContains(t, err, c.says, c.name)
			assert.False(t, reauth.IsPermanent(err), c.name)
			assert.Zero(t, tok)
		}
	})
}

type oauthSource func() (*oauth2.Token, error)

func (f oauthSource) Token() (*oauth2.Token, error) { return f() }

func TestFailureOfATokenSourceIsNeitherLostNorTakenTooSeriously(t *testing.T) {
	broken := errors.New("no network")
	retrieve := func(status int, code string, header ...string) error {
		return fmt.Errorf("wrapped: %w", &oauth2.RetrieveError{
			Response: oauthAnswer(status, "", header...), ErrorCode: code,
			Body: []byte(`{"secret":"words-of-the-answer"}`), ErrorDescription: "the token T0-that-was-rejected is gone",
		})
	}
	for _, c := range []struct {
		name      string
		err       error
		says      string
		permanent bool
		asks      time.Duration
	}{
		{"any", broken, "no network", false, 0},
		{"invalid_grant", retrieve(400, "invalid_grant"), "answered 400 invalid_grant", false, 0},
		{"invalid_client", retrieve(401, "invalid_client"), "ClientSecret", false, 0},
		{"invalid_grant within a 503", retrieve(503, "invalid_grant"), "503", false, 0},
		{"429", retrieve(429, "", "Retry-After", "30"), "429", false, 30 * time.Second},
		{"no response", &oauth2.RetrieveError{ErrorCode: "invalid_grant"}, "invalid_grant", false, 0},
	} {
		r := refresher.FromTokenSource(func(context.Context) oauth2.TokenSource {
			return oauthSource(func() (*oauth2.Token, error) { return nil, c.err })
		})
		_, err := r.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "T0-that-was-rejected"}})
		require.ErrorContains(t, err, c.says, c.name)
		assert.ErrorIs(t, err, c.err, c.name)
		assert.Equal(t, c.permanent, reauth.IsPermanent(err), c.name)
		var asks interface{ RetryAfter() time.Duration }
		if assert.Equal(t, c.asks > 0, errors.As(err, &asks), c.name) && asks != nil {
			assert.Equal(t, c.asks, asks.RetryAfter(), c.name)
		}
		assert.NotContains(t, fmt.Sprintf("%+v", err), "T0-that-was-rejected", "S5")
		assert.NotContains(t, fmt.Sprintf("%+v", err), "words-of-the-answer", "S5")
	}
}

func TestTokenSourceThatIsNoneIsNotAPanic(t *testing.T) {
	for name, source := range map[string]oauth2.TokenSource{
		"nil":         nil,
		"a nil token": oauthSource(func() (*oauth2.Token, error) { return nil, nil }),
		"empty":       oauth2.StaticTokenSource(&oauth2.Token{}),
		"two lines":   oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "to\nken"}),
	} {
		_, err := refresher.FromTokenSource(func(context.Context) oauth2.TokenSource { return source }).Refresh(t.Context(), reauth.Stale{})
		require.Error(t, err, name)
		assert.False(t, reauth.IsPermanent(err), name)
		assert.NotContains(t, err.Error(), "panic", name)
	}
}

// The source's request ends with the refresh.
func TestTokenSourceDoesNotOutliveTheRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{answer: func(_ int, req *http.Request, _ url.Values) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}}
		conf := &clientcredentials.Config{ClientID: "app", TokenURL: oauthURL, AuthStyle: oauth2.AuthStyleInHeader}
		cred := &reauth.Credential{Logger: slog.New(slog.DiscardHandler), Refresher: refresher.FromTokenSource(func(ctx context.Context) oauth2.TokenSource {
			return conf.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: server}))
		})}
		start := time.Now()
		_, err := cred.Token(t.Context())
		require.Error(t, err)
		require.NoError(t, cred.Shutdown(t.Context()))
		assert.Equal(t, 30*time.Second, time.Since(start))
	})
}

func TestTokenSourceOfACredentialIsNeverStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{}
		cred := oauthCredential(t, oauthApp(server))
		src := refresher.TokenSource(cred)
		for n := 1; n <= 3; n++ {
			tok, err := src.Token()
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprint("T", n), tok.AccessToken)
			assert.Equal(t, "Bearer", tok.Type())
			assert.Empty(t, tok.RefreshToken, "it stays with the Credential")
			assert.WithinDuration(t, time.Now().Add(time.Hour), tok.Expiry, time.Second)
			time.Sleep(2 * time.Hour)
		}
		again, err := src.Token()
		require.NoError(t, err)
		held, err := cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, held.AccessToken, again.AccessToken)

		_, err = cred.Refresh(t.Context(), reauth.Stale{Token: held, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
		require.NoError(t, err)
		tok, err := src.Token()
		require.NoError(t, err)
		assert.Equal(t, "T5", tok.AccessToken)
	})
}

func TestTokenSourceOfACredentialDoesNotHideItsErrorNorHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &oauthServer{answer: func(int, *http.Request, url.Values) (*http.Response, error) {
			return oauthError(400, "invalid_grant"), nil
		}}
		tok, err := refresher.TokenSource(oauthCredential(t, oauthApp(server))).Token()
		var failed *reauth.RefreshError
		require.ErrorAs(t, err, &failed)
		assert.True(t, failed.Permanent())
		assert.Nil(t, tok)

		hangs := &reauth.Credential{Logger: slog.New(slog.DiscardHandler), RefreshTimeout: time.Second, Refresher: reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
			<-ctx.Done()
			return reauth.Token{}, ctx.Err()
		})}
		start := time.Now()
		_, err = refresher.TokenSource(hangs).Token()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(start))
	})
}

// Both ways at once: x/oauth2's own Transport over a Credential's tokens.
func TestAHundredUsersOfATokenSourceCostOneRefresh(t *testing.T) {
	server := &oauthServer{}
	o, _ := oauthListen(t, server)
	src := refresher.TokenSource(oauthCredential(t, o))
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			tok, err := src.Token()
			if assert.NoError(t, err) {
				assert.Equal(t, "T1", tok.AccessToken)
			}
		})
	}
	all.Wait()
	assert.Len(t, server.seen(), 1)
}
