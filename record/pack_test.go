package record

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strings"
)

// What pack takes besides Go's own types.
type (
	m   []any  // a map: key, value, key, value, ...
	a   []any  // an array
	raw string // bytes in hex, as they are; blanks are for the reader
	ext struct {
		t    int8
		data string
	}
)

// pack returns the values as msgpack, back to back, each in its shortest form.
func pack(values ...any) []byte {
	var b []byte
	for _, v := range values {
		b = appendValue(b, v)
	}
	return b
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 0xc0)
	case bool:
		if v {
			return append(b, 0xc3)
		}
		return append(b, 0xc2)
	case int:
		return appendInt(b, int64(v))
	case uint64:
		return binary.BigEndian.AppendUint64(append(b, 0xcf), v)
	case float32:
		return binary.BigEndian.AppendUint32(append(b, 0xca), math.Float32bits(v))
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(v))
	case string:
		return append(appendHead(b, len(v), 0xa0, 32, 0xd9, 0xda, 0xdb), v...)
	case []byte:
		return append(appendHead(b, len(v), 0, 0, 0xc4, 0xc5, 0xc6), v...)
	case ext:
		if len(v.data) == 8 {
			b = append(b, 0xd7)
		} else {
			b = appendHead(b, len(v.data), 0, 0, 0xc7, 0xc8, 0xc9)
		}
		return append(append(b, byte(v.t)), v.data...)
	case raw:
		data, err := hex.DecodeString(strings.ReplaceAll(string(v), " ", ""))
		if err != nil {
			panic(err)
		}
		return append(b, data...)
	case a:
		return append(appendHead(b, len(v), 0x90, 16, 0, 0xdc, 0xdd), pack(v...)...)
	case m:
		return append(appendHead(b, len(v)/2, 0x80, 16, 0, 0xde, 0xdf), pack(v...)...)
	}
	panic("cannot pack this")
}

func appendInt(b []byte, i int64) []byte {
	switch {
	case i >= -32 && i < 128:
		return append(b, byte(i))
	case i >= 0 && i < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 0xcd), uint16(i))
	case i == int64(int16(i)):
		return binary.BigEndian.AppendUint16(append(b, 0xd1), uint16(i))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(i))
}

// appendHead appends the head of a value of size n: in the first byte if n is below short, else in the forms with one
// byte of length (if there is one), two or four.
func appendHead(b []byte, n int, fix byte, short int, one, two, four byte) []byte {
	switch {
	case n < short:
		return append(b, fix|byte(n))
	case n < 1<<8 && one != 0:
		return append(b, one, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, two), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, four), uint32(n))
}

// at is the EventTime of the table's events: 2026-11-23T07:25:01.000000123Z.
const at = raw("d700 6b03ea4d 0000007b")

// Group markers.
const (
	groupStart = raw("d700 ffffffff 00000000")
	groupEnd   = raw("d700 fffffffe 00000000")
)

// event returns an event with this record and no metadata.
func event(record any) []byte { return pack(a{a{at, m{}}, record}) }
