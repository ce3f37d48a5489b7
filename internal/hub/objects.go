package hub

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/limit"
	"letshare-server/internal/objects"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
)

const (
	// objectRetention is for how long a channel's objects are kept after the last change of any.
	objectRetention = 90 * 24 * time.Hour

	// objectSlack is how much longer the records of objects are kept, so that those that did not change
	// last as long as those that did: see collect.
	objectSlack = 48 * time.Hour

	// ObjectGrace is for how long what was removed or deleted is remembered, and an object to which
	// nothing leads from the root may stay so (CD2i, RTO10).
	ObjectGrace = 24 * time.Hour
)

// PublishObjects is a request to change objects.
type PublishObjects struct {
	Grant   *auth.Grant
	Channel pubsub.ChannelName

	// Items are operations, which are done in this order and all or none. They are handed over.
	Items []*pubsub.ObjectMessage

	// Requests are the same as REST has them, instead of Items.
	Requests []*pubsub.ObjectRequest

	// These are as those of a Publish.
	ConnectionID string
	MsgSerial    int64
	Since        time.Time
}

// size is that of what is asked for, as limits count it.
func (q *PublishObjects) size() (n int) {
	for _, m := range q.Items {
		n += m.Size()
	}
	for _, r := range q.Requests {
		n += (&pubsub.ObjectMessage{Operation: r.Operation}).Size()
	}
	return n
}

// PublishedObjects is the outcome of a PublishObjects.
type PublishedObjects struct {
	Published
	Objects []string // the ids of those that it was about, each once, those that it created first
}

// PublishObjects applies q, and returns when the outcome is known (RTO15). What happened is sent when
// turn ends.
//
// Errors are *pubsub.Error: CodeCapabilityDenied, CodeTLSRequired, CodeIdentifiedClientNeeded,
// CodeInvalidObject, CodeObjectDeleted, CodeObjectsTooLarge, CodeInvalidClientID, CodeInvalidConnectionID,
// CodeInvalidMessageID, CodeInvalidExtras, CodeTooManyMessages, CodeMessageTooLarge, CodeConnectionRateExceeded,
// CodeChannelMessageRate, CodeChannelByteRate, CodeUnavailable, CodeTimeout, CodeBusy; of Requests also
// CodeObjectPathUnmatched, CodeObjectUnnamed and CodeObjectNotProcessable.
func (h *Hub) PublishObjects(ctx context.Context, turn *Turn, q *PublishObjects) (PublishedObjects, error) {
	id := q.Channel.ID(q.Grant.App)
	c := h.lookup(id)
	transport := (&Publish{ConnectionID: q.ConnectionID}).transport()
	counts := h.counts(c, id)
	rule := h.opts.Namespace(q.Grant.App, q.Channel.Base)
	limits := h.limitsOf(id.App, &rule)
	count := len(q.Items) + len(q.Requests)
	batch := &pubsub.Batch{ConnectionID: q.ConnectionID, ClientID: q.Grant.ClientID, Objects: q.Items}
	key, err := h.checkObjects(q, batch, &rule, &limits)
	if err == nil && count > 0 {
		err = h.pace(&limits, id, count, q.size())
	}
	if err != nil {
		counts.Refused(transport, stats.Objects, count)
		return PublishedObjects{}, err
	}
	if count == 0 {
		return PublishedObjects{}, nil
	}
	if c != nil && c.crowded() {
		turn.End()
		c.waitForRoom()
	}
	r, err := h.changeObjects(ctx, q.Since, id, &limits, func(step *objectStep) (*engine.Append, error) {
		if q.Requests != nil {
			items, err := h.expand(q, step)
			if err != nil {
				return nil, err
			}
			expanded := *batch
			expanded.Objects = items
			batch = &expanded
			if size := batch.Size(); size > limits.messageBytes {
				return nil, h.tooLarge(id.App, size, limits.messageBytes)
			}
		}
		if err := step.operate(batch.Objects); err != nil {
			return nil, err
		}
		return &engine.Append{ID: key, Entries: []engine.Draft{{Kind: engine.KindObject, Body: batch}}}, nil
	})
	// An engine that delivers within Append has queued the entry by now.
	if c := h.lookup(id); c != nil {
		turn.touch(c)
	}
	h.noteFull(err, id.App)
	count = len(batch.Objects)
	refused := (*pubsub.Error)(nil)
	switch {
	case errors.As(err, &refused):
		counts.Refused(transport, stats.Objects, count)
		return PublishedObjects{}, refused
	case err != nil:
		counts.Failed(transport, stats.Objects, count)
		return PublishedObjects{}, clientError(err)
	case !r.Repeated:
		h.collectSoon(id)
		counts.Published(transport, stats.Objects, count, batch.Size())
		counts.Persisted(stats.Objects, count, batch.Size())
		if c == nil {
			h.touch(id, time.Now())
		}
	}
	out := PublishedObjects{Published: Published{Count: count, BaseID: pubsub.ItemID(batch.ID, 0)}}
	if len(r.Serials) > 0 {
		out.Serial = r.Serials[0]
	}
	if r.Repeated && q.Requests != nil {
		// What was done then may have been about others.
		if e, err := h.entryAt(ctx, id, engine.KindObject, out.Serial); err == nil && e != nil {
			batch = e.Body
		}
	}
	out.Objects = objectsOf(batch.Objects)
	return out, nil
}

// objectsOf returns the ids of the objects that operations are about, those that they create first.
func objectsOf(items []*pubsub.ObjectMessage) (ids []string) {
	for _, creates := range [...]bool{true, false} {
		for _, m := range items {
			a := m.Operation.Action
			if (a == pubsub.MapCreate || a == pubsub.CounterCreate) == creates && !slices.Contains(ids, m.Operation.ObjectID) {
				ids = append(ids, m.Operation.ObjectID)
			}
		}
	}
	return ids
}

// checkObjects validates a request, rights first and contents after, completes its items and their
// batch, and returns what a repeat is recognised by.
func (h *Hub) checkObjects(q *PublishObjects, batch *pubsub.Batch, rule *auth.Namespace, limits *channelLimits) (engine.ID, error) {
	none := engine.ID{}
	if q.Channel.Qualifier != "" || !q.Grant.Allows(auth.OpObjectPublish, q.Channel.Resource()) {
		return none, denied("change objects of", q.Channel)
	}
	if err := admit(rule, q.Grant); err != nil {
		return none, err
	}
	count := len(q.Items) + len(q.Requests)
	if count > MaxMessagesPerPublish {
		h.opts.Limits.Exceeded(limit.PublishMessages, q.Grant.App)
		return none, pubsub.Errorf(pubsub.CodeTooManyMessages, "a request has %d operations at most, got %d", MaxMessagesPerPublish, count)
	}
	ids := make([]string, 0, count)
	now := time.Now()
	for _, m := range q.Items {
		if err := objects.Check(m, now); err != nil {
			return none, err
		}
		if err := h.completeObject(q, m); err != nil {
			return none, err
		}
		ids = append(ids, m.ID)
	}
	for _, r := range q.Requests {
		if r.Operation.InitialValue != "" {
			r.Operation.ObjectID = r.ObjectID
			if err := objects.Check(&pubsub.ObjectMessage{Operation: r.Operation}, now); err != nil {
				return none, err
			}
			r.Given = true
		}
		ids = append(ids, r.ID)
	}
	if size := q.size(); size > limits.messageBytes {
		return none, h.tooLarge(q.Grant.App, size, limits.messageBytes)
	}
	return identifyOthers("object", ids, q.ConnectionID, q.MsgSerial, batch)
}

// expand makes operations of requests.
func (h *Hub) expand(q *PublishObjects, step *objectStep) ([]*pubsub.ObjectMessage, error) {
	now := time.Now().UnixMilli()
	var items []*pubsub.ObjectMessage
	for _, r := range q.Requests {
		operations, err := objects.Expand(r, step.look, func(isMap bool) string {
			return objects.MakeID(isMap, randomID(), randomID(), now)
		})
		if err != nil {
			return nil, err
		}
		if len(items)+len(operations) > MaxMessagesPerPublish {
			return nil, pubsub.Errorf(pubsub.CodeTooManyMessages, "a request has %d operations at most", MaxMessagesPerPublish)
		}
		for _, op := range operations {
			m := &pubsub.ObjectMessage{Operation: op}
			if err := h.completeObject(q, m); err != nil {
				return nil, err
			}
			items = append(items, m)
		}
	}
	return items, nil
}

// completeObject checks who does an operation and fills in what the server sets.
func (h *Hub) completeObject(q *PublishObjects, m *pubsub.ObjectMessage) error {
	clientID, err := q.Grant.CheckClientID(m.ClientID, m.ClientID != "")
	if err != nil {
		return err
	}
	if m.ConnectionID != "" && m.ConnectionID != q.ConnectionID {
		return pubsub.NewError(pubsub.CodeInvalidConnectionID, "object message has the connectionId of another connection")
	}
	if err := checkPresenceExtras(m.Extras); err != nil {
		return err
	}
	m.ClientID, m.ConnectionID = clientID, q.ConnectionID
	m.Serial, m.SerialTimestamp, m.Timestamp = "", 0, 0 // the server's to give
	m.SiteCode = h.opts.SiteCode
	return nil
}

// objectStep is one try to change objects.
type objectStep struct {
	ctx  context.Context
	hub  *Hub
	id   pubsub.ChannelID
	pool objects.Pool          // those that change
	read []engine.Precondition // and as what their records were read
	seen objects.Pool          // those that were only looked at
}

// change returns an object that is going to be put, if nobody else has changed it meanwhile.
func (s *objectStep) change(id string) (*objects.Object, error) {
	if o := s.pool[id]; o != nil {
		return o, nil
	}
	o, revision, err := s.hub.object(s.ctx, s.id, id)
	if err == nil {
		s.pool[id] = o
		s.read = append(s.read, engine.Precondition{RecordKey: objectKey(id), Revision: revision})
	}
	return o, err
}

// look returns an object as it is.
func (s *objectStep) look(id string) (*objects.Object, error) {
	if o := s.pool[id]; o != nil {
		return o, nil
	}
	if o := s.seen[id]; o != nil {
		return o, nil
	}
	o, _, err := s.hub.object(s.ctx, s.id, id)
	if err == nil {
		s.seen[id] = o
	}
	return o, err
}

// operate applies operations. Their serials are those of the entry that is going to have them (RTO9).
func (s *objectStep) operate(items []*pubsub.ObjectMessage) error {
	for i, m := range items {
		o, err := s.change(m.Operation.ObjectID)
		if err != nil {
			return err
		}
		if err := o.Allows(m.Operation); err != nil {
			return err
		}
		placed := *m
		placed.Serial = objects.Pending(i)
		o.Apply(&placed)
		if err := s.adopt(m.Operation); err != nil {
			return err
		}
	}
	return nil
}

// adopt notes that something refers to objects again to which nothing led. So those are changed, and
// are not deleted by whoever has not seen that.
func (s *objectStep) adopt(op *pubsub.ObjectOperation) error {
	adopt := func(d pubsub.ObjectData) error {
		if d.Type != pubsub.ObjectValue {
			return nil
		}
		o, err := s.look(d.Text)
		if err != nil || o.OrphanedAt == 0 {
			return err
		}
		if o, err = s.change(d.Text); err == nil {
			o.OrphanedAt = 0
		}
		return err
	}
	if op.Action == pubsub.MapSet {
		return adopt(op.Value)
	}
	for i := range op.Entries {
		if err := adopt(op.Entries[i].Data); err != nil {
			return err
		}
	}
	return nil
}

// changeObjects changes objects in one step: plan changes objects, and makes the Append's entry, or
// nothing if there is nothing to do. The changes of the channel's objects from this node queue
// up meanwhile. Errors are the engine's, *pubsub.Error of plan, or CodeObjectsTooLarge.
func (h *Hub) changeObjects(ctx context.Context, since time.Time, id pubsub.ChannelID, limits *channelLimits, plan func(*objectStep) (*engine.Append, error)) (engine.Result, error) {
	r, err := h.inQueue(ctx, since, id, "objects", func(ctx context.Context, deadline time.Time) (*engine.Append, error) {
		step := &objectStep{ctx: ctx, hub: h, id: id, pool: make(objects.Pool, 2), seen: make(objects.Pool)}
		a, err := plan(step)
		if err != nil || a == nil {
			return nil, err
		}
		a.Channel, a.Deadline, a.Preconditions = id, deadline, step.read
		before := time.Now().Add(-ObjectGrace).UnixMilli()
		for _, p := range step.read {
			o := step.pool[p.Key]
			o.Trim(before)
			a.Puts = append(a.Puts, putObject(o, 0))
		}
		a.Bounds = []engine.Bound{{Space: engine.RecordObject, MaxRecords: limits.objects, MaxBytes: limits.objectBytes}}
		return a, nil
	})
	switch {
	case errors.Is(err, engine.ErrTooManyRecords):
		h.opts.Limits.Exceeded(limit.Objects, id.App)
		err = pubsub.Errorf(pubsub.CodeObjectsTooLarge, "a channel has %d objects at most", limits.objects).Because(err)
	case errors.Is(err, engine.ErrRecordsTooLarge):
		h.opts.Limits.Exceeded(limit.ObjectBytes, id.App)
		err = pubsub.Errorf(pubsub.CodeObjectsTooLarge, "the objects of a channel have %d bytes at most", limits.objectBytes).Because(err)
	}
	return r, err
}

func objectKey(id string) engine.RecordKey {
	return engine.RecordKey{Space: engine.RecordObject, Key: id}
}

// putObject puts an object beside an entry, or engine.NoEntry.
func putObject(o *objects.Object, entry int) engine.Put {
	if o.PutAt = 0; entry == engine.NoEntry {
		o.PutAt = time.Now().UnixMilli()
	}
	return engine.Put{RecordKey: objectKey(o.ID), Value: o.Encode(), Entry: entry, Expire: objectRetention + objectSlack}
}

// object reads an object, and the revision of its record; one that was never changed has none, and
// 0. Errors are the engine's, or CodeInvalidObject if the id is none.
func (h *Hub) object(ctx context.Context, id pubsub.ChannelID, key string) (*objects.Object, uint64, error) {
	r, found, err := h.opts.Engine.Record(ctx, id, objectKey(key))
	if err != nil {
		return nil, 0, err
	}
	if !found {
		o, err := objects.New(key)
		return o, 0, err
	}
	o, err := objects.Decode(r.Key, r.Value, r.Serial, r.Timestamp)
	return o, r.Revision, err
}

// eachObject calls f for each of a channel's objects and its record's revision, in the order of ids.
func (h *Hub) eachObject(ctx context.Context, id pubsub.ChannelID, f func(*objects.Object, uint64) error) error {
	for after := ""; ; {
		records, err := h.opts.Engine.Records(ctx, id, engine.RecordObject, after, recordsPage)
		if err != nil {
			return err
		}
		for i := range records {
			r := &records[i]
			o, err := objects.Decode(r.Key, r.Value, r.Serial, r.Timestamp)
			if err != nil {
				return err
			}
			if err := f(o, r.Revision); err != nil {
				return err
			}
		}
		if len(records) < recordsPage {
			return nil
		}
		after = records[len(records)-1].Key
	}
}

// Objects returns the objects of the channel as they are now, the deleted ones included (OST2): none
// without OBJECT_SUBSCRIBE. Each has all that was done to it up to Position, and may have more of what is
// received after that; it says up to where.
func (a *Attachment) Objects(ctx context.Context) ([]*pubsub.ObjectMessage, error) {
	if a.Modes()&pubsub.ModeObjectSubscribe == 0 {
		return nil, nil
	}
	var all []*pubsub.ObjectMessage
	err := a.channel.hub.eachObject(ctx, a.channel.id, func(o *objects.Object, _ uint64) error {
		all = append(all, o.State())
		return nil
	})
	if err != nil {
		return nil, clientError(err)
	}
	if len(all) > 0 {
		a.channel.hub.collectSoon(a.channel.id)
	}
	return slices.Clip(all), nil
}

// ReadObject asks for an object, or for what a path leads to from it, with all that is in it.
type ReadObject struct {
	Grant    *auth.Grant
	Channel  pubsub.ChannelName
	ObjectID string // empty: the root
	Path     string
}

// ReadObject returns what q asks for. What is read while it changes may be some of it before and
// some after. Errors are *pubsub.Error: CodeCapabilityDenied, CodeTLSRequired, CodeIdentifiedClientNeeded,
// CodeObjectNotFound, CodeObjectUnreadable, CodeObjectPathUnmatched, CodeObjectNotProcessable, CodeUnavailable.
func (h *Hub) ReadObject(ctx context.Context, q *ReadObject) (*pubsub.ObjectView, error) {
	rule := h.opts.Namespace(q.Grant.App, q.Channel.Base)
	if q.Channel.Qualifier != "" || !q.Grant.Allows(auth.OpObjectSubscribe, q.Channel.Resource()) {
		return nil, denied("read the objects of", q.Channel)
	}
	if err := admit(&rule, q.Grant); err != nil {
		return nil, err
	}
	pool := make(objects.Pool)
	err := h.eachObject(ctx, q.Channel.ID(q.Grant.App), func(o *objects.Object, _ uint64) error {
		pool[o.ID] = o
		return nil
	})
	if err != nil {
		return nil, clientError(err)
	}
	return pool.View(cmp.Or(q.ObjectID, pubsub.RootObject), q.Path)
}
