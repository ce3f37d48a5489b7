// Package sdk holds the tests of ably-go against a running server. "go test ./test/sdk" of
// the server's module runs them.
package sdk
