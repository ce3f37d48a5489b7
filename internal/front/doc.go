// Package front reads the first request of each plaintext connection. If that opens a WebSocket, in
// the way that clients do, the handler is called at once, without net/http's connection around it:
// its buffers, contexts, watching goroutine and stack are two fifths of what a connect costs.
// Every other connection goes to net/http, with the bytes that were read, and is as if it had come
// straight from the listener.
//
// What is served here is a strict part of what net/http accepts, and is understood as net/http does:
// one read brought the whole head, at most 4 KiB of it; the method is GET, the version HTTP/1.1;
// there is one Host, no body, and nothing that is written in an unusual way. In doubt a connection
// is net/http's. Since it is taken over, or closed after one answer, no second request can be
// hidden behind the first.
//
// Requests are read on a goroutine for each connection, and served on a worker, whose stack has grown
// already.
package front
