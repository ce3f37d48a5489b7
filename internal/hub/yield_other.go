//go:build !linux

package hub

import "runtime"

// yield lets other goroutines run.
func yield() { runtime.Gosched() }
