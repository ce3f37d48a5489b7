package hub

import (
	"context"
	"sync"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// Channels selects active channels of an app.
type Channels struct {
	Grant  *auth.Grant
	Prefix string // only those whose names begin so
	After  string // only those whose names are greater
	Limit  int    // channels, at least 1
}

// Channels returns the names of an app's active channels, sorted, and whether there are more
// than q.Limit: those that have attachments on any node, and those that had some, or were
// published to, within the last minute. Metachannels are not among them. Errors are
// *pubsub.Error: CodeCapabilityDenied, CodeUnavailable.
func (h *Hub) Channels(ctx context.Context, q *Channels) (names []string, more bool, err error) {
	if !q.Grant.Allows(auth.OpChannelMetadata, "*") {
		return nil, false, pubsub.NewError(pubsub.CodeCapabilityDenied, "listing channels needs the operation channel-metadata on every channel")
	}
	names, more, err = h.opts.Directory.Channels(ctx, directory.ChannelQuery{App: q.Grant.App, Prefix: q.Prefix, After: q.After, Limit: q.Limit})
	if err != nil {
		return nil, false, clientError(err)
	}
	return names, more, nil
}

const (
	// activeTime is how long a channel is listed after the last that happened on it.
	activeTime = time.Minute

	// touchPause is the time in which the directory is told of a channel once. It keeps what it
	// is told for so much longer.
	touchPause = 20 * time.Second

	// maxTouched bounds the channels of a shard of which is remembered that the directory
	// was told. Of more, it is told again.
	maxTouched = 1024
)

// touched are the channels that the directory was told of lately.
type touched struct {
	mu       sync.Mutex // nothing is locked under it
	since    time.Time
	channels map[pubsub.ChannelID]struct{}
}

// touch tells the directory that something happened on a channel, unless it was told of late.
// Channels with attachments need that only when they lose the last.
func (h *Hub) touch(id pubsub.ChannelID, now time.Time) { h.touchIn(h.shard(id), id, now) }

func (h *Hub) touchIn(s *shard, id pubsub.ChannelID, now time.Time) {
	if s.touched.add(id, now) {
		h.opts.Directory.Touch(id, now.Add(activeTime+touchPause))
	}
}

// add reports whether the directory is to be told of a channel.
func (t *touched) add(id pubsub.ChannelID, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.since) >= touchPause || len(t.channels) >= maxTouched {
		t.since, t.channels = now, make(map[pubsub.ChannelID]struct{})
	}
	if _, told := t.channels[id]; told {
		return false
	}
	t.channels[id] = struct{}{}
	return true
}
