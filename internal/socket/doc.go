// Package socket is byte streams that never block, and the frames of RFC 6455 that travel on them.
//
// A Stream is a socket seen from above: bytes can be offered to it (TryWrite, TryWritev), a call
// can be asked for when it takes bytes again (WhenWritable), and whatever the peer sends is fed to
// a Feeder. A Poller turns connections into Streams. On Linux an idle TCP connection costs a
// goroutine with its first 2 KiB stack and no buffer: it waits inside syscall.RawConn.Read, takes
// a pooled buffer only for the attempt to read, and ends when there are bytes. A goroutine of
// Workers, whose stack is warm, feeds them to the application and parks a fresh one afterwards. So
// no parked goroutine ever runs application code, and its stack stays small. With PollerOptions.Epoll
// it has no goroutine either: the socket is in an epoll set of the Poller's own, whose events one
// goroutine takes for all and tells to the Workers, who read. TLS is a Stream over
// such a stream, if its listener went through ForTLS. Everything else is carried by a portable stream
// with a reader goroutine of its own.
//
// Above the bytes stand the frames (AppendHeader, ParseHeader, Mask, BeginFrame), the Assembler,
// which turns fed bytes into whole messages, and Upgrade, the server's half of the handshake.
// The handshake and the frames are written here because they are small, because frames must be
// parsed from fed bytes rather than from a blocking reader, and because nothing may be kept for a
// connection that is idle.
//
// A Wheel is the timer of all sockets, and the coarse clock that makes noting activity one atomic
// store.
//
// The package knows no messages, sessions or queues. Constructors start nothing; Poller.Run,
// Workers.Run and Wheel.Run block until their context ends and leave nothing running.
package socket
