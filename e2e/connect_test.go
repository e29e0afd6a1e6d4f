package e2e_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
	"github.com/reauth-go/reauth/reauthtest"
)

// The procedures of the tests have the messages of gRPC's health service, so that no
// code has to be generated. Echo is no part of that service.
const (
	connectCheck = "/grpc.health.v1.Health/Check"
	connectWatch = "/grpc.health.v1.Health/Watch"
	connectEcho  = "/test.Echo/Echo"
)

type (
	healthRequest  = healthpb.HealthCheckRequest
	healthResponse = healthpb.HealthCheckResponse
)

// connectServer is a server of connect's, which speaks Connect, gRPC and gRPC-Web.
func connectServer() http.Handler {
	serving := &healthResponse{Status: healthpb.HealthCheckResponse_SERVING}
	mux := http.NewServeMux()
	mux.Handle(connectCheck, connect.NewUnaryHandler(connectCheck,
		func(_ context.Context, req *connect.Request[healthRequest]) (*connect.Response[healthResponse], error) {
			if req.Msg.Service != "db" {
				return nil, connect.NewError(connect.CodeNotFound, errors.New("no such service"))
			}
			return connect.NewResponse(serving), nil
		}))
	mux.Handle(connectWatch, connect.NewServerStreamHandler(connectWatch,
		func(_ context.Context, _ *connect.Request[healthRequest], stream *connect.ServerStream[healthResponse]) error {
			return errors.Join(stream.Send(serving), stream.Send(serving))
		}))
	mux.Handle(connectEcho, connect.NewBidiStreamHandler(connectEcho,
		func(_ context.Context, stream *connect.BidiStream[healthRequest, healthRequest]) error {
			for {
				msg, err := stream.Receive()
				if errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := stream.Send(msg); err != nil {
					return err
				}
			}
		}))
	return mux
}

func connectClient[Req, Res any](rig *sdkRig, procedure string, options ...connect.ClientOption) *connect.Client[Req, Res] {
	return connect.NewClient[Req, Res](rig.client, rig.api.URL()+procedure, options...)
}

func connectCalls(rig *sdkRig, options ...connect.ClientOption) []sdkCall {
	return []sdkCall{
		{"unary", func(ctx context.Context) (string, error) {
			got, err := connectClient[healthRequest, healthResponse](rig, connectCheck, options...).
				CallUnary(ctx, connect.NewRequest(&healthRequest{Service: "db"}))
			if err != nil {
				return "", err
			}
			return got.Msg.Status.String(), nil
		}, "SERVING"},
		{"server stream", func(ctx context.Context) (string, error) {
			stream, err := connectClient[healthRequest, healthResponse](rig, connectWatch, options...).
				CallServerStream(ctx, connect.NewRequest(&healthRequest{Service: "db"}))
			if err != nil {
				return "", err
			}
			defer stream.Close()
			var all []string
			for stream.Receive() {
				all = append(all, stream.Msg().Status.String())
			}
			return strings.Join(all, " "), stream.Err()
		}, "SERVING SERVING"},
	}
}

// connectOutcome is how the caller of connect gets the request ids: the context has
// them. The error has the headers of the response for some calls only.
func connectOutcome(t *testing.T, err error, last func() reauth.Outcome) (int, reauth.Outcome) {
	t.Helper()
	require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err))
	return last().Retry.StatusCode, last()
}

// What stands before the server rejects the token, with a 401.
func TestConnectCallsSurviveA401(t *testing.T) {
	t.Parallel()
	for _, protocol := range []struct {
		name    string
		options []connect.ClientOption
	}{
		{"Connect", nil},
		{"gRPC", []connect.ClientOption{connect.WithGRPC()}},
		{"gRPC-Web", []connect.ClientOption{connect.WithGRPCWeb()}},
	} {
		t.Run(protocol.name, func(t *testing.T) {
			t.Parallel()
			sdk{
				serve: connectServer,
				calls: func(_ *testing.T, rig *sdkRig) []sdkCall {
					return connectCalls(rig, protocol.options...)
				},
				outcome: connectOutcome,
			}.holds(t)
		})
	}
}

// connectRejection is the response of connect's server.
var connectRejection = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_ = connect.NewErrorWriter().Write(w, r, connect.NewError(connect.CodeUnauthenticated, errors.New("invalid token")))
})

// grpcRejection is the response of grpc-go's server: an error alone has its status in
// the header.
var grpcRejection = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.Header().Set("Grpc-Status", "16")
	w.Header().Set("Grpc-Message", "invalid token")
})

// The server itself rejects the token, in the protocol of the client. In Connect a
// unary call gets a 401. A stream, and every call of gRPC, gets a 200. A Classifier
// sees the status of gRPC if it is in the header, and not if it is in the trailer,
// where connect's server puts it.
func TestConnectCallsSurviveAnUnauthenticatedStatus(t *testing.T) {
	t.Parallel()
	grpcOnly, web := []connect.ClientOption{connect.WithGRPC()}, []connect.ClientOption{connect.WithGRPCWeb()}
	grpcStatus := classifier.Chain(classifier.GRPC(), reauth.DefaultClassifier())
	const unary, stream = 0, 1
	for _, tt := range []struct {
		name       string
		rejection  http.Handler
		options    []connect.ClientOption
		call       int
		classifier reauth.Classifier
		retried    bool
	}{
		{"Connect, unary", connectRejection, nil, unary, nil, true},
		{"Connect, stream", connectRejection, nil, stream, nil, false}, // the error is the last message of a 200
		{"gRPC, unary, default Classifier", grpcRejection, grpcOnly, unary, nil, false},
		{"gRPC, unary", grpcRejection, grpcOnly, unary, grpcStatus, true},
		{"gRPC, stream", grpcRejection, grpcOnly, stream, grpcStatus, true},
		{"gRPC, unary, status in the trailer", connectRejection, grpcOnly, unary, grpcStatus, false},
		{"gRPC-Web, unary", connectRejection, web, unary, grpcStatus, true},
		{"gRPC-Web, stream", connectRejection, web, stream, grpcStatus, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rig := newSDKRigOverTLS(t, connectServer(), func(rig *sdkRig) {
				rig.api.SetRejection(tt.rejection)
				rig.transport.Classifier = tt.classifier
			})
			call := connectCalls(rig, tt.options...)[tt.call]
			got, err := call.do(t.Context())
			require.NoError(t, err)
			require.Equal(t, call.want, got)

			rig.issuer.Revoke()
			got, err = call.do(t.Context())
			if !tt.retried {
				assert.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err))
				assert.Equal(t, 2, rig.api.Sends())
				return
			}
			require.NoError(t, err)
			assert.Equal(t, call.want, got)
			assert.Equal(t, 3, rig.api.Sends())
			assert.Equal(t, 2, rig.issuer.Refreshes())

			rig.issuer.Revoke()
			rig.issuer.Refuse(true)
			_, err = call.do(t.Context())
			assert.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err))
			assert.Equal(t, 5, rig.api.Sends())
			assert.Equal(t, 3, rig.issuer.Refreshes())
		})
	}
}

// A stream of both directions is repeated while what was sent fits into
// MaxReplayBytes, and lives on when its token is revoked.
func TestConnectBidiStreamSurvivesARevocation(t *testing.T) {
	t.Parallel()
	for _, protocol := range []struct {
		name    string
		options []connect.ClientOption
	}{
		{"Connect", nil},
		{"gRPC", []connect.ClientOption{connect.WithGRPC()}},
	} {
		t.Run(protocol.name, func(t *testing.T) {
			t.Parallel()
			rig := newSDKRigOverTLS(t, connectServer())
			echo := connectClient[healthRequest, healthRequest](rig, connectEcho, protocol.options...)
			_, err := connectCalls(rig)[0].do(t.Context())
			require.NoError(t, err)

			rig.api.Next(reauthtest.RejectEarly()) // or the API reads the stream to its end first
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			stream := echo.CallBidiStream(ctx)
			for i, word := range []string{"so", "it", "goes"} {
				require.NoError(t, stream.Send(&healthRequest{Service: word}))
				got, err := stream.Receive()
				require.NoError(t, err)
				assert.Equal(t, word, got.Service)
				if i == 1 {
					rig.issuer.Revoke() // during the stream
				}
			}
			require.NoError(t, stream.CloseRequest())
			_, err = stream.Receive()
			require.ErrorIs(t, err, io.EOF)
			require.NoError(t, stream.CloseResponse())
			assert.Equal(t, 3, rig.api.Sends())
			assert.Equal(t, 2, rig.issuer.Refreshes())
			rig.carriesOnlyTokens(t)
		})
	}
}
