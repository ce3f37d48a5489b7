// Package comet carries sessions over HTTP requests (RTN1), for clients that cannot use a WebSocket.
//
//	GET  /comet/connect           opens a session; the answer begins with CONNECTED
//	GET  /comet/{key}/recv        what the server has to say
//	POST /comet/{key}/send        what the client has to say
//	GET  /comet/{key}/close       the same as CLOSE
//	GET  /comet/{key}/disconnect  the same as DISCONNECT
//
// The key is the connectionKey that CONNECTED gave. Each request carries credentials too,
// which must be those of the connection. What is said is JSON, in arrays of
// ProtocolMessages, and each array ends with a line break.
//
// # From the server to the client
//
// Everything goes through answers to connect and recv, one at a time, so that it arrives in
// order. That holds for acknowledgements too: send is answered with 204 as soon as its
// messages were handled, and the ACK leaves with the recv that waits, together with the
// publisher's own echo. An ACK in the answer to send could overtake an earlier one.
//
// An answer streams, unless the connect said stream=false: it stays open for a minute, and
// each flush is an array. An answer that does not stream ends with its first array. With nothing to say
// for most of maxIdleInterval, the array has a HEARTBEAT. A new recv takes the place of the
// one before, which ends.
//
// Between the hub and these answers stands an outbox, as in front of a socket: conn
// implements the outbox's stream, which takes bytes while an answer is open and has room.
// What waits for the next answer thus has the bounds that it has everywhere.
//
// What an answer took is gone with it: a client that lost an answer has to resume, and SDKs
// do so whenever a request fails.
//
// A transport ends when a streamed answer breaks, when no recv comes for 25 s,
// when its queue exceeds a bound, or when the session says so. The session then waits
// for a resume, over whatever transport.
//
// # Goroutines
//
// All runs on the goroutines of the requests, net/http's. Between its requests a session has
// none, but a timer. The end of a session is told on a worker.
package comet
