package chain

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the test vectors anew")

// vectorKey is a key of the test vectors: the Ed25519 key whose seed is 32 bytes of the given value; 1 for most.
func vectorKey(t testing.TB) (*SigningKey, []byte) { return vectorKeyOf(t, 1) }

func vectorKeyOf(t testing.TB, seed byte) (*SigningKey, []byte) {
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	k, err := ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k, text
}

// vectorLog makes a chain, always the same.
type vectorLog struct {
	t     testing.TB
	k     *SigningKey
	head  Head
	start time.Time
	files map[string][]byte // by their name below the chain's root
	tree  Subtrees          // of all entries
	seen  map[string]string // by source and number, the record that came first
	line  []byte
}

func newVectorLog(t testing.TB, name string) *vectorLog {
	k, text := vectorKey(t)
	v := &vectorLog{
		t: t, k: k, head: Head{Chain: name, Key: k.Public()}, start: time.Date(2026, 11, 23, 7, 25, 0, 0, time.UTC),
		files: map[string][]byte{"key.pem": text, "pub.pem": k.Public().PEM()}, seen: make(map[string]string),
	}
	v.commit(KindGenesis, &v.head, 0, func(m *Manifest) {
		m.Genesis = &GenesisInfo{m.SealedAt, string(k.Public().PEM()), v.checkpointKey(k), Policy{"7y", "COMPLIANCE", 3600}}
	})
	return v
}

func (v *vectorLog) checkpointKey(k *SigningKey) string {
	vkey, err := k.CheckpointKey(v.head.Chain)
	if err != nil {
		v.t.Fatal(err)
	}
	return vkey
}

func (v *vectorLog) commit(kind Kind, end *Head, at time.Duration, fill func(*Manifest)) *Manifest {
	m, err := v.head.Next(kind, end, v.k)
	if err != nil {
		v.t.Fatal(err)
	}
	m.SealedAt = Time{v.start.Add(at)}
	m.Lock = Lock{"COMPLIANCE", Time{v.start.Add(at).Truncate(time.Second).AddDate(7, 0, 0)}}
	m.Writer = Writer{"1.0.0", "aggregator-1", "0011223344556677"}
	fill(m)
	data, payload, err := m.Sign(v.k)
	if err != nil {
		v.t.Fatal(err)
	}
	if err := v.head.Advance(m, payload); err != nil {
		v.t.Fatal(err)
	}
	v.files[fmt.Sprintf("manifests/%012d.sigstore.json", m.N)] = data
	return m
}

// rotate goes over to the key of that seed.
func (v *vectorLog) rotate(at time.Duration, seed byte) {
	next, _ := vectorKeyOf(v.t, seed)
	v.commit(KindRotation, &v.head, at, func(m *Manifest) {
		m.Rotation = &NewKeys{string(next.Public().PEM()), v.checkpointKey(next)}
	})
	v.k = next
}

// entry makes the entry after end, and leaves its line in v.
func (v *vectorLog) entry(end *Head, middle []byte, marker *ChunkMarker, body string, redelivered, conflict bool) Entry {
	v.line = AppendEntry(nil, end.NextSeq, end.Entry, middle, marker, redelivered, conflict, []byte(body))
	e, err := ParseEntry(v.line)
	if err != nil {
		v.t.Fatalf("%s: %v", v.line, err)
	}
	return e
}

// segment commits chunks of entries, given from "time": or "event": on.
func (v *vectorLog) segment(at time.Duration, chunks ...[]string) *Manifest {
	t, end := v.t, v.head
	var lines []byte
	var sum Summary
	var hashes []Hash
	for i, bodies := range chunks {
		received := v.start.Add(at - time.Second + time.Duration(i)*time.Millisecond)
		middle := AppendMiddle(nil, received, []byte("vllm.audit"))
		marker := &ChunkMarker{Sum([]byte(strings.Join(bodies, ""))), uint64(len(bodies))}
		for _, body := range bodies {
			e := v.entry(&end, middle, marker, body, false, false)
			if f := e.Facts(); f.SourceID != nil {
				name := fmt.Sprint(f.SourceSeq, " ", string(f.SourceID))
				if first, again := v.seen[name]; again {
					e = v.entry(&end, middle, marker, body, true, first != string(e.Record))
				} else {
					v.seen[name] = string(e.Record)
				}
			}
			line := v.line
			end.Append(Sum(line))
			hashes = append(hashes, end.Entry)
			sum.Add(e.Facts())
			sum.Receive(received)
			lines = append(append(lines, line...), '\n')
			marker = nil
		}
	}
	var object bytes.Buffer
	c, err := NewCompressor(LevelFastest)
	if err != nil {
		t.Fatal(err)
	}
	w := NewSegmentWriter(&object, c)
	if _, err := w.Write(lines); err != nil {
		t.Fatal(err)
	}
	s, _, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	v.tree.AddEntries(v.head.NextSeq, hashes)
	m := v.commit(KindSegment, &end, at, func(m *Manifest) {
		s.Key, s.VersionID = SegmentName(m.N, m.SealedAt.Time), fmt.Sprintf("version-%d", m.N)
		counts := sum.Counts()
		m.Segment, m.Counts = &s, &counts
		m.EventTime, m.Received = sum.EventTimes(), sum.ReceivedTimes()
		m.Sources, m.SourcesOmitted = sum.SourceRanges()
	})
	v.tree.AddManifest(m)
	v.files[s.Key] = object.Bytes()
	v.files[strings.TrimSuffix(s.Key, ".zst")] = lines
	return m
}

// complete is a complete record: nanoseconds, request id and source number are to be filled in.
const complete = `"time":"2026-11-23T07:25:01.%09dZ","record":{"request_id":"req-%d","timestamp":"2026-11-23T07:25:01Z","model_id":"llama-3","model_checksum":"9f86","input_hash":"aa","output_hash":"bb","user_id":"key-17","input_tokens":342,"output_tokens":156,"latency_ms":1240.5,"status":200,"source":{"id":"gpu-1/5f0c","seq":%d}}}`

// vectors makes a small chain with nearly everything in it.
func vectors(t testing.TB) map[string][]byte {
	v := newVectorLog(t, "audit.example.com/vectors")
	var many []string
	for i := range 7000 { // more than one frame
		many = append(many, fmt.Sprintf(complete, i, i, i))
	}
	v.segment(time.Minute, many,
		[]string{
			`"time":"2026-11-23T07:25:02.000000000Z","meta":{"otlp":{"attributes":{"gen_ai.request.model":"llama","gen_ai.usage.input_tokens":5}}},"group":{"meta":{"schema":"otlp"},"record":{"resource":{}}},"record":{"log":"plain text","user_id":null,"status":""}}`,
			`"event":"quarantine","detail":{"reason":"corrupt","offset":12,"size":1,"sha256":"` + Sum([]byte{0xc1}).String() + `","data":"wQ=="}}`,
			fmt.Sprintf(complete, 3, 6999, 6999), // again
			fmt.Sprintf(complete, 4, 9999, 6999), // another
			`"time":"2026-11-23T07:25:02.000000001Z","record":{"timestamp":"2026-11-23T07:25:02Z","source":{"id":"gpu-1/5f0c/events","seq":1},"source_event":"heartbeat","of":"gpu-1/5f0c","served":7000,"recorded":7000,"lost":0,"open":[]}}`,
		})
	v.commit(KindHeartbeat, &v.head, time.Hour, func(m *Manifest) { skew := int64(-250); m.ClockSkew = &skew })
	v.segment(2*time.Hour, []string{fmt.Sprintf(complete, 5, 7002, 7002), fmt.Sprintf(complete, 6, 7003, 7003)})
	return v.files
}

// rotated makes a small chain whose key is changed twice, with a kept head, evidence of an entry and proofs.
func rotated(t testing.TB) map[string][]byte {
	v := newVectorLog(t, "audit.example.com/rotated")
	record := func(n int) string { return fmt.Sprintf(complete, n, n, n) }
	first := v.segment(time.Minute, []string{record(0), record(1), record(2)})
	v.rotate(2*time.Minute, 2)
	v.commit(KindHeartbeat, &v.head, 2*time.Minute+time.Second, func(*Manifest) {})
	v.segment(3*time.Minute, []string{record(3), record(4)}, []string{record(5), record(6), record(7)})
	v.rotate(4*time.Minute, 3)
	last := v.segment(5*time.Minute, []string{record(8), record(9), record(10)})

	kept, err := v.head.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	v.files["head.json"] = append(kept, '\n')
	prove := func(index uint64, m *Manifest) InclusionProof {
		hashes, err := v.tree.Inclusion(index, m.NextSeq)
		if err != nil {
			t.Fatal(err)
		}
		return InclusionProof{index, hashes, m.Checkpoint}
	}
	v.files["entry-4.tlog-proof"] = []byte(prove(4, last).String())
	hashes, err := v.tree.Consistency(first.NextSeq, last.NextSeq)
	if err != nil {
		t.Fatal(err)
	}
	v.files["consistency-3-11.proof"] = []byte(ConsistencyProof{first.NextSeq, hashes, last.Checkpoint}.String())
	stored := func(n int) []byte { return v.files[fmt.Sprintf("manifests/%012d.sigstore.json", n)] }
	lines := bytes.Split(v.files[strings.TrimSuffix(last.Segment.Key, ".zst")], []byte{'\n'})
	e := NewEvidence(lines[1], prove(9, last), stored(6), [][]byte{stored(0), stored(2), stored(5)}, v.head.Chain)
	e.Objects = []StoredObject{
		{"segment", v.head.Chain + "/" + last.Segment.Key, last.Segment.VersionID, "COMPLIANCE", "2033-11-23T07:30:00Z"},
		{"manifest", v.head.Chain + "/manifests/000000000006.sigstore.json", "m6", "COMPLIANCE", "2033-11-23T07:30:00Z"},
	}
	e.Made = Made{Time{v.start.Add(time.Hour)}, "auditchain 1.0.0", "s3://audit at https://s3.example.com"}
	if v.files["evidence.json"], err = e.JSON(); err != nil {
		t.Fatal(err)
	}
	return v.files
}

// TestVectors pins every byte of the format. Whoever writes a verifier from docs/FORMAT.md can try it on these files.
func TestVectors(t *testing.T) {
	compareVectors(t, "vectors", vectors(t))
	compareVectors(t, "rotated", rotated(t))
}

func compareVectors(t *testing.T, dir string, files map[string][]byte) {
	root := filepath.Join("testdata", dir)
	for name, data := range files {
		if strings.HasSuffix(name, ".ndjson") {
			continue // stands in the .zst
		}
		path := filepath.Join(root, filepath.FromSlash(name))
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want) {
			t.Errorf("%s has changed: the format is not what it was", name)
		}
	}
}

// TestVerifyVectors walks the stored vectors as an auditor would.
func TestVerifyVectors(t *testing.T) {
	manifests, segments := storedVectors(t)
	k, _ := vectorKey(t)
	head := Head{}
	entries := 0
	for i, data := range manifests {
		m, payload, err := OpenManifest(data, k.Public())
		if err != nil {
			t.Fatalf("manifest %d: %v", i, err)
		}
		before := head
		if err := head.Advance(m, payload); err != nil {
			t.Fatal(err)
		}
		if m.Segment == nil {
			continue
		}
		err = VerifySegment(m, bytes.NewReader(segments[m.Segment.Key]), func(e *Entry, line []byte) error {
			entries++
			return nil
		})
		if err != nil {
			t.Errorf("segment %d: %v", i, err)
		}
		if before.NextSeq != m.FirstSeq {
			t.Errorf("segment %d begins at %d, want %d", i, m.FirstSeq, before.NextSeq)
		}
	}
	if entries != 7007 || head.NextSeq != 7007 || head.NextN != 4 {
		t.Errorf("walked %d entries to head %d, manifest %d", entries, head.NextSeq, head.NextN)
	}
}

func storedVectors(t testing.TB) (manifests [][]byte, segments map[string][]byte) {
	root := filepath.Join("testdata", "vectors")
	paths, _ := filepath.Glob(filepath.Join(root, "manifests", "*"))
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, data)
	}
	segments = make(map[string][]byte)
	paths, _ = filepath.Glob(filepath.Join(root, "segments", "*", "*"))
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(root, p)
		segments[filepath.ToSlash(name)] = data
	}
	if len(manifests) == 0 || len(segments) == 0 {
		t.Fatal("no test vectors; write them with -update")
	}
	return manifests, segments
}

// TestTamperedVectors flips a bit of every 41st byte of the stored chain: each must be noticed.
func TestTamperedVectors(t *testing.T) {
	manifests, segments := storedVectors(t)
	k, _ := vectorKey(t)
	walk := func(manifests [][]byte, segments map[string][]byte) error {
		var head Head
		for _, data := range manifests {
			m, payload, err := OpenManifest(data, k.Public())
			if err != nil {
				return err
			}
			if err := head.Advance(m, payload); err != nil {
				return err
			}
			if m.Segment == nil || segments[m.Segment.Key] == nil {
				continue
			}
			if err := VerifySegment(m, bytes.NewReader(segments[m.Segment.Key]), nil); err != nil {
				return err
			}
		}
		if head.NextN != 4 {
			return io.ErrUnexpectedEOF
		}
		return nil
	}
	if err := walk(manifests, segments); err != nil {
		t.Fatal(err)
	}
	type object struct {
		name string
		data []byte
	}
	// The large segment is left out of the walks below: they are many.
	small := make(map[string][]byte)
	var objects []object
	for key, data := range segments {
		if strings.Contains(key, "0003") {
			small[key] = data
			objects = append(objects, object{key, data})
		}
	}
	for i, data := range manifests {
		objects = append(objects, object{fmt.Sprintf("manifest %d", i), data})
	}
	only := map[string][]byte{}
	for key, data := range segments {
		only[key] = data
	}
	for _, o := range objects {
		for i := 0; i < len(o.data); i += 41 {
			bit := byte(1) << (i % 8)
			o.data[i] ^= bit
			err := walk(manifests, small)
			if err == nil {
				t.Errorf("%s: bit %#x of byte %d was turned unnoticed", o.name, bit, i)
			}
			o.data[i] ^= bit
		}
	}
	if err := walk(manifests[1:], segments); err == nil {
		t.Error("a chain without its genesis was accepted")
	}
	swapped := [][]byte{manifests[0], manifests[2], manifests[1], manifests[3]}
	if err := walk(swapped, segments); err == nil {
		t.Error("swapped manifests were accepted")
	}
	if err := walk(manifests[:3], segments); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
}
