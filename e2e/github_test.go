package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-github/v93/github"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

const githubPages = 3

// A githubServer simulates what of GitHub's API the tests use. Downloads are
// redirected to storage, which is another host.
type githubServer struct {
	storage string
	paged   func(page int) // called before a page is sent
}

func (s *githubServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orgs/{org}/repos", func(w http.ResponseWriter, r *http.Request) {
		page := max(1, number(r.URL.Query().Get("page")))
		if s.paged != nil {
			s.paged(page)
		}
		if page < githubPages {
			next := *r.URL
			q := next.Query()
			q.Set("page", strconv.Itoa(page+1))
			next.RawQuery = q.Encode()
			w.Header().Set("Link", fmt.Sprintf(`<http://%s%s>; rel="next"`, r.Host, next.String()))
		}
		respond(w, http.StatusOK, []any{map[string]any{"name": fmt.Sprintf("repo-%d", page)}})
	})
	mux.HandleFunc("POST /repos/{owner}/{repo}/issues", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Title string `json:"title"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			respond(w, http.StatusBadRequest, map[string]any{"message": "Problems parsing JSON"})
			return
		}
		respond(w, http.StatusCreated, map[string]any{"number": 1, "title": body.Title})
	})
	mux.HandleFunc("POST /repos/{owner}/{repo}/releases/{id}/assets", func(w http.ResponseWriter, r *http.Request) {
		id, n := digest(r.Body)
		respond(w, http.StatusCreated, map[string]any{"id": 1, "name": r.URL.Query().Get("name"), "size": n, "label": id})
	})
	mux.HandleFunc("GET /repos/{owner}/{repo}/releases/assets/{id}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(sdkUpload)
	})
	mux.HandleFunc("GET /repos/{owner}/{repo}/{archive}/{ref}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, s.storage+"/archive", http.StatusFound)
	})
	mux.ServeHTTP(w, r)
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func githubClient(t *testing.T, rig *sdkRig) *github.Client {
	t.Helper()
	base := rig.api.URL() + "/"
	client, err := github.NewClient(github.WithHTTPClient(rig.client), github.WithURLs(&base, &base))
	require.NoError(t, err)
	return client
}

// githubRepos reads all pages.
func githubRepos(ctx context.Context, client *github.Client) (string, error) {
	var names []string
	opts := &github.RepositoryListByOrgOptions{}
	for {
		repos, resp, err := client.Repositories.ListByOrg(ctx, "acme", opts)
		if err != nil {
			return strings.Join(names, " "), err
		}
		for _, r := range repos {
			names = append(names, r.GetName())
		}
		if resp.NextPage == 0 {
			return strings.Join(names, " "), nil
		}
		opts.Page = resp.NextPage
	}
}

func githubIssue(ctx context.Context, client *github.Client) (string, error) {
	got, _, err := client.Issues.Create(ctx, "acme", "anvil", github.CreateIssueRequest{Title: "it does not fall"})
	return got.GetTitle(), err
}

func githubCalls(t *testing.T, rig *sdkRig) []sdkCall {
	client := githubClient(t, rig)
	name := filepath.Join(t.TempDir(), "lines.jsonl")
	require.NoError(t, os.WriteFile(name, sdkUpload, 0o600))
	return []sdkCall{
		{"issue", func(ctx context.Context) (string, error) { return githubIssue(ctx, client) }, "it does not fall"},
		{"asset up, from a file", func(ctx context.Context) (string, error) {
			f, err := os.Open(name)
			if err != nil {
				return "", err
			}
			defer f.Close()
			got, _, err := client.Repositories.UploadReleaseAsset(ctx, "acme", "anvil", 1, &github.UploadOptions{Name: "lines"}, f)
			return got.GetLabel(), err
		}, sdkUploadID()},
		{"asset down, as a stream", func(ctx context.Context) (string, error) {
			body, _, err := client.Repositories.DownloadReleaseAsset(ctx, "acme", "anvil", 1, nil)
			if err != nil {
				return "", err
			}
			defer body.Close()
			id, _ := digest(body)
			return id, nil
		}, sdkUploadID()},
	}
}

// githubOutcome is how the caller of go-github has the request ids: its error, and
// the Response beside it, show the response.
func githubOutcome(t *testing.T, err error, _ func() reauth.Outcome) (int, reauth.Outcome) {
	t.Helper()
	var failure *github.ErrorResponse
	require.ErrorAs(t, err, &failure)
	o, ok := reauth.OutcomeOf(failure.Response)
	require.True(t, ok)
	assert.Equal(t, failure.Response.Header.Get("X-GitHub-Request-Id"), o.RequestID())
	for _, values := range failure.Response.Request.Header {
		assert.NotContains(t, strings.Join(values, ","), "access-")
	}
	return failure.Response.StatusCode, o
}

func githubName(rig *sdkRig) { rig.wire.name = "X-GitHub-Request-Id" }

func TestNoGitHubCallIsLostToADeadToken(t *testing.T) {
	t.Parallel()
	sdk{
		serve:   func() http.Handler { return &githubServer{} },
		idName:  "X-GitHub-Request-Id",
		calls:   githubCalls,
		outcome: githubOutcome,
	}.holds(t)
}

// A token dies before each page, and no page is lost or read twice.
func TestNoGitHubPageIsLostOrReadTwice(t *testing.T) {
	t.Parallel()
	server := &githubServer{}
	rig := newSDKRig(t, server, githubName)
	client := githubClient(t, rig)
	server.paged = func(page int) {
		if page%2 == 1 {
			rig.issuer.Revoke()
		} else {
			rig.issuer.Expire()
		}
	}
	got, err := githubRepos(t.Context(), client)
	require.NoError(t, err)
	assert.Equal(t, "repo-1 repo-2 repo-3", got)
	assert.Equal(t, 2*githubPages-1, rig.api.Sends())
	assert.Equal(t, githubPages, rig.issuer.Refreshes())

	// By the iterator, with two more: the one that the first run left, and its own.
	var names []string
	for repo, err := range client.Repositories.ListByOrgIter(t.Context(), "acme", nil) {
		require.NoError(t, err)
		names = append(names, repo.GetName())
	}
	assert.Equal(t, "repo-1 repo-2 repo-3", strings.Join(names, " "))
	assert.Equal(t, 2*(2*githubPages)-1, rig.api.Sends())
	rig.carriesOnlyTokens(t)
}

// githubStorage is another host, which has no use for our token. It refuses who
// brings one, as Amazon S3 and Azure do.
func githubStorage(t *testing.T, status int) (url string, authorization func() []string) {
	t.Helper()
	seen := make(chan string, 10)
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("Authorization")
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		}
		w.WriteHeader(status)
		_, _ = w.Write(sdkUpload)
	}))
	t.Cleanup(storage.Close)
	return storage.URL, func() []string {
		var all []string
		for len(seen) > 0 {
			all = append(all, <-seen)
		}
		return all
	}
}

func TestGitHubTokenNeverFollowsADownloadToAnotherHost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		unlisted bool // Origins is nil
	}{{"Origins listed", false}, {"no Origins", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			storage, authorization := githubStorage(t, http.StatusOK)
			rig := newSDKRig(t, &githubServer{storage: storage}, githubName, func(rig *sdkRig) {
				if tt.unlisted {
					rig.transport.Origins = nil
				}
			})
			client := githubClient(t, rig)
			_, err := githubIssue(t.Context(), client)
			require.NoError(t, err)
			rig.issuer.Revoke()

			// http.Client follows the redirect.
			req, err := client.NewRequest(t.Context(), http.MethodGet, "repos/acme/anvil/tarball/main", nil)
			require.NoError(t, err)
			resp, err := client.BareDo(req)
			require.NoError(t, err)
			id, _ := digest(resp.Body)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, sdkUploadID(), id)
			assert.Equal(t, []string{""}, authorization())
			assert.Equal(t, 3, rig.api.Sends(), "the issue, and the archive that was refused once")
			assert.Equal(t, 2, rig.issuer.Refreshes())

			// go-github returns where the archive is, and the caller follows.
			rig.issuer.Revoke()
			link, resp, err := client.Repositories.GetArchiveLink(t.Context(), "acme", "anvil", github.Tarball, &github.RepositoryContentGetOptions{Ref: "main"}, 1)
			require.NoError(t, err)
			assert.Equal(t, storage+"/archive", link.String())
			o, ok := reauth.OutcomeOf(resp.Response)
			require.True(t, ok)
			assert.True(t, o.Recovered())
			if tt.unlisted {
				// To the Transport this is a request like any other: only Origins can
				// tell it that storage is no place for the token.
				return
			}
			archive, err := client.Client().Get(link.String())
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, archive.Body)
			require.NoError(t, err)
			require.NoError(t, archive.Body.Close())
			assert.Equal(t, []string{""}, authorization())
			rig.carriesOnlyTokens(t)
		})
	}
}

// What another host says of a token that it did not get means nothing.
func TestNoOtherHostHasTheGitHubTokenRefreshed(t *testing.T) {
	t.Parallel()
	storage, authorization := githubStorage(t, http.StatusUnauthorized)
	rig := newSDKRig(t, &githubServer{storage: storage}, githubName)
	client := githubClient(t, rig)
	req, err := client.NewRequest(t.Context(), http.MethodGet, "repos/acme/anvil/tarball/main", nil)
	require.NoError(t, err)
	_, err = client.Do(req, nil)
	status, o := githubOutcome(t, err, nil)
	assert.Equal(t, http.StatusUnauthorized, status)
	assert.NotEmpty(t, o.Withheld)
	assert.Equal(t, []string{""}, authorization())
	assert.Equal(t, 1, rig.api.Sends())
	assert.Equal(t, 1, rig.issuer.Refreshes())
}

// A rate limit is no dead token, and go-github's memory of it holds.
func TestNoGitHubRateLimitIsTakenForADeadToken(t *testing.T) {
	t.Parallel()
	reset := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	for _, tt := range []struct {
		name  string
		fault reauthtest.Fault
	}{
		{"403", reauthtest.Status(http.StatusForbidden, "X-RateLimit-Limit", "60", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset)},
		{"429", reauthtest.Status(http.StatusTooManyRequests, "X-RateLimit-Limit", "60", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rig := newSDKRig(t, &githubServer{}, githubName)
			client := githubClient(t, rig)
			ctx, last := reauth.WithOutcome(t.Context())
			rig.api.Next(tt.fault)
			_, err := githubIssue(ctx, client)
			var limit *github.RateLimitError
			require.ErrorAs(t, err, &limit)
			assert.Equal(t, rig.wire.last(1), []string{reauth.RequestID(limit.Response)})
			assert.Equal(t, rig.wire.last(1), []string{last().RequestID()})
			_, ok := reauth.OutcomeOf(limit.Response)
			assert.False(t, ok, "it was not rejected")

			_, err = githubIssue(ctx, client)
			require.ErrorAs(t, err, &limit, "go-github does not ask again before the reset")
			assert.Empty(t, reauth.RequestID(limit.Response), "it was made up by go-github")
			assert.Equal(t, 1, rig.api.Sends())
			assert.Equal(t, 1, rig.issuer.Refreshes())
			assert.Empty(t, rig.log.records(t, slog.LevelWarn))
		})
	}
}

// A 401 that was cured does not count against go-github's rate limit, and the
// limit that it reads is that of the retry.
func TestGitHubRateIsNotReadFromTheRejection(t *testing.T) {
	t.Parallel()
	rig := newSDKRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-RateLimit-Limit", "5000")
		w.Header().Set("X-RateLimit-Remaining", "4999")
		w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10))
		(&githubServer{}).ServeHTTP(w, r)
	}), githubName)
	client := githubClient(t, rig)
	rig.api.Next(reauthtest.Status(http.StatusUnauthorized, "X-RateLimit-Limit", "60", "X-RateLimit-Remaining", "0",
		"X-RateLimit-Reset", strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)))
	for range 2 {
		_, resp, err := client.Issues.Create(t.Context(), "acme", "anvil", github.CreateIssueRequest{Title: "it does not fall"})
		require.NoError(t, err)
		assert.Equal(t, 4999, resp.Rate.Remaining)
	}
	assert.Equal(t, 3, rig.api.Sends())
}

// A reader that cannot be read twice is kept as it passes, up to
// MaxReplayBytes; past that the caller has the 401, and the next upload works.
func TestNoGitHubAssetFromAPipeIsCutOrSwapped(t *testing.T) {
	t.Parallel()
	release := &github.RepositoryRelease{}
	upload := func(ctx context.Context, client *github.Client, content string) (string, error) {
		got, _, err := client.Repositories.UploadReleaseAssetFromRelease(ctx, release, &github.UploadOptions{Name: "lines"},
			io.MultiReader(strings.NewReader(content)), int64(len(content)))
		return got.GetLabel(), err
	}
	small, large := strings.Repeat("so it goes\n", 1000), string(sdkUpload)
	smallID, _ := digest(strings.NewReader(small))

	rig := newSDKRig(t, &githubServer{}, githubName)
	release.UploadURL = rig.api.URL() + "/repos/acme/anvil/releases/1/assets{?name,label}"
	client := githubClient(t, rig)
	_, err := githubIssue(t.Context(), client)
	require.NoError(t, err)

	rig.issuer.Revoke()
	got, err := upload(t.Context(), client, small)
	require.NoError(t, err)
	assert.Equal(t, smallID, got)
	assert.Equal(t, 3, rig.api.Sends())

	rig.issuer.Revoke()
	_, err = upload(t.Context(), client, large)
	status, o := githubOutcome(t, err, nil)
	assert.Equal(t, http.StatusUnauthorized, status)
	assert.Equal(t, reauth.NotRetriedBodyTooLarge, o.NotRetried)
	assert.Equal(t, 4, rig.api.Sends())

	got, err = upload(t.Context(), client, large)
	require.NoError(t, err)
	assert.Equal(t, sdkUploadID(), got)
	assert.Equal(t, 5, rig.api.Sends(), "it had the fresh token")
}
