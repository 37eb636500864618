package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/auditchain/auditchain/chain"
)

func TestEvidence(t *testing.T) {
	l, m := load(t, "rotated")
	for id, manifest := range map[string]uint64{"req-0": 1, "req-5": 4, "req-10": 6} {
		found, err := l.Find(t.Context(), id, nil)
		if err != nil || len(found.Matches) != 1 || found.Matches[0].Manifest != manifest || len(found.Keys) != 3 {
			t.Fatalf("%s: %+v, %v", id, found, err)
		}
		m.opened.Store(0)
		e, err := l.Evidence(t.Context(), Place{found.Matches[0].Seq, manifest}, found.Keys, chain.Made{By: "test"})
		if err != nil {
			t.Fatal(err)
		}
		if n := m.opened.Load(); n != 2 {
			t.Errorf("%s: %d objects were read, want 2", id, n)
		}
		if r := e.Verify(l.Key.Fingerprint()); !r.OK {
			t.Errorf("%s: %+v", id, r)
		}
		if !bytes.Contains(e.Entry, []byte(`"`+id+`"`)) || len(e.Objects) != 2 || e.Objects[0].LockMode != "COMPLIANCE" || e.Objects[1].VersionID != "m" {
			t.Errorf("%s: %+v", id, e)
		}
		dir := filepath.Join(t.TempDir(), "case")
		if err := WriteEvidence(dir, e); err != nil {
			t.Fatal(err)
		}
		again, err := ReadEvidence(dir)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := e.JSON()
		if got, _ := again.JSON(); !bytes.Equal(got, want) {
			t.Errorf("%s: read again it is %s, want %s", id, got, want)
		}
		if err := WriteEvidence(dir, e); err == nil {
			t.Error("a directory was written over")
		}
	}
	if _, err := l.Evidence(t.Context(), Place{5, 1}, nil, chain.Made{}); err == nil {
		t.Error("evidence of an entry that is elsewhere")
	}
	// What was collected is verified before it is handed out.
	found, _ := l.Find(t.Context(), "req-5", nil)
	if _, err := l.Evidence(t.Context(), Place{5, 4}, found.Keys[:1], chain.Made{}); err == nil || !strings.Contains(err.Error(), "no evidence") {
		t.Error(err)
	}
}

func TestReadEvidenceRefuses(t *testing.T) {
	l, _ := load(t, "rotated")
	found, err := l.Find(t.Context(), "req-5", nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := l.Evidence(t.Context(), Place{5, 4}, found.Keys, chain.Made{})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(dir string) error{
		"no entry":           func(dir string) error { return os.Remove(filepath.Join(dir, entryFile)) },
		"no genesis":         func(dir string) error { return os.Remove(filepath.Join(dir, genesisFile)) },
		"another checkpoint": func(dir string) error { return os.WriteFile(filepath.Join(dir, checkpointFile), []byte("x"), 0o644) },
		"no proof":           func(dir string) error { return os.WriteFile(filepath.Join(dir, proofFile), []byte("x"), 0o644) },
		"about":              func(dir string) error { return os.WriteFile(filepath.Join(dir, aboutFile), []byte("x"), 0o644) },
	} {
		dir := filepath.Join(t.TempDir(), "case")
		if err := errors.Join(WriteEvidence(dir, e), change(dir)); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadEvidence(dir); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

func keyOf(t *testing.T, p *Prover, checkpoint string) string {
	t.Helper()
	vkey, ok := p.CheckpointKey(checkpoint)
	if !ok {
		t.Fatal("no key verifies the checkpoint")
	}
	return vkey
}

func TestProver(t *testing.T) {
	l, m := load(t, "rotated")
	p, err := l.NewProver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old, err := chain.PeekManifest(m.objects[l.Layout.Manifest(4)][0].data)
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(11) {
		var entry chain.Hash
		if err := l.Walk(t.Context(), func(e *chain.Entry, line []byte) error {
			if e.Seq == seq {
				entry = chain.Sum(line)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		proof, err := p.Inclusion(t.Context(), seq, p.Checkpoint())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := proof.Verify(entry, keyOf(t, p, p.Checkpoint())); err != nil {
			t.Errorf("entry %d: %v", seq, err)
		}
		if place, ok := p.Place(seq); !ok || place.Manifest != []uint64{1, 1, 1, 4, 4, 4, 4, 4, 6, 6, 6}[seq] {
			t.Errorf("entry %d is in %+v", seq, place)
		}
		proof, err = p.Inclusion(t.Context(), seq, old.Checkpoint)
		if (err == nil) != (seq < 8) {
			t.Errorf("entry %d in the older head: %v", seq, err)
		}
		if err == nil {
			// The checkpoint of then is signed with the key of then.
			rotation, err := chain.PeekManifest(m.objects[l.Layout.Manifest(2)][0].data)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := proof.Verify(entry, rotation.Rotation.CheckpointKey); err != nil {
				t.Errorf("entry %d in the older head: %v", seq, err)
			}
		}
	}
	if _, ok := p.Place(11); ok {
		t.Error("there is an entry 11")
	}
	c, _ := chain.PeekCheckpoint(old.Checkpoint)
	proof, err := p.Consistency(t.Context(), c, p.Checkpoint())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proof.Verify(c, keyOf(t, p, p.Checkpoint())); err != nil {
		t.Error(err)
	}
	for name, head := range map[string]chain.Checkpoint{
		"another root": {Origin: c.Origin, Size: c.Size}, "another chain": {Origin: "x", Size: c.Size, Root: c.Root}, "another size": {Origin: c.Origin, Size: 7, Root: c.Root},
		"a later one": {Origin: c.Origin, Size: 12, Root: c.Root},
	} {
		if _, err := p.Consistency(t.Context(), head, p.Checkpoint()); !errors.Is(err, ErrNotProven) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.objects[l.Layout.Manifest(3)][0].data[900] ^= 1
	if _, err := l.NewProver(t.Context()); err == nil {
		t.Error("a log with a forged manifest was proven from")
	}
}

// BenchmarkEvidence makes evidence of one record out of 1000 segments of 1000 entries, whose place is known. The floor is to
// decompress the record's segment and to hash its lines once.
func BenchmarkEvidence(b *testing.B) {
	l, m, keys := manySegments(b, 1000, 1000)
	ctx := context.Background()
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		b.Fatal(err)
	}
	var floor, took time.Duration
	opened, i := int64(0), uint64(0)
	for b.Loop() {
		at := Place{(i * 7919) % 1_000_000, 0}
		at.Manifest = at.Seq/1000 + 1
		start := time.Now()
		m.opened.Store(0)
		if _, err := l.Evidence(ctx, at, keys, chain.Made{}); err != nil {
			b.Fatal(err)
		}
		took += time.Since(start)
		opened += m.opened.Load()
		i++

		b.StopTimer()
		segment := m.objects[l.Layout.Segment(at.Manifest, time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC))][0].data
		start = time.Now()
		lines, err := dec.DecodeAll(segment, nil)
		if err != nil || len(lines) == 0 {
			b.Fatal(err)
		}
		_ = chain.Sum(lines)
		floor += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(float64(opened)/float64(i), "objects/op")
	b.ReportMetric(float64(took)/float64(floor), "x-floor")
}

// BenchmarkProve proves an old entry in the log's last head.
func BenchmarkProve(b *testing.B) {
	l, m, _ := manySegments(b, 1000, 1000)
	ctx := context.Background()
	i, opened := uint64(0), int64(0)
	for b.Loop() {
		b.StopTimer()
		p, err := l.NewProver(ctx)
		if err != nil {
			b.Fatal(err)
		}
		m.opened.Store(0)
		b.StartTimer()
		if _, err := p.Inclusion(ctx, (i*7919)%1_000_000, p.Checkpoint()); err != nil {
			b.Fatal(err)
		}
		opened += m.opened.Load()
		i++
	}
	b.ReportMetric(float64(opened)/float64(i), "objects/op")
}

// builder makes a log in memory.
type builder struct {
	testing.TB
	*Log
	m       *memory
	k       *chain.SigningKey
	head    chain.Head
	at      time.Time // when the next manifest is sealed
	until   time.Time // how long it is kept at least
	genesis []byte
	zstd    chain.Compressor
}

func build(t testing.TB, name string) *builder {
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	b := &builder{TB: t, m: &memory{objects: make(map[string][]version)}, at: time.Date(2026, 11, 23, 7, 25, 0, 0, time.UTC)}
	if b.k, err = chain.ParseSigningKey(text); err != nil {
		t.Fatal(err)
	}
	b.Log = &Log{Bucket: b.m, Layout: chain.Layout{Chain: name}, Key: b.k.Public()}
	b.head = chain.Head{Chain: name, Key: b.Key}
	if b.zstd, err = chain.NewCompressor(chain.LevelFastest); err != nil {
		t.Fatal(err)
	}
	b.genesis = b.commit(chain.KindGenesis, &b.head, func(next *chain.Manifest) {
		vkey, err := b.k.CheckpointKey(name)
		if err != nil {
			t.Fatal(err)
		}
		next.Genesis = &chain.GenesisInfo{Created: next.SealedAt, ManifestKey: string(b.Key.PEM()), CheckpointKey: vkey,
			Policy: chain.Policy{Retention: "7y", LockMode: "COMPLIANCE", HeartbeatInterval: 3600}}
	})
	return b
}

func (b *builder) commit(kind chain.Kind, end *chain.Head, fill func(*chain.Manifest)) []byte {
	next, err := b.head.Next(kind, end, b.k)
	if err != nil {
		b.Fatal(err)
	}
	if until := b.at.AddDate(8, 0, 0); until.After(b.until) {
		b.until = until
	}
	next.SealedAt, next.Lock = chain.Time{Time: b.at}, chain.Lock{Mode: "COMPLIANCE", RetainUntil: chain.Time{Time: b.until}}
	fill(next)
	data, payload, err := next.Sign(b.k)
	if err == nil {
		err = b.head.Advance(next, payload)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.m.put(b.Layout.Manifest(next.N), "m", data, b.until.AddDate(1, 0, 0))
	return data
}

// segment commits a segment of so many records of about 700 bytes, and returns its key.
func (b *builder) segment(entries int) string {
	end, middle := b.head, chain.AppendMiddle(nil, b.at, []byte("vllm.audit"))
	var object bytes.Buffer
	w := chain.NewSegmentWriter(&object, b.zstd)
	var sum chain.Summary
	for range entries {
		body := fmt.Sprintf(`"time":"2026-11-23T07:25:01.000000000Z","record":{"request_id":"req-%d","timestamp":"2026-11-23T07:25:01Z","model_id":"llama-3","model_checksum":"%s","input_hash":"%s","output_hash":"%s","user_id":"key-17","input_tokens":342,"output_tokens":156,"latency_ms":1240.5,"status":200,"source":{"id":"gpu-1/5f0c","seq":%d}}}`,
			end.NextSeq, end.Entry, chain.Sum(end.Entry[:]), chain.Sum(end.Entry[1:]), end.NextSeq)
		line := chain.AppendEntry(nil, end.NextSeq, end.Entry, middle, nil, false, false, []byte(body))
		end.Append(chain.Sum(line))
		e, err := chain.ParseEntry(line)
		if err == nil {
			sum.Add(e.Facts())
			sum.Receive(e.Received)
			_, err = w.Write(append(line, '\n'))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	s, _, err := w.Close()
	if err != nil {
		b.Fatal(err)
	}
	b.commit(chain.KindSegment, &end, func(next *chain.Manifest) {
		s.Key, s.VersionID = chain.SegmentName(next.N, b.at), "s"
		counts := sum.Counts()
		next.Segment, next.Counts = &s, &counts
		next.EventTime, next.Received = sum.EventTimes(), sum.ReceivedTimes()
		next.Sources, next.SourcesOmitted = sum.SourceRanges()
	})
	key := b.Layout.Root() + s.Key
	b.m.put(key, "s", object.Bytes(), b.until.AddDate(1, 0, 0))
	return key
}

// manySegments makes a log of so many segments of so many records.
func manySegments(t testing.TB, segments, entries int) (*Log, *memory, [][]byte) {
	b := build(t, "audit.example.com/many")
	for range segments {
		b.segment(entries)
	}
	return b.Log, b.m, [][]byte{b.genesis}
}
