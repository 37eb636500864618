package record

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"
)

// wantEntry is an entry as the reference would have it.
type wantEntry struct {
	kind Kind
	body string
}

// reference decodes chunk.
func reference(chunk []byte) []wantEntry {
	r := &referee{}
	for i := 0; i < len(chunk); {
		n, fault := parseAt(chunk, i)
		end := len(chunk)
		if fault == "" {
			end = n.end
			fault = r.event(n)
		}
		if fault == "not an event" { // and its neighbours
			for end < len(chunk) {
				next, fault := parseAt(chunk, end)
				if fault != "" || next.isArray() && len(next.items) == 2 {
					break
				}
				end = next.end
			}
		}
		if fault != "" {
			data := chunk[i:end]
			sum := sha256.Sum256(data)
			r.add(Quarantine, `"event":"quarantine","detail":{"reason":"%s","offset":%d,"size":%d,"sha256":"%s","data":"%s"}}`,
				fault, i, len(data), hex.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(data))
		}
		i = end
	}
	r.closeGroup()
	return r.entries
}

type referee struct {
	entries []wantEntry
	group   string // what stands behind "group":, with its braces; empty if there is none
	carried bool
}

func (r *referee) add(kind Kind, format string, args ...any) {
	r.entries = append(r.entries, wantEntry{kind, fmt.Sprintf(format, args...)})
}

func (r *referee) closeGroup() {
	if r.group != "" && !r.carried {
		r.add(Group, `"event":"group","detail":%s}`, r.group)
	}
	r.group, r.carried = "", false
}

// event takes one top-level value and returns why it is to be quarantined, if so.
func (r *referee) event(n *node) (fault string) {
	if !n.isArray() || len(n.items) != 2 {
		return "not an event"
	}
	stamp, meta, record := n.items[0], (*node)(nil), n.items[1]
	if stamp.isArray() {
		if len(stamp.items) != 2 {
			return "malformed event"
		}
		stamp, meta = stamp.items[0], stamp.items[1]
	}
	marker := ""
	var text string
	switch c := stamp.first; {
	case (c == 0xd7 || c == 0xc7) && len(stamp.content) == 8 && stamp.ext == 0:
		sec, nsec := binary.BigEndian.Uint32(stamp.content), binary.BigEndian.Uint32(stamp.content[4:])
		switch {
		case sec == 0xffffffff && nsec == 0:
			marker = "start"
		case sec == 0xfffffffe && nsec == 0:
			marker = "end"
		case sec >= 0xfffffffe || nsec >= 1e9:
			return "time out of range"
		}
		text = time.Unix(int64(sec), int64(nsec)).UTC().Format("2006-01-02T15:04:05.000000000Z")
	case c < 0x80, c >= 0xe0, c >= 0xca && c <= 0xd3:
		ns := new(big.Rat)
		switch c {
		case 0xca:
			ns = ns.SetFloat64(float64(math.Float32frombits(binary.BigEndian.Uint32(stamp.content))))
		case 0xcb:
			ns = ns.SetFloat64(math.Float64frombits(binary.BigEndian.Uint64(stamp.content)))
		default:
			ns.SetString(stamp.print(1))
		}
		if ns == nil || ns.Sign() < 0 { // not finite, or negative
			return "time out of range"
		}
		ns.Mul(ns, big.NewRat(1e9, 1)).Add(ns, big.NewRat(1, 2))
		whole := new(big.Int).Div(ns.Num(), ns.Denom()) // rounds down
		if !whole.IsInt64() {
			return "time out of range"
		}
		text = time.Unix(0, whole.Int64()).UTC().Format("2006-01-02T15:04:05.000000000Z")
	default:
		return "malformed event"
	}

	defer func() {
		if p := recover(); p != nil {
			fault = p.(string)
		}
		if fault != "" && marker != "" {
			r.closeGroup()
		}
	}()
	var metaText string
	if meta != nil {
		if !meta.isMap() {
			return "malformed event"
		}
		if len(meta.items) > 0 {
			metaText = `"meta":` + meta.print(1) + ","
		}
	}
	if !record.isMap() {
		return "malformed event"
	}
	recordText := `"record":` + record.print(1) + ","
	if marker == "" {
		group := ""
		if r.group != "" {
			group = `"group":` + r.group + ","
			r.carried = true
		}
		r.add(Record, `"time":"%s",%s}`, text, strings.TrimSuffix(metaText+group+recordText, ","))
		return ""
	}
	if len(record.items) == 0 {
		recordText = ""
	}
	maps := strings.TrimSuffix(metaText+recordText, ",")
	if marker == "end" && maps != "" {
		return "group end with content"
	}
	r.closeGroup()
	if maps != "" {
		r.group = "{" + maps + "}"
	}
	return ""
}
