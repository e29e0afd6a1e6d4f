package otelreauth

import (
	"context"
	"errors"
	"net"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/reauth-go/reauth"
)

// other stands for a value that is not in the closed set.
const other = "_OTHER"

// beforeExpiry is the reason of a refresh that neither a rejection nor an expiry caused.
const beforeExpiry = "before_expiry"

// spanKey is the key of the span that an Instrumentation has started, as the innermost
// span of the context may be another one.
type spanKey struct{ *Instrumentation }

// startRefresh starts the span of a refresh. If OnRefresh is not called, the span is
// not ended: a Credential with a Store has then found that a permanent failure
// persists.
func (i *Instrumentation) startRefresh(ctx context.Context) context.Context {
	ctx, span := i.tracer.Start(ctx, "reauth.refresh", trace.WithAttributes(i.Attributes...))
	return context.WithValue(ctx, spanKey{i}, span)
}

// endRefresh measures a refresh, and ends its span. If the refresh outlived its timeout,
// the span has ended, and cannot change.
func (i *Instrumentation) endRefresh(ctx context.Context, info reauth.RefreshInfo) {
	result := i.with(nil, attribute.String("reauth.refresh.result", string(info.Result)))
	if info.Shared {
		result = append(result, attribute.Bool("reauth.refresh.shared", true))
	}
	if info.Result == reauth.RefreshFailed {
		result = append(result, errorType(info.Err))
	}
	i.instruments.duration.Record(ctx, info.Duration.Seconds(), metric.WithAttributes(result...))
	i.instruments.waiters.Record(ctx, int64(info.Waiters), metric.WithAttributes(result...))
	result = append(result, attribute.String("reauth.refresh.reason", refreshReason(info.Reason)))
	i.instruments.refreshes.Add(ctx, 1, metric.WithAttributes(result...))

	span, ok := ctx.Value(spanKey{i}).(trace.Span)
	if !ok { // BaseContext panicked
		return
	}
	span.SetAttributes(append(result, attribute.Int("reauth.refresh.waiters", info.Waiters))...)
	span.SetAttributes(fingerprint(info.Token)...)
	if info.Result == reauth.RefreshFailed {
		span.SetStatus(codes.Error, info.Err.Error())
	}
	span.End()
}

// refreshReason returns the value for the Reason of a RefreshInfo.
func refreshReason(r reauth.Reason) string {
	if r == "" {
		return beforeExpiry
	}
	return reasonValue(r)
}

// errorType returns the kind of an error, as the text is not bounded.
func errorType(err error) attribute.KeyValue {
	var timeout net.Error // context.DeadlineExceeded too
	kind := other
	switch {
	case reauth.IsLoginEnded(err):
		kind = "login_ended"
	case reauth.IsPermanent(err):
		kind = "permanent"
	case reauth.IsAnswerLost(err):
		kind = "answer_lost"
	case errors.As(err, &timeout) && timeout.Timeout():
		kind = "timeout"
	case errors.Is(err, context.Canceled):
		kind = "canceled"
	}
	return semconv.ErrorTypeKey.String(kind)
}
