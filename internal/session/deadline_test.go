package session

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A timeout is as the one of package context, whether or not somebody asked for Done before.
func TestATimeoutIsAsContextsOwn(t *testing.T) {
	type makes func(context.Context, time.Duration) (context.Context, context.CancelFunc)
	end := map[string]func(parent, cancel func()){
		"nothing":         func(_, _ func()) {},
		"its own end":     func(_, cancel func()) { cancel(); cancel() },
		"its parent's":    func(parent, _ func()) { parent() },
		"its time":        func(_, _ func()) { time.Sleep(2 * time.Second) },
		"its time, after": func(_, cancel func()) { cancel(); time.Sleep(2 * time.Second) },
		"before its time": func(_, _ func()) { time.Sleep(time.Second / 2) },
	}
	for name, f := range end {
		for _, asked := range []bool{false, true} {
			for _, short := range []time.Duration{0, time.Second / 4} {
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						told := func(m makes) (done bool, left time.Duration, err error) {
							parent, stop := context.WithCancel(context.Background())
							defer stop()
							if short > 0 {
								var s context.CancelFunc
								parent, s = context.WithTimeout(parent, short)
								defer s()
							}
							ctx, cancel := m(parent, time.Second)
							defer cancel()
							deadline, _ := ctx.Deadline()
							left = time.Until(deadline)
							if asked {
								ctx.Done()
							}
							f(stop, cancel)
							synctest.Wait()
							err = ctx.Err()
							select {
							case <-ctx.Done():
								done = true
							default:
							}
							if again := ctx.Err(); !errors.Is(again, err) {
								t.Errorf("%v after %v", again, err)
							}
							return done, left, err
						}
						done, left, err := told(withTimeout)
						wantDone, wantLeft, wantErr := told(context.WithTimeout)
						if done != wantDone || !errors.Is(err, wantErr) || left != wantLeft {
							t.Errorf("done %v, %v, %v left; want %v, %v, %v", done, err, left, wantDone, wantErr, wantLeft)
						}
					})
				})
			}
		}
	}
}

func TestATimeoutWakesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := withTimeout(t.Context(), time.Minute)
		defer cancel()
		if <-ctx.Done(); time.Since(start) != time.Minute {
			t.Errorf("after %v", time.Since(start))
		}
	})
}
