// Package store provides implementations of reauth.Store that need only the standard
// library: a table of an SQL database, and encryption for any other Store. The packages
// file, redis and etcd below it are modules of their own. Package storetest tests
// implementations.
//
// # Choosing a Store
//
// For one machine, use store/file. For several machines, use any durable storage that
// they share. A cache that may lose or evict a record must not be used: if the issuer
// detects reuse, a lost record may end the login.
package store
