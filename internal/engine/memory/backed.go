package memory

import (
	"context"
	"slices"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// Backing keeps channels for longer than the process lives. What stays here of such a channel
// is what is live: its subscribers, where it stands, the ids of its publishes, and the newest
// of its log.
//
// An Append to it goes to the Backing, which gives it its serials with Stage, keeps it, and
// then shows it to everybody with Settle, or takes it back with Abort. Between the two nobody
// sees anything of it.
type Backing interface {
	// Load says where a channel stands that is used for the first time, or again after it was
	// forgotten here. It may be called with the channel's lock held, and must not call the
	// Store.
	Load(id pubsub.ChannelID) (Loaded, error)

	// Append is engine.Engine's. An Append must be staged, in the order of the calls.
	Append(a *engine.Append, done func(engine.Result))

	// Read is engine.Engine's; what comes after tail is not there yet.
	Read(ctx context.Context, id pubsub.ChannelID, q engine.Query, tail pubsub.Serial) (engine.Page, error)

	// Records and Record are engine.Engine's.
	Records(ctx context.Context, id pubsub.ChannelID, space engine.RecordSpace, after string, limit int) ([]engine.Record, error)
	Record(ctx context.Context, id pubsub.ChannelID, key engine.RecordKey) (engine.Record, bool, error)
}

// Loaded is where a channel stands. The zero value is that of a channel that is not kept.
type Loaded struct {
	Tail    pubsub.Serial // position of the newest entry, or the base of an empty log
	Ms      int64         // of the newest serial given; no later one is before it
	Counter int
	Notes   []Note // of LiveWindow, in the order of the Appends
}

// Note is the id of an Append and its outcome.
type Note struct {
	ID      engine.ID
	Ms      int64 // of the first serial, and the Result's timestamp
	Counter int   // of the first serial
	Count   int   // of serials, which follow one another
	Epoch   string
}

// backing is what a backed channel has between memory and its Backing.
type backing struct {
	loaded bool
	moving bool // log and records are here still, and go with the next Append
	staged int  // Appends that are neither settled nor aborted
	tail   pubsub.Serial
}

// backs reports whether a channel with such a policy is backed.
func (s *Store) backs(p engine.Policy) bool { return s.opts.Backing != nil && p.Persisted() }

// adopt notes the policy of now. A channel that was backed stays so until it is forgotten.
func (c *channel) adopt(p engine.Policy) {
	if !c.backed && c.store.backs(p) {
		c.backed = true
		c.backing = backing{moving: true}
	}
	c.policy = p
}

// keptElsewhere reports whether the Backing has the whole log and the records.
func (c *channel) keptElsewhere() bool { return c.backed && !c.backing.moving }

// lockLoaded is lock for those who need to know where the channel stands.
func (s *Store) lockLoaded(id pubsub.ChannelID) (*channel, error) {
	c := s.lock(id)
	if !c.backed || c.backing.loaded {
		return c, nil
	}
	if err := c.load(); err != nil {
		c.mu.Unlock()
		return nil, err
	}
	return c, nil
}

// lockKnown is lockLoaded for a channel that is here or kept; else it returns nil.
func (s *Store) lockKnown(id pubsub.ChannelID) (*channel, error) {
	c := s.lockExisting(id)
	switch {
	case c != nil && (!c.backed || c.backing.loaded):
		return c, nil
	case c != nil:
		c.mu.Unlock()
	case !s.backs(s.opts.Policy(id)):
		return nil, nil
	default:
		// Making the channel would give it a position, which might be the one asked for.
		if kept, err := s.opts.Backing.Load(id); err != nil || kept.Tail == "" {
			return nil, err
		}
	}
	return s.lockLoaded(id)
}

// lockRecords returns the channel, if it is known, with its lock held, unless its records are
// kept elsewhere.
func (s *Store) lockRecords(id pubsub.ChannelID) (c *channel, elsewhere bool) {
	c = s.lockExisting(id)
	if c == nil {
		return nil, s.backs(s.opts.Policy(id))
	}
	if c.keptElsewhere() {
		c.mu.Unlock()
		return nil, true
	}
	return c, false
}

func (c *channel) load() error {
	kept, err := c.store.opts.Backing.Load(c.id)
	if err != nil {
		return err
	}
	c.backing.loaded = true
	if kept.Ms > c.lastMs || kept.Ms == c.lastMs && kept.Counter > c.lastCounter {
		c.lastMs, c.lastCounter = kept.Ms, kept.Counter
		c.clock.Resume(kept.Ms, kept.Counter)
	}
	if kept.Tail != "" && !c.backing.moving {
		c.base, c.tail = kept.Tail, kept.Tail
	}
	for _, n := range kept.Notes {
		if epoch, ok := c.store.epochIndex(n.Epoch); ok {
			c.note(n.ID, outcome{n.Ms, int32(n.Counter), uint16(n.Count), epoch}, n.Ms)
		}
	}
	return nil
}

// epochIndex finds or adds an epoch. ok is false when there are too many.
func (s *Store) epochIndex(epoch string) (index uint16, ok bool) {
	const most = 1000 // restarts within LiveWindow
	for {
		known := s.epochs.Load()
		if i := slices.Index(*known, epoch); i >= 0 {
			return uint16(i), true
		}
		if len(*known) == most {
			return 0, false
		}
		more := append(slices.Clone(*known), epoch)
		s.epochs.CompareAndSwap(known, &more)
	}
}

// Stage is an Append of a backed channel on its way. Append is set by the Backing, the rest by
// Store.Stage. It is good for one use.
type Stage struct {
	Append *engine.Append
	Result engine.Result // as it will be when it is kept

	Ms      int64 // of the first serial, or of a serial of its own if there are no entries
	Counter int
	Prev    pubsub.Serial // position before the first entry

	// Moved is what the channel has that is not kept yet, because it is backed since a moment
	// ago, or nil. It must be kept with the Append, and comes again until that is settled.
	Moved *Moved

	channel *channel
	entries []*logged
	one     [1]*logged // what entries is in, mostly
	now     int64
}

// Moved is a channel's past.
type Moved struct {
	Log     []*engine.Entry
	Records []MovedRecord
}

// MovedRecord is a record and its end.
type MovedRecord struct {
	engine.Record
	Expires   int64 // ms; 0: never
	Transient bool
}

// Stage gives st.Append its serials. It reports false if nothing is to be kept, because the
// Append is refused, or is a repeat: then st.Result says so. check finds further reasons for
// that; it is called with the channel's lock held.
//
// What was staged must be settled or aborted. Of one channel it is done in the order of
// staging, and what is settled together may not be staged in part before what is aborted.
func (s *Store) Stage(st *Stage, check func(*Stage) (engine.Result, bool)) bool {
	a := st.Append
	c, err := s.lockLoaded(a.Channel)
	if err != nil {
		st.Result = engine.Result{Err: err}
		return false
	}
	defer c.mu.Unlock()
	at := s.opts.Now()
	now := at.UnixMilli()
	c.used = now
	if c.backing.staged == 0 {
		c.backing.tail = c.tail
	}
	st.channel, st.now, st.Prev = c, now, c.backing.tail
	r, ok := c.news(a, at)
	if ok {
		if c.backing.moving && c.backing.staged == 0 {
			st.Moved = c.past(now)
		}
		r, ok = check(st)
	}
	if !ok {
		st.Result = r
		return false
	}
	c.backing.staged++
	if len(a.Entries) == 0 {
		c.nextSerial(now)
		st.Ms, st.Counter = c.lastMs, c.lastCounter
		st.Result = engine.Result{Timestamp: st.Ms}
		return true
	}
	st.Result.Serials = make([]pubsub.Serial, len(a.Entries))
	if st.entries = st.one[:]; len(a.Entries) > 1 {
		st.entries = make([]*logged, len(a.Entries))
	}
	for i := range a.Entries {
		d := &a.Entries[i]
		serial := c.nextSerial(now)
		if i == 0 {
			st.Ms, st.Counter = c.lastMs, c.lastCounter
			st.Result.Timestamp = st.Ms
		}
		st.Result.Serials[i] = serial
		st.entries[i] = draftEntry(d, serial, c.backing.tail, st.Ms, unknownCost)
		if !d.Unlogged {
			c.backing.tail = serial
		}
	}
	return true
}

// past is what goes to the Backing with the first Append.
func (c *channel) past(now int64) *Moved {
	m := new(Moved)
	if c.last != nil {
		m.Log = append(m.Log, &c.last.Entry)
	}
	for i := range c.log.n {
		m.Log = append(m.Log, &c.log.at(i).Entry)
	}
	for _, chunk := range c.records.chunks {
		for _, r := range chunk {
			if !r.expired(now) {
				m.Records = append(m.Records, MovedRecord{r.Record, r.expires, r.transient})
			}
		}
	}
	return m
}

// Settle makes what was staged visible: it is in the log, known by its id and delivered. Flush
// must follow.
func (s *Store) Settle(stages []*Stage) {
	for i := 0; i < len(stages); {
		c := stages[i].channel
		c.mu.Lock()
		for ; i < len(stages) && stages[i].channel == c; i++ {
			c.settle(stages[i])
		}
		if len(c.scratch) > 0 {
			for _, sub := range c.subs {
				sub.to.Deliver(c.scratch)
			}
		}
		c.clearScratch()
		c.putInAge()
		c.mu.Unlock()
	}
	s.relieve()
}

func (c *channel) settle(st *Stage) {
	c.backing.staged--
	if c.backing.moving {
		c.backing.moving = false
		if c.last != nil {
			c.dropLast()
		}
		for _, chunk := range c.records.chunks {
			for _, r := range chunk {
				c.store.bytes.Add(-r.cost())
			}
		}
		c.records = recordSet{}
	}
	for _, e := range st.entries {
		if !e.Unlogged {
			c.log.push(e)
			c.tail = e.Serial
			c.store.bytes.Add(e.cost)
			c.store.entries.Add(1)
		}
		if len(c.subs) > 0 {
			c.scratch = append(c.scratch, &e.Entry)
		}
	}
	c.note(st.Append.ID, outcome{ms: st.Ms, counter: int32(st.Counter), count: uint16(len(st.entries))}, st.now)
}

// Abort takes back what was staged. Its serials are never given again.
func (s *Store) Abort(stages []*Stage) {
	for _, st := range stages {
		c := st.channel
		c.mu.Lock()
		c.backing.staged--
		c.mu.Unlock()
	}
}

// Flush tells the subscribers of the stages' channels that it is time to send what Settle
// delivered.
func (s *Store) Flush(stages []*Stage) {
	var subs []*subscription
	for i, st := range stages {
		if i > 0 && st.channel == stages[i-1].channel {
			continue
		}
		st.channel.mu.Lock()
		subs = append(subs, st.channel.subs...)
		st.channel.mu.Unlock()
	}
	seen := make(map[*subscription]struct{}, len(subs))
	for _, sub := range subs {
		if _, again := seen[sub]; !again {
			seen[sub] = struct{}{}
			sub.to.Flush()
		}
	}
}

// NextRevision is the revision of a record that is put next.
func (s *Store) NextRevision() uint64 { return s.revision.Add(1) }

// Knows reports whether anything of the channel is here.
func (s *Store) Knows(id pubsub.ChannelID) bool { return s.find(id) != nil }

// Resume makes serials and revisions begin after those of an earlier life. It must be called
// before the store is used.
func (s *Store) Resume(ms int64, counter int, revision uint64) {
	for i := range s.shards {
		s.shards[i].highMs, s.shards[i].highCounter = ms, counter
	}
	s.revision.Store(revision)
}

// Passed makes the serials of a channel that is not here begin after the given one.
func (s *Store) Passed(id pubsub.ChannelID, ms int64, counter int) {
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.passed(ms, counter)
}

// High is the clock of the newest serial given, and the newest revision: what Resume wants.
func (s *Store) High() (ms int64, counter int, revision uint64) {
	later := func(m int64, n int) {
		if m > ms || m == ms && n > counter {
			ms, counter = m, n
		}
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		later(sh.highMs, sh.highCounter)
		for _, c := range sh.channels {
			c.mu.Lock()
			later(c.lastMs, c.lastCounter)
			c.mu.Unlock()
		}
		sh.mu.RUnlock()
	}
	return ms, counter, s.revision.Load()
}

// Sweep does once what Run does again and again.
func (s *Store) Sweep() { s.sweep() }
