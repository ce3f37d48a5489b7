package outbox

// Gate keeps one attachment's frames behind its ATTACHED and before its DETACHED. Its zero value is
// open. It belongs to one Outbox, whose lock guards it, and is used only through the Outbox's
// methods.
type Gate struct {
	held  *held // nil unless frames are held
	state gateState
}

type gateState uint8

const (
	gateOpen gateState = iota
	gateHolding
	gateEnded
)

type held struct {
	items [][]byte
	bytes int
}

// PutGate sends b through g: at once if g is open, after Release if it is holding, never if it has
// ended. With more set an open gate only queues, and a Flush must follow. It reports whether b was
// accepted. b must not change any more.
func (o *Outbox) PutGate(g *Gate, b []byte, more bool) bool {
	o.mu.Lock()
	if o.broken || o.finishing || g.state == gateEnded {
		o.dropHeldLocked(g)
		o.mu.Unlock()
		return false
	}
	if g.state == gateHolding {
		if g.held == nil {
			g.held = new(held)
		}
		g.held.items = append(g.held.items, b)
		g.held.bytes += len(b)
		o.heldBytes += len(b)
		o.settleUnlock()
		return true
	}
	o.touch()
	if more {
		o.pushLocked(b)
		o.settleUnlock()
		return true
	}
	o.sendLocked(b, false)
	return true
}

// Hold begins to collect what comes through g, also if g had ended: an attachment begins anew.
func (o *Outbox) Hold(g *Gate) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if g.state == gateEnded {
		o.dropHeldLocked(g)
	}
	g.state = gateHolding
}

// Pause is Hold for an attachment that goes on. A gate that has ended stays so, and Pause returns
// false.
func (o *Outbox) Pause(g *Gate) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if g.state == gateEnded {
		return false
	}
	g.state = gateHolding
	return true
}

// Release sends first, then what g held, and opens g, as one step: nothing comes between. A gate
// that has ended stays so, and first is dropped.
func (o *Outbox) Release(g *Gate, first ...[]byte) {
	o.mu.Lock()
	if o.broken || o.finishing || g.state == gateEnded {
		o.dropHeldLocked(g)
		o.mu.Unlock()
		return
	}
	g.state = gateOpen
	o.touch()
	for _, b := range first {
		if len(b) > 0 {
			o.pushLocked(b)
		}
	}
	if h := g.held; h != nil {
		g.held = nil
		o.heldBytes -= h.bytes
		for _, b := range h.items {
			o.pushLocked(b)
		}
	}
	o.flushUnlock()
}

// End drops what g held and whatever comes through it from now on, and sends last (DETACHED, or
// nil), as one step. last is sent even if g had ended before.
func (o *Outbox) End(g *Gate, last []byte) {
	o.mu.Lock()
	g.state = gateEnded
	o.dropHeldLocked(g)
	if o.broken || o.finishing || len(last) == 0 {
		o.settleUnlock()
		return
	}
	o.touch()
	o.sendLocked(last, false)
}

// dropHeldLocked frees what g holds. The count was set to zero already if the outbox broke.
func (o *Outbox) dropHeldLocked(g *Gate) {
	if g.held == nil {
		return
	}
	if !o.broken {
		o.heldBytes -= g.held.bytes
	}
	g.held = nil
}
