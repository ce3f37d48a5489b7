// Package redis is the engine whose store is Redis 7 or later: one server, a Redis Cluster,
// or a primary behind Sentinel. Any number of nodes share it.
//
// Everything of a channel is on one shard, under keys with one hash tag. One script does
// Appends: it checks deadline, ids, preconditions and bounds, gives the serials, writes log
// and records, and publishes the entries, encoded, to the nodes that subscribed (SPUBLISH).
//
// # Appends
//
// The Appends of a channel go one call of the script after another, and all that came
// meanwhile are one call. A channel has one call in flight; calls of many channels share a
// pipeline. So their order holds whatever becomes of a connection. A call whose answer did
// not come is sent again, with the same ids, before what follows: the script knows whether
// it was applied. For that an Append without an id gets one of the engine's own. When
// Options.Timeout has passed the caller is told engine.ErrUnavailable if the Append was
// never sent, else engine.ErrUnknownOutcome. The deadline that each Append carries is in the
// time of Redis, so that a call that Redis finds late in its socket does nothing.
//
// # Epochs
//
// The epoch of serials is made of the run id of the Redis process. It stands in the text of
// the scripts, which are loaded only on the connection that told the run id. Another
// process (a restart, a failover) does not have them and answers NOSCRIPT, which costs
// nothing until it happens. The first entries that another process appends to a channel
// begin a new epoch; the log that it has is kept.
//
// # Live entries
//
// Each shard has one connection for live entries. They are decoded and delivered on the
// goroutine that reads it. Every entry names the one before; when that is not the one
// delivered last, or the connection or the shard changed, the node reads what is missing
// from the log and holds back what comes meanwhile, up to 2 MiB for a channel. A channel
// with no live entry for some 30 s is compared with the log's end. When the log does not
// have what is missing, the Subscriber is told (Lost).
//
// # Keys
//
// C stands for <prefix>{<app>:<channel>}; the prefix is "letshare:" unless configured.
// Integers have the highest byte first; "serial" is 6 bytes of milliseconds, 3 of counter
// and 8 of epoch. Everything of a version other than 1 is refused with an error.
//
//	C        string  state: version 1; last serial given: 6 ms, 3 counter; serial of the
//	                 log's end; 4 entries; 6 bytes; 6 ms of the oldest; 8 last revision;
//	                 serial before the log's beginning; epochs of the log, newest first, 8
//	                 bytes each, 8 at most
//	C:l      stream  log. Id <ms>-<counter>; one field "e": version 1, 8 epoch, serial of
//	                 the entry before, 1 if unlogged (never here) else 0, kind, body
//	                 (package body)
//	C:i<id>  list    the msgSerials of a connection that were appended here, ascending:
//	                 version 1, 6 msgSerial, result: 6 ms, 3 counter of the first serial, 2
//	                 entries, 8 epoch. The first element may begin with 2: ranges of older
//	                 ones, each 6 first, 6 last, 6 ms of the last
//	C:e<0|1> hash    ids that clients chose, by turns for 150 s each: id to 6 ms, 3 counter,
//	                 2 entries, 8 epoch, 6 ms of when it was noted
//	C:r<1-4> hash    records of a space (engine.RecordSpace): "k"<key> to version 1, 8
//	                 revision, 6 ms of expiry or 0, serial (0 ms if none), value; "t" to the
//	                 bytes of keys and values, in decimal
//	C:n<1-4> zset    their keys, all with score 0, for listing in order
//	C:m      string  the last message, if the policy keeps it longer: 6 ms, 3 counter, and the
//	                 value as in the log
//	C:x      zset    records that expire: <space byte><key> by ms
//
// The state lives for the retention and 8 minutes after its last use, the log for 2 minutes
// less, a connection's list 490 s after its newest element at most; records stay.
//
// What is published under the name C: version 1, then for each entry 4 length of the value,
// 6 ms, 3 counter, and the value as in the log.
package redis
