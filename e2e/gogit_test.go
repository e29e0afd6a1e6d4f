package e2e_test

import (
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-git/go-billy/v5/memfs"
	"github.com/go-git/go-billy/v5/util"
	"github.com/go-git/go-git/v5"
	gitconfig "github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/client"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/storage/memory"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// gitBackend is git's own server, by its program git http-backend, with one empty
// repository, anvil.git.
func gitBackend(t *testing.T) http.Handler {
	t.Helper()
	path := needs(t, "git", "git")
	root := t.TempDir()
	env := []string{
		"HOME=" + root, "GIT_CONFIG_NOSYSTEM=1", "GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.receivepack", "GIT_CONFIG_VALUE_0=true",
	}
	create := exec.Command(path, "init", "-q", "--bare", filepath.Join(root, "anvil.git"))
	create.Env = env
	out, err := create.CombinedOutput()
	require.NoErrorf(t, err, "%s", out)
	return &cgi.Handler{Path: path, Args: []string{"http-backend"}, Env: env}
}

// A gitServer calls served after each request.
type gitServer struct {
	backend http.Handler

	mu     sync.Mutex
	served func(path string)
}

func (s *gitServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.backend.ServeHTTP(w, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served != nil {
		s.served(r.URL.Path)
	}
}

func (s *gitServer) after(f func(path string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served = f
}

// useForGit gives the client to go-git, which has one for the whole process. A test
// that calls it must not be parallel.
func useForGit(t *testing.T, c *http.Client) {
	client.InstallProtocol("http", githttp.NewClient(c))
	t.Cleanup(func() { client.InstallProtocol("http", githttp.DefaultClient) })
}

// gitCommit commits a file, and returns the hash.
func gitCommit(t *testing.T, repo *git.Repository, name string, content []byte) string {
	t.Helper()
	tree, err := repo.Worktree()
	require.NoError(t, err)
	require.NoError(t, util.WriteFile(tree.Filesystem, name, content, 0o644))
	_, err = tree.Add(name)
	require.NoError(t, err)
	author := &object.Signature{Name: "Ann", Email: "ann@example.com", When: time.Unix(1_700_000_000, 0)}
	hash, err := tree.Commit("add "+name, &git.CommitOptions{Author: author})
	require.NoError(t, err)
	return hash.String()
}

// gitClone clones into memory, and returns the repository and its head.
func gitClone(ctx context.Context, url string) (*git.Repository, string, error) {
	repo, err := git.CloneContext(ctx, memory.NewStorage(), memfs.New(), &git.CloneOptions{URL: url})
	if err != nil {
		return nil, "", err
	}
	head, err := repo.Head()
	if err != nil {
		return nil, "", err
	}
	return repo, head.Hash().String(), nil
}

// gitSeed returns a repository whose one commit is at the server.
func gitSeed(t *testing.T, url string) (*git.Repository, string) {
	t.Helper()
	repo, err := git.Init(memory.NewStorage(), memfs.New())
	require.NoError(t, err)
	_, err = repo.CreateRemote(&gitconfig.RemoteConfig{Name: "origin", URLs: []string{url}})
	require.NoError(t, err)
	head := gitCommit(t, repo, "lines", sdkUpload)
	require.NoError(t, repo.PushContext(t.Context(), &git.PushOptions{}))
	return repo, head
}

// A clone and a push are two requests each: one for the references, one with or
// for the pack. The token is revoked before the first and before the second.
func TestGoGitCloneAndPushSurviveARevocation(t *testing.T) {
	server := &gitServer{backend: gitBackend(t)}
	rig := newSDKRig(t, server)
	useForGit(t, rig.client)
	url := rig.api.URL() + "/anvil.git"
	_, head := gitSeed(t, url)
	require.Equal(t, 2, rig.api.Sends(), "with a good token")

	revoke := func(string) { rig.issuer.Revoke() }
	rig.issuer.Revoke()
	server.after(revoke)
	before := rig.api.Sends()
	repo, got, err := gitClone(t.Context(), url)
	require.NoError(t, err)
	assert.Equal(t, head, got)
	assert.Equal(t, 4, rig.api.Sends()-before)

	head = gitCommit(t, repo, "more", []byte(strings.Repeat("and so on\n", 10_000)))
	before = rig.api.Sends()
	require.NoError(t, repo.PushContext(t.Context(), &git.PushOptions{}))
	assert.Equal(t, 4, rig.api.Sends()-before)

	server.after(nil)
	_, got, err = gitClone(t.Context(), url)
	require.NoError(t, err)
	assert.Equal(t, head, got, "what was pushed is there")
	assert.Empty(t, rig.log.records(t, slog.LevelWarn))
	rig.carriesOnlyTokens(t)
}

func TestGoGitPushRejectedForGoodChangesNothing(t *testing.T) {
	server := &gitServer{backend: gitBackend(t)}
	rig := newSDKRig(t, server)
	useForGit(t, rig.client)
	url := rig.api.URL() + "/anvil.git"
	repo, head := gitSeed(t, url)
	server.after(func(string) { // before the pack
		rig.issuer.Revoke()
		rig.issuer.Refuse(true)
	})
	gitCommit(t, repo, "more", []byte("and so on\n"))
	before := rig.api.Sends()
	ctx, last := reauth.WithOutcome(t.Context())
	err := repo.PushContext(ctx, &git.PushOptions{})
	require.ErrorIs(t, err, transport.ErrAuthenticationRequired)
	assert.Equal(t, 3, rig.api.Sends()-before)
	assert.Equal(t, rig.wire.last(2), []string{last().First.RequestID, last().Retry.RequestID})

	server.after(nil)
	rig.issuer.Refuse(false)
	require.NoError(t, rig.cred.Set(t.Context(), mustRefresh(t, rig.issuer)))
	_, got, err := gitClone(t.Context(), url)
	require.NoError(t, err)
	assert.Equal(t, head, got)
	require.NoError(t, repo.PushContext(t.Context(), &git.PushOptions{}), "the same push, with a good token")
}

// GitHub and GitLab accept a token for git as the password of Basic. The Refresher
// makes the value of it, and Scheme is Basic. Their check is simulated.
func TestGoGitTokenAsAPasswordOfBasic(t *testing.T) {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	backend := gitBackend(t)
	var mu sync.Mutex
	statuses := map[int]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		status := http.StatusOK
		if user != "x-access-token" || !issuer.Valid(password) {
			status = http.StatusUnauthorized
		}
		mu.Lock()
		statuses[status]++
		mu.Unlock()
		if status != http.StatusOK {
			w.Header().Set("WWW-Authenticate", `Basic realm="GitHub"`)
			w.WriteHeader(status)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	defer server.Close()

	basic := reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		tok, err := issuer.Refresh(ctx, reauth.Stale{})
		tok.AccessToken = base64.StdEncoding.EncodeToString([]byte("x-access-token:" + tok.AccessToken))
		return tok, err
	})
	useForGit(t, &http.Client{Transport: &reauth.Transport{
		Credential: &reauth.Credential{Refresher: basic, Logger: discard},
		Scheme:     "Basic",
		RetryWait:  time.Millisecond,
		Logger:     discard,
	}})
	repo, _ := gitSeed(t, server.URL+"/anvil.git")
	assert.Equal(t, map[int]int{http.StatusOK: 2}, statuses)

	issuer.Revoke()
	head := gitCommit(t, repo, "more", []byte("and so on\n"))
	require.NoError(t, repo.PushContext(t.Context(), &git.PushOptions{}))
	assert.Equal(t, map[int]int{http.StatusOK: 4, http.StatusUnauthorized: 1}, statuses)
	_, got, err := gitClone(t.Context(), server.URL+"/anvil.git")
	require.NoError(t, err)
	assert.Equal(t, head, got)
	assert.Equal(t, 2, issuer.Refreshes())
}
