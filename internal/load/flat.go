package load

// When the memory of a run counts as flat. The first quarter of it is for the log to fill and for the heap
// to find its size; how the garbage collector breathes is the bound on what follows.
const (
	flatFactor = 1.05
	flatKiB    = 4 << 10
)

// flatness compares the most memory of the second half of a run with that of its second quarter, in
// KiB. ok is false if there are too few samples to say.
func flatness(samples []Sample) (before, after int64, ok bool) {
	n := len(samples)
	if n < 8 {
		return 0, 0, false
	}
	for i, s := range samples {
		switch {
		case i >= n/2:
			after = max(after, s.RSS)
		case i >= n/4:
			before = max(before, s.RSS)
		}
	}
	return before, after, true
}

// checkFlat makes a report fail if the server's memory grew.
func (r *Report) checkFlat(o *Round) {
	before, after, ok := flatness(o.Samples)
	switch {
	case !ok || before == 0:
		r.problem("%s: whether memory is flat needs --pid, and a run of two seconds at least", o.Kind)
	case float64(after) > float64(before)*flatFactor+flatKiB:
		r.problem("%s: memory grew: %.1f MiB at most in the second quarter of the run, %.1f MiB in its second half", o.Kind, mib(before), mib(after))
	default:
		r.Flat = &Flat{before, after}
	}
}
