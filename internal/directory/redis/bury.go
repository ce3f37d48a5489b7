package redis

import (
	"context"
	"errors"
	"time"

	"github.com/redis/rueidis"
)

// buryLock is for how long a node that buries another is trusted to be at it, from the beginning
// of its last step on. It is much longer than a step may take, so that no step is done late.
const buryLock = 10 * time.Second

// buryPage is how many connections, or channels, are taken from a node in one step.
const buryPage = 128

var errNotBurying = errors.New("directory: another node goes on")

// bury takes from a node that is gone what it has left: what it counts on channels, its
// connections, which become orphans, and its notices. One node does it at a time; if it ends
// meanwhile another goes on. A node that returns waits until it is buried, so that nothing of its
// new life is taken.
func (d *Directory) bury(ctx context.Context, node string) error {
	lock := d.keys.burying(node)
	var parts []string
	err := d.bounding(ctx, func(ctx context.Context) error {
		_, err := d.do(ctx, func() rueidis.Completed {
			return d.client.B().Set().Key(lock).Value(d.id).Nx().PxMilliseconds(buryLock.Milliseconds()).Build()
		})
		if rueidis.IsRedisNil(err) {
			return errNotBurying // or this node's lock was not given back
		}
		if err != nil {
			return err
		}
		m, err := d.do(ctx, func() rueidis.Completed { return d.client.B().Smembers().Key(d.keys.used(node)).Build() })
		if err == nil {
			parts, err = m.AsStrSlice()
		}
		return err
	})
	connections := 0
	for _, part := range parts {
		for n := 1; n > 0 && err == nil; {
			err = d.buryStep(ctx, node, func(ctx context.Context) (err error) {
				switch part[:1] {
				case usedApp:
					n, err = d.buryConnections(ctx, node, part[1:])
					connections += n
				case usedBucket:
					n, err = d.buryCounts(ctx, node, bucket(part[1:]))
				default:
					n = 0
				}
				return err
			})
		}
	}
	if err == nil {
		err = d.buryStep(ctx, node, func(ctx context.Context) error {
			m, _, err := d.eval(ctx, scriptBuried, []string{d.keys.burying(node), d.keys.notices(node), d.keys.used(node)}, d.id)
			if err != nil {
				return err
			}
			if mine, err := m.AsInt64(); err != nil || mine == 0 {
				return errNotBurying
			}
			_, _, err = d.eval(ctx, scriptRemove, d.keys.nodes()[1:], "ZREM", node)
			return err
		})
	}
	switch {
	case errors.Is(err, errNotBurying):
		return nil
	case err != nil:
		return err
	}
	d.buried.Add(1)
	d.opts.Log.Warn("a node is gone", "node", node, "connections", connections)
	return nil
}

// buryStep does a step of a burial, if it is still this node's to do.
func (d *Directory) buryStep(ctx context.Context, node string, f func(context.Context) error) error {
	return d.bounding(ctx, func(ctx context.Context) error {
		m, _, err := d.eval(ctx, scriptHold, []string{d.keys.burying(node)}, d.id, number(buryLock.Milliseconds()))
		if err != nil {
			return err
		}
		if mine, err := m.AsInt64(); err != nil || mine == 0 {
			return errNotBurying
		}
		return f(ctx)
	})
}

// bounding calls f with the time of one operation.
func (d *Directory) bounding(ctx context.Context, f func(context.Context) error) error {
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
