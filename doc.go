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
// request may be repeated once with another token, even if it is a POST. But not every
// 401 is about the token: a Classifier distinguishes those that a new token may resolve
// from quotas, missing scopes and other authentication schemes, which are returned as
// they are.
//
// Concurrent rejections of one token share one refresh. The Refresher runs on its own
// goroutine, so that no request waits longer than its own context allows. After a
// failure the Credential backs off. If there is no new token, or the request cannot be
// sent again, the caller gets the 401 of the server, its body unread, and a nil error:
// SDKs take an error for a broken connection, and send the request again. OutcomeOf,
// WithOutcome and the log say what was done, and why there was no retry.
//
// # Limits
//
// A server may reject every token, or learn of a new token late. For an origin that has
// not accepted the current token, a Credential makes no further refresh until the token
// is 5 seconds old, then 10, 20, 40 and 60 seconds. All refreshes that rejections cause
// are limited by Credential.RefreshEvery. The token that a refresh replaced is kept
// until it expires: an origin that accepted it, and does not know the new one yet, gets
// the retry with the old token.
//
// # Related packages
//
// Package refresher has Refreshers: files, programs, OAuth 2.0. Package retry repeats
// requests that met a 429, a 5xx or a broken connection. Package classifier has
// Classifiers for servers that do not say 401. Package reauthtest has an issuer and an
// API for tests, which fail on request.
//
// # What the package does not do
//
// It does not send a request more than twice, nor repeat a request that got another
// answer than a rejection. It does not send the token over plain http, to an origin that
// is not listed, or along a redirect to another one. It keeps no token on disk. It runs
// no timer and makes no request unasked.
package reauth
