package redis

import (
	"context"

	"letshare-server/internal/directory"
)

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
	_, _, err := d.eval(ctx, scriptRemove, []string{d.keys.orphans()}, "ZREM", id)
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
