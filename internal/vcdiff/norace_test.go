//go:build !race

package vcdiff_test

const raceEnabled = false
