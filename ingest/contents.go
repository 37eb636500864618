package ingest

import "hash/maphash"

// contents remembers what records of sources held, so that one that comes again can be told from another with its number. It is a
// table of fixed size, in which what comes later lies over what came before: it may not know a record, but what it says of one is true.
type contents struct {
	slots []content // nil until there is something to remember
}

// content is what is remembered of a record. The zero value is of none.
type content struct {
	name  uint64 // hash of its source and number
	bytes uint64 // record.ContentHash of it
}

// contentSlots is how many records are remembered, at 16 bytes each.
const contentSlots = 1 << 18

// contentSeed is secret, so that nobody can choose sources that collide.
var contentSeed = maphash.MakeSeed()

func contentOf(id []byte, seq, hash uint64) content {
	// Records that follow each other at their source lie beside each other, which memory is faster with.
	return content{maphash.Bytes(contentSeed, id) + seq, hash}
}

func (c *contents) slot(name uint64) *content {
	if c.slots == nil {
		c.slots = make([]content, contentSlots)
	}
	return &c.slots[name%contentSlots]
}

// add remembers a record and returns what lay in its slot. A record that was there before stays: later ones are compared with the first.
func (c *contents) add(record content) (before content) {
	slot := c.slot(record.name)
	before = *slot
	if before.name != record.name {
		*slot = record
	}
	return before
}

// remove takes back the last add that was not taken back yet.
func (c *contents) remove(record, before content) { *c.slot(record.name) = before }

// recall remembers a record that was taken earlier, in whatever order. again says that it was not the first of its source and number.
func (c *contents) recall(record content, again bool) {
	if slot := c.slot(record.name); !again || slot.name != record.name {
		*slot = record
	}
}
