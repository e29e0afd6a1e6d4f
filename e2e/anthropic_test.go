package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// anthropicServer simulates what of Anthropic's API the tests use: messages, which
// say again what they were told, and files.
func anthropicServer(g *gate) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Model    string `json:"model"`
			Stream   bool   `json:"stream"`
			Messages []struct {
				Content []struct {
					Text string `json:"text"`
				} `json:"content"`
			} `json:"messages"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Messages) == 0 || len(body.Messages[0].Content) == 0 {
			respond(w, http.StatusBadRequest, map[string]any{"type": "error", "error": map[string]any{"type": "invalid_request_error", "message": "messages: at least one message is required"}})
			return
		}
		said := body.Messages[0].Content[0].Text
		message := map[string]any{"id": "msg_1", "type": "message", "role": "assistant", "model": body.Model, "stop_reason": "end_turn",
			"content": []any{map[string]any{"type": "text", "text": said}}, "usage": map[string]any{"input_tokens": 1, "output_tokens": 1}}
		if !body.Stream {
			respond(w, http.StatusOK, message)
			return
		}
		message["content"], message["stop_reason"] = []any{}, nil
		start, _ := json.Marshal(map[string]any{"type": "message_start", "message": message})
		sendEvent(w, "message_start", string(start))
		sendEvent(w, "content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`)
		for i, word := range strings.SplitAfter(said, " ") {
			if i > 0 {
				g.pass(r)
			}
			sendEvent(w, "content_block_delta", fmt.Sprintf(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%q}}`, word))
		}
		sendEvent(w, "content_block_stop", `{"type":"content_block_stop","index":0}`)
		sendEvent(w, "message_stop", `{"type":"message_stop"}`)
	})
	mux.HandleFunc("POST /v1/files", func(w http.ResponseWriter, r *http.Request) {
		f, header, err := r.FormFile("file")
		if err != nil {
			respond(w, http.StatusBadRequest, map[string]any{"type": "error", "error": map[string]any{"type": "invalid_request_error", "message": err.Error()}})
			return
		}
		id, n := digest(f)
		respond(w, http.StatusOK, map[string]any{"id": id, "type": "file", "size_bytes": n, "filename": header.Filename, "mime_type": "application/jsonl", "created_at": "2026-11-25T00:00:00Z"})
	})
	return mux
}

func anthropicClient(rig *sdkRig, opts ...option.RequestOption) anthropic.Client {
	return anthropic.NewClient(append([]option.RequestOption{
		option.WithBaseURL(rig.api.URL()),
		option.WithHTTPClient(rig.client),
	}, opts...)...)
}

func anthropicPrompt(said string) anthropic.MessageNewParams {
	return anthropic.MessageNewParams{
		MaxTokens: 100,
		Model:     anthropic.ModelClaudeHaiku5_5,
		Messages:  []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(said))},
	}
}

func anthropicMessage(ctx context.Context, client *anthropic.Client, said string) (string, error) {
	got, err := client.Messages.New(ctx, anthropicPrompt(said))
	if err != nil {
		return "", err
	}
	return got.Content[0].Text, nil
}

func anthropicStream(ctx context.Context, client *anthropic.Client, said string, heard func(word string)) (string, error) {
	stream := client.Messages.NewStreaming(ctx, anthropicPrompt(said))
	defer stream.Close()
	var all strings.Builder
	for stream.Next() {
		if event := stream.Current(); event.Type == "content_block_delta" {
			all.WriteString(event.Delta.Text)
			heard(event.Delta.Text)
		}
	}
	return all.String(), stream.Err()
}

func anthropicCalls(rig *sdkRig, opts ...option.RequestOption) []sdkCall {
	client := anthropicClient(rig, opts...)
	return []sdkCall{
		{"message", func(ctx context.Context) (string, error) {
			return anthropicMessage(ctx, &client, "hello, world")
		}, "hello, world"},
		{"streamed message", func(ctx context.Context) (string, error) {
			return anthropicStream(ctx, &client, "one two three four", func(string) {})
		}, "one two three four"},
		{"file upload", func(ctx context.Context) (string, error) {
			got, err := client.Files.Upload(ctx, anthropic.FileUploadParams{
				File: anthropic.File(bytes.NewReader(sdkUpload), "lines.jsonl", "application/jsonl"),
			})
			if err != nil {
				return "", err
			}
			return got.ID, nil
		}, sdkUploadID()},
	}
}

// anthropicOutcome is how the caller of anthropic-sdk-go has the request ids: its
// error shows the response, and by itself the id of the last one.
func anthropicOutcome(t *testing.T, err error, _ func() reauth.Outcome) (int, reauth.Outcome) {
	t.Helper()
	var failure *anthropic.Error
	require.ErrorAs(t, err, &failure)
	o, ok := reauth.OutcomeOf(failure.Response)
	require.True(t, ok)
	assert.Equal(t, failure.RequestID, o.RequestID())
	assert.NotContains(t, string(failure.DumpRequest(true)), "access-")
	for _, values := range failure.Response.Request.Header {
		assert.NotContains(t, strings.Join(values, ","), "access-")
	}
	return failure.StatusCode, o
}

// anthropicHeader has the Transport and the server use the X-Api-Key header.
func anthropicHeader(rig *sdkRig) {
	rig.transport.Header = "X-Api-Key"
	rig.api.SetHeader("X-Api-Key")
}

func anthropicSDK(change func(*sdkRig), opts ...option.RequestOption) sdk {
	return sdk{
		serve:   func() http.Handler { return anthropicServer(&gate{}) },
		change:  change,
		idName:  "Request-Id",
		calls:   func(_ *testing.T, rig *sdkRig) []sdkCall { return anthropicCalls(rig, opts...) },
		outcome: anthropicOutcome,
	}
}

func TestNoAnthropicCallIsLostToADeadToken(t *testing.T) {
	t.Parallel()
	t.Run("X-Api-Key", func(t *testing.T) {
		t.Parallel()
		anthropicSDK(anthropicHeader, option.WithoutEnvironmentDefaults()).holds(t)
	})
	for _, tt := range []struct {
		name   string
		change func(*sdkRig)
		opt    option.RequestOption
	}{
		{"X-Api-Key with Placeholder", anthropicHeader, option.WithAPIKey(reauth.Placeholder)},
		{"Bearer", nil, option.WithoutEnvironmentDefaults()},
		{"Bearer with Placeholder", nil, option.WithAuthToken(reauth.Placeholder)},
		{"Bearer with Placeholder in the other header", nil, option.WithAPIKey(reauth.Placeholder)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			anthropicSDK(tt.change, tt.opt).holdsBriefly(t)
		})
	}
}

func TestNoAnthropicStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	g := &gate{next: make(chan struct{})}
	g.shut.Store(true)
	rig := newSDKRig(t, anthropicServer(g), anthropicHeader)
	client := anthropicClient(rig, option.WithoutEnvironmentDefaults())
	within(t, 30*time.Second, func() {
		words := 0
		got, err := anthropicStream(t.Context(), &client, "one two three four", func(string) {
			if words++; words == 2 {
				rig.issuer.Revoke()
				said, err := anthropicMessage(t.Context(), &client, "meanwhile")
				assert.NoError(t, err)
				assert.Equal(t, "meanwhile", said)
			}
			if words < 4 {
				g.next <- struct{}{}
			}
		})
		assert.NoError(t, err)
		assert.Equal(t, "one two three four", got)
		assert.Equal(t, 4, words)
	})
	assert.Equal(t, 3, rig.api.Sends())
	assert.Equal(t, 2, rig.issuer.Refreshes())
}

// The SDK takes a key or a token from the environment, each in a header
// of its own. In the Transport's header it is a caller's own credential; in the
// other one the Transport knows nothing of it, and only the SDK can leave it out.
func TestNoAnthropicKeyOfTheEnvironmentGoesOutBesideOurs(t *testing.T) {
	t.Setenv("ANTHROPIC_API_KEY", "")
	t.Setenv("ANTHROPIC_AUTH_TOKEN", "")
	key := map[string]string{"ANTHROPIC_API_KEY": "sk-ant-from-the-environment"}
	token := map[string]string{"ANTHROPIC_AUTH_TOKEN": "auth-from-the-environment"}
	both := map[string]string{"ANTHROPIC_API_KEY": "sk-ant-from-the-environment", "ANTHROPIC_AUTH_TOKEN": "auth-from-the-environment"}
	bearer := func(*sdkRig) {}
	override := func(f func(*sdkRig)) func(*sdkRig) {
		return func(rig *sdkRig) { f(rig); rig.transport.Override = true }
	}
	without := []option.RequestOption{option.WithoutEnvironmentDefaults()}
	for _, tt := range []struct {
		name   string
		env    map[string]string
		change func(*sdkRig)
		opts   []option.RequestOption
	}{
		{"Bearer, a key, no defaults", key, bearer, without},
		{"Bearer, a token, no defaults", token, bearer, without},
		{"Bearer, both, no defaults", both, bearer, without},
		{"X-Api-Key, a key, no defaults", key, anthropicHeader, without},
		{"X-Api-Key, a token, no defaults", token, anthropicHeader, without},
		{"X-Api-Key, both, no defaults", both, anthropicHeader, without},
		// In the same header Placeholder or Override is enough.
		{"Bearer, a key, Placeholder over it", key, bearer, []option.RequestOption{option.WithAPIKey(reauth.Placeholder)}},
		{"Bearer, a token, Placeholder over it", token, bearer, []option.RequestOption{option.WithAuthToken(reauth.Placeholder)}},
		{"X-Api-Key, a key, Placeholder over it", key, anthropicHeader, []option.RequestOption{option.WithAPIKey(reauth.Placeholder)}},
		{"Bearer, a token, Override", token, override(bearer), nil},
		{"X-Api-Key, a key, Override", key, override(anthropicHeader), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			rig := newSDKRig(t, anthropicServer(&gate{}), tt.change)
			for _, call := range anthropicCalls(rig, tt.opts...) {
				rig.issuer.Revoke()
				got, err := call.do(t.Context())
				require.NoError(t, err, call.name)
				assert.Equal(t, call.want, got)
			}
			rig.carriesOnlyTokens(t)
			assert.NotContains(t, rig.log.text(), "from-the-environment")
		})
	}

	// What the SDK does if it is not told: these are why docs/sdks.md says
	// WithoutEnvironmentDefaults.
	for _, tt := range []struct {
		name, theirs, value string
		env                 map[string]string
		change              func(*sdkRig)
		opts                []option.RequestOption
	}{
		{"Bearer, a key, not told", "X-Api-Key", "sk-ant-from-the-environment", key, bearer, nil},
		{"Bearer, a key, Placeholder elsewhere", "X-Api-Key", "sk-ant-from-the-environment", key, bearer, []option.RequestOption{option.WithAuthToken(reauth.Placeholder)}},
		{"X-Api-Key, a token, not told", "Authorization", "Bearer auth-from-the-environment", token, anthropicHeader, nil},
		{"X-Api-Key, a token, Placeholder elsewhere", "Authorization", "Bearer auth-from-the-environment", token, anthropicHeader, []option.RequestOption{option.WithAPIKey(reauth.Placeholder)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			rig := newSDKRig(t, anthropicServer(&gate{}), tt.change)
			client := anthropicClient(rig, tt.opts...)
			_, err := anthropicMessage(t.Context(), &client, "hello")
			require.NoError(t, err)
			assert.Equal(t, tt.value, rig.api.Requests()[0].Header.Get(tt.theirs))
		})
	}
}

func TestAnthropicKeyOfTheEnvironmentDoesNotSilentlyDisableReauth(t *testing.T) {
	t.Setenv("ANTHROPIC_API_KEY", "sk-ant-from-the-environment")
	rig := newSDKRig(t, anthropicServer(&gate{}), anthropicHeader)
	rig.wire.name = "Request-Id"
	client := anthropicClient(rig)
	for range 3 {
		_, err := anthropicMessage(t.Context(), &client, "hello")
		status, o := anthropicOutcome(t, err, nil)
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.NotEmpty(t, o.Withheld)
	}
	for _, req := range rig.api.Requests() {
		assert.Equal(t, []string{"sk-ant-from-the-environment"}, req.Header.Values("X-Api-Key"))
		assert.Empty(t, req.Header.Values("Authorization"))
	}
	assert.Equal(t, 3, rig.api.Sends())
	assert.LessOrEqual(t, rig.issuer.Sends(), 1, "for the token of ours that it could have been")
	warnings := rig.log.records(t, slog.LevelWarn)
	require.Len(t, warnings, 1)
	assert.Contains(t, warnings[0]["hint"], "Override")
	assert.NotContains(t, rig.log.text(), "from-the-environment")
}

// The SDK repeats what openai-go does too.
func TestAnthropicRetriesAndOursNeitherMultiplyNorGetInEachOthersWay(t *testing.T) {
	t.Parallel()
	at := func(code int) reauthtest.Fault { return reauthtest.Status(code, "Retry-After-Ms", "1") }
	refused := reauthtest.Reject()
	for _, tt := range []struct {
		name   string
		faults []reauthtest.Fault
		sends  int
		status int // of the error; 0: none
	}{
		{"500, 529, served", []reauthtest.Fault{at(500), at(529)}, 3, 0},
		{"529, refused, served", []reauthtest.Fault{at(529), refused}, 3, 0},
		{"refused, 429, 500, served", []reauthtest.Fault{refused, at(429), at(500)}, 4, 0},
		{"refused, 500, 500, 500", []reauthtest.Fault{refused, at(500), at(500), at(500)}, 4, 500},
		{"refused twice", []reauthtest.Fault{refused, refused}, 2, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rig := newSDKRig(t, anthropicServer(&gate{}))
			rig.wire.name = "Request-Id"
			client := anthropicClient(rig, option.WithoutEnvironmentDefaults())
			rig.api.Next(tt.faults...)
			got, err := anthropicMessage(t.Context(), &client, "hello")
			if tt.status == 0 {
				require.NoError(t, err)
				assert.Equal(t, "hello", got)
			} else {
				var failure *anthropic.Error
				require.ErrorAs(t, err, &failure)
				assert.Equal(t, tt.status, failure.StatusCode)
				assert.Equal(t, rig.wire.last(1), []string{failure.RequestID})
			}
			assert.Equal(t, tt.sends, rig.api.Sends())
		})
	}
}

// Http.Client takes Authorization off a redirect to another host, and
// leaves X-Api-Key on it.
func TestAnthropicKeyNeverFollowsARedirectToAnotherHost(t *testing.T) {
	t.Parallel()
	for _, opt := range []option.RequestOption{option.WithoutEnvironmentDefaults(), option.WithAPIKey(reauth.Placeholder)} {
		seen := make(chan http.Header, 10)
		elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Header
			anthropicServer(&gate{}).ServeHTTP(w, r)
		}))
		t.Cleanup(elsewhere.Close)
		rig := newSDKRig(t, anthropicServer(&gate{}), anthropicHeader)
		client := anthropicClient(rig, opt)
		rig.api.Next(reauthtest.RedirectTo(elsewhere.URL + "/v1/messages"))
		got, err := anthropicMessage(t.Context(), &client, "hello")
		require.NoError(t, err)
		assert.Equal(t, "hello", got)
		require.Len(t, seen, 1)
		header := <-seen
		assert.Empty(t, header.Values("X-Api-Key"))
		assert.Empty(t, header.Values("Authorization"))
		rig.carriesOnlyTokens(t)
	}
}
