package file_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/store/file"
)

// The login of yesterday is there today, and two of a tool's processes may run at once.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "tool")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "login.json") // a tool uses Path("tool", "login")

	logins := 0
	issuer := reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
		logins++
		return reauth.Token{AccessToken: "token"}, nil
	})
	for _, day := range []string{"yesterday", "today"} {
		cred := &reauth.Credential{Refresher: issuer, Store: file.Open(path)}
		tok, err := cred.Token(context.Background())
		fmt.Println(day, tok.AccessToken, logins, err)
	}
	// Output:
	// yesterday token 1 <nil>
	// today token 1 <nil>
}
