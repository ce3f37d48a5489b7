package hub

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
)

// The operations of which one is needed to change a message that was published before.
var (
	updateOps = auth.Ops(auth.OpMessageUpdateOwn, auth.OpMessageUpdateAny)
	deleteOps = auth.Ops(auth.OpMessageDeleteOwn, auth.OpMessageDeleteAny)
)

// mutable refuses what needs one of the given operations, and a channel whose messages may be
// changed: CodeCapabilityDenied, CodeTLSRequired, CodeIdentifiedClientNeeded,
// CodeMutableRuleMissing.
func mutable(g *auth.Grant, name pubsub.ChannelName, rule *auth.Namespace, needed auth.OpSet) error {
	if name.Qualifier != "" || g.Ops(name.Resource())&needed == 0 {
		return denied("change or annotate messages of", name)
	}
	if err := admit(rule, g); err != nil {
		return err
	}
	if !rule.MutableMessages {
		return pubsub.NewError(pubsub.CodeMutableRuleMissing, "message updates, deletes, appends and annotations are not enabled for this channel")
	}
	return nil
}

// mutation returns the operations of which one is needed for what the messages change, or
// none if all of them are new.
func mutation(messages []*pubsub.Message) auth.OpSet {
	for _, m := range messages {
		switch m.Action {
		case pubsub.MessageUpdate, pubsub.MessageAppend:
			return updateOps
		case pubsub.MessageDelete:
			return deleteOps
		}
	}
	return 0
}

// Changes reports whether p changes a message that was published before.
func (p *Publish) Changes() bool { return mutation(p.Messages) != 0 }

// change updates, deletes or appends to a message that was published before (RTL32b1). It
// is a publish of one message, whose serial names the other. The outcome is known when it
// returns, because the next change of the connection may be to the same message.
func (h *Hub) change(turn *Turn, p *Publish, needed auth.OpSet, done func(Published)) error {
	id := p.Channel.ID(p.Grant.App)
	c := h.lookup(id)
	counts, transport := h.counts(c, id), p.transport()
	rule := h.opts.Namespace(p.Grant.App, p.Channel.Base)
	limits := h.limitsOf(id.App, &rule)
	err := h.checkChange(p, &rule, needed)
	if err == nil {
		err = h.paceToken(p, id)
	}
	if err == nil {
		err = h.pace(&limits, id, 1, p.Messages[0].Size())
	}
	if err != nil {
		counts.Refused(transport, stats.Messages, len(p.Messages))
		return err
	}
	if c != nil && c.crowded() {
		turn.End()
		c.waitForRoom()
	}
	var size int
	r, err := h.inQueue(context.Background(), p.Since, id, p.Messages[0].Serial, func(ctx context.Context, deadline time.Time) (*engine.Append, error) {
		before, revision, err := h.current(ctx, id, p.Messages[0].Serial)
		if err != nil {
			return nil, err
		}
		a, err := h.amend(p, before, revision, &limits)
		if err != nil {
			return nil, err
		}
		if a.Entries[0].Kind == engine.KindUpdate {
			if err := h.withSummary(ctx, id, a.Entries[0].Body.Messages[0]); err != nil {
				return nil, err
			}
		}
		size = a.Entries[0].Body.Size()
		a.Channel, a.Deadline = id, deadline
		a.Puts[0].Expire = h.keepFor(id, before.Timestamp)
		return a, nil
	})
	// An engine that delivers within Append has queued the entry by now.
	if c := h.lookup(id); c != nil {
		turn.touch(c)
	}
	h.noteFull(err, id.App)
	refused := (*pubsub.Error)(nil)
	switch {
	case errors.As(err, &refused):
		counts.Refused(transport, stats.Messages, 1)
		return refused
	case err != nil:
		counts.Failed(transport, stats.Messages, 1)
		return clientError(err)
	case !r.Repeated:
		h.opts.Metrics.Published(1)
		counts.Published(transport, stats.Messages, 1, size)
		counts.Persisted(stats.Messages, 1, size)
		if c == nil {
			h.touch(id, time.Now())
		}
	}
	out := Published{Count: 1, BaseID: p.Messages[0].ID}
	if len(r.Serials) > 0 {
		out.Serial = r.Serials[0]
	}
	done(out)
	return nil
}

// checkChange checks what does not depend on the message that is changed, and completes p:
// the version says who changes it, what for and with which metadata (RSL15b7, RTL32b2, TM2s3-5).
func (h *Hub) checkChange(p *Publish, rule *auth.Namespace, needed auth.OpSet) error {
	if err := mutable(p.Grant, p.Channel, rule, needed); err != nil {
		return err
	}
	if len(p.Messages) != 1 {
		return pubsub.NewError(pubsub.CodeBadRequest, "an update, delete or append comes by itself, and not with other messages")
	}
	m := p.Messages[0]
	if _, _, err := parseMessageSerial(m.Serial); err != nil {
		return err
	}
	var v pubsub.Version
	if m.Version != nil {
		v = *m.Version
	}
	by, err := p.Grant.CheckClientID(v.ClientID, v.ClientID != "")
	if err != nil {
		return err
	}
	m.Version = &pubsub.Version{ClientID: by, Description: v.Description, Metadata: v.Metadata}
	m.ID = "" // of the message as its sender received it, perhaps
	return nil
}

// mayChange reports whether the party may change a message of this author.
func mayChange(g *auth.Grant, channel pubsub.ChannelName, action pubsub.MessageAction, author string) error {
	own, any := auth.OpMessageUpdateOwn, auth.OpMessageUpdateAny
	if action == pubsub.MessageDelete {
		own, any = auth.OpMessageDeleteOwn, auth.OpMessageDeleteAny
	}
	ops := g.Ops(channel.Resource())
	switch {
	case ops.Has(any):
		return nil
	case !ops.Has(own):
		return denied("change messages of", channel)
	case !g.Identified():
		return pubsub.NewError(pubsub.CodeOwnMessagesOnly, "only identified clients may change messages of their own")
	case g.ClientID != author:
		return denied("change messages of others on", channel)
	}
	return nil
}

// amend makes the Append of a change to a message, given as it was before and with the revision of its
// record: an entry, and the record of what the message is now.
func (h *Hub) amend(p *Publish, before *pubsub.Message, revision uint64, limits *channelLimits) (*engine.Append, error) {
	given := p.Messages[0]
	if err := mayChange(p.Grant, p.Channel, given.Action, before.ClientID); err != nil {
		return nil, err
	}
	after := *before
	after.Action, after.Version, after.Summary = given.Action, given.Version, nil
	after.ConnectionID = p.publisher()
	if given.Name != "" || given.EmptyName {
		after.Name, after.EmptyName = given.Name, given.EmptyName
	}
	after.Extras = bytes.Clone(before.Extras) // the log is not to keep all of the record for it
	if given.Extras != nil && !bytes.Equal(given.Extras, before.Extras) {
		ops := p.Grant.Ops(p.Channel.Resource())
		ephemeral, err := checkExtras(given, ops)
		if err != nil {
			return nil, err
		}
		if ephemeral {
			return nil, pubsub.NewError(pubsub.CodeBadRequest, "a change of a message cannot be ephemeral")
		}
		after.Extras = given.Extras
		if claim, claimed := p.Grant.UserClaim(p.Channel.Resource()); claimed {
			after.Extras = withUserClaim(after.Extras, claim)
		}
	}
	var more []byte // that after has behind its data
	switch {
	case given.Data.Kind == pubsub.NoData:
	case given.Action == pubsub.MessageAppend && before.Data.Kind != pubsub.NoData:
		if !joinable(before, given) {
			return nil, pubsub.NewError(pubsub.CodeInvalidMessageData, "only text can be appended to text, and bytes to bytes")
		}
		more = given.Data.Bytes
	default:
		after.Data, after.Encoding = given.Data, given.Encoding
	}
	if size := after.Size() + len(more) + len(after.Version.Description) + len(after.Version.Metadata); size > limits.messageBytes {
		return nil, h.tooLarge(p.Grant.App, size, limits.messageBytes)
	}

	body := new(changedBody) // lives as long as the entry
	batch, told := &body.batch, &body.message
	*batch = pubsub.Batch{ConnectionID: p.publisher(), ClientID: p.Grant.ClientID, Messages: append(body.messages[:0], given)}
	id, err := identify(p, batch)
	if err != nil {
		return nil, err
	}
	after.ID = pubsub.ItemID(batch.ID, 0)
	kind := engine.KindUpdate
	switch {
	case given.Action != pubsub.MessageAppend:
	case after.Name == before.Name && after.EmptyName == before.EmptyName && bytes.Equal(after.Extras, before.Extras):
		kind = engine.KindAppend
	default:
		after.Action = pubsub.MessageUpdate // receivers, and filters, must learn of all that has changed
		after.Data.Bytes, more = slices.Concat(after.Data.Bytes, more), nil
	}
	if *told = after; kind == engine.KindAppend {
		told.Data, told.Encoding = given.Data, given.Encoding
	}
	batch.Messages[0] = told
	key := versionKey(before.Serial)
	c := new(changing) // lives until the outcome is known
	c.entries[0] = engine.Draft{Kind: kind, Body: batch}
	c.preconditions[0] = engine.Precondition{RecordKey: key, Revision: revision}
	c.puts[0] = engine.Put{RecordKey: key, Value: encodeVersion(&after, more), Entry: 0}
	c.Append = engine.Append{ID: id, Entries: c.entries[:], Preconditions: c.preconditions[:], Puts: c.puts[:]}
	return &c.Append, nil
}

// changing is the Append of a change with what it consists of.
type changing struct {
	engine.Append
	entries       [1]engine.Draft
	preconditions [1]engine.Precondition
	puts          [1]engine.Put
}

// changedBody is a batch of one message with what it consists of.
type changedBody struct {
	batch    pubsub.Batch
	messages [1]*pubsub.Message
	message  pubsub.Message
}

// joinable reports whether something may be appended to the data of a message: only text to text and
// bytes to bytes, and not what is encoded as JSON or encrypted.
func joinable(before, more *pubsub.Message) bool {
	return before.Data.Kind == more.Data.Kind && before.Encoding == more.Encoding && (more.Encoding == "" || more.Encoding == "utf-8")
}

// keepSlack is for how long records may outlast what they belong to.
const keepSlack = time.Minute

// keepFor is how long from now on the records of a message must be kept that was published at
// the given time.
func (h *Hub) keepFor(id pubsub.ChannelID, published int64) time.Duration {
	return max(h.opts.Retention(id)-time.Since(time.UnixMilli(published)), 0) + engine.LiveWindow + keepSlack
}

// inQueue appends what plan makes when no other goroutine of this node changes the same message, so
// that only those of other nodes can come between. The store has AppendTimeout from since on, or
// from now on if that is zero, and what waits is part of it.
func (h *Hub) inQueue(ctx context.Context, since time.Time, id pubsub.ChannelID, serial string, plan planner) (engine.Result, error) {
	if since.IsZero() {
		since = time.Now()
	}
	deadline := h.deadline(since)
	if !h.Prompt(id) { // else nothing waits for long
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	turn := h.changing[maphash.Comparable(h.seed, changed{id, serial})%changeQueues]
	select {
	case turn <- struct{}{}:
	default:
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			return engine.Result{}, engine.ErrUnavailable
		}
	}
	defer func() { <-turn }()
	return h.attempt(ctx, deadline, plan)
}

// Prompt reports whether whatever is done to a channel has its outcome without waiting for a
// store outside this process.
func (h *Hub) Prompt(id pubsub.ChannelID) bool {
	e, ok := h.opts.Engine.(engine.Prompt)
	return ok && e.Prompt(id)
}

// changed names a message of a channel.
type changed struct {
	channel pubsub.ChannelID
	serial  string
}

// changeQueues is how many messages can be changed at once, at most.
const changeQueues = 64
