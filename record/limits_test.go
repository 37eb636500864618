package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/record/recordtest"
)

// nested returns v inside of n arrays or maps.
func nested(n int, v any, wrap func(v any) any) any {
	for range n {
		v = raw(hexOf(pack(wrap(v))))
	}
	return v
}

func TestDepth(t *testing.T) {
	array := func(v any) any { return a{v} }
	plain := func(v any) any { return m{"k", v} }
	odd := func(v any) any { return m{1, v} }
	repeat := func(v any) any { return m{"k", 1, "k", v} }
	var b Batch
	for _, c := range []struct {
		name string
		wrap func(any) any
		leaf any
		most int // how many may be around the leaf, besides the record {"v":...}
	}{
		{"arrays", array, 1, 127},
		{"maps", plain, 1, 127},
		{"empty array", array, a{}, 126},
		{"empty map", plain, m{}, 126},
		{"binary", array, []byte("x"), 126},
		{"text that is not UTF-8", plain, "\xff", 126},
		{"NaN", plain, raw("cb 7ff8000000000000"), 126},
		{"infinity", plain, raw("cb 7ff0000000000000"), 126},
		{"extension", array, ext{1, "x"}, 125},
		{"odd map", array, m{1, 2}, 124}, // three levels
		{"repeated key", plain, m{"k", 1, "k", 2}, 124},
		{"odd maps", odd, 1, 42},
		{"odd maps and an array", odd, a{}, 42},
		{"odd maps and two arrays", odd, a{a{}}, 41},
		{"repeated keys", repeat, 1, 42},
	} {
		for _, n := range []int{c.most, c.most + 1, c.most + 2, 200, 1000} {
			v := m{"v", nested(n, c.leaf, c.wrap)}
			for where, chunk := range map[string][]byte{"record": event(v), "metadata": pack(a{a{at, v}, m{}})} {
				check(t, &b, chunk)
				if want := min(1, max(0, n-c.most)); b.Quarantined != want || b.Records != 1-want {
					t.Errorf("%s, %d deep in the %s: %d records, %s", c.name, n, where, b.Records, b.Reasons())
				}
			}
		}
	}
	// In a group's maps and in metadata the count begins anew.
	deep := m{"v", nested(127, 1, array)}
	check(t, &b, pack(a{a{groupStart, deep}, deep}, a{a{at, deep}, deep}, a{a{groupStart, deep}, deep}))
	if b.Records != 1 || b.Groups != 1 || b.Quarantined != 0 {
		t.Errorf("deep everywhere: %d records, %d groups, %s", b.Records, b.Groups, b.Reasons())
	}
}

// A million levels take no more memory than one, and what follows is read.
func TestVeryDeep(t *testing.T) {
	chunk := pack(raw("92"), at, raw("81a176"))
	chunk = append(chunk, bytes.Repeat([]byte{0x91}, 1<<20)...)
	chunk = append(chunk, pack(1, a{at, m{}})...)
	var b Batch
	b.Decode(chunk)
	if got := bodies(&b); b.Records != 1 || b.Quarantined != 1 || !strings.Contains(got[0], `"nested too deep","offset":0,"size":1048591`) {
		t.Errorf("%d records, %s", b.Records, b.Reasons())
	}
}

func TestLargeRecord(t *testing.T) {
	if racing {
		t.Skip("without the race detector")
	}
	text := strings.Repeat("Zażółć gęślą jaźń\n", 30<<20/25)
	var b Batch
	b.Decode(event(m{"request_id", "r", "prompt", text}))
	if b.Records != 1 || b.Quarantined != 0 {
		t.Fatal(b.Records, b.Reasons())
	}
	var line struct{ Record struct{ Prompt string } }
	if err := json.Unmarshal([]byte("{"+bodies(&b)[0]), &line); err != nil || line.Record.Prompt != text {
		t.Error("30 MB of text did not survive", err)
	}
}

// A body may have exactly MaxBody bytes.
func TestMaxBody(t *testing.T) {
	if racing {
		t.Skip("without the race detector")
	}
	frame := len(rec(`{"v":""}`))
	var b Batch
	for _, c := range []struct {
		text    string
		records int
	}{
		{strings.Repeat("a", MaxBody-frame), 1},
		{strings.Repeat("a", MaxBody-frame+1), 0},
		{strings.Repeat("\x01", (MaxBody-frame)/6), 1}, // six bytes each
		{strings.Repeat("\x01", (MaxBody-frame)/6+1), 0},
		{"\xff" + strings.Repeat("a", MaxBody/4*3-100), 1}, // as base64
		{"\xff" + strings.Repeat("a", MaxBody/4*3), 0},
	} {
		chunk := append(event(m{"v", c.text}), event(m{"a", 1})...)
		b.Decode(chunk)
		got := bodies(&b)
		if b.Records != c.records+1 || got[len(got)-1] != rec(`{"a":1}`) {
			t.Fatalf("%d bytes: %d records, %s", len(c.text), b.Records, b.Reasons())
		}
		for _, body := range got {
			if len(body) > MaxBody {
				t.Fatalf("body of %d bytes", len(body))
			}
		}
		if c.records == 0 {
			checkParts(t, got[:len(got)-1], "entry too large", chunk[:len(chunk)-len(event(m{"a", 1}))])
		}
	}
}

// checkParts holds quarantine entries against the bytes that they must carry.
func checkParts(t *testing.T, got []string, reason string, want []byte) {
	t.Helper()
	var data []byte
	for i, body := range got {
		var q struct {
			Detail struct {
				Reason                    string
				Offset, Size, Part, Parts int
				Data                      []byte
			}
		}
		if err := json.Unmarshal([]byte("{"+body), &q); err != nil {
			t.Fatal(err)
		}
		d := q.Detail
		part, parts := i+1, len(got)
		if parts == 1 {
			part, parts = 0, 0
		}
		if d.Reason != reason || d.Offset != len(data) || d.Size != len(d.Data) || d.Part != part || d.Parts != parts || len(body) > chain.MaxLine {
			t.Errorf("part %d: %.150s", i+1, body)
		}
		data = append(data, d.Data...)
	}
	if !bytes.Equal(data, want) {
		t.Errorf("%d bytes in quarantine, want %d", len(data), len(want))
	}
}

func TestQuarantineInParts(t *testing.T) {
	if racing {
		t.Skip("without the race detector")
	}
	var b Batch
	for _, size := range []int{maxQuarantine, maxQuarantine + 1, 2*maxQuarantine + 5} {
		chunk := bytes.Repeat([]byte{0xc1, 1, 2, 3, 4, 5, 6}, size/7+1)[:size]
		b.Decode(chunk)
		checkParts(t, bodies(&b), "invalid byte", chunk)
	}
}

func TestMillionKeys(t *testing.T) {
	if racing {
		t.Skip("without the race detector")
	}
	for _, c := range []struct{ name, format string }{
		{"ordinary", "key %d"},
		{"equal at both ends", "a long beginning %07d and a long end"},
	} {
		const n = 1 << 20
		all := make(m, 0, 2*n+4)
		for i := range n {
			all = append(all, fmt.Sprintf(c.format, i), i)
		}
		all = append(all, fmt.Sprintf(c.format, 5), "again", fmt.Sprintf(c.format, n-1), "again")
		chunk := event(all)
		var b Batch
		start := time.Now()
		b.Decode(chunk)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: took %v", c.name, took)
		}
		want := fmt.Sprintf(`,"$dup":[[%q,"again"],[%q,"again"]]}}`, fmt.Sprintf(c.format, 5), fmt.Sprintf(c.format, n-1))
		if b.Records != 1 || !strings.HasSuffix(bodies(&b)[0], want) {
			t.Errorf("%s: %d records, ends in %s", c.name, b.Records, b.Bodies[len(b.Bodies)-200:])
		}
	}
}

// Large maps in large maps, each with a table on top of the other's, and repeated keys before and behind.
func TestLargeMapsInLargeMaps(t *testing.T) {
	inner := any(1)
	for level := range 6 {
		var all m
		for i := range 100 {
			all = append(all, fmt.Sprint("k", i), i)
			if i == 20*level {
				all = append(all, "inner", inner, "k0", inner)
			}
		}
		inner = raw(hexOf(pack(append(all, "k99", "again", "inner", "again"))))
	}
	var b Batch
	check(t, &b, event(m{"v", inner}))
	if b.Records != 1 {
		t.Error(b.Reasons())
	}
}

// The copies of a group in its records are bounded.
func TestLargeGroup(t *testing.T) {
	if racing {
		t.Skip("without the race detector")
	}
	head := pack(a{a{groupStart, m{"schema", "otlp"}}, m{"text", strings.Repeat("x", 10<<20)}})
	one := pack(a{at, m{"a", 1}})
	chunk := append(head, bytes.Repeat(one, 10000)...)
	var b Batch
	b.Decode(chunk)
	got := bodies(&b)
	if b.Records != 10000 || b.Groups != 1 || b.Quarantined != 0 || len(b.Bodies) > 50<<20 {
		t.Fatalf("%d records, %d groups, %s, %d bytes", b.Records, b.Groups, b.Reasons(), len(b.Bodies))
	}
	detail := `{"meta":{"schema":"otlp"},"record":{"text":"` + strings.Repeat("x", 10<<20) + `"}}`
	full := rec(`{"a":1}`)
	full = strings.Replace(full, `"record"`, `"group":`+detail+`,"record"`, 1)
	brief := rec(`{"a":1}`)
	brief = strings.Replace(brief, `"record"`, fmt.Sprintf(`"group":{"sha256":"%x"},"record"`, sha256.Sum256([]byte(detail))), 1)
	for i, body := range got {
		want := brief
		switch {
		case i < 3:
			want = full
		case i == 3:
			want = `"event":"group","detail":` + detail + `}`
		}
		if body != want {
			t.Fatalf("entry %d: %.200s", i, body)
		}
	}
	// Groups that follow, and chunks, are none the worse.
	b.Decode(chunk)
	if !slices.Equal(bodies(&b), got) {
		t.Error("the same chunk again becomes something else")
	}
	b.Decode(append(chunk, pack(a{a{groupStart, m{"m", 1}}, m{}}, a{at, m{}})...))
	if got := bodies(&b); got[len(got)-1] != `"time":"2026-11-23T07:25:01.000000123Z","group":{"meta":{"m":1}},"record":{}}` {
		t.Errorf("the group after: %s", got[len(got)-1])
	}
	// The largest that an entry can hold, and one that is too large: what follows has no group.
	for _, c := range []struct{ size, groups, quarantined int }{{MaxBody - 100, 1, 1}, {MaxBody - 50, 0, 3}} {
		b.Decode(pack(a{a{groupStart, m{}}, m{"t", strings.Repeat("x", c.size)}}, nil, a{at, m{}}))
		got := bodies(&b)
		if b.Records != 1 || b.Groups != c.groups || b.Quarantined != c.quarantined || strings.Contains(got[len(got)-1], "group") != (c.groups == 1) {
			t.Errorf("%d records, %d groups, %s", b.Records, b.Groups, b.Reasons())
		}
		for _, body := range got {
			if len(body) > MaxBody {
				t.Errorf("body of %d bytes", len(body))
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	if racing {
		t.Skip("without the race detector")
	}
	for name, cfg := range map[string]recordtest.Config{"small": {}, "text": {Text: 12000}, "world": {Text: 12000, World: true}} {
		chunk := recordtest.New(cfg).Chunk(100)
		var b Batch
		if n := testing.AllocsPerRun(50, func() { b.Decode(chunk) }); n != 0 {
			t.Errorf("%s: %v allocations per chunk", name, n)
		}
	}
	var b Batch
	for name, chunk := range chunks(t) {
		if n := testing.AllocsPerRun(50, func() { b.Decode(chunk) }); n != 0 {
			t.Errorf("%s: %v allocations per chunk", name, n)
		}
	}
	// Nor in the rare cases.
	var large m
	for i := range 1000 {
		large = append(large, fmt.Sprint("key ", i%900), i)
	}
	chunk := pack(1, a{at, large}, a{at, m{1, m{2, 3}}}, a{a{groupStart, m{"a", 1}}, m{}}, a{a{groupEnd, m{}}, m{}}, a{at, m{"a", raw("cb7ff8000000000000")}}, raw("c1"))
	if n := testing.AllocsPerRun(50, func() { b.Decode(chunk) }); n != 0 {
		t.Errorf("rare cases: %v allocations per chunk", n)
	}
}

// After a giant, a batch does not keep the giant's memory for good.
func TestLetsGo(t *testing.T) {
	var b Batch
	b.Decode(event(m{"v", strings.Repeat("a", 60<<20)}))
	for range 2 {
		b.Decode(event(m{"v", 1}))
	}
	if cap(b.Bodies) > maxKept {
		t.Errorf("keeps %d bytes", cap(b.Bodies))
	}
}
