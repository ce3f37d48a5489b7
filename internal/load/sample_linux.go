package load

import (
	"sync"
	"time"
)

// sampler reads figures of a round while it lasts. It is no part of the loops, and costs some
// 100 µs for each sample.
type sampler struct {
	stop    chan struct{}
	running sync.WaitGroup
	samples []Sample
}

const (
	sampleInterval = 250 * time.Millisecond
	mostSamples    = 400 // then every second one is dropped and the interval doubles
)

// startSamples begins to watch an engine and what it measures.
func startSamples(e *engine, of measured) *sampler {
	s := &sampler{stop: make(chan struct{})}
	s.running.Go(func() { s.watch(e, of) })
	return s
}

// end stops the watching and returns what was seen.
func (s *sampler) end() []Sample {
	close(s.stop)
	s.running.Wait()
	return s.samples
}

func (s *sampler) watch(e *engine, of measured) {
	begin := time.Now()
	interval := sampleInterval
	tick := time.NewTicker(interval)
	defer tick.Stop()
	server, own, done := s.usage(of), ownUsage(), e.done()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		nowServer, nowOwn, nowDone := s.usage(of), ownUsage(), e.done()
		took := nowOwn.at.Sub(own.at).Seconds()
		sample := Sample{
			At:        nowOwn.at.Sub(begin).Seconds(),
			PerSecond: float64(nowDone-done) / took,
			ToolCPU:   100 * nowOwn.since(own).total().Seconds() / took,
		}
		if len(of.pids) > 0 {
			sample.CPU = 100 * nowServer.since(server).total().Seconds() / took
			sample.RSS = of.resident()
		}
		s.samples = append(s.samples, sample)
		server, own, done = nowServer, nowOwn, nowDone
		if len(s.samples) == mostSamples {
			s.samples = thinned(s.samples)
			interval *= 2
			tick.Reset(interval)
		}
	}
}

// usage is zero if it cannot be read, which the round itself reports.
func (*sampler) usage(of measured) usage {
	u, _ := of.usage()
	return u
}

// thinned joins each two samples to one.
func thinned(samples []Sample) []Sample {
	half := samples[:0]
	for i := 0; i+1 < len(samples); i += 2 {
		a, b := samples[i], samples[i+1]
		b.PerSecond, b.CPU, b.ToolCPU = (a.PerSecond+b.PerSecond)/2, (a.CPU+b.CPU)/2, (a.ToolCPU+b.ToolCPU)/2
		b.RSS = max(a.RSS, b.RSS)
		half = append(half, b)
	}
	return half
}
