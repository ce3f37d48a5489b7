// Package statefile writes small files that hold what a process knows: as a whole, so that a
// file is always one state or the next, and for one process at a time.
package statefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Unchanged fails if a file is not the one that was last read or written; before is nil
// if there was none.
func Unchanged(path string, before fs.FileInfo) error {
	info, err := os.Stat(path)
	switch {
	case IsNotThere(err) && before == nil:
		return nil
	case IsNotThere(err):
		return fmt.Errorf("%s was removed while the server runs; restart it", path)
	case err != nil:
		return err
	case before == nil, !os.SameFile(info, before), info.Size() != before.Size(), !info.ModTime().Equal(before.ModTime()):
		return fmt.Errorf("%s was changed by another process; each server needs a data_dir of its own; restart it", path)
	}
	return nil
}

// Replace writes a file that is one text or the other whatever happens, for its owner only.
// It reports whether it was replaced: with an error this may not survive a loss of power.
func Replace(path string, text []byte) (info fs.FileInfo, replaced bool, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, false, err
	}
	temp, err := os.CreateTemp(dir, tempPattern(path)) // mode 0600
	if err != nil {
		return nil, false, err
	}
	defer os.Remove(temp.Name()) // it has another name if all went well
	_, err = temp.Write(text)
	err = errors.Join(err, temp.Sync())
	info, statErr := temp.Stat()
	if err = errors.Join(err, statErr, temp.Close()); err != nil {
		return nil, false, err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return nil, false, err
	}
	return info, true, syncDir(dir)
}

// tempPattern is the pattern of the names of files that are to become the file.
func tempPattern(path string) string { return "." + filepath.Base(path) + "-*" }

// RemoveLeftovers removes what processes left that ended while they wrote. It may hold secrets.
func RemoveLeftovers(path string) {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), tempPattern(path))) // a bad pattern matches nothing
	for _, path := range left {
		_ = os.Remove(path) // it stays, for its owner only
	}
}

// IsNotThere reports whether a file could not be opened because neither it nor perhaps its
// directory exists.
func IsNotThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// syncDir has the names in a directory survive a loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil // a file system that has no such thing
	}
	return errors.Join(err, d.Close())
}
