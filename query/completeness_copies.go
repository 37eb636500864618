package query

import (
	"context"

	"github.com/auditchain/auditchain/chain"
)

// maxCopies is how many numbers that are in the log more than once are compared.
const maxCopies = 1_000_000

// compareCopies compares the records that have the same source and number, of those that were read.
func (c *completeness) compareCopies(ctx context.Context) error {
	type identity struct {
		source *source
		number uint64
	}
	type original struct {
		entry uint64
		sum   chain.Hash
	}
	want := make(map[int]bool)
	var numbers uint64
	for _, s := range c.sources {
		for _, run := range s.copies {
			numbers = plus(numbers, run.Last-run.First+1)
		}
		for _, h := range s.in {
			if touches(s.copies, chain.Range{First: h.first, Last: h.last}) {
				want[h.segment] = true
			}
		}
	}
	if numbers > maxCopies {
		c.problem("%d numbers are in the log more than once, and only %d are compared: ask for shorter periods", numbers, maxCopies)
	}
	holds := func(m *chain.Manifest) bool {
		for _, listed := range m.Sources {
			s := c.byID[listed.ID]
			for _, r := range listed.Ranges {
				if touches(s.copies, chain.Range{First: r[0], Last: r[1]}) {
					return true
				}
			}
		}
		return m.SourcesOmitted > 0
	}
	originals := make(map[identity]original)
	for _, i := range sorted(want) { // in the order of the log
		type copied struct {
			identity
			original
			marked   bool // as a conflict, by the writer
			inPeriod bool
		}
		var copies []copied
		ref := &c.segments[i]
		err := c.open(ctx, ref, holds, func(e *chain.Entry) {
			if e.Event != "" {
				return
			}
			f := e.Facts()
			s := c.byID[string(f.SourceID)]
			if f.SourceID != nil && s != nil && contains(s.copies, f.SourceSeq) {
				at, _ := arrival(e.Record, nanos(e.Received))
				copies = append(copies, copied{identity{s, f.SourceSeq}, original{e.Seq, chain.Sum(e.Record)}, f.Conflict, c.from <= at && at < c.to})
			}
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			c.problem("segment of manifest %d: %v", ref.n, err)
			continue
		}
		for _, again := range copies {
			first, ok := originals[again.identity]
			conflict := CopyConflict{again.source.id, again.number, nil, again.entry}
			switch {
			case ok:
				if again.inPeriod {
					c.report.Redelivered++
				}
				if first.sum != again.sum {
					conflict.First = &first.entry
					c.report.Conflicts = append(c.report.Conflicts, conflict)
				}
				continue
			case again.marked:
				c.report.Conflicts = append(c.report.Conflicts, conflict)
			}
			if len(originals) < maxCopies {
				originals[again.identity] = again.original
			}
		}
	}
	return nil
}
