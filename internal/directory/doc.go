// Package directory is what nodes know together that belongs to no channel's log: which
// connections exist and who owns them, how many of them are attached to each channel as what,
// which channels are active, which token requests were used, which tokens are revoked, and which
// apps were made at run time.
//
// An implementation passes directorytest.Run. All methods may be called at once from any
// goroutine; none calls back.
package directory
