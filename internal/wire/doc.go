// Package wire is Ably's ProtocolMessage, and the items in it, as JSON and as MessagePack.
//
// Decode turns a frame into a ProtocolMessage, Append turns one into a frame, and
// AppendMessagePM writes an entry of a channel's log without building one. DecodeMessages
// and AppendMessages, and their siblings for presence, annotations and tokens, do the same for
// the bodies of REST.
//
// Both formats are read by one reader and written by one writer, which differ in the lowest
// layer only, so that a rule about a field is written down once and holds for both:
//
//   - null, and in MessagePack any extension type, is the same as absent; unknown fields are
//     skipped (RSF1, RTF1, RSL1e, RTL6i3); a missing action is a HEARTBEAT.
//   - An integer may arrive in any form that has an integral value (15, 15.0, 1.5e1).
//   - A payload is text or bytes. A trailing base64 step is undone on the way in; on the way
//     out bytes become base64 in JSON and bin in MessagePack (RSL4b, RSL4c1-3, RSL4d1-3, RSL6a).
//     All other steps of an encoding are opaque, encryption among them (RSL5a).
//   - A JSON object or array as a payload becomes its own text, to the byte, with encoding
//     "json". Extras are kept as compact JSON text (RSL6a2).
//   - What is written is always valid UTF-8 and never an extension type. JSON contains no line
//     break, so that it may be framed by lines; it is not escaped for HTML.
//
// A frame that cannot be read, or whose own fields have wrong types, is an error. A wrong
// field of an item is not: the frame is returned with ItemErr set, because its msgSerial must
// be answered with a NACK.
//
// Nothing that is decoded refers to the bytes it was decoded from. Lengths declared in
// MessagePack are compared with the bytes that are there before anything is allocated, and
// nesting and the number of items are bounded.
//
// The reader and the writer are our own, because no library gives both formats the same
// semantics, keeps numbers as written and tells an item's error from a frame's. They cost
// between a quarter and two thirds of what encoding/json and vmihailenco/msgpack do; see
// BenchmarkElsewhere.
//
// The package knows nothing of sockets, sessions, channels or rights, does no I/O, and starts
// no goroutine: everything runs on its caller's. All functions are safe for concurrent use.
package wire
