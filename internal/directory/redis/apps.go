package redis

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"

	"github.com/redis/rueidis"

	"letshare-server/internal/directory"
)

// appRecords is the apps by id, and the newest revision.
func (k keys) appRecords() []string { return []string{string(k) + "{apps}", string(k) + "{apps}:r"} }

// maxRevision is greater than every revision.
const maxRevision = 1 << 53

var (
	errNoData  = errors.New("directory: an app without data")
	errUnknown = errors.New("directory: the record of an app may have changed or not")
)

// PutApp records an app.
func (d *Directory) PutApp(ctx context.Context, id string, revision uint64, data json.RawMessage, max int) (uint64, error) {
	if len(data) == 0 {
		return 0, errNoData
	}
	return d.changeApp(ctx, id, revision, data, max)
}

// DeleteApp removes an app.
func (d *Directory) DeleteApp(ctx context.Context, id string, revision uint64) error {
	if revision == 0 {
		return directory.ErrConflict
	}
	_, err := d.changeApp(ctx, id, revision, nil, 0)
	return err
}

func (d *Directory) changeApp(ctx context.Context, id string, revision uint64, data json.RawMessage, max int) (uint64, error) {
	if revision > maxRevision {
		return 0, directory.ErrConflict
	}
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	m, unsure, err := d.eval(ctx, scriptApp, d.keys.appRecords(), id, number(int64(revision)), string(data), strconv.Itoa(max))
	if err != nil {
		if unsure {
			return 0, errUnknown
		}
		return 0, err
	}
	next, err := m.AsInt64()
	switch {
	case err != nil:
		return 0, errMalformed
	case next == 0 && unsure:
		return 0, errUnknown // by this call, perhaps
	case next == 0:
		return 0, directory.ErrConflict
	case next < 0:
		return 0, directory.ErrTooMany
	}
	d.notifyAll(ctx, string(notice(noticeApps)))
	return uint64(next), nil
}

// Apps returns all apps.
func (d *Directory) Apps(ctx context.Context) ([]directory.App, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	m, err := d.do(ctx, func() rueidis.Completed { return d.client.B().Hgetall().Key(d.keys.appRecords()[0]).Build() })
	if err != nil {
		return nil, err
	}
	records, err := m.AsStrMap()
	if err != nil {
		return nil, errMalformed
	}
	apps := make([]directory.App, 0, len(records))
	for id, text := range records {
		r := reader{b: text}
		version, revision := r.uint(1), r.uint(7)
		if r.broken || version != 1 {
			return nil, errMalformed
		}
		apps = append(apps, directory.App{ID: id, Revision: revision, Data: json.RawMessage(r.b)})
	}
	slices.SortFunc(apps, func(a, b directory.App) int { return cmp.Compare(a.ID, b.ID) })
	return apps, nil
}

// AppsRevision returns the newest revision.
func (d *Directory) AppsRevision(ctx context.Context) (uint64, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	m, err := d.do(ctx, func() rueidis.Completed { return d.client.B().Get().Key(d.keys.appRecords()[1]).Build() })
	if rueidis.IsRedisNil(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	revision, err := m.AsUint64()
	if err != nil {
		return 0, errMalformed
	}
	return revision, nil
}
