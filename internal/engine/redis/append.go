package redis

import (
	"encoding/binary"
	"errors"
	"strconv"
	"sync"
	"time"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var errNoSuchEntry = errors.New("engine: a put refers to an entry that the append does not have")

var errSpace = errors.New("engine: no such space of records")

// item is an Append on its way.
type item struct {
	done func(engine.Result)

	// What the script gets. args stays as it is, however often it is sent.
	connection string
	msgSerial  int64
	own        bool // connection is the engine's own: the Append has no id
	client     string
	deadline   int64 // ms in this process's time
	counts     [4]int
	args       []string // entries, preconditions, puts, bounds
	spaces     [4]bool  // of records that it touches
	expires    bool
	bytes      int

	expiry time.Time // when done is called at the latest

	// Guarded by appender.mu.
	sent     bool // it may have been applied
	answered bool // done has its result, or will have
	result   engine.Result
}

// Append submits a. The answer is there after Options.Timeout at the latest.
func (e *Engine) Append(a *engine.Append, done func(engine.Result)) {
	it, err := e.item(a, done)
	if err != nil {
		done(engine.Result{Err: err})
		return
	}
	e.appender.submit(a.Channel, it)
}

// item encodes a for the script.
func (e *Engine) item(a *engine.Append, done func(engine.Result)) (*item, error) {
	now := e.opts.now()
	it := &item{
		done:       done,
		connection: a.ID.ConnectionID,
		msgSerial:  a.ID.MsgSerial,
		client:     a.ID.Client,
		counts:     [4]int{len(a.Entries), len(a.Preconditions), len(a.Puts), len(a.Bounds)},
		expiry:     now.Add(e.opts.Timeout),
	}
	it.deadline = millis(it.expiry.Add(e.skewed()))
	if !a.Deadline.IsZero() {
		it.deadline = min(it.deadline, millis(a.Deadline))
	}
	if it.connection == "" && it.client == "" {
		it.connection, it.msgSerial, it.own = e.instance, e.sequence.Add(1), true
	}
	args := make([]string, 0, len(a.Entries)+2*len(a.Preconditions)+2*len(a.Puts)+len(a.Bounds))
	for i := range a.Entries {
		args = append(args, draft(&a.Entries[i]))
	}
	touch := func(s engine.RecordSpace) error {
		if s < 1 || int(s) > len(it.spaces) {
			return errSpace
		}
		it.spaces[s-1] = true
		return nil
	}
	for i := range a.Preconditions {
		p := &a.Preconditions[i]
		if err := touch(p.Space); err != nil {
			return nil, err
		}
		args = append(args, string(rune(p.Space))+p.Key, strconv.FormatUint(p.Revision, 10))
	}
	for i := range a.Puts {
		p := &a.Puts[i]
		if err := touch(p.Space); err != nil {
			return nil, err
		}
		if p.Entry != engine.NoEntry && (p.Entry < 0 || p.Entry >= len(a.Entries)) {
			return nil, errNoSuchEntry
		}
		head := make([]byte, 0, 10+len(p.Key))
		head = append(head, byte(p.Space), 0)
		if p.Value == nil {
			head[1] = 1
		}
		head = binary.BigEndian.AppendUint16(head, uint16(p.Entry+1))
		head = appendUint(head, p.Expire.Milliseconds(), 6)
		args = append(args, string(append(head, p.Key...)), string(p.Value))
		it.expires = it.expires || p.Expire > 0
	}
	for i := range a.Bounds {
		b := &a.Bounds[i]
		if err := touch(b.Space); err != nil {
			return nil, err
		}
		bound := appendUint([]byte{byte(b.Space)}, int64(b.MaxRecords), 4)
		args = append(args, string(appendUint(bound, b.MaxBytes, 6)))
	}
	it.args = args
	for _, s := range args {
		it.bytes += len(s)
	}
	it.bytes += itemOverhead
	return it, nil
}

// itemOverhead is what an Append costs in the queue besides its bytes.
const itemOverhead = 512

// head is the argument before those of the Append; again says that it may have been applied,
// offset how many ms the store's clock is ahead of ours.
func (it *item) head(connectionKey int, again bool, offset int64) string {
	flags := byte(0)
	if again {
		flags |= flagAgain
	}
	if it.own {
		flags |= flagOwn
	}
	if it.client != "" {
		flags |= flagClient
	}
	b := make([]byte, 0, 32)
	b = append(b, flags)
	b = appendUint(b, min(max(it.deadline+offset, 1), maxMillis), 6)
	b = binary.BigEndian.AppendUint16(b, uint16(connectionKey))
	b = appendUint(b, it.msgSerial, 6)
	for _, n := range it.counts {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	return string(b)
}

// call is one run of the append script: some Appends of one channel.
type call struct {
	queue *queue
	items []*item
	again []bool // which of them may have been applied
	run   *run
	keys  []string
	args  []string
}

// prepare makes keys and arguments.
func (c *call) prepare(e *Engine, id pubsub.ChannelID) {
	k := c.queue.keys
	offset := e.runs.shard(e.shardOf(c.queue.slot)).clock.offset()
	c.keys = append(c.keys, k.state, k.log())
	h := callHeader{policy: e.opts.Policy(id), appends: len(c.items)}
	key := func(name string) int {
		c.keys = append(c.keys, name)
		return len(c.keys)
	}
	spaces, expires, clients := [4]bool{}, false, false
	for _, it := range c.items {
		for s, touched := range it.spaces {
			spaces[s] = spaces[s] || touched
		}
		expires = expires || it.expires
		clients = clients || it.client != ""
	}
	if clients {
		h.clientKeys = key(k.client(0))
		key(k.client(1))
	}
	for s := range spaces {
		if spaces[s] || expires {
			h.recordKeys[s] = key(k.records(engine.RecordSpace(s + 1)))
			key(k.names(engine.RecordSpace(s + 1)))
		}
	}
	if expires {
		h.expiryKey = key(k.expiry())
	}
	if h.policy.Last > 0 {
		h.lastKey = key(k.last())
	}
	h.plain = !clients && h.recordKeys == [4]int{} && h.lastKey == 0
	connections := make(map[string]int)
	c.args = append(c.args, "", strconv.FormatInt(stateLife(h.policy).Milliseconds(), 10))
	for i, it := range c.items {
		n := 0
		if it.connection != "" {
			if n = connections[it.connection]; n == 0 {
				n = key(k.connection(it.connection))
				connections[it.connection] = n
				h.plain = !e.long.take(c.keys[n-1]) && h.plain
			}
		}
		c.args = append(c.args, it.head(n, c.again[i], offset))
		if it.client != "" {
			c.args = append(c.args, it.client)
		}
		c.args = append(c.args, it.args...)
	}
	c.args[0] = h.bytes()
}

// stateLife is for how long a channel's state is kept after its last use. The scripts know it
// too: see save in common.lua.
func stateLife(p engine.Policy) time.Duration {
	return max(p.Retention, engine.LiveWindow) + 4*time.Minute
}

// longLists are lists of msgSerials that should be compacted when they are next written.
type longLists struct {
	mu    sync.Mutex
	names map[string]bool
}

// maxLong is how many are remembered; who is forgotten is told of again.
const maxLong = 10_000

func (l *longLists) add(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names == nil || len(l.names) >= maxLong {
		l.names = make(map[string]bool)
	}
	l.names[name] = true
}

func (l *longLists) take(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := l.names[name]
	delete(l.names, name)
	return found
}
