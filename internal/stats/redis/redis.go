package redis

import (
	"context"
	"crypto/rand"
	_ "embed" // the script
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"letshare-server/internal/redisclient"
	"letshare-server/internal/stats"
)

//go:embed lua/replace.lua
var luaReplace string

var scriptReplace = redisclient.NewScript(luaReplace)

// What Options mean that say nothing.
const (
	DefaultPrefix      = "letshare:"
	DefaultTimeout     = 2 * time.Second
	DefaultMaxAppBytes = 1 << 20
)

// Options are the settings of a Store.
type Options struct {
	Prefix string // begins the names of all keys; empty means DefaultPrefix

	// Timeout is how long an operation may take. Zero means DefaultTimeout.
	Timeout time.Duration

	// MaxAppBytes bounds what one app takes, in bytes by estimate, as in stats.MemoryOptions. Zero
	// means DefaultMaxAppBytes.
	MaxAppBytes int

	Now func() time.Time // nil means time.Now
}

// Store is a stats.Store whose parts are in Redis.
type Store struct {
	opts   Options
	client rueidis.Client
	node   string // stands for this Store's parts

	// mu guards the fields below. Nothing is called under it.
	mu    sync.Mutex
	since time.Time // zero: not known yet
	apps  map[string]*part
}

var _ stats.Store = (*Store)(nil)

// part is what this node counts of an app now.
type part struct {
	mu      sync.Mutex // guards all below; Redis is called under it, and no other lock taken
	minute  stats.Interval
	field   string // empty: there is none
	began   time.Time
	totals  stats.Totals
	folding time.Time // when it was tried last
}

// partLife is for how long a node writes to one part: those that are older than foldAge do not
// change.
const (
	partLife = 4 * time.Minute
	foldAge  = 10 * time.Minute
)

// life is for how long an app's parts live without any new ones.
const life = 2 * 366 * 24 * time.Hour

// New returns a Store on a client that redisclient.Open returned, which the caller closes.
func New(client rueidis.Client, opts Options) *Store {
	if opts.Prefix == "" {
		opts.Prefix = DefaultPrefix
	}
	if opts.Timeout == 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.MaxAppBytes == 0 {
		opts.MaxAppBytes = DefaultMaxAppBytes
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Store{opts: opts, client: client, node: rand.Text()[:13], apps: make(map[string]*part)}
}

func (s *Store) key(app string) string { return s.opts.Prefix + "s{s:" + app + "}" }

// fieldOf names the part of an interval that no node writes to any more.
func fieldOf(i stats.Interval) string {
	return strconv.Itoa(int(i.Unit)) + ":" + strconv.FormatInt(i.Start().Unix()/60, 10)
}

// intervalOf is the interval of a part.
func intervalOf(field string) (i stats.Interval, ok bool) {
	name, _, _ := strings.Cut(field, "/")
	u, start, found := strings.Cut(name, ":")
	unit, err1 := strconv.Atoi(u)
	minutes, err2 := strconv.ParseInt(start, 10, 64)
	if !found || err1 != nil || err2 != nil || unit < int(stats.Minute) || unit > int(stats.Month) {
		return i, false
	}
	i = stats.At(stats.Unit(unit), time.Unix(minutes*60, 0))
	return i, fieldOf(i) == name
}

func (s *Store) do(ctx context.Context, build func() rueidis.Completed) (rueidis.RedisMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	return redisclient.Repeat(ctx, s.client, build)
}

func (s *Store) part(app string) *part {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.apps[app]
	if p == nil {
		p = new(part)
		s.apps[app] = p
	}
	return p
}

// Add writes what this node has counted in a minute.
func (s *Store) Add(ctx context.Context, app string, minute stats.Interval, t *stats.Totals) error {
	p := s.part(app)
	p.mu.Lock()
	defer p.mu.Unlock()
	now := s.opts.Now()
	all := *t
	if p.field != "" && p.minute == minute && now.Sub(p.began) < partLife {
		all = p.totals
		all.Follow(t)
	} else {
		p.minute, p.field, p.began, p.totals = minute, fieldOf(minute)+"/"+s.node+rand.Text()[:5], now, stats.Totals{}
	}
	_, err := s.do(ctx, func() rueidis.Completed {
		return s.client.B().Hset().Key(s.key(app)).FieldValue().FieldValue(p.field, string(all.Record())).Build()
	})
	if err != nil {
		return fmt.Errorf("statistics in Redis: %w", err)
	}
	p.totals = all
	if now.Sub(p.folding) >= foldAge {
		p.folding = now
		return s.fold(ctx, app) // what it did not do is done by the next
	}
	return nil
}

// parts reads all parts of an app, by field.
func (s *Store) parts(ctx context.Context, app string) (map[string]string, error) {
	m, err := s.do(ctx, func() rueidis.Completed { return s.client.B().Hgetall().Key(s.key(app)).Build() })
	if err != nil {
		return nil, fmt.Errorf("statistics in Redis: %w", err)
	}
	return m.AsStrMap()
}

var errMalformed = errors.New("stats: malformed data in Redis")

// load makes a Memory of parts.
func (s *Store) load(app string, fields map[string]string, since time.Time) (*stats.Memory, error) {
	m := stats.NewMemory(stats.MemoryOptions{MaxAppBytes: s.opts.MaxAppBytes, Since: since, Now: s.opts.Now})
	parts := make([]stats.Part, 0, len(fields))
	for field, record := range fields {
		i, ok := intervalOf(field)
		if !ok {
			return nil, errMalformed
		}
		parts = append(parts, stats.Part{Interval: i, Record: stats.Record(record)})
	}
	return m, m.Load(app, parts)
}

// fold makes one part of those of an interval that nobody writes to any more, and fewer of
// those that are too many.
func (s *Store) fold(ctx context.Context, app string) error {
	_, err := s.do(ctx, func() rueidis.Completed {
		return s.client.B().Set().Key(s.key(app) + ":l").Value(s.node).Nx().PxMilliseconds(foldAge.Milliseconds()).Build()
	})
	if rueidis.IsRedisNil(err) {
		return nil // another node does it
	}
	if err != nil {
		return err
	}
	fields, err := s.parts(ctx, app)
	if err != nil {
		return err
	}
	old := s.opts.Now().Add(-foldAge)
	for field := range fields {
		if i, ok := intervalOf(field); ok && i.Unit == stats.Minute && !i.End().Before(old) {
			delete(fields, field)
		}
	}
	m, err := s.load(app, fields, time.Time{})
	if err != nil {
		return err
	}
	after := make(map[string]string)
	for _, p := range m.Parts(app) {
		after[fieldOf(p.Interval)] = string(p.Record)
	}
	var gone, new []string
	for field, record := range fields {
		if after[field] != record {
			gone = append(gone, field, record)
		}
	}
	for field, record := range after {
		if fields[field] != record {
			new = append(new, field, record)
		}
	}
	_, err = s.replace(ctx, app, gone, new) // it lives from now on. What has changed meanwhile is folded the next time
	return err
}

// replace puts parts in place of others; both are fields and values, one after another.
func (s *Store) replace(ctx context.Context, app string, gone, new []string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	args := append([]string{strconv.FormatInt(life.Milliseconds(), 10), strconv.Itoa(len(gone) / 2)}, gone...)
	r := redisclient.Call{Script: scriptReplace, Keys: []string{s.key(app)}, Args: append(args, new...)}.Do(ctx, s.client)
	if r.Err != nil {
		return false, fmt.Errorf("statistics in Redis: %w", r.Err)
	}
	n, err := r.AsInt64()
	return n == 1, err
}

// Replace puts fixtures in place of all that is known of their intervals. What another node
// counts in the current minute comes back when that node writes it again.
func (s *Store) Replace(ctx context.Context, app string, fixtures []stats.Fixture) error {
	p := s.part(app)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.field = ""
	fields, err := s.parts(ctx, app)
	if err != nil {
		return err
	}
	m, err := s.load(app, nil, time.Time{})
	if err != nil {
		return err
	}
	if err := m.Replace(ctx, app, fixtures); err != nil { // later ones take the place of earlier ones
		return err
	}
	var gone, new []string
	for field := range fields {
		i, ok := intervalOf(field)
		if !ok {
			return errMalformed
		}
		for _, f := range fixtures {
			if i.Unit <= f.Interval.Unit && i.In(f.Interval.Unit) == f.Interval {
				gone = append(gone, field, "")
				break
			}
		}
	}
	for _, p := range m.Parts(app) {
		field := fieldOf(p.Interval)
		new = append(new, field, string(p.Record))
	}
	_, err = s.replace(ctx, app, gone, new)
	return err
}

// Read returns the intervals that q selects.
func (s *Store) Read(ctx context.Context, app string, q stats.Query) (stats.Page, error) {
	since, err := s.began(ctx)
	if err != nil {
		return stats.Page{}, err
	}
	fields, err := s.parts(ctx, app)
	if err != nil {
		return stats.Page{}, err
	}
	m, err := s.load(app, fields, since)
	if err != nil {
		return stats.Page{}, err
	}
	return m.Read(ctx, app, q)
}

// began is since when there are statistics.
func (s *Store) began(ctx context.Context) (time.Time, error) {
	s.mu.Lock()
	since := s.since
	s.mu.Unlock()
	if !since.IsZero() {
		return since, nil
	}
	key := s.opts.Prefix + "{stats}"
	now := s.opts.Now()
	m, err := s.do(ctx, func() rueidis.Completed {
		return s.client.B().Set().Key(key).Value(strconv.FormatInt(now.UnixMilli(), 10)).Nx().Get().Build()
	})
	switch {
	case rueidis.IsRedisNil(err):
		since = now
	case err != nil:
		return since, fmt.Errorf("statistics in Redis: %w", err)
	default:
		ms, err := m.AsInt64()
		if err != nil {
			return since, errMalformed
		}
		since = time.UnixMilli(ms)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = since
	return since, nil
}

// Forget drops all that is known of an app.
func (s *Store) Forget(ctx context.Context, app string) error {
	s.mu.Lock()
	delete(s.apps, app)
	s.mu.Unlock()
	_, err := s.do(ctx, func() rueidis.Completed { return s.client.B().Del().Key(s.key(app), s.key(app)+":l").Build() })
	return err
}
