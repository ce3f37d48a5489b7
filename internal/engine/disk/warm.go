package disk

import (
	"bufio"
	"encoding/binary"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
)

// After a crash bbolt finds the free pages by looking at all others, in the order of its trees, which
// is none on the disk: a file of 1.5 GiB took 30 s, though the disk reads as much in 5 s in one
// stream, and in 1 s in four. So all of it is read before, if the system has room to keep it.

// warm reads a file that was not closed, so that the system has it in memory. It reports false if
// that is not needed or of no use. What goes wrong is for who opens the file to find out.
func warm(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || wasClosed(f) || info.Size() > roomToCache() {
		return false
	}
	const streams = 4
	part := info.Size()/streams + 1
	var wg sync.WaitGroup
	for i := range int64(streams) {
		wg.Go(func() {
			_, _ = io.CopyBuffer(discard{}, io.NewSectionReader(f, i*part, part), make([]byte, 1<<20))
		})
	}
	wg.Wait()
	return true
}

// discard is io.Discard, which would read with a small buffer of its own.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// Where bbolt's two meta pages, of which the newer one counts, have what is asked for here; see
// internal/common/meta.go there. The first 16 bytes are those of every page.
const (
	metaMagic    = 16
	metaPageSize = metaMagic + 8
	metaFreelist = metaMagic + 32
	metaTxid     = metaMagic + 48
	metaBytes    = metaMagic + 64

	boltMagic  = 0xED0CDAED
	noFreelist = math.MaxUint64
)

// wasClosed reports whether a file says which of its pages are free, as Close has it say. In doubt it
// does.
func wasClosed(f io.ReaderAt) bool {
	var newest uint64
	closed := true
	at := int64(0)
	for range 2 {
		b := make([]byte, metaBytes)
		if _, err := f.ReadAt(b, at); err != nil || binary.NativeEndian.Uint32(b[metaMagic:]) != boltMagic {
			return true
		}
		if txid := binary.NativeEndian.Uint64(b[metaTxid:]); txid >= newest {
			newest, closed = txid, binary.NativeEndian.Uint64(b[metaFreelist:]) != noFreelist
		}
		at = int64(binary.NativeEndian.Uint32(b[metaPageSize:]))
	}
	return closed
}

// roomToCache is how many bytes of files the system may keep in memory for this process, with a
// third left for everything else; 0 if that is unknown.
func roomToCache() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	var room int64
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, is := strings.CutPrefix(lines.Text(), "MemAvailable:"); is {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			room = kb << 10
		}
	}
	// A container's; elsewhere there is no such file, or it says max.
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			room = min(room, limit)
		}
	}
	return room / 3 * 2
}
