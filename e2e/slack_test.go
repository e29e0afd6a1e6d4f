package e2e_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/slack-go/slack"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
	"github.com/reauth-go/reauth/reauthtest"
)

// slackServer simulates the parts of Slack's API that the tests use. A token in the
// form is one more credential, and no test has a good one there.
func slackServer() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /chat.postMessage", func(w http.ResponseWriter, r *http.Request) {
		respond(w, http.StatusOK, map[string]any{"ok": true, "channel": r.FormValue("channel"), "ts": r.FormValue("text")})
	})
	mux.HandleFunc("POST /users.profile.set", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, map[string]any{"ok": false, "error": "missing_scope", "needed": "users.profile:write"})
	})
	mux.HandleFunc("POST /views.open", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, map[string]any{"ok": true, "view": map[string]any{"id": "V1"}})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := r.Header["Content-Type"]; ok && r.FormValue("token") != "" {
			respond(w, http.StatusOK, map[string]any{"ok": false, "error": "invalid_auth"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// slackRejection is Slack's response to a token that it does not accept: a 200.
func slackRejection(code string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, map[string]any{"ok": false, "error": code})
	})
}

// A slackHTTP is the http client for slack-go. Most methods of slack-go have the
// token in the form, which a Transport does not change. A slackHTTP removes it from
// there, so that the one in the header counts.
type slackHTTP struct{ *http.Client }

func (c slackHTTP) Do(req *http.Request) (*http.Response, error) {
	if req.GetBody == nil || req.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return c.Client.Do(req)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	form.Del("token")
	bare, err := http.NewRequestWithContext(req.Context(), req.Method, req.URL.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	bare.Header = req.Header.Clone()
	return c.Client.Do(bare)
}

func newSlackRig(t *testing.T, code string) (*sdkRig, *slack.Client) {
	rig := newSDKRig(t, slackServer(), func(rig *sdkRig) {
		rig.wire.name = "X-Slack-Req-Id"
		rig.transport.Classifier = classifier.Chain(classifier.Slack(), reauth.DefaultClassifier())
		rig.api.SetRejection(slackRejection(code))
	})
	return rig, slack.New(reauth.Placeholder, slack.OptionHTTPClient(slackHTTP{rig.client}), slack.OptionAPIURL(rig.api.URL()+"/"))
}

// slackPost sends its token in the form, if nothing removes it.
func slackPost(ctx context.Context, client *slack.Client) (string, error) {
	_, ts, err := client.PostMessageContext(ctx, "C1", slack.MsgOptionText("so it goes", false))
	return ts, err
}

// slackView sends its token in the header.
func slackView(ctx context.Context, client *slack.Client) (string, error) {
	got, err := client.OpenViewContext(ctx, "trigger", slack.ModalViewRequest{Type: slack.VTModal})
	if err != nil {
		return "", err
	}
	return got.ID, nil
}

var slackCalls = []struct {
	name string
	do   func(context.Context, *slack.Client) (string, error)
	want string
}{
	{"form", slackPost, "so it goes"},
	{"JSON", slackView, "V1"},
}

func TestSlackCallsSurviveARejectedToken(t *testing.T) {
	t.Parallel()
	for _, call := range slackCalls {
		for code, reason := range map[string]reauth.Reason{
			"invalid_auth":  reauth.ReasonInvalidToken,
			"token_revoked": reauth.ReasonRevoked,
			"token_expired": reauth.ReasonExpired,
		} {
			t.Run(call.name+" "+code, func(t *testing.T) {
				t.Parallel()
				rig, client := newSlackRig(t, code)
				got, err := call.do(t.Context(), client)
				require.NoError(t, err)
				require.Equal(t, call.want, got)
				require.Equal(t, 1, rig.api.Sends())

				rig.issuer.Revoke()
				ctx, last := reauth.WithOutcome(t.Context())
				got, err = call.do(ctx, client)
				require.NoError(t, err)
				assert.Equal(t, call.want, got)
				assert.Equal(t, 3, rig.api.Sends())
				assert.Equal(t, 2, rig.issuer.Refreshes())
				assert.Equal(t, reason, last().Rejection.Reason)
				assert.Equal(t, rig.wire.last(2), []string{last().First.RequestID, last().Retry.RequestID})
				assert.Empty(t, rig.log.records(t, slog.LevelWarn))
				rig.carriesOnlyTokens(t)
			})
		}
	}
}

func TestSlackCallsRejectedForGoodAreSentTwice(t *testing.T) {
	t.Parallel()
	for _, call := range slackCalls {
		t.Run(call.name, func(t *testing.T) {
			t.Parallel()
			rig, client := newSlackRig(t, "token_revoked")
			_, err := call.do(t.Context(), client)
			require.NoError(t, err)
			rig.issuer.Revoke()
			rig.issuer.Refuse(true)
			ctx, last := reauth.WithOutcome(t.Context())
			_, err = call.do(ctx, client)
			assert.EqualError(t, err, "token_revoked", "Slack's own word")
			assert.Equal(t, 3, rig.api.Sends())
			assert.Equal(t, 2, rig.issuer.Refreshes())
			assert.Equal(t, rig.wire.last(2), []string{last().First.RequestID, last().Retry.RequestID})
			rig.carriesOnlyTokens(t)

			rig.issuer.Refuse(false)
			require.NoError(t, rig.cred.Set(t.Context(), mustRefresh(t, rig.issuer)))
			got, err := call.do(t.Context(), client)
			require.NoError(t, err)
			assert.Equal(t, call.want, got)
		})
	}
}

// A new token resolves none of these.
func TestSlackErrorsThatAreNotAboutTheTokenAreReturned(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"account_inactive", "not_authed", "ratelimited"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			rig, client := newSlackRig(t, code)
			_, err := slackPost(t.Context(), client)
			require.NoError(t, err)
			rig.issuer.Revoke()
			_, err = slackPost(t.Context(), client)
			assert.EqualError(t, err, code)
			assert.Equal(t, 2, rig.api.Sends())
			assert.Equal(t, 1, rig.issuer.Refreshes())
		})
	}
	t.Run("missing_scope", func(t *testing.T) {
		t.Parallel()
		rig, client := newSlackRig(t, "invalid_auth")
		err := client.SetUserCustomStatusContext(t.Context(), "resting", ":zzz:", 0)
		assert.EqualError(t, err, "missing_scope")
		assert.Equal(t, 1, rig.api.Sends())
		assert.Equal(t, 1, rig.issuer.Refreshes())
	})
}

// Without the Classifier, a 200 is a 200.
func TestSlackRejectionIsNotSeenWithoutItsClassifier(t *testing.T) {
	t.Parallel()
	rig, client := newSlackRig(t, "token_revoked")
	rig.transport.Classifier = nil
	_, err := slackPost(t.Context(), client)
	require.NoError(t, err)
	rig.issuer.Revoke()
	_, err = slackPost(t.Context(), client)
	assert.EqualError(t, err, "token_revoked")
	assert.Equal(t, 2, rig.api.Sends())
	assert.Equal(t, 1, rig.issuer.Refreshes())
}

// slack-go with a plain http.Client has the Placeholder in the form of most
// methods, where it is not replaced. The new token does not help, and the call
// fails after two sends.
func TestSlackFormsKeepThePlaceholderOfAPlainClient(t *testing.T) {
	t.Parallel()
	rig, _ := newSlackRig(t, "invalid_auth")
	client := slack.New(reauth.Placeholder, slack.OptionHTTPClient(rig.client), slack.OptionAPIURL(rig.api.URL()+"/"))
	got, err := slackView(t.Context(), client)
	require.NoError(t, err, "a method that has its token in the header")
	assert.Equal(t, "V1", got)
	_, err = slackPost(t.Context(), client)
	assert.EqualError(t, err, "invalid_auth")
	assert.Equal(t, 3, rig.api.Sends())

	// An empty token leaves an empty field in the form.
	client = slack.New("", slack.OptionHTTPClient(rig.client), slack.OptionAPIURL(rig.api.URL()+"/"))
	got, err = slackPost(t.Context(), client)
	require.NoError(t, err)
	assert.Equal(t, "so it goes", got)
	got, err = slackView(t.Context(), client)
	require.NoError(t, err)
	assert.Equal(t, "V1", got)
}

// slack-go's own retries are for 429 and, if asked for, for 5xx and connections.
func TestSlackRetriesAreNotMultiplied(t *testing.T) {
	t.Parallel()
	rig, _ := newSlackRig(t, "token_revoked")
	config := slack.DefaultRetryConfig()
	config.MaxRetries = 3
	client := slack.New(reauth.Placeholder, slack.OptionHTTPClient(slackHTTP{rig.client}), slack.OptionAPIURL(rig.api.URL()+"/"),
		slack.OptionRetryConfig(config))
	rig.api.Next(reauthtest.Status(http.StatusTooManyRequests, "Retry-After", "0"))
	_, err := slackPost(t.Context(), client)
	require.NoError(t, err)
	require.Equal(t, 2, rig.api.Sends())
	rig.issuer.Revoke()
	rig.issuer.Refuse(true)
	_, err = slackPost(t.Context(), client)
	assert.EqualError(t, err, "token_revoked")
	assert.Equal(t, 4, rig.api.Sends())
}

func Example_slack() {
	defer pretend("X-Slack-Req-Id", `{"error":"invalid_auth"}`)()
	ctx, cred := context.Background(), exampleCredential()

	// slackHTTP removes the token from the form, where a Transport does not replace it.
	client := slack.New(reauth.Placeholder, slack.OptionHTTPClient(slackHTTP{&http.Client{Transport: &reauth.Transport{
		Credential: cred,
		Classifier: classifier.Chain(classifier.Slack(), reauth.DefaultClassifier()), // for its 200s
	}}}))
	ctx, outcome := reauth.WithOutcome(ctx) // its errors do not show the response
	if _, _, err := client.PostMessageContext(ctx, "C1", slack.MsgOptionText("hello", false)); err != nil {
		o := outcome()
		fmt.Println(err, "request ids:", o.First.RequestID, o.Retry.RequestID)
	}
	// Output: slack server error: 401 Unauthorized request ids: req_1 req_2
}
