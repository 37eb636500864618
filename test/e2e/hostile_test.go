package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/test/fluentbit"
)

// event is a record as one event.
func event(t *testing.T, record any) []byte {
	t.Helper()
	b, err := fluentbit.AppendV1(nil, fluentbit.Event{Time: time.Unix(1700000000, 0), Record: record})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nested is {"a":[[...null...]]} with so many brackets.
func nested(levels int) msgp.Raw {
	return append(append([]byte{0x81, 0xa1, 'a'}, bytes.Repeat([]byte{0x91}, levels)...), 0xc0)
}

// quarantine is what a quarantine entry carries.
type quarantine struct {
	Reason string `json:"reason"`
	Offset int    `json:"offset"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
	Data   []byte `json:"data"`
}

func parseQuarantine(t *testing.T, e *chain.Entry) quarantine {
	t.Helper()
	var q quarantine
	if err := json.Unmarshal(e.Detail, &q); err != nil {
		t.Fatalf("entry %d: %v", e.Seq, err)
	}
	if len(q.Data) != q.Size || fmt.Sprintf("%x", sha256.Sum256(q.Data)) != q.SHA256 {
		t.Errorf("entry %d: %d bytes of data do not match its size %d and hash", e.Seq, len(q.Data), q.Size)
	}
	return q
}

// testHostileInput sends what no well-meaning client would, through the forward input, each behind an event that is well:
// a chunk of which Fluent Bit itself can read no event, it acknowledges and throws away, without giving it to any output.
func testHostileInput(t *testing.T) {
	t.Parallel()
	l := newLog(t, minioHTTP.open(t))
	a := newAggregator(t, []fluentbit.Section{l.section()})
	a.run(t)
	large, oddLarge := strings.Repeat("x\n", 1<<19), strings.Repeat("\xff", 1<<20)
	well := event(t, map[string]any{"a": 1})
	cases := []struct {
		name   string
		tag    string // Fluent Bit joins what comes with one tag, so each has its own
		events []byte // that follow
		array  bool   // send as an array, which Fluent Bit itself reads
		asTag  string // JSON; "": as it is
		record string // JSON; "": there is none
		reason string // of the quarantine of all the bytes; "": there is none
	}{
		{name: "nested 100 deep", tag: "n100", events: event(t, nested(100)), record: `{"a":` + strings.Repeat("[", 100) + "null" + strings.Repeat("]", 100) + "}"},
		{name: "nested 1,000 deep", tag: "n1000", events: event(t, nested(1000)), reason: "nested too deep"},
		{name: "a value of 1 MB", tag: "large", array: true, events: event(t, map[string]any{"a": large}), record: text(t, map[string]any{"a": large})},
		{name: "a value of 1 MB that is not UTF-8", tag: "odd", array: true, events: event(t, map[string]any{"a": oddLarge}),
			record: `{"a":{"$str":"` + base64.StdEncoding.EncodeToString([]byte(oddLarge)) + `"}}`},
		{name: "a tag with control characters", tag: "a \"b\"\\\n\t\u00e9", events: well, record: `{"a":1}`},
		{name: "a tag that is not UTF-8", tag: "odd\xff", events: well, asTag: `{"$str":"b2Rk/w=="}`, record: `{"a":1}`},
		{name: "a tag like a path", tag: "../../etc/passwd", events: well, record: `{"a":1}`},
		{name: "a tag of 2,000 bytes", tag: strings.Repeat("t", 2000), events: well, record: `{"a":1}`},
		{name: "a tag with a zero byte, behind which Fluent Bit passes nothing on", tag: "zero\x00byte", events: well, asTag: `"zero"`, record: `{"a":1}`},
		{name: "a record that is no map", tag: "five", events: event(t, 5), reason: "malformed event"},
		{name: "an event cut off", tag: "cut", events: event(t, map[string]any{"a": "bcdefgh"})[:16], reason: "truncated"},
		{name: "bytes that are no msgpack", tag: "garbage", events: []byte("\xc1garbage"), reason: "invalid byte"},
	}
	for i := range cases {
		c := &cases[i]
		if c.asTag == "" {
			c.asTag = text(t, c.tag)
		}
		f, err := fluentbit.Dial(t.Context(), a.forward)
		if err != nil {
			t.Fatal(err)
		}
		chunk := fluentbit.Chunk{Tag: c.tag, Events: append(bytes.Clone(well), c.events...), Count: 2, Packed: !c.array, ID: c.name}
		if err := f.Send(t.Context(), chunk); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		f.Close()
	}
	l.waitFor(t, 2*len(cases))
	log := l.load(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got []chain.Entry
			for _, e := range log.entries {
				if sameJSON(t, string(e.Tag), c.asTag) {
					got = append(got, e)
				}
			}
			if len(got) != 2 || string(got[0].Record) != `{"a":1}` {
				t.Fatalf("%d entries have the tag %s", len(got), c.asTag)
			}
			if c.reason == "" {
				if !sameJSON(t, string(got[1].Record), c.record) {
					t.Errorf("record %.500s, want %.500s", got[1].Record, c.record)
				}
				return
			}
			q := parseQuarantine(t, &got[1])
			if got[1].Event != chain.EventQuarantine || q.Reason != c.reason || q.Offset != len(well) || !bytes.Equal(q.Data, c.events) {
				t.Errorf("%s of %q at %d because %q, want %q because %q", got[1].Event, q.Data, q.Offset, q.Reason, c.events, c.reason)
			}
		})
	}
	a.checkMetrics(t, "auditchain.0", log)
	a.stop(t)
	l.verify(t)
}

// testCorruptChunks delivers chunks that Fluent Bit would make only if its memory or its disk were damaged. Nothing is
// refused: what can be read is in the chain as records, all other bytes are in quarantine entries.
func testCorruptChunks(t *testing.T) {
	t.Parallel()
	l := newLog(t, minioTLS.open(t))
	h := startHost(t, l.section())
	dir := t.TempDir()
	var good []byte
	for i := range 5 {
		good = append(good, event(t, map[string]any{"request_id": fmt.Sprint(i), "values": []any{1.5, "x", []byte{1}, nil}})...)
	}
	chunks := [][]byte{
		{0xc1}, {0x92}, {0, 1, 2},
		event(t, nested(100_000)),
		bytes.Repeat([]byte{0x91}, 1<<20),                     // nothing but open brackets
		append([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, good...), // an array of 4 G elements
		append([]byte{0xdf, 0xff, 0xff, 0xff, 0xff}, good...), // a map of 4 G pairs
		append([]byte{0xdb, 0xff, 0xff, 0xff, 0xff}, good...), // a string of 4 GB
		append(append(bytes.Clone(good), 0xc1), good...),
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 { // cut, and with one byte changed
		chunks = append(chunks, good[:1+random.IntN(len(good)-1)])
		changed := bytes.Clone(good)
		changed[random.IntN(len(changed))] ^= byte(1 + random.IntN(255))
		chunks = append(chunks, changed)
	}
	sent := make(map[chain.Hash][]byte)
	for i, data := range chunks {
		if sent[chain.Sum(data)] != nil {
			continue
		}
		sent[chain.Sum(data)] = data
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		flush(t, h, path)
		if a := h.Next(t); a.Ret != "OK" {
			t.Fatalf("chunk %.100x: %+v", data, a)
		}
	}
	h.End(t)

	for entries := l.load(t).entries; len(entries) > 0; {
		marker := entries[0].Chunk
		if marker == nil || sent[marker.SHA256] == nil || marker.Entries > uint64(len(entries)) {
			t.Fatalf("entry %d begins a chunk that nobody sent: %+v", entries[0].Seq, marker)
		}
		checkCorrupt(t, sent[marker.SHA256], entries[:marker.Entries])
		delete(sent, marker.SHA256)
		entries = entries[marker.Entries:]
	}
	if len(sent) > 0 {
		t.Errorf("%d chunks are not in the chain", len(sent))
	}
	l.verify(t)
}

// checkCorrupt sees to it that the entries account for every byte of the chunk: a quarantine entry for those that it
// carries, a record for each whole value between.
func checkCorrupt(t *testing.T, data []byte, entries []chain.Entry) {
	t.Helper()
	at, records := 0, 0
	values := func(end int) { // between at and end
		t.Helper()
		for rest := data[at:end]; len(rest) > 0; records-- {
			var err error
			if rest, err = msgp.Skip(rest); err != nil {
				t.Errorf("bytes %d to %d of chunk %.100x are in no entry", at, end, data)
				return
			}
		}
		if records != 0 {
			t.Errorf("chunk %.100x: %d records too many before byte %d", data, records, end)
		}
	}
	for i := range entries {
		e := &entries[i]
		if e.Event == "" {
			records++
			continue
		}
		q := parseQuarantine(t, e)
		end := q.Offset + q.Size
		if e.Event != chain.EventQuarantine || q.Offset < at || end > len(data) || !bytes.Equal(q.Data, data[q.Offset:end]) {
			t.Fatalf("chunk %.100x: entry %d is a %s of bytes %d to %d that are others", data, e.Seq, e.Event, q.Offset, end)
		}
		values(q.Offset)
		at, records = end, 0
	}
	values(len(data))
}
