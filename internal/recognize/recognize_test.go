package recognize

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A header may have a name in a spelling that net/http does not write.
func TestResponseFindsHeadersInAnySpelling(t *testing.T) {
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := w.Write([]byte(`{"error":{"code":"token_expired"}}`))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	for name, tt := range map[string]struct {
		header http.Header
		body   []byte
		want   Reason
		id     string
	}{
		"a challenge": {http.Header{"www-authenticate": {`Bearer error="invalid_token"`}}, nil, InvalidToken, ""},
		"an encoding": {http.Header{"content-encoding": {"gzip"}, "CONTENT-TYPE": {"application/json"}}, zipped.Bytes(), Expired, ""},
		"an id":       {http.Header{"x-request-id": {"r-1"}, "WWW-AUTHENTICATE": {"Bearer"}}, nil, Unspecified, "r-1"},
	} {
		t.Run(name, func(t *testing.T) {
			sent := &http.Request{Header: http.Header{"authorization": {"Bearer T"}}}
			got := Response(&http.Response{StatusCode: http.StatusUnauthorized, Header: tt.header, Request: sent}, tt.body)
			assert.Equal(t, tt.want, got.Reason)
			assert.Equal(t, tt.id, got.RequestID)
		})
	}
}
