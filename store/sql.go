package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/mask"
)

// A Dialect describes how the SQL of a database differs from that of others.
type Dialect struct {
	// Placeholder returns the placeholder of the n-th parameter of a statement, from 1.
	Placeholder func(n int) string

	// Binary returns a comparison of the column and the parameter byte by byte. By
	// default, some databases ignore case or trailing blanks.
	Binary func(column, parameter string) string

	// Insert is the format of an INSERT statement that does nothing if the row exists.
	// The verb %[1]s is for the table, %[2]s and %[3]s are for the placeholders of name
	// and record.
	Insert string
}

// The dialects of common databases. MySQL is also for MariaDB.
var (
	PostgreSQL = Dialect{
		Placeholder: func(n int) string { return fmt.Sprintf("$%d", n) },
		Binary:      func(column, parameter string) string { return column + ` COLLATE "C" = ` + parameter },
		Insert:      "INSERT INTO %[1]s (name, record) VALUES (%[2]s, %[3]s) ON CONFLICT (name) DO NOTHING",
	}
	SQLite = Dialect{
		Placeholder: func(int) string { return "?" },
		Binary:      func(column, parameter string) string { return column + " = " + parameter + " COLLATE BINARY" },
		Insert:      "INSERT INTO %[1]s (name, record) VALUES (%[2]s, %[3]s) ON CONFLICT (name) DO NOTHING",
	}
	MySQL = Dialect{
		Placeholder: func(int) string { return "?" },
		Binary: func(column, parameter string) string {
			return "CAST(" + column + " AS BINARY) = CAST(" + parameter + " AS BINARY)"
		},
		Insert: "INSERT IGNORE INTO %[1]s (name, record) VALUES (%[2]s, %[3]s)",
	}
)

// SQL returns a Store that keeps its record in one row of a table. name identifies the
// row. It is the caller's responsibility to create the table:
//
//	CREATE TABLE reauth (name VARCHAR(255) PRIMARY KEY, record TEXT NOT NULL)
//
// With MySQL, the type of record must be LONGTEXT. A call executes one or two
// statements, without a transaction around them. The database must be the primary, not
// a replica that may lag. table becomes part of the statements, and must not come from
// a user.
//
// An error has the name of the row and the text of the driver's error.
func SQL(db *sql.DB, dialect Dialect, table, name string) reauth.Store {
	p := dialect.Placeholder
	return &sqlStore{
		db:     db,
		name:   name,
		load:   fmt.Sprintf("SELECT record FROM %s WHERE name = %s", table, p(1)),
		insert: fmt.Sprintf(dialect.Insert, table, p(1), p(2)),
		swap:   fmt.Sprintf("UPDATE %s SET record = %s WHERE name = %s AND %s", table, p(1), p(2), dialect.Binary("record", p(3))),
		remove: fmt.Sprintf("DELETE FROM %s WHERE name = %s AND %s", table, p(1), dialect.Binary("record", p(2))),
	}
}

type sqlStore struct {
	db                         *sql.DB
	name                       string
	load, insert, swap, remove string
}

// Load implements reauth.Store.
func (s *sqlStore) Load(ctx context.Context) (string, error) {
	var record string
	err := s.db.QueryRowContext(ctx, s.load, s.name).Scan(&record)
	switch {
	case err == sql.ErrNoRows:
		return "", nil
	case err != nil:
		return "", s.failed("read", err)
	}
	return record, nil
}

// CompareAndSwap implements reauth.Store.
func (s *sqlStore) CompareAndSwap(ctx context.Context, old, new string) (bool, error) {
	if old == new { // a database may report that no row was changed
		record, err := s.Load(ctx)
		return err == nil && record == old, err
	}
	var result sql.Result
	var err error
	switch {
	case old == "":
		result, err = s.db.ExecContext(ctx, s.insert, s.name, new)
	case new == "":
		result, err = s.db.ExecContext(ctx, s.remove, s.name, old)
	default:
		result, err = s.db.ExecContext(ctx, s.swap, new, s.name, old)
	}
	if err != nil {
		return false, s.failed("write", err, old, new)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return false, s.failed("write", err)
	}
	return n == 1, nil
}

// failed is the error of a statement, without the records that a driver may repeat.
func (s *sqlStore) failed(verb string, err error, records ...string) error {
	return mask.Err(fmt.Sprintf("store: the database cannot %s the row %q: ", verb, s.name), err, records...)
}

// Format implements fmt.Formatter: the database's address, which may have a password, is
// not printed.
func (s *sqlStore) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "store.SQL(%s)", s.name) }
