package record

import (
	"encoding/binary"
	"math"
	"math/bits"
	"time"
)

// stamp is what the time of an event says.
type stamp uint8

const (
	stampTime       stamp = iota // a time: of a record
	stampGroupStart              // not a time: the event opens a group
	stampGroupEnd                // not a time: the event closes a group
)

// maxSec and maxNsec are the last time that counts as one: 2262-04-11T23:47:16.854775807Z, since manifests, and whoever
// reads them, count nanoseconds in 64 bits.
const (
	maxSec  = math.MaxInt64 / 1_000_000_000
	maxNsec = math.MaxInt64 % 1_000_000_000
)

// Seconds of the two EventTime values that are no times.
const (
	groupStartSeconds = 0xffffffff
	groupEndSeconds   = 0xfffffffe
)

// readTime reads an event's time at src[i] into d.sec and d.nsec and returns the index behind it, -1 if it cannot.
func (d *decoder) readTime(i int) (stamp, int) {
	if i >= len(d.src) {
		return 0, d.fail(faultTruncated)
	}
	b := d.src[i:]
	switch c := b[0]; {
	case c == 0xd7 && len(b) >= 10 && b[1] == 0: // fixext 8, type 0: EventTime
		s, ok := d.eventTime(b[2:10])
		return s, d.timeEnd(ok, i+10)
	case c == 0xc7 && len(b) >= 11 && b[1] == 8 && b[2] == 0: // ext 8 of 8 bytes, type 0: EventTime
		s, ok := d.eventTime(b[3:11])
		return s, d.timeEnd(ok, i+11)
	case c < 0x80: // positive fixint
		return stampTime, d.timeEnd(d.seconds(uint64(c)), i+1)
	case c >= 0xe0: // negative fixint
		return 0, d.fail(faultTime)
	case c < 0xca || c > 0xd3:
		return 0, d.fail(faultShape)
	}
	h := readHead(d.src, i)
	if h.n > len(d.src)-h.at {
		return 0, d.fail(faultTruncated)
	}
	ok := false
	number := d.src[h.at : h.at+h.n]
	switch b[0] {
	case 0xca:
		ok = d.floatSeconds(float64(math.Float32frombits(binary.BigEndian.Uint32(number))))
	case 0xcb:
		ok = d.floatSeconds(math.Float64frombits(binary.BigEndian.Uint64(number)))
	default:
		var u uint64
		if u, ok = natural(b); ok {
			ok = d.seconds(u)
		}
	}
	return stampTime, d.timeEnd(ok, h.at+h.n)
}

func (d *decoder) timeEnd(ok bool, i int) int {
	if !ok {
		return d.fail(faultTime)
	}
	return i
}

// eventTime takes Fluent Bit's EventTime: seconds and nanoseconds, unsigned and big-endian, four bytes each.
func (d *decoder) eventTime(b []byte) (stamp, bool) {
	d.sec, d.nsec = int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	switch d.sec {
	case groupStartSeconds:
		return stampGroupStart, d.nsec == 0
	case groupEndSeconds:
		return stampGroupEnd, d.nsec == 0
	}
	return stampTime, d.nsec < 1e9
}

// seconds takes a time in whole seconds.
func (d *decoder) seconds(s uint64) bool {
	d.sec, d.nsec = int64(s), 0
	return s <= maxSec
}

// floatSeconds takes a time in seconds, to the nearest nanosecond; of two that are equally near, the later one.
func (d *decoder) floatSeconds(f float64) bool {
	if !(f >= 0 && f < maxSec+1) { // so that NaN is none
		return false
	}
	whole, fraction := math.Modf(f) // exact, both
	d.sec, d.nsec = int64(whole), 0
	if fraction > 0 {
		// fraction = m / 2^shift with m below 2^53, and m * 1e9 fits 128 bits: no rounding but the last.
		m, exponent := math.Frexp(fraction) // 0.5 <= m < 1, exponent <= 0
		shift := uint(53 - exponent)
		hi, lo := bits.Mul64(uint64(m*(1<<53)), 1e9)
		if shift < 128 {
			lo, carry := bits.Add64(lo, half(shift), 0)
			hi, _ := bits.Add64(hi, half(shift-64), carry)
			if shift < 64 {
				d.nsec = int64(hi<<(64-shift) | lo>>shift)
			} else {
				d.nsec = int64(hi >> (shift - 64))
			}
		}
	}
	if d.nsec == 1e9 {
		d.sec, d.nsec = d.sec+1, 0
	}
	return d.sec < maxSec || d.sec == maxSec && d.nsec <= maxNsec
}

// half is the word with the bit below place shift set; 0 if that bit is in another word.
func half(shift uint) uint64 {
	if shift-1 < 64 {
		return 1 << (shift - 1)
	}
	return 0
}

// clock writes times. It keeps the last second it wrote, since the events of a chunk come close together.
type clock struct {
	known bool
	sec   int64
	text  [len(timeStart)]byte
}

const timeStart = `"time":"2006-01-02T15:04:05.`

// appendTime appends the member "time" of d.sec and d.nsec and a comma.
func (d *decoder) appendTime(dst []byte) []byte {
	c := &d.clock
	if !c.known || c.sec != d.sec {
		time.Unix(d.sec, 0).UTC().AppendFormat(c.text[:0], timeStart)
		c.known, c.sec = true, d.sec
	}
	dst = append(dst, c.text[:]...)
	ns := uint32(d.nsec)
	high, low := ns/100000, ns%100000
	dst = append(dst,
		byte('0'+high/1000), byte('0'+high/100%10), byte('0'+high/10%10), byte('0'+high%10),
		byte('0'+low/10000), byte('0'+low/1000%10), byte('0'+low/100%10), byte('0'+low/10%10), byte('0'+low%10),
		'Z', '"', ',')
	return dst
}
