package main

import "testing"

func TestSimWithinBounds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than a minute")
	}
	simulate(t)
}
