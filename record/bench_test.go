package record

import (
	"testing"

	"github.com/auditchain/auditchain/record/recordtest"
)

// BenchmarkDecode decodes chunks of about 1 MB. The comparison with other decoders is in test/bench/record-peers.
func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct {
		name string
		cfg  recordtest.Config
	}{
		{"0.5KB", recordtest.Config{}},
		{"1.5KB", recordtest.Config{Text: 1000}},
		{"12KB", recordtest.Config{Text: 11500}},
		{"12KB-world", recordtest.Config{Text: 11500, World: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			n := 1 << 20 / len(recordtest.New(c.cfg).Chunk(1))
			chunk := recordtest.New(c.cfg).Chunk(n)
			var batch Batch
			batch.Decode(chunk)
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				batch.Decode(chunk)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
		})
	}
}
