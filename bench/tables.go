package main

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// heading says what was measured where.
func heading(rounds int) string {
	return fmt.Sprintf("Measured with `go run .` in bench/ on %s: %s, %s/%s, %d CPUs; medians of %d rounds.\n\n",
		time.Now().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), rounds)
}

// A table is text in Markdown.
type table struct{ strings.Builder }

func newTable(heads ...string) *table {
	t := &table{}
	t.line(heads...)
	t.line(slices.Repeat([]string{"---"}, len(heads))...)
	return t
}

func (t *table) line(cells ...string) {
	fmt.Fprintf(t, "| %s |\n", strings.Join(cells, " | "))
}

// end returns the text, with an empty line after it.
func (t *table) end() string { return t.String() + "\n" }

// limitsTable compares reauth with the limits of each row.
func limitsTable(measured []costs) string {
	t := newTable("reauth (limit)", "added time / floor", "added time / x/oauth2", "request time / x/oauth2", "allocations added", "bytes added", "holds")
	for _, c := range measured {
		holds := "yes"
		cell := func(value, limit float64) string {
			if limit == 0 {
				return number(value)
			}
			if value > limit {
				holds = "no"
			}
			return fmt.Sprintf("%s (%s)", number(value), number(limit))
		}
		l, got := c.limits, c.ofOurs()
		floor := ""
		if c.index(leastWork.name) >= 0 {
			floor = cell(got.floor, l.floor)
		}
		oauth2 := ""
		if l.request == 0 { // else the added time is too small beside the request's
			oauth2 = cell(got.oauth2, l.oauth2)
		}
		t.line(c.title, floor, oauth2, cell(got.request, l.request),
			cell(got.allocs, l.allocs), cell(got.bytes, l.bytes), holds)
	}
	return t.end()
}

// number returns the number with two digits after the point at most.
func number(v float64) string {
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}

// loadTable has what reauth does under load.
func loadTable() string {
	const goroutines, times, credentials = 10_000, 50, 100_000
	t := newTable("reauth (limit)", "measured", "holds")
	var refreshes, failed int64
	for range times {
		r := sendRejected(ours, goroutines)
		refreshes, failed = max(refreshes, r.refreshes), failed+r.failed
	}
	t.line("10,000 goroutines with one rejected token, fifty times",
		fmt.Sprintf("at most %d refresh (1), %d failed (0)", refreshes, failed), yesNo(refreshes == 1 && failed == 0))
	idle := idleCredentials(credentials)
	t.line("100,000 Credentials used once",
		fmt.Sprintf("%.0f bytes of live heap each (1000), %d goroutines left (0)", idle.bytes, idle.goroutines),
		yesNo(idle.bytes <= 1000 && idle.goroutines <= 0))
	return t.end()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// freshTable has what each peer adds to the base while the token is good.
func freshTable(measured []costs) string {
	measured = slices.DeleteFunc(slices.Clone(measured), func(c costs) bool { return len(c.peers) < len(freshPeers) })
	heads := []string{"token is good: time and allocations above base (times x/oauth2)"}
	for _, c := range measured {
		heads = append(heads, c.title)
	}
	t := newTable(heads...)
	for _, p := range freshPeers {
		cells := []string{p.title()}
		for _, c := range measured {
			text := c.cell(p)
			if p.name != baseOnly.name && p.name != xoauth2.name {
				text += fmt.Sprintf(" (%.2f)", c.ratio(p.name, xoauth2.name))
			}
			cells = append(cells, text)
		}
		t.line(cells...)
	}
	return t.end()
}

// cell returns what the peer adds to the base, or what the base costs.
func (c costs) cell(p peer) string {
	sign, v := "+", c.added(p.name)
	if p.name == c.peers[0].name {
		sign, v = "", c.absolute(p.name)
	}
	s := fmt.Sprintf("%s%.0f ns, %s%.0f", sign, v.ns, sign, math.Round(v.allocs))
	if v.bytes >= 16<<10 {
		s += fmt.Sprintf(", %s%.0f KiB", sign, v.bytes/1024)
	}
	return s
}

// rejectedCallers is the number of callers in recoveryTable.
const rejectedCallers = 1000

// recoveryTable has what each peer does about a revoked token.
func recoveryTable(recovered costs, times int) string {
	t := newTable("token was revoked", "recovers", "one 401, above base", "1,000 callers: refreshes", "failed", "last one served after")
	t.line(leastRecovery.name, "the least work", recovered.cell(leastRecovery), "", "", "")
	for _, p := range rejectedPeers {
		r := sendRejectedTimes(p, rejectedCallers, times)
		above, last := "", "never"
		if recovered.index(p.name) >= 0 {
			above, last = recovered.cell(p), r.last.Round(time.Millisecond).String()
		}
		t.line(p.title(), verdict(recovers(p)), above, fmt.Sprint(r.refreshes), fmt.Sprint(r.failed), last)
	}
	return t.end()
}

func footnotes() string {
	return fmt.Sprintf(`- base is an http.RoundTripper in memory, the same for all: it reads and closes the request's body and returns a new response. Its own row is absolute. All others are what they add to it. For the revoked token it does the least work: two sends and a refresh.
- floor does the least that keeps reauth's promises: one look at the context, one at the clock, one pass over the headers, a copy of the request and of its header, and one value.
- All tokens expire in an hour, except in "no expiry". They have about 1,000 bytes, as JWTs do, except in the column that says otherwise: reauth makes the header's value once for each token, the others once for each request. A refresh calls a function in memory.
- 64 KiB without GetBody: reauth keeps the body as it is sent, to be able to replay it. azcore reads it to its end first. The others cannot send it again.
- 1 MiB over real TLS: a server in the same process, over loopback; all peers share one connection. The body has no GetBody.
- One 401: reauth's RetryWait is off, because no other peer waits. The 1,000 callers have the default of 100 ms, randomized by ±50%%.
- 1,000 callers: all have sent a token that was revoked when the first 401 comes. A refresh takes %v, a send %v to %v: some learn of the 401 after the refresh. Only refreshes made until the last caller was served are counted.
- azcore: BearerTokenPolicy in each retry of a Pipeline, retries and telemetry off. Making its request from an http.Request is part of the cost. It recovers by itself from challenges with claims only (CAE); "OnChallenge" has an AuthorizationHandler that asks for another token.
- client-go: ResettableTokenSourceWrapTransport over NewCachedTokenSource, the one of its wrappers that notices a 401. google/auth: httptransport.NewClient with DisableTelemetry.
- reauth's Logger discards, because no other peer has a log.
`, refreshTime, minSend, maxSend)
}
