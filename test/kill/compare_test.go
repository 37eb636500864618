package kill

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/record"
	"github.com/auditchain/auditchain/test/witness"
)

// delivery is a chunk, as Fluent Bit delivers it: perhaps several times.
type delivery struct {
	sum chain.Hash
	tag string
}

// witnessed is a delivery that the plugin said OK to.
type witnessed struct {
	life   int // in which it did so first
	offset int64
	size   int
	lives  []int // in which it did so
	there  int   // how often it is in the chain
}

// comparison is the chain against the witness, in the order of the chain.
type comparison struct {
	t       *testing.T
	loop    *loop
	known   map[delivery]*witnessed
	records map[string]delivery // the chunk of each record in the chain, by its id
	others  map[delivery]bool   // chunks in the chain that the witness does not have

	batch record.Batch // the chunk whose entries come, as it was delivered
	chunk delivery
	next  int // entry of batch
	left  int // entries of the chunk that are to come

	twice int // records and chunks
}

// compare compares the whole chain with what the plugin acknowledged in all lives.
func (l *loop) compare(t *testing.T) {
	t.Helper()
	c := &comparison{t: t, loop: l, known: make(map[delivery]*witnessed), records: make(map[string]delivery), others: make(map[delivery]bool)}
	for n := range l.lives {
		c.read(n)
	}
	if err := l.log.Walk(t.Context(), c.visit); err != nil {
		t.Fatal(err)
	}
	if c.left > 0 {
		t.Errorf("the chain ends %d entries before the chunk of tag %s does", c.left, c.chunk.tag)
	}
	if c.twice > fewErrors {
		t.Errorf("%d records and chunks are there twice", c.twice)
	}
	missing := 0
	for d, w := range c.known {
		if w.there == 0 {
			if missing++; missing <= fewErrors {
				t.Errorf("a chunk of %d bytes, tag %s, acknowledged in life %d, is not in the chain", w.size, d.tag, w.life)
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d acknowledged chunks are not in the chain", missing, len(c.known))
	}
	l.tally.chunks, l.tally.records, l.tally.unwitnessed = len(c.known), len(c.records), len(c.others)
	if len(c.known) == 0 {
		t.Error("nothing was acknowledged")
	}
}

// read reads what the witness has of a life.
func (c *comparison) read(life int) {
	c.t.Helper()
	all, torn, err := witness.Read(c.loop.witnessed(life))
	if err != nil {
		c.t.Fatal(err)
	}
	if torn > 0 {
		c.loop.tally.torn++
	}
	for _, f := range all {
		switch f.Ret {
		case witness.OK:
			d := delivery{chain.Sum(f.Chunk), f.Tag}
			w := c.known[d]
			if w == nil {
				w = &witnessed{life: life, offset: f.Offset, size: len(f.Chunk)}
				c.known[d] = w
			}
			w.lives = append(w.lives, life)
			c.loop.tally.acknowledged++
		case witness.Retry:
			c.loop.tally.sentBack++
		default:
			c.t.Errorf("life %d: a flush returned %d", life, f.Ret)
		}
	}
}

// visit is called with each entry of the chain.
func (c *comparison) visit(e *chain.Entry, line []byte) error {
	if e.Chunk == nil && c.left == 0 {
		return fmt.Errorf("entry %d belongs to no chunk: %.300s", e.Seq, line)
	}
	if e.Chunk != nil {
		if c.left > 0 {
			return fmt.Errorf("entry %d begins a chunk, but %d entries of the one before are to come", e.Seq, c.left)
		}
		if err := c.begin(e); err != nil {
			return fmt.Errorf("entry %d: %w", e.Seq, err)
		}
	}
	c.left--
	var tag string
	if err := json.Unmarshal(e.Tag, &tag); err != nil || tag != c.chunk.tag {
		return fmt.Errorf("entry %d has the tag %s, its chunk %q", e.Seq, e.Tag, c.chunk.tag)
	}
	if c.known[c.chunk] != nil {
		from := 0
		if c.next > 0 {
			from = c.batch.Entries[c.next-1].End
		}
		body := c.batch.Bodies[from:c.batch.Entries[c.next].End]
		c.next++
		if !bytes.HasSuffix(line, append([]byte{','}, body...)) {
			return fmt.Errorf("entry %d is\n%.1000s\nand was delivered as\n%.1000s", e.Seq, line, body)
		}
	}
	var id string
	if err := json.Unmarshal(chain.Member(e.Record, "request_id"), &id); err != nil {
		return fmt.Errorf("entry %d is no record that was sent: %.300s", e.Seq, line)
	}
	if before, ok := c.records[id]; ok {
		c.again("record %s is there twice: in chunk %s (witnessed: %t) and, as entry %d, in chunk %s (witnessed: %t)",
			id, before.sum, c.known[before] != nil, e.Seq, c.chunk.sum, c.known[c.chunk] != nil)
	}
	c.records[id] = c.chunk
	return nil
}

// fewErrors are enough to see what kind they are.
const fewErrors = 8

// again says that something is there twice.
func (c *comparison) again(format string, args ...any) {
	if c.twice++; c.twice <= fewErrors {
		c.t.Errorf(format, args...)
	}
}

// begin takes the first entry of a chunk.
func (c *comparison) begin(e *chain.Entry) error {
	c.chunk.sum, c.left = e.Chunk.SHA256, int(e.Chunk.Entries)
	if err := json.Unmarshal(e.Tag, &c.chunk.tag); err != nil {
		return err
	}
	w := c.known[c.chunk]
	if w == nil {
		if c.others[c.chunk] {
			c.again("entry %d: chunk %s is there twice; it was not witnessed", e.Seq, c.chunk.sum)
		}
		c.others[c.chunk] = true
		return nil
	}
	if w.there++; w.there > 1 {
		c.again("entry %d: chunk %s, acknowledged in lives %v, is there %d times", e.Seq, c.chunk.sum, w.lives, w.there)
	}
	for _, life := range w.lives {
		if e.Received.Before(c.loop.lives[life].began) {
			c.loop.tally.recognised++
		}
	}
	f, err := os.Open(c.loop.witnessed(w.life))
	if err != nil {
		return err
	}
	defer f.Close()
	chunk := make([]byte, w.size)
	if _, err := f.ReadAt(chunk, w.offset); err != nil {
		return err
	}
	c.batch.Decode(chunk)
	if c.next = 0; len(c.batch.Entries) != c.left {
		return fmt.Errorf("chunk %s has %d entries, and was delivered with %d", c.chunk.sum, c.left, len(c.batch.Entries))
	}
	return nil
}
