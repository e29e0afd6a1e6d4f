package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A browser is a client of the demo, with its stream.
type browser struct {
	t       *testing.T
	client  *http.Client
	url     string
	end     func() // ends the demo, as Ctrl-C does
	stream  *bufio.Scanner
	entries []entry // all that the stream delivered
}

// open starts the demo and reads its stream. When the test ends, it ends the demo, and
// the test fails unless all goroutines end too.
func open(t *testing.T) *browser {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, l, 50*time.Millisecond) }()
	b := &browser{t: t, client: &http.Client{Transport: &http.Transport{}}, url: "http://" + l.Addr().String(), end: end}
	t.Cleanup(func() {
		end()
		select {
		case err := <-ended:
			assert.NoError(t, err)
		case <-time.After(20 * time.Second):
			t.Error("the demo does not end")
		}
		b.client.CloseIdleConnections()
		// Not assert.Eventually, which has a goroutine of its own.
		for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<16)
				t.Fatalf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
			}
		}
	})

	deadline, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(deadline, http.MethodGet, b.url+"/stream", nil)
	require.NoError(t, err)
	resp, err := b.client.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	b.stream = bufio.NewScanner(resp.Body)
	b.stream.Buffer(nil, 1<<20)
	return b
}

// until reads the stream until a snapshot meets the condition.
func (b *browser) until(what string, condition func(snapshot) bool) snapshot {
	b.t.Helper()
	for b.stream.Scan() {
		data, ok := bytes.CutPrefix(b.stream.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		assert.NotContains(b.t, string(data), "access-", "an access token") // of reauthtest
		var s snapshot
		require.NoError(b.t, json.Unmarshal(data, &s))
		b.entries = append(b.entries, s.Entries...)
		if condition(s) {
			return s
		}
	}
	require.Fail(b.t, "the stream ended: "+what, b.stream.Err())
	return snapshot{}
}

// untilWell reads the stream until the callers work, and have sent some more requests.
func (b *browser) untilWell() snapshot {
	b.t.Helper()
	const all = callers
	s := b.until("all callers work", func(s snapshot) bool { return s.Requests > 0 && strings.Count(s.Callers, "w") == all })
	return b.until("more requests", func(now snapshot) bool {
		return now.Requests > s.Requests+2*all && strings.Count(now.Callers, "w") == all
	})
}

// send sends a request with the headers, and returns the status and the body.
func (b *browser) send(method, path string, headers ...string) (int, string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, b.url+path, nil)
	require.NoError(b.t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	req.Host = req.Header.Get("Host")
	resp, err := b.client.Do(req)
	require.NoError(b.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	return resp.StatusCode, string(body)
}

// press presses a button of the page.
func (b *browser) press(path string) {
	b.t.Helper()
	status, _ := b.send(http.MethodPost, path, "Origin", b.url, "Sec-Fetch-Site", "same-origin")
	require.Equal(b.t, http.StatusNoContent, status)
}

// of returns the entries of a kind.
func (b *browser) of(kind string) (entries []entry) {
	for _, e := range b.entries {
		if e.Kind == kind {
			entries = append(entries, e)
		}
	}
	return entries
}

// texts returns the texts of the entries of a kind.
func (b *browser) texts(kind string) (texts string) {
	for _, e := range b.of(kind) {
		texts += e.Text + "\n"
	}
	return texts
}

func TestPage(t *testing.T) {
	b := open(t)
	status, body := b.send(http.MethodGet, "/")
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, body, "Revoke the token")
	assert.NotRegexp(t, `(src|href)="(https?:)?//`, body, "an asset of another server")
	status, _ = b.send(http.MethodGet, "/other")
	assert.Equal(t, http.StatusNotFound, status)
}

func TestCallersSeeNoFailureWhenTheTokenEnds(t *testing.T) {
	for _, tt := range []struct{ button, event, reason string }{
		{"/revoke", "Token revoked", "reason=revoked"},
		{"/expire", "Token expired", "reason=expired"},
	} {
		t.Run(tt.button[1:], func(t *testing.T) {
			b := open(t)
			before := b.untilWell()
			assert.Equal(t, 1, before.Refreshes, "the first token")
			assert.Zero(t, before.Rejections)

			b.press(tt.button)
			b.until("a refresh", func(s snapshot) bool { return s.Refreshes > before.Refreshes })
			after := b.untilWell()

			assert.Equal(t, before.Refreshes+1, after.Refreshes)
			assert.NotEqual(t, before.Token, after.Token)
			assert.Positive(t, after.Rejections)
			assert.Zero(t, after.Failures)
			assert.Contains(t, b.texts(event), tt.event)
			assert.Contains(t, b.texts(logLine), tt.reason)
			b.until("each rejected request recovered", func(s snapshot) bool { return s.Rejections == len(b.of(recovery)) })
			for _, e := range b.of(recovery) {
				assert.NotEmpty(t, e.First)
				assert.NotEmpty(t, e.Retry)
				assert.NotEqual(t, e.First, e.Retry)
			}
		})
	}
}

func TestCallersRecoverWhenTheIssuerIsBack(t *testing.T) {
	b := open(t)
	before := b.untilWell()
	b.press("/issuer/down")
	b.press("/revoke")
	down := b.until("most callers refused", func(s snapshot) bool { return strings.Count(s.Callers, "x") > callers/2 })
	assert.True(t, down.IssuerDown)
	assert.Equal(t, before.Refreshes, down.Refreshes)
	assert.Positive(t, down.Failures)
	assert.Contains(t, b.texts(event), "Refresh failed")
	assert.Contains(t, b.texts(logLine), "not_retried=no_token")

	b.press("/issuer/up")
	back := b.untilWell()
	assert.False(t, back.IssuerDown)
	assert.Equal(t, before.Refreshes+1, back.Refreshes)
	assert.Equal(t, back.Failures, b.untilWell().Failures, "failures do not go on")
}

func TestForeignPagesAreRefused(t *testing.T) {
	b := open(t)
	before := b.untilWell()
	for _, tt := range []struct {
		name, method, path string
		headers            []string
		want               int
	}{
		{"foreign Origin", "POST", "/revoke", []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		{"opaque Origin", "POST", "/revoke", []string{"Origin", "null"}, http.StatusForbidden},
		{"another port", "POST", "/revoke", []string{"Origin", "http://127.0.0.1:1"}, http.StatusForbidden},
		{"cross-site", "POST", "/revoke", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{"foreign Host", "GET", "/", []string{"Host", "evil.example"}, http.StatusMisdirectedRequest},
		{"foreign Host and Origin", "POST", "/revoke", []string{"Host", "evil.example", "Origin", "http://evil.example"}, http.StatusMisdirectedRequest},
		{"foreign Host of the stream", "GET", "/stream", []string{"Host", "evil.example"}, http.StatusMisdirectedRequest},
		{"GET of a button", "GET", "/revoke", nil, http.StatusMethodNotAllowed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, _ := b.send(tt.method, tt.path, tt.headers...)
			assert.Equal(t, tt.want, status)
		})
	}
	after := b.untilWell()
	assert.Equal(t, before.Token, after.Token)
	assert.Zero(t, after.Rejections)
}

func TestEndsDuringARefresh(t *testing.T) {
	b := open(t)
	b.untilWell()
	b.press("/revoke")
	b.until("a caller waits", func(s snapshot) bool { return s.Rejections > 0 })
	b.end()
	for b.stream.Scan() { // to its end
	}
	assert.NoError(t, b.stream.Err())
}
