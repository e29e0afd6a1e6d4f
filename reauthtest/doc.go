// Package reauthtest provides an issuer and an API for tests of clients that keep
// themselves authenticated. Both fail on demand, in the manner of net/http/httptest and
// testing/iotest.
//
//	issuer := reauthtest.NewIssuer()
//	defer issuer.Close()
//	api := reauthtest.NewAPI(issuer, nil)
//	defer api.Close()
//
//	client := reauth.NewClient(issuer)
//	resp, err := client.Get(api.URL()) // 200
//	issuer.Revoke()
//	resp, err = client.Get(api.URL()) // 200: rejected once, refreshed, sent again
//
// Both are servers on loopback. They count the requests that reach them, and are safe
// for concurrent use by multiple goroutines. Methods such as Revoke and Down affect all
// later requests. Next sets a Fault for each of the next requests. A server that is
// closed accepts no connections.
//
// No error response contains a token.
package reauthtest
