//go:build race

package reauth_test

// wordsRace reports whether the race detector is on, which spoils measurements.
const wordsRace = true
