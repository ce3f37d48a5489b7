package redis

import (
	"context"
	"strconv"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

// Records returns one space's records in the order of their keys.
func (e *Engine) Records(ctx context.Context, id pubsub.ChannelID, space engine.RecordSpace, after string, limit int) ([]engine.Record, error) {
	if limit <= 0 {
		return nil, errLimit
	}
	return e.records(ctx, id, space, "0", after, strconv.Itoa(limit))
}

// Record returns one record.
func (e *Engine) Record(ctx context.Context, id pubsub.ChannelID, key engine.RecordKey) (engine.Record, bool, error) {
	list, err := e.records(ctx, id, key.Space, "1", key.Key)
	if err != nil || len(list) == 0 {
		return engine.Record{}, false, err
	}
	return list[0], true, nil
}

func (e *Engine) records(ctx context.Context, id pubsub.ChannelID, space engine.RecordSpace, args ...string) ([]engine.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, e.opts.ReadTimeout)
	defer cancel()
	k := e.keys(id)
	m, err := e.eval(ctx, scriptRecords, k.state, []string{k.records(space), k.names(space)}, args)
	if err != nil {
		return nil, err
	}
	parts, err := m.AsStrSlice()
	if err != nil {
		return nil, err
	}
	list := make([]engine.Record, 0, len(parts)/2)
	for i := 0; i+1 < len(parts); i += 2 {
		r := reader{b: parts[i+1]}
		record := r.record(engine.RecordKey{Space: space, Key: parts[i]})
		if r.err != nil {
			return nil, r.err
		}
		list = append(list, record)
	}
	return list, nil
}
