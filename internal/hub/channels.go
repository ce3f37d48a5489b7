package hub

import (
	"slices"
	"strings"

	"letshare-server/internal/auth"
	"letshare-server/internal/pubsub"
)

// Channels selects channels of an app that have attachments on this node.
type Channels struct {
	Grant  *auth.Grant
	Prefix string // only those whose names begin so
	After  string // only those whose names are greater
	Limit  int    // channels, at least 1
}

// Channels returns the names of an app's channels on this node, sorted, and whether there are
// more than q.Limit. Metachannels are not among them. It looks at every channel of the node. The
// error is CodeCapabilityDenied.
func (h *Hub) Channels(q *Channels) (names []string, more bool, err error) {
	if !q.Grant.Allows(auth.OpChannelMetadata, "*") {
		return nil, false, pubsub.NewError(pubsub.CodeCapabilityDenied, "listing channels needs the operation channel-metadata on every channel")
	}
	for i := range h.shards {
		names = h.shards[i].appendNames(names, q)
		if len(names) > 2*q.Limit {
			names = lowest(names, q.Limit+1)
		}
	}
	if names = lowest(names, q.Limit+1); len(names) > q.Limit {
		return names[:q.Limit], true, nil
	}
	return names, false, nil
}

func (s *shard) appendNames(names []string, q *Channels) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id := range s.channels {
		if id.App == q.Grant.App && id.Name > q.After && strings.HasPrefix(id.Name, q.Prefix) && id.Name[0] != '[' {
			names = append(names, id.Name)
		}
	}
	return names
}

// lowest returns the first n names in their order.
func lowest(names []string, n int) []string {
	slices.Sort(names)
	return names[:min(n, len(names))]
}
