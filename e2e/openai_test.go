package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// openaiServer simulates what of OpenAI's API the tests use: chat completions,
// which say again what they were told, and files.
func openaiServer(g *gate) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Model    string `json:"model"`
			Stream   bool   `json:"stream"`
			Messages []struct {
				Content string `json:"content"`
			} `json:"messages"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Messages) == 0 {
			respond(w, http.StatusBadRequest, map[string]any{"error": map[string]any{"message": "We could not parse the JSON body of your request.", "type": "invalid_request_error"}})
			return
		}
		said := body.Messages[len(body.Messages)-1].Content
		if !body.Stream {
			respond(w, http.StatusOK, map[string]any{"id": "chatcmpl-1", "object": "chat.completion", "model": body.Model, "choices": []any{
				map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": said}},
			}})
			return
		}
		for i, word := range strings.SplitAfter(said, " ") {
			if i > 0 {
				g.pass(r)
			}
			sendEvent(w, "", fmt.Sprintf(`{"id":"chatcmpl-1","object":"chat.completion.chunk","model":%q,"choices":[{"index":0,"delta":{"content":%q}}]}`, body.Model, word))
		}
		sendEvent(w, "", "[DONE]")
	})
	mux.HandleFunc("POST /v1/files", func(w http.ResponseWriter, r *http.Request) {
		f, header, err := r.FormFile("file")
		if err != nil {
			respond(w, http.StatusBadRequest, map[string]any{"error": map[string]any{"message": err.Error(), "type": "invalid_request_error"}})
			return
		}
		id, n := digest(f)
		respond(w, http.StatusOK, map[string]any{"id": id, "object": "file", "bytes": n, "filename": header.Filename, "purpose": r.FormValue("purpose"), "created_at": 1, "status": "processed"})
	})
	return mux
}

func openaiClient(rig *sdkRig, opts ...option.RequestOption) openai.Client {
	return openai.NewClient(append([]option.RequestOption{
		option.WithBaseURL(rig.api.URL() + "/v1/"),
		option.WithHTTPClient(rig.client),
	}, opts...)...)
}

func openaiPrompt(said string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model:    "gpt-simulated",
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(said)},
	}
}

func openaiChat(ctx context.Context, client *openai.Client, said string) (string, error) {
	got, err := client.Chat.Completions.New(ctx, openaiPrompt(said))
	if err != nil {
		return "", err
	}
	return got.Choices[0].Message.Content, nil
}

func openaiStream(ctx context.Context, client *openai.Client, said string, heard func(word string)) (string, error) {
	stream := client.Chat.Completions.NewStreaming(ctx, openaiPrompt(said))
	defer stream.Close()
	var all strings.Builder
	for stream.Next() {
		word := stream.Current().Choices[0].Delta.Content
		all.WriteString(word)
		heard(word)
	}
	return all.String(), stream.Err()
}

func openaiUpload(ctx context.Context, client *openai.Client) (string, error) {
	got, err := client.Files.New(ctx, openai.FileNewParams{
		File:    openai.File(bytes.NewReader(sdkUpload), "lines.jsonl", "application/jsonl"),
		Purpose: openai.FilePurposeUserData,
	})
	if err != nil {
		return "", err
	}
	return got.ID, nil
}

func openaiCalls(rig *sdkRig, opts ...option.RequestOption) []sdkCall {
	client := openaiClient(rig, opts...)
	return []sdkCall{
		{"chat", func(ctx context.Context) (string, error) {
			return openaiChat(ctx, &client, "hello, world")
		}, "hello, world"},
		{"streamed chat", func(ctx context.Context) (string, error) {
			return openaiStream(ctx, &client, "one two three four", func(string) {})
		}, "one two three four"},
		{"file upload", func(ctx context.Context) (string, error) {
			return openaiUpload(ctx, &client)
		}, sdkUploadID()},
	}
}

// openaiOutcome is how the caller of openai-go has the request ids: its error
// shows the response.
func openaiOutcome(t *testing.T, err error, _ func() reauth.Outcome) (int, reauth.Outcome) {
	t.Helper()
	var failure *openai.Error
	require.ErrorAs(t, err, &failure)
	o, ok := reauth.OutcomeOf(failure.Response)
	require.True(t, ok)
	assert.Equal(t, o.RequestID(), reauth.RequestID(failure.Response))
	assert.NotContains(t, string(failure.DumpRequest(true)), "access-", "the request that the error shows has no token")
	for _, values := range failure.Response.Request.Header {
		assert.NotContains(t, strings.Join(values, ","), "access-")
	}
	return failure.StatusCode, o
}

func openaiSDK(opts ...option.RequestOption) sdk {
	return sdk{
		serve:   func() http.Handler { return openaiServer(&gate{}) },
		calls:   func(_ *testing.T, rig *sdkRig) []sdkCall { return openaiCalls(rig, opts...) },
		outcome: openaiOutcome,
	}
}

func TestNoOpenAICallIsLostToADeadToken(t *testing.T) {
	t.Parallel()
	t.Run("Placeholder for a key", func(t *testing.T) {
		t.Parallel()
		openaiSDK(option.WithAPIKey(reauth.Placeholder)).holds(t)
	})
	t.Run("without a key", func(t *testing.T) {
		t.Parallel()
		openaiSDK().holdsBriefly(t)
	})
}

// The stream neither ends with its token nor holds up the next request,
// and its events come as they are sent.
func TestNoOpenAIStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	g := &gate{next: make(chan struct{})}
	g.shut.Store(true)
	rig := newSDKRig(t, openaiServer(g))
	client := openaiClient(rig)
	within(t, 30*time.Second, func() {
		words := 0
		got, err := openaiStream(t.Context(), &client, "one two three four", func(string) {
			if words++; words == 2 {
				rig.issuer.Revoke()
				said, err := openaiChat(t.Context(), &client, "meanwhile")
				assert.NoError(t, err)
				assert.Equal(t, "meanwhile", said)
			}
			if words < 4 {
				g.next <- struct{}{} // only now may the next word be sent
			}
		})
		assert.NoError(t, err)
		assert.Equal(t, "one two three four", got)
		assert.Equal(t, 4, words)
	})
	assert.Equal(t, 3, rig.api.Sends(), "the stream, and a chat that was refused once")
	assert.Equal(t, 2, rig.issuer.Refreshes())
}

// A key of the environment makes reauth inert, and that is said once.
func TestOpenAIKeyOfTheEnvironmentDoesNotSilentlyDisableReauth(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "sk-from-the-environment")

	t.Run("left alone, with one warning", func(t *testing.T) {
		rig := newSDKRig(t, openaiServer(&gate{}))
		client := openaiClient(rig)
		for range 3 {
			_, err := openaiChat(t.Context(), &client, "hello")
			var failure *openai.Error
			require.ErrorAs(t, err, &failure)
			assert.Equal(t, http.StatusUnauthorized, failure.StatusCode)
			o, ok := reauth.OutcomeOf(failure.Response)
			require.True(t, ok)
			assert.NotEmpty(t, o.Withheld)
			assert.Equal(t, rig.wire.last(1), []string{o.RequestID()})
		}
		for _, req := range rig.api.Requests() {
			assert.Equal(t, []string{"Bearer sk-from-the-environment"}, req.Header.Values("Authorization"))
		}
		assert.Equal(t, 3, rig.api.Sends())
		assert.LessOrEqual(t, rig.issuer.Sends(), 1, "for the token of ours that it could have been")
		warnings := rig.log.records(t, slog.LevelWarn)
		require.Len(t, warnings, 1)
		assert.Contains(t, warnings[0]["hint"], "Override")
		assert.Contains(t, warnings[0]["hint"], "environment")
		assert.NotContains(t, rig.log.text(), "sk-from-the-environment")
	})

	for _, tt := range []struct {
		name   string
		change func(*sdkRig)
		opts   []option.RequestOption
	}{
		{"Placeholder goes before it", func(*sdkRig) {}, []option.RequestOption{option.WithAPIKey(reauth.Placeholder)}},
		{"an empty key goes before it", func(*sdkRig) {}, []option.RequestOption{option.WithAPIKey("")}},
		{"Override replaces it", func(rig *sdkRig) { rig.transport.Override = true }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rig := newSDKRig(t, openaiServer(&gate{}), tt.change)
			for _, call := range openaiCalls(rig, tt.opts...) {
				rig.issuer.Revoke()
				got, err := call.do(t.Context())
				require.NoError(t, err, call.name)
				assert.Equal(t, call.want, got)
			}
			rig.carriesOnlyTokens(t)
			assert.Empty(t, rig.log.records(t, slog.LevelWarn))
		})
	}
}

// Openai-go repeats what ends in 408, 409, 429, 5xx or without an answer,
// at most twice, and each of these sends may be refused once.
func TestOpenAIRetriesAndOursNeitherMultiplyNorGetInEachOthersWay(t *testing.T) {
	t.Parallel()
	at := func(code int) reauthtest.Fault { return reauthtest.Status(code, "Retry-After-Ms", "1") }
	refused := reauthtest.Reject()
	for _, tt := range []struct {
		name      string
		faults    []reauthtest.Fault
		sends     int
		refreshes int // beside the first
		status    int // of the error; 0: none
	}{
		{"500, 500, served", []reauthtest.Fault{at(500), at(500)}, 3, 0, 0},
		{"500, refused, served", []reauthtest.Fault{at(500), refused}, 3, 1, 0},
		{"refused, 503, served", []reauthtest.Fault{refused, at(503)}, 3, 1, 0},
		{"refused, 429, 500, served", []reauthtest.Fault{refused, at(429), at(500)}, 4, 1, 0},
		{"dropped, refused, served", []reauthtest.Fault{reauthtest.Drop(), refused}, 3, 1, 0},
		{"refused, dropped, served", []reauthtest.Fault{refused, reauthtest.Drop()}, 3, 1, 0},
		{"500, 500, 500", []reauthtest.Fault{at(500), at(500), at(500)}, 3, 0, 500},
		{"refused, 500, 500, 500", []reauthtest.Fault{refused, at(500), at(500), at(500)}, 4, 1, 500},
		{"refused twice", []reauthtest.Fault{refused, refused}, 2, 1, 401},
		{"500, refused twice", []reauthtest.Fault{at(500), refused, refused}, 3, 1, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rig := newSDKRig(t, openaiServer(&gate{}))
			client := openaiClient(rig, option.WithAPIKey(reauth.Placeholder))
			rig.api.Next(tt.faults...)
			got, err := openaiChat(t.Context(), &client, "hello")
			if tt.status == 0 {
				require.NoError(t, err)
				assert.Equal(t, "hello", got)
			} else {
				var failure *openai.Error
				require.ErrorAs(t, err, &failure)
				assert.Equal(t, tt.status, failure.StatusCode)
				assert.Equal(t, rig.wire.last(1)[0], reauth.RequestID(failure.Response))
			}
			assert.Equal(t, tt.sends, rig.api.Sends())
			assert.Equal(t, 1+tt.refreshes, rig.issuer.Refreshes())
		})
	}
}

// When the issuer is left alone for a while, a 401 is what the SDK
// gets, and it does not repeat that either.
func TestOpenAICallsDoNotRepeatA401ThatIsNotRetried(t *testing.T) {
	t.Parallel()
	rig := newSDKRig(t, openaiServer(&gate{}), func(rig *sdkRig) {
		rig.cred.MinBackoff = time.Hour
	})
	client := openaiClient(rig)
	_, err := openaiChat(t.Context(), &client, "hello")
	require.NoError(t, err)
	rig.issuer.Revoke()
	rig.issuer.Down(true)
	for range 3 {
		sends := rig.api.Sends()
		_, err := openaiChat(t.Context(), &client, "hello")
		status, o := openaiOutcome(t, err, nil)
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.Equal(t, 1, rig.api.Sends()-sends)
		assert.Equal(t, rig.wire.last(1), []string{o.RequestID()})
		var failure *reauth.RefreshError
		assert.ErrorAs(t, o.Err, &failure)
	}
	assert.Equal(t, 1, rig.issuer.Refreshes())
}
