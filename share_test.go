package reauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// A memoryStore is a Store whose troubles a test chooses.
type memoryStore struct {
	mu     sync.Mutex
	record string
	loads  int
	swaps  int

	before func(ctx context.Context, op string) error           // instead of the call, if not nil
	after  func(op string, swapped bool) (swap bool, err error) // what the caller is told
}

func (s *memoryStore) Load(ctx context.Context) (string, error) {
	if err := s.trouble(ctx, "load"); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	return s.record, nil
}

func (s *memoryStore) CompareAndSwap(ctx context.Context, old, next string) (bool, error) {
	if err := s.trouble(ctx, "swap"); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swaps++
	swapped := s.record == old
	if swapped {
		s.record = next
	}
	if s.after != nil {
		return s.after("swap", swapped)
	}
	return swapped, nil
}

func (s *memoryStore) trouble(ctx context.Context, op string) error {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx, op); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *memoryStore) setTrouble(before func(context.Context, string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

func (s *memoryStore) put(record string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record = record
}

func (s *memoryStore) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record
}

func (s *memoryStore) counts() (loads, swaps int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loads, s.swaps
}

// state returns the member "reauth" of the record.
func (s *memoryStore) state(t *testing.T) map[string]any {
	t.Helper()
	var r struct {
		Reauth map[string]any `json:"reauth"`
	}
	require.NoError(t, json.Unmarshal([]byte(s.get()), &r))
	return r.Reauth
}

func down(context.Context, string) error { return errors.New("connection refused") }

func hangs(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// A rotatingIssuer replaces the refresh token with each use, and ends the login if an old
// one is presented, unless within its grace period.
type rotatingIssuer struct {
	mu       sync.Mutex
	n        int
	current  string               // refresh token
	used     map[string]time.Time // refresh tokens, by their first use
	access   map[string]bool      // that the API accepts
	ended    bool
	lost     int // logins
	asked    []string
	doubts   []time.Time // Stale.AnswerLostAt of each call
	logins   int
	grace    time.Duration
	lifetime time.Duration

	takes  time.Duration                                // an answer
	answer func(tok reauth.Token) (reauth.Token, error) // nil: as it is
}

func newRotatingIssuer() *rotatingIssuer {
	return &rotatingIssuer{used: map[string]time.Time{}, access: map[string]bool{}, lifetime: time.Hour}
}

// Refresh implements reauth.Refresher; without a refresh token, it logs in.
func (i *rotatingIssuer) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	return i.refresh(ctx, stale)
}

func (i *rotatingIssuer) refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	i.mu.Lock()
	takes := i.takes
	i.doubts = append(i.doubts, stale.AnswerLostAt)
	i.mu.Unlock()
	tok, err := i.grant(stale.Token.RefreshToken)
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return reauth.Token{}, reauth.AnswerLost(ctx.Err())
		}
	}
	if err != nil {
		return reauth.Token{}, err
	}
	i.mu.Lock()
	answer := i.answer
	i.mu.Unlock()
	if answer != nil {
		return answer(tok)
	}
	return tok, nil
}

func (i *rotatingIssuer) grant(refreshToken string) (reauth.Token, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked = append(i.asked, refreshToken)
	switch at, again := i.used[refreshToken]; {
	case refreshToken == "":
		i.logins++
		i.ended = false
	case i.ended, refreshToken != i.current && !again, again && time.Since(at) > i.grace:
		if !i.ended {
			i.lost++
		}
		i.ended = true
		i.access = map[string]bool{}
		return reauth.Token{}, reauth.LoginEnded(errors.New("invalid_grant"))
	case !again:
		i.used[refreshToken] = time.Now()
	}
	i.n++
	i.current = fmt.Sprintf("refresh-token-%d", i.n)
	tok := reauth.Token{AccessToken: fmt.Sprintf("access-token-%d", i.n), RefreshToken: i.current, Expiry: time.Now().Add(i.lifetime)}
	i.access[tok.AccessToken] = true
	return tok, nil
}

func (i *rotatingIssuer) grants() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

// revoke ends all access tokens.
func (i *rotatingIssuer) revoke() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.access = map[string]bool{}
}

// RoundTrip is the API.
func (i *rotatingIssuer) RoundTrip(req *http.Request) (*http.Response, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.access[strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")] {
		return wordsResponse(200, ""), nil
	}
	return wordsResponse(401, "", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
}

// A process is one Credential that shares a login.
type process struct {
	cred   *reauth.Credential
	client *http.Client
	infos  []reauth.RefreshInfo
	mu     sync.Mutex
}

func newProcess(s reauth.Store, i *rotatingIssuer) *process {
	p := &process{}
	quiet := slog.New(slog.DiscardHandler)
	p.cred = &reauth.Credential{Refresher: i, Store: s, Logger: quiet, OnRefresh: func(_ context.Context, info reauth.RefreshInfo) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.infos = append(p.infos, info)
	}}
	p.client = &http.Client{Transport: &reauth.Transport{Credential: p.cred, Base: i, RetryWait: -1, Logger: quiet}}
	return p
}

func (p *process) latest() reauth.RefreshInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.infos[len(p.infos)-1]
}

func (p *process) get() (int, error) {
	resp, err := p.client.Get("https://api.example.com/")
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

func (p *process) mustGet(t *testing.T) {
	t.Helper()
	status, err := p.get()
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
}

// shared runs a test in fake time with so many processes.
func shared(t *testing.T, n int, f func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, i := &memoryStore{}, newRotatingIssuer()
		var all []*process
		for range n {
			all = append(all, newProcess(s, i))
		}
		f(t, s, i, all)
		for _, p := range all {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			assert.NoError(t, p.cred.Shutdown(ctx))
			cancel()
		}
		time.Sleep(2 * time.Minute)
	})
}

// together sends a request from each process, and counts those that failed.
func together(all []*process) (failed int) {
	var n atomic.Int64
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(func() {
			if status, err := p.get(); err != nil || status != http.StatusOK {
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return int(n.Load())
}

func TestShareOneLoginAtFirstStart(t *testing.T) {
	shared(t, 500, func(t *testing.T, _ *memoryStore, i *rotatingIssuer, all []*process) {
		assert.Zero(t, together(all))
		assert.Equal(t, 1, i.grants())
	})
}

func TestShareOneRefreshOfARejectedToken(t *testing.T) {
	shared(t, 100, func(t *testing.T, _ *memoryStore, i *rotatingIssuer, all []*process) {
		i.takes = 300 * time.Millisecond
		require.Zero(t, together(all))
		i.revoke()
		assert.Zero(t, together(all))
		assert.Equal(t, 2, i.grants())
		adopted := 0
		for _, p := range all {
			if p.latest().Shared {
				adopted++
			}
			assert.Equal(t, all[0].latest().Token, p.latest().Token)
		}
		assert.Equal(t, 99, adopted)
	})
}

// The login of yesterday is there today.
func TestShareAcrossRestarts(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		all[0].mustGet(t)
		again := newProcess(s, i)
		again.mustGet(t)
		assert.True(t, again.latest().Shared)
		assert.Equal(t, 1, i.grants())
		time.Sleep(24 * time.Hour) // past the expiry
		third := newProcess(s, i)
		third.mustGet(t)
		assert.Equal(t, []string{"", "refresh-token-1"}, i.asked)
	})
}

// A flight presents the Store's refresh token, never an older one of its own.
func TestSharePresentsTheStoresRefreshToken(t *testing.T) {
	shared(t, 2, func(t *testing.T, _ *memoryStore, i *rotatingIssuer, all []*process) {
		a, b := all[0], all[1]
		a.mustGet(t)
		b.mustGet(t)
		for range 3 {
			i.revoke()
			a.mustGet(t)
			time.Sleep(time.Minute)
		}
		i.revoke()
		_, _ = b.get() // which knows the first only, and gets the fourth
		time.Sleep(6 * time.Second)
		b.mustGet(t)
		assert.Equal(t, []string{"", "refresh-token-1", "refresh-token-2", "refresh-token-3", "refresh-token-4"}, i.asked)
		assert.Zero(t, i.lost)
	})
}

// Where the lease cannot be written, nothing is sent: a full disk costs no login.
func TestShareSendsNothingWithoutALease(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		p := all[0]
		p.mustGet(t)
		i.revoke()
		s.setTrouble(func(_ context.Context, op string) error {
			if op == "swap" {
				return errors.New("no space left on device")
			}
			return nil
		})
		status, err := p.get()
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.ErrorContains(t, p.latest().Err, "no space left on device")
		s.setTrouble(down)
		time.Sleep(time.Minute)
		_, _ = p.get()
		assert.Equal(t, 1, i.grants())
		s.setTrouble(nil)
		time.Sleep(5 * time.Minute)
		p.mustGet(t)
		assert.Equal(t, 2, i.grants())
	})
}

// Requests with a usable token do not notice the Store.
func TestShareValidTokenNeedsNoStore(t *testing.T) {
	for name, trouble := range map[string]func(context.Context, string) error{"down": down, "hangs": hangs} {
		t.Run(name, func(t *testing.T) {
			shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
				p := all[0]
				p.mustGet(t)
				loads, swaps := s.counts()
				for range 100 {
					p.mustGet(t)
				}
				l, w := s.counts()
				assert.Equal(t, loads, l)
				assert.Equal(t, swaps, w)
				s.setTrouble(trouble)
				for range 58 { // ahead of expiry it is asked, and nobody waits
					began := time.Now()
					p.mustGet(t)
					assert.Zero(t, time.Since(began))
					time.Sleep(time.Minute)
				}
				s.setTrouble(nil)
				time.Sleep(2 * time.Minute)
				p.mustGet(t)
				assert.Zero(t, i.lost)
			})
		})
	}
}

// A token without a refresh token is refreshed nevertheless.
func TestShareNoRefreshTokenNeedsNoStore(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		p := all[0]
		i.answer = func(tok reauth.Token) (reauth.Token, error) {
			tok.RefreshToken = ""
			return tok, nil
		}
		p.mustGet(t)
		s.setTrouble(down)
		i.revoke()
		p.mustGet(t)
		assert.Equal(t, []string{"", ""}, i.asked)
	})
}

// An issuer that is slower than the lease lasts gets the refresh token once.
func TestShareSlowIssuer(t *testing.T) {
	shared(t, 20, func(t *testing.T, _ *memoryStore, i *rotatingIssuer, all []*process) {
		require.Zero(t, together(all))
		i.mu.Lock()
		i.takes = 25 * time.Second
		i.mu.Unlock()
		i.revoke()
		assert.Zero(t, together(all))
		assert.Equal(t, 2, i.grants())
	})
}

// A lease whose holder does not renew it for five seconds by the observer's clock ends,
// whatever the holder's clock says. Before that, no refresh token is presented.
func TestShareLeaseOfADeadHolder(t *testing.T) {
	for _, skew := range []time.Duration{0, -2 * time.Hour, 2 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
				i.grace = 12 * time.Second
				tok, err := i.grant("")
				require.NoError(t, err)
				i.revoke()
				sent := time.Now().Add(skew)
				s.put(fmt.Sprintf(`{"access_token":%q,"refresh_token":%q,"expiry":%q,"reauth":{"v":1,"nonce":"x","login":"L","seq":1,"lifetime_ms":3600000,"by":"dead","sent":%q}}`,
					"gone", tok.RefreshToken, time.Now().Add(-time.Minute).Format(time.RFC3339), sent.Format(time.RFC3339Nano)))
				began := time.Now()
				all[0].mustGet(t)
				assert.GreaterOrEqual(t, time.Since(began), 5*time.Second)
				assert.Less(t, time.Since(began), 6*time.Second)
				assert.Equal(t, 2, i.grants())
				require.Len(t, i.doubts, 1)
				assert.NotZero(t, i.doubts[0], "its refresh token may be used up")
			})
		})
	}
}

// The Refresher is told since when the refresh token may be used up: as written, or from
// when it was first seen if the other's clock is ahead.
func TestShareDoubtIsToldToTheRefresher(t *testing.T) {
	for _, skew := range []time.Duration{-time.Minute, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := &memoryStore{}
			start := time.Now()
			s.put(fmt.Sprintf(`{"refresh_token":"R","reauth":{"v":1,"nonce":"x","login":"L","seq":1,"sent":%q}}`, start.Add(skew).Format(time.RFC3339Nano)))
			var stale reauth.Stale
			c := &reauth.Credential{Store: s, Refresher: reauth.RefresherFunc(func(_ context.Context, st reauth.Stale) (reauth.Token, error) {
				stale = st
				return reauth.Token{AccessToken: "T"}, nil
			})}
			_, err := c.Token(t.Context())
			require.NoError(t, err)
			assert.Equal(t, "R", stale.Token.RefreshToken)
			want := start.Add(skew)
			if skew > 0 {
				want = start
			}
			assert.WithinDuration(t, want, stale.AnswerLostAt, time.Millisecond)
			assert.NotContains(t, s.state(t), "sent", "an answer resolves it")
		})
	}
}

// A lost answer leaves a doubt for all, a pause, and no lease.
func TestShareLostAnswer(t *testing.T) {
	shared(t, 2, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		i.grace = time.Minute
		require.Zero(t, together(all))
		i.revoke()
		i.answer = func(reauth.Token) (reauth.Token, error) {
			return reauth.Token{}, reauth.AnswerLost(errors.New("connection reset"))
		}
		status, _ := all[0].get()
		assert.Equal(t, http.StatusUnauthorized, status)
		st := s.state(t)
		assert.NotContains(t, st, "by")
		assert.Contains(t, st, "sent")
		assert.EqualValues(t, 1, st["failures"])
		grants := i.grants()
		status, _ = all[1].get()
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.Equal(t, grants, i.grants(), "the pause is everybody's")
		i.mu.Lock()
		i.answer = nil
		i.mu.Unlock()
		time.Sleep(10 * time.Second)
		assert.Zero(t, together(all))
		assert.Zero(t, i.lost)
		assert.NotContains(t, s.state(t), "failures")
	})
}

// The Store says no, or fails, and the swap has happened: no doubt arises from it.
func TestShareSwapThatHappenedAllTheSame(t *testing.T) {
	for name, told := range map[string]error{"no": nil, "an error": errors.New("EOF")} {
		t.Run(name, func(t *testing.T) {
			shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
				s.after = func(string, bool) (bool, error) { return false, told }
				all[0].mustGet(t)
				i.revoke()
				all[0].mustGet(t)
				assert.Equal(t, []string{"", "refresh-token-1"}, i.asked)
				assert.NotContains(t, s.state(t), "sent")
			})
		})
	}
}

// The Store is gone when the issuer answers: the token serves from memory, saving goes
// on, and the old refresh token is never sent again.
func TestShareStoreIsGoneAfterTheAnswer(t *testing.T) {
	for _, gone := range []time.Duration{10 * time.Second, 10 * time.Minute} {
		t.Run(gone.String(), func(t *testing.T) {
			shared(t, 2, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
				require.Zero(t, together(all))
				i.revoke()
				i.answer = func(tok reauth.Token) (reauth.Token, error) {
					s.setTrouble(down)
					return tok, nil
				}
				began := time.Now()
				all[0].mustGet(t)
				assert.LessOrEqual(t, time.Since(began), 2*time.Second)
				time.Sleep(gone)
				all[0].mustGet(t)
				i.mu.Lock()
				i.answer = nil
				i.mu.Unlock()
				s.setTrouble(nil)
				if gone < time.Minute {
					time.Sleep(2 * time.Second) // saved by now
				} else {
					time.Sleep(time.Hour) // at the next refresh the record is written back
					all[0].mustGet(t)
				}
				all[1].mustGet(t)
				assert.Zero(t, i.lost)
				assert.NotContains(t, i.asked[2:], "refresh-token-1")
			})
		})
	}
}

// One process's wrong client secret harms no other.
func TestSharePermanentErrorIsOnesOwn(t *testing.T) {
	shared(t, 2, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		require.Zero(t, together(all))
		all[0].cred.Refresher = reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, reauth.Permanent(errors.New("invalid_client"))
		})
		i.revoke()
		status, _ := all[0].get()
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.NotContains(t, s.state(t), "retry_in_ms")
		all[1].mustGet(t)
		time.Sleep(time.Second)
		all[0].mustGet(t) // with the other's token
		assert.True(t, all[0].latest().Shared)
	})
}

// The login has ended: no process presents the refresh token again, nor asks more than
// once; and Set on one machine ends that on all within a second.
func TestShareLoginEndedAndSet(t *testing.T) {
	shared(t, 20, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		require.Zero(t, together(all))
		login := i
		for _, p := range all {
			p.cred.Refresher = reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
				if stale.Token.RefreshToken == "" {
					return reauth.Token{}, reauth.Permanent(errors.New("there is no refresh token: log in"))
				}
				return login.Refresh(ctx, stale)
			})
		}
		i.mu.Lock()
		i.ended = true
		i.mu.Unlock()
		i.revoke()
		assert.Equal(t, 20, together(all))
		assert.Equal(t, 2, i.grants())
		for range 30 {
			time.Sleep(time.Second)
			assert.Equal(t, 20, together(all))
		}
		assert.Equal(t, 2, i.grants())
		_, swaps := s.counts()
		time.Sleep(time.Minute)
		together(all)
		_, after := s.counts()
		assert.Equal(t, swaps, after, "no churn of leases")

		tok, err := i.grant("")
		require.NoError(t, err)
		require.NoError(t, all[7].cred.Set(t.Context(), tok))
		time.Sleep(time.Second)
		assert.Zero(t, together(all))
	})
}

func TestShareClearEndsTheLoginForAll(t *testing.T) {
	shared(t, 3, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		require.Zero(t, together(all))
		require.NoError(t, all[0].cred.Clear(t.Context()))
		assert.Equal(t, true, s.state(t)["ended"])
		ended := s.state(t)["login"]
		assert.NotContains(t, s.get(), "token-1")
		all[1].mustGet(t) // its token is usable still, and it has not looked
		i.revoke()
		_, err := all[1].client.Get("https://api.example.com/")
		assert.NoError(t, err)
		tok, err := all[1].cred.Current()
		assert.ErrorIs(t, err, reauth.ErrLoggedOut)
		assert.Empty(t, tok)
		all[1].mustGet(t) // the next login
		assert.NotEqual(t, ended, s.state(t)["login"])
		assert.Equal(t, []string{"", ""}, i.asked)
		all[0].mustGet(t)
		assert.Equal(t, 2, i.grants())
	})
}

// Clear, or Set, during another's refresh: its result is dropped.
func TestShareClearDuringAnothersRefresh(t *testing.T) {
	for _, set := range []bool{false, true} {
		t.Run(fmt.Sprintf("set=%v", set), func(t *testing.T) {
			shared(t, 2, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
				require.Zero(t, together(all))
				i.revoke()
				i.takes = 3 * time.Second
				done := make(chan error, 1)
				go func() {
					_, err := all[0].get()
					done <- err
				}()
				time.Sleep(time.Second)
				if set {
					require.NoError(t, all[1].cred.Set(t.Context(), reauth.Token{AccessToken: "other", RefreshToken: "other-refresh"}))
				} else {
					require.NoError(t, all[1].cred.Clear(t.Context()))
				}
				<-done
				assert.NotContains(t, s.get(), "token-2", "nothing rises again")
				tok, err := all[0].cred.Current()
				if set {
					require.NoError(t, err)
					assert.Equal(t, "other", tok.AccessToken)
				} else {
					assert.ErrorIs(t, err, reauth.ErrLoggedOut)
				}
			})
		})
	}
}

// A late answer is saved, even if the lease has ended: it has the only valid refresh
// token.
func TestShareLateAnswer(t *testing.T) {
	shared(t, 2, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		i.grace = -1
		require.Zero(t, together(all))
		all[0].cred.RefreshTimeout = 10 * time.Second // before first use of the field
		i.revoke()
		answers := make(chan struct{})
		i.answer = func(tok reauth.Token) (reauth.Token, error) {
			s.mu.Lock() // the record says that the login is dead, as by one who took over
			s.record = strings.Replace(s.record, `"refresh_token":"refresh-token-1",`, "", 1)
			s.mu.Unlock()
			close(answers)
			return tok, nil
		}
		all[0].mustGet(t)
		<-answers
		assert.Contains(t, s.get(), "refresh-token-2")
	})
}

// A record that was lost, or rolled back, is written again, in doubt.
func TestShareLostRecord(t *testing.T) {
	for _, rolledBack := range []bool{false, true} {
		t.Run(fmt.Sprintf("rolled back=%v", rolledBack), func(t *testing.T) {
			shared(t, 2, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
				i.grace = time.Minute
				require.Zero(t, together(all))
				old := s.get()
				i.revoke()
				require.Zero(t, together(all))
				time.Sleep(time.Hour - 4*time.Minute) // one is due
				if s.put(""); rolledBack {
					s.put(old)
				}
				for range 3 {
					all[0].mustGet(t)
					time.Sleep(time.Minute)
				}
				assert.Zero(t, together(all))
				assert.Zero(t, i.lost)
				assert.NotContains(t, i.asked[2:], "refresh-token-1")
				assert.Equal(t, 1, i.logins, "a lost record is no logout")
				assert.NotZero(t, i.doubts[len(i.doubts)-1], "others may have used it")
			})
		})
	}
}

// Only Set replaces a damaged record, and one of a later format.
func TestShareDamagedRecord(t *testing.T) {
	for name, damaged := range map[string]string{
		"no JSON":      `{"access_token":`,
		"cut":          `{"access_token":"secret-value`,
		"null":         "null",
		"nothing":      "{}",
		"later format": `{"refresh_token":"secret-value","reauth":{"v":2,"login":"L"}}`,
		"no token":     `{"access_token":"secret\nvalue","reauth":{"v":1,"login":"L"}}`,
		"too long":     strings.Repeat("x", 2<<20),
	} {
		t.Run(name, func(t *testing.T) {
			shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
				s.put(damaged)
				_, err := all[0].get()
				require.Error(t, err)
				assert.Contains(t, err.Error(), "record")
				assert.NotContains(t, err.Error(), "secret")
				assert.Equal(t, damaged, s.get())
				assert.Zero(t, i.grants())
				tok, err := i.grant("")
				require.NoError(t, err)
				require.NoError(t, all[0].cred.Set(t.Context(), tok))
				all[0].mustGet(t)
			})
		})
	}
}

// An operator pastes a refresh token: a new login for all.
func TestSharePastedRefreshToken(t *testing.T) {
	shared(t, 5, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		tok, err := i.grant("")
		require.NoError(t, err)
		s.put(`{"refresh_token":"` + tok.RefreshToken + `"}`)
		assert.Zero(t, together(all))
		assert.Equal(t, []string{"", tok.RefreshToken}, i.asked)
	})
}

// Ten hours of a hundred processes: one refresh for each lifetime, and at most two Loads
// for each process and token.
func TestShareTenHours(t *testing.T) {
	shared(t, 100, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		for range 10 * 60 * 2 {
			require.Zero(t, together(all))
			time.Sleep(30 * time.Second)
		}
		loads, _ := s.counts()
		tokens := i.grants()
		t.Logf("%d tokens, %.2f Loads for each process and token", tokens, float64(loads)/100/float64(tokens))
		assert.LessOrEqual(t, tokens, 11)
		assert.LessOrEqual(t, float64(loads), 2*100*float64(tokens))
		assert.Zero(t, i.lost)
	})
}

// An API that always answers 401 causes as many refreshes to twenty processes as to one,
// but for a constant.
func TestShareAPIThatRejectsEverything(t *testing.T) {
	grants := func(n int) (total int) {
		shared(t, n, func(t *testing.T, _ *memoryStore, i *rotatingIssuer, all []*process) {
			i.answer = func(tok reauth.Token) (reauth.Token, error) {
				i.revoke()
				return tok, nil
			}
			for range 60 * 60 {
				assert.Equal(t, n, together(all))
				time.Sleep(time.Second)
			}
			total = i.grants()
		})
		return total
	}
	one, twenty := grants(1), grants(20)
	t.Logf("one process: %d refreshes in an hour, twenty: %d", one, twenty)
	assert.LessOrEqual(t, twenty, one+20)
}

// Shutdown waits until the Store has the token.
func TestShareShutdownWaitsForTheSave(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		i.answer = func(tok reauth.Token) (reauth.Token, error) {
			s.setTrouble(down)
			return tok, nil
		}
		all[0].mustGet(t)
		time.AfterFunc(20*time.Second, func() { s.setTrouble(nil) })
		began := time.Now()
		require.NoError(t, all[0].cred.Shutdown(t.Context()))
		assert.Greater(t, time.Since(began), 15*time.Second)
		assert.Contains(t, s.get(), "refresh-token-1")
	})
}

// A Refresher that panics may have sent the refresh token.
func TestShareRefresherPanics(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		all[0].mustGet(t)
		all[0].cred.Refresher = reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) { panic("oh") })
		i.revoke()
		status, _ := all[0].get()
		assert.Equal(t, http.StatusUnauthorized, status)
		st := s.state(t)
		assert.NotContains(t, st, "by")
		assert.Contains(t, st, "sent")
	})
}

// A process that was stopped between the lease and the send sends nothing on waking: its
// context says until when it may, and each renewal moves that on.
func TestShareDeadlineOfALease(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, _ *rotatingIssuer, all []*process) {
		all[0].cred.Refresher = reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
			for range 20 {
				d, ok := ctx.Deadline()
				assert.True(t, ok)
				left := time.Until(d)
				assert.Greater(t, left, time.Second)
				assert.LessOrEqual(t, left, 4*time.Second)
				time.Sleep(time.Second)
			}
			s.setTrouble(down) // renewals fail
			time.Sleep(5 * time.Second)
			d, _ := ctx.Deadline()
			assert.True(t, time.Now().After(d))
			assert.NoError(t, ctx.Err(), "an answer may still come")
			s.setTrouble(nil)
			return reauth.Token{AccessToken: "T"}, nil
		})
		_, err := all[0].cred.Token(t.Context())
		assert.NoError(t, err)
	})
}

// The record holds secrets; errors and the Credential do not print them.
func TestShareKeepsSecrets(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		all[0].mustGet(t)
		all[0].mustGet(t)
		for _, verb := range []string{"%v", "%+v", "%#v"} {
			text := fmt.Sprintf(verb, all[0].cred)
			assert.NotContains(t, text, "access-token-1")
			assert.NotContains(t, text, "refresh-token-1")
		}
		i.revoke()
		s.setTrouble(func(context.Context, string) error { return errors.New("bad value refresh-token-1 at access-token-1") })
		_, _ = all[0].get()
		assert.NotContains(t, all[0].latest().Err.Error(), "token-1")
	})
}

// An answer that was certainly not spent releases the lease, and all share the pause,
// which grows with each failure.
func TestShareFailureThatSpentNothing(t *testing.T) {
	shared(t, 2, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		require.Zero(t, together(all))
		i.revoke()
		calls := 0
		for _, p := range all {
			p.cred.Refresher = reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
				calls++
				assert.Zero(t, stale.AnswerLostAt)
				if calls <= 3 {
					return reauth.Token{}, errors.New("connection refused")
				}
				return i.Refresh(ctx, stale)
			})
		}
		last := 0.
		for n := 1; n <= 3; n++ {
			for calls < n {
				together(all)
				time.Sleep(50 * time.Millisecond)
			}
			st := s.state(t)
			assert.EqualValues(t, n, st["failures"])
			assert.NotContains(t, st, "by")
			assert.NotContains(t, st, "sent")
			assert.Greater(t, st["retry_in_ms"], last)
			last = st["retry_in_ms"].(float64)
		}
		time.Sleep(2 * time.Second)
		together(all) // the pause counts from when the record was first seen
		time.Sleep(2 * time.Second)
		assert.Zero(t, together(all))
	})
}

// A Refresher that does not dare to present a refresh token in doubt is not asked again
// before it says, by nobody; and that is no failure.
func TestShareDoubtThatIsNotPresented(t *testing.T) {
	shared(t, 10, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		sent := time.Now().Add(-time.Minute).Format(time.RFC3339Nano)
		s.put(fmt.Sprintf(`{"refresh_token":"R","reauth":{"v":1,"nonce":"x","login":"L","seq":1,"sent":%q}}`, sent))
		calls := 0
		for _, p := range all {
			p.cred.Refresher = reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
				calls++
				return reauth.Token{}, &retryAfterError{10 * time.Second}
			})
		}
		for range 9 {
			assert.Equal(t, 10, together(all))
			time.Sleep(time.Second)
		}
		assert.Equal(t, 1, calls)
		assert.Contains(t, s.state(t), "sent", "the doubt remains")
		assert.NotContains(t, s.state(t), "failures")
		time.Sleep(10 * time.Second)
		together(all)
		assert.Equal(t, 2, calls)
	})
}

// An issuer that does not replace refresh tokens leaves no doubt.
func TestShareIssuerThatDoesNotRotate(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		n, lose := 0, false
		s.put(`{"refresh_token":"R"}`)
		all[0].cred.Refresher = reauth.RefresherFunc(func(_ context.Context, stale reauth.Stale) (reauth.Token, error) {
			assert.Zero(t, stale.AnswerLostAt)
			if n++; lose {
				return reauth.Token{}, reauth.AnswerLost(errors.New("EOF"))
			}
			tok := reauth.Token{AccessToken: fmt.Sprintf("T%d", n)}
			i.mu.Lock()
			i.access[tok.AccessToken] = true
			i.mu.Unlock()
			return tok, nil
		})
		all[0].mustGet(t)
		assert.Contains(t, s.get(), `"refresh_token":"R"`)
		i.revoke()
		lose = true
		_, _ = all[0].get()
		assert.NotContains(t, s.state(t), "sent")
		lose = false
		time.Sleep(time.Minute)
		all[0].mustGet(t)
	})
}

// A new refresh token that comes with a useless access token is kept.
func TestShareUselessAccessToken(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		all[0].mustGet(t)
		i.answer = func(tok reauth.Token) (reauth.Token, error) {
			tok.AccessToken = ""
			return tok, nil
		}
		i.revoke()
		_, _ = all[0].get()
		assert.Contains(t, s.get(), "refresh-token-2")
		i.mu.Lock()
		i.answer = nil
		i.mu.Unlock()
		time.Sleep(time.Minute)
		all[0].mustGet(t)
		assert.Equal(t, []string{"", "refresh-token-1", "refresh-token-2"}, i.asked)
	})
}

// A token that lacks the claims that a server asks for is not adopted.
func TestShareClaims(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		tok, err := i.grant("")
		require.NoError(t, err)
		s.put(fmt.Sprintf(`{"access_token":%q,"refresh_token":%q,"reauth":{"v":1,"nonce":"x","login":"L","seq":7}}`, tok.AccessToken, tok.RefreshToken))
		c := all[0].cred
		asks := reauth.Rejection{Reason: reauth.ReasonClaims, StatusCode: 401, Challenges: []reauth.Challenge{{Scheme: "Bearer", Params: map[string]string{"error": "insufficient_claims", "claims": "e30="}}}}
		got, err := c.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "other"}, Rejection: asks})
		require.NoError(t, err)
		assert.Equal(t, "access-token-2", got.AccessToken)
		assert.Equal(t, []any{"e30="}, s.state(t)["claims"])
		assert.EqualValues(t, 8, s.state(t)["seq"])
		again := newProcess(s, i)
		got, err = again.cred.Refresh(t.Context(), reauth.Stale{Token: reauth.Token{AccessToken: "other"}, Rejection: asks})
		require.NoError(t, err)
		assert.Equal(t, "access-token-2", got.AccessToken, "it has the claims")
		assert.Equal(t, 2, i.grants())
	})
}

// The expiry of a token that another machine wrote is no later than its lifetime from now.
func TestShareExpiryOfAnotherClock(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		s.put(fmt.Sprintf(`{"access_token":"T","expiry":%q,"reauth":{"v":1,"nonce":"x","login":"L","seq":7,"lifetime_ms":600000}}`, time.Now().Add(3*time.Hour).Format(time.RFC3339)))
		tok, err := all[0].cred.Token(t.Context())
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(10*time.Minute), tok.Expiry, time.Second)
	})
}

// Without a Refresher, a Credential uses what others write.
func TestShareWithoutARefresher(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		reader := &reauth.Credential{Store: s}
		_, err := reader.Token(t.Context())
		require.ErrorContains(t, err, "there is no Refresher")
		all[0].mustGet(t)
		time.Sleep(time.Minute)
		tok, err := reader.Token(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "access-token-1", tok.AccessToken)
	})
}

// Set and Clear say when the Store does not take it.
func TestShareSetAndClearFail(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		c := all[0].cred
		all[0].mustGet(t)
		s.setTrouble(down)
		err := c.Set(t.Context(), reauth.Token{AccessToken: "hush-hush-token"})
		require.ErrorContains(t, err, "connection refused")
		assert.NotContains(t, err.Error(), "hush")
		all[0].mustGet(t) // nothing has changed
		assert.ErrorContains(t, c.Clear(t.Context()), "connection refused")
		_, err = c.Current()
		assert.ErrorIs(t, err, reauth.ErrLoggedOut, "here it has ended")
		s.setTrouble(nil)
		require.NoError(t, newProcess(&memoryStore{}, i).cred.Clear(t.Context()), "nobody has logged in")
		n := 0
		s.setTrouble(func(_ context.Context, op string) error { // others write at the same time
			if n++; op == "swap" && n < 10 {
				s.put(fmt.Sprintf(`{"refresh_token":"R%d"}`, n))
			}
			return nil
		})
		require.NoError(t, c.Set(t.Context(), reauth.Token{AccessToken: "new"}))
		s.setTrouble(nil)
		assert.Contains(t, s.get(), `"new"`)
	})
}

// A request that waits for another's lease waits no longer than for its own context, nor
// the refresh than for RefreshTimeout.
func TestShareWaitForALeaseEnds(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, _ *rotatingIssuer, all []*process) {
		n := 0
		s.setTrouble(func(_ context.Context, op string) error { // another renews it for ever
			n++
			s.put(fmt.Sprintf(`{"refresh_token":"R","reauth":{"v":1,"nonce":"%d","login":"L","seq":1,"by":"x","sent":"2026-01-01T00:00:00Z"}}`, n))
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := all[0].cred.Token(ctx)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(began))
		_, err = all[0].cred.Token(t.Context())
		assert.ErrorContains(t, err, "did not return within 30s")
		s.setTrouble(nil)
		s.put("")
	})
}

// The deadline of a refresh is that of RefreshTimeout if that comes first.
func TestShareDeadlineOfTheRefresh(t *testing.T) {
	shared(t, 1, func(t *testing.T, _ *memoryStore, _ *rotatingIssuer, all []*process) {
		c := all[0].cred
		c.RefreshTimeout = 2 * time.Second
		c.Refresher = reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
			d, ok := ctx.Deadline()
			assert.True(t, ok)
			assert.Equal(t, 2*time.Second, time.Until(d))
			return reauth.Token{AccessToken: "T"}, nil
		})
		_, err := c.Token(t.Context())
		assert.NoError(t, err)
	})
}

// A renewal that seemed to fail may have happened: the lease is released nevertheless.
func TestShareReleaseAfterADoubtfulRenewal(t *testing.T) {
	shared(t, 1, func(t *testing.T, s *memoryStore, i *rotatingIssuer, all []*process) {
		all[0].mustGet(t)
		var renewing atomic.Bool
		s.after = func(_ string, swapped bool) (bool, error) {
			if renewing.Swap(false) {
				s.before = down // the look that follows, too
				time.AfterFunc(100*time.Millisecond, func() { s.setTrouble(nil) })
				return false, errors.New("EOF")
			}
			return swapped, nil
		}
		all[0].cred.Refresher = reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			renewing.Store(true)
			time.Sleep(2 * time.Second) // there is a renewal
			return reauth.Token{}, errors.New("connection refused")
		})
		i.revoke()
		_, _ = all[0].get()
		assert.NotContains(t, s.state(t), "by")
		assert.EqualValues(t, 1, s.state(t)["failures"])
	})
}
