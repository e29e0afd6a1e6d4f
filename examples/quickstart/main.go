// Quickstart shows what reauth does, on loopback: a gateway that answers a bad
// key as new-api does, with 无效的令牌 and a request id, an issuer of new keys, and
// a client between them to which it never happens.
//
// It exits with status 1 if anything did not go as it should.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Println("\nFAILED:", err)
		os.Exit(1)
	}
	fmt.Println("\nEverything went as it should.")
}

// A demo is the gateway, its issuer, and the client that the user would make.
type demo struct {
	gateway *gateway
	issuer  *reauthtest.Issuer
	client  *http.Client
}

func run(ctx context.Context) error {
	i := reauthtest.NewIssuer()
	defer i.Close()
	i.SetLifetime(time.Hour)
	g := newGateway(i)
	defer g.Close()

	out := &logLines{}
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{} // shorter lines
			}
			return a
		},
	}))
	cred := &reauth.Credential{Refresher: i, Logger: log}
	d := &demo{gateway: g, issuer: i, client: &http.Client{
		Transport: &reauth.Transport{Credential: cred, Logger: log},
	}}

	for _, scene := range []struct {
		title string
		play  func(context.Context) error
	}{
		{"The first request logs in", d.first},
		{"The key expires: the next request is refused, and cured", d.expiry},
		{"The key is revoked under 100 concurrent callers: one refresh", d.revocation},
		{"A streamed upload is refused halfway: nothing of it is lost", d.upload},
		{"The issuer is down: the caller gets the 401, and is well when the issuer is", d.outage},
		{"A redirect leads to another host: the key stays here", d.redirect},
	} {
		fmt.Println("\n== " + scene.title)
		before := i.Refreshes()
		i.Next(reauthtest.Stall(after(latency)))
		if err := scene.play(ctx); err != nil {
			return fmt.Errorf("%s: %w", scene.title, err)
		}
		out.flush()
		fmt.Println("refreshes:", i.Refreshes()-before)
	}
	return nil
}

// logLines prints the first three lines of the log in a scene, and then how many
// more there were.
type logLines struct {
	mu sync.Mutex
	n  int
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n++; l.n <= 3 {
		fmt.Printf("log: %s", line)
	}
	return len(line), nil
}

func (l *logLines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n > 3 {
		fmt.Printf("log: … and %d more, one for each request that met a 401\n", l.n-3)
	}
	l.n = 0
}

func (d *demo) first(ctx context.Context) error {
	return d.expect(d.post(ctx, strings.NewReader("hello")), http.StatusOK, false)
}

func (d *demo) expiry(ctx context.Context) error {
	d.gateway.reject("该令牌已过期")
	return d.expect(d.post(ctx, strings.NewReader("hello")), http.StatusOK, true)
}

func (d *demo) revocation(ctx context.Context) error {
	d.gateway.reject("无效的令牌")
	before := d.issuer.Refreshes()
	results := make([]result, 100)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { results[i] = d.post(ctx, strings.NewReader("hello")) })
	}
	wg.Wait()
	cured := 0
	for _, r := range results {
		if r.err != nil || r.status != http.StatusOK {
			return fmt.Errorf("a caller got status %d, error %v", r.status, r.err)
		}
		if r.outcome.Recovered() {
			cured++
		}
	}
	fmt.Printf("callers served: %d, of which met a 401 and were cured: %d\n", len(results), cured)
	if n := d.issuer.Refreshes() - before; n != 1 || cured == 0 {
		return fmt.Errorf("%d refreshes, %d cured", n, cured)
	}
	return nil
}

func (d *demo) upload(ctx context.Context) error {
	d.gateway.reject("无效的令牌")
	// A pipe can be read once only. The second half is written when the first
	// half has been taken, so the refusal comes in the middle.
	r, w := io.Pipe()
	go func() {
		half := strings.Repeat("x", 100_000)
		_, _ = io.WriteString(w, half)
		_, err := io.WriteString(w, half)
		_ = w.CloseWithError(err)
	}()
	got := d.post(ctx, r)
	if want := "received 200000 bytes"; got.err == nil && got.body != want {
		return fmt.Errorf("the gateway %s, not %s", got.body, want)
	}
	return d.expect(got, http.StatusOK, true)
}

func (d *demo) outage(ctx context.Context) error {
	d.issuer.Down(true)
	d.gateway.reject("无效的令牌")
	got := d.post(ctx, strings.NewReader("hello"))
	if err := d.expect(got, http.StatusUnauthorized, false); err != nil {
		return err
	}
	var failure *reauth.RefreshError
	if !errors.As(got.outcome.Err, &failure) {
		return fmt.Errorf("the outcome does not show the failed refresh: %v", got.outcome.Err)
	}
	fmt.Println("the issuer comes back; it is asked again after a pause of", time.Until(failure.RetryAt).Round(10*time.Millisecond))
	d.issuer.Down(false)
	select {
	case <-time.After(time.Until(failure.RetryAt)):
	case <-ctx.Done():
		return ctx.Err()
	}
	return d.expect(d.post(ctx, strings.NewReader("hello")), http.StatusOK, true)
}

func (d *demo) redirect(ctx context.Context) error {
	s := newStorage()
	defer s.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.gateway.URL+"/download?from="+s.URL, nil)
	if err != nil {
		return err
	}
	got := d.send(req)
	if err := d.expect(got, http.StatusOK, false); err != nil {
		return err
	}
	fmt.Printf("the other host was sent Authorization %q\n", s.seen)
	if len(s.seen) != 1 || s.seen[0] != "" {
		return errors.New("the key went to the other host")
	}
	return nil
}

// A result is what a caller sees of his request.
type result struct {
	status  int
	body    string
	outcome reauth.Outcome
	err     error
}

func (d *demo) post(ctx context.Context, body io.Reader) result {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.gateway.URL+"/v1/chat/completions", body)
	if err != nil {
		return result{err: err}
	}
	return d.send(req)
}

func (d *demo) send(req *http.Request) result {
	resp, err := d.client.Do(req)
	if err != nil {
		return result{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	outcome, _ := reauth.OutcomeOf(resp)
	if outcome.First.StatusCode == 0 { // uneventful
		outcome.First = reauth.Attempt{StatusCode: resp.StatusCode, RequestID: reauth.RequestID(resp)}
	}
	return result{resp.StatusCode, string(body), outcome, err}
}

// expect prints a result and holds it against what it should be.
func (d *demo) expect(got result, status int, cured bool) error {
	if got.err != nil {
		return got.err
	}
	o := got.outcome
	fmt.Printf("outcome: %d %s\n", got.status, got.body)
	if o.Retry.StatusCode != 0 {
		fmt.Printf("         first  %d, request id %s, key %s: %s\n", o.First.StatusCode, o.First.RequestID, o.First.Token, o.Rejection.Reason)
		fmt.Printf("         retry  %d, request id %s, key %s\n", o.Retry.StatusCode, o.Retry.RequestID, o.Retry.Token)
	} else if o.First.RequestID != "" {
		fmt.Printf("         request id %s\n", o.First.RequestID)
	}
	switch {
	case got.status != status:
		return fmt.Errorf("status %d, want %d", got.status, status)
	case o.Recovered() != cured:
		return fmt.Errorf("cured: %t, want %t", o.Recovered(), cured)
	case cured && (o.First.RequestID == "" || o.Retry.RequestID == "" || o.First.RequestID == o.Retry.RequestID):
		return fmt.Errorf("request ids %q and %q", o.First.RequestID, o.Retry.RequestID)
	}
	return nil
}
