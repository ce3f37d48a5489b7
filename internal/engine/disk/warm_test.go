package disk

import (
	"os"
	"path/filepath"
	"testing"

	"letshare-server/internal/engine"
)

func TestAFileThatWasNotClosedIsReadAtOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	was := func(f func() bool) (closed bool) {
		t.Helper()
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if f() == wasClosed(file) {
			t.Error("what was closed is read, or what was not is not")
		}
		return wasClosed(file)
	}
	warmed := func() bool { return warm(path) }
	for range 3 {
		s, stop := open(t, Options{Dir: dir, Policy: kept})
		mustAppend(t, s, message(keptChannel("c"), engine.ID{}, "text"))
		if was(warmed) {
			t.Error("a file that is open was closed")
		}
		stop()
		if !was(warmed) {
			t.Error("a file that was closed was not")
		}
	}
	if err := os.WriteFile(path, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if warm(path) || warm(path+"x") {
		t.Error("what is no database is read")
	}
}
