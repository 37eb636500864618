package query

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// CompletenessOptions say of which period completeness is asked, and what is wanted of it.
type CompletenessOptions struct {
	From, To time.Time // the period: requests that arrived from From on and before To
	Now      time.Time
	Progress Progress // may be nil

	Min         Percent // of what was served that must have a record
	MinComplete Percent // of what was served that must have a complete record; 0: none
	By          string  // what Completeness.By is divided by: source, model, hour, or "" for nothing
	Counters    *CounterCheck
}

// Percent is a percentage in thousandths of a percent. It is never rounded up.
type Percent uint64

// All is 100 %.
const All Percent = 100_000

// ParsePercent reads a percentage of 0 to 100 with at most three decimals.
func ParsePercent(s string) (Percent, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseUint(whole+(fraction + "000")[:3], 10, 32)
	if err != nil || whole == "" || len(fraction) > 3 || strings.ContainsAny(s, "+_") || Percent(n) > All {
		return 0, fmt.Errorf("%q is not a percentage of 0 to 100 with at most three decimals", s)
	}
	return Percent(n), nil
}

// percent returns how much of whole part is; nil if whole is nothing.
func percent(part, whole uint64) *Percent {
	if whole == 0 {
		return nil
	}
	hi, lo := bits.Mul64(min(part, whole), uint64(All))
	quotient, _ := bits.Div64(hi, lo, whole)
	p := Percent(quotient)
	return &p
}

func (p Percent) String() string { return fmt.Sprintf("%d.%03d", p/1000, p%1000) }

// MarshalJSON writes p as a number with three decimals.
func (p Percent) MarshalJSON() ([]byte, error) { return []byte(p.String()), nil }

// Completeness says how many of the requests that the sources numbered in a period have a record. Its JSON is what
// `auditchain completeness --json` prints: members are added, never changed.
type Completeness struct {
	Chain      string     `json:"chain"`
	Bucket     string     `json:"bucket"`
	Key        chain.Hash `json:"key_fingerprint"` // that is trusted
	From       time.Time  `json:"from"`
	To         time.Time  `json:"to"`       // not included
	Verdict    string     `json:"verdict"`  // met, not-met or unknown
	Reasons    []string   `json:"reasons"`  // for any verdict but met
	Problems   []string   `json:"problems"` // what was needed and could not be read, or is not what was written
	Notes      []string   `json:"notes"`    // what this does not speak of, and what wants an explanation
	Manifests  uint64     `json:"manifests"`
	LastSealed time.Time  `json:"last_sealed"` // of the last manifest: what the log knows, it knows from before
	Segments   uint64     `json:"segments"`
	Read       uint64     `json:"segments_read"` // for times, models and source events; copies are compared by reading some again

	// Served is how many requests arrived in the period: Present and Missing, and at the most Possible more.
	Served          uint64            `json:"served"`
	ServedAtMost    uint64            `json:"served_at_most"`
	Present         uint64            `json:"present"`               // have a record, each counted once
	Missing         uint64            `json:"missing"`               // have none
	Possible        uint64            `json:"possible"`              // have none, and may have arrived in the period or beside it
	Percent         *Percent          `json:"percent"`               // present of served; null if nothing was served
	PercentAtLeast  *Percent          `json:"percent_at_least"`      // present of served_at_most
	Complete        uint64            `json:"complete"`              // present, with every audit field
	CompletePercent *Percent          `json:"complete_percent"`      // of served
	Lacking         map[string]uint64 `json:"lacking,omitempty"`     // present records by the audit field that they lack
	Open            uint64            `json:"open"`                  // had not ended at their source's last word: not counted as served
	Redelivered     uint64            `json:"redelivered"`           // further copies of present records and source events
	Unnumbered      uint64            `json:"unnumbered"`            // records without a source: nobody can tell how many of them are missing
	NoTimestamp     uint64            `json:"no_timestamp"`          // records taken by the time of their event
	Misplaced       uint64            `json:"misplaced"`             // source events under a source of requests, or the other way round
	Quarantined     uint64            `json:"quarantined"`           // entries received in the period whose bytes were no records
	EventsMissing   uint64            `json:"source_events_missing"` // gaps in the numbering of source events, at the most

	Conflicts []CopyConflict `json:"conflicts"`
	Gaps      []Gap          `json:"gaps"`
	Sources   []SourceReport `json:"sources"` // that served, spoke, or may have served in the period, by id
	By        []Share        `json:"by,omitempty"`
	Counters  *CounterReport `json:"counters,omitempty"`
}

// CopyConflict is a number of a source that two entries give to records of different content.
type CopyConflict struct {
	Source string  `json:"source"`
	Number uint64  `json:"number"`
	First  *uint64 `json:"first_entry"` // null: the writer had it, and marked the other one; the log does not have it, or it cannot be read
	Other  uint64  `json:"other_entry"`
}

// Gap is a run of numbers of a source that no record has.
type Gap struct {
	Source   string     `json:"source"`
	First    uint64     `json:"first"`
	Last     uint64     `json:"last"`
	Missing  uint64     `json:"missing"`  // of them, surely in the period
	Possible uint64     `json:"possible"` // of them, in the period or beside it
	After    *time.Time `json:"after"`    // they arrived at or after this time; null: not known
	Before   *time.Time `json:"before"`   // they arrived at or before this time; null: not known
	Known    string     `json:"known,omitempty"`
}

// SourceReport is what is known of one source.
type SourceReport struct {
	ID       string `json:"id"`
	State    string `json:"state"` // alive, stopped, died, silent, or numbers-only: it has no source events
	Present  uint64 `json:"present"`
	Missing  uint64 `json:"missing"`
	Possible uint64 `json:"possible"`
	Open     uint64 `json:"open"`
	Complete uint64 `json:"complete"`
	// Of its last word in the log:
	LastWord   *time.Time `json:"last_word"`
	Served     *uint64    `json:"served"` // in all its life until then
	Recorded   *uint64    `json:"recorded"`
	Lost       uint64     `json:"lost"` // that it could not write, as it says itself
	ReportedBy string     `json:"reported_by,omitempty"`

	NoStart       bool   `json:"no_start,omitempty"`    // its start is not in the log
	ClockBack     bool   `json:"clock_back,omitempty"`  // its times do not ascend with its numbers
	EventsMissing uint64 `json:"source_events_missing"` // at the most
}

// Share is the part of the period's requests that falls to one source, model or hour.
type Share struct {
	Name     string `json:"name"` // "" gathers what is not known, or more names than are kept apart
	Present  uint64 `json:"present"`
	Complete uint64 `json:"complete"`
	Missing  uint64 `json:"missing"`
	Possible uint64 `json:"possible"`
}

// What a source of requests is doing as of its last word.
const (
	StateAlive   = "alive"
	StateStopped = "stopped"
	StateDied    = "died"
	StateSilent  = "silent"
	StateNumbers = "numbers-only"
)

// The verdicts of a Completeness.
const (
	VerdictMet     = "met"
	VerdictNotMet  = "not-met"
	VerdictUnknown = "unknown"
)

// Completeness counts the requests of a period (docs/RECORDS.md, section 2). Which numbers exist is read off all manifests, those
// after the period too, since late records close gaps; segments are read where an event's time lies in the period, and
// where a neighbour's time, a source's last word or another copy is needed. What a segment says counts only if all of it verified.
// Memory grows with the number of sources, with the gaps of each, with how many sources each segment has, and with
// redelivered numbers in the period; not with the number of records.
//
// An event's time is taken to be no earlier than its record's timestamp.
func (l *Log) Completeness(ctx context.Context, opts CompletenessOptions) (*Completeness, error) {
	c := newCompleteness(l, opts)
	if err := c.catalogue(ctx); err != nil {
		return nil, err
	}
	for {
		todo := c.wanted()
		if len(todo) == 0 {
			break
		}
		c.readAll(ctx, todo)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if err := c.compareCopies(ctx); err != nil {
		return nil, err
	}
	c.conclude()
	return &c.report, nil
}

// conclude adds up, and gives the verdict.
func (c *completeness) conclude() {
	r := &c.report
	var silent, withoutEvents, withoutStart, back, lost uint64
	var unknownTime Share
	var hostOpen, hostMissing uint64
	for _, s := range c.sources {
		if s.isEvents || !c.relevant(s) {
			continue
		}
		gaps, open := c.gaps(s)
		sr := SourceReport{ID: s.id, State: c.state(s), Present: s.present, Complete: s.complete, Open: open, ClockBack: s.clockBack()}
		for _, g := range gaps {
			sr.Missing = plus(sr.Missing, g.Missing)
			sr.Possible = plus(sr.Possible, g.Possible)
			c.shareGap(g, &unknownTime)
		}
		r.Gaps = append(r.Gaps, gaps...)
		if e := s.events; e != nil {
			missed, _ := c.gaps(e)
			for _, g := range missed {
				sr.EventsMissing = plus(sr.EventsMissing, plus(g.Missing, g.Possible))
			}
			if first := e.numbers.Runs(); len(first) > 0 && first[0].First > 0 {
				sr.NoStart = true
				withoutStart++
			}
			if w := e.last; w != nil {
				sr.LastWord, sr.ReportedBy = &w.at, w.reportedBy
			}
			if w := e.said; w != nil {
				sr.Served, sr.Recorded, sr.Lost = w.served, w.recorded, w.lost
			}
		} else {
			withoutEvents++
		}
		if sr.State == StateSilent {
			silent++
		}
		if sr.ClockBack {
			back++
		}
		lost = plus(lost, sr.Lost)
		if c.tally != nil && (c.tally.Host == "" || c.tally.Host == hostOf(s.id)) {
			hostOpen, hostMissing = plus(hostOpen, open), plus(hostMissing, plus(sr.Missing, sr.Possible))
		}
		r.Present += sr.Present
		r.Complete += sr.Complete
		r.Missing = plus(r.Missing, sr.Missing)
		r.Possible = plus(r.Possible, sr.Possible)
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
	c.note(withoutEvents, "sources without source events: %d; they are judged by their numbers alone, and what they served after their last record is not known")
	c.note(withoutStart, "sources whose start is not in the log: %d")
	c.note(back, "sources whose times do not ascend with their numbers: %d; a clock was set back, and what lies about the period's ends counts as possible")
	c.note(lost, "records that their sources say they could not write, in all their lives: %d")
	c.note(r.Unnumbered, "records of the period without a source: %d; whether there were more cannot be told")
	c.note(r.NoTimestamp, "records without a timestamp that can be read: %d; the time of their event was taken")
	c.note(r.Misplaced, "records with source_event that have the number of a request, or the other way round: %d; they count as neither")
	c.note(r.Quarantined, "entries of the period whose bytes could not be read as records: %d; what seems to have no record may be in there")
	c.note(r.EventsMissing, "source events that are missing, at the most: %d; a lost heartbeat is no lost request")
	if c.tally != nil {
		r.Counters = c.tally.compare(hostOpen, hostMissing)
		if k := r.Counters; k.Engine != nil && *k.Engine > k.EngineRecords {
			c.note(*k.Engine-k.EngineRecords, "requests that the engine finished and that have no record: %d; several answers to one request, or requests that came by other ways than HTTP")
		}
	}
	c.judge(silent)
}

// note adds what is said of n things, if there are any.
func (c *completeness) note(n uint64, format string) {
	if n > 0 {
		c.report.Notes = append(c.report.Notes, fmt.Sprintf(format, n))
	}
}

// judge gives the verdict. A conflict is one whatever else could not be read; a number that is missing is not, where it may be
// in what could not be read.
func (c *completeness) judge(silent uint64) {
	r := &c.report
	var no, unknown []string
	below := func(what string, part uint64, least Percent) {
		switch best, worst := percent(part, r.Served), percent(part, r.ServedAtMost); {
		case worst == nil || *worst >= least:
		case best == nil || *best >= least:
			unknown = append(unknown, fmt.Sprintf("whether %s %% of what was served %s cannot be told: requests without record that arrived in the period or beside it: %d", least, what, r.Possible))
		default:
			no = append(no, fmt.Sprintf("only %s %% of what was served %s, not %s %%", *best, what, least))
		}
	}
	below("has a record", r.Present, c.opts.Min)
	if c.opts.MinComplete > 0 {
		below("has a complete record", r.Complete, c.opts.MinComplete)
	}
	if silent > 0 {
		no = append(no, fmt.Sprintf("sources that went silent: %d; what they served after their last word cannot be known", silent))
	}
	if k := r.Counters; k != nil {
		no = append(no, k.no()...)
		unknown = append(unknown, k.unknown()...)
	}
	if r.ServedAtMost == 0 && !c.spoken {
		unknown = append(unknown, "no source said anything in this period: is it the right one?")
	}
	if r.ServedAtMost == 0 && r.Unnumbered > 0 {
		unknown = append(unknown, "the records of the period have no source, and are not numbered")
	}
	r.Verdict = VerdictMet
	switch {
	case len(r.Conflicts) > 0:
		r.Verdict = VerdictNotMet
	case len(r.Problems) > 0:
		r.Verdict = VerdictUnknown
	case len(no) > 0:
		r.Verdict = VerdictNotMet
	case len(unknown) > 0:
		r.Verdict = VerdictUnknown
	}
	if n := len(r.Conflicts); n > 0 {
		r.Reasons = append(r.Reasons, fmt.Sprintf("conflicts: %d; two records of different content have the same source and number", n))
	}
	if len(r.Problems) > 0 {
		r.Reasons = append(r.Reasons, "not all that is needed could be read: records that seem to be missing may be in there")
	}
	r.Reasons = append(append(r.Reasons, no...), unknown...)
}

// plus adds numbers that may be as large as whoever made a record liked.
func plus(a, b uint64) uint64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxUint64
}

// Percent returns how much of what surely or perhaps falls to the share is recorded; nil if nothing does.
func (s *Share) Percent() *Percent {
	return percent(s.Present, plus(s.Present, plus(s.Missing, s.Possible)))
}
