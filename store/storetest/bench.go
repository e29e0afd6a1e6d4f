package storetest

import (
	"fmt"
	"testing"

	"github.com/reauth-go/reauth"
)

// Benchmark measures Load and CompareAndSwap of s, which must be empty, with records of
// 2 KiB.
func Benchmark(b *testing.B, s reauth.Store) {
	record := func(n int) string { return fmt.Sprintf("%02048d", n) }
	b.Run("CompareAndSwap", func(b *testing.B) {
		old := load(b, s)
		for n := 0; b.Loop(); n++ {
			mustSwap(b, s, old, record(n), true)
			old = record(n)
		}
	})
	b.Run("Load", func(b *testing.B) {
		for b.Loop() {
			load(b, s)
		}
	})
}
