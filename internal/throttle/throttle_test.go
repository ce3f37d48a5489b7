package throttle

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestEachSecondLetsSomeThroughAndCountsTheRest(t *testing.T) {
	w := New(slog.New(slog.DiscardHandler))
	at := w.began
	for i := range 10 * PerSecond {
		ok, suppressed := w.allow(at.Add(time.Duration(i) * time.Millisecond))
		if want := i < PerSecond; ok != want || suppressed != 0 {
			t.Fatalf("line %d: %v, %d before it", i, ok, suppressed)
		}
	}
	ok, suppressed := w.allow(at.Add(time.Second))
	if !ok || suppressed != 9*PerSecond {
		t.Errorf("the next second begins with %v and %d left out, want %d", ok, suppressed, 9*PerSecond)
	}
	for i := 1; i < PerSecond; i++ {
		if ok, suppressed := w.allow(at.Add(time.Second)); !ok || suppressed != 0 {
			t.Fatalf("line %d: %v, %d before it", i, ok, suppressed)
		}
	}
	if ok, _ := w.allow(at.Add(time.Second)); ok {
		t.Error("one too many")
	}
	if ok, _ := w.allow(at); ok {
		t.Error("one of the second before, which came late, begins it again")
	}
}

func TestTheFirstLineAfterAGapSaysHowManyAreMissing(t *testing.T) {
	var out bytes.Buffer
	w := New(slog.New(slog.NewTextHandler(&out, nil)))
	w.suppressed = 7
	w.Warn("connection refused", "peer", "10.0.0.1")
	w.Warn("connection refused", "peer", "10.0.0.2")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "peer=10.0.0.1 suppressed_before=7") || strings.Contains(lines[1], "suppressed") {
		t.Errorf("logged %q", lines)
	}
}

func TestManyMayWarnAtOnce(t *testing.T) {
	var out bytes.Buffer // the handler guards it
	w := New(slog.New(slog.NewTextHandler(&out, nil)))
	const warners, each = 8, 1000
	began := time.Now()
	var wg sync.WaitGroup
	for n := range warners {
		wg.Go(func() {
			for range each {
				w.Warn("mistake", "by", fmt.Sprint(n))
			}
		})
	}
	wg.Wait()
	seconds := int(time.Since(began)/time.Second) + 2
	if lines := strings.Count(out.String(), "\n"); lines < PerSecond || lines > seconds*PerSecond {
		t.Errorf("%d lines in less than %d seconds", lines, seconds)
	}
}
