package peers

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/record"
	"github.com/auditchain/auditchain/record/recordtest"
	"github.com/tinylib/msgp/msgp"
	"github.com/ugorji/go/codec"
)

// BenchmarkPeers turns chunks of about 1 MB into JSON. What to compare is ns/record, and
// x-auditchain: how many times as long as auditchain's decoder.
func BenchmarkPeers(b *testing.B) {
	for _, c := range []struct {
		name string
		cfg  recordtest.Config
	}{
		{"0.5KB", recordtest.Config{}},
		{"1.5KB", recordtest.Config{Text: 1000}},
		{"12KB", recordtest.Config{Text: 11500}},
		{"12KB-world", recordtest.Config{Text: 11500, World: true}},
	} {
		one := recordtest.New(c.cfg).Chunk(1)
		n := 1 << 20 / len(one)
		chunk := recordtest.New(c.cfg).Chunk(n)
		var ours float64 // ns per record, of the first peer
		for _, p := range peers {
			b.Run(fmt.Sprintf("%s/%s", c.name, p.name), func(b *testing.B) {
				run := p.prepare()
				run(chunk)
				b.SetBytes(int64(len(chunk)))
				b.ReportAllocs()
				for b.Loop() {
					if got := run(chunk); got != n {
						b.Fatalf("%d records, want %d", got, n)
					}
				}
				took := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / float64(n)
				b.ReportMetric(took, "ns/record")
				if ours == 0 {
					ours = took
				}
				b.ReportMetric(took/ours, "x-auditchain")
			})
		}
	}
}

// peer decodes chunks; prepare returns a function that decodes one and returns how many records it had.
type peer struct {
	name    string
	prepare func() func(chunk []byte) int
}

var peers = []peer{
	{"auditchain", func() func([]byte) int {
		var batch record.Batch
		return func(chunk []byte) int {
			batch.Decode(chunk)
			return batch.Records
		}
	}},
	{"auditchain+lines+sha256", func() func([]byte) int {
		var batch record.Batch
		var line []byte
		middle := []byte(`","received":"2026-11-23T07:25:01.123456789Z","tag":"vllm.audit",`)
		return func(chunk []byte) int {
			batch.Decode(chunk)
			var prev chain.Hash
			from := 0
			for i, e := range batch.Entries {
				line = chain.AppendEntry(line[:0], uint64(i), prev, middle, nil, false, false, batch.Bodies[from:e.End])
				prev, from = sha256.Sum256(line), e.End
			}
			return batch.Records
		}
	}},
	{"auditchain+sha256", func() func([]byte) int {
		var batch record.Batch
		return func(chunk []byte) int {
			batch.Decode(chunk)
			from := 0
			for _, e := range batch.Entries {
				sink = sha256.Sum256(batch.Bodies[from:e.End])
				from = e.End
			}
			return batch.Records
		}
	}},
	{"msgp", func() func([]byte) int {
		var out bytes.Buffer
		return func(chunk []byte) int { return unmarshalAsJSON(&out, chunk, false) }
	}},
	{"msgp+sha256", func() func([]byte) int {
		var out bytes.Buffer
		return func(chunk []byte) int { return unmarshalAsJSON(&out, chunk, true) }
	}},
	{"ugorji", func() func([]byte) int {
		in := &codec.MsgpackHandle{}
		in.RawToString = true
		out := &codec.JsonHandle{}
		decoder := codec.NewDecoderBytes(nil, in)
		var text []byte
		encoder := codec.NewEncoderBytes(&text, out)
		return func(chunk []byte) int {
			decoder.ResetBytes(chunk)
			n := 0
			for ; decoder.NumBytesRead() < len(chunk); n++ {
				var event any
				if err := decoder.Decode(&event); err != nil {
					panic(err)
				}
				encoder.ResetBytes(&text)
				if err := encoder.Encode(event.([]any)[1]); err != nil {
					panic(err)
				}
			}
			return n
		}
	}},
	{"fluent-bit-go+encoding/json", func() func([]byte) int { return fluentBitGo }},
}

var sink [32]byte

// unmarshalAsJSON reads the events' frames by hand, as writers that use msgp do, and the records with UnmarshalAsJSON.
func unmarshalAsJSON(out *bytes.Buffer, chunk []byte, hash bool) int {
	n := 0
	for ; len(chunk) > 0; n++ {
		_, rest, err := msgp.ReadArrayHeaderBytes(chunk)
		if err != nil {
			return -1
		}
		if _, rest, err = msgp.ReadArrayHeaderBytes(rest); err != nil {
			return -1
		}
		rest = rest[10:] // EventTime
		if rest, err = msgp.Skip(rest); err != nil {
			return -1
		}
		end, err := msgp.Skip(rest)
		if err != nil {
			return -1
		}
		out.Reset()
		if _, err = msgp.UnmarshalAsJSON(out, rest[:len(rest)-len(end)]); err != nil {
			return -1
		}
		if hash {
			sink = sha256.Sum256(out.Bytes())
		}
		chunk = end
	}
	return n
}

// printable makes of a record what encoding/json takes, as Go plugins for Fluent Bit do.
func printable(v any) any {
	switch v := v.(type) {
	case map[any]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[fmt.Sprint(printable(k))] = printable(e)
		}
		return m
	case []any:
		for i := range v {
			v[i] = printable(v[i])
		}
		return v
	case []byte:
		return string(v)
	}
	return v
}

func marshal(record map[any]any) ([]byte, error) { return json.Marshal(printable(record)) }

func fluentBitGo(chunk []byte) int {
	return records(chunk, func(record map[any]any) error {
		_, err := marshal(record)
		return err
	})
}
