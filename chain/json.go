package chain

import (
	"encoding/base64"
	"unicode/utf8"
)

// Keys of the objects that stand for what JSON cannot say (docs/FORMAT.md, "Values"). A key of a record that looks
// like one of them, after any number of leading "$", is written with one "$" more: see [AppendKey].
const (
	TagBinary = "$bin"   // {"$bin":"<base64>"}: a binary value
	TagExt    = "$ext"   // {"$ext":[<type>,"<base64>"]}: an extension value
	TagString = "$str"   // {"$str":"<base64>"}: a string that is not UTF-8
	TagFloat  = "$float" // {"$float":"NaN"|"Infinity"|"-Infinity"}; a NaN also carries "bits":"<16 hex>"
	TagMap    = "$map"   // {"$map":[[key,value],...]}: a map with a key that is not a UTF-8 string
	TagDup    = "$dup"   // last member of a map with repeated keys: "$dup":[["<key>",value],...]
)

// AppendString appends s as a JSON string, or as {"$str":"<base64>"} if it is not valid UTF-8. Only the quotation mark,
// the backslash and the control characters below U+0020 are escaped, each in its shortest form
// (\b \t \n \f \r, otherwise \u00xx with lower-case hex), so that one string has one spelling.
func AppendString(dst, s []byte) []byte {
	// One pass: plain ASCII is copied in runs; anything from 0x80 on is checked at the end.
	start := len(dst)
	dst = append(dst, '"')
	run := 0
	high := false
	for i, c := range s {
		if plain[c] {
			continue
		}
		if c >= utf8.RuneSelf {
			high = true
			continue
		}
		dst = append(dst, s[run:i]...)
		run = i + 1
		dst = appendEscape(dst, c)
	}
	if high && !utf8.Valid(s) {
		dst = append(dst[:start], `{"`+TagString+`":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, s)
		return append(dst, `"}`...)
	}
	dst = append(dst, s[run:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\t':
		return append(dst, '\\', 't')
	case '\n':
		return append(dst, '\\', 'n')
	case '\f':
		return append(dst, '\\', 'f')
	case '\r':
		return append(dst, '\\', 'r')
	}
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
}

// plain holds the bytes that stand for themselves in a JSON string without a further look.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\'
	}
	return t
}()

// AppendKey appends key, which must be valid UTF-8, as a JSON object key. Where the key is one of the reserved tags with
// any number of leading "$" (at least one), one more "$" is put before it; a reader takes it off again.
func AppendKey(dst, key []byte) []byte {
	if len(key) > 1 && key[0] == '$' && isTag(key) {
		dst = append(dst, '"', '$') // a tag has no character that needs an escape
		dst = append(dst, key...)
		return append(dst, '"')
	}
	return AppendString(dst, key)
}

// isTag reports whether key is one of the reserved tags with any number of further "$" before it.
func isTag(key []byte) bool {
	for len(key) > 1 && key[1] == '$' {
		key = key[1:]
	}
	switch string(key) {
	case TagBinary, TagExt, TagString, TagFloat, TagMap, TagDup:
		return true
	}
	return false
}
