package redis

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// touches are channels that the store is to be told of.
type touches struct {
	mu    sync.Mutex // guards until; nothing is called under it
	until map[pubsub.ChannelID]int64
	wake  chan struct{} // has one element when there are some
}

// Touch notes that there was traffic on a channel. The store is told soon.
func (d *Directory) Touch(id pubsub.ChannelID, until time.Time) {
	if strings.HasPrefix(id.Name, "[") {
		return // it is not listed
	}
	t := &d.touches
	t.mu.Lock()
	before, known := t.until[id]
	if !known {
		if len(t.until) >= d.opts.Touched {
			t.mu.Unlock()
			return
		}
		id = pubsub.ChannelID{App: strings.Clone(id.App), Name: strings.Clone(id.Name)}
	}
	t.until[id] = max(before, d.stored(until))
	t.mu.Unlock()
	wake(t.wake)
}

const (
	// touchDelay is for how long touched channels wait for others, to be told together.
	touchDelay = 100 * time.Millisecond

	// touchBatch is how many channels one call of the script tells of.
	touchBatch = 200
)

// tellTouches tells the store of touched channels, until ctx ends. What it cannot be told is
// lost.
func (d *Directory) tellTouches(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.touches.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(touchDelay):
		}
		t := &d.touches
		t.mu.Lock()
		all := t.until
		t.until = make(map[pubsub.ChannelID]int64)
		t.mu.Unlock()
		byBucket := make(map[bucket][]string)
		for id, until := range all {
			b := bucketOf(id)
			byBucket[b] = append(byBucket[b], number(until), id.Name)
		}
		var calls []call
		for b, list := range byBucket {
			for part := range slices.Chunk(list, 2*touchBatch) {
				args := append([]string{strconv.Itoa(max(d.opts.Touched/buckets, 1))}, part...)
				calls = append(calls, call{scriptTouch, d.keys.touched(b), args})
			}
		}
		once, cancel := d.bounded(ctx)
		_, err := d.evalAll(once, calls)
		cancel()
		if err != nil {
			d.opts.Log.Debug("active channels are not listed", "channels", len(all), "error", err)
		}
	}
}

// Channels returns names of active channels. It asks all buckets.
func (d *Directory) Channels(ctx context.Context, q directory.ChannelQuery) (names []string, more bool, err error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	from, to := "["+q.Prefix, "["+q.Prefix+"\xff"
	if q.Prefix == "" {
		from, to = "-", "+"
	}
	if q.After != "" && q.After >= q.Prefix {
		from = "(" + q.After
	}
	calls := make([]call, buckets)
	for i := range calls {
		b := bucket(strconv.Itoa(i) + ":" + q.App)
		calls[i] = call{scriptChannels, append([]string{d.keys.occupied(b)}, d.keys.touched(b)...), []string{from, to, strconv.Itoa(q.Limit + 1)}}
	}
	answers, err := d.evalAll(ctx, calls)
	if err != nil {
		return nil, false, err
	}
	for _, m := range answers {
		some, err := m.AsStrSlice()
		if err != nil {
			return nil, false, errMalformed
		}
		names = append(names, some...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > q.Limit {
		return slices.Clip(names[:q.Limit]), true, nil
	}
	return names, false, nil
}
