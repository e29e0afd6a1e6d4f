package e2e_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// minioServer simulates the parts of the S3 protocol that the tests use, as a
// server does that accepts bearer tokens: Google Cloud Storage's XML API, or a
// gateway before MinIO.
//
// A request that minio-go signs (SigV4) has an Authorization header of its own, and
// carries no token. Its keys are the business of minio-go's package credentials.
func minioServer() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /bucket/{key}", func(w http.ResponseWriter, r *http.Request) {
		id, _ := digest(r.Body)
		w.Header().Set("ETag", `"`+id+`"`)
	})
	mux.HandleFunc("GET /bucket/{key}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
		w.Header().Set("ETag", `"1"`)
		_, _ = w.Write(sdkUpload)
	})
	mux.HandleFunc("GET /bucket/{$}", func(w http.ResponseWriter, r *http.Request) {
		_, more := r.URL.Query()["continuation-token"]
		answer := minioList{Key: "object-1", IsTruncated: !more}
		if more {
			answer.Key = "object-2"
		} else {
			answer.NextContinuationToken = "more"
		}
		_ = xml.NewEncoder(w).Encode(answer)
	})
	return mux
}

type minioList struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Key                   string   `xml:"Contents>Key"`
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
}

// minioRejection is the response of Google Cloud Storage's XML API.
func minioRejection(status int, code string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>`+code+`</Code><Message>Rejected.</Message></Error>`)
	})
}

func minioClient(t *testing.T, rig *sdkRig, creds *credentials.Credentials) *minio.Client {
	t.Helper()
	scheme, host, _ := strings.Cut(rig.api.URL(), "://")
	client, err := minio.New(host, &minio.Options{
		Creds:        creds,
		Secure:       scheme == "https",
		Transport:    rig.transport,
		Region:       "us-east-1",            // or it asks for the region of each bucket
		BucketLookup: minio.BucketLookupPath, // one origin, not one for each bucket
		MaxRetries:   1,
	})
	require.NoError(t, err)
	return client
}

// minioAnonymous has minio-go sign nothing. Without Creds it signs uploads over plain
// http, with an empty key.
func minioAnonymous() *credentials.Credentials {
	return credentials.NewStatic("", "", "", credentials.SignatureAnonymous)
}

func minioPut(ctx context.Context, client *minio.Client, content []byte) (string, error) {
	got, err := client.PutObject(ctx, "bucket", "lines", bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
	return got.ETag, err
}

// minioSmall fits into the MaxReplayBytes of the rig, and sdkUpload does not.
var minioSmall = sdkUpload[:11_000]

func minioSmallID() string {
	id, _ := digest(bytes.NewReader(minioSmall))
	return id
}

func minioCalls(t *testing.T, rig *sdkRig) []sdkCall {
	client := minioClient(t, rig, minioAnonymous())
	return []sdkCall{
		{"upload", func(ctx context.Context) (string, error) { return minioPut(ctx, client, minioSmall) }, minioSmallID()},
		{"download", func(ctx context.Context) (string, error) {
			object, err := client.GetObject(ctx, "bucket", "lines", minio.GetObjectOptions{})
			if err != nil {
				return "", err
			}
			defer object.Close()
			all, err := io.ReadAll(object)
			if err != nil {
				return "", err
			}
			id, _ := digest(bytes.NewReader(all))
			return id, nil
		}, sdkUploadID()},
	}
}

// minioOutcome is how the caller of minio-go gets the request ids: the error has
// the status, and the context has both.
func minioOutcome(t *testing.T, err error, last func() reauth.Outcome) (int, reauth.Outcome) {
	t.Helper()
	failure := minio.ToErrorResponse(err)
	assert.Equal(t, last().RequestID(), failure.RequestID)
	return failure.StatusCode, last()
}

func speakS3(rig *sdkRig) {
	rig.wire.name = "X-Amz-Request-Id"
	rig.api.SetRejection(minioRejection(http.StatusUnauthorized, "AuthenticationRequired"))
}

func TestMinioCallsSurviveARejectedToken(t *testing.T) {
	t.Parallel()
	sdk{
		serve:   minioServer,
		idName:  "X-Amz-Request-Id",
		change:  speakS3,
		calls:   minioCalls,
		outcome: minioOutcome,
	}.holds(t)
}

func TestMinioListIsReadOncePerPage(t *testing.T) {
	t.Parallel()
	var rig *sdkRig
	rig = newSDKRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rig.issuer.Revoke() // before the next page
		minioServer().ServeHTTP(w, r)
	}), speakS3)
	var keys []string
	for object := range minioClient(t, rig, minioAnonymous()).ListObjects(t.Context(), "bucket", minio.ListObjectsOptions{}) {
		require.NoError(t, object.Err)
		keys = append(keys, object.Key)
	}
	assert.Equal(t, []string{"object-1", "object-2"}, keys)
	assert.Equal(t, 3, rig.api.Sends())
}

// minio-go sets no GetBody, so that a body is kept as it is sent, up to
// MaxReplayBytes. A larger one gets the 401, and succeeds when it is sent again.
func TestMinioUploadIsRepeatedUpToMaxReplayBytes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		keep      int64
		sends     int
		recovered bool
	}{
		{"larger", 64 << 10, 1, false},
		{"smaller", 1 << 20, 2, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rig := newSDKRig(t, minioServer(), speakS3, func(rig *sdkRig) { rig.transport.MaxReplayBytes = tt.keep })
			client := minioClient(t, rig, minioAnonymous())
			_, err := minioPut(t.Context(), client, minioSmall)
			require.NoError(t, err)
			rig.issuer.Revoke()

			ctx, last := reauth.WithOutcome(t.Context())
			got, err := minioPut(ctx, client, sdkUpload)
			assert.Equal(t, tt.sends, rig.api.Sends()-1)
			assert.Equal(t, tt.recovered, last().Recovered())
			if !tt.recovered {
				status, o := minioOutcome(t, err, last)
				assert.Equal(t, http.StatusUnauthorized, status)
				assert.Equal(t, reauth.NotRetriedBodyTooLarge, o.NotRetried)
				got, err = minioPut(t.Context(), client, sdkUpload)
			}
			require.NoError(t, err)
			assert.Equal(t, sdkUploadID(), got)
			assert.Equal(t, 2, rig.issuer.Refreshes())
			rig.carriesOnlyTokens(t)
		})
	}
}

// A signed request is sent unchanged, and what the server says of the signature has
// no token refreshed.
func TestMinioSignedRequestNeverCarriesTheToken(t *testing.T) {
	t.Parallel()
	rig := newSDKRig(t, minioServer(), speakS3)
	rig.api.SetRejection(minioRejection(http.StatusForbidden, "InvalidAccessKeyId"))
	client := minioClient(t, rig, credentials.NewStaticV4("key-of-its-own", "secret", ""))
	ctx, last := reauth.WithOutcome(t.Context())
	_, err := minioPut(ctx, client, minioSmall)
	assert.Equal(t, http.StatusForbidden, minio.ToErrorResponse(err).StatusCode)
	assert.Equal(t, reauth.WithheldOwnCredential, last().Withheld)
	assert.Equal(t, 1, rig.api.Sends())
	assert.LessOrEqual(t, rig.issuer.Refreshes(), 1)
	for _, req := range rig.api.Requests() {
		assert.Regexp(t, `^AWS4-HMAC-SHA256 Credential=key-of-its-own/`, req.Header.Get("Authorization"))
	}
}

// minio-go with MaxRetries 1 repeats nothing. Its default is 10.
func TestMinioRetriesAreNotMultiplied(t *testing.T) {
	t.Parallel()
	rig := newSDKRig(t, minioServer(), speakS3)
	client := minioClient(t, rig, minioAnonymous())
	rig.api.Next(reauthtest.Reject(), reauthtest.Unavailable(0))
	_, err := minioPut(t.Context(), client, minioSmall)
	assert.Equal(t, http.StatusServiceUnavailable, minio.ToErrorResponse(err).StatusCode)
	assert.Equal(t, 2, rig.api.Sends())
}
