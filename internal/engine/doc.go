// Package engine is what a node needs from outside for its channels: an ordered log and
// keyed records per channel, and live delivery to every node that subscribed.
//
// The engine orders, stores and delivers; it never looks into a body and derives nothing.
// Summaries, merged versions and presence sets are computed by the hub, which writes them
// back as records, guarded by preconditions.
//
// An implementation passes enginetest.Run. Deliver runs on a goroutine of the engine's
// choice, one call at a time per channel; in the memory engine that is the goroutine that
// called Append.
package engine
