package chain

import "slices"

// Range is a run of numbers from First to Last, both included.
type Range struct {
	First, Last uint64
}

// Ranges is a set of numbers, kept as ascending runs that neither overlap nor touch. A source numbers its records
// densely, so that the set stays as short as the gaps in it are few.
type Ranges struct {
	runs []Range
}

// Add puts n into the set and reports whether it was new.
func (r *Ranges) Add(n uint64) bool {
	// The usual case: the next number of the last run.
	if last := len(r.runs) - 1; last >= 0 && r.runs[last].Last+1 == n && n != 0 {
		r.runs[last].Last = n
		return true
	}
	return r.AddRange(Range{n, n}) == 0
}

// AddRange puts all numbers of run into the set and returns how many of them were in it already.
func (r *Ranges) AddRange(run Range) (known uint64) {
	// runs[i:j] overlap or touch run.
	i, _ := slices.BinarySearchFunc(r.runs, run.First, func(have Range, first uint64) int {
		if have.Last < first && have.Last+1 != first {
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(r.runs) && (r.runs[j].First <= run.Last || r.runs[j].First == run.Last+1); j++ {
		if first, last := max(r.runs[j].First, run.First), min(r.runs[j].Last, run.Last); first <= last {
			known += last - first + 1
		}
	}
	if i < j {
		run = Range{min(run.First, r.runs[i].First), max(run.Last, r.runs[j-1].Last)}
	}
	r.runs = slices.Replace(r.runs, i, j, run)
	return known
}

// Remove takes n out of the set.
func (r *Ranges) Remove(n uint64) {
	for i, run := range r.runs {
		if n < run.First || n > run.Last {
			continue
		}
		var rest []Range
		if run.First < n {
			rest = append(rest, Range{run.First, n - 1})
		}
		if n < run.Last {
			rest = append(rest, Range{n + 1, run.Last})
		}
		r.runs = slices.Replace(r.runs, i, i+1, rest...)
		return
	}
}

// Runs returns the set as ascending runs. The slice must not be changed.
func (r *Ranges) Runs() []Range { return r.runs }
