// Package websocket carries sessions over WebSockets (RTN1): one ProtocolMessage per frame,
// text for JSON and binary for MessagePack.
//
// Authentication problems are told after the upgrade, as an ERROR, because SDKs take a
// refused upgrade for a network failure. Frames are decoded on the connection's worker and
// handed to the session; deliveries come encoded from the hub, header included, and go to
// the connection's outbox.
package websocket
