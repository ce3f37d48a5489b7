package session

import (
	"testing"
	"unsafe"
)

// Size classes of Go's heap end at 256 and 288 bytes.
func TestASessionIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Session{}); size > 256 {
		t.Errorf("a session takes %d bytes", size)
	}
}
