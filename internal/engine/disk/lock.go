package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockPatience is how long lockDir waits for another process, which may be about to end.
var lockPatience = 2 * time.Second // less in tests

// lockFile keeps other processes away from a directory. The lock is on a file of its own,
// since the database may be replaced by another file of the same name.
type lockFile struct{ f *os.File }

// lockDir fails with ErrInUse if another process holds the lock.
func lockDir(dir string) (*lockFile, error) {
	path := filepath.Join(dir, LockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockPatience / 40) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return &lockFile{f}, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%s is %w (it holds the lock on %s)", dir, ErrInUse, path)
	}
	return nil, errors.Join(err, f.Close())
}

func (l *lockFile) release() error { return l.f.Close() }
