package store_test

import (
	"crypto/aes"
	"crypto/cipher"
	"database/sql"
	"log"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/store"
)

// A record in PostgreSQL that the database's readers cannot read. The program imports a
// driver, such as github.com/jackc/pgx/v5/stdlib.
func ExampleSealed() {
	db, err := sql.Open("pgx", "postgres://app@db.example.com/app")
	if err != nil {
		log.Fatal(err)
	}
	block, err := aes.NewCipher(make([]byte, 32)) // 32 secret bytes
	if err != nil {
		log.Fatal(err)
	}
	key, err := cipher.NewGCM(block)
	if err != nil {
		log.Fatal(err)
	}
	const login = "ann@example.com"
	cred := &reauth.Credential{
		Store: store.Sealed(store.SQL(db, store.PostgreSQL, "reauth", login), login, key),
	}
	_ = cred
}
