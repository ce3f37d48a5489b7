package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"letshare-server/internal/engine"
)

// The files of a Store's directory.
const (
	FileName = "letshare.db"   // the database
	LockName = "letshare.lock" // locked by the process that uses it
)

// ErrInUse is the reason why a directory cannot be opened that another process uses.
var ErrInUse = errors.New("in use by another process")

// ErrFormat is the reason why a file cannot be opened that is none of this release's.
var ErrFormat = errors.New("not a database of this release")

// mapBytes is the address space for the file. The file may be larger; but to map more of it
// the committer waits until nobody reads, and a backup reads for long.
const mapBytes = 64 << 30

// Open opens the database, or makes a new one. Close must follow.
//
// It fails with ErrInUse if another process has the directory open, and with ErrFormat if the
// file is no database or has another format version.
func (s *Store) Open() error {
	if err := os.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	lock, err := lockDir(s.opts.Dir)
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	path := filepath.Join(s.opts.Dir, FileName)
	db, err := openFile(path, s.opts.mapBytes)
	if err == nil {
		db.NoSync, db.NoGrowSync = s.opts.noSync, s.opts.noSync
		if err = s.adopt(db); err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("storage: %s: %w", path, err), lock.release())
	}
	s.lock = lock
	return nil
}

// openFile opens a file that may not be there yet.
func openFile(path string, mapped int) (db *bbolt.DB, err error) {
	fresh := false
	if info, statErr := os.Stat(path); errors.Is(statErr, fs.ErrNotExist) {
		fresh = true
	} else if statErr == nil && info.Size() == 0 {
		fresh = true // made, and then the process or the machine died
	}
	if !fresh {
		if err := inspect(path); err != nil {
			return nil, err
		}
		warm(path)
	}
	options := &bbolt.Options{
		NoFreelistSync: true, // Close writes it; after a crash it is found anew
		FreelistType:   bbolt.FreelistMapType,
	}
	if options.InitialMmapSize = mapped; mapped == 0 && strconv.IntSize == 64 {
		options.InitialMmapSize = mapBytes
	}
	if db, err = boltOpen(path, options); err != nil && options.InitialMmapSize > 0 && !errors.Is(err, ErrFormat) {
		options.InitialMmapSize = 0 // the address space may be limited
		db, err = boltOpen(path, options)
	}
	if err != nil {
		return nil, err
	}
	if fresh {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// inspect refuses a file that is cut, or not of this format, without writing to it.
func inspect(path string) error {
	db, err := boltOpen(path, &bbolt.Options{ReadOnly: true, Timeout: lockPatience})
	if err != nil {
		return err
	}
	err = unpanicked(func() error { return db.View(inspected(path)) })
	return errors.Join(err, db.Close())
}

func inspected(path string) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: it has %d bytes of %d", ErrFormat, info.Size(), tx.Size())
		}
		b := tx.Bucket(bucketStore)
		if b == nil {
			if name, _ := tx.Cursor().First(); name != nil {
				return fmt.Errorf("%w: it is another program's", ErrFormat)
			}
			return nil // made, and then the process or the machine died
		}
		return checkFormat(b)
	}
}

// unpanicked runs f and makes errors of bbolt's panics on files that are damaged.
func unpanicked(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrFormat, p)
		}
	}()
	return f()
}

// boltOpen is bbolt.Open with errors that can be told apart.
func boltOpen(path string, options *bbolt.Options) (db *bbolt.DB, err error) {
	err = unpanicked(func() (err error) {
		db, err = bbolt.Open(path, 0o600, options)
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		err = fmt.Errorf("%s is %w", path, ErrInUse)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		err = fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return db, err
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// adopt makes an inspected file the Store's, and fills an empty one.
func (s *Store) adopt(db *bbolt.DB) error {
	var (
		ms       int64
		counter  int
		revision uint64
	)
	empty := false
	err := db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketStore)
		if empty = b == nil; empty {
			return nil
		}
		if high := b.Get(keyHigh); len(high) == clockLength {
			ms, counter = clockOf(high)
		}
		if r := b.Get(keyRevision); len(r) == 8 {
			revision = binary.BigEndian.Uint64(r)
		}
		return nil
	})
	if err == nil && empty {
		err = db.Update(create)
	}
	if err != nil {
		return err
	}
	s.mem.Resume(ms, counter, revision)
	s.db = db
	s.measure()
	return nil
}

func create(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketStore, bucketChannels, bucketIDs, bucketLog, bucketLast, bucketRecords} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketStore).Put(keyFormat, []byte(strconv.Itoa(formatVersion)))
}

func checkFormat(b *bbolt.Bucket) error {
	v, err := strconv.Atoi(string(b.Get(keyFormat)))
	switch {
	case err != nil:
		return fmt.Errorf("%w: it has no format version", ErrFormat)
	case v > formatVersion:
		return fmt.Errorf("%w: it has format version %d, made by a later release; this one knows %d", ErrFormat, v, formatVersion)
	case v < formatVersion:
		return fmt.Errorf("%w: it has format version %d, which this release reads no more; it knows %d", ErrFormat, v, formatVersion)
	}
	return nil
}

// measure notes how large the database is.
func (s *Store) measure() {
	page := int64(s.db.Info().PageSize)
	stats := s.db.Stats()
	free := int64(stats.FreePageN+stats.PendingPageN) * page
	var size int64
	_ = s.db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	s.free.Store(free)
	s.used.Store(size - free)
}

// Close closes the database, after Run has ended. It waits for transactions that read.
func (s *Store) Close() error {
	db := s.db
	if db == nil {
		return nil
	}
	s.queue.shut()
	var err error
	if s.broken.Load() == nil {
		err = s.guarded(func() error { return s.leave(db) })
	}
	return errors.Join(err, db.Close(), s.lock.release())
}

// leave writes what makes the next Open fast, and its serials follow on.
func (s *Store) leave(db *bbolt.DB) error {
	db.NoFreelistSync = false
	return db.Update(func(tx *bbolt.Tx) error {
		ms, counter, _ := s.mem.High()
		return putHigh(tx, ms, counter)
	})
}

// putHigh notes that no serial was given after this one.
func putHigh(tx *bbolt.Tx, ms int64, counter int) error {
	b := tx.Bucket(bucketStore)
	if was := b.Get(keyHigh); len(was) == clockLength {
		if m, n := clockOf(was); m > ms || m == ms && n >= counter {
			return nil
		}
	}
	return b.Put(keyHigh, appendClock(nil, ms, counter))
}

// guarded turns panics of damaged files, and faults of a disk that cannot be read, into
// errors. After one the store is not used any more.
func (s *Store) guarded(f func() error) (err error) {
	if broken := s.broken.Load(); broken != nil {
		return *broken
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the database is damaged: %v", engine.ErrUnavailable, p)
			if s.broken.CompareAndSwap(nil, &err) {
				s.opts.Log.Error("storage: the database is damaged and is not used any more; restore a backup", "error", p, "stack", string(debug.Stack()))
			}
		}
	}()
	return f()
}
