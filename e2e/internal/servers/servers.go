// Package servers starts the servers that Stores need, of Debian's packages, on loopback.
package servers

import (
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/reauth-go/reauth/store/storetest"
)

// CreateTable makes the table of store.SQL.
const CreateTable = "CREATE TABLE reauth (name VARCHAR(255) PRIMARY KEY, record TEXT NOT NULL)"

// Redis starts a server that syncs each write, and returns its address.
func Redis(t storetest.TB) string {
	return storetest.Start(t, func(dir, host string, port, _ int) []string {
		return []string{"redis-server", "--bind", host, "--port", fmt.Sprint(port), "--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", ""}
	}).Addr
}

// Etcd starts a single member, and returns its address.
func Etcd(t storetest.TB) string {
	return storetest.Start(t, func(dir, host string, port, peer int) []string {
		clients, peers := fmt.Sprintf("http://%s:%d", host, port), fmt.Sprintf("http://%s:%d", host, peer)
		return []string{"etcd", "--data-dir", dir, "--listen-client-urls", clients, "--advertise-client-urls", clients,
			"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default=" + peers, "--log-level", "error"}
	}).Addr
}

// PostgreSQL starts a server with the table of store.SQL, and returns its address. It does
// not run as root.
func PostgreSQL(t storetest.TB) string {
	t.Helper()
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		t.Skipf("postgresql is not installed")
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	bin := bins[len(bins)-1]
	dir, err := os.MkdirTemp("", "postgres")
	must(err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres") // the package makes it
		must(err)
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		must(os.Chown(dir, uid, gid))
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8")
	initdb.SysProcAttr, initdb.Dir = attr, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	port := l.Addr().(*net.TCPAddr).Port
	must(l.Close())
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", fmt.Sprint(port), "-k", dir, "-c", "max_connections=300")
	server.SysProcAttr, server.Dir = attr, dir
	must(server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT)
		_ = server.Wait()
	})
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		db, err := sql.Open("pgx", PostgreSQLURL(addr))
		must(err)
		_, err = db.Exec(CreateTable)
		_ = db.Close()
		if err == nil {
			return addr
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// PostgreSQLURL returns the URL of the database.
func PostgreSQLURL(addr string) string {
	return "postgres://postgres@" + addr + "/postgres?sslmode=disable"
}
