package redis

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// keyLife is for how long what ends with its node lives without it.
const keyLife = 48 * time.Hour

// tend forgets connections that this node answers for no longer, and has what would end with the
// node live on.
func (d *Directory) tend(ctx context.Context) {
	client := d.client
	commands := rueidis.Commands{client.B().Pexpire().Key(d.keys.used(d.id)).Milliseconds(keyLife.Milliseconds()).Build()}
	for _, app := range d.usedApps() {
		index := d.keys.index(app, d.id)
		commands = append(commands,
			client.B().Zremrangebyscore().Key(index).Min("-inf").Max("("+number(d.stored(time.Now()))).Build(),
			client.B().Pexpire().Key(index).Milliseconds(keyLife.Milliseconds()).Build(),
			client.B().Pexpire().Key(d.keys.connected(app)).Milliseconds(keyLife.Milliseconds()).Build())
	}
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	client.DoMulti(ctx, commands...) // it is done again
}

// The bounds of one look of the audit: of connections, or a 2,000th of an app's if that is more, so
// that all of an app are looked at in 6 h; and of apps.
const (
	auditPage = 64
	auditPart = 2000
	auditApps = 64
)

// auditPlace is where the audit goes on.
type auditPlace struct {
	apps   []string // to come in this round
	app    string
	cursor uint64 // in app; 0: it is done
	page   int64  // of app
}

// audit looks at some connections of the index, others with each call, so that records of
// connections that live do so too, and what the index has in error is dropped.
func (d *Directory) audit(ctx context.Context, place *auditPlace) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	if len(place.apps) == 0 {
		place.apps = d.usedApps()
	}
	seen := 0
	for range auditApps {
		if place.cursor == 0 {
			if len(place.apps) == 0 || seen >= auditPage {
				return nil
			}
			place.app, place.apps = place.apps[0], place.apps[1:]
			m, err := d.do(ctx, func() rueidis.Completed { return d.client.B().Zcard().Key(d.keys.index(place.app, d.id)).Build() })
			if err != nil {
				return err
			}
			size, err := m.AsInt64()
			if err != nil {
				return errMalformed
			}
			place.page = max(size/auditPart, auditPage)
		}
		n, err := d.auditSome(ctx, place)
		if seen += n; err != nil || place.cursor != 0 {
			return err
		}
	}
	return nil
}

// auditSome looks at a page of connections, and returns how many that were.
func (d *Directory) auditSome(ctx context.Context, place *auditPlace) (int, error) {
	m, err := d.do(ctx, func() rueidis.Completed {
		return d.client.B().Zscan().Key(d.keys.index(place.app, d.id)).Cursor(place.cursor).Count(place.page).Build()
	})
	if err != nil {
		return 0, err
	}
	page, err := m.AsScanEntry()
	if err != nil {
		return 0, errMalformed
	}
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
		return 0, err
	}
	for i, id := range ids {
		if done, err := d.change(id, answers[i]); err == nil && done.status != statusOK {
			if err := d.dropStale(ctx, place.app, id); err != nil {
				return 0, err
			}
		}
	}
	place.cursor = page.Cursor
	return len(ids), nil
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
