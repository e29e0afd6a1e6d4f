// Package refresher provides Refreshers for the usual sources of tokens: the
// environment, files, helper programs and authorization servers.
//
//	client := reauth.NewClient(refresher.DotEnv(".env", "OPENAI_API_KEY"), "https://api.example.com")
//
// Each Refresher is safe for concurrent use by multiple goroutines, and may serve any
// number of Credentials. It holds no connection and runs nothing between calls.
//
// The Refreshers validate each token with Token.Validate. If a token has no expiry and
// is a JWT, its exp claim (RFC 7519 §4.1.4) is used as the expiry. No other claim is
// used. A JWT whose exp has passed is returned as expired, whatever expiry came with
// it. A Credential still uses such a token if it is the first one, as this machine's
// clock may be wrong.
//
// The errors say what is wrong and what to do about it. They never contain a token. A
// Credential calls the Refresher again after an error, unless reauth.IsPermanent
// reports true for it. If the source is a file, the next request looks at the file
// again.
package refresher
