package letshare_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAHangupReloadsTheConfigurationAndDropsNobody(t *testing.T) {
	t.Parallel()
	const before, after = "cors:\n  allowed_origins: [\"https://before.example\"]\n", "cors:\n  allowed_origins: [\"https://after.example\"]\n"
	s := start(t, settings{file: before})
	c, other := s.connect(t, "anna"), s.connect(t, "bert")
	c.subscribe("room")
	other.subscribe("room")
	hangup := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(s.dir, "configs", "local.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangup(after)
	eventually(t, patience, "the new origin is allowed", func() bool { return s.allows(t, "https://after.example") })
	if s.allows(t, "https://before.example") {
		t.Error("the old origin is allowed still")
	}
	hangup("cors:\n  allowed_orgins: []\n")
	eventually(t, patience, "the fault is reported", func() bool { return strings.Contains(s.output(), "did you mean allowed_origins") })
	if !s.allows(t, "https://after.example") {
		t.Error("a faulty configuration has changed the origins")
	}
	c.publish("room", `{"from":"a"}`)
	other.expect("room", "signal:all", `{"from":"a"}`)
}

func TestAHangupRightAtTheStartDoesNotEndTheServer(t *testing.T) {
	t.Parallel()
	for range 5 {
		s := start(t, settings{})
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, patience, "the configuration is reloaded", func() bool { return strings.Contains(s.output(), "configuration reloaded") })
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}
}
