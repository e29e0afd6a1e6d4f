package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/go-git/go-git/v5"
	gitclient "github.com/go-git/go-git/v5/plumbing/transport/client"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/storage/memory"
	"github.com/gorilla/websocket"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	gitlab "gitlab.com/gitlab-org/api/client-go/v2"
	"google.golang.org/api/drive/v3"
	"google.golang.org/api/option"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

func Example_mcp() {
	ctx, cred := context.Background(), exampleCredential()

	client := mcp.NewClient(&mcp.Implementation{Name: "app", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint:   "https://mcp.example.com/mcp",
		HTTPClient: &http.Client{Transport: &reauth.Transport{Credential: cred}},
	}, nil)

	if err != nil {
		log.Fatal(err)
	}
	_ = session.Close()
}

func Example_gitLab() {
	cred := exampleCredential()

	client, err := gitlab.NewAuthSourceClient(
		gitlab.AccessTokenAuthSource{Token: reauth.Placeholder},
		gitlab.WithHTTPClient(&http.Client{Transport: &reauth.Transport{
			Credential: cred,
			Header:     gitlab.AccessTokenHeaderName, // leave it out for an OAuth token
			Origins:    []string{"https://gitlab.com"},
		}}),
	)

	if err != nil {
		log.Fatal(err)
	}
	_, _, _ = client.Projects.ListProjects(nil)
}

func Example_minio() {
	cred := exampleCredential()

	client, err := minio.New("storage.googleapis.com", &minio.Options{
		Creds:        credentials.NewStatic("", "", "", credentials.SignatureAnonymous), // or it signs
		Secure:       true,
		Region:       "us-east-1",            // or it asks for the region of each bucket
		BucketLookup: minio.BucketLookupPath, // one origin, not one for each bucket
		Transport: &reauth.Transport{
			Credential:     cred,
			Origins:        []string{"https://storage.googleapis.com"},
			MaxReplayBytes: 16 << 20, // its uploads have no GetBody
		},
	})

	if err != nil {
		log.Fatal(err)
	}
	_, _ = client.ListBuckets(context.Background())
}

func Example_google() {
	ctx, cred := context.Background(), exampleCredential()

	service, err := drive.NewService(ctx, option.WithHTTPClient(&http.Client{
		Transport: &reauth.Transport{Credential: cred},
	}))

	if err != nil {
		log.Fatal(err)
	}
	_, _ = service.Files.List().Do()
}

func Example_goGit() {
	cred := exampleCredential()

	gitclient.InstallProtocol("https", githttp.NewClient(&http.Client{Transport: &reauth.Transport{
		Credential: cred, // its Refresher makes the value of Basic
		Scheme:     "Basic",
		Origins:    []string{"https://github.com"},
	}}))
	repo, err := git.Clone(memory.NewStorage(), nil, &git.CloneOptions{URL: "https://github.com/acme/anvil"})

	if err != nil {
		log.Fatal(err)
	}
	_, _ = repo.Head()
}

// dial opens a WebSocket with a token of cred. If the server rejects the token, dial
// tries once more with another one.
func dial(ctx context.Context, cred *reauth.Credential, url string) (*websocket.Conn, error) {
	tok, err := cred.Token(ctx)
	if err != nil {
		return nil, err
	}
	for retried := false; ; retried = true {
		header := http.Header{"Authorization": {"Bearer " + tok.AccessToken}}
		conn, resp, err := websocket.DefaultDialer.DialContext(ctx, url, header)
		if err == nil || resp == nil || resp.StatusCode != http.StatusUnauthorized || retried {
			return conn, err
		}
		body, _ := io.ReadAll(resp.Body) // of which gorilla keeps 1 KiB
		rejection := reauth.Inspect(resp, body)
		if !rejection.Reason.Refreshable() {
			return nil, err
		}
		next, failed := cred.Refresh(ctx, reauth.Stale{Token: tok, Rejection: rejection})
		if failed != nil {
			return nil, errors.Join(err, failed)
		}
		tok = next
	}
}

func Example_webSocket() {
	issuer := reauthtest.NewIssuer()
	defer issuer.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token := r.Header.Get("Authorization")[len("Bearer "):]; !issuer.Valid(token) {
			http.Error(w, "invalid token", http.StatusUnauthorized)
			return
		}
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err == nil {
			_ = conn.WriteMessage(websocket.TextMessage, []byte("hello"))
			_ = conn.Close()
		}
	}))
	defer server.Close()
	cred := &reauth.Credential{Refresher: issuer, Logger: discard}
	_, _ = cred.Token(context.Background())
	issuer.Revoke()

	conn, err := dial(context.Background(), cred, "ws"+server.URL[len("http"):])
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	_, message, _ := conn.ReadMessage()
	fmt.Println(string(message), issuer.Refreshes())
	// Output: hello 2
}
