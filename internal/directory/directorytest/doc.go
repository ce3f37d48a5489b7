// Package directorytest is the contract of directory.Directory as tests.
//
// An implementation calls Run from a test of its own, with a function that opens a store
// with two nodes on it, and a clock that can be moved. Every test uses connections and channels
// of its own.
package directorytest
