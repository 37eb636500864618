package record

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

type testCase struct {
	name   string
	values []any    // the chunk
	want   []string // bodies; "" at the end stands for more that need not be spelled out
}

func (c testCase) chunk() []byte { return pack(c.values...) }

// rec is the body of a record of the table.
func rec(json string) string { return `"time":"2026-11-23T07:25:01.000000123Z","record":` + json + `}` }

// val is an event whose record is {"v": v}, and one its body.
func val(name string, v any, json string) testCase {
	return testCase{name, []any{a{a{at, m{}}, m{"v", v}}}, []string{rec(`{"v":` + json + `}`)}}
}

// timed is an event with the time ts; want is its time in the entry, or "" if it is to be quarantined.
func timed(name string, ts any, want string) testCase {
	body := `"event":"quarantine","detail":{"reason":"time out of range","offset":0,…`
	if want != "" {
		body = `"time":"` + want + `","record":{"a":1}}`
	}
	return testCase{"time/" + name, []any{a{ts, m{"a", 1}}}, []string{body}}
}

func quarantined(reason string, offset, size string) string {
	return `"event":"quarantine","detail":{"reason":"` + reason + `","offset":` + offset + `,"size":` + size + `,…`
}

var cases = []testCase{
	{"empty chunk", nil, nil},

	// Events
	{"v2", []any{a{a{at, m{"host", "gpu-1"}}, m{"a", 1}}}, []string{
		`"time":"2026-11-23T07:25:01.000000123Z","meta":{"host":"gpu-1"},"record":{"a":1}}`}},
	{"v2 without metadata", []any{a{a{at, m{}}, m{"a", 1}}}, []string{rec(`{"a":1}`)}},
	{"v1", []any{a{at, m{"a", 1}}}, []string{rec(`{"a":1}`)}},
	{"empty record", []any{a{a{at, m{}}, m{}}}, []string{rec(`{}`)}},
	{"long forms of everything", []any{raw("dd00000002 dc0002"), at, raw("df00000000 de0001 db00000001 61 ce00000001")}, []string{rec(`{"a":1}`)}},
	{"two events", []any{a{at, m{"a", 1}}, a{at, m{"a", 2}}}, []string{rec(`{"a":1}`), rec(`{"a":2}`)}},

	// Times
	timed("EventTime", at, "2026-11-23T07:25:01.000000123Z"),
	timed("EventTime as ext 8", raw("c70800 6b03ea4d 3b9ac9ff"), "2026-11-23T07:25:01.999999999Z"),
	timed("EventTime 0", raw("d700 00000000 00000000"), "1970-01-01T00:00:00.000000000Z"),
	timed("EventTime after 2038", raw("d700 80000000 00000001"), "2038-01-19T03:14:08.000000001Z"),
	timed("EventTime, the last", raw("d700 fffffffd 3b9ac9ff"), "2106-02-07T06:28:13.999999999Z"),
	timed("EventTime with 1e9 ns", raw("d700 6b03ea4d 3b9aca00"), ""),
	timed("group marker with ns", raw("d700 ffffffff 00000001"), ""),
	timed("end marker with ns", raw("d700 fffffffe 00000001"), ""),
	timed("0", 0, "1970-01-01T00:00:00.000000000Z"),
	timed("uint32", raw("ce 6b03ea4d"), "2026-11-23T07:25:01.000000000Z"),
	timed("int64", raw("d3 000000006b03ea4d"), "2026-11-23T07:25:01.000000000Z"),
	timed("int32, not negative", raw("d2 6b03ea4d"), "2026-11-23T07:25:01.000000000Z"),
	timed("int8", raw("d0 05"), "1970-01-01T00:00:05.000000000Z"),
	timed("int16", raw("d1 0105"), "1970-01-01T00:04:21.000000000Z"),
	timed("uint8", raw("cc ff"), "1970-01-01T00:04:15.000000000Z"),
	timed("uint16", raw("cd ffff"), "1970-01-01T18:12:15.000000000Z"),
	timed("last second of all", raw("cf 0000000225c17d04"), "2262-04-11T23:47:16.000000000Z"),
	timed("one second more", raw("cf 0000000225c17d05"), ""),
	timed("milliseconds taken for seconds", raw("cf 0000019a00000000"), ""),
	timed("uint64, the largest", raw("cf ffffffffffffffff"), ""),
	timed("-1", -1, ""),
	timed("int8 -100", raw("d0 9c"), ""),
	timed("int64, the smallest", raw("d3 8000000000000000"), ""),
	timed("float64", 1795418701.25, "2026-11-23T07:25:01.250000000Z"),
	timed("float64 with all its bits", 1795418701.1234567, "2026-11-23T07:25:01.123456717Z"),
	timed("float32", float32(1.5), "1970-01-01T00:00:01.500000000Z"),
	timed("float, -0.0", math.Copysign(0, -1), "1970-01-01T00:00:00.000000000Z"),
	timed("float, half a nanosecond", math.Ldexp(1, -31), "1970-01-01T00:00:00.000000000Z"), // 0.466 ns
	timed("float, more than half", 0.6e-9, "1970-01-01T00:00:00.000000001Z"),
	timed("float, a tie", 0.001953125/2, "1970-01-01T00:00:00.000976563Z"), // 976562.5 ns
	timed("float, just below 1 s", math.Nextafter(1, 0), "1970-01-01T00:00:01.000000000Z"),
	timed("float, the smallest", math.SmallestNonzeroFloat64, "1970-01-01T00:00:00.000000000Z"),
	timed("float, the last", 9223372036.854774, "2262-04-11T23:47:16.854774475Z"),
	timed("float, too late", 9223372036.854776, ""),
	timed("float, far too late", 1e300, ""),
	timed("float, -1.5", -1.5, ""),
	timed("float, NaN", math.NaN(), ""),
	timed("float, infinite", math.Inf(1), ""),

	// What is no event
	{"a map between events", []any{a{at, m{"a", 1}}, m{"b", 2}, a{at, m{"a", 3}}}, []string{
		rec(`{"a":1}`), `"event":"quarantine","detail":{"reason":"not an event","offset":15,"size":4,` +
			`"sha256":"` + "4c8b187d0f23261175d805c00eedee98f370ee837aae89b5487229a5f1147a8e" + `","data":"gaFiAg=="}}`, rec(`{"a":3}`)}},
	{"neighbours are quarantined together", []any{m{"b", 2}, 1, nil, "x", a{}, a{1, 2, 3}, a{at, m{}}, 5}, []string{
		quarantined("not an event", "0", "13"), rec(`{}`), quarantined("not an event", "25", "1")}},
	{"zeros", []any{raw(strings.Repeat("00", 100))}, []string{quarantined("not an event", "0", "100")}},
	{"malformed events, one by one", []any{a{nil, m{}}, a{at, 1}, a{a{at}, m{}}, a{a{at, 1}, m{}}, a{a{at, m{}, 1}, m{}}, a{"x", m{}},
		a{ext{1, "12345678"}, m{}}, a{ext{0, "1234567"}, m{}}, a{at, nil}, a{at, a{}}, a{a{a{at, m{}}, m{}}, m{}}}, []string{
		quarantined("malformed event", "0", "3"), quarantined("malformed event", "3", "12"), quarantined("malformed event", "15", "13"),
		quarantined("malformed event", "28", "14"), quarantined("malformed event", "42", "15"), quarantined("malformed event", "57", "4"),
		quarantined("malformed event", "61", "12"), quarantined("malformed event", "73", "12"), quarantined("malformed event", "85", "12"),
		quarantined("malformed event", "97", "12"), quarantined("malformed event", "109", "16")}},
	{"events go on after a bad time", []any{a{-1, m{"a", 1}}, a{at, m{}}}, []string{quarantined("time out of range", "0", "6"), rec(`{}`)}},

	// Corruption
	{"truncated", []any{a{at, m{"a", 1}}, raw("92")}, []string{rec(`{"a":1}`), quarantined("truncated", "15", "1")}},
	{"truncated in the time", []any{raw("92 d700 6b03")}, []string{quarantined("truncated", "0", "5")}},
	{"truncated in a string", []any{raw("92"), at, raw("81 a5 6162")}, []string{quarantined("truncated", "0", "15")}},
	{"truncated in a length", []any{raw("92"), at, raw("81 da 00")}, []string{quarantined("truncated", "0", "14")}},
	{"truncated in a key", []any{raw("92"), at, raw("81")}, []string{quarantined("truncated", "0", "12")}},
	{"truncated value", []any{raw("92"), at, raw("81 a161 cd01")}, []string{quarantined("truncated", "0", "16")}},
	{"truncated after a map with an odd key", []any{raw("92"), at, raw("82 01 01 a161")}, []string{quarantined("truncated", "0", "16")}},
	{"invalid byte", []any{a{at, m{"a", raw("c1")}}, a{at, m{}}}, []string{quarantined("invalid byte", "0", "27")}},
	{"invalid byte alone", []any{raw("c1")}, []string{quarantined("invalid byte", "0", "1")}},
	{"invalid byte as key", []any{raw("92"), at, raw("81 c1 01")}, []string{quarantined("invalid byte", "0", "14")}},
	{"strays, then corruption", []any{1, 2, raw("c1"), 3}, []string{quarantined("not an event", "0", "2"), quarantined("invalid byte", "2", "2")}},
	{"lengths beyond all reason", []any{raw("ddffffffff"), 1}, []string{quarantined("truncated", "0", "6")}},
	{"a map of four billion", []any{raw("92"), at, raw("df ffffffff a161 01")}, []string{quarantined("truncated", "0", "19")}},
	{"a string of four billion", []any{raw("92"), at, raw("81 a161 db ffffffff 61")}, []string{quarantined("truncated", "0", "20")}},
	{"an array of four billion", []any{raw("92"), at, raw("81 a161 dd ffffffff c0")}, []string{quarantined("truncated", "0", "20")}},
	{"a binary of four billion", []any{raw("92"), at, raw("81 a161 c6 ffffffff c0")}, []string{quarantined("truncated", "0", "20")}},
	{"an extension of four billion", []any{raw("92"), at, raw("81 a161 c9 ffffffff c0")}, []string{quarantined("truncated", "0", "20")}},
	{"corruption counts more than a bad time", []any{raw("92 ff 81 a161 c1")}, []string{quarantined("invalid byte", "0", "6")}},

	// Groups
	{"group", []any{
		a{a{groupStart, m{"schema", "otlp"}}, m{"resource", m{}}}, a{a{at, m{"x", 1}}, m{"a", 1}}, a{at, m{"a", 2}}, a{a{groupEnd, m{}}, m{}}, a{at, m{"a", 3}}},
		[]string{`"time":"2026-11-23T07:25:01.000000123Z","meta":{"x":1},"group":{"meta":{"schema":"otlp"},"record":{"resource":{}}},"record":{"a":1}}`,
			`"time":"2026-11-23T07:25:01.000000123Z","group":{"meta":{"schema":"otlp"},"record":{"resource":{}}},"record":{"a":2}}`, rec(`{"a":3}`)}},
	{"group with metadata only", []any{a{a{groupStart, m{"m", 1}}, m{}}, a{at, m{}}, a{a{groupEnd, m{}}, m{}}}, []string{
		`"time":"2026-11-23T07:25:01.000000123Z","group":{"meta":{"m":1}},"record":{}}`}},
	{"group with a record only", []any{a{a{groupStart, m{}}, m{"r", 1}}, a{at, m{}}, a{a{groupEnd, m{}}, m{}}}, []string{
		`"time":"2026-11-23T07:25:01.000000123Z","group":{"record":{"r":1}},"record":{}}`}},
	{"group with nothing", []any{a{a{groupStart, m{}}, m{}}, a{at, m{}}, a{a{groupEnd, m{}}, m{}}}, []string{rec(`{}`)}},
	{"group in v1 form", []any{a{groupStart, m{"r", 1}}, a{at, m{}}, a{groupEnd, m{}}, a{at, m{}}}, []string{
		`"time":"2026-11-23T07:25:01.000000123Z","group":{"record":{"r":1}},"record":{}}`, rec(`{}`)}},
	{"group without records", []any{a{a{groupStart, m{"m", 1}}, m{"r", 1}}, a{a{groupEnd, m{}}, m{}}}, []string{
		`"event":"group","detail":{"meta":{"m":1},"record":{"r":1}}}`}},
	{"empty group without records", []any{a{a{groupStart, m{}}, m{}}, a{a{groupEnd, m{}}, m{}}}, nil},
	{"group without an end", []any{a{a{groupStart, m{"m", 1}}, m{}}}, []string{`"event":"group","detail":{"meta":{"m":1}}}`}},
	{"group after group", []any{a{a{groupStart, m{"m", 1}}, m{}}, a{a{groupStart, m{"m", 2}}, m{}}, a{at, m{}}, a{a{groupStart, m{}}, m{}}, a{at, m{}}}, []string{
		`"event":"group","detail":{"meta":{"m":1}}}`, `"time":"2026-11-23T07:25:01.000000123Z","group":{"meta":{"m":2}},"record":{}}`, rec(`{}`)}},
	{"end without a start", []any{a{a{groupEnd, m{}}, m{}}, a{at, m{}}}, []string{rec(`{}`)}},
	{"end with content", []any{a{a{groupStart, m{"m", 1}}, m{}}, a{at, m{}}, a{a{groupEnd, m{"x", 1}}, m{}}, a{at, m{}}}, []string{
		`"time":"2026-11-23T07:25:01.000000123Z","group":{"meta":{"m":1}},"record":{}}`, quarantined("group end with content", "29", "17"), rec(`{}`)}},
	{"end with content, no records", []any{a{a{groupStart, m{"m", 1}}, m{}}, a{a{groupEnd, m{}}, m{"x", 1}}}, []string{
		`"event":"group","detail":{"meta":{"m":1}}}`, quarantined("group end with content", "17", "17")}},
	{"bad start closes the group", []any{a{a{groupStart, m{"m", 1}}, m{}}, a{a{groupStart, m{"m", 2}}, 5}, a{at, m{}}}, []string{
		`"event":"group","detail":{"meta":{"m":1}}}`, quarantined("malformed event", "17", "17"), rec(`{}`)}},
	{"quarantined within a group", []any{a{a{groupStart, m{"m", 1}}, m{}}, 7, a{at, m{}}}, []string{
		quarantined("not an event", "17", "1"), `"time":"2026-11-23T07:25:01.000000123Z","group":{"meta":{"m":1}},"record":{}}`}},
	{"odd maps in a group", []any{a{a{groupStart, m{1, 2}}, m{"d", 1, "d", 2}}, a{at, m{}}}, []string{
		`"time":"2026-11-23T07:25:01.000000123Z","group":{"meta":{"$map":[[1,2]]},"record":{"d":1,"$dup":[["d",2]]}},"record":{}}`}},

	// Values
	val("nil", nil, "null"), val("true", true, "true"), val("false", false, "false"),
	val("0", 0, "0"), val("127", 127, "127"), val("-1", -1, "-1"), val("-32", -32, "-32"),
	val("uint8", raw("cc ff"), "255"), val("uint8, small", raw("cc 00"), "0"), val("uint16", raw("cd ffff"), "65535"), val("uint32", raw("ce ffffffff"), "4294967295"),
	val("uint64", raw("cf ffffffffffffffff"), "18446744073709551615"), val("2^53+1", raw("cf 0020000000000001"), "9007199254740993"),
	val("int8", raw("d0 80"), "-128"), val("int16", raw("d1 8000"), "-32768"), val("int32", raw("d2 80000000"), "-2147483648"),
	val("int64", raw("d3 8000000000000000"), "-9223372036854775808"), val("int64, positive", raw("d3 7fffffffffffffff"), "9223372036854775807"),
	val("1.0", 1.0, "1.0"), val("0.0", 0.0, "0.0"), val("-0.0", math.Copysign(0, -1), "-0.0"), val("-2.5", -2.5, "-2.5"), val("0.1", 0.1, "0.1"),
	val("float32 0.1", float32(0.1), "0.10000000149011612"), val("float32 1", float32(1), "1.0"), val("float32, smallest", raw("ca 00000001"), "1.401298464324817e-45"),
	val("1e-6", 1e-6, "0.000001"), val("1e-7", 1e-7, "1e-7"), val("1.5e-10", 1.5e-10, "1.5e-10"), val("1e20", 1e20, "100000000000000000000.0"),
	val("1e21", 1e21, "1e+21"), val("2^53", float64(1<<53), "9007199254740992.0"), val("-2^60", -float64(1<<60), "-1152921504606847000.0"),
	val("largest", math.MaxFloat64, "1.7976931348623157e+308"), val("smallest", math.SmallestNonzeroFloat64, "5e-324"), val("9.999999e-7", 9.999999e-7, "9.999999e-7"),
	val("latency", 869.7142526481781, "869.7142526481781"), val("thousands", 30000.125, "30000.125"),
	val("NaN", raw("cb 7ff8000000000001"), `{"$float":"NaN","bits":"7ff8000000000001"}`),
	val("NaN, signaling", raw("cb fff0000000000001"), `{"$float":"NaN","bits":"fff0000000000001"}`),
	val("float32 NaN", raw("ca ffc00000"), `{"$float":"NaN","bits":"fff8000000000000"}`),
	val("float32 NaN, signaling", raw("ca 7f800001"), `{"$float":"NaN","bits":"7ff0000020000000"}`),
	val("Infinity", math.Inf(1), `{"$float":"Infinity"}`), val("-Infinity", math.Inf(-1), `{"$float":"-Infinity"}`),
	val("float32 Infinity", raw("ca 7f800000"), `{"$float":"Infinity"}`), val("float32 -Infinity", raw("ca ff800000"), `{"$float":"-Infinity"}`),
	val("string", "Zażółć \"x\"\n\u2028😀</", `"Zażółć \"x\"\n`+"\u2028"+`😀</"`), val("no string", "", `""`), val("not UTF-8", "caf\xe9", `{"$str":"Y2Fm6Q=="}`),
	val("str8", raw("d9 02 6869"), `"hi"`), val("str16", raw("da 0002 6869"), `"hi"`), val("str32", raw("db 00000002 6869"), `"hi"`),
	val("binary", []byte("hi"), `{"$bin":"aGk="}`), val("empty binary", []byte{}, `{"$bin":""}`), val("bin16", raw("c5 0001 ff"), `{"$bin":"/w=="}`), val("bin32", raw("c6 00000001 ff"), `{"$bin":"/w=="}`),
	val("ext", ext{5, "abc"}, `{"$ext":[5,"YWJj"]}`), val("ext, negative type", ext{-1, "abcd"}, `{"$ext":[-1,"YWJjZA=="]}`), val("empty ext", ext{-128, ""}, `{"$ext":[-128,""]}`),
	val("fixext 1", raw("d4 07 61"), `{"$ext":[7,"YQ=="]}`), val("fixext 2", raw("d5 07 6161"), `{"$ext":[7,"YWE="]}`), val("fixext 4", raw("d6 07 61616161"), `{"$ext":[7,"YWFhYQ=="]}`),
	val("fixext 16", raw("d8 07 61616161616161616161616161616161"), `{"$ext":[7,"YWFhYWFhYWFhYWFhYWFhYQ=="]}`), val("ext16", raw("c8 0001 07 61"), `{"$ext":[7,"YQ=="]}`),
	val("ext32", raw("c9 00000001 07 61"), `{"$ext":[7,"YQ=="]}`), val("EventTime in a record", at, `{"$ext":[0,"awPqTQAAAHs="]}`),
	val("array", a{1, "x", nil, a{}, m{}}, `[1,"x",null,[],{}]`), val("array16", raw("dc 0001 01"), "[1]"), val("array32", raw("dd 00000001 01"), "[1]"),
	val("map", m{"a", 1, "b", m{"c", 2}}, `{"a":1,"b":{"c":2}}`), val("map16", raw("de 0001 a161 01"), `{"a":1}`), val("empty map32", raw("df 00000000"), `{}`),

	// Keys
	val("reserved keys", m{"$bin", 1, "$$bin", 2, "$str", 3, "$other", 4, "$map", 5, "$dup", 6}, `{"$$bin":1,"$$$bin":2,"$$str":3,"$other":4,"$$map":5,"$$dup":6}`),
	val("empty key", m{"", 1}, `{"":1}`), val("key with a quote", m{"a\"\n", 1}, `{"a\"\n":1}`),
	val("integer key", m{1, "x"}, `{"$map":[[1,"x"]]}`), val("bad UTF-8 key", m{"a", 1, "\xff", 2}, `{"$map":[["a",1],[{"$str":"/w=="},2]]}`),
	val("keys of all kinds", m{"a", 1, "a", 2, nil, 3, m{"x", 1}, 4, a{1}, 5, []byte("b"), 6, 1.0, 7, "$bin", 8}, `{"$map":[["a",1],["a",2],[null,3],[{"x":1},4],[[1],5],[{"$bin":"Yg=="},6],[1.0,7],["$bin",8]]}`),
	val("odd in odd in plain", m{"p", m{1, m{"q", m{2, 3}}}, "r", m{"s", 1}}, `{"p":{"$map":[[1,{"q":{"$map":[[2,3]]}}]]},"r":{"s":1}}`),
	val("odd key in a key", m{m{1, 2}, 3}, `{"$map":[[{"$map":[[1,2]]},3]]}`),
	val("repeated key", m{"a", 1, "b", 2, "a", 3, "c", 4, "a", 5}, `{"a":1,"b":2,"c":4,"$dup":[["a",3],["a",5]]}`),
	val("repeated key at once", m{"a", 1, "a", 1}, `{"a":1,"$dup":[["a",1]]}`),
	val("repeated reserved key", m{"$dup", 1, "$dup", 2}, `{"$$dup":1,"$dup":[["$dup",2]]}`),
	val("repeated in repeated", m{"a", 1, "a", m{"b", 1, "b", m{"c", 1, "c", 2, "d", 3}, "e", 4}, "f", 5}, `{"a":1,"f":5,"$dup":[["a",{"b":1,"e":4,"$dup":[["b",{"c":1,"d":3,"$dup":[["c",2]]}]]}]]}`),
	val("repeated and odd", m{"a", m{1, 2}, "a", m{3, 4}}, `{"a":{"$map":[[1,2]]},"$dup":[["a",{"$map":[[3,4]]}]]}`),
	val("equal in size and at both ends", m{"abcdefgh1abcdefgh", 1, "abcdefgh2abcdefgh", 2, "abcdefgh1abcdefgh", 3}, `{"abcdefgh1abcdefgh":1,"abcdefgh2abcdefgh":2,"$dup":[["abcdefgh1abcdefgh",3]]}`),
	{"odd record", []any{a{a{at, m{1, 2}}, m{"request_id", "x", 2, 3}}}, []string{
		`"time":"2026-11-23T07:25:01.000000123Z","meta":{"$map":[[1,2]]},"record":{"$map":[["request_id","x"],[2,3]]}}`}},
}

func TestCases(t *testing.T) {
	var b Batch
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			check(t, &b, c.chunk())
			got := bodies(&b)
			if len(got) != len(c.want) {
				t.Fatalf("%d entries, want %d:\n%s", len(got), len(c.want), strings.Join(got, "\n"))
			}
			for i := range got {
				if prefix, isPrefix := strings.CutSuffix(c.want[i], "…"); got[i] != c.want[i] && !(isPrefix && strings.HasPrefix(got[i], prefix)) {
					t.Errorf("entry %d\n got %s\nwant %s", i, got[i], c.want[i])
				}
			}
			// Every shorter chunk is a case as well.
			chunk := c.chunk()
			for n := range min(len(chunk), 200) {
				check(t, &b, chunk[:n])
			}
		})
	}
}

func TestReasons(t *testing.T) {
	var b Batch
	b.Decode(pack(1, a{at, m{}}, 2, a{-1, m{}}, raw("c1")))
	if got, want := b.Reasons(), "4 quarantined (2 not an event, 1 time out of range, 1 invalid byte)"; got != want {
		t.Errorf("Reasons() = %q, want %q", got, want)
	}
}

func TestSetEvent(t *testing.T) {
	var b Batch
	b.Decode(bytes.Repeat(event(m{"a", 1}), 3))
	b.SetEvent("journal_lost", `{"next":5}`)
	if got := bodies(&b); len(got) != 1 || got[0] != `"event":"journal_lost","detail":{"next":5}}` || !b.Entries[0].Facts().Event {
		t.Errorf("SetEvent: %q, %+v", got, b.Entries)
	}
}
