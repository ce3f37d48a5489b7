// Package objects is what LiveObjects are: maps and counters of a channel that refer to each
// other, and what operations do to them. The rules are those that clients apply as well (RTLM,
// RTLC, RTLO), so that both come to the same.
//
// It does no I/O. The hub reads objects from records with Decode, applies operations, and puts them
// back with Encode; a Pool is all objects of a channel, for paths and reachability.
//
// # Stored form
//
// An object is a record of engine.RecordObject with its id as key. "text" is an unsigned varint n
// and n bytes, other integers are varints as encoding/binary writes them.
//
//	object  = 1 flags deletedAt orphanedAt putAt sites (map | counter)
//	flags   = 1 byte: 1 created, 2 deleted
//	deletedAt, orphanedAt, putAt = varint, ms since the epoch; 0: not
//	sites   = uvarint n, and n times: site text, serial text
//	counter = 8 bytes, a float64, big endian
//	map     = clear text, uvarint n, and n times an entry, in the order of keys
//	entry   = key text, type (1 byte), serial text, and
//	          type 0, removed:  varint, ms since the epoch
//	          type 1, 3, 5, 6:  text: an object's id, bytes, a string, a JSON text
//	          type 2, boolean:  1 byte
//	          type 4, number:   8 bytes, a float64
//
// A serial that the engine had not given yet when the record was written is that of the record:
// it is stored as the part that comes after it, which begins with a colon. Likewise a time
// of 0 of something removed, deleted or put is that of the record.
package objects
