package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/drive/v3"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"

	"github.com/reauth-go/reauth"
)

// A driveServer simulates the parts of Google Drive's API that the tests use.
type driveServer struct {
	received func(n int) // called after each part of a resumable upload; may be nil

	mu      sync.Mutex
	uploads []*bytes.Buffer // resumable, by their number
}

func (s *driveServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /files", func(w http.ResponseWriter, r *http.Request) {
		page := max(1, number(r.URL.Query().Get("pageToken")))
		answer := map[string]any{"files": []any{map[string]any{"name": fmt.Sprintf("file-%d", page)}}}
		if page < 3 {
			answer["nextPageToken"] = fmt.Sprint(page + 1)
		}
		respond(w, http.StatusOK, answer)
	})
	mux.HandleFunc("POST /files", func(w http.ResponseWriter, r *http.Request) {
		var file struct{ Name string }
		if err := json.NewDecoder(r.Body).Decode(&file); err != nil {
			respond(w, http.StatusBadRequest, nil)
			return
		}
		respond(w, http.StatusOK, map[string]any{"name": file.Name})
	})
	mux.HandleFunc("GET /files/{id}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(sdkUpload) })
	mux.HandleFunc("POST /upload/drive/v3/files", s.upload)
	mux.HandleFunc("POST /upload/drive/v3/files/{number}", s.part)
	mux.ServeHTTP(w, r)
}

// upload takes an upload of one request, or begins a resumable one.
func (s *driveServer) upload(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("uploadType") == "resumable" {
		s.mu.Lock()
		defer s.mu.Unlock()
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		w.Header().Set("Location", fmt.Sprintf("%s://%s/upload/drive/v3/files/%d", scheme, r.Host, len(s.uploads)))
		s.uploads = append(s.uploads, &bytes.Buffer{})
		return
	}
	_, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	parts := multipart.NewReader(r.Body, params["boundary"])
	var id string
	for part, err := parts.NextPart(); err == nil; part, err = parts.NextPart() {
		id, _ = digest(part) // that of the last part, which is the file
	}
	respond(w, http.StatusOK, map[string]any{"id": id})
}

func (s *driveServer) part(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	buf := s.uploads[number(r.PathValue("number"))]
	s.mu.Unlock()
	_, _ = io.Copy(buf, r.Body)
	if s.received != nil {
		s.received(buf.Len())
	}
	if strings.HasSuffix(r.Header.Get("Content-Range"), "/*") {
		w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", buf.Len()-1))
		w.Header().Set("X-Http-Status-Code-Override", "308") // the client asks for this in place of a 308
		return
	}
	id, _ := digest(buf)
	respond(w, http.StatusOK, map[string]any{"id": id})
}

// googleRejection is Google's response to a token that it does not accept.
var googleRejection = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="https://accounts.google.com/", error="invalid_token"`)
	respond(w, http.StatusUnauthorized, map[string]any{"error": map[string]any{
		"code": 401, "message": "Request had invalid authentication credentials.", "status": "UNAUTHENTICATED",
		"errors": []any{map[string]any{"message": "Invalid Credentials", "domain": "global", "reason": "authError", "location": "Authorization", "locationType": "header"}},
	}})
})

func driveService(t *testing.T, rig *sdkRig) *drive.Service {
	t.Helper()
	service, err := drive.NewService(t.Context(), option.WithHTTPClient(rig.client), option.WithEndpoint(rig.api.URL()))
	require.NoError(t, err)
	return service
}

func driveCalls(t *testing.T, rig *sdkRig) []sdkCall {
	service := driveService(t, rig)
	upload := func(ctx context.Context, options ...googleapi.MediaOption) (string, error) {
		got, err := service.Files.Create(&drive.File{Name: "lines"}).Media(bytes.NewReader(sdkUpload), options...).Context(ctx).Do()
		if err != nil {
			return "", err
		}
		return got.Id, nil
	}
	return []sdkCall{
		{"metadata", func(ctx context.Context) (string, error) {
			got, err := service.Files.Create(&drive.File{Name: "lines"}).Context(ctx).Do()
			if err != nil {
				return "", err
			}
			return got.Name, nil
		}, "lines"},
		{"upload in one request", func(ctx context.Context) (string, error) { return upload(ctx) }, sdkUploadID()},
		{"download", func(ctx context.Context) (string, error) {
			resp, err := service.Files.Get("1").Context(ctx).Download()
			if err != nil {
				return "", err
			}
			defer resp.Body.Close()
			id, _ := digest(resp.Body)
			return id, nil
		}, sdkUploadID()},
	}
}

// googleOutcome is how the caller of Google's clients gets the request ids: the
// error has no response, so the context has to be asked.
func googleOutcome(t *testing.T, err error, last func() reauth.Outcome) (int, reauth.Outcome) {
	t.Helper()
	var failure *googleapi.Error
	require.ErrorAs(t, err, &failure)
	return failure.Code, last()
}

func speakGoogle(rig *sdkRig) { rig.api.SetRejection(googleRejection) }

func TestGoogleDriveCallsSurviveARejectedToken(t *testing.T) {
	t.Parallel()
	sdk{
		serve:   func() http.Handler { return &driveServer{} },
		change:  speakGoogle,
		calls:   driveCalls,
		outcome: googleOutcome,
	}.holds(t)
}

func TestGoogleDrivePagesAreReadOnceEach(t *testing.T) {
	t.Parallel()
	var rig *sdkRig
	rig = newSDKRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rig.issuer.Revoke() // before the next page
		(&driveServer{}).ServeHTTP(w, r)
	}), speakGoogle)
	var names []string
	err := driveService(t, rig).Files.List().Pages(t.Context(), func(page *drive.FileList) error {
		for _, file := range page.Files {
			names = append(names, file.Name)
		}
		return nil
	})
	require.NoError(t, err)
	assert.Equal(t, []string{"file-1", "file-2", "file-3"}, names)
	assert.Equal(t, 5, rig.api.Sends())
	assert.Equal(t, 3, rig.issuer.Refreshes())
}

// A resumable upload is one request for each part. The token is revoked after each.
func TestGoogleDriveUploadGoesOnAfterARevocation(t *testing.T) {
	t.Parallel()
	server := &driveServer{}
	rig := newSDKRig(t, server, speakGoogle)
	server.received = func(int) { rig.issuer.Revoke() }
	const part = 256 << 10 // the smallest that Google accepts
	got, err := driveService(t, rig).Files.Create(&drive.File{Name: "lines"}).
		Media(bytes.NewReader(sdkUpload), googleapi.ChunkSize(part)).Context(t.Context()).Do()
	require.NoError(t, err)
	assert.Equal(t, sdkUploadID(), got.Id)
	assert.Equal(t, 4, rig.api.Sends(), "one to begin, one part, and one that was sent twice")
	assert.Equal(t, 1, rig.api.Rejections())
	assert.Equal(t, 2, rig.issuer.Refreshes())
}

// An upload that is rejected in the middle for good ends with the server's 401.
func TestGoogleDriveUploadEndsWithThe401(t *testing.T) {
	t.Parallel()
	server := &driveServer{}
	rig := newSDKRig(t, server, speakGoogle)
	server.received = func(int) {
		rig.issuer.Revoke()
		rig.issuer.Refuse(true)
	}
	ctx, last := reauth.WithOutcome(t.Context())
	_, err := driveService(t, rig).Files.Create(&drive.File{Name: "lines"}).
		Media(bytes.NewReader(sdkUpload), googleapi.ChunkSize(256<<10)).Context(ctx).Do()
	status, o := googleOutcome(t, err, last)
	assert.Equal(t, http.StatusUnauthorized, status)
	assert.Equal(t, rig.wire.last(2), []string{o.First.RequestID, o.Retry.RequestID})
	assert.Equal(t, 4, rig.api.Sends(), "Google's own loop does not repeat a 401")
}
