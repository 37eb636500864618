package record

import (
	"hash/maphash"

	"github.com/auditchain/auditchain/chain"
)

// Kind says what an entry is.
type Kind uint8

// The kinds of entries.
const (
	Record     Kind = iota // an event of the chunk
	Quarantine             // bytes of the chunk that could not be read as an event
	Group                  // a group of events, written once: see docs/FORMAT.md, section 4
	Event                  // something the writer itself has to say: see [Batch.SetEvent]
)

// Entry is what the writer must know about one entry besides its body.
type Entry struct {
	End  int  // of the body in Bodies; it begins where the one before ends
	Kind Kind // for all but Record, the fields below are zero

	SourceEvent bool           // the record is what its source says of itself
	Missing     chain.FieldSet // audit fields that the record lacks; none of a source event
	Time        int64          // the event's time, nanoseconds since 1970 UTC
	SourceID    []byte         // who made the record; nil if it does not say. Aliases the chunk
	SourceSeq   uint64         // the record's number at its source
	Content     uint64         // ContentHash of the value of "record"; of a record with a source only
}

// ContentHash tells one record's JSON from another, within this process: by a seed that is secret, so that nobody can send records
// that collide.
func ContentHash(json []byte) uint64 { return maphash.Bytes(hashSeed, json) }

// Facts returns what a manifest counts about the entry: the same that [chain.Entry.Facts] reads off its line.
func (e *Entry) Facts() chain.Facts {
	if e.Kind != Record {
		return chain.Facts{Event: true}
	}
	return chain.Facts{Time: e.Time, Missing: e.Missing, SourceID: e.SourceID, SourceSeq: e.SourceSeq, SourceEvent: e.SourceEvent}
}

// Batch is a chunk as entries. The zero value is ready; a batch that is used again reuses its memory. It must not be
// used by several goroutines at once.
type Batch struct {
	// Bodies holds the entries' bodies back to back: each from `"time":` or `"event":` to the last brace of the entry's
	// line, to be put behind the line's first members. There is no newline in it. At most MaxBody bytes each.
	Bodies  []byte
	Entries []Entry

	Records     int // entries that are records
	Groups      int // entries that are groups
	Quarantined int // entries that are quarantined bytes

	reasons [faults]int // Quarantined, by reason
	dec     decoder
}

// MaxBody is the size of the largest body of a record, in bytes: an entry line is at most [chain.MaxLine] long, and
// what stands before the body takes far less than the rest.
const MaxBody = 63 << 20

// maxKept bounds the memory that a batch keeps, per buffer and in bytes, though its last chunk was far smaller.
const maxKept = 16 << 20

// reset empties the batch before a chunk of the given size.
func (b *Batch) reset(size int) {
	if cap(b.Bodies) > maxKept && cap(b.Bodies)/8 > size {
		b.Bodies = nil
	}
	b.Bodies = b.Bodies[:0]
	if cap(b.Entries) > maxKept/entrySize && cap(b.Entries)/8 > size/entrySize {
		b.Entries = nil
	}
	clear(b.Entries) // lets go of the chunk before
	b.Entries = b.Entries[:0]
	b.Records, b.Groups, b.Quarantined = 0, 0, 0
	b.reasons = [faults]int{}
}

const entrySize = 64 // of an Entry in memory, about

// SetEvent makes the batch hold one entry, which says something of the writer itself: the event's name (see the
// constants in chain) and its detail, a JSON object.
func (b *Batch) SetEvent(name, detail string) {
	b.reset(len(detail))
	b.Bodies = append(b.Bodies, `"event":"`...)
	b.Bodies = append(b.Bodies, name...)
	b.Bodies = append(b.Bodies, `","detail":`...)
	b.Bodies = append(b.Bodies, detail...)
	b.Bodies = append(b.Bodies, '}')
	b.Entries = append(b.Entries, Entry{End: len(b.Bodies), Kind: Event})
}

// Decode makes the batch hold the entries of chunk, a run of msgpack events as Fluent Bit hands them to an output. It
// never fails, whatever the bytes are. The batch aliases chunk until it is used again.
func (b *Batch) Decode(chunk []byte) {
	b.reset(len(chunk))
	d := &b.dec
	d.reset(chunk)
	for i := 0; i < len(chunk); {
		if next := b.event(i); next >= 0 {
			i = next
			continue
		}
		// Not an event. What went wrong first has named the fault; if the value is not even whole, that counts.
		end, fault := skip(chunk, i)
		switch {
		case fault != faultNone:
			end = len(chunk) // nobody can say where the next event begins
		case d.fault == faultStray:
			fault = faultStray
			end = skipStrays(chunk, end)
		default:
			fault = d.fault
			if d.stamp != stampTime {
				b.closeGroup() // a marker closes the group, whatever else is wrong with it
			}
		}
		b.quarantine(i, end, fault)
		i = end
	}
	b.closeGroup()
	d.release()
}

// entry ends the body that was appended to Bodies last.
func (b *Batch) entry(e Entry) {
	e.End = len(b.Bodies)
	b.Entries = append(b.Entries, e)
	switch e.Kind {
	case Record:
		b.Records++
	case Group:
		b.Groups++
	case Quarantine:
		b.Quarantined++
	}
}
