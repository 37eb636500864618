package chain

import "encoding/binary"

// validUTF8 is utf8.Valid, faster for text in which ASCII and other characters alternate: a state machine that takes
// one table look-up and one shift per byte, without a branch to mispredict.
func validUTF8(s []byte) bool {
	state := uint64(utf8Accept)
	for len(s) >= 8 {
		w := binary.LittleEndian.Uint64(s)
		s = s[8:]
		if w&highBits == 0 && state&63 == utf8Accept {
			continue
		}
		state = utf8Steps[byte(w)] >> (state & 63)
		state = utf8Steps[byte(w>>8)] >> (state & 63)
		state = utf8Steps[byte(w>>16)] >> (state & 63)
		state = utf8Steps[byte(w>>24)] >> (state & 63)
		state = utf8Steps[byte(w>>32)] >> (state & 63)
		state = utf8Steps[byte(w>>40)] >> (state & 63)
		state = utf8Steps[byte(w>>48)] >> (state & 63)
		state = utf8Steps[byte(w>>56)] >> (state & 63)
	}
	for _, c := range s {
		state = utf8Steps[c] >> (state & 63)
	}
	return state&63 == utf8Accept
}

// The states, each a multiple of 6 since it is the place of six bits in the words of utf8Steps.
const (
	utf8Reject = 6 * iota // for good
	utf8Accept            // between characters
	utf8Last              // one byte of 80..bf is missing
	utf8Two               // two are
	utf8Three             // three are
	utf8E0                // two, the first of a0..bf: else it were overlong
	utf8ED                // two, the first of 80..9f: else a surrogate
	utf8F0                // three, the first of 90..bf: else overlong
	utf8F4                // three, the first of 80..8f: else beyond U+10FFFF
)

// utf8Steps holds for each byte the state that follows each state. The table of what may follow what is Unicode's
// "Well-Formed UTF-8 Byte Sequences".
var utf8Steps = func() (steps [256]uint64) {
	set := func(from, to int, state, next uint64) {
		for c := from; c <= to; c++ {
			steps[c] |= next << state
		}
	}
	set(0x00, 0x7f, utf8Accept, utf8Accept)
	set(0xc2, 0xdf, utf8Accept, utf8Last)
	set(0xe0, 0xe0, utf8Accept, utf8E0)
	set(0xe1, 0xec, utf8Accept, utf8Two)
	set(0xed, 0xed, utf8Accept, utf8ED)
	set(0xee, 0xef, utf8Accept, utf8Two)
	set(0xf0, 0xf0, utf8Accept, utf8F0)
	set(0xf1, 0xf3, utf8Accept, utf8Three)
	set(0xf4, 0xf4, utf8Accept, utf8F4)
	set(0x80, 0xbf, utf8Last, utf8Accept)
	set(0x80, 0xbf, utf8Two, utf8Last)
	set(0x80, 0xbf, utf8Three, utf8Two)
	set(0xa0, 0xbf, utf8E0, utf8Last)
	set(0x80, 0x9f, utf8ED, utf8Last)
	set(0x90, 0xbf, utf8F0, utf8Two)
	set(0x80, 0x8f, utf8F4, utf8Two)
	return steps
}()
