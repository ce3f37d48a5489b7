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

func TestEveryTaskRuns(t *testing.T) {
	w := socket.NewWorkers(socket.WorkersOptions{Soft: 3})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = w.Run(ctx) })
	var n atomic.Int64
	var tasks sync.WaitGroup
	for range 4 {
		tasks.Go(func() {
			for range 5000 {
				w.Go(socket.TaskFunc(func() { n.Add(1) }))
			}
		})
	}
	tasks.Wait()
	cancel()
	run.Wait()
	if n.Load() != 20_000 {
		t.Fatalf("%d ran", n.Load())
	}
	done := make(chan struct{})
	w.Go(socket.TaskFunc(func() { close(done) })) // also after the end
	<-done
}

func TestBlockedTasksMakeThePoolGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := socket.NewWorkers(socket.WorkersOptions{Soft: 2, Max: 50})
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = w.Run(ctx) })
		release := make(chan struct{})
		var blocked atomic.Int32
		for range 60 {
			w.Go(socket.TaskFunc(func() { blocked.Add(1); <-release }))
		}
		synctest.Wait()
		if n := blocked.Load(); n != 2 || !w.Busy() {
			t.Fatalf("%d at once", n)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if n := blocked.Load(); n != 50 {
			t.Fatalf("grew to %d, want 50", n)
		}
		close(release)
		synctest.Wait()
		if n := blocked.Load(); n != 60 {
			t.Fatalf("%d ran", n)
		}
		if w.Busy() {
			t.Fatal("busy with nothing")
		}
		time.Sleep(time.Minute) // idle workers end, which the bubble's end checks below
		if w.Yield(nil) {
			t.Fatal("yielded to nobody")
		}
		cancel()
		run.Wait()
	})
}

func TestShutdownWaitsForTasksThatBlockEachOther(t *testing.T) {
	w := socket.NewWorkers(socket.WorkersOptions{Soft: 1, Max: 1})
	ctx, cancel := context.WithCancel(context.Background())
	second := make(chan struct{})
	var n atomic.Int32
	w.Go(socket.TaskFunc(func() { <-second; n.Add(1) }))
	w.Go(socket.TaskFunc(func() { close(second); n.Add(1) }))
	cancel()
	_ = w.Run(ctx)
	if n.Load() != 2 {
		t.Fatalf("%d ran", n.Load())
	}
}

func BenchmarkWorkers(b *testing.B) {
	w := socket.NewWorkers(socket.WorkersOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = w.Run(ctx) })
	done := make(chan struct{})
	task := socket.TaskFunc(func() { done <- struct{}{} })
	b.ReportAllocs()
	for b.Loop() {
		w.Go(task)
		<-done
	}
	cancel()
	run.Wait()
}
