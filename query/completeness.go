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

	Min         Percent  // of what was served that must have a record
	MinComplete Percent  // of what was served that must have a complete record; 0: none
	Ended       []string // patterns, * for any characters: sources that the asker knows to have ended with their last word
	By          string   // what Completeness.By is divided by: source, model, hour, or "" for nothing
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
	LastSealed time.Time  `json:"last_sealed"` // of the last manifest
	AsOf       time.Time  `json:"as_of"`       // until then the log has what was sent
	Segments   uint64     `json:"segments"`
	Read       uint64     `json:"segments_read"` // for times, models and source events; copies are compared by reading some again

	// Served is how many requests arrived in the period: Present and Missing, and at the most Possible more.
	Served          uint64            `json:"served"`
	ServedAtMost    uint64            `json:"served_at_most"`
	Present         uint64            `json:"present"`               // have a record, each counted once
	Missing         uint64            `json:"missing"`               // have none
	Possible        uint64            `json:"possible"`              // have none, and may have arrived in the period or beside it, or are on the way
	Percent         *Percent          `json:"percent"`               // present of served; null if nothing was served
	PercentAtLeast  *Percent          `json:"percent_at_least"`      // present of served_at_most
	Complete        uint64            `json:"complete"`              // present, with every audit field
	CompletePercent *Percent          `json:"complete_percent"`      // of served
	Lacking         map[string]uint64 `json:"lacking,omitempty"`     // present records by the audit field that they lack
	Open            uint64            `json:"open"`                  // had not ended at their source's last word: not counted as served
	OnTheWay        uint64            `json:"on_the_way"`            // of Possible: the log heard of them so late that their records may still come
	Redelivered     uint64            `json:"redelivered"`           // further copies of present records and source events
	Unnumbered      uint64            `json:"unnumbered"`            // records without a source, or with that of source events: nobody can tell how many of them are missing
	NoTimestamp     uint64            `json:"no_timestamp"`          // records taken by the time at which they were received, for want of a timestamp that can be
	Misplaced       uint64            `json:"misplaced"`             // source events under a source of requests, or the other way round
	Quarantined     uint64            `json:"quarantined"`           // entries received in the period whose bytes were no records
	EventsMissing   uint64            `json:"source_events_missing"` // gaps in the numbering of source events, at the most

	Conflicts []CopyConflict `json:"conflicts"`
	Gaps      []Gap          `json:"gaps"`
	Sources   []SourceReport `json:"sources"` // that served, spoke, or may have served in the period, by id
	Ended     []string       `json:"ended"`   // of them, those of which the asker said that they had ended
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
	Possible uint64     `json:"possible"` // of them, in the period or beside it, or on the way
	After    *time.Time `json:"after"`    // they arrived at or after this time; null: not known
	Before   *time.Time `json:"before"`   // they arrived at or before this time; null: not known
	Known    string     `json:"known,omitempty"`
	OnTheWay uint64     `json:"on_the_way,omitempty"` // of Possible
}

// SourceReport is what is known of one source.
type SourceReport struct {
	ID       string `json:"id"`
	State    string `json:"state"` // alive, stopped, died, silent, ended: it was silent, and the asker said so, or numbers-only: it has no source events
	Present  uint64 `json:"present"`
	Missing  uint64 `json:"missing"`
	Possible uint64 `json:"possible"`
	OnTheWay uint64 `json:"on_the_way"`
	Open     uint64 `json:"open"`
	Complete uint64 `json:"complete"`
	// What it says itself:
	LastWord   *time.Time `json:"last_word"`
	Received   *time.Time `json:"last_word_received"`
	Served     *uint64    `json:"served"`   // the most of all its words
	Recorded   *uint64    `json:"recorded"` // of its last word
	Lost       uint64     `json:"lost"`     // that it could not write
	ReportedBy string     `json:"reported_by,omitempty"`
	// Contradicts: it said that it had served less than before. Beyond: it has a record that it had not served when it ended.
	Contradicts bool `json:"contradicts_itself,omitempty"`
	Beyond      bool `json:"beyond_its_end,omitempty"`

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
	StateEnded   = "ended"
	StateNumbers = "numbers-only"
)

// The verdicts of a Completeness.
const (
	VerdictMet     = "met"
	VerdictNotMet  = "not-met"
	VerdictUnknown = "unknown"
)

// Completeness counts the requests of a period, as docs/RECORDS.md, section 6, says. Which numbers exist is read off all manifests, those
// after the period too, since late records close gaps; segments are read that were received in the period or have events of it, and
// where a neighbour's time, a source's last word or another copy is needed. What a segment says counts only if all of it verified.
// Memory grows with the number of sources, with the gaps of each, with how many sources each segment has, and with
// redelivered numbers; not with the number of records.
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
