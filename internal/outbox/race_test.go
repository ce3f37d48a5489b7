//go:build race

package outbox_test

// raceEnabled: a sync.Pool drops items at random under the race detector.
const raceEnabled = true
