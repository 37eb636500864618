package query

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// memory is a bucket in memory whose objects a test can tamper with: versions by key, the oldest first.
type memory struct {
	storage.Bucket // nil: what is not needed is not there
	objects        map[string][]version
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

func (m *memory) Open(_ context.Context, key, id string, _, _ int64) (io.ReadCloser, storage.Info, error) {
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

func (m *memory) List(_ context.Context, prefix, _ string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		var keys []string
		for key := range m.objects {
			if strings.HasPrefix(key, prefix) {
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
func vectors(t *testing.T) (*Log, *memory) {
	t.Helper()
	dir := filepath.Join("..", "chain", "testdata", "vectors")
	pem, err := os.ReadFile(filepath.Join(dir, "pub.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := chain.ParsePublicKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{objects: make(map[string][]version)}
	for _, object := range []struct{ key, version string }{
		{genesis, "g"}, {manifest1, "m1"}, {manifest2, "m2"}, {manifest3, "m3"}, {segment1, "version-1"}, {segment3, "version-3"},
	} {
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(object.key, root))))
		if err != nil {
			t.Fatal(err)
		}
		m.put(object.key, object.version, data, now.AddDate(8, 0, 0))
	}
	return &Log{Bucket: m, Layout: chain.Layout{Chain: strings.TrimSuffix(root, "/")}, Key: key}, m
}

func TestVerifyIntact(t *testing.T) {
	l, _ := vectors(t)
	r, err := l.Verify(context.Background(), VerifyOptions{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != "intact" || len(r.Findings) != 0 || r.Manifests != 4 || r.Segments != 2 || r.Counts.Entries != 7005 || r.Head == nil {
		t.Errorf("%+v", r)
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
			if (test.name == "genesis gone") != (len(r.NotChecked) == 3) {
				t.Errorf("not checked: %q", r.NotChecked)
			}
			if test.verdict == "tampered" && len(r.Findings) > 3 {
				t.Errorf("one act of tampering makes %d findings: %+v", len(r.Findings), r.Findings)
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
	if b := result.Matches[0]; b.Seq != 7004 || b.Manifest != 3 || b.VersionID != "version-3" ||
		chain.Hash(sha256.Sum256(b.Line)) != b.EntryHash || !strings.Contains(string(b.Line), `"request_id":"req-7003"`) {
		t.Errorf("%+v", result.Matches)
	}
	// An id that only stands somewhere in a record is no match.
	if result, err = l.Find(context.Background(), "llama-3", nil); err != nil || len(result.Matches) != 0 || result.Searched != 7005 {
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
