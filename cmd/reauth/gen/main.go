// Command gen writes the reference of the command reauth, of the texts that it prints
// itself: the part of docs/command.md below its first heading "Reference", and manual pages.
//
//	go run ./gen            (in cmd/reauth)
//	go run ./gen -man DIR
package main

import (
	"flag"
	"log"
	"os"

	"github.com/reauth-go/reauth/cmd/reauth/internal/cli"
)

func main() {
	log.SetFlags(0)
	man := flag.String("man", "", "write manual pages to this directory, in place of the reference")
	flag.Parse()
	if *man != "" {
		if err := os.MkdirAll(*man, 0o755); err != nil {
			log.Fatal(err)
		}
		if err := cli.Man(*man); err != nil {
			log.Fatal(err)
		}
		return
	}
	const name = "../../docs/command.md"
	page, err := os.ReadFile(name)
	if err != nil {
		log.Fatal(err)
	}
	text, err := cli.WithReference(string(page))
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		log.Fatal(err)
	}
}
