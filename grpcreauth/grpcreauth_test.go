package grpcreauth_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/grpcreauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// A rig is a gRPC server on loopback that accepts the tokens of an Issuer, and a
// connection to it. It has gRPC's health service, and sends every stream of another
// service back.
type rig struct {
	issuer *reauthtest.Issuer
	cred   *reauth.Credential
	conn   *grpc.ClientConn
	sends  atomic.Int32

	mu   sync.Mutex
	seen []string // authorization of each call
}

func newRig(t *testing.T, change ...func(*grpcreauth.Client)) *rig {
	t.Helper()
	r := &rig{issuer: reauthtest.NewIssuer()}
	t.Cleanup(r.issuer.Close)
	server := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if err := r.check(ctx); err != nil {
				return nil, err
			}
			return handle(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if err := r.check(stream.Context()); err != nil {
				return err
			}
			return handle(srv, stream)
		}),
		grpc.UnknownServiceHandler(echo),
	)
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	r.cred = &reauth.Credential{Refresher: r.issuer, Logger: slog.New(slog.DiscardHandler)}
	auth := &grpcreauth.Client{Credential: r.cred, AllowInsecure: true, RetryWait: time.Millisecond}
	for _, c := range change {
		c(auth)
	}
	r.conn, err = grpc.NewClient(listener.Addr().String(), append(auth.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.conn.Close() })
	return r
}

func (r *rig) check(ctx context.Context) error {
	r.sends.Add(1)
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	r.mu.Lock()
	r.seen = append(r.seen, values...)
	r.mu.Unlock()
	if len(values) != 1 || !r.issuer.Valid(strings.TrimPrefix(values[0], "Bearer ")) {
		return status.Error(codes.Unauthenticated, "invalid token")
	}
	return nil
}

func echo(_ any, stream grpc.ServerStream) error {
	for {
		var m healthpb.HealthCheckRequest
		if err := stream.RecvMsg(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&m); err != nil {
			return err
		}
	}
}

func (r *rig) echo(ctx context.Context) (grpc.ClientStream, error) {
	return r.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/Echo")
}

// The kinds of calls, which the tests make by turns.
var calls = []struct {
	name string
	do   func(context.Context, *rig) error
}{
	{"unary", func(ctx context.Context, r *rig) error {
		_, err := healthpb.NewHealthClient(r.conn).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	}},
	{"server stream", func(ctx context.Context, r *rig) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := healthpb.NewHealthClient(r.conn).Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}},
	{"bidi stream, by turns", func(ctx context.Context, r *rig) error {
		stream, err := r.echo(ctx)
		if err != nil {
			return err
		}
		for _, word := range []string{"so", "it", "goes"} {
			if err := stream.SendMsg(&healthpb.HealthCheckRequest{Service: word}); err != nil {
				return err
			}
			if err := receive(stream, word); err != nil {
				return err
			}
		}
		return finish(stream)
	}},
	{"bidi stream, all sent first", func(ctx context.Context, r *rig) error {
		stream, err := r.echo(ctx)
		if err != nil {
			return err
		}
		words := strings.Fields(strings.Repeat("so it goes ", 20))
		for _, word := range words {
			if err := stream.SendMsg(&healthpb.HealthCheckRequest{Service: word}); errors.Is(err, io.EOF) {
				break // RecvMsg returns the status
			} else if err != nil {
				return err
			}
		}
		if err := stream.CloseSend(); err != nil {
			return err
		}
		for _, word := range words {
			if err := receive(stream, word); err != nil {
				return err
			}
		}
		return finish(stream)
	}},
}

func receive(stream grpc.ClientStream, want string) error {
	var m healthpb.HealthCheckRequest
	if err := stream.RecvMsg(&m); err != nil {
		return err
	}
	if m.Service != want {
		return errors.New("got " + m.Service + ", want " + want)
	}
	return nil
}

// finish ends a stream that has no more messages.
func finish(stream grpc.ClientStream) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if err := stream.RecvMsg(&healthpb.HealthCheckRequest{}); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func TestCallsSurviveARejectedToken(t *testing.T) {
	t.Parallel()
	for _, call := range calls {
		t.Run(call.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			require.NoError(t, call.do(t.Context(), r))
			require.EqualValues(t, 1, r.sends.Load())
			r.issuer.Revoke()
			require.NoError(t, call.do(t.Context(), r))
			assert.EqualValues(t, 3, r.sends.Load())
			assert.Equal(t, 2, r.issuer.Refreshes())
		})
	}
}

func TestCallsRejectedForGoodAreSentTwice(t *testing.T) {
	t.Parallel()
	for _, call := range calls {
		t.Run(call.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			require.NoError(t, call.do(t.Context(), r))
			r.issuer.Revoke()
			r.issuer.Refuse(true)
			err := call.do(t.Context(), r)
			assert.Equal(t, codes.Unauthenticated, status.Code(err))
			assert.ErrorContains(t, err, "invalid token", "the server's own words")
			assert.EqualValues(t, 3, r.sends.Load())
			assert.Equal(t, 2, r.issuer.Refreshes())

			r.issuer.Refuse(false)
			tok, err := r.issuer.Refresh(t.Context(), reauth.Stale{})
			require.NoError(t, err)
			require.NoError(t, r.cred.Set(t.Context(), tok))
			assert.NoError(t, call.do(t.Context(), r), "after a login")
		})
	}
}

// If the refresh fails, the caller gets the status of the server.
func TestCallsReturnTheRejectionIfTheRefreshFails(t *testing.T) {
	t.Parallel()
	for _, call := range calls {
		t.Run(call.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			require.NoError(t, call.do(t.Context(), r))
			r.issuer.Revoke()
			r.issuer.Next(reauthtest.InvalidGrant())
			err := call.do(t.Context(), r)
			assert.Equal(t, codes.Unauthenticated, status.Code(err))
			assert.ErrorContains(t, err, "invalid token")
			assert.EqualValues(t, 2, r.sends.Load())
		})
	}
}

func TestCallsWithoutATokenAreNotSent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  error
		want codes.Code
	}{
		{"for now", errors.New("the issuer is down"), codes.Unavailable},
		{"for good", reauth.Permanent(errors.New("invalid_grant")), codes.Unauthenticated},
	} {
		for _, call := range calls {
			t.Run(tt.name+", "+call.name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				r.cred.Refresher = reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
					return reauth.Token{}, tt.err
				})
				err := call.do(t.Context(), r)
				assert.Equal(t, tt.want, status.Code(err))
				var failure *reauth.RefreshError
				assert.ErrorAs(t, err, &failure)
				assert.Zero(t, r.sends.Load())
			})
		}
	}
}

func TestOtherStatusesAreReturned(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := healthpb.NewHealthClient(r.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "unknown"})
	assert.Equal(t, codes.NotFound, status.Code(err))
	assert.EqualValues(t, 1, r.sends.Load())
	assert.Equal(t, 1, r.issuer.Refreshes())
}

func TestCallsAtOnceShareOneRefresh(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	require.NoError(t, calls[0].do(t.Context(), r))
	r.issuer.Revoke()
	var wg sync.WaitGroup
	for i := range 20 {
		call := calls[i%len(calls)]
		wg.Go(func() { assert.NoError(t, call.do(t.Context(), r), call.name) })
	}
	wg.Wait()
	assert.Equal(t, 2, r.issuer.Refreshes())
}

// A stream that has begun is not ended by a revocation, nor by its Client.
func TestStreamGoesOnAfterARevocation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stream, err := r.echo(t.Context())
	require.NoError(t, err)
	for _, word := range []string{"so", "it"} {
		require.NoError(t, stream.SendMsg(&healthpb.HealthCheckRequest{Service: word}))
		require.NoError(t, receive(stream, word))
		r.issuer.Revoke()
	}
	require.NoError(t, calls[0].do(t.Context(), r))
	require.NoError(t, stream.SendMsg(&healthpb.HealthCheckRequest{Service: "goes"}))
	require.NoError(t, receive(stream, "goes"))
	require.NoError(t, finish(stream))
	assert.EqualValues(t, 3, r.sends.Load())
}

// A stream that sent more than is kept gets the status of the server. The refresh is
// left to the next call.
func TestStreamIsRetriedUpToMaxReplayBytes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		keep    int
		retried bool
	}{{"default", 0, true}, {"enough", 5000, true}, {"too little", 3000, false}, {"nothing", -1, false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *grpcreauth.Client) { c.MaxReplayBytes = tt.keep })
			require.NoError(t, calls[0].do(t.Context(), r))
			r.issuer.Revoke()
			stream, err := r.echo(t.Context())
			require.NoError(t, err)
			word := strings.Repeat("x", 1000)
			for range 4 {
				// A stream that has ended is EOF for a message that is not kept.
				if err := stream.SendMsg(&healthpb.HealthCheckRequest{Service: word}); err != nil {
					require.ErrorIs(t, err, io.EOF)
					require.False(t, tt.retried)
				}
			}
			if !tt.retried {
				assert.Equal(t, codes.Unauthenticated, status.Code(receive(stream, word)))
				assert.EqualValues(t, 2, r.sends.Load())
				assert.NoError(t, calls[0].do(t.Context(), r))
				return
			}
			for range 4 {
				require.NoError(t, receive(stream, word))
			}
			require.NoError(t, finish(stream))
			assert.EqualValues(t, 3, r.sends.Load())
		})
	}
}

// Messages go in both directions at once, across a rejection.
func TestStreamMayBeSentAndReceivedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	require.NoError(t, calls[0].do(t.Context(), r))
	r.issuer.Revoke()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := r.echo(ctx)
	require.NoError(t, err)
	const messages = 500
	word := strings.Repeat("x", 1000) // together more than the window for flow control
	var wg sync.WaitGroup
	wg.Go(func() {
		for range messages {
			if !assert.NoError(t, stream.SendMsg(&healthpb.HealthCheckRequest{Service: word})) {
				return
			}
		}
		assert.NoError(t, stream.CloseSend())
	})
	for range messages {
		require.NoError(t, receive(stream, word))
	}
	wg.Wait()
	require.NoError(t, finish(stream))
	assert.EqualValues(t, 3, r.sends.Load())
}

func TestCallWithItsOwnAuthorizationIsSentUnchanged(t *testing.T) {
	t.Parallel()
	for _, call := range calls {
		t.Run(call.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer of-its-own")
			assert.Equal(t, codes.Unauthenticated, status.Code(call.do(ctx, r)))
			assert.Equal(t, []string{"Bearer of-its-own"}, r.seen)
			assert.Zero(t, r.issuer.Refreshes())
		})
	}
}

func TestTokenIsNeverSentWithoutTransportSecurity(t *testing.T) {
	t.Parallel()
	auth := &grpcreauth.Client{Credential: &reauth.Credential{}}
	_, err := grpc.NewClient("127.0.0.1:1", append(auth.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	assert.ErrorContains(t, err, "transport level security")
}

// A caller that gives up gets its own status, while the refresh goes on.
func TestCallEndsWithItsContextDuringARefresh(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	release := make(chan struct{})
	r.issuer.Next(reauthtest.Stall(release))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Equal(t, codes.Canceled, status.Code(calls[0].do(ctx, r)))
	close(release)
	require.NoError(t, calls[0].do(t.Context(), r))
	assert.Equal(t, 1, r.issuer.Refreshes())
}
