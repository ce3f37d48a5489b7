package memory

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"letshare-server/internal/directory"
	"letshare-server/internal/directory/directorytest"
)

// keeping opens a store that keeps its apps in path.
func keeping(t *testing.T, path string) *Store {
	t.Helper()
	s := NewStore(Options{})
	if err := s.KeepApps(path); err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, id string, revision uint64, data string) uint64 {
	t.Helper()
	next, err := s.Node(nodeA).PutApp(t.Context(), id, revision, json.RawMessage(data), 0)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// list writes the apps of a store as id=data.
func list(t *testing.T, s *Store) string {
	t.Helper()
	apps, err := s.Node(nodeB).Apps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, a := range apps {
		b.WriteString(a.ID + "=" + string(a.Data) + " ")
	}
	return b.String()
}

func TestTheContractWithAFile(t *testing.T) {
	directorytest.Run(t, func(t *testing.T) directorytest.Harness {
		c := newClock()
		s := NewStore(Options{Now: c.Now})
		dir := t.TempDir()
		if err := errors.Join(s.KeepApps(filepath.Join(dir, "apps.json")), s.KeepRevocations(filepath.Join(dir, "revocations.jsonl"))); err != nil {
			t.Fatal(err)
		}
		return directorytest.Harness{A: s.Node(nodeA), B: s.Node(nodeB), NodeA: nodeA, NodeB: nodeB, Now: c.Now, Advance: c.Advance,
			KillA: func() { s.Bury(nodeA) }}
	})
}

func TestAppsAreThereAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "here")
	path := filepath.Join(dir, "apps.json")
	s := keeping(t, path)
	if _, err := os.Stat(dir); err == nil {
		t.Error("there is a directory before there is something to keep")
	}
	one := put(t, s, "one", 0, `{"a":[1,2]}`)
	two := put(t, s, "two", 0, `"<x>"`)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}

	s = keeping(t, path)
	if got := list(t, s); got != `one={"a":[1,2]} two="<x>" ` && got != `one={"a":[1,2]} two="\u003cx\u003e" ` {
		t.Errorf("after a restart: %s", got)
	}
	one = put(t, s, "one", one, `1`)
	if one <= two {
		t.Errorf("revision %d after %d: they have begun anew", one, two)
	}
	if err := s.Node(nodeA).DeleteApp(t.Context(), "two", two); err != nil {
		t.Fatal(err)
	}
	if got := list(t, keeping(t, path)); got != "one=1 " {
		t.Errorf("after another: %s", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("in the directory: %v, %v", entries, err)
	}
}

func TestAFileThatIsNotGoodIsAnErrorThatQuotesNothing(t *testing.T) {
	const secret = "this-is-a-secret"
	for what, text := range map[string]string{
		"is damaged":          `{"format":1,"revision":1,"apps":[{"id":"a","data":"` + secret,
		"is something else":   `["` + secret + `"]`,
		"damaged":             ``,
		"format 2":            `{"format":2,"revision":1,"apps":"` + secret + `"}`,
		"not its fields":      `{"format":1,"revision":1,"apps":[],"` + secret + `":1}`,
		"contradicts itself:": `{"format":1,"revision":1,"apps":[{"id":"a","revision":2,"data":"` + secret + `"}]}`,
		"contradicts itself":  `{"format":1,"revision":1,"apps":[{"id":"a","revision":1,"data":1},{"id":"a","revision":1,"data":1}]}`,
	} {
		path := filepath.Join(t.TempDir(), "apps.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := NewStore(Options{}).KeepApps(path)
		if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", what, err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != text {
			t.Errorf("%s: the file has changed: %s, %v", what, after, err)
		}
	}
	if err := NewStore(Options{}).KeepApps(t.TempDir()); err == nil {
		t.Error("a directory is read as a file")
	}
}

func TestAFileThatSomebodyElseHasWrittenIsNotOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apps.json")
	s, other := keeping(t, path), keeping(t, path)
	put(t, other, "theirs", 0, "1")
	if _, err := s.Node(nodeA).PutApp(t.Context(), "ours", 0, json.RawMessage("1"), 0); !errors.Is(err, directory.ErrUnavailable) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if got := list(t, s); got != "" {
		t.Errorf("there is %s although it could not be kept", got)
	}
	revision := put(t, other, "more", 0, "1")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := other.Node(nodeA).DeleteApp(t.Context(), "more", revision); !errors.Is(err, directory.ErrUnavailable) {
		t.Errorf("got %v after the file was removed", err)
	}
	if got := list(t, other); got != "more=1 theirs=1 " {
		t.Errorf("there is %s although nothing could be changed", got)
	}
}

func TestAPlaceWhereNothingCanBeWrittenRefusesChanges(t *testing.T) {
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := keeping(t, filepath.Join(blocked, "apps.json"))
	if _, err := s.Node(nodeA).PutApp(t.Context(), "a", 0, json.RawMessage("1"), 0); !errors.Is(err, directory.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if got := list(t, s); got != "" {
		t.Errorf("there is %s", got)
	}
}

func TestWhatAnEndedWriterLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	path, left, other := filepath.Join(dir, "apps.json"), filepath.Join(dir, ".apps.json-123"), filepath.Join(dir, ".api-key-123")
	for _, p := range []string{left, other} {
		if err := os.WriteFile(p, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(t, keeping(t, path), "a", 0, "1")
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("it is there still: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("another file is gone: %v", err)
	}
}
