package hub

import (
	"context"
	"errors"
	"strings"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// A member is a record of RecordPresence with the key "<connectionId>:<clientId>". Its value
// is memberVersion, one byte for the kind of its data, and then four fields, each with its
// length before it as an unsigned varint: id, encoding, data, extras. The timestamp is that
// of the entry by which the member entered or was updated, which the engine keeps.
const memberVersion = 1

var errMember = errors.New("hub: a presence member is not readable")

func memberKey(connectionID, clientID string) engine.RecordKey {
	return engine.RecordKey{Space: engine.RecordPresence, Key: connectionID + ":" + clientID}
}

func encodeMember(m *pubsub.PresenceMessage) []byte {
	b := make([]byte, 0, 10+len(m.ID)+len(m.Encoding)+len(m.Data.Bytes)+len(m.Extras))
	b = append(b, memberVersion, byte(m.Data.Kind))
	b = appendField(appendField(b, m.ID), m.Encoding)
	return appendField(appendField(b, m.Data.Bytes), m.Extras)
}

func decodeMember(r *engine.Record) (*pubsub.PresenceMessage, error) {
	m := &pubsub.PresenceMessage{Action: pubsub.PresencePresent, Timestamp: r.Timestamp}
	var found bool
	if m.ConnectionID, m.ClientID, found = strings.Cut(r.Key, ":"); !found {
		return nil, errMember
	}
	b := r.Value
	if len(b) < 2 || b[0] != memberVersion || b[1] > byte(pubsub.BinaryData) {
		return nil, errMember
	}
	m.Data.Kind = pubsub.DataKind(b[1])
	var id, encoding, data, extras []byte
	if rest, ok := readFields(b[2:], &id, &encoding, &data, &extras); !ok || len(rest) > 0 {
		return nil, errMember
	}
	m.ID, m.Encoding = string(id), string(encoding)
	if m.Data.Kind != pubsub.NoData {
		m.Data.Bytes = data
	}
	if len(extras) > 0 {
		m.Extras = extras
	}
	return m, nil
}

// membersOf is the members of one connection in one channel, by clientId, as they were read
// and as they will be.
type membersOf struct {
	connectionID string
	byClient     map[string]*memberChange
}

type memberChange struct {
	revision uint64                  // as read; 0: there was none
	now      *pubsub.PresenceMessage // nil: there is none
	changed  bool
}

func newMembersOf(connectionID string) membersOf {
	return membersOf{connectionID, make(map[string]*memberChange)}
}

func (m membersOf) get(clientID string) *memberChange {
	c := m.byClient[clientID]
	if c == nil {
		c = new(memberChange)
		m.byClient[clientID] = c
	}
	return c
}

func (m membersOf) add(r *engine.Record) error {
	now, err := decodeMember(r)
	if err == nil {
		m.byClient[now.ClientID] = &memberChange{revision: r.Revision, now: now}
	}
	return err
}

// put makes a change the records, if nobody else has changed them since they were read. The
// Append's first entry tells of the changes.
func (m membersOf) put(a *engine.Append) {
	for clientID, c := range m.byClient {
		if !c.changed {
			continue
		}
		key := memberKey(m.connectionID, clientID)
		a.Preconditions = append(a.Preconditions, engine.Precondition{RecordKey: key, Revision: c.revision})
		if c.now != nil {
			a.Puts = append(a.Puts, engine.Put{
				RecordKey: key, Value: encodeMember(c.now), Entry: 0, Transient: m.connectionID != fixtureConnection,
			})
		} else {
			a.Puts = append(a.Puts, engine.Put{RecordKey: key, Entry: engine.NoEntry})
		}
	}
}

// membersBefore reads the members that p is about.
func (h *Hub) membersBefore(ctx context.Context, id pubsub.ChannelID, p *Presence) (membersOf, error) {
	if len(p.Items) > 1 {
		return h.membersOf(ctx, id, p.ConnectionID)
	}
	all := newMembersOf(p.ConnectionID)
	r, found, err := h.opts.Engine.Record(ctx, id, memberKey(p.ConnectionID, p.Items[0].ClientID))
	if err == nil && found {
		err = all.add(&r)
	}
	return all, err
}

// membersOf reads all members of a connection.
func (h *Hub) membersOf(ctx context.Context, id pubsub.ChannelID, connectionID string) (membersOf, error) {
	all := newMembersOf(connectionID)
	err := h.eachMember(ctx, id, connectionID, "", func(r *engine.Record) (bool, error) {
		return true, all.add(r)
	})
	return all, err
}

// recordsPage is how many records are read at a time.
const recordsPage = 200

// eachMember calls f for the members after the one with the given key, in the order of keys,
// until it returns false. With a connectionID only that connection's are read.
func (h *Hub) eachMember(ctx context.Context, id pubsub.ChannelID, connectionID, after string, f func(*engine.Record) (bool, error)) error {
	prefix := ""
	if connectionID != "" {
		prefix = connectionID + ":"
	}
	after = max(after, prefix)
	for {
		records, err := h.opts.Engine.Records(ctx, id, engine.RecordPresence, after, recordsPage)
		if err != nil {
			return err
		}
		for i := range records {
			if !strings.HasPrefix(records[i].Key, prefix) {
				return nil
			}
			if more, err := f(&records[i]); err != nil || !more {
				return err
			}
		}
		if len(records) < recordsPage {
			return nil
		}
		after = records[len(records)-1].Key
	}
}

// Members selects presence members of a channel.
type Members struct {
	Grant        *auth.Grant
	Channel      pubsub.ChannelName
	ClientID     string // only members with this one; empty: all
	ConnectionID string // likewise
	Limit        int    // members, at least 1

	// Cursor goes on after the page before, whose Next it is. It stays valid while members
	// come and go.
	Cursor string
}

// MembersPage is a part of a channel's presence members. Their action is present, and they
// are complete.
type MembersPage struct {
	Members []*pubsub.PresenceMessage
	Next    string // the Cursor of the next page; empty if this is the last
}

// Members returns a page of a channel's members (RSP3a). Errors are *pubsub.Error:
// CodeCapabilityDenied, CodeUnavailable.
func (h *Hub) Members(ctx context.Context, q *Members) (*MembersPage, error) {
	if q.Channel.Qualifier != "" || !q.Grant.Allows(auth.OpSubscribe, q.Channel.Resource()) {
		return nil, denied("read the members of", q.Channel)
	}
	page := new(MembersPage)
	last := ""
	err := h.eachMember(ctx, q.Channel.ID(q.Grant.App), q.ConnectionID, q.Cursor, func(r *engine.Record) (bool, error) {
		m, err := decodeMember(r)
		if err != nil {
			return false, err
		}
		if q.ClientID != "" && m.ClientID != q.ClientID {
			return true, nil
		}
		if len(page.Members) == q.Limit {
			page.Next = last
			return false, nil
		}
		page.Members = append(page.Members, m)
		last = r.Key
		return true, nil
	})
	if err != nil {
		return nil, clientError(err)
	}
	return page, nil
}

// Channel is the channel that the attachment belongs to.
func (a *Attachment) Channel() pubsub.ChannelID { return a.channel.id }

// Members returns the members that the attachment's client may know of now: all of the
// channel's with PRESENCE_SUBSCRIBE, else those of its own connection (RTP17a), and none if
// it has a filter. Everything that happens after the call began is received.
func (a *Attachment) Members(ctx context.Context) ([]*pubsub.PresenceMessage, error) {
	if a.filter != nil {
		return nil, nil
	}
	connectionID := a.connID
	if a.Modes()&pubsub.ModePresenceSubscribe != 0 {
		connectionID = ""
	} else if connectionID == "" {
		return nil, nil
	}
	var all []*pubsub.PresenceMessage
	err := a.channel.hub.eachMember(ctx, a.channel.id, connectionID, "", func(r *engine.Record) (bool, error) {
		m, err := decodeMember(r)
		all = append(all, m)
		return true, err
	})
	if err != nil {
		return nil, clientError(err)
	}
	return all, nil
}
