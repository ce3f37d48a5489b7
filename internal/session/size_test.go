package session

import (
	"testing"
	"unsafe"
)

// Size classes of Go's heap end at 256, 288 and 320 bytes.
func TestASessionIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Session{}); size > 288 {
		t.Errorf("a session takes %d bytes", size)
	}
}
