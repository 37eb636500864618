package query

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// endings are the sources whose end is not known, by what that has to do with the period.
type endings struct {
	here, perhaps, before, never, late, beyond []string
}

// conclude adds up, and gives the verdict.
func (c *completeness) conclude() {
	r := &c.report
	var ends endings
	var withoutStart, back, lost, contradict, afterDeath uint64
	var unknownTime Share
	var host hostGaps
	for _, s := range c.sources {
		if s.isEvents || !c.relevant(s) {
			continue
		}
		gaps, open := c.gaps(s)
		sr := SourceReport{ID: s.id, State: c.state(s), Present: s.present, Complete: s.complete, Open: open, ClockBack: s.clockBack()}
		for _, g := range gaps {
			sr.Missing = plus(sr.Missing, g.Missing)
			sr.Possible = plus(sr.Possible, g.Possible)
			sr.OnTheWay = plus(sr.OnTheWay, g.OnTheWay)
			c.shareGap(g, &unknownTime)
			c.mayClose(&g)
		}
		r.Gaps = append(r.Gaps, gaps...)
		c.tellWords(s, &sr)
		switch c.ending(s) {
		case silentHere:
			ends.here = append(ends.here, s.id)
		case silentPerhaps:
			ends.perhaps = append(ends.perhaps, s.id)
		case silentBefore:
			ends.before = append(ends.before, s.id)
		case catchingUp:
			ends.late = append(ends.late, s.id)
		case neverSpoke:
			ends.never = append(ends.never, s.id)
		}
		if sr.State == StateEnded {
			r.Ended = append(r.Ended, s.id)
		}
		if e := s.events; e != nil && s.present > 0 && s.highest >= e.limit {
			if sr.Beyond = true; e.limitDied {
				afterDeath++
			} else {
				ends.beyond = append(ends.beyond, s.id)
			}
		}
		withoutStart += count(sr.NoStart)
		back += count(sr.ClockBack)
		contradict += count(sr.Contradicts)
		lost = plus(lost, sr.Lost)
		if c.tally != nil && (c.tally.Host == "" || c.tally.Host == hostOf(s.id)) {
			host.add(&sr)
		}
		r.Present += sr.Present
		r.Complete += sr.Complete
		r.Missing = plus(r.Missing, sr.Missing)
		r.Possible = plus(r.Possible, sr.Possible)
		r.OnTheWay = plus(r.OnTheWay, sr.OnTheWay)
		r.Open = plus(r.Open, sr.Open)
		r.EventsMissing = plus(r.EventsMissing, sr.EventsMissing)
		r.Sources = append(r.Sources, sr)
	}
	r.Served = plus(r.Present, r.Missing)
	r.ServedAtMost = plus(r.Served, r.Possible)
	r.Percent, r.PercentAtLeast = percent(r.Present, r.Served), percent(r.Present, r.ServedAtMost)
	r.CompletePercent = percent(r.Complete, r.Served)
	for f, n := range c.lacking {
		if n > 0 {
			if r.Lacking == nil {
				r.Lacking = make(map[string]uint64)
			}
			r.Lacking[chain.Field(f).String()] = n
		}
	}
	r.By = c.shareOut(unknownTime)
	c.note(uint64(len(ends.never)), "sources without source events: %d; they are judged by their numbers alone")
	c.note(withoutStart, "sources whose start is not in the log: %d")
	c.note(contradict, "sources that contradict themselves: %d; they said later that they had served less, of which the most is taken, or spoke after their end")
	c.note(afterDeath, "sources that have records of more than they had served when they were found dead: %d")
	c.note(back, "sources whose times do not ascend with their numbers: %d; a clock was set back, and what lies about the period's ends counts as possible")
	c.note(lost, "records that their sources say they could not write, in all their lives: %d")
	c.note(r.Unnumbered, "records of the period without a source, or with that of source events: %d; whether there were more cannot be told")
	c.note(r.NoTimestamp, "records whose timestamp is missing or cannot be: %d; the time at which they were received was taken")
	c.note(r.Misplaced, "records with source_event that have the number of a request, or the other way round: %d; none of them is a complete record")
	c.note(c.strange, "source events that are of another source than the one under whose id they came: %d; they are not believed")
	c.note(r.Quarantined, "entries of the period whose bytes could not be read as records: %d; what seems to have no record may be in there")
	c.note(r.EventsMissing, "source events that are missing, at the most: %d; a lost heartbeat is no lost request")
	if c.tally != nil {
		r.Counters = c.tally.compare(host)
		if k := r.Counters; k.Engine != nil && *k.Engine > k.EngineRecords {
			c.note(*k.Engine-k.EngineRecords, "requests that the engine finished and that have no record: %d; several answers to one request, or requests that came by other ways than HTTP")
		}
		if c.tally.Before.start == nil && c.tally.After.start == nil {
			r.Notes = append(r.Notes, "the counters are without process_start_time_seconds: that the server was started anew between the two readings cannot be excluded")
		}
	}
	c.judge(&ends)
}

func count(is bool) uint64 {
	if is {
		return 1
	}
	return 0
}

// tellWords puts into the report what a source says itself.
func (c *completeness) tellWords(s *source, sr *SourceReport) {
	e := s.events
	if e == nil || e.last == nil {
		return
	}
	missed, _ := c.gaps(e)
	for _, g := range missed {
		sr.EventsMissing = plus(sr.EventsMissing, plus(g.Missing, g.Possible))
	}
	sr.NoStart = e.numbers[0].First > 0
	w := s.lastWord()
	at, received := time.Unix(0, w.at).UTC(), time.Unix(0, w.received).UTC()
	sr.LastWord, sr.Received, sr.ReportedBy, sr.Recorded = &at, &received, w.reportedBy, w.recorded
	if e.most != nil {
		sr.Served = e.most.served
	}
	sr.Lost, sr.Contradicts = e.lost, e.contradicts || e.end != nil && e.last.number > e.end.number
}

// mayClose notes that records which seem to be missing may be in a segment that cannot be read, and of which nobody knows what it has.
func (c *completeness) mayClose(g *Gap) {
	since := int64(math.MinInt64)
	if g.After != nil {
		since = nanos(*g.After) - int64(maxAhead)
	}
	if !c.blind && c.isUnlistedSince(since) {
		c.lost(fmt.Errorf("segments that cannot be read, and whose manifests do not list their numbers: %d, the first of manifest %d", len(c.unlisted), c.segments[c.unlisted[0]].n))
	}
}

// note adds what is said of n things, if there are any.
func (c *completeness) note(n uint64, format string) {
	if n > 0 {
		c.report.Notes = append(c.report.Notes, fmt.Sprintf(format, n))
	}
}

// maxNamed is how many sources a reason names.
const maxNamed = 5

// named adds a reason that names sources, if there are any.
func named(reasons []string, ids []string, format string) []string {
	if len(ids) == 0 {
		return reasons
	}
	var list []string
	for _, id := range ids[:min(len(ids), maxNamed)] {
		list = append(list, fmt.Sprintf("%q", id))
	}
	if more := len(ids) - maxNamed; more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return append(reasons, fmt.Sprintf(format, len(ids), strings.Join(list, ", ")))
}

// judge gives the verdict: not met by what is certain, whatever else could not be read; else unknown by what is not; else met.
func (c *completeness) judge(ends *endings) {
	r := &c.report
	var no, unknown []string
	if n := len(r.Conflicts); n > 0 {
		no = append(no, fmt.Sprintf("conflicts: %d; two records of different content have the same source and number", n))
	}
	if len(r.Problems) > 0 {
		unknown = append(unknown, "not all that is needed could be read: records that seem to be missing may be in there")
	}
	below := func(what string, part uint64, least Percent) {
		// At the best, all that could not be read are such records.
		best, worst := percent(plus(part, c.unread), plus(r.Served, c.unread)), percent(part, r.ServedAtMost)
		switch {
		case worst == nil || *worst >= least:
		case !c.blind && best != nil && *best < least:
			no = append(no, fmt.Sprintf("only %s %% of what was served %s, not %s %%", *best, what, least))
		default:
			reason := fmt.Sprintf("whether %s %% of what was served %s cannot be told: requests without record that arrived in the period or beside it: %d", least, what, r.Possible-r.OnTheWay)
			if c.blind && r.Missing > 0 {
				reason += fmt.Sprintf("; requests whose records may be in what could not be read: %d", r.Missing)
			}
			if r.OnTheWay > 0 {
				reason += fmt.Sprintf("; requests whose records may be on the way: %d", r.OnTheWay)
			}
			unknown = append(unknown, reason)
		}
	}
	below("has a record", r.Present, c.opts.Min)
	if c.opts.MinComplete > 0 {
		below("has a complete record", r.Complete, c.opts.MinComplete)
	}
	no = named(no, ends.here, "sources that went silent: %d; what they served after their last word cannot be known: %s")
	no = named(no, ends.beyond, "sources that have records of more than they had served when they stopped: %d: %s")
	unknown = named(unknown, ends.perhaps, "sources that went silent, unless they spoke in what could not be read: %d: %s")
	unknown = named(unknown, ends.before, "sources that went silent before the period, neither stopped nor found dead: %d; whether they served anything in it cannot be known: %s")
	unknown = named(unknown, ends.late, "sources that the log has not heard until the period's end, so that what they served then may be on its way: %d: %s")
	unknown = named(unknown, ends.never, "sources without source events: %d; what they served after their last record cannot be known: %s")
	if end := min(c.to, nanos(c.opts.Now)); c.promised > 0 && nanos(r.LastSealed) < end-int64(min(c.promised, 1000*oneDay)) {
		unknown = append(unknown, fmt.Sprintf("the log ends at %s: it was cut off, or its writer was away, and what was served after that cannot be known", r.LastSealed.UTC().Format(time.RFC3339)))
	}
	if k := r.Counters; k != nil {
		if len(r.Problems) > 0 {
			unknown = append(unknown, k.no()...)
		} else {
			no = append(no, k.no()...)
		}
		unknown = append(unknown, k.unknown()...)
	}
	if r.ServedAtMost == 0 && !c.spoken {
		unknown = append(unknown, "no source said anything in this period: is it the right one?")
	}
	if r.ServedAtMost == 0 && r.Unnumbered > 0 {
		unknown = append(unknown, "the records of the period have no source, and are not numbered")
	}
	switch {
	case len(no) > 0:
		r.Verdict = VerdictNotMet
	case len(unknown) > 0:
		r.Verdict = VerdictUnknown
	default:
		r.Verdict = VerdictMet
	}
	r.Reasons = append(append(r.Reasons, no...), unknown...)
}
