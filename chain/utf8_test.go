package chain

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// Every sequence of two bytes, and those of up to four whose first byte may begin as many, at two places of a word.
func TestValidUTF8(t *testing.T) {
	check := func(s []byte) {
		for _, lead := range []string{"", "abcdef"} {
			for _, tail := range []string{"", "abcdefgh", "abcdefgh\x82", "abcdefgh\x82\x82"} {
				text := []byte(lead + string(s) + tail)
				if validUTF8(text) != utf8.Valid(text) {
					t.Fatalf("validUTF8(%x) = %v", text, validUTF8(text))
				}
			}
		}
	}
	check(nil)
	edges := []byte{0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xed, 0xf4, 0xff}
	for a := range 256 {
		check([]byte{byte(a)})
		for b := range 256 {
			check([]byte{byte(a), byte(b)})
			if a < 0xe0 {
				continue
			}
			for _, c := range edges {
				check([]byte{byte(a), byte(b), c})
				if a < 0xf0 {
					continue
				}
				for _, d := range edges {
					check([]byte{byte(a), byte(b), c, d})
				}
			}
		}
	}
	for r := range rune(utf8.MaxRune + 1) {
		if utf8.ValidRune(r) && !validUTF8(utf8.AppendRune(nil, r)) {
			t.Fatalf("U+%04X is not valid", r)
		}
	}
}

func BenchmarkValidUTF8(b *testing.B) {
	for name, s := range map[string]string{
		"english":  "The transaction was charged twice, so the customer asked for a refund in a formal tone.\n",
		"polish":   "Zażółć gęślą jaźń: klient prosi o zwrot środków za podwójną opłatę z zeszłego tygodnia.\n",
		"japanese": "日本語の文章を検証します。",
	} {
		text := []byte(strings.Repeat(s, 10<<10/len(s)))
		for which, valid := range map[string]func([]byte) bool{"utf8.Valid": utf8.Valid, "validUTF8": validUTF8} {
			b.Run(name+"/"+which, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					valid(text)
				}
			})
		}
	}
}
