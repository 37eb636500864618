package record

import (
	"bytes"
	"unicode/utf8"

	"github.com/auditchain/auditchain/chain"
)

// role says where a map stands, as far as audit fields may be in it or below.
type role uint8

const (
	roleNone       role = iota
	roleRecord          // the record itself
	roleMeta            // the metadata
	roleOTLP            // meta.otlp
	roleAttributes      // meta.otlp.attributes
)

// member writes the value at src[i] of the first member with this key of a map that has a role.
func (d *decoder) member(dst, key []byte, i, level int, role role) ([]byte, int) {
	inner := roleNone
	switch {
	case role == roleMeta && string(key) == "otlp":
		inner = roleOTLP
	case role == roleOTLP && string(key) == "attributes":
		inner = roleAttributes
	}
	start, at := len(dst), i
	if inner != roleNone && readHead(d.src, i).kind == kindMap {
		dst, i = d.mapping(dst, i, level, inner)
	} else {
		dst, i = d.value(dst, i, level)
	}
	if i < 0 || role == roleMeta || role == roleOTLP {
		return dst, i
	}
	if set := chain.FieldNamed(key); set != 0 && !empty(dst[start:]) {
		d.missing &^= set
	}
	if role == roleRecord && string(key) == "source" && !bytes.HasPrefix(dst[start:], oddMap) {
		d.source(at)
	}
	return dst, i
}

var oddMap = []byte(`{"` + chain.TagMap + `"`)

// empty reports whether a value is null or the empty string.
func empty(json []byte) bool {
	return string(json) == "null" || string(json) == `""`
}

// source reads {"id":"...","seq":n} off the value at src[i], which has been written. A source without an id, or whose
// seq is not a non-negative integer, is none.
func (d *decoder) source(i int) {
	h := readHead(d.src, i)
	if h.kind != kindMap {
		return
	}
	var id []byte
	var seq uint64
	idSeen, seqSeen, seqOK := false, false, false
	i = h.at
	for range h.n {
		key := readHead(d.src, i)
		value := readHead(d.src, key.at+key.n)
		switch string(d.src[key.at : key.at+key.n]) {
		case "id":
			if !idSeen && value.kind == kindString {
				id = d.src[value.at : value.at+value.n]
			}
			idSeen = true
		case "seq":
			if !seqSeen {
				seq, seqOK = natural(d.src[key.at+key.n:])
			}
			seqSeen = true
		}
		i, _ = skip(d.src, key.at+key.n) // it is well formed: it has been written
	}
	if len(id) > 0 && utf8.Valid(id) && seqOK {
		d.sourceID, d.sourceSeq = id, seq
	}
}

// natural reads a non-negative integer at the begin of b, which holds a whole value.
func natural(b []byte) (u uint64, ok bool) {
	c := b[0]
	if c < 0x80 {
		return uint64(c), true
	}
	if c < 0xcc || c > 0xd3 || c >= 0xd0 && b[1] >= 0x80 { // no integer, or a signed one below zero
		return 0, false
	}
	for _, c := range b[1 : 1+1<<(c&3)] {
		u = u<<8 | uint64(c)
	}
	return u, true
}
