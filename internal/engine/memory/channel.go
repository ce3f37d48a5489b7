package memory

import (
	"sync"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// channel is all that the store knows of one channel.
type channel struct {
	id    pubsub.ChannelID // immutable
	store *Store           // immutable

	// mu guards the fields below, and all that hangs on them. Lock order: shard.mu,
	// channel.mu, ageQueue.mu; never two channels at once. Subscriber.Deliver runs under it.
	mu        sync.Mutex
	forgotten bool // not in the shard any more: look the channel up again
	policy    engine.Policy
	used      int64 // ms of the last use
	subs      []*subscription
	scratch   []*engine.Entry // what Deliver is given, used again by each Append

	clock       pubsub.Clock
	lastMs      int64 // of the newest serial given
	lastCounter int

	base pubsub.Serial // position before the oldest entry
	tail pubsub.Serial // position of the newest entry, or base
	log  entryLog
	last *logged // the newest message, if the log has dropped it and the policy keeps it
	age  age     // in Store.logs, by the oldest entry; or an older one, as it is lazy
	aged bool    // age is in Store.logs, or in the hands of makeRoom

	newest pubsub.Serial // of the newest message that was logged

	backed  bool    // Options.Backing keeps it
	backing backing // what is between the two

	records     recordSet
	connections map[string]*connectionNotes
	clients     *clientNotes
}

// nextSerial gives the channel's next serial.
func (c *channel) nextSerial(now int64) pubsub.Serial {
	c.lastMs, c.lastCounter = c.clock.Next(now)
	return pubsub.MakeSerial(c.lastMs, c.lastCounter, c.store.epoch)
}

// persisted reports whether the log is kept here for longer than resuming needs it.
func (c *channel) persisted() bool { return c.policy.Retention > 0 && !c.keptElsewhere() }

// idle reports whether nothing would be lost with the channel but its position.
func (c *channel) idle(since int64) bool {
	return c.used <= since && c.log.n == 0 && c.last == nil && c.records.n == 0 &&
		len(c.subs) == 0 && len(c.connections) == 0 && c.clients == nil && c.backing.staged == 0
}

// trim drops at most limit entries that the policy does not keep. It reports whether it
// came to the end of them.
func (c *channel) trim(now int64, limit int) bool {
	done := c.trimLog(now, limit)
	if c.last != nil && (c.policy.Last == 0 || c.last.Timestamp < now-c.policy.Last.Milliseconds()) {
		c.dropLast()
	}
	return done
}

func (c *channel) trimLog(now int64, limit int) bool {
	live := now - engine.LiveWindow.Milliseconds()
	kept := min(live, now-c.policy.Retention.Milliseconds())
	for c.log.n > 0 {
		oldest := c.log.oldest
		if oldest >= live {
			return true
		}
		if oldest >= kept && c.persisted() &&
			(c.policy.MaxEntries == 0 || c.log.n <= c.policy.MaxEntries) &&
			(c.policy.MaxBytes == 0 || c.log.bytes <= c.policy.MaxBytes) {
			return true
		}
		if limit == 0 {
			return false
		}
		limit--
		c.dropOldest()
	}
	return true
}

// dropOldest moves the base over the oldest entry. The newest message is put aside, if the
// policy keeps it.
func (c *channel) dropOldest() {
	e := c.log.pop()
	c.base = e.Serial
	c.store.entries.Add(-1)
	if c.policy.Last > 0 && e.Serial == c.newest && !c.keptElsewhere() {
		c.last = e
		return
	}
	c.store.bytes.Add(-e.cost)
}

// dropLast forgets the message that was put aside.
func (c *channel) dropLast() {
	c.store.bytes.Add(-c.last.cost)
	c.last = nil
}

// replaces returns the cost of the message put aside, if a takes its place.
func (c *channel) replaces(a *engine.Append) int64 {
	if c.last != nil {
		for i := range a.Entries {
			if d := &a.Entries[i]; d.Kind == engine.KindMessage && !d.Unlogged {
				return c.last.cost
			}
		}
	}
	return 0
}

// exact fails if the log is not complete after the position.
func (c *channel) exact(after pubsub.Serial) error {
	if after == c.base {
		return nil
	}
	if i := c.log.after(after); i > 0 && c.log.at(i-1).Serial == after {
		return nil
	}
	if err := c.store.checkEpoch(after); err != nil {
		return err
	}
	return engine.ErrGone
}

func (s *Store) checkEpoch(p pubsub.Serial) error {
	_, _, epoch, err := pubsub.ParseSerial(string(p))
	switch {
	case err != nil:
		return engine.ErrGone
	case epoch != s.epoch:
		return engine.ErrForeign
	}
	return nil
}
