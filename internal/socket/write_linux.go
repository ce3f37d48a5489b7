package socket

import (
	"sync"
	"syscall"
	"unsafe"
)

// maxVector is IOV_MAX.
const maxVector = 1024

// writeNow writes what the kernel takes without waiting: less than b with a nil error, zero
// included, means that it takes no more.
func writeNow(fd int, b []byte) (int, error) {
	for {
		n, errno := send(fd, b)
		switch errno {
		case 0:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, errno
		}
	}
}

// writevNow is writeNow for several buffers.
func writevNow(fd int, iov []syscall.Iovec) (int, error) {
	for {
		n, _, errno := syscall.Syscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, errno
		}
	}
}

// writeOp is one attempt to write, pooled with its callback so that an attempt allocates nothing.
type writeOp struct {
	one []byte
	iov []syscall.Iovec
	n   int
	err error
	run func(fd uintptr) bool // of a RawConn: write
}

var writeOps = sync.Pool{New: func() any {
	op := new(writeOp)
	op.run = op.write
	return op
}}

func (op *writeOp) write(fd uintptr) bool {
	if len(op.iov) > 0 {
		op.n, op.err = writevNow(int(fd), op.iov)
	} else {
		op.n, op.err = writeNow(int(fd), op.one)
	}
	return true
}

// take makes the head of bufs, as much as one call takes, the bytes to write. It returns their
// number and the rest of bufs.
func (op *writeOp) take(bufs [][]byte) (rest [][]byte, want int) {
	for len(bufs) > 0 && len(op.iov) < maxVector {
		if b := bufs[0]; len(b) > 0 {
			v := syscall.Iovec{Base: &b[0]}
			v.SetLen(len(b))
			op.iov = append(op.iov, v)
			want += len(b)
		}
		bufs = bufs[1:]
	}
	return bufs, want
}

// done gives op back and returns what came of it.
func (op *writeOp) done() (int, error) {
	n, err := op.n, op.err
	op.one = nil
	clear(op.iov)
	op.iov = op.iov[:0]
	op.n, op.err = 0, nil
	writeOps.Put(op)
	return n, err
}
