//go:build race

package reauth_test

// raceEnabled reports whether the race detector is on, which spoils measurements.
const raceEnabled = true
