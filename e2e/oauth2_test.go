package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

func decode(t *testing.T, resp *http.Response, into any) {
	t.Helper()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(into))
}

// signedIn serves the handler on loopback, and returns a client that has logged in
// there. change may change its Credential before.
func signedIn(t *testing.T, handler http.Handler, change ...func(*reauth.Credential)) (address string, cred *reauth.Credential, client *http.Client) {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	oauth := oauthClient(s.URL, nil)
	cred = &reauth.Credential{Refresher: oauth, Logger: discard}
	for _, c := range change {
		c(cred)
	}
	require.NoError(t, cred.Set(t.Context(), login(t, oauth)))
	client = &http.Client{Transport: &reauth.Transport{Credential: cred, Logger: discard}}
	t.Cleanup(client.CloseIdleConnections)
	return s.URL, cred, client
}

// fetch sends a GET and returns the status.
func fetch(t *testing.T, client *http.Client, address string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Error(err)
		return 0
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// The measure of the refreshers. The servers are real, the time and
// the network between are not.
func TestAThousandCallersOverTenExpiriesNeverSeeA401NorLoseTheLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, expiries, lifetime = 1000, 10, time.Hour
		server := newAuthServer(t, lifetime)
		oauth := oauthClient("https://issuer.example.com", server)
		cred := &reauth.Credential{Refresher: oauth, Logger: discard}
		require.NoError(t, cred.Set(t.Context(), login(t, oauth)))
		client := &http.Client{Transport: &reauth.Transport{Base: server, Credential: cred, Logger: discard}}

		var bad atomic.Int32
		var wg sync.WaitGroup
		for i := range expiries {
			for range callers {
				wg.Go(func() {
					if i%2 == 0 { // there is always somebody who finds that the token is due
						time.Sleep(rand.N(lifetime))
					} else { // all come at once, after a night without anybody
						time.Sleep(lifetime + time.Minute)
					}
					if fetch(t, client, "https://api.example.com/") != http.StatusOK {
						bad.Add(1)
					}
				})
			}
			wg.Wait()
		}
		t.Logf("%d requests, %d refreshes, %d refused by the issuer, %d 401s met, %d seen",
			server.served.Load(), server.refreshes.Load(), server.refused.Load(), server.denied.Load(), bad.Load())
		assert.Zero(t, bad.Load())
		assert.EqualValues(t, callers*expiries, server.served.Load())
		assert.Zero(t, server.refused.Load(), "no refresh token was presented twice")
		assert.GreaterOrEqual(t, server.refreshes.Load(), int32(expiries-1))
		assert.LessOrEqual(t, server.refreshes.Load(), int32(expiries+1), "one for each expiry")
		tok, err := cred.Refresh(t.Context(), reauth.Stale{Token: mustToken(t, cred), Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
		require.NoError(t, err, "the family lives")
		assert.True(t, server.active(t.Context(), tok.AccessToken))
	})
}

// Each tenth answer of the issuer is cut off, after it has rotated the refresh token and
// with it revoked the access token. The network is not real, and tells httptrace nothing.
func TestATenthOfTheAnswersLostLosesNoLoginWithinTheGracePeriod(t *testing.T) {
	for name, tt := range map[string]struct {
		grace, reuse time.Duration
		survives     bool
	}{
		"Reuse is a second less than the grace period": {12 * time.Second, 11 * time.Second, true},
		"a long grace period, and a short Reuse":       {time.Minute, 5 * time.Second, true},
		"the issuer forgives nothing":                  {0, 11 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const callers, lifetime = 1000, time.Minute
				server := newForgivingServer(t, lifetime, tt.grace)
				oauth := oauthClient("https://issuer.example.com", server)
				first := login(t, oauth)
				var cut atomic.Int32
				oauth.Base = roundTripperFunc(func(req *http.Request) (*http.Response, error) {
					resp, err := server.RoundTrip(req)
					if rand.N(10) == 0 {
						cut.Add(1)
						return nil, io.ErrUnexpectedEOF
					}
					return resp, err
				})
				oauth.Reuse = tt.reuse
				var ended atomic.Bool
				cred := &reauth.Credential{Refresher: oauth, Logger: discard, OnRefresh: func(_ context.Context, info reauth.RefreshInfo) {
					if reauth.IsLoginEnded(info.Err) {
						ended.Store(true)
					}
				}}
				require.NoError(t, cred.Set(t.Context(), first))
				client := &http.Client{Transport: &reauth.Transport{Base: server, Credential: cred, Logger: discard}}
				var sent, seen atomic.Int32
				var wg sync.WaitGroup
				end := time.Now().Add(time.Hour) // for all: one who is left alone may ask when the grace is over
				for range callers {
					wg.Go(func() {
						for {
							time.Sleep(rand.N(4 * time.Minute))
							if time.Now().After(end) {
								return
							}
							sent.Add(1)
							if ended.Load() {
								return
							}
							resp, err := client.Get("https://api.example.com/")
							if err != nil || resp.StatusCode != http.StatusOK {
								seen.Add(1)
							}
							if err == nil {
								_ = resp.Body.Close()
							}
						}
					})
				}
				wg.Wait()
				t.Logf("%d refreshes, %d answers cut off, %d refused by the issuer, %d of %d requests failed",
					server.refreshes.Load(), cut.Load(), server.refused.Load(), seen.Load(), sent.Load())
				require.Positive(t, cut.Load())
				assert.Equal(t, tt.survives, !ended.Load())
				if tt.survives {
					assert.Zero(t, server.refused.Load())
					assert.Less(t, seen.Load(), sent.Load()/100, "what comes between a lost answer and the next")
				}
			})
		})
	}
}

func mustToken(t *testing.T, cred *reauth.Credential) reauth.Token {
	t.Helper()
	tok, err := cred.Token(t.Context())
	require.NoError(t, err)
	return tok
}

// On sockets.
func TestAHundredCallersSurviveTheRevocationOfTheirToken(t *testing.T) {
	server := newAuthServer(t, time.Hour)
	address, cred, client := signedIn(t, server)

	for round := range 3 {
		server.revokeAccess(t, mustToken(t, cred).AccessToken)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { assert.Equal(t, http.StatusOK, fetch(t, client, address+"/")) })
		}
		wg.Wait()
		assert.EqualValues(t, round+1, server.refreshes.Load())
	}
	assert.NotZero(t, server.denied.Load())
	assert.Zero(t, server.refused.Load())
}

// Tokens of a few seconds, on sockets. Nobody waits for an expiry: the
// callers go on until the server has seen three.
func TestAHundredCallersDoNotNoticeThatTokensExpire(t *testing.T) {
	server := newAuthServer(t, 2*time.Second)
	address, _, client := signedIn(t, server)

	within(t, 30*time.Second, func() {
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				for server.refreshes.Load() < 3 && !t.Failed() {
					assert.Equal(t, http.StatusOK, fetch(t, client, address+"/"))
				}
			})
		}
		wg.Wait()
	})
	assert.Zero(t, server.refused.Load())
	t.Logf("%d requests, %d refreshes, %d 401s met", server.served.Load(), server.refreshes.Load(), server.denied.Load())
}

// The server has rotated the refresh token, and nobody has the new one (RFC 9700
// §4.14.2).
func TestRefreshWhoseAnswerIsLostIsPresentedAgainForLackOfAnother(t *testing.T) {
	server := newAuthServer(t, time.Hour)
	var lose atomic.Bool
	address, cred, client := signedIn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" && lose.Load() {
			server.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler) // cuts the connection
		}
		server.ServeHTTP(w, r)
	}))
	first := mustToken(t, cred)

	before := server.asked.Load()
	server.revokeAccess(t, first.AccessToken)
	lose.Store(true)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { assert.Equal(t, http.StatusUnauthorized, fetch(t, client, address+"/")) })
	}
	wg.Wait()
	assert.EqualValues(t, 1, server.asked.Load()-before, "the refresh token was sent once")
	assert.Zero(t, server.refused.Load())
	var failure *reauth.RefreshError
	_, err := cred.Current()
	require.ErrorAs(t, err, &failure)
	assert.False(t, failure.Permanent())
	assert.True(t, reauth.IsAnswerLost(err))
	t.Log(err)

	// The access token is of no more use: the login is lost for certain if the refresh
	// token is not presented again. This server allows no second use.
	lose.Store(false)
	require.Eventually(t, func() bool {
		fetch(t, client, address+"/")
		_, err = cred.Current()
		return reauth.IsLoginEnded(err)
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, cred.Set(t.Context(), login(t, oauthClient(address, nil))))
	assert.Equal(t, http.StatusOK, fetch(t, client, address+"/"))

	assert.Equal(t, "invalid_grant", present(t, address, first.RefreshToken))
}

// The server answers after the refresh was given up on.
func TestARefreshThatIsAnsweredLateIsNotSentAgain(t *testing.T) {
	server := newAuthServer(t, time.Hour)
	var slow atomic.Bool
	answer := make(chan struct{})
	landed := make(chan reauth.RefreshInfo, 10)
	address, cred, client := signedIn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" && slow.Load() {
			<-answer
		}
		server.ServeHTTP(w, r)
	}), func(c *reauth.Credential) {
		c.RefreshTimeout = 50 * time.Millisecond
		c.OnRefresh = func(_ context.Context, r reauth.RefreshInfo) { landed <- r }
	})
	first := mustToken(t, cred)

	before := server.asked.Load()
	server.revokeAccess(t, first.AccessToken)
	slow.Store(true)
	assert.Equal(t, http.StatusUnauthorized, fetch(t, client, address+"/"), "it took too long")
	assert.Error(t, (<-landed).Err)
	for range 10 {
		assert.Equal(t, http.StatusUnauthorized, fetch(t, client, address+"/"))
	}
	close(answer)
	within(t, 10*time.Second, func() { assert.NoError(t, (<-landed).Err) })
	assert.Equal(t, http.StatusOK, fetch(t, client, address+"/"))
	assert.EqualValues(t, 1, server.asked.Load()-before)
	assert.Zero(t, server.refused.Load())
}

func TestADeadLoginIsToldOnceAndCuredByAnother(t *testing.T) {
	server := newAuthServer(t, time.Hour)
	address, cred, client := signedIn(t, server)
	first := mustToken(t, cred)

	// A thief uses the refresh token first; when the owner does, both lose.
	require.Empty(t, present(t, address, first.RefreshToken))
	before := server.asked.Load()
	for range 5 {
		assert.Equal(t, http.StatusUnauthorized, fetch(t, client, address+"/"))
	}
	assert.EqualValues(t, 1, server.asked.Load()-before)
	_, err := cred.Current()
	assert.ErrorContains(t, err, "invalid_grant")
	var failure *reauth.RefreshError
	assert.True(t, errors.As(err, &failure) && failure.Permanent())

	require.NoError(t, cred.Set(t.Context(), login(t, oauthClient(address, nil))))
	assert.Equal(t, http.StatusOK, fetch(t, client, address+"/"))
}

func TestClientCredentialsAreAskedForOnceByAHundredCallers(t *testing.T) {
	server := newAuthServer(t, time.Hour)
	s := httptest.NewServer(server)
	defer s.Close()
	oauth := oauthClient(s.URL, nil)
	oauth.Config.Scopes = []string{"read"}
	cred := &reauth.Credential{Refresher: oauth.ClientCredentials(), Logger: discard}
	client := &http.Client{Transport: &reauth.Transport{Credential: cred, Logger: discard}}
	defer client.CloseIdleConnections()
	for round := range 3 {
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { assert.Equal(t, http.StatusOK, fetch(t, client, s.URL+"/")) })
		}
		wg.Wait()
		assert.EqualValues(t, round+1, server.asked.Load())
		server.revokeAccess(t, mustToken(t, cred).AccessToken)
	}
}
