package chain

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAppendString(t *testing.T) {
	for in, want := range map[string]string{
		"":                       `""`,
		"a":                      `"a"`,
		"llama-3-8b-instruct":    `"llama-3-8b-instruct"`,
		`he said "hi" \ back`:    `"he said \"hi\" \\ back"`,
		"\b\t\n\f\r\v\x00\x1f":   `"\b\t\n\f\r\u000b\u0000\u001f"`,
		"\x7f/<>&'\u2028\u2029":  "\"\x7f/<>&'\u2028\u2029\"",
		"Zażółć gęślą jaźń":      `"Zażółć gęślą jaźń"`,
		"日本語 😀":                  `"日本語 😀"`,
		"\ufffd\ufeff\U0010ffff": "\"\ufffd\ufeff\U0010ffff\"",
		"caf\xe9":                `{"$str":"Y2Fm6Q=="}`,
		"\xed\xa0\x80":           `{"$str":"7aCA"}`,     // a surrogate
		"\xc0\xaf":               `{"$str":"wK8="}`,     // overlong
		"\xf4\x90\x80\x80":       `{"$str":"9JCAgA=="}`, // beyond U+10FFFF
		"12345678\"\xff\n":       `{"$str":"MTIzNDU2Nzgi/wo="}`,
	} {
		if got := string(AppendString([]byte("x"), []byte(in))); got != "x"+want {
			t.Errorf("AppendString(%q) = %s, want x%s", in, got, want)
		}
	}
}

// naiveString is AppendString, byte by byte.
func naiveString(s []byte) string {
	if !utf8.Valid(s) {
		return `{"$str":"` + base64.StdEncoding.EncodeToString(s) + `"}`
	}
	short := map[byte]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\t': `\t`, '\n': `\n`, '\f': `\f`, '\r': `\r`}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case short[c] != "":
			b.WriteString(short[c])
		case c < 0x20:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func checkString(t *testing.T, s []byte) {
	t.Helper()
	want := naiveString(s)
	if got := string(AppendString(nil, s)); got != want {
		t.Fatalf("AppendString(%q)\n got %s\nwant %s", s, got, want)
	}
	// Into a buffer with room and old bytes in it.
	dirty := bytes.Repeat([]byte{0xaa}, 6*len(s)+16)
	if got := string(AppendString(dirty[:3], s)[3:]); got != want {
		t.Fatalf("AppendString into a used buffer: %q\n got %s\nwant %s", s, got, want)
	}
	var back string
	if utf8.Valid(s) {
		if err := json.Unmarshal([]byte(want), &back); err != nil || back != string(s) {
			t.Fatalf("encoding/json reads %q as %q, %v", s, back, err)
		}
	}
}

// Every byte at every place of short strings, alone and beside a neighbour that could borrow from it.
func TestAppendStringEveryByte(t *testing.T) {
	for size := 1; size <= 20; size++ {
		s := make([]byte, size)
		for at := range size {
			for c := range 256 {
				for _, fill := range []byte{'a', 0x20, 0x21, '#', '[', ']', 0x7f, 0x00, '"'} {
					for i := range s {
						s[i] = fill
					}
					s[at] = byte(c)
					checkString(t, s)
				}
			}
		}
	}
}

func TestAppendStringRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	alphabets := [][]rune{
		[]rune("abcdefghijklmnop "), []rune("ab\"\\\n"), []rune("zażółć gęślą jaźń\n"), []rune("日本語\u07ff\u0800\uffff😀\""), {0, 0x1f, 0x20, 0x7f, 0x80},
	}
	for range 20000 {
		alphabet := alphabets[rng.IntN(len(alphabets))]
		var b []byte
		for range rng.IntN(60) {
			b = utf8.AppendRune(b, alphabet[rng.IntN(len(alphabet))])
		}
		if len(b) > 0 && rng.IntN(3) == 0 {
			b[rng.IntN(len(b))] = byte(rng.UintN(256))
		}
		checkString(t, b)
	}
}

func TestAppendKey(t *testing.T) {
	for in, want := range map[string]string{
		"":             `""`,
		"$":            `"$"`,
		"$$":           `"$$"`,
		"$bin":         `"$$bin"`,
		"$ext":         `"$$ext"`,
		"$str":         `"$$str"`,
		"$float":       `"$$float"`,
		"$map":         `"$$map"`,
		"$dup":         `"$$dup"`,
		"$$bin":        `"$$$bin"`,
		"$$$$$$$$$dup": `"$$$$$$$$$$dup"`,
		"$binary":      `"$binary"`,
		"$$other":      `"$$other"`,
		"bin":          `"bin"`,
		"a$bin":        `"a$bin"`,
		"$bin\n":       `"$bin\n"`,
		"request_id":   `"request_id"`,
	} {
		if got := string(AppendKey(nil, []byte(in))); got != want {
			t.Errorf("AppendKey(%q) = %s, want %s", in, got, want)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add([]byte("Zażółć \"gęślą\"\n\x00 日本語"))
	f.Add([]byte("caf\xe9 123456789"))
	f.Fuzz(func(t *testing.T, s []byte) { checkString(t, s) })
}

func BenchmarkAppendString(b *testing.B) {
	english := "The transaction was charged twice, so the customer asked for a refund in a formal tone.\n"
	polish := "Zażółć gęślą jaźń: klient prosi o zwrot środków za podwójną opłatę z zeszłego tygodnia.\n"
	for _, c := range []struct{ name, s string }{
		{"key", "request_id"},
		{"hash", strings.Repeat("9f86d081884c7d65", 4)},
		{"english-10K", strings.Repeat(english, 10<<10/len(english))},
		{"polish-10K", strings.Repeat(polish, 10<<10/len(polish))},
		{"japanese-10K", strings.Repeat("日本語の文章を検証します。", 10<<10/39)},
		{"json-10K", strings.Repeat(`{"n":1,"text":"quoted"},`, 10<<10/24)},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := []byte(c.s)
			dst := AppendString(nil, s)
			b.SetBytes(int64(len(s)))
			b.ReportAllocs()
			for b.Loop() {
				dst = AppendString(dst[:0], s)
			}
		})
	}
}
