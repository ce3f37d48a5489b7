package errorlog

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// FileName is the name of the file in its directory.
const FileName = "errors.log"

// Options of a Log.
type Options struct {
	Dir        string        // empty means "logs"; it is made if it is not there
	MaxEntries int           // how many of the newest entries are kept; zero means 200
	TrimDelay  time.Duration // least time between two rewrites of the file; zero means 200 ms
	RetryDelay time.Duration // how long a failing disk is left alone; zero means 5 s

	// Trouble is told, once, when the file cannot be written, and again when it can. It
	// must not lead back to this Log. Nil means nobody is told.
	Trouble slog.Handler
}

// Log keeps the newest warnings and errors in a file. It is a slog.Handler for all
// goroutines; Run must be running for anything to reach the disk.
type Log struct {
	options Options
	path    string
	trouble *slog.Logger

	wake chan struct{} // has room for one: something is queued

	// mu guards the fields below. Nothing under it does I/O or blocks.
	mu      sync.Mutex
	queue   [][]byte // lines that wait, a ring of at most MaxEntries
	first   int      // index of the oldest
	dropped uint64

	// What follows belongs to Run.
	lines    int       // lines in the file
	repair   bool      // the file is to be rewritten before anything is appended to it
	trimmed  time.Time // when the file was last rewritten
	failedAt time.Time // when the disk last failed; zero while it works
}

// New returns a Log. It touches no file: Run does.
func New(o Options) *Log {
	if o.Dir == "" {
		o.Dir = "logs"
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = 200
	}
	if o.TrimDelay <= 0 {
		o.TrimDelay = 200 * time.Millisecond
	}
	if o.RetryDelay <= 0 {
		o.RetryDelay = 5 * time.Second
	}
	if o.Trouble == nil {
		o.Trouble = slog.DiscardHandler
	}
	return &Log{
		options: o,
		path:    filepath.Join(o.Dir, FileName),
		trouble: slog.New(o.Trouble),
		wake:    make(chan struct{}, 1),
	}
}

// put queues a line. If the queue is full its oldest line goes, which the file would not
// have kept either.
func (l *Log) put(line []byte) {
	l.mu.Lock()
	if len(l.queue) < l.options.MaxEntries {
		l.queue = append(l.queue, line)
	} else {
		l.queue[l.first] = line
		l.first = (l.first + 1) % len(l.queue)
		l.dropped++
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take empties the queue, or leaves it as it is if it has more than room lines.
func (l *Log) take(room int) [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) > room {
		return nil
	}
	lines := make([][]byte, 0, len(l.queue))
	lines = append(lines, l.queue[l.first:]...)
	lines = append(lines, l.queue[:l.first]...)
	l.queue, l.first = nil, 0
	return lines
}

// putBack returns lines that could not be written to the front of the queue.
func (l *Log) putBack(lines [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines = append(lines, l.queue[l.first:]...)
	lines = append(lines, l.queue[:l.first]...)
	if over := len(lines) - l.options.MaxEntries; over > 0 {
		l.dropped += uint64(over)
		lines = lines[over:]
	}
	l.queue, l.first = lines, 0
}

// Dropped is the number of entries that never reached the file because newer ones came
// before the disk was ready.
func (l *Log) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// Run writes what is logged until ctx ends, then writes the rest, trims the file and
// returns nil. It starts with what the file holds already. It must run once only.
func (l *Log) Run(ctx context.Context) error {
	l.report(l.open())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			l.report(l.flush(true))
			return nil
		case <-l.wake:
		case <-timer.C:
		}
		if wait := l.step(); wait > 0 {
			timer.Reset(wait)
		}
	}
}

// step does what can be done now, and returns when to come back; zero means not before
// something is logged.
func (l *Log) step() time.Duration {
	if !l.failedAt.IsZero() {
		if wait := l.options.RetryDelay - time.Since(l.failedAt); wait > 0 {
			return wait
		}
	}
	if l.report(l.flush(false)) != nil {
		return l.options.RetryDelay
	}
	if l.lines > l.options.MaxEntries {
		return max(l.options.TrimDelay-time.Since(l.trimmed), time.Millisecond)
	}
	return 0
}

// flush writes the queue to the file, trimming it if it is time to or if final is set.
// Between two rewrites the file takes lines up to twice MaxEntries; then the queue waits,
// which keeps the newest.
func (l *Log) flush(final bool) error {
	n := l.options.MaxEntries
	mayTrim := final || l.repair || time.Since(l.trimmed) >= l.options.TrimDelay
	room := math.MaxInt
	if !mayTrim {
		room = 2*n - l.lines
	}
	lines := l.take(room)
	var err error
	if l.repair || mayTrim && l.lines+len(lines) > n {
		err = l.rewrite(lines)
	} else {
		err = l.append(lines)
	}
	if err != nil {
		l.putBack(lines)
	}
	return err
}

// report tells the first of a row of failures, and the end of it. It returns err.
func (l *Log) report(err error) error {
	switch {
	case err != nil:
		if l.failedAt.IsZero() {
			l.trouble.Warn("errors.log cannot be written; the newest entries wait in memory", "error", err)
		}
		l.failedAt = time.Now()
	case !l.failedAt.IsZero():
		l.failedAt = time.Time{}
		l.trouble.Info("errors.log is written again")
	}
	return err
}

// maxFileBytes is how much of an existing file is looked at, from its end.
const maxFileBytes = 16 << 20

// open counts the lines of the file that an earlier run left, and arranges for a rewrite if
// there are too many or the last one is torn.
func (l *Log) open() error {
	lines, whole, err := l.read()
	if err != nil {
		return err
	}
	l.lines = len(lines)
	l.repair = !whole || l.lines > l.options.MaxEntries
	return nil
}

// read returns the lines of the file, without torn ones; whole is false if there were such.
func (l *Log) read() (lines [][]byte, whole bool, err error) {
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	from := max(info.Size()-maxFileBytes, 0)
	text := make([]byte, info.Size()-from)
	n, err := f.ReadAt(text, from)
	if n < len(text) {
		return nil, false, err
	}
	whole = from == 0
	if !whole {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	for line := range bytes.Lines(text) {
		if line[len(line)-1] != '\n' {
			whole = false
			continue
		}
		lines = append(lines, line)
	}
	return lines, whole, nil
}

// append adds lines to the file. It opens the file each time: somebody may have moved it.
func (l *Log) append(lines [][]byte) (err error) {
	if len(lines) == 0 {
		return nil
	}
	if err := os.MkdirAll(l.options.Dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && info.Size() == 0 {
		l.lines = 0 // moved or emptied by somebody
	}
	_, err = f.Write(bytes.Join(lines, nil))
	if err = errors.Join(err, f.Close()); err != nil {
		l.repair = true // a part may have been written
		return err
	}
	l.lines += len(lines)
	return nil
}

// rewrite replaces the file by one with the newest of its lines and the given ones.
func (l *Log) rewrite(lines [][]byte) error {
	old, _, err := l.read()
	if err != nil {
		return err
	}
	all := append(old, lines...)
	all = all[max(len(all)-l.options.MaxEntries, 0):]
	if err := os.MkdirAll(l.options.Dir, 0o755); err != nil {
		return err
	}
	temp := l.path + ".new"
	if err := os.WriteFile(temp, bytes.Join(all, nil), 0o644); err != nil {
		os.Remove(temp)
		return err
	}
	if err := os.Rename(temp, l.path); err != nil {
		os.Remove(temp)
		return err
	}
	l.lines, l.repair, l.trimmed = len(all), false, time.Now()
	return nil
}
