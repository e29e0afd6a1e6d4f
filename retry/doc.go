// Package retry repeats requests that met a 429, a 5xx or a dropped
// connection, above a reauth.Transport, which sees to the 401s:
//
//	client := &http.Client{Transport: &retry.Transport{
//		Base: &reauth.Transport{Credential: cred},
//	}}
//
// The loop is that of github.com/hashicorp/go-retryablehttp. What surprises in
// there is set right: redirects are followed by the caller's http.Client, or
// refused by its CheckRedirect; the last response is returned, and no error in
// its place; bodies stream in both directions; nothing is logged but a Debug
// record for each repeat, without the query; the connections of Base are left
// alone.
//
// # What is repeated
//
// A request that is idempotent (RFC 9110 §9.2.2: GET, HEAD, OPTIONS, TRACE, PUT,
// DELETE), or that its caller made so by an Idempotency-Key or X-Idempotency-Key
// header, is repeated after a 408, 425, 429, a 5xx other than 501, and after an
// error of the connection. Any other, such as a POST, may have been applied
// although the answer is a 500 or none at all: it is repeated only after a 429
// or 503 with a Retry-After, which says that it was not, and if no connection
// could be made. Transport.Repeatable says otherwise where the caller knows better.
//
// Never repeated are a 401, of which the reauth.Transport has made what can be
// made; what that says itself, such as a *reauth.RefreshError or
// reauth.ErrInsecure: the Credential has a pace of its own; a certificate that
// is not trusted; and a request whose context has ended. A body without GetBody
// is sent once, as it is read: nothing is kept of it.
//
// SDKs that repeat by themselves are to be told not to (MaxRetries 0 or the
// like): else the tries multiply. Leave the SDK's own retries on, and this package out,
// where they know more than HTTP tells: which of their errors pass, where a stream
// breaks off (a response that has begun is never repeated here), or how to go on with an
// upload in parts.
package retry
