package memory

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/directory"
)

// keepingRevocations opens a store that keeps its revocations in path.
func keepingRevocations(t *testing.T, path string, c *clock) *Store {
	t.Helper()
	s := NewStore(Options{Now: c.Now})
	if err := s.KeepRevocations(path); err != nil {
		t.Fatal(err)
	}
	return s
}

func revocationOf(c *clock, client string) directory.Revocation {
	now := time.UnixMilli(c.Now().UnixMilli())
	return directory.Revocation{App: "app", Key: "app.key", Target: "clientId:" + client, IssuedBefore: now, AppliesAt: now, Expires: now.Add(time.Hour)}
}

func revokeNow(t *testing.T, s *Store, list ...directory.Revocation) {
	t.Helper()
	if err := s.Node(nodeA).Revoke(t.Context(), list); err != nil {
		t.Fatal(err)
	}
}

// revokedTargets writes what a store has revoked, in its order.
func revokedTargets(t *testing.T, s *Store) string {
	t.Helper()
	all, _, err := s.Node(nodeB).Revocations(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, r := range all {
		b.WriteString(strings.TrimPrefix(r.Target, "clientId:") + " ")
	}
	return b.String()
}

func TestRevocationsAreThereAfterARestart(t *testing.T) {
	c := newClock()
	dir := filepath.Join(t.TempDir(), "data", "here")
	path := filepath.Join(dir, "revocations.jsonl")
	s := keepingRevocations(t, path, c)
	if _, err := os.Stat(dir); err == nil {
		t.Error("there is a directory before there is something to keep")
	}
	first := revocationOf(c, `"<a>`)
	revokeNow(t, s, first, revocationOf(c, "b"))
	revokeNow(t, s, revocationOf(c, "c"))
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}

	s = keepingRevocations(t, path, c)
	if got := revokedTargets(t, s); got != `"<a> b c ` {
		t.Errorf("after a restart: %s", got)
	}
	all, _, err := s.Node(nodeA).Revocations(t.Context(), "")
	if err != nil || all[0].App != first.App || all[0].Key != first.Key || !all[0].IssuedBefore.Equal(first.IssuedBefore) ||
		!all[0].AppliesAt.Equal(first.AppliesAt) || !all[0].Expires.Equal(first.Expires) {
		t.Errorf("got %+v, want %+v", all[0], first)
	}
	c.Advance(30 * time.Minute)
	revokeNow(t, s, revocationOf(c, "d"))
	c.Advance(31 * time.Minute)
	if got := revokedTargets(t, keepingRevocations(t, path, c)); got != "d " {
		t.Errorf("after an hour: %s", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("in the directory: %v, %v", entries, err)
	}
}

func TestTheFileOfRevocationsDoesNotGrowForEver(t *testing.T) {
	c := newClock()
	path := filepath.Join(t.TempDir(), "revocations.jsonl")
	s := keepingRevocations(t, path, c)
	long := strings.Repeat("x", 50_000)
	for i := range 100 {
		revokeNow(t, s, revocationOf(c, fmt.Sprint(i, long)))
		c.Advance(2 * time.Hour)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 2*minRevocationsRewrite {
		t.Errorf("the file has %d bytes (%v)", info.Size(), err)
	}
	revokeNow(t, s, revocationOf(c, "last"))
	if got := revokedTargets(t, keepingRevocations(t, path, c)); got != "last " {
		t.Errorf("after a restart there is %.100s", got)
	}
}

// A process that ends while it writes leaves a part of a line, which nobody was told of.
func TestALineThatWasNotFinishedIsLeftOut(t *testing.T) {
	c := newClock()
	path := filepath.Join(t.TempDir(), "revocations.jsonl")
	revokeNow(t, keepingRevocations(t, path, c), revocationOf(c, "a"))
	one, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	revokeNow(t, keepingRevocations(t, path, c), revocationOf(c, "b"))
	both, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	torn := [][]byte{append(bytes.Clone(one), "\x00\x00\x00\x00\n"...)}
	for n := len(one); n < len(both); n++ {
		torn = append(torn, both[:n])
	}
	for _, text := range torn {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s := keepingRevocations(t, path, c)
		if got := revokedTargets(t, s); got != "a " {
			t.Fatalf("%q: got %s", text[len(one):], got)
		}
		revokeNow(t, s, revocationOf(c, "c"))
		if got := revokedTargets(t, keepingRevocations(t, path, c)); got != "a c " {
			t.Fatalf("%q, then another: got %s", text[len(one):], got)
		}
	}
}

func TestAFileOfRevocationsThatIsNotGoodIsAnErrorAndStays(t *testing.T) {
	for what, text := range map[string]string{
		"is damaged":        "",
		"is something else": "[]\n",
		"format 2":          "{\"format\":2}\n[]\n",
		"damaged":           "{\"format\":1}\n[{]\n[]\n",
	} {
		path := filepath.Join(t.TempDir(), "revocations.jsonl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{NewStore(Options{}).KeepRevocations(path), CheckRevocations(path)} {
			if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != text {
			t.Errorf("%s: the file has changed: %s, %v", what, after, err)
		}
	}
}

func TestRevocationsThatCannotBeKeptAreRefused(t *testing.T) {
	c := newClock()
	path := filepath.Join(t.TempDir(), "revocations.jsonl")
	s, other := keepingRevocations(t, path, c), keepingRevocations(t, path, c)
	revokeNow(t, other, revocationOf(c, "theirs"))
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{s, keepingRevocations(t, filepath.Join(blocked, "revocations.jsonl"), c)} {
		if err := s.Node(nodeA).Revoke(t.Context(), []directory.Revocation{revocationOf(c, "ours")}); !errors.Is(err, directory.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		if got := revokedTargets(t, s); got != "" {
			t.Errorf("there is %s although it could not be kept", got)
		}
	}
}
