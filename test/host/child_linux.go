package host

import "syscall"

// Child is for a process that ends with this one, however that ends.
func Child() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
