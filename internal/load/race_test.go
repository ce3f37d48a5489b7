//go:build race

package load

// raceEnabled: a sync.Pool drops items at random under the race detector.
const raceEnabled = true
