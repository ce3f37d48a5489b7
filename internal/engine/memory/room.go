package memory

import "math"

// reserve takes cost from the budget if there is room.
func (s *Store) reserve(cost int64) bool {
	if s.bytes.Add(cost) <= s.opts.LogBytes || cost == 0 {
		return true
	}
	s.bytes.Add(-cost)
	return false
}

// reserveInPlace takes cost from the budget if there is room for it in the place of what was
// reserved for something that goes.
func (s *Store) reserveInPlace(cost, goes int64) bool {
	if goes == 0 || cost > goes && !s.reserve(cost-goes) {
		return false
	}
	s.bytes.Add(min(cost, goes)) // until it has gone
	return true
}

const (
	// maxEvicted is how many entries one channel loses at a time.
	maxEvicted = 256

	// pressureInterval is how often at most, in ms, everything is searched for room.
	pressureInterval = 1000
)

// makeRoom reserves cost by dropping the oldest entries of unpersisted channels. No
// channel's lock may be held. It drops a little more than needed, so that not every Append
// comes here when the budget is used up.
func (s *Store) makeRoom(cost int64) bool {
	if cost > s.opts.LogBytes {
		return false
	}
	s.roomMu.Lock()
	defer s.roomMu.Unlock()
	for !s.reserve(cost) {
		goal := s.opts.LogBytes - max(cost, s.opts.LogBytes/128)
		if s.evict(goal) {
			continue
		}
		s.sweepForRoom()
		return s.reserve(cost)
	}
	return true
}

// sweepForRoom drops what policies do not keep any more, and channels that hold nothing.
func (s *Store) sweepForRoom() {
	now := s.nowMillis()
	if d := now - s.pressure; d >= 0 && d < pressureInterval {
		return
	}
	s.pressure = now
	s.sweepChannels(now, now)
}

// relieve brings the store back into its budgets, after what was not asked whether there is
// room: new channels, ids, and entries that tell of deleted records. No channel's lock may
// be held.
func (s *Store) relieve() {
	if s.idBytes.Load() > s.opts.IDBytes {
		s.shedIDs()
	}
	if s.bytes.Load() > s.opts.LogBytes && s.roomMu.TryLock() {
		defer s.roomMu.Unlock()
		if !s.evict(s.opts.LogBytes - s.opts.LogBytes/128) {
			s.sweepForRoom()
		}
	}
}

// evict drops entries until the budget is used to goal at most. It reports whether that
// changed anything.
func (s *Store) evict(goal int64) (any bool) {
	for s.bytes.Load() > goal {
		a, until := s.logs.pop(math.MaxInt64)
		if a == nil {
			break
		}
		c := a.channel
		c.mu.Lock()
		c.aged = false
		if !c.persisted() {
			for n := 0; c.log.n > 0 && n < maxEvicted && s.bytes.Load() > goal; n++ {
				if c.log.oldest > until {
					break // another channel comes first
				}
				c.dropOldest()
				s.evicted.Add(1)
				any = true
			}
			if c.log.n > 0 {
				c.aged = true
				a.oldest = c.log.oldest
				s.logs.push(a)
			}
		}
		c.mu.Unlock()
	}
	return any || s.bytes.Load() <= goal
}
