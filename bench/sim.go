package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
)

// A scenario is a situation in fake time that shows when a Credential refreshes.
type scenario struct {
	name   string
	bounds []bound
	run    func() []float64 // in a bubble of synctest; returns a value for each bound
}

// A bound is the largest value that a result of a scenario may have.
type bound struct {
	what string // in words
	unit string
	most float64
}

// value returns the number with two digits after the point at most, and its
// unit.
func (b bound) value(v float64) string {
	if v == unlimited {
		return "–"
	}
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64) + b.unit
}

// unlimited is the bound of a result that is printed for information only.
var unlimited = math.Inf(1)

// A simResult has the medians of several runs of a scenario.
type simResult struct {
	scenario
	medians []float64
}

// simRuns is how often each scenario runs.
const simRuns = 5

// measure runs the scenario several times. Each run has random seeds of its own.
func (s scenario) measure(t *testing.T) simResult {
	samples := make([][]float64, len(s.bounds))
	for range simRuns {
		synctest.Test(t, func(*testing.T) {
			for i, v := range s.run() {
				samples[i] = append(samples[i], v)
			}
		})
	}
	r := simResult{scenario: s}
	for _, values := range samples {
		r.medians = append(r.medians, median(values))
	}
	return r
}

// exceeded describes the results above their bounds. It returns "" if all hold.
func (r simResult) exceeded() string {
	var all []string
	for i, b := range r.bounds {
		if !(r.medians[i] <= b.most) {
			all = append(all, fmt.Sprintf("%s %s, want at most %s", b.value(r.medians[i]), b.what, b.value(b.most)))
		}
	}
	return strings.Join(all, "; ")
}

// line returns the row of the table.
func (r simResult) line() string {
	var measured, bounds []string
	for i, b := range r.bounds {
		measured = append(measured, b.value(r.medians[i])+" "+b.what)
		bounds = append(bounds, b.value(b.most))
	}
	holds := "yes"
	if r.exceeded() != "" {
		holds = "no"
	}
	return fmt.Sprintf("| %s | %s | %s | %s |\n", r.name, strings.Join(measured, "; "), strings.Join(bounds, "; "), holds)
}

// simulateAndExit prints the table and ends the process, with status 1 if a bound
// is exceeded. synctest needs a *testing.T, which testing.Main provides. What the
// testing package prints goes to stderr, and stdout has the table only.
func simulateAndExit() {
	stdout := os.Stdout
	os.Stdout = os.Stderr
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{
		Name: "sim",
		F: func(t *testing.T) {
			_, _ = fmt.Fprintf(stdout, "| scenario | measured, median of %d | at most | holds |\n|---|---|---|---|\n", simRuns)
			for _, r := range simulate(t) {
				_, _ = fmt.Fprint(stdout, r.line())
			}
		},
	}}, nil, nil)
}

// simulate runs all scenarios, in parallel, and fails those whose bounds are
// exceeded.
func simulate(t *testing.T) []simResult {
	all := slices.Concat(scenarios...)
	results := make([]simResult, len(all))
	t.Run("scenarios", func(t *testing.T) {
		for i, s := range all {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				results[i] = s.measure(t)
				if text := results[i].exceeded(); text != "" {
					t.Errorf("%s", text)
				}
			})
		}
	})
	return results
}

// median returns the value in the middle.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
