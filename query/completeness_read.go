package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// completeness is the state of one Completeness.
type completeness struct {
	log      *Log
	opts     CompletenessOptions
	report   Completeness
	from, to int64 // the period, nanoseconds since 1970
	asOf     int64 // the time that the log speaks of: until then it would have what was sent

	promised time.Duration // between two manifests, at the most
	segments []segmentRef
	unlisted []int  // segments of which neither manifest nor content says which numbers they have
	blind    bool   // there may be numbers that nobody knows of
	unread   uint64 // entries of segments that could not be read
	byID     map[string]*source
	sources  []*source // by id, once the catalogue is made

	lacking [chain.FieldCount]uint64
	shares  map[string]*Share
	spoken  bool   // some source said something in the period
	strange uint64 // source events that are of another source than their id says
	tally   *tally

	done, total int64 // bytes, for the progress
}

// segmentRef is where a segment is found again, and what decides whether it is read.
type segmentRef struct {
	n           uint64     // of its manifest
	sum         chain.Hash // of its manifest as it is stored, whose signature was good
	size        int64
	entries     uint64
	first, last int64 // times at which its entries were received
	early       int64 // earliest time of its events
	read        bool
	failed      bool // it could not be read, or is not what was written
}

// Bounds, whatever producers and those who may write to the bucket do.
const (
	maxProblems = 1000
	maxShares   = 10_000 // names that are kept apart
	maxName     = 256    // bytes of a name
)

const oneDay = 24 * time.Hour

func newCompleteness(l *Log, opts CompletenessOptions) *completeness {
	c := &completeness{log: l, opts: opts, from: nanos(opts.From), to: nanos(opts.To),
		byID: make(map[string]*source), shares: make(map[string]*Share)}
	c.report = Completeness{Chain: l.Layout.Chain, Bucket: l.Bucket.String(), Key: l.Key.Fingerprint(), From: opts.From, To: opts.To,
		Reasons: []string{}, Problems: []string{}, Notes: []string{}, Conflicts: []CopyConflict{}, Gaps: []Gap{}, Sources: []SourceReport{}, Ended: []string{}}
	if opts.Counters != nil {
		c.tally = newTally(opts.Counters, c.from, c.to)
	}
	return c
}

// problem notes what could not be read, or is not what was written.
func (c *completeness) problem(format string, args ...any) {
	switch n := len(c.report.Problems); {
	case n < maxProblems:
		c.report.Problems = append(c.report.Problems, fmt.Sprintf(format, args...))
	case n == maxProblems:
		c.report.Problems = append(c.report.Problems, "and more")
	}
}

// catalogue reads all manifests: which numbers there are, and where.
func (c *completeness) catalogue(ctx context.Context) error {
	keys := c.log.follow()
	var links link
	for m, err := range c.log.manifests(ctx, 0, nil) {
		if err != nil {
			return err
		}
		c.report.Manifests++
		if err := keys.missing(m); err != nil {
			c.lost(err)
		}
		parsed, err := keys.open(m)
		if err != nil {
			c.lost(err)
			continue
		}
		if err := links.follow(parsed, m.data); err != nil {
			c.lost(err)
		}
		c.heardUntil(parsed)
		if g := parsed.Genesis; g != nil {
			c.promised = (&policy{heartbeat: time.Duration(min(max(g.Policy.HeartbeatInterval, 0), int64(366*oneDay/time.Second))) * time.Second}).silence()
		}
		if parsed.Segment != nil {
			c.enter(ctx, m, parsed)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.report.Manifests == 0 {
		return fmt.Errorf("%w: %q in %s", ErrNoChain, c.log.Layout.Chain, c.log.Bucket)
	}
	c.asOf = min(nanos(c.opts.Now), nanos(c.report.AsOf))
	for id, s := range c.byID {
		if base, ok := strings.CutSuffix(id, eventsSuffix); ok && base != "" {
			c.source(base).events = s
		}
	}
	for _, s := range c.byID {
		c.sources = append(c.sources, s)
		s.list()
		for _, h := range s.in {
			ref := &c.segments[h.segment]
			if c.isBefore(ref) {
				s.place(plus(h.last, 1), h.last, ref.last, c.from, c.to)
			}
			s.firstReceived, s.lastReceived = min(s.firstReceived, ref.first), max(s.lastReceived, ref.last)
		}
	}
	slices.SortFunc(c.sources, func(a, b *source) int { return cmp.Compare(a.id, b.id) })
	for i, s := range c.sources {
		s.index = i
	}
	return nil
}

// heardUntil takes in until when the log has what was sent: the last entry of a segment, for more may be waiting behind one that was
// sealed late; without a segment, until it was sealed.
func (c *completeness) heardUntil(m *chain.Manifest) {
	r := &c.report
	if m.SealedAt.After(r.LastSealed) {
		r.LastSealed = m.SealedAt.Time
	}
	until := m.SealedAt.Time
	if m.Segment != nil && m.Received != nil {
		until = m.Received.Last.Time
	}
	if until.After(r.AsOf) {
		r.AsOf = until
	}
}

// lost notes that a manifest is not there, or not what was written: there may be records that nobody knows of.
func (c *completeness) lost(err error) {
	c.problem("%v", err)
	c.blind = true
}

// link is where the last manifest left the chain.
type link struct {
	n, next uint64 // its number, and the next entry's
	payload chain.Hash
	head    chain.Hash // hash of the entry before that
	known   bool
}

// follow returns an error if m does not continue the manifest before it. Whether one is missing is another's to tell.
func (l *link) follow(m *chain.Manifest, data []byte) error {
	before := *l
	payload, err := chain.BundlePayloadHash(data)
	*l = link{m.N, m.NextSeq, payload, payload, err == nil}
	if m.Head != nil {
		l.head = *m.Head
	}
	if err != nil || !before.known || before.n+1 != m.N {
		return err
	}
	if m.PreviousManifest == nil || *m.PreviousManifest != before.payload || m.FirstSeq != before.next || m.PreviousHead == nil || *m.PreviousHead != before.head {
		return fmt.Errorf("manifest %d does not continue manifest %d", m.N, before.n)
	}
	return nil
}

// source returns the source of that id.
func (c *completeness) source(id string) *source {
	s := c.byID[id]
	if s == nil {
		s = newSource(id)
		c.byID[id] = s
	}
	return s
}

// enter puts a segment into the catalogue.
func (c *completeness) enter(ctx context.Context, m *manifest, parsed *chain.Manifest) {
	index := len(c.segments)
	ref := segmentRef{n: m.n, sum: chain.Sum(m.data), size: parsed.Segment.Size, entries: parsed.NextSeq - parsed.FirstSeq,
		first: math.MinInt64, last: math.MaxInt64, early: math.MaxInt64}
	if span := parsed.Received; span != nil {
		ref.first, ref.last = nanos(span.First.Time), nanos(span.Last.Time)
	}
	if span := parsed.EventTime; span != nil {
		ref.early = nanos(span.First.Time)
	}
	c.segments = append(c.segments, ref)
	c.report.Segments++
	listed := parsed.Sources
	if parsed.SourcesOmitted > 0 {
		var err error
		if listed, err = c.listSources(ctx, parsed); err != nil && ctx.Err() == nil {
			c.unlisted = append(c.unlisted, index)
		}
	}
	for _, listed := range listed {
		var runs []chain.Range
		for _, r := range listed.Ranges {
			if r[0] > r[1] || len(runs) > 0 && r[0] <= runs[len(runs)-1].Last {
				c.lost(fmt.Errorf("manifest %d: its numbers of source %q do not ascend", m.n, listed.ID))
				break
			}
			runs = append(runs, chain.Range{First: r[0], Last: r[1]})
		}
		c.source(listed.ID).add(index, runs)
	}
}

// isBefore reports whether all in a segment came before the period: no record is placed later than maxAhead after it was received.
func (c *completeness) isBefore(ref *segmentRef) bool { return ref.last < c.from-int64(maxAhead) }

// listSources reads which numbers of which sources are in a segment whose manifest does not say so.
func (c *completeness) listSources(ctx context.Context, m *chain.Manifest) ([]chain.Source, error) {
	r, _, err := c.log.open(ctx, c.log.Layout.Root()+m.Segment.Key, m.Segment.VersionID)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	found := make(map[string][]uint64)
	err = chain.VerifySegment(m, r, func(e *chain.Entry, _ []byte) error {
		if f := e.Facts(); f.SourceID != nil {
			found[string(f.SourceID)] = append(found[string(f.SourceID)], f.SourceSeq)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("it does not verify: %w", err)
	}
	var all []chain.Source
	for id, numbers := range found {
		slices.Sort(numbers)
		s := chain.Source{ID: id}
		for _, run := range runsOf(numbers) {
			s.Ranges = append(s.Ranges, [2]uint64{run.First, run.Last})
		}
		all = append(all, s)
	}
	return all, nil
}

// wanted returns which segments are to be read next; none if all is known that can be.
func (c *completeness) wanted() []int {
	want := make(map[int]bool)
	add := func(i int) {
		if !c.segments[i].read {
			want[i] = true
		}
	}
	for i := range c.segments {
		if ref := &c.segments[i]; !c.isBefore(ref) && (ref.first < c.to || ref.early < c.to) {
			add(i)
		}
	}
	if len(want) > 0 {
		return sorted(want)
	}
	for _, s := range c.sources {
		slices.SortFunc(s.points, func(a, b point) int { return cmp.Or(cmp.Compare(a.n, b.n), cmp.Compare(a.t, b.t)) })
		c.wantLate(s, add)
	}
	for _, s := range c.sources {
		if s.isEvents {
			continue
		}
		isRelevant := c.relevant(s)
		if s.events != nil && (isRelevant || c.isNear(s.events)) {
			c.wantWords(s, add)
		}
		if !isRelevant {
			continue
		}
		c.wantTimes(s, add)
		if s.events != nil {
			c.wantTimes(s.events, add)
		}
	}
	return sorted(want)
}

func sorted(set map[int]bool) []int {
	list := make([]int, 0, len(set))
	for i := range set {
		list = append(list, i)
	}
	slices.Sort(list)
	return list
}

// find has the segments wanted that may hold a number.
func (s *source) find(n uint64, add func(int)) {
	for _, h := range s.in {
		if h.first <= n && n <= h.last {
			add(h.segment)
		}
	}
}

// wantLate wants what came into the log after the period and may be of it: the first segment after it, which tells where the
// period's numbers end, and then those that have a number below.
func (c *completeness) wantLate(s *source, add func(int)) {
	for _, h := range s.in {
		ref := &c.segments[h.segment]
		if ref.read || c.isBefore(ref) || h.first >= s.after {
			continue
		}
		add(h.segment)
		if s.after == math.MaxUint64 {
			return
		}
	}
}

// wantTimes wants the times of the numbers beside gaps.
func (c *completeness) wantTimes(s *source, add func(int)) {
	for gap := range s.missingHere() {
		i := firstFrom(s.numbers, gap.First)
		var beside []uint64
		if i > 0 {
			beside = append(beside, s.numbers[i-1].Last)
		}
		if i < len(s.numbers) {
			beside = append(beside, s.numbers[i].First)
		}
		for _, n := range beside {
			if _, ok := s.edges[n]; !ok {
				s.find(n, add)
			}
		}
	}
}

// readAll reads segments, some at a time, and takes in what they say in the order of the log.
func (c *completeness) readAll(ctx context.Context, todo []int) {
	type result struct {
		seen []sighting
		err  error
	}
	for _, i := range todo {
		c.total += c.segments[i].size
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan chan result, 2*runtime.GOMAXPROCS(0))
	go func() {
		defer close(queue)
		for _, i := range todo {
			slot := make(chan result, 1)
			select {
			case queue <- slot:
			case <-ctx.Done():
				return
			}
			go func() {
				seen, err := c.read(ctx, &c.segments[i])
				slot <- result{seen, err}
			}()
		}
	}()
	next := 0
	for slot := range queue {
		r := <-slot
		ref := &c.segments[todo[next]]
		next++
		c.report.Read++
		if r.err != nil && ctx.Err() == nil {
			c.problem("segment of manifest %d: %v", ref.n, r.err)
			ref.failed = true
			c.unread = plus(c.unread, ref.entries)
		}
		c.take(r.seen)
		if c.done += ref.size; c.opts.Progress != nil {
			c.opts.Progress(c.done, c.total)
		}
	}
	for _, i := range todo {
		c.segments[i].read = true
	}
}

// open reads the manifest of a segment again, which must be the same, and opens the segment.
func (c *completeness) open(ctx context.Context, ref *segmentRef, visit func(m *chain.Manifest) bool, entry func(e *chain.Entry)) error {
	stored, err := c.log.manifest(ctx, ref.n)
	if err != nil {
		return err
	}
	if chain.Sum(stored.data) != ref.sum {
		return errors.New("its manifest is another than a moment ago")
	}
	m, err := chain.PeekManifest(stored.data) // its signature was checked then
	if err != nil {
		return err
	}
	if visit != nil && !visit(m) {
		return nil
	}
	r, _, err := c.log.open(ctx, c.log.Layout.Root()+m.Segment.Key, m.Segment.VersionID)
	if err != nil {
		return err
	}
	defer r.Close()
	err = chain.VerifySegment(m, r, func(e *chain.Entry, _ []byte) error {
		entry(e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("it does not verify: %w", err)
	}
	return nil
}
