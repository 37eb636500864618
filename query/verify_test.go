package query

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// memory is a bucket in memory whose objects a test can tamper with: versions by key, the oldest first.
type memory struct {
	storage.Bucket // nil: what is not needed is not there
	objects        map[string][]version
	opened         atomic.Int64     // how many objects were read
	before         func(key string) // called before an object is read
}

type version struct {
	info storage.Info
	data []byte
}

func (m *memory) Locks() bool    { return true }
func (m *memory) String() string { return "memory" }

func (m *memory) put(key, id string, data []byte, until time.Time) {
	m.objects[key] = append(m.objects[key], version{storage.Info{
		Key: key, Version: id, Size: int64(len(data)), LockMode: storage.Compliance, RetainUntil: until,
	}, data})
}

func (m *memory) Versions(_ context.Context, key string) (all []storage.Info, err error) {
	for _, v := range m.objects[key] {
		all = append(all, v.info)
	}
	return all, nil
}

func (m *memory) Open(_ context.Context, key, id string, _, _ int64) (io.ReadCloser, storage.Info, error) {
	m.opened.Add(1)
	if m.before != nil {
		m.before(key)
	}
	for _, v := range m.objects[key] {
		if v.info.Version == id && !v.info.DeleteMarker {
			return io.NopCloser(bytes.NewReader(v.data)), v.info, nil
		}
	}
	return nil, storage.Info{}, storage.ErrNotFound
}

func (m *memory) Stat(ctx context.Context, key, id string) (storage.Info, error) {
	_, info, err := m.Open(ctx, key, id, 0, -1)
	return info, err
}

func (m *memory) List(_ context.Context, prefix, startAfter string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		var keys []string
		for key := range m.objects {
			if strings.HasPrefix(key, prefix) && key > startAfter {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		for _, key := range keys {
			for _, v := range m.objects[key] {
				if !yield(v.info, nil) {
					return
				}
			}
		}
	}
}

const root = "audit.example.com/vectors/"

var (
	genesis   = root + "manifests/000000000000.sigstore.json"
	manifest1 = root + "manifests/000000000001.sigstore.json"
	manifest2 = root + "manifests/000000000002.sigstore.json"
	manifest3 = root + "manifests/000000000003.sigstore.json"
	segment1  = root + "segments/date=2026-11-23/000000000001.ndjson.zst"
	segment3  = root + "segments/date=2026-11-23/000000000003.ndjson.zst"
	now       = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC) // half an hour after the last manifest
)

// vectors returns the format's test vectors as a log.
func vectors(t *testing.T) (*Log, *memory) { return load(t, "vectors") }

// load returns a directory of the format's test vectors as a log.
func load(t testing.TB, name string) (*Log, *memory) {
	t.Helper()
	dir := filepath.Join("..", "chain", "testdata", name)
	pem, err := os.ReadFile(filepath.Join(dir, "pub.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := chain.ParsePublicKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{Layout: chain.Layout{Chain: "audit.example.com/" + name}, Key: key}
	m := &memory{objects: make(map[string][]version)}
	l.Bucket = m
	paths, _ := filepath.Glob(filepath.Join(dir, "manifests", "*"))
	segments, _ := filepath.Glob(filepath.Join(dir, "segments", "*", "*"))
	for _, path := range append(paths, segments...) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		below, _ := filepath.Rel(dir, path)
		key, version := l.Layout.Root()+filepath.ToSlash(below), "m"
		if n := strings.TrimSuffix(filepath.Base(path), ".ndjson.zst"); n != filepath.Base(path) {
			version = "version-" + strings.TrimLeft(n, "0")
		}
		m.put(key, version, data, now.AddDate(8, 0, 0))
	}
	return l, m
}

func TestVerifyIntact(t *testing.T) {
	l, _ := vectors(t)
	r, err := l.Verify(context.Background(), VerifyOptions{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != "intact" || r.Manifests != 4 || r.Segments != 2 || r.Counts.Entries != 7007 || r.Head == nil || r.Proven == nil {
		t.Errorf("%+v", r)
	}
	// Its conflict is a warning, at its entry.
	if len(r.Findings) != 1 || r.Findings[0].Code != Conflict || r.Findings[0].Severity != Warning || r.Findings[0].Object != segment1 ||
		*r.Findings[0].FirstSeq != 7003 || *r.Findings[0].LastSeq != 7003 || !strings.Contains(r.Findings[0].Text, `record 6999 of source "gpu-1/5f0c"`) {
		t.Errorf("%+v", r.Findings)
	}
	if c := r.Counts; c.Records != 7006 || c.Complete != 7004 || c.Incomplete != 1 || c.SourceEvents != 1 || c.Redelivered != 2 || c.Conflicts != 1 {
		t.Errorf("%+v", c)
	}
}

// TestVerifyFinds has each way of tampering found under its own name, at the object where it is.
func TestVerifyFinds(t *testing.T) {
	tests := []struct {
		name    string
		tamper  func(m *memory)
		verdict string
		code    Code
		object  string
	}{
		{"byte of a segment changed", func(m *memory) { m.objects[segment1][0].data[5000] ^= 1 }, "tampered", "segment-changed", segment1},
		{"segment cut", func(m *memory) { v := &m.objects[segment1][0]; v.data = v.data[:len(v.data)-1] }, "tampered", "segment-changed", segment1},
		{"segment longer", func(m *memory) { v := &m.objects[segment1][0]; v.data = append(v.data, 0) }, "tampered", "segment-changed", segment1},
		{"segment swapped for another", func(m *memory) { m.objects[segment1][0].data = m.objects[segment3][0].data }, "tampered", "segment-changed", segment1},
		{"segment gone", func(m *memory) { delete(m.objects, segment1) }, "tampered", "segment-missing", segment1},
		{"forged version over a segment", func(m *memory) { m.put(segment1, "x", []byte("forged"), now) }, "tampered", "overlaid-version", segment1},
		{"delete marker over a segment", func(m *memory) {
			m.objects[segment1] = append(m.objects[segment1], version{info: storage.Info{Key: segment1, Version: "d", DeleteMarker: true}})
		}, "tampered", "delete-marker", segment1},
		{"forged version over a manifest", func(m *memory) { m.put(manifest1, "x", []byte("forged"), now) }, "tampered", "overlaid-version", manifest1},
		{"delete marker over a manifest", func(m *memory) {
			m.objects[manifest1] = append(m.objects[manifest1], version{info: storage.Info{Key: manifest1, Version: "d", DeleteMarker: true}})
		}, "tampered", "delete-marker", manifest1},
		{"manifest gone but for a delete marker", func(m *memory) {
			m.objects[manifest1] = []version{{info: storage.Info{Key: manifest1, Version: "d", DeleteMarker: true}}}
		}, "tampered", "manifest-missing", manifest1},
		{"manifest changed", func(m *memory) { m.objects[manifest2][0].data[900] ^= 1 }, "tampered", "manifest-forged", manifest2},
		{"manifest gone", func(m *memory) { delete(m.objects, manifest2) }, "tampered", "manifest-missing", manifest2},
		{"genesis gone", func(m *memory) { delete(m.objects, genesis) }, "tampered", "manifest-missing", genesis},
		{"manifest of another number", func(m *memory) { m.objects[manifest3][0].data = m.objects[manifest2][0].data }, "tampered", "manifest-misplaced", manifest3},
		{"lock missing", func(m *memory) { m.objects[segment3][0].info.LockMode = "" }, "tampered", "lock-missing", segment3},
		{"lock weaker", func(m *memory) { m.objects[manifest3][0].info.LockMode = storage.Governance }, "tampered", "lock-mode", manifest3},
		{"lock shorter", func(m *memory) { m.objects[segment3][0].info.RetainUntil = now.AddDate(1, 0, 0) }, "tampered", "lock-shortened", segment3},
		{"stranger among the segments", func(m *memory) { m.put(root+"segments/x", "x", nil, now) }, "intact", "uncommitted", root + "segments/x"},
		{"stranger among the manifests", func(m *memory) { m.put(root+"manifests/x", "x", nil, now) }, "intact", "stranger", root + "manifests/x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l, m := vectors(t)
			test.tamper(m)
			r, err := l.Verify(context.Background(), VerifyOptions{Now: now})
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict != test.verdict {
				t.Errorf("the verdict is %s, want %s: %+v", r.Verdict, test.verdict, r.Findings)
			}
			if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Code == test.code && f.Object == test.object }) {
				t.Errorf("no finding %s at %q: %+v", test.code, test.object, r.Findings)
			}
			if (test.name == "genesis gone") != (len(r.NotChecked) == 4) {
				t.Errorf("not checked: %q", r.NotChecked)
			}
			findings := slices.DeleteFunc(r.Findings, func(f Finding) bool { return f.Code == Conflict }) // that of the vectors
			if test.verdict == "tampered" && len(findings) > 3 {
				t.Errorf("one act of tampering makes %d findings: %+v", len(findings), findings)
			}
		})
	}
}

func TestVerifyWithAnotherKey(t *testing.T) {
	l, _ := vectors(t)
	text, _ := chain.GenerateKey()
	key, _ := chain.ParseSigningKey(text)
	l.Key = key.Public()
	r, err := l.Verify(context.Background(), VerifyOptions{Now: now})
	if err != nil || r.Verdict != "tampered" || r.Counts.Entries != 0 || len(r.Findings) != 1 || r.Findings[0].Code != "other-key" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestExpiredSegmentsMayGo(t *testing.T) {
	l, m := vectors(t)
	delete(m.objects, segment1)
	r, err := l.Verify(context.Background(), VerifyOptions{Now: now.AddDate(20, 0, 0)})
	if err != nil || r.Verdict != "intact" || len(r.Findings) != 2 || r.Findings[0].Code != Silence || r.Findings[1].Code != Expired {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestFind(t *testing.T) {
	l, m := vectors(t)
	result, err := l.Find(context.Background(), "req-7003", nil)
	if err != nil || len(result.Matches) != 1 || len(result.Problems) != 0 {
		t.Fatalf("%+v, %v", result, err)
	}
	if b := result.Matches[0]; b.Seq != 7006 || b.Manifest != 3 || b.VersionID != "version-3" ||
		chain.Hash(sha256.Sum256(b.Line)) != b.EntryHash || !strings.Contains(string(b.Line), `"request_id":"req-7003"`) {
		t.Errorf("%+v", result.Matches)
	}
	for id, want := range map[string]string{"req-6999": "false false, true false", "req-9999": "true true"} {
		var marks []string
		if result, err = l.Find(context.Background(), id, nil); err != nil {
			t.Fatal(err)
		}
		for _, m := range result.Matches {
			marks = append(marks, fmt.Sprint(m.Redelivered, " ", m.Conflict))
		}
		if got := strings.Join(marks, ", "); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	// An id that only stands somewhere in a record is no match.
	if result, err = l.Find(context.Background(), "llama-3", nil); err != nil || len(result.Matches) != 0 || result.Searched != 7007 {
		t.Errorf("%+v, %v", result, err)
	}
	// What lies over the segment changes nothing; what was changed in it is not passed off as a record.
	m.put(segment3, "x", []byte("forged"), now)
	m.objects[segment1][0].data[5000] ^= 1
	result, err = l.Find(context.Background(), "req-7003", nil)
	if err != nil || len(result.Matches) != 1 || len(result.Problems) != 1 {
		t.Errorf("%+v, %v", result, err)
	}
}

// TestAnotherChainsRecords lie in this chain's place, signed by the same key: they are not this chain's.
func TestAnotherChainsRecords(t *testing.T) {
	l, m := vectors(t)
	l.Layout.Chain = "audit.example.com/other"
	for key, versions := range m.objects {
		for _, v := range versions {
			m.put(strings.Replace(key, "/vectors/", "/other/", 1), v.info.Version, v.data, v.info.RetainUntil)
		}
	}
	result, err := l.Find(context.Background(), "req-7003", nil)
	if err != nil || len(result.Matches) != 0 || len(result.Problems) != 4 || result.Searched != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	r, err := l.Verify(context.Background(), VerifyOptions{Now: now})
	if err != nil || r.Verdict != "tampered" || r.Counts.Entries != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestNoSuchChain(t *testing.T) {
	l, m := vectors(t)
	clear(m.objects)
	if _, err := l.Verify(context.Background(), VerifyOptions{Now: now}); err == nil || !strings.Contains(err.Error(), "no such chain") {
		t.Error(err)
	}
}

// soon is half an hour after the last manifest of the rotated chain.
var soon = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

func TestVerifyFollowsRotations(t *testing.T) {
	l, m := load(t, "rotated")
	r, err := l.Verify(t.Context(), VerifyOptions{Now: soon})
	if err != nil || r.Verdict != "intact" || r.Manifests != 7 || r.Segments != 3 || len(r.Rotations) != 2 || r.Rotations[1].Manifest != 5 {
		t.Errorf("%+v, %v", r, err)
	}
	if r.Proven == nil || r.Proven.NextN != 7 || r.Proven.KeySince != 5 {
		t.Errorf("%+v", r.Proven)
	}
	// The last rotation is taken away: nobody can say whose the manifest after it is.
	delete(m.objects, l.Layout.Manifest(5))
	r, err = l.Verify(t.Context(), VerifyOptions{Now: soon})
	if err != nil || r.Verdict != "tampered" || r.Manifests != 5 || r.Findings[0].Code != ManifestMissing || r.Findings[1].Code != ManifestForged ||
		!strings.HasSuffix(r.Findings[1].Text, ": its key was never announced") {
		t.Errorf("%+v, %v", r, err)
	}
	// A key that was replaced is no key any more.
	l, m = load(t, "rotated")
	m.objects[l.Layout.Manifest(6)] = m.objects[l.Layout.Manifest(4)] // signed with the key before
	if r, err = l.Verify(t.Context(), VerifyOptions{Now: soon}); err != nil || r.Verdict != "tampered" ||
		!strings.HasSuffix(r.Findings[0].Text, ": it is signed with a key that manifest 5 replaced") {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestVerifySince goes on from each head that an earlier verification left.
func TestVerifySince(t *testing.T) {
	for n := range uint64(7) {
		l, m := load(t, "rotated")
		later := make(map[string][]version)
		for key, versions := range m.objects {
			if number, ok := l.Layout.ParseManifestKey(key); ok && number > n {
				later[key] = versions
				delete(m.objects, key)
			}
		}
		r, err := l.Verify(t.Context(), VerifyOptions{Now: soon})
		if err != nil || r.Proven == nil || r.Proven.NextN != n+1 {
			t.Fatalf("up to %d: %+v, %v", n, r, err)
		}
		since := r.Proven
		for key, versions := range later {
			m.objects[key] = versions
		}
		m.opened.Store(0)
		r, err = l.Verify(t.Context(), VerifyOptions{Now: soon, Since: since})
		if err != nil || r.Verdict != "intact" || len(r.Findings) > 0 || r.Manifests != 6-n || r.TreeSize != 11 || r.Proven.NextN != 7 {
			t.Errorf("from %d: %+v, %v", n, r, err)
		}
		if segments := []int64{3, 2, 2, 2, 1, 1, 0}[n]; m.opened.Load() != int64(7-n)+1+segments { // and the genesis
			t.Errorf("from %d: %d objects were read", n, m.opened.Load())
		}
	}
}

// TestVerifyInterrupted: what was verified until then is proven, and can be gone on from.
func TestVerifyInterrupted(t *testing.T) {
	l, m := load(t, "rotated")
	ctx, cancel := context.WithCancel(t.Context())
	m.before = func(key string) {
		if key == l.Layout.Manifest(4) {
			cancel()
		}
	}
	r, err := l.Verify(ctx, VerifyOptions{Now: soon})
	if err != nil || r.Verdict != "unchecked" || !r.Interrupted || len(r.Findings) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	m.before = nil
	r, err = l.Verify(t.Context(), VerifyOptions{Now: soon, Since: r.Proven})
	if err != nil || r.Verdict != "intact" || r.TreeSize != 11 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestObjects has the listing of segments met by manifests in another order than their keys'.
func TestObjects(t *testing.T) {
	o := newObjects(func(yield func(stored, error) bool) {
		for _, key := range []string{"a", "b", "c", "d", "e"} {
			if !yield(stored{key: key}, nil) {
				return
			}
		}
	})
	defer o.stop()
	for _, want := range []struct {
		key string
		ok  bool
	}{{"b", true}, {"a", true}, {"bb", false}, {"d", true}, {"c", true}, {"c", false}} {
		if s, ok := o.take(want.key); ok != want.ok || ok && s.key != want.key {
			t.Errorf("%s: %v %v", want.key, s.key, ok)
		}
	}
	var rest []string
	o.rest(func(s stored) { rest = append(rest, s.key) })
	if !slices.Equal(rest, []string{"e"}) {
		t.Errorf("left over are %q", rest)
	}
}

// TestFrontier: the log is proven up to the first segment that is not.
func TestFrontier(t *testing.T) {
	var f frontier
	var marks []*mark
	for n := range uint64(5) {
		marks = append(marks, f.add(&chain.Head{NextN: n + 1}))
	}
	for _, step := range []struct {
		mark   int
		good   bool
		proven uint64
	}{{1, true, 0}, {0, true, 2}, {4, true, 2}, {3, false, 2}, {2, true, 3}} {
		if f.reach(marks[step.mark], step.good); f.proven.NextN != step.proven {
			t.Errorf("after %+v all is proven up to %d", step, f.proven.NextN)
		}
	}
	f.reach(f.add(&chain.Head{NextN: 9}), true)
	if f.proven.NextN != 3 || len(f.marks) > 0 {
		t.Errorf("what comes after a gap is proven: %d", f.proven.NextN)
	}
}
