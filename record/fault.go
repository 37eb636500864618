package record

import "strconv"

// fault is why bytes are quarantined.
type fault uint8

const (
	faultNone      fault = iota
	faultStray           // a value that is not an array of two elements
	faultShape           // an array of two elements that are not a header and a map
	faultTime            // a time of the right type that no entry can have
	faultDeep            // JSON nested deeper than maxLevel
	faultLarge           // a body larger than MaxBody
	faultEnd             // a group's end marker that carries something
	faultTruncated       // the value does not end within the chunk
	faultByte            // 0xc1, which msgpack never uses
	faults

	// faultOdd never gets out of Batch.event: a map turned out to have a key that is not a UTF-8 string.
	faultOdd = faults
)

// reasons are the texts in quarantine entries. They are part of the format.
var reasons = [faults]string{
	faultStray:     "not an event",
	faultShape:     "malformed event",
	faultTime:      "time out of range",
	faultDeep:      "nested too deep",
	faultLarge:     "entry too large",
	faultEnd:       "group end with content",
	faultTruncated: "truncated",
	faultByte:      "invalid byte",
}

// Reasons says in one line how many quarantine entries the batch has and why: "2 quarantined (1 not an event, 1
// truncated)". It is empty if there are none.
func (b *Batch) Reasons() string {
	if b.Quarantined == 0 {
		return ""
	}
	text := strconv.AppendInt(nil, int64(b.Quarantined), 10)
	text = append(text, " quarantined "...)
	separator := "("
	for f, n := range b.reasons {
		if n > 0 {
			text = append(text, separator...)
			text = strconv.AppendInt(text, int64(n), 10)
			text = append(text, ' ')
			text = append(text, reasons[f]...)
			separator = ", "
		}
	}
	return string(append(text, ')'))
}
