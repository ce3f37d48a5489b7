package redis

import (
	"context"
	"errors"
	"strconv"

	"github.com/redis/rueidis"

	"letshare-server/internal/engine"
	"letshare-server/internal/pubsub"
)

var errLimit = errors.New("engine: limit must be positive")

// maxPage is how many entries one call of the script returns.
const maxPage = 512

// Read returns logged entries, in as many calls as it takes.
func (e *Engine) Read(ctx context.Context, id pubsub.ChannelID, q engine.Query) (engine.Page, error) {
	if q.Limit <= 0 {
		return engine.Page{}, errLimit
	}
	ctx, cancel := context.WithTimeout(ctx, e.opts.ReadTimeout)
	defer cancel()
	return e.read(ctx, id, q)
}

func (e *Engine) read(ctx context.Context, id pubsub.ChannelID, q engine.Query) (engine.Page, error) {
	k := e.keys(id)
	policy := e.opts.Policy(id)
	var page engine.Page
	for {
		if q.Exact {
			if _, err := parsePosition(q.After); err != nil {
				return engine.Page{}, engine.ErrGone
			}
		}
		after, _ := parsePosition(q.After)
		from, to := streamRange(&q)
		n := min(q.Limit-len(page.Entries)+1, maxPage)
		if q.Kinds != 0 {
			n = maxPage // of other kinds there may be many between them
		}
		args := []string{
			strconv.FormatInt(policy.Retention.Milliseconds(), 10), strconv.Itoa(policy.MaxEntries), strconv.FormatInt(policy.MaxBytes, 10),
			flag(q.Exact), strconv.FormatInt(after.ms, 10), strconv.Itoa(after.counter), after.epoch,
			from, to, flag(q.Backwards), strconv.Itoa(n),
		}
		m, err := e.eval(ctx, scriptRead, k.state, []string{k.state, k.log()}, args)
		if err != nil {
			return engine.Page{}, err
		}
		entries, tail, err := parsePage(&m)
		if err != nil {
			return engine.Page{}, err
		}
		if page.Tail == "" {
			page.Tail = tail
			if q.UpTo == "" || q.UpTo > tail {
				q.UpTo = tail // what is added later is of another page
			}
		}
		for _, entry := range entries {
			if !q.Kinds.Has(entry.Kind) {
				continue
			}
			if len(page.Entries) == q.Limit {
				page.More = true
				return page, nil
			}
			page.Entries = append(page.Entries, entry)
		}
		if len(entries) < n {
			return page, nil
		}
		if last := entries[len(entries)-1].Serial; q.Backwards {
			q.Before = last
		} else {
			q.After = last
		}
	}
}

func flag(set bool) string {
	if set {
		return "1"
	}
	return "0"
}

// streamRange is what a query selects as two ids of the stream; from is empty if that is
// nothing.
func streamRange(q *engine.Query) (from, to string) {
	from, to = "-", "+"
	var low, high position // low is exclusive, high inclusive
	high.ms = maxMillis
	if q.After != "" {
		low = bound(q.After)
		from = "(" + low.streamID()
	}
	if q.UpTo != "" {
		high = bound(q.UpTo)
		to = high.streamID()
	}
	if q.Before != "" {
		if before := bound(q.Before); !before.after(high) {
			high = before
			to = "(" + high.streamID()
		}
	}
	if q.Start > low.ms {
		low = position{ms: q.Start}
		from = low.streamID()
	}
	if q.End != 0 && q.End < high.ms {
		to = strconv.FormatInt(q.End, 10)
		high = position{ms: q.End, counter: pubsub.MaxSerialCounter}
	}
	if low.after(high) || high.ms <= 0 {
		return "", ""
	}
	return from, to
}

// bound reads any string as a position: only its order counts.
func bound(s pubsub.Serial) position {
	if p, err := parsePosition(s); err == nil {
		return p
	}
	const length = len("00000000000000-000000")
	if len(s) > length {
		if p, err := parsePosition(s[:length] + "@00000000"); err == nil {
			return p
		}
	}
	if s > "00000" {
		return position{ms: maxMillis}
	}
	return position{}
}

// parsePage reads the answer of the read script.
func parsePage(m *rueidis.RedisMessage) (entries []*engine.Entry, tail pubsub.Serial, err error) {
	parts, err := m.ToArray()
	if err != nil || len(parts) == 0 {
		return nil, "", errors.Join(errMalformed, err)
	}
	switch status, _ := parts[0].ToString(); status {
	case "ok":
	case "gone":
		return nil, "", engine.ErrGone
	case "foreign":
		return nil, "", engine.ErrForeign
	default:
		return nil, "", errMalformed
	}
	head, _ := parts[1].ToString()
	r := reader{b: head}
	tail = r.position().serial()
	entries = make([]*engine.Entry, 0, len(parts)-2)
	for _, part := range parts[2:] {
		text, err := part.ToString()
		if err != nil {
			return nil, "", err
		}
		r := reader{b: text}
		entry, _ := r.entry(int64(r.uint(6)), r.int(3))
		if r.err != nil {
			return nil, "", r.err
		}
		entries = append(entries, entry)
	}
	return entries, tail, r.err
}
