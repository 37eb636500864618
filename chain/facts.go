package chain

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Facts is what a manifest counts about one entry.
type Facts struct {
	Event     bool     // the entry is the writer's own, not a record
	Time      int64    // a record's event time, nanoseconds since 1970 UTC
	Missing   FieldSet // audit fields that the record lacks; none of a source event
	SourceID  []byte   // who made the record; nil if it does not say
	SourceSeq uint64   // the record's number at its source

	SourceEvent bool // the record is what its source says of itself, and of no inference: [IsSourceEvent]
	Redelivered bool // the writer had taken this number of this source before
	Conflict    bool // with another record
}

// Facts reads off an entry what a manifest counts. A field is there if its value is neither null nor the empty string.
// Fields are looked for among the record's own keys and in meta.otlp.attributes, where Fluent Bit's OpenTelemetry
// input puts a log record's attributes.
func (e *Entry) Facts() Facts {
	if e.Event != "" {
		return Facts{Event: true}
	}
	f := Facts{Time: e.Time.UnixNano(), Missing: AllFields, Redelivered: e.Redelivered, Conflict: e.Conflict}
	note := func(key, value []byte) {
		if set := FieldNamed(key); set != 0 && string(value) != "null" && string(value) != `""` {
			f.Missing &^= set
		}
	}
	// ParseEntry has seen that these objects are well formed.
	_ = members(e.Record, func(key, value []byte) bool {
		note(key, value)
		if string(key) == "source" {
			f.SourceID, f.SourceSeq = source(value)
		}
		if string(key) == SourceEventKey {
			f.SourceEvent = IsSourceEvent(value)
		}
		return true
	})
	if e.Meta != nil {
		if attributes := Member(Member(e.Meta, "otlp"), "attributes"); attributes != nil {
			_ = members(attributes, func(key, value []byte) bool {
				note(key, value)
				return true
			})
		}
	}
	if f.SourceEvent = f.SourceEvent && f.SourceID != nil; f.SourceEvent {
		f.Missing = 0
	}
	return f
}

// SourceEventKey is the member of a record that makes it a source event: a record with a source and, in this member, a string
// that is not empty. Without a source it would be nobody's, and is a record like any other.
const SourceEventKey = "source_event"

// IsSourceEvent reports whether value, as raw JSON, of the member [SourceEventKey] makes a record a source event.
func IsSourceEvent(value []byte) bool { return len(value) > 2 && value[0] == '"' }

// Bounds on what a manifest says of sources, so that no input can make one too large to write.
const (
	MaxSourceID     = 256    // bytes; a longer id is none
	maxSourceRanges = 20_000 // in one manifest, all sources together
)

// source reads {"id":"...","seq":n}. A source whose id is missing, empty or too long, or whose seq is not a non-negative
// integer, is none.
func source(obj []byte) ([]byte, uint64) {
	rawID, rawSeq := Member(obj, "id"), Member(obj, "seq")
	if len(rawID) < 2 || rawID[0] != '"' {
		return nil, 0
	}
	seq, err := strconv.ParseUint(string(rawSeq), 10, 64)
	if err != nil {
		return nil, 0
	}
	id := rawID[1 : len(rawID)-1]
	if bytes.IndexByte(id, '\\') >= 0 {
		var s string
		if err := json.Unmarshal(rawID, &s); err != nil {
			return nil, 0
		}
		id = []byte(s)
	}
	if len(id) == 0 || len(id) > MaxSourceID {
		return nil, 0
	}
	return id, seq
}

// Counts is what a manifest says about the entries of its segment.
type Counts struct {
	Entries    uint64 `json:"entries"`    // records + events
	Records    uint64 `json:"records"`    // complete + incomplete + source events
	Events     uint64 `json:"events"`     // entries of the writer itself, quarantined bytes among them
	Complete   uint64 `json:"complete"`   // records with every audit field
	Incomplete uint64 `json:"incomplete"` // records that lack one or more
	// SourceEvents counts records that are what a source says of itself: of them no audit field is asked.
	SourceEvents uint64            `json:"source_events,omitempty"`
	Missing      map[string]uint64 `json:"missing,omitempty"`
	// Redelivered counts records that are marked as redelivered, Conflicts those of them that are marked as conflicts.
	Redelivered uint64 `json:"redelivered,omitempty"`
	Conflicts   uint64 `json:"conflicts,omitempty"`
}

// Summary adds up the facts of a run of entries. The zero value is empty and ready.
type Summary struct {
	Entries, Events, Incomplete, SourceEvents, Redelivered, Conflicts uint64

	Missing                     [FieldCount]uint64
	MinTime, MaxTime            int64 // event times of the records, if there are any
	FirstReceived, LastReceived time.Time
	Sources                     map[string]*Ranges

	runs int  // of all sources together
	many bool // runs went beyond maxSourceRanges: only the ids are kept
}

// Add counts one entry.
func (s *Summary) Add(f Facts) {
	s.Entries++
	if f.Event {
		s.Events++
		return
	}
	if f.Redelivered {
		s.Redelivered++
	}
	if f.Conflict {
		s.Conflicts++
	}
	if f.SourceEvent {
		s.SourceEvents++
	}
	if s.Entries-s.Events == 1 || f.Time < s.MinTime {
		s.MinTime = f.Time
	}
	if s.Entries-s.Events == 1 || f.Time > s.MaxTime {
		s.MaxTime = f.Time
	}
	if f.Missing != 0 {
		s.Incomplete++
		for i := range s.Missing {
			s.Missing[i] += uint64(f.Missing >> i & 1)
		}
	}
	if f.SourceID == nil {
		return
	}
	ranges := s.Sources[string(f.SourceID)] // does not allocate
	if ranges == nil {
		if s.Sources == nil {
			s.Sources = make(map[string]*Ranges)
		}
		ranges = new(Ranges)
		s.Sources[string(f.SourceID)] = ranges
	}
	if s.many {
		return
	}
	before := len(ranges.runs)
	ranges.Add(f.SourceSeq)
	if s.runs += len(ranges.runs) - before; s.runs > maxSourceRanges {
		s.many = true
		for _, r := range s.Sources {
			r.runs = nil
		}
	}
}

// Receive widens the span of the times at which the entries were received.
func (s *Summary) Receive(t time.Time) {
	if s.FirstReceived.IsZero() || t.Before(s.FirstReceived) {
		s.FirstReceived = t
	}
	if s.LastReceived.IsZero() || t.After(s.LastReceived) {
		s.LastReceived = t
	}
}

// Counts returns the summary as a manifest says it.
func (s *Summary) Counts() Counts {
	c := Counts{
		Entries:      s.Entries,
		Records:      s.Entries - s.Events,
		Events:       s.Events,
		Complete:     s.Entries - s.Events - s.Incomplete - s.SourceEvents,
		Incomplete:   s.Incomplete,
		SourceEvents: s.SourceEvents,
		Redelivered:  s.Redelivered,
		Conflicts:    s.Conflicts,
	}
	for i, n := range s.Missing {
		if n > 0 {
			if c.Missing == nil {
				c.Missing = make(map[string]uint64)
			}
			c.Missing[Field(i).String()] = n
		}
	}
	return c
}

// SourceRanges returns what the summary knows of sources as a manifest says it, ascending by id. Where that would be
// more than a manifest may say, it returns none, and how many sources there were.
func (s *Summary) SourceRanges() (all []Source, omitted uint64) {
	if s.many {
		return nil, uint64(len(s.Sources))
	}
	for _, id := range slices.Sorted(maps.Keys(s.Sources)) {
		source := Source{ID: id}
		for _, run := range s.Sources[id].Runs() {
			source.Ranges = append(source.Ranges, [2]uint64{run.First, run.Last})
		}
		all = append(all, source)
	}
	return all, 0
}

// EventTimes returns the span of the records' own times; nil if there are no records.
func (s *Summary) EventTimes() *Span {
	if s.Entries == s.Events {
		return nil
	}
	return &Span{Time{time.Unix(0, s.MinTime).UTC()}, Time{time.Unix(0, s.MaxTime).UTC()}}
}

// ReceivedTimes returns the span of the times at which entries were received; nil if there are none.
func (s *Summary) ReceivedTimes() *Span {
	if s.FirstReceived.IsZero() {
		return nil
	}
	return &Span{Time{s.FirstReceived}, Time{s.LastReceived}}
}

// Add adds other's counts to c.
func (c *Counts) Add(other *Counts) {
	c.Entries += other.Entries
	c.Records += other.Records
	c.Events += other.Events
	c.Complete += other.Complete
	c.Incomplete += other.Incomplete
	c.SourceEvents += other.SourceEvents
	c.Redelivered += other.Redelivered
	c.Conflicts += other.Conflicts
	for name, n := range other.Missing {
		if c.Missing == nil {
			c.Missing = make(map[string]uint64)
		}
		c.Missing[name] += n
	}
}
