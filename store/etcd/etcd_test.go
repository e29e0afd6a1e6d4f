package etcd_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/store/etcd"
	"github.com/reauth-go/reauth/store/storetest"
)

// start starts Debian's etcd, alone.
func start(t storetest.TB) *storetest.Server {
	return storetest.Start(t, func(dir, host string, port, peer int) []string {
		clients, peers := fmt.Sprintf("http://%s:%d", host, port), fmt.Sprintf("http://%s:%d", host, peer)
		return []string{"etcd", "--data-dir", dir, "--listen-client-urls", clients, "--advertise-client-urls", clients,
			"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default=" + peers, "--log-level", "error"}
	})
}

func client(t testing.TB, addr string) *clientv3.Client {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = io.Closer(c).Close() })
	return c
}

func TestStore(t *testing.T) {
	server, n := start(t), 0
	storetest.Run(t, func(t *testing.T) func() reauth.Store {
		n++
		key := fmt.Sprintf("login-%d", n)
		return func() reauth.Store { return etcd.New(client(t, server.Addr), key) }
	})
}

func TestKilledServer(t *testing.T) {
	server := start(t)
	storetest.KilledServer(t, server, func() reauth.Store { return etcd.New(client(t, server.Addr), "login") })
}

func TestErrorAfterEffect(t *testing.T) {
	server := start(t)
	proxy := storetest.NewProxy(t, server.Addr)
	storetest.ErrorAfterEffect(t, proxy, etcd.New(client(t, proxy.Addr()), "login"), etcd.New(client(t, server.Addr), "login"))
}

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, etcd.New(client(b, start(b).Addr), "login"))
}
