// Package server builds the parts of a node from its configuration, runs them, and stops
// them in order: first the listener, then the clients, spread over the grace period, and the
// engine last.
package server
