package record

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"

	"github.com/auditchain/auditchain/chain"
)

// value writes the value at src[i]; a bracket that it opens is of the given level.
func (d *decoder) value(dst []byte, i, level int) ([]byte, int) {
	src := d.src
	if i >= len(src) {
		return dst, d.fail(faultTruncated)
	}
	c := src[i]
	switch {
	case c < 0x80:
		return strconv.AppendUint(dst, uint64(c), 10), i + 1
	case c < 0x90:
		return d.mapping(dst, i, level, roleNone)
	case c < 0xa0:
		return d.array(dst, i+1, int(c&0x0f), level)
	case c < 0xc0:
		return d.text(dst, i+1, int(c&0x1f), level)
	case c == 0xd9 && i+1 < len(src):
		return d.text(dst, i+2, int(src[i+1]), level)
	case c >= 0xe0:
		return strconv.AppendInt(dst, int64(int8(c)), 10), i + 1
	}
	switch c {
	case 0xc0:
		return append(dst, "null"...), i + 1
	case 0xc2:
		return append(dst, "false"...), i + 1
	case 0xc3:
		return append(dst, "true"...), i + 1
	case 0xde, 0xdf:
		return d.mapping(dst, i, level, roleNone)
	}
	h := readHead(src, i)
	switch {
	case h.kind == kindArray:
		return d.array(dst, h.at, h.n, level)
	case h.kind == kindString:
		return d.text(dst, h.at, h.n, level)
	case h.kind == kindBroken:
		return dst, d.fail(fault(h.n))
	case h.n > len(src)-h.at:
		return dst, d.fail(faultTruncated)
	}
	content, end := src[h.at:h.at+h.n], h.at+h.n
	switch c {
	case 0xca:
		return d.float(dst, widen(binary.BigEndian.Uint32(content)), level, end)
	case 0xcb:
		return d.float(dst, binary.BigEndian.Uint64(content), level, end)
	case 0xcc:
		return strconv.AppendUint(dst, uint64(content[0]), 10), end
	case 0xcd:
		return strconv.AppendUint(dst, uint64(binary.BigEndian.Uint16(content)), 10), end
	case 0xce:
		return strconv.AppendUint(dst, uint64(binary.BigEndian.Uint32(content)), 10), end
	case 0xcf:
		return strconv.AppendUint(dst, binary.BigEndian.Uint64(content), 10), end
	case 0xd0:
		return strconv.AppendInt(dst, int64(int8(content[0])), 10), end
	case 0xd1:
		return strconv.AppendInt(dst, int64(int16(binary.BigEndian.Uint16(content))), 10), end
	case 0xd2:
		return strconv.AppendInt(dst, int64(int32(binary.BigEndian.Uint32(content))), 10), end
	case 0xd3:
		return strconv.AppendInt(dst, int64(binary.BigEndian.Uint64(content)), 10), end
	case 0xc4, 0xc5, 0xc6:
		return d.binary(dst, content, level, end)
	}
	return d.extension(dst, int8(src[h.at-1]), content, level, end)
}

// text writes the string of n bytes at src[i].
func (d *decoder) text(dst []byte, i, n, level int) ([]byte, int) {
	if n > len(d.src)-i {
		return dst, d.fail(faultTruncated)
	}
	if n > d.limit-len(dst) {
		return dst, d.fail(faultLarge)
	}
	at := len(dst)
	dst = chain.AppendString(dst, d.src[i:i+n])
	if dst[at] != '"' && level > maxLevel { // {"$str":...}
		return dst, d.fail(faultDeep)
	}
	return dst, i + n
}

// array writes the array of n values, the first of them at src[i].
func (d *decoder) array(dst []byte, i, n, level int) ([]byte, int) {
	if n > len(d.src)-i {
		return dst, d.fail(faultTruncated)
	}
	if level > maxLevel {
		return dst, d.fail(faultDeep)
	}
	if n == 0 {
		return append(dst, "[]"...), i
	}
	dst = append(dst, '[')
	for ; n > 0; n-- {
		if dst, i = d.value(dst, i, level+1); i < 0 {
			return dst, i
		}
		if len(dst) > d.limit {
			return dst, d.fail(faultLarge)
		}
		dst = append(dst, ',')
	}
	dst[len(dst)-1] = ']'
	return dst, i
}

// binary writes the binary value b, which ends at src[end].
func (d *decoder) binary(dst, b []byte, level, end int) ([]byte, int) {
	if level > maxLevel {
		return dst, d.fail(faultDeep)
	}
	if len(b) > d.limit-len(dst) {
		return dst, d.fail(faultLarge)
	}
	dst = append(dst, `{"`+chain.TagBinary+`":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, `"}`...), end
}

// extension writes the extension value b of type t, which ends at src[end].
func (d *decoder) extension(dst []byte, t int8, b []byte, level, end int) ([]byte, int) {
	if level+1 > maxLevel {
		return dst, d.fail(faultDeep)
	}
	if len(b) > d.limit-len(dst) {
		return dst, d.fail(faultLarge)
	}
	dst = append(dst, `{"`+chain.TagExt+`":[`...)
	dst = strconv.AppendInt(dst, int64(t), 10)
	dst = append(dst, `,"`...)
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, `"]}`...), end
}

// float writes the float64 with these bits, which ends at src[end].
func (d *decoder) float(dst []byte, bits uint64, level, end int) ([]byte, int) {
	const infinity = 0x7ff << 52
	switch magnitude := bits &^ (1 << 63); {
	case magnitude < infinity:
		return appendFloat(dst, math.Float64frombits(bits)), end
	case level > maxLevel:
		return dst, d.fail(faultDeep)
	case magnitude > infinity:
		dst = append(dst, `{"`+chain.TagFloat+`":"NaN","bits":"`...)
		var raw [8]byte
		binary.BigEndian.PutUint64(raw[:], bits)
		dst = hex.AppendEncode(dst, raw[:])
		return append(dst, `"}`...), end
	case bits == infinity:
		return append(dst, `{"`+chain.TagFloat+`":"Infinity"}`...), end
	}
	return append(dst, `{"`+chain.TagFloat+`":"-Infinity"}`...), end
}

// widen returns the bits of the float64 that equals the float32 with these bits. A NaN keeps its sign and its payload,
// which the processor would not promise for a signaling one.
func widen(bits uint32) uint64 {
	if bits&0x7f800000 == 0x7f800000 {
		return uint64(bits>>31)<<63 | 0x7ff<<52 | uint64(bits&0x7fffff)<<29
	}
	return math.Float64bits(float64(math.Float32frombits(bits)))
}

// appendFloat appends f, which is finite, with the fewest digits that read back as f, and so that no one takes it for an
// integer: with a fraction, or an exponent where JavaScript writes one.
func appendFloat(dst []byte, f float64) []byte {
	at := len(dst)
	if size := math.Abs(f); size != 0 && (size < 1e-6 || size >= 1e21) {
		dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
		if n := len(dst); dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' { // e-07, but e-7 is enough
			dst[n-2] = dst[n-1]
			dst = dst[:n-1]
		}
		return dst
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 && f != 0 {
		dst = strconv.AppendInt(dst, int64(f), 10)
		return append(dst, '.', '0')
	}
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	for _, c := range dst[at:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, '.', '0')
}
