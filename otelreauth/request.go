package otelreauth

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/reauth-go/reauth"
)

// The results of a retry.
const (
	retryRecovered = "recovered"
	retryRejected  = "rejected"
	retryFailed    = "failed"
)

// outcome counts a request that was rejected, and adds events to its span. It ignores a
// request that had its token withheld and was not rejected.
func (i *Instrumentation) outcome(ctx context.Context, o reauth.Outcome, known hosts) {
	if o.Rejection.Reason == "" {
		return
	}
	server := known[o.Origin]
	rejection := i.with(server, attribute.String("reauth.rejection.reason", reasonValue(o.Rejection.Reason)))
	if o.NotRetried != "" {
		rejection = append(rejection, attribute.String("reauth.not_retried", string(o.NotRetried)))
	}
	i.instruments.rejections.Add(ctx, 1, metric.WithAttributes(rejection...))

	now := time.Now()
	span := trace.SpanFromContext(ctx)
	if span.IsRecording() {
		event := append(rejection, attempt(o.First)...)
		if o.Withheld != "" {
			event = append(event, attribute.String("reauth.withheld", string(o.Withheld)))
		}
		if o.Advice != "" {
			event = append(event, attribute.String("reauth.advice", string(o.Advice)))
		}
		span.AddEvent("reauth.rejection", trace.WithTimestamp(now.Add(-o.Elapsed)), trace.WithAttributes(event...))
	}
	if o.NotRetried != "" {
		return
	}

	retry := i.with(server, attribute.String("reauth.retry.result", retryResult(o)))
	i.instruments.retries.Add(ctx, 1, metric.WithAttributes(retry...))
	if span.IsRecording() {
		event := append(retry, attempt(o.Retry)...)
		if o.Retry.StatusCode == 0 {
			event = append(event, errorType(o.Err))
		}
		span.AddEvent("reauth.retry", trace.WithTimestamp(now), trace.WithAttributes(event...))
	}
}

// with returns Attributes, those of a server, and more.
func (i *Instrumentation) with(server []attribute.KeyValue, more ...attribute.KeyValue) []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, len(i.Attributes)+len(server)+len(more)+8)
	return append(append(append(all, i.Attributes...), server...), more...)
}

// retryResult returns the result of the retry.
func retryResult(o reauth.Outcome) string {
	switch {
	case o.Recovered():
		return retryRecovered
	case o.Retry.StatusCode != 0:
		return retryRejected
	}
	return retryFailed
}

// attempt returns the attributes of a send, which only an event has.
func attempt(a reauth.Attempt) []attribute.KeyValue {
	var attrs []attribute.KeyValue
	if a.StatusCode != 0 {
		attrs = append(attrs, semconv.HTTPResponseStatusCode(a.StatusCode))
	}
	if a.RequestID != "" {
		attrs = append(attrs, attribute.String("reauth.request_id", a.RequestID))
	}
	return append(attrs, fingerprint(a.Token)...)
}

// fingerprint returns the attribute of a token, if there is one.
func fingerprint(token string) []attribute.KeyValue {
	if token == "" {
		return nil
	}
	return []attribute.KeyValue{attribute.String("reauth.token.fingerprint", token)}
}

// reasonValue returns r if package reauth defines it. Such a Reason is refreshable, or
// has an Advice. A Classifier may return any other Reason, even a text of the server.
func reasonValue(r reauth.Reason) string {
	if r.Refreshable() || r.Advice() != "" {
		return string(r)
	}
	return other
}
