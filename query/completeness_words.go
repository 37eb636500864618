package query

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// word is what a source event says.
type word struct {
	name       string
	number     uint64 // among its source's events
	at         int64  // as it says, if that can be
	received   int64  // by the log
	entry      uint64
	served     *uint64
	recorded   *uint64
	lost       uint64
	open       []uint64 // ascending
	reportedBy string
	interval   time.Duration // between heartbeats; 0: it does not say
}

const (
	maxServed    = 1 << 53   // requests that a source is believed to have served
	maxOpen      = 1000      // open requests that one source event may name
	maxOpenInAll = 1 << 16   // requests that a source is believed to have open
	maxHeartbeat = 24 * 3600 // seconds
)

// What is believed of times.
const (
	maxAhead         = 10 * time.Minute // that a source's clock is ahead of the writer's
	defaultHeartbeat = time.Minute      // how often a source speaks that does not say how often
	leastSilence     = 2 * time.Minute  // that is one
	catchUp          = 5 * time.Minute  // that later records may be in the log before earlier ones
	longestRequest   = oneDay
	lookBack         = 7 * oneDay // before the period, for sources that went silent
)

// earliest is the time before which no timestamp is believed.
var earliest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// nanos returns t in nanoseconds since 1970, of the years 1970 to 2261: what is before or after is taken for their begin or end.
func nanos(t time.Time) int64 {
	switch {
	case t.Unix() < 0:
		return 0
	case t.Unix() >= 9_214_646_400: // 2262
		return 9_214_646_400 * int64(time.Second)
	}
	return t.UnixNano()
}

// arrival returns when a record's request arrived: its timestamp, or the time at which it was received where that cannot be believed.
func arrival(record []byte, received int64) (at int64, said bool) {
	t, err := time.Parse(time.RFC3339Nano, text(chain.Member(record, "timestamp")))
	if err != nil || t.Before(earliest) || t.After(time.Unix(0, received).Add(maxAhead)) {
		return received, false
	}
	return t.UnixNano(), true
}

// readWord reads a source event. What cannot be read of it is left out. Nothing of the entry stays in use.
func readWord(e *chain.Entry, n uint64, at int64) *word {
	w := &word{name: short(chain.Member(e.Record, chain.SourceEventKey)), number: n, at: at, received: nanos(e.Received), entry: e.Seq,
		reportedBy: short(chain.Member(e.Record, "reported_by"))}
	number := func(name string) *uint64 {
		n, err := strconv.ParseUint(string(chain.Member(e.Record, name)), 10, 64)
		if err != nil || n > maxServed {
			return nil
		}
		return &n
	}
	w.served, w.recorded = number("served"), number("recorded")
	if lost := number("lost"); lost != nil {
		w.lost = *lost
	}
	w.open = readOpen(chain.Member(e.Record, "open"))
	var seconds float64
	if value := chain.Member(e.Record, "heartbeat_s"); value != nil && json.Unmarshal(value, &seconds) == nil && seconds > 0 {
		w.interval = time.Duration(min(seconds, maxHeartbeat) * float64(time.Second))
	}
	return w
}

// short returns at most maxName bytes of the string that a JSON value is.
func short(value []byte) string {
	s := text(value)
	if len(s) > maxName {
		s = s[:maxName]
	}
	return strings.Clone(strings.ToValidUTF8(s, "\ufffd"))
}

// readOpen reads no more of a JSON array of numbers than one source event may name; ascending.
func readOpen(value []byte) []uint64 {
	rest, ok := bytes.CutPrefix(value, []byte{'['})
	if !ok {
		return nil
	}
	var open []uint64
	for len(open) < maxOpen {
		end := bytes.IndexAny(rest, ",]")
		if end < 0 {
			break
		}
		n, err := strconv.ParseUint(string(bytes.TrimSpace(rest[:end])), 10, 64)
		if err != nil {
			break
		}
		open = append(open, n)
		if rest[end] == ']' {
			break
		}
		rest = rest[end+1:]
	}
	slices.Sort(open)
	return slices.Clip(slices.Compact(open))
}

// later reports whether the log received w after other, which may be nil.
func (w *word) later(other *word) bool {
	return other == nil || w.received > other.received || w.received == other.received && w.entry > other.entry
}

// isEnd reports whether nothing comes after w.
func (w *word) isEnd() bool { return w.name == "stop" || w.name == "died" }

// hear takes in what a source event says.
func (c *completeness) hear(s *source, w *word) {
	if w.served != nil {
		base := c.byID[strings.TrimSuffix(s.id, eventsSuffix)]
		base.place(*w.served, *w.served, w.at, c.from, c.to)
		base.hear(*w.served, w.at)
		if w.received <= c.settledAt() {
			base.settled = max(base.settled, *w.served)
		}
		s.hearServed(w)
	}
	s.lost = max(s.lost, w.lost)
	if w.interval > 0 && (s.paced == nil || w.later(s.paced)) {
		s.paced = w
	}
	if w.later(s.last) {
		s.last = w
	}
	if w.isEnd() && (s.end == nil || w.number > s.end.number) {
		s.end = w
	}
	if w.at >= c.from && w.at < c.to {
		s.spoke = true
		c.spoken = true
	}
}

// hearServed keeps the most that a source said it had served: it can only grow.
func (s *source) hearServed(w *word) {
	n := *w.served
	if most := s.most; most != nil && (w.number > most.number && n < *most.served || w.number < most.number && n > *most.served) {
		s.contradicts = true
	}
	if s.most == nil || n > *s.most.served {
		s.most = w
	}
	if w.isEnd() {
		s.limit, s.limitDied = min(s.limit, n), w.name == "died" && (s.limit == math.MaxUint64 || s.limitDied)
	}
}

// lastWord returns the word that tells what became of a source: the one that the log received last, or the end that came before it
// in the source's own order, and was overtaken. Nil: it said nothing that could be read.
func (s *source) lastWord() *word {
	e := s.events
	switch {
	case e == nil:
		return nil
	case e.end != nil && e.last.number < e.end.number:
		return e.end
	}
	return e.last
}

// state says what a source of requests is doing as of its last word.
func (c *completeness) state(s *source) string {
	w := s.lastWord()
	switch {
	case w != nil && w.name == "stop":
		return StateStopped
	case w != nil && w.name == "died":
		return StateDied
	case w != nil && c.asOf-w.received <= int64(s.patience()):
		return StateAlive
	case slices.ContainsFunc(c.opts.Ended, func(pattern string) bool { return matches(pattern, s.id) }):
		return StateEnded
	case w != nil:
		return StateSilent
	}
	return StateNumbers
}

// patience is how long after its last word a source counts as alive.
func (s *source) patience() time.Duration {
	every := defaultHeartbeat
	if s.events.paced != nil {
		every = s.events.paced.interval
	}
	return max(3*every, leastSilence)
}

// What the end of a source that nobody knows has to do with the period.
const (
	endKnown      = iota // or it came after the period
	silentBefore         // it went silent before the period, not long before
	silentHere           // it went silent in the period, or right before it
	neverSpoke           // it has no source events, and nothing of it is known from after the period
	catchingUp           // it lives, as far as the log has come, which is not to the period's end
	silentPerhaps        // it went silent in the period or before it, but what it said after that may be in what could not be read
)

// ending says whether a source may have served in the period what it never told.
func (c *completeness) ending(s *source) int {
	isHere := func(t int64) bool { return t >= c.from-int64(s.patience()) && t < c.to }
	switch c.state(s) {
	case StateNumbers:
		if s.after == math.MaxUint64 && (s.present > 0 || c.isNear(s)) {
			return neverSpoke
		}
	case StateAlive:
		if s.events.last.at < min(c.to, nanos(c.opts.Now))-int64(maxAhead) {
			return catchingUp
		}
	case StateSilent:
		w := s.events.last
		switch {
		case w.received >= c.to && w.at >= c.to:
		case c.mayHaveSpoken(s.events, w.received):
			return silentPerhaps
		case isHere(w.received) || isHere(w.at) || s.present > 0:
			return silentHere
		default:
			return silentBefore
		}
	}
	return endKnown
}

// isNear reports whether something of s was received before the period's end, and something in it or not long before it, or later.
func (c *completeness) isNear(s *source) bool {
	return len(s.in) > 0 && s.firstReceived < c.to && s.lastReceived >= c.from-int64(lookBack)
}

// mayHaveSpoken reports whether something that s said after a time may be in what could not be read.
func (c *completeness) mayHaveSpoken(s *source, after int64) bool {
	return c.blind || c.isUnlistedSince(after) || slices.ContainsFunc(s.in, func(h holding) bool {
		ref := &c.segments[h.segment]
		return ref.failed && ref.last >= after
	})
}

// isUnlistedSince reports whether there is something that the log received at a time or later, and of which nobody knows what it is.
func (c *completeness) isUnlistedSince(t int64) bool {
	return slices.ContainsFunc(c.unlisted, func(i int) bool { return c.segments[i].last >= t })
}

// settledAt is the time until which records that were received are taken to have none before them that are still on their way.
func (c *completeness) settledAt() int64 { return c.asOf - int64(catchUp) }

// wantWords wants the segments that hold the last words of a source: the one that was received last, the one with the highest number,
// which may have been overtaken, and, if it seems silent, the first one, which says how often it speaks.
func (c *completeness) wantWords(s *source, add func(int)) {
	e := s.events
	for i := len(e.in) - 1; i >= 0; i-- {
		ref := &c.segments[e.in[i].segment]
		if ref.read || ref.last < c.from-int64(lookBack) || e.last != nil && ref.last < e.last.received {
			continue
		}
		add(e.in[i].segment)
		return
	}
	if e.last == nil || s.lastWord().isEnd() {
		return
	}
	if highest := e.numbers[len(e.numbers)-1].Last; highest > e.last.number {
		e.find(highest, add)
	}
	if e.paced == nil && c.state(s) == StateSilent {
		e.find(0, add)
	}
}
