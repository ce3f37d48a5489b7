// Package outbox is the bounded queue in front of one socket.
//
// All bytes of a socket enter through its Outbox. Whoever finds the outbox at rest becomes its
// flusher and writes; others meanwhile append and leave, and the flusher takes what they left with
// one vectored write. Nothing here blocks: when the kernel takes no more, the rest waits for the
// Stream to say that it does again. An outbox at rest has no goroutine, timer or buffer.
//
// Buffers are shared and immutable: the same frame is put into a thousand outboxes. An outbox
// refers to a buffer only until it is written. What a short write leaves of a buffer is copied, so
// that a slow socket does not pin what was joined for many.
//
// What waits is bounded in bytes (Options.MaxBytes), in time without progress (Options.MaxAge) and
// over all outboxes (Budget, which ends the largest first). Beyond a bound the outbox breaks: its
// queue is freed, its Owner is told once, and what is put later is dropped.
//
// A Gate keeps one attachment's messages behind its ATTACHED and before its DETACHED.
//
// The outbox runs on the goroutines of those who put and of the Stream; it knows frames only as
// bytes.
package outbox
