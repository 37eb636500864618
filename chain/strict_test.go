package chain

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestStrictValues: a value has one spelling, and an object each key once.
func TestStrictValues(t *testing.T) {
	many := func(last string) string { // an object with more keys than are compared one by one
		var b strings.Builder
		b.WriteString(`{`)
		for i := range 3 * fewKeys {
			fmt.Fprintf(&b, `"k%d":[{"k1":{}}],`, i)
		}
		return b.String() + last + `:1}`
	}
	for _, good := range []string{
		`{}`, `""`, `{"a":1,"b":{"a":2},"c":[{"a":3},{"a":4}]}`, `[0,-0.0,10,1.5,1e-7,1e+21,-2.5e+10]`, `"\"\\\b\t\n\f\r\u0000\u001f"`,
		`"Zażółć 日本語 😀 \u0001"`, "\"\x7f\"", `{"":1," ":2}`, many(`"last"`), strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth),
	} {
		if end, err := strictValue([]byte(good), 0); err != nil || end != len(good) {
			t.Errorf("%.80s: %d, %v", good, end, err)
		}
	}
	for bad, want := range map[string]error{
		`{"a":1,"a":2}`: errRepeated, `{"x":{"a":1,"b":2,"a":3}}`: errRepeated, `[{"a":{},"a":{}}]`: errRepeated, many(`"k7"`): errRepeated, many(`"k90"`): errRepeated,
		`01`: errNumber, `-`: errNumber, `1.`: errNumber, `1e5`: errNumber, `1e+05`: errNumber, `.5`: errSyntax, `+1`: errSyntax, `1E+5`: nil, `1.2.3`: nil, `-01`: errNumber,
		`"\u0041"`: errSpelling, `"\u000a"`: errSpelling, `"\u001F"`: errSpelling, `"\/"`: errSpelling, `"\x"`: errSpelling, `"\`: errSpelling, `"\u00"`: errSpelling, "\"\n\"": errSpelling,
		"\"\x00\"": errSpelling, "\"\xff\"": errSpelling, "\"abcdefgh\xc3\"": errSpelling, "\"\xed\xa0\x80\"": errSpelling, `{"\u0041":1}`: errSpelling,
		`"abc`: errEnd, `{"a"`: errSyntax, `{"a":`: errEnd, `{1:2}`: errSyntax, `{ }`: errSyntax, `[1, 2]`: errSyntax, `nul`: errSyntax, `[1`: errEnd, `{"a":1]`: errSyntax, ``: errEnd,
		strings.Repeat("[", maxDepth+1): errDepth,
	} {
		end, err := strictValue([]byte(bad), 0)
		if want == nil && err == nil && end < len(bad) { // a value that ends before the text does
			continue
		}
		if err == nil || want != nil && err != want {
			t.Errorf("%.80s: %d, %v, want %v", bad, end, err, want)
		}
	}
}

// TestManyKeys: millions of keys take no longer than their bytes ask for.
func TestManyKeys(t *testing.T) {
	var b strings.Builder
	b.WriteByte('{')
	for i := range 300_000 {
		fmt.Fprintf(&b, `"%d":0,`, i)
	}
	b.WriteString(`"x":0}`)
	start := time.Now()
	if _, err := strictValue([]byte(b.String()), 0); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("%d keys took %s", 300_001, took)
	}
}

// FuzzStrictValue: what is taken is JSON to everybody else, too, and stays what it is when a string of it is written again.
func FuzzStrictValue(f *testing.F) {
	f.Add([]byte(`{"a":[1,-2.5e+10,"\u0001ż",null,true,{}],"b":{"a":{}}}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		end, err := strictValue(data, 0)
		if err != nil {
			return
		}
		if !json.Valid(data[:end]) {
			t.Errorf("%q is taken, and is not JSON", data[:end])
		}
		if data[0] != '"' {
			return
		}
		var s string
		if err := json.Unmarshal(data[:end], &s); err != nil {
			t.Fatal(err)
		}
		if again := AppendString(nil, []byte(s)); string(again) != string(data[:end]) {
			t.Errorf("%q is spelled %q", data[:end], again)
		}
	})
}
