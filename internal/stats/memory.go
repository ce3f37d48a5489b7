package stats

import (
	"cmp"
	"context"
	"io/fs"
	"slices"
	"sync"
	"time"
)

// How many intervals of each unit an app has. What is beyond is folded into the next larger
// unit, the oldest first: intervals in which nothing was counted do not count here either.
var keep = [units]int{
	Minute: 2 * 24 * 60,
	Hour:   60 * 24,
	Day:    2 * 366,
	Month:  10 * 12,
}

const (
	defaultMaxBytes    = 32 << 20
	defaultMaxAppBytes = 1 << 20

	intervalOverhead = 48  // bytes of an interval beside its Record
	appOverhead      = 256 // bytes of an app beside its intervals
)

// MemoryOptions configure a Memory.
type MemoryOptions struct {
	// MaxBytes bounds what all apps take together, and MaxAppBytes what one takes. When
	// they are reached, the oldest intervals of the app in question, or of the one that takes
	// most, are folded into larger ones, and the oldest months dropped. Zero means 32 MiB and
	// 1 MiB.
	MaxBytes, MaxAppBytes int

	// Since is from when on intervals without counts are known to be without. Zero means when
	// the Memory was made.
	Since time.Time

	Now func() time.Time // nil means time.Now
}

// Memory is a Store in memory. It ends with the process unless Keep names a file for it.
type Memory struct {
	opts    MemoryOptions
	started time.Time

	// mu guards the fields below. No other lock is taken under it.
	mu      sync.RWMutex
	apps    map[string]*history
	bytes   int
	changed bool // since the last Save

	saving sync.Mutex  // serializes Save, and guards the fields below; mu may be taken under it
	path   string      // "": there is no file
	file   fs.FileInfo // of the file as it was last read or written; nil: there was none
}

// history is the intervals of one app: levels[u] are those of unit u, without what is in
// finer ones.
type history struct {
	levels [units][]kept
	bytes  int
}

// kept is one interval, ordered by start.
type kept struct {
	start  int64 // in minutes since the epoch
	record Record
}

func (k *kept) size() int { return intervalOverhead + len(k.record) }

// NewMemory returns an empty Memory.
func NewMemory(opts MemoryOptions) *Memory {
	opts.MaxBytes = cmp.Or(opts.MaxBytes, defaultMaxBytes)
	opts.MaxAppBytes = cmp.Or(opts.MaxAppBytes, defaultMaxAppBytes)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Since.IsZero() {
		opts.Since = opts.Now()
	}
	return &Memory{opts: opts, started: opts.Since, apps: make(map[string]*history)}
}

// Bytes is how much memory the intervals take, by estimate.
func (s *Memory) Bytes() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bytes
}

// Add implements Store.
func (s *Memory) Add(_ context.Context, app string, minute Interval, t *Totals) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = true
	h := s.openLocked(app)
	s.foldLocked(h, minute, t)
	s.trimLocked(h)
	return nil
}

// Replace implements Store.
func (s *Memory) Replace(_ context.Context, app string, fixtures []Fixture) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = true
	h := s.openLocked(app)
	for _, f := range fixtures {
		for u := Minute; u <= f.Interval.Unit; u++ {
			from, to := h.within(u, f.Interval.start, f.Interval.end())
			s.removeLocked(h, u, from, to)
		}
		s.foldLocked(h, f.Interval, f.Totals)
	}
	s.trimLocked(h)
	return nil
}

// Forget implements Store.
func (s *Memory) Forget(_ context.Context, app string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.apps[app]; h != nil {
		s.changed = true
		s.bytes -= h.bytes
		delete(s.apps, app)
	}
	return nil
}

// Read implements Store.
func (s *Memory) Read(_ context.Context, app string, q Query) (Page, error) {
	now := s.opts.Now()
	if q.End.IsZero() {
		q.End = now
	}
	begin, end := int64(0), At(q.Unit, q.End).end() // of what is left to read
	if !q.Start.IsZero() {
		begin = At(q.Unit, q.Start).start
	}
	if q.After != (Interval{}) {
		if q.Forwards {
			begin = max(begin, q.After.end())
		} else {
			end = min(end, q.After.start)
		}
	}
	var page Page
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.apps[app]
	if h == nil {
		return page, nil
	}
	for {
		i, ok := h.next(q, begin, end)
		if !ok {
			return page, nil
		}
		if len(page.Items) == q.Limit {
			page.More = true
			return page, nil
		}
		record, err := h.whole(i)
		if err != nil {
			return Page{}, err
		}
		item := Item{Interval: i, Record: record, Live: overlap(i, s.started, now)}
		if !now.Before(i.Start()) && now.Before(i.End()) {
			item.Until = now
		}
		page.Items = append(page.Items, item)
		if q.Forwards {
			begin = i.end()
		} else {
			end = i.start
		}
	}
}

// overlap is how much of an interval lies between two moments.
func overlap(i Interval, from, to time.Time) time.Duration {
	if start := i.Start(); from.Before(start) {
		from = start
	}
	if end := i.End(); to.After(end) {
		to = end
	}
	return max(0, to.Sub(from))
}

// next finds the first interval of q's unit, in its direction, of which there is something
// between begin and end.
func (h *history) next(q Query, begin, end int64) (i Interval, ok bool) {
	var at int64
	for u := Minute; u <= q.Unit; u++ {
		from, to := h.within(u, begin, end)
		if from == to {
			continue
		}
		start := h.levels[u][from].start
		if !q.Forwards {
			start = h.levels[u][to-1].start
		}
		if !ok || q.Forwards == (start < at) {
			at, ok = start, true
		}
	}
	return Interval{Minute, at}.In(q.Unit), ok
}

// whole is all that is known of an interval.
func (h *history) whole(i Interval) (Record, error) {
	var all Totals
	var only Record
	several := false
	for u := Minute; u <= i.Unit; u++ {
		from, to := h.within(u, i.start, i.end())
		for _, k := range h.levels[u][from:to] {
			if only == nil {
				only = k.record
				continue
			}
			if !several {
				several = true
				if err := all.followRecord(only); err != nil {
					return nil, err
				}
			}
			if err := all.followRecord(k.record); err != nil {
				return nil, err
			}
		}
	}
	if !several {
		return only, nil
	}
	return all.Record(), nil
}

// within are the bounds in levels[u] of what begins at begin or later and before end.
func (h *history) within(u Unit, begin, end int64) (from, to int) {
	level := h.levels[u]
	from, _ = slices.BinarySearchFunc(level, begin, compareStart)
	to, _ = slices.BinarySearchFunc(level, end, compareStart)
	return from, max(from, to)
}

func compareStart(k kept, start int64) int { return cmp.Compare(k.start, start) }

func (s *Memory) openLocked(app string) *history {
	h := s.apps[app]
	if h == nil {
		h = &history{bytes: appOverhead}
		s.bytes += h.bytes
		s.apps[app] = h
	}
	return h
}

// foldLocked adds t to what an interval has on its own level.
func (s *Memory) foldLocked(h *history, i Interval, t *Totals) {
	at, found := slices.BinarySearchFunc(h.levels[i.Unit], i.start, compareStart)
	if !found {
		h.levels[i.Unit] = slices.Insert(h.levels[i.Unit], at, kept{start: i.start, record: t.Record()})
		s.grewLocked(h, h.levels[i.Unit][at].size())
		return
	}
	k := &h.levels[i.Unit][at]
	before := k.size()
	all, err := k.record.Totals()
	if err != nil {
		panic(err) // only this process has written it
	}
	all.follow(t)
	k.record = all.Record()
	s.grewLocked(h, k.size()-before)
}

func (s *Memory) removeLocked(h *history, u Unit, from, to int) {
	for i := from; i < to; i++ {
		s.grewLocked(h, -h.levels[u][i].size())
	}
	h.levels[u] = slices.Delete(h.levels[u], from, to)
}

func (s *Memory) grewLocked(h *history, by int) {
	h.bytes += by
	s.bytes += by
}

// trimLocked keeps to the bounds, after h has grown.
func (s *Memory) trimLocked(h *history) {
	for u := range units {
		if beyond := len(h.levels[u]) - keep[u]; beyond > 0 {
			s.coarsenLocked(h, u, beyond)
		}
	}
	for h.bytes > s.opts.MaxAppBytes && s.shrinkLocked(h) {
	}
	for s.bytes > s.opts.MaxBytes {
		largest := h
		for _, other := range s.apps {
			if other.bytes > largest.bytes {
				largest = other
			}
		}
		if !s.shrinkLocked(largest) {
			return // nothing but empty apps
		}
	}
}

// shrinkLocked takes away the older part of the finest intervals. It reports false if there
// are none at all.
func (s *Memory) shrinkLocked(h *history) bool {
	for u := range units {
		if n := len(h.levels[u]); n > 0 {
			s.coarsenLocked(h, u, (n+7)/8)
			return true
		}
	}
	return false
}

// coarsenLocked folds the n oldest intervals of a unit into the next larger one.
func (s *Memory) coarsenLocked(h *history, u Unit, n int) {
	oldest := slices.Clone(h.levels[u][:n])
	s.removeLocked(h, u, 0, n)
	if u == Month {
		return
	}
	for _, k := range oldest {
		t, err := k.record.Totals()
		if err != nil {
			panic(err) // only this process has written it
		}
		s.foldLocked(h, Interval{u, k.start}.In(u+1), t)
	}
}
