// Package redis provides a reauth.Store in Redis or Valkey.
package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reauth-go/reauth"
)

// Options are the options of a Store. The zero Options are for a single server.
type Options struct {
	// Replicas is how many replicas must have the record before CompareAndSwap returns
	// (WAIT). CompareAndSwap returns an error if fewer have it after WaitTime, although
	// the primary has it. WAIT makes it less likely that a failover loses the record,
	// but does not exclude it.
	Replicas int
	WaitTime time.Duration // if zero or negative, 1 second is used
}

// New returns a Store that keeps its record at key. It is the caller's responsibility
// to close the client.
//
// Redis must be durable: with an append-only file that is synced (appendonly yes,
// appendfsync always), and without eviction (maxmemory-policy noeviction, or a database
// of its own). If the issuer detects reuse, a record that is lost or evicted may end
// the login. A Credential that runs writes a lost record again.
//
// A record is compared and replaced by one script. The client must not be configured to
// read from replicas.
func New(client redis.UniversalClient, key string, options Options) reauth.Store {
	if options.WaitTime <= 0 {
		options.WaitTime = time.Second
	}
	return &store{client, key, options}
}

type store struct {
	client  redis.UniversalClient
	key     string
	options Options
}

// swap compares and replaces the record. A client retries a command whose response was
// lost: if the new record is there, the first command wrote it.
var swap = redis.NewScript(`
local now = redis.call('GET', KEYS[1]) or ''
if now == ARGV[2] and now ~= '' then return 1 end
if now ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1`)

// Load implements reauth.Store.
func (s *store) Load(ctx context.Context) (string, error) {
	record, err := s.client.Get(ctx, s.key).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	if err != nil {
		return "", s.failed("read", err)
	}
	return record, nil
}

// CompareAndSwap implements reauth.Store.
func (s *store) CompareAndSwap(ctx context.Context, old, new string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	swapped, err := swap.Run(ctx, s.client, []string{s.key}, old, new).Int()
	if err != nil {
		return false, s.failed("write", err, old, new)
	}
	if swapped == 1 && s.options.Replicas > 0 {
		n, err := s.client.Do(ctx, "WAIT", s.options.Replicas, s.options.WaitTime.Milliseconds()).Int()
		if err != nil {
			return false, s.failed("wait for the replicas of", err, old, new)
		}
		if n < s.options.Replicas {
			return false, s.failed("wait for the replicas of", fmt.Errorf("%d of %d have it", n, s.options.Replicas))
		}
	}
	return swapped == 1, nil
}

// failed is the error of a command, without the records.
func (s *store) failed(verb string, err error, records ...string) error {
	text := err.Error()
	for _, r := range records {
		if r != "" {
			text = strings.ReplaceAll(text, r, "[redacted]")
		}
	}
	return &storeError{fmt.Sprintf("store/redis: cannot %s the key %q: %s", verb, s.key, text), err}
}

// A storeError is an error whose text has no record.
type storeError struct {
	text string
	err  error
}

func (e *storeError) Error() string { return e.text }
func (e *storeError) Unwrap() error { return e.err }

// Format implements fmt.Formatter: the client's options, which have a password, are not
// printed.
func (s *store) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "store/redis(%s)", s.key) }
