// Package reauth keeps an http.Client authenticated.
//
// Its Transport attaches a bearer token to requests, recognises the 401 that
// means "this token is no good", has a pluggable Refresher get another, waits a
// moment, sends the request once more, and logs the request ids of both tries.
// It goes under any http.Client, and so under any SDK that takes one:
//
//	client := &http.Client{Transport: &reauth.Transport{
//		Credential: &reauth.Credential{Refresher: reauth.RefresherFunc(login)},
//		Origins:    []string{"https://api.example.com"},
//	}}
//
// # What happens on a 401
//
// A 401 says that the request was not applied (RFC 9110 §15.5.2), so that it may
// be repeated once with another token, also a POST. Not every 401 is about the
// token, though: the Classifier tells the ones that a fresh token may cure from
// quotas, missing scopes and other schemes, which are returned as they are.
//
// However many requests meet a 401 for one token, and whenever, the Refresher is
// called once. It is called on a goroutine of its own, so that no request waits
// longer than its own context; after a failure it is left alone for a while that
// grows. If there is no fresh token, or the request cannot be sent again, the
// caller gets the 401 that the server sent, unread, with a nil error: SDKs take
// an error for a broken connection, and try again. OutcomeOf, WithOutcome and
// the log say what was done, and why no more.
//
// # Beside it
//
// Package refresher has ready-made Refreshers: files, programs, OAuth 2.0. Package
// retry repeats what a fresh token does not cure: 429, 5xx, dropped connections.
// Package classifier knows servers that do not say 401. Package reauthtest has an
// issuer and an API that misbehave on request, for tests.
//
// # What it does not do
//
// It does not repeat a request a second time, nor one that got another answer
// than a rejection. It does not send the token over plain http, to an origin
// that is not listed, or across a redirect to another one. It keeps no token on
// disk. It runs no timer and makes no request unasked.
package reauth
