//go:build race

package sse

// raceEnabled: a sync.Pool drops items at random under the race detector.
const raceEnabled = true
