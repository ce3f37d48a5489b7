package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/directory"
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
		judge = start.Add(d.opts.Timeout).UnixMilli() + d.clock.Load()
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

// buryLock is for how long a node that buries another is trusted to be at it, from its last
// step on.
const buryLock = 10 * time.Second

// buryPage is how many connections, or channels, are taken from a node in one step.
const buryPage = 128

// bury takes from a node that is gone what it has left: what it counts on channels, its
// connections, which become orphans, and its notices. One node does it at a time; if it ends
// meanwhile another goes on. Of a node that is being buried nothing is lost if it returns: it
// waits until it is.
func (d *Directory) bury(ctx context.Context, node string) error {
	lock := d.keys.burying(node)
	err := d.step(ctx, func(ctx context.Context) error {
		_, err := d.do(ctx, func() rueidis.Completed {
			return d.client.B().Set().Key(lock).Value(d.id).Nx().PxMilliseconds(buryLock.Milliseconds()).Build()
		})
		return err
	})
	if rueidis.IsRedisNil(err) {
		return nil // another one is at it, or this one's lock was not given back
	}
	if err != nil {
		return err
	}
	var parts []string
	err = d.step(ctx, func(ctx context.Context) error {
		m, err := d.do(ctx, func() rueidis.Completed { return d.client.B().Smembers().Key(d.keys.used(node)).Build() })
		if err == nil {
			parts, err = m.AsStrSlice()
		}
		return err
	})
	connections := 0
	for _, part := range parts {
		for more := err == nil; more; {
			err = d.step(ctx, func(ctx context.Context) error {
				var n int
				var err error
				switch part[:1] {
				case usedApp:
					n, err = d.buryConnections(ctx, node, part[1:])
					connections += n
				case usedBucket:
					n, err = d.buryCounts(ctx, node, bucket(part[1:]))
				}
				more = n > 0 && err == nil
				if err == nil {
					_, err = d.do(ctx, func() rueidis.Completed {
						return d.client.B().Pexpire().Key(lock).Milliseconds(buryLock.Milliseconds()).Build()
					})
				}
				return err
			})
			more = more && err == nil
		}
	}
	if err != nil {
		return err
	}
	d.opts.Log.Warn("a node is gone", "node", node, "connections", connections)
	return d.step(ctx, func(ctx context.Context) error {
		for _, command := range []func() rueidis.Completed{
			func() rueidis.Completed {
				return d.client.B().Del().Key(d.keys.notices(node), d.keys.used(node), lock).Build()
			},
			func() rueidis.Completed { return d.client.B().Zrem().Key(d.keys.nodes()[1]).Member(node).Build() },
		} {
			if _, err := d.do(ctx, command); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *Directory) step(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	return f(ctx)
}

// buryConnections makes orphans of some connections of an app that a node answers for, and
// returns how many.
func (d *Directory) buryConnections(ctx context.Context, node, app string) (int, error) {
	m, err := d.do(ctx, func() rueidis.Completed {
		return d.client.B().Zrange().Key(d.keys.index(app, node)).Min("0").Max(number(buryPage - 1)).Build()
	})
	if err != nil {
		return 0, err
	}
	ids, err := m.AsStrSlice()
	if err != nil {
		return 0, errMalformed
	}
	return len(ids), d.orphan(ctx, node, app, ids...)
}

// orphan makes orphans of connections that a node answers for, and takes them from it.
func (d *Directory) orphan(ctx context.Context, node, app string, ids ...string) error {
	if len(ids) == 0 {
		return nil
	}
	owner := string(appendOwner(nil, nodeOf(node)))
	calls := make([]call, len(ids))
	for i, id := range ids {
		calls[i] = call{scriptConnection, d.keys.connection(id), []string{"orphan", owner, number(d.opts.StateTTL.Milliseconds())}}
	}
	answers, err := d.evalAll(ctx, calls)
	if err != nil {
		return err
	}
	var scores []call
	for i, id := range ids {
		done, err := d.change(id, answers[i])
		if err != nil {
			d.opts.Log.Error("the record of a connection whose node is gone", "connection", id, "error", err)
			continue
		}
		if done.status == statusSuperseded {
			continue // another one answers for it
		}
		// Without a record there may be members still: it expired before they left.
		scores = append(scores, call{scriptOrphan, []string{d.keys.orphans()}, []string{id, number(done.is.Grace.Milliseconds())}})
	}
	if _, err := d.evalAll(ctx, scores); err != nil {
		return err
	}
	for i, id := range ids {
		calls[i] = call{scriptIndex, []string{d.keys.connected(app), d.keys.index(app, node)}, []string{id, "remove", "", "0"}}
	}
	_, err = d.evalAll(ctx, calls)
	return err
}

// trimIndexes forgets connections that this node answers for no longer.
func (d *Directory) trimIndexes(ctx context.Context) {
	var commands rueidis.Commands
	for _, app := range d.usedApps() {
		commands = append(commands, d.client.B().Zremrangebyscore().Key(d.keys.index(app, d.id)).
			Min("-inf").Max("("+number(d.stored(time.Now()))).Build())
	}
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	if len(commands) > 0 {
		d.client.DoMulti(ctx, commands...) // it is done again
	}
}

// auditPage is how many connections a node looks at every mendInterval: a million in less than
// 5 h.
const auditPage = 64

// audit looks at some connections of the index, one after another from call to call, so that
// records of connections that live do so too, and what the index has in error is dropped.
func (d *Directory) audit(ctx context.Context, place *auditPlace) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	if place.cursor == 0 {
		if len(place.apps) == 0 {
			place.apps = d.usedApps()
		}
		if len(place.apps) == 0 {
			return nil
		}
		place.app, place.apps = place.apps[0], place.apps[1:]
	}
	m, err := d.do(ctx, func() rueidis.Completed {
		return d.client.B().Zscan().Key(d.keys.index(place.app, d.id)).Cursor(place.cursor).Count(auditPage).Build()
	})
	if err != nil {
		return err
	}
	page, err := m.AsScanEntry()
	if err != nil {
		return errMalformed
	}
	place.cursor = page.Cursor
	var ids []string
	var calls []call
	owner := string(appendOwner(nil, d.node))
	for i := 0; i+1 < len(page.Elements); i += 2 {
		id, score := page.Elements[i], page.Elements[i+1]
		if score != connected {
			continue // it is dropped in its time
		}
		ids = append(ids, id)
		calls = append(calls, call{scriptConnection, d.keys.connection(id), []string{"keep", owner}})
	}
	answers, err := d.evalAll(ctx, calls)
	if err != nil {
		return err
	}
	for i, id := range ids {
		if done, err := d.change(id, answers[i]); err == nil && done.status != statusOK {
			if err := d.dropStale(ctx, place.app, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// auditPlace is where the audit goes on.
type auditPlace struct {
	apps   []string
	app    string
	cursor uint64
}

// dropStale takes a connection off the index if it is not this node's, nor about to be.
func (d *Directory) dropStale(ctx context.Context, app, id string) error {
	defer d.hold(id)()
	done, err := d.connection(ctx, id, "keep", string(appendOwner(nil, d.node)))
	if err == nil && done.status != statusOK {
		_, _, err = d.index(ctx, app, d.id, "", id, "remove", "", 0)
	}
	return err
}

func (d *Directory) usedApps() (apps []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for part := range d.used {
		if part[:1] == usedApp {
			apps = append(apps, part[1:])
		}
	}
	return apps
}

// Orphans returns connections whose members are to leave.
func (d *Directory) Orphans(ctx context.Context, limit int) (list []directory.Orphan, err error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	for len(list) < limit {
		some, due, err := d.orphans(ctx, limit-len(list))
		if list = append(list, some...); err != nil || due == 0 {
			return list, err
		}
	}
	return list, nil
}

// orphans returns those of at most limit connections that are due which nobody has resumed, and
// how many were due.
func (d *Directory) orphans(ctx context.Context, limit int) (list []directory.Orphan, due int, err error) {
	m, _, err := d.eval(ctx, scriptOrphans, []string{d.keys.orphans()}, number(directory.OrphanClaim.Milliseconds()), number(int64(limit)))
	if err != nil {
		return nil, 0, err
	}
	ids, err := m.AsStrSlice()
	if err != nil {
		return nil, 0, errMalformed
	}
	calls := make([]call, len(ids))
	for i, id := range ids {
		calls[i] = call{scriptConnection, d.keys.connection(id), []string{"look"}}
	}
	answers, err := d.evalAll(ctx, calls)
	if err != nil {
		return nil, 0, err
	}
	for i, id := range ids {
		done, err := d.change(id, answers[i])
		if err == nil && done.status == statusOK && done.found.State == directory.Connected {
			if err = d.settle(ctx, id); err == nil { // who resumed it answers for it
				continue
			}
		}
		o := directory.Orphan{Connection: done.found}
		o.ID = id
		if err == nil {
			o.Channels, err = d.Inhabited(ctx, id)
		}
		if err != nil {
			return list, len(ids), err
		}
		list = append(list, o)
	}
	return list, len(ids), nil
}

// Settle ends that a connection is an orphan.
func (d *Directory) Settle(ctx context.Context, id string) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	return d.settle(ctx, id)
}

func (d *Directory) settle(ctx context.Context, id string) error {
	_, err := d.do(ctx, func() rueidis.Completed { return d.client.B().Zrem().Key(d.keys.orphans()).Member(id).Build() })
	return err
}

// Reclaim makes the record say that this node owns a connection.
func (d *Directory) Reclaim(ctx context.Context, c directory.Connection) (reaped bool, err error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	defer d.hold(c.ID)()
	c.Owner = d.node
	if err := d.use(ctx, usedApp+c.App); err != nil {
		return false, err
	}
	_, known, err := d.index(ctx, c.App, d.id, "", c.ID, "reserve", connected, 0)
	if err != nil {
		return false, err
	}
	done, err := d.connection(ctx, c.ID, "reclaim", encodeRecord(&c))
	if err != nil {
		return false, err
	}
	if done.status != statusOK {
		if !known && done.found.Owner != d.node {
			d.indexSoon(ctx, c.App, d.id, "", c.ID, "remove", "")
		}
		return false, done.err()
	}
	beside := ""
	if done.found.ID != "" {
		beside = nodeID(done.found.Owner)
	}
	d.indexSoon(ctx, c.App, d.id, beside, c.ID, "put", connected)
	if err := d.settle(ctx, c.ID); err != nil {
		d.repair(func(ctx context.Context) error { return d.settle(ctx, c.ID) })
	}
	return done.found.State == directory.Reaped, nil
}
