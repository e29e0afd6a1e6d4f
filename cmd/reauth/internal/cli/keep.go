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

	"github.com/zalando/go-keyring"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/store"
	"github.com/reauth-go/reauth/store/file"
)

// keyringService is the name under which keys are in the keyring.
const keyringService = "reauth"

// loginFile returns where the login of the profile is kept: in a sealed file if there is
// one, whose key is in the keyring.
func (p *profile) loginFile() (path string, sealed bool, err error) {
	path, err = file.Path("reauth", url.PathEscape(p.name))
	if err != nil {
		return "", false, &exitError{exitUsage, err}
	}
	if _, err := os.Stat(path + ".sealed"); err == nil {
		return path + ".sealed", true, nil
	}
	return path, false, nil
}

// loginStore returns the Store of the profile's login. kind is "keyring" or "file" for a
// login that is to be kept there from now on, and "" for what there is.
func (p *profile) loginStore(kind string) (reauth.Store, error) {
	path, sealed, err := p.loginFile()
	switch {
	case err != nil:
		return nil, err
	case kind == "keyring" && !sealed:
		path += ".sealed"
	case kind == "file" && sealed:
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, &exitError{exitFailed, err}
		}
		path, _, _ = p.loginFile()
		return file.Open(path), nil
	case !sealed:
		return file.Open(path), nil
	}
	key, err := p.sealingKey(kind == "keyring" && !sealed)
	if err != nil {
		return nil, err
	}
	return store.Sealed(file.Open(path), p.name, key), nil
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
