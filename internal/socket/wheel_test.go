package socket_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/socket"
)

// bell rings when its timer expires.
type bell struct {
	timer socket.Timer
	at    []time.Time
	then  func()
}

func (b *bell) Expire() {
	b.at = append(b.at, time.Now())
	if b.then != nil {
		b.then()
	}
}

// turning runs f in a bubble with a wheel that turns.
func turning(t *testing.T, f func(t *testing.T, w *socket.Wheel)) {
	synctest.Test(t, func(t *testing.T) {
		w := socket.NewWheel()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = w.Run(ctx) })
		f(t, w)
		cancel()
		wg.Wait()
	})
}

func TestTimersExpireOnceAndNotEarly(t *testing.T) {
	turning(t, func(t *testing.T, w *socket.Wheel) {
		begin := time.Now()
		delays := []time.Duration{0, time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, time.Second,
			51 * time.Second, 51200 * time.Millisecond, 52 * time.Second, 5 * time.Minute}
		bells := make([]bell, len(delays))
		for i, d := range delays {
			w.Schedule(&bells[i].timer, &bells[i], d)
		}
		if w.Len() != len(delays) {
			t.Fatalf("%d scheduled", w.Len())
		}
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		for i, d := range delays {
			if len(bells[i].at) != 1 {
				t.Fatalf("%v: expired %d times", d, len(bells[i].at))
			}
			if late := bells[i].at[0].Sub(begin) - d; late < 0 || late > 2*socket.TickLength {
				t.Errorf("%v: late by %v", d, late)
			}
		}
		if w.Len() != 0 {
			t.Fatalf("%d left", w.Len())
		}
		if n := w.Since(1); n < 6*time.Minute-2*socket.TickLength || n > 6*time.Minute+2*socket.TickLength {
			t.Fatalf("the clock went %v", n)
		}
	})
}

func TestStoppedAndMovedTimers(t *testing.T) {
	turning(t, func(t *testing.T, w *socket.Wheel) {
		var stopped, later, sooner, kept bell
		begin := time.Now()
		w.Schedule(&stopped.timer, &stopped, time.Second)
		w.Schedule(&later.timer, &later, time.Second)
		w.Schedule(&sooner.timer, &sooner, time.Hour)
		w.Schedule(&kept.timer, &kept, time.Second)
		w.Stop(&stopped.timer)
		w.Stop(&stopped.timer)
		w.Schedule(&later.timer, &later, 3*time.Second)
		w.ScheduleSooner(&sooner.timer, &sooner, 2*time.Second)
		w.ScheduleSooner(&kept.timer, &kept, time.Minute)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(stopped.at) != 0 || len(later.at) != 1 || len(sooner.at) != 1 || len(kept.at) != 1 {
			t.Fatal(len(stopped.at), len(later.at), len(sooner.at), len(kept.at))
		}
		for b, want := range map[*bell]time.Duration{&later: 3 * time.Second, &sooner: 2 * time.Second, &kept: time.Second} {
			if late := b.at[0].Sub(begin) - want; late < 0 || late > 2*socket.TickLength {
				t.Errorf("%v: late by %v", want, late)
			}
		}
	})
}

func TestAnExpiringTimerMayScheduleAndStopOthersAndItself(t *testing.T) {
	turning(t, func(t *testing.T, w *socket.Wheel) {
		var a, b bell
		a.then = func() {
			w.Stop(&b.timer) // which is due in the same tick
			if len(a.at) < 3 {
				w.Schedule(&a.timer, &a, time.Second)
			}
		}
		w.Schedule(&a.timer, &a, time.Second)
		w.Schedule(&b.timer, &b, time.Second)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(a.at) != 3 || len(b.at) != 0 {
			t.Fatal(len(a.at), len(b.at))
		}
	})
}

func TestSchedulingAllocatesNothing(t *testing.T) {
	w := socket.NewWheel()
	var b bell
	if n := testing.AllocsPerRun(100, func() {
		w.Schedule(&b.timer, &b, time.Second)
		w.ScheduleSooner(&b.timer, &b, time.Millisecond)
		w.Stop(&b.timer)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

type counter struct {
	timer socket.Timer
	n     atomic.Int32
}

func (c *counter) Expire() { c.n.Add(1) }

func TestTheWheelStandsConcurrentUse(t *testing.T) {
	w := socket.NewWheel()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	var users sync.WaitGroup
	cs := make([]counter, 50)
	for range 4 {
		users.Go(func() {
			for i := range 20_000 {
				c := &cs[i%len(cs)]
				switch i % 7 {
				case 0:
					w.Stop(&c.timer)
				case 1, 2, 3:
					w.Schedule(&c.timer, c, time.Duration(i%300)*time.Millisecond)
				default:
					w.ScheduleSooner(&c.timer, c, time.Duration(i%300)*time.Millisecond)
				}
			}
		})
	}
	users.Wait()
	for i := range cs {
		w.Stop(&cs[i].timer)
	}
	if w.Len() != 0 {
		t.Fatalf("%d left", w.Len())
	}
	cancel()
	wg.Wait()
}
