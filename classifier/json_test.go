package classifier_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
)

func TestJSON(t *testing.T) {
	reasons := map[string]reauth.Reason{
		"40101": reauth.ReasonExpired, "AUTH-7": reauth.ReasonRevoked, "40103": reauth.ReasonDenied, "-1": reauth.ReasonInvalidToken, "": reauth.ReasonExpired,
	}
	for _, tt := range []struct {
		name, pointer, body string
		status              int
		header              []string
		want                reauth.Reason
		code                string
	}{
		{"number", "/code", `{"code":40101,"msg":"token expired"}`, 200, nil, reauth.ReasonExpired, "40101"},
		{"string", "/code", `{"code":"40101"}`, 200, nil, reauth.ReasonExpired, "40101"},
		{"negative number", "/code", `{"code":-1}`, 200, nil, reauth.ReasonInvalidToken, "-1"},
		{"name", "/code", `{"code":"AUTH-7"}`, 200, nil, reauth.ReasonRevoked, "AUTH-7"},
		{"not refreshable", "/code", `{"code":40103}`, 200, nil, reauth.ReasonDenied, "40103"},
		{"byte order mark", "/code", "\uFEFF" + `{"code":40101}`, 200, nil, reauth.ReasonExpired, "40101"},
		{"nested", "/error/code", `{"error":{"code":40101}}`, 200, nil, reauth.ReasonExpired, "40101"},
		{"array", "/errors/1/code", `{"errors":[{},{"code":40101}]}`, 200, nil, reauth.ReasonExpired, "40101"},
		{"escaped name", "/a~1b/c~0d", `{"a/b":{"c~d":40101}}`, 200, nil, reauth.ReasonExpired, "40101"},
		{"empty name", "/", `{"":40101}`, 200, nil, reauth.ReasonExpired, "40101"},
		{"whole document", "", `40101`, 200, nil, reauth.ReasonExpired, "40101"},
		{"error of 400", "/code", `{"code":40101}`, 400, nil, reauth.ReasonExpired, "40101"},
		{"error of 401", "/code", `{"code":40103}`, 401, nil, reauth.ReasonDenied, "40103"},
		{"error of 500", "/code", `{"code":40101}`, 500, nil, reauth.ReasonExpired, "40101"},
		{"+json", "/code", `{"code":40101}`, 200, []string{"Content-Type", "application/vnd.api+json"}, reauth.ReasonExpired, "40101"},

		{"success", "/code", `{"code":0,"data":{"code":40101}}`, 200, nil, "", ""},
		{"unknown value", "/code", `{"code":40102}`, 200, nil, "", ""},
		{"written otherwise", "/code", `{"code":40101.0}`, 200, nil, "", ""},
		{"another case", "/code", `{"Code":40101}`, 200, nil, "", ""},
		{"nested deeper", "/code", `{"error":{"code":40101}}`, 200, nil, "", ""},
		{"no member", "/error/code", `{"code":40101}`, 200, nil, "", ""},
		{"no object", "/error/code", `{"error":"x"}`, 200, nil, "", ""},
		{"beyond the array", "/errors/1", `{"errors":[40101]}`, 200, nil, "", ""},
		{"object", "/code", `{"code":{"40101":1}}`, 200, nil, "", ""},
		{"null", "/code", `{"code":null}`, 200, nil, "", ""},
		{"bool", "/code", `{"code":false}`, 200, nil, "", ""},
		{"empty string", "/code", `{"code":""}`, 200, nil, "", ""},
		{"cut off", "/code", `{"code":40101`, 200, nil, "", ""},
		{"two documents", "/code", `{"code":40101}{}`, 200, nil, "", ""},
		{"empty", "/code", ``, 200, nil, "", ""},
		{"redirect", "/code", `{"code":40101}`, 302, nil, "", ""},
		{"huge", "/code", `{"code":40101,"x":"` + strings.Repeat("x", 64<<10) + `"}`, 200, nil, "", ""},
		{"huge error", "/code", `{"code":40101,"x":"` + strings.Repeat("x", 64<<10) + `"}`, 400, nil, "", ""},
		{"event stream", "/code", `{"code":40101}`, 200, []string{"Content-Type", "text/event-stream"}, "", ""},
		{"lines", "/code", `{"code":40101}`, 200, []string{"Content-Type", "application/x-ndjson"}, "", ""},
		{"page", "/code", `{"code":40101}`, 200, []string{"Content-Type", "text/html"}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rej := classify(classifier.JSON(tt.pointer, reasons), response(tt.status, tt.body, tt.header...), tt.body)
			assert.Equal(t, tt.want, rej.Reason)
			if tt.want == "" {
				assert.Zero(t, rej)
				return
			}
			assert.Equal(t, tt.code, rej.Code)
			assert.Equal(t, tt.status, rej.StatusCode)
		})
	}
}

func TestJSONWithAWrongPointerPanics(t *testing.T) {
	assert.PanicsWithValue(t, `classifier: the JSON pointer "code" has to begin with a slash`, func() { classifier.JSON("code", nil) })
}

func TestJSONKeepsACopyOfTheReasons(t *testing.T) {
	reasons := map[string]reauth.Reason{"1": reauth.ReasonExpired}
	c := classifier.JSON("/code", reasons)
	clear(reasons)
	assert.Equal(t, reauth.ReasonExpired, classify(c, response(200, `{"code":1}`), `{"code":1}`).Reason)
}

func FuzzJSON(f *testing.F) {
	f.Add("/code", "40101", `{"code":40101}`)
	f.Add("/errors/0/a~1b~0", "x", `{"errors":[{"a/b~":"x"}]}`)
	f.Add("", "1e9", `1e9`)
	f.Add("/", "", `{"":""}`)
	f.Fuzz(func(t *testing.T, pointer, value, body string) {
		if pointer != "" && pointer[0] != '/' {
			return
		}
		c := classifier.JSON(pointer, map[string]reauth.Reason{value: reauth.ReasonExpired})
		rej := classify(c, response(200, body), body)
		if rej.Reason == "" {
			assert.Zero(t, rej)
			return
		}
		assert.NotEmpty(t, value)
		assert.Equal(t, value, rej.Code)
	})
}
