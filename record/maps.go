package record

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"

	"github.com/auditchain/auditchain/chain"
)

// mapping writes the map at src[i]. Role says where the map stands, as far as audit fields may be in it.
func (d *decoder) mapping(dst []byte, i, level int, role role) ([]byte, int) {
	h := readHead(d.src, i)
	switch {
	case h.kind == kindBroken:
		return dst, d.fail(fault(h.n))
	case h.n > (len(d.src)-h.at)/2:
		return dst, d.fail(faultTruncated)
	case level > maxLevel:
		return dst, d.fail(faultDeep)
	case h.n == 0:
		return append(dst, "{}"...), h.at
	case d.oddNext < len(d.odd) && d.odd[d.oddNext] == i:
		d.oddNext++
		return d.pairs(dst, h.at, h.n, level)
	}
	i = h.at
	set := keySet{base: len(d.keys), table: len(d.table)}
	firstRepeat := len(d.repeats)
	dst = append(dst, '{')
	for n := h.n; n > 0; n-- {
		key, next := d.key(i)
		if next < 0 {
			return dst, next
		}
		at, valueLevel := len(dst), level+1
		again := d.repeated(&set, key, next)
		if again {
			if valueLevel = level + 3; valueLevel-1 > maxLevel {
				return dst, d.fail(faultDeep)
			}
			dst = append(dst, '[')
			dst = chain.AppendString(dst, key)
			dst = append(dst, ',')
		} else {
			dst = chain.AppendKey(dst, key)
			if dst[at] != '"' {
				return dst, d.fail(faultOdd)
			}
			dst = append(dst, ':')
		}
		if role == roleNone || again {
			dst, i = d.value(dst, next, valueLevel)
		} else {
			dst, i = d.member(dst, key, next, valueLevel, role)
		}
		if i < 0 {
			return dst, i
		}
		if again {
			dst = append(dst, ']', ',')
			d.repeats = append(d.repeats, span{at, len(dst)})
		} else {
			dst = append(dst, ',')
		}
		if len(dst) > d.limit {
			return dst, d.fail(faultLarge)
		}
	}
	if len(d.repeats) > firstRepeat {
		dst = d.setAside(dst, d.repeats[firstRepeat:])
		d.repeats = d.repeats[:firstRepeat]
	}
	dst[len(dst)-1] = '}'
	d.keys, d.table = d.keys[:set.base], d.table[:set.table]
	return dst, i
}

// key returns the string at src[i].
func (d *decoder) key(i int) ([]byte, int) {
	var at, n int
	if i < len(d.src) && d.src[i]&0xe0 == 0xa0 {
		at, n = i+1, int(d.src[i]&0x1f)
	} else {
		h := readHead(d.src, i)
		switch h.kind {
		case kindString:
			at, n = h.at, h.n
		case kindBroken:
			return nil, d.fail(fault(h.n))
		default:
			return nil, d.fail(faultOdd)
		}
	}
	if n > len(d.src)-at {
		return nil, d.fail(faultTruncated)
	}
	if n > MaxBody {
		return nil, d.fail(faultLarge)
	}
	return d.src[at : at+n], at + n
}

// pairs writes a map of n pairs, the first of them at src[i], that has a key which is not a UTF-8 string.
func (d *decoder) pairs(dst []byte, i, n, level int) ([]byte, int) {
	if level+2 > maxLevel {
		return dst, d.fail(faultDeep)
	}
	dst = append(dst, `{"`+chain.TagMap+`":[`...)
	for ; n > 0; n-- {
		dst = append(dst, '[')
		if dst, i = d.value(dst, i, level+3); i < 0 {
			return dst, i
		}
		dst = append(dst, ',')
		if dst, i = d.value(dst, i, level+3); i < 0 {
			return dst, i
		}
		dst = append(dst, ']', ',')
		if len(dst) > d.limit {
			return dst, d.fail(faultLarge)
		}
	}
	dst[len(dst)-1] = ']'
	return append(dst, '}'), i
}

// setAside moves the pairs of repeated keys behind the map's other members. Each of either is followed by a comma.
func (d *decoder) setAside(dst []byte, repeats []span) []byte {
	d.spare = d.spare[:0]
	end := repeats[0].from
	for i, r := range repeats {
		d.spare = append(d.spare, dst[r.from:r.to]...)
		next := len(dst)
		if i+1 < len(repeats) {
			next = repeats[i+1].from
		}
		end += copy(dst[end:], dst[r.to:next])
	}
	dst = append(dst[:end], `"`+chain.TagDup+`":[`...)
	dst = append(dst, d.spare[:len(d.spare)-1]...)
	return append(dst, ']', ',')
}

// keyRef is a key that a map has had so far.
type keyRef struct {
	print uint64 // fingerprint; of maps with a table, hash
	off   uint32 // in src, from the event's begin. A body's limit keeps events far below 4 GiB
	size  uint32
}

// keySet is the set of keys of one map: those from base on in decoder.keys.
type keySet struct {
	base   int
	filter uint64 // has a bit set for each key
	table  int    // where in decoder.table the hash table begins
	slots  int    // its size, a power of two; 0 if there is none yet
}

// maxScan is the number of keys up to which a map does without a hash table.
const maxScan = 32

// repeated reports whether the set has the key, which ends at src[end], and puts it in if not.
func (d *decoder) repeated(set *keySet, key []byte, end int) bool {
	ref := keyRef{off: uint32(end - len(key) - d.base), size: uint32(len(key))}
	count := len(d.keys) - set.base
	if count < maxScan {
		ref.print = fingerprint(key)
		bit := uint64(1) << (ref.print * 0x9e3779b97f4a7c15 >> 58)
		if set.filter&bit != 0 {
			for _, k := range d.keys[set.base:] {
				if k.print == ref.print && k.size == ref.size && bytes.Equal(d.at(k), key) {
					return true
				}
			}
		}
		set.filter |= bit
		d.keys = append(d.keys, ref)
		return false
	}
	if 2*count >= set.slots {
		d.growTable(set)
	}
	ref.print = maphash.Bytes(hashSeed, key)
	slots := d.table[set.table : set.table+set.slots]
	at := int(ref.print) & (set.slots - 1)
	for ; slots[at] != 0; at = (at + 1) & (set.slots - 1) {
		k := d.keys[set.base+int(slots[at])-1]
		if k.print == ref.print && k.size == ref.size && bytes.Equal(d.at(k), key) {
			return true
		}
	}
	d.keys = append(d.keys, ref)
	slots[at] = uint32(count + 1)
	return false
}

// growTable gives the set, whose map is the innermost, a hash table of at least four slots per key.
func (d *decoder) growTable(set *keySet) {
	keys := d.keys[set.base:]
	if set.slots == 0 {
		for i := range keys {
			keys[i].print = maphash.Bytes(hashSeed, d.at(keys[i]))
		}
	}
	set.slots = 1 << bits.Len(uint(4*len(keys)-1))
	d.table = append(d.table[:set.table], make([]uint32, set.slots)...) // grows without a temporary
	slots := d.table[set.table:]
	for i, k := range keys {
		at := int(k.print) & (set.slots - 1)
		for slots[at] != 0 {
			at = (at + 1) & (set.slots - 1)
		}
		slots[at] = uint32(i + 1)
	}
}

// hashSeed is secret, so that nobody can send keys that collide.
var hashSeed = maphash.MakeSeed()

// at returns the key that k stands for.
func (d *decoder) at(k keyRef) []byte {
	off := d.base + int(k.off)
	return d.src[off : off+int(k.size)]
}

// fingerprint tells short keys, and keys that differ at either end, apart; it is no more than a filter.
func fingerprint(key []byte) uint64 {
	n := len(key)
	switch {
	case n >= 8:
		return binary.LittleEndian.Uint64(key) ^ bits.RotateLeft64(binary.LittleEndian.Uint64(key[n-8:]), 29) ^ uint64(n)
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(key)) | uint64(binary.LittleEndian.Uint32(key[n-4:]))<<32
	}
	print := uint64(n)
	for _, c := range key {
		print = print<<8 | uint64(c)
	}
	return print
}
