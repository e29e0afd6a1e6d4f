// Package httpx has small functions on requests, responses and interfaces.
package httpx

import (
	"io"
	"net/http"
	"reflect"
	"strings"
)

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
func Values(h http.Header, key string) []string {
	all := h[key]
	for k, vv := range h {
		if k != key && len(k) == len(key) && strings.EqualFold(k, key) {
			all = append(all[:len(all):len(all)], vv...)
		}
	}
	return all
}
func CloseBody(body io.Closer) {
	if body != nil {
		_ = body.Close()
	}
}
