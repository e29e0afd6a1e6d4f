// Package storetest tests implementations of reauth.Store. An implementation that
// passes may keep a login that several processes share.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/reauth-go/reauth"
)

// Secret is part of the records that the tests write. It must not be in an error.
const Secret = "storetest-secret-value"

// Run runs the tests. open creates an empty Store, and removes it in t.Cleanup. It
// returns a function that opens a handle of the Store. Each handle stands for a
// process, and must have connections of its own.
//
// The environment variable STORETEST_TIME, such as 1m, is the duration of the test
// under load. If it is not set, one second is used.
func Run(t *testing.T, open func(*testing.T) func() reauth.Store) {
	t.Run("Absence", func(t *testing.T) { absence(t, open(t)()) })
	t.Run("Swap", func(t *testing.T) { swap(t, open(t)) })
	t.Run("Fidelity", func(t *testing.T) { fidelity(t, open(t)) })
	t.Run("OneOfSixteenWins", func(t *testing.T) { oneWins(t, open(t)) })
	t.Run("Linearizable", func(t *testing.T) { linearizable(t, open(t)) })
	t.Run("EndedContext", func(t *testing.T) { endedContext(t, open(t)()) })
	t.Run("NoSecrets", func(t *testing.T) { noSecrets(t, open(t)()) })
}

func load(t testing.TB, s reauth.Store) string {
	t.Helper()
	record, err := s.Load(t.Context())
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return record
}

func mustSwap(t testing.TB, s reauth.Store, old, new string, want bool) {
	t.Helper()
	swapped, err := s.CompareAndSwap(t.Context(), old, new)
	if err != nil {
		t.Fatalf("CompareAndSwap: %v", err)
	}
	if swapped != want {
		t.Fatalf("CompareAndSwap(%.40q, %.40q) = %v, want %v", old, new, swapped, want)
	}
}

func expect(t testing.TB, s reauth.Store, want string) {
	t.Helper()
	if got := load(t, s); got != want {
		t.Fatalf("Load = %.60q, want %.60q", got, want)
	}
}

func absence(t *testing.T, s reauth.Store) {
	expect(t, s, "")
	mustSwap(t, s, "x", "y", false)
	expect(t, s, "")
	mustSwap(t, s, "", "", true)
	expect(t, s, "")
}

func swap(t *testing.T, open func() reauth.Store) {
	s := open()
	mustSwap(t, s, "", "one", true)
	mustSwap(t, s, "", "other", false)
	mustSwap(t, s, "on", "other", false)
	mustSwap(t, s, "ONE", "other", false)
	mustSwap(t, s, "one ", "other", false)
	expect(t, open(), "one")
	mustSwap(t, open(), "one", "two", true)
	expect(t, s, "two")
	mustSwap(t, s, "two", "two", true)
	mustSwap(t, s, "two", "", true)
	expect(t, open(), "")
	mustSwap(t, s, "", "three", true)
	expect(t, open(), "three")
}

// fidelity writes records that a store might change. They must be kept byte by byte.
func fidelity(t *testing.T, open func() reauth.Store) {
	s, other := open(), open()
	old := ""
	for _, record := range []string{
		" ", "a ", "a", "A", "\n", "line\nline\r\n\ttab", `"quotes" 'and' \back\slashes\`, "100% $1 ? :name @x {{}}", "令牌 é ü 🙂",
		strings.Repeat("0123456789abcdef", 4<<10), `{"access_token":"` + Secret + `"}`,
	} {
		mustSwap(t, s, old, record, true)
		expect(t, other, record)
		old = record
	}
}

// oneWins replaces the same record with 16 handles at once.
func oneWins(t *testing.T, open func() reauth.Store) {
	var handles []reauth.Store
	for range 16 {
		handles = append(handles, open())
	}
	old := ""
	for round := range 20 {
		var mu sync.Mutex
		var winners []string
		var wg sync.WaitGroup
		for i, s := range handles {
			wg.Go(func() {
				next := fmt.Sprintf("round %d of %d", round, i)
				swapped, err := s.CompareAndSwap(t.Context(), old, next)
				if err != nil {
					t.Errorf("CompareAndSwap: %v", err)
				}
				if swapped {
					mu.Lock()
					winners = append(winners, next)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Fatalf("round %d has the winners %q", round, winners)
		}
		old = winners[0]
		for _, s := range handles {
			expect(t, s, old)
		}
	}
}

// An input is a call, an output its result.
type input struct {
	swap     bool
	old, new string
}

type output struct {
	record  string
	swapped bool
	failed  bool // it may or may not have taken effect
}

// register is the model of a Store.
var register = porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(state, in, out any) []any {
		i, o := in.(input), out.(output)
		switch {
		case !i.swap:
			if o.failed || o.record == state {
				return []any{state}
			}
			return nil
		case o.failed && i.old == state:
			return []any{state, i.new}
		case o.failed:
			return []any{state}
		case o.swapped != (i.old == state):
			return nil
		case o.swapped:
			return []any{i.new}
		}
		return []any{state}
	},
	Equal: func(a, b any) bool { return a == b },
}

// linearizable checks that the results of concurrent calls are those of some sequential
// order.
func linearizable(t *testing.T, open func() reauth.Store) {
	d, err := time.ParseDuration(os.Getenv("STORETEST_TIME"))
	if err != nil {
		d = time.Second
	}
	var handles []reauth.Store
	for range 4 {
		handles = append(handles, open())
	}
	// In rounds, as the check takes exponential time at worst.
	for end, n := time.Now().Add(d), 0; time.Now().Before(end); n++ {
		history := underLoad(t, handles, n)
		if result, _ := porcupine.CheckOperationsVerbose(register.ToModel(), history, time.Minute); result == porcupine.Illegal {
			t.Fatalf("%d calls cannot have come in any order", len(history))
		}
	}
}

// underLoad makes concurrent calls with the handles, and returns their results.
func underLoad(t *testing.T, handles []reauth.Store, round int) (history []porcupine.Operation) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	mustSwap(t, handles[0], load(t, handles[0]), "", true) // a round begins with nothing
	for client, s := range handles {
		wg.Go(func() {
			known := ""
			for n := range 25 {
				in := input{swap: rand.N(3) > 0, old: known, new: fmt.Sprintf("%d/%d/%d", round, client, n)}
				op := porcupine.Operation{ClientId: client, Input: in, Call: int64(time.Since(began))}
				var out output
				var err error
				if in.swap {
					out.swapped, err = s.CompareAndSwap(t.Context(), in.old, in.new)
					if out.swapped {
						known = in.new
					} else {
						known, _ = s.Load(t.Context())
					}
				} else {
					out.record, err = s.Load(t.Context())
					known = out.record
				}
				out.failed = err != nil
				op.Output, op.Return = out, int64(time.Since(began))
				mu.Lock()
				history = append(history, op)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return history
}

func endedContext(t *testing.T, s reauth.Store) {
	mustSwap(t, s, "", "one", true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if swapped, err := s.CompareAndSwap(ctx, "one", "two"); swapped || !errors.Is(err, context.Canceled) {
		t.Errorf("CompareAndSwap with an ended context = %v, %v; want an error that is context.Canceled", swapped, err)
	}
	if _, err := s.Load(ctx); err == nil {
		t.Error("Load with an ended context has no error")
	}
	expect(t, s, "one")
}

func noSecrets(t *testing.T, s reauth.Store) {
	mustSwap(t, s, "", Secret+"1", true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.CompareAndSwap(ctx, Secret+"1", Secret+"2")
	for _, text := range []string{fmt.Sprint(err), fmt.Sprintf("%#v", err), fmt.Sprintf("%v", s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s)} {
		if strings.Contains(text, Secret) {
			t.Errorf("a secret is printed: %s", text)
		}
	}
}
