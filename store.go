package reauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Store keeps one record for all Credentials that share a login, in one process, in
// several processes or on many machines. A Store must be safe for concurrent use by
// multiple goroutines. Package store and the packages below it provide implementations.
// Package storetest tests implementations.
//
// # The record
//
// A record is the JSON of a golang.org/x/oauth2.Token with one more member, "reauth":
//
//	v             the format, 1; a refresh fails if it is higher
//	nonce         a random value, different for each write
//	login         the login that the tokens belong to
//	seq           how many tokens this login has had
//	lifetime_ms   how long the access token was valid when it was obtained
//	claims        the claims that the access token was fetched with
//	by, sent      the lease: its holder, and since when the refresh token may be used up
//	failures      how many refreshes in a row have failed
//	retry_in_ms   how long to back off after the last failure, from when the record is first seen
//	ended         whether there was a logout
//
// An operator may write {"refresh_token":"…"} to begin a new login. The record contains
// secrets in clear text; see store.Sealed.
type Store interface {
	// Load returns the record, or "" if there is none. The record must not be older
	// than any CompareAndSwap that has returned, in this process or another.
	Load(ctx context.Context) (record string, err error)

	// CompareAndSwap replaces the record with new if it is still old, and reports
	// whether it did. It must be atomic for all processes that share the Store. ""
	// stands for no record. The new record must be durable when CompareAndSwap returns.
	// If it returns an error, the record may or may not have been replaced.
	CompareAndSwap(ctx context.Context, old, new string) (swapped bool, err error)
}

// recordVersion is the version of the format.
const recordVersion = 1

// maxRecord bounds a record, in bytes.
const maxRecord = 1 << 20

// A record is what a Store keeps.
type record struct {
	AccessToken  string      `json:"access_token,omitempty"`
	TokenType    string      `json:"token_type,omitempty"`
	RefreshToken string      `json:"refresh_token,omitempty"`
	Expiry       time.Time   `json:"expiry,omitzero"`
	State        recordState `json:"reauth"`

	raw string // as it is in the Store; "" if there is none
}

type recordState struct {
	Version    int       `json:"v"`
	Nonce      string    `json:"nonce"`
	Login      string    `json:"login,omitempty"`
	Seq        int64     `json:"seq,omitempty"`
	LifetimeMS int64     `json:"lifetime_ms,omitempty"`
	Claims     []string  `json:"claims,omitempty"`
	By         string    `json:"by,omitempty"`
	Sent       time.Time `json:"sent,omitzero"`
	Failures   int       `json:"failures,omitempty"`
	RetryInMS  int64     `json:"retry_in_ms,omitempty"`
	Ended      bool      `json:"ended,omitempty"`
}

// parseRecord parses raw. The error contains no secret.
func parseRecord(raw string) (record, error) {
	r := record{raw: raw}
	switch {
	case raw == "":
		return r, nil
	case len(raw) > maxRecord:
		return r, fmt.Errorf("it has %d bytes, and at most %d are read", len(raw), maxRecord)
	}
	if err := json.Unmarshal([]byte(raw), &r); err != nil {
		return r, errors.New("it is not the JSON of a token: restore it, or log in again, which replaces it")
	}
	if r.State.Version > recordVersion {
		return r, fmt.Errorf("it has the format %d, and this program knows %d: update the program", r.State.Version, recordVersion)
	}
	if r.AccessToken != "" {
		if err := r.token().Validate(); err != nil {
			return r, err
		}
	}
	if r.State.Login == "" && !r.State.Ended { // written by an operator
		if r.AccessToken == "" && r.RefreshToken == "" {
			return r, errors.New("it has no token: restore it, or log in again, which replaces it")
		}
		sum := sha256.Sum256([]byte(raw))
		r.State.Login = "pasted-" + hex.EncodeToString(sum[:8])
	}
	return r, nil
}

// newRecord returns the record of a token of a login.
func newRecord(tok Token, login string, seq int64, lifetime time.Duration) record {
	r := record{AccessToken: tok.AccessToken, TokenType: tok.TokenType, RefreshToken: tok.RefreshToken, Expiry: tok.Expiry.Round(0)}
	r.State = recordState{Login: login, Seq: seq, LifetimeMS: max(lifetime, 0).Milliseconds()}
	return r
}

// written returns r with a new nonce, encoded for the Store.
func (r record) written() record {
	r.State.Version, r.State.Nonce = recordVersion, rand.Text()
	b, _ := json.Marshal(r) // it cannot fail: r has only strings, numbers and times
	r.raw = string(b)
	return r
}

// token returns the token of the record.
func (r *record) token() Token {
	return Token{AccessToken: r.AccessToken, TokenType: r.TokenType, RefreshToken: r.RefreshToken, Expiry: r.Expiry}
}

// lifetime returns how long the access token was valid when it was obtained; 0 if not
// known.
func (r *record) lifetime() time.Duration {
	return time.Duration(r.State.LifetimeMS) * time.Millisecond
}

// inDoubt reports whether the refresh token may be used up, and no process holds the
// lease.
func (r *record) inDoubt() bool { return r.State.By == "" && !r.State.Sent.IsZero() }

// hasClaims reports whether the token was fetched with all of the claims.
func (r *record) hasClaims(claims []string) bool {
	return !slices.ContainsFunc(claims, func(c string) bool { return !slices.Contains(r.State.Claims, c) })
}

// A recordKey identifies what a refresh would start from. It contains no secret, as fmt
// may print it.
type recordKey struct {
	login        string
	seq          int64
	refreshToken [sha256.Size]byte
}

func (r *record) key() recordKey {
	return recordKey{r.State.Login, r.State.Seq, sha256.Sum256([]byte(r.RefreshToken))}
}
