// Package pubsub holds the nouns that every other package speaks of: channels, messages,
// presence, annotations, serials, and the errors that a client may see.
//
// It imports nothing of ours, so everything may import it. Values of these types are
// immutable once they have been handed to the engine: copy at the edge, share afterwards.
package pubsub
