package chain

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// MaxLine is the largest entry line that is written or read, in bytes, without its newline.
const MaxLine = 64 << 20

// ChunkMarker says, in the first entry of each chunk that was delivered, which chunk it was.
type ChunkMarker struct {
	SHA256  Hash   `json:"sha256"`  // of the chunk's bytes as they were delivered
	Entries uint64 `json:"entries"` // how many entries the chunk became, this one included; at least 1
}

// Entry is one line of the log, taken apart. The byte slices alias the line.
type Entry struct {
	Seq      uint64       // dense from 0 over the whole log
	Prev     Hash         // entry hash of the entry before; for seq 0, SHA-256 of the genesis manifest's payload
	Received time.Time    // when the writer took the chunk
	Tag      []byte       // Fluent Bit's tag, as a JSON value
	Chunk    *ChunkMarker // first entry of each delivered chunk only

	// Redelivered: the writer had taken a record of the same source and number before, as far as it remembered.
	Redelivered bool
	// Conflict: that record's bytes were others than this one's, as far as the writer remembered. Only with Redelivered.
	Conflict bool

	Time   time.Time // the event's own time; zero if Event is set
	Meta   []byte    // JSON object, nil if empty
	Group  []byte    // JSON object, nil if empty
	Record []byte    // JSON object, nil if Event is set

	Event  string // what the writer itself has to say; empty for a record
	Detail []byte // JSON object that belongs to Event
}

// Names of the events that the writer puts into the log.
const (
	EventQuarantine  = "quarantine"   // bytes that could not be read as an event
	EventGroup       = "group"        // a group of events that had no event in it
	EventJournalLost = "journal_lost" // the writer lost its journal and goes on from the last committed manifest
)

// AppendEntry appends one entry line without its newline: seq and prev, then middle (see [AppendMiddle]), then, for
// the first entry of a chunk, its marker, then, for a record whose source and number were there before, the marks that say so
// (conflict only with redelivered), then body, which runs from `"time":` or `"event":` to the line's last brace.
func AppendEntry(dst []byte, seq uint64, prev Hash, middle []byte, chunk *ChunkMarker, redelivered, conflict bool, body []byte) []byte {
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, `,"prev":"`...)
	dst = prev.AppendHex(dst)
	dst = append(dst, middle...)
	if chunk != nil {
		dst = append(dst, `"chunk":{"sha256":"`...)
		dst = chunk.SHA256.AppendHex(dst)
		dst = append(dst, `","entries":`...)
		dst = strconv.AppendUint(dst, chunk.Entries, 10)
		dst = append(dst, `},`...)
	}
	if redelivered {
		dst = append(dst, `"redelivered":true,`...)
	}
	if conflict {
		dst = append(dst, `"conflict":true,`...)
	}
	return append(dst, body...)
}

// AppendMiddle appends what all entries of one chunk share: the time at which it was received, and its tag, any bytes.
func AppendMiddle(dst []byte, received time.Time, tag []byte) []byte {
	dst = append(dst, `","received":"`...)
	dst = AppendTime(dst, received)
	dst = append(dst, `","tag":`...)
	dst = AppendString(dst, tag)
	return append(dst, ',')
}

// AppendTime appends t as RFC 3339 in UTC with exactly nine fraction digits: 2026-11-23T07:25:01.000000123Z.
// t must be in the years 0000 to 9999.
func AppendTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, timeLayout)
}

const timeLayout = "2006-01-02T15:04:05.000000000Z"

// ParseTime reads what [AppendTime] writes, and nothing else.
func ParseTime(s []byte) (time.Time, error) {
	if len(s) == len(timeLayout) {
		bad := false
		number := func(from, to int) (n int) {
			for _, c := range s[from:to] {
				d := c - '0'
				bad = bad || d > 9
				n = 10*n + int(d)
			}
			return n
		}
		year, month, day := number(0, 4), number(5, 7), number(8, 10)
		hour, minute, second, nanosecond := number(11, 13), number(14, 16), number(17, 19), number(20, 29)
		punctuated := s[4] == '-' && s[7] == '-' && s[10] == 'T' && s[13] == ':' && s[16] == ':' && s[19] == '.' && s[29] == 'Z'
		if punctuated && !bad && month >= 1 && month <= 12 && day >= 1 && hour < 24 && minute < 60 && second < 60 {
			t := time.Date(year, time.Month(month), day, hour, minute, second, nanosecond, time.UTC)
			if t.Day() == day { // else the month is not that long
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("time %.40q is not RFC 3339 in UTC with nine fraction digits", s)
}

// ParseEntry takes an entry line, without its newline, apart. It insists on the order of keys, on the spelling of strings and
// numbers, and that no key is repeated, so that no two readers take two meanings from a line.
func ParseEntry(line []byte) (Entry, error) {
	if len(line) > MaxLine {
		return Entry{}, fmt.Errorf("entry line has %d bytes, more than the %d allowed", len(line), MaxLine)
	}
	var e Entry
	p := &lineParser{b: line}
	p.want(`{"seq":`)
	e.Seq = p.uint()
	p.want(`,"prev":"`)
	e.Prev = p.hash()
	p.want(`","received":"`)
	e.Received = p.time()
	p.want(`","tag":`)
	e.Tag = p.value()
	if p.has(`,"chunk":{"sha256":"`) {
		e.Chunk = new(ChunkMarker)
		e.Chunk.SHA256 = p.hash()
		p.want(`","entries":`)
		e.Chunk.Entries = p.uint()
		p.want(`}`)
	}
	e.Redelivered = p.has(`,"redelivered":true`)
	e.Conflict = e.Redelivered && p.has(`,"conflict":true`)
	if !e.Redelivered && p.has(`,"event":"`) {
		e.Event = string(p.until('"'))
		p.want(`,"detail":`)
		e.Detail = p.object()
	} else {
		p.want(`,"time":"`)
		e.Time = p.time()
		p.want(`"`)
		if p.has(`,"meta":`) {
			e.Meta = p.object()
		}
		if p.has(`,"group":`) {
			e.Group = p.object()
		}
		p.want(`,"record":`)
		e.Record = p.object()
	}
	p.want(`}`)
	if p.err == nil && p.i != len(line) {
		p.fail("bytes after the entry's end")
	}
	if p.err != nil {
		return Entry{}, p.err
	}
	return e, nil
}

// lineParser walks an entry line. The first error sticks.
type lineParser struct {
	b   []byte
	i   int
	err error
}

func (p *lineParser) fail(what string) {
	if p.err == nil {
		p.err = fmt.Errorf("entry line, byte %d: %s", p.i, what)
	}
}

func (p *lineParser) has(s string) bool {
	if p.err == nil && len(p.b)-p.i >= len(s) && string(p.b[p.i:p.i+len(s)]) == s {
		p.i += len(s)
		return true
	}
	return false
}

func (p *lineParser) want(s string) {
	if !p.has(s) {
		p.fail("want " + s)
	}
}

func (p *lineParser) uint() uint64 {
	if p.err != nil {
		return 0
	}
	start := p.i
	for p.i < len(p.b) && '0' <= p.b[p.i] && p.b[p.i] <= '9' && p.i-start < 21 {
		p.i++
	}
	digits := p.b[start:p.i]
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || (len(digits) > 1 && digits[0] == '0') {
		p.fail("want a number without leading zeros")
	}
	return n
}

func (p *lineParser) hash() Hash {
	if p.err != nil || len(p.b)-p.i < 2*HashSize {
		p.fail("want a hash")
		return Hash{}
	}
	h, err := ParseHash(p.b[p.i : p.i+2*HashSize])
	if err != nil {
		p.fail(err.Error())
	}
	p.i += 2 * HashSize
	return h
}

func (p *lineParser) time() time.Time {
	if p.err != nil || len(p.b)-p.i < len(timeLayout) {
		p.fail("want a time")
		return time.Time{}
	}
	t, err := ParseTime(p.b[p.i : p.i+len(timeLayout)])
	if err != nil {
		p.fail(err.Error())
	}
	p.i += len(timeLayout)
	return t
}

// until returns the bytes before the next c and steps over c.
func (p *lineParser) until(c byte) []byte {
	if p.err != nil {
		return nil
	}
	n := bytes.IndexByte(p.b[p.i:], c)
	if n < 0 {
		p.fail("unterminated string")
		return nil
	}
	s := p.b[p.i : p.i+n]
	if end, err := strictString(p.b, p.i-1); err != nil || end != p.i+n+1 || bytes.IndexByte(s, '\\') >= 0 {
		p.fail("a name that is not in its one spelling")
		return nil
	}
	p.i += n + 1
	return s
}

func (p *lineParser) value() []byte {
	if p.err != nil {
		return nil
	}
	end, err := strictValue(p.b, p.i)
	if err != nil {
		p.fail(err.Error())
		return nil
	}
	v := p.b[p.i:end]
	p.i = end
	return v
}

func (p *lineParser) object() []byte {
	if p.err == nil && (p.i >= len(p.b) || p.b[p.i] != '{') {
		p.fail("want an object")
	}
	return p.value()
}

// skipValue returns the index after the JSON value that begins at b[i], which strictValue has passed over before.
func skipValue(b []byte, i int) (int, error) {
	for depth := 0; i < len(b); {
		switch b[i] {
		case '"':
			var err error
			if i, err = skipString(b, i); err != nil {
				return 0, err
			}
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ',', ':': // only within an object or array
			i++
			continue
		default: // a number or a literal, up to what follows it
			for i++; i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']'; i++ {
			}
		}
		if depth <= 0 {
			return i, nil
		}
	}
	return 0, errEnd
}

// skipString returns the index after the string whose opening quotation mark is b[i].
func skipString(b []byte, i int) (int, error) {
	i++
	for {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return 0, errEnd
		}
		end := i + n
		back := end
		for back > i && b[back-1] == '\\' {
			back--
		}
		i = end + 1
		if (end-back)%2 == 0 {
			return i, nil
		}
	}
}

// skipKey returns the index after the key and colon that begin at b[i].
func skipKey(b []byte, i int) (int, error) {
	if i >= len(b) {
		return 0, errEnd
	}
	if b[i] != '"' {
		return 0, errSyntax
	}
	i, err := skipString(b, i)
	if err != nil {
		return 0, err
	}
	if i >= len(b) || b[i] != ':' {
		return 0, errSyntax
	}
	return i + 1, nil
}

// members calls visit with each key (without its quotation marks, escapes as they stand) and value of the object obj.
// It stops early when visit returns false.
func members(obj []byte, visit func(key, value []byte) bool) error {
	if len(obj) < 2 || obj[0] != '{' {
		return errSyntax
	}
	for i := 1; i < len(obj) && obj[i] != '}'; {
		keyEnd, err := skipKey(obj, i)
		if err != nil {
			return err
		}
		end, err := skipValue(obj, keyEnd)
		if err != nil {
			return err
		}
		if !visit(obj[i+1:keyEnd-2], obj[keyEnd:end]) {
			return nil
		}
		i = end
		if i < len(obj) && obj[i] == ',' {
			i++
		}
	}
	return nil
}

// Member returns the value, as raw JSON, of the member of the object obj whose key is spelled name; nil if there is none.
func Member(obj []byte, name string) []byte {
	var found []byte
	// A broken object has no members that could be told.
	_ = members(obj, func(key, value []byte) bool {
		if string(key) == name {
			found = value
		}
		return found == nil
	})
	return found
}
