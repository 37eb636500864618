package record

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// undo reads JSON as docs/FORMAT.md says and returns the values that it stands for: nil, bool, *big.Int, float64 (NaN as
// nanBits), string, []byte, ext, a, or m with the repeated keys at the end.
func undo(text []byte) any {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v := undoValue(d, must(d.Token()))
	if d.More() {
		panic("more than one value")
	}
	return v
}

type nanBits uint64

// broken is {"$str":...}: a string that is not UTF-8.
type broken string

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func undoValue(d *json.Decoder, token json.Token) any {
	switch token := token.(type) {
	case json.Number:
		if strings.ContainsAny(string(token), ".e") {
			return must(strconv.ParseFloat(string(token), 64))
		}
		i, ok := new(big.Int).SetString(string(token), 10)
		if !ok {
			panic("no number: " + token)
		}
		return i
	case json.Delim:
		if token == '[' {
			items := a{}
			for d.More() {
				items = append(items, undoValue(d, must(d.Token())))
			}
			must(d.Token())
			return items
		}
		members := m{}
		for d.More() {
			key := must(d.Token()).(string)
			members = append(members, key, undoValue(d, must(d.Token())))
		}
		must(d.Token())
		return undoObject(members)
	}
	return token // nil, bool, string
}

func undoObject(o m) any {
	base64Of := func(v any) string { return string(must(base64.StdEncoding.DecodeString(v.(string)))) }
	if len(o) > 0 {
		switch o[0] {
		case "$bin":
			return []byte(base64Of(o[1]))
		case "$str":
			return broken(base64Of(o[1]))
		case "$ext":
			return ext{int8(o[1].(a)[0].(*big.Int).Int64()), base64Of(o[1].(a)[1])}
		case "$float":
			switch o[1] {
			case "Infinity":
				return math.Inf(1)
			case "-Infinity":
				return math.Inf(-1)
			}
			return nanBits(binary.BigEndian.Uint64(must(hex.DecodeString(o[3].(string)))))
		case "$map":
			all := m{}
			for _, pair := range o[1].(a) {
				all = append(all, pair.(a)...)
			}
			return all
		}
	}
	all := m{}
	for i := 0; i < len(o); i += 2 {
		key := o[i].(string)
		if key == "$dup" {
			for _, pair := range o[i+1].(a) {
				all = append(all, pair.(a)...)
			}
			continue
		}
		if bare := strings.TrimLeft(key, "$"); len(key)-len(bare) > 1 && slices.Contains([]string{"bin", "ext", "str", "float", "map", "dup"}, bare) {
			key = key[1:]
		}
		all = append(all, key, o[i+1])
	}
	return all
}

// meaning returns what undo is to return for n.
func (n *node) meaning() any {
	switch c := n.first; {
	case n.isString() && strings.ToValidUTF8(string(n.content), "") == string(n.content):
		return string(n.content)
	case n.isString():
		return broken(n.content)
	case n.isArray():
		items := a{}
		for _, item := range n.items {
			items = append(items, item.meaning())
		}
		return items
	case n.isMap():
		var first, again m
		seen := map[string]bool{}
		plain := true
		for i := 0; i < len(n.items); i += 2 {
			key := n.items[i].meaning()
			text, ok := key.(string)
			plain = plain && ok
			if seen[text] {
				again = append(again, key, n.items[i+1].meaning())
			} else {
				first = append(first, key, n.items[i+1].meaning())
			}
			seen[text] = plain // maps with other keys keep their order
		}
		if plain {
			return append(append(m{}, first...), again...)
		}
		all := m{}
		for _, item := range n.items {
			all = append(all, item.meaning())
		}
		return all
	case c == 0xc0:
		return nil
	case c == 0xc2, c == 0xc3:
		return c == 0xc3
	case c >= 0xc4 && c <= 0xc6:
		return n.content
	case c >= 0xc7 && c <= 0xc9, c >= 0xd4 && c <= 0xd8:
		return ext{n.ext, string(n.content)}
	case c == 0xca, c == 0xcb:
		text := n.print(1)
		if strings.HasPrefix(text, "{") {
			return undo([]byte(text))
		}
		if c == 0xca {
			return float64(math.Float32frombits(binary.BigEndian.Uint32(n.content)))
		}
		return math.Float64frombits(binary.BigEndian.Uint64(n.content))
	}
	i, _ := new(big.Int).SetString(n.print(1), 10)
	return i
}

// canon returns a text that is equal for equal values. If loose, maps are taken as Go's decoders take them: the order
// does not matter, and of repeated keys the last one counts.
func canon(v any, loose bool) string {
	switch v := v.(type) {
	case nil:
		return "nil"
	case bool:
		return fmt.Sprint(v)
	case *big.Int:
		return v.String()
	case float64:
		if v != v && loose {
			return "NaN"
		}
		return fmt.Sprintf("f%x", math.Float64bits(v))
	case nanBits:
		if loose {
			return "NaN"
		}
		return fmt.Sprintf("f%x", uint64(v))
	case string:
		return fmt.Sprintf("%q", v)
	case broken:
		return fmt.Sprintf("%q", string(v))
	case []byte:
		return fmt.Sprintf("bin%x", v)
	case ext:
		return fmt.Sprintf("ext%d:%x", v.t, v.data)
	case a:
		var items []string
		for _, item := range v {
			items = append(items, canon(item, loose))
		}
		return "[" + strings.Join(items, " ") + "]"
	case m:
		var keys []string
		values := map[string]string{}
		for i := 0; i < len(v); i += 2 {
			key := canon(v[i], loose)
			if !loose {
				key = fmt.Sprintf("%06d %s", i, key)
			}
			if _, again := values[key]; !again {
				keys = append(keys, key)
			}
			values[key] = canon(v[i+1], loose)
		}
		slices.Sort(keys)
		for i, key := range keys {
			keys[i] = key + ":" + values[key]
		}
		return "{" + strings.Join(keys, " ") + "}"
	}
	panic(fmt.Sprintf("canon of %T", v))
}
