//go:build !race

package cli

// raceEnabled reports whether the race detector is on, which spoils measurements.
const raceEnabled = false
