// Package load is the engine behind "letshare-server load": a client that opens very many
// connections, makes them talk, and checks every single delivery.
//
// It knows only the wire, like any client, in three dialects: Ably's protocol, LetShare's
// own at /ws, and a bare TCP one for the baseline, which is the physical limit that results are
// compared with (one write syscall for each delivery, nothing else).
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
// between them the loops' state may be read. Nothing outlives Main, and the only process that is
// started is the baseline's server, the same program again.
package load
