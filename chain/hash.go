package chain

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// HashSize is the size of a [Hash] in bytes.
const HashSize = sha256.Size

// Hash is a SHA-256 digest (FIPS 180-4). Its text form, everywhere in the format, is 64 lower-case hex digits.
type Hash [HashSize]byte

// Sum returns the SHA-256 of data.
func Sum(data []byte) Hash { return sha256.Sum256(data) }

// String returns the hash as 64 lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// AppendHex appends the 64 lower-case hex digits of h to dst.
func (h Hash) AppendHex(dst []byte) []byte { return hex.AppendEncode(dst, h[:]) }

// MarshalText implements [encoding.TextMarshaler].
func (h Hash) MarshalText() ([]byte, error) { return h.AppendHex(make([]byte, 0, 2*HashSize)), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. It takes exactly 64 lower-case hex digits.
func (h *Hash) UnmarshalText(text []byte) error {
	parsed, err := ParseHash(text)
	if err != nil {
		return err
	}
	*h = parsed
	return nil
}

// ParseHash reads exactly 64 lower-case hex digits: one hash has one spelling.
func ParseHash(text []byte) (Hash, error) {
	var h Hash
	if len(text) != 2*HashSize {
		return h, fmt.Errorf("hash has %d characters, want %d hex digits", len(text), 2*HashSize)
	}
	bad := byte(0)
	for i := range h {
		hi, lo := unhex[text[2*i]], unhex[text[2*i+1]]
		bad |= hi | lo
		h[i] = hi<<4 | lo
	}
	if bad > 15 {
		return Hash{}, fmt.Errorf("hash %q is not lower-case hex", text)
	}
	return h, nil
}

// unhex is the value of each lower-case hex digit; 0xff for any other byte.
var unhex = func() (values [256]byte) {
	for c := range values {
		values[c] = 0xff
	}
	for i, c := range "0123456789abcdef" {
		values[c] = byte(i)
	}
	return values
}()
