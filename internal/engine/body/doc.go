// Package body is the stored form of a publish: a pubsub.Batch in bytes and back. Engines
// that keep entries outside the process use it, so that there is one form to read for ever.
//
// # Format
//
// All integers are varints as encoding/binary writes them: "uvarint" unsigned, "varint"
// zigzag. "text" is a uvarint n and n bytes.
//
//	body    = version fields items 0
//	version = 1 byte, 1
//	fields  = { tag value }          of the Batch
//	items   = { kind { tag value } 0 }
//	kind    = 1 byte: 0x80 Message, 0x81 PresenceMessage, 0x82 Annotation, 0x83 ObjectMessage
//
// A tag is one byte from 1 to 0x7f, and says what its value is. Fields that are empty are
// left out. Extras, Summary and payloads that are empty but not absent are there with no
// bytes. Items of one kind follow one another in their order.
//
//	Batch            1 id text, 2 connectionId text, 3 clientId text, 4 ephemeral (no value)
//	every item       1 id text, 2 clientId text, 3 connectionId text, 4 encoding text,
//	                 5 timestamp varint, 6 extras text, 7 text payload text,
//	                 8 binary payload text, 9 action uvarint, 10 name text, 11 serial text
//	Message          20 the name is empty and not absent (no value), 21 summary text,
//	                 22 version: serial text, timestamp varint, clientId text,
//	                 description text, metadata: 0, or 1 and text
//	Annotation       30 type text, 31 count varint, 32 messageSerial text
//	ObjectMessage    40 siteCode text, 41 objectId text, 42 key text, 43 value data,
//	                 44 entry: key text and data; as often as there are entries,
//	                 45 number, 46 there is no payload (no value)
//
// A number is 8 bytes, a float64, big endian. data is one byte for the type of the value and the
// value: a byte for 2, a boolean, a number for 4, and else text.
//
// A reader refuses a version, a kind or a tag that it does not know: it was written by a
// later release.
package body
