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

// maxServed is the most requests that a source is believed to have served.
const maxServed = 1 << 53

// source is what is known of one source, of requests or of source events.
type source struct {
	id       string
	isEvents bool
	events   *source      // of a source of requests, the one that speaks of it; nil: there is none
	numbers  chain.Ranges // that are in the log
	again    chain.Ranges // that are in more than one segment
	in       []holding    // the segments that have some, in the order of the log

	// Numbers are taken in the order of time, so that four of them say what is known of all:
	before uint64 // those below came before the period
	since  uint64 // this one and those above came when it had begun, or later
	until  uint64 // those below came before the period's end
	after  uint64 // this one and those above came after it
	known  bool   // something is known from before the period's end

	points []point          // times that bound gaps, ascending by number once sorted
	edges  map[uint64]int64 // times of the numbers beside gaps

	inPeriod chain.Ranges // numbers of the period that were read
	copies   chain.Ranges // of them, those that are in the log more than once, or marked as such
	ended    chain.Ranges // numbers whose requests ended in the period, or might have
	present  uint64
	complete uint64

	// Of a source of events:
	last      *word
	lastN     uint64
	said      *word // the last one that says how many were served
	saidN     uint64
	heartbeat time.Duration // 0: not known
	spoke     bool          // in the period, or shortly before it
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

// word is what a source event says.
type word struct {
	name       string
	at         time.Time
	served     *uint64
	recorded   *uint64
	lost       uint64
	open       []uint64 // ascending
	reportedBy string
	interval   time.Duration // between heartbeats; 0: it does not say
}

func newSource(id string) *source {
	return &source{id: id, isEvents: strings.HasSuffix(id, eventsSuffix), since: math.MaxUint64, after: math.MaxUint64}
}

// add puts numbers of a segment into the source.
func (s *source) add(segment int, runs []chain.Range) {
	if len(runs) == 0 {
		return
	}
	for _, run := range runs {
		known := overlap(s.numbers.Runs(), run)
		for _, again := range known {
			s.again.AddRange(again)
		}
		s.numbers.AddRange(run)
	}
	s.in = append(s.in, holding{segment, runs[0].First, runs[len(runs)-1].Last})
}

// overlap returns what run has in common with ascending runs.
func overlap(runs []chain.Range, run chain.Range) (common []chain.Range) {
	for _, r := range runs[firstFrom(runs, run.First):] {
		if r.First > run.Last {
			break
		}
		common = append(common, chain.Range{First: max(r.First, run.First), Last: min(r.Last, run.Last)})
	}
	return common
}

// firstFrom returns the index of the first run that ends with n or later.
func firstFrom(runs []chain.Range, n uint64) int {
	i, _ := slices.BinarySearchFunc(runs, n, func(r chain.Range, n uint64) int { return cmp.Compare(r.Last, n) })
	return i
}

// contains reports whether n is in the set.
func contains(set *chain.Ranges, n uint64) bool {
	runs := set.Runs()
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
		s.known = true
		s.until = max(s.until, below)
	} else {
		s.after = min(s.after, from)
	}
}

// clockBack reports whether the times do not ascend with the numbers.
func (s *source) clockBack() bool { return s.before > s.since || s.until > s.after }

// note keeps the time of a number that bounds a gap.
func (s *source) note(n uint64, t int64) {
	runs := s.numbers.Runs()
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
	if served == 0 || !contains(&s.numbers, served) || !contains(&s.numbers, served-1) {
		s.points = append(s.points, point{served, t})
	}
}

// end returns the number behind the last one that is known to have been taken.
func (s *source) end() uint64 {
	var end uint64
	if runs := s.numbers.Runs(); len(runs) > 0 {
		end = plus(runs[len(runs)-1].Last, 1)
	}
	if s.events != nil && s.events.said != nil {
		end = max(end, *s.events.said.served)
	}
	return end
}

// missing gives the runs of numbers that are not in the log, ascending.
func (s *source) missing() iter.Seq[chain.Range] {
	return func(yield func(chain.Range) bool) {
		var next uint64
		for _, run := range s.numbers.Runs() {
			if run.First > next && !yield(chain.Range{First: next, Last: run.First - 1}) {
				return
			}
			next = plus(run.Last, 1)
		}
		if end := s.end(); next < end {
			yield(chain.Range{First: next, Last: end - 1})
		}
	}
}

// missingHere gives what is missing and may belong to the period. What is missing before the first that is known of a source
// belongs to the period of that, for want of a better one.
func (s *source) missingHere() iter.Seq[chain.Range] {
	return func(yield func(chain.Range) bool) {
		if !s.known {
			return
		}
		first, next := min(s.before, s.since), max(s.until, s.after)
		for run := range s.missing() {
			if next == 0 || run.First >= next {
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
	runs := s.numbers.Runs()
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
	if len(s.inPeriod.Runs()) > 0 || s.events != nil && s.events.spoke {
		return true
	}
	for range s.missingHere() {
		return true
	}
	return false
}

// defaultHeartbeat is how often a source speaks that does not say how often.
const defaultHeartbeat = time.Minute

// state says what a source of requests is doing as of its last word.
func (c *completeness) state(s *source) string {
	if s.events == nil {
		return StateNumbers
	}
	w := s.events.last
	if w == nil {
		return StateSilent // its source events are in what could not be read
	}
	switch w.name {
	case "stop":
		return StateStopped
	case "died":
		return StateDied
	}
	if w.at.Before(c.opts.To) && w.at.Add(3*s.interval()).Before(c.judgedAt()) {
		return StateSilent
	}
	return StateAlive
}

// interval is how often the source speaks.
func (s *source) interval() time.Duration {
	return cmp.Or(s.events.heartbeat, defaultHeartbeat)
}

// judgedAt is the time from which one looks back at who is silent.
func (c *completeness) judgedAt() time.Time {
	if c.opts.Now.Before(c.report.LastSealed) {
		return c.opts.Now
	}
	return c.report.LastSealed
}

// gaps returns what of a source is missing, or may be, in the period, and how many requests were open.
func (c *completeness) gaps(s *source) (gaps []Gap, open uint64) {
	state := StateNumbers
	if !s.isEvents {
		state = c.state(s)
	}
	for run := range s.missingHere() {
		var last *word
		if state == StateAlive {
			last = s.events.said
		}
		for part, isOpen := range split(run, last) {
			if isOpen {
				open = plus(open, size(part, 0, math.MaxUint64))
				continue
			}
			g := Gap{Source: s.id, First: part.First, Last: part.Last}
			all := size(part, 0, math.MaxUint64)
			g.Missing = size(part, max(s.before, s.since), min(s.until, s.after))
			g.Possible = all - g.Missing
			g.After, g.Before = s.bounds(part)
			g.Known = s.knownOf(part, state)
			gaps = append(gaps, g)
		}
	}
	return gaps, open
}

// split divides a run into numbers that were open at the last word of a source that lives, or came after it, and others.
func split(run chain.Range, last *word) iter.Seq2[chain.Range, bool] {
	return func(yield func(chain.Range, bool) bool) {
		if last == nil {
			yield(run, false)
			return
		}
		next := run.First
		emit := func(r chain.Range, open bool) bool {
			if next < r.First && !yield(chain.Range{First: next, Last: r.First - 1}, false) {
				return false
			}
			next = plus(r.Last, 1)
			return yield(r, open)
		}
		for _, n := range last.open {
			if n >= next && n <= run.Last && !emit(chain.Range{First: n, Last: n}, true) {
				return
			}
		}
		behind := *last.served
		if n := len(last.open); n >= maxOpen { // there may be more than it names
			behind = min(behind, plus(last.open[n-1], 1))
		}
		if first := max(next, behind); first <= run.Last && !emit(chain.Range{First: first, Last: run.Last}, true) {
			return
		}
		if next <= run.Last {
			yield(chain.Range{First: next, Last: run.Last}, false)
		}
	}
}

// knownOf says what the source's last word has to do with a gap.
func (s *source) knownOf(run chain.Range, state string) string {
	if s.isEvents || s.events == nil || s.events.last == nil {
		return ""
	}
	runs := s.numbers.Runs()
	if len(runs) > 0 && run.Last < runs[len(runs)-1].Last {
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
