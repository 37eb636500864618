package record

import (
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
	roleSource          // the record's "source": who made it, {"id":"...","seq":n}
)

// of returns the role of a map that is the first member with this key of a map whose role is r.
func (r role) of(key []byte) role {
	switch {
	case r == roleRecord && string(key) == "source":
		return roleSource
	case r == roleMeta && string(key) == "otlp":
		return roleOTLP
	case r == roleOTLP && string(key) == "attributes":
		return roleAttributes
	}
	return roleNone
}

// member writes the value at src[i] of the first member with this key of a map that has a role.
func (d *decoder) member(dst, key []byte, i, level int, role role) ([]byte, int) {
	inner := role.of(key)
	start, at := len(dst), i
	if inner != roleNone && readHead(d.src, i).kind == kindMap {
		dst, i = d.mapping(dst, i, level, inner)
	} else {
		dst, i = d.value(dst, i, level)
	}
	if i < 0 {
		return dst, i
	}
	switch role {
	case roleRecord, roleAttributes:
		if set := chain.FieldNamed(key); set != 0 && !empty(dst[start:]) {
			d.missing &^= set
		}
		if role == roleRecord && string(key) == chain.SourceEventKey {
			d.sourceEvent = chain.IsSourceEvent(dst[start:])
		}
	case roleSource:
		switch string(key) {
		case "id":
			if dst[start] == '"' && !empty(dst[start:]) { // a UTF-8 string
				if id, _ := d.key(at); len(id) <= chain.MaxSourceID {
					d.sourceID = id
				}
			}
		case "seq":
			d.sourceSeq, d.sequenced = natural(d.src[at:])
		}
	}
	return dst, i
}

// empty reports whether a value is null or the empty string.
func empty(json []byte) bool {
	return string(json) == "null" || string(json) == `""`
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
