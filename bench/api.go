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
// the body of the request and returns a response of its own.
type api struct {
	issuer *issuer              // of the tokens that it accepts; nil: it accepts every request
	delay  func() time.Duration // before each response; nil: none
}

// RoundTrip implements http.RoundTripper.
func (a *api) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	if a.delay != nil {
		time.Sleep(a.delay())
	}
	resp := &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": jsonType}, Body: http.NoBody, Request: req,
	}
	if a.issuer != nil && !a.issuer.accepts(req.Header.Get("Authorization")) {
		const body = `{"error":{"code":"","message":"无效的令牌","type":"new_api_error"}}`
		resp.Status, resp.StatusCode = "401 Unauthorized", http.StatusUnauthorized
		resp.Header["Www-Authenticate"] = []string{`Bearer error="invalid_token"`}
		resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	return resp, nil
}

var jsonType = []string{"application/json"}

// An issuer issues a new token at each call. A token is good until all are
// revoked.
type issuer struct {
	size        int           // of a token, about; 0: that of a JWT
	delay       time.Duration // of a call
	calls       atomic.Int64
	revocations atomic.Int64
}

const (
	lifetime = time.Hour // of all tokens: no peer refreshes during a measurement
	jwt      = 1000      // bytes: a JWT with a handful of claims, signed with RS256
	opaque   = 40        // bytes: the size of many API keys
)

func (i *issuer) token() string {
	n := i.calls.Add(1)
	time.Sleep(i.delay)
	size := i.size
	if size == 0 {
		size = jwt
	}
	return fmt.Sprintf("T%d-%d-%s", i.revocations.Load(), n, strings.Repeat("x", size))
}

// revoke makes the API reject every token that was issued so far.
func (i *issuer) revoke() { i.revocations.Add(1) }

// accepts reports whether the header carries a token that is good.
func (i *issuer) accepts(header string) bool {
	return strings.HasPrefix(header, fmt.Sprintf("Bearer T%d-", i.revocations.Load()))
}
