package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// mcpServer is a server of the SDK over streamable HTTP, with a tool that counts
// its calls in each session.
func mcpServer() http.Handler {
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server {
		calls := 0 // of one session: each has a server of its own
		server := mcp.NewServer(&mcp.Implementation{Name: "counter", Version: "1"}, nil)
		mcp.AddTool(server, &mcp.Tool{Name: "count"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			calls++
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: fmt.Sprint(calls)}}}, nil, nil
		})
		return server
	}, nil)
}

// mcpConnect begins a session.
func mcpConnect(t *testing.T, rig *sdkRig, transport *mcp.StreamableClientTransport) *mcp.ClientSession {
	t.Helper()
	transport.Endpoint = rig.api.URL()
	transport.MaxRetries = -1
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), transport, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = session.Close() })
	return session
}

func mcpCount(ctx context.Context, session *mcp.ClientSession) (string, error) {
	got, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "count"})
	if err != nil {
		return "", err
	}
	return got.Content[0].(*mcp.TextContent).Text, nil
}

// A credentialHandler is an auth.OAuthHandler over a Credential, for programs that
// cannot give the SDK an http.Client.
type credentialHandler struct{ cred *reauth.Credential }

func (h credentialHandler) TokenSource(context.Context) (oauth2.TokenSource, error) {
	return refresher.TokenSource(h.cred), nil
}

// Authorize is called after a 401 or 403. The SDK sends the request once more if it
// returns nil.
func (h credentialHandler) Authorize(ctx context.Context, req *http.Request, resp *http.Response) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	rejection := reauth.Inspect(resp, body)
	if resp.StatusCode != http.StatusUnauthorized || !rejection.Reason.Refreshable() {
		return fmt.Errorf("%s: %s", resp.Status, rejection.Message)
	}
	_, sent, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	_, err = h.cred.Refresh(ctx, reauth.Stale{Token: reauth.Token{AccessToken: sent}, Rejection: rejection})
	return err
}

var _ auth.OAuthHandler = credentialHandler{}

// mcpPosts returns how many messages were sent. Streams and the end of a session are
// the SDK's own matter.
func mcpPosts(rig *sdkRig) int {
	n := 0
	for _, req := range rig.api.Requests() {
		if req.Method == http.MethodPost {
			n++
		}
	}
	return n
}

// mcpWays are the ways to keep a session. Each connects with the token of the rig.
var mcpWays = []struct {
	name    string
	connect func(*testing.T, *sdkRig) *mcp.ClientSession
}{
	{"Transport", func(t *testing.T, rig *sdkRig) *mcp.ClientSession {
		return mcpConnect(t, rig, &mcp.StreamableClientTransport{HTTPClient: rig.client})
	}},
	{"OAuthHandler", func(t *testing.T, rig *sdkRig) *mcp.ClientSession {
		return mcpConnect(t, rig, &mcp.StreamableClientTransport{
			HTTPClient:   &http.Client{Transport: rig.wire},
			OAuthHandler: credentialHandler{rig.cred},
		})
	}},
}

// The SDK ends its session at a 401, and stays so with a good token.
func TestMCPSessionEndsAtA401WithoutReauth(t *testing.T) {
	t.Parallel()
	rig := newSDKRig(t, mcpServer())
	token := mustRefresh(t, rig.issuer).AccessToken
	session := mcpConnect(t, rig, &mcp.StreamableClientTransport{HTTPClient: &http.Client{
		Transport: roundTripperFunc(func(req *http.Request) (*http.Response, error) {
			req = req.Clone(req.Context())
			req.Header.Set("Authorization", "Bearer "+token)
			return rig.wire.RoundTrip(req)
		}),
	}})
	got, err := mcpCount(t.Context(), session)
	require.NoError(t, err)
	require.Equal(t, "1", got)

	rig.issuer.Revoke()
	_, err = mcpCount(t.Context(), session)
	require.ErrorContains(t, err, "Unauthorized")
	token = mustRefresh(t, rig.issuer).AccessToken
	sends := mcpPosts(rig)
	_, err = mcpCount(t.Context(), session)
	assert.Error(t, err)
	assert.Equal(t, sends, mcpPosts(rig))
}

func TestMCPSessionLivesThroughARevocation(t *testing.T) {
	t.Parallel()
	for _, way := range mcpWays {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			rig := newSDKRig(t, mcpServer())
			session := way.connect(t, rig)
			got, err := mcpCount(t.Context(), session)
			require.NoError(t, err)
			require.Equal(t, "1", got)
			id := session.ID()
			require.NotEmpty(t, id)

			rig.issuer.Revoke()
			sends, rejections := mcpPosts(rig), rig.api.Rejections()
			for _, want := range []string{"2", "3"} {
				got, err = mcpCount(t.Context(), session)
				require.NoError(t, err)
				assert.Equal(t, want, got, "the server has the same session")
				assert.Equal(t, id, session.ID())
			}
			assert.Equal(t, 3, mcpPosts(rig)-sends)
			assert.Equal(t, 1, rig.api.Rejections()-rejections)
			assert.Equal(t, 2, rig.issuer.Refreshes())
			rig.carriesOnlyTokens(t)
		})
	}
}

// A Transport allows another refresh as soon as the server has accepted the token.
// Credential.Refresh, which the handler calls, waits until the token is five seconds
// old, and the call fails. The session goes on.
func TestMCPSessionLivesThroughARevocationOfANewToken(t *testing.T) {
	t.Parallel()
	for _, way := range mcpWays {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			rig := newSDKRig(t, mcpServer())
			session := way.connect(t, rig)
			rig.issuer.Revoke()
			_, err := mcpCount(t.Context(), session)
			require.NoError(t, err)
			rig.issuer.Revoke()
			_, err = mcpCount(t.Context(), session)
			if way.name == "Transport" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "the next refresh")
			require.NoError(t, rig.cred.Set(t.Context(), mustRefresh(t, rig.issuer)))
			got, err := mcpCount(t.Context(), session)
			require.NoError(t, err)
			assert.Equal(t, "2", got, "the server has the same session")
		})
	}
}

// Calls that meet the 401 together share one refresh.
func TestMCPCallsAtOnceShareOneRefresh(t *testing.T) {
	t.Parallel()
	for _, way := range mcpWays {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			rig := newSDKRig(t, mcpServer())
			session := way.connect(t, rig)
			_, err := mcpCount(t.Context(), session)
			require.NoError(t, err)
			rig.issuer.Revoke()
			const callers = 8
			failures := make(chan error, callers)
			for range callers {
				go func() {
					_, err := session.ListTools(t.Context(), nil)
					failures <- err
				}()
			}
			within(t, time.Minute, func() {
				for range callers {
					assert.NoError(t, <-failures)
				}
			})
			assert.Equal(t, 2, rig.issuer.Refreshes())
		})
	}
}

// A token that is rejected for good ends the session after two sends. The next
// session works.
func TestMCPSessionEndsIfTheNewTokenIsRejected(t *testing.T) {
	t.Parallel()
	for _, way := range mcpWays {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			rig := newSDKRig(t, mcpServer())
			session := way.connect(t, rig)
			rig.issuer.Revoke()
			rig.issuer.Refuse(true)
			sends := mcpPosts(rig)
			_, err := mcpCount(t.Context(), session)
			require.ErrorContains(t, err, "Unauthorized")
			assert.NotContains(t, err.Error(), "access-")
			assert.Equal(t, 2, mcpPosts(rig)-sends)
			assert.Equal(t, 2, rig.issuer.Refreshes())
			_, err = mcpCount(t.Context(), session)
			require.Error(t, err)

			rig.issuer.Refuse(false)
			require.NoError(t, rig.cred.Set(t.Context(), mustRefresh(t, rig.issuer)))
			got, err := mcpCount(t.Context(), way.connect(t, rig))
			require.NoError(t, err)
			assert.Equal(t, "1", got)
		})
	}
}
