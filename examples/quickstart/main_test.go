package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEverythingGoesAsItShould(t *testing.T) {
	require.NoError(t, run(t.Context()))
}
