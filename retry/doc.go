// Package retry retries requests after a 429, a 5xx or a dropped connection. Its
// Transport is used above a reauth.Transport, which handles the 401s:
//
//	client := &http.Client{Transport: &retry.Transport{
//		Base: &reauth.Transport{Credential: cred},
//	}}
//
// The loop is that of github.com/hashicorp/go-retryablehttp, with these differences.
// The caller's http.Client follows redirects, subject to its CheckRedirect. The last
// response is returned, and no error in its place. Bodies are streamed in both
// directions. Only a Debug record for each retry is logged, without the query. The
// connections of Base are not closed.
//
// # What is retried
//
// An idempotent request is retried after a 408, a 425, a 429, a 5xx other than 501, and
// an error of the connection. The idempotent methods are GET, HEAD, OPTIONS, TRACE, PUT
// and DELETE (RFC 9110 §9.2.2). An Idempotency-Key or X-Idempotency-Key header makes
// any request idempotent. The server may have applied another request, such as a POST,
// even if it responds with a 500 or not at all. Such a request is retried only if no
// connection could be made, or after a 429 or 503 with a Retry-After. A Retry-After
// says that it was not applied. Transport.Repeatable overrides this.
//
// A request is not retried after a 401, which the reauth.Transport has handled. It is
// not retried after an error of the reauth.Transport, such as a *reauth.RefreshError or
// reauth.ErrInsecure, as the Credential has its own backoff. It is not retried if a
// certificate is not trusted, or if its context has ended. A request with a body and
// without GetBody is sent once.
//
// If an SDK retries requests itself, turn its retries off (MaxRetries 0 or the like),
// as otherwise the attempts multiply. Use the retries of the SDK in place of this
// package if the SDK knows more than HTTP says. It may know which of its errors are
// temporary, where a stream broke off, or how to resume an upload in parts. This
// package does not retry a request once the response has begun.
package retry
