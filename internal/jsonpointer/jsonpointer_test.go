package jsonpointer_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/reauth-go/reauth/internal/jsonpointer"
)

// The document and its pointers are those of RFC 6901 §5.
func TestPointersOfTheRFC(t *testing.T) {
	const doc = `{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}`
	for pointer, want := range map[string]string{
		"": doc, "/foo": `["bar","baz"]`, "/foo/0": `"bar"`, "/": "0", "/a~1b": "1", "/c%d": "2", "/e^f": "3", "/g|h": "4",
		"/i\\j": "5", "/k\"l": "6", "/ ": "7", "/m~0n": "8",
		"/foo/2": "", "/foo/-": "", "/foo/00": "", "/foo/-1": "", "/Foo": "", "/foo/0/x": "", "//": "",
	} {
		raw, ok := json.RawMessage(doc), true
		for _, name := range jsonpointer.Names(pointer) {
			if raw, ok = jsonpointer.Member(raw, name); !ok {
				break
			}
		}
		assert.Equal(t, want != "", ok, pointer)
		assert.Equal(t, want, string(raw), pointer)
	}
}
