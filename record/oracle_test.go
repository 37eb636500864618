package record

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ugorji/go/codec"

	"github.com/auditchain/auditchain/chain"
)

// entropy makes values out of bytes: the same values of the same bytes, and ever simpler ones once they are used up.
type entropy struct {
	data   []byte
	simple bool // only map keys that Go's maps take
}

func (e *entropy) n(most int) int {
	if len(e.data) == 0 {
		return 0
	}
	c := e.data[0]
	e.data = e.data[1:]
	return int(c) % most
}

func (e *entropy) bytes(n int) []byte {
	b := make([]byte, n)
	copy(b, e.data)
	e.data = e.data[min(n, len(e.data)):]
	return b
}

var texts = []string{"", "a", "b", "request_id", "timestamp", "status", "source", "source_event", "id", "seq", "otlp", "attributes", "gen_ai.response.id", "user_id",
	"$bin", "$$map", "$dup", "$x", "quote\"", "line\nend", "Zażółć", "日本語", "\x00", "12345678", "a longer text, of more than thirty-two bytes, so that it has its own length byte"}

func (e *entropy) text() raw {
	s := texts[e.n(len(texts))]
	if e.n(9) == 8 {
		s += string(e.bytes(e.n(12))) // often not UTF-8
	}
	return e.long(len(s), 0xa0, 32, 0xd9, 0xda, 0xdb) + hexOf([]byte(s))
}

// long returns the head of a value of size n, now and then in a longer form than needed.
func (e *entropy) long(n int, fix byte, short int, one, two, four byte) raw {
	switch e.n(12) {
	case 9:
		if one != 0 && n < 256 {
			short = 0
		}
	case 10:
		short, one = 0, 0
	case 11:
		return hexOf(binary.BigEndian.AppendUint32([]byte{four}, uint32(n)))
	}
	return hexOf(appendHead(nil, n, fix, short, one, two, four))
}

func hexOf(b []byte) raw { return raw(fmt.Sprintf("%x", b)) }

// value returns a value of at most the given depth, as msgpack.
func (e *entropy) value(depth int) raw {
	switch e.n(14) {
	case 1:
		return hexOf([]byte{byte(e.n(256))&0x7f | byte(e.n(2))*0xe0})
	case 2:
		c := byte(0xcc + e.n(8))
		return hexOf(append([]byte{c}, e.bytes(1<<(c&3))...))
	case 3:
		return hexOf(append([]byte{0xcb}, e.bytes(8)...))
	case 4:
		return hexOf(append([]byte{0xca}, e.bytes(4)...))
	case 5:
		return hexOf(pack([]any{nil, true, false, 1e21, 1e-7, 0.1, 123456.789, math.Inf(-1), math.NaN(), float32(0.1), -1e-300, 1e20}[e.n(12)]))
	case 6:
		b := e.bytes(e.n(20))
		return e.long(len(b), 0, 0, 0xc4, 0xc5, 0xc6) + hexOf(b)
	case 7:
		kind := byte(e.n(127))
		switch width := e.n(6); width {
		case 5:
			b := e.bytes(e.n(20))
			return e.long(len(b), 0, 0, 0xc7, 0xc8, 0xc9) + hexOf([]byte{kind}) + hexOf(b)
		default:
			return hexOf([]byte{byte(0xd4 + width), kind}) + hexOf(e.bytes(1<<width))
		}
	case 8, 9:
		if depth > 0 {
			n := e.n(6)
			text := e.long(n, 0x90, 16, 0, 0xdc, 0xdd)
			for range n {
				text += e.value(depth - 1)
			}
			return text
		}
	case 10, 11, 12:
		if depth > 0 {
			return e.mapping(depth)
		}
	}
	return e.text()
}

func (e *entropy) mapping(depth int) raw {
	n := e.n(7)
	if e.n(20) == 19 {
		n += 30 // large enough for a hash table
	}
	odd := e.n(8) == 7
	text := e.long(n, 0x80, 16, 0, 0xde, 0xdf)
	for i := range n {
		switch {
		case odd && i%3 == 0 && e.simple:
			text += hexOf(pack(i + 1000))
		case odd && i%3 == 0:
			text += e.value(depth - 1)
		case n > 20 && e.n(10) < 8:
			text += hexOf(pack(fmt.Sprint("key number ", i%40)))
		default:
			text += e.text()
		}
		text += e.value(depth - 1)
	}
	return text
}

// checkRoundTrip holds the values of a chunk of events against what reading the JSON gives, and against ugorji.
func checkRoundTrip(t *testing.T, b *Batch, data []byte, simple bool) {
	e := &entropy{data: data, simple: simple}
	var chunk []byte
	for len(e.data) > 0 {
		meta := raw("80")
		if e.n(3) == 0 {
			meta = e.mapping(4)
		}
		chunk = append(chunk, pack(a{a{at, meta}, e.mapping(5)})...)
	}
	check(t, b, chunk)
	if b.Records != len(b.Entries) {
		t.Fatalf("chunk %x\n%s", chunk, b.Reasons())
	}
	i := 0
	for _, body := range bodies(b) {
		n, fault := parseAt(chunk, i)
		if fault != "" {
			t.Fatal(fault)
		}
		line := []byte("{" + body)
		sides := []struct {
			json []byte
			node *node
		}{{chain.Member(line, "meta"), n.items[0].items[1]}, {chain.Member(line, "record"), n.items[1]}}
		for _, s := range sides {
			if s.json == nil {
				s.json = []byte("{}")
			}
			got := undo(s.json)
			if got, want := canon(got, false), canon(s.node.meaning(), false); got != want {
				t.Fatalf("chunk %x\n%s\nmeans %s\nwant  %s", chunk, body, got, want)
			}
			if simple {
				if got, want := canon(got, true), canon(ugorji(t, chunk[s.node.start:s.node.end]), true); got != want {
					t.Fatalf("chunk %x\n%s\nmeans  %s\nugorji %s", chunk, body, got, want)
				}
			}
		}
		i = n.end
	}
}

// ugorji decodes one value with github.com/ugorji/go/codec.
func ugorji(t *testing.T, value []byte) any {
	h := &codec.MsgpackHandle{WriteExt: true}
	h.InterfaceReset, h.MapValueReset = true, true // a repeated key gets a new value, not the old one overwritten
	var v any
	if err := codec.NewDecoderBytes(value, h).Decode(&v); err != nil {
		t.Fatalf("ugorji cannot decode %x: %v", value, err)
	}
	return fromGo(v)
}

// fromGo turns what ugorji makes into what canon takes.
func fromGo(v any) any {
	switch v := v.(type) {
	case int64:
		return big.NewInt(v)
	case uint64:
		return new(big.Int).SetUint64(v)
	case float32:
		return float64(v)
	case codec.RawExt:
		return ext{int8(v.Tag), string(v.Data)}
	case []any:
		items := a{}
		for _, item := range v {
			items = append(items, fromGo(item))
		}
		return items
	case map[any]any:
		all := m{}
		for key, value := range v {
			all = append(all, fromGo(key), fromGo(value))
		}
		return all
	}
	return v
}

func TestRoundTrip(t *testing.T) {
	var b Batch
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 4000 {
		data := make([]byte, rng.IntN(400))
		for i := range data {
			data[i] = byte(rng.UintN(256))
		}
		checkRoundTrip(t, &b, data, i%2 == 0)
	}
}

func FuzzRoundTrip(f *testing.F) {
	for i := range 20 {
		f.Add(slices.Repeat([]byte{byte(i), byte(7 * i), 10, 3, 200}, 10+i), i%2 == 0)
	}
	var b Batch
	f.Fuzz(func(t *testing.T, data []byte, simple bool) { checkRoundTrip(t, &b, data, simple) })
}
