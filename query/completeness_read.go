package query

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

	segments []segmentRef
	byID     map[string]*source
	sources  []*source // by id, once the catalogue is made

	lacking [chain.FieldCount]uint64
	shares  map[string]*Share
	spoken  bool // some source said something in the period
	tally   *tally

	done, total int64 // bytes, for the progress
}

// segmentRef is where a segment is found again, and what decides whether it is read.
type segmentRef struct {
	n           uint64     // of its manifest
	sum         chain.Hash // of its manifest as it is stored, whose signature was good
	size        int64
	first, last int64 // times of its events
	records     bool  // it has some
	events      bool  // it has entries of the writer itself that were received in the period
	read        bool
}

// Bounds, whatever producers and those who may write to the bucket do.
const (
	maxProblems = 1000
	maxShares   = 10_000 // names that are kept apart
	maxName     = 256    // bytes of a name
)

// lead is how long before the period a source may have spoken its last word for its silence to count, and a request may have
// begun that is looked for among those that ended in the period.
const lead = time.Hour

func newCompleteness(l *Log, opts CompletenessOptions) *completeness {
	c := &completeness{log: l, opts: opts, from: opts.From.UnixNano(), to: opts.To.UnixNano(),
		byID: make(map[string]*source), shares: make(map[string]*Share)}
	c.report = Completeness{Chain: l.Layout.Chain, Bucket: l.Bucket.String(), Key: l.Key.Fingerprint(), From: opts.From, To: opts.To,
		Reasons: []string{}, Problems: []string{}, Notes: []string{}, Conflicts: []CopyConflict{}, Gaps: []Gap{}, Sources: []SourceReport{}}
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
	for m, err := range c.log.manifests(ctx, 0, nil) {
		if err != nil {
			return err
		}
		c.report.Manifests++
		if err := keys.missing(m); err != nil {
			c.problem("%v", err)
		}
		parsed, err := keys.open(m)
		if err != nil {
			c.problem("%v", err)
			continue
		}
		if parsed.SealedAt.After(c.report.LastSealed) {
			c.report.LastSealed = parsed.SealedAt.Time
		}
		if parsed.Segment == nil {
			continue
		}
		c.enter(ctx, m, parsed)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.report.Manifests == 0 {
		return fmt.Errorf("%w: %q in %s", ErrNoChain, c.log.Layout.Chain, c.log.Bucket)
	}
	for id, s := range c.byID {
		if base, ok := strings.CutSuffix(id, eventsSuffix); ok {
			c.source(base).events = s
		}
	}
	for _, s := range c.byID {
		c.sources = append(c.sources, s)
	}
	slices.SortFunc(c.sources, func(a, b *source) int { return cmp.Compare(a.id, b.id) })
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
	ref := segmentRef{n: m.n, sum: chain.Sum(m.data), size: parsed.Segment.Size}
	if span := parsed.EventTime; span != nil {
		ref.first, ref.last, ref.records = span.First.UnixNano(), span.Last.UnixNano(), true
	}
	if span := parsed.Received; span != nil && parsed.Counts.Events > 0 {
		ref.events = span.First.Before(c.opts.To) && !span.Last.Before(c.opts.From)
	}
	c.segments = append(c.segments, ref)
	c.report.Segments++
	listed := parsed.Sources
	if parsed.SourcesOmitted > 0 {
		var err error
		if listed, err = c.listSources(ctx, parsed); err != nil {
			c.problem("segment of entries %d to %d: %v", parsed.FirstSeq, parsed.NextSeq-1, err)
		}
	}
	for _, listed := range listed {
		s := c.source(listed.ID)
		var runs []chain.Range
		for _, r := range listed.Ranges {
			if r[0] > r[1] || len(runs) > 0 && r[0] <= runs[len(runs)-1].Last {
				c.problem("manifest %d: its numbers of source %q do not ascend", m.n, listed.ID)
				break
			}
			runs = append(runs, chain.Range{First: r[0], Last: r[1]})
		}
		s.add(index, runs)
		if c.isBefore(&ref) && len(runs) > 0 {
			last := runs[len(runs)-1].Last
			s.place(plus(last, 1), last, ref.last, c.from, c.to)
		}
	}
}

// isBefore reports whether all in a segment came so long before the period that it need not be read.
func (c *completeness) isBefore(ref *segmentRef) bool {
	return ref.records && ref.last < c.from-int64(lead)
}

// listSources reads which numbers of which sources are in a segment whose manifest does not say so.
func (c *completeness) listSources(ctx context.Context, m *chain.Manifest) ([]chain.Source, error) {
	r, _, err := c.log.open(ctx, c.log.Layout.Root()+m.Segment.Key, m.Segment.VersionID)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	found := make(map[string]*chain.Ranges)
	err = chain.VerifySegment(m, r, func(e *chain.Entry, _ []byte) error {
		f := e.Facts()
		if f.SourceID == nil {
			return nil
		}
		ranges := found[string(f.SourceID)]
		if ranges == nil {
			ranges = new(chain.Ranges)
			found[string(f.SourceID)] = ranges
		}
		ranges.Add(f.SourceSeq)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("it does not verify: %w", err)
	}
	var all []chain.Source
	for id, ranges := range found {
		s := chain.Source{ID: id}
		for _, run := range ranges.Runs() {
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
		if ref := &c.segments[i]; ref.events || ref.records && !c.isBefore(ref) && ref.first < c.to {
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
		if s.isEvents || !c.relevant(s) {
			continue
		}
		c.wantTimes(s, add)
		if s.events == nil {
			continue
		}
		c.wantTimes(s.events, add)
		runs := s.events.numbers.Runs()
		if len(runs) == 0 {
			continue
		}
		if last := runs[len(runs)-1].Last; s.events.last == nil || s.events.lastN < last {
			s.events.find(last, add)
		} else if s.events.last.served == nil && last > 0 {
			s.events.find(last-1, add)
		} else if c.state(s) == StateSilent && s.events.heartbeat == 0 {
			s.events.find(0, add) // it says there how often it speaks
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
		if s.after == ^uint64(0) {
			return
		}
	}
}

// wantTimes wants the times of the numbers beside gaps.
func (c *completeness) wantTimes(s *source, add func(int)) {
	runs := s.numbers.Runs()
	for gap := range s.missingHere() {
		i := firstFrom(runs, gap.First)
		var beside []uint64
		if i > 0 {
			beside = append(beside, runs[i-1].Last)
		}
		if i < len(runs) {
			beside = append(beside, runs[i].First)
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
		}
		for i := range r.seen {
			c.take(&r.seen[i])
		}
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
	at          int64
	noTime      bool
	missing     chain.FieldSet
	redelivered bool
	share       string
	quarantine  bool
	word        *word // a source event
	ended       ended
}

// read returns what a segment says, once all of it has verified.
func (c *completeness) read(ctx context.Context, ref *segmentRef) ([]sighting, error) {
	var all []sighting
	names := make(map[string]string) // one copy of each
	err := c.open(ctx, ref, nil, func(e *chain.Entry) {
		if e.Event != "" {
			if e.Event == chain.EventQuarantine {
				all = append(all, sighting{quarantine: true, at: e.Received.UnixNano()})
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
	s := sighting{number: f.SourceSeq, at: f.Time, missing: f.Missing, redelivered: f.Redelivered}
	if f.SourceID != nil {
		s.source = c.byID[string(f.SourceID)] // all are there: the manifests named them, or what they left out was read
	}
	if at, err := time.Parse(time.RFC3339Nano, text(chain.Member(e.Record, "timestamp"))); err == nil {
		s.at = at.UnixNano()
	} else {
		s.noTime = true
	}
	if f.SourceEvent {
		s.word = readWord(e.Record, time.Unix(0, s.at).UTC())
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

const (
	maxOpen      = 1000           // open requests that one source event may name
	maxHeartbeat = 31 * 24 * 3600 // seconds
)

// readWord reads a source event. What cannot be read of it is left out.
func readWord(record []byte, at time.Time) *word {
	w := &word{name: text(chain.Member(record, chain.SourceEventKey)), at: at, reportedBy: text(chain.Member(record, "reported_by"))}
	number := func(name string) *uint64 {
		var n uint64
		if value := chain.Member(record, name); value == nil || json.Unmarshal(value, &n) != nil || n > maxServed {
			return nil
		}
		return &n
	}
	w.served, w.recorded = number("served"), number("recorded")
	if lost := number("lost"); lost != nil {
		w.lost = *lost
	}
	var open []uint64
	if value := chain.Member(record, "open"); value != nil && json.Unmarshal(value, &open) == nil {
		slices.Sort(open)
		w.open = open[:min(len(open), maxOpen)]
	}
	var seconds float64
	if value := chain.Member(record, "heartbeat_s"); value != nil && json.Unmarshal(value, &seconds) == nil && seconds > 0 && seconds <= maxHeartbeat {
		w.interval = time.Duration(seconds * float64(time.Second))
	}
	return w
}

// take takes in what was seen of one entry.
func (c *completeness) take(e *sighting) {
	inPeriod := c.from <= e.at && e.at < c.to
	s := e.source
	switch {
	case e.quarantine:
		if inPeriod {
			c.report.Quarantined++
		}
		return
	case s == nil:
		if inPeriod {
			c.report.Unnumbered++
		}
		return
	}
	s.place(plus(e.number, 1), e.number, e.at, c.from, c.to)
	s.note(e.number, e.at)
	if s.isEvents && e.word != nil {
		c.hear(s, e)
	}
	if !s.isEvents && e.word == nil {
		c.tally.add(s, e)
	}
	if !inPeriod {
		return
	}
	first := s.inPeriod.Add(e.number)
	if !first || e.redelivered || contains(&s.again, e.number) {
		s.copies.Add(e.number)
	}
	switch {
	case !first:
	case s.isEvents != (e.word != nil):
		c.report.Misplaced++
	case !s.isEvents:
		s.present++
		if e.noTime {
			c.report.NoTimestamp++
		}
		if e.missing == 0 {
			s.complete++
		}
		for f := range c.lacking {
			c.lacking[f] += uint64(e.missing >> f & 1)
		}
		if c.opts.By != "" {
			share := c.share(e.share)
			share.Present++
			if e.missing == 0 {
				share.Complete++
			}
		}
	}
}

// hear takes in a source event.
func (c *completeness) hear(s *source, e *sighting) {
	w := e.word
	base := c.byID[strings.TrimSuffix(s.id, eventsSuffix)]
	if w.served != nil {
		base.place(*w.served, *w.served, e.at, c.from, c.to)
		base.hear(*w.served, e.at)
		if s.said == nil || e.number > s.saidN || e.number == s.saidN && *w.served > *s.said.served {
			s.said, s.saidN = w, e.number
		}
	}
	if w.interval > 0 {
		s.heartbeat = w.interval
	}
	if s.last == nil || e.number >= s.lastN {
		s.last, s.lastN = w, e.number
	}
	if e.at >= c.from-int64(lead) && e.at < c.to {
		s.spoke = true
		c.spoken = c.spoken || e.at >= c.from
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
