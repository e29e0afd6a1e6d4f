package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
	"github.com/reauth-go/reauth/refresher"
)

// A cluster is a simulated API server: it lists, watches and creates config maps,
// as far as client-go needs that.
type cluster struct {
	mu      sync.Mutex
	version int
	names   []string
	changed chan struct{} // closed, and replaced, when there is another
	cut     chan struct{} // closed, and replaced, to end the watches
}

func newCluster(names ...string) *cluster {
	return &cluster{names: names, version: len(names), changed: make(chan struct{}), cut: make(chan struct{})}
}

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

func configMap(name string, version int) map[string]any {
	return map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{
		"name": name, "namespace": "default", "resourceVersion": strconv.Itoa(version),
	}}
}

func (c *cluster) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names = append(c.names, name)
	c.version++
	close(c.changed)
	c.changed = make(chan struct{})
}

// endWatches has the server end the watches, as it does after some minutes.
func (c *cluster) endWatches() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.cut)
	c.cut = make(chan struct{})
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Method == http.MethodPost:
		var object struct{ Metadata struct{ Name string } }
		_ = json.NewDecoder(r.Body).Decode(&object)
		c.add(object.Metadata.Name)
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(configMap(object.Metadata.Name, c.version))
	case r.URL.Query().Get("watch") != "":
		c.watch(w, r)
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		var items []any
		for i, name := range c.names {
			items = append(items, configMap(name, i+1))
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "v1", "kind": "ConfigMapList", "items": items,
			"metadata": map[string]any{"resourceVersion": strconv.Itoa(c.version)},
		})
	}
}

func (c *cluster) watch(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	seen, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	c.mu.Lock()
	cut := c.cut
	c.mu.Unlock()
	for {
		c.mu.Lock()
		names, changed := c.names, c.changed
		c.mu.Unlock()
		for ; seen < len(names); seen++ {
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "ADDED", "object": configMap(names[seen], seen+1)})
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-changed:
		case <-cut:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// kube returns a client of the API through tr, with whatever else change sets.
func kube(t *testing.T, api *reauthtest.API, tr *reauth.Transport, change func(*rest.Config)) dynamic.ResourceInterface {
	t.Helper()
	config := &rest.Config{
		Host: api.URL(),
		WrapTransport: func(base http.RoundTripper) http.RoundTripper {
			tr.Base = base
			return tr
		},
	}
	if change != nil {
		change(config)
	}
	client, err := dynamic.NewForConfig(config)
	require.NoError(t, err)
	return client.Resource(configMaps).Namespace("default")
}

func TestKubernetesRequestsDoNotNoticeThatTheTokenWasRefused(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(context.Context, dynamic.ResourceInterface) error{
		"list": func(ctx context.Context, maps dynamic.ResourceInterface) error {
			list, err := maps.List(ctx, metav1.ListOptions{})
			if err == nil && len(list.Items) != 2 {
				err = fmt.Errorf("%d items", len(list.Items))
			}
			return err
		},
		"create": func(ctx context.Context, maps dynamic.ResourceInterface) error {
			_, err := maps.Create(ctx, &unstructured.Unstructured{Object: configMap("made", 0)}, metav1.CreateOptions{})
			return err
		},
		"watch": func(ctx context.Context, maps dynamic.ResourceInterface) error {
			w, err := maps.Watch(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			defer w.Stop()
			if e := <-w.ResultChan(); e.Type != watch.Added {
				return fmt.Errorf("an event of type %s", e.Type)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer := reauthtest.NewIssuer()
			t.Cleanup(issuer.Close)
			api := reauthtest.NewAPI(issuer, newCluster("a", "b"))
			t.Cleanup(api.Close)
			cred := &reauth.Credential{Refresher: issuer, Logger: discard}
			maps := kube(t, api, &reauth.Transport{Credential: cred, Logger: discard}, nil)
			for _, step := range []struct {
				name  string
				spoil func()
				sends int
			}{
				{"good", func() {}, 1},
				{"revoked", issuer.Revoke, 2},
				{"expired", issuer.Expire, 2},
			} {
				step.spoil()
				before := api.Sends()
				assert.NoError(t, do(t.Context(), maps), step.name)
				assert.Equal(t, step.sends, api.Sends()-before, step.name)
			}
			issuer.Refuse(true)
			issuer.Revoke()
			before := api.Sends()
			ctx, outcome := reauth.WithOutcome(t.Context())
			err := do(ctx, maps)
			assert.True(t, apierrors.IsUnauthorized(err), "%v", err)
			assert.Equal(t, 2, api.Sends()-before, "refused for good")
			assert.NotEmpty(t, outcome().First.RequestID, "client-go's error does not have it")
			assert.NotEmpty(t, outcome().Retry.RequestID)
		})
	}
}

// A watch goes on while its token is replaced, and what comes after it is
// the first to know that the token was revoked.
func TestAKubernetesWatchIsNeitherBrokenByARefreshNorLostAtReconnect(t *testing.T) {
	t.Parallel()
	issuer := reauthtest.NewIssuer()
	t.Cleanup(issuer.Close)
	server := newCluster()
	api := reauthtest.NewAPI(issuer, server)
	t.Cleanup(api.Close)
	maps := kube(t, api, &reauth.Transport{Credential: &reauth.Credential{Refresher: issuer, Logger: discard}, Logger: discard}, nil)

	watcher, err := watchtools.NewRetryWatcherWithContext(t.Context(), "1", &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return maps.Watch(ctx, options)
		},
	})
	require.NoError(t, err)
	defer watcher.Stop()
	next := func() string {
		var name string
		within(t, 10*time.Second, func() {
			e := <-watcher.ResultChan()
			if object, ok := e.Object.(*unstructured.Unstructured); assert.True(t, ok, "%v", e) {
				name = object.GetName()
			}
		})
		return name
	}
	server.add("before") // version 1, which the watch begins after
	server.add("first")
	assert.Equal(t, "first", next())

	issuer.Revoke()
	_, err = maps.List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	assert.Equal(t, 2, issuer.Refreshes())
	server.add("during")
	assert.Equal(t, "during", next(), "on the watch that began with the old token")
	assert.Equal(t, 1, watches(api))

	issuer.Revoke()
	server.endWatches()
	require.Eventually(t, func() bool { return watches(api) == 3 }, 10*time.Second, time.Millisecond)
	server.add("after")
	assert.Equal(t, "after", next())
	assert.Equal(t, 3, watches(api), "one refused, one cured")
	assert.Equal(t, 3, issuer.Refreshes())
}

// watches returns how many watches arrived.
func watches(api *reauthtest.API) int {
	n := 0
	for _, r := range api.Requests() {
		if strings.Contains(r.Path, "watch=true") {
			n++
		}
	}
	return n
}

// client-go sets the header from the same file, before reauth sees the request, and keeps
// what it has read for a minute: Override replaces that.
func TestABearerTokenFileThatClientGoReadsTooIsRenewed(t *testing.T) {
	t.Parallel()
	issuer := reauthtest.NewIssuer()
	t.Cleanup(issuer.Close)
	api := reauthtest.NewAPI(issuer, newCluster("a", "b"))
	t.Cleanup(api.Close)
	path := filepath.Join(t.TempDir(), "token")
	rotate := func() {
		tok, err := issuer.Refresh(t.Context(), reauth.Stale{})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path+".new", []byte(tok.AccessToken+"\n"), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	rotate()
	var log journal
	cred := &reauth.Credential{Refresher: refresher.File(path), Logger: discard}
	maps := kube(t, api, &reauth.Transport{Credential: cred, Override: true, Logger: log.logger()}, func(c *rest.Config) { c.BearerTokenFile = path })

	list := func() int {
		before := api.Sends()
		_, err := maps.List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		return api.Sends() - before
	}
	assert.Equal(t, 1, list())
	issuer.Revoke()
	rotate()
	assert.Equal(t, 2, list(), "client-go still has the old one")
	assert.Equal(t, 1, list(), "and it is replaced at once from now on")
	assert.NotContains(t, log.text(), "Override")
}
