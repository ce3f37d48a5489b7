package directorytest

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"letshare-server/internal/directory"
	"letshare-server/internal/pubsub"
)

// Harness is a store with two nodes on it, ready to be used: where an implementation needs
// Run for its notices, open has started it. All of it is needed.
type Harness struct {
	A, B         directory.Directory
	NodeA, NodeB directory.Node

	// Now is the store's clock. It may go by itself, too: no test relies on less than half a
	// minute of it.
	Now func() time.Time

	// Advance moves the store's clock on.
	Advance func(time.Duration)

	// KillA ends node A, as a process that ends, and waits until what it had is given up.
	KillA func()
}

// Run runs all tests; open is called once for each.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, test := range slices.Concat(connectionTests, orphanTests, occupancyTests, channelTests, nonceTests, revocationTests, appTests, modelTests) {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

type test struct {
	name string
	run  func(t *testing.T, h Harness)
}

// patience is how long a test waits for a notice.
const patience = time.Minute

func expectError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// name is one that no other test uses.
func name(t *testing.T) string { return strings.NewReplacer("/", ".", ":", ".").Replace(t.Name()) }

func channel(t *testing.T) pubsub.ChannelID {
	return pubsub.ChannelID{App: "app", Name: name(t)}
}

// create records a connection of node A, of generation 1.
func create(t *testing.T, h Harness, id string) {
	t.Helper()
	err := h.A.Create(t.Context(), directory.Connection{ID: id, App: "app", GrantDigest: "digest of " + id}, 0)
	expectError(t, "Create", err, nil)
}

func lookup(t *testing.T, d directory.Directory, id string) directory.Connection {
	t.Helper()
	c, err := d.Lookup(t.Context(), id)
	expectError(t, "Lookup", err, nil)
	return c
}

func resume(t *testing.T, d directory.Directory, id string, from uint64, owner directory.Node) (directory.Connection, bool) {
	t.Helper()
	c, reaped, err := d.Resume(t.Context(), id, from, owner)
	expectError(t, "Resume", err, nil)
	return c, reaped
}

func expectSuperseded(t *testing.T, d directory.Directory, want directory.Supersession) {
	t.Helper()
	select {
	case got := <-d.Superseded():
		if got != want {
			t.Fatalf("superseded: got %+v, want %+v", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("superseded: got nothing, want %+v", want)
	}
}
