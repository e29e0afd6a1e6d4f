package e2e

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/e2e/internal/servers"
	"github.com/reauth-go/reauth/store"
	"github.com/reauth-go/reauth/store/file"
	"github.com/reauth-go/reauth/store/storetest"
)

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
		open := func() *sql.DB { return sqlite(t, path) }
		_, err := open().Exec(servers.CreateTable)
		require.NoError(t, err)
		return func() reauth.Store { return store.SQL(open(), store.SQLite, "reauth", "login") }
	})
}

func sqlite(t testing.TB, path string) *sql.DB {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func BenchmarkStores(b *testing.B) {
	b.Run("SQLite", func(b *testing.B) {
		db := sqlite(b, filepath.Join(b.TempDir(), "login.db"))
		_, err := db.Exec(servers.CreateTable)
		require.NoError(b, err)
		storetest.Benchmark(b, store.SQL(db, store.SQLite, "reauth", "login"))
	})
	b.Run("PostgreSQL", func(b *testing.B) {
		storetest.Benchmark(b, store.SQL(postgres(b, servers.PostgreSQL(b)), store.PostgreSQL, "reauth", "login"))
	})
}

func TestStorePostgreSQL(t *testing.T) {
	server := servers.PostgreSQL(t)
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
	db, err := sql.Open("pgx", servers.PostgreSQLURL(addr))
	require.NoError(t, err)
	db.SetMaxOpenConns(4)
	t.Cleanup(func() { _ = db.Close() })
	return db
}
