package store

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/reauth-go/reauth"
)

// Sealed returns a Store that keeps its records in s, encrypted and authenticated. Load
// returns an error if a record was modified, or was written under another name. The
// first key encrypts, and all keys decrypt. To replace a key, put the new key first,
// and remove the old key after the next refresh. A key is an AEAD such as that of
// cipher.NewGCM with AES-256. Each write has a random nonce, and writes are few.
//
// The name is authenticated with the record. Each login must have a name of its own.
// Sealed panics if there is no key.
//
// Sealed does not detect that an older record was restored. A Credential detects it
// while it runs.
func Sealed(s reauth.Store, name string, keys ...cipher.AEAD) reauth.Store {
	if len(keys) == 0 {
		panic("store: Sealed needs a key")
	}
	return &sealed{s, "reauth record 1 " + name, keys}
}

type sealed struct {
	store reauth.Store
	about string // the additional data
	keys  []cipher.AEAD
}

// sealedPrefix marks a sealed record, and its format.
const sealedPrefix = "reauth-sealed-1:"

// Load implements reauth.Store.
func (s *sealed) Load(ctx context.Context) (string, error) {
	at, err := s.store.Load(ctx)
	if err != nil {
		return "", err
	}
	return s.open(at)
}

// CompareAndSwap implements reauth.Store. The same record is encrypted differently by
// each write, so old is compared with the decrypted record.
func (s *sealed) CompareAndSwap(ctx context.Context, old, new string) (bool, error) {
	at, err := s.store.Load(ctx)
	if err != nil {
		return false, err
	}
	if now, err := s.open(at); err == nil && now != old {
		return false, nil
	} else if err != nil && at != old { // Credential.Set may replace a record that cannot be decrypted
		return false, err
	}
	next, err := s.seal(new)
	if err != nil {
		return false, err
	}
	return s.store.CompareAndSwap(ctx, at, next)
}

// seal encrypts a record. It returns "" if there is none.
func (s *sealed) seal(record string) (string, error) {
	if record == "" {
		return "", nil
	}
	key := s.keys[0]
	nonce := make([]byte, key.NonceSize(), key.NonceSize()+len(record)+key.Overhead())
	_, _ = rand.Read(nonce) // it never fails
	return sealedPrefix + base64.RawStdEncoding.EncodeToString(key.Seal(nonce, nonce, []byte(record), []byte(s.about))), nil
}

// open decrypts a record.
func (s *sealed) open(at string) (string, error) {
	if at == "" {
		return "", nil
	}
	text, ok := strings.CutPrefix(at, sealedPrefix)
	if !ok {
		return "", errors.New("store: the record is not sealed: seal it by a new login, or read it without Sealed")
	}
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return "", errors.New("store: the sealed record is damaged: restore it, or log in again")
	}
	for _, key := range s.keys {
		if n := key.NonceSize(); len(b) >= n {
			if record, err := key.Open(nil, b[:n], b[n:], []byte(s.about)); err == nil {
				return string(record), nil
			}
		}
	}
	return "", fmt.Errorf("store: none of the %d keys opens the record: it was sealed with another key or under another name, or was changed", len(s.keys))
}

// Format implements fmt.Formatter: no key is printed.
func (s *sealed) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("store.Sealed")) }
