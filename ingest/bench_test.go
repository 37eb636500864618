package ingest

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/record/recordtest"
)

// BenchmarkFlushPath measures what a flush costs besides the disk: decoding, chaining, hashing, the tree, the books. Beside
// it stands the floor: msgp's conversion of the same msgpack to JSON, and SHA-256 over the same lines.
func BenchmarkFlushPath(b *testing.B) {
	for _, size := range []int{500, 1500, 12000} {
		chunk, records := benchChunk(size)
		lines := benchLines(b, chunk)
		var ours float64 // ns per record
		b.Run(fmt.Sprintf("record=%d/auditchain", size), func(b *testing.B) {
			l := benchLog()
			f := new(flush)
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				benchFlush(b, l, f, chunk)
			}
			ours = float64(b.Elapsed().Nanoseconds()) / float64(b.N) / float64(records)
			b.ReportMetric(ours, "ns/record")
		})
		b.Run(fmt.Sprintf("record=%d/floor", size), func(b *testing.B) {
			out := new(writer)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				out.n = 0
				if _, err := msgp.UnmarshalAsJSON(out, chunk); err != nil {
					b.Fatal(err)
				}
				for from, i := 0, 0; i < len(lines); i++ {
					if lines[i] == '\n' {
						sha256.Sum256(lines[from:i])
						from = i + 1
					}
				}
			}
			floor := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / float64(records)
			b.ReportMetric(floor, "ns/record")
			b.ReportMetric(ours/floor, "auditchain/floor")
		})
	}
}

// BenchmarkFlushPathParallel does the same from several goroutines into one log: decoding runs beside each other, hashing
// cannot.
func BenchmarkFlushPathParallel(b *testing.B) {
	chunk, records := benchChunk(500)
	l := benchLog()
	b.SetBytes(int64(len(chunk)))
	b.RunParallel(func(pb *testing.PB) {
		f := new(flush)
		for pb.Next() {
			benchFlush(b, l, f, chunk)
		}
	})
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(records), "ns/record")
}

// benchChunk returns a chunk of about 1 MB of records of about size bytes, and how many there are.
func benchChunk(size int) (chunk []byte, records int) {
	records = max(1, 1_000_000/size)
	return recordtest.New(recordtest.Config{Text: max(0, size-500)}).Chunk(records), records
}

type writer struct{ n int }

func (w *writer) Write(p []byte) (int, error) { w.n += len(p); return len(p), nil }

func benchLog() *Log {
	return &Log{now: func() time.Time { return time.Unix(1_800_000_000, 0) }}
}

func benchFlush(b *testing.B, l *Log, f *flush, chunk []byte) {
	f.batch.Decode(chunk)
	f.marker = &chain.ChunkMarker{SHA256: sha256.Sum256(chunk), Entries: uint64(len(f.batch.Entries))}
	if _, err := l.enqueue(f, []byte("vllm.audit")); err != nil {
		b.Fatal(err)
	}
	l.mu.Lock()
	l.queue = l.queue[:0]
	l.mu.Unlock()
	f.out = f.lines
	l.writing.Lock()
	var j journal
	j.accept(f)
	l.account(f, &j)
	l.writing.Unlock()
}

func benchLines(b *testing.B, chunk []byte) []byte {
	l, f := benchLog(), new(flush)
	benchFlush(b, l, f, chunk)
	return f.lines
}
