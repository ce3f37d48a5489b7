package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/memory"
	"letshare-server/internal/pubsub"
)

// Run is what Engine.Run does.
func (s *Store) Run(ctx context.Context) error {
	if s.db == nil {
		return fmt.Errorf("storage: %w: not open", engine.ErrUnavailable)
	}
	var sweeper sync.WaitGroup
	sweeper.Go(func() { s.sweepUntil(ctx) })
	stopped := make(chan struct{})
	sweeper.Go(func() { s.watch(stopped) })
	announce := newAnnouncer(s.mem)
	for {
		s.gather()
		items, j := s.queue.take(s.opts.Group)
		if len(items) == 0 && j == nil {
			select {
			case <-s.queue.wake:
				continue
			case <-ctx.Done():
			}
			announce.wait() // they may append again
			if s.queue.shut() {
				break
			}
			continue
		}
		s.busy.begin(items)
		if len(items) > 0 {
			s.commit(items)
		}
		if j != nil {
			j.done <- s.guarded(j.f)
		}
		s.busy.end()
		announce.add(items)
	}
	announce.close()
	close(stopped)
	sweeper.Wait()
	return nil
}

// busy is what the committer is at.
type busy struct {
	mu    sync.Mutex
	since time.Time // zero: nothing
	items []*item
	told  int // of items, by watch
}

func (b *busy) begin(items []*item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since, b.items, b.told = time.Now(), items, 0
}

func (b *busy) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since, b.items = time.Time{}, nil
}

const (
	// stalledAfter is how long a transaction may take before watch looks at who waits for it.
	stalledAfter = time.Second

	watchInterval = 500 * time.Millisecond
)

// watch tells those who wait for a disk that does not answer, when their time is over, until
// stopped is closed. What is being committed may be kept in the end: nobody knows.
func (s *Store) watch(stopped <-chan struct{}) {
	t := time.NewTicker(watchInterval)
	defer t.Stop()
	for {
		select {
		case <-stopped:
			return
		case <-t.C:
			s.tellWaiting()
		}
	}
}

func (s *Store) tellWaiting() {
	now := s.opts.Now()
	var unknown, late []*item
	b := &s.busy
	b.mu.Lock()
	if !b.since.IsZero() && time.Since(b.since) > stalledAfter {
		for b.told < len(b.items) && b.items[b.told].overdue(now) {
			unknown = append(unknown, b.items[b.told])
			b.told++
		}
		if b.told == len(b.items) {
			late = s.queue.overdue(now) // in order, after those before them
		}
	}
	b.mu.Unlock()
	for _, it := range unknown {
		r := engine.Result{Err: errStalled}
		if it.refused != nil {
			r = it.late()
		}
		it.tell(r)
	}
	for _, it := range late {
		it.tell(it.late())
	}
}

var errStalled = fmt.Errorf("%w: the disk does not answer", engine.ErrUnknownOutcome)

// gather waits for a moment, after a commit of many, for those who were told of it to append
// again: a closed loop of many publishers would else fall into two halves that wait for each
// other, and be committed in groups of half the size.
func (s *Store) gather() {
	if s.last < 2 {
		return
	}
	t := time.NewTimer(min(s.took/4, maxGather))
	defer t.Stop()
	select {
	case <-s.queue.reach(s.last):
	case <-t.C:
	}
	s.last = 0
}

// maxGather bounds what gather adds to the latency of a publish.
const maxGather = 2 * time.Millisecond

// retryAfter is how long nothing is tried after a commit has failed.
const retryAfter = time.Second

// commit finds the outcome of every item and makes what is staged durable, and then visible.
func (s *Store) commit(items []*item) {
	if s.retry != nil && s.opts.Now().Before(s.retryAt) {
		refuse(items, s.retry)
		return
	}
	var staged []*memory.Stage
	started := time.Now()
	visible := false
	err := s.guarded(func() (err error) {
		staged, visible, err = s.write(items)
		return err
	})
	switch {
	case err == nil:
		s.mem.Settle(staged)
		s.retry = nil
		if len(staged) > 0 {
			s.commits.Add(1)
			s.committed.Add(int64(len(staged)))
			s.last, s.took = len(staged), time.Since(started)
			s.opts.Metrics.Committed(len(staged), s.took)
		}
	case visible:
		// It is in the file, and perhaps not on the disk. Nobody may be told that it is not
		// there, since it is read from now on.
		s.mem.Settle(staged)
		s.failure(err)
		for _, it := range items {
			if it.staged {
				it.Result.Err = fmt.Errorf("%w: %w", engine.ErrUnknownOutcome, err)
			}
		}
	default:
		s.mem.Abort(staged)
		s.failure(err)
		refuse(items, s.retry)
	}
	for _, it := range items {
		if first := it.repeated; first != nil {
			it.Result = first.Result
			it.Result.Repeated = first.Result.Err == nil
		}
	}
}

// refuse gives an error to all that have no outcome.
func refuse(items []*item, err error) {
	for _, it := range items {
		if it.refused != nil {
			it.Result = it.late()
		} else if it.staged || it.Result.Err == nil && !it.Result.Repeated && it.repeated == nil {
			it.Result = engine.Result{Err: err}
		}
	}
}

// failure notes that a commit failed, and what is answered for a moment.
func (s *Store) failure(err error) {
	s.failed.Add(1)
	s.opts.Metrics.CommitFailed()
	s.retry = outcomeOf(err)
	s.retryAt = s.opts.Now().Add(retryAfter)
	s.opts.Log.Error("storage: what was published to persisted channels is refused", "error", err)
}

// outcomeOf says what an error of the file system means to a publisher.
func outcomeOf(err error) error {
	switch {
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, engine.ErrFull):
		return err
	}
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		// bbolt makes a text of some errors.
		if errors.Is(err, full) || strings.Contains(err.Error(), full.Error()) {
			return fmt.Errorf("%w: %w", engine.ErrFull, full)
		}
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // the file's name is for the log
	}
	return fmt.Errorf("%w: %w", engine.ErrUnavailable, err)
}

// write stages the items in one transaction and commits it. If that fails, visible says that
// the database holds it nevertheless.
func (s *Store) write(items []*item) (staged []*memory.Stage, visible bool, err error) {
	tx, err := s.db.Begin(true)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = tx.Rollback() }() // in vain after Commit
	s.arena.reset()
	g := &group{store: s, tx: tx, now: s.nowMillis(), channels: make(map[pubsub.ChannelID]*channel)}
	check := g.check // one closure for all
	for _, it := range items {
		if it.refused != nil {
			it.Result.Err = it.refused
			continue
		}
		g.item = it
		if !s.mem.Stage(&it.Stage, check) {
			continue
		}
		it.staged = true
		staged = append(staged, &it.Stage)
		if err := g.put(it); err != nil {
			return staged, false, err
		}
	}
	if len(staged) == 0 {
		return nil, false, nil
	}
	for _, c := range g.channels {
		if c.dirty {
			if err := tx.Bucket(bucketChannels).Put(c.key, c.meta.encode()); err != nil {
				return staged, false, err
			}
		}
	}
	if g.revision > 0 {
		if err := tx.Bucket(bucketStore).Put(keyRevision, binary.BigEndian.AppendUint64(nil, g.revision)); err != nil {
			return staged, false, err
		}
	}
	id := tx.ID()
	if err := s.opts.commit(tx); err != nil {
		return staged, s.holds(id), err
	}
	s.measure()
	return staged, false, nil
}

// holds reports whether a transaction whose Commit failed can be read.
func (s *Store) holds(id int) (visible bool) {
	_ = s.db.View(func(tx *bbolt.Tx) error {
		visible = tx.ID() >= id
		return nil
	})
	return visible
}

// group is what is committed together.
type group struct {
	store    *Store
	tx       *bbolt.Tx
	now      int64
	channels map[pubsub.ChannelID]*channel
	item     *item    // being staged
	current  *channel // of item
	written  int64    // bytes
	revision uint64
}

// arena is memory for keys and values, which live until the commit.
type arena struct{ free, all []byte }

// arenaBytes is how much of it there is at a time.
const arenaBytes = 64 << 10

func (a *arena) reset() { a.free = a.all }

// take returns an empty slice with room for n bytes.
func (a *arena) take(n int) []byte {
	if n > arenaBytes/4 {
		return make([]byte, 0, n)
	}
	if len(a.free) < n {
		a.all = make([]byte, arenaBytes)
		a.free = a.all
	}
	b := a.free[:0:n]
	a.free = a.free[n:]
	return b
}

// channel is a channel within a group.
type channel struct {
	id     pubsub.ChannelID
	key    []byte
	policy engine.Policy
	meta   meta
	dirty  bool // meta has changed
	// inPlace says that the next message takes the place of all that there is.
	inPlace bool

	segment []byte // key; nil: not looked for yet
	in      *bbolt.Bucket

	tallies  map[engine.RecordSpace]*engine.Tally
	realtime map[realtimeID]*item
	client   map[string]*item
}

type realtimeID struct {
	connection string
	msgSerial  int64
}

func (g *group) channel(id pubsub.ChannelID) (*channel, error) {
	if g.current != nil && g.current.id == id {
		return g.current, nil
	}
	if c := g.channels[id]; c != nil {
		return c, nil
	}
	c := &channel{id: id, key: channelKey(id), policy: g.store.opts.Policy(id)}
	if v := g.tx.Bucket(bucketChannels).Get(c.key); v != nil {
		var err error
		if c.meta, err = decodeMeta(v); err != nil {
			return nil, err
		}
	}
	g.channels[id] = c
	return c, nil
}

// known reports whether the channel is in the database.
func (c *channel) known() bool { return c.meta.base != "" }

// check finds reasons not to keep what is staged, that memory does not know.
func (g *group) check(st *memory.Stage) (engine.Result, bool) {
	a := st.Append
	c, err := g.channel(a.Channel)
	if err != nil {
		return engine.Result{Err: outcomeOf(err)}, false
	}
	g.current = c
	if first := c.recall(a.ID); first != nil {
		g.item.repeated = first
		return engine.Result{}, false
	}
	if err := g.move(c, st); err != nil {
		return engine.Result{Err: outcomeOf(err)}, false
	}
	for i := range a.Preconditions {
		p := &a.Preconditions[i]
		r, err := g.record(c, p.RecordKey)
		if err != nil {
			return engine.Result{Err: outcomeOf(err)}, false
		}
		if r.Revision != p.Revision {
			return engine.Result{Err: engine.ErrPrecondition}, false
		}
	}
	for i := range a.Bounds {
		if err := g.bound(c, &a.Bounds[i], a.Puts); err != nil {
			return engine.Result{Err: err}, false
		}
	}
	for i := range a.Puts {
		if len(a.Puts[i].Key) > maxRecordKey {
			return engine.Result{Err: fmt.Errorf("%w: a key of %d bytes", engine.ErrRecordsTooLarge, len(a.Puts[i].Key))}, false
		}
	}
	if most := g.store.opts.MaxBytes; most > 0 && g.store.used.Load()+g.written+g.item.cost > most && !g.onlyDeletes(c, a) && !g.replaces(c, g.item) {
		return engine.Result{Err: fmt.Errorf("%w: the database has reached its bound", engine.ErrFull)}, false
	}
	return engine.Result{}, true
}

// recall returns the item of this group that has one of the ids.
func (c *channel) recall(id engine.ID) *item {
	if id.ConnectionID != "" {
		if it := c.realtime[realtimeID{id.ConnectionID, id.MsgSerial}]; it != nil {
			return it
		}
	}
	if id.Client != "" {
		return c.client[id.Client]
	}
	return nil
}

func (c *channel) note(it *item) {
	if id := it.Append.ID; id.ConnectionID != "" {
		if c.realtime == nil {
			c.realtime = make(map[realtimeID]*item)
		}
		c.realtime[realtimeID{id.ConnectionID, id.MsgSerial}] = it
	}
	if id := it.Append.ID.Client; id != "" {
		if c.client == nil {
			c.client = make(map[string]*item)
		}
		c.client[id] = it
	}
}

// put writes a staged item.
func (g *group) put(it *item) error {
	a, c := it.Append, g.current
	c.note(it)
	if !c.known() {
		if err := g.create(c, it.Prev); err != nil {
			return err
		}
	}
	if len(a.Entries) > 0 || a.ID != (engine.ID{}) {
		if err := g.noteNewest(c, it); err != nil {
			return err
		}
		key := append(appendClock(g.store.arena.take(serialLength), it.Ms, it.Counter), g.store.mem.Epoch()...)
		if err := g.putFrame(c, key, it.Prev, a.ID, it.entries); err != nil {
			return err
		}
	}
	return g.putAll(c, it)
}

// create notes a channel that is kept for the first time, from a position on.
func (g *group) create(c *channel, base pubsub.Serial) error {
	ids := g.tx.Bucket(bucketIDs)
	n, err := ids.NextSequence()
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint64(c.meta.id[:], n)
	c.meta.base = base
	if err := ids.Put(c.meta.id[:], c.key); err != nil {
		return err
	}
	c.dirty = true
	return nil
}

// move writes what was in memory only of a channel that was not kept before.
func (g *group) move(c *channel, st *memory.Stage) error {
	past := st.Moved
	if past == nil {
		return nil
	}
	if !c.known() {
		base := st.Prev
		if len(past.Log) > 0 {
			base = past.Log[0].Prev
		}
		if err := g.create(c, base); err != nil {
			return err
		}
	}
	newest, _ := newFrames(g.tx, c.meta.id[:]).last()
	newest = bytes.Clone(newest)
	for _, e := range past.Log {
		if e.Kind == engine.KindMessage && c.policy.Last > 0 {
			c.meta.newest, c.dirty = e.Serial, true
		}
		key := appendSerial(nil, e.Serial)
		if bytes.Compare(key, newest) <= 0 {
			continue
		}
		b := appendEntry(binary.AppendUvarint(nil, 1), e.Kind, false, e.Body)
		if err := g.putFrame(c, key, e.Prev, engine.ID{}, b); err != nil {
			return err
		}
	}
	for i := range past.Records {
		r := &past.Records[i]
		if err := g.putRecord(c, &r.Record, r.Expires, r.Transient); err != nil {
			return err
		}
	}
	return nil
}

const (
	// segmentSpan is how much of the time, in ms, one segment of a log covers.
	segmentSpan = int64(time.Hour / time.Millisecond)

	// segmentBytes bounds a segment: what is deleted at once.
	segmentBytes = 1 << 20
)

// putFrame adds a frame at the end of the channel's log.
func (g *group) putFrame(c *channel, key []byte, prev pubsub.Serial, id engine.ID, entries []byte) error {
	if c.in == nil {
		if f := newFrames(g.tx, c.meta.id[:]); f.lastSegment() {
			c.segment, c.in = append([]byte(nil), f.segment...), f.log.Bucket(f.segment)
		}
	}
	ms, _ := clockOf(key)
	full := true
	if c.in != nil {
		started, _ := clockOf(c.segment[idLength:])
		full = started/segmentSpan != ms/segmentSpan || c.in.Sequence() >= segmentBytes
	}
	if full {
		segment := append(append(make([]byte, 0, idLength+clockLength), c.meta.id[:]...), key[:clockLength]...)
		in, err := g.tx.Bucket(bucketLog).CreateBucket(segment)
		if err != nil {
			return err
		}
		c.segment, c.in = segment, in
	}
	value := appendFrame(g.store.arena.take(2+serialLength+len(id.ConnectionID)+len(id.Client)+3*binary.MaxVarintLen64+len(entries)), prev, id, entries)
	c.in.FillPercent = 0.95 // keys only ever come at the end
	if err := c.in.Put(key, value); err != nil {
		return err
	}
	size := len(key) + len(value)
	g.written += int64(size)
	return c.in.SetSequence(c.in.Sequence() + uint64(size))
}

// announcer tells outcomes and flushes rooms, so that the committer need not wait for it.
// What is of one channel is told by one goroutine, in order.
type announcer struct {
	mem   *memory.Store
	seed  maphash.Seed
	queue []chan []*item
	open  sync.WaitGroup // groups on their way
	ended sync.WaitGroup
}

// announceAhead is how many groups may wait for an announcer; then the committer waits.
const announceAhead = 4

func newAnnouncer(mem *memory.Store) *announcer {
	n := &announcer{mem: mem, seed: maphash.MakeSeed(), queue: make([]chan []*item, min(runtime.GOMAXPROCS(0), 8))}
	for i := range n.queue {
		n.queue[i] = make(chan []*item, announceAhead)
		n.ended.Go(func() {
			for items := range n.queue[i] {
				n.announce(items)
				n.open.Done()
			}
		})
	}
	return n
}

func (n *announcer) add(items []*item) {
	parts := make([][]*item, len(n.queue))
	for _, it := range items {
		i := maphash.String(n.seed, it.Append.Channel.Name) % uint64(len(parts))
		parts[i] = append(parts[i], it)
	}
	for i, part := range parts {
		if len(part) > 0 {
			n.open.Add(1)
			n.queue[i] <- part
		}
	}
}

func (n *announcer) announce(items []*item) {
	var staged []*memory.Stage
	for _, it := range items {
		if it.staged {
			staged = append(staged, &it.Stage)
		}
		it.tell(it.Result)
	}
	n.mem.Flush(staged)
}

// wait returns when all is told.
func (n *announcer) wait() { n.open.Wait() }

func (n *announcer) close() {
	for _, q := range n.queue {
		close(q)
	}
	n.ended.Wait()
}
