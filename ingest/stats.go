package ingest

import (
	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/record"
)

// Stats is what the log has done since it was opened, and where it stands.
type Stats struct {
	Records         uint64 // records acknowledged
	Events          uint64 // other entries acknowledged
	Bytes           uint64 // of entry lines acknowledged
	Incomplete      uint64 // records that lack audit fields
	Redeliveries    uint64 // records whose source and number were there before
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

// account takes a chunk that was just synced into the books of its segment. disk is held.
func (l *Log) account(f *flush, j *journal) {
	f.counts = Stats{Bytes: uint64(f.written())}
	for i := range f.batch.Entries {
		e := &f.batch.Entries[i]
		facts := e.Facts()
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
		if facts.SourceID != nil && !l.seen.add(facts.SourceID, facts.SourceSeq) {
			j.summary.Redelivered++
			f.counts.Redeliveries++
		}
	}
}

// count takes f into the statistics. mu is held.
func (l *Log) count(f *flush) {
	s, c := &l.stats, &f.counts
	s.Records += c.Records
	s.Events += c.Events
	s.Bytes += c.Bytes
	s.Incomplete += c.Incomplete
	s.Redeliveries += c.Redeliveries
	s.Quarantined += c.Quarantined
	s.HeadSeq = f.after.seq
}

// Bounds of what is remembered for telling redeliveries, whatever producers send.
const (
	maxSources = 10_000 // sources
	maxRuns    = 1_000  // runs of numbers of one source
)

// sources remembers which records of which sources have been taken.
type sources struct {
	ranges map[string]*chain.Ranges
}

// add reports whether the record is new as far as is remembered.
func (s *sources) add(id []byte, seq uint64) bool {
	r := s.ranges[string(id)]
	if r == nil || len(r.Runs()) > maxRuns {
		r = s.put(string(id)) // so many gaps are no numbering: forget it
	}
	return r.Add(seq)
}

func (s *sources) put(id string) *chain.Ranges {
	if s.ranges == nil {
		s.ranges = make(map[string]*chain.Ranges)
	}
	for other := range s.ranges { // any other
		if len(s.ranges) < maxSources {
			break
		}
		delete(s.ranges, other)
	}
	r := new(chain.Ranges)
	s.ranges[id] = r
	return r
}

// remember takes in what a manifest or a journal says of a source, and returns how much of it was known.
func (s *sources) remember(source chain.Source) (known uint64) {
	r := s.ranges[source.ID]
	if r == nil {
		r = s.put(source.ID)
	}
	for _, run := range source.Ranges {
		known += r.AddRange(chain.Range{First: run[0], Last: run[1]})
	}
	return known
}
