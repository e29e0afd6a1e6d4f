package refresher_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// An exampleAPI is a server on loopback that accepts one key, and a place for the
// file that has it.
type exampleAPI struct {
	*httptest.Server
	key atomic.Value
	dir string
}

func newExampleAPI(key string) *exampleAPI {
	api := &exampleAPI{}
	api.key.Store(key)
	api.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+api.key.Load().(string) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	api.dir = dir
	return api
}

func (a *exampleAPI) Close() {
	a.Server.Close()
	_ = os.RemoveAll(a.dir)
}

// rotate has the API accept another key from now on.
func (a *exampleAPI) rotate(key string) { a.key.Store(key) }

// file writes a file and returns its path.
func (a *exampleAPI) file(name, content string) string {
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		panic(err)
	}
	return path
}

// get prints what a request comes to.
func (a *exampleAPI) get(client *http.Client) {
	resp, err := client.Get(a.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = resp.Body.Close()
	fmt.Println(resp.Status)
	if o, ok := reauth.OutcomeOf(resp); ok && o.Err != nil {
		fmt.Println(o.Err)
	}
}

func ExampleStatic() {
	api := newExampleAPI("key-1")
	defer api.Close()
	client := reauth.NewClient(refresher.Static("key-1"))

	api.get(client)
	api.rotate("key-2") // and nobody has told the program
	api.get(client)
	// Output:
	// 200 OK
	// 401 Unauthorized
	// reauth: refresh failed: a static token was rejected and cannot be refreshed: replace it and start again, or use refresher.DotEnv, File or Exec, which look again; this is permanent, and the Refresher is not called until Credential.Set or Clear
}

func ExampleEnv() {
	api := newExampleAPI("key-1")
	defer api.Close()
	os.Setenv("EXAMPLE_API_KEY", "key-1") // as a shell or a container does
	client := reauth.NewClient(refresher.Env("EXAMPLE_API_KEY"))

	api.get(client)
	// Output: 200 OK
}

func ExampleDotEnv() {
	api := newExampleAPI("key-1")
	defer api.Close()
	env := api.file(".env", "EXAMPLE_API_KEY=key-1\n")
	client := reauth.NewClient(refresher.DotEnv(env, "EXAMPLE_API_KEY"))

	api.get(client)
	api.rotate("key-2")
	api.file(".env", "EXAMPLE_API_KEY=key-2\n")
	api.get(client)
	// Output:
	// 200 OK
	// 200 OK
}

func ExampleFile() {
	api := newExampleAPI("key-1")
	defer api.Close()
	token := api.file("token", "key-1\n") // such as /var/run/secrets/tokens/api
	client := reauth.NewClient(refresher.File(token))

	api.get(client)
	api.rotate("key-2")
	api.file("token", "key-2\n") // by a kubelet, Vault Agent, a cron job …
	api.get(client)
	// Output:
	// 200 OK
	// 200 OK
}

func ExampleJSONFile() {
	api := newExampleAPI("key-1")
	defer api.Close()
	login := api.file("login.json", `{"auth":{"client_token":"key-1","lease_duration":3600}}`)
	client := reauth.NewClient(refresher.JSONFile(login, "/auth/client_token"))

	api.get(client)
	// Output: 200 OK
}

// Any program that prints a token will do, such as "gh auth token" or "gcloud auth
// print-access-token"; here it is echo.
func ExampleExec() {
	api := newExampleAPI("key-1")
	defer api.Close()
	client := reauth.NewClient(refresher.Exec("echo", "key-1"))

	api.get(client)
	// Output: 200 OK
}

func ExampleChain() {
	api := newExampleAPI("key-2")
	defer api.Close()
	env := api.file(".env", "EXAMPLE_CHAIN_KEY=key-2\n")
	client := reauth.NewClient(refresher.Chain(
		refresher.Env("EXAMPLE_CHAIN_KEY"), // not set
		refresher.Static("key-1"),          // rejected
		refresher.DotEnv(env, "EXAMPLE_CHAIN_KEY"),
	))

	api.get(client)
	// Output: 200 OK
}
