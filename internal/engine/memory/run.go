package memory

import (
	"context"
	"time"

	"letshare-server/internal/engine"
)

// Run trims logs, expires records, forgets old ids and idle channels, until ctx ends. One
// node's Run is enough for a Store.
func (e *Engine) Run(ctx context.Context) error {
	t := time.NewTicker(e.store.opts.SweepInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			e.store.sweep()
		}
	}
}

// sweep does once what Run does again and again.
func (s *Store) sweep() {
	now := s.nowMillis()
	s.expireIDs(now)
	s.sweepChannels(now, now-engine.LiveWindow.Milliseconds())
}

// sweepChannels trims every channel and forgets those that hold nothing and were not used
// since idle.
func (s *Store) sweepChannels(now, idle int64) {
	var channels []*channel
	for i := range s.shards {
		sh := &s.shards[i]
		channels = channels[:0]
		sh.mu.RLock()
		for _, c := range sh.channels {
			channels = append(channels, c)
		}
		sh.mu.RUnlock()
		for _, c := range channels {
			policy := s.opts.Policy(c.id)
			c.mu.Lock()
			c.adopt(policy)
			for !c.trim(now, maxLocked) {
				c.yield()
			}
			s.bytes.Add(-c.records.expire(now))
			c.log.release()
			forget := c.idle(idle)
			c.mu.Unlock()
			if forget {
				s.forget(c, idle)
			}
		}
		clear(channels)
	}
}
