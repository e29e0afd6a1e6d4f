package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// 2 sends, of which the second has no refresh. client-go's error is the server's Status,
// which has no id in it.
func TestKubernetesRefusalForGoodIsTwoSendsAndShowsBothAuditIDs(t *testing.T) {
	t.Parallel()
	k := newKubeAPI(t, "a")
	cred := &reauth.Credential{Refresher: k.issuer, Logger: discard, MinBackoff: time.Hour}
	maps := k.client(t, k.config(quickly(cred)))
	_, err := maps.List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	k.issuer.Revoke()
	k.issuer.Refuse(true)
	before := k.sends()

	ctx, outcome := reauth.WithOutcome(t.Context())
	_, err = maps.Get(ctx, "a", metav1.GetOptions{})
	var status *apierrors.StatusError
	require.ErrorAs(t, err, &status)
	assert.Equal(t, metav1.StatusReasonUnauthorized, status.Status().Reason)
	assert.EqualValues(t, http.StatusUnauthorized, status.Status().Code)
	assert.Equal(t, "Unauthorized", status.Status().Message, "the server's own, unread by us")
	sent := k.since(before)
	require.Len(t, sent, 2)
	assert.Equal(t, sent[0].auditID, outcome().First.RequestID)
	assert.Equal(t, sent[1].auditID, outcome().Retry.RequestID)
	assert.Equal(t, sent[1].auditID, outcome().RequestID())
	assert.NotEqual(t, sent[0].token, sent[1].token)

	ctx, outcome = reauth.WithOutcome(t.Context())
	_, err = maps.Get(ctx, "a", metav1.GetOptions{})
	assert.True(t, apierrors.IsUnauthorized(err), "%v", err)
	sent = k.since(before + 2)
	require.Len(t, sent, 2, "the new token, and the one before that this server accepted once")
	assert.Equal(t, sent[1].auditID, outcome().RequestID())
	assert.True(t, outcome().Predecessor)
	assert.Equal(t, 2, k.issuer.Refreshes())

	k.issuer.Refuse(false)
	require.NoError(t, cred.Set(t.Context(), mustRefresh(t, k.issuer)))
	_, err = maps.Get(t.Context(), "a", metav1.GetOptions{})
	assert.NoError(t, err, "a login cures it")
	assert.Len(t, k.since(before+4), 1)
}

// 2 sends of one body, and one object.
func TestKubernetesObjectIsNeitherCreatedTwiceNorCutShort(t *testing.T) {
	t.Parallel()
	k := newKubeAPI(t)
	maps := k.client(t, k.config(quickly(&reauth.Credential{Refresher: k.issuer, Logger: discard})))
	_, err := maps.List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	k.issuer.Revoke()
	before := k.sends()

	object := configMap("made", 0)
	object["data"] = map[string]any{"text": strings.Repeat("so it goes\n", 50_000)}
	_, err = maps.Create(t.Context(), &unstructured.Unstructured{Object: object}, metav1.CreateOptions{})
	require.NoError(t, err)
	sent := k.since(before)
	require.Len(t, sent, 2)
	assert.Equal(t, http.StatusUnauthorized, sent[0].status)
	want, err := json.Marshal(object)
	require.NoError(t, err)
	assert.JSONEq(t, string(want), sent[1].body)
	assert.Equal(t, sent[0].body, sent[1].body)
	list, err := maps.List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	assert.Len(t, list.Items, 1)
}

// 1 send, as the token says when it ends.
func TestKubernetesTokenThatKeepsItsWordIsNeverMetWithA401(t *testing.T) {
	t.Parallel()
	k := newKubeAPI(t, "a")
	cred := &reauth.Credential{Refresher: k.issuer, Logger: discard}
	maps := k.client(t, k.config(quickly(cred)))
	_, err := maps.List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	k.issuer.SetLifetime(20 * time.Millisecond)
	tok := mustRefresh(t, k.issuer)
	require.NoError(t, cred.Set(t.Context(), tok))
	expired(t, tok)
	k.issuer.SetLifetime(time.Hour)
	before := k.sends()
	_, err = maps.List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	sent := k.since(before)
	require.Len(t, sent, 1)
	assert.NotEqual(t, tok.AccessToken, sent[0].token)
}

// Client-go repeats what has a Retry-After, up to ten times, and nothing else.
// It and reauth do not multiply.
func TestClientGosRetriesAndOursNeverMultiply(t *testing.T) {
	t.Parallel()
	broken := kubeStatus(http.StatusInternalServerError, "InternalError", "broken")
	later := kubeStatus(http.StatusTooManyRequests, "TooManyRequests", "later", "Retry-After", "0")
	refused := kubeStatus(http.StatusUnauthorized, "Unauthorized", "Unauthorized")
	for _, tt := range []struct {
		name  string
		meets []http.HandlerFunc
		sends int
		fails func(error) bool // nil: it does not
	}{
		{"500", []http.HandlerFunc{broken}, 1, apierrors.IsInternalError},
		{"429", []http.HandlerFunc{later}, 2, nil},
		{"429, 401", []http.HandlerFunc{later, refused}, 3, nil},
		{"401, 429", []http.HandlerFunc{refused, later}, 3, nil},
		{"401, 500", []http.HandlerFunc{refused, broken}, 2, apierrors.IsInternalError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newKubeAPI(t, "a")
			maps := k.client(t, k.config(quickly(&reauth.Credential{Refresher: k.issuer, Logger: discard})))
			_, err := maps.List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			k.next(tt.meets...)
			before := k.sends()
			ctx, outcome := reauth.WithOutcome(t.Context())
			_, err = maps.List(ctx, metav1.ListOptions{})
			if tt.fails == nil {
				assert.NoError(t, err)
			} else {
				assert.True(t, tt.fails(err), "%v", err)
			}
			sent := k.since(before)
			require.Len(t, sent, tt.sends)
			assert.Equal(t, sent[len(sent)-1].auditID, outcome().RequestID(), "the last, also of a 500")
		})
	}
}

// Without a token nothing is sent, and client-go takes the error for what
// it is: 0 sends, 1 refresh.
func TestKubernetesClientWithoutATokenNeitherSendsNorRepeats(t *testing.T) {
	t.Parallel()
	k := newKubeAPI(t, "a")
	k.issuer.Down(true)
	refreshes := make(chan reauth.RefreshInfo, 10)
	cred := &reauth.Credential{Refresher: k.issuer, Logger: discard, OnRefresh: func(_ context.Context, r reauth.RefreshInfo) { refreshes <- r }}
	maps := k.client(t, k.config(quickly(cred)))
	_, err := maps.List(t.Context(), metav1.ListOptions{})
	var failure *reauth.RefreshError
	require.ErrorAs(t, err, &failure)
	assert.Zero(t, k.sends())
	assert.Len(t, refreshes, 1)
}

// What controllers do. A watch that comes back with a dead token costs 2
// sends, and no list of everything.
func TestAnInformerNeverListsAgainForADeadToken(t *testing.T) {
	t.Parallel()
	k := newKubeAPI(t)
	maps := k.client(t, k.config(quickly(&reauth.Credential{Refresher: k.issuer, Logger: discard})))
	added := make(chan string, 10)
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				return maps.List(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				return maps.Watch(ctx, options)
			},
		},
		ObjectType: &unstructured.Unstructured{},
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: func(object any) {
			added <- object.(*unstructured.Unstructured).GetName()
		}},
	})
	ended := make(chan struct{})
	go func() { defer close(ended); informer.RunWithContext(t.Context()) }()
	t.Cleanup(func() { <-ended })

	k.add("first")
	assert.Equal(t, "first", received(t, added))
	require.Eventually(t, func() bool { return k.watching() }, 10*time.Second, time.Millisecond)
	k.issuer.Revoke()
	_, err := maps.List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	k.add("second")
	assert.Equal(t, "second", received(t, added), "on the watch that began with the old token")

	k.issuer.Revoke()
	before := k.sends()
	k.endWatches()
	require.Eventually(t, func() bool { return len(k.since(before)) == 2 }, 10*time.Second, time.Millisecond)
	k.add("third")
	assert.Equal(t, "third", received(t, added), "on the watch that was begun again")
	sent := k.since(before)
	require.Len(t, sent, 2)
	for _, s := range sent {
		assert.Contains(t, s.query, "watch=true")
	}
	assert.Equal(t, 3, k.issuer.Refreshes())
}

// Client-go reads the file again each minute, and reauth when it has to. Who
// of the two is ahead, Override settles: 1 send with a good token, 2 with one that
// died.
func TestClientGosTokenFileNeverOutlivesTheRotationWithOverride(t *testing.T) {
	t.Parallel()
	k := newKubeAPI(t, "a")
	path := filepath.Join(t.TempDir(), "token")
	rotate := func() string {
		tok := mustRefresh(t, k.issuer).AccessToken
		require.NoError(t, os.WriteFile(path+".new", []byte(tok+"\n"), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
		return tok
	}
	rotate()
	var log journal
	cred := &reauth.Credential{Refresher: refresher.File(path), Logger: discard}
	// Each client has a wrapper of its own, which reads the file when it is made.
	list := func() []kubeRequest {
		tr := quickly(cred)
		tr.Override, tr.Logger = true, log.logger()
		config := k.config(tr)
		config.BearerTokenFile = path
		before := k.sends()
		_, err := k.client(t, config).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		return k.since(before)
	}
	assert.Len(t, list(), 1)
	second := rotate()
	assert.Len(t, list(), 1, "reauth has the old one, which is still good")
	k.issuer.Revoke()
	third := rotate()
	sent := list()
	require.Len(t, sent, 2, "reauth has the old one, which is not")
	assert.Equal(t, third, sent[1].token)
	assert.NotEqual(t, second, sent[0].token)
	assert.Len(t, list(), 1)
	assert.NotContains(t, log.text(), "remove Authorization")
}
