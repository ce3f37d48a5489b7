package hub_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"letshare-server/internal/directory"
	directorymemory "letshare-server/internal/directory/memory"
	"letshare-server/internal/engine"
	enginememory "letshare-server/internal/engine/memory"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// behind is an engine whose live entries come when the test lets them.
type behind struct {
	engine.Engine
	subscriber engine.Subscriber
	held       []*engine.Entry
	asked      int // to catch up
	reads      int
	readErr    error // instead of reading
}

func (b *behind) Subscribe(ctx context.Context, id pubsub.ChannelID, s engine.Subscriber) (engine.Subscription, pubsub.Serial, error) {
	b.subscriber = s
	sub, position, err := b.Engine.Subscribe(ctx, id, b)
	return lateSubscription{sub, b}, position, err
}

func (b *behind) Deliver(entries []*engine.Entry) { b.held = append(b.held, entries...) }
func (b *behind) Flush()                          {}
func (b *behind) Lost(pubsub.Serial)              {}

// let delivers the first n entries that are held.
func (b *behind) let(n int) {
	b.subscriber.Deliver(b.held[:n:n])
	b.held = b.held[n:]
	b.subscriber.Flush()
}

func (b *behind) Read(ctx context.Context, id pubsub.ChannelID, q engine.Query) (engine.Page, error) {
	b.reads++
	if b.readErr != nil {
		return engine.Page{}, b.readErr
	}
	return b.Engine.Read(ctx, id, q)
}

type lateSubscription struct {
	engine.Subscription
	engine *behind
}

func (s lateSubscription) CatchUp() { s.engine.asked++ }

// nodeBehind is two nodes on one store, and the engine of the second, whose entries come late.
func nodeBehind(t *testing.T) (first, second *hub.Hub, late *behind) {
	t.Helper()
	nodes := [2]directory.Node{{Name: "n1", Incarnation: "i1"}, {Name: "n2", Incarnation: "i2"}}
	store := enginememory.NewStore(enginememory.Options{})
	known := directorymemory.NewStore(directorymemory.Options{})
	late = &behind{Engine: store.Node(nodes[1].Name)}
	first = newHub(t, func(o *hub.Options) {
		o.Engine, o.Directory, o.Node = store.Node(nodes[0].Name), known.Node(nodes[0]), nodes[0]
	})
	second = newHub(t, func(o *hub.Options) { o.Engine, o.Directory, o.Node = late, known.Node(nodes[1]), nodes[1] })
	return first, second, late
}

func TestAnAttachmentBeginsWhereItsClientIsOnANodeThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, late := nodeBehind(t)
		watcher := new(inbox)
		attach(t, second, hub.Attach{Receiver: watcher})
		for _, text := range []string{"1", "2"} {
			say(t, first, text)
		}
		known := say(t, first, "3").Serial
		say(t, first, "4")

		box, began := new(inbox), make(chan *hub.Attachment, 1)
		go func() { began <- attach(t, second, hub.Attach{Receiver: box, Since: known}) }()
		synctest.Wait()
		late.let(2)
		synctest.Wait()
		if len(began) != 0 || late.asked != 1 {
			t.Fatalf("it has begun before the node knows what its client knows (%d), or the engine was asked %d times to catch up", len(began), late.asked)
		}
		late.let(1)
		at := <-began
		if at.Position() != known {
			t.Errorf("it began at %s, the client is at %s", at.Position(), known)
		}
		if b := at.Resume(t.Context(), known); b.Err != nil || len(b.Frames) != 0 {
			t.Errorf("resumed with %q, %v", b.Frames, b.Err)
		}
		late.let(1)
		say(t, first, "5")
		late.let(1)
		if got := box.data(); got != "4 5" {
			t.Errorf("it got %q", got)
		}
		if got := watcher.data(); got != numbers(1, 5) {
			t.Errorf("who was there before got %q", got)
		}

		// Who knows less, or nothing, waits for nothing.
		say(t, first, "6")
		reads := late.reads
		attach(t, second, hub.Attach{})
		attach(t, second, hub.Attach{Since: known})
		if late.reads != reads || late.asked != 1 {
			t.Error("the engine was asked for those who know no more than the node")
		}
	})
}

func TestWhatTheLogDoesNotHaveIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, late := nodeBehind(t)
		attach(t, second, hub.Attach{})
		position := say(t, first, "1").Serial
		began := time.Now()
		for _, since := range []pubsub.Serial{
			pubsub.MakeSerial(99_999_999_999_999, 0, position.Epoch()), pubsub.MakeSerial(99_999_999_999_999, 0, "anothere"), "~",
		} {
			at := attach(t, second, hub.Attach{Since: since})
			if b := at.Resume(t.Context(), since); b.Err == nil {
				t.Errorf("%s was resumed", since)
			}
		}
		if late.asked != 0 || time.Since(began) != 0 {
			t.Errorf("asked %d times to catch up, waited %v", late.asked, time.Since(began))
		}
	})
}

func TestAnAttachmentIsRefusedIfTheNodeStaysBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, late := nodeBehind(t)
		watcher := attach(t, second, hub.Attach{})
		known := say(t, first, "1").Serial
		refused := func() {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := second.Attach(ctx, complete(&hub.Attach{Since: known}))
			var e *pubsub.Error
			if !errors.As(err, &e) || e.Code != pubsub.CodeUnavailable || !e.Code.MayPass() {
				t.Errorf("got %v", err)
			}
		}
		refused()
		late.readErr = engine.ErrUnavailable
		refused()
		late.readErr = nil
		watcher.Detach()
		if n := second.Rooms(); n != 0 {
			t.Errorf("%d rooms are left", n)
		}
		// Delivery begins anew, at the end of the log.
		if at := attach(t, second, hub.Attach{Since: known}); at.Position() != known {
			t.Errorf("it began at %s, the client is at %s", at.Position(), known)
		}
	})
}
