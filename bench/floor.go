package main

import (
	"errors"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/reauth-go/reauth"
)

// A floor does the least that keeps the promises of a Transport on a request
// whose token is good. It never refreshes.
type floor struct {
	base   http.RoundTripper
	value  string // of the header
	expiry time.Time
}

// floorKey is the context key of a request that must go out without a token.
type floorKey struct{}

var errFloor = errors.New("bench: the floor handles only requests with a good token")

// floorRequest is the copy that goes out. The one value of its header is part of
// the same allocation.
type floorRequest struct {
	http.Request
	value [1]string
}

func wrapFloor(base http.RoundTripper, i *issuer) http.RoundTripper {
	return &floor{base, "Bearer " + i.token(), time.Now().Add(lifetime)}
}

// RoundTrip implements http.RoundTripper.
func (f *floor) RoundTrip(req *http.Request) (*http.Response, error) {
	// A caller may ask for no token.
	if req.Context().Value(floorKey{}) != nil {
		return nil, errFloor
	}
	// A request never carries a token past its expiry.
	if !time.Now().Before(f.expiry) {
		return nil, errFloor
	}
	// A request's own credential stays. A placeholder is never sent.
	for k, vv := range req.Header {
		if len(k) == len("Authorization") && strings.EqualFold(k, "Authorization") {
			return nil, errFloor
		}
		for _, v := range vv {
			if len(v) >= len(reauth.Placeholder) && strings.Contains(v, reauth.Placeholder) {
				return nil, errFloor
			}
		}
	}
	// A RoundTripper must not modify the request.
	out := &floorRequest{*req, [1]string{f.value}}
	out.Header = maps.Clone(req.Header)
	out.Header["Authorization"] = out.value[:]
	return f.base.RoundTrip(&out.Request)
}
