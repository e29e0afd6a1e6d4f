// Package httpx has small functions on requests, responses and their bodies, for all
// packages of this module.
package httpx

import (
	"context"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"
)

// IsNil reports whether v is nil, or an interface that holds a nil.
func IsNil(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan:
		return r.IsNil()
	}
	return false
}

// Values returns all values of the canonical key. Like HTTP, and unlike Header.Values,
// it finds a key in any spelling.
func Values(h http.Header, key string) []string {
	all := h[key]
	for k, vv := range h {
		if k != key && len(k) == len(key) && strings.EqualFold(k, key) {
			all = append(all[:len(all):len(all)], vv...)
		}
	}
	return all
}

// First returns the first of Values, or "".
func First(h http.Header, key string) string {
	if values := Values(h, key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Shown returns the request that a response to req shows, of which Base was given a
// copy: req, with the context of the copy that Base made.
func Shown(req, got, sent *http.Request) *http.Request {
	if got == nil || got == sent || got == req {
		return req
	}
	return req.WithContext(got.Context())
}

// CloseBody closes a body that may be nil.
func CloseBody(body io.Closer) {
	if body != nil {
		_ = body.Close()
	}
}

// Drain reads at most n bytes and the end of the body, for as long as the time and the
// context allow, and closes it: a connection is used again only after a body that was
// read to its end. A body may be nil.
func Drain(ctx context.Context, body io.ReadCloser, n int64, d time.Duration) {
	if body == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.CopyN(io.Discard, body, n+1) // the end of a body of n bytes is behind them
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
	_ = body.Close()
}
