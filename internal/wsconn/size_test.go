package wsconn

import (
	"testing"
	"unsafe"
)

func TestAConnectionIsSmall(t *testing.T) {
	n := unsafe.Sizeof(Conn{})
	if n > 256 {
		t.Errorf("a Conn has %d bytes", n)
	}
	t.Logf("Conn %d bytes", n)
}
