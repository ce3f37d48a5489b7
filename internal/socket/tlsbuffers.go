package socket

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"unsafe"
)

// crypto/tls keeps two buffers per connection for good, each as large as it ever had to be: what
// arrives encrypted, and the messages of the handshake. After an ordinary handshake they take some
// 3.5 KiB, and after one large record 17 KiB. It has no way to let them go, so releaseBuffers
// reaches for them: two fields that are empty bytes.Buffers become new ones. Where a release of Go
// names or types them otherwise nothing is found, nothing is done, and a test says so.

// keptInput is the size in bytes up to which the buffer of what arrives is kept.
const keptInput = 4 << 10

var rawInputAt, handAt = fieldOf("rawInput"), fieldOf("hand")

// fieldOf is where a *tls.Conn has a buffer; -1 if it has none of that name.
func fieldOf(name string) int {
	f, ok := reflect.TypeFor[tls.Conn]().FieldByName(name)
	if !ok || f.Type != reflect.TypeFor[bytes.Buffer]() {
		return -1
	}
	return int(f.Offset)
}

// releaseBuffers lets go of the buffers that are larger than keep bytes and empty. The handshake
// must be done, and the caller must be the only one who reads: nobody else uses them then.
func releaseBuffers(conn *tls.Conn, keep int) {
	for _, at := range [...]int{rawInputAt, handAt} {
		if at < 0 {
			continue
		}
		if b := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(conn), at)); b.Len() == 0 && b.Cap() > keep {
			*b = bytes.Buffer{}
		}
	}
}
