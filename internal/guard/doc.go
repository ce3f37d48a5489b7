// Package guard bounds what peers may use who have not authenticated, by their address: how
// many sockets they hold open, and how often they present wrong credentials.
//
// An address is an IPv4 address, or the first 64 bits of an IPv6 address. Addresses of this
// machine and of private networks are not bounded: behind them stand proxies, and one client
// would use up what is for all. Trusted proxies say whom they stand for.
//
// It starts no goroutine. It knows sockets as net/http tells of them.
package guard
