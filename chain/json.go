package chain

import (
	"encoding/base64"
	"encoding/binary"
	"math/bits"
	"slices"
)

// Keys of the objects that stand for what JSON cannot say (docs/FORMAT.md, "Values"). A key of a record that looks
// like one of them, after any number of leading "$", is written with one "$" more: see [AppendKey].
const (
	TagBinary = "$bin"   // {"$bin":"<base64>"}: a binary value
	TagExt    = "$ext"   // {"$ext":[<type>,"<base64>"]}: an extension value
	TagString = "$str"   // {"$str":"<base64>"}: a string that is not UTF-8
	TagFloat  = "$float" // {"$float":"NaN"|"Infinity"|"-Infinity"}; a NaN also carries "bits":"<16 hex>"
	TagMap    = "$map"   // {"$map":[[key,value],...]}: a map with a key that is not a UTF-8 string
	TagDup    = "$dup"   // last member of a map with repeated keys: "$dup":[["<key>",value],...]
)

// AppendString appends s as a JSON string, or as {"$str":"<base64>"} if it is not valid UTF-8. Only the quotation mark,
// the backslash and the control characters below U+0020 are escaped, each in its shortest form
// (\b \t \n \f \r, otherwise \u00xx with lower-case hex), so that one string has one spelling.
func AppendString(dst, s []byte) []byte {
	start, end := len(dst), len(dst)+1+len(s)
	dst = slices.Grow(dst, len(s)+2)[:end+1]
	dst[start], dst[end] = '"', '"'
	n, seen := copyPlain(dst[start+1:end], s)
	if n == len(s) && seen&highBits == 0 {
		return dst // plain ASCII, as most strings are
	}
	for at, rest := start+1, s; n < len(rest); {
		dst = appendEscape(dst[:at+n], rest[n])
		rest = rest[n+1:]
		at, end = len(dst), len(dst)+len(rest)
		dst = slices.Grow(dst, len(rest)+1)[:end+1]
		dst[end] = '"'
		var words uint64
		n, words = copyPlain(dst[at:end], rest)
		seen |= words
	}
	if seen&highBits != 0 && !validUTF8(s) {
		dst = append(dst[:start], `{"`+TagString+`":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, s)
		return append(dst, `"}`...)
	}
	return dst
}

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// escapes has the high bit set in the lowest byte of w that needs an escape; bits above that one mean nothing. It is zero
// if there is no such byte.
func escapes(w uint64) uint64 {
	// Taking c from a byte below 0x80 sets its high bit if the byte is less than c. What a byte borrows from the next
	// one spoils only those above the first hit; a byte from 0x80 on neither hits (&^ w) nor borrows.
	control := w - lowBits*0x20
	quote := w ^ lowBits*'"' - lowBits
	backslash := w ^ lowBits*'\\' - lowBits
	return (control | quote | backslash) &^ w & highBits
}

// copyPlain copies src to dst up to the first byte that needs an escape, eight bytes at a time, and returns how many
// bytes that are and the or of all it looked at. dst must be as long as src; what it holds from n on is not defined.
func copyPlain(dst, src []byte) (n int, seen uint64) {
	size := len(src)
	dst = dst[:size]
	if size < 8 {
		return copyShort(dst, src)
	}
	for ; n <= size-8; n += 8 {
		w := binary.LittleEndian.Uint64(src[n : n+8])
		seen |= w
		binary.LittleEndian.PutUint64(dst[n:n+8], w)
		if hits := escapes(w); hits != 0 {
			return n + bits.TrailingZeros64(hits)/8, seen
		}
	}
	if n < size { // the last eight bytes, some of them once more
		w := binary.LittleEndian.Uint64(src[size-8:])
		seen |= w
		binary.LittleEndian.PutUint64(dst[size-8:], w)
		if hits := escapes(w); hits != 0 {
			return size - 8 + bits.TrailingZeros64(hits)/8, seen
		}
	}
	return size, seen
}

// copyShort is copyPlain for less than eight bytes.
func copyShort(dst, src []byte) (n int, seen uint64) {
	size := len(src)
	dst = dst[:size]
	if size >= 4 { // the first four and the last four bytes
		first, last := binary.LittleEndian.Uint32(src), binary.LittleEndian.Uint32(src[size-4:])
		w := uint64(first) | uint64(last)<<32
		if escapes(w) == 0 {
			binary.LittleEndian.PutUint32(dst, first)
			binary.LittleEndian.PutUint32(dst[size-4:], last)
			return size, w
		}
	}
	for i, c := range src {
		if c < 0x20 || c == '"' || c == '\\' {
			return i, seen
		}
		seen |= uint64(c)
		dst[i] = c
	}
	return size, seen
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\t':
		return append(dst, '\\', 't')
	case '\n':
		return append(dst, '\\', 'n')
	case '\f':
		return append(dst, '\\', 'f')
	case '\r':
		return append(dst, '\\', 'r')
	}
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
}

// AppendKey appends key, which must be valid UTF-8, as a JSON object key. Where the key is one of the reserved tags with
// any number of leading "$" (at least one), one more "$" is put before it; a reader takes it off again.
func AppendKey(dst, key []byte) []byte {
	if len(key) > 1 && key[0] == '$' && isTag(key) {
		dst = append(dst, '"', '$') // a tag has no character that needs an escape
		dst = append(dst, key...)
		return append(dst, '"')
	}
	return AppendString(dst, key)
}

// isTag reports whether key is one of the reserved tags with any number of further "$" before it.
func isTag(key []byte) bool {
	for len(key) > 1 && key[1] == '$' {
		key = key[1:]
	}
	switch string(key) {
	case TagBinary, TagExt, TagString, TagFloat, TagMap, TagDup:
		return true
	}
	return false
}
