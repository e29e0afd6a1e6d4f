// Package grpcreauth keeps the calls of a grpc.ClientConn authenticated by a
// reauth.Credential. A reauth.Transport cannot be used, as grpc-go does not send its
// calls through an http.RoundTripper.
//
//	auth := &grpcreauth.Client{Credential: cred}
//	conn, err := grpc.NewClient("api.example.com:443", append(auth.DialOptions(),
//		grpc.WithTransportCredentials(credentials.NewTLS(nil)))...)
//
// Each call carries the token in the metadata authorization. If the server ends a call
// with Unauthenticated before any message of the response, the call is sent once more
// with another token. Concurrent rejections of one token share one refresh.
//
// If there is no new token, the caller gets the status of the server. For how often
// servers may cause a refresh, see reauth.Credential.Refresh.
package grpcreauth

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/reauth-go/reauth"
)

// A Client attaches the tokens of a Credential to calls, and sends a call once more
// if the server rejects its token. It is safe for concurrent use by multiple
// goroutines. Its fields must not be modified after first use.
type Client struct {
	// Credential holds the token. It is required.
	Credential *reauth.Credential

	// AllowInsecure permits the token on a connection without transport security. If
	// false, grpc.NewClient returns an error for such a connection.
	AllowInsecure bool

	// RetryWait is the delay between obtaining the new token and retrying,
	// randomized by ±50%. If zero, 100 ms is used. If negative, there is no delay.
	RetryWait time.Duration

	// MaxReplayBytes is the maximum number of bytes to keep of the messages that a
	// stream sends before the first message of the response. A stream that sent more is
	// not retried. If zero, 1 MiB is used. If negative, nothing is kept, and a stream
	// that sends a message is not retried.
	MaxReplayBytes int
}

// DialOptions returns the options for grpc.NewClient. A call that already has
// authorization in its outgoing metadata is sent unchanged.
//
// An interceptor that the caller adds before these options sees a call once. An
// interceptor after them sees each send.
func (c *Client) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithPerRPCCredentials(perRPC{allowInsecure: c.AllowInsecure}),
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
	}
}

// tokenKey is the key in a context of the token that a call carries.
type tokenKey struct{}

func withToken(ctx context.Context, tok reauth.Token) context.Context {
	return context.WithValue(ctx, tokenKey{}, tok)
}

// A perRPC attaches the token of the context. The interceptors choose the token, as
// they must know which token was rejected.
type perRPC struct{ allowInsecure bool }

func (perRPC) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	tok, ok := ctx.Value(tokenKey{}).(reauth.Token)
	if !ok {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + tok.AccessToken}, nil
}

func (p perRPC) RequireTransportSecurity() bool { return !p.allowInsecure }

func (c *Client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if hasOwnCredential(ctx) {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	tok, err := c.token(ctx)
	if err != nil {
		return err
	}
	err = invoke(withToken(ctx, tok), method, req, reply, cc, opts...)
	if status.Code(err) != codes.Unauthenticated {
		return err
	}
	next, ok := c.replacement(ctx, tok)
	if !ok {
		return err
	}
	return invoke(withToken(ctx, next), method, req, reply, cc, opts...)
}

func (c *Client) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if hasOwnCredential(ctx) {
		return open(ctx, desc, cc, method, opts...)
	}
	tok, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	first, err := open(withToken(ctx, tok), desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return newStream(first, c.maxReplayBytes(), func() (grpc.ClientStream, bool, error) {
		next, ok := c.replacement(ctx, tok)
		if !ok {
			return nil, false, nil
		}
		s, err := open(withToken(ctx, next), desc, cc, method, opts...)
		return s, true, err
	}), nil
}

func hasOwnCredential(ctx context.Context) bool {
	md, _ := metadata.FromOutgoingContext(ctx)
	return len(md.Get("authorization")) > 0
}

// token returns the token for a call.
func (c *Client) token(ctx context.Context) (reauth.Token, error) {
	tok, err := c.Credential.Token(ctx)
	if err != nil {
		return reauth.Token{}, tokenError{err}
	}
	return tok, nil
}

// replacement returns a token other than the rejected one, after a delay. It reports
// whether the call may be sent again.
func (c *Client) replacement(ctx context.Context, rejected reauth.Token) (reauth.Token, bool) {
	next, err := c.Credential.Refresh(ctx, reauth.Stale{
		Token:     rejected,
		Rejection: reauth.Rejection{Reason: reauth.ReasonUnspecified, Code: codes.Unauthenticated.String()},
	})
	if err != nil {
		return reauth.Token{}, false
	}
	wait := c.RetryWait
	if wait == 0 {
		wait = 100 * time.Millisecond
	}
	if wait < 0 {
		return next, true
	}
	timer := time.NewTimer(wait/2 + rand.N(wait+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return next, true
	case <-ctx.Done():
		return reauth.Token{}, false
	}
}

func (c *Client) maxReplayBytes() int {
	if c.MaxReplayBytes == 0 {
		return 1 << 20
	}
	return c.MaxReplayBytes
}

// A tokenError is the error of a call for which there is no token. It wraps the error
// of the Credential, and has a gRPC status.
type tokenError struct{ err error }

func (e tokenError) Error() string { return e.err.Error() }
func (e tokenError) Unwrap() error { return e.err }

// GRPCStatus returns Unauthenticated if a later call fails too, and Unavailable if a
// later refresh may succeed.
func (e tokenError) GRPCStatus() *status.Status {
	switch {
	case errors.Is(e.err, context.Canceled), errors.Is(e.err, context.DeadlineExceeded):
		return status.FromContextError(e.err)
	case reauth.IsPermanent(e.err), errors.Is(e.err, reauth.ErrLoggedOut), errors.Is(e.err, reauth.ErrClosed):
		return status.New(codes.Unauthenticated, e.err.Error())
	}
	return status.New(codes.Unavailable, e.err.Error())
}
