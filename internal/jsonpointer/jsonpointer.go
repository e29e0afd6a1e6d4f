// Package jsonpointer reads JSON pointers (RFC 6901).
package jsonpointer

import (
	"encoding/json"
	"strconv"
	"strings"
)

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// Names returns the names that a pointer leads through. There are none in "", which points
// to the whole document. Any other pointer must begin with a slash.
func Names(pointer string) []string {
	names := strings.Split(pointer, "/")[1:]
	for i, name := range names {
		names[i] = unescape.Replace(name)
	}
	return names
}

// Member returns what an object or an array has by that name.
func Member(raw json.RawMessage, name string) (json.RawMessage, bool) {
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) == nil {
		found, ok := object[name]
		return found, ok
	}
	var array []json.RawMessage
	i, err := strconv.Atoi(name)
	if err != nil || strconv.Itoa(i) != name || json.Unmarshal(raw, &array) != nil || i < 0 || i >= len(array) {
		return nil, false
	}
	return array[i], true
}
