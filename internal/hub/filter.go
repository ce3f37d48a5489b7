package hub

import (
	"letshare-server/internal/engine"
	"letshare-server/internal/filter"
	"letshare-server/internal/pubsub"
)

// maxFilters bounds the different filters on one channel of a node, each of which is put to
// every message.
const maxFilters = 100

// sameFilter reports whether two attachments have the same filter, or both none.
func sameFilter(a, b *filter.Filter) bool {
	return a == b || a != nil && b != nil && a.Expression() == b.Expression()
}

// sieve is one batch of entries as filters see it, and as deltas. However many groups share a
// filter, it is put to each message once. The zero value is ready for use with any one batch.
type sieve struct {
	inputs [][]filter.Input           // by entry and message; made when the first filter asks
	passed map[string][]*engine.Entry // by expression
	deltas *deltas                    // made when the first group asks
}

func (s *sieve) asDeltas() *deltas {
	if s.deltas == nil {
		s.deltas = new(deltas)
	}
	return s.deltas
}

// sift returns batch with what of each entry passes f: the entry itself, a part of it, or nil
// in its place. Filtered channels tell of messages only.
func (s *sieve) sift(f *filter.Filter, batch []*engine.Entry) []*engine.Entry {
	if passed, known := s.passed[f.Expression()]; known {
		return passed
	}
	if s.inputs == nil {
		s.inputs = make([][]filter.Input, len(batch))
		s.passed = make(map[string][]*engine.Entry)
	}
	passed := make([]*engine.Entry, len(batch))
	for i, e := range batch {
		if e.Kind >= engine.KindMeta {
			passed[i] = e // is for those who asked, and no message of the channel
		}
		if !e.Kind.OfMessages() {
			continue
		}
		if s.inputs[i] == nil {
			for _, m := range e.Body.Messages {
				s.inputs[i] = append(s.inputs[i], filter.Of(m))
			}
		}
		var which []int
		for k := range e.Body.Messages {
			if f.Matches(s.inputs[i][k]) {
				which = append(which, k)
			}
		}
		switch len(which) {
		case 0:
		case len(e.Body.Messages):
			passed[i] = e
		default:
			passed[i] = partOf(e, which)
		}
	}
	s.passed[f.Expression()] = passed
	return passed
}

// partOf returns e with some of its messages. Each says itself what its place in the entry
// gave it: without an id base of the whole, clients derive none from its new place (TM2a).
func partOf(e *engine.Entry, which []int) *engine.Entry {
	body := *e.Body
	body.Messages = make([]*pubsub.Message, len(which))
	for i, k := range which {
		m := *e.Body.Messages[k]
		if m.ID == "" {
			m.ID = pubsub.ItemID(e.Body.ID, k)
		}
		serial := e.Serial.Item(k)
		if m.Serial == "" {
			m.Serial = serial
		}
		if m.Version != nil && m.Version.Serial == "" {
			v := *m.Version
			v.Serial = serial
			m.Version = &v
		}
		body.Messages[i] = &m
	}
	body.ID = ""
	part := *e
	part.Body = &body
	return &part
}
