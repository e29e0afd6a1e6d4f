package redis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/store/redis"
	"github.com/reauth-go/reauth/store/storetest"
)

// start starts Debian's redis-server, with a file that each write goes to.
func start(t storetest.TB, more ...string) *storetest.Server {
	return storetest.Start(t, func(dir, host string, port, _ int) []string {
		return append([]string{"redis-server", "--bind", host, "--port", fmt.Sprint(port), "--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", ""}, more...)
	})
}

func client(t testing.TB, addr string) *goredis.Client {
	c := goredis.NewClient(&goredis.Options{Addr: addr, DialTimeout: time.Second, ReadTimeout: time.Second, MaxRetries: 2})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestStore(t *testing.T) {
	server, n := start(t), 0
	storetest.Run(t, func(t *testing.T) func() reauth.Store {
		n++
		key := fmt.Sprintf("login-%d", n)
		return func() reauth.Store { return redis.New(client(t, server.Addr), key, redis.Options{}) }
	})
}

func TestErrorAfterEffect(t *testing.T) {
	server := start(t)
	proxy := storetest.NewProxy(t, server.Addr)
	storetest.ErrorAfterEffect(t, proxy, redis.New(client(t, proxy.Addr()), "login", redis.Options{}), redis.New(client(t, server.Addr), "login", redis.Options{}))
}

func TestKilledServer(t *testing.T) {
	server := start(t)
	storetest.KilledServer(t, server, func() reauth.Store { return redis.New(client(t, server.Addr), "login", redis.Options{}) })
}

func TestReplicas(t *testing.T) {
	server := start(t)
	host, port := "127.0.0.1", server.Addr[len("127.0.0.1:"):]
	s := redis.New(client(t, server.Addr), "login", redis.Options{Replicas: 1, WaitTime: 50 * time.Millisecond})
	if _, err := s.CompareAndSwap(t.Context(), "", "one"); err == nil {
		t.Error("there is no replica, and no error")
	}
	replica := start(t, "--replicaof", host+" "+port)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s = redis.New(client(t, server.Addr), "login", redis.Options{Replicas: 1, WaitTime: 200 * time.Millisecond})
	for old := "one"; ; {
		if swapped, err := s.CompareAndSwap(ctx, old, "two"); err == nil && swapped {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the replica does not follow")
		}
	}
	record, err := redis.New(client(t, replica.Addr), "login", redis.Options{}).Load(ctx)
	if err != nil || record != "two" {
		t.Errorf("the replica has %q, %v", record, err)
	}
}

// A Redis that evicts answers that there is no record, which reauth notices while it runs.
func TestEvicted(t *testing.T) {
	server := start(t)
	c := client(t, server.Addr)
	s := redis.New(c, "login", redis.Options{})
	if _, err := s.CompareAndSwap(t.Context(), "", "one"); err != nil {
		t.Fatal(err)
	}
	if err := c.Del(t.Context(), "login").Err(); err != nil {
		t.Fatal(err)
	}
	if record, err := s.Load(t.Context()); record != "" || err != nil {
		t.Errorf("Load = %q, %v", record, err)
	}
	if swapped, err := s.CompareAndSwap(t.Context(), "one", "two"); swapped || err != nil {
		t.Errorf("CompareAndSwap = %v, %v", swapped, err)
	}
}

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, redis.New(client(b, start(b).Addr), "login", redis.Options{}))
}
