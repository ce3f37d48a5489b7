// Package errorlog keeps the newest warnings and errors in a file, logs/errors.log.
//
// The file holds one JSON object a line, oldest first:
//
//	{"timestamp":"2024-01-01T00:00:00.123Z","level":"warning","message":"…","fields":{"error":"…"}}
//
// timestamp is RFC 3339 in UTC, level is "warning" or "error", fields holds the attributes
// of the record, with groups as objects, and errors and durations as text.
//
// Log is a slog.Handler. A call encodes the record, puts it into a queue of bounded length
// and returns: callers never wait for the disk. Run, on a goroutine of its caller's, writes
// what is queued at once, and shortly after the file has more than MaxEntries lines it puts
// a trimmed copy in its place. However much is logged, the file is replaced at most once in
// TrimDelay, never has more than twice MaxEntries lines, and has at most MaxEntries when
// nothing was logged for TrimDelay and after Run has returned. The queue is as long as the
// file may be: what it drops when the disk is slow are entries too old to be kept.
//
// A disk that is full or read-only does no harm: it is reported once on another handler,
// and writing is tried again every RetryDelay.
//
// RedactURL is for those who log addresses: it blanks credentials in them.
package errorlog
