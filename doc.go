// Package reauth keeps an http.Client authenticated.
//
// Its Transport attaches a bearer token to requests. It recognizes the 401 that means
// "this token is not valid", has a Refresher obtain another token, waits a moment, and
// sends the request once more. It logs the request ids of both sends. It works under
// any http.Client, and under any SDK that accepts one:
//
//	client := &http.Client{Transport: &reauth.Transport{
//		Credential: &reauth.Credential{Refresher: reauth.RefresherFunc(login)},
//		Origins:    []string{"https://api.example.com"},
//	}}
//
// # After a 401
//
// A server that responds with a 401 has not applied the request (RFC 9110 §15.5.2). The
// request may be retried once with another token, even if it is a POST. Not every 401
// is about the token. A Classifier recognizes those that a new token may resolve.
// Others, such as those for a quota, a missing scope or another authentication scheme,
// are returned to the caller.
//
// Concurrent rejections of one token share one refresh. The Refresher runs on its own
// goroutine, so that no request waits longer than its own context allows. After a
// failure the Credential backs off. If there is no new token, or the request cannot be
// sent again, the caller gets the server's 401 with its body unread, and a nil error.
// An SDK would treat an error as a broken connection, and resend the request.
// OutcomeOf, WithOutcome and the log say what was done, and why there was no retry.
//
// # Limits
//
// A server may reject every token, or learn of a new token late. If an origin has not
// accepted the current token, a Credential does not refresh for it until the token is 5
// seconds old, then 10, 20, 40 and 60 seconds. All refreshes that rejections cause are
// limited by Credential.RefreshEvery. The token that a refresh replaced is kept until
// it expires. If an origin accepted it, and does not know the new token yet, the retry
// carries the old token.
//
// # Related packages
//
// Package refresher provides Refreshers for files, programs and OAuth 2.0. Package
// retry retries requests after a 429, a 5xx or a broken connection. Package classifier
// provides Classifiers for servers that reject tokens with a status other than 401.
// Package reauthtest provides an issuer and an API for tests, which fail on demand.
// Package store and the packages below it provide Stores, which share a login between
// processes.
//
// # What the package does not do
//
// It does not send a request more than twice. It does not retry a request whose
// response is not a rejection. It does not send the token to an origin that is not
// listed, or along a redirect to another origin. It does not send the token over plain
// http to another machine, unless the origin is listed. It does not write tokens to
// disk, unless a Store does. It runs no timer and starts no refresh on its own: a
// refresh begins with a request.
package reauth
