package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	gitlab "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/reauth-go/reauth"
)

// gitlabServer simulates the parts of GitLab's API that the tests use.
func gitlabServer() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v4/projects", func(w http.ResponseWriter, r *http.Request) {
		page := max(1, number(r.URL.Query().Get("page")))
		if page < 3 {
			w.Header().Set("X-Next-Page", strconv.Itoa(page+1))
		}
		respond(w, http.StatusOK, []any{map[string]any{"id": page, "name": fmt.Sprintf("project-%d", page)}})
	})
	mux.HandleFunc("POST /api/v4/projects/{id}/issues", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Title string `json:"title"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			respond(w, http.StatusBadRequest, map[string]any{"message": "400 Bad request"})
			return
		}
		respond(w, http.StatusCreated, map[string]any{"id": 1, "title": body.Title})
	})
	mux.HandleFunc("PUT /api/v4/projects/{id}/packages/generic/{name}/{version}/{file}", func(w http.ResponseWriter, r *http.Request) {
		id, n := digest(r.Body)
		respond(w, http.StatusCreated, map[string]any{"id": 1, "file_name": id, "size": n})
	})
	return mux
}

// gitlabRejection is GitLab's response to a token that it does not know: it has no
// challenge.
var gitlabRejection = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	respond(w, http.StatusUnauthorized, map[string]any{"message": "401 Unauthorized"})
})

func gitlabClient(t *testing.T, rig *sdkRig, source gitlab.AuthSource) *gitlab.Client {
	t.Helper()
	client, err := gitlab.NewAuthSourceClient(source, gitlab.WithBaseURL(rig.api.URL()), gitlab.WithHTTPClient(rig.client))
	require.NoError(t, err)
	return client
}

func gitlabProjects(ctx context.Context, client *gitlab.Client) (string, error) {
	var names []string
	opts := &gitlab.ListProjectsOptions{}
	for {
		projects, resp, err := client.Projects.ListProjects(opts, gitlab.WithContext(ctx))
		if err != nil {
			return strings.Join(names, " "), err
		}
		for _, p := range projects {
			names = append(names, p.Name)
		}
		if resp.NextPage == 0 {
			return strings.Join(names, " "), nil
		}
		opts.Page = resp.NextPage
	}
}

func gitlabSDK(source gitlab.AuthSource, header string) sdk {
	return sdk{
		serve: gitlabServer,
		change: func(rig *sdkRig) {
			rig.api.SetRejection(gitlabRejection)
			if header != "" {
				rig.api.SetHeader(header)
				rig.transport.Header = header
			}
		},
		calls: func(t *testing.T, rig *sdkRig) []sdkCall {
			client := gitlabClient(t, rig, source)
			return []sdkCall{
				{"issue", func(ctx context.Context) (string, error) {
					got, _, err := client.Issues.CreateIssue("acme/anvil", &gitlab.CreateIssueOptions{Title: new("it does not fall")}, gitlab.WithContext(ctx))
					if err != nil {
						return "", err
					}
					return got.Title, nil
				}, "it does not fall"},
				{"package upload", func(ctx context.Context) (string, error) {
					got, _, err := client.GenericPackages.PublishPackageFile("acme/anvil", "anvil", "1.0.0", "lines", bytes.NewReader(sdkUpload), nil, gitlab.WithContext(ctx))
					if err != nil {
						return "", err
					}
					return got.FileName, nil
				}, sdkUploadID()},
			}
		},
		outcome: gitlabOutcome,
	}
}

// gitlabOutcome is how the caller of GitLab's client gets the request ids: its
// error has the response.
func gitlabOutcome(t *testing.T, err error, _ func() reauth.Outcome) (int, reauth.Outcome) {
	t.Helper()
	var failure *gitlab.ErrorResponse
	require.ErrorAs(t, err, &failure)
	o, ok := reauth.OutcomeOf(failure.Response)
	require.True(t, ok)
	return failure.Response.StatusCode, o
}

func TestGitLabCallsSurviveARejectedToken(t *testing.T) {
	t.Parallel()
	t.Run("personal access token in Private-Token", func(t *testing.T) {
		t.Parallel()
		gitlabSDK(gitlab.AccessTokenAuthSource{Token: reauth.Placeholder}, gitlab.AccessTokenHeaderName).holds(t)
	})
	t.Run("OAuth token in Authorization", func(t *testing.T) {
		t.Parallel()
		gitlabSDK(gitlab.Unauthenticated{}, "").holdsBriefly(t)
	})
	t.Run("job token in Job-Token", func(t *testing.T) {
		t.Parallel()
		gitlabSDK(gitlab.JobTokenAuthSource{Token: reauth.Placeholder}, gitlab.JobTokenHeaderName).holdsBriefly(t)
	})
}

func TestGitLabPagesAreReadOnceEach(t *testing.T) {
	t.Parallel()
	served := 0
	var rig *sdkRig
	rig = newSDKRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served++
		rig.issuer.Revoke() // before the next page
		gitlabServer().ServeHTTP(w, r)
	}))
	rig.api.SetRejection(gitlabRejection)
	got, err := gitlabProjects(t.Context(), gitlabClient(t, rig, gitlab.Unauthenticated{}))
	require.NoError(t, err)
	assert.Equal(t, "project-1 project-2 project-3", got)
	assert.Equal(t, 3, served)
	assert.Equal(t, 5, rig.api.Sends())
	assert.Equal(t, 3, rig.issuer.Refreshes())
}

// A client made for Private-Token has its Placeholder in that header. A Transport
// that puts the token into Authorization removes the Placeholder.
func TestGitLabPlaceholderNeverLeavesInTheWrongHeader(t *testing.T) {
	t.Parallel()
	rig := newSDKRig(t, gitlabServer())
	client := gitlabClient(t, rig, gitlab.AccessTokenAuthSource{Token: reauth.Placeholder})
	got, err := gitlabProjects(t.Context(), client)
	require.NoError(t, err)
	assert.Equal(t, "project-1 project-2 project-3", got)
	for _, req := range rig.api.Requests() {
		assert.Empty(t, req.Header.Values(gitlab.AccessTokenHeaderName))
	}
	rig.carriesOnlyTokens(t)
}
