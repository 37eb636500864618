package record

import (
	"crypto/sha256"
	"encoding/hex"
)

// event reads the event at src[i] into the batch and returns the index behind it. If it cannot be read, the batch is as
// before, dec.fault says why, and -1 is returned.
func (b *Batch) event(i int) int {
	d := &b.dec
	next := b.readEvent(i)
	if next < 0 && d.fault == faultOdd {
		b.Bodies = b.Bodies[:d.start]
		if _, broken := skip(d.src, i); broken != faultNone {
			return d.fail(broken)
		}
		d.findOdd(i)
		next = b.readEvent(i)
		d.odd = d.odd[:0]
	}
	if next < 0 {
		b.Bodies = b.Bodies[:d.start]
	}
	return next
}

// readEvent reads [[time,{metadata}],{record}] or [time,{record}] at src[i].
func (b *Batch) readEvent(i int) int {
	d := &b.dec
	d.begin(i, len(b.Bodies))
	outer := readHead(d.src, i)
	if outer.kind != kindArray || outer.n != 2 {
		return d.fail(faultStray)
	}
	i = outer.at
	header := readHead(d.src, i)
	hasMeta := header.kind == kindArray
	if hasMeta {
		if header.n != 2 {
			return d.fail(faultShape)
		}
		i = header.at
	}
	var stamp stamp
	if stamp, i = d.readTime(i); i < 0 {
		return i
	}
	d.stamp = stamp
	if stamp == stampTime {
		b.beginRecord()
	}
	if hasMeta {
		if i = b.readMap(`"meta":`, i, roleMeta); i < 0 {
			return i
		}
	}
	if stamp == stampTime {
		b.Bodies = append(b.Bodies, d.group.text...)
	}
	if i = b.readMap(`"record":`, i, roleRecord); i < 0 {
		return i
	}
	return b.endEvent(i)
}

// readMap writes the map at src[i] as the member that name begins, and a comma; of an empty map, nothing, unless it is
// the record of a record.
func (b *Batch) readMap(name string, i int, role role) int {
	d := &b.dec
	if readHead(d.src, i).kind != kindMap {
		return d.fail(faultShape)
	}
	start := len(b.Bodies)
	b.Bodies = append(b.Bodies, name...)
	at := len(b.Bodies)
	if role == roleRecord {
		d.record = at
	}
	b.Bodies, i = d.mapping(b.Bodies, i, 1, role)
	if i < 0 {
		return i
	}
	if string(b.Bodies[at:]) == "{}" && (role == roleMeta || d.stamp != stampTime) {
		b.Bodies = b.Bodies[:start]
		return i
	}
	b.Bodies = append(b.Bodies, ',')
	return i
}

// beginRecord writes the record's time, and before the record its group, if the record shall only refer to it.
func (b *Batch) beginRecord() {
	d := &b.dec
	if g := &d.group; len(g.text) > 0 && !g.written && g.copied+len(g.text) > maxCopies {
		b.writeGroup()
		d.begin(d.base, len(b.Bodies))
	}
	b.Bodies = d.appendTime(b.Bodies)
}

// endEvent ends the event that ends at src[i], and of which Bodies has what it takes, with a comma at the end.
func (b *Batch) endEvent(i int) int {
	d := &b.dec
	switch {
	case d.stamp == stampTime:
	case len(b.Bodies) > d.limit-groupFrame:
		return d.fail(faultLarge)
	case d.stamp == stampGroupStart:
		b.openGroup(d.start)
		return i
	case len(b.Bodies) > d.start:
		return d.fail(faultEnd)
	default:
		b.closeGroup()
		return i
	}
	b.Bodies[len(b.Bodies)-1] = '}'
	if len(b.Bodies) > d.limit {
		return d.fail(faultLarge)
	}
	if g := &d.group; len(g.text) > 0 {
		g.carried = true
		if !g.written {
			g.copied += len(g.text)
		}
	}
	e := Entry{Time: d.sec*1e9 + d.nsec, Missing: d.missing}
	if d.sourceID != nil && d.sequenced {
		e.SourceID, e.SourceSeq = d.sourceID, d.sourceSeq
		e.Content = ContentHash(b.Bodies[d.record : len(b.Bodies)-1]) // while it is in the processor's cache
		if d.sourceEvent {
			e.SourceEvent, e.Missing = true, 0
		}
	}
	b.entry(e)
	return i
}

// group is the group of events that is open.
type group struct {
	text    []byte // the member "group" of its records, with a comma; empty if the group's maps are empty, or none is open
	carried bool   // a record carries it
	written bool   // it has been written as an entry of its own, and text refers to that
	copied  int    // bytes of groups that records of this chunk carry, references left out
}

// maxCopies bounds the bytes that the groups of one chunk take in its records.
const maxCopies = 32 << 20

// groupFrame is more than what stands around a group's maps, of the body that has them.
const groupFrame = 64

// openGroup opens the group whose maps are in Bodies from start on, and takes them out of there.
func (b *Batch) openGroup(start int) {
	d := &b.dec
	maps := b.Bodies[start:]
	if !d.group.carried && len(d.group.text) > 0 {
		// The group before must be written where these maps are.
		d.spare = append(d.spare[:0], maps...)
		maps = d.spare
	}
	b.Bodies = b.Bodies[:start]
	b.closeGroup()
	if len(maps) == 0 {
		return
	}
	text := append(d.group.text, `"group":{`...)
	text = append(text, maps[:len(maps)-1]...)
	d.group.text = append(text, '}', ',')
}

// closeGroup closes the open group, if there is one. What no record carries gets an entry of its own.
func (b *Batch) closeGroup() {
	g := &b.dec.group
	if len(g.text) > 0 && !g.carried && !g.written {
		b.writeGroup()
	}
	*g = group{text: g.text[:0], copied: g.copied}
}

// writeGroup writes the group as an entry, to which its records refer from there on.
func (b *Batch) writeGroup() {
	g := &b.dec.group
	detail := g.text[len(`"group":`) : len(g.text)-1]
	b.Bodies = append(b.Bodies, `"event":"group","detail":`...)
	b.Bodies = append(b.Bodies, detail...)
	b.Bodies = append(b.Bodies, '}')
	b.entry(Entry{Kind: Group})

	sum := sha256.Sum256(detail)
	g.text = append(g.text[:0], `"group":{"sha256":"`...)
	g.text = hex.AppendEncode(g.text, sum[:])
	g.text = append(g.text, `"},`...)
	g.written = true
}
