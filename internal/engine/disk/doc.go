// Package disk is the engine whose persisted channels outlive the process, in one bbolt file.
//
// A Store is a memory.Store and a database behind it. Channels whose policy is not Persisted are
// in memory alone, with an epoch for each start. Of a persisted channel memory has what is live
// (subscribers, the position, the ids of LiveWindow, the newest of the log, as far as the budget
// goes) and the database everything that was acknowledged.
//
// # The way of an Append
//
// Append puts it into a queue, bounded in bytes, and returns. One goroutine, the committer, takes
// all that waits. For each it asks memory for what is known of the id, and the transaction for
// preconditions and bounds, so that each sees those before it; it gives the serials and writes.
// One commit, with two fsyncs of bbolt, makes all of them durable. Then they become visible and
// are delivered, and other goroutines tell the outcomes and flush the rooms, in order for each
// channel. If the commit fails nothing has happened, and all are refused with
// engine.ErrUnavailable or engine.ErrFull, as is what comes in the next second. If it failed, but
// can be read, the outcome is unknown.
//
// After a commit of many the committer waits for a moment, at most a quarter of what the commit
// took, for those whom it answered to append again; else a closed loop of publishers falls into
// two halves that wait for each other.
//
// A disk that does not answer keeps nobody beyond the deadline: after it Appends that are being
// committed end with engine.ErrUnknownOutcome, those that wait with engine.ErrDeadline.
//
// # What is kept
//
// Every start has an epoch of its own and keeps the log with the serials of earlier ones, so that
// a restored copy never gives a serial again. Serials grow whatever the clock does, since each
// log, or meta.clock, says where they stood. A position continues exactly if it is in the log or
// is its base, and each entry names the one before it, so that a gap is found.
//
// Records are in the database alone. A Transient one, such as a presence member, ends with the
// process: its value names the epoch, and another epoch does not see it. Members that were there
// when the process died get no LEAVE; their clients connect anew and enter again.
//
// Ids are kept with their Appends. A channel that is used for the first time after a start reads
// those of LiveWindow.
//
// # Retention
//
// What a policy does not keep is not seen any more at once. It is removed from time to time, a
// segment or some thousand keys at a time, in transactions of their own between the commits of
// Appends. The file does not shrink: free pages are used again, and Compact writes the file
// anew.
//
// # The file
//
// letshare.db is a bbolt database, format version 2 of bbolt, with these buckets. Integers in keys
// and headers are big-endian; "uvarint" and "varint" are those of encoding/binary; "text" is a
// uvarint n and n bytes. A serial is 20 bytes: 8 ms since 1970, 4 counter, 8 epoch; they sort as
// serials do, and 20 zero bytes are none. A clock is the first 12 of them. Values begin with
// their own version, 1 byte, always 1 so far.
//
//	letshare    format    the format version in decimal, "1"
//	            high      clock; no serial of an earlier life is later, but for those in logs
//	            revision  8 bytes; the newest revision of a record
//	channels    text app, name       version, id 8, base serial, clock, newest serial
//	ids         id 8                 the channel's key in channels; the sequence of the bucket
//	                                 is the newest id, and none is used again
//	log         id 8, clock          a bucket, called segment: the frames from this clock on, of
//	                                 the same hour and of some 1 MiB; its sequence counts bytes
//	  segment   serial               version, frame
//	last        id 8                 version, serial, previous serial, timestamp 8, body
//	records     id 8, space 1, key   version, record
//
// In channels, base is the position before the oldest entry, clock that of the newest serial that
// the log has dropped, and newest the serial of the newest message, none if the policy keeps none
// for longer. The message itself is in the log or, once that has dropped it, in last.
//
//	frame       flags 1, previous serial, [connectionId text, msgSerial varint], [client id text],
//	            entries uvarint, { entry }
//	            flags: 1 there is a connectionId, 2 there is a client id
//	entry       kind 1, flags 1, [body text]
//	            flags: 1 it was not logged, and has no body here
//	record      flags 1, revision 8, expires 8 (ms since 1970, 0 never), [epoch 8],
//	            [serial, timestamp 8], value
//	            flags: 1 transient, with the epoch it ends with; 2 it refers to an entry
//
// A frame is one Append. Its key is the serial of its first entry; the others follow as
// pubsub.Clock gives them, and all have the timestamp of the first. An Append that only puts
// records has a frame with a serial of its own and no entries if it has an id, else none. Bodies
// are those of package body; an empty one is a nil Batch.
//
// A file that was not closed has no list of its free pages, and Open finds them by looking at all
// others; it has the file read as a whole before.
//
// letshare.lock is locked with flock by the process that uses the directory.
//
// testdata/format<n>.db is a file of format n. Those of this version and of the one before must open,
// be restored and compacted.
package disk
