package disk

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		children[role]()
		os.Exit(0)
	}
	lockPatience = 100 * time.Millisecond
	goleak.VerifyTestMain(m)
}
