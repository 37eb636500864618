package query

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
)

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
