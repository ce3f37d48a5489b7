//go:build !linux

package host

import "syscall"

// Child is for a process that ends with this one, however that ends; this system has no such
// thing, and what a test does not end stays.
func Child() *syscall.SysProcAttr { return nil }
