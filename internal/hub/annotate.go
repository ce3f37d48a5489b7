package hub

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
)

// Annotate is a request to annotate messages, or to take annotations back.
type Annotate struct {
	Grant   *auth.Grant
	Channel pubsub.ChannelName

	// Items are done in this order and all or none. They are handed over.
	Items []*pubsub.Annotation

	// These are as those of a Publish.
	ConnectionID string
	MsgSerial    int64
	Since        time.Time
}

// Annotate applies q, and returns when the outcome is known (RTAN1c, RSAN1c1, RSAN2a, RTAN2a). What
// happened is sent when turn ends, and soon after that how the messages are annotated now.
//
// Errors are *pubsub.Error: CodeCapabilityDenied, CodeTLSRequired, CodeIdentifiedClientNeeded,
// CodeMutableRuleMissing, CodeBadRequest, CodeInvalidParameterValue, CodeInvalidClientID,
// CodeInvalidConnectionID, CodeInvalidMessageID, CodeInvalidExtras, CodeTooManyMessages,
// CodeMessageTooLarge, also if a message has too many annotations of different names, CodeNotFound,
// CodeConnectionRateExceeded, CodeChannelMessageRate, CodeChannelByteRate, CodeUnavailable,
// CodeTimeout, CodeBusy.
func (h *Hub) Annotate(ctx context.Context, turn *Turn, q *Annotate) (Published, error) {
	id := q.Channel.ID(q.Grant.App)
	c := h.lookup(id)
	p := &Publish{Grant: q.Grant, Channel: q.Channel, ConnectionID: q.ConnectionID, MsgSerial: q.MsgSerial}
	counts, transport := h.counts(c, id), p.transport()
	rule := h.opts.Namespace(q.Grant.App, q.Channel.Base)
	limits := h.limitsOf(id.App, &rule)
	batch := &pubsub.Batch{ConnectionID: q.ConnectionID, ClientID: q.Grant.ClientID, Annotations: q.Items}
	key, err := h.checkAnnotations(q, batch, &rule, &limits)
	if err == nil && len(q.Items) > 0 {
		err = h.pace(&limits, id, len(q.Items), batch.Size())
	}
	if err != nil {
		counts.Refused(transport, stats.Messages, len(q.Items))
		return Published{}, err
	}
	if len(q.Items) == 0 {
		return Published{}, nil
	}
	if c != nil && c.crowded() {
		turn.End()
		c.waitForRoom()
	}
	r, err := h.inQueue(ctx, q.Since, id, q.Items[0].MessageSerial, func(ctx context.Context, deadline time.Time) (*engine.Append, error) {
		a := new(annotating)
		a.entries[0] = engine.Draft{Kind: engine.KindAnnotation, Body: batch}
		a.Append = engine.Append{Channel: id, ID: key, Deadline: deadline, Entries: a.entries[:]}
		err := h.sumUp(ctx, q, a, &limits)
		return &a.Append, err
	})
	// An engine that delivers within Append has queued the entry by now.
	if c := h.lookup(id); c != nil {
		turn.touch(c)
	}
	h.noteFull(err, id.App)
	refused := (*pubsub.Error)(nil)
	switch {
	case errors.As(err, &refused):
		counts.Refused(transport, stats.Messages, len(q.Items))
		return Published{}, refused
	case errors.Is(err, engine.ErrRecordsTooLarge):
		counts.Refused(transport, stats.Messages, len(q.Items))
		return Published{}, pubsub.NewError(pubsub.CodeMessageTooLarge, "the type of an annotation, or the clientId, is too long").Because(err)
	case err != nil:
		counts.Failed(transport, stats.Messages, len(q.Items))
		return Published{}, clientError(err)
	case !r.Repeated:
		counts.Published(transport, stats.Messages, len(q.Items), batch.Size())
		counts.Persisted(stats.Messages, len(q.Items), batch.Size())
	}
	out := Published{Count: len(q.Items), BaseID: q.Items[0].ID}
	if out.BaseID == "" {
		out.BaseID = pubsub.ItemID(batch.ID, 0)
	}
	if len(r.Serials) > 0 {
		out.Serial = r.Serials[0]
	}
	return out, nil
}

// checkAnnotations validates a request, rights first and contents after, completes its items
// and their batch, and returns what a repeat is recognised by (RSAN1c4).
func (h *Hub) checkAnnotations(q *Annotate, batch *pubsub.Batch, rule *auth.Namespace, limits *channelLimits) (engine.ID, error) {
	none := engine.ID{}
	if err := mutable(q.Grant, q.Channel, rule, auth.Ops(auth.OpAnnotationPublish)); err != nil {
		return none, err
	}
	if len(q.Items) > MaxMessagesPerPublish {
		h.opts.Limits.Exceeded(limit.PublishMessages, q.Grant.App)
		return none, pubsub.Errorf(pubsub.CodeTooManyMessages, "a request has %d annotations at most, got %d", MaxMessagesPerPublish, len(q.Items))
	}
	if size := batch.Size(); size > limits.messageBytes {
		return none, h.tooLarge(q.Grant.App, size, limits.messageBytes)
	}
	ids := make([]string, len(q.Items))
	for i, a := range q.Items {
		if err := q.complete(a); err != nil {
			return none, err
		}
		ids[i] = a.ID
	}
	return identifyOthers("annotation", ids, q.ConnectionID, q.MsgSerial, batch)
}

// identifyOthers is identify for a request of items that are no messages, and whose ids are told from
// those of messages by a word.
func identifyOthers(word string, ids []string, connectionID string, msgSerial int64, batch *pubsub.Batch) (engine.ID, error) {
	like := pubsub.Batch{Messages: []*pubsub.Message{{}}} // enough if no id was given
	if slices.ContainsFunc(ids, func(id string) bool { return id != "" }) {
		like.Messages = make([]*pubsub.Message, len(ids))
		for i, id := range ids {
			like.Messages[i] = &pubsub.Message{ID: id}
		}
	}
	key, err := identify(&Publish{ConnectionID: connectionID, MsgSerial: msgSerial}, &like)
	batch.ID = like.ID
	if key.Client != "" {
		key.Client = word + "\x00" + key.Client
	}
	return key, err
}

// complete checks one annotation and fills in what the server sets. Its message is named by
// messageSerial (RSAN1c2), and its data is encoded as that of messages (RSAN1c3).
func (q *Annotate) complete(a *pubsub.Annotation) error {
	if a.Action > pubsub.AnnotationDelete {
		return pubsub.Errorf(pubsub.CodeBadRequest, "unknown annotation action: %d", a.Action)
	}
	if a.Type == "" || strings.Contains(a.Type, "\x00") {
		return pubsub.NewError(pubsub.CodeInvalidParameterValue, "an annotation needs a type")
	}
	if _, _, err := parseMessageSerial(a.MessageSerial); err != nil {
		return err
	}
	clientID, err := q.Grant.CheckClientID(a.ClientID, a.ClientID != "")
	if err != nil {
		return err
	}
	m := methodOf(a.Type)
	if m.personal() && clientID == "" {
		return pubsub.Errorf(pubsub.CodeIdentifiedClientNeeded, "annotations of type %s need an identified client", clipped(a.Type))
	}
	if m.named() && a.Name == "" && (a.Action == pubsub.AnnotationCreate || m != methodUnique) {
		return pubsub.Errorf(pubsub.CodeInvalidParameterValue, "annotations of type %s need a name", clipped(a.Type))
	}
	if a.Count != nil && (*a.Count < 1 || *a.Count > maxAnnotationCount) {
		return pubsub.Errorf(pubsub.CodeInvalidParameterValue, "the count of an annotation must be from 1 to %d", maxAnnotationCount)
	}
	if a.ConnectionID != "" && a.ConnectionID != q.ConnectionID {
		return pubsub.NewError(pubsub.CodeInvalidConnectionID, "annotation has the connectionId of another connection")
	}
	if err := checkPresenceExtras(a.Extras); err != nil {
		return err
	}
	a.ClientID, a.ConnectionID = clientID, q.ConnectionID
	a.Serial, a.Timestamp = "", 0 // the server's to give
	return nil
}

const maxAnnotationCount = 1_000_000

// annotating is the Append of a request, and the records that it may change, in the order in which
// they were read. It has room in itself for what one annotation needs.
type annotating struct {
	engine.Append
	read  []*summing
	known map[engine.RecordKey]*summing // nil if there is one annotation

	entries       [1]engine.Draft
	preconditions [2]engine.Precondition
	puts          [2]engine.Put
	few           [2]*summing
	room          [2]summing
}

// summing is the record of a summary, or of one client's share in one.
type summing struct {
	key      engine.RecordKey
	serial   string // of the message
	share    bool
	revision uint64
	found    bool
	changed  bool
	summary
}

// summing reads the record of a message's summary or of a share in it.
func (h *Hub) summing(ctx context.Context, a *annotating, serial string, key engine.RecordKey) (*summing, error) {
	if known := a.known[key]; known != nil {
		return known, nil
	}
	r, found, err := h.opts.Engine.Record(ctx, a.Channel, key)
	if err != nil {
		return nil, err
	}
	var s *summing
	if n := len(a.read); n < len(a.room) {
		s = &a.room[n]
	} else {
		s = new(summing)
	}
	*s = summing{key: key, serial: serial, share: key.Key != serial, revision: r.Revision, found: found}
	if found {
		if s.summary, err = decodeSummary(r.Value); err != nil {
			return nil, err
		}
	}
	a.read = append(a.read, s)
	if a.known != nil {
		a.known[key] = s
	}
	return s, nil
}

// sumUp adds to a what the annotations do to the summaries of their messages.
func (h *Hub) sumUp(ctx context.Context, q *Annotate, a *annotating, limits *channelLimits) error {
	a.read = a.few[:0]
	if len(q.Items) > 1 {
		a.known = make(map[engine.RecordKey]*summing, 2)
	}
	for _, item := range q.Items {
		whole, err := h.summing(ctx, a, item.MessageSerial, summaryKey(item.MessageSerial))
		if err != nil {
			return err
		}
		if !whole.found {
			if _, _, err := h.current(ctx, a.Channel, item.MessageSerial); err != nil {
				return err
			}
			whole.found = true
		}
		own := &summing{}
		if m := methodOf(item.Type); item.ClientID != "" && (m.personal() || m == methodMultiple) {
			if own, err = h.summing(ctx, a, item.MessageSerial, shareKey(item.MessageSerial, item.Type, item.ClientID)); err != nil {
				return err
			}
		}
		if whole.apply(item, own.of("")) {
			whole.changed, own.changed = true, true
		}
	}
	a.Preconditions, a.Puts = a.preconditions[:0], a.puts[:0]
	for _, s := range a.read {
		if !s.changed {
			continue
		}
		a.Preconditions = append(a.Preconditions, engine.Precondition{RecordKey: s.key, Revision: s.revision})
		put := engine.Put{RecordKey: s.key, Entry: engine.NoEntry}
		if s.tidy(); len(s.types) > 0 || !s.share {
			if !s.fit(limits.messageBytes) {
				return pubsub.NewError(pubsub.CodeMessageTooLarge, "the message has too many annotations of different names")
			}
			put.Value = s.encode()
			put.Expire = h.keepFor(a.Channel, publishedAt(s.serial))
		}
		a.Puts = append(a.Puts, put)
	}
	return nil
}

// publishedAt is when a message was published, in ms.
func publishedAt(serial string) int64 {
	entry, _, _ := strings.Cut(serial, ":")
	ms, _, _, _ := pubsub.ParseSerial(entry)
	return ms
}

// fit cuts lists of clients until the summary has no more bytes, as clients are told it, than
// said. It reports false if even without any client it has more.
func (s *summary) fit(most int) bool {
	over := s.size() - most
	for keep := maxSummaryClients / 2; over > 0; keep /= 2 { // the longest lists first
		for i := range s.types {
			for k := range s.types[i].names {
				n := &s.types[i].names[k]
				if n.listed.n > keep && over > 0 {
					over -= n.listed.cut(keep, over)
				}
			}
		}
		if keep == 0 {
			break
		}
	}
	return over <= 0
}

// size is at least how many bytes json has, and not many more.
func (s *summary) size() (bytes int) {
	for i := range s.types {
		t := &s.types[i]
		bytes += quotedSize(t.kind)
		for k := range t.names {
			n := &t.names[k]
			bytes += quotedSize(n.name) + summaryNameBytes
			bytes += n.listed.quoted + n.listed.n*summaryCountBytes
		}
	}
	return bytes
}

// What the JSON of a summary has for each name, and for each client, beside their texts.
const (
	summaryNameBytes  = 140
	summaryCountBytes = 20
)

// quotedSize is how long a text may be as a JSON string, quotes and a separator included.
func quotedSize(s string) int {
	n := len(s) + 4
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			n += 5
		}
	}
	return n
}

// withSummary adds to a message, which is the caller's, how it is annotated.
func (h *Hub) withSummary(ctx context.Context, id pubsub.ChannelID, m *pubsub.Message) error {
	r, found, err := h.opts.Engine.Record(ctx, id, summaryKey(m.Serial))
	if err != nil || !found {
		return err
	}
	sum, err := decodeSummary(r.Value)
	if err == nil {
		m.Summary = sum.json()
	}
	return err
}

// Annotations asks for a page of a message's annotations.
type Annotations struct {
	OneMessage
	Limit  int    // annotations, at least 1
	Cursor string // the Next of the page before
}

// AnnotationsPage is a part of a message's annotations. Those that take others back are among
// them.
type AnnotationsPage struct {
	Annotations []*pubsub.Annotation // shared: callers must not change them
	Next        string               // the Cursor of the next page; empty if this is the last
}

// readers are the operations of which one is needed to read the annotations of messages.
var readers = auth.Ops(auth.OpAnnotationSubscribe, auth.OpHistory)

// Annotations returns a page of a message's annotations, oldest first (RSAN3b-c). Errors are
// *pubsub.Error: CodeCapabilityDenied, CodeTLSRequired, CodeIdentifiedClientNeeded,
// CodeMutableRuleMissing, CodeInvalidParameterValue, CodeNotFound, CodeUnavailable.
func (h *Hub) Annotations(ctx context.Context, q *Annotations) (*AnnotationsPage, error) {
	rule := h.opts.Namespace(q.Grant.App, q.Channel.Base)
	if err := mutable(q.Grant, q.Channel, &rule, readers); err != nil {
		return nil, err
	}
	entry, _, err := parseMessageSerial(q.Serial)
	if err != nil {
		return nil, err
	}
	id := q.Channel.ID(q.Grant.App)
	if _, _, err := h.current(ctx, id, q.Serial); err != nil {
		return nil, clientError(err)
	}
	page := new(AnnotationsPage)
	p := pager[*pubsub.Annotation]{limit: q.Limit, cursor: q.Cursor, add: func(a *pubsub.Annotation) {
		page.Annotations = append(page.Annotations, a)
	}}
	err = scan(ctx, h, id, engine.KindAnnotation, entry, &p, func(e *engine.Entry) {
		for i, a := range e.Body.Annotations {
			if a.MessageSerial == q.Serial {
				p.offer(e.Serial.Item(i), deliveredAnnotation(e, i))
			}
		}
	})
	if err != nil {
		return nil, clientError(err)
	}
	page.Next = p.next
	return page, nil
}

// deliveredAnnotation is the i-th annotation of e with all that a subscriber learns from the
// entry around it written out.
func deliveredAnnotation(e *engine.Entry, i int) *pubsub.Annotation {
	a := *e.Body.Annotations[i]
	if a.ID == "" {
		a.ID = pubsub.ItemID(e.Body.ID, i)
	}
	a.Serial, a.Timestamp = e.Serial.Item(i), e.Timestamp
	return &a
}

// ClientSummary returns how a message is annotated, as JSON, with no clients listed but the given
// one, and of names only those that it has used.
func (h *Hub) ClientSummary(ctx context.Context, q *OneMessage, clientID string) ([]byte, error) {
	rule := h.opts.Namespace(q.Grant.App, q.Channel.Base)
	if err := mutable(q.Grant, q.Channel, &rule, readers); err != nil {
		return nil, err
	}
	if _, _, err := parseMessageSerial(q.Serial); err != nil {
		return nil, err
	}
	id := q.Channel.ID(q.Grant.App)
	r, found, err := h.opts.Engine.Record(ctx, id, summaryKey(q.Serial))
	if err != nil {
		return nil, clientError(err)
	}
	if !found {
		if _, _, err := h.current(ctx, id, q.Serial); err != nil {
			return nil, clientError(err)
		}
		return []byte("{}"), nil
	}
	sum, err := decodeSummary(r.Value)
	if err != nil {
		return nil, clientError(err)
	}
	for i := range sum.types {
		t := &sum.types[i]
		var share summaryType
		if r, found, err := h.opts.Engine.Record(ctx, id, shareKey(q.Serial, t.kind, clientID)); err != nil {
			return nil, clientError(err)
		} else if found {
			own, err := decodeSummary(r.Value)
			if err != nil {
				return nil, clientError(err)
			}
			share = *own.of("")
		}
		t.only(clientID, &share)
	}
	sum.tidy()
	return sum.json(), nil
}

// only leaves of a type what concerns one client.
func (t *summaryType) only(clientID string, share *summaryType) {
	for i := range t.names {
		n := &t.names[i]
		n.listed = clientList{}
		if used := share.used(n.name); used > 0 {
			n.listed.append(clientID, used)
		} else if methodOf(t.kind).named() {
			n.total = 0 // it is left out
		}
	}
}
