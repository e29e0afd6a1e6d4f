package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	goopenai "github.com/sashabaranov/go-openai"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

func goOpenAIClient(rig *sdkRig, key string) *goopenai.Client {
	config := goopenai.DefaultConfig(key)
	config.BaseURL = rig.api.URL() + "/v1"
	config.HTTPClient = rig.client
	return goopenai.NewClientWithConfig(config)
}

func goOpenAIPrompt(said string) goopenai.ChatCompletionRequest {
	return goopenai.ChatCompletionRequest{
		Model:    goopenai.GPT4o,
		Messages: []goopenai.ChatCompletionMessage{{Role: goopenai.ChatMessageRoleUser, Content: said}},
	}
}

func goOpenAIChat(ctx context.Context, client *goopenai.Client, said string) (string, error) {
	got, err := client.CreateChatCompletion(ctx, goOpenAIPrompt(said))
	if err != nil {
		return "", err
	}
	return got.Choices[0].Message.Content, nil
}

func goOpenAIStream(ctx context.Context, client *goopenai.Client, said string, heard func(word string)) (string, error) {
	stream, err := client.CreateChatCompletionStream(ctx, goOpenAIPrompt(said))
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var all strings.Builder
	for {
		got, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all.String(), nil
		} else if err != nil {
			return all.String(), err
		}
		word := got.Choices[0].Delta.Content
		all.WriteString(word)
		heard(word)
	}
}

func goOpenAICalls(rig *sdkRig, key string) []sdkCall {
	client := goOpenAIClient(rig, key)
	return []sdkCall{
		{"chat", func(ctx context.Context) (string, error) {
			return goOpenAIChat(ctx, client, "hello, world")
		}, "hello, world"},
		{"streamed chat", func(ctx context.Context) (string, error) {
			return goOpenAIStream(ctx, client, "one two three four", func(string) {})
		}, "one two three four"},
		{"file upload", func(ctx context.Context) (string, error) {
			got, err := client.CreateFileBytes(ctx, goopenai.FileBytesRequest{Name: "lines.jsonl", Bytes: sdkUpload, Purpose: goopenai.PurposeBatch})
			return got.ID, err
		}, sdkUploadID()},
	}
}

// goOpenAIOutcome is how the caller of go-openai has the request ids: its error
// shows no response, so that he asks the context.
func goOpenAIOutcome(t *testing.T, err error, last func() reauth.Outcome) (int, reauth.Outcome) {
	t.Helper()
	var failure *goopenai.APIError
	require.ErrorAs(t, err, &failure)
	return failure.HTTPStatusCode, last()
}

func goOpenAISDK(key string, override bool) sdk {
	return sdk{
		serve:   func() http.Handler { return openaiServer(&gate{}) },
		change:  func(rig *sdkRig) { rig.transport.Override = override },
		calls:   func(_ *testing.T, rig *sdkRig) []sdkCall { return goOpenAICalls(rig, key) },
		outcome: goOpenAIOutcome,
	}
}

// go-openai sends Authorization whatever it is given, but an empty key.
func TestNoGoOpenAICallIsLostToADeadToken(t *testing.T) {
	t.Parallel()
	t.Run("Placeholder for a key", func(t *testing.T) {
		t.Parallel()
		goOpenAISDK(reauth.Placeholder, false).holds(t)
	})
	t.Run("a key of its own, and Override", func(t *testing.T) {
		t.Parallel()
		goOpenAISDK("sk-of-its-own", true).holdsBriefly(t)
	})
	t.Run("an empty key", func(t *testing.T) {
		t.Parallel()
		goOpenAISDK("", false).holdsBriefly(t)
	})
}

func TestNoGoOpenAIStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	g := &gate{next: make(chan struct{})}
	g.shut.Store(true)
	rig := newSDKRig(t, openaiServer(g))
	client := goOpenAIClient(rig, reauth.Placeholder)
	within(t, 30*time.Second, func() {
		words := 0
		got, err := goOpenAIStream(t.Context(), client, "one two three four", func(string) {
			if words++; words == 2 {
				rig.issuer.Revoke()
				said, err := goOpenAIChat(t.Context(), client, "meanwhile")
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

// Go-openai's own key, without Override, is a caller's own credential.
func TestGoOpenAIKeyDoesNotSilentlyDisableReauth(t *testing.T) {
	t.Parallel()
	rig := newSDKRig(t, openaiServer(&gate{}))
	client := goOpenAIClient(rig, "sk-of-its-own")
	for range 3 {
		ctx, last := reauth.WithOutcome(t.Context())
		_, err := goOpenAIChat(ctx, client, "hello")
		status, o := goOpenAIOutcome(t, err, last)
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.NotEmpty(t, o.Withheld)
		assert.Equal(t, rig.wire.last(1), []string{o.RequestID()})
	}
	for _, req := range rig.api.Requests() {
		assert.Equal(t, []string{"Bearer sk-of-its-own"}, req.Header.Values("Authorization"))
	}
	assert.Equal(t, 3, rig.api.Sends())
	assert.LessOrEqual(t, rig.issuer.Sends(), 1, "for the token of ours that it could have been")
	warnings := rig.log.records(t, slog.LevelWarn)
	require.Len(t, warnings, 1)
	assert.Contains(t, warnings[0]["hint"], "Override")
	assert.NotContains(t, rig.log.text(), "sk-of-its-own")
}

// The request id is there without an error too.
func TestGoOpenAIRequestIDIsNotLostWithASuccess(t *testing.T) {
	t.Parallel()
	rig := newSDKRig(t, openaiServer(&gate{}))
	client := goOpenAIClient(rig, reauth.Placeholder)
	ctx, last := reauth.WithOutcome(t.Context())
	_, err := goOpenAIChat(ctx, client, "hello")
	require.NoError(t, err)
	assert.Equal(t, rig.wire.last(1), []string{last().RequestID()})
	rig.issuer.Revoke()
	_, err = goOpenAIChat(ctx, client, "hello")
	require.NoError(t, err)
	assert.True(t, last().Recovered())
	assert.Equal(t, rig.wire.last(2), []string{last().First.RequestID, last().Retry.RequestID})
}

// go-openai repeats nothing by itself.
func TestNoGoOpenAICallIsRepeatedButForItsToken(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		faults []reauthtest.Fault
		sends  int
		status int
	}{
		{"500", []reauthtest.Fault{reauthtest.Status(500)}, 1, 500},
		{"refused, 500", []reauthtest.Fault{reauthtest.Reject(), reauthtest.Status(500)}, 2, 500},
		{"refused twice", []reauthtest.Fault{reauthtest.Reject(), reauthtest.Reject()}, 2, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rig := newSDKRig(t, openaiServer(&gate{}))
			rig.api.Next(tt.faults...)
			ctx, last := reauth.WithOutcome(t.Context())
			_, err := goOpenAIChat(ctx, goOpenAIClient(rig, reauth.Placeholder), "hello")
			status, o := goOpenAIOutcome(t, err, last)
			assert.Equal(t, tt.status, status)
			assert.Equal(t, tt.sends, rig.api.Sends())
			assert.Equal(t, rig.wire.last(1), []string{o.RequestID()})
		})
	}
}

// The error that brings people here, from a gateway that speaks as new-api
// does: no WWW-Authenticate, and the request id in a header of its own.
func TestGoOpenAICallerOfANewAPIGatewayIsCured(t *testing.T) {
	t.Parallel()
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	var sends atomic.Int64
	server := openaiServer(&gate{})
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := fmt.Sprintf("20261122193238719930601ZPfswu%02d", sends.Add(1))
		w.Header().Set("X-Oneapi-Request-Id", id)
		if !issuer.Valid(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
			respond(w, http.StatusUnauthorized, map[string]any{"error": map[string]any{"code": "", "message": "无效的令牌 (request id: " + id + ")", "type": "new_api_error"}})
			return
		}
		server.ServeHTTP(w, r)
	}))
	defer gateway.Close()
	config := goopenai.DefaultConfig(reauth.Placeholder)
	config.BaseURL = gateway.URL + "/v1"
	config.HTTPClient = &http.Client{Transport: &reauth.Transport{
		Base:       gateway.Client().Transport,
		Credential: &reauth.Credential{Refresher: issuer, Logger: discard},
		Origins:    []string{gateway.URL},
		Logger:     discard,
	}}
	client := goopenai.NewClientWithConfig(config)

	ctx, last := reauth.WithOutcome(t.Context())
	_, err := goOpenAIChat(ctx, client, "hello")
	require.NoError(t, err)
	issuer.Revoke()
	_, err = goOpenAIChat(ctx, client, "hello")
	require.NoError(t, err)
	assert.EqualValues(t, 3, sends.Load())
	assert.Equal(t, reauth.ReasonInvalidToken, last().Rejection.Reason)
	assert.Equal(t, "20261122193238719930601ZPfswu02", last().First.RequestID)
	assert.Equal(t, "20261122193238719930601ZPfswu03", last().Retry.RequestID)

	issuer.Revoke()
	issuer.Refuse(true)
	_, err = goOpenAIChat(ctx, client, "hello")
	require.ErrorContains(t, err, "无效的令牌 (request id: 20261122193238719930601ZPfswu05)")
	assert.EqualValues(t, 5, sends.Load())
	assert.Equal(t, "20261122193238719930601ZPfswu05", last().RequestID())
}
