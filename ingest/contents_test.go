package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk/disktest"
	"github.com/auditchain/auditchain/storage/storagetest"
)

// otherChunk is sourceChunk with another record: of a source's number seq the record says {"n":n}.
func otherChunk(seq, n, time byte) []byte {
	b := sourceChunk(seq, time)
	b[16] = n
	return b
}

// TestConflictsAreMarked: a record that is not the one of the same source and number before it is kept and marked, as long as
// the writer remembers that one: for its life, and beyond a crash what is in the journal.
func TestConflictsAreMarked(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	mustAppend(t, l, testChunk(100, 1, 1))
	if l.contents.slots != nil {
		t.Error("there is a table of contents though no record has a source")
	}
	mustAppend(t, l, append(sourceChunk(0, 0), sourceChunk(1, 0)...))
	mustAppend(t, l, append(sourceChunk(9, 0), otherChunk(1, 7, 1)...))
	mustAppend(t, l, otherChunk(1, 7, 2)) // compared with the first
	mustAppend(t, l, sourceChunk(1, 3))
	mustAppend(t, l, append(sourceChunk(2, 0), otherChunk(2, 8, 0)...)) // in one chunk
	if s := l.Stats(); s.Redeliveries != 4 || s.Conflicts != 3 || s.Records != 9 {
		t.Errorf("stats %+v", s)
	}
	if want := `error conflict: entry 4 is record 1 of source "gpu"`; !r.log.has(want) {
		t.Errorf("log %q, want %q", r.log.lines, want)
	}
	crash(l)
	l = r.mustOpen() // reads the journal
	mustAppend(t, l, otherChunk(0, 9, 0))
	mustAppend(t, l, sourceChunk(1, 4))
	mustAppend(t, l, otherChunk(1, 7, 4))
	r.mustClose(l)
	l = r.mustOpen() // has no journal
	mustAppend(t, l, otherChunk(0, 9, 5))
	mustAppend(t, l, sourceChunk(0, 5)) // not what was there last
	r.mustClose(l)
	r.wantMarks("0 1 9 1c 1c 1r 2 2c 0c 1r 1c 0r 0c")
}

// TestConflictsAcrossJournals: whichever journal is read first, records are compared with the first one.
func TestConflictsAcrossJournals(t *testing.T) {
	r := newRig(t)
	r.mustClose(r.mustOpen()) // begins the chain
	r.bucket = unreachable{r.bucket}
	r.cfg.TotalFileSize = 1 // each chunk goes into a journal of its own
	l := r.mustOpen()
	for i := range byte(20) {
		mustAppend(t, l, sourceChunk(i, 0))
		mustAppend(t, l, otherChunk(i, 100, 0))
	}
	crash(l)
	l = r.mustOpen()
	if n := len(l.rotated); n != 40 {
		t.Fatalf("%d journals", n)
	}
	for i := range byte(20) {
		mustAppend(t, l, sourceChunk(i, 1))
	}
	if s := l.Stats(); s.Redeliveries != 20 || s.Conflicts != 0 {
		t.Errorf("stats %+v", s)
	}
	crash(l)
}

// TestFailedChunkIsForgotten: what was not taken is nothing to conflict with.
func TestFailedChunkIsForgotten(t *testing.T) {
	m := newMachine(t)
	m.start()
	mustAppend(t, m.log, sourceChunk(0, 0))
	for _, kind := range []string{disktest.OpWrite, disktest.OpSync} {
		struck := false
		m.inject(func(op storagetest.Op) (storagetest.Fault, bool) {
			if struck || op.Kind != kind || role(op.Path) != "journal-N.ndjson" {
				return storagetest.Fault{}, false
			}
			struck = true
			return storagetest.FailDone(syscall.EIO), false
		})
		before := slices.Clone(m.log.contents.slots)
		chunk := append(otherChunk(0, 5, 0), append(otherChunk(1, 6, 0), otherChunk(1, 7, 0)...)...)
		if err := m.log.Append([]byte("tag"), chunk); !struck || err == nil {
			t.Fatalf("%s: struck %t, %v", kind, struck, err)
		}
		if !slices.Equal(m.log.contents.slots, before) {
			t.Errorf("%s: the contents are not what they were", kind)
		}
	}
	m.inject(func(storagetest.Op) (storagetest.Fault, bool) { return storagetest.Fault{}, false })
	if s := m.log.Stats(); s.Conflicts != 0 || m.rig.log.has("conflict") {
		t.Errorf("stats %+v, log %q", s, m.rig.log.lines)
	}
	mustAppend(t, m.log, sourceChunk(1, 0))
	mustAppend(t, m.log, otherChunk(1, 6, 0))
	m.finish()
	m.rig.reader = m.memory
	m.wantMarks("0 1 1c")
}

// TestForgottenInAnyDepth: chunks that were chained on top of each other leave nothing behind when the first of them fails, also
// where they lie over each other's records, and over those of others.
func TestForgottenInAnyDepth(t *testing.T) {
	m := newMachine(t)
	m.start()
	l := m.log
	enqueue := func(seqs ...uint64) *flush {
		f := new(flush)
		var body []byte
		for _, seq := range seqs {
			body = append(body, sourceChunk(byte(seq), 0)...)
		}
		f.batch.Decode(body)
		for i, seq := range seqs {
			f.batch.Entries[i].SourceSeq, f.batch.Entries[i].Content = seq, seq
		}
		if _, err := l.enqueue(f, []byte("t")); err != nil {
			t.Fatal(err)
		}
		return f
	}
	enqueue(1, 2, contentSlots+3)
	l.lead()
	before, runs := slices.Clone(l.contents.slots), fmt.Sprint(l.seen.list())
	m.inject(func(op storagetest.Op) (storagetest.Fault, bool) {
		if op.Kind == disktest.OpWrite && role(op.Path) == "journal-N.ndjson" {
			return storagetest.Fail(syscall.EIO), false
		}
		return storagetest.Fault{}, false
	})
	first := enqueue(1, contentSlots+1, 4)
	second := enqueue(1, 3, 2*contentSlots+1)
	third := enqueue(contentSlots+1, 2, 4, 5)
	if got := second.marks; !got[0].redelivered || got[1].redelivered || got[2].redelivered {
		t.Errorf("marks %+v", got)
	}
	l.lead()
	if first.err == nil || second.err == nil || third.err == nil {
		t.Fatalf("%v, %v, %v", first.err, second.err, third.err)
	}
	if !slices.Equal(l.contents.slots, before) || fmt.Sprint(l.seen.list()) != runs {
		t.Errorf("it is not as if they had never come: %v, want %s", l.seen.list(), runs)
	}
	m.die()
}

// TestContents: what is overwritten is not known, and what is known is the first.
func TestContents(t *testing.T) {
	var c contents
	a := contentOf([]byte("a"), 1, 10)
	over := contentOf([]byte("a"), 1+contentSlots, 11)
	if a == over || c.slot(a.name) != c.slot(over.name) {
		t.Fatal("these two should lie in one slot")
	}
	known := func(record content) string {
		before := c.add(record)
		return fmt.Sprint(before.name == record.name, " ", before.bytes)
	}
	for i, step := range []struct {
		record content
		want   string
	}{
		{a, "false 0"}, {a, "true 10"}, {content{a.name, 12}, "true 10"}, {a, "true 10"},
		{over, "false 10"}, {over, "true 11"}, {a, "false 11"},
	} {
		if got := known(step.record); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
	// From journals, whose order is any.
	other := content{a.name, 12}
	for _, order := range [][]struct {
		record content
		again  bool
	}{{{a, false}, {other, true}}, {{other, true}, {a, false}}, {{over, false}, {other, true}, {a, false}}} {
		c = contents{}
		for _, o := range order {
			c.recall(o.record, o.again)
		}
		if got := known(other); got != "true 10" {
			t.Errorf("%v: %s", order, got)
		}
	}
}

// TestForgottenNumbersKnownContent: also where a source's numbers have too many gaps to remember, a record that is remembered is
// known when it comes again.
func TestForgottenNumbersKnownContent(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	numbers := func(from, count int) []byte {
		var b []byte
		for i := range count {
			b = append(b, sourceChunk(0, 0)[:len(sourceChunk(0, 0))-1]...)
			seq := from + 2*i
			b = append(b, 0xcd, byte(seq>>8), byte(seq))
		}
		return b
	}
	mustAppend(t, l, sourceChunk(0, 0))
	mustAppend(t, l, numbers(1000, maxRuns+10))
	if runs := l.seen.ranges["gpu"].Runs(); len(runs) > 20 {
		t.Fatalf("%d runs are remembered", len(runs))
	}
	mustAppend(t, l, otherChunk(0, 1, 1))
	if s := l.Stats(); s.Redeliveries != 1 || s.Conflicts != 1 {
		t.Errorf("stats %+v", s)
	}
	r.mustClose(l)
}

// TestConflictsAreSaidNowAndThen: whoever sends records does not fill the host's log.
func TestConflictsAreSaidNowAndThen(t *testing.T) {
	r := newRig(t)
	var offset atomic.Int64
	l, err := open(context.Background(), r.cfg, Options{Logger: r.log, Version: "test", Now: func() time.Time {
		return time.Now().Add(time.Duration(offset.Load()))
	}}, world{r.bucket, r.fs, r.backoff})
	if err != nil {
		t.Fatal(err)
	}
	said := func() (lines []string) {
		r.log.mu.Lock()
		defer r.log.mu.Unlock()
		for _, line := range r.log.lines {
			if strings.Contains(line, "conflict") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	mustAppend(t, l, sourceChunk(0, 0))
	for i := range byte(5) {
		mustAppend(t, l, otherChunk(0, 10+i, 0))
	}
	if lines := said(); len(lines) != 1 {
		t.Errorf("log %q", lines)
	}
	offset.Store(int64(2 * conflictInterval))
	mustAppend(t, l, otherChunk(0, 20, 0))
	if lines := said(); len(lines) != 2 || !strings.Contains(lines[1], "entry 6 ") || !strings.Contains(lines[1], "4 others") {
		t.Errorf("log %q", lines)
	}
	r.mustClose(l)
}

// TestSourceEventsAreCountedApart: they are records, and neither complete nor incomplete.
func TestSourceEventsAreCountedApart(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	event := sourceChunk(0, 0)
	event[13] = 0x83 // three members
	event = append(append(append(event, 0xac), "source_event"...), 0xa5)
	event = append(event, "start"...)
	mustAppend(t, l, event)
	mustAppend(t, l, sourceChunk(1, 0))
	if s := l.Stats(); s.Records != 2 || s.SourceEvents != 1 || s.Incomplete != 1 {
		t.Errorf("stats %+v", s)
	}
	crash(l)
	r.mustClose(r.mustOpen())
	report := r.wantMarks("0 1")
	if c := report.Counts; c.Records != 2 || c.SourceEvents != 1 || c.Incomplete != 1 || c.Complete != 0 || c.Missing[chain.Status.String()] != 1 {
		t.Errorf("counts %+v", c)
	}
}
