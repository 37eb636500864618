package ingest

import (
	"fmt"
	"time"

	"github.com/auditchain/auditchain/record"
)

// Stats is what the log has done since it was opened, and where it stands.
type Stats struct {
	Records         uint64 // records acknowledged
	Events          uint64 // other entries acknowledged
	Bytes           uint64 // of entry lines acknowledged
	Incomplete      uint64 // records that lack audit fields
	SourceEvents    uint64 // records that are what a source says of itself
	Redeliveries    uint64 // records whose source and number were there before
	Conflicts       uint64 // those of them whose content was another then
	Quarantined     uint64 // entries that hold bytes which could not be read
	DuplicateChunks uint64 // chunks that came again after a restart and were not written again
	Segments        uint64 // committed
	Heartbeats      uint64 // committed
	UploadFailures  uint64 // attempts to write to the bucket that failed

	HeadSeq      uint64  // number of the next entry
	UnsealedAge  float64 // seconds since the oldest entry that is in no committed segment yet was received
	JournalBytes int64   // in the store directory, not yet committed to the bucket
}

// Stats returns the log's numbers as they are now.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.JournalBytes = l.stored
	oldest := l.activeFrom
	if len(l.sealFrom) > 0 {
		oldest = l.sealFrom[0]
	}
	if !oldest.IsZero() {
		s.UnsealedAge = max(0, l.now().Sub(oldest).Seconds())
	}
	return s
}

// account takes a chunk that was just synced into the books of its segment. writing is held.
func (l *Log) account(f *flush, j *journal) {
	f.counts = Stats{Bytes: uint64(f.entryBytes())}
	for i := range f.batch.Entries {
		e := &f.batch.Entries[i]
		facts := e.Facts()
		facts.Redelivered, facts.Conflict = f.marks[i].redelivered, f.marks[i].conflict
		j.summary.Add(facts)
		switch {
		case e.Kind == record.Quarantine:
			f.counts.Quarantined++
			f.counts.Events++
		case facts.Event:
			f.counts.Events++
		default:
			f.counts.Records++
		}
		if facts.Missing != 0 {
			f.counts.Incomplete++
		}
		if facts.SourceEvent {
			f.counts.SourceEvents++
		}
		if facts.Redelivered {
			f.counts.Redeliveries++
		}
		if facts.Conflict {
			f.counts.Conflicts++
			l.sayConflict(f, i)
		}
	}
}

// conflictInterval is how often the log says that records conflict: whoever sends records can have them do so.
const conflictInterval = time.Minute

// sayConflict says that the i-th entry of f conflicts with an earlier one. writing is held.
func (l *Log) sayConflict(f *flush, i int) {
	if !l.said.IsZero() && f.arrived.Sub(l.said) < conflictInterval {
		l.unsaid++
		return
	}
	others := ""
	if l.unsaid > 0 {
		others = fmt.Sprintf("; so were %d others since this was said last", l.unsaid)
	}
	e := &f.batch.Entries[i]
	l.opts.Logger.Error(fmt.Sprintf("conflict: entry %d is record %d of source %q, of which the log has another record with that number: somebody writes in the source's name, or changed a record on its way%s",
		f.after.seq-uint64(len(f.batch.Entries)-i), e.SourceSeq, e.SourceID, others))
	l.said, l.unsaid = f.arrived, 0
}

// count takes f into the statistics. mu is held.
func (l *Log) count(f *flush) {
	s, c := &l.stats, &f.counts
	s.Records += c.Records
	s.Events += c.Events
	s.Bytes += c.Bytes
	s.Incomplete += c.Incomplete
	s.SourceEvents += c.SourceEvents
	s.Redeliveries += c.Redeliveries
	s.Conflicts += c.Conflicts
	s.Quarantined += c.Quarantined
	s.HeadSeq = f.after.seq
}
