package record

import (
	"github.com/auditchain/auditchain/chain"
)

// maxLevel is how deep the JSON of a record, of its metadata and of its group's two maps may be nested, each counted
// from its own outermost brace, which is level 1. The brackets of tagged forms count.
const maxLevel = 128

// decoder reads one chunk. Its methods that take i read the value at src[i] and return the index behind it, or -1 after
// setting fault; those that take dst append JSON to it.
type decoder struct {
	src   []byte
	fault fault // why the last method that returned -1 did
	limit int   // length that dst must not exceed
	base  int   // where in src the event begins
	start int   // where in dst its body begins
	clock clock
	group group

	// Of the event:
	stamp     stamp
	sec, nsec int64
	record    int // where in dst the record's map begins
	missing   chain.FieldSet
	sourceID  []byte
	sourceSeq uint64
	sequenced bool // sourceSeq is a number that the source gave

	sourceEvent bool // the record says that it is one; it is if it has a source

	// odd says where in src there are maps with a key that is not a UTF-8 string, ascending, if the event has been found
	// to have one. oddNext counts those that have been written.
	odd     []int
	oddNext int

	// Stacks: each map that is being read has its part on top of those of the maps around it.
	keys    []keyRef // distinct keys
	table   []uint32 // hash tables of the keys of large maps
	repeats []span   // pairs of repeated keys, in dst
	spare   []byte
}

// span is a run of bytes.
type span struct{ from, to int }

// fail sets the fault and returns -1.
func (d *decoder) fail(why fault) int {
	d.fault = why
	return -1
}

// reset begins a chunk.
func (d *decoder) reset(chunk []byte) {
	d.src = chunk
	d.group = group{text: d.group.text[:0]}
}

// begin begins the event at src[i], whose body will begin at dst[start].
func (d *decoder) begin(i, start int) {
	d.fault = faultNone
	d.base, d.start = i, start
	d.limit = start + MaxBody
	d.stamp = stampTime
	d.missing, d.sourceID, d.sourceSeq, d.sequenced, d.sourceEvent = chain.AllFields, nil, 0, false, false
	d.keys, d.table, d.repeats = d.keys[:0], d.table[:0], d.repeats[:0]
	d.oddNext = 0
}

// release lets go of the chunk, and of memory that only a rare chunk needs.
func (d *decoder) release() {
	d.src, d.sourceID = nil, nil
	trim(&d.group.text)
	trim(&d.odd)
	trim(&d.keys)
	trim(&d.table)
	trim(&d.repeats)
	trim(&d.spare)
}

func trim[T any](s *[]T) {
	const most = 64 << 10 // elements, of at most 16 bytes
	if cap(*s) > most {
		*s = nil
	}
}
