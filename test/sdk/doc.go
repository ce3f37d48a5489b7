// Package sdk runs the unmodified SDKs of Ably against the server: it builds the program,
// starts it, and gives its address to the tests in js (ably from npm, in Node.js and in a
// browser) and in go (ably-go, a module of its own, so that the server's dependencies stay its
// own). The SDKs have the last word about what the server must do.
package sdk
