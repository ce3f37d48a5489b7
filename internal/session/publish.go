package session

import (
	"context"
	"sync"
	"time"

	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// publish hands a MESSAGE to the hub. It is acknowledged exactly once, in the order of
// msgSerials (RTN7a, RTN7b). It needs no attachment, and makes none (RTL6c1, RTL6c5).
func (s *Session) publish(turn *hub.Turn, pm *wire.ProtocolMessage) {
	number := s.acks.expect(pm.MsgSerial)
	if err := s.submit(turn, pm, number); err != nil {
		s.acks.resolve(s, number, hub.Published{Err: pubsub.ErrorFor(err)})
	}
}

// submit gives it to the hub. Parameters of the frame have no effect (RTL32e).
func (s *Session) submit(turn *hub.Turn, pm *wire.ProtocolMessage, number uint64) error {
	name, err := pubsub.ParseChannelName(pm.Channel)
	if err != nil {
		return err
	}
	if pm.ItemErr != nil {
		return s.itemError(pm)
	}
	if pm.Messages == nil { // as against an empty array, which is acknowledged
		return pubsub.NewError(pubsub.CodeBadRequest, "there are no messages to publish")
	}
	if _, a := s.find(pm.Channel); a != nil && a.lacks(pubsub.ModePublish) {
		return pubsub.NewError(pubsub.CodeModeNotGranted, "the channel was attached without the publish mode")
	}
	p := hub.Publish{
		Grant:        s.Grant(),
		Channel:      name,
		Messages:     pm.Messages,
		ConnectionID: s.id,
		MsgSerial:    pm.MsgSerial,
	}
	if s.mustWait(&p.Channel, p.Changes()) {
		later := p // so that those that do not wait need not be on the heap
		s.publishLater(turn, &later, number)
		return nil
	}
	return s.manager.opts.Hub.Publish(turn, &p, func(out hub.Published) { s.acks.resolve(s, number, out) })
}

func (s *Session) publishLater(turn *hub.Turn, p *hub.Publish, number uint64) {
	batch := pubsub.Batch{Messages: p.Messages}
	s.later(turn, &p.Channel, batch.Size(), func(turn *hub.Turn, since time.Time) {
		p.Since = since
		err := s.manager.opts.Hub.Publish(turn, p, func(out hub.Published) { s.acks.resolve(s, number, out) })
		if err != nil {
			s.acks.resolve(s, number, hub.Published{Err: pubsub.ErrorFor(err)})
		}
	})
}

// lacks reports whether a mode is missing only because it was not asked for; otherwise the
// capability is what is missing, and the hub says so.
func (a *attachment) lacks(mode pubsub.Mode) bool {
	return a.hub.Modes()&mode == 0 && a.asked != 0 && a.asked&mode == 0
}

// annotate hands an ANNOTATION to the hub (RTAN1c). It is acknowledged as a publish is (RTAN1d), in
// its turn, and needs no attachment either.
func (s *Session) annotate(turn *hub.Turn, pm *wire.ProtocolMessage) {
	number := s.acks.expect(pm.MsgSerial)
	q, err := s.annotations(pm)
	if err != nil {
		s.acks.resolve(s, number, hub.Published{Err: pubsub.ErrorFor(err)})
		return
	}
	s.change(turn, &q.Channel, &pubsub.Batch{Annotations: q.Items}, number, func(turn *hub.Turn, since time.Time) (hub.Published, error) {
		q.Since = since
		return s.manager.opts.Hub.Annotate(context.Background(), turn, q)
	})
}

// change does something to a channel that waits for the store, when it is its turn, and acknowledges it.
func (s *Session) change(turn *hub.Turn, channel *pubsub.ChannelName, batch *pubsub.Batch, number uint64, do func(turn *hub.Turn, since time.Time) (hub.Published, error)) {
	resolve := func(turn *hub.Turn, since time.Time) {
		out, err := do(turn, since)
		out.Err = pubsub.ErrorFor(err)
		s.acks.resolve(s, number, out)
	}
	if s.mustWait(channel, true) {
		s.later(turn, channel, batch.Size(), resolve)
		return
	}
	resolve(turn, time.Time{})
}

// annotations is the request of an ANNOTATION.
func (s *Session) annotations(pm *wire.ProtocolMessage) (*hub.Annotate, error) {
	name, err := pubsub.ParseChannelName(pm.Channel)
	if err != nil {
		return nil, err
	}
	if pm.ItemErr != nil {
		return nil, s.itemError(pm)
	}
	if pm.Annotations == nil { // as against an empty array, which is acknowledged
		return nil, pubsub.NewError(pubsub.CodeBadRequest, "there are no annotations")
	}
	if _, a := s.find(pm.Channel); a != nil && a.lacks(pubsub.ModeAnnotationPublish) {
		return nil, pubsub.NewError(pubsub.CodeModeNotGranted, "the channel was attached without the annotation_publish mode")
	}
	return &hub.Annotate{
		Grant:        s.Grant(),
		Channel:      name,
		Items:        pm.Annotations,
		ConnectionID: s.id,
		MsgSerial:    pm.MsgSerial,
	}, nil
}

// refuse answers a ProtocolMessage that needs an acknowledgement with a NACK.
func (s *Session) refuse(pm *wire.ProtocolMessage, err *pubsub.Error) {
	s.acks.resolve(s, s.acks.expect(pm.MsgSerial), hub.Published{Err: err})
}

// maxUnresolved bounds the publishes of one connection whose outcome is open; then its
// reading waits.
const maxUnresolved = 4096

// acks is the queue of acknowledgements of one connection: one for each publish, in their
// order, sent as soon as it and all before it are resolved. Within a turn they are kept
// back, to be sent as few messages as possible.
type acks struct {
	mu     sync.Mutex
	freed  *sync.Cond // on mu; made when first needed
	first  uint64     // number of queue[0]
	queue  []ack
	inTurn bool
}

type ack struct {
	msgSerial int64
	resolved  bool
	result    hub.Published
}

// expect adds a publish and returns its number. It waits while too many are unresolved.
func (q *acks) expect(msgSerial int64) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.queue) >= maxUnresolved && !q.queue[0].resolved {
		if q.freed == nil {
			q.freed = sync.NewCond(&q.mu)
		}
		q.freed.Wait()
	}
	q.inTurn = true
	q.queue = append(q.queue, ack{msgSerial: msgSerial})
	return q.first + uint64(len(q.queue)) - 1
}

// resolve notes the outcome of a publish.
func (q *acks) resolve(s *Session, number uint64, p hub.Published) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := &q.queue[number-q.first]
	a.resolved, a.result = true, p
	if !q.inTurn {
		q.sendLocked(s, false)
	}
	if q.freed != nil {
		q.freed.Broadcast()
	}
}

// endTurn sends what was resolved during the turn.
func (q *acks) endTurn(s *Session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inTurn = false
	q.sendLocked(s, true)
}

// maxAcksJoined bounds the publishes that one ACK covers.
const maxAcksJoined = 256

// sendLocked sends the acknowledgements of all resolved publishes at the head of the queue:
// one ACK for each run of consecutive msgSerials that succeeded, one NACK for each failure.
func (q *acks) sendLocked(s *Session, more bool) {
	n := 0
	for n < len(q.queue) && q.queue[n].resolved {
		head := &q.queue[n]
		n++
		if head.result.Err != nil {
			s.transport.Send(&wire.ProtocolMessage{
				Action: wire.ActionNack, MsgSerial: head.msgSerial, Count: 1, Error: wire.NewErrorInfo(head.result.Err),
			}, more)
			continue
		}
		pm := ackMessages.Get().(*wire.ProtocolMessage)
		pm.Action, pm.MsgSerial, pm.Count = wire.ActionAck, head.msgSerial, 1
		pm.EntryRes = append(pm.EntryRes, entryResult(&head.result))
		for n < len(q.queue) && pm.Count < maxAcksJoined {
			next := &q.queue[n]
			if !next.resolved || next.result.Err != nil || next.msgSerial != head.msgSerial+int64(pm.Count) {
				break
			}
			pm.EntryRes = append(pm.EntryRes, entryResult(&next.result))
			pm.Count++
			n++
		}
		s.transport.Send(pm, more)
		clear(pm.EntryRes)
		*pm = wire.ProtocolMessage{EntryRes: pm.EntryRes[:0]}
		ackMessages.Put(pm)
	}
	if n == 0 {
		return
	}
	q.first += uint64(n)
	left := copy(q.queue, q.queue[n:])
	clear(q.queue[left:])
	q.queue = q.queue[:left]
	if left == 0 && cap(q.queue) > 16 {
		q.queue = nil // an idle connection keeps little
	}
}

// ackMessages are ACKs with room for their results.
var ackMessages = sync.Pool{New: func() any { return new(wire.ProtocolMessage) }}

// entryResult is what an ACK says of one publish (RTL6j).
func entryResult(p *hub.Published) wire.EntryResult {
	return wire.EntryResult{Entry: p.Serial, Items: p.Count}
}
