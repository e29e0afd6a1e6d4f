// Package refresher has ready-made Refreshers for the places where tokens come
// from: the environment, files, helper programs and authorization servers.
//
//	client := reauth.NewClient(refresher.DotEnv(".env", "OPENAI_API_KEY"), "https://api.example.com")
//
// Each is safe for concurrent use, may serve any number of Credentials, holds no
// connection and runs nothing between calls.
//
// They apply Token.Validate to what they find. If a token has no expiry and is a
// JWT, its exp claim (RFC 7519 §4.1.4) is taken for the expiry, and nothing else
// in it is believed; a JWT whose exp has passed is returned as expired, whatever
// came with it. A Credential sends such a first token once all the same, since
// this machine's clock may be wrong.
//
// Their errors say what is wrong and what to do about it, never repeat a token,
// and do not stop a Credential from asking again, save those that are marked with
// reauth.Permanent. Where the source is a file, the next request looks at it again.
package refresher
