// Command bench measures reauth side by side with its peers, in one run and over
// the same Base, and prints the tables of the documentation.
//
//	go run . [-rounds n] [-time d]
//
// With the argument sim, it simulates in fake time when a Credential refreshes.
// The exit status is 1 if a bound is exceeded.
//
//	go run . sim
package main

import (
	"flag"
	"fmt"
	"log"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 9, "how often each row is measured; the tables show medians")
	each := flag.Duration("time", 100*time.Millisecond, "how long each peer sends in a round")
	flag.Parse()
	switch {
	case flag.NArg() == 1 && flag.Arg(0) == "sim":
		simulateAndExit()
	case flag.NArg() > 0:
		log.Fatal("the only argument is sim")
	case *rounds < 1 || *each <= 0:
		log.Fatal("-rounds and -time must be positive")
	}
	var measured []costs
	for _, r := range rows {
		measured = append(measured, measure(r, *rounds, *each))
	}
	recovered := recoveryRow
	recovered.peers = nil
	for _, p := range recoveryPeers {
		if first, _ := recovers(p); first {
			recovered.peers = append(recovered.peers, p)
		}
	}
	fmt.Print(heading(*rounds), limitsTable(measured), loadTable(), freshTable(measured),
		recoveryTable(measure(recovered, *rounds, *each), *rounds), footnotes())
}
