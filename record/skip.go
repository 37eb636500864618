package record

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// head is what the first bytes of a msgpack value say of it.
type head struct {
	kind kind
	n    int // array: elements; map: pairs; string, binary, extension: bytes; number: bytes
	at   int // where the content begins: behind the length, and behind an extension's type
}

type kind uint8

const (
	kindFixed  kind = iota // n bytes that need no further look
	kindString             // n bytes of text
	kindArray              // n values
	kindMap                // n keys and n values
	kindBroken             // the value cannot be read: n is the fault
)

// readHead reads the head of the value at b[i]. What it says of the content has not been compared with what is there,
// except that no length or count is greater than len(b).
func readHead(b []byte, i int) head {
	if i >= len(b) {
		return head{kind: kindBroken, n: int(faultTruncated)}
	}
	c := b[i]
	switch {
	case c < 0x80 || c >= 0xe0:
		return head{kindFixed, 0, i + 1}
	case c < 0x90:
		return head{kindMap, int(c & 0x0f), i + 1}
	case c < 0xa0:
		return head{kindArray, int(c & 0x0f), i + 1}
	case c < 0xc0:
		return head{kindString, int(c & 0x1f), i + 1}
	}
	f := &forms[c-0xc0]
	if f.kind == kindBroken {
		return head{kind: kindBroken, n: int(faultByte)}
	}
	i++
	n := int(f.fixed)
	if f.width > 0 {
		if n = bigEndian(b, i, int(f.width)); n < 0 {
			return head{kind: kindBroken, n: int(faultTruncated)}
		}
		i += int(f.width)
	}
	return head{f.kind, n, i + int(f.extra)}
}

// forms describes the first bytes 0xc0 to 0xdf.
var forms = [32]struct {
	kind         kind
	width, fixed uint8 // bytes of the length or, if none, the length itself
	extra        uint8 // bytes between the length and the content
}{
	{kindFixed, 0, 0, 0}, {kindBroken, 0, 0, 0}, {kindFixed, 0, 0, 0}, {kindFixed, 0, 0, 0}, // nil, -, false, true
	{kindFixed, 1, 0, 0}, {kindFixed, 2, 0, 0}, {kindFixed, 4, 0, 0}, // bin
	{kindFixed, 1, 0, 1}, {kindFixed, 2, 0, 1}, {kindFixed, 4, 0, 1}, // ext
	{kindFixed, 0, 4, 0}, {kindFixed, 0, 8, 0}, // float
	{kindFixed, 0, 1, 0}, {kindFixed, 0, 2, 0}, {kindFixed, 0, 4, 0}, {kindFixed, 0, 8, 0}, // uint
	{kindFixed, 0, 1, 0}, {kindFixed, 0, 2, 0}, {kindFixed, 0, 4, 0}, {kindFixed, 0, 8, 0}, // int
	{kindFixed, 0, 1, 1}, {kindFixed, 0, 2, 1}, {kindFixed, 0, 4, 1}, {kindFixed, 0, 8, 1}, {kindFixed, 0, 16, 1}, // fixext
	{kindString, 1, 0, 0}, {kindString, 2, 0, 0}, {kindString, 4, 0, 0}, // str
	{kindArray, 2, 0, 0}, {kindArray, 4, 0, 0}, // array
	{kindMap, 2, 0, 0}, {kindMap, 4, 0, 0}, // map
}

// bigEndian reads a length of 1, 2 or 4 bytes at b[i]. It is -1 if the length itself or what it announces cannot be in b.
func bigEndian(b []byte, i, width int) int {
	if width > len(b)-i {
		return -1
	}
	var n uint32
	switch width {
	case 1:
		n = uint32(b[i])
	case 2:
		n = uint32(binary.BigEndian.Uint16(b[i:]))
	default:
		n = binary.BigEndian.Uint32(b[i:])
	}
	if uint64(n) > uint64(len(b)) {
		return -1
	}
	return int(n)
}

// skip returns the index behind the value at b[i], or why there is none. However deep the value is nested, skip takes
// no memory for it.
func skip(b []byte, i int) (int, fault) {
	for need := 1; need > 0; need-- { // values still to come, of at least one byte each
		if need > len(b)-i {
			return 0, faultTruncated
		}
		h := readHead(b, i)
		i = h.at
		switch h.kind {
		case kindArray:
			need += h.n
		case kindMap:
			need += 2 * h.n
		case kindBroken:
			return 0, fault(h.n)
		default:
			if h.n > len(b)-i {
				return 0, faultTruncated
			}
			i += h.n
		}
	}
	return i, faultNone
}

// skipStrays returns the index behind all whole values from b[i] on that are not arrays of two elements.
func skipStrays(b []byte, i int) int {
	for i < len(b) {
		if h := readHead(b, i); h.kind == kindArray && h.n == 2 {
			break
		}
		end, fault := skip(b, i)
		if fault != faultNone {
			break
		}
		i = end
	}
	return i
}

// findOdd notes in d.odd where the maps with a key that is not a UTF-8 string are in the value at src[i], which must be
// well formed. Maps nested deeper than any that will be written are left out.
func (d *decoder) findOdd(i int) {
	d.odd, d.oddNext = d.odd[:0], 0
	d.walkOdd(i, 0)
	slices.Sort(d.odd)
}

func (d *decoder) walkOdd(i, depth int) int {
	h := readHead(d.src, i)
	if depth > maxLevel+1 { // the array around the event is one
		end, _ := skip(d.src, i)
		return end
	}
	at := h.at
	switch h.kind {
	case kindArray:
		for range h.n {
			at = d.walkOdd(at, depth+1)
		}
	case kindMap:
		odd := false
		for range h.n {
			key := readHead(d.src, at)
			if key.kind != kindString || !utf8.Valid(d.src[key.at:key.at+key.n]) {
				odd = true
			}
			at = d.walkOdd(at, depth+1)
			at = d.walkOdd(at, depth+1)
		}
		if odd {
			d.odd = append(d.odd, i)
		}
	default:
		at += h.n
	}
	return at
}
