// Package acme lets the server get certificates from a real ACME server: Pebble, the small one
// that the people of Let's Encrypt test clients with. Its module in pebble is one of its own, so
// that the server's dependencies stay its own.
package acme
