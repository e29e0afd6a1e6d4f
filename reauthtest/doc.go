// Package reauthtest has an issuer and an API that misbehave on request, for tests
// of clients that keep themselves authenticated, in the manner of
// net/http/httptest and testing/iotest.
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
// Both are real servers on loopback. They count what reaches them, and are safe
// for concurrent use. What they do wrong is said for all requests by methods such
// as Revoke and Down, and for the next ones by Next and a Fault for each. For a
// server that nobody answers for, Close it.
//
// No error that they answer with contains a token.
package reauthtest
