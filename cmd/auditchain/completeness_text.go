package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/auditchain/auditchain/query"
)

// maxListed is how many gaps, sources and the like people are shown; --json has them all.
const maxListed = 20

// printCompleteness prints a report for people.
func printCompleteness(w io.Writer, r *query.Completeness, by string) error {
	p := printer{w: w}
	verdict := map[string]string{query.VerdictMet: "MET      ", query.VerdictNotMet: "NOT MET  "}[r.Verdict]
	if verdict == "" {
		verdict = "UNKNOWN  "
	}
	p.line("%s %s", verdict, r.Chain)
	for _, reason := range r.Reasons {
		p.line("  because    %s", reason)
	}
	p.line("  period     %s to %s", clock(r.From), clock(r.To))
	p.line("  in         %s, %d of %d segments read", r.Bucket, r.Read, r.Segments)
	p.line("  key        %s", r.Key)
	p.line("  as of      %s; the last manifest was sealed at %s", clock(r.AsOf), clock(r.LastSealed))
	if r.ServedAtMost == 0 {
		p.line("  served     nothing, as far as the log knows: there is no percentage of nothing")
	} else {
		p.served(r)
	}
	label := "besides"
	for _, n := range []struct {
		n    uint64
		what string
	}{
		{r.Open, "had not ended at their source's last word, and are not counted"},
		{r.Redelivered, "further copies of records and source events, not counted"},
		{uint64(len(r.Conflicts)), "of them with another content: conflicts"},
		{r.Unnumbered, "records without a source, not counted"},
	} {
		if n.n > 0 {
			p.line("  %-10s %d %s", label, n.n, n.what)
			label = ""
		}
	}
	p.shares(r, by)
	p.conflicts(r.Conflicts)
	p.gaps(r.Gaps)
	p.sources(r.Sources)
	if r.Counters != nil {
		p.counters(r.Counters)
	}
	p.list("note", r.Notes)
	p.list("not read", r.Problems)
	return p.err
}

// served prints what was served, and what of it has records.
func (p *printer) served(r *query.Completeness) {
	if r.Possible == 0 {
		p.line("  served     %d requests", r.Served)
	} else {
		p.line("  served     %d to %d requests", r.Served, r.ServedAtMost)
	}
	p.line("  recorded   %d, %s", r.Present, percentText(r.PercentAtLeast, r.Percent))
	p.line("  missing    %d", r.Missing)
	if n := r.Possible - r.OnTheWay; n > 0 {
		p.line("             and %d that arrived in the period or beside it", n)
	}
	if r.OnTheWay > 0 {
		p.line("             and %d whose records may be on the way", r.OnTheWay)
	}
	if r.CompletePercent != nil {
		p.line("  complete   %d with every audit field, %s %% of what was served", r.Complete, r.CompletePercent)
	}
	for _, field := range slices.Sorted(maps.Keys(r.Lacking)) {
		p.line("             %d without %s", r.Lacking[field], field)
	}
}

func percentText(least, most *query.Percent) string {
	switch {
	case most == nil:
		return fmt.Sprintf("%s %% at least", least)
	case *least == *most:
		return fmt.Sprintf("%s %%", least)
	}
	return fmt.Sprintf("%s to %s %%", least, most)
}

// clock writes a time for people, to the millisecond where it has fractions: cut, as nothing here is rounded.
func clock(t time.Time) string {
	return t.UTC().Truncate(time.Millisecond).Format("2006-01-02T15:04:05.999Z")
}

func (p *printer) shares(r *query.Completeness, by string) {
	if len(r.By) == 0 {
		return
	}
	p.line("")
	p.line("%10s %10s %10s %10s %10s  by %s", "recorded", "complete", "missing", "possible", "percent", by)
	shown := r.By[:min(len(r.By), 10*maxListed)]
	for _, share := range shown {
		name, percent := share.Name, "-"
		if name == "" {
			name = "(not known)"
		}
		if least := share.Percent(); least != nil {
			percent = least.String()
		}
		p.line("%10d %10d %10d %10d %10s  %s", share.Present, share.Complete, share.Missing, share.Possible, percent, name)
	}
	p.more(len(shown), len(r.By))
}

func (p *printer) conflicts(all []query.CopyConflict) {
	if len(all) == 0 {
		return
	}
	p.line("")
	p.line("conflicts: two records of different content have the same source and number")
	shown := all[:min(len(all), maxListed)]
	for _, c := range shown {
		if c.First == nil {
			p.line("  %s number %d: entry %d, and one that the log does not have or that cannot be read", c.Source, c.Number, c.Other)
		} else {
			p.line("  %s number %d: entries %d and %d", c.Source, c.Number, *c.First, c.Other)
		}
	}
	p.more(len(shown), len(all))
}

func (p *printer) gaps(all []query.Gap) {
	if len(all) == 0 {
		return
	}
	p.line("")
	p.line("requests without record:")
	shown := all[:min(len(all), maxListed)]
	for _, g := range shown {
		numbers := fmt.Sprintf("number %d", g.First)
		if g.First != g.Last {
			numbers = fmt.Sprintf("numbers %d to %d", g.First, g.Last)
		}
		p.line("  %s %s, %s", g.Source, numbers, between(g.After, g.Before))
		switch {
		case g.OnTheWay > 0:
			p.line("    may be on the way")
		case g.Possible > 0:
			p.line("    %d of them surely in the period, %d in it or beside it", g.Missing, g.Possible)
		}
		if g.Known != "" {
			p.line("    %s", g.Known)
		}
	}
	p.more(len(shown), len(all))
}

// between says between which times something was.
func between(after, before *time.Time) string {
	switch {
	case after == nil && before == nil:
		return "nobody knows when"
	case after == nil:
		return "not after " + clock(*before)
	case before == nil:
		return "not before " + clock(*after)
	}
	if before.Before(*after) { // a clock was set back
		after, before = before, after
	}
	return fmt.Sprintf("between %s and %s", clock(*after), clock(*before))
}

// sources lists those sources of which there is something to say besides their gaps.
func (p *printer) sources(all []query.SourceReport) {
	var told []string
	for _, s := range all {
		last := ""
		if s.LastWord != nil {
			last = clock(*s.LastWord)
		}
		switch {
		case s.State == query.StateSilent:
			told = append(told, fmt.Sprintf("%s went silent: its last word is of %s, and what it served after that cannot be known", s.ID, last))
		case s.State == query.StateDied:
			told = append(told, fmt.Sprintf("%s died; %s found it at %s", s.ID, s.ReportedBy, last))
		}
		if s.State == query.StateEnded {
			told = append(told, fmt.Sprintf("%s ended with the last that the log has of it, as was said when asking", s.ID))
		}
		if s.Contradicts {
			told = append(told, fmt.Sprintf("%s contradicts itself: it said later that it had served less, or spoke after its end", s.ID))
		}
		if s.Beyond {
			told = append(told, fmt.Sprintf("%s has records of more than it had served when it ended", s.ID))
		}
		if s.Lost > 0 {
			told = append(told, fmt.Sprintf("%s says that it could not write %d records, in all its life", s.ID, s.Lost))
		}
		if s.NoStart {
			told = append(told, fmt.Sprintf("%s has no start in the log", s.ID))
		}
		if s.EventsMissing > 0 {
			told = append(told, fmt.Sprintf("%s lacks %d source events at the most", s.ID, s.EventsMissing))
		}
	}
	if len(told) == 0 {
		return
	}
	p.line("")
	p.line("sources:")
	shown := told[:min(len(told), maxListed)]
	for _, text := range shown {
		p.line("  %s", text)
	}
	p.more(len(shown), len(told))
}

func (p *printer) counters(r *query.CounterReport) {
	p.line("")
	p.line("what the model server counted, and records of requests that ended in the period:")
	if r.Problem != "" {
		p.line("  not compared: %s", r.Problem)
		return
	}
	if len(r.Handlers) == 0 {
		p.line("  neither counted nor recorded anything")
	}
	shown := r.Handlers[:min(len(r.Handlers), maxListed)]
	for _, h := range shown {
		p.line("  %s: %d counted, %d recorded: %s", h.Handler, h.Served, h.Records, h.Text)
	}
	p.more(len(shown), len(r.Handlers))
}

// list prints lines with a name before them.
func (p *printer) list(name string, all []string) {
	if len(all) == 0 {
		return
	}
	p.line("")
	shown := all[:min(len(all), maxListed)]
	for _, text := range shown {
		p.line("%s: %s", name, text)
	}
	p.more(len(shown), len(all))
}

// more says how many further ones there are.
func (p *printer) more(shown, all int) {
	if all > shown {
		p.line("  ... and %d more (--json lists them)", all-shown)
	}
}
