package load

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what a process has used since it began.
type usage struct {
	user, sys time.Duration // with the resolution of a clock tick, 10 ms
	at        time.Time
}

func (u usage) since(o usage) usage {
	return usage{user: u.user - o.user, sys: u.sys - o.sys}
}

func (u usage) total() time.Duration { return u.user + u.sys }

// tick is the unit of /proc/pid/stat: USER_HZ, which is 100 on every architecture that Go knows.
const tick = 10 * time.Millisecond

// processUsage reads the CPU time of all threads of a process, ended ones included.
func processUsage(pid int) (usage, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, fmt.Errorf("read the CPU time of process %d: %w (is --pid the server's?)", pid, err)
	}
	// The name stands in parentheses and may hold anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return usage{}, fmt.Errorf("read the CPU time of process %d: %.100q", pid, b)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	sys, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err1 != nil || err2 != nil {
		return usage{}, fmt.Errorf("read the CPU time of process %d: %.100q", pid, b)
	}
	return usage{time.Duration(user) * tick, time.Duration(sys) * tick, time.Now()}, nil
}

func (m measured) usage() (sum usage, err error) {
	for _, pid := range m.pids {
		u, err := processUsage(pid)
		if err != nil {
			return usage{}, err
		}
		sum.user, sum.sys, sum.at = sum.user+u.user, sum.sys+u.sys, u.at
	}
	return sum, nil
}

func (m measured) resident() (kib int64) {
	for _, pid := range m.pids {
		kib += residentSet(pid)
	}
	return kib
}

// ownUsage is the same for this process, in microseconds.
func ownUsage() usage {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r) // fails only for a bad pointer
	return usage{time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano()), time.Now()}
}

// residentSet is what a process occupies in KiB, give or take the kernel's batches, or zero. Unlike
// processMemory it does not make the process wait.
func residentSet(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	fields := strings.Fields(string(b))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()) / 1024
}

// threadUsage is the CPU time of the calling thread.
func threadUsage() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &r) // fails only for a bad pointer
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// memory is what a process occupies, in KiB.
type memory struct {
	rss, peak, private int64
	threads            int64
}

func processMemory(pid int) (memory, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, fmt.Errorf("read the memory of process %d: %w (is --pid the server's?)", pid, err)
	}
	m := memory{rss: procField(status, "VmRSS:"), peak: procField(status, "VmHWM:"), threads: procField(status, "Threads:")}
	// The rollup counts pages exactly, where status lags behind by the kernel's batches.
	if rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)); err == nil {
		m.rss = procField(rollup, "Rss:")
		m.private = procField(rollup, "Private_Clean:") + procField(rollup, "Private_Dirty:")
	}
	return m, nil
}

// restartPeak makes the kernel forget the most that a process occupied so far. It reports whether
// it could.
func restartPeak(pid int) bool {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) == nil
}

// writeCalls is the kernel's count of a process's write system calls, or -1 if it does not say.
func writeCalls(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return -1
	}
	return procField(b, "syscw:")
}

func procField(b []byte, name string) int64 {
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			v, _ := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
			return v
		}
	}
	return 0
}
