package redis

import (
	"context"
	"errors"
	"slices"
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
	keys := []string{k.state, k.log()}
	if policy.Last > 0 {
		keys = append(keys, k.last())
	}
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
			strconv.FormatInt(policy.Last.Milliseconds(), 10),
		}
		m, err := e.eval(ctx, scriptRead, k.state, keys, args)
		if err != nil {
			return engine.Page{}, err
		}
		found, err := parsePage(&m)
		if err != nil {
			return engine.Page{}, err
		}
		if page.Tail == "" {
			page.Tail = found.tail
			if q.UpTo == "" || q.UpTo > found.tail {
				q.UpTo = found.tail // what is added later is of another page
			}
		}
		entries := found.entries
		complete := len(entries) < n
		if last := found.last; last != nil && selects(&q, last) {
			if !q.Backwards {
				entries = slices.Insert(entries, 0, last)
			} else if complete {
				entries = append(entries, last)
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
		if complete {
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

// selects reports whether positions and times select an entry that is older than the log.
func selects(q *engine.Query, e *engine.Entry) bool {
	return e.Serial > q.After && (q.UpTo == "" || e.Serial <= q.UpTo) && (q.Before == "" || e.Serial < q.Before) &&
		(q.Start == 0 || e.Timestamp >= q.Start) && (q.End == 0 || e.Timestamp <= q.End)
}

// found is the answer of the read script.
type found struct {
	tail    pubsub.Serial
	last    *engine.Entry // the last message, if it is kept and older than the log
	entries []*engine.Entry
}

func parsePage(m *rueidis.RedisMessage) (found, error) {
	parts, err := m.AsStrSlice()
	if err != nil || len(parts) == 0 {
		return found{}, errors.Join(errMalformed, err)
	}
	switch parts[0] {
	case "ok":
	case "gone":
		return found{}, engine.ErrGone
	case "foreign":
		return found{}, engine.ErrForeign
	default:
		return found{}, errMalformed
	}
	if len(parts) < 3 {
		return found{}, errMalformed
	}
	head := reader{b: parts[1]}
	f := found{tail: head.position().serial(), entries: make([]*engine.Entry, 0, len(parts)-2)}
	if head.err != nil {
		return found{}, head.err
	}
	for i, part := range parts[2:] {
		if i == 0 && part == "" {
			continue
		}
		r := reader{b: part}
		entry, _ := r.entry(int64(r.uint(6)), r.int(3))
		if r.err != nil {
			return found{}, r.err
		}
		if i == 0 {
			f.last = entry
		} else {
			f.entries = append(f.entries, entry)
		}
	}
	return f, nil
}
