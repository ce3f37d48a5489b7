package hub

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
)

// MaxMessagesPerPublish bounds the items of one publish.
const MaxMessagesPerPublish = 1000

// Publish is a request to publish messages, which reach their receivers together, or to change
// one that was published before.
type Publish struct {
	Grant   *auth.Grant
	Channel pubsub.ChannelName

	// Messages are handed over: the hub completes them, and nobody changes them after.
	Messages []*pubsub.Message

	// ConnectionID is the publisher's connection, and MsgSerial the number that it gave
	// the publish, by which a repeat is recognised (RTN7b, RTN19a, RTN19a2). Without a connection
	// the publish is a request of its own.
	ConnectionID string
	MsgSerial    int64

	// OnBehalf is the connection that a request without one publishes for: the messages
	// seem to come from it, and its echo rules apply (TM2h).
	OnBehalf string

	// Final says that the connection never sends the publish again, so that its id need not
	// be remembered.
	Final bool

	// Ephemeral says that nothing of it is kept, whatever the messages say.
	Ephemeral bool

	// Since is when the publish came, if that was not just now: the store's time counts from it.
	Since time.Time

	// MaxBytes bounds the sum of the messages' sizes, unless the channel's namespace does.
	// Zero means the limit of all channels.
	MaxBytes int
}

// Published is the outcome of a publish.
type Published struct {
	Serial pubsub.Serial // the i-th message's serial is Serial.Item(i); empty for a repeat too old
	Count  int           // of messages
	BaseID string        // the first message's id; not told to connections, which know it
	Err    *pubsub.Error // nil: accepted, and kept as far as the engine promises
}

// Publish checks p, hands it to the engine and returns; done is told the outcome exactly
// once, perhaps before Publish returns. What was published is sent when turn ends. An
// error means that p was refused and done will not be called.
//
// A publish above the rate that its token sets is CodeConnectionRateExceeded, one above the rates
// of its channel CodeChannelMessageRate or CodeChannelByteRate.
//
// A message whose action is update, delete or append changes the one with its serial: what it has
// replaces what the other has, except that appended data is added to its data (RTL32b1). It
// comes alone, Published.Serial.Item(0) is the serial of the version that it makes (RTL32d), and errors are
// also CodeCapabilityDenied, CodeOwnMessagesOnly, CodeMutableRuleMissing,
// CodeInvalidParameterValue, CodeNotFound, CodeInvalidMessageData and CodeMessageTooLarge.
//
// Publish may wait while the room's fan-out is far behind, and for the outcome of a change: for
// AppendTimeout at most, and not for a store if the channel is Prompt.
func (h *Hub) Publish(turn *Turn, p *Publish, done func(Published)) error {
	if needed := mutation(p.Messages); needed != 0 {
		p := *p // so that those that change nothing need not be on the heap
		return h.change(turn, &p, needed, done)
	}
	count := len(p.Messages)
	channelID := p.Channel.ID(p.Grant.App)
	in := h.shard(channelID)
	changes := in.changes.Load()
	c := in.lookup(channelID)
	counts, transport := h.counts(c, channelID), p.transport()
	rule := h.opts.Namespace(p.Grant.App, p.Channel.Base)
	limits := h.limitsOf(channelID.App, &rule)
	batch, size, id, err := h.check(p, &rule, &limits)
	if err != nil {
		counts.Refused(transport, stats.Messages, count)
		return err
	}
	if count == 0 {
		done(Published{})
		return nil
	}
	if err := h.paceToken(p, channelID); err != nil {
		counts.Refused(transport, stats.Messages, count)
		return err
	}
	if limits.messages > 0 || limits.bytes > 0 {
		if err := h.pace(&limits, channelID, count, size); err != nil {
			counts.Refused(transport, stats.Messages, count)
			return err
		}
	}
	if c != nil && c.crowded() {
		turn.End()
		c.waitForRoom()
	}
	x := &publication{
		hub: h, shard: in, channel: c, counts: counts, transport: transport, count: count, size: size, done: done,
		persisted: rule.Persisted && !batch.Ephemeral, now: time.Now(),
	}
	if p.ConnectionID == "" {
		if x.firstID = p.Messages[0].ID; x.firstID == "" {
			x.firstID = pubsub.ItemID(batch.ID, 0)
		}
	}
	x.entries[0] = engine.Draft{Kind: engine.KindMessage, Body: batch, Unlogged: batch.Ephemeral}
	x.append = engine.Append{Channel: channelID, ID: id, Entries: x.entries[:], Deadline: h.deadline(cmp.Or(p.Since, x.now))}
	h.opts.Engine.Append(&x.append, x.appended)
	// An engine that delivers within Append has queued the entry by now.
	if in.changes.Load() != changes {
		c = in.lookup(channelID)
	}
	if c != nil {
		turn.touch(c)
	}
	return nil
}

// deadline is when the store must have applied what came at the given time.
func (h *Hub) deadline(since time.Time) time.Time { return since.Add(h.opts.AppendTimeout) }

// publication is a publish on its way through the engine, all of it in one place.
type publication struct {
	hub       *Hub
	shard     *shard   // of the channel
	channel   *channel // nil if it has no attachments here
	counts    *stats.App
	transport stats.Transport
	count     int
	size      int
	persisted bool
	now       time.Time
	firstID   string // for who has no connection
	done      func(Published)

	append  engine.Append
	entries [1]engine.Draft
}

// appended counts the outcome and passes it on.
func (x *publication) appended(r engine.Result) {
	out := Published{Count: x.count, BaseID: x.firstID, Err: clientError(r.Err)}
	if len(r.Serials) > 0 {
		out.Serial = r.Serials[0]
	}
	x.hub.noteFull(r.Err, x.append.Channel.App)
	switch {
	case r.Err != nil:
		x.counts.Failed(x.transport, stats.Messages, x.count)
	case !r.Repeated:
		x.hub.opts.Metrics.Published(x.count)
		x.counts.Published(x.transport, stats.Messages, x.count, x.size)
		if x.channel == nil {
			x.hub.touchIn(x.shard, x.append.Channel, x.now)
		}
		if x.persisted {
			x.counts.Persisted(stats.Messages, x.count, x.size)
		}
	}
	x.done(out)
}

// transport is how the messages came.
func (p *Publish) transport() stats.Transport {
	if p.ConnectionID == "" {
		return stats.REST
	}
	return stats.Realtime
}

// publisher is the connection that the messages come from, if any (RTL6f).
func (p *Publish) publisher() string { return cmp.Or(p.ConnectionID, p.OnBehalf) }

// crowded reports whether publishers have to wait.
func (c *channel) crowded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crowdedLocked()
}

// check validates a publish, rights first and contents after, and makes its batch, whose size it
// returns, and the id that repeats of it are recognised by (RSL1k4-5).
func (h *Hub) check(p *Publish, rule *auth.Namespace, limits *channelLimits) (batch *pubsub.Batch, size int, id engine.ID, err error) {
	none := engine.ID{}
	ops := p.Grant.Ops(p.Channel.Resource())
	if p.Channel.Qualifier != "" || !ops.Has(auth.OpPublish) {
		return nil, 0, none, denied("publish to", p.Channel)
	}
	if err := admit(rule, p.Grant); err != nil {
		return nil, 0, none, err
	}
	if len(p.Messages) > MaxMessagesPerPublish {
		h.opts.Limits.Exceeded(limit.PublishMessages, p.Grant.App)
		return nil, 0, none, pubsub.Errorf(pubsub.CodeTooManyMessages, "a publish has %d messages at most, got %d", MaxMessagesPerPublish, len(p.Messages))
	}
	batch = &pubsub.Batch{ConnectionID: p.publisher(), Messages: p.Messages}
	most := limits.messageBytes
	if p.MaxBytes != 0 && rule.Limits.MessageBytes == 0 {
		most = p.MaxBytes
	}
	if size = batch.Size(); size > most {
		return nil, 0, none, h.tooLarge(p.Grant.App, size, most)
	}
	claim, claimed := p.Grant.UserClaim(p.Channel.Resource())
	for i, m := range p.Messages {
		own := m.Size()
		if err := completeMessage(p, ops, m); err != nil {
			return nil, 0, none, err
		}
		ephemeral, err := checkExtras(m, ops)
		if err != nil {
			return nil, 0, none, err
		}
		if i > 0 && ephemeral != batch.Ephemeral {
			return nil, 0, none, pubsub.NewError(pubsub.CodeBadRequest, "ephemeral and other messages cannot be published together")
		}
		batch.Ephemeral = ephemeral
		if claimed {
			m.Extras = withUserClaim(m.Extras, claim)
		}
		size += m.Size() - own
	}
	batch.Ephemeral = batch.Ephemeral || p.Ephemeral
	id, err = identify(p, batch)
	return batch, size, id, err
}

func (h *Hub) tooLarge(app string, size, most int) *pubsub.Error {
	h.opts.Limits.Exceeded(limit.MessageBytes, app)
	return pubsub.Errorf(pubsub.CodeMessageTooLarge, "maximum message size exceeded: %d bytes, allowed are %d", size, most)
}

// completeMessage checks one message and fills in what the server sets.
func completeMessage(p *Publish, ops auth.OpSet, m *pubsub.Message) error {
	clientID, err := p.Grant.CheckClientID(m.ClientID, m.ClientID != "")
	if err != nil {
		return err
	}
	if m.ConnectionID != "" && m.ConnectionID != p.publisher() {
		return pubsub.NewError(pubsub.CodeInvalidConnectionID, "message has the connectionId of another connection")
	}
	m.ClientID = clientID
	m.ConnectionID = p.publisher()
	m.ConnectionKey = "" // is for nobody else to see
	m.Action = pubsub.MessageCreate
	m.Timestamp, m.Serial, m.Version, m.Summary = 0, "", nil, nil // the server's to give
	return nil
}

// identify gives the batch its id base and returns what a repeat is recognised by. Client
// ids are all "<base>:<index>", or one arbitrary string for a single message (RSL1k1-3).
func identify(p *Publish, b *pubsub.Batch) (engine.ID, error) {
	if len(b.Messages) == 0 {
		return engine.ID{}, nil
	}
	given := b.Messages[0].ID
	if given == "" {
		for _, m := range b.Messages {
			if m.ID != "" {
				return engine.ID{}, invalidID()
			}
		}
		if p.ConnectionID == "" {
			b.ID = randomID()
			return engine.ID{}, nil
		}
		b.ID = pubsub.RealtimeID(p.ConnectionID, p.MsgSerial)
		if p.Final {
			return engine.ID{}, nil
		}
		return engine.ID{ConnectionID: p.ConnectionID, MsgSerial: p.MsgSerial}, nil
	}
	base, index, found := cutLast(given, ":")
	if !found || index != "0" {
		base = given
		if len(b.Messages) > 1 {
			return engine.ID{}, invalidID()
		}
	}
	for i, m := range b.Messages[1:] {
		if m.ID != base+":"+strconv.Itoa(i+1) {
			return engine.ID{}, invalidID()
		}
	}
	b.ID = base
	// A message "a", a message "a:0" and a batch that begins with "a:0" are no repeats of
	// each other, so that none of them is taken for published that was not.
	id := engine.ID{Client: given}
	if n := len(b.Messages); n > 1 {
		id.Client = base + "\x00" + strconv.Itoa(n)
	}
	if p.ConnectionID != "" && !p.Final {
		id.ConnectionID, id.MsgSerial = p.ConnectionID, p.MsgSerial
	}
	return id, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func invalidID() error {
	return pubsub.NewError(pubsub.CodeInvalidMessageID, "invalid message id: ids of several messages must be <base>:<index> with one base and each message's index")
}

// randomID is the id base of a publish without a connection.
func randomID() string {
	var b [9]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}
