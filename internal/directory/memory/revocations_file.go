package memory

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/statefile"
)

// KeepRevocations reads revocations from a file, and from now on writes each to it before it
// counts. The file is made with the first. It is to be called before anything else is done with
// the store.
//
// The file is for one process at a time: if another has written it, further revocations fail
// with directory.ErrUnavailable.
func (s *Store) KeepRevocations(path string) error {
	f := &revocationsFile{path: path}
	statefile.RemoveLeftovers(path)
	list, err := f.read()
	if err != nil {
		return fmt.Errorf("revocations of tokens: %w", err)
	}
	r := &s.revocations
	now := s.opts.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, given := range list {
		if given.Expires.UnixMilli() > now {
			r.putLocked(given, now)
		}
	}
	r.file = f
	return nil
}

// CheckRevocations says what is wrong with a file for KeepRevocations, and leaves it alone.
func CheckRevocations(path string) error {
	_, err := (&revocationsFile{path: path}).read()
	return err
}

// revocationsFormat is the version of the file's format.
const revocationsFormat = 1

// maxRevocationsFile bounds what is read of a file, in bytes.
const maxRevocationsFile = 1 << 30

// minRevocationsRewrite is the least size, in bytes, of a file that is written anew without
// what has expired.
const minRevocationsRewrite = 1 << 20

// revocationsFile is the file of a store's revocations: lines of JSON, the first with the
// version of the format, the others with what was revoked at once, in the order in which it was.
// A last line that is not whole was never acknowledged, and is left out. What has expired stays
// until the file has doubled.
type revocationsFile struct {
	path    string
	info    fs.FileInfo // of the file as it was last read or written; nil: there was none
	size    int64       // up to the end of the last whole line
	rewrite int64       // from which size on the file is written anew
}

// revocationLine is one revocation; times are in ms since the epoch.
type revocationLine struct {
	App          string `json:"app"`
	Key          string `json:"key"`
	Target       string `json:"target"`
	IssuedBefore int64  `json:"issuedBefore"`
	AppliesAt    int64  `json:"appliesAt"`
	Expires      int64  `json:"expires"`
}

// read returns what is in the file; a file that is not there has nothing.
func (f *revocationsFile) read() (list []directory.Revocation, err error) {
	file, err := os.Open(f.path)
	if statefile.IsNotThere(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if f.info, err = file.Stat(); err != nil {
		return nil, err
	}
	damaged := fmt.Errorf("%s is damaged, or is something else: restore it from a backup, or move it away to begin without revocations", f.path)
	for in, first := bufio.NewReader(io.LimitReader(file, maxRevocationsFile)), true; ; first = false {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			if first {
				return nil, damaged
			}
			break
		}
		if err != nil {
			return nil, err
		}
		if first {
			var head struct{ Format *int }
			if json.Unmarshal(line, &head) != nil || head.Format == nil {
				return nil, damaged
			}
			if *head.Format != revocationsFormat {
				return nil, fmt.Errorf("%s has format %d, and this version knows format %d: it was written by another version of the server", f.path, *head.Format, revocationsFormat)
			}
			f.size = int64(len(line))
			continue
		}
		var together []revocationLine
		if json.Unmarshal(line, &together) != nil {
			if _, err := in.Peek(1); err == io.EOF {
				break // the loss of power came before all of it was on the disk
			}
			return nil, damaged
		}
		f.size += int64(len(line))
		for _, r := range together {
			list = append(list, directory.Revocation{
				App: r.App, Key: r.Key, Target: r.Target,
				IssuedBefore: time.UnixMilli(r.IssuedBefore), AppliesAt: time.UnixMilli(r.AppliesAt), Expires: time.UnixMilli(r.Expires),
			})
		}
	}
	f.rewrite = max(2*f.size, minRevocationsRewrite)
	return list, nil
}

func appendRevocations(b []byte, list []directory.Revocation) []byte {
	together := make([]revocationLine, len(list))
	for i, r := range list {
		together[i] = revocationLine{r.App, r.Key, r.Target, r.IssuedBefore.UnixMilli(), r.AppliesAt.UnixMilli(), r.Expires.UnixMilli()}
	}
	line, _ := json.Marshal(together) // cannot fail
	return append(append(b, line...), '\n')
}

// add writes what is revoked at once; live returns what was revoked before and has not expired.
// It reports whether it was added: with an error that may not survive a loss of power.
func (f *revocationsFile) add(list []directory.Revocation, live func() []directory.Revocation) (added bool, err error) {
	if err := statefile.Unchanged(f.path, f.info); err != nil {
		return false, err
	}
	line := appendRevocations(nil, list)
	if f.info == nil || f.size+int64(len(line)) > f.rewrite {
		return f.replace(append(live(), list...))
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY, 0)
	if err != nil {
		return false, err
	}
	defer file.Close()
	size := f.size + int64(len(line))
	_, err = file.WriteAt(line, f.size) // over a line that was not finished
	if err = errors.Join(err, file.Truncate(size), file.Sync()); err == nil {
		f.size = size
	} else {
		err = errors.Join(err, file.Truncate(f.size))
	}
	info, statErr := file.Stat()
	if statErr == nil {
		f.info = info
	}
	return f.size == size, err
}

// replace writes the file anew.
func (f *revocationsFile) replace(all []directory.Revocation) (replaced bool, err error) {
	text := appendRevocations(fmt.Appendf(nil, "{\"format\":%d}\n", revocationsFormat), all)
	info, replaced, err := statefile.Replace(f.path, text)
	if replaced {
		f.info, f.size, f.rewrite = info, int64(len(text)), max(2*int64(len(text)), minRevocationsRewrite)
	}
	return replaced, err
}
