package session

import (
	"context"
	"strconv"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/wire"
)

// publishObjects hands an OBJECT to the hub (RTO15). It is acknowledged as a publish is, in its turn, with
// the serial of each operation (RTO20).
func (s *Session) publishObjects(turn *hub.Turn, pm *wire.ProtocolMessage) {
	number := s.acks.expect(pm.MsgSerial)
	q, err := s.objectChange(pm)
	if err != nil {
		s.acks.resolve(s, number, hub.Published{Err: pubsub.ErrorFor(err)})
		return
	}
	s.change(turn, &q.Channel, &pubsub.Batch{Objects: q.Items}, number, func(turn *hub.Turn, since time.Time) (hub.Published, error) {
		q.Since = since
		out, err := s.manager.opts.Hub.PublishObjects(context.Background(), turn, q)
		return out.Published, err
	})
}

// objectChange is the request of an OBJECT.
func (s *Session) objectChange(pm *wire.ProtocolMessage) (*hub.PublishObjects, error) {
	name, err := pubsub.ParseChannelName(pm.Channel)
	if err != nil {
		return nil, err
	}
	if pm.ItemErr != nil {
		return nil, s.itemError(pm)
	}
	if pm.State == nil { // as against an empty array, which is acknowledged
		return nil, pubsub.NewError(pubsub.CodeInvalidObject, "there are no object messages")
	}
	grant := s.Grant()
	if grant.Allows(auth.OpObjectPublish, name.Resource()) { // otherwise the hub says what is missing
		// No mode for objects is granted without being asked for.
		if _, a := s.find(pm.Channel); a != nil && a.hub.Modes()&pubsub.ModeObjectPublish == 0 && name.Qualifier == "" {
			return nil, pubsub.NewError(pubsub.CodeModeNotGranted, "the channel was attached without the object_publish mode")
		}
	}
	return &hub.PublishObjects{
		Grant:        grant,
		Channel:      name,
		Items:        pm.State,
		ConnectionID: s.id,
		MsgSerial:    pm.MsgSerial,
	}, nil
}

// The bounds of one page of an OBJECT_SYNC: objects or parts of them, and bytes as limits count. JSON,
// base64 and serials make them larger.
const (
	objectPageItems = 100
	objectPageBytes = 32 << 10
	entryOverhead   = 64 // of what an entry has beside its key and value
)

// objectPages makes the pages of a new OBJECT_SYNC (RTO5), of which the last has an empty cursor.
// Without objects there are none.
func (a *attachment) objectPages(objects []*pubsub.ObjectMessage) []*wire.ProtocolMessage {
	if len(objects) == 0 {
		return nil
	}
	if a.layout == wire.NewObjects {
		objects = inParts(objects)
	}
	sequence := a.session.newSequence()
	var pages []*wire.ProtocolMessage
	for len(objects) > 0 {
		n, bytes := 0, 0
		for n < len(objects) && n < objectPageItems && (n == 0 || bytes+stateSize(objects[n]) <= objectPageBytes) {
			bytes += stateSize(objects[n])
			n++
		}
		cursor := ""
		if n < len(objects) {
			cursor = strconv.Itoa(len(pages) + 1)
		}
		pages = append(pages, &wire.ProtocolMessage{
			Action: wire.ActionObjectSync, Channel: a.channel, HasChannel: true,
			ChannelSerial: sequence + ":" + cursor, State: objects[:n:n], Layout: a.layout,
		})
		objects = objects[n:]
	}
	return pages
}

// inParts divides maps that do not fit on a page: each part has other keys, and else is the same
// (RTO5f2).
func inParts(objects []*pubsub.ObjectMessage) []*pubsub.ObjectMessage {
	parts := make([]*pubsub.ObjectMessage, 0, len(objects))
	for _, m := range objects {
		entries := m.State.Entries
		for first := true; first || len(entries) > 0; first = false {
			n, bytes := 0, 0
			for n < len(entries) && (n == 0 || bytes+entrySize(&entries[n]) <= objectPageBytes) {
				bytes += entrySize(&entries[n])
				n++
			}
			part, state := *m, *m.State
			state.Entries = entries[:n:n]
			part.State = &state
			parts = append(parts, &part)
			entries = entries[n:]
		}
	}
	return parts
}

func stateSize(m *pubsub.ObjectMessage) int {
	return m.Size() + entryOverhead*(1+len(m.State.Entries))
}

func entrySize(e *pubsub.ObjectEntry) int { return len(e.Key) + e.Data.Size() + entryOverhead }
