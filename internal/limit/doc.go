// Package limit is what one client, channel, app or address may use: the numbers in force,
// the buckets that measure rates, and what is told when one is exceeded.
//
// A Set holds the numbers of now. Its owner replaces them while the server runs; users load
// them at each use and keep none. A limit that is off costs them that load and a comparison.
//
// Rates are measured by token buckets on the clock of this process: each node has its own.
package limit
