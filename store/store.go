// Package store has Stores for reauth.Credential.Store that need the standard library
// only: a table of an SQL database, and encryption around any other Store. A file, Redis
// and etcd are modules of their own below this package; storetest tests others.
//
// # Which one
//
// One machine: store/file. Several: whatever durable storage they have in common. A cache
// that may lose what was written, or forget it, is no Store: a record that is lost costs
// the login of an issuer that detects reuse.
package store
