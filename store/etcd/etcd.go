// Package etcd provides a reauth.Store in etcd.
package etcd

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/reauth-go/reauth"
)

// New returns a Store that keeps its record at key. It is the caller's responsibility
// to close the client. Reads are linearizable. A record is compared and replaced in one
// transaction. When CompareAndSwap returns, a majority of the members has the record on
// disk.
func New(client *clientv3.Client, key string) reauth.Store { return &store{client, key} }

type store struct {
	client *clientv3.Client
	key    string
}

// Load implements reauth.Store.
func (s *store) Load(ctx context.Context) (string, error) {
	got, err := s.client.Get(ctx, s.key)
	if err != nil {
		return "", s.failed(ctx, "read", err)
	}
	if len(got.Kvs) == 0 {
		return "", nil
	}
	return string(got.Kvs[0].Value), nil
}

// CompareAndSwap implements reauth.Store.
func (s *store) CompareAndSwap(ctx context.Context, old, new string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	unchanged := clientv3.Compare(clientv3.Value(s.key), "=", old)
	if old == "" {
		unchanged = clientv3.Compare(clientv3.CreateRevision(s.key), "=", 0)
	}
	write := clientv3.OpPut(s.key, new)
	if new == "" {
		write = clientv3.OpDelete(s.key)
	}
	done, err := s.client.Txn(ctx).If(unchanged).Then(write).Commit()
	if err != nil {
		return false, s.failed(ctx, "write", err, old, new)
	}
	return done.Succeeded, nil
}

// failed returns the error of a call, without the records. If the context has ended,
// the error wraps that of the context, as the error of etcd does not.
func (s *store) failed(ctx context.Context, verb string, err error, records ...string) error {
	text := err.Error()
	for _, r := range records {
		if r != "" {
			text = strings.ReplaceAll(text, r, "[redacted]")
		}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return &storeError{fmt.Sprintf("store/etcd: cannot %s the key %q: %s", verb, s.key, text), err}
}

// A storeError is an error whose text has no record.
type storeError struct {
	text string
	err  error
}

func (e *storeError) Error() string { return e.text }
func (e *storeError) Unwrap() error { return e.err }

// Format implements fmt.Formatter: the client's configuration, which may have a password,
// is not printed.
func (s *store) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "store/etcd(%s)", s.key) }
