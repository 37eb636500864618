package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// sent is a record that was sent, with the JSON that must stand in the chain for it.
type sent struct {
	id     string // its request_id, or gen_ai.response.id
	tag    string
	time   time.Time // zero: Fluent Bit chose it
	meta   string    // JSON; "": none
	group  string    // JSON; "": none
	record string    // JSON
	copies int       // how often it was sent; 0: once
	maybe  bool      // nobody heard whether it arrived: it may be there or not
}

// auditRecord is a record as an inference server writes it. Some lack audit fields.
func auditRecord(id string, i int) map[string]any {
	r := map[string]any{
		"request_id": id, "timestamp": "2026-11-23T07:25:01.5Z", "model_id": "llama-3.1-8b", "model_checksum": strings.Repeat("ab", 32),
		"input_hash": strings.Repeat("01", 32), "output_hash": strings.Repeat("fe", 32), "user_id": "u\u00e9-\u4e16\u754c",
		"input_tokens": i, "output_tokens": 3 * i, "latency_ms": 12.5 + float64(i), "status": 200,
		"response": "line\nbreak \"quoted\" \\ \u0001 \U0001F600", "nested": map[string]any{"list": []any{1, -1, nil, true, "x", map[string]any{}}},
	}
	if i%3 == 0 {
		delete(r, "model_checksum")
	}
	if i%7 == 0 {
		r["user_id"] = nil
	}
	return r
}

// text is v as JSON.
func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// idOf is the request id of an entry's record: "" if it has none.
func idOf(e *chain.Entry) string {
	for _, value := range [][]byte{
		chain.Member(e.Record, "request_id"),
		chain.Member(chain.Member(chain.Member(e.Meta, "otlp"), "attributes"), "gen_ai.response.id"),
	} {
		var id string
		if json.Unmarshal(value, &id) == nil {
			return id
		}
	}
	return ""
}

// checkRecords compares all records in the log with those that were sent.
func (c *contents) checkRecords(t *testing.T, all []sent) {
	t.Helper()
	wanted := make(map[string]*sent, len(all))
	for i := range all {
		wanted[all[i].id] = &all[i]
	}
	seen := make(map[string]int)
	for i := range c.entries {
		e := &c.entries[i]
		if e.Event != "" {
			continue
		}
		id := idOf(e)
		want := wanted[id]
		if want == nil {
			t.Errorf("entry %d, record %q, was never sent: %.200s", e.Seq, id, e.Record)
			continue
		}
		seen[id]++
		if tag := text(t, want.tag); string(e.Tag) != tag {
			t.Errorf("record %s: tag %s, want %s", id, e.Tag, tag)
		}
		if !want.time.IsZero() && !e.Time.Equal(want.time) {
			t.Errorf("record %s: time %s, want %s", id, e.Time, want.time)
		}
		for _, part := range []struct{ name, got, want string }{
			{"meta", string(e.Meta), want.meta}, {"group", string(e.Group), want.group}, {"record", string(e.Record), want.record},
		} {
			if !sameJSON(t, part.got, part.want) {
				t.Errorf("record %s: %s is %.1000s, want %.1000s", id, part.name, part.got, part.want)
			}
		}
	}
	var missing []string
	for _, s := range all {
		switch n, want := seen[s.id], max(s.copies, 1); {
		case n == 0 && !s.maybe:
			missing = append(missing, s.id)
		case n != want && n > 0:
			t.Errorf("record %s is there %d times, was sent %d times", s.id, n, want)
		}
	}
	if len(missing) > 0 {
		t.Errorf("%d of %d records are missing, among them %q", len(missing), len(all), missing[:min(len(missing), 5)])
	}
}

// checkCounts compares the manifests' counts with what the entries are. More is said by chain.VerifySegment.
func (c *contents) checkCounts(t *testing.T) {
	t.Helper()
	var want chain.Counts
	missing, lacking := make(map[string]uint64), make(map[uint64]bool)
	for i := range c.entries {
		e := &c.entries[i]
		want.Entries++
		if e.Event != "" {
			want.Events++
			continue
		}
		want.Records++
		for field, names := range auditFields {
			if !slices.ContainsFunc(names, func(name string) bool { return has(e, name) }) {
				missing[field]++
				lacking[e.Seq] = true
			}
		}
	}
	want.Incomplete = uint64(len(lacking))
	got := c.counts
	if got.Entries != want.Entries || got.Records != want.Records || got.Events != want.Events ||
		got.Incomplete != want.Incomplete || got.Complete != want.Records-want.Incomplete || !maps.Equal(got.Missing, missing) {
		t.Errorf("the manifests count %+v, the entries are %+v and lack %v", got, want, missing)
	}
}

// auditFields are the fields of a complete record, with all names that they go by.
var auditFields = map[string][]string{
	"request_id": {"request_id", "gen_ai.response.id"}, "timestamp": {"timestamp"},
	"model_id":       {"model_id", "gen_ai.response.model", "gen_ai.request.model"},
	"model_checksum": {"model_checksum"}, "input_hash": {"input_hash"}, "output_hash": {"output_hash"},
	"user_id":      {"user_id", "user.id", "enduser.id"},
	"input_tokens": {"input_tokens", "gen_ai.usage.input_tokens"}, "output_tokens": {"output_tokens", "gen_ai.usage.output_tokens"},
	"latency_ms": {"latency_ms"}, "status": {"status", "http.response.status_code", "error.type"},
}

// has reports whether the entry's record, or its OpenTelemetry attributes, say something under the name.
func has(e *chain.Entry, name string) bool {
	for _, object := range [][]byte{e.Record, chain.Member(chain.Member(e.Meta, "otlp"), "attributes")} {
		if v := string(chain.Member(object, name)); v != "" && v != "null" && v != `""` {
			return true
		}
	}
	return false
}

// sameJSON compares values: the order of keys does not count, and numbers are compared exactly.
func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	if a == "" || b == "" {
		return a == b
	}
	return reflect.DeepEqual(value(t, a), value(t, b))
}

// value reads JSON with exact numbers.
func value(t *testing.T, s string) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(s)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%.200s: %v", s, err)
	}
	return exact(t, v)
}

func exact(t *testing.T, v any) any {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = exact(t, e)
		}
	case []any:
		for i, e := range v {
			v[i] = exact(t, e)
		}
	case json.Number:
		if n, ok := new(big.Int).SetString(v.String(), 10); ok {
			return n.String()
		}
		f, err := strconv.ParseFloat(v.String(), 64)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	return v
}

// checkSources compares the ranges of sources in the manifests with the numbers that were sent.
func (c *contents) checkSources(t *testing.T, want map[string][]uint64) {
	t.Helper()
	got := make(map[string][]uint64)
	for _, m := range c.manifests {
		for _, s := range m.Sources {
			for _, r := range s.Ranges {
				for n := r[0]; n <= r[1]; n++ {
					got[s.ID] = append(got[s.ID], n)
				}
			}
		}
	}
	for _, numbers := range got {
		slices.Sort(numbers)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the manifests know the sources %v, want %v", got, want)
	}
}

func recordID(prefix string, i int) string { return fmt.Sprintf("%s-%04d", prefix, i) }
