package stats

// Part is what was counted in an interval, without what is in shorter ones. Of one interval there
// may be several, each from another node.
type Part struct {
	Interval Interval
	Record   Record
}

// Follow adds what was counted after t, on the same node and in the same interval.
func (t *Totals) Follow(next *Totals) { t.follow(next) }

// Load puts parts beside what is known of an app. An error is that of a malformed Record; some
// may have been put then.
func (s *Memory) Load(app string, parts []Part) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.openLocked(app)
	sums := make(map[Interval]*Totals)
	for _, p := range parts {
		t, err := p.Record.Totals()
		if err != nil {
			return err
		}
		if sum := sums[p.Interval]; sum != nil {
			sum.beside(t)
		} else {
			sums[p.Interval] = t
		}
	}
	for i, t := range sums {
		s.foldLocked(h, i, t)
	}
	s.trimLocked(h)
	return nil
}

// Parts returns all that is known of an app, in no order, one part for an interval.
func (s *Memory) Parts(app string) (parts []Part) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.apps[app]
	if h == nil {
		return nil
	}
	for u, level := range h.levels {
		for _, k := range level {
			parts = append(parts, Part{Interval{Unit(u), k.start}, k.record})
		}
	}
	return parts
}
