// Client is the program of the README.
package main

import (
	"fmt"
	"log"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

func main() {
	key := refresher.DotEnv(".env", "OPENAI_API_KEY")
	client := reauth.NewClient(key, "https://api.example.com")

	resp, err := client.Get("https://api.example.com/v1/models")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
}
