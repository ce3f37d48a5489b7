package hub_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"letshare-server/internal/auth"
	"letshare-server/internal/hub"
	"letshare-server/internal/pubsub"
)

// guest is a receiver that may be barred. It leaves when it is, unless it is admitted again.
type guest struct {
	inbox
	at     atomic.Pointer[hub.Attachment]
	barred atomic.Pointer[pubsub.Error]
}

// Barred implements hub.Barred.
func (g *guest) Barred(err *pubsub.Error) { g.barred.Store(err) }

// ruled is an option with one rule for all channels, which can be changed.
func ruled(rule *atomic.Pointer[auth.Namespace]) func(*hub.Options) {
	rule.Store(new(auth.Namespace))
	return func(o *hub.Options) {
		o.Namespace = func(string, string) auth.Namespace { return *rule.Load() }
	}
}

func TestAChangedRuleBarsWhomItKeepsOut(t *testing.T) {
	var rule atomic.Pointer[auth.Namespace]
	h := newHub(t, ruled(&rule))
	parties := map[string]*auth.Grant{
		"anonymous over plaintext": {App: "app", Capability: auth.FullCapability, Plaintext: true},
		"anonymous over TLS":       {App: "app", Capability: auth.FullCapability},
		"key over TLS":             anyone,
		"bob over plaintext":       {App: "app", ClientRule: auth.ClientIdentified, ClientID: "bob", Capability: auth.FullCapability, Plaintext: true},
		"bob over TLS":             {App: "app", ClientRule: auth.ClientIdentified, ClientID: "bob", Capability: auth.FullCapability},
	}
	for _, c := range []struct {
		rule auth.Namespace
		want map[string]pubsub.Code // 0: not barred
	}{
		{auth.Namespace{Persisted: true, MutableMessages: true, PushEnabled: true, Limits: auth.NamespaceLimits{Messages: 1}}, nil},
		{auth.Namespace{TLSOnly: true}, map[string]pubsub.Code{"anonymous over plaintext": 40311, "bob over plaintext": 40311}},
		{auth.Namespace{Identified: true}, map[string]pubsub.Code{"anonymous over plaintext": 40161, "anonymous over TLS": 40161, "key over TLS": 40161}},
		{auth.Namespace{Identified: true, TLSOnly: true}, map[string]pubsub.Code{
			"anonymous over plaintext": 40311, "anonymous over TLS": 40161, "key over TLS": 40161, "bob over plaintext": 40311}},
	} {
		rule.Store(new(auth.Namespace))
		guests := make(map[string]*guest)
		var leave []*hub.Attachment
		for who, grant := range parties {
			for _, channel := range []string{"room", "[?rewind=1]room", "other"} { // in groups and channels of their own
				g := new(guest)
				at := attach(t, h, hub.Attach{Grant: grant, Channel: name(channel), Form: newLines(channel), Receiver: g})
				g.at.Store(at)
				leave = append(leave, at)
				guests[who+" on "+channel] = g
			}
		}
		leave = append(leave, attach(t, h, hub.Attach{Grant: parties["anonymous over plaintext"], Receiver: new(inbox)})) // not to be told
		h.RulesChanged()
		next := c.rule
		rule.Store(&next)
		for who, g := range guests {
			if err := g.barred.Load(); err != nil {
				t.Errorf("%s: barred by a rule that has not changed: %v", who, err)
			}
		}
		h.RulesChanged()
		for who := range parties {
			for _, channel := range []string{"room", "[?rewind=1]room", "other"} {
				g := guests[who+" on "+channel]
				got := pubsub.Code(0)
				if err := g.barred.Load(); err != nil {
					got = err.Code
				}
				if want := c.want[who]; got != want || (g.at.Load().Admitted() == nil) != (want == 0) {
					t.Errorf("%+v: %s on %s: barred with %d, admitted %v; want %d", c.rule, who, channel, got, g.at.Load().Admitted(), want)
				}
			}
		}
		for _, at := range leave {
			at.Detach()
		}
	}
	if n := h.Rooms(); n != 0 {
		t.Errorf("%d rooms are left", n)
	}
}

func TestARuleThatChangesDuringAnAttachIsKept(t *testing.T) {
	var rule atomic.Pointer[auth.Namespace]
	asked := 0
	h := newHub(t, ruled(&rule), func(o *hub.Options) {
		o.Namespace = func(string, string) auth.Namespace {
			asked++
			return auth.Namespace{Identified: asked > 1} // right after the first look
		}
	})
	_, err := h.Attach(t.Context(), complete(&hub.Attach{}))
	if codeOf(err) != pubsub.CodeIdentifiedClientNeeded || h.Rooms() != 0 {
		t.Errorf("got %v, %d rooms", err, h.Rooms())
	}
}

func TestNobodyStaysWhoIsBarredWhateverComesAtOnce(t *testing.T) {
	var rule atomic.Pointer[auth.Namespace]
	h := newHub(t, ruled(&rule))
	var wg, changes sync.WaitGroup
	stop := make(chan struct{})
	changes.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			rule.Store(&auth.Namespace{Identified: i%2 == 0})
			h.RulesChanged()
		}
	})
	var guests sync.Map
	for i := range 4 {
		wg.Go(func() {
			for j := 0; j < 100; {
				g := new(guest)
				at, err := h.Attach(t.Context(), complete(&hub.Attach{Receiver: g, Channel: name([]string{"a", "b"}[i%2])}))
				if err != nil {
					runtime.Gosched() // until the rule is another
					continue
				}
				j++
				g.at.Store(at)
				if j%3 == 0 {
					at.Detach()
				} else {
					guests.Store(g, at)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	changes.Wait()
	rule.Store(&auth.Namespace{Identified: true})
	h.RulesChanged()
	n := 0
	guests.Range(func(k, v any) bool {
		n++
		if k.(*guest).barred.Load() == nil {
			t.Error("one who attached under the old rule has not been told of the new one")
			return false
		}
		v.(*hub.Attachment).Detach()
		return true
	})
	if n == 0 || h.Rooms() != 0 {
		t.Errorf("%d guests, %d rooms", n, h.Rooms())
	}
}
