// Package load is the engine behind "letshare-server load": a client that opens very many
// connections, makes them talk, and checks every single delivery.
//
// It knows only the wire, like any client, in four dialects: Ably's protocol, LetShare's
// own at /ws, and two for what results are compared with. The baseline, over bare TCP, is the
// physical limit: one write syscall for each delivery, nothing else. The floor is a WebSocket server
// of the usual kind without any features. Neither is tuned.
//
// Every published message carries a marker: fixed-width digits that say which room and publisher
// it is from, its sequence number, and when it was meant to be sent. A receiver finds the marker
// with one search and reads nothing else of a frame, so that a delivery costs the tool little more
// than the read syscall. From the markers follow the verification, which is always on (order for
// each publisher, duplicates, losses, strays), and the latency, which counts from the intended
// time: a message that was sent late because something was stuck is a slow message (no coordinated
// omission).
//
// A marker is "#LS:", the run (4), publisher in the room (4), slot (8), room (8), sequence number
// (8), intended time in ns since the tool's start (16) and "#"; padding and "$LS" follow.
//
// Connections live in loops: one thread and one epoll set each, non-blocking sockets, no goroutine
// and no buffer for a connection that is idle. A room belongs to one loop, so loops share nothing
// while they run. Phases (connect, publish, hold, leave) are run by the engine one after the other;
// between them the loops' state may be read; a sampler reads only atomics and /proc. Nothing outlives
// Main. The processes that it starts are the same program again: the baseline's server, the floor's,
// and with --own-server a whole server for each run.
//
// The scenario bench runs all targets that docs/performance.md has, in turns where figures are
// compared, and fills in the table there.
package load
