// Command lab has real processes share one login: with an issuer that replaces refresh
// tokens and ends a login if an old one comes back, and with processes that are killed or
// stopped in the middle of a refresh, answers that are lost or late, and tokens that are
// revoked. It prints what each Store made of that.
//
//	go run ./lab [-n processes] [-time d] [-grace d] [-reuse d] [-store name,…]
//
// The issuer, the API and the troubles are simulated, and their rates are printed; the
// processes, the signals, the Stores and their servers are real.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	if os.Getenv(roleVar) != "" {
		client()
		return
	}
	n := flag.Int("n", 20, "how many processes share the login")
	d := flag.Duration("time", time.Minute, "for how long, with each store")
	grace := flag.Duration("grace", 12*time.Second, "how long the issuer accepts a refresh token again")
	reuse := flag.Duration("reuse", 10*time.Second, "OAuth2.Reuse")
	names := flag.String("store", strings.Join(storeNames, ","), "which stores")
	flag.Parse()
	if *n < 1 || *d < time.Second || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	fmt.Printf("%d processes with %d callers each, that try again for up to %v; %v with each store; grace %v, Reuse %v.\n", *n, callers, callerWait, *d, *grace, *reuse)
	fmt.Printf("Access tokens live for %v, and are revoked every %v. Of the refreshes, one in %d each: kill -9 before the grant, kill -9 after it, SIGSTOP for %v, answer lost, answer after %v; one such trouble for each refresh token.\n\n",
		lifetime, revokeEvery, oneIn, stopped, late)
	fmt.Println("| store | logins lost | grants | token requests | requests | failed | a second | killed | stopped | answers lost |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	failed := false
	for _, name := range strings.Split(*names, ",") {
		if !slices.Contains(storeNames, name) {
			log.Fatalf("there is no store %q: one of %s", name, strings.Join(storeNames, ", "))
		}
		r, err := run(name, *n, *d, *grace, *reuse)
		if err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		fmt.Println(r.row(name, *d))
		failed = failed || slices.Contains(kept, name) && *grace > *reuse && (r.lost > 0 || float64(r.failed) > 0.003*float64(r.requests))
	}
	if failed {
		fmt.Println("\nA store lost a login, or more than 0.3 % of its requests failed.")
		os.Exit(1)
	}
}

// The stores, and those that are to lose nothing.
var (
	storeNames = []string{"none", "reread", "file", "sqlite", "postgresql", "redis", "etcd"}
	kept       = storeNames[2:]
)

// What happens, and how often.
const (
	callers     = 3
	callerWait  = 10 * time.Second
	callerPause = 20 * time.Millisecond
	lifetime    = 10 * time.Second
	revokeEvery = 7 * time.Second
	oneIn       = 12
	stopped     = 7 * time.Second
	late        = 3 * time.Second
)

// A result is what a run came to.
type result struct {
	lost, grants, asked                int
	requests, failed                   int
	killed, stopped, answersLost, late int
}

func (r result) row(name string, d time.Duration) string {
	share := 0.0
	if r.requests > 0 {
		share = 100 * float64(r.failed) / float64(r.requests)
	}
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d (%.2f %%) | %.0f | %d | %d | %d |", name, r.lost, r.grants, r.asked, r.requests, r.failed, share,
		float64(r.requests)/d.Seconds(), r.killed, r.stopped, r.answersLost)
}
