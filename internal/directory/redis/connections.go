package redis

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// recordHeader is the bytes of a record before its texts.
const recordHeader = 1 + 1 + 6 + 6 + 6 + 4

// maxGeneration is more than a connection can have.
const maxGeneration = 1<<48 - 1

// statuses of the script of connections.
const (
	statusOK = iota
	statusExists
	statusNotFound
	statusSuperseded
)

func appendUint(b []byte, n uint64, size int) []byte {
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// encodeRecord is a Connected record.
func encodeRecord(c *directory.Connection) string {
	b := make([]byte, 0, recordHeader+16+len(c.App)+len(c.GrantDigest)+len(c.Owner.Name)+len(c.Owner.Incarnation))
	b = append(b, 1, byte(directory.Connected))
	b = appendUint(appendUint(appendUint(b, c.Generation, 6), c.Committed, 6), 0, 6)
	b = appendUint(b, uint64(min(max(c.Grace.Milliseconds(), 0), math.MaxUint32)), 4)
	b = appendText(appendText(b, c.App), c.GrantDigest)
	return string(appendOwner(b, c.Owner))
}

func appendOwner(b []byte, n directory.Node) []byte {
	return appendText(appendText(b, n.Name), n.Incarnation)
}

// reader takes values apart. After an error all it returns is zero.
type reader struct {
	b      string
	broken bool
}

func (r *reader) take(n int) string {
	if n < 0 || len(r.b) < n {
		r.broken, r.b = true, ""
		return ""
	}
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) uint(size int) (n uint64) {
	for _, c := range []byte(r.take(size)) {
		n = n<<8 | uint64(c)
	}
	return n
}

func (r *reader) text() string { return r.take(int(r.uint(4))) }

// record reads a record.
func (d *Directory) record(id, value string) (c directory.Connection, err error) {
	r := reader{b: value}
	version := r.uint(1)
	c.ID = id
	c.State = directory.State(r.uint(1))
	c.Generation, c.Committed = r.uint(6), r.uint(6)
	if deadline := r.uint(6); deadline != 0 {
		c.Deadline = d.restored(int64(deadline))
	}
	c.Grace = time.Duration(r.uint(4)) * time.Millisecond
	c.App, c.GrantDigest = r.text(), r.text()
	c.Owner.Name, c.Owner.Incarnation = r.text(), r.text()
	if r.broken || version != 1 || len(r.b) > 0 {
		return directory.Connection{}, errMalformed
	}
	return c, nil
}

// change is what the script of connections answers.
type change struct {
	status  int64
	found   directory.Connection // as it was; no ID if there was none
	is      directory.Connection // after an OK
	wasText string
	unsure  bool
}

// connection does something to a record.
func (d *Directory) connection(ctx context.Context, id, op string, args ...string) (change, error) {
	m, unsure, err := d.eval(ctx, scriptConnection, d.keys.connection(id), append([]string{op}, args...)...)
	if err != nil {
		return change{unsure: unsure}, err
	}
	c, err := d.change(id, m)
	c.unsure = unsure
	return c, err
}

func (d *Directory) change(id string, m rueidis.RedisMessage) (c change, err error) {
	parts, err := m.ToArray()
	if err != nil || len(parts) == 0 {
		return c, errMalformed
	}
	if c.status, err = parts[0].AsInt64(); err != nil {
		return c, errMalformed
	}
	for i, to := range []*directory.Connection{&c.found, &c.is} {
		if len(parts) < i+2 {
			break
		}
		text, err := parts[i+1].ToString()
		if err != nil {
			return c, errMalformed
		}
		if i == 0 {
			c.wasText = text
		}
		if text == "" {
			continue
		}
		if *to, err = d.record(id, text); err != nil {
			return c, err
		}
	}
	return c, nil
}

// err is the error of a status that is not OK.
func (c *change) err() error {
	switch c.status {
	case statusOK:
		return nil
	case statusExists:
		return directory.ErrExists
	case statusSuperseded:
		return directory.ErrSuperseded
	}
	return directory.ErrNotFound
}

// The scores of connections that a node answers for: until when, or as long as they are
// Connected.
const connected = "inf"

// index changes which node answers for a connection; beside is another that does not any
// more. It reports whether there is room, and whether the node knew it before.
func (d *Directory) index(ctx context.Context, app, node, beside, id, op, score string, max int) (room, known bool, err error) {
	keys := []string{d.keys.connected(app), d.keys.index(app, node)}
	if beside != "" && beside != node {
		keys = append(keys, d.keys.index(app, beside))
	}
	m, _, err := d.eval(ctx, scriptIndex, keys, id, op, score, strconv.Itoa(max))
	if err != nil {
		return false, false, err
	}
	n, err := m.AsInt64()
	return n > 0, n == 2, err
}

// indexSoon is index for what may be late, but must not be forgotten.
func (d *Directory) indexSoon(ctx context.Context, app, node, beside, id, op, score string) {
	change := func(ctx context.Context) error {
		_, _, err := d.index(ctx, app, node, beside, id, op, score, 0)
		return err
	}
	if change(ctx) != nil {
		d.repair(change)
	}
}

// Create records a new connection of this node.
func (d *Directory) Create(ctx context.Context, c directory.Connection, max int) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	defer d.hold(c.ID)()
	c.Generation, c.Committed, c.Owner = 1, 1, d.node
	// First the index: what is not in it would stay for ever if this node ended now.
	if err := d.use(ctx, usedApp+c.App); err != nil {
		return err
	}
	room, known, err := d.index(ctx, c.App, d.id, "", c.ID, "reserve", connected, max)
	if err != nil {
		d.doubt(c)
		return err
	}
	if !room {
		return directory.ErrFull
	}
	record := encodeRecord(&c)
	done, err := d.connection(ctx, c.ID, "create", record)
	switch {
	case err != nil:
		d.doubt(c)
		return err
	case done.status == statusExists && done.unsure && done.wasText == record:
		// It was this call that did it.
	case done.status != statusOK:
		if !known && done.found.Owner != d.node {
			d.indexSoon(ctx, c.App, d.id, "", c.ID, "remove", "")
		}
		return done.err()
	}
	if known {
		d.indexSoon(ctx, c.App, d.id, "", c.ID, "put", connected)
	}
	d.trust(c.ID)
	return nil
}

// Lookup returns the record.
func (d *Directory) Lookup(ctx context.Context, id string) (directory.Connection, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	done, err := d.connection(ctx, id, "look")
	if err == nil {
		err = done.err()
	}
	return done.found, err
}

// Resume makes the next generation, owned by owner.
func (d *Directory) Resume(ctx context.Context, id string, from uint64, owner directory.Node) (directory.Connection, bool, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	defer d.hold(id)()
	none := directory.Connection{}
	before, err := d.connection(ctx, id, "look")
	if err != nil {
		return none, false, err
	}
	switch {
	case before.status != statusOK:
		return none, false, before.err()
	case from > before.found.Generation:
		return none, false, directory.ErrNotFound
	case from < before.found.Committed:
		return none, false, directory.ErrSuperseded
	}
	app, node := before.found.App, nodeID(owner)
	if owner == d.node {
		if err := d.use(ctx, usedApp+app); err != nil {
			return none, false, err
		}
	}
	_, known, err := d.index(ctx, app, node, "", id, "reserve", connected, 0)
	if err != nil {
		d.doubt(before.found)
		return none, false, err
	}
	done, err := d.connection(ctx, id, "resume", number(int64(min(from, maxGeneration))), string(appendOwner(nil, owner)))
	if err != nil {
		d.doubt(before.found)
		return none, false, err
	}
	if err := done.err(); err != nil {
		if !known && done.found.Owner != owner {
			d.indexSoon(ctx, app, node, "", id, "remove", "")
		}
		return none, false, err
	}
	d.trust(id)
	// The node keeps it in its index only if nobody else has taken it from there since.
	d.indexSoon(ctx, app, node, nodeID(done.found.Owner), id, "keep", connected)
	d.notify(ctx, nodeID(done.found.Owner), superseded(id, done.found.Generation))
	return done.is, done.found.State == directory.Reaped, nil
}

// newest does something to a record whose newest generation is the given one.
func (d *Directory) newest(ctx context.Context, id, op string, generation uint64, args ...string) (change, error) {
	done, err := d.connection(ctx, id, op, append([]string{number(int64(min(generation, maxGeneration)))}, args...)...)
	if err != nil {
		return done, err
	}
	return done, done.err()
}

// Commit notes that the client uses generation.
func (d *Directory) Commit(ctx context.Context, id string, generation uint64) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	_, err := d.newest(ctx, id, "commit", generation)
	return err
}

// Disconnect notes that the transport of generation is gone.
func (d *Directory) Disconnect(ctx context.Context, id string, generation uint64, deadline time.Time) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	until := d.stored(deadline)
	done, err := d.newest(ctx, id, "disconnect", generation, number(until))
	if err == nil {
		// The owner lets the members leave, which may take some time beyond the last moment.
		until += done.is.Grace.Milliseconds() + time.Minute.Milliseconds()
		d.indexSoon(ctx, done.is.App, nodeID(done.is.Owner), "", id, "keep", number(until))
	}
	return err
}

// Reap marks a Disconnected connection as Reaped.
func (d *Directory) Reap(ctx context.Context, id string, generation uint64) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	_, err := d.newest(ctx, id, "reap", generation)
	return err
}

// Close removes the record.
func (d *Directory) Close(ctx context.Context, id string, generation uint64) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	done, err := d.newest(ctx, id, "close", generation)
	if err == nil {
		d.indexSoon(ctx, done.found.App, nodeID(done.found.Owner), "", id, "remove", "")
	} else if err == directory.ErrNotFound && done.unsure {
		return nil // it was this call that closed it
	}
	return err
}

// Inhabit notes channels where a connection is about to have members.
func (d *Directory) Inhabit(ctx context.Context, id string, channels ...pubsub.ChannelID) error {
	if len(channels) == 0 {
		return nil
	}
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	_, _, err := d.eval(ctx, scriptAdd, d.keys.connection(id)[1:], encodeChannels(channels)...)
	return err
}

// Vacate notes channels where a connection has no members any more.
func (d *Directory) Vacate(ctx context.Context, id string, channels ...pubsub.ChannelID) error {
	if len(channels) == 0 {
		return nil
	}
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	_, _, err := d.eval(ctx, scriptRemove, d.keys.connection(id)[1:], append([]string{"SREM"}, encodeChannels(channels)...)...)
	return err
}

// Inhabited returns the channels where a connection may have members.
func (d *Directory) Inhabited(ctx context.Context, id string) ([]pubsub.ChannelID, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	m, err := d.do(ctx, func() rueidis.Completed { return d.client.B().Smembers().Key(d.keys.connection(id)[1]).Build() })
	if err != nil {
		return nil, err
	}
	return decodeChannels(m)
}

func encodeChannels(ids []pubsub.ChannelID) []string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = string(encodeChannel(nil, id))
	}
	return texts
}

func encodeChannel(b []byte, id pubsub.ChannelID) []byte {
	return append(appendText(b, id.App), id.Name...)
}

func decodeChannel(text string) (id pubsub.ChannelID, ok bool) {
	r := reader{b: text}
	id.App = r.text()
	id.Name = r.b
	return id, !r.broken
}

func decodeChannels(m rueidis.RedisMessage) ([]pubsub.ChannelID, error) {
	texts, err := m.AsStrSlice()
	if err != nil {
		return nil, errMalformed
	}
	slices.Sort(texts)
	ids := make([]pubsub.ChannelID, len(texts))
	for i, text := range texts {
		var ok bool
		if ids[i], ok = decodeChannel(text); !ok {
			return nil, errMalformed
		}
	}
	return ids, nil
}
