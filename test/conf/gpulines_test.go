package conf

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// line is one of a file of records, and what the log makes of it.
type line struct {
	text string
	want string // the entry's record; "": the line's own value; asText: the line as a string named log
}

const asText = "as text"

// What the middleware may write (docs/RECORDS.md) arrives as the same JSON value.
var proper = []line{
	{text: `{"timestamp":"2026-11-23T07:25:01.123456Z","request_id":"r","status":"200","latency_ms":1234.567,"input_tokens":null}`},
	{text: `{"v":"\u0000\u0001\u001f\u007f\u0080\u00e9\u4e2d\ufeff\ufffe\uffff\u2028 \"\\\/\b\f\n\r\t"}`},
	{text: `{"v":"\ud83d\ude00\udbff\udfff"}`},
	{text: `{"v":"é中😀"}`},
	{text: `{"v":[9223372036854775807,-9223372036854775808,18446744073709551615,0,-1]}`},
	{text: `{"v":[0.1,-0.0,1.0,1e2,5e-324,1.7976931348623157e308,0.30000000000000004]}`},
	{text: `{"v":{"":1},"w":[],"x":{},"y":[true,false,null]}`},
	{text: `{"v":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`},
}

// What it must not write, and what Fluent Bit makes of it. No line is lost; what stands behind an object is.
var odd = []line{
	{text: `{"v":1e400}`, want: asText},
	{text: `{"v":NaN}`, want: asText},
	{text: `{"v":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, want: asText},
	{text: `{"v":`, want: asText},
	{text: `[1]`, want: asText},
	{text: `{"v":1}{"v":2}`, want: asText},
	{text: ``, want: asText},
	{text: `{"v":18446744073709551616}`, want: `{"v":18446744073709552000.0}`},
	{text: `{"v":"\ud800"}`, want: `{"v":"\ufffd"}`},
	{text: `{"v":"\ud800\u0041"}`, want: `{"v":"\ufffd"}`}, // with the letter behind it
	{text: `{"v":1,"v":2}`, want: `{"v":1,"$dup":[["v",2]]}`},
	{text: `{"v":1} and more`, want: `{"v":1}`},
	{text: `{"timestamp":"2026-11-23T07:25:01Z"}`}, // the event has the time of its arrival
	{text: `{"timestamp":null}`},
}

// Lines of both kinds and all lengths, in files of all ages, go through both hosts as we configure them.
func TestGPULines(t *testing.T) {
	pki := t.TempDir()
	issued(t, pki, "ca")
	issued(t, pki, "server", "localhost")
	issued(t, pki, "client", "gpu-01")
	for i, s := range onGPU(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			aggregator := newAggregator(t, all(t)[i], filepath.Join(pki, "localhost"), storage.Config{Bucket: "dir:" + t.TempDir()})
			gpu := newGPUNode(t, s, filepath.Join(pki, "gpu-01"), "localhost", aggregator.port)
			var written []line
			put := func(file string, lines ...line) {
				for _, l := range lines {
					gpu.append(t, file, l.text+"\n")
				}
				written = append(written, lines...)
			}
			arrive := func(what string) {
				t.Helper()
				waitFor(t, what+" arrives", func() bool {
					return metric(aggregator.httpPort, "fluentbit_output_proc_records_total", "audit") >= len(written)
				})
			}
			aggregator.start(t)

			put("before.jsonl", proper...)
			put("before.jsonl", odd...)
			put("before.jsonl",
				line{text: `{"v":"` + strings.Repeat("a", 100_000) + `"}`}, // longer than in_tail takes by default
				line{text: `{"v":"` + strings.Repeat(`\u4e2d`, 2_000_000) + `"}`},
				line{text: `{"v":"` + strings.Repeat(`\u0001`, 2_600_000) + `"}`}, // 15.6 MB
				line{text: `{"v":"` + strings.Repeat("b", 3_000_000) + `","last":true}`},
			)
			gpu.start(t)
			arrive("what was there before")

			gpu.append(t, "before.jsonl", `{"torn":"her`)
			put("after.jsonl", line{text: `{"v":"after"}`})
			arrive("a line in a new file, and none without an end,")
			gpu.append(t, "before.jsonl", `e"}`+"\n")
			written = append(written, line{text: `{"torn":"here"}`})
			arrive("the line that has an end now")

			put("crashed.jsonl", line{text: `{"v":"whole"}`})
			gpu.append(t, "crashed.jsonl", `{"never":`)
			arrive("what stands before a torn line")
			gpu.stop(t)
			put("after.jsonl", line{text: `{"v":"grown"}`})
			put("down.jsonl", line{text: `{"v":"down"}`})
			gpu.start(t)
			arrive("what came while Fluent Bit was down")

			if err := os.Remove(filepath.Join(gpu.records, "down.jsonl")); err != nil {
				t.Fatal(err)
			}
			put("next.jsonl", line{text: `{"v":"next"}`}) // perhaps with the inode of the one before
			arrive("a new file in place of one that was deleted")

			gpu.stop(t)
			aggregator.stop(t)
			aggregator.verify(t, uint64(len(written)))
			compare(t, aggregator.entries(t), written)
		})
	}
}

// compare checks that the entries are the lines, each once.
func compare(t *testing.T, entries []chain.Entry, lines []line) {
	t.Helper()
	want := make(map[string]int)
	for _, l := range lines {
		switch l.want {
		case "":
			want[value(t, l.text)]++
		case asText:
			text, err := json.Marshal(map[string]string{"log": l.text})
			if err != nil {
				t.Fatal(err)
			}
			want[value(t, string(text))]++
		default:
			want[value(t, l.want)]++
		}
	}
	for _, e := range entries {
		got := value(t, string(e.Record))
		if want[got] == 0 {
			t.Errorf("nobody wrote %.200s", got)
			continue
		}
		want[got]--
		var r struct{ Timestamp string }
		if json.Unmarshal(e.Record, &r) != nil || r.Timestamp == "" {
			continue
		}
		if at, err := time.Parse("2006-01-02T15:04:05.000000Z", r.Timestamp); err == nil && !e.Time.Equal(at) {
			t.Errorf("the record of %s has the time %s", r.Timestamp, e.Time)
		}
	}
	for text, n := range want {
		if n > 0 {
			t.Errorf("%d times missing: %.200s", n, text)
		}
	}
}

// value is the same text for the same JSON value: integers as they are written, other numbers by what they are worth.
func value(t *testing.T, text string) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%.200s: %v", text, err)
	}
	return fmt.Sprintf("%q", numbers(v))
}

// numbers takes the spelling from all numbers with a fraction or an exponent in v.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			f, _ := v.Float64()
			return fmt.Sprint("float ", f)
		}
	case map[string]any:
		for key := range v {
			v[key] = numbers(v[key])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	}
	return v
}
