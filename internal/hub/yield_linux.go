package hub

import (
	"runtime"
	"syscall"
)

// yield lets other goroutines run, and then other threads that wait for this one's processor: those
// of Go's that serve small rooms while the kernel lets this one go on, and other processes.
func yield() {
	runtime.Gosched()
	_, _, _ = syscall.Syscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) // it does not fail
}
