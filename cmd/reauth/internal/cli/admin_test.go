package cli

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Metrics and health, on an address of their own.
func TestProxyAdmin(t *testing.T) {
	u := newUpstream(t)
	x := startProxy(t, u, "")
	address, stop, err := x.serveAdmin("127.0.0.1:0")
	require.NoError(t, err)
	resp, err := http.Get(address + "/healthz")
	require.NoError(t, err)
	_ = resp.Body.Close()
	assert.Equal(t, 200, resp.StatusCode, "nothing has failed yet")
	stop()
	_, _, err = x.serveAdmin("0.0.0.0:0")
	require.Error(t, err)
	ask(t, x, "GET", "/", "")
	u.rotate()
	ask(t, x, "GET", "/", "")
	for _, path := range []string{"/metrics", "/healthz"} {
		resp, body := ask(t, x, "GET", path, "")
		assert.Equal(t, 200, resp.StatusCode)
		assert.Contains(t, body, "GET "+path, "it is the upstream's")
	}
	var b bytes.Buffer
	x.metrics.set.WritePrometheus(&b)
	assert.Contains(t, b.String(), `reauth_rejections_total{reason="invalid_token",recovered="yes"} 1`)
	assert.Contains(t, b.String(), `reauth_refreshes_total{result="succeeded"} 2`)
	assert.NotContains(t, b.String(), "upstream-token")
}
