// Package wsconn is one WebSocket connection as a server sees it.
//
// It joins what socket and outbox give: the Stream feeds an Assembler, whole messages go to the
// Handler of a door, everything sent goes through the Outbox, and one timer of the Wheel sees to
// pings, heartbeats, silence, half-read frames, slow peers and the end. The rules of RFC 6455 that
// are about a connection rather than a frame live here: pings are answered, a close frame is
// answered with the same code, a breach of the protocol is told with a close frame before the
// socket closes, and after a close frame input is discarded for a bounded time, since closing a
// socket that has unread input would reset it and could destroy the frame on its way.
//
// The handler's calls come from a worker, one at a time and in order. A connection that is idle has
// no buffer, no goroutine but the stream's, and no timer but an entry in the wheel; noticing that
// the peer lives costs one atomic store.
//
// The package knows nothing of either dialect: heartbeats that applications can see are bytes that
// a door has put into the Settings.
package wsconn
