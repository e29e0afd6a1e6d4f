// Soak has 200 callers send requests through reauth for two minutes, while tokens
// are revoked and the issuer is out of order a third of the time, and sees to it
// that none of them notices:
//
//	go run ./soak -for 2m
//
// It ends with status 1 if anything was lost, cut, applied twice or refused.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	length := flag.Duration("for", 2*time.Minute, "how long to send requests")
	callers := flag.Int("callers", 200, "how many send them at the same time")
	flag.Parse()
	report, err := soak(context.Background(), *length, *callers)
	fmt.Println(report)
	if err != nil {
		fmt.Println("FAILED:", err)
		os.Exit(1)
	}
}
