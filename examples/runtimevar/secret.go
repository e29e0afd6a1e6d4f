package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"gocloud.dev/runtimevar"

	"github.com/reauth-go/reauth"
)

// A Secret is a token in a secret manager, in a configuration service or in a
// file: in any variable of gocloud.dev/runtimevar. It is a reauth.Refresher.
//
// It opens the variable for each refresh and closes it again. One that is kept
// open polls for as long as it lives, and what it has may be half a minute old,
// which is half a minute of 401s after a rotation.
type Secret struct {
	// URL is the variable's, such as
	//
	//	awssecretsmanager://prod/api?region=eu-central-1
	//	gcpsecretmanager://projects/p/secrets/api
	//	etcd://api-key
	//	file:///run/secrets/api-key
	//
	// Its scheme needs the import of its driver, see main.go.
	URL string

	// Member is the member of a JSON object that is the token: the consoles of
	// secret managers store objects. "" means that the value is the token.
	Member string
}

// Refresh reads the variable. After a rejection, an unchanged one is a failure,
// and the variable is read again when a request comes a second later.
func (s Secret) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	u, err := url.Parse(s.URL)
	if err != nil {
		return reauth.Token{}, reauth.Permanent(errors.New("the variable's URL cannot be parsed")) // err would show it
	}
	full := u.String()
	u.RawQuery = "" // where constant:// has its value
	name := "the variable " + u.Redacted()
	v, err := runtimevar.OpenVariable(ctx, s.URL)
	if err != nil { // it repeats the URL
		return reauth.Token{}, fmt.Errorf("%s: %s", name, strings.ReplaceAll(err.Error(), full, u.Redacted()))
	}
	token, err := s.read(ctx, v)
	if e := v.Close(); err == nil {
		err = e
	}
	if err != nil {
		return reauth.Token{}, fmt.Errorf("%s: %w", name, err)
	}
	if stale.Rejection.Reason != "" && token == stale.Token.AccessToken {
		return reauth.Token{}, unchanged(name + " still has the rejected token: put the new one there")
	}
	return reauth.Token{AccessToken: token}, nil
}

// read returns the token that the variable has now.
func (s Secret) read(ctx context.Context, v *runtimevar.Variable) (string, error) {
	// Latest would wait for a good value until ctx ends. The first Watch returns
	// what there is, also if that is an error.
	snapshot, err := v.Watch(ctx)
	if err != nil {
		return "", err
	}
	var value []byte
	switch v := snapshot.Value.(type) {
	case []byte:
		value = v
	case string:
		value = []byte(v)
	default:
		return "", fmt.Errorf("it is decoded into a %T: leave the decoder out of its URL", v)
	}
	if s.Member == "" {
		return string(bytes.TrimSpace(value)), nil // a file ends in a line break
	}
	var object map[string]any
	if json.Unmarshal(value, &object) != nil { // whose error may quote the value
		return "", errors.New("it has a Member, but is no JSON object")
	}
	token, ok := object[s.Member].(string)
	if !ok {
		return "", fmt.Errorf("it has no member %q that is a string", s.Member)
	}
	return token, nil
}

// unchanged is the failure of a source that has nothing new yet. To look again
// costs little, so that it is no reason for pauses that grow to a minute.
type unchanged string

func (e unchanged) Error() string           { return string(e) }
func (unchanged) RetryAfter() time.Duration { return time.Second }
