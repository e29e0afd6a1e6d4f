package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// An api is the Base under every peer, without a network: it reads and closes
// the body of the request and answers with a response of its own.
type api struct {
	issuer *issuer              // whose tokens are accepted; nil: no one looks
	takes  func() time.Duration // to answer; nil: no time
}

func (a *api) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	if a.takes != nil {
		time.Sleep(a.takes())
	}
	resp := &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": jsonType}, Body: http.NoBody, Request: req,
	}
	if a.issuer != nil && !a.issuer.vouches(req.Header.Get("Authorization")) {
		const body = `{"error":{"code":"","message":"无效的令牌","type":"new_api_error"}}`
		resp.Status, resp.StatusCode = "401 Unauthorized", http.StatusUnauthorized
		resp.Header["Www-Authenticate"] = []string{`Bearer error="invalid_token"`}
		resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	return resp, nil
}

var jsonType = []string{"application/json"}

// An issuer hands out tokens, another one at each call, each good until all are
// revoked.
type issuer struct {
	size    int // of a token, about; 0: that of a JWT
	takes   time.Duration
	calls   atomic.Int64
	revoked atomic.Int64 // how often
}

const (
	lifetime = time.Hour // of all tokens: nobody refreshes ahead of it
	jwt      = 1000      // bytes: a JWT with a handful of claims, signed with RS256
	opaque   = 40        // bytes: what many an API key has
)

func (i *issuer) token() string {
	n := i.calls.Add(1)
	time.Sleep(i.takes)
	size := i.size
	if size == 0 {
		size = jwt
	}
	return fmt.Sprintf("T%d-%d-%s", i.revoked.Load(), n, strings.Repeat("x", size))
}

// revoke makes the API reject every token that was handed out so far.
func (i *issuer) revoke() { i.revoked.Add(1) }

// vouches reports whether the header carries a token that is good.
func (i *issuer) vouches(header string) bool {
	return strings.HasPrefix(header, fmt.Sprintf("Bearer T%d-", i.revoked.Load()))
}
