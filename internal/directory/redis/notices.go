package redis

import (
	"context"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/directory"
	"letshare-server/internal/redisclient"
)

// The kinds of notices.
const (
	noticeSuperseded = 1 + iota // 6 generation, id
	noticeRevoked
	noticeApps
	noticeChanged // a channel
)

func notice(kind byte) []byte { return []byte{1, kind} }

func superseded(id string, generation uint64) string {
	return string(append(appendUint(notice(noticeSuperseded), generation, 6), id...))
}

// notify tells a node something. What cannot be told is lost: there is always another way to
// find it out.
func (d *Directory) notify(ctx context.Context, node, notice string) {
	if _, _, err := d.eval(ctx, scriptNotify, []string{d.keys.notices(node)}, notice); err != nil {
		d.opts.Log.Debug("a notice to a node is lost", "node", node, "error", err)
	}
}

// notifyAll tells all nodes that live.
func (d *Directory) notifyAll(ctx context.Context, notice string) {
	m, err := d.do(ctx, func() rueidis.Completed {
		return d.client.B().Zrange().Key(d.keys.nodes()[0]).Min("0").Max("-1").Build()
	})
	var nodes []string
	if err == nil {
		nodes, err = m.AsStrSlice()
	}
	if err == nil {
		calls := make([]call, len(nodes))
		for i, node := range nodes {
			calls[i] = call{scriptNotify, []string{d.keys.notices(node)}, []string{notice}}
		}
		_, err = d.evalAll(ctx, calls)
	}
	if err != nil {
		d.opts.Log.Warn("not all nodes are told of a change; they find it out by themselves", "error", err)
	}
}

// noticeBlock is for how long Redis waits for a notice before it answers that there is none.
const noticeBlock = 5 * time.Second

// readNotices reads what this node is told, until ctx ends. Redis keeps its question until
// there is an answer. What was told while the connection was down is read when it is back.
func (d *Directory) readNotices(ctx context.Context) {
	last := "0-0"
	for failed := 0; ctx.Err() == nil; {
		once, cancel := context.WithTimeout(ctx, noticeBlock+2*time.Second)
		streams, err := d.client.Do(once, d.client.B().Xread().Count(256).Block(noticeBlock.Milliseconds()).
			Streams().Key(d.keys.notices(d.id)).Id(last).Build()).AsXRead()
		cancel()
		switch {
		case err == nil || rueidis.IsRedisNil(err):
			failed = 0
		default:
			if failed == 3 && ctx.Err() == nil {
				d.opts.Log.Warn("notices of other nodes do not come from Redis", "error", err)
			}
			redisclient.Pause(ctx, failed)
			failed++
			continue
		}
		for _, entries := range streams {
			for _, e := range entries {
				last = e.ID
				d.noticed(e.FieldValues["n"])
			}
		}
	}
}

// noticed does what a notice asks for.
func (d *Directory) noticed(text string) {
	r := reader{b: text}
	version, kind := r.uint(1), r.uint(1)
	if version != 1 {
		d.opts.Log.Error("a notice of an unknown version", "version", version)
		return
	}
	switch kind {
	case noticeSuperseded:
		s := directory.Supersession{Generation: r.uint(6)}
		s.ID = r.b
		select {
		case d.superseded <- s:
		default: // its next operation fails with ErrSuperseded
		}
	case noticeRevoked:
		wake(d.revoked)
	case noticeApps:
		wake(d.apps)
	case noticeChanged:
		if id, ok := decodeChannel(r.b); ok {
			d.occupancyChanged(id)
		}
	}
}

// wake leaves a notice where one is enough.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has one that nobody has read yet
	}
}
