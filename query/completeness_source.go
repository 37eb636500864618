package query

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// eventsSuffix is what the id of a source of source events ends with.
const eventsSuffix = "/events"

// source is what is known of one source, of requests or of source events.
type source struct {
	id       string
	index    int // among all
	isEvents bool
	events   *source       // of a source of requests, the one that speaks of it; nil: there is none
	listed   []chain.Range // numbers that are in the log, as each segment has them
	numbers  []chain.Range // the same, ascending
	again    []chain.Range // numbers that are in more than one segment
	in       []holding     // the segments that have some, in the order of the log

	firstReceived, lastReceived int64 // between these times, all of them

	// Numbers are taken in the order of time, so that four of them say what is known of all:
	before uint64 // those below came before the period
	since  uint64 // this one and those above came when it had begun, or later
	until  uint64 // those below came before the period's end
	after  uint64 // this one and those above came after it

	points  []point          // times that bound gaps, ascending by number once sorted
	edges   map[uint64]int64 // times of the numbers beside gaps
	settled uint64           // that there are numbers up to here was to be seen for longer than catchUp

	seen     []chain.Range // numbers that were read
	copies   []chain.Range // of them, those that are in the log more than once, or marked as such
	present  uint64        // in the period
	highest  uint64        // of these
	complete uint64        // of these

	// Of a source of events:
	last        *word  // that the log received
	end         *word  // with the highest number of those after which nothing comes
	paced       *word  // the last one that says how often there is one
	most        *word  // that says the most served
	limit       uint64 // the least served of those after which nothing comes
	limitDied   bool   // all of them say that the source died
	lost        uint64
	contradicts bool // it said that it had served less than before
	spoke       bool // in the period
}

// holding says that a segment has numbers of a source from first to last, if not all of them.
type holding struct {
	segment     int
	first, last uint64
}

// point says that all numbers below n were taken at time t or before, and n and those above at t or later.
type point struct {
	n uint64
	t int64
}

func newSource(id string) *source {
	return &source{id: id, isEvents: strings.HasSuffix(id, eventsSuffix) && id != eventsSuffix, since: math.MaxUint64, after: math.MaxUint64,
		limit: math.MaxUint64, firstReceived: math.MaxInt64, lastReceived: math.MinInt64}
}

// add puts numbers of a segment into the source.
func (s *source) add(segment int, runs []chain.Range) {
	if len(runs) == 0 {
		return
	}
	s.listed = append(s.listed, runs...)
	s.in = append(s.in, holding{segment, runs[0].First, runs[len(runs)-1].Last})
}

// list puts the numbers of all segments together.
func (s *source) list() {
	slices.SortFunc(s.listed, func(a, b chain.Range) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last)) })
	for _, run := range s.listed {
		if n := len(s.numbers); n > 0 && run.First <= s.numbers[n-1].Last {
			s.again = join(s.again, chain.Range{First: run.First, Last: min(run.Last, s.numbers[n-1].Last)})
		}
		s.numbers = join(s.numbers, run)
	}
	s.listed = nil
}

// join adds a run that does not begin before the last one of runs.
func join(runs []chain.Range, run chain.Range) []chain.Range {
	if n := len(runs); n > 0 && run.First <= plus(runs[n-1].Last, 1) {
		runs[n-1].Last = max(runs[n-1].Last, run.Last)
		return runs
	}
	return append(runs, run)
}

// union returns the numbers of either, both ascending.
func union(a, b []chain.Range) []chain.Range {
	if len(b) == 0 {
		return a
	}
	if n := len(a); n == 0 || a[n-1].First <= b[0].First { // the usual case
		for _, run := range b {
			a = join(a, run)
		}
		return a
	}
	all := make([]chain.Range, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].First <= b[0].First {
			all, a = join(all, a[0]), a[1:]
		} else {
			all, b = join(all, b[0]), b[1:]
		}
	}
	for _, run := range slices.Concat(a, b) {
		all = join(all, run)
	}
	return all
}

// runsOf returns ascending numbers as runs.
func runsOf(numbers []uint64) (runs []chain.Range) {
	for _, n := range numbers {
		runs = join(runs, chain.Range{First: n, Last: n})
	}
	return runs
}

// touches reports whether ascending runs have a number of run.
func touches(runs []chain.Range, run chain.Range) bool {
	i := firstFrom(runs, run.First)
	return i < len(runs) && runs[i].First <= run.Last
}

// firstFrom returns the index of the first run that ends with n or later.
func firstFrom(runs []chain.Range, n uint64) int {
	i, _ := slices.BinarySearchFunc(runs, n, func(r chain.Range, n uint64) int { return cmp.Compare(r.Last, n) })
	return i
}

// contains reports whether n is in ascending runs.
func contains(runs []chain.Range, n uint64) bool {
	i := firstFrom(runs, n)
	return i < len(runs) && runs[i].First <= n
}

// place takes in that the numbers below `below` were taken at t or before, and `from` and those above at t or later.
func (s *source) place(below, from uint64, t, periodFrom, periodTo int64) {
	if t < periodFrom {
		s.before = max(s.before, below)
	} else {
		s.since = min(s.since, from)
	}
	if t < periodTo {
		s.until = max(s.until, below)
	} else {
		s.after = min(s.after, from)
	}
}

// clockBack reports whether the times do not ascend with the numbers.
func (s *source) clockBack() bool { return s.before > s.since || s.until > s.after }

// note keeps the time of a number that bounds a gap.
func (s *source) note(n uint64, t int64) {
	runs := s.numbers
	i := firstFrom(runs, n)
	if i == len(runs) || n > runs[i].First && n < runs[i].Last {
		return
	}
	if s.edges == nil {
		s.edges = make(map[uint64]int64)
	}
	s.edges[n] = t
}

// hear keeps what a source event says of the time at which numbers were taken, where that bounds a gap.
func (s *source) hear(served uint64, t int64) {
	if served == 0 || !contains(s.numbers, served) || !contains(s.numbers, served-1) {
		s.points = append(s.points, point{served, t})
	}
}

// served returns the number behind the last one that is known to have been taken.
func (s *source) served() uint64 {
	var end uint64
	if n := len(s.numbers); n > 0 {
		end = plus(s.numbers[n-1].Last, 1)
	}
	return max(end, s.said())
}

// said returns how many were served, as the source says.
func (s *source) said() uint64 {
	if s.events == nil || s.events.most == nil {
		return 0
	}
	return *s.events.most.served
}

// missing gives the runs of numbers that are not in the log, ascending, from one of them on.
func (s *source) missing(from uint64) iter.Seq[chain.Range] {
	return func(yield func(chain.Range) bool) {
		i, next := firstFrom(s.numbers, from), uint64(0)
		if i > 0 {
			next = s.numbers[i-1].Last + 1
		}
		for _, run := range s.numbers[i:] {
			if run.First > next && !yield(chain.Range{First: next, Last: run.First - 1}) {
				return
			}
			next = plus(run.Last, 1)
		}
		if end := s.served(); next < end {
			yield(chain.Range{First: next, Last: end - 1})
		}
	}
}

// missingHere gives what is missing and may belong to the period. What is missing before the first that is known of a source
// may be of any time before that.
func (s *source) missingHere() iter.Seq[chain.Range] {
	return func(yield func(chain.Range) bool) {
		first, next := min(s.before, s.since), max(s.until, s.after)
		if next == 0 {
			return
		}
		for run := range s.missing(first) {
			if run.First >= next {
				return
			}
			if run.Last < first {
				continue
			}
			if !yield(chain.Range{First: max(run.First, first), Last: min(run.Last, next-1)}) {
				return
			}
		}
	}
}

// size returns how many numbers of run are among those from first on and before next.
func size(run chain.Range, first, next uint64) uint64 {
	from, to := max(run.First, first), min(plus(run.Last, 1), next)
	if from >= to {
		return 0
	}
	return to - from
}

// bounds returns between which times run was taken; nil where that is not known.
func (s *source) bounds(run chain.Range) (after, before *time.Time) {
	lowest, highest := int64(math.MinInt64), int64(math.MaxInt64)
	runs := s.numbers
	i := firstFrom(runs, run.First) // the run behind the gap
	if i > 0 {
		if t, ok := s.edges[runs[i-1].Last]; ok {
			lowest = t
		}
	}
	if i < len(runs) {
		if t, ok := s.edges[runs[i].First]; ok {
			highest = t
		}
	}
	if j := s.firstPoint(plus(run.First, 1)) - 1; j >= 0 {
		lowest = max(lowest, s.points[j].t)
	}
	if j := s.firstPoint(plus(run.Last, 1)); j < len(s.points) {
		highest = min(highest, s.points[j].t)
	}
	when := func(t int64) *time.Time {
		if t == math.MinInt64 || t == math.MaxInt64 {
			return nil
		}
		at := time.Unix(0, t).UTC()
		return &at
	}
	return when(lowest), when(highest)
}

// firstPoint returns the index of the first point for n or above. Points are sorted.
func (s *source) firstPoint(n uint64) int {
	i, _ := slices.BinarySearchFunc(s.points, n, func(p point, n uint64) int { return cmp.Compare(p.n, n) })
	return i
}

// relevant reports whether there is something to say of a source of requests.
func (c *completeness) relevant(s *source) bool {
	if s.present > 0 || s.events != nil && s.events.spoke {
		return true
	}
	for range s.missingHere() {
		return true
	}
	return c.ending(s) != endKnown || c.state(s) == StateEnded && (c.isNear(s) || s.events != nil && c.isNear(s.events))
}

// gaps returns what of a source is missing, or may be, in the period, and how many requests were open.
func (c *completeness) gaps(s *source) (gaps []Gap, open uint64) {
	state := StateNumbers
	if !s.isEvents {
		state = c.state(s)
	}
	late := lateness{next: math.MaxUint64}
	if state == StateAlive {
		late = c.lateness(s)
	}
	for run := range s.missingHere() {
		for part := range late.split(run) {
			all := size(part.Range, 0, math.MaxUint64)
			after, before := s.bounds(part.Range)
			if part.what == isOpen && (before == nil || before.UnixNano() >= c.asOf-int64(longestRequest)) {
				open = plus(open, all)
				continue
			}
			g := Gap{Source: s.id, First: part.First, Last: part.Last, After: after, Before: before}
			if part.what == isOnTheWay {
				g.OnTheWay = all
			} else {
				g.Missing = size(part.Range, max(s.before, s.since), min(s.until, s.after))
			}
			g.Possible = all - g.Missing
			g.Known = s.knownOf(part.Range, state)
			gaps = append(gaps, g)
		}
	}
	return gaps, open
}

// lateness says which records of a source that lives may still come.
type lateness struct {
	open   []uint64 // numbers of requests that had not ended at its last word, ascending
	behind uint64   // the last of them that the word has room for, if there were more
	more   uint64   // how many more there were behind that one
	most   uint64   // and below this one
	next   uint64   // this one and those above were not to be seen for long enough
}

func (c *completeness) lateness(s *source) lateness {
	w := s.events.last
	l := lateness{open: w.open, next: s.settled}
	if s.events.most != nil {
		l.next = min(l.next, s.said()) // what came after its last word may be open
	}
	if n := len(w.open); n == maxOpen && w.served != nil && w.recorded != nil {
		inAll := *w.served - min(*w.served, plus(*w.recorded, w.lost))
		l.behind, l.most = w.open[n-1], *w.served
		l.more = max(min(inAll, maxOpenInAll), maxOpen) - maxOpen
	}
	return l
}

// What a part of a run of numbers without record is.
const (
	isMissing = iota
	isOpen
	isOnTheWay
)

type part struct {
	chain.Range
	what int
}

// split divides a run into what is open, what may be on its way, and what is missing.
func (l *lateness) split(run chain.Range) iter.Seq[part] {
	return func(yield func(part) bool) {
		next := run.First
		rest := func(last uint64) bool { // what is not open, from next to last
			if next <= last && next < l.next {
				p := part{chain.Range{First: next, Last: min(last, l.next-1)}, isMissing}
				if !yield(p) {
					return false
				}
				next = p.Last + 1
			}
			return next > last || yield(part{chain.Range{First: next, Last: last}, isOnTheWay})
		}
		emit := func(open chain.Range) bool {
			if open.First > 0 && !rest(open.First-1) || !yield(part{open, isOpen}) {
				return false
			}
			next = plus(open.Last, 1)
			return true
		}
		i, _ := slices.BinarySearch(l.open, run.First)
		for _, n := range l.open[i:] {
			if n > run.Last {
				break
			}
			if !emit(chain.Range{First: n, Last: n}) {
				return
			}
		}
		if first := max(next, plus(l.behind, 1)); l.more > 0 && first <= run.Last && first < l.most {
			last := min(run.Last, l.most-1, plus(first, l.more-1))
			l.more -= last - first + 1
			if !emit(chain.Range{First: first, Last: last}) {
				return
			}
		}
		rest(run.Last)
	}
}

// knownOf says what the source's last word has to do with a gap.
func (s *source) knownOf(run chain.Range, state string) string {
	if s.isEvents || s.lastWord() == nil {
		return ""
	}
	if n := len(s.numbers); n > 0 && run.Last < s.numbers[n-1].Last {
		return ""
	}
	switch state {
	case StateDied:
		return "the source's last numbers: the process died"
	case StateStopped:
		return "the source's last numbers: the process stopped"
	case StateSilent:
		return "the source's last numbers: it went silent"
	}
	return "the source's last numbers"
}
