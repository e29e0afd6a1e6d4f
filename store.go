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

// A Store keeps one record for all Credentials that share a login: in one process, in
// several, on many machines. It must be safe for concurrent use. Packages store and
// those below it have some; store/storetest tests others.
//
// # The record
//
// A record is the JSON of a golang.org/x/oauth2.Token with one more member, "reauth":
//
//	v             the format, 1; a record of a higher one is an error, and left alone
//	nonce         no two writes have the same
//	login         which login the tokens stem from
//	seq           how many tokens this login had
//	lifetime_ms   how long the access token was valid when it came
//	claims        that it was fetched with
//	by, sent      the lease: who refreshes, and since when the refresh token may be used up
//	failures      of refreshes in a row
//	retry_in_ms   how long to wait after the last of them, from when the record was seen
//	ended         there was a logout
//
// An operator may write {"refresh_token":"…"}: that is a new login. The record has
// secrets in clear text; see store.Sealed.
type Store interface {
	// Load returns the record, "" if there is none; never one older than a
	// CompareAndSwap that has returned to anybody.
	Load(ctx context.Context) (record string, err error)

	// CompareAndSwap replaces the record by new if it is still old, as one step for
	// all who share the Store, and reports whether it did. "" stands for no record.
	// It is durable when it returns. After an error it may have happened, or not.
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

// parseRecord returns what raw says. The error names no secret.
func parseRecord(raw string) (record, error) {
	r := record{raw: raw}
	switch {
	case raw == "":
		return r, nil
	case len(raw) > maxRecord:
		return r, fmt.Errorf("it has %d bytes, and at most %d are read", len(raw), maxRecord)
	}
	if err := json.Unmarshal([]byte(raw), &r); err != nil {
		return r, errors.New("it is no JSON of a token: restore it, or log in again, which replaces it")
	}
	if r.State.Version > recordVersion {
		return r, fmt.Errorf("it has the format %d, and this program knows %d: update the program", r.State.Version, recordVersion)
	}
	if r.AccessToken != "" {
		if err := r.token().Validate(); err != nil {
			return r, err
		}
	}
	if r.State.Login == "" && !r.State.Ended { // an operator's
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

// written returns r as it is to be written, unlike any other.
func (r record) written() record {
	r.State.Version, r.State.Nonce = recordVersion, rand.Text()
	b, _ := json.Marshal(r) // strings, numbers and times of our own
	r.raw = string(b)
	return r
}

// token returns the token of the record.
func (r *record) token() Token {
	return Token{AccessToken: r.AccessToken, TokenType: r.TokenType, RefreshToken: r.RefreshToken, Expiry: r.Expiry}
}

// lifetime returns how long the access token was valid when it came; 0 if not known.
func (r *record) lifetime() time.Duration {
	return time.Duration(r.State.LifetimeMS) * time.Millisecond
}

// inDoubt reports whether the refresh token may be used up, and nobody is asking.
func (r *record) inDoubt() bool { return r.State.By == "" && !r.State.Sent.IsZero() }

// hasClaims reports whether the token was fetched with all of the claims.
func (r *record) hasClaims(claims []string) bool {
	return !slices.ContainsFunc(claims, func(c string) bool { return !slices.Contains(r.State.Claims, c) })
}

// A recordKey tells what a refresh would begin with. It has no secret, as fmt may print
// it.
type recordKey struct {
	login        string
	seq          int64
	refreshToken [sha256.Size]byte
}

func (r *record) key() recordKey {
	return recordKey{r.State.Login, r.State.Seq, sha256.Sum256([]byte(r.RefreshToken))}
}
