// Package sse is Ably's event streams over HTTP: GET /sse and GET /event-stream. A stream
// subscribes to channels and sends what is published there as Server-Sent Events, or as one
// JSON object per line.
//
// A stream has no session: it publishes nothing and acknowledges nothing, so it attaches to
// the hub by itself. The request is an ordinary one until every channel is attached, and
// refusals are ordinary answers. Then the socket is taken over from net/http, as that of a
// WebSocket is: a stream at rest has no goroutine of the application's, no buffer and no
// timer of its own, and a slow one is bounded by its outbox. The body ends with the
// connection.
//
// Over HTTP/2, where a socket has many requests, the answer itself is the connection of a
// portable socket.Stream, and the handler waits for its end.
//
// # Records and ids
//
// A record is one message or one presence event. Its id tells where the client stands in all
// channels of its stream, so that a client that comes back with it (EventSource does so by
// itself) goes on exactly there, on any node that has the log. An id is
//
//	[others "."] own
//
// both base64url without padding. own is the channel of the record:
//
//	version 1: one byte
//	tag: three bytes, a hash of the channel
//	epoch: eight bytes
//	milliseconds: six bytes, big-endian
//	counter, done: uvarints
//
// Epoch, milliseconds and counter are a serial; done is the number of items that were sent of
// the entry after it, for the records within a publish of several messages. others is the
// channels beside it, if there are any:
//
//	index of own among all channels of the stream: uvarint
//	number of epochs: uvarint; then the epochs, eight bytes each
//	the latest of all milliseconds: uvarint
//	for each channel: tag, three bytes;
//	    index of its epoch: uvarint, only if there are several;
//	    how long before the latest its milliseconds are: uvarint;
//	    counter * 2, plus 1 if done is not zero: uvarint; done: uvarint, only then
//
// That is some ten characters for each further channel.
//
// # Sharing
//
// A record is encoded once for all streams that have the same form. With one channel its bytes
// hold all of it. With several the shared bytes begin in the middle of the id, at own, and
// what comes before it is made once per stream for all records that follow each other from
// one channel.
//
// # Goroutines
//
// A request is served on net/http's goroutine until it is a stream. Deliveries run on that of
// the hub's fan-out, keepalives and the end of a credential on that of the wheel, and the end
// of a stream on a worker of the poller.
package sse
