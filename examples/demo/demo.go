package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/reauthtest"
)

// callers is how many callers there are. Each sends about two requests a second.
const callers = 100

// The states of a caller.
const (
	working = 'w'
	waiting = 'r' // for a refresh
	failed  = 'x' // the last request failed
)

// A demo is the API, its issuer, the client that all callers share, and what the page
// shows of them.
type demo struct {
	issuer *reauthtest.Issuer
	api    *reauthtest.API
	cred   *reauth.Credential
	client *http.Client
	wg     sync.WaitGroup // of the callers

	mu      sync.Mutex // guards all below
	streams int
	stop    context.CancelFunc // ends the callers; set while there are streams
	state   snapshot
	callers [callers]byte
	entries map[string][]entry // the latest of each kind
}

// A snapshot is what the page shows at one time.
type snapshot struct {
	Requests   int     `json:"requests"`    // that callers sent, and have the outcome of
	Rejections int     `json:"rejections"`  // 401s that the API sent
	Failures   int     `json:"failures"`    // requests whose caller got no 200
	Refreshes  int     `json:"refreshes"`   // that succeeded
	Refreshing bool    `json:"refreshing"`  // a refresh is in progress
	IssuerDown bool    `json:"issuer_down"` // the issuer answers 503
	Token      string  `json:"token"`       // the fingerprint of the token
	Callers    string  `json:"callers"`     // a state each
	Entries    []entry `json:"entries"`     // since the snapshot before
	Seq        int     `json:"-"`           // of the latest entry
}

// An entry is something that happened: an event (a button, or a refresh), a recovery (a
// request that was rejected, and whose retry succeeded), or a line of the log.
type entry struct {
	Kind         string `json:"kind"`
	Seq          int    `json:"-"`
	UnixMilli    int64  `json:"time"`
	Text         string `json:"text"`
	Label        string `json:"label,omitempty"` // of an event, on the timeline
	First        string `json:"first,omitempty"` // request ids of a recovery
	Retry        string `json:"retry,omitempty"`
	Milliseconds int64  `json:"ms,omitempty"` // from the 401 to the response of the retry
}

// The kinds of entries, and how many are kept of each.
const (
	event    = "event"
	recovery = "recovery"
	logLine  = "log"
	retained = callers
)

func newDemo(latency time.Duration) *demo {
	d := &demo{issuer: reauthtest.NewIssuer(), entries: map[string][]entry{}}
	d.api = reauthtest.NewAPI(d.issuer, nil)
	log := slog.New(slog.NewTextHandler(logWriter{d}, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{} // the page shows the time of an entry
			}
			return a
		},
	}))
	d.cred = &reauth.Credential{
		Refresher:    d.refresher(latency),
		MaxBackoff:   2 * time.Second, // the default is a minute: long to wait for when the issuer is back
		RefreshEvery: time.Second,     // the default is 6 seconds: a visitor may revoke more often
		Logger:       log,
		OnRefresh:    d.onRefresh,
	}
	d.client = &http.Client{Transport: &reauth.Transport{
		Base:       &observer{&http.Transport{MaxIdleConnsPerHost: callers}, d},
		Credential: d.cred,
		Logger:     log,
	}}
	return d
}

// close ends all that the demo has started. It is called when there is no stream.
func (d *demo) close() {
	d.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = d.cred.Shutdown(ctx)
	d.client.CloseIdleConnections()
	d.api.Close()
	d.issuer.Close()
}

// refresher returns the issuer as a Refresher that takes its time.
func (d *demo) refresher(latency time.Duration) reauth.RefresherFunc {
	return func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		d.update(func() { d.state.Refreshing = true })
		defer d.update(func() { d.state.Refreshing = false })
		select {
		case <-time.After(latency):
			return d.issuer.Refresh(ctx, stale)
		case <-ctx.Done():
			return reauth.Token{}, context.Cause(ctx)
		}
	}
}

// update calls f with d.mu held.
func (d *demo) update(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// startCallers starts the callers, unless another stream has. The function that it
// returns ends them when the last stream ends: nobody looks, and the API of package
// reauthtest keeps all requests in memory.
func (d *demo) startCallers() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.streams++; d.streams == 1 {
		ctx, cancel := context.WithCancel(context.Background())
		d.stop = cancel
		for n := range d.callers {
			d.callers[n] = working
			d.wg.Go(func() { d.call(ctx, n) })
		}
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.streams--; d.streams == 0 {
			d.stop()
		}
	}
}

// callerKey is the context key of a caller's number.
type callerKey struct{}

// call is caller n: it sends a request, waits a moment, and begins anew until ctx ends.
func (d *demo) call(ctx context.Context, n int) {
	ctx = context.WithValue(ctx, callerKey{}, n)
	for {
		select {
		case <-time.After(200*time.Millisecond + rand.N(600*time.Millisecond)):
		case <-ctx.Done():
			return
		}
		d.update(func() { d.callers[n] = waiting }) // for a token, until the observer sees the request
		ok, outcome := d.send(ctx)
		if ctx.Err() != nil {
			return // the request was canceled
		}
		d.update(func() { d.finishLocked(n, ok, outcome) })
	}
}

// send sends a request, and reports whether the response is a 200.
func (d *demo) send(ctx context.Context) (bool, reauth.Outcome) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.api.URL(), strings.NewReader("hello"))
	if err != nil {
		return false, reauth.Outcome{}
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return false, reauth.Outcome{}
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	outcome, _ := reauth.OutcomeOf(resp)
	return err == nil && resp.StatusCode == http.StatusOK, outcome
}

// finishLocked notes what became of a request of caller n. d.mu must be held.
func (d *demo) finishLocked(n int, ok bool, o reauth.Outcome) {
	d.state.Requests++
	d.callers[n] = working
	if !ok {
		d.state.Failures++
		d.callers[n] = failed
	}
	if o.Recovered() {
		d.addLocked(entry{
			Kind: recovery, Text: fmt.Sprintf("caller %d", n+1),
			First: o.First.RequestID, Retry: o.Retry.RequestID, Milliseconds: o.Elapsed.Milliseconds(),
		})
	}
}

// An observer sends requests, and sees each send and each 401. What it does not see is
// a caller that waits for a token.
type observer struct {
	*http.Transport
	d *demo
}

func (o *observer) RoundTrip(req *http.Request) (*http.Response, error) {
	n := req.Context().Value(callerKey{}).(int)
	o.d.update(func() { o.d.callers[n] = working })
	resp, err := o.Transport.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		o.d.update(func() {
			o.d.state.Rejections++
			o.d.callers[n] = waiting
		})
	}
	return resp, err
}

// The buttons hold mu, so that the entry of a button comes before those of its effects.

func (d *demo) revoke() {
	d.update(func() {
		d.issuer.Revoke()
		d.addLocked(entry{Kind: event, Label: "revoked", Text: "Token revoked"})
	})
}

func (d *demo) expire() {
	d.update(func() {
		d.issuer.Expire()
		d.addLocked(entry{Kind: event, Label: "expired", Text: "Token expired"})
	})
}

func (d *demo) setIssuerDown(down bool) {
	e := entry{Kind: event, Label: "issuer back", Text: "Issuer brought back"}
	if down {
		e = entry{Kind: event, Label: "issuer down", Text: "Issuer taken down"}
	}
	d.update(func() {
		d.issuer.Down(down)
		d.state.IssuerDown = down
		d.addLocked(e)
	})
}

// onRefresh is the OnRefresh of the Credential.
func (d *demo) onRefresh(_ context.Context, info reauth.RefreshInfo) {
	d.mu.Lock()
	defer d.mu.Unlock()
	took := info.Duration.Round(time.Millisecond)
	var failure *reauth.RefreshError
	switch {
	case info.Result == reauth.RefreshSucceeded:
		d.state.Refreshes++
		d.addLocked(entry{Kind: event, Label: "refreshed", Text: fmt.Sprintf("Token %s obtained in %v, for %d waiting requests", info.Token, took, info.Waiters)})
	case errors.As(info.Err, &failure):
		d.addLocked(entry{Kind: event, Label: "refresh failed", Text: fmt.Sprintf("Refresh failed after %v; backs off for %v", took, failure.RetryAfter().Round(10*time.Millisecond))})
	}
}

// addLocked adds an entry. d.mu must be held.
func (d *demo) addLocked(e entry) {
	d.state.Seq++
	e.Seq, e.UnixMilli = d.state.Seq, time.Now().UnixMilli()
	list := append(d.entries[e.Kind], e)
	d.entries[e.Kind] = list[max(0, len(list)-retained):]
}

// snapshot returns the state of the demo, with the entries after the one with that Seq.
// They are in order within each kind.
func (d *demo) snapshot(after int) snapshot {
	tok, _ := d.cred.Current()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	s.Token, s.Callers = tok.Fingerprint(), string(d.callers[:])
	for _, list := range d.entries {
		for _, e := range list {
			if e.Seq > after {
				s.Entries = append(s.Entries, e)
			}
		}
	}
	return s
}

// A logWriter makes entries of the lines of the log.
type logWriter struct{ d *demo }

func (w logWriter) Write(line []byte) (int, error) {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	w.d.addLocked(entry{Kind: logLine, Text: strings.TrimSpace(string(line))})
	return len(line), nil
}
