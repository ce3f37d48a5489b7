// Package throttle keeps clients, who may make mistakes for free, from filling the logs.
package throttle

import (
	"log/slog"
	"sync"
	"time"
)

// PerSecond is how many lines of one Warnings are logged in each second.
const PerSecond = 50

// Warnings logs warnings about what clients do, some of each second, and says how many were
// left out. It may be used from any goroutine.
type Warnings struct {
	log   *slog.Logger
	began time.Time

	mu         sync.Mutex
	second     time.Duration // since began, in whole seconds
	passed     int
	suppressed int
}

// New returns a Warnings that writes to log.
func New(log *slog.Logger) *Warnings { return &Warnings{log: log, began: time.Now()} }

// Warn logs a line, unless there were too many in this second.
func (w *Warnings) Warn(text string, args ...any) {
	ok, suppressed := w.allow(time.Now())
	if !ok {
		return
	}
	if suppressed > 0 {
		args = append(args, "suppressed_before", suppressed)
	}
	w.log.Warn(text, args...)
}

// allow reports whether a line may pass, and how many did not since the last that did.
func (w *Warnings) allow(now time.Time) (ok bool, suppressed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// Callers of the second before may come late.
	if s := now.Sub(w.began).Truncate(time.Second); s > w.second {
		w.second, w.passed = s, 0
	}
	if w.passed >= PerSecond {
		w.suppressed++
		return false, 0
	}
	w.passed++
	suppressed, w.suppressed = w.suppressed, 0
	return true, suppressed
}
