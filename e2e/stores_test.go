package e2e

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/store"
	"github.com/reauth-go/reauth/store/file"
	"github.com/reauth-go/reauth/store/storetest"
)

const createTable = "CREATE TABLE reauth (name VARCHAR(255) PRIMARY KEY, record TEXT NOT NULL)"

func aead(t testing.TB) cipher.AEAD {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	a, err := cipher.NewGCM(block)
	require.NoError(t, err)
	return a
}

func TestStoreSealed(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() reauth.Store {
		path, key := filepath.Join(t.TempDir(), "login.json"), aead(t)
		return func() reauth.Store { return store.Sealed(file.Open(path), "login", key) }
	})
}

// The first key writes, all read; another name, a change, and clear text are errors.
func TestStoreSealedKeys(t *testing.T) {
	plain := file.Open(filepath.Join(t.TempDir(), "login.json"))
	before, after := aead(t), aead(t)
	swap := func(s reauth.Store, old, new string) {
		t.Helper()
		swapped, err := s.CompareAndSwap(t.Context(), old, new)
		require.NoError(t, err)
		require.True(t, swapped)
	}
	swap(store.Sealed(plain, "a", before), "", "one")
	both := store.Sealed(plain, "a", after, before)
	record, err := both.Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "one", record)
	swap(both, "one", "two")
	record, err = store.Sealed(plain, "a", after).Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "two", record)

	at, err := plain.Load(t.Context())
	require.NoError(t, err)
	assert.NotContains(t, at, "two")
	for name, s := range map[string]reauth.Store{"the old key": store.Sealed(plain, "a", before), "another name": store.Sealed(plain, "b", after)} {
		_, err = s.Load(t.Context())
		assert.ErrorContains(t, err, "none of the 1 keys", name)
	}
	for _, damaged := range []string{"{}", at[:len(at)-1], at + "A", strings.Replace(at, ":", ":!", 1), "reauth-sealed-1:", "reauth-sealed-1:AAAA"} {
		swap(plain, at, damaged)
		_, err = store.Sealed(plain, "a", after).Load(t.Context())
		assert.Error(t, err, damaged)
		swap(plain, damaged, at)
	}
	assert.Panics(t, func() { store.Sealed(plain, "a") })
}

func TestStoreSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() reauth.Store {
		path := filepath.Join(t.TempDir(), "login.db")
		open := func() *sql.DB {
			db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
			require.NoError(t, err)
			t.Cleanup(func() { _ = db.Close() })
			return db
		}
		_, err := open().Exec(createTable)
		require.NoError(t, err)
		return func() reauth.Store { return store.SQL(open(), store.SQLite, "reauth", "login") }
	})
}

func TestStorePostgreSQL(t *testing.T) {
	server := startPostgreSQL(t)
	n := 0
	storetest.Run(t, func(t *testing.T) func() reauth.Store {
		n++
		name := fmt.Sprintf("login-%d", n)
		return func() reauth.Store { return store.SQL(postgres(t, server), store.PostgreSQL, "reauth", name) }
	})
	t.Run("ErrorAfterEffect", func(t *testing.T) {
		proxy := storetest.NewProxy(t, server)
		through, direct := postgres(t, proxy.Addr()), postgres(t, server)
		through.SetMaxOpenConns(1)
		storetest.ErrorAfterEffect(t, proxy, store.SQL(through, store.PostgreSQL, "reauth", "cut"), store.SQL(direct, store.PostgreSQL, "reauth", "cut"))
	})
}

func postgres(t testing.TB, addr string) *sql.DB {
	db, err := sql.Open("pgx", "postgres://postgres@"+addr+"/postgres?sslmode=disable")
	require.NoError(t, err)
	db.SetMaxOpenConns(4)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// startPostgreSQL starts Debian's PostgreSQL on loopback until the test ends, and returns
// its address. It does not run as root.
func startPostgreSQL(t *testing.T) string {
	t.Helper()
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		t.Skip("postgresql is not installed")
	}
	bin := bins[len(bins)-1]
	dir, err := os.MkdirTemp("", "postgres")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		require.NoError(t, err, "the package makes that user")
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		require.NoError(t, os.Chown(dir, uid, gid))
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8")
	initdb.SysProcAttr, initdb.Dir = attr, dir
	out, err := initdb.CombinedOutput()
	require.NoError(t, err, string(out))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", fmt.Sprint(port), "-k", dir, "-c", "fsync=on")
	server.SysProcAttr, server.Dir = attr, dir
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT)
		_ = server.Wait()
	})
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	require.Eventually(t, func() bool {
		db, err := sql.Open("pgx", "postgres://postgres@"+addr+"/postgres?sslmode=disable")
		if err != nil {
			return false
		}
		defer db.Close()
		_, err = db.Exec(createTable)
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	return addr
}
