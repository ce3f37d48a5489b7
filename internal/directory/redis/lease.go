package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/redisclient"
)

// leaseState is how it stands with this node's signs of life.
type leaseState struct {
	mu    sync.Mutex // guards the fields below
	began time.Time  // since when every sign of life came through, in time
	last  time.Time  // when one came through
	known bool       // at the last one
}

// measure finds out how far the store's clock is from ours.
func (d *Directory) measure(ctx context.Context) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	start := time.Now()
	m, err := d.do(ctx, func() rueidis.Completed { return d.client.B().Time().Build() })
	if err != nil {
		return err
	}
	parts, err := m.AsIntSlice()
	if err != nil || len(parts) != 2 {
		return errMalformed
	}
	d.learn(parts[0]*1000+parts[1]/1000, start)
	return nil
}

// learn takes the store's time that came in answer to what was sent at start, if it came soon
// enough to tell something.
func (d *Directory) learn(millis int64, start time.Time) {
	elapsed := time.Since(start)
	if off := millis - start.Add(elapsed/2).UnixMilli(); elapsed < maxSkew/4 || off > elapsed.Milliseconds() || off < -elapsed.Milliseconds() {
		d.clock.Store(off)
	}
}

// heartbeat gives a sign of life, and returns who is to be buried.
func (d *Directory) heartbeat(ctx context.Context) (gone []string, err error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	start := time.Now()
	l := &d.lease
	l.mu.Lock()
	if l.last.IsZero() || start.Sub(l.last) > d.opts.Lease/2 {
		l.began = start
	}
	// Others may have been kept from giving theirs, as this one was, or is when this comes late.
	judge := int64(0)
	if start.Sub(l.began) >= d.opts.Lease {
		judge = start.Add(min(d.opts.Timeout, d.opts.Lease/4)).UnixMilli() + d.clock.Load()
	}
	l.mu.Unlock()
	// It is good at any time, and what tells of a clock that has been set.
	r := redisclient.Call{Script: scriptHeartbeat, Keys: d.keys.nodes(),
		Args: []string{"0", "0", d.id, number(d.opts.Lease.Milliseconds()), number(judge)}}.Do(ctx, d.client)
	if r.Err != nil {
		return nil, storeError(r.Err)
	}
	parts, err := r.ToArray()
	if err != nil || len(parts) != 3 {
		return nil, errMalformed
	}
	known, err1 := parts[0].AsInt64()
	millis, err2 := parts[1].AsInt64()
	gone, err3 := parts[2].AsStrSlice()
	if errors.Join(err1, err2, err3) != nil {
		return nil, errMalformed
	}
	d.learn(millis, start)
	l.mu.Lock()
	first := l.last.IsZero()
	l.last = start
	l.known = known == 1 || first
	lost := !l.known && known == 0
	l.mu.Unlock()
	if lost {
		d.comeBack()
	}
	return gone, nil
}

// comeBack makes known again what this node has: others took it for gone, or the store lost
// it.
func (d *Directory) comeBack() {
	d.opts.Log.Warn("Redis does not know this node any more; it is told of its connections and channels again", "node", d.id)
	d.mu.Lock()
	clear(d.used)
	d.mu.Unlock()
	d.comebacks.Add(1)
	d.recount()
	wake(d.revoked) // notices may be lost
	wake(d.apps)
	wake(d.returned)
}

// live gives signs of life, and buries those who give none, until ctx ends.
func (d *Directory) live(ctx context.Context) {
	ticker := time.NewTicker(d.opts.heartbeat)
	defer ticker.Stop()
	var burying sync.WaitGroup
	defer burying.Wait()
	busy := make(chan struct{}, 1)
	for failed := false; ; {
		gone, err := d.heartbeat(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failed {
			d.opts.Log.Warn("Redis does not hear that this node lives", "error", err)
		}
		failed = err != nil
		if len(gone) > 0 {
			select {
			case busy <- struct{}{}:
				burying.Go(func() {
					for _, node := range gone {
						if err := d.bury(ctx, node); err != nil && ctx.Err() == nil {
							d.opts.Log.Warn("a node that is gone is not buried yet", "node", node, "error", err)
						}
					}
					<-busy
				})
			default: // still at it
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// leave tells the others that this node is gone.
func (d *Directory) leave(ctx context.Context) {
	if _, _, err := d.eval(ctx, scriptLeave, d.keys.nodes(), d.id); err != nil {
		d.opts.Log.Debug("the others find out by themselves that this node is gone", "error", err)
	}
}
