package objects

import (
	"slices"

	"letshare-server/internal/pubsub"
)

// Garbage is the objects of a pool to which nothing leads from the root.
type Garbage struct {
	pool      Pool
	orphans   map[string]bool
	referrers map[string][]string // orphans that refer to one, by its id
	due       []string
}

// Garbage looks for objects to which nothing leads. Those are due that have been so since before a time, in
// ms since the epoch, and to which only such ones lead: what has just lost its way may find it again, with all
// that it leads to.
func (p Pool) Garbage(before int64) *Garbage {
	g := &Garbage{pool: p, orphans: make(map[string]bool), referrers: make(map[string][]string)}
	reachable := p.Reachable()
	for id, o := range p {
		if !reachable[id] && !o.Deleted && !o.Empty() {
			g.orphans[id] = true
		}
	}
	var young []string
	for id := range g.orphans {
		o := p[id]
		for i := range o.entries {
			if d := o.entries[i].Data; d.Type == pubsub.ObjectValue && g.orphans[d.Text] {
				g.referrers[d.Text] = append(g.referrers[d.Text], id)
			}
		}
		if o.OrphanedAt == 0 || o.OrphanedAt > before {
			young = append(young, id)
		}
	}
	kept := g.closure(young, func(id string) (next []string) {
		for _, e := range p[id].entries {
			if e.Data.Type == pubsub.ObjectValue && g.orphans[e.Data.Text] {
				next = append(next, e.Data.Text)
			}
		}
		return next
	})
	for id := range g.orphans {
		if !kept[id] {
			g.due = append(g.due, id)
		}
	}
	slices.Sort(g.due)
	return g
}

func (g *Garbage) closure(from []string, next func(string) []string) map[string]bool {
	found := make(map[string]bool, len(from))
	for _, id := range from {
		found[id] = true
	}
	for queue := slices.Clone(from); len(queue) > 0; {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, n := range next(id) {
			if !found[n] {
				found[n] = true
				queue = append(queue, n)
			}
		}
	}
	return found
}

// Orphan reports whether nothing leads from the root to an object, which was not deleted.
func (g *Garbage) Orphan(id string) bool { return g.orphans[id] }

// Due are the ids of objects to be deleted, in order.
func (g *Garbage) Due() []string { return g.due }

// Guards are those of due objects and of all from which something leads to them. While none of these
// changes, nothing leads to those.
func (g *Garbage) Guards(due []string) []string {
	all := g.closure(due, func(id string) []string { return g.referrers[id] })
	ids := make([]string, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
