// Package session is the Ably connection (RTN): identity, attachments, msgSerial and
// acknowledgements. A session is not a socket: a Transport carries its ProtocolMessages,
// whatever the bytes below look like.
//
// A transport calls Handle for each ProtocolMessage and EndTurn after all that were found
// in one reading, from one goroutine at a time. Deliveries come from the hub on any
// goroutine and go straight to the transport's outbox.
package session
