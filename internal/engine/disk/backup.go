package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"letshare-server/internal/engine"
	"letshare-server/internal/engine/body"
)

// Backup calls begin with the size of a copy of the database as it is now, in bytes, and then
// writes that copy to what begin returned. Others go on meanwhile; what they free is not used
// again before the end. Whoever ends ctx must make the writer fail.
func (s *Store) Backup(ctx context.Context, begin func(size int64) (io.Writer, error)) error {
	return s.view(func(tx *bbolt.Tx) error {
		w, err := begin(tx.Size())
		if err != nil {
			return err
		}
		if _, err = tx.WriteTo(writerUntil{ctx, w}); ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	})
}

type writerUntil struct {
	ctx context.Context
	w   io.Writer
}

func (w writerUntil) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

// Contents is what Verify found in a database.
type Contents struct {
	Channels int
	Appends  int
	Records  int
}

func (c Contents) String() string {
	return fmt.Sprintf("%d channels, %d publishes, %d records", c.Channels, c.Appends, c.Records)
}

// Verify reads all of a database that nobody uses and reports the first fault.
func Verify(path string) (c Contents, err error) {
	if err := inspect(path); err != nil {
		return c, err
	}
	db, err := boltOpen(path, &bbolt.Options{ReadOnly: true, Timeout: lockPatience})
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = unpanicked(func() error { return db.View(c.verify) })
	return c, err
}

func (c *Contents) verify(tx *bbolt.Tx) error {
	if tx.Bucket(bucketStore) == nil {
		return fmt.Errorf("%w: it is empty", ErrFormat)
	}
	var damage error
	for fault := range tx.Check() {
		damage = errors.Join(damage, fault)
	}
	if damage != nil {
		return fmt.Errorf("%w: %w", ErrFormat, damage)
	}
	return c.count(tx)
}

// count reads every value.
func (c *Contents) count(tx *bbolt.Tx) error {
	ids := tx.Bucket(bucketIDs)
	err := tx.Bucket(bucketChannels).ForEach(func(k, v []byte) error {
		c.Channels++
		m, err := decodeMeta(v)
		if err == nil && !bytes.Equal(ids.Get(m.id[:]), k) {
			err = fmt.Errorf("channel: %w", errMalformed)
		}
		return err
	})
	if err != nil {
		return err
	}
	log := tx.Bucket(bucketLog)
	err = log.ForEach(func(segment, _ []byte) error {
		in := log.Bucket(segment)
		if in == nil || len(segment) != idLength+clockLength || ids.Get(segment[:idLength]) == nil {
			return fmt.Errorf("log: %w", errMalformed)
		}
		return in.ForEach(func(k, v []byte) error {
			c.Appends++
			var f frame
			if err := f.decode(k, v, true); err != nil {
				return err
			}
			return f.each(0, func(*engine.Entry) bool { return true })
		})
	})
	if err != nil {
		return err
	}
	err = tx.Bucket(bucketLast).ForEach(func(_, v []byte) error {
		_, text, err := decodeLast(v)
		if err == nil && len(text) > 0 {
			_, err = body.Decode(text)
		}
		return err
	})
	if err != nil {
		return err
	}
	return tx.Bucket(bucketRecords).ForEach(func(k, v []byte) error {
		c.Records++
		_, err := decodeRecord(k, v)
		return err
	})
}

// Save writes to a file, whole and durable or not at all. check may refuse what was written.
func Save(path string, write func(io.Writer) error, check func(path string) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := check(f.Name()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Restore makes the database of a directory from a copy. It fails with fs.ErrExist if the
// directory has one, and with ErrInUse if a process uses it. A copy with a fault is refused.
func Restore(dir string, from io.Reader) (c Contents, err error) {
	err = alone(dir, func(path string) error {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				err = &fs.PathError{Op: "restore", Path: path, Err: fs.ErrExist}
			}
			return err
		}
		return Save(path, func(w io.Writer) error {
			_, err := io.Copy(w, from)
			return err
		}, func(path string) error {
			c, err = Verify(path)
			return err
		})
	})
	return c, err
}

// Compact writes the database of a directory anew, without its free pages. before and after are
// its sizes in bytes. It needs room for both, and fails with ErrInUse if a process uses it.
func Compact(dir string) (before, after int64, err error) {
	err = alone(dir, func(path string) error {
		src, err := boltOpen(path, &bbolt.Options{ReadOnly: true})
		if err != nil {
			return err
		}
		defer func() { _ = src.Close() }() // nothing was written
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		before = info.Size()
		temp := path + ".compact"
		if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		dst, err := boltOpen(temp, &bbolt.Options{FreelistType: bbolt.FreelistMapType})
		if err != nil {
			return err
		}
		const perTransaction = 16 << 20
		err = bbolt.Compact(dst, src, perTransaction)
		if err == nil {
			err = dst.View(func(tx *bbolt.Tx) error {
				after = tx.Size()
				return nil
			})
		}
		if err = errors.Join(err, dst.Close()); err == nil {
			err = os.Truncate(temp, after) // bbolt makes room in advance
		}
		if err == nil {
			_, err = Verify(temp)
		}
		if err == nil {
			err = os.Rename(temp, path)
		}
		if err != nil {
			return errors.Join(err, os.Remove(temp))
		}
		return syncDir(dir)
	})
	return before, after, err
}

// alone runs f with the path of a directory's database while no other process uses it.
func alone(dir string, f func(path string) error) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	return f(filepath.Join(dir, FileName))
}
