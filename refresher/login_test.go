package refresher_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// counting returns a Refresher that returns name-1, name-2 …
func counting(name string) reauth.Refresher {
	n := 0
	return reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		n++
		return reauth.Token{AccessToken: fmt.Sprintf("%s-%d", name, n)}, nil
	})
}

func at(endpoint string) *refresher.OAuth2 {
	return &refresher.OAuth2{Config: oauth2.Config{ClientID: "app", Endpoint: oauth2.Endpoint{TokenURL: endpoint}}}
}

var deadToken = reauth.Rejection{Reason: reauth.ReasonInvalidToken, StatusCode: http.StatusUnauthorized}

// What wrote the file of the first link has stopped.
func TestNoExpiredTokenHidesALinkThatHasAGoodOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte(localJWT(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(-time.Hour).Unix()))), 0o600))
	cred := &reauth.Credential{Logger: localDiscard, Refresher: refresher.Chain(refresher.File(path), counting("fresh"))}
	old := reauth.Token{AccessToken: "old"}
	require.NoError(t, cred.Set(t.Context(), old))
	tok, err := cred.Refresh(t.Context(), reauth.Stale{Token: old, Rejection: deadToken})
	require.NoError(t, err)
	assert.Equal(t, "fresh-1", tok.AccessToken)
}

// The key of the first link was rejected an hour ago, and would be again.
func TestNoCallerPaysTwiceForADeadKeyInTheFirstLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var good atomic.Value
		good.Store("fresh-1")
		cred := &reauth.Credential{Logger: localDiscard, Refresher: refresher.Chain(refresher.Static("dead-key"), counting("fresh"))}
		get := func() int {
			tr := &reauth.Transport{Logger: localDiscard, Credential: cred, Base: localBase(func(req *http.Request) (*http.Response, error) {
				status := http.StatusUnauthorized
				if req.Header.Get("Authorization") == "Bearer "+good.Load().(string) {
					status = http.StatusOK
				}
				return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
			})}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com", nil)
			require.NoError(t, err)
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			return resp.StatusCode
		}
		assert.Equal(t, http.StatusOK, get())
		time.Sleep(time.Hour)
		good.Store("fresh-2")
		assert.Equal(t, http.StatusOK, get(), "after a revocation")
	})
}

// The answer to a refresh token was lost; two links are of the same issuer.
func TestNoLinkIsHandedARefreshTokenWhoseAnswerAnotherLost(t *testing.T) {
	var sent atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		sent.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer s.Close()
	chain := refresher.Chain(at(s.URL+"/a"), at(s.URL+"/b"))
	_, err := chain.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{RefreshToken: "r"}})
	require.Error(t, err)
	assert.EqualValues(t, 1, sent.Load())

	// So it is with any Refresher.
	var seen []string
	reset := &url.Error{Op: "Post", URL: "https://issuer.example.com", Err: &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}}
	chain = refresher.Chain(reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
		seen = append(seen, stale.Token.RefreshToken)
		return reauth.Token{}, reauth.AnswerLost(reset)
	}), counting("key"))
	for range 2 {
		_, err := chain.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{RefreshToken: "r"}})
		require.NoError(t, err)
	}
	assert.Equal(t, []string{"r", "r"}, seen)
}

// It is permanent if all are: a file may yet come.
func TestNoLostAnswerEndsAChainWithOtherLinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	synctest.Test(t, func(t *testing.T) {
		cred := &reauth.Credential{Logger: localDiscard, Refresher: refresher.Chain(reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
			if stale.Token.RefreshToken == "" {
				return reauth.Token{}, reauth.Permanent(errors.New("no refresh token"))
			}
			return reauth.Token{}, io.ErrUnexpectedEOF
		}), refresher.File(path))}
		require.NoError(t, cred.Set(t.Context(), reauth.Token{RefreshToken: "r"}))
		_, err := cred.Token(t.Context())
		require.Error(t, err)
		require.NoError(t, os.WriteFile(path, []byte("key"), 0o600))
		time.Sleep(time.Second + time.Millisecond)
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "key", tok.AccessToken)
	})
}

// What a token is exchanged for has a login of its own.
func TestTokenExchangeDoesNotOutliveTheEndOfItsSubjectsLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &reauth.Credential{Logger: localDiscard, Refresher: &refresher.OAuth2{}}
		issuer := at("https://issuer.example.com/token")
		issuer.Base = localBase(func(req *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			_, _ = io.WriteString(w, `{"access_token":"exchanged"}`)
			return w.Result(), nil
		})
		outer := &reauth.Credential{Logger: localDiscard, Refresher: issuer.TokenExchange(refresher.TokenExchange{Subject: inner})}
		_, err := outer.Token(t.Context())
		require.ErrorContains(t, err, "no subject token")
		require.NoError(t, inner.Set(t.Context(), reauth.Token{AccessToken: "subject"}))
		time.Sleep(time.Second)
		tok, err := outer.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "exchanged", tok.AccessToken)
	})
}

// An API may ask for claims that the issuer has never heard of.
func TestNoChallengeEndsALogin(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("claims") != "" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"invalid_request","error_description":"unknown parameter"}`)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"fresh"}`)
	}))
	defer s.Close()
	stale := reauth.Stale{
		Token: reauth.Token{AccessToken: "old", RefreshToken: "r"},
		Rejection: reauth.Rejection{Reason: reauth.ReasonClaims, Challenges: []reauth.Challenge{
			{Scheme: "Bearer", Params: map[string]string{"claims": "garbage"}},
		}},
	}
	tok, err := at(s.URL).ClientCredentials().Refresh(t.Context(), stale)
	require.NoError(t, err)
	assert.Equal(t, "fresh", tok.AccessToken)

	_, err = at(s.URL).Refresh(t.Context(), stale)
	var refused *oauth2.RetrieveError
	require.ErrorAs(t, err, &refused)
	assert.False(t, reauth.IsPermanent(err))
}

func TestNoQueryOrPasswordOfAURLIsTold(t *testing.T) {
	const marker = "planted/marker"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/login?sid="+marker)
		w.WriteHeader(http.StatusFound)
	}))
	defer s.Close()
	for _, address := range []string{
		s.URL, "issuer.example.com/token?k=" + marker, "//u:" + marker + "@host/%zz", "https://u:" + marker + "@host/x",
	} {
		issuer := at(address)
		_, err := issuer.ClientCredentials().Refresh(t.Context(), reauth.Stale{})
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "marker", address)
		assert.NotContains(t, issuer.String(), "marker", address)
	}
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":"x","error_description":"got %s"}`, r.FormValue("requester_pin"))
	}))
	defer echo.Close()
	issuer := at(echo.URL)
	issuer.Params = url.Values{"requester_pin": {"planted-marker"}}
	_, err := issuer.ClientCredentials().Refresh(t.Context(), reauth.Stale{})
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "marker")
}

// A copy of a file is as new as it looks, but its token is not.
func TestNoCopyOfATokenFileLivesLongerThanItsToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	ends := time.Now().Add(10 * time.Minute)
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, `{"access_token":"key","expires_in":3600,"expires_at":%d}`, ends.Unix()), 0o600))
	tok, err := refresher.File(path).Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.WithinDuration(t, ends, tok.Expiry, time.Second)
}
