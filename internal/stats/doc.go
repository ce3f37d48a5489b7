// Package stats is the statistics of apps: how many messages, connections, channels and
// requests there were in each minute, hour, day and month (RSC6a).
//
// Counters counts. Whoever does something for an app asks it for the App once, for instance
// when a channel is opened, and tells the App what happened; that costs an atomic operation
// or two and never waits. Every few seconds Run moves what was counted to a Store, as
// Totals of the current minute.
//
// A Store keeps intervals. What it no longer keeps by the minute it folds into the hour, and
// so on upwards; larger intervals are made when they are asked for, from all that is there of
// them. So each count is in one place, and a fixture that replaces a minute changes its hour,
// day and month too.
//
// # Format of a Record
//
// One byte, the version, which is 1. Then, for each metric that is not zero, in ascending
// order: the distance from the metric before it (the first from -1) as uvarint, and its
// value, which is never negative: twice the value as uvarint if it is an integer below 2^53,
// else the uvarint 1 and the eight bytes of the float64, big-endian. Metrics are numbered as
// in metric.go; the numbers are part of the version.
//
// The package knows no channels, no HTTP and no encodings but its own and the form of
// fixtures. It runs on its callers' goroutines and on the one that calls Run.
package stats
