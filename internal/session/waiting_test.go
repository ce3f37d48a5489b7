package session_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/session"
	"letshare-server/internal/wire"
)

// distant is a node whose store answers when the test says so.
func distant(t *testing.T) (*node, *deferring) {
	store := new(deferring)
	n := newNode(t, mutable, func(_ *session.Options, h *hub.Options) {
		store.Engine = h.Engine
		h.Engine = store
	})
	return n, store
}

// mutable is an option of newNode.
func mutable(_ *session.Options, h *hub.Options) {
	h.Namespace = func(_, _ string) auth.Namespace { return auth.Namespace{MutableMessages: true} }
}

func appendTo(channel string, serial string, msgSerial int64) *wire.ProtocolMessage {
	pm := message(channel, msgSerial)
	pm.Messages = []*pubsub.Message{{Action: pubsub.MessageAppend, Serial: serial, Data: pubsub.Text(fmt.Sprint(msgSerial, ";"))}}
	return pm
}

func annotationOf(channel string, serial string, msgSerial int64) *wire.ProtocolMessage {
	return &wire.ProtocolMessage{Action: wire.ActionAnnotation, Channel: channel, MsgSerial: msgSerial, Annotations: []*pubsub.Annotation{{
		Type: "x:total.v1", MessageSerial: serial,
	}}}
}

// publishTo publishes a message with msgSerial 0 and returns its serial.
func publishTo(t *testing.T, l *line, store *deferring, channel string) string {
	t.Helper()
	l.take()
	l.says(message(channel, 0))
	store.take(0)()
	return l.only(t, wire.ActionAck).Res[0].Serials[0]
}

// numbers are the msgSerials that sent acknowledges, in their order; refused ones are negative.
func numbers(sent []*wire.ProtocolMessage) (all []int64) {
	for _, pm := range sent {
		for i := range int64(pm.Count) {
			switch pm.Action {
			case wire.ActionAck:
				all = append(all, pm.MsgSerial+i)
			case wire.ActionNack:
				all = append(all, -pm.MsgSerial-i)
			}
		}
	}
	return all
}

// RTN7a, RTN7b
func TestAStoreThatIsSlowWithAChangeHoldsUpTheChannelAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, store := distant(t)
		l := n.connect(t, "")
		serial := publishTo(t, l, store, "m1")
		l.says(appendTo("m1", serial, 1))
		synctest.Wait()
		l.says(annotationOf("m1", serial, 2), message("m1", 3), message("m2", 4),
			&wire.ProtocolMessage{Action: wire.ActionHeartbeat, ID: "h"})
		time.Sleep(time.Second)
		synctest.Wait()
		if pm := l.only(t, wire.ActionHeartbeat); pm.ID != "h" {
			t.Errorf("%+v", pm)
		}
		if held := store.held(); held != 2 {
			t.Fatalf("the store has %d requests, not the append and the publish on the other channel", held)
		}
		store.take(1)() // of the other channel; its ACK waits for its turn
		for i := range 3 {
			synctest.Wait()
			if got := numbers(l.take()); len(got) != min(i, 1) || i > 0 && got[0] != int64(i) {
				t.Errorf("before answer %d there are acknowledgements of %v", i, got)
			}
			if held := store.held(); held != 1 {
				t.Fatalf("before answer %d the store has %d requests", i, held)
			}
			store.take(0)()
		}
		synctest.Wait()
		if got := numbers(l.take()); fmt.Sprint(got) != "[3 4]" {
			t.Errorf("at last %v are acknowledged", got)
		}
		l.session.TransportClosed()
	})
}

// dying is an engine that does nothing in time any more once it is dead.
type dying struct {
	engine.Engine
	dead bool
}

func (d *dying) Append(a *engine.Append, done func(engine.Result)) {
	if !d.dead {
		d.Engine.Append(a, done)
		return
	}
	time.AfterFunc(time.Until(a.Deadline), func() { done(engine.Result{Err: engine.ErrDeadline}) })
}

// However many changes wait for it, a dead store takes the time that each of them has, and not the sum.
func TestChangesThatWaitForADeadStoreEndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(dying)
		n := newNode(t, mutable, func(_ *session.Options, h *hub.Options) {
			store.Engine = h.Engine
			h.Engine = store
		})
		l := n.connect(t, "")
		l.take()
		l.says(message("m", 0))
		serial := l.only(t, wire.ActionAck).Res[0].Serials[0]
		store.dead = true
		const timeout, count = 5 * time.Second, 300
		for i := range int64(count) {
			began := time.Now()
			l.says(appendTo("m", serial, 1+i))
			if waited := time.Since(began); waited > timeout {
				t.Fatalf("reading waits for %v", waited)
			}
		}
		time.Sleep(timeout)
		synctest.Wait()
		got := numbers(l.take())
		if len(got) != count {
			t.Fatalf("%d of %d are answered", len(got), count)
		}
		for i, number := range got {
			if number != -int64(i)-1 {
				t.Fatalf("answer %d is %d", i, number)
			}
		}
		l.session.TransportClosed()
	})
}

// Reading waits when much waits, and what was done before is acknowledged.
func TestReadingWaitsWhileManyChangesWait(t *testing.T) {
	for _, c := range []struct {
		what string
		size int
		most int
	}{{"many", 1, 64}, {"large", 60 << 10, 4}} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, store := distant(t)
				l := n.connect(t, "")
				serial := publishTo(t, l, store, "m1")
				done := make(chan struct{})
				var pms []*wire.ProtocolMessage
				for i := range int64(c.most + 3) {
					pm := appendTo("m1", serial, 1+i)
					pm.Messages[0].Action = pubsub.MessageUpdate
					pm.Messages[0].Data = pubsub.Text(strings.Repeat("x", c.size))
					pms = append(pms, pm)
				}
				taken := 0
				go func() {
					defer close(done)
					for _, pm := range pms {
						l.session.Handle(&l.turn, pm)
						taken++
					}
					l.session.EndTurn(&l.turn)
				}()
				synctest.Wait()
				if taken != c.most {
					t.Errorf("%d changes were taken, want %d", taken, c.most)
				}
				store.take(0)()
				synctest.Wait()
				if got := numbers(l.take()); taken != c.most+1 || fmt.Sprint(got) != "[1]" {
					t.Errorf("after one answer %d were taken, and %v acknowledged", taken, got)
				}
				for range c.most + 2 {
					synctest.Wait()
					store.take(0)()
				}
				<-done
				synctest.Wait()
				if got := numbers(l.take()); len(got) != c.most+2 {
					t.Errorf("%v were acknowledged", got)
				}
				l.session.TransportClosed()
			})
		})
	}
}

// The memory of one process answers at once, so nothing waits and a turn has its outcomes.
func TestChangesInMemoryAreDoneInTheTurn(t *testing.T) {
	l := newNode(t, mutable).connect(t, "")
	l.take()
	l.says(message("m", 0))
	serial := l.only(t, wire.ActionAck).Res[0].Serials[0]
	l.says(appendTo("m", serial, 1), annotationOf("m", serial, 2), message("m", 3))
	if got := numbers(l.take()); fmt.Sprint(got) != "[1 2 3]" {
		t.Errorf("%v are acknowledged", got)
	}
	l.session.TransportClosed()
}
