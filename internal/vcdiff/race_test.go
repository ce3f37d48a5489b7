//go:build race

package vcdiff_test

const raceEnabled = true
