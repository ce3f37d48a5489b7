package hub

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// A message that was changed has a record of RecordVersion with its serial as key: what it is
// now. The value is versionFormat, a byte each for the action that changed it last, the kind of
// its data and whether its name is empty and not absent, its timestamp as a varint, and ten
// fields: id, name, encoding, clientId, connectionId, extras; clientId, description and metadata
// of the version; data. The version's serial and timestamp are those of the entry of the change,
// which the engine keeps. A message without a record is as it was published.
const versionFormat = 1

var errVersion = errors.New("hub: the latest version of a message is not readable")

func versionKey(serial string) engine.RecordKey {
	return engine.RecordKey{Space: engine.RecordVersion, Key: serial}
}

// encodeVersion makes the value for a message that has a version, and more data than it says.
func encodeVersion(m *pubsub.Message, more []byte) []byte {
	v := m.Version
	b := make([]byte, 0, 64+len(m.ID)+len(m.Name)+len(m.Encoding)+len(m.ClientID)+len(m.ConnectionID)+len(m.Extras)+
		len(v.ClientID)+len(v.Description)+len(v.Metadata)+len(m.Data.Bytes)+len(more))
	named := byte(0)
	if m.EmptyName {
		named = 1
	}
	b = append(b, versionFormat, byte(m.Action), byte(m.Data.Kind), named)
	b = binary.AppendVarint(b, m.Timestamp)
	for _, s := range [...]string{m.ID, m.Name, m.Encoding, m.ClientID, m.ConnectionID} {
		b = appendField(b, s)
	}
	b = appendField(b, m.Extras)
	b = appendField(appendField(appendField(b, v.ClientID), v.Description), v.Metadata)
	b = binary.AppendUvarint(b, uint64(len(m.Data.Bytes)+len(more)))
	return append(append(b, m.Data.Bytes...), more...)
}

// decodeVersion returns what encodeVersion was given, complete. It refers to the record.
func decodeVersion(r *engine.Record) (*pubsub.Message, error) {
	b := r.Value
	if len(b) < 4 || b[0] != versionFormat || b[2] > byte(pubsub.BinaryData) || b[3] > 1 {
		return nil, errVersion
	}
	m := &pubsub.Message{Action: pubsub.MessageAction(b[1]), EmptyName: b[3] == 1, Serial: r.Key}
	m.Data.Kind = pubsub.DataKind(b[2])
	v := &pubsub.Version{Serial: r.Serial.Item(0), Timestamp: r.Timestamp}
	at, n := binary.Varint(b[4:])
	if n <= 0 {
		return nil, errVersion
	}
	m.Timestamp, m.Version = at, v
	var id, name, encoding, clientID, connectionID, extras, by, description, metadata, data []byte
	rest, ok := readFields(b[4+n:], &id, &name, &encoding, &clientID, &connectionID, &extras, &by, &description, &metadata, &data)
	if !ok || len(rest) > 0 {
		return nil, errVersion
	}
	texts := split(id, name, encoding, clientID, connectionID)
	m.ID, m.Name, m.Encoding, m.ClientID, m.ConnectionID = texts[0], texts[1], texts[2], texts[3], texts[4]
	v.ClientID, v.Description = string(by), string(description)
	if len(extras) > 0 {
		m.Extras = extras
	}
	if len(metadata) > 0 {
		v.Metadata = metadata
	}
	if m.Data.Kind != pubsub.NoData {
		m.Data.Bytes = data
	}
	return m, nil
}

// split returns fields as parts of one text.
func split(fields ...[]byte) (texts [5]string) {
	var joined [160]byte
	all := joined[:0]
	for _, f := range fields {
		all = append(all, f...)
	}
	rest := string(all)
	for i, f := range fields {
		texts[i], rest = rest[:len(f)], rest[len(f):]
	}
	return texts
}

// shown is how readers see a message whose newest change may be an append: as a whole it is
// an update.
func shown(m *pubsub.Message) *pubsub.Message {
	if m.Action == pubsub.MessageAppend {
		m.Action = pubsub.MessageUpdate
	}
	return m
}

// parseMessageSerial returns where a message was published: its entry, and its place there.
func parseMessageSerial(serial string) (entry pubsub.Serial, index int, err error) {
	entry, index, err = pubsub.ParseItemSerial(serial)
	if err != nil {
		return "", 0, pubsub.Errorf(pubsub.CodeInvalidParameterValue, "invalid serial: %q", clipped(serial))
	}
	return entry, index, nil
}

func clipped(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

// current returns a message as it is now, complete, and the revision of its record, which is
// 0 if it was never changed. It refers to what is shared. Errors are the engine's, or
// *pubsub.Error: CodeInvalidParameterValue if the serial is none, CodeNotFound.
func (h *Hub) current(ctx context.Context, id pubsub.ChannelID, serial string) (*pubsub.Message, uint64, error) {
	r, found, err := h.opts.Engine.Record(ctx, id, versionKey(serial))
	switch {
	case err != nil:
		return nil, 0, err
	case found:
		m, err := decodeVersion(&r)
		return m, r.Revision, err
	}
	m, err := h.created(ctx, id, serial)
	return m, 0, err
}

// created returns a message as it was published.
func (h *Hub) created(ctx context.Context, id pubsub.ChannelID, serial string) (*pubsub.Message, error) {
	entry, index, err := parseMessageSerial(serial)
	if err != nil {
		return nil, err
	}
	e, err := h.entryAt(ctx, id, engine.KindMessage, entry)
	switch {
	case err != nil:
		return nil, err
	case e == nil || index >= len(e.Body.Messages):
		return nil, pubsub.NewError(pubsub.CodeNotFound, "there is no message with this serial")
	}
	return deliveredItem(e, index), nil
}

// renew replaces messages, which are complete and the caller's, by what they are now, with how
// they are annotated. It returns the serials of the versions that replaced any.
func (h *Hub) renew(ctx context.Context, id pubsub.ChannelID, messages []*pubsub.Message) (versions map[string]string, err error) {
	if len(messages) == 0 {
		return nil, nil
	}
	at := make(map[string]int, len(messages))
	first, last := messages[0].Serial, messages[0].Serial
	for i, m := range messages {
		at[m.Serial] = i
		first, last = min(first, m.Serial), max(last, m.Serial)
	}
	err = h.eachRecord(ctx, id, engine.RecordVersion, first, last, func(r *engine.Record) error {
		i, known := at[r.Key]
		if !known {
			return nil
		}
		m, err := decodeVersion(r)
		if err != nil {
			return err
		}
		messages[i] = shown(m)
		if versions == nil {
			versions = make(map[string]string)
		}
		versions[r.Key] = m.Version.Serial
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = h.eachRecord(ctx, id, engine.RecordAnnotation, first, last, func(r *engine.Record) error {
		i, known := at[r.Key]
		if !known {
			return nil
		}
		sum, err := decodeSummary(r.Value)
		if err == nil {
			messages[i].Summary = sum.json()
		}
		return err
	})
	return versions, err
}

// eachRecord calls f for the records of a space whose keys are serials from first to last.
func (h *Hub) eachRecord(ctx context.Context, id pubsub.ChannelID, space engine.RecordSpace, first, last string, f func(*engine.Record) error) error {
	after := first[:len(first)-1] // less than first, and no serial lies between that matters
	for {
		records, err := h.opts.Engine.Records(ctx, id, space, after, recordsPage)
		if err != nil {
			return err
		}
		for i := range records {
			if records[i].Key > last {
				return nil
			}
			if err := f(&records[i]); err != nil {
				return err
			}
		}
		if len(records) < recordsPage {
			return nil
		}
		after = records[len(records)-1].Key
	}
}

// OneMessage asks for a message by its serial.
type OneMessage struct {
	Grant   *auth.Grant
	Channel pubsub.ChannelName
	Serial  string
}

// Message returns a message as it is now, with how it is annotated (RSL11b, TM2u). Callers must not change it.
//
// Errors are *pubsub.Error: CodeCapabilityDenied, CodeInvalidParameterValue, CodeNotFound,
// CodeUnavailable.
func (h *Hub) Message(ctx context.Context, q *OneMessage) (*pubsub.Message, error) {
	if !q.Grant.Allows(auth.OpHistory, q.Channel.Resource()) || q.Channel.Qualifier == "filter" {
		return nil, denied("read the history of", q.Channel)
	}
	if _, _, err := parseMessageSerial(q.Serial); err != nil {
		return nil, err
	}
	id := q.Channel.ID(q.Grant.App)
	m, _, err := h.current(ctx, id, q.Serial)
	if err == nil {
		err = h.withSummary(ctx, id, m)
	}
	if err != nil {
		return nil, clientError(err)
	}
	return shown(m), nil
}

// Versions asks for a page of what a message was in the course of time.
type Versions struct {
	OneMessage
	Limit     int    // versions, at least 1
	Backwards bool   // newest first
	Cursor    string // the Next of the page before
}

// maxScanned bounds the entries that are looked at for one page. A page may have less than its
// limit for it.
const maxScanned = 10_000

// MessageVersions returns a page of a message's versions, oldest first: as it was published, as each
// update or delete left it, and as it is now, if appends made it so. Those before are not
// kept (RSL14b). Errors are those of Message.
func (h *Hub) MessageVersions(ctx context.Context, q *Versions) (*HistoryPage, error) {
	if !q.Grant.Allows(auth.OpHistory, q.Channel.Resource()) || q.Channel.Qualifier == "filter" {
		return nil, denied("read the history of", q.Channel)
	}
	entry, _, err := parseMessageSerial(q.Serial)
	if err != nil {
		return nil, err
	}
	id := q.Channel.ID(q.Grant.App)
	now, revision, err := h.current(ctx, id, q.Serial)
	if err != nil {
		return nil, clientError(err)
	}
	page := new(HistoryPage)
	versions := pager[*pubsub.Message]{limit: q.Limit, backwards: q.Backwards, cursor: q.Cursor, add: func(m *pubsub.Message) {
		page.Messages = append(page.Messages, m)
	}}
	create := func() error {
		m, err := h.created(ctx, id, q.Serial)
		if e := (*pubsub.Error)(nil); errors.As(err, &e) && e.Code == pubsub.CodeNotFound {
			return nil // it is older than what is kept
		}
		if err == nil {
			versions.offer(q.Serial, m)
		}
		return err
	}
	changes := func() error {
		if revision == 0 {
			return nil
		}
		return scan(ctx, h, id, engine.KindUpdate, entry, &versions, func(e *engine.Entry) {
			if e.Body.Messages[0].Serial == q.Serial {
				m := deliveredItem(e, 0)
				versions.offer(m.Version.Serial, m)
			}
		})
	}
	appended := func() error {
		if now.Action == pubsub.MessageAppend {
			versions.offer(now.Version.Serial, shown(now))
		}
		return nil
	}
	steps := []func() error{create, changes, appended}
	if q.Backwards {
		steps = []func() error{appended, changes, create}
	}
	for _, step := range steps {
		if versions.next != "" {
			break
		}
		if err := step(); err != nil {
			return nil, clientError(err)
		}
	}
	page.Next = versions.next
	return page, nil
}

// pager takes the items of a page from a sequence in the order of their serials.
type pager[T any] struct {
	limit     int
	backwards bool
	cursor    string // the serial after which the page begins
	add       func(T)

	taken int
	last  string // the serial of what was looked at last
	next  string // the cursor of the next page, when this one is full
}

// begun reports whether something at a serial comes after the cursor.
func (p *pager[T]) begun(serial string) bool {
	return p.cursor == "" || p.backwards && serial < p.cursor || !p.backwards && serial > p.cursor
}

// offer takes an item, unless it belongs to an earlier page or the page is full.
func (p *pager[T]) offer(serial string, item T) {
	switch {
	case p.next != "" || !p.begun(serial):
	case p.taken == p.limit:
		p.next = p.last
	default:
		p.add(item)
		p.taken++
		p.last = serial
	}
}

// scan calls offer, which offers p what it takes from an entry, for the entries of one kind after a
// position, maxScanned of them at most.
func scan[T any](ctx context.Context, h *Hub, id pubsub.ChannelID, kind engine.Kind, after pubsub.Serial, p *pager[T], offer func(*engine.Entry)) error {
	q := engine.Query{Kinds: engine.Kinds(kind), Backwards: p.backwards, Limit: backlogPage, After: after}
	if p.cursor != "" {
		entry, _, err := parseMessageSerial(p.cursor)
		if err != nil {
			return err
		}
		// The rest of the cursor's entry comes first, then the entries beyond it.
		switch e, err := h.entryAt(ctx, id, kind, entry); {
		case err != nil:
			return err
		case e != nil:
			offer(e)
		}
		if p.backwards {
			q.Before = entry
		} else {
			q.After = max(after, entry)
		}
	}
	for looked := 0; looked < maxScanned; looked += backlogPage {
		read, err := h.opts.Engine.Read(ctx, id, q)
		if err != nil {
			return err
		}
		for _, e := range read.Entries {
			if offer(e); p.next != "" {
				return nil
			}
			p.last = e.Serial.Item(max(e.Body.Len()-1, 0))
		}
		if !read.More {
			return nil
		}
		newest := read.Entries[len(read.Entries)-1].Serial
		if p.backwards {
			q.Before = newest
		} else {
			q.After = newest
		}
	}
	p.next = p.last
	return nil
}
