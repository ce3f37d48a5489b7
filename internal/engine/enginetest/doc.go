// Package enginetest is the contract of engine.Engine as tests.
//
// An implementation calls Run from a test of its own, with a function that opens a store
// with two nodes on it. Tests that need more than the contract gives, such as a clock that
// can be moved, are skipped when the Harness does not have it.
//
// Every test uses channels of its own, so that one store may serve all of them. Nothing
// sleeps: that something was not delivered is known when what was appended after it was.
package enginetest
