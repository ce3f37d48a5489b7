package memory

import (
	"context"
	"slices"
	"strings"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// Touch notes that there was traffic on a channel.
func (d *Directory) Touch(id pubsub.ChannelID, until time.Time) {
	s := d.store
	sh := s.countShard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	before, known := sh.touched[id]
	if !known {
		sh.makeRoomLocked(max(s.opts.Touched/shardCount, 1), s.opts.Now().UnixMilli())
		id = pubsub.ChannelID{App: s.app(id.App).name, Name: strings.Clone(id.Name)}
	}
	sh.touched[id] = max(before, until.UnixMilli())
}

// makeRoomLocked makes room for one more touched channel where there are most at most; now is in ms
// since the epoch.
func (sh *countShard) makeRoomLocked(most int, now int64) {
	if len(sh.touched) < most {
		return
	}
	sh.sweepLocked(now)
	for id := range sh.touched {
		if len(sh.touched) <= most*3/4 { // so that not every new channel walks through all
			return
		}
		delete(sh.touched, id)
	}
}

// sweep forgets touched channels whose time is over; now is in ms since the epoch.
func (sh *countShard) sweep(now int64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.sweepLocked(now)
}

func (sh *countShard) sweepLocked(now int64) {
	for id, until := range sh.touched {
		if now >= until {
			delete(sh.touched, id)
		}
	}
}

// Channels returns names of active channels. It looks at all of them.
func (d *Directory) Channels(_ context.Context, q directory.ChannelQuery) (names []string, more bool, err error) {
	s := d.store
	found := page{query: &q}
	now := s.opts.Now().UnixMilli()
	for i := range s.counts {
		sh := &s.counts[i]
		sh.mu.Lock()
		for id, c := range sh.channels {
			if len(c.nodes) > 0 {
				found.add(id)
			}
		}
		for id, until := range sh.touched {
			if c := sh.channels[id]; now < until && (c == nil || len(c.nodes) == 0) {
				found.add(id)
			}
		}
		sh.mu.Unlock()
	}
	names = found.cut()
	if len(names) > q.Limit {
		return names[:q.Limit], true, nil
	}
	return names, false, nil
}

// page is what a query selects of the channels that are shown to it: the first in order, one
// more than wanted. It keeps about twice as many, however many there are.
type page struct {
	query *directory.ChannelQuery
	names []string
	full  bool   // there are as many as wanted that are not greater than last
	last  string // of these
}

func (p *page) add(id pubsub.ChannelID) {
	q := p.query
	if id.App != q.App || id.Name <= q.After || p.full && id.Name > p.last ||
		!strings.HasPrefix(id.Name, q.Prefix) || strings.HasPrefix(id.Name, "[") {
		return
	}
	if p.names = append(p.names, id.Name); len(p.names) > 2*q.Limit+1 {
		p.cut()
		p.full, p.last = true, p.names[q.Limit]
	}
}

// cut leaves no more than the page needs, sorted.
func (p *page) cut() []string {
	slices.Sort(p.names)
	p.names = p.names[:min(len(p.names), p.query.Limit+1)]
	return p.names
}
