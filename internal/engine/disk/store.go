package disk

import (
	"cmp"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/memory"
	"letshare-server/internal/pubsub"
)

// The bounds of a Store whose Options name none.
const (
	DefaultQueueBytes = 64 << 20
	DefaultGroup      = 4096
)

// Options are the settings of a Store. Dir is required.
type Options struct {
	// Dir is the directory of the database. Open makes it if it is not there.
	Dir string

	// Policy says how much of a channel's log is kept; channels for which it is Persisted are
	// kept in the database. It is asked as memory.Options says.
	Policy func(pubsub.ChannelID) engine.Policy

	// LogBytes and IDBytes bound what is in memory, as memory.Options says.
	LogBytes int64
	IDBytes  int64

	// MaxBytes bounds what the database holds: above it Appends to persisted channels fail
	// with engine.ErrFull. Zero means no bound but the file system's.
	MaxBytes int64

	// QueueBytes bounds the Appends that wait for the committer; more fail with
	// engine.ErrFull. Zero means DefaultQueueBytes.
	QueueBytes int64

	// Group is how many Appends are committed together at most. Zero means DefaultGroup.
	Group int

	// SweepInterval is the time between two looks for what is too old. Zero means
	// memory.DefaultSweepInterval.
	SweepInterval time.Duration

	// Now is the store's clock. Nil means time.Now.
	Now func() time.Time

	// Metrics is told what happens; nil means nobody is.
	Metrics Metrics

	// Log is told of faults. Nil means nobody is.
	Log *slog.Logger

	noSync   bool // for tests: no commit waits for the disk
	mapBytes int  // for tests: as the constant

	commit func(*bbolt.Tx) error // for tests: (*bbolt.Tx).Commit, or what fails
}

// Metrics is what the Store reports, from the committer's goroutine.
type Metrics interface {
	// Committed tells of a transaction that is durable now, with how many Appends, and how
	// long that took.
	Committed(appends int, took time.Duration)

	// CommitFailed tells of one that is not.
	CommitFailed()
}

type noMetrics struct{}

func (noMetrics) Committed(int, time.Duration) {}
func (noMetrics) CommitFailed()                {}

// Store is a database and what of it is live.
type Store struct {
	opts Options
	mem  *memory.Store

	db   *bbolt.DB // set by Open
	lock *lockFile

	queue queue
	busy  busy

	// The committer's own.
	arena   arena
	last    int           // Appends of the last commit
	took    time.Duration // how long it took
	retryAt time.Time     // nothing is tried before, since a commit failed
	retry   error         // what is answered meanwhile

	used      atomic.Int64 // bytes of pages in use, after the last commit
	free      atomic.Int64 // bytes of pages that are free
	commits   atomic.Int64
	committed atomic.Int64 // Appends
	failed    atomic.Int64
	broken    atomic.Pointer[error] // why the database cannot be used any more

	sweeping sync.Mutex // one sweep at a time; comes before all locks
	cursors  sweepCursors
}

// NewStore returns a store that is not open. It starts nothing and touches no file.
func NewStore(opts Options) *Store {
	if opts.Policy == nil {
		opts.Policy = func(pubsub.ChannelID) engine.Policy { return engine.Policy{} }
	}
	opts.QueueBytes = cmp.Or(opts.QueueBytes, DefaultQueueBytes)
	opts.Group = cmp.Or(opts.Group, DefaultGroup)
	opts.SweepInterval = cmp.Or(opts.SweepInterval, memory.DefaultSweepInterval)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Metrics == nil {
		opts.Metrics = noMetrics{}
	}
	if opts.commit == nil {
		opts.commit = (*bbolt.Tx).Commit
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{opts: opts}
	s.mem = memory.NewStore(memory.Options{
		Policy: opts.Policy, LogBytes: opts.LogBytes, IDBytes: opts.IDBytes,
		SweepInterval: opts.SweepInterval, Now: opts.Now, Backing: (*backing)(s),
	})
	s.queue.init()
	return s
}

// backing is the Store as its memory sees it.
type backing Store

// Stats are figures of a store.
type Stats struct {
	Memory memory.Stats

	FileBytes int64 // of the database's pages, used and free
	FreeBytes int64 // of those that are free, to be used again
	Commits   int64 // that succeeded, since the start
	Appends   int64 // in them
	Failed    int64 // commits that failed
	Waiting   int64 // bytes of Appends that wait for the committer
}

// Stats returns the figures of now.
func (s *Store) Stats() Stats {
	used, free := s.used.Load(), s.free.Load()
	return Stats{
		Memory: s.mem.Stats(), FileBytes: used + free, FreeBytes: free,
		Commits: s.commits.Load(), Appends: s.committed.Load(), Failed: s.failed.Load(),
		Waiting: s.queue.waiting(),
	}
}

// view runs f in a transaction that reads. f keeps nothing of it, and does no more than a
// page's worth of work: meanwhile no space can be used again.
func (s *Store) view(f func(*bbolt.Tx) error) error {
	db := s.db
	if db == nil {
		return engine.ErrUnavailable
	}
	return s.guarded(func() error {
		err := db.View(f)
		if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			return engine.ErrClosed
		}
		return err
	})
}

func (s *Store) nowMillis() int64 { return s.opts.Now().UnixMilli() }
