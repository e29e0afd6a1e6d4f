// Command reauth explains authentication errors, checks and prints tokens, and gives other
// programs tokens that are replaced when a server rejects them.
//
//	go install github.com/reauth-go/reauth/cmd/reauth@latest
package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/reauth-go/reauth/cmd/reauth/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(cli.Run(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
