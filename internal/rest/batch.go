package rest

import (
	"math"
	"net/http"
	"strings"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/stats"
	"letshare-server/internal/wire"
)

const (
	// maxBatchChannels is how many different channels one batch may be about.
	maxBatchChannels = wire.MaxBatchChannels

	// maxBatchCopies bounds the messages that one batch becomes: each counts once for every
	// channel that it goes to. A spec of the largest size fits.
	maxBatchCopies = wire.MaxBatchChannels * wire.MaxItems

	// maxBatchPresenceBytes bounds the members that one batch is answered with.
	maxBatchPresenceBytes = 8 << 20
)

// batchItem is what became of one channel of a batch, encoded for the client.
type batchItem struct {
	body   []byte
	failed bool
}

// batchPublish answers POST /messages (RSC22c): each spec's messages are published to each of
// its channels, and for each channel by itself, as one publish with the rights, limits and
// repeats of such a one (RSC22d). A spec follows when the one before has been published.
func (a *API) batchPublish(c *call) (*answer, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	version, err := c.version()
	if err != nil {
		return nil, err
	}
	specs, err := a.readBatch(c, grant)
	if err != nil {
		return nil, err
	}
	results := make([][]batchItem, len(specs))
	for i := range specs {
		if results[i], err = a.publishSpec(c, grant, &specs[i]); err != nil {
			return nil, err
		}
	}
	if version < batchResultVersion {
		var flat []batchItem
		for _, items := range results {
			flat = append(flat, items...)
		}
		return c.flatBatch(http.StatusCreated, flat), nil
	}
	body := wire.AppendArray(nil, c.format, len(results), func(dst []byte, i int) []byte {
		return c.appendBatch(dst, results[i])
	})
	return &answer{status: http.StatusCreated, body: body}, nil
}

// readBatch reads the specs of a batch publish and holds them to the limits of a batch.
func (a *API) readBatch(c *call, grant *auth.Grant) ([]wire.BatchSpec, error) {
	body, err := a.readBody(c)
	if err != nil {
		return nil, err
	}
	specs, err := wire.DecodeBatch(c.bodyFormat(), body)
	if err == nil {
		err = checkBatch(specs)
	}
	if err != nil && pubsub.ErrorFor(err).Code == pubsub.CodeTooManyMessages {
		a.opts.Hub.Limits().Exceeded(limit.PublishMessages, grant.App)
	}
	return specs, err
}

func checkBatch(specs []wire.BatchSpec) error {
	copies := 0
	channels := make(map[string]struct{})
	for _, s := range specs {
		copies += len(s.Channels) * len(s.Messages)
		for _, name := range s.Channels {
			if channels[name] = struct{}{}; len(channels) > maxBatchChannels {
				return pubsub.Errorf(pubsub.CodeTooManyChannels, "a batch has %d channels at most", maxBatchChannels)
			}
		}
	}
	if copies > maxBatchCopies {
		return pubsub.Errorf(pubsub.CodeTooManyMessages, "a batch has %d messages at most, counted for each channel", maxBatchCopies)
	}
	return nil
}

// publishSpec publishes one spec and returns what became of each of its channels. The error is
// that the client has left.
func (a *API) publishSpec(c *call, grant *auth.Grant, spec *wire.BatchSpec) ([]batchItem, error) {
	var turn hub.Turn
	waiting := make([]<-chan hub.Published, len(spec.Channels))
	items := make([]batchItem, len(spec.Channels))
	for i, channel := range spec.Channels {
		name, err := pubsub.ParseChannelName(channel)
		if err == nil {
			waiting[i], err = a.submit(c, &turn, grant, name, copyMessages(spec.Messages))
		}
		if err != nil {
			items[i] = a.batchFailure(c, channel, err)
		}
	}
	turn.End()
	for i, done := range waiting {
		if done == nil {
			continue
		}
		p, err := published(c.Context(), done)
		switch {
		case err != nil:
			return nil, err
		case p.Err != nil:
			items[i] = a.batchFailure(c, spec.Channels[i], p.Err)
		default:
			items[i] = batchItem{body: publishedBody(c.format, spec.Channels[i], &p)}
		}
	}
	return items, nil
}

// copyMessages returns messages that the hub may complete while others are made of the same ones.
// What they hold is shared, since nobody changes that.
func copyMessages(messages []*pubsub.Message) []*pubsub.Message {
	all := make([]pubsub.Message, len(messages))
	list := make([]*pubsub.Message, len(messages))
	for i, m := range messages {
		all[i] = *m
		list[i] = &all[i]
	}
	return list
}

// batchPresence answers GET /presence (RSC24): the members of each of the channels that the
// parameter channels lists, separated by commas or by what the parameter separator says.
func (a *API) batchPresence(c *call) (*answer, error) {
	grant, err := a.authenticate(c)
	if err != nil {
		return nil, err
	}
	version, err := c.version()
	if err != nil {
		return nil, err
	}
	separator := c.query.Get("separator")
	if separator == "" {
		separator = ","
	}
	list := c.query.Get("channels")
	if list == "" {
		return nil, invalidParam("Invalid channels param: it names no channel")
	}
	if strings.Count(list, separator) >= maxBatchChannels {
		return nil, pubsub.Errorf(pubsub.CodeTooManyChannels, "a batch has %d channels at most", maxBatchChannels)
	}
	var items []batchItem
	room := maxBatchPresenceBytes
	for _, name := range strings.Split(list, separator) {
		body, err := a.membersOf(c, grant, name)
		if err == nil && len(body) > room {
			err = pubsub.NewError(pubsub.CodeMessageTooLarge, "the batch has too many members; ask for fewer channels at once")
		}
		if c.Context().Err() != nil {
			return nil, clientLeft(c.Context())
		}
		if err != nil {
			items = append(items, a.batchFailure(c, name, err))
			continue
		}
		room -= len(body)
		items = append(items, batchItem{body: body})
	}
	if version < batchResultVersion {
		return c.flatBatch(http.StatusOK, items), nil
	}
	return &answer{status: http.StatusOK, body: c.appendBatch(nil, items)}, nil
}

// membersOf returns the encoded members of one channel, all on one page.
func (a *API) membersOf(c *call, grant *auth.Grant, channel string) ([]byte, error) {
	name, err := pubsub.ParseChannelName(channel)
	if err != nil {
		return nil, err
	}
	if err := a.opts.Hub.CheckTLS(grant, name); err != nil {
		return nil, err
	}
	page, err := a.opts.Hub.Members(c.Context(), &hub.Members{Grant: grant, Channel: name, Limit: math.MaxInt})
	if err != nil {
		return nil, err
	}
	retrieved(c, stats.Presence, page.Members)
	return wire.AppendChannelPresence(nil, c.format, channel, page.Members), nil
}

// batchFailure is the item of a channel for which a batch failed.
func (a *API) batchFailure(c *call, channel string, err error) batchItem {
	e := pubsub.ErrorFor(err)
	a.logFailure(c, e)
	return batchItem{failed: true, body: wire.AppendBatchFailure(nil, c.format, channel, wire.NewErrorInfo(e))}
}

// appendBatch appends items in the form for versions from 3 on.
func (c *call) appendBatch(dst []byte, items []batchItem) []byte {
	failed := failures(items)
	return wire.AppendBatchResult(dst, c.format, len(items)-failed, failed, len(items), appendItems(items))
}

// flatBatch is the answer for versions before 3: the items, or, if any of them failed, an error
// with the items.
func (c *call) flatBatch(status int, items []batchItem) *answer {
	if failures(items) == 0 {
		return &answer{status: status, body: wire.AppendArray(nil, c.format, len(items), appendItems(items))}
	}
	e := pubsub.NewError(pubsub.CodeBatchPartlyFailed, "a part of the batch failed; see batchResponse")
	body := wire.AppendBatchError(nil, c.format, wire.NewErrorInfo(e), len(items), appendItems(items))
	return &answer{status: e.StatusCode, body: body, failure: e}
}

func appendItems(items []batchItem) func(dst []byte, i int) []byte {
	return func(dst []byte, i int) []byte { return append(dst, items[i].body...) }
}

func failures(items []batchItem) (n int) {
	for _, item := range items {
		if item.failed {
			n++
		}
	}
	return n
}
