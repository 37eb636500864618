package recordtest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"

	"github.com/auditchain/auditchain/record"
	"github.com/auditchain/auditchain/record/recordtest"
)

var configs = map[string]recordtest.Config{
	"small": {},
	"text":  {Seed: 1, Text: 1000, SourceID: "gpu-7/x", FirstSeq: 10, Start: time.Date(2027, 1, 2, 3, 4, 5, 6, time.UTC), Step: time.Second},
	"world": {Seed: 2, Text: 11500, World: true},
}

// What msgpack says, the writer reads as the same that JSON says; and it lacks nothing.
func TestSameInAllForms(t *testing.T) {
	for name, cfg := range configs {
		t.Run(name, func(t *testing.T) {
			const n = 50
			chunk := recordtest.New(cfg).Chunk(n)
			lines := bytes.Split(bytes.TrimSuffix(recordtest.New(cfg).Lines(n), []byte("\n")), []byte("\n"))
			var v1 []byte
			for g := recordtest.New(cfg); len(v1) < len(chunk)-2*n; {
				r := g.Next()
				v1 = r.AppendEventV1(v1)
			}
			for form, events := range map[string][]byte{"v2": chunk, "v1": v1} {
				var b record.Batch
				b.Decode(events)
				if b.Records != n || len(b.Entries) != n || len(lines) != n {
					t.Fatalf("%s: %d records, %d lines, %s", form, b.Records, len(lines), b.Reasons())
				}
				from := 0
				for i, e := range b.Entries {
					var got struct{ Record json.RawMessage }
					if err := json.Unmarshal([]byte("{"+string(b.Bodies[from:e.End])), &got); err != nil {
						t.Fatal(err)
					}
					from = e.End
					if string(got.Record) != string(lines[i]) && cfg.Text == 0 || plain(t, got.Record) != plain(t, lines[i]) {
						t.Fatalf("%s, record %d\n got %s\nwant %s", form, i, got.Record, lines[i])
					}
					if e.Missing != 0 || e.SourceSeq != cfg.FirstSeq+uint64(i) || e.SourceID == nil {
						t.Fatalf("%s, record %d lacks %b, source %q %d", form, i, e.Missing, e.SourceID, e.SourceSeq)
					}
				}
			}
		})
	}
}

// plain returns a text that is the same for the same JSON.
func plain(t *testing.T, text []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(v)
}

func TestText(t *testing.T) {
	for _, size := range []int{100, 1000, 30000} {
		for range 20 {
			r := recordtest.New(recordtest.Config{Text: size, World: true, Seed: uint64(size)})
			rec := r.Next()
			if got := len(rec.Prompt) + len(rec.Response); got < size || got > size+200 || !utf8.ValidString(rec.Prompt+rec.Response) {
				t.Errorf("%d bytes of text, want about %d", got, size)
			}
			if rec.InputHash != fmt.Sprintf("%x", sha256.Sum256([]byte(rec.Prompt))) || rec.OutputHash != fmt.Sprintf("%x", sha256.Sum256([]byte(rec.Response))) {
				t.Error("hashes are not those of the text")
			}
		}
	}
}

// The records are the same today and tomorrow: benchmarks and golden files lean on it.
func TestDeterministic(t *testing.T) {
	for name, want := range map[string]string{
		"small": "17e8db7e2c6981d8",
		"text":  "6820058a1c816642",
		"world": "68bba650d0c0bdfb",
	} {
		got := fmt.Sprintf("%x", sha256.Sum256(recordtest.New(configs[name]).Chunk(100)))
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", name, got[:16], want)
		}
	}
	if bytes.Equal(recordtest.New(recordtest.Config{Seed: 1}).Chunk(1), recordtest.New(recordtest.Config{Seed: 2}).Chunk(1)) {
		t.Error("the seed does not matter")
	}
}

func TestIncomplete(t *testing.T) {
	var b record.Batch
	b.Decode(recordtest.New(recordtest.Config{Incomplete: 4}).Chunk(100))
	incomplete := 0
	for _, e := range b.Entries {
		if e.Missing != 0 {
			incomplete++
		}
	}
	if incomplete != 25 {
		t.Errorf("%d of 100 records are incomplete, want 25", incomplete)
	}
}

func TestForward(t *testing.T) {
	chunk := recordtest.New(recordtest.Config{}).Chunk(3)
	for ack, options := range map[string]string{"": `{"size":3}`, "id-1": `{"chunk":"id-1","size":3}`} {
		message := recordtest.Forward("vllm.audit", chunk, 3, ack)
		size, rest, err := msgp.ReadArrayHeaderBytes(message)
		if err != nil || size != 3 {
			t.Fatal(size, err)
		}
		tag, rest, err := msgp.ReadStringBytes(rest)
		if err != nil || tag != "vllm.audit" {
			t.Fatal(tag, err)
		}
		entries, rest, err := msgp.ReadBytesBytes(rest, nil)
		if err != nil || !bytes.Equal(entries, chunk) {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if _, err := msgp.UnmarshalAsJSON(&out, rest); err != nil || out.String() != options {
			t.Fatal(out.String(), err)
		}
	}
	if got := string(recordtest.Ack("id-1")); got != "\x81\xa3ack\xa4id-1" {
		t.Errorf("Ack: %q", got)
	}
}
