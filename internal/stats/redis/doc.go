// Package redis keeps statistics in Redis, those of all nodes together.
//
// What a node counts of an app in a minute is one value, which it writes whole every few
// seconds: writing it twice does no harm. What several nodes have counted is added up when it
// is read. One node after another folds what is older into longer intervals, as stats.Memory
// does, which it and reading make use of.
//
// # Keys
//
// The prefix is "letshare:" unless configured.
//
//	<prefix>s{s:<app>}    hash    the parts: unit (0 minute to 3 month), ":", start in minutes
//	                              since the epoch, and, as long as nodes write to it, "/" and
//	                              the node's name for the part; to a stats.Record. It lives for
//	                              two years after the last.
//	<prefix>s{s:<app>}:l  string  the lock of who folds; lives for 10 minutes
//	<prefix>{stats}       string  since when there are statistics, in ms, in decimal
//
// The package starts no goroutine.
package redis
