package session_test

import (
	"sync/atomic"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/wire"
)

func TestABarredAttachmentEndsOnceAndOnlyIfItIsStillBarred(t *testing.T) {
	var identified atomic.Bool
	n := newNode(t, func(_ *session.Options, o *hub.Options) {
		o.Namespace = func(_, channel string) auth.Namespace {
			return auth.Namespace{Identified: identified.Load() && channel == "a"}
		}
	})
	h := n.hub
	var soon []func()
	l := n.connect(t, "")
	l.postpone = &soon
	l.says(attach("a"), attach("b"))
	l.take()
	change := func(to bool) (tasks []func()) {
		t.Helper()
		identified.Store(to)
		h.RulesChanged()
		tasks, soon = soon, nil
		return tasks
	}

	// The rule is back before the session comes to it.
	tasks := change(true)
	if len(tasks) != 1 || len(change(false)) != 0 {
		t.Fatalf("%d tasks", len(tasks))
	}
	tasks[0]()
	if sent := l.take(); len(sent) != 0 {
		t.Errorf("got %v", actions(sent))
	}

	// The client has detached, or attached anew, before.
	tasks = change(true)
	l.says(&wire.ProtocolMessage{Action: wire.ActionDetach, Channel: "a", HasChannel: true})
	l.only(t, wire.ActionDetached)
	tasks[0]()
	change(false)
	l.says(attach("a"))
	l.only(t, wire.ActionAttached)
	tasks[0]()
	if sent := l.take(); len(sent) != 0 {
		t.Errorf("got %v", actions(sent))
	}

	// Twice at once.
	tasks = append(change(true), change(true)...)
	for _, f := range tasks {
		f()
	}
	if pm := l.only(t, wire.ActionError); len(tasks) != 2 || pm.Channel != "a" || pm.Error.Code != int(pubsub.CodeIdentifiedClientNeeded) {
		t.Errorf("%d tasks, got %+v", len(tasks), pm)
	}
	if n := h.Rooms(); n != 1 {
		t.Errorf("%d rooms, want b's", n)
	}
	l.says(message("b", 0))
	if sent := l.take(); len(sent) != 2 {
		t.Errorf("got %v", actions(sent))
	}
}
