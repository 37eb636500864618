package record

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strings"
	"unicode/utf8"
)

// A second decoder, written after docs/FORMAT.md for its clarity: it parses whole values into trees and prints those. Tests
// compare what it says with what Batch says.

type node struct {
	first      byte
	start, end int
	content    []byte // of strings, binaries, extensions, numbers
	ext        int8
	items      []*node // of arrays; of maps: key, value, key, value, ...
}

func (n *node) isString() bool { return n.first>>5 == 5 || n.first >= 0xd9 && n.first <= 0xdb }
func (n *node) isArray() bool  { return n.first>>4 == 9 || n.first == 0xdc || n.first == 0xdd }
func (n *node) isMap() bool    { return n.first>>4 == 8 || n.first == 0xde || n.first == 0xdf }

type parser struct {
	b    []byte
	i    int
	need int // values that are still to come after this one
}

// take returns the next n bytes.
func (p *parser) take(n uint64) []byte {
	if n > uint64(len(p.b)-p.i) {
		panic("truncated")
	}
	p.i += int(n)
	return p.b[p.i-int(n) : p.i]
}

func (p *parser) number(width uint64) uint64 {
	var u uint64
	for _, c := range p.take(width) {
		u = u<<8 | uint64(c)
	}
	return u
}

func (p *parser) parse() *node {
	if p.need+1 > len(p.b)-p.i {
		panic("truncated")
	}
	n := &node{start: p.i}
	n.first = p.take(1)[0]
	items := func(count uint64) {
		if count > uint64(len(p.b)) {
			panic("truncated")
		}
		p.need += int(count)
		for range count {
			p.need--
			n.items = append(n.items, p.parse())
		}
	}
	switch c := n.first; {
	case c < 0x80, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3:
	case c < 0x90:
		items(2 * uint64(c&15))
	case c < 0xa0:
		items(uint64(c & 15))
	case c < 0xc0:
		n.content = p.take(uint64(c & 31))
	case c == 0xc1:
		panic("invalid byte")
	case c <= 0xc6:
		n.content = p.take(p.number(1 << (c - 0xc4)))
	case c <= 0xc9:
		size := p.number(1 << (c - 0xc7))
		n.ext = int8(p.take(1)[0])
		n.content = p.take(size)
	case c <= 0xcb:
		n.content = p.take(4 << (c - 0xca))
	case c <= 0xcf:
		n.content = p.take(1 << (c - 0xcc))
	case c <= 0xd3:
		n.content = p.take(1 << (c - 0xd0))
	case c <= 0xd8:
		n.ext = int8(p.take(1)[0])
		n.content = p.take(1 << (c - 0xd4))
	case c <= 0xdb:
		n.content = p.take(p.number(1 << (c - 0xd9)))
	case c <= 0xdd:
		items(p.number(2 << (c - 0xdc)))
	default:
		items(2 * p.number(2<<(c-0xde)))
	}
	n.end = p.i
	return n
}

// parseAt parses the value at b[i]; fault says why it cannot.
func parseAt(b []byte, i int) (n *node, fault string) {
	defer func() {
		if r := recover(); r != nil {
			fault = r.(string) // anything else is a bug
		}
	}()
	p := parser{b: b, i: i}
	return p.parse(), ""
}

// print writes n as JSON. Its outermost bracket is of the given level.
func (n *node) print(level int) string {
	deeper := func(by int) {
		if level+by-1 > 128 {
			panic("nested too deep")
		}
	}
	b64 := `"` + base64.StdEncoding.EncodeToString(n.content) + `"`
	integer := new(big.Int).SetBytes(n.content)
	switch c := n.first; {
	case c < 0x80:
		return fmt.Sprint(c)
	case c >= 0xe0:
		return fmt.Sprint(int8(c))
	case c == 0xc0:
		return "null"
	case c == 0xc2:
		return "false"
	case c == 0xc3:
		return "true"
	case n.isString():
		if !utf8.Valid(n.content) {
			deeper(1)
			return `{"$str":` + b64 + `}`
		}
		return printString(string(n.content))
	case n.isArray():
		deeper(1)
		var items []string
		for _, item := range n.items {
			items = append(items, item.print(level+1))
		}
		return "[" + strings.Join(items, ",") + "]"
	case n.isMap():
		return n.printMap(level, deeper)
	case c <= 0xc6:
		deeper(1)
		return `{"$bin":` + b64 + `}`
	case c <= 0xc9, c >= 0xd4 && c <= 0xd8:
		deeper(2)
		return fmt.Sprintf(`{"$ext":[%d,%s]}`, n.ext, b64)
	case c == 0xca:
		bits := binary.BigEndian.Uint32(n.content)
		f := math.Float32frombits(bits)
		if f != f {
			deeper(1)
			return fmt.Sprintf(`{"$float":"NaN","bits":"%x%013x"}`, 0x7ff|bits>>31<<11, uint64(bits&0x7fffff)<<29)
		}
		return printFloat(float64(f), deeper)
	case c == 0xcb:
		f := math.Float64frombits(binary.BigEndian.Uint64(n.content))
		if f != f {
			deeper(1)
			return fmt.Sprintf(`{"$float":"NaN","bits":"%x"}`, n.content)
		}
		return printFloat(f, deeper)
	case c <= 0xcf:
		return integer.String()
	}
	if n.content[0] >= 0x80 {
		integer.Sub(integer, new(big.Int).Lsh(big.NewInt(1), uint(8*len(n.content))))
	}
	return integer.String()
}

func (n *node) printMap(level int, deeper func(int)) string {
	deeper(1)
	odd := false
	for i := 0; i < len(n.items); i += 2 {
		odd = odd || !n.items[i].isString() || !utf8.Valid(n.items[i].content)
	}
	if odd {
		deeper(3)
		var pairs []string
		for i := 0; i < len(n.items); i += 2 {
			pairs = append(pairs, "["+n.items[i].print(level+3)+","+n.items[i+1].print(level+3)+"]")
		}
		return `{"$map":[` + strings.Join(pairs, ",") + `]}`
	}
	var members, repeats []string
	seen := map[string]bool{}
	for i := 0; i < len(n.items); i += 2 {
		key, value := string(n.items[i].content), n.items[i+1]
		if seen[key] {
			deeper(3)
			repeats = append(repeats, "["+printString(key)+","+value.print(level+3)+"]")
			continue
		}
		seen[key] = true
		members = append(members, printKey(key)+":"+value.print(level+1))
	}
	if repeats != nil {
		members = append(members, `"$dup":[`+strings.Join(repeats, ",")+`]`)
	}
	return "{" + strings.Join(members, ",") + "}"
}

func printString(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err)
	}
	// encoding/json escapes two characters that need not be.
	return strings.TrimSuffix(undoJavaScript(b.String()), "\n")
}

// undoJavaScript takes back the escapes \u2028 and \u2029, unless the backslash is itself an escaped one.
func undoJavaScript(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if rest := s[i:]; strings.HasPrefix(rest, `\u2028`) || strings.HasPrefix(rest, `\u2029`) {
			b.WriteString(map[byte]string{'8': "\u2028", '9': "\u2029"}[rest[5]])
			i += 5
			continue
		}
		b.WriteString(s[i : i+2])
		i++
	}
	return b.String()
}

func printKey(key string) string {
	switch "$" + strings.TrimLeft(key, "$") {
	case "$bin", "$ext", "$str", "$float", "$map", "$dup":
		if key[0] == '$' {
			key = "$" + key
		}
	}
	return printString(key)
}

func printFloat(f float64, deeper func(int)) string {
	if math.IsInf(f, 0) {
		deeper(1)
		return `{"$float":"` + map[bool]string{true: "Infinity", false: "-Infinity"}[f > 0] + `"}`
	}
	b, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	if !bytes.ContainsAny(b, ".e") {
		b = append(b, ".0"...)
	}
	return string(b)
}
