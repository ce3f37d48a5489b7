// Package host is what tests take of the machine that others test on too: ports, and processes
// that end with the test's.
package host

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// given are the ports that this process was given, each with a locked file, so that no two
// servers get the same, whichever processes test at the time.
var given struct {
	sync.Mutex
	ports map[int]*os.File
}

// The ports are below those that systems give to clients, and so are those 10,000 above.
const firstPort, lastPort = 11000, 17999

// FreePort is a port of 127.0.0.1 that nothing else is given while this process lives, to be bound
// as often as the test likes. The port 10,000 above is free too: a Redis Cluster has its bus there.
func FreePort(t testing.TB) int {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = make(map[int]*os.File)
	}
	locks := filepath.Join(os.TempDir(), "letshare-test-ports")
	if err := os.MkdirAll(locks, 0o777); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if given.ports[port] != nil {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(locks, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			continue // another user's
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil || !free(port) || !free(port+10000) {
			lock.Close()
			continue
		}
		given.ports[port] = lock
		return port
	}
	t.Fatal("no free port")
	return 0
}

func free(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}
