package refresher_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// A link is a Refresher that notes what it was asked.
type link struct {
	tok reauth.Token
	err error

	mu  sync.Mutex
	got []reauth.Stale
}

func (l *link) Refresh(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, stale)
	return l.tok, l.err
}

func having(token string) *link { return &link{tok: reauth.Token{AccessToken: token}} }

type later struct{ after time.Duration }

func (l later) Error() string             { return "not now" }
func (l later) RetryAfter() time.Duration { return l.after }

func TestNoLinkIsAskedOutOfTurn(t *testing.T) {
	first, second, third := &link{err: errors.New("out of order")}, having("second"), having("third")
	tok, err := refresher.Chain(first, second, third).Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, "second", tok.AccessToken)
	assert.Len(t, first.got, 1)
	assert.Len(t, second.got, 1)
	assert.Empty(t, third.got)

	first.err, first.tok = nil, reauth.Token{AccessToken: "first"}
	tok, err = refresher.Chain(first, second, third).Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, "first", tok.AccessToken)
	assert.Len(t, second.got, 1)
}

func TestNoRejectedTokenHidesTheNextLink(t *testing.T) {
	first, second := having("dead"), having("alive")
	chain := refresher.Chain(first, second)
	stale := rejected("dead")
	stale.Rejection.Challenges = []reauth.Challenge{{Scheme: "Bearer", Params: map[string]string{"scope": "mail"}}}
	tok, err := chain.Refresh(t.Context(), stale)
	require.NoError(t, err)
	assert.Equal(t, "alive", tok.AccessToken)
	for _, l := range []*link{first, second} {
		require.Len(t, l.got, 1)
		assert.Equal(t, stale, l.got[0], "each is told why")
	}

	// Ahead of expiry, the same token is as good as any.
	tok, err = chain.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "dead", Expiry: time.Now().Add(time.Minute)}})
	require.NoError(t, err)
	assert.Equal(t, "dead", tok.AccessToken)

	// No longer once it has expired.
	first.tok.Expiry = time.Now().Add(-time.Minute)
	tok, err = chain.Refresh(t.Context(), reauth.Stale{Token: first.tok})
	require.NoError(t, err)
	assert.Equal(t, "alive", tok.AccessToken)
}

func TestNoErrorOfALinkIsLost(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "token")
	last := errors.New("the last one")
	_, err := refresher.Chain(
		refresher.Env("LOCAL_TEST_UNSET"),
		refresher.File(missing),
		having("two\nlines"),
		having("dead"),
		&link{err: last},
	).Refresh(t.Context(), rejected("dead"))
	require.Error(t, err)
	for _, words := range []string{"1: the environment variable LOCAL_TEST_UNSET", "2: ", missing, "3: the access token has a control character", "4: it returned the token that was rejected", "5: the last one"} {
		assert.ErrorContains(t, err, words)
	}
	assert.NotContains(t, err.Error(), "\n")
	assert.ErrorIs(t, err, last)
	assert.ErrorIs(t, err, fs.ErrNotExist)
	assert.Zero(t, asksFor(err), "the last one leaves it to the pace")
	assert.False(t, reauth.IsPermanent(err))
}

func TestNoChainGivesUpWhileALinkDoesNot(t *testing.T) {
	wrongRequest, passing := reauth.Permanent(errors.New("wrongRequest")), errors.New("passing")
	for name, c := range map[string]struct {
		errs      []error
		permanent bool
		after     time.Duration
	}{
		"all are":           {[]error{wrongRequest, wrongRequest}, true, 0},
		"one is":            {[]error{wrongRequest}, true, 0},
		"the first is not":  {[]error{passing, wrongRequest}, false, 0},
		"the last is not":   {[]error{wrongRequest, passing}, false, 0},
		"none is":           {[]error{passing, passing}, false, 0},
		"wrapped":           {[]error{fmt.Errorf("wrapped: %w", wrongRequest), fmt.Errorf("wrapped: %w", wrongRequest)}, true, 0},
		"the longest time":  {[]error{later{time.Minute}, wrongRequest, later{time.Second}}, false, time.Minute},
		"one names no time": {[]error{later{time.Minute}, passing}, false, 0},
		"a time below zero": {[]error{later{-time.Minute}, later{time.Minute}}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var links []reauth.Refresher
			for _, err := range c.errs {
				links = append(links, &link{err: err})
			}
			_, err := refresher.Chain(links...).Refresh(t.Context(), reauth.Stale{})
			require.Error(t, err)
			assert.Equal(t, c.permanent, reauth.IsPermanent(err))
			assert.Equal(t, c.after, asksFor(err))

			outer := refresher.Chain(refresher.Chain(links...), refresher.Chain(links...))
			_, err = outer.Refresh(t.Context(), reauth.Stale{})
			assert.Equal(t, c.permanent, reauth.IsPermanent(err), "a chain of chains")
			assert.Equal(t, c.after, asksFor(err), "a chain of chains")
		})
	}
}

// A refresh token shown to another issuer is a refresh token given away.
func TestNoRefreshTokenGoesToAnotherLink(t *testing.T) {
	first, second := &link{err: errors.New("down")}, &link{tok: reauth.Token{AccessToken: "a2", RefreshToken: "r2"}}
	chain := refresher.Chain(first, second)
	tok, err := chain.Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	require.Equal(t, "r2", tok.RefreshToken)

	first.got, second.got = nil, nil
	second.tok = reauth.Token{AccessToken: "a3", RefreshToken: "r3"}
	stale := rejected("a2")
	stale.Token.RefreshToken = "r2"
	_, err = chain.Refresh(t.Context(), stale)
	require.NoError(t, err)
	require.Len(t, first.got, 1)
	assert.Empty(t, first.got[0].Token.RefreshToken)
	assert.Equal(t, "a2", first.got[0].Token.AccessToken, "the rest it may know")
	assert.Equal(t, stale.Rejection, first.got[0].Rejection)
	require.Len(t, second.got, 1)
	assert.Equal(t, "r2", second.got[0].Token.RefreshToken)

	// One that nobody knows came from a login: any of them may be able to use it.
	first.got, second.got = nil, nil
	stale.Token.RefreshToken = "of a login"
	_, err = chain.Refresh(t.Context(), stale)
	require.NoError(t, err)
	assert.Equal(t, "of a login", first.got[0].Token.RefreshToken)
	assert.Equal(t, "of a login", second.got[0].Token.RefreshToken)
}

// The context belongs to all of the links.
func TestNoLinkIsAskedAfterTheContextsEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	second := having("second")
	chain := refresher.Chain(reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		cancel()
		return reauth.Token{}, reauth.Permanent(errors.New("wrongRequest"))
	}), second)
	_, err := chain.Refresh(ctx, reauth.Stale{})
	require.ErrorContains(t, err, "wrongRequest")
	assert.Empty(t, second.got)
	assert.False(t, reauth.IsPermanent(err), "nobody knows what the second has")
	assert.ErrorIs(t, err, context.Canceled)
}

// A link that ends too late, and for good, does not end the others.
func TestNoSlowLinkEndsTheChainForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		slow.Store(true)
		cred := &reauth.Credential{Logger: localDiscard, RefreshTimeout: time.Second, Refresher: refresher.Chain(
			reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				if slow.Load() {
					time.Sleep(time.Minute)
				}
				return reauth.Token{}, reauth.Permanent(errors.New("wrongRequest"))
			}), having("second"))}
		_, err := cred.Token(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Hour)
		slow.Store(false)
		tok, err := cred.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "second", tok.AccessToken)
	})
}

func TestNoEmptyChainIsAskedTwice(t *testing.T) {
	_, err := refresher.Chain().Refresh(t.Context(), reauth.Stale{})
	require.ErrorContains(t, err, "refresher.Chain has no Refresher")
	assert.True(t, reauth.IsPermanent(err))
}

// An expired JWT is the last resort: the server may not mind, or our clock be wrong.
func TestNoExpiredTokenOfALinkIsDropped(t *testing.T) {
	dead := localJWT(`{"exp":1000000000}`)
	tok, err := refresher.Chain(having(dead), &link{err: errors.New("down")}).Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, dead, tok.AccessToken)
	assert.Equal(t, int64(1000000000), tok.Expiry.Unix())
}

func TestNoRefreshTokenIsMixedUpByAHundredCallers(t *testing.T) {
	both := func(name string) reauth.Refresher {
		return reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
			switch stale.Token.RefreshToken {
			case "":
				if stale.Token.AccessToken != "" {
					return reauth.Token{}, errors.New("another's")
				}
			case "r-" + name:
			default:
				return reauth.Token{}, reauth.Permanent(errors.New("a refresh token of another's"))
			}
			return reauth.Token{AccessToken: "new-" + name, RefreshToken: "r-" + name}, nil
		})
	}
	chain := refresher.Chain(both("a"), both("b"))
	_, err := chain.Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			stale := rejected("old")
			stale.Token.RefreshToken = "r-a"
			tok, err := chain.Refresh(t.Context(), stale)
			assert.NoError(t, err)
			assert.Equal(t, "new-a", tok.AccessToken)
		})
	}
	wg.Wait()
}

// A refresh token that is no longer valid is not sent each second because of the file
// beside it.
func TestNoDeadGrantIsPresentedAsOftenAsAFileIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		cred := &reauth.Credential{Logger: localDiscard, Refresher: refresher.Chain(
			reauth.RefresherFunc(func(_ context.Context, s reauth.Stale) (reauth.Token, error) {
				if s.Token.RefreshToken != "" {
					n++
				}
				return reauth.Token{}, reauth.Permanent(errors.New("invalid_grant"))
			}), refresher.File(filepath.Join(dir, "none")))}
		require.NoError(t, cred.Set(t.Context(), reauth.Token{RefreshToken: "r"}))
		for range 600 {
			_, _ = cred.Token(t.Context())
			time.Sleep(100 * time.Millisecond)
		}
		assert.Equal(t, 1, n)
	})
}

// The answer was lost, the next link has a token, and the refresh token remains that of
// the first.
func TestChainRefreshTokenRemainsWithTheLinkThatLostItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		k := 0
		cred := &reauth.Credential{Logger: localDiscard, Refresher: refresher.Chain(
			reauth.RefresherFunc(func(_ context.Context, s reauth.Stale) (reauth.Token, error) {
				seen = append(seen, s.Token.RefreshToken)
				return reauth.Token{}, reauth.AnswerLost(errors.New("cut"))
			}), reauth.RefresherFunc(func(_ context.Context, s reauth.Stale) (reauth.Token, error) {
				k++
				assert.Empty(t, s.Token.RefreshToken)
				return reauth.Token{AccessToken: fmt.Sprint("key-", k), Expiry: time.Now().Add(time.Hour)}, nil
			}))}
		require.NoError(t, cred.Set(t.Context(), reauth.Token{RefreshToken: "r"}))
		for range 3 {
			_, _ = cred.Token(t.Context())
			time.Sleep(2 * time.Hour)
		}
		assert.Equal(t, []string{"r", "r", "r"}, seen)
	})
}

func TestNoIssuerIsAskedBeforeItsTimeBecauseOfAFile(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		cred := &reauth.Credential{Logger: localDiscard, Refresher: refresher.Chain(
			reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				n++
				return reauth.Token{}, later{time.Minute}
			}), refresher.File(filepath.Join(dir, "none")))}
		for range 600 {
			_, _ = cred.Token(t.Context())
			time.Sleep(100 * time.Millisecond)
		}
		assert.LessOrEqual(t, n, 2)
	})
}
