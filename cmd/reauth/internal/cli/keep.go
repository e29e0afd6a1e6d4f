package cli

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/zalando/go-keyring"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/store"
	"github.com/reauth-go/reauth/store/file"
)

// keyringService is the name under which keys are in the keyring.
const keyringService = "reauth"

const sealedSuffix = ".sealed"

// loginFile returns where the login of the profile is kept: in a sealed file if there is
// one, whose key is in the keyring.
func (p *profile) loginFile() (path string, sealed bool, err error) {
	path, err = file.Path("reauth", url.PathEscape(p.name))
	if err != nil {
		return "", false, &exitError{exitUsage, err}
	}
	if _, err := os.Stat(path + sealedSuffix); err == nil {
		return path + sealedSuffix, true, nil
	}
	return path, false, nil
}

// loginStore returns the Store of the profile's login. kind is "keyring" or "file" for a
// login that is to be kept there from now on, and "" for what there is.
func (p *profile) loginStore(kind string) (reauth.Store, error) {
	path, sealed, err := p.loginFile()
	if err != nil {
		return nil, err
	}
	plain := strings.TrimSuffix(path, sealedSuffix)
	if kind == "file" || kind == "" && !sealed {
		return file.Open(plain), nil
	}
	key, err := p.sealingKey(kind == "keyring" && !sealed)
	if err != nil {
		return nil, err
	}
	return store.Sealed(file.Open(plain+sealedSuffix), p.name, key), nil
}

// removeOther removes what an earlier login has left where the new one is not kept.
func (p *profile) removeOther(kind string) error {
	if kind == "" {
		return nil
	}
	path, _, err := p.loginFile()
	if err != nil {
		return err
	}
	other := strings.TrimSuffix(path, sealedSuffix)
	if kind == "file" {
		other += sealedSuffix
	}
	if err := os.Remove(other); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sealingKey returns the key in the keyring, a new one if create.
func (p *profile) sealingKey(create bool) (cipher.AEAD, error) {
	const size = 32
	text, err := keyring.Get(keyringService, p.name)
	if errors.Is(err, keyring.ErrNotFound) && create {
		b := make([]byte, size)
		_, _ = rand.Read(b) // it never fails
		text = hex.EncodeToString(b)
		err = keyring.Set(keyringService, p.name, text)
	}
	if err != nil {
		return nil, failf(exitFailed, "the key of the login is not to be had from the keyring: unlock it, or keep the login with login --store file: %v", err)
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != size {
		return nil, failf(exitFailed, "the keyring has no key of ours for %s: log in again", p.name)
	}
	block, err := aes.NewCipher(b)
	if err != nil {
		return nil, &exitError{exitFailed, err}
	}
	return cipher.NewGCM(block)
}
