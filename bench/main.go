// Command bench measures reauth beside its peers, in one run and over the same
// in-memory Base, and prints the tables.
//
//	go run .        what requests cost
//	go run . sim    how a Credential behaves when something goes wrong, in fake time
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

func main() {
	testing.Init() // testing.Benchmark takes its time from -test.benchtime
	rounds := flag.Int("rounds", 9, "how often each is measured; the table shows medians")
	each := flag.Duration("time", 100*time.Millisecond, "how long, each time")
	flag.Parse()
	if *rounds < 1 || *each <= 0 {
		log.Fatal("-rounds and -time have to be positive")
	}
	if err := flag.Set("test.benchtime", each.String()); err != nil {
		log.Fatal(err)
	}
	if flag.Arg(0) == "sim" {
		simulate(os.Stdout)
	}
	fmt.Print(tables(*rounds))
}

// A cost is what one request costs.
type cost struct{ ns, allocs, bytes float64 }

func (c cost) minus(o cost) cost { return cost{c.ns - o.ns, c.allocs - o.allocs, c.bytes - o.bytes} }

// measure returns what each of the row's peers adds to the base, and what the
// base itself costs: medians of rounds in which they take turns.
func measure(r row, rounds int) map[string]cost {
	all := map[string][]cost{}
	for range rounds {
		var base cost
		for i, p := range r.peers {
			res := testing.Benchmark(func(b *testing.B) { r.run(b, p) })
			if res.N == 0 { // skipped
				continue
			}
			n := float64(res.N)
			c := cost{float64(res.T.Nanoseconds()) / n, float64(res.MemAllocs) / n, float64(res.MemBytes) / n}
			if i == 0 {
				base = c
			} else {
				c = c.minus(base)
			}
			all[p.name] = append(all[p.name], c)
		}
	}
	medians := map[string]cost{}
	for name, costs := range all {
		medians[name] = cost{
			median(costs, func(c cost) float64 { return c.ns }),
			median(costs, func(c cost) float64 { return c.allocs }),
			median(costs, func(c cost) float64 { return c.bytes }),
		}
	}
	return medians
}

func median[T any](all []T, of func(T) float64) float64 {
	var values []float64
	for _, v := range all {
		values = append(values, of(v))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// tables measures everything and returns it as Markdown.
func tables(rounds int) string {
	var out strings.Builder
	fmt.Fprintf(&out, "Measured with `go run .` in bench/ on %s: %s, %s/%s, %d CPUs; medians of %d rounds.\n\n",
		time.Now().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), rounds)

	var costs []map[string]cost
	for _, r := range rows {
		costs = append(costs, measure(r, rounds))
	}
	recovery := costs[len(costs)-1]

	head := []string{"token is good: time and allocations above base (times x/oauth2)"}
	for _, r := range rows[:len(rows)-1] {
		head = append(head, r.title)
	}
	line(&out, head)
	line(&out, slices.Repeat([]string{"---"}, len(head)))
	for _, p := range everybody {
		cells := []string{p.title()}
		for i := range rows[:len(rows)-1] {
			cells = append(cells, costs[i][p.name].cell(p, costs[i][xoauth2.name]))
		}
		line(&out, cells)
	}
	out.WriteByte('\n')

	head = []string{"token was revoked", "recovers", "one 401, above base", "1,000 callers: refreshes", "failed", "last one served after"}
	line(&out, head)
	line(&out, slices.Repeat([]string{"---"}, len(head)))
	line(&out, []string{twoSends.name, "by hand", recovery[twoSends.name].cell(twoSends, cost{}), "", "", ""})
	for _, p := range crowds {
		c := stampedes(p, rounds)
		above, last := "", "never"
		if m, ok := recovery[p.name]; ok {
			above, last = m.cell(p, cost{}), c.last.Round(time.Millisecond).String()
		}
		line(&out, []string{p.title(), verdict(recovers(p)), above, fmt.Sprint(c.refreshes), fmt.Sprint(c.failed), last})
	}
	out.WriteByte('\n')
	promiseTable(&out, promises(costs, rounds))
	fmt.Fprintf(&out, footnotes, callers, refreshTime, minSend, maxSend)
	return out.String()
}

const footnotes = `
- base is an http.RoundTripper in memory, the same for all: it reads and closes the request's body and returns a new response. Its own row is absolute, all others are what they add to it. For the revoked token it is the same done by hand: two sends and a refresh.
- All tokens expire in an hour, except in "no expiry". They have about 1,000 bytes, as JWTs do, except in the column that says so: reauth makes the header's value once per token, the others once per request. A refresh calls a function in memory.
- 64 KiB without GetBody: reauth keeps the body as it passes, to be able to send it again; azcore reads it to its end first; the others cannot send it again.
- One 401: reauth's RetryWait is off, as no peer waits. The 1,000 callers have the default of 100 ms, jittered by half.
- %d callers: all have sent a token that has just been revoked when the first 401 comes. A refresh takes %v, a send %v to %v, so that some learn of the 401 after the refresh. Only refreshes made until the last caller was answered are counted.
- azcore: BearerTokenPolicy per retry in a Pipeline, retries and telemetry off; to make its request from an http.Request is part of the cost. It recovers by itself from challenges with claims only (CAE); "OnChallenge" has an AuthorizationHandler that asks for a token again.
- client-go: ResettableTokenSourceWrapTransport over NewCachedTokenSource, the one of its wrappers that notices a 401. google/auth: httptransport.NewClient with DisableTelemetry.
- reauth's Logger discards, as no peer has a log.
`

func line(out *strings.Builder, cells []string) {
	fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
}

// cell returns the cost for the table. The base's is its own, not what it adds.
func (c cost) cell(p peer, oauth2 cost) string {
	sign := "+"
	if p.name == base.name {
		sign = ""
	}
	s := fmt.Sprintf("%s%.0f ns, %s%.0f", sign, c.ns, sign, c.allocs)
	if c.bytes >= 16<<10 {
		s += fmt.Sprintf(", %s%.0f KiB", sign, c.bytes/1024)
	}
	if sign != "" && oauth2.ns > 0 && p.name != xoauth2.name {
		s += fmt.Sprintf(" (%.2f)", c.ns/oauth2.ns)
	}
	return s
}

// stampedes returns the medians of several.
func stampedes(p peer, rounds int) crowd {
	var all []crowd
	for range rounds {
		all = append(all, stampede(p, callers))
	}
	return crowd{
		int64(median(all, func(c crowd) float64 { return float64(c.refreshes) })),
		int64(median(all, func(c crowd) float64 { return float64(c.failed) })),
		time.Duration(median(all, func(c crowd) float64 { return float64(c.last) })),
	}
}

// title returns the peer's name with its version.
func (p peer) title() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || p.module == "" {
		return p.name
	}
	for _, m := range info.Deps {
		if m.Path == p.module {
			return p.name + " (" + m.Version + ")"
		}
	}
	return p.name
}
