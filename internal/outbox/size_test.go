package outbox

import (
	"testing"
	"unsafe"
)

func TestAnIdleOutboxIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Outbox{}); n > 200 {
		t.Errorf("an Outbox has %d bytes", n)
	}
	if n := unsafe.Sizeof(Gate{}); n > 16 {
		t.Errorf("a Gate has %d bytes", n)
	}
	t.Logf("Outbox %d bytes, Gate %d", unsafe.Sizeof(Outbox{}), unsafe.Sizeof(Gate{}))
}
