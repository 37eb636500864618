package query

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
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

// sighting is what is taken of one entry.
type sighting struct {
	source      *source // nil: it has none
	number      uint64
	at          int64 // when its request arrived
	received    int64
	noTime      bool // it does not say when, or what cannot be
	isEvent     bool // it has source_event
	missing     chain.FieldSet
	redelivered bool
	share       string
	quarantine  bool
	word        *word // a source event of the source that its id says
	ended       ended
}

// read returns what a segment says, once all of it has verified.
func (c *completeness) read(ctx context.Context, ref *segmentRef) ([]sighting, error) {
	var all []sighting
	names := make(map[string]string) // one copy of each
	err := c.open(ctx, ref, nil, func(e *chain.Entry) {
		if e.Event != "" {
			if e.Event == chain.EventQuarantine {
				all = append(all, sighting{quarantine: true, at: nanos(e.Received)})
			}
			return
		}
		all = append(all, c.look(e, names))
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// look takes from a record what is needed.
func (c *completeness) look(e *chain.Entry, names map[string]string) sighting {
	f := e.Facts()
	s := sighting{number: f.SourceSeq, received: nanos(e.Received), isEvent: f.SourceEvent, missing: f.Missing, redelivered: f.Redelivered}
	if f.SourceID != nil {
		s.source = c.byID[string(f.SourceID)] // all are there: the manifests named them, or what they left out was read
	}
	var said bool
	s.at, said = arrival(e.Record, s.received)
	s.noTime = !said
	if s.isEvent {
		if s.source != nil && s.source.isEvents && text(chain.Member(e.Record, "of")) == strings.TrimSuffix(s.source.id, eventsSuffix) {
			s.word = readWord(e, f.SourceSeq, s.at)
		}
		return s
	}
	switch {
	case c.opts.By == "hour":
		s.share = hour(s.at)
	case c.opts.By == "source" && s.source != nil:
		s.share = s.source.id
	case c.opts.By == "model":
		for _, name := range []string{"model_id", "gen_ai.response.model", "gen_ai.request.model"} {
			if model := text(chain.Member(e.Record, name)); model != "" {
				if len(model) > maxName {
					model = model[:maxName]
				}
				if names[model] == "" {
					names[model] = strings.Clone(strings.ToValidUTF8(model, "\ufffd"))
				}
				s.share = names[model]
				break
			}
		}
	}
	if c.tally != nil && s.source != nil {
		s.ended = c.tally.look(e.Record, s.source.id, s.at, names)
	}
	return s
}

// hour is the name of the hour, UTC, that t lies in.
func hour(t int64) string {
	return time.Unix(0, t).UTC().Truncate(time.Hour).Format("2006-01-02T15:04Z")
}

// text returns the string that a JSON value is; "" if it is none.
func text(value []byte) string {
	if len(value) < 2 || value[0] != '"' {
		return ""
	}
	if plain := value[1 : len(value)-1]; bytes.IndexByte(plain, '\\') < 0 {
		return string(plain)
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}

// take takes in what a segment says.
func (c *completeness) take(seen []sighting) {
	numbered := make([]*sighting, 0, len(seen))
	for i := range seen {
		e := &seen[i]
		inPeriod := c.from <= e.at && e.at < c.to
		switch {
		case e.quarantine && inPeriod:
			c.report.Quarantined++
		case e.source == nil && inPeriod && !e.quarantine:
			c.report.Unnumbered++
		case e.source != nil:
			c.place(e)
			numbered = append(numbered, e)
		}
	}
	// One source after the other, ascending: however its numbers came, and however sparse they are, that takes no long time.
	slices.SortStableFunc(numbered, func(a, b *sighting) int {
		return cmp.Or(cmp.Compare(a.source.index, b.source.index), cmp.Compare(a.number, b.number))
	})
	for len(numbered) > 0 {
		s, n := numbered[0].source, 1
		for n < len(numbered) && numbered[n].source == s {
			n++
		}
		c.takeOf(s, numbered[:n])
		numbered = numbered[n:]
	}
}

// place takes in when a number was taken, and what a source event says.
func (c *completeness) place(e *sighting) {
	s := e.source
	s.place(plus(e.number, 1), e.number, e.at, c.from, c.to)
	s.note(e.number, e.at)
	if e.received <= c.settledAt() {
		s.settled = max(s.settled, plus(e.number, 1))
	}
	switch {
	case e.word != nil:
		c.hear(s, e.word)
	case s.isEvents && e.isEvent:
		c.strange++
	}
}

// takeOf counts what a segment has of one source, ascending by number, copies in the order of the log.
func (c *completeness) takeOf(s *source, all []*sighting) {
	var numbers, copies []uint64
	for i, e := range all {
		first := (i == 0 || all[i-1].number != e.number) && !contains(s.seen, e.number)
		if !first || e.redelivered || contains(s.again, e.number) {
			copies = append(copies, e.number)
		}
		if first {
			c.count(s, e)
		}
		numbers = append(numbers, e.number)
	}
	s.seen, s.copies = union(s.seen, runsOf(numbers)), union(s.copies, runsOf(copies))
}

// count counts a record that was not there before.
func (c *completeness) count(s *source, e *sighting) {
	if !s.isEvents && !e.isEvent {
		c.tally.add(s, e)
	}
	switch {
	case e.at < c.from || e.at >= c.to:
		return
	case s.isEvents && !e.isEvent:
		c.report.Misplaced++
		c.report.Unnumbered++
		return
	case s.isEvents:
		return
	}
	s.present++
	s.highest = max(s.highest, e.number)
	complete := e.missing == 0 && !e.isEvent
	switch {
	case e.isEvent:
		c.report.Misplaced++
	case e.noTime:
		c.report.NoTimestamp++
	}
	if complete {
		s.complete++
	}
	for f := range c.lacking {
		c.lacking[f] += uint64(e.missing >> f & 1)
	}
	if c.opts.By != "" {
		share := c.share(e.share)
		share.Present++
		if complete {
			share.Complete++
		}
	}
}

// share returns the part of that name, or the one that gathers the rest.
func (c *completeness) share(name string) *Share {
	share := c.shares[name]
	if share == nil {
		if len(c.shares) >= maxShares {
			name = ""
		}
		if share = c.shares[name]; share == nil {
			share = &Share{Name: name}
			c.shares[name] = share
		}
	}
	return share
}

// shareGap gives a gap to the part that it surely falls to.
func (c *completeness) shareGap(g Gap, unknown *Share) {
	share := unknown
	switch {
	case c.opts.By == "source":
		share = c.share(g.Source)
	case c.opts.By == "hour" && g.Missing > 0 && g.Possible == 0 && g.After != nil && g.Before != nil && hour(g.After.UnixNano()) == hour(g.Before.UnixNano()):
		share = c.share(hour(g.After.UnixNano()))
	}
	share.Missing = plus(share.Missing, g.Missing)
	share.Possible = plus(share.Possible, g.Possible)
}

// shareOut returns the parts by name; what falls to none of them is last.
func (c *completeness) shareOut(unknown Share) []Share {
	if c.opts.By == "" {
		return nil
	}
	rest := c.shares[""]
	delete(c.shares, "")
	if rest != nil {
		unknown.Present, unknown.Complete = rest.Present, rest.Complete
	}
	all := []Share{}
	for _, share := range c.shares {
		all = append(all, *share)
	}
	slices.SortFunc(all, func(a, b Share) int { return cmp.Compare(a.Name, b.Name) })
	if unknown != (Share{}) {
		all = append(all, unknown)
	}
	return all
}
