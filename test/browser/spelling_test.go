package browser

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
)

// spelling is an entry's line from "tag": on.
type spelling struct {
	name, rest string
	ok         bool
}

// spellings are lines that say what they say as docs/FORMAT.md, sections 2 and 3, has it, and lines that say it otherwise.
func spellings() []spelling {
	const time = `"time":"2026-11-23T07:25:01.000000000Z",`
	var all []spelling
	add := func(ok bool, rest ...string) {
		for _, r := range rest {
			all = append(all, spelling{fmt.Sprintf("%.60q", r), r, ok})
		}
	}
	record := func(ok bool, values ...string) {
		for _, v := range values {
			all = append(all, spelling{fmt.Sprintf("value %.60q", v), `"tag":"t",` + time + `"record":{"a":` + v + `}}`, ok})
		}
	}
	var plain, control strings.Builder
	for c := rune(0x20); c < 0x3000; c++ {
		if c != '"' && c != '\\' {
			plain.WriteRune(c)
		}
	}
	for c := range 0x20 {
		if !strings.ContainsRune("\b\t\n\f\r", rune(c)) {
			fmt.Fprintf(&control, `\u%04x`, c)
		}
	}
	nested := func(brackets string, n int) string {
		return strings.Repeat(brackets[:len(brackets)/2], n) + strings.Repeat(brackets[len(brackets)/2:], n)
	}

	record(true, `""`, `"`+plain.String()+`"`, "\"\uffff\ufffd\ufeff\U0001f600\U0010ffff\"", `"`+control.String()+`"`, `"\"\\\b\t\n\f\r"`, `"\\u0041\\"`,
		`0`, `-0`, `7`, `-120`, `18446744073709551616`, `0.0`, `-0.5`, `1e+21`, `1.5e-7`, `1e+400`, `null`, `true`, `false`, `[]`, `{}`, `[0,"",null]`,
		`{"b":{"a":1},"c":[{"a":1},{"a":1}],"a":1,"":2,"A":3}`, `{"a":1,"$dup":[["a",2]]}`, nested("[]", 128), nested(`{"":`+"0}", 1), `[`+nested("[]", 126)+`,{}]`)
	record(false, ``, `"`, `"a`, `"\"`, `"\/"`, `"\u0041"`, `"\u001B"`, `"\u0008"`, `"\u0009"`, `"\u000a"`, `"\u000c"`, `"\u000d"`, `"\u0020"`, `"\u2028"`,
		`"\ud800"`, `"\ud83d\ude00"`, `"\u00"`, `"\u001"`, `"\U0001"`, `"\x01"`, `"\'"`, `"\v"`, `"\0"`, "\"\x00\"", "\"\t\"", "\"\n\"", "\"\x1f\"",
		"\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "\"\xf0\x9f\x98\"",
		`00`, `01`, `-01`, `-`, `+1`, `.5`, `1.`, `1.e+1`, `1E+21`, `1e21`, `1e+021`, `1e-07`, `1e+`, `1e+0`, `0x1`, `1_0`, `NaN`, `Infinity`, `1+1`, `--1`, `1-`,
		`nul`, `nulll`, `True`, `undefined`, `'a'`, ` 1`, `1 `, "1\n", `[ ]`, `[1, 2]`, `{ }`, `[1,]`, `[,1]`, `[1`, `1]`, `{"b":1,}`, `{"b"}`, `{"b":}`, `{b:1}`, `{"b" :1}`,
		`{"b": 1}`, `{1:1}`, `{"b":1]`, `[1}`, `/**/1`, `{"b":1,"b":1}`, `{"b":1,"c":2,"b":3}`, `{"":1,"":2}`, `1,"a":2`, `{"\n":1,"\n":2}`, `{"b":1,"\u0062":2}`,
		`[{"a":{"c":1,"c":1}}]`, `{"$dup":[],"$dup":[]}`, "{\"ł\":1,\"ł\":2}", `{"b":{"c":[1,{"d":1}]},"b":2}`, nested("[]", 129), nested(`{"":`+"0}", 1)+`}`,
		manyKeys(1000, 999), manyKeys(1000, 0), `{"`+strings.Repeat("k", 20_000)+`":1,"`+strings.Repeat("k", 20_000)+`":2}`)
	record(true, manyKeys(1000, -1), `{"`+strings.Repeat("k", 20_000)+`":1,"`+strings.Repeat("k", 20_001)+`":2,"`+strings.Repeat("k", 19_000)+`":3}`)

	add(true,
		`"tag":{"$str":"Y2Fm6Q=="},`+time+`"record":{}}`,
		`"tag":"\u001f",`+time+`"meta":{"a":1},"group":{"meta":{"a":1},"record":{"a":1}},"record":{"a":1}}`,
		`"tag":"","event":"group","detail":{"meta":{"a":1},"record":{"a":1}}}`,
		"\"tag\":\"\",\"event\":\"pr\u00fcfung\",\"detail\":{}}",
		`"tag":"t",`+time+`"group":{"record":`+strings.Repeat(`{"a":`, 127)+"{}"+strings.Repeat("}", 127)+`},"record":{}}`)
	add(false,
		`"tag":"\u001F",`+time+`"record":{}}`,
		`"tag":{"$str":"Y2Fm6Q==","$str":""},`+time+`"record":{}}`,
		`"tag": "t",`+time+`"record":{}}`,
		`"tag":"t",`+time+`"meta":{"a":1,"a":1},"record":{}}`,
		`"tag":"t",`+time+`"meta":{"a":"\/"},"record":{}}`,
		`"tag":"t",`+time+`"meta":{"a":01},"record":{}}`,
		`"tag":"t",`+time+`"meta":{"a":1},"meta":{"a":1},"record":{}}`,
		`"tag":"t",`+time+`"group":{"record":{"a":1,"a":1}},"record":{}}`,
		`"tag":"t",`+time+`"group":{"record":{"a":1},"record":{"a":1}},"record":{}}`,
		`"tag":"t",`+time+`"group":{"record":{"a":1 }},"record":{}}`,
		`"tag":"t",`+time+`"record":{"a":1},"record":{"a":1}}`,
		`"tag":"t",`+time+`"record":{"a":1,"a":1}}`,
		`"tag":"t",`+time+`"record":[]}`,
		`"tag":"","event":"a\"b","detail":{}}`,
		`"tag":"","event":"a\nb","detail":{}}`,
		"\"tag\":\"\",\"event\":\"a\x01b\",\"detail\":{}}",
		"\"tag\":\"\",\"event\":\"a\xffb\",\"detail\":{}}",
		`"tag":"","event":"a","detail":{"a":1,"a":1}}`,
		`"tag":"","event":"a","detail":{"a":"\u0061"}}`,
		`"tag":"","event":"a","detail":{"a":1e5}}`)
	return all
}

// manyKeys is an object of n members, the last of which has the key of another one, or none of them (-1).
func manyKeys(n, again int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%x":0`, i)
	}
	if again >= 0 {
		fmt.Fprintf(&b, `,"%x":0`, again)
	}
	return "{" + b.String()[1:] + "}"
}

// respell puts another end to an entry's line.
func respell(t testing.TB, line []byte, rest string) []byte {
	before, _, ok := bytes.Cut(line, []byte(`"tag":`))
	if !ok {
		t.Fatalf("no tag in %.200q", line)
	}
	return append(bytes.Clone(before), rest...)
}

// TestSpelling: the page refuses every line that is not spelled as the format has it, as package chain does.
func TestSpelling(t *testing.T) {
	b := newTab(t)
	s := specimens(t)[1]
	for _, c := range spellings() {
		t.Run(c.name, func(t *testing.T) {
			b := b.in(t)
			e := *s.evidence()
			e.Entry = respell(t, e.Entry, c.rest)
			if _, err := chain.ParseEntry(e.Entry); (err == nil) != c.ok {
				t.Errorf("package chain says %v", err)
			}
			if r := b.load(render(t, &e)); (r.Steps["entry"] == "ok") != c.ok || r.State != "changed" {
				t.Errorf("the page says %q of the entry, and is %q", r.Steps["entry"], r.State)
			}
		})
	}
}

// TestManyKeys: a line does not keep the page busy for long, however many keys it has and however long they are.
func TestManyKeys(t *testing.T) {
	b := newTab(t)
	s := specimens(t)[1]
	size := 8 << 20
	if os.Getenv("AUDITCHAIN_LONG") == "1" {
		size = 56 << 20
	}
	long := func(again bool) string {
		var o strings.Builder
		key := strings.Repeat("k", 20_000)
		for i := range size / len(key) {
			fmt.Fprintf(&o, `,"%s%06d":0`, key, i)
		}
		if again {
			fmt.Fprintf(&o, `,"%s%06d":0`, key, 7)
		}
		return "{" + o.String()[1:] + "}"
	}
	const before = `"tag":"t","time":"2026-11-23T07:25:01.000000000Z","record":`
	for _, c := range []struct{ name, record, want string }{
		{"short", manyKeys(size/10, -1), "ok"},
		{"short repeated", manyKeys(size/10, 7), "bad"},
		{"long", long(false), "ok"},
		{"long repeated", long(true), "bad"},
		{"small objects", `{"a":[{"a":0}` + strings.Repeat(`,{"a":0}`, size/8) + `]}`, "ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := b.in(t)
			e := *s.evidence()
			e.Entry = respell(t, e.Entry, before+c.record+"}")
			if r := b.load(render(t, &e)); r.Steps["entry"] != c.want {
				t.Errorf("the page says %q of the entry, want %q", r.Steps["entry"], c.want)
			}
		})
	}
	shown := s.log
	shown.Segment(before[strings.Index(before, `"time"`):] + strings.Replace(manyKeys(size/10, -1), `"0":0`, `"request_id":"among many"`, 1) + "}")
	r := b.load(render(t, shown.Evidence(shown.Head.NextSeq-1)))
	if record := b.textOf("#record"); r.State != "genuine" || !strings.Contains(record, "among many") {
		t.Errorf("a genuine record of many keys is %q, and shown as %.300s", r.State, record)
	}
}

// TestEvidenceLimits: the lists of evidence have an end, as in package chain.
func TestEvidenceLimits(t *testing.T) {
	b := newTab(t)
	s := specimens(t)[1]
	objects := func(n int) func(e *chain.Evidence) {
		return func(e *chain.Evidence) { e.Objects = append(make([]chain.StoredObject, n-2), e.Objects...) }
	}
	keys := func(n int) func(e *chain.Evidence) {
		return func(e *chain.Evidence) { e.Keys = append(e.Keys, make([][]byte, n-1)...) }
	}
	for _, c := range []struct {
		name        string
		change      func(e *chain.Evidence)
		read        bool
		state, step string
	}{
		{"100 objects", objects(100), true, "genuine", "ok"},
		{"101 objects", objects(101), false, "changed", ""},
		{"10000 keys", keys(10_000), true, "changed", "bad"},
		{"10001 keys", keys(10_001), false, "changed", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := b.in(t)
			e := *s.evidence()
			c.change(&e)
			data, err := e.JSON()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := chain.ParseEvidence(data); (err == nil) != c.read {
				t.Errorf("package chain says %v", err)
			}
			if r := b.load(render(t, &e)); r.State != c.state || r.Steps["keys"] != c.step {
				t.Errorf("the page is %q, and says %q of the keys", r.State, r.Steps["keys"])
			}
		})
	}
}
