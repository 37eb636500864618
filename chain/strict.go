package chain

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"
)

// maxDepth bounds how deep a value of a line may be nested: 128 levels of a record, and the level that a group puts around them.
const maxDepth = 129

var (
	errEnd      = errors.New("value ends too early")
	errSyntax   = errors.New("not JSON as the format has it")
	errDepth    = errors.New("nested too deep")
	errSpelling = errors.New("a string that is not in its one spelling")
	errNumber   = errors.New("a number that is not spelled as the format does")
	errRepeated = errors.New("a repeated key")
)

// strictValue returns the index after the JSON value that begins at b[i], which must be spelled as docs/FORMAT.md, section 3, says,
// with no key repeated: so that no two readers take two meanings from it. Of numbers it checks the form, not that a float has the
// fewest digits or an integer 64 bits; of tagged forms nothing.
func strictValue(b []byte, i int) (int, error) {
	names := namesPool.Get().(*names)
	defer func() {
		if cap(names.all) <= 1<<16 { // else it goes with the line that needed it
			clear(names.all[:cap(names.all)]) // they hold on to the line
			names.all, names.many = names.all[:0], nil
			namesPool.Put(names)
		}
	}()
	var (
		nest  [maxDepth]byte // '{' or '[' of each open level
		depth int
		err   error
	)
	for {
		// A value begins here.
		if i >= len(b) {
			return 0, errEnd
		}
		switch c := b[i]; {
		case c == '"':
			i, err = strictString(b, i)
		case c == '{' || c == '[':
			if depth == maxDepth {
				return 0, errDepth
			}
			i++
			if i < len(b) && b[i] == c+2 { // '{'+2 == '}', '['+2 == ']'
				i++
				break
			}
			nest[depth], names.first[depth] = c, len(names.all)
			depth++
			if c == '{' {
				if i, err = names.key(b, i, depth-1); err != nil {
					return 0, err
				}
			}
			continue
		case c == '-' || '0' <= c && c <= '9':
			i, err = strictNumber(b, i)
		default:
			n := literal(b[i:])
			if n == 0 {
				return 0, errSyntax
			}
			i += n
		}
		if err != nil {
			return 0, err
		}
		// A value has ended; close what it ends.
		for {
			if depth == 0 {
				return i, nil
			}
			if i >= len(b) {
				return 0, errEnd
			}
			open := nest[depth-1]
			if b[i] == ',' {
				i++
				if open == '{' {
					if i, err = names.key(b, i, depth-1); err != nil {
						return 0, err
					}
				}
				break
			}
			if b[i] != open+2 {
				return 0, errSyntax
			}
			i++
			depth--
			names.all = names.all[:names.first[depth]]
			if names.many != nil {
				delete(names.many, depth)
			}
		}
	}
}

// names are those of the members of the objects that are open.
type names struct {
	all   [][]byte
	first [maxDepth]int               // where in all those of each level begin
	many  map[int]map[string]struct{} // the same of levels with more than fewKeys, by level
}

// fewKeys is how many keys of an object are compared one by one.
const fewKeys = 32

var namesPool = sync.Pool{New: func() any { return new(names) }}

// key returns the index after the key and colon that begin at b[i], of a member of the object at the given level.
func (n *names) key(b []byte, i, level int) (int, error) {
	end, err := strictString(b, i)
	if err != nil {
		return 0, err
	}
	if end >= len(b) || b[end] != ':' {
		return 0, errSyntax
	}
	name := b[i:end]
	if set := n.many[level]; set != nil {
		if _, ok := set[string(name)]; ok {
			return 0, errRepeated
		}
		set[string(name)] = struct{}{}
		return end + 1, nil
	}
	known := n.all[n.first[level]:]
	for _, k := range known {
		if string(k) == string(name) {
			return 0, errRepeated
		}
	}
	n.all = append(n.all, name)
	if len(known) == fewKeys {
		set := make(map[string]struct{})
		for _, k := range n.all[n.first[level]:] {
			set[string(k)] = struct{}{}
		}
		if n.many == nil {
			n.many = make(map[int]map[string]struct{})
		}
		n.many[level] = set
	}
	return end + 1, nil
}

// strictString returns the index after the string whose opening quotation mark is b[i].
func strictString(b []byte, i int) (int, error) {
	if i >= len(b) {
		return 0, errEnd
	}
	if b[i] != '"' {
		return 0, errSyntax
	}
	start := i + 1
	seen := uint64(0)
	for i = start; ; {
		// To the next quotation mark, backslash or control character, eight bytes at a time.
		for i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			seen |= w
			if hits := escapes(w); hits != 0 {
				i += bits.TrailingZeros64(hits) / 8
				goto special
			}
			i += 8
		}
		for ; ; i++ {
			if i >= len(b) {
				return 0, errEnd
			}
			c := b[i]
			seen |= uint64(c)
			if c < 0x20 || c == '"' || c == '\\' {
				break
			}
		}
	special:
		switch b[i] {
		case '"':
			if seen&highBits != 0 && !validUTF8(b[start:i]) {
				return 0, errSpelling
			}
			return i + 1, nil
		case '\\':
			n := escapeLength(b[i:])
			if n == 0 {
				return 0, errSpelling
			}
			i += n
		default:
			return 0, errSpelling
		}
	}
}

// escapeLength returns how long the escape at the begin of b is; 0 if it is none that [AppendString] writes.
func escapeLength(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', 'b', 't', 'n', 'f', 'r':
		return 2
	case 'u':
		if len(b) < 6 || b[2] != '0' || b[3] != '0' || unhex[b[4]] > 1 || unhex[b[5]] > 15 {
			return 0
		}
		switch unhex[b[4]]<<4 | unhex[b[5]] {
		case '\b', '\t', '\n', '\f', '\r':
			return 0
		}
		return 6
	}
	return 0
}

func literal(b []byte) int {
	for _, s := range [...]string{"true", "false", "null"} {
		if len(b) >= len(s) && string(b[:len(s)]) == s {
			return len(s)
		}
	}
	return 0
}

// strictNumber returns the index after the number that begins at b[i].
func strictNumber(b []byte, i int) (int, error) {
	digits := func() (n int) {
		for i < len(b) && '0' <= b[i] && b[i] <= '9' {
			i++
			n++
		}
		return n
	}
	if b[i] == '-' {
		i++
	}
	start := i
	if n := digits(); n == 0 || n > 1 && b[start] == '0' {
		return 0, errNumber
	}
	if i < len(b) && b[i] == '.' {
		i++
		if digits() == 0 {
			return 0, errNumber
		}
	}
	if i < len(b) && b[i] == 'e' {
		i++
		if i >= len(b) || b[i] != '+' && b[i] != '-' {
			return 0, errNumber
		}
		i++
		if i >= len(b) || b[i] == '0' || digits() == 0 {
			return 0, errNumber
		}
	}
	return i, nil
}
