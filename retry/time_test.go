package retry_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth/retry"
)

// waits sends a GET through rt and returns the times between the sends.
func waits(t *testing.T, rt *retry.Transport, status int, header ...string) []time.Duration {
	t.Helper()
	var at []time.Time
	rt.Logger = discard
	rt.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		at = append(at, time.Now())
		return answer(req, status, "", header...), nil
	})
	resp, err := rt.RoundTrip(newRequest(t, http.MethodGet, "https://api.example.com", nil))
	require.NoError(t, err)
	assert.Equal(t, status, resp.StatusCode)
	assert.Equal(t, at[len(at)-1], time.Now(), "no wait after the last")
	var between []time.Duration
	for i := 1; i < len(at); i++ {
		between = append(between, at[i].Sub(at[i-1]))
	}
	return between
}

func TestWaitsGrowAndAreNeverInStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			rt   retry.Transport
			want []time.Duration
		}{
			"default":  {retry.Transport{}, []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second}},
			"1s to 4s": {retry.Transport{MinWait: time.Second, MaxWait: 4 * time.Second, MaxRetries: 5}, []time.Duration{time.Second, 2 * time.Second, 8 * time.Second / 3, 8 * time.Second / 3, 8 * time.Second / 3}},
			"1h":       {retry.Transport{MinWait: time.Hour, MaxWait: -1, MaxRetries: 2}, []time.Duration{time.Hour, 2 * time.Hour}},
			"capped":   {retry.Transport{MinWait: time.Hour, MaxRetries: 2}, []time.Duration{20 * time.Second, 20 * time.Second}},
			"none":     {retry.Transport{MinWait: -1, MaxRetries: 2}, []time.Duration{0, 0}},
		} {
			seen := map[time.Duration]bool{}
			for range 50 {
				rt := tt.rt
				got := waits(t, &rt, 503)
				require.Len(t, got, len(tt.want), name)
				for i, want := range tt.want {
					assert.GreaterOrEqual(t, got[i], want/2, name)
					assert.LessOrEqual(t, got[i], want*3/2, name)
				}
				seen[got[0]] = true
			}
			if tt.rt.MinWait >= 0 {
				assert.Greater(t, len(seen), 25, name)
			}
		}
	})
}

func TestRetryAfterIsKeptToButNotForEver(t *testing.T) {
	t.Parallel()
	in := func(ds ...time.Duration) func() []string { // as dates: of Retry-After, and of the server's clock
		return func() []string {
			h := []string{"Retry-After", time.Now().Add(ds[0]).UTC().Format(http.TimeFormat)}
			if len(ds) > 1 {
				h = append(h, "Date", time.Now().Add(ds[1]).UTC().Format(http.TimeFormat))
			}
			return h
		}
	}
	said := func(v string) func() []string { return func() []string { return []string{"Retry-After", v} } }
	const returned = -1
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name   string
			header func() []string
			rt     retry.Transport
			want   time.Duration
		}{
			{"seconds", said("7"), retry.Transport{}, 7 * time.Second},
			{"blanks", said(" 7 "), retry.Transport{}, 7 * time.Second},
			{"none at all", said("0"), retry.Transport{}, 0},
			{"MinWait is no limit to it", said("7"), retry.Transport{MinWait: time.Millisecond}, 7 * time.Second},
			{"nor is none", said("7"), retry.Transport{MinWait: -1}, 7 * time.Second},
			{"as long as can be", said("30"), retry.Transport{}, 30 * time.Second},
			{"too long", said("31"), retry.Transport{}, returned},
			{"not too long", said("31"), retry.Transport{MaxWait: time.Minute}, 31 * time.Second},
			{"a day, and no limit", said("86400"), retry.Transport{MaxWait: -1}, 24 * time.Hour},
			{"an eternity", said("1000000000000000000"), retry.Transport{}, returned},
			{"more than an int", said(strings.Repeat("9", 60)), retry.Transport{}, returned},
			{"a date", in(9 * time.Second), retry.Transport{}, 9 * time.Second},
			{"a date that has passed", in(-time.Hour), retry.Transport{}, 0},
			{"a date too far", in(time.Hour), retry.Transport{}, returned},
			{"a date by a fast clock", in(2*time.Hour+3*time.Second, 2*time.Hour), retry.Transport{}, 3 * time.Second},
			{"a date by a slow clock", in(3*time.Second-2*time.Hour, -2*time.Hour), retry.Transport{}, 3 * time.Second},
		} {
			seen := map[time.Duration]bool{}
			for range 20 {
				rt := tt.rt
				rt.MaxRetries = 1
				time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // dates know no less
				got := waits(t, &rt, 429, tt.header()...)
				if tt.want == returned {
					assert.Empty(t, got, tt.name)
					continue
				}
				spread := max(0, rt.MinWait)
				if rt.MinWait == 0 {
					spread = 500 * time.Millisecond
				}
				require.Len(t, got, 1, tt.name)
				assert.GreaterOrEqual(t, got[0], tt.want, tt.name)
				assert.LessOrEqual(t, got[0], tt.want+spread, tt.name)
				seen[got[0]] = true
			}
			if tt.want != returned && tt.rt.MinWait >= 0 {
				assert.Greater(t, len(seen), 10, "%s: all come back at once", tt.name)
			}
		}
	})
}

// RFC 9110 §10.2.3 has it for any response.
func TestRetryAfterIsKeptToWhateverTheStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, status := range []int{408, 425, 429, 500, 502, 503, 504} {
			assert.Equal(t, []time.Duration{7 * time.Second}, waits(t, &retry.Transport{MaxRetries: 1, MinWait: -1}, status, "Retry-After", "7"), status)
			assert.Empty(t, waits(t, &retry.Transport{MaxRetries: 1, MinWait: -1}, status, "Retry-After", "70"), status)
		}
	})
}

func TestARetryAfterThatCannotBeReadIsNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, v := range []string{"", "-5", "1.5", "soon", "Mon, 99 Foo 2026"} {
			got := waits(t, &retry.Transport{MaxRetries: 1}, 429, "Retry-After", v)
			require.Len(t, got, 1)
			assert.InDelta(t, 500*time.Millisecond, got[0], float64(250*time.Millisecond), v)
		}
	})
}

// A response in hand is returned.
func TestNoWaitOutlastsTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			deadline time.Duration
			header   []string
			err      error
			sends    int
		}{
			"Retry-After":         {5 * time.Second, []string{"Retry-After", "6"}, nil, 1},
			"just as long":        {5 * time.Second, []string{"Retry-After", "5"}, nil, 1},
			"shorter":             {5 * time.Second, []string{"Retry-After", "3"}, nil, 2},
			"the wait of our own": {5 * time.Second, nil, nil, 1},
			"an error":            {5 * time.Second, nil, io.ErrUnexpectedEOF, 1},
		} {
			ctx, cancel := context.WithTimeout(context.Background(), tt.deadline)
			sends, began := 0, time.Now()
			rt := &retry.Transport{MinWait: 20 * time.Second, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sends++
				if tt.err != nil {
					return nil, tt.err
				}
				return answer(req, 503, "down", tt.header...), nil
			})}
			if tt.header != nil {
				rt.MinWait = -1
			}
			resp, err := rt.RoundTrip(newRequest(t, http.MethodGet, "https://api.example.com", nil).WithContext(ctx))
			assert.Equal(t, tt.err, err, name)
			if tt.err == nil {
				require.NotNil(t, resp, name)
				assert.Equal(t, "down", read(t, resp), name)
			}
			assert.Equal(t, tt.sends, sends, name)
			assert.Less(t, time.Since(began), tt.deadline, name)
			cancel()
		}
	})
}

// A response that is not returned is read to its end, but not for longer than the caller
// waits.
func TestTheEndOfTheContextEndsTheReadingOfABody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		rt := &retry.Transport{MinWait: -1, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if err := req.Context().Err(); err != nil { // as a real one
				return nil, err
			}
			time.AfterFunc(100*time.Millisecond, cancel)
			return &http.Response{StatusCode: 503, Header: http.Header{}, Body: &hanging{closed: make(chan struct{})}, Request: req}, nil
		})}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example.com/", nil)
		require.NoError(t, err)
		start := time.Now()
		resp, err := rt.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, 100*time.Millisecond, time.Since(start))
	})
}

// A hanging body has no end until it is closed.
type hanging struct {
	closed chan struct{}
	once   sync.Once
}

func (h *hanging) Read([]byte) (int, error) { <-h.closed; return 0, io.ErrClosedPipe }
func (h *hanging) Close() error             { h.once.Do(func() { close(h.closed) }); return nil }

func TestTheEndOfTheContextEndsAWaitWithItsCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("the user pressed stop")
		for _, fail := range []bool{false, true} {
			ctx, cancel := context.WithCancelCause(context.Background())
			var bodies []*tracked
			fresh := func() (io.ReadCloser, error) {
				bodies = append(bodies, &tracked{Reader: strings.NewReader("payload")})
				return bodies[len(bodies)-1], nil
			}
			req := newRequest(t, http.MethodPut, "https://api.example.com", nil).WithContext(ctx)
			req.Body, _ = fresh()
			req.GetBody = fresh
			sends, began := 0, time.Now()
			rt := &retry.Transport{MinWait: 10 * time.Second, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sends++
				time.AfterFunc(time.Second, func() { cancel(cause) })
				resp := answer(req, 503, "")
				if fail {
					return nil, io.ErrUnexpectedEOF
				}
				return resp, nil
			})}
			resp, err := rt.RoundTrip(req)
			assert.Nil(t, resp)
			assert.Equal(t, cause, err)
			assert.Equal(t, 1, sends)
			assert.Equal(t, time.Second, time.Since(began))
			require.Len(t, bodies, 2)
			assert.EqualValues(t, 1, bodies[0].closed.Load())
			assert.EqualValues(t, 1, bodies[1].closed.Load(), "the one that was to be sent")
		}
	})
}

func TestAnErrorOfTheContextIsNotRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		count := func(ctx context.Context, f func(context.Context) error) (n int, err error) {
			_, err = (&retry.Transport{MinWait: -1, Logger: discard, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				n++
				return nil, f(req.Context())
			})}).RoundTrip(newRequest(t, http.MethodGet, "https://api.example.com", nil).WithContext(ctx))
			return n, err
		}
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		n, err := count(ctx, hang)
		assert.Equal(t, context.DeadlineExceeded, err)
		assert.Equal(t, 1, n)

		ctx, cancel = context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		n, err = count(ctx, hang)
		assert.Equal(t, context.Canceled, err)
		assert.Equal(t, 1, n)

		n, err = count(context.Background(), func(context.Context) error { return context.Canceled })
		assert.Equal(t, context.Canceled, err)
		assert.Equal(t, 1, n, "cancelled below us")

		n, err = count(context.Background(), func(context.Context) error { return os.ErrDeadlineExceeded })
		assert.Equal(t, os.ErrDeadlineExceeded, err)
		assert.Equal(t, 4, n, "the limit of a single try, the caller has time")

		n, err = count(context.Background(), func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return hang(ctx)
		})
		assert.Equal(t, context.DeadlineExceeded, err)
		assert.Equal(t, 4, n, "the limit of a single try, the caller has time")
	})
}

// A stuck body sends some bytes, and then none until it is closed.
type stuck struct {
	begun  atomic.Bool
	closed chan struct{}
}

func (b *stuck) Read(p []byte) (int, error) {
	if !b.begun.Swap(true) {
		return copy(p, "{"), nil
	}
	<-b.closed
	return 0, http.ErrBodyReadAfterClose
}

func (b *stuck) Close() error { close(b.closed); return nil }

func TestAResponseThatHangsHoldsUpNoRepeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		for _, rt := range []*retry.Transport{
			{MinWait: -1, Logger: discard},
			{MinWait: 4 * time.Second, Logger: j.logger()}, // looks for the request id in the body
		} {
			n, began := 0, time.Now()
			rt.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
				resp := answer(req, 500, "", "Content-Type", "application/json")
				if n++; n == 1 {
					resp.Body, resp.ContentLength = &stuck{closed: make(chan struct{})}, -1
				} else {
					resp.StatusCode = 200
				}
				return resp, nil
			})
			resp, err := rt.RoundTrip(newRequest(t, http.MethodGet, "https://api.example.com", nil))
			require.NoError(t, err)
			assert.Equal(t, 200, resp.StatusCode)
			assert.Equal(t, 2, n)
			if rt.MinWait < 0 {
				assert.Equal(t, time.Second, time.Since(began))
			} else {
				assert.LessOrEqual(t, time.Since(began), 6*time.Second, "it counts as part of the wait")
			}
		}
	})
}
