package record

import (
	"fmt"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
)

func TestFacts(t *testing.T) {
	all := chain.AllFields
	complete := m{"request_id", "r", "timestamp", "t", "model_id", "m", "model_checksum", "c", "input_hash", "i", "output_hash", "o",
		"user_id", "u", "input_tokens", 1, "output_tokens", 2, "latency_ms", 1.5, "status", 200}
	attributes := func(kv ...any) m { return m{"otlp", m{"attributes", m(kv)}} }
	source := func(v any) m { return m{"source", v} }
	from := m{"id", "a", "seq", 1}
	for _, c := range []struct {
		name         string
		meta, record m
		missing      chain.FieldSet
		source       string // id and number, and whether it is a source event
	}{
		{"complete", nil, complete, 0, ""},
		{"nothing", nil, m{"log", "x"}, all, ""},
		{"null", nil, m{"status", nil}, all, ""},
		{"empty string", nil, m{"status", "", "user_id", raw("d900"), "model_id", raw("da0000"), "input_hash", raw("db00000000")}, all, ""},
		{"things that are not empty", nil, m{"status", 0, "user_id", false, "model_id", []byte{}, "input_hash", m{}, "output_hash", a{}, "timestamp", "\xff"},
			all &^ (1<<chain.Status | 1<<chain.UserID | 1<<chain.ModelID | 1<<chain.InputHash | 1<<chain.OutputHash | 1<<chain.Timestamp), ""},
		{"the first of repeated keys counts", nil, m{"status", nil, "status", 200, "user_id", "u", "user_id", nil}, all &^ (1 << chain.UserID), ""},
		{"top level only", nil, m{"x", m{"status", 1}, "y", a{m{"user_id", 1}}}, all, ""},
		{"odd record", nil, m{1, 2, "status", 200, "source", m{"id", "a", "seq", 1}}, all, ""},
		{"OpenTelemetry", attributes("gen_ai.request.model", "llama", "error.type", "", "user.id", "u"), m{"status", 200}, all &^ (1<<chain.ModelID | 1<<chain.UserID | 1<<chain.Status), ""},
		{"attributes, repeated", m{"otlp", m{"attributes", m{"user.id", nil, "user.id", "u"}, "attributes", m{"status", 1}}, "otlp", attributes("status", 1)[1]}, m{}, all, ""},
		{"attributes elsewhere", m{"attributes", m{"status", 1}, "status", 1, "x", attributes("status", 1)}, attributes("status", 1), all, ""},
		{"odd attributes", attributes("status", 1, 2, 3), m{}, all, ""},
		{"odd otlp", m{"otlp", m{1, 2, "attributes", m{"status", 1}}}, m{}, all, ""},
		{"odd beside the attributes", m{"otlp", m{"a", m{1, 2}, "attributes", m{"status", 1}}}, m{}, all &^ (1 << chain.Status), ""},
		{"otlp that is no map", m{"otlp", "x"}, m{}, all, ""},
		{"attributes that are no map", m{"otlp", m{"attributes", a{"status", 1}}}, m{}, all, ""},

		{"source", nil, source(m{"id", "gpu-1/5f0c", "seq", 7}), all, "gpu-1/5f0c 7"},
		{"source, the other way", nil, source(m{"x", a{1, m{}}, "seq", 0, "id", "a", "y", 1}), all, "a 0"},
		{"source with escapes", nil, source(m{"id", "a\"\n", "seq", raw("cf ffffffffffffffff")}), all, "a\"\n 18446744073709551615"},
		{"seq of other sizes", nil, source(m{"id", "a", "seq", raw("d1 0100")}), all, "a 256"},
		{"seq 8", nil, source(m{"id", "a", "seq", raw("cc ff")}), all, "a 255"},
		{"seq 16", nil, source(m{"id", "a", "seq", raw("cd ffff")}), all, "a 65535"},
		{"seq 32", nil, source(m{"id", "a", "seq", raw("ce ffffffff")}), all, "a 4294967295"},
		{"seq int8", nil, source(m{"id", "a", "seq", raw("d0 7f")}), all, "a 127"},
		{"seq int32", nil, source(m{"id", "a", "seq", raw("d2 7fffffff")}), all, "a 2147483647"},
		{"seq int64", nil, source(m{"id", "a", "seq", raw("d3 7fffffffffffffff")}), all, "a 9223372036854775807"},
		{"negative seq", nil, source(m{"id", "a", "seq", -1}), all, ""},
		{"negative int64 seq", nil, source(m{"id", "a", "seq", raw("d3 ffffffffffffffff")}), all, ""},
		{"seq as float", nil, source(m{"id", "a", "seq", 1.0}), all, ""},
		{"seq as text", nil, source(m{"id", "a", "seq", "1"}), all, ""},
		{"seq nil", nil, source(m{"id", "a", "seq", nil}), all, ""},
		{"no seq", nil, source(m{"id", "a"}), all, ""},
		{"no id", nil, source(m{"seq", 1}), all, ""},
		{"empty id", nil, source(m{"id", "", "seq", 1}), all, ""},
		{"id as number", nil, source(m{"id", 5, "seq", 1}), all, ""},
		{"id not UTF-8", nil, source(m{"id", "\xff", "seq", 1}), all, ""},
		{"longest id", nil, source(m{"id", strings.Repeat("ż", 128), "seq", 1}), all, strings.Repeat("ż", 128) + " 1"},
		{"longest id with escapes", nil, source(m{"id", strings.Repeat("\n", 256), "seq", 1}), all, strings.Repeat("\n", 256) + " 1"},
		{"too long an id", nil, source(m{"id", strings.Repeat("i", 257), "seq", 1}), all, ""},
		{"id in the second place", nil, source(m{"id", 5, "id", "a", "seq", 1}), all, ""},
		{"seq in the second place", nil, source(m{"id", "a", "seq", nil, "seq", 1}), all, ""},
		{"repeated, the first counts", nil, source(m{"id", "a", "id", "b", "seq", 1, "seq", 2}), all, "a 1"},
		{"source, repeated", nil, m{"source", 1, "source", m{"id", "a", "seq", 1}}, all, ""},
		{"odd source", nil, source(m{"id", "a", "seq", 1, 2, 3}), all, ""},
		{"source with $map", nil, source(m{"$map", 1, "id", "a", "seq", 1}), all, "a 1"},
		{"empty source", nil, source(m{}), all, ""},
		{"source not a map", nil, m{"source", a{"id", "a"}}, all, ""},
		{"source below", nil, m{"x", source(m{"id", "a", "seq", 1})}, all, ""},

		{"source event", nil, m{"source_event", "start", "source", from}, 0, "a 1 event"},
		{"source event, the other way", nil, m{"source", from, "x", 1, "source_event", "s"}, 0, "a 1 event"},
		{"source event with an escape", nil, m{"source", from, "source_event", "\""}, 0, "a 1 event"},
		{"complete, and a source event", nil, append(m{"source", from, "source_event", "s"}, complete...), 0, "a 1 event"},
		{"source event without a source", nil, m{"source_event", "start"}, all, ""},
		{"source event of a bad source", nil, m{"source_event", "start", "source", m{"id", "a"}}, all, ""},
		{"empty source event", nil, m{"source_event", "", "source", from}, all, "a 1"},
		{"source event of another type", nil, m{"source_event", true, "source", from}, all, "a 1"},
		{"source event that is no text", nil, m{"source_event", "\xff", "source", from}, all, "a 1"},
		{"source event that is an object", nil, m{"source_event", m{"a", "b"}, "source", from}, all, "a 1"},
		{"source event in the second place", nil, m{"source_event", nil, "source_event", "s", "source", from}, all, "a 1"},
		{"source event, then repeated", nil, m{"source_event", "s", "source_event", nil, "source", from}, 0, "a 1 event"},
		{"source event below", nil, m{"source", m{"id", "a", "seq", 1, "source_event", "s"}}, all, "a 1"},
		{"source event among attributes", attributes("source_event", "s"), m{"source", from}, all, "a 1"},
		{"source event in an odd record", nil, m{1, 2, "source_event", "s", "source", from}, all, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b Batch
			check(t, &b, pack(a{a{at, c.meta}, c.record})) // what is read off the line is the same
			e := b.Entries[0]
			source := ""
			if e.SourceID != nil {
				source = fmt.Sprint(string(e.SourceID), " ", e.SourceSeq)
			}
			if e.SourceEvent {
				source += " event"
			}
			if e.Missing != c.missing || source != c.source {
				t.Errorf("missing %011b, source %q, want %011b, %q", e.Missing, source, c.missing, c.source)
			}
			if e.Time != 1795418701000000123 {
				t.Errorf("time %d", e.Time)
			}
		})
	}
}
