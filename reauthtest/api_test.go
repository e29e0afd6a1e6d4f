package reauthtest_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

func TestDeadTokenIsNeverTakenForAGoodOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		kill   func(*reauthtest.Issuer)
		reason reauth.Reason
	}{
		{"revoked", (*reauthtest.Issuer).Revoke, reauth.ReasonRevoked},
		{"expired", (*reauthtest.Issuer).Expire, reauth.ReasonExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			over(t, nil, func(t *testing.T, w *world) {
				resp, body := w.post(t, "one")
				assert.Equal(t, 200, resp.StatusCode)
				assert.Equal(t, "one", body)
				assert.Equal(t, "text/plain", resp.Header.Get("Content-Type"))

				c.kill(w.issuer)
				resp, body = w.post(t, "two")
				assert.Equal(t, 200, resp.StatusCode)
				assert.Equal(t, "two", body)

				assert.Equal(t, 3, w.api.Sends())
				assert.Equal(t, 1, w.api.Rejections())
				assert.Equal(t, 1, w.api.Connections())
				assert.Equal(t, 2, w.issuer.Refreshes())
				assert.Equal(t, 2, w.issuer.Sends())
				assert.Equal(t, 1, w.issuer.Connections())
				o, ok := reauth.OutcomeOf(resp)
				require.True(t, ok)
				assert.Equal(t, c.reason, o.Rejection.Reason)
				all := w.api.Requests()
				assert.Equal(t, []int{200, 401, 200}, statuses(w.api))
				assert.Equal(t, all[1].ID, o.First.RequestID)
				assert.Equal(t, all[2].ID, o.Retry.RequestID)
				assert.NotEqual(t, all[1].ID, all[2].ID)
			})
		})
	}
}

func statuses(a *reauthtest.API) []int {
	var all []int
	for _, r := range a.Requests() {
		all = append(all, r.Status)
	}
	return all
}

func TestFreshTokensThatAreRefusedAreNeverServed(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		w.get(t)
		w.issuer.Refuse(true)
		w.issuer.Revoke()
		resp, _ := w.get(t)
		assert.Equal(t, 401, resp.StatusCode)
		assert.Equal(t, []int{200, 401, 401}, statuses(w.api))

		bad := token(t, w.issuer)
		assert.False(t, w.issuer.Valid(bad.AccessToken))
		w.issuer.Refuse(false)
		assert.False(t, w.issuer.Valid(bad.AccessToken), "what was refused stays refused")
		require.NoError(t, w.cred.Set(context.Background(), token(t, w.issuer)))
		resp, _ = w.get(t)
		assert.Equal(t, 200, resp.StatusCode)
	})
}

func TestTokenOfAnotherIssuerIsNeverAccepted(t *testing.T) {
	w := newWorld(t, nil, reauthtest.NewAPI)
	req, err := http.NewRequest(http.MethodGet, w.api.URL(), nil)
	require.NoError(t, err)
	for header, want := range map[string]int{
		"Bearer " + token(t, newIssuer(t)).AccessToken:     401,
		"Basic " + token(t, w.issuer).AccessToken:          401,
		token(t, w.issuer).AccessToken:                     401,
		"Bearer " + token(t, w.issuer).AccessToken + ", x": 401,
		"bearer " + token(t, w.issuer).AccessToken:         200, // RFC 9110 §11.1
	} {
		req.Header.Set("Authorization", header)
		resp, err := w.bare.Do(req)
		require.NoError(t, err)
		read(t, resp)
		assert.Equal(t, want, resp.StatusCode, header)
	}
}

// RFC 6750 §3.1.
func TestA401HasAChallengeAndARequestID(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		resp, err := w.bare.Get(w.api.URL())
		require.NoError(t, err)
		assert.Contains(t, read(t, resp), w.api.Requests()[0].ID)
		cs := reauth.ParseChallenges(resp.Header)
		require.Len(t, cs, 1)
		assert.Equal(t, map[string]string{"realm": "reauthtest"}, cs[0].Params, "no error without credentials")

		for _, f := range []reauthtest.Fault{reauthtest.Reject(), reauthtest.RejectEarly()} {
			w.api.Next(f)
			resp, err = w.bare.Get(w.api.URL())
			require.NoError(t, err)
			assert.Equal(t, 401, resp.StatusCode)
			assert.Equal(t, "application/json", resp.Header.Get("Content-Type"))
			assert.Contains(t, read(t, resp), resp.Header.Get("X-Request-Id"))
			cs = reauth.ParseChallenges(resp.Header)
			require.Len(t, cs, 1)
			assert.Equal(t, "invalid_token", cs[0].Params["error"])
			assert.NotEmpty(t, cs[0].Params["error_description"])
			assert.Equal(t, resp.Header.Get("X-Request-Id"), w.api.Requests()[w.api.Sends()-1].ID)
		}
	})
}

func TestAnswerNeverContainsATokenThatWasSent(t *testing.T) {
	w := newWorld(t, nil, reauthtest.NewAPI)
	w.issuer.SetRotate(true)
	tok := token(t, w.issuer)
	w.issuer.Revoke()
	for _, f := range []reauthtest.Fault{
		{}, reauthtest.Reject(), reauthtest.RejectEarly(), reauthtest.Status(418), reauthtest.Unavailable(time.Second),
		reauthtest.RedirectTo("http://127.0.0.1:1/"), reauthtest.InvalidGrant(),
	} {
		for url, next := range map[string]func(...reauthtest.Fault){w.api.URL(): w.api.Next, w.issuer.URL(): w.issuer.Next} {
			next(f)
			req, err := http.NewRequest(http.MethodPost, url, strings.NewReader("refresh_token=x"+tok.RefreshToken))
			require.NoError(t, err)
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Authorization", "Bearer "+tok.AccessToken)
			resp, err := w.bare.Transport.RoundTrip(req)
			require.NoError(t, err)
			assert.NotEqual(t, 200, resp.StatusCode)
			text := read(t, resp)
			var head strings.Builder
			require.NoError(t, resp.Header.Write(&head))
			for _, secret := range []string{tok.AccessToken, tok.RefreshToken} {
				assert.NotContains(t, text, secret)
				assert.NotContains(t, head.String(), secret)
			}
		}
	}
}

func TestTokenInAnotherHeaderIsNotMissed(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		w.api.SetHeader("x-api-key")
		w.client.Transport.(*reauth.Transport).Header = "X-Api-Key"
		w.get(t)
		w.issuer.Revoke()
		resp, _ := w.get(t)
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, []int{200, 401, 200}, statuses(w.api))
		r := w.api.Requests()[2]
		assert.True(t, w.issuer.Valid(r.Header.Get("X-Api-Key")))
		assert.Empty(t, r.Header.Get("Authorization"))

		w.api.SetHeader("authorization")
		resp, err := (&http.Client{Transport: &reauth.Transport{Base: w.api.Base(), Credential: w.cred}}).Get(w.api.URL())
		require.NoError(t, err)
		read(t, resp)
		assert.Equal(t, 200, resp.StatusCode)
	})
}

func TestNoRequestIsMissingFromTheRecord(t *testing.T) {
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { r.Header.Del("X-Mine") }) // as a proxy does
	over(t, handler, func(t *testing.T, w *world) {
		req, err := http.NewRequest(http.MethodPut, w.api.URL()+"/a%20b?c=d", strings.NewReader("x"))
		require.NoError(t, err)
		req.Header.Set("X-Mine", "1")
		resp, err := w.client.Do(req)
		require.NoError(t, err)
		read(t, resp)
		all := w.api.Requests()
		require.Len(t, all, 1)
		assert.Equal(t, http.MethodPut, all[0].Method)
		assert.Equal(t, "/a%20b?c=d", all[0].Path)
		assert.Equal(t, "1", all[0].Header.Get("X-Mine"))
		assert.Equal(t, resp.Header.Get("X-Request-Id"), all[0].ID)
		all[0].Status = 0
		assert.Equal(t, 200, w.api.Requests()[0].Status, "the record is not the caller's to change")
	})
}

func TestStatusOfAnAnswerIsNeverWronglyRecorded(t *testing.T) {
	status := func(h http.HandlerFunc) int {
		w := newWorld(t, h, reauthtest.NewAPI)
		resp, _ := w.get(t)
		require.Len(t, w.api.Requests(), 1)
		assert.Equal(t, resp.StatusCode, w.api.Requests()[0].Status)
		return resp.StatusCode
	}
	assert.Equal(t, 200, status(func(http.ResponseWriter, *http.Request) {}))
	assert.Equal(t, 200, status(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }))
	assert.Equal(t, 200, status(func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }))
	assert.Equal(t, 404, status(http.NotFound))
	assert.Equal(t, 403, status(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusForbidden)
	}))
}

func TestUpgradeIsNotInTheWayOfTheRecord(t *testing.T) {
	w := newWorld(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		_, _ = rw.WriteString(line)
		_ = rw.Flush()
	}), reauthtest.NewAPI)
	req, err := http.NewRequest(http.MethodGet, w.api.URL(), nil)
	require.NoError(t, err)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := w.client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 101, resp.StatusCode)
	conn := resp.Body.(io.ReadWriter)
	_, err = io.WriteString(conn, "hello\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "hello\n", line)
	assert.Equal(t, []int{101}, statuses(w.api))
}

func TestStreamIsNeverHeldBack(t *testing.T) {
	events := []string{"one", "two\nlines", ""}
	over(t, reauthtest.StreamHandler(events...), func(t *testing.T, w *world) {
		w.get(t)
		w.issuer.Revoke()
		resp, body := w.get(t)
		assert.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
		assert.Equal(t, "data: one\n\ndata: two\ndata: lines\n\ndata: \n\n", body)
		assert.Equal(t, []int{200, 401, 200}, statuses(w.api))
	})
	f := &flushes{header: http.Header{}}
	req, err := http.NewRequest(http.MethodGet, "/", http.NoBody)
	require.NoError(t, err)
	reauthtest.StreamHandler(events...).ServeHTTP(f, req)
	assert.Equal(t, []string{"data: one\n\n", "data: two\ndata: lines\n\n", "data: \n\n"}, f.chunks)
}

// flushes is a ResponseWriter that shows what each flush sent.
type flushes struct {
	header  http.Header
	pending strings.Builder
	chunks  []string
}

func (f *flushes) Header() http.Header         { return f.header }
func (f *flushes) WriteHeader(int)             {}
func (f *flushes) Write(p []byte) (int, error) { return f.pending.Write(p) }
func (f *flushes) Flush()                      { f.chunks = append(f.chunks, f.pending.String()); f.pending.Reset() }

func TestCountsAreRightUnderAHundredClients(t *testing.T) {
	over(t, nil, func(t *testing.T, w *world) {
		w.get(t)
		w.issuer.Revoke()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				resp, err := w.client.Post(w.api.URL(), "text/plain", strings.NewReader("x"))
				if assert.NoError(t, err) {
					b, err := io.ReadAll(resp.Body)
					assert.NoError(t, err)
					assert.NoError(t, resp.Body.Close())
					assert.Equal(t, "x", string(b))
				}
				_, _, _ = w.api.Connections(), w.api.Requests(), w.issuer.Reuses()
			})
		}
		all.Wait()
		assert.Equal(t, 2, w.issuer.Refreshes())
		assert.Equal(t, 1+100+w.api.Rejections(), w.api.Sends())
		assert.GreaterOrEqual(t, w.api.Rejections(), 1)
	})
}

func TestFaultIsNeverMetByMoreThanOneOfManyRequests(t *testing.T) {
	w := newWorld(t, nil, reauthtest.NewAPI)
	for range 50 {
		w.api.Next(reauthtest.Status(http.StatusTeapot))
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if resp, err := w.client.Get(w.api.URL()); assert.NoError(t, err) {
				assert.NoError(t, resp.Body.Close())
			}
		})
	}
	all.Wait()
	teapots := 0
	for _, s := range statuses(w.api) {
		if s == http.StatusTeapot {
			teapots++
		}
	}
	assert.Equal(t, 50, teapots)
	assert.Equal(t, 100, w.api.Sends())
}
