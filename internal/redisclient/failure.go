package redisclient

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Failure says what an error of a command means for who sent it.
type Failure int

// The failures.
const (
	NotFailed  Failure = iota
	NoScript           // the server does not have the script: nothing happened
	RefusedNow         // nothing happened; later it may
	NoMemory           // nothing happened: no memory
	Ambiguous          // it may have happened
	Broken             // a fault: trying again does not help
)

// Classify says what an error means, of a command or of a script. Of scripts it supposes that
// they write nothing before something else that can be refused, and that LATE is what they
// answer when they do nothing since it is too late.
func Classify(err error) Failure {
	if err == nil {
		return NotFailed
	}
	re, ok := rueidis.IsRedisErr(err)
	if !ok {
		if notSent(err) {
			return RefusedNow
		}
		return Ambiguous
	}
	text := re.Error()
	switch {
	case re.IsNoScript():
		return NoScript
	case strings.HasPrefix(text, "OOM"):
		return NoMemory
	}
	for _, prefix := range []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK",
		"NOREPLICAS", "MISCONF", "BUSY", "NOAUTH", "WRONGPASS", "NOPERM", "LATE"} {
		if strings.HasPrefix(text, prefix) {
			return RefusedNow
		}
	}
	// What a script was refused in its midst: only the first write can be, so nothing was written.
	if strings.Contains(text, "READONLY") || strings.Contains(text, "-OOM") || strings.Contains(text, "NOREPLICAS") {
		return RefusedNow
	}
	return Broken
}

// notSent reports whether err says that the command never left this process.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || errors.Is(err, rueidis.ErrNoAddr)
}

// Pause waits before attempt+1: 5 ms, then twice as long each time, 250 ms at most. It
// reports whether ctx still goes on.
func Pause(ctx context.Context, attempt int) bool {
	timer := time.NewTimer(Backoff(attempt))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Backoff is how long Pause waits.
func Backoff(attempt int) time.Duration {
	return min(5*time.Millisecond<<min(attempt, 8), 250*time.Millisecond)
}
